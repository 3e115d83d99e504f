//! `tunproof watch`: what breaks and is mended meanwhile is said, and nothing else; and nothing is left between rounds
//! and after.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
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
use crate::bench::wait_until;

/// More lines than any of these tests waits for.
const ENOUGH: usize = 40;

struct Watcher {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(lab: &TestLab) -> Watcher {
        let mut child = command(lab, &["--format", "json", "--interval", "5s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Watcher { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Everything up to the end of the next round, that included.
    fn round(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..ENOUGH {
            events.push(self.next());
            if events[events.len() - 1]["event"] == "round" {
                return events;
            }
        }
        panic!("no round: {events:#?}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// It and the processes below it.
    fn processes(&self) -> Vec<u32> {
        let mut found = vec![self.child.id()];
        let mut next = 0;
        while let Some(process) = found.get(next) {
            let children = format!("/proc/{process}/task/{process}/children");
            let children = fs::read_to_string(children).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .map(|child| child.parse::<u32>().unwrap()),
            );
            next += 1;
        }
        found
    }
}

fn command(lab: &TestLab, arguments: &[&str]) -> Command {
    let mut command = Command::new(TUNPROOF);
    command.arg("watch").arg(lab.directory().join("path.toml"));
    command.args(arguments);
    command
}

/// A change without its time and its words.
fn change(event: &Value) -> (String, String, String, String) {
    assert_eq!(event["schema"], "tunproof.watch/1", "{event}");
    assert_eq!(event["event"], "change", "{event}");
    let word = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
    (word("hop"), word("from"), word("to"), word("code"))
}

fn is(hop: &str, from: &str, to: &str, code: &str) -> (String, String, String, String) {
    let [hop, from, to, code] = [hop, from, to, code].map(str::to_owned);
    (hop, from, to, code)
}

#[test]
fn what_breaks_and_is_mended_is_said_and_nothing_else() {
    let lab = TestLab::up("watch");
    let mut watcher = Watcher::start(&lab);
    let first = watcher.round();
    assert_eq!(first.len(), 1, "{first:#?}");
    assert_eq!(first[0]["verdict"], "proven", "{first:#?}");
    let hops = first[0]["paths"][0]["hops"].as_array().unwrap();
    for hop in hops {
        assert!(hop["sent"].as_u64() > Some(0), "{hop}");
        assert_eq!(hop["sent"], hop["seen"], "nothing is lost here: {hop}");
    }
    for timed in [3, 6, 8, 10, 11] {
        let trip = &hops[timed]["round_trip_ms"];
        let [best, worst] = ["best", "worst"].map(|key| trip[key].as_f64().unwrap());
        assert!(0.0 < best && best <= worst, "{}", hops[timed]);
    }

    assert!(lab.run(&["break", "rp-filter-drops"]).status.success());
    let broken = watcher.round();
    let (last, changes) = broken.split_last().unwrap();
    let changes: Vec<_> = changes.iter().map(change).collect();
    let accept = "realserver-accept";
    let expected = [
        is(accept, "proven", "broken", "rp-filter-drops"),
        is("service", "proven", "skipped", "-"),
    ];
    assert_eq!(changes, expected);
    assert_eq!(
        broken[0]["fix"][0],
        "s# sysctl -w net.ipv4.conf.tunl0.rp_filter=0"
    );
    assert_eq!(last["verdict"], "broken");
    let again = watcher.round();
    assert_eq!(again.len(), 1, "{again:#?}");

    assert!(lab.run(&["mend"]).status.success());
    let mended = watcher.round();
    let (last, changes) = mended.split_last().unwrap();
    let changes: Vec<_> = changes.iter().map(change).collect();
    let expected = [
        is(accept, "broken", "proven", "-"),
        is("service", "skipped", "proven", "-"),
    ];
    assert_eq!(changes, expected);
    let hop = &last["paths"][0]["hops"][5];
    assert_eq!(
        (&hop["flaps"], &hop["since"]),
        (&2.into(), &last["time"]),
        "{hop}"
    );

    watcher.signal(Signal::SIGINT);
    let end = watcher.next();
    assert_eq!(end["event"], "end", "{end}");
    assert_eq!(
        (&end["rounds"], &end["broken"]),
        (&4.into(), &2.into()),
        "{end}"
    );
    let status = watcher.child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "the worst of all rounds");
}

#[test]
fn on_change_prints_the_first_rounds_breaks_and_not_what_stays_so() {
    let lab = TestLab::up("on-change");
    assert!(
        lab.run(&["break", "spoofed-source-filtered"])
            .status
            .success()
    );
    let watched = command(&lab, &["--on-change", "--count", "2", "--interval", "5s"]);
    let watched = { watched }.output().unwrap();
    let said = String::from_utf8(watched.stdout.clone()).unwrap();
    let lines: Vec<_> = said.lines().collect();
    let broken = lines.iter().filter(|line| line.contains(": broken ["));
    let broken: Vec<_> = broken.collect();
    assert_eq!(broken.len(), 1, "{said}");
    let break_ = " s spoofed-source-transit: broken [spoofed-source-filtered] ";
    assert!(broken[0].contains(break_), "{said}");
    let others = lines.iter().filter(|line| !line.contains(": broken ["));
    for line in others {
        assert!(
            line.contains(": skipped") || line.contains(": unproven"),
            "{said}"
        );
    }
    let summary = String::from_utf8_lossy(&watched.stderr);
    assert!(
        summary.starts_with("2 rounds in ") && summary.ends_with(": 2 broken\n"),
        "{summary}"
    );
    assert_eq!(watched.status.code(), Some(1), "{}", text(&watched));
}

#[test]
fn nothing_is_left_between_rounds_and_after_a_kill() {
    let lab = TestLab::up("watch-killed");
    assert!(
        lab.on("s", "ping -c1 -W2 203.0.113.1")
            .contains(" 0% packet loss")
    );
    let neighbour = || lab.on("s", "ip -br neigh show 203.0.113.1 dev eth0");
    let mac = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
    let before = mac(&neighbour());
    let mut watcher = Watcher::start(&lab);
    watcher.round();
    let between = watcher.processes();
    let lines: Vec<_> = between[1..]
        .iter()
        .map(|process| fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap())
        .collect();
    assert_eq!(
        lines,
        ["tunproof\0agent\0--starter\0"],
        "agents between rounds"
    );
    assert_eq!(mac(&neighbour()), before);

    let mut processes = Vec::new();
    wait_until("the second round has begun", || {
        processes = watcher.processes();
        processes.len() > 4
    });
    // In the middle of it.
    thread::sleep(Duration::from_millis(150));
    processes.extend(watcher.processes());
    watcher.signal(Signal::SIGKILL);
    watcher.child.wait().unwrap();
    wait_until("all its processes are gone", || {
        !processes
            .iter()
            .any(|process| Path::new(&format!("/proc/{process}")).exists())
    });
    wait_until("nothing is half-open", || {
        lab.on("s", "ss -Hnt state syn-recv").is_empty()
    });
    assert_eq!(mac(&neighbour()), before);
}

#[test]
fn a_reader_that_goes_ends_it() {
    let lab = TestLab::up("unread");
    let mut watcher = Watcher::start(&lab);
    watcher.round();
    let Watcher { mut child, lines } = watcher;
    drop(lines);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
}
