//! `match`, and captures that are added.

use super::*;

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
pub(crate) mod match_schema {
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
