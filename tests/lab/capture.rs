//! A capture file of the client as a vantage.

use std::fs;
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
