//! Proofs of several paths side by side on the same hosts do not disturb one another.

use std::fs;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;

/// Runs `verify` on every path file at once: exit status, and the codes of all errors and warnings.
fn verify_all(files: &[&str]) -> Vec<(Option<i32>, Vec<String>)> {
    let spawn = |file: &&str| {
        Command::new(TUNPROOF)
            .args(["verify", "--format", "json", file])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let running: Vec<_> = files.iter().map(spawn).collect();
    let outcome = |output: Output| {
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        let findings = report["findings"].as_array().unwrap().iter();
        let codes = findings.filter(|finding| finding["severity"] != "note");
        let code = |finding: &Value| finding["code"].as_str().unwrap().to_owned();
        (output.status.code(), codes.map(code).collect())
    };
    let ended = running.into_iter();
    ended
        .map(|child| outcome(child.wait_with_output().unwrap()))
        .collect()
}

#[test]
fn paths_are_proven_side_by_side_on_the_same_hosts() {
    let lab = TestLab::up("together");
    let whole = lab.directory().join("path.toml");
    let whole = whole.to_str().unwrap();
    let text = fs::read_to_string(whole).unwrap();
    let other = lab.directory().join("port.toml");
    fs::write(&other, text.replacen("port = 80\n", "port = 8080\n", 1)).unwrap();
    let other = other.to_str().unwrap();
    assert!(
        lab.on("s", "ping -c1 -W2 203.0.113.1")
            .contains(" 0% packet loss")
    );
    let neighbour = || lab.on("s", "ip -br neigh show 203.0.113.1 dev eth0");
    let mac = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    let before = neighbour();

    for round in 0..3 {
        let got = verify_all(&[whole, whole, whole]);
        let proven = (Some(0), Vec::new());
        assert!(got.iter().all(|one| *one == proven), "{round}: {got:?}");
    }
    // A broken path is probed much longer, and its agents are there all the while.
    let got = verify_all(&[other, whole, other]);
    let codes = ["ipvs-service-missing", "service-not-listening"];
    let missing = (Some(1), codes.map(str::to_owned).to_vec());
    assert_eq!(got, [missing.clone(), (Some(0), Vec::new()), missing]);

    assert_eq!(mac(&neighbour()), mac(&before), "{before} {}", neighbour());
    assert_eq!(lab.on("s", "ss -Hnt state syn-recv"), "");
    fs::remove_file(other).unwrap();
}
