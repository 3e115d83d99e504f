//! The spoof check in the lab, with each of its witnesses.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use crate::bench::wait_for_tap;
use crate::bench::wait_until;

const KEY: &str = "00112233445566778899aabbccddeeff";

/// What is left of the lab's path file without the `via` of these hosts, by their names there.
fn without(lab: &TestLab, hosts: &[&str]) -> String {
    let path = fs::read_to_string(lab.directory().join("path.toml")).unwrap();
    let is_gone = |line: &&str| {
        let via = line.starts_with("via = ");
        !(via
            && hosts
                .iter()
                .any(|host| line.trim_end().ends_with(&format!("exec {host}\""))))
    };
    let lines: Vec<_> = path.lines().filter(is_gone).collect();
    assert_eq!(lines.len() + hosts.len(), path.lines().count(), "{path}");
    let file = lab
        .directory()
        .join(format!("without-{}.toml", hosts.join("-")));
    fs::write(&file, lines.join("\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Exit status, and the path's part of the report.
fn spoofcheck(path: &str, more: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(TUNPROOF)
        .args(["spoofcheck", path, "--format", "json", "--passes", "2"])
        .args(more)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    assert_eq!(report["schema"], "tunproof.spoofcheck/1");
    (output.status.code(), report["paths"][0].clone())
}

fn assert_says(got: &(Option<i32>, Value), exit: i32, outcome: &str, place: [Option<u64>; 2]) {
    let (code, path) = got;
    let ttls = ["last_passed", "first_stopped"].map(|key| path[key]["ttl"].as_u64());
    let is_it = *code == Some(exit) && path["outcome"] == outcome && ttls == place;
    assert!(
        is_it,
        "expected {exit} {outcome} {place:?}, got {code:?} {path:#}"
    );
}

fn broken(lab: &TestLab, fault: &str) {
    let broke = lab.run(&["break", fault]);
    assert!(broke.status.success(), "{}", text(&broke));
}

#[test]
fn a_filter_is_told_from_a_dead_client_with_and_without_a_vantage_there() {
    let lab = TestLab::up("spoofing");
    let all = without(&lab, &[]);
    let no_client = without(&lab, &["c"]);
    for path in [&all, &no_client] {
        assert_says(&spoofcheck(path, &[]), 0, "passed", [None, None]);
    }
    broken(&lab, "spoofed-source-filtered");
    for path in [&all, &no_client] {
        let got = spoofcheck(path, &[]);
        let place = got.1["first_stopped"]["ttl"].as_u64();
        assert!(place.is_some(), "{:#}", got.1);
        assert_says(&got, 1, "filtered", [place.map(|ttl| ttl - 1), place]);
        assert!(
            got.1["confidence"]
                .as_f64()
                .is_some_and(|sure| sure > 0.99 && sure < 1.0)
        );
    }
    let shown = Command::new(TUNPROOF)
        .args(["spoofcheck", &all, "--passes", "1"])
        .output()
        .unwrap();
    let drawn = text(&shown);
    assert!(drawn.contains("──✂─ nothing passes"), "{drawn}");
    assert!(drawn.contains("FILTERED, confidence"), "{drawn}");
    assert!(lab.run(&["mend"]).status.success());

    broken(&lab, "client-unreachable");
    for path in [&all, &no_client] {
        assert_says(&spoofcheck(path, &[]), 3, "control-dies-too", [None, None]);
    }
}

/// `listen` on the director, whose packets are copied to the file when it has ended.
fn listening(lab: &TestLab, name: &str, more: &[&str]) -> (PathBuf, JoinHandle<()>) {
    let heard = lab.directory().join(format!("{name}.pcapng"));
    let part = lab.directory().join(format!("{name}-listen.pcapng"));
    let mut listen = lab.command(&["exec", "d", TUNPROOF, "listen", "--session", KEY]);
    listen.args(["--vip", "192.0.2.10", "--cip", "198.51.100.7"]);
    listen.args(more).args(["--for", "20s", "--pcap"]);
    let listen = listen
        .arg(&part)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut listen = Running(listen.spawn().unwrap());
    wait_for_tap(lab, "d");
    thread::sleep(Duration::from_secs(1));
    let copied = heard.clone();
    let copier = thread::spawn(move || {
        listen.0.wait().unwrap();
        fs::copy(&part, &copied).unwrap();
    });
    (heard, copier)
}

/// tcpdump on a host, which captures.
fn capturing(lab: &TestLab, host: &str, file: &Path, filter: &[&str]) -> Running {
    let mut tcpdump = lab.command(&["exec", host, "tcpdump", "-U", "-i", "eth0", "-w"]);
    let tcpdump = tcpdump.arg(file).args(filter).stderr(Stdio::null());
    let tcpdump = Running(tcpdump.spawn().unwrap());
    wait_until("tcpdump captures", || {
        fs::metadata(file).is_ok_and(|file| file.len() >= 24)
    });
    tcpdump
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_capture_of_the_client_or_a_listener_on_the_director_is_witness_enough() {
    let lab = TestLab::up("witness");
    let alone = without(&lab, &["c", "d"]);
    let session = ["--session", KEY];
    let got = spoofcheck(&alone, &session);
    assert_says(&got, 3, "inconclusive", [None, None]);

    for (filtered, exit, outcome) in [(false, 0, "passed"), (true, 1, "filtered")] {
        if filtered {
            broken(&lab, "spoofed-source-filtered");
        }
        let file = lab.directory().join(format!("client-{outcome}.pcap"));
        let tcpdump = capturing(&lab, "c", &file, &[]);
        let added = format!("client.in={}", file.display());
        let got = spoofcheck(&alone, &[&session[..], &["--add", &added]].concat());
        assert_says(&got, exit, outcome, [None, None]);
        drop(tcpdump);

        let (heard, copier) = listening(&lab, &format!("director-{outcome}"), &[]);
        let added = format!("director.in={}", heard.display());
        let got = spoofcheck(&alone, &[&session[..], &["--add", &added]].concat());
        copier.join().unwrap();
        match filtered {
            false => assert_says(&got, exit, outcome, [None, None]),
            true => {
                let place = got.1["first_stopped"]["ttl"].as_u64();
                assert_says(&got, exit, outcome, [place.map(|ttl| ttl - 1), place]);
                assert!(got.1["confidence"].as_f64().is_some_and(|sure| sure <= 0.9));
            }
        }
    }
}

const TO_DIRECTOR: [&str; 2] = ["--toward", "director"];

/// A rule on a router that drops what comes from the VIP.
fn drops(lab: &TestLab, router: &str) {
    let said = lab.on(
        router,
        "nft 'table ip spoofing { chain drops { type filter hook forward priority 0; ip saddr 192.0.2.10 drop; }; }'",
    );
    assert_eq!(said, "");
}

fn mended(lab: &TestLab, router: &str) {
    assert_eq!(lab.on(router, "nft delete table ip spoofing"), "");
}

#[test]
fn without_a_client_the_way_to_the_director_is_asked() {
    let lab = TestLab::up("director-way");
    let path = without(&lab, &["c"]);
    let case = lab.directory().join("case.json");
    let got = spoofcheck(&path, &TO_DIRECTOR);
    assert_says(&got, 0, "passed", [None, None]);
    let (_, report) = &got;
    assert_eq!(
        (&report["toward"], &report["dip"]),
        (&"director".into(), &"192.0.2.2".into())
    );
    let said = report["detail"].as_str().unwrap();
    assert!(said.contains("proven toward the director only"), "{said}");
    let shared = report["shared"].as_array().unwrap();
    let ttls: Vec<_> = shared
        .iter()
        .map(|router| router["ttl"].as_u64().unwrap())
        .collect();
    assert_eq!(ttls, [1, 2, 3], "{shared:?}");

    let mut planned = Command::new(TUNPROOF);
    planned
        .args(["spoofcheck", &path, "--dry-run"])
        .args(TO_DIRECTOR);
    let planned = text(&planned.output().unwrap());
    let sent: Vec<_> = planned
        .lines()
        .filter(|line| line.contains(". s sends by"))
        .collect();
    let goes = |from: &str, to: &str| {
        let is_it = |line: &&&str| line.contains(from) && line.contains(to);
        sent.iter().filter(is_it).count()
    };
    let to_the_client = goes("IP 203.0.113.5.", "> 198.51.100.7.");
    let to_the_director =
        ["IP 203.0.113.5.", "IP 192.0.2.10."].map(|from| goes(from, "> 192.0.2.2."));
    assert!(
        to_the_client > 0 && to_the_director[0] == to_the_director[1],
        "{planned}"
    );
    assert_eq!(
        to_the_client + 2 * to_the_director[0],
        sent.len(),
        "{planned}"
    );

    // What its firewall drops, the director's tap sees.
    let rule =
        "nft 'table ip spoofing { chain drops { type filter hook input priority 0; drop; }; }'";
    assert_eq!(lab.on("d", rule), "");
    assert_says(&spoofcheck(&path, &TO_DIRECTOR), 0, "passed", [None, None]);
    mended(&lab, "d");

    for (router, place) in [("gw", 1), ("isp", 2)] {
        drops(&lab, router);
        let more = [&TO_DIRECTOR[..], &["--save", case.to_str().unwrap()]].concat();
        let got = spoofcheck(&path, &more);
        assert_says(&got, 1, "filtered", [Some(place), Some(place + 1)]);
        assert_eq!(got.1["first_stopped"]["director"], false);
        mended(&lab, router);
    }
    let judged = |format: &str| {
        let mut judge = Command::new(TUNPROOF);
        let output = judge
            .arg("judge")
            .arg(&case)
            .args(["--format", format])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    let drawn = judged("text");
    let heading = "what is sent to the director 192.0.2.2, and who answers";
    assert!(
        drawn.contains(heading) && drawn.contains("──✂─ nothing passes"),
        "{drawn}"
    );
    for format in ["junit", "tap"] {
        let said = judged(format);
        assert!(
            said.contains("spoofed source, toward the director"),
            "{said}"
        );
    }

    // The director's own network refuses its addresses from outside, and harms nobody.
    let refuse = |value| {
        lab.on(
            "rd",
            &format!("sysctl -qw net.ipv4.conf.eth0.rp_filter={value}"),
        )
    };
    assert_eq!(refuse(1), "");
    let got = spoofcheck(&path, &TO_DIRECTOR);
    assert_says(&got, 3, "inconclusive", [Some(3), Some(4)]);
    assert_eq!(refuse(0), "");
}

#[test]
fn what_the_director_hears_is_witness_enough_toward_it() {
    let lab = TestLab::up("director-hears");
    let alone = without(&lab, &["c", "d"]);
    let session = ["--session", KEY, "--toward", "director"];
    let got = spoofcheck(&alone, &session);
    assert_says(&got, 3, "inconclusive", [None, None]);
    let control = &got.1["flows"][0]["control"];
    assert!(control["arrived"].as_u64() > Some(0), "{control}");

    for (filtered, exit, outcome, place) in [
        (false, 0, "passed", [None, None]),
        (true, 1, "filtered", [Some(2), Some(3)]),
    ] {
        if filtered {
            drops(&lab, "isp");
        }
        let told = |file: &Path| {
            let added = format!("director.in={}", file.display());
            let got = spoofcheck(&alone, &[&session[..], &["--add", &added]].concat());
            assert_says(&got, exit, outcome, place);
            if filtered {
                let sure = got.1["confidence"].as_f64();
                assert!(sure.is_some_and(|sure| sure <= 0.9), "{sure:?}");
            }
        };
        let file = lab.directory().join(format!("{outcome}.pcap"));
        let addresses = "host 192.0.2.10 or host 203.0.113.5";
        let tcpdump = capturing(&lab, "d", &file, &[addresses]);
        told(&file);
        drop(tcpdump);
        let (heard, copier) = listening(&lab, outcome, &["--dip", "192.0.2.2"]);
        told(&heard);
        copier.join().unwrap();
    }
}
