//! What agents, janitors and commands may still do, by their `/proc/PID/status`; and what they do all the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use nix::unistd::Pid;
use tunproof::exchange::FactQuery;
use tunproof::exchange::FirewallPacket;
use tunproof::exchange::FirewallQuery;
use tunproof::exchange::Leg;
use tunproof::exchange::ServiceQuery;
use tunproof::run::Command as Order;
use tunproof::run::Event;

use crate::CIP;
use crate::DIP;
use crate::Host;
use crate::SOON;
use crate::TUNPROOF;
use crate::VIP;
use crate::event;
use crate::fleet;
use crate::fleet_of;
use crate::forget;
use crate::in_namespace;
use crate::ip;
use crate::is_sent;
use crate::opening;
use crate::options;
use crate::paths;
use crate::pid;
use crate::start;
use crate::tap_spec;
use crate::vantage;

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;
const SYSLOG: u64 = 1 << 34;
const PERFMON: u64 = 1 << 38;

/// The fields of a status file.
fn status(file: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn capabilities(file: &str, set: &str) -> u64 {
    u64::from_str_radix(&status(file)[set], 16).unwrap()
}

/// Every thread of a process has these capabilities at most, no new privileges, a filter of system calls, and, if it
/// was root, none that it could get.
fn confined(process: Pid, most: u64) {
    let threads: Vec<_> = fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .map(|thread| format!("{}/status", thread.unwrap().path().display()))
        .collect();
    assert!(!threads.is_empty());
    for thread in threads {
        let was_root = status(&thread)["Uid"].starts_with("0\t");
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            if set == "CapBnd" && !was_root {
                continue;
            }
            let has = capabilities(&thread, set);
            assert_eq!(has & !most, 0, "{thread} {set} {has:x}");
        }
        let passed_on = (NET_ADMIN | NET_RAW) & most;
        for set in ["CapInh", "CapAmb"] {
            let has = capabilities(&thread, set);
            assert_eq!(has & !passed_on, 0, "{thread} {set} {has:x}");
        }
        let fields = status(&thread);
        assert_eq!((&*fields["NoNewPrivs"], &*fields["Seccomp"]), ("1", "2"));
    }
}

/// A program with the two rights that tunproof asks for, in its file.
fn with_file_capabilities(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tunproof-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let copy = folder.join("tunproof");
    fs::copy(TUNPROOF, &copy).unwrap();
    let set = Command::new("setcap")
        .arg("cap_net_raw,cap_net_admin+ep")
        .arg(&copy)
        .status()
        .expect("setcap of libcap2-bin");
    assert!(set.success());
    copy
}

/// A command before which another user is, or, where this test's user has no others, a root that is nobody special.
fn as_a_user() -> &'static str {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    match map.split_whitespace().last() {
        Some("4294967295") => "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all",
        _ => "setpriv --securebits=+noroot,+noroot_locked --inh-caps=-all",
    }
}

#[test]
fn an_agent_has_no_right_and_its_janitor_only_those_of_its_errands() {
    in_namespace(
        "rights::an_agent_has_no_right_and_its_janitor_only_those_of_its_errands",
        || async {
            let mut fleet = fleet().await;
            let agent = pid(&format!("{TUNPROOF} agent"));
            let janitor = pid("janitor");
            confined(agent, 0);
            let errands = NET_ADMIN | NET_RAW;
            confined(janitor, errands | SYS_ADMIN | SYSLOG | PERFMON);
            // With the tap's and the pipes' threads.
            fleet.send(Host::Director, Order::OpenTap(tap_spec()));
            assert_eq!(event(&mut fleet).await, Event::TapOpen);
            fleet.send(Host::Director, Order::WatchDrops(tap_spec()));
            let answer = event(&mut fleet).await;
            assert!(matches!(answer, Event::DropsWatched(_)), "{answer:?}");
            confined(agent, 0);
            let file = format!("/proc/{janitor}/status");
            for set in ["CapPrm", "CapEff"] {
                assert_eq!(capabilities(&file, set), errands, "{set}");
            }
            assert!(fleet.finish().await.is_empty());
        },
    );
}

