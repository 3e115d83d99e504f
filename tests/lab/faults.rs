//! What goes wrong on our own hosts while a path is proven: agents that stall, pipes that stop, devices that go, a
//! processor that is taken, taps that overflow. The verdict is right or says why there is none, and nothing is left.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::Value;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use crate::bench::wait_for_tap;
use crate::bench::wait_until;

fn verify(path: &str, arguments: &[&str]) -> Child {
    Command::new(TUNPROOF)
        .args(["verify", path, "--format", "json"])
        .args(arguments)
        .env("TUNPROOF_AGENT", TUNPROOF)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a proof says, and said.
struct Said {
    status: i32,
    report: Value,
    output: Output,
}

impl Said {
    fn of(child: Child) -> Said {
        let output = child.wait_with_output().unwrap();
        let report = serde_json::from_slice(&output.stdout);
        Said {
            status: output.status.code().unwrap(),
            report: report.unwrap_or_else(|error| panic!("{error}: {}", text(&output))),
            output,
        }
    }

    fn errors(&self) -> BTreeSet<&str> {
        let findings = self.report["paths"][0]["findings"].as_array().unwrap();
        let errors = findings.iter().filter(|one| one["severity"] == "error");
        errors.map(|one| one["code"].as_str().unwrap()).collect()
    }

    fn verdict(&self, hop: &str) -> &str {
        let hops = self.report["paths"][0]["hops"].as_array().unwrap();
        let hop = hops.iter().find(|one| one["id"] == hop).unwrap();
        hop["verdict"].as_str().unwrap()
    }

    fn reasons(&self) -> BTreeSet<&str> {
        let hops = self.report["paths"][0]["hops"].as_array().unwrap();
        hops.iter()
            .filter_map(|hop| hop["reason"].as_str())
            .collect()
    }

    fn show(&self) -> String {
        format!("status {}: {}", self.status, text(&self.output))
    }
}

/// The processes of a host, with their command lines.
fn inhabitants(lab: &TestLab, host: &str) -> BTreeSet<(PathBuf, String)> {
    let namespace = PathBuf::from(lab.on(host, "readlink /proc/self/ns/net").trim());
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let is_there = fs::read_link(process.join("ns/net")).is_ok_and(|at| at == namespace);
        // A zombie has no command line.
        if is_there && !line.is_empty() {
            found.insert((process, line.trim_end_matches('\0').replace('\0', " ")));
        }
    }
    found
}

/// The agent of a host, once it is there.
fn agent(lab: &TestLab, host: &str) -> Pid {
    let mut found = None;
    wait_until("an agent", || {
        found = inhabitants(lab, host)
            .into_iter()
            .find(|(_, line)| line.ends_with("tunproof agent"));
        found.is_some()
    });
    let (process, _) = found.unwrap();
    let number = process.file_name().unwrap().to_str().unwrap();
    Pid::from_raw(number.parse().unwrap())
}

fn path_of(lab: &TestLab) -> String {
    lab.directory().join("path.toml").display().to_string()
}

#[test]
fn an_agent_that_stalls_at_any_moment_costs_its_own_hops_only() {
    let lab = TestLab::up("stalled");
    lab.assert_serves("before");
    let before = inhabitants(&lab, "s");
    for moment in [0, 150, 600, 1500, 3000] {
        // Slow, so that it is in the midst of it.
        let child = verify(&path_of(&lab), &["--rate", "2", "--timeout", "15s"]);
        let stalled = agent(&lab, "s");
        thread::sleep(Duration::from_millis(moment));
        // It may have ended.
        let _ = kill(stalled, Signal::SIGSTOP);
        let said = Said::of(child);
        let when = format!("{moment} ms: {}", said.show());
        assert_eq!(said.errors(), BTreeSet::new(), "{when}");
        assert_eq!(said.verdict("client-to-director"), "proven", "{when}");
        assert_eq!(said.verdict("director-forward"), "proven", "{when}");
        // Later it may have ended before.
        if said.status != 0 || moment == 0 {
            assert_eq!(said.status, 2, "{when}");
            let words = text(&said.output);
            let silent = [
                "no answer within 5s",
                "no hello of an agent",
                "no answer to the first",
                "no end within 10s",
            ];
            assert!(silent.iter().any(|silent| words.contains(silent)), "{when}");
        }
        wait_until("no process is left", || {
            inhabitants(&lab, "s").is_subset(&before)
        });
        wait_until("nothing is half open", || {
            lab.on("s", "ss -Hnt state syn-recv").is_empty()
        });
        let gateway = lab.on("s", "ip neigh show 203.0.113.1");
        assert!(gateway.contains("lladdr"), "{gateway}, {when}");
    }
}

