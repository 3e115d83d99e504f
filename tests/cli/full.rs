//! A file system without room: what stood there stays, the report is printed, and it is said what to do.

use super::*;

/// Runs a script of the shell's with a file system of 64 KiB mounted at `$full`, which nobody else sees. There,
/// `before` is a file, and no room for more is left.
fn on_a_full_disk(script: &str) -> Output {
    let folder = env::temp_dir().join(format!("tunproof-full-{:08x}", rand::random::<u32>()));
    fs::create_dir(&folder).unwrap();
    let mounted = "mount -t tmpfs -o size=64k tmpfs \"$full\" && cd \"$full\" && echo before > before || exit 99; \
                   cat /dev/zero > zeros 2>/dev/null; ";
    let mut command = Command::new("unshare");
    // An ordinary user becomes root of a user namespace for it.
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let output = command
        .args(["--mount", "--", "sh", "-c"])
        .arg(format!("{mounted}{script}"))
        .env("full", &folder)
        .env("tunproof", env!("CARGO_BIN_EXE_tunproof"))
        .output()
        .expect("unshare of util-linux");
    fs::remove_dir(&folder).unwrap();
    assert_ne!(output.status.code(), Some(99), "{}", stderr(&output));
    output
}

#[test]
fn a_full_disk_costs_nothing_that_was_there() {
    let case = cases::case();
    let kept = Scratch::new("full.json", &case.0);
    let path = cases::agentless();
    let judge = format!("\"$tunproof\" judge {} --format json", kept.path());
    let commands = [
        (format!("{judge} --pcap before"), Some(case.1.as_str())),
        (format!("{judge} --output before"), Some(case.1.as_str())),
        (
            format!(
                "\"$tunproof\" run q4-arp-and-firewall --path {} --dry-run --pcap before",
                path.path()
            ),
            None,
        ),
    ];
    for (command, report) in commands {
        let output = on_a_full_disk(&format!(
            "{command}; status=$?; cat before; ls -A; exit $status"
        ));
        let said = stdout(&output);
        let printed = said.strip_suffix("before\nbefore\nzeros\n");
        let printed = printed.unwrap_or_else(|| panic!("{command}: {said}{}", stderr(&output)));
        match report {
            Some(report) => assert_eq!(printed, report, "{command}"),
            None => assert!(
                printed.contains("UDP") || printed.contains("ARP"),
                "{command}: {printed}"
            ),
        }
        assert_eq!(code(&output), 2, "{command}");
        let expected = "error: cannot write to `before`\n  caused by: No space left on device (os error 28)\n\
                        hint: make room there, or name a file on another file system\n";
        assert!(
            stderr(&output).ends_with(expected),
            "{command}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn all_that_can_be_written_is_written() {
    let case = cases::case();
    let kept = Scratch::new("some.json", &case.0);
    let pcap = Scratch::new("some.pcapng", "before");
    let output = tunproof(&[
        "judge",
        kept.path(),
        "--output",
        "/dev/full",
        "--pcap",
        pcap.path(),
    ]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(stdout(&output).contains("unproven"), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("cannot write to `/dev/full`"),
        "{}",
        stderr(&output)
    );
    assert_eq!(fs::read(&pcap.0).unwrap()[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
}

#[test]
fn a_pipe_gets_what_a_file_gets() {
    let case = cases::case();
    let kept = Scratch::new("piped.json", &case.0);
    let pcap = Scratch::new("piped.pcapng", "");
    let report = Scratch::new("piped.txt", "");
    let files = tunproof(&[
        "judge",
        kept.path(),
        "--output",
        report.path(),
        "--pcap",
        pcap.path(),
    ]);
    assert_eq!(
        (code(&files), stdout(&files)),
        (3, ""),
        "{}",
        stderr(&files)
    );
    for (option, file) in [("--pcap", &pcap), ("--output", &report)] {
        let output = Command::new("bash")
            .arg("-c")
            .arg("mkfifo \"$3\" && { cat \"$3\" >&3 & } 3>&1 && \"$0\" judge \"$1\" \"$2\" \"$3\" >/dev/null; status=$?; \
                  wait; rm \"$3\"; exit $status")
            .args([env!("CARGO_BIN_EXE_tunproof"), kept.path(), option])
            .arg(format!("{}.fifo", file.path()))
            .output()
            .unwrap();
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(
            output.stdout == fs::read(&file.0).unwrap(),
            "{option}: {}",
            stdout(&output)
        );
        let device = tunproof(&["judge", kept.path(), option, "/dev/stdout"]);
        assert_eq!(code(&device), 3, "{}", stderr(&device));
    }
}
