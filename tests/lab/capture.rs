//! A capture file of the client as a vantage.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use crate::bench::wait_until;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What `verify` of a lab says whose client has no `via`, with more arguments, as [`read`] has it.
fn verified_without_client(lab: &TestLab, more: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let path = fs::read_to_string(lab.directory().join("path.toml")).unwrap();
    let (path, _) = path.trim_end().rsplit_once('\n').unwrap();
    let file = lab.directory().join("no-client.toml");
    fs::write(&file, path).unwrap();
    let output = Command::new(TUNPROOF)
        .args(["verify", "--format", "json"])
        .arg(&file)
        .args(more)
        .output()
        .unwrap();
    read(output)
}

/// Of a report: exit status, the evidence's summaries at `client.in` and `client.out`, stderr.
fn read(output: Output) -> (Option<i32>, Vec<String>, String) {
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    let at_client = report["evidence"].as_array().unwrap().iter();
    let at_client = at_client.filter(|item| {
        let station = item["station"].as_str().unwrap_or_default();
        station.starts_with("client.")
    });
    let summaries = at_client
        .map(|item| format!("{} {}", item["station"], item["summary"]))
        .collect();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), summaries, stderr)
}

#[test]
fn a_capture_of_the_client_is_a_vantage_without_an_agent() {
    const KEY: &str = "00112233445566778899aabbccddeeff";
    let lab = TestLab::up("capture");
    let file = lab.directory().join("client.pcap");
    let later = lab.directory().join("later.pcap");
    let [from_file, from_later] =
        [&file, &later].map(|file| format!("client.in={}", file.display()));
    let mut tcpdump = lab.command(&["exec", "c", "tcpdump", "-U", "-i", "eth0", "-w"]);
    let tcpdump = Running(tcpdump.arg(&file).stderr(Stdio::null()).spawn().unwrap());
    wait_until("tcpdump captures", || {
        fs::metadata(&file).is_ok_and(|file| file.len() >= 24)
    });
    let arguments = ["--session", KEY, "--add", &from_file];
    let packets = lab.directory().join("packets.pcapng");
    let with_packets = [&arguments[..], &["--pcap", packets.to_str().unwrap()]].concat();
    let (code, seen, stderr) = verified_without_client(&lab, &with_packets);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("of this session"), "{stderr}");
    for (station, what) in [
        ("client.in", "SYN-ACK, answering tunnel-syn"),
        ("client.out", "RST, answering tunnel-syn"),
    ] {
        let is_there = |line: &String| line.contains(station) && line.contains(what);
        assert!(seen.iter().any(is_there), "{station} {what}: {seen:#?}");
    }
    // The evidence's packets are a capture, too, in which the client is an interface.
    let matched = Command::new(TUNPROOF)
        .args(["match", "--session", KEY])
        .arg(&packets)
        .output()
        .unwrap();
    assert_eq!(matched.status.code(), Some(0), "{}", text(&matched));
    let at_client = |line: &&str| line.contains(" client if") && line.contains(" tunnel-syn.");
    assert!(
        text(&matched).lines().any(|line| at_client(&line)),
        "{}",
        text(&matched)
    );

    // A case that was kept takes the capture afterwards, too.
    let case = lab.directory().join("case.json");
    let kept = ["--session", KEY, "--save", case.to_str().unwrap()];
    let (code, seen, stderr) = verified_without_client(&lab, &kept);
    assert_eq!((code, seen.len()), (Some(0), 0), "{stderr}");
    let mut judge = Command::new(TUNPROOF);
    judge.args(["judge", "--format", "json", "--add", &from_file]);
    let (code, seen, stderr) = read(judge.arg(case).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("of this session"), "{stderr}");
    let is_syn_ack = |line: &String| line.contains("SYN-ACK, answering tunnel-syn");
    assert!(seen.iter().any(is_syn_ack), "{seen:#?}");

    // What was captured before does not count, though the key makes the same probes again.
    drop(tcpdump);
    let (_, seen, stderr) = verified_without_client(&lab, &arguments);
    assert!(seen.is_empty(), "{seen:#?}");
    assert!(
        stderr.contains("none of this session; that proves nothing"),
        "{stderr}"
    );

    // A file that is not there is waited for.
    let copied = later.clone();
    let copier = thread::spawn(move || {
        thread::sleep(Duration::from_secs(4));
        fs::copy(file, copied).unwrap();
    });
    let arguments = ["--session", KEY, "--add", &from_later];
    let (code, seen, stderr) = verified_without_client(&lab, &arguments);
    copier.join().unwrap();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stderr.contains("is waited for after the probes"),
        "{stderr}"
    );
    assert!(!seen.is_empty());
}

