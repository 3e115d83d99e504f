//! Suites, played in the lab: those of the HOWTO, and some of a user's own.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use serde::Deserialize;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;

/// The contract, as a script would read it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    schema: String,
    suite: String,
    about: String,
    outcome: String,
    rounds: usize,
    round: usize,
    steps: Vec<Step>,
    hops: Vec<serde_json::Value>,
    #[serde(rename = "findings")]
    _findings: Vec<serde_json::Value>,
    evidence: Vec<serde_json::Value>,
    probes: Vec<serde_json::Value>,
    #[serde(rename = "timing")]
    _timing: serde_json::Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    realserver: String,
    id: String,
    #[serde(rename = "about")]
    _about: String,
    outcome: String,
    reason: Option<String>,
    evidence: Vec<String>,
    worst: String,
    passed: usize,
    expectations: Vec<Expectation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    #[serde(rename = "expected")]
    _expected: String,
    outcome: String,
    seen: usize,
    sent: usize,
    reason: Option<String>,
    evidence: Vec<String>,
}

impl Run {
    fn step(&self, id: &str) -> &Step {
        let mut steps = self.steps.iter();
        steps
            .find(|step| step.id == id)
            .unwrap_or_else(|| panic!("no step `{id}`: {self:#?}"))
    }
}

fn run(lab: &TestLab, suite: &str, arguments: &[&str]) -> Output {
    Command::new(TUNPROOF)
        .args(["run", suite, "--path"])
        .arg(lab.directory().join("path.toml"))
        .args(arguments)
        .output()
        .unwrap()
}

fn read(output: &Output) -> Run {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(output)))
}

/// A suite passes in the healthy lab, and fails at these steps under each of these faults.
fn fails_on_its_faults(suite: &str, faults: &[(&str, &[&str])]) {
    let lab = TestLab::up(suite);
    let healthy = run(&lab, suite, &["--format", "json"]);
    assert_eq!(healthy.status.code(), Some(0), "{}", text(&healthy));
    let played = read(&healthy);
    assert_eq!(
        (played.schema.as_str(), played.suite.as_str()),
        ("tunproof.run/1", suite)
    );
    assert!(played.steps.iter().any(|step| step.outcome == "passed"));
    for (fault, failing) in faults {
        let broken = lab.run(&["break", fault]);
        assert!(broken.status.success(), "{}", text(&broken));
        let output = run(&lab, suite, &["--format", "json"]);
        let played = read(&output);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{suite} under {fault}: {played:#?}"
        );
        assert_eq!(played.outcome, "broken");
        for id in *failing {
            let step = played.step(id);
            assert_eq!(step.outcome, "failed", "{suite} under {fault}: {step:#?}");
            assert!(step.reason.is_some(), "{suite} under {fault}: {step:#?}");
        }
        let mended = lab.run(&["mend"]);
        assert!(mended.status.success(), "{}", text(&mended));
    }
}

#[test]
fn q1_fails_where_the_directors_source_is_not_its_own() {
    fails_on_its_faults(
        "q1-unique-source",
        &[
            (
                "source-is-vip",
                &["route-to-the-realserver", "outer-source-leaves"],
            ),
            ("source-on-realserver", &["dip-is-not-the-realservers"]),
            (
                "source-not-owned",
                &["route-to-the-realserver", "outer-source-arrives"],
            ),
        ],
    );
}

#[test]
fn q2_fails_where_decapsulated_packets_are_dropped() {
    fails_on_its_faults(
        "q2-decapsulated-packets",
        &[
            ("rp-filter-drops", &["route-out-of-the-tunnel", "datagrams"]),
            ("rp-filter-all", &["route-out-of-the-tunnel", "datagrams"]),
            ("vip-not-local", &["route-out-of-the-tunnel", "datagrams"]),
            ("tunnel-down", &["datagrams", "connections"]),
        ],
    );
}

#[test]
fn q3_fails_where_the_vips_packets_are_filtered() {
    let failing: &[&str] = &["spoofed-syn-acks", "spoofed-datagrams"];
    fails_on_its_faults(
        "q3-spoofed-source",
        &[
            ("spoofed-source-filtered-at-gateway", failing),
            ("spoofed-source-filtered", failing),
            ("client-unreachable", failing),
        ],
    );
}

