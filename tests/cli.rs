//! The command from outside: what it prints where, and its exit status.

use std::env;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

fn tunproof(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(arguments)
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A file that is removed at the test's end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = env::temp_dir().join(format!("tunproof-cli-{}-{name}", process::id()));
        fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const PATH: &str = r#"[path]
vip = "192.0.2.10"
port = 80

[director]
ip = "192.0.2.2"

[[realserver]]
name = "rs1"
ip = "203.0.113.5"

[client]
ip = "198.51.100.7"
"#;

#[test]
fn help_goes_to_stdout_and_shows_how_it_is_used() {
    for arguments in [
        &["--help"][..],
        &["verify", "--help"],
        &["director", "--help"],
        &["realserver", "--help"],
        &["listen", "--help"],
        &["match", "--help"],
        &["judge", "--help"],
        &["run", "--help"],
        &["spoofcheck", "--help"],
        &["suite", "--help"],
    ] {
        let output = tunproof(arguments);
        assert_eq!((code(&output), stderr(&output)), (0, ""), "{arguments:?}");
        assert!(
            stdout(&output).contains("Examples:\n  tunproof "),
            "{arguments:?}"
        );
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for arguments in [
        &[][..],
        &["prove"],
        &["verify"],
        &["verify", "path.toml", "--format", "yaml"],
        &["verify", "path.toml", "--timeout", "0s"],
        &["verify", "path.toml", "--rate", "0"],
        &["director", "--vip", "192.0.2.10", "--cip", "198.51.100.7"],
        &["listen", "--session", "12", "--vip", "192.0.2.10"],
        &["match", "c.pcap"],
        &["spoofcheck", "path.toml", "--toward", "realserver"],
        &["judge"],
    ] {
        let output = tunproof(arguments);
        assert_eq!((code(&output), stdout(&output)), (2, ""), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_address_says_what_was_expected() {
    for (vip, words) in [
        ("2001:db8::1", "tunproof knows IPv4 only"),
        ("224.0.0.1", "expected a unicast address"),
        ("lb.example.org", "names are not looked up"),
    ] {
        let output = tunproof(&[
            "director",
            "--rip",
            "203.0.113.5",
            "--cip",
            "198.51.100.7",
            "--vip",
            vip,
        ]);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let output = tunproof(&[
        "director",
        "--vip",
        "192.0.2.10",
        "--rip",
        "192.0.2.10",
        "--cip",
        "198.51.100.7",
    ]);
    assert_eq!(code(&output), 2);
    assert_eq!(
        stderr(&output),
        "error: --vip and --rip are the same address 192.0.2.10\n"
    );
}

#[test]
fn a_wrong_path_file_is_shown_at_its_place() {
    let file = Scratch::new("wrong.toml", &PATH.replace("port = 80", "prot = 80"));
    let output = tunproof(&["verify", file.path()]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    let place = format!("--> {}:3:1", file.path());
    for words in [
        place.as_str(),
        "unknown key `prot`",
        "did you mean `port`?",
        "`[path]` has no `port`",
    ] {
        assert!(
            stderr(&output).contains(words),
            "{words}\n{}",
            stderr(&output)
        );
    }
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}

#[test]
fn a_missing_path_file_and_one_without_vantages_are_status_2() {
    let output = tunproof(&["verify", "/nonexistent/path.toml"]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert_eq!(
        stderr(&output),
        "error: cannot read the path file `/nonexistent/path.toml`\n  \
         caused by: No such file or directory (os error 2)\n"
    );

    let file = Scratch::new("nowhere.toml", PATH);
    let output = tunproof(&["verify", file.path()]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert!(
        stderr(&output).contains("none has a `via`\nhint: add `via = "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_vantage_without_an_agent_is_status_2_and_the_report_is_printed_all_the_same() {
    let text = PATH.replace(
        "[client]",
        "[client]\nvia = \"sh -c 'echo ouch >&2; exit 7' --\"",
    );
    let file = Scratch::new("agentless.toml", &text);
    let output = tunproof(&["verify", file.path(), "--format", "json"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    for words in ["no agent on client", "its stderr: ouch", "hint: "] {
        assert!(
            stderr(&output).contains(words),
            "{words}\n{}",
            stderr(&output)
        );
    }
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["schema"], "tunproof.report/1");
    assert_eq!(report["hops"].as_array().unwrap().len(), 12);
}

#[test]
fn a_missing_agent_says_what_to_do() {
    for (via, reason, hint) in [
        (
            "no-such-program lb1",
            "cannot run `no-such-program`",
            "hint: `via` begins with `no-such-program`",
        ),
        (
            "sh -c \"echo it\\'s Ubuntu; cat\"",
            "expected an agent's hello, got `it's Ubuntu`",
            "tunproof agent` must print `tunproof agent 1 ",
        ),
        (
            "sh -c 'exec no-such-tunproof' --",
            "the agent ended (exit status: 127)",
            "TUNPROOF_AGENT=/path/to/tunproof`",
        ),
        (
            "sh -c 'echo tunproof agent 7 9.9.9; cat'",
            "the agent there is tunproof 9.9.9 and speaks protocol 7",
            "hint: install tunproof ",
        ),
    ] {
        let via = format!("[client]\nvia = {}", toml_string(via));
        let file = Scratch::new("wrong-via.toml", &PATH.replace("[client]", &via));
        let output = tunproof(&["verify", file.path()]);
        assert_eq!(code(&output), 2, "{via}\n{}", stderr(&output));
        for words in [&format!("error: no agent on client: {reason}"), hint] {
            assert!(
                stderr(&output).contains(words),
                "{words}\n{}",
                stderr(&output)
            );
        }
    }
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[test]
fn a_file_that_cannot_be_written_is_known_before_anything_is_started() {
    let text = PATH.replace(
        "[client]",
        "[client]\nvia = \"sh -c 'echo started >&2' --\"",
    );
    let file = Scratch::new("unwritable.toml", &text);
    for option in ["--output", "--pcap"] {
        let output = tunproof(&["verify", file.path(), option, "/nonexistent/file"]);
        assert_eq!((code(&output), stdout(&output)), (2, ""), "{option}");
        assert_eq!(
            stderr(&output),
            "error: cannot write to `/nonexistent/file`\n  \
             caused by: No such file or directory (os error 2)\n",
            "{option}"
        );
    }
}

#[test]
fn explain_lists_explains_and_guesses() {
    let output = tunproof(&["explain"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    assert!(stdout(&output).contains("\n  rp-filter-drops\n"));

    let output = tunproof(&["explain", "rp-filter-drops"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    assert!(
        stdout(&output).contains("HOWTO  Q.2"),
        "{}",
        stdout(&output)
    );

    let output = tunproof(&["explain", "rp-filter-drop"]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert_eq!(
        stderr(&output),
        "error: unknown code `rp-filter-drop`\n\
         hint: did you mean `tunproof explain rp-filter-drops`?\n\
         hint: `tunproof explain` lists all codes\n"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .arg("explain")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, ""));
}

const KEY: &str = "00112233445566778899aabbccddeeff";

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `tunproof` with something on its stdin.
fn tunproof_reading(input: &[u8], arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that has seen enough reads no further.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn match_tells_packet_probe_form_and_sum() {
    let capture = data("kernel-answers.pcap");
    let output = tunproof(&["match", &capture, "--session", KEY]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(
        lines[13],
        "01:45:17.851191 #14    -          spoof-trace.3     203.0.113.1 > 192.0.2.10 ICMP time exceeded, \
         quoting spoof-trace.3 (TTL 1), ttl 64, the probe sent with ttl 1"
    );
    assert_eq!(
        &lines[20..],
        [
            "",
            &format!("{capture}: 20 packets, 20 of this session"),
            "  tunnel-udp      ICMP port unreachable 1, ICMP protocol unreachable for the tunnel 1, in IPIP 1, \
             itself 1",
            "  tunnel-syn      RST 1, SYN-ACK 1, closing RST 1, itself 1",
            "  spoof-trace     ICMP port unreachable 1, ICMP time exceeded 1, itself 1",
            "  control-trace   ICMP port unreachable 1, itself 1",
            "  spoof-synack    RST 1, itself 1",
            "  service         RST/ACK 1, itself 1",
            "  control-synack  RST 1, itself 1",
        ]
    );
    let other = KEY.replace('0', "1");
    let output = tunproof(&["match", &capture, "--session", &other]);
    assert_eq!((code(&output), stderr(&output)), (3, ""));
    let expected = format!("{capture}: 20 packets, none of this session\n");
    assert_eq!(stdout(&output), expected);
}

/// Ctrl-C in a terminal goes to the whole pipeline: tcpdump then writes what it still has, and ends.
#[test]
fn match_reads_a_stream_to_its_end_although_interrupted() {
    let capture = fs::read(data("kernel-answers.pcap")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(["match", "-", "--session", KEY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(&capture[..300]).unwrap();
    // It has begun.
    let mut said = vec![0; 1];
    stdout.read_exact(&mut said).unwrap();
    let process = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGINT).unwrap();
    thread::sleep(Duration::from_millis(200));
    stdin.write_all(&capture[300..]).unwrap();
    drop(stdin);
    stdout.read_to_end(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains("\n-: 20 packets, 20 of this session\n"),
        "{said}"
    );
}

#[test]
fn match_compares_addresses_with_the_path_file() {
    let file = Scratch::new("match.toml", &PATH.replace("192.0.2.10", "192.0.2.99"));
    let capture = data("captures/sll2.pcap");
    let output = tunproof(&["match", &capture, "--session", KEY, "--path", file.path()]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    let line = stdout(&output).lines().next().unwrap();
    let tail = "if2 in     spoof-trace.3     192.0.2.10:53658 > 198.51.100.7:33483 UDP, ttl 64, sent with ttl \
                64; source address 192.0.2.10, sent as 192.0.2.99";
    assert!(line.ends_with(tail), "{line}");
}

/// Schema `tunproof.match/1`, re-declared.
mod match_schema {
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Matches {
        pub(crate) schema: String,
        pub(crate) file: String,
        pub(crate) format: Option<String>,
        pub(crate) complete: bool,
        pub(crate) problem: Option<String>,
        pub(crate) packets: u64,
        pub(crate) dropped: Option<u64>,
        pub(crate) interfaces: Vec<Interface>,
        pub(crate) unread: std::collections::BTreeMap<String, u64>,
        pub(crate) cut: u64,
        pub(crate) sightings: Vec<Sighting>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "that it is there is what is tested")]
    pub(crate) struct Interface {
        pub(crate) name: Option<String>,
        pub(crate) link_type: u16,
        snap_length: u32,
        filter: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "that it is there is what is tested")]
    pub(crate) struct Sighting {
        pub(crate) packet: u64,
        pub(crate) offset: u64,
        pub(crate) time: Option<String>,
        interface: Option<String>,
        interface_index: Option<u32>,
        direction: Option<String>,
        pub(crate) vlans: Vec<u16>,
        pub(crate) captured: usize,
        pub(crate) length: usize,
        pub(crate) probe: String,
        pub(crate) form: String,
        pub(crate) icmp: Option<Icmp>,
        certainty: String,
        source: String,
        destination: String,
        ttl: u8,
        sent_ttl: Option<u8>,
        inner_ttl: Option<u8>,
        tunnel: Option<Tunnel>,
        flow: Option<Flow>,
        pub(crate) altered: Option<Vec<Alteration>>,
        summary: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(crate) struct Icmp {
        pub(crate) r#type: u8,
        pub(crate) code: u8,
        pub(crate) of: String,
        pub(crate) from: String,
        pub(crate) quoted: Option<u16>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "that it is there is what is tested")]
    pub(crate) struct Tunnel {
        source: String,
        destination: String,
        ttl: u8,
        identification: u16,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "that it is there is what is tested")]
    pub(crate) struct Flow {
        protocol: String,
        source: String,
        source_port: u16,
        destination: String,
        destination_port: u16,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "that it is there is what is tested")]
    pub(crate) struct Alteration {
        field: String,
        sent: String,
        seen: String,
    }
}

#[test]
fn match_prints_its_schema() {
    let matches = |capture: &str| -> match_schema::Matches {
        let output = tunproof(&["match", capture, "--session", KEY, "--format", "json"]);
        assert_eq!((code(&output), stderr(&output)), (0, ""));
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let capture = data("kernel-answers.pcap");
    let all = matches(&capture);
    assert_eq!(
        (all.schema.as_str(), all.file),
        ("tunproof.match/1", capture)
    );
    assert_eq!((all.format.as_deref(), all.packets), (Some("pcap"), 20));
    assert_eq!((all.complete, all.problem, all.dropped), (true, None, None));
    assert_eq!(
        (all.interfaces[0].link_type, &all.interfaces[0].name),
        (1, &None)
    );
    assert!(all.unread.is_empty());
    assert_eq!(all.cut, 0);
    assert_eq!(all.sightings.len(), 20);
    let unreachable = &all.sightings[3];
    assert_eq!(
        (unreachable.packet, unreachable.form.as_str()),
        (4, "icmp-error")
    );
    let expected = match_schema::Icmp {
        r#type: 3,
        code: 2,
        of: "tunnelled".to_owned(),
        from: "203.0.113.5".to_owned(),
        quoted: Some(64),
    };
    assert_eq!(unreachable.icmp.as_ref(), Some(&expected));
    assert!(
        all.sightings
            .iter()
            .all(|seen| seen.altered.as_ref().is_some_and(Vec::is_empty))
    );

    let snapped = matches(&data("captures/ethernet-snap-60.pcap"));
    let cut = &snapped.sightings[2];
    assert_eq!(
        (cut.probe.as_str(), cut.captured, cut.length),
        ("tunnel-udp.3", 44, 64)
    );
    assert!(cut.altered.is_none() && cut.offset > 24 && cut.time.is_some());
    assert_eq!(
        matches(&data("captures/ethernet-qinq.pcap")).sightings[0].vlans,
        [8, 7]
    );
}

#[test]
fn match_says_what_it_could_not_read() {
    let match_stdin = |input: &[u8]| tunproof_reading(input, &["match", "-", "--session", KEY]);
    let whole = fs::read(data("kernel-answers.pcap")).unwrap();

    // Cut off in the middle of the last packet: what was read counts.
    let output = match_stdin(&whole[..1650]);
    assert_eq!(code(&output), 0);
    assert!(stdout(&output).contains("\n-: 19 packets, 19 of this session\n"));
    assert_eq!(
        stderr(&output),
        "warning: -: packet 20 at offset 1562 is cut off: 102 octets needed, 88 there; what was read counts\n"
    );
    // Before any packet: there is nothing that counts.
    let output = match_stdin(&whole[..30]);
    assert_eq!(
        (code(&output), stdout(&output)),
        (2, "-: 0 packets, none of this session\n")
    );
    let output = match_stdin(b"");
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert!(
        stderr(&output)
            .contains("the file header at offset 0 is cut off: 24 octets needed, 0 there")
    );
    // Each packet cut off behind its IP header: none can be told, and that is no "none".
    let bytes = fs::read(data("captures/raw.pcap")).unwrap();
    let mut short = bytes[..24].to_vec();
    let mut at = 24;
    while at < bytes.len() {
        let captured = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        short.extend(&bytes[at..at + 8]);
        short.extend(24_u32.to_le_bytes());
        short.extend(&bytes[at + 12..at + 16 + 24]);
        at += 16 + captured;
    }
    let output = match_stdin(&short);
    let expected = "-: 3 packets, none of this session\n  3 cut off too early to tell whose they are: \
                    `tcpdump -s 0` keeps packets whole\n";
    assert_eq!((code(&output), stdout(&output)), (3, expected));
    // Compressed: what to type.
    let output = match_stdin(&[0x1f, 0x8b, 8, 0]);
    assert!(stderr(&output).contains(" (gzip), "), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: `zcat - | tunproof match - …`\n"));
    // Damaged in the middle.
    let mut damaged = whole.clone();
    damaged[24 + 8..][..4].fill(0xff);
    let output = match_stdin(&damaged);
    assert_eq!(code(&output), 2);
    assert_eq!(
        stderr(&output),
        "error: cannot read the capture `-`\n  \
         caused by: packet 1 at offset 24: the captured length is 4294967295, not at most 262144\n"
    );

    for (capture, words) in [
        (
            "captures/radiotap.pcap",
            "link type 127 is none that tunproof reads",
        ),
        ("make_kernel.sh", "no capture file: it begins with 23212f62"),
        ("nothing.pcap", "No such file or directory"),
    ] {
        let output = tunproof(&["match", &data(capture), "--session", KEY]);
        assert_eq!(code(&output), 2, "{capture}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn a_capture_is_added_only_where_it_says_something() {
    let text = PATH.replace("[[realserver]]", "via = \"local\"\n\n[[realserver]]");
    let file = Scratch::new("add.toml", &text);
    let add = |addition: &str, more: &[&str]| {
        let arguments = [&["verify", file.path(), "--add", addition], more].concat();
        let output = tunproof(&arguments);
        assert_eq!((code(&output), stdout(&output)), (2, ""), "{addition}");
        stderr(&output).to_owned()
    };
    for (addition, words) in [
        (
            "client.in",
            "expected STATION=FILE, such as `client.in=client.pcap`",
        ),
        (
            "client=c.pcap",
            "`client` is no station: expected one of `client.in`, ",
        ),
        (
            "client.in@rs1=c.pcap",
            "`client.in` is no real server's station: `@` is too much",
        ),
        (
            "director.in=d.pcap",
            "a capture for director.in says nothing new: director has a `via`",
        ),
        (
            "realserver.in@rs2=s.pcap",
            "hint: `--add realserver.in@rs1=FILE`",
        ),
        (
            "client.in=/nonexistent/c.pcap",
            "cannot open the capture `/nonexistent/c.pcap`",
        ),
    ] {
        let said = add(addition, &[]);
        assert!(said.contains(words), "{addition}: {said}");
    }
    let said = add("client.in=a", &["--add", "client.in=b"]);
    assert!(
        said.contains("error: two captures for client.in\n"),
        "{said}"
    );
    // tcpdump without `-U` writes nothing at first.
    let empty = Scratch::new("empty.pcap", "");
    let said = add(
        &format!("client.in={}", empty.path()),
        &["--timeout", "300ms"],
    );
    assert!(said.contains("no capture began in `"), "{said}");
    assert!(said.contains("hint: run tcpdump with `-U`"), "{said}");
}

/// A path file whose only agent does not start, so that a run of it needs no rights and ends at once.
fn agentless() -> Scratch {
    let text = PATH.replace("[client]", "[client]\nvia = \"sh -c 'exit 7' --\"");
    Scratch::new(&format!("{:08x}.toml", rand::random::<u32>()), &text)
}

/// What `--save` keeps of such a run, and its report.
fn case() -> (String, String) {
    let (path, file) = (agentless(), Scratch::new("kept.json", ""));
    let output = tunproof(&[
        "verify",
        path.path(),
        "--save",
        file.path(),
        "--format",
        "json",
    ]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    (
        fs::read_to_string(file.path()).unwrap(),
        stdout(&output).to_owned(),
    )
}

#[test]
fn a_case_is_judged_from_a_file_or_stdin_as_it_was() {
    let (case, report) = case();
    let file = Scratch::new("case.json", &case);
    let judged = tunproof(&["judge", file.path(), "--format", "json"]);
    assert_eq!(stdout(&judged), report);
    assert_eq!((code(&judged), stderr(&judged)), (3, ""));
    let judged = tunproof_reading(case.as_bytes(), &["judge", "-", "--format", "json"]);
    assert_eq!(stdout(&judged), report);
    // One that reformats it harms nothing.
    let value: serde_json::Value = serde_json::from_str(&case).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let judged = tunproof_reading(pretty.as_bytes(), &["judge", "-", "--format", "json"]);
    assert_eq!(stdout(&judged), report);
}

#[test]
fn what_is_no_case_says_where_and_what_to_do() {
    let (case, report) = case();
    let replaced = |from: &str, to: &str| {
        assert!(case.contains(from), "{from}: {case}");
        case.replacen(from, to, 1)
    };
    let version = format!("\"tunproof\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let later = "\"tunproof\": \"9.9.9\"";
    let ours = "\"tunproof.evidence/1\"";
    let future = replaced(ours, "\"tunproof.evidence/2\"").replacen(&version, later, 1);
    let grown = replaced(&version, &format!("{later}, \"weather\": \"fair\""));
    for (text, words) in [
        (
            String::new(),
            &["it ends too soon: EOF", "line 1 column 0"][..],
        ),
        (
            case[..case.len() / 2].to_owned(),
            &["it ends too soon: EOF", "hint: copy it again"],
        ),
        (
            "GIF89a".to_owned(),
            &[
                "expected value at line 1 column 1",
                "hint: a case is what `tunproof verify PATH.toml --save FILE`",
            ],
        ),
        (
            "{}".to_owned(),
            &[
                "its schema is not named, and tunproof ",
                " reads `tunproof.evidence/1`",
            ],
        ),
        (
            report,
            &[
                "its schema is `tunproof.report/1`",
                "hint: this is a report",
            ],
        ),
        (
            future,
            &[
                "its schema is `tunproof.evidence/2`, made by tunproof 9.9.9, and tunproof ",
                "hint: judge it with tunproof 9.9.9, which made it, or a later version",
            ],
        ),
        (
            grown,
            &[
                "unknown field `weather`, expected",
                "at line 3 column ",
                "tunproof 9.9.9",
            ],
        ),
        (
            replaced("\"vip\":\"192.0.2.10\"", "\"vip\":\"192.0.2\""),
            &["invalid IPv4 address syntax at line 8 column "],
        ),
        (
            replaced(
                "\"vantages\":[\"client\"]",
                "\"vantages\":[{\"realserver\":1}]",
            ),
            &[
                "plan: vantages: there is no path 1: the plan has 1, from 0",
                "hint: somebody has changed",
            ],
        ),
        (
            replaced("\"excused\": [", "\"excused\": [\"tunnel-syn.4\""),
            &["excused: tunnel-syn.4 is none of the probes"],
        ),
    ] {
        let judged = tunproof_reading(text.as_bytes(), &["judge", "-"]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{words:?}");
        for words in words {
            let said = stderr(&judged);
            assert!(said.contains(words), "{words}\n{said}");
        }
    }
    for (file, words) in [
        ("/nonexistent/case.json", "No such file or directory"),
        ("/", "Is a directory"),
    ] {
        let judged = tunproof(&["judge", file]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{file}");
        let said = format!("error: cannot read the case `{file}`\n  caused by: {words}");
        assert!(stderr(&judged).starts_with(&said), "{}", stderr(&judged));
    }
    // A capture that is no capture is an error, too.
    let file = Scratch::new("captureless.json", &case);
    for (added, words) in [
        ("director.in=/nonexistent/c.pcap", "cannot open the capture"),
        ("director.in=/dev/null", "cannot read the capture"),
        ("client.in=/dev/null", "client has a `via`"),
    ] {
        let judged = tunproof(&["judge", file.path(), "--add", added]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{added}");
        assert!(stderr(&judged).contains(words), "{}", stderr(&judged));
    }
}

/// The case of a suite that was played once, from a host without an agent.
fn suite_case() -> String {
    let path = agentless();
    let kept = Scratch::new(&format!("{:08x}.json", rand::random::<u32>()), "");
    let suite = ["run", "q2-decapsulated-packets", "--path", path.path()];
    let output = tunproof(&[&suite[..], &["--save", kept.path()]].concat());
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    fs::read_to_string(kept.path()).unwrap()
}

#[test]
fn the_rounds_of_a_suite_are_judged_together() {
    let (one, proof) = (suite_case(), {
        let path = agentless();
        let kept = Scratch::new("proof.json", "");
        tunproof(&["verify", path.path(), "--save", kept.path()]);
        fs::read_to_string(kept.path()).unwrap()
    });
    let judge = |text: &str| {
        let arguments = ["judge", "-", "--format", "json"];
        tunproof_reading(text.as_bytes(), &arguments)
    };
    let both = format!("[\n{one},\n{one}]\n");
    let judged = judge(&both);
    assert_eq!(code(&judged), 3, "{}", stderr(&judged));
    let report: serde_json::Value = serde_json::from_str(stdout(&judged)).unwrap();
    assert_eq!(
        (&report["rounds"], &report["round"]),
        (&2.into(), &1.into())
    );

    // Wherever the file ends too soon, even between two rounds, that is told.
    let end = both.trim_end().len();
    for length in (0..end).step_by(997).chain([one.len() + 2, end - 1]) {
        let judged = judge(&both[..length]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{length}");
        let said = stderr(&judged);
        assert!(said.contains("it ends too soon"), "{length}: {said}");
    }
    for (text, words) in [
        ("[]".to_owned(), "rounds: there is none"),
        (
            format!("[{one},{proof}]"),
            "round 2: plan: it plays another suite than the first, another path, or none",
        ),
        (
            format!(
                "[{one},{}]",
                one.replace("\"excused\": [", "\"excused\": [\"tunnel-syn.4\"")
            ),
            "round 2: excused: tunnel-syn.4 is none of the probes",
        ),
        (
            format!("[{one},{}]", one.replace("evidence/1", "evidence/2")),
            "its schema is `tunproof.evidence/2`",
        ),
    ] {
        let judged = judge(&text);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{words}");
        assert!(stderr(&judged).contains(words), "{}", stderr(&judged));
    }
    let kept = Scratch::new("rounds.json", &both);
    let judged = tunproof(&["judge", kept.path(), "--add", "director.in=-"]);
    assert_eq!((code(&judged), stdout(&judged)), (2, ""));
    let said = "error: the capture `-` can be read once, and the case has 2 rounds\nhint: ";
    assert!(stderr(&judged).starts_with(said), "{}", stderr(&judged));
}

#[test]
fn a_dry_run_shows_every_round_and_writes_it() {
    let text = PATH.replace("[[realserver]]", "via = \"ssh d\"\n\n[[realserver]]");
    let path = Scratch::new("dry.toml", &text);
    let packets = Scratch::new("dry.pcapng", "");
    let output = tunproof(&[
        "run",
        "lvs-tun",
        "--path",
        path.path(),
        "--dry-run",
        "--repeat",
        "2",
        "--session",
        KEY,
        "--pcap",
        packets.path(),
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let suite = ["run", "lvs-tun", "--path", path.path()];
    let saves = tunproof(&[&suite[..], &["--dry-run", "--save", "/nonexistent/c"]].concat());
    assert_eq!((code(&saves), stdout(&saves)), (2, ""));
    assert_eq!(
        stderr(&saves),
        "error: a dry run has nothing to `--save`: nothing is sent, and nothing seen\n\
         hint: `--pcap FILE` writes the packets that would be sent\n"
    );
    let step = tunproof(&[&suite[..], &["--dry-run", "--only", "ipvs-lop"]].concat());
    assert_eq!((code(&step), stdout(&step)), (2, ""));
    let hints = "hint: did you mean `ipvs-loop`?\nhint: its steps are `";
    assert!(stderr(&step).contains(hints), "{}", stderr(&step));
    let next = "00112233445566778899aabbccddef00";
    let said = stdout(&output);
    for (round, key) in [(1, KEY), (2, next)] {
        let begins = format!("round {round} of 2, session {key}:\n\n1. ");
        assert!(said.contains(&begins), "{begins}\n{said}");
        let matched = tunproof(&[
            "match",
            packets.path(),
            "--session",
            key,
            "--format",
            "json",
        ]);
        let matched: match_schema::Matches = serde_json::from_str(stdout(&matched)).unwrap();
        let closing = |seen: &&match_schema::Sighting| seen.form == "cleanup";
        let shown = said.split("round 2").nth(round - 1).unwrap();
        let listed = shown.matches(" sends by a raw socket: ").count();
        assert_eq!(matched.sightings.len(), listed);
        assert!(matched.sightings.iter().filter(closing).count() > 0);
    }
}

/// A reader of a pipe takes the first end for the last.
#[test]
fn packets_are_written_to_a_pipe_once() {
    let path = agentless();
    let pipe = env::temp_dir().join(format!("tunproof-cli-{}-pipe", process::id()));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reading = pipe.clone();
    let reader = thread::spawn(move || fs::read(reading).unwrap());
    let pcap = ["--pcap", pipe.to_str().unwrap()];
    let output = tunproof(&[&["verify", path.path()][..], &pcap].concat());
    let read = reader.join();
    fs::remove_file(&pipe).unwrap();
    assert!(stdout(&output).contains("client-to-director"));
    assert_eq!(read.unwrap()[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
}

#[test]
fn a_case_that_cannot_be_kept_costs_no_report_and_no_older_case() {
    let path = agentless();
    let output = tunproof(&["verify", path.path(), "--save", "/nonexistent/case.json"]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert!(
        stderr(&output).starts_with("error: cannot write to `/nonexistent/case.json`\n"),
        "{}",
        stderr(&output)
    );

    let output = tunproof(&["verify", path.path(), "--save", "/dev/full"]);
    assert_eq!(code(&output), 2);
    assert!(stdout(&output).contains("client-to-director"));
    let said = "error: cannot write to `/dev/full`\n  caused by: No space left on device";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));

    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=4k small "$0" || exit 99
        echo older > "$0/case.json"
        "$1" verify "$2" --save "$0/case.json" > /dev/null
        echo "status $?"
        cat "$0/case.json"
        ls -A "$0"
    "#;
    let folder = env::temp_dir().join(format!("tunproof-cli-{}-small", process::id()));
    fs::create_dir(&folder).unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
        .arg(&folder)
        .args([env!("CARGO_BIN_EXE_tunproof"), path.path()])
        .output();
    fs::remove_dir(&folder).unwrap();
    let output = output.unwrap();
    assert_eq!(
        stdout(&output),
        "status 2\nolder\ncase.json\n",
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("No space left on device"));
}