#[test]
fn an_ordinary_user_needs_two_capabilities_in_the_programs_file() {
    in_namespace(
        "rights::an_ordinary_user_needs_two_capabilities_in_the_programs_file",
        || async {
            let program = with_file_capabilities("file");
            let shown = program.display();
            let rules = "add table ip t; add chain ip t o { type filter hook output priority 0; }; \
                         add rule ip t o ip daddr 198.51.100.7 tcp sport 80 drop";
            assert!(Command::new("nft").arg(rules).status().unwrap().success());
            // What a user calls nft is not run with the rights that he lacks.
            let own = program.parent().unwrap();
            fs::write(own.join("nft"), "#!/bin/sh\n").unwrap();
            fs::set_permissions(own.join("nft"), fs::Permissions::from_mode(0o755)).unwrap();
            let path = format!("PATH={}:$PATH", own.display());
            let script = format!("{path} exec {} {shown} \"$1\"", as_a_user());
            let mut fleet = fleet_of(&script, options()).await;
            confined(pid(&format!("{shown} agent")), 0);
            let janitor = format!("/proc/{}/status", pid("janitor"));
            assert_eq!(capabilities(&janitor, "CapPrm"), NET_ADMIN | NET_RAW);
            assert_eq!(capabilities(&janitor, "CapAmb"), NET_ADMIN | NET_RAW);

            fleet.send(Host::Director, Order::OpenTap(tap_spec()));
            assert_eq!(event(&mut fleet).await, Event::TapOpen);
            fleet.send(Host::Director, opening(1));
            let mut sent = false;
            while !sent {
                sent = is_sent(&event(&mut fleet).await, 1);
            }
            let service = ServiceQuery { vip: VIP, cip: CIP };
            let query = FactQuery {
                listeners: Some(80),
                service: Some(service),
                ..FactQuery::default()
            };
            fleet.send(Host::Director, Order::Facts(query));
            let facts = loop {
                if let Event::Facts(facts) = event(&mut fleet).await {
                    break facts;
                }
            };
            assert_eq!(facts.unread, []);
            let packet = FirewallPacket {
                leg: Leg::Answer,
                incoming: false,
                protocol: 6,
                source: VIP,
                destination: CIP,
                source_port: Some(80),
                destination_port: None,
                devices: vec!["near".to_owned()],
            };
            let packets = vec![packet];
            fleet.send(Host::Director, Order::Firewall(FirewallQuery { packets }));
            let firewall = loop {
                if let Event::Firewall(firewall) = event(&mut fleet).await {
                    break firewall;
                }
            };
            let rules: Vec<_> = firewall.rules.iter().map(ToString::to_string).collect();
            assert_eq!(rules.len(), 1, "{firewall:?}");
            assert!(rules[0].contains("tcp sport 80 drop"), "{rules:?}");

            fleet.send(Host::Director, forget());
            let answer = loop {
                match event(&mut fleet).await {
                    Event::Captured(_) => {}
                    other => break other,
                }
            };
            assert!(
                matches!(&answer, Event::NeighbourForgotten { old: Some(_), .. }),
                "{answer:?}"
            );
            assert!(!ip("neigh show dev near").contains("02:00:00:00:00:99"));
            assert!(fleet.finish().await.is_empty());
            assert!(ip("neigh show dev near").contains("02:00:00:00:00:99"));
            fs::remove_dir_all(program.parent().unwrap()).unwrap();
        },
    );
}

#[test]
fn a_missing_right_is_named_with_what_it_is_for() {
    in_namespace(
        "rights::a_missing_right_is_named_with_what_it_is_for",
        || async {
            let only = |capabilities: &str| {
                vantage(&format!(
                    "exec setpriv --inh-caps=-all --bounding-set=-all{capabilities} {TUNPROOF} $1"
                ))
            };
            let vantages = vec![only(""), only(",+net_admin")];
            let (agents, failures) = start(vantages, &paths(), options()).await;
            assert!(agents.is_empty());
            for (failure, missing) in failures.iter().zip(["CAP_NET_ADMIN", "CAP_NET_RAW"]) {
                let raw = "the agent there cannot open a raw IPv4 socket: Operation not permitted (os error 1); \
                           CAP_NET_RAW is missing, by which probes are sent and heard";
                assert!(failure.reason.starts_with(raw), "{failure}");
                assert!(failure.reason.contains(missing), "{failure}");
                assert!(failure.hint.contains("setcap cap_net_raw,cap_net_admin+ep"));
            }
            // One of them is enough to probe; what takes the other is told as not read.
            let (agents, failures) = start(vec![only(",+net_raw")], &paths(), options()).await;
            assert_eq!(failures, []);
            let mut fleet = tunproof::live::fleet::Fleet::new(agents);
            fleet.send(Host::Director, opening(1));
            assert!(is_sent(&event(&mut fleet).await, 1));
            fleet.send(Host::Director, forget());
            let answer = event(&mut fleet).await;
            assert!(
                matches!(&answer, Event::Failed { error, .. } if error.contains("os error 1)")),
                "{answer:?}"
            );
            assert!(fleet.finish().await.is_empty());
        },
    );
}