#[test]
fn q4_fails_on_arp_and_firewalls() {
    let failing: &[&str] = &["tunnelled-datagrams", "tunnelled-connections"];
    fails_on_its_faults(
        "q4-arp-and-firewall",
        &[
            (
                "gateway-drops-vip-arp",
                &["resolve-gateway", "who-has-gateway-tell-vip"],
            ),
            ("realserver-firewall-decapsulated", failing),
            ("realserver-firewall-ipip", failing),
            ("director-firewall-egress", failing),
        ],
    );
}

/// A file of the test's own, removed with it.
struct Own(PathBuf);

impl Own {
    fn new(name: &str, content: &str) -> Own {
        let path = env::temp_dir().join(format!("tunproof-{name}-{}.toml", std::process::id()));
        fs::write(&path, content).unwrap();
        Own(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const WRITTEN_OUT: &str = r#"
about = "packets written out, and what must come of them"
[vars]
hops = "1..3"

[[step]]
id = "inner-ttl"
from = "director"
send = [
  { ipv4 = { src = "$dip", dst = "$rip" } },
  { ipv4 = { src = "$cip", dst = "$vip", ttl = 9 } },
  { udp = { dport = 33434 } },
]
count = 3
[[step.expect]]
at = "realserver.in"
see = "probe"
where = { "ipv4.0.ttl" = { between = [50, 63] }, "ipv4.1.ttl" = "unchanged", "udp.dport" = 33434 }
[[step.expect]]
at = "realserver.tunnel"
see = "decapsulated"
where = { "ipv4.ttl" = 9 }
[[step.expect]]
at = "client.in"
see = "port-unreachable"
from = "$vip"
at-least = 1

[[step]]
id = "short-lived"
from = "realserver"
send = [ { ipv4 = { src = "$rip", dst = "$cip", ttl = "$ttl" } }, { udp = { dport = 33434 } } ]
loop = { ttl = "$hops" }
after = ["inner-ttl"]
[[step.expect]]
at = "realserver.in"
see = "time-exceeded"
at-least = 1
[[step.expect]]
at = "client.in"
see = "probe"
never = true

[[step]]
id = "wrong"
about = "nothing of the kind is seen"
from = "realserver"
send = [ { ipv4 = { src = "$rip", dst = "$cip" } }, { udp = { dport = 33434 } } ]
count = 3
[[step.expect]]
at = "client.in"
see = "probe"
within = "500ms"
where = { "udp.dport" = 33435 }

[[step]]
id = "never-begun"
ask = { host = "director", address = "$vip" }
after = ["wrong"]

[[step]]
id = "all-the-same"
ask = { host = "director", address = "$vip" }
after = [{ step = "wrong", if-failed = "go-on" }]
"#;

#[test]
fn packets_written_out_are_sent_seen_and_judged() {
    let lab = TestLab::up("written");
    let suite = Own::new("written-out", WRITTEN_OUT);
    let output = run(&lab, suite.path(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let played = read(&output);
    assert_eq!(
        played.about,
        "packets written out, and what must come of them"
    );
    let outcomes: Vec<_> = played
        .steps
        .iter()
        .map(|step| (&*step.id, &*step.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("inner-ttl", "passed"),
            ("short-lived", "passed"),
            ("wrong", "failed"),
            ("never-begun", "skipped"),
            ("all-the-same", "passed"),
        ],
        "{played:#?}"
    );
    let whole = &played.step("inner-ttl").expectations[0];
    assert_eq!((whole.seen, whole.sent), (3, 3));
    assert!(whole.reason.is_none() && whole.evidence.len() == 3);
    assert!(
        played
            .steps
            .iter()
            .all(|step| step.realserver == "s" || step.realserver == "rs1")
    );
    let wrong = played.step("wrong");
    assert_eq!(wrong.expectations[0].outcome, "failed");
    assert!(!wrong.evidence.is_empty());
    assert_eq!(
        played.step("never-begun").reason.as_deref(),
        Some("`wrong` did not pass")
    );
    assert!(played.hops.is_empty() && played.evidence.len() > 9);
    assert_eq!(played.probes.len(), 9);

    let output = run(
        &lab,
        suite.path(),
        &["--only", "inner-ttl", "--repeat", "3", "--format", "json"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let played = read(&output);
    assert_eq!((played.rounds, played.round, played.steps.len()), (3, 1, 1));
    assert_eq!(played.steps[0].passed, 3);
    assert_eq!(played.steps[0].worst, "passed");

    // What is kept of all rounds is judged together, and their packets are told apart.
    let folder = lab.directory();
    let (case, packets) = (folder.join("case.json"), folder.join("all.pcapng"));
    let (kept, written) = (case.to_str().unwrap(), packets.to_str().unwrap());
    let output = run(
        &lab,
        suite.path(),
        &[
            "--only",
            "inner-ttl",
            "--repeat",
            "2",
            "--format",
            "json",
            "--session",
            KEY,
            "--save",
            kept,
            "--pcap",
            written,
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let again = folder.join("again.pcapng");
    let judged = Command::new(TUNPROOF)
        .args(["judge", kept, "--format", "json", "--pcap"])
        .arg(&again)
        .output()
        .unwrap();
    assert_eq!(judged.status.code(), Some(0), "{}", text(&judged));
    assert!(judged.stdout == output.stdout, "another report");
    assert!(fs::read(&packets).unwrap() == fs::read(&again).unwrap());
    let next = "00112233445566778899aabbccddef00";
    for key in [KEY, next] {
        let matched = Command::new(TUNPROOF)
            .args(["match", written, "--session", key])
            .output()
            .unwrap();
        assert_eq!(matched.status.code(), Some(0), "{}", text(&matched));
    }

    let junit = run(
        &lab,
        suite.path(),
        &["--only", "all-the-same", "--format", "junit"],
    );
    let said = text(&junit);
    assert!(
        said.contains("tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\""),
        "{said}"
    );
    let tap = run(
        &lab,
        suite.path(),
        &[
            "--only",
            "short-lived",
            "--set",
            "hops=1..1",
            "--format",
            "tap",
        ],
    );
    let said = text(&tap);
    assert!(said.starts_with("TAP version 13\n1..2\nok 1 - "), "{said}");
}

const KEY: &str = "00112233445566778899aabbccddeeff";

const SYN: &str = r#"
[[step]]
id = "syn"
from = "director"
send = [
  { ipv4 = { src = "$dip", dst = "$rip" } },
  { ipv4 = { src = "$cip", dst = "$vip" } },
  { tcp = { dport = "$port" } },
]
[[step.expect]]
at = "realserver.out"
see = "syn-ack"
"#;

/// The client, which would reset what it did not ask for, is silent; the real server would wait for a minute.
#[test]
fn a_syn_written_out_leaves_no_half_open_connection() {
    let lab = TestLab::up("half-open");
    assert!(lab.run(&["break", "client-silent"]).status.success());
    let suite = Own::new("syn", SYN);
    let output = run(&lab, suite.path(), &["-v"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let open = lab.run(&["exec", "s", "ss", "-Htan", "state", "syn-recv"]);
    assert!(open.status.success(), "{}", text(&open));
    assert_eq!(String::from_utf8_lossy(&open.stdout), "");
}

const ODD: &str = r#"
[[step]]
id = "who-has-gateway"
about = "every hardware address is left out"
from = "realserver"
send = [{ ethernet = {} }, { arp = { psrc = "$rip", pdst = "$gateway" } }]
count = 3
[[step.expect]]
at = "realserver.arp"
see = "probe"
where = { "arp.hwdst" = "00:00:00:00:00:00", "arp.hwsrc" = { sent = "ethernet.src" } }
[[step.expect]]
at = "realserver.arp"
see = "reply"
where = { "arp.psrc" = "$gateway", "arp.hwdst" = { sent = "arp.hwsrc" } }

[[step]]
id = "wrong-checksum"
about = "a frame to the next hop, whose hardware address the real server has just been told"
after = ["who-has-gateway"]
from = "realserver"
send = [
  { ethernet = {} },
  { ipv4 = { src = "$rip", dst = "$cip", chksum = 0x1234 } },
  { udp = { dport = 33434 } },
]
count = 3
[[step.expect]]
at = "realserver.out"
[[step.expect]]
at = "client.in"
never = true

[[step]]
id = "identification-0"
after = ["who-has-gateway"]
from = "realserver"
send = [{ ethernet = {} }, { ipv4 = { src = "$rip", dst = "$cip", id = 0 } }, { udp = { dport = 33434 } }]
[[step.expect]]
at = "client.in"
where = { "ipv4.id" = 0, "ipv4.ttl" = { decremented-by = 4 } }

[[step]]
id = "echo-through-the-tunnel"
from = "director"
send = [{ ipv4 = { src = "$dip", dst = "$rip" } }, { ipv4 = { src = "$cip", dst = "$vip" } }, { icmp = {} }]
[[step.expect]]
at = "realserver.in"
see = "tunnelled"
[[step.expect]]
at = "realserver.tunnel"
see = "decapsulated"
[[step.expect]]
at = "client.in"
see = "reply"
from = "$vip"
where = { "icmp.id" = { sent = "icmp.id" } }

[[step]]
id = "otherwise"
about = "it is there, and not as expected: no silence"
from = "client"
send = [{ ipv4 = { src = "$cip", dst = "$vip" } }, { udp = { dport = 9999 } }]
[[step.expect]]
at = "director.in"
where = { "ipv4.ttl" = 64 }
within = "500ms"

[[step]]
id = "too-many"
about = "more than a Linux host answers at once"
from = "director"
send = [{ ipv4 = { src = "$dip", dst = "$rip" } }, { ipv4 = { src = "$cip", dst = "$vip" } }, { udp = { dport = 33434 } }]
count = 12
[[step.expect]]
at = "client.in"
see = "port-unreachable"

[[step]]
id = "no-device"
from = "realserver"
device = "eth7"
send = [{ ethernet = {} }, { arp = { psrc = "$rip", pdst = "$gateway" } }]

[[step]]
id = "a-setting"
ask = { host = "realserver", sysctl = "net.ipv4.icmp_ratelimit", value = 1000 }

[[step]]
id = "no-setting"
ask = { host = "realserver", sysctl = "net.ipv4.nonesuch", value = 1 }
"#;

#[test]
fn odd_suites_are_played_as_they_are_written() {
    let lab = TestLab::up("odd");
    let file = lab.directory().join("path.toml");
    let known = fs::read_to_string(&file).unwrap();
    let known = known.replace("name = \"s\"", "name = \"s\"\ngateway = \"203.0.113.1\"");
    let path = Own::new("odd-path", &known);
    let suite = Own::new("odd", ODD);
    let output = Command::new(TUNPROOF)
        .args(["run", suite.path(), "--path", path.path()])
        .args(["--format", "json"])
        .output()
        .unwrap();
    let played = read(&output);
    let outcomes: Vec<_> = played
        .steps
        .iter()
        .map(|step| (&*step.id, &*step.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("who-has-gateway", "passed"),
            ("wrong-checksum", "passed"),
            ("identification-0", "passed"),
            ("echo-through-the-tunnel", "passed"),
            ("otherwise", "failed"),
            ("too-many", "inconclusive"),
            ("no-device", "inconclusive"),
            ("a-setting", "passed"),
            ("no-setting", "inconclusive"),
        ],
        "{played:#?}"
    );
    for (id, says) in [
        (
            "otherwise",
            "seen for 0 of 1 packet, but seen with ipv4.ttl 61",
        ),
        ("too-many", "ICMP errors"),
        ("no-device", "s has no device `eth7`"),
        (
            "no-setting",
            "sysctl net.ipv4.nonesuch: No such file or directory",
        ),
    ] {
        let reason = played.step(id).reason.as_deref().unwrap_or_default();
        assert!(reason.contains(says), "{id}: {reason}");
    }
}