#[test]
fn a_starter_that_is_killed_in_the_middle_costs_nothing() {
    let lab = TestLab::up("unstarted");
    lab.assert_serves("before");
    let hosts = ["c", "d", "s"];
    let before = hosts.map(|host| inhabitants(&lab, host));
    // Slow, so that it is in the midst of it.
    let mut child = verify(&path_of(&lab), &["--rate", "2", "--timeout", "30s"]);
    for host in hosts {
        agent(&lab, host);
        wait_for_tap(&lab, host);
    }
    let number = child.id();
    let starter = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap();
    kill(
        Pid::from_raw(starter.trim().parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    let said = Said::of(child);
    assert_eq!(said.status, 0, "{}", said.show());
    assert_eq!(
        text(&said.output).matches(" within ").count(),
        0,
        "{}",
        said.show()
    );
    for (host, before) in hosts.iter().zip(before) {
        wait_until("no process is left", || {
            inhabitants(&lab, host).is_subset(&before)
        });
    }
}

#[test]
fn a_pipe_that_stops_in_the_middle_of_a_message_costs_its_own_hops_only() {
    let lab = TestLab::up("stopped");
    lab.assert_serves("before");
    let before = inhabitants(&lab, "s");
    let own = fs::read_to_string(path_of(&lab)).unwrap();
    let via = format!("via = \"{TUNPROOF} lab --name {} exec s\"", lab.name);
    assert!(own.contains(&via), "{own}");
    // In the hello, before and in the first facts, and behind them.
    for octets in [9, 60, 900, 40_000] {
        let script = format!("\\\"$@\\\" | {{ head -c {octets}; exec sleep 60; }}");
        let stopped = format!(
            "via = '''sh -c \"{script}\" -- {TUNPROOF} lab --name {} exec s'''",
            lab.name
        );
        let path = lab.directory().join("stopped.toml");
        fs::write(&path, own.replace(&via, &stopped)).unwrap();
        let child = verify(path.to_str().unwrap(), &["--timeout", "15s"]);
        let said = Said::of(child);
        let when = format!("{octets} octets: {}", said.show());
        assert_eq!(said.status, 2, "{when}");
        assert_eq!(said.errors(), BTreeSet::new(), "{when}");
        assert_eq!(said.verdict("client-to-director"), "proven", "{when}");
        assert!(text(&said.output).contains(" within "), "{when}");
        wait_until("no process is left", || {
            let left = inhabitants(&lab, "s");
            let mut left = left.difference(&before);
            left.all(|(_, line)| line == "sleep 60")
        });
        let gateway = lab.on("s", "ip neigh show 203.0.113.1");
        assert!(gateway.contains("lladdr"), "{gateway}, {when}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_device_that_goes_in_the_middle_is_no_broken_path() {
    const RENAMED: &str = "ip link set eth0 name lan0 || \
        { ip link set eth0 down; ip link set eth0 name lan0; ip link set lan0 up; }";
    const FLAPPED: &str = "ip link set eth0 down; sleep 0.3; ip link set eth0 up";
    for (host, command, said_of_it) in [
        (
            "d",
            "ip link set eth0 down",
            "eth0 on director was set down",
        ),
        ("d", "ip link del eth0", "eth0 on director was deleted"),
        (
            "d",
            FLAPPED,
            "eth0 on director lost its carrier and got it back",
        ),
        ("s", "ip link set eth0 down", "eth0 on s was set down"),
        ("s", "ip link del eth0", "eth0 on s was deleted"),
        ("s", RENAMED, "eth0 on s was renamed to lan0"),
        ("s", "ip link set tunl0 down", "tunl0 on s was set down"),
        ("c", "ip link set eth0 down", "eth0 on client was set down"),
    ] {
        let lab = TestLab::up("device");
        // So that nothing is proven before, and nobody refuses what comes then.
        for host in ["gw", "r1"] {
            lab.on(host, "nft add table ip t; nft 'add chain ip t f { type filter hook forward priority 0; policy drop; }'");
        }
        let child = verify(&path_of(&lab), &["--rate", "20", "--timeout", "20s"]);
        for host in ["d", "s", "c"] {
            wait_for_tap(&lab, host);
        }
        lab.on(host, command);
        let said = Said::of(child);
        let when = format!("{host}: {command}: {}", said.show());
        // What is known of a device that went is no ground to call a hop broken.
        assert_eq!(said.errors(), BTreeSet::new(), "{when}");
        assert_ne!(said.status, 0, "{when}");
        let reasons = said.reasons();
        assert!(
            reasons.iter().any(|reason| reason.contains(said_of_it)),
            "{said_of_it}: {reasons:?}, {when}"
        );
        let left = inhabitants(&lab, host);
        assert!(
            !left.iter().any(|(_, line)| line.contains(" agent")),
            "{left:?}"
        );
    }
}

/// Programs that do nothing but run, before all others; ended with it.
struct Busy(Vec<Child>);

impl Busy {
    fn on(processor: &str) -> Busy {
        let one = |_| {
            Command::new("nice")
                .args(["-n", "-5", "taskset", "-c", processor, "sh", "-c"])
                .arg("while :; do :; done")
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        Busy((0..3).map(one).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last processor that this process may use.
fn processor() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = list.unwrap().trim().rsplit([',', '-']).next().unwrap();
    last.to_owned()
}

#[test]
fn a_processor_that_is_taken_changes_no_verdict() {
    const ROUNDS: usize = 10;
    let lab = TestLab::up("busy");
    lab.assert_serves("before");
    let processor = processor();
    let round = || {
        let child = Command::new("taskset")
            .args(["-c", &processor, TUNPROOF, "verify"])
            .args([&path_of(&lab), "--format", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Said::of(child)
    };
    let busy = Busy::on(&processor);
    let mut proven = 0;
    for _ in 0..ROUNDS {
        let said = round();
        assert_eq!(said.errors(), BTreeSet::new(), "{}", said.show());
        assert!([0, 2, 3].contains(&said.status), "{}", said.show());
        proven += usize::from(said.status == 0);
    }
    let broken = lab.run(&["break", "rp-filter-drops"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let mut named = 0;
    for _ in 0..ROUNDS {
        let said = round();
        assert_ne!(said.status, 0, "{}", said.show());
        let expected = BTreeSet::from(["rp-filter-drops"]);
        assert!(said.errors().is_subset(&expected), "{}", said.show());
        named += usize::from(said.errors() == expected);
    }
    drop(busy);
    println!("{proven} of {ROUNDS} proven, {named} of {ROUNDS} named");
    assert!(proven > 0 && named > 0, "{proven} proven, {named} named");
}

/// Sends so many packets of the path on a host's device, to nobody there.
const FLOOD: &str = "
import socket
near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
near.bind(('eth0', 0))
packet = bytes.fromhex('45000024000100004011000064000000') [:12]
packet = packet + socket.inet_aton('198.51.100.7') + socket.inet_aton('192.0.2.10')
packet = packet + bytes.fromhex('1234005000100000') + bytes(8)
frame = bytes.fromhex('020000000099020000000098 0800') + packet
for _ in range(120000):
    near.send(frame)
";

#[test]
fn a_tap_that_overflows_lets_no_silence_count() {
    let lab = TestLab::up("overflow");
    let broken = lab.run(&["break", "tunnel-lost-in-transit"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let clear = Said::of(verify(&path_of(&lab), &[]));
    assert_eq!(
        clear.errors(),
        BTreeSet::from(["tunnel-lost-in-transit"]),
        "{}",
        clear.show()
    );

    let script = lab.directory().join("flood.py");
    fs::write(&script, FLOOD).unwrap();
    let child = verify(&path_of(&lab), &["--timeout", "25s"]);
    let mut stopped = Vec::new();
    for host in ["s", "c"] {
        wait_for_tap(&lab, host);
        let agent = agent(&lab, host);
        kill(agent, Signal::SIGSTOP).unwrap();
        stopped.push(agent);
    }
    for host in ["s", "c"] {
        let flooded = lab.run(&["exec", host, "python3", script.to_str().unwrap()]);
        assert!(flooded.status.success(), "{}", text(&flooded));
    }
    for agent in stopped {
        kill(agent, Signal::SIGCONT).unwrap();
    }
    let said = Said::of(child);
    fs::remove_file(script).unwrap();
    assert_eq!(said.errors(), BTreeSet::new(), "{}", said.show());
    assert_eq!(said.status, 3, "{}", said.show());
    let reasons = said.reasons();
    let lost =
        |reason: &&&str| reason.contains("the tap on s lost ") && reason.contains(" packets");
    assert!(reasons.iter().any(|reason| lost(&reason)), "{reasons:?}");
}
