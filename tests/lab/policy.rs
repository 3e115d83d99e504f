//! What a host's policy refuses is inconclusive, with its reason, and never broken; and what a sweep may still do.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use crate::bench::wait_until;

/// The lab's path file, with a policy on the real server.
fn with_policy(lab: &TestLab, policy: &str) -> (PathBuf, String) {
    let folder = lab.directory();
    let file = folder.join("agent.toml");
    fs::write(&file, policy).unwrap();
    let path = fs::read_to_string(folder.join("path.toml")).unwrap();
    let name = &lab.name;
    let shown = file.display();
    let via = format!("via = \"{TUNPROOF} lab --name {name} exec s\"");
    assert!(path.contains(&via), "{path}");
    let limited = format!(
        "via = \"sh -c 'exec {TUNPROOF} lab --name {name} exec s {TUNPROOF} agent --policy {shown}' --\""
    );
    let changed = folder.join("limited.toml");
    fs::write(&changed, path.replace(&via, &limited)).unwrap();
    (changed, shown.to_string())
}

fn run(arguments: &[&str], path: &PathBuf) -> Output {
    let run = Command::new(TUNPROOF).args(arguments).arg(path).output();
    run.unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

#[test]
fn what_a_policy_refuses_is_never_broken() {
    let lab = TestLab::up("policy");
    // Without the director's words, the real server's own packets are all there is to decide Q3.
    let probes = "probes = [\"control\"]\nforget-neighbours = false\nrate = 50\n";
    let (path, policy) = with_policy(&lab, probes);
    let declined = format!("`probes` in {policy} on this host does not have `spoof`");

    let whole = run(&["verify", "--format", "json"], &path);
    assert_eq!(whole.status.code(), Some(0), "{}", text(&whole));
    let note =
        format!("note: 50 packets a second and host instead of 100: {policy} on s allows no more");
    assert!(text(&whole).contains(&note), "{}", text(&whole));

    let suite = run(
        &["run", "q3-spoofed-source", "--format", "json", "--path"],
        &path,
    );
    assert_eq!(suite.status.code(), Some(3), "{}", text(&suite));
    let told = report(&suite);
    assert!(told.to_string().contains(&declined), "{told}");
    let hops = told["hops"].as_array().unwrap();
    let transit = hops
        .iter()
        .find(|hop| hop["id"] == "spoofed-source-transit");
    let transit = transit.expect("it is the suite's hop");
    assert_eq!(transit["verdict"], "unproven");
    assert!(
        transit["reason"].as_str().unwrap().ends_with(&declined),
        "{transit}"
    );
    let broken = hops.iter().filter(|hop| hop["verdict"] == "broken");
    assert_eq!(broken.count(), 0, "{told}");

    let spoofing = run(&["spoofcheck"], &path);
    assert_eq!(spoofing.status.code(), Some(3), "{}", text(&spoofing));
    let said = text(&spoofing)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(said.contains("INCONCLUSIVE: s did not send"), "{said}");
    assert!(said.contains(&declined), "{said}");

    let (path, policy) = with_policy(&lab, "realservers = [\"203.0.113.6\"]");
    let refused = run(&["verify", "--format", "json"], &path);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    let reason = format!(
        "`realservers` in {policy} on that host does not have 203.0.113.5, the real server"
    );
    assert!(text(&refused).contains(&reason), "{}", text(&refused));
    let told = report(&refused);
    let hops = told["hops"].as_array().unwrap();
    assert!(hops.iter().all(|hop| hop["verdict"] != "broken"), "{told}");
}

#[test]
fn a_sweep_keeps_no_right_once_its_sockets_are_open() {
    let lab = TestLab::up("sweeprights");
    let fleet = lab.directory().join("fleet.toml");
    // Nobody is there: it is tried three times, with pauses.
    let text = "[director]\nip = \"192.0.2.2\"\n[[service]]\nvip = \"192.0.2.10\"\nport = 80\n\
                realservers = \"203.0.113.77\"\n";
    fs::write(&fleet, text).unwrap();
    let mut sweep = lab
        .command(&["exec", "d", TUNPROOF, "sweep", fleet.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let file = format!("/proc/{}/status", sweep.id());
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.map_or("", |line| {
            line.split_whitespace().nth(1).unwrap_or_default()
        })
        .to_owned()
    };
    let mut status = String::new();
    wait_until("the sweep has a filter of system calls", || {
        status = fs::read_to_string(&file).unwrap();
        field(&status, "Seccomp:") == "2"
    });
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs:"), "1");
    // The gateway may say that nobody is there before the sweep has ended.
    let code = sweep.wait().unwrap().code();
    assert!(matches!(code, Some(1 | 3)), "{code:?}");
}