#[test]
fn a_controller_keeps_nothing_while_its_agents_run() {
    in_namespace(
        "rights::a_controller_keeps_nothing_while_its_agents_run",
        || async {
            let mut listener = Command::new(TUNPROOF)
                .args(["listen", "--session", &"07".repeat(16), "--for", "60s"])
                .args(["--vip", &VIP.to_string(), "--cip", &CIP.to_string()])
                .args(["--dip", &DIP.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let controller = Pid::from_raw(listener.id() as i32);
            // Until its agent's tap listens to all protocols.
            let listens = || {
                let sockets = fs::read_to_string("/proc/thread-self/net/packet").unwrap();
                let mut protocols = sockets
                    .lines()
                    .filter_map(|line| line.split_whitespace().nth(3));
                protocols.any(|protocol| protocol == "0003")
            };
            let deadline = std::time::Instant::now() + SOON;
            while !listens() {
                assert!(std::time::Instant::now() < deadline);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            confined(controller, 0);
            nix::sys::signal::kill(controller, nix::sys::signal::Signal::SIGINT).unwrap();
            // In order; the verdict depends on whether it had asked this host, which does not have the VIP.
            let code = listener.wait().unwrap().code();
            assert!(matches!(code, Some(1 | 3)), "{code:?}");
        },
    );
}

#[test]
fn no_round_gives_a_controller_its_rights_back() {
    in_namespace(
        "rights::no_round_gives_a_controller_its_rights_back",
        || async {
            let folder =
                std::env::temp_dir().join(format!("tunproof-{}-rounds", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            // Each agent looks at who started it, and at whose word.
            let script = format!(
                "here=$(dirname \"$0\")\n\
                 controller=$(awk '/^PPid/ {{print $2}}' /proc/$PPID/status)\n\
                 cat /proc/$controller/status > $here/controller.$$\n\
                 cat /proc/$PPID/status > $here/starter.$$\n\
                 exec {TUNPROOF} agent\n"
            );
            fs::write(folder.join("agent.sh"), script).unwrap();
            let via = format!("sh {}", folder.join("agent.sh").display());
            let path = format!(
                "[path]\nvip = \"{VIP}\"\nport = 80\nprotocol = \"tcp\"\n\
                 [director]\nip = \"{DIP}\"\nvia = \"{via}\"\n\
                 [[realserver]]\nname = \"s\"\nip = \"203.0.113.5\"\n\
                 [client]\nip = \"{CIP}\"\n"
            );
            let file = folder.join("path.toml");
            fs::write(&file, path).unwrap();
            let file = file.to_str().unwrap();
            let own = capabilities("/proc/thread-self/status", "CapEff");
            for (command, rounds) in [
                (vec!["verify", file, "--timeout", "2s"], 1),
                (
                    vec![
                        "watch",
                        file,
                        "--count",
                        "2",
                        "--interval",
                        "5s",
                        "--timeout",
                        "2s",
                    ],
                    2,
                ),
                (
                    vec![
                        "run",
                        "q3-spoofed-source",
                        "--path",
                        file,
                        "--repeat",
                        "2",
                        "--timeout",
                        "2s",
                    ],
                    2,
                ),
            ] {
                let output = Command::new(TUNPROOF).args(&command).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(
                    matches!(output.status.code(), Some(1 | 3)),
                    "{command:?}: {said}"
                );
                let (mut controllers, mut starters) = (0, 0);
                for entry in fs::read_dir(&folder).unwrap() {
                    let seen = entry.unwrap().path();
                    let name = seen.file_name().unwrap().to_str().unwrap().to_owned();
                    let fields = seen.to_str().unwrap();
                    if name.starts_with("controller.") {
                        controllers += 1;
                        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                            assert_eq!(capabilities(fields, set), 0, "{command:?} {set}");
                        }
                        let fields = status(fields);
                        let kept = (&*fields["NoNewPrivs"], &*fields["Seccomp"]);
                        assert_eq!(kept, ("1", "2"), "{command:?}");
                    } else if name.starts_with("starter.") {
                        starters += 1;
                        // What it starts may need them.
                        assert_eq!(capabilities(fields, "CapEff"), own, "{command:?}");
                    } else {
                        continue;
                    }
                    fs::remove_file(seen).unwrap();
                }
                assert_eq!(
                    (controllers, starters),
                    (rounds, rounds),
                    "{command:?}: {said}"
                );
            }
            fs::remove_dir_all(folder).unwrap();
        },
    );
}
