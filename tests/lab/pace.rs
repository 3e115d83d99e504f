//! What of a sweep arrives at the real servers, counted on the wire; when, `run::fleet` has tests for, whose clock no
//! machine's load moves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tunproof::live::frames::Packets;

use crate::bench::text;
use crate::bench::wait_until;
use crate::sweep::Site;
use crate::sweep::in_namespace;
use crate::sweep::sweep;

#[test]
fn real_servers_take_turns_and_none_gets_more_than_another() {
    in_namespace("pace::helper_turns");
}

#[test]
fn a_sweep_that_goes_on_waits_for_what_closes_the_killed_one() {
    in_namespace("pace::helper_waits");
}

/// A packet that came out at `far`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    rip: [u8; 4],
    port: u16,
    closes: bool,
}

/// All tunnelled segments that come out at `far`, in their order, as long as the process lives. Nobody answers.
fn record() -> Arc<Mutex<Vec<Seen>>> {
    let far = nix::net::if_::if_nametoindex("far").unwrap();
    let mut socket = Packets::of_device(far).unwrap();
    socket.set_room(64 << 20).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    thread::spawn(move || {
        while let Ok(packet) = socket.receive() {
            if packet.len() < 60 || packet[9] != 4 || packet[29] != 6 {
                continue;
            }
            kept.lock().unwrap().push(Seen {
                rip: packet[16..20].try_into().unwrap(),
                port: u16::from_be_bytes([packet[42], packet[43]]),
                closes: packet[53] & 4 != 0,
            });
        }
    });
    seen
}

fn fleet(site: &Site, ports: &str, realservers: &str, limits: &str) -> PathBuf {
    let text = format!(
        "[director]\nip = \"10.9.0.1\"\n[[service]]\nvip = \"192.0.2.11\"\nport = {ports}\nprotocol = \"tcp\"\n\
         realservers = {realservers}\n[limits]\n{limits}\n"
    );
    site.file("fleet.toml", &text)
}

#[test]
#[ignore = "run by real_servers_take_turns_and_none_gets_more_than_another"]
fn helper_turns() {
    let site = Site::new();
    let seen = record();
    let servers = "[\"10.64.0.1\", \"10.64.0.2\", \"10.64.0.3\"]";
    let ports: Vec<u16> = (8001..=8012).collect();
    let file = fleet(
        &site,
        &format!("{ports:?}"),
        servers,
        "rate = 1000\neach = 40",
    );
    let output = sweep(&file, &["--tries", "2"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let seen = seen.lock().unwrap().clone();
    let probes: Vec<_> = seen.iter().filter(|seen| !seen.closes).collect();
    let turns: Vec<BTreeSet<_>> = probes
        .chunks(3)
        .map(|turn| turn.iter().map(|seen| seen.rip).collect())
        .collect();
    assert!(turns.iter().all(|turn| turn.len() == 3), "{turns:?}");
    let mut counts: BTreeMap<Seen, u32> = BTreeMap::new();
    for seen in &seen {
        *counts.entry(*seen).or_default() += 1;
    }
    // Each pair is tried twice and closed once, and nothing else arrives.
    let expected: BTreeMap<_, _> = (1..=3)
        .flat_map(|server| ports.iter().map(move |port| (server, *port)))
        .flat_map(|(server, port)| {
            let rip = [10, 64, 0, server];
            [(false, 2), (true, 1)].map(|(closes, count)| (Seen { rip, port, closes }, count))
        })
        .collect();
    assert_eq!(counts, expected);
}

#[test]
#[ignore = "run by a_sweep_that_goes_on_waits_for_what_closes_the_killed_one"]
fn helper_waits() {
    let site = Site::new();
    let seen = record();
    let file = fleet(&site, "[80]", "[\"10.64.0.0/22\"]", "rate = 200\neach = 10");
    let state = site.folder.join("state");
    let arguments = ["--resume", state.to_str().unwrap()];
    let mut killed = sweep(&file, &arguments);
    let count = || seen.lock().unwrap().len();
    wait_until("there is a state and much is open", || {
        state.exists() && count() >= 300
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    let again = sweep(&file, &arguments);
    // The first part of the sequence, as far as it is alike.
    let part = |from: usize, closes: bool| {
        let seen = seen.lock().unwrap();
        let part = seen[from..].iter().take_while(|seen| seen.closes == closes);
        part.map(|seen| seen.rip).collect::<BTreeSet<_>>()
    };
    wait_until("it goes on", || {
        let opened = part(0, false).len();
        let closed = part(opened, true).len();
        closed > 0 && !part(opened + closed, false).is_empty()
    });
    kill(Pid::from_raw(again.id() as i32), Signal::SIGINT).unwrap();
    let output = again.wait_with_output().unwrap();
    assert!(text(&output).contains("goes on from"), "{}", text(&output));
    // All that the first one opened was closed before the second one opened anything.
    let opened = part(0, false);
    let closed = part(opened.len(), true);
    assert!(opened.len() >= 300, "{}", opened.len());
    assert!(
        closed.is_superset(&opened),
        "{} {}",
        opened.len(),
        closed.len()
    );
    let waited = format!(
        "waiting: the sweep of `{}` has not ended yet",
        state.display()
    );
    assert!(text(&output).contains(&waited), "{}", text(&output));
}