/// A case of a lab whose `via`s are these, by their place in the path file, kept while tcpdump runs on hosts.
fn kept(lab: &TestLab, vias: &[usize], captures: &[(&str, &str)]) -> (PathBuf, Vec<PathBuf>) {
    let all = fs::read_to_string(lab.directory().join("path.toml")).unwrap();
    let mut number = 0;
    let mut keeps = |line: &&str| {
        let is_via = line.starts_with("via = ");
        number += usize::from(is_via);
        !is_via || vias.contains(&(number - 1))
    };
    let lines: Vec<_> = all.lines().filter(&mut keeps).collect();
    let path = lab.directory().join("few.toml");
    fs::write(&path, lines.join("\n")).unwrap();
    let files: Vec<_> = (0..captures.len())
        .map(|number| lab.directory().join(format!("{number}.pcap")))
        .collect();
    let mut running = Vec::new();
    for ((host, filter), file) in captures.iter().zip(&files) {
        let _ = fs::remove_file(file);
        let mut tcpdump = lab.command(&["exec", host, "tcpdump", "-U", "-i", "eth0", "-w"]);
        tcpdump.arg(file).args(filter.split_whitespace());
        running.push(Running(tcpdump.stderr(Stdio::null()).spawn().unwrap()));
        wait_until("tcpdump captures", || {
            fs::metadata(file).is_ok_and(|file| file.len() >= 24)
        });
    }
    let case = lab.directory().join("kept.json");
    let output = Command::new(TUNPROOF)
        .args(["verify", "--save"])
        .args([&case, &path])
        .output()
        .unwrap();
    let code = output.status.code();
    assert!(matches!(code, Some(1 | 3)), "{}", text(&output));
    thread::sleep(Duration::from_millis(1500));
    (case, files)
}

/// What the real server sends proves nothing of the client, although the file's name says so.
#[test]
fn a_capture_of_another_host_is_refused() {
    let lab = TestLab::up("elsewhere");
    let broken = lab.run(&["break", "spoofed-source-filtered"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let judged = |case: &Path, station: &str, file: &Path| {
        let output = Command::new(TUNPROOF)
            .args(["judge", "--add"])
            .arg(format!("{station}={}", file.display()))
            .arg(case)
            .output()
            .unwrap();
        (output.status.code(), text(&output))
    };
    let captures = [
        ("s", ""),
        ("s", "host 192.0.2.10"),
        ("c", "host 192.0.2.10"),
        ("d", ""),
    ];
    let (case, files) = kept(&lab, &[0, 1], &captures);
    for (file, words) in [
        (
            &files[0],
            "in the tunnel, which does not come by the client",
        ),
        (&files[1], "as it left s for its router 203.0.113.1"),
        (
            &files[3],
            "in the tunnel, which does not come by the client",
        ),
    ] {
        let (code, said) = judged(&case, "client.in", file);
        assert_eq!(code, Some(2), "{words}: {said}");
        assert!(said.contains("was captured elsewhere, and does not count: "));
        assert!(said.contains(words), "{words}: {said}");
    }
    // The client's own counts.
    let (code, said) = judged(&case, "client.in", &files[2]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(" of this session"), "{said}");

    // The director alone: its packets on their way are none that came to the real server.
    assert!(lab.run(&["mend"]).status.success());
    let broken = lab.run(&["break", "tunnel-lost-in-transit"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let (case, files) = kept(&lab, &[0, 2], &[("d", ""), ("s", "")]);
    let (code, said) = judged(&case, "realserver.in", &files[0]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("as it left director for its router"),
        "{said}"
    );
    let (code, said) = judged(&case, "realserver.in", &files[1]);
    assert_ne!(code, Some(2), "{said}");

    // The real server alone: what the client sends has not come to the director yet.
    let (case, files) = kept(&lab, &[1], &[("c", "")]);
    let (code, said) = judged(&case, "director.in", &files[0]);
    assert_eq!(code, Some(2), "{said}");
    let words = "which passes the director only if it is the real server's router as well";
    assert!(said.contains(words), "{said}");
}
