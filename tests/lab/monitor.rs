//! `tunproof monitor`: what Prometheus scrapes, while the path breaks.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;

struct Monitor {
    process: Child,
    address: String,
}

impl Monitor {
    fn start(lab: &TestLab, textfile: &str) -> Monitor {
        let mut process = Command::new(TUNPROOF)
            .arg("monitor")
            .arg(lab.directory().join("path.toml"))
            .args(["--listen", "127.0.0.1:0", "--interval", "10s"])
            .args(["--textfile", textfile])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stderr = process.stderr.take().unwrap();
        BufReader::new(stderr).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on http://");
        let address = address.and_then(|rest| rest.strip_suffix("/metrics\n"));
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Monitor { process, address }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK"), "{head}");
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        body.to_owned()
    }

    /// The metrics, once this line is among them.
    fn with(&self, line: &str) -> String {
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let metrics = self.metrics();
            if metrics.lines().any(|other| other == line) {
                return metrics;
            }
            assert!(Instant::now() < until, "no {line}\n{metrics}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_monitor_shows_the_break_and_ends_on_sigterm() {
    let lab = TestLab::up("monitor");
    let textfile = std::env::temp_dir().join(format!("{}.prom", lab.name));
    let mut monitor = Monitor::start(&lab, textfile.to_str().unwrap());
    let proven = monitor.with("tunproof_path_proven{realserver=\"s\"} 1");
    for line in [
        "tunproof_agent_up{host=\"client\"} 1",
        "tunproof_last_run_exit_status 0",
        "tunproof_hop_state{realserver=\"s\",hop=\"service\",state=\"proven\"} 1",
    ] {
        assert!(
            proven.lines().any(|other| other == line),
            "{line}\n{proven}"
        );
    }
    assert!(
        proven.contains("tunproof_round_trip_seconds_count{realserver=\"s\",probe=\"tunnel-syn\"}")
    );
    let broken = lab.run(&["break", "rp-filter-drops"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let broken = monitor.with(
        "tunproof_finding{realserver=\"s\",hop=\"realserver-accept\",code=\"rp-filter-drops\",severity=\"error\"} 1",
    );
    for line in [
        "tunproof_path_proven{realserver=\"s\"} 0",
        "tunproof_hop_state{realserver=\"s\",hop=\"realserver-accept\",state=\"broken\"} 1",
        "tunproof_last_run_exit_status 1",
    ] {
        assert!(
            broken.lines().any(|other| other == line),
            "{line}\n{broken}"
        );
    }
    let written = fs::read_to_string(&textfile).unwrap();
    let mode = fs::metadata(&textfile).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "node_exporter is another user");
    fs::remove_file(&textfile).unwrap();
    assert!(
        written.contains("tunproof_last_run_exit_status 1\n"),
        "{written}"
    );
    // Who talks to the network has no right, whichever run it is, and which of its threads; who starts agents has all,
    // and no socket but the monitor's.
    let number = monitor.process.id();
    for thread in fs::read_dir(format!("/proc/{number}/task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        for (field, value) in [
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let line = format!("{field}:\t{value}");
            assert!(
                status.lines().any(|other| other == line),
                "{line}\n{status}"
            );
        }
    }
    let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap();
    let starter = children.trim();
    let line = fs::read_to_string(format!("/proc/{starter}/cmdline")).unwrap();
    assert_eq!(line, "tunproof\0agent\0--starter\0", "{children}");
    assert_eq!(listening_sockets(&number.to_string()), 1);
    assert_eq!(listening_sockets(starter), 0);
    let number = Pid::from_raw(number as i32);
    kill(number, Signal::SIGTERM).unwrap();
    let status = monitor.process.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_monitor_whose_starter_was_killed_says_so_and_ends() {
    let lab = TestLab::up("unstarting");
    let textfile = lab.directory().join("unstarting.prom");
    let mut monitor = Monitor::start(&lab, textfile.to_str().unwrap());
    monitor.with("tunproof_path_proven{realserver=\"s\"} 1");
    let number = monitor.process.id();
    let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap();
    kill(
        Pid::from_raw(children.trim().parse().unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    let status = monitor.process.wait().unwrap();
    assert_eq!(status.code(), Some(2));
    fs::remove_file(textfile).unwrap();
}

/// How many TCP sockets that listen a process has.
fn listening_sockets(process: &str) -> usize {
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    let listening: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(3) == Some(&"0A"))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    files
        .filter_map(|file| fs::read_link(file.unwrap().path()).ok())
        .filter(|target| {
            listening
                .iter()
                .any(|socket| target.as_os_str() == &**socket)
        })
        .count()
}
