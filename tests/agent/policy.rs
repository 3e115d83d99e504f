//! A host's policy, and what is not taken from a controller.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Encoder;
use tunproof::agent::MessageCodec;
use tunproof::agent::PROTOCOL;
use tunproof::agent::ToAgent;
use tunproof::exchange::ConnectOutcome;
use tunproof::exchange::FirewallPacket;
use tunproof::exchange::FirewallQuery;
use tunproof::exchange::Leg;
use tunproof::exchange::SendOutcome;
use tunproof::exchange::TapPath;
use tunproof::exchange::TapSpec;
use tunproof::live::fleet::Fleet;
use tunproof::live::tap::Tap;
use tunproof::run::Command as Order;
use tunproof::run::Event;

use crate::CIP;
use crate::DIP;
use crate::GATEWAY;
use crate::Host;
use crate::RIP;
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
use crate::marks;
use crate::opening;
use crate::options;
use crate::packet;
use crate::paths;
use crate::pid;
use crate::segment;
use crate::start;
use crate::tap_spec;
use crate::vantage;

/// A file of this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tunproof-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("agent.toml");
    fs::write(&file, text).unwrap();
    file
}

fn script(policy: &std::path::Path) -> String {
    format!("exec {TUNPROOF} \"$1\" --policy {}", policy.display())
}

fn send(token: u32, transmit: tunproof::exchange::Transmit) -> Order {
    Order::Send {
        token,
        transmit,
        cleanup: None,
    }
}

/// Why an agent did not send.
async fn declined(fleet: &mut Fleet) -> String {
    match event(fleet).await {
        Event::Sent {
            outcome: SendOutcome::Declined { reason, .. },
            ..
        } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_path_that_the_policy_does_not_have_is_not_served() {
    in_namespace(
        "policy::a_path_that_the_policy_does_not_have_is_not_served",
        || async {
            for (text, expected) in [
                (
                    "vips = [\"192.0.2.11\"]",
                    "`vips` in FILE on that host does not have 192.0.2.10, the VIP",
                ),
                (
                    "realservers = []",
                    "`realservers` in FILE on that host does not have 203.0.113.5, the real server",
                ),
                (
                    "clients = [\"10.0.0.0/8\"]",
                    "`clients` in FILE on that host does not have 198.51.100.7, the client",
                ),
                (
                    "directors = [\"192.0.2.3\"]",
                    "`directors` in FILE on that host does not have 192.0.2.2, the director",
                ),
            ] {
                let policy = file("unlisted", text);
                let vantages = vec![vantage(&script(&policy))];
                let (agents, failures) = start(vantages, &paths(), options()).await;
                assert!(agents.is_empty());
                let expected = expected.replace("FILE", policy.to_str().unwrap());
                let reason = format!("the agent there cannot serve this path: {expected}");
                assert_eq!(failures[0].reason, reason);
                assert!(failures[0].hint.contains("policy"), "{}", failures[0].hint);
            }
            let policy = file("unlisted", "vip = 1\nrate = 0\n");
            let vantages = vec![vantage(&script(&policy))];
            let (_, failures) = start(vantages, &paths(), options()).await;
            assert_eq!(failures[0].reason, "the agent ended (exit status: 2)");
            for part in ["unknown key `vip`", "agent.toml:1:1", "agent.toml:2:8"] {
                assert!(failures[0].stderr.contains(part), "{}", failures[0].stderr);
            }
            let nowhere = script(&policy.with_file_name("none.toml"));
            let (_, failures) = start(vec![vantage(&nowhere)], &paths(), options()).await;
            assert!(failures[0].stderr.contains("cannot read the policy"));
        },
    );
}

#[test]
fn what_the_policy_does_not_have_is_declined_and_the_rest_is_done() {
    in_namespace(
        "policy::what_the_policy_does_not_have_is_declined_and_the_rest_is_done",
        || async {
            let text = "vips = [\"192.0.2.0/24\"]\nrealservers = [\"203.0.113.5\"]\nclients = [\"0.0.0.0/0\"]\n\
                        probes = [\"control\"]\nforget-neighbours = false\n";
            let policy = file("families", text);
            let shown = policy.display();
            let mut tap = Tap::open(&tap_spec()).unwrap();
            let mut fleet = fleet_of(&script(&policy), options()).await;
            for (token, from, family) in [(1, VIP, "spoof"), (2, CIP, "service")] {
                let to = if from == VIP { CIP } else { VIP };
                fleet.send(Host::Director, send(token, packet(from, to, 9)));
                let expected = format!("`probes` in {shown} on this host does not have `{family}`");
                assert_eq!(declined(&mut fleet).await, expected);
            }
            // The gateway is no real server, and this host has not named it yet.
            fleet.send(Host::Director, send(3, packet(RIP, GATEWAY, 9)));
            let expected = "203.0.113.1, the destination, is not an address of the path file";
            assert_eq!(declined(&mut fleet).await, expected);
            let connect = Order::Connect {
                token: 4,
                to: (VIP, 80),
                timeout_ms: 100,
            };
            fleet.send(Host::Director, connect);
            let answer = event(&mut fleet).await;
            assert!(
                matches!(
                    &answer,
                    Event::Connected {
                        outcome: ConnectOutcome::Declined { .. },
                        ..
                    }
                ),
                "{answer:?}"
            );
            fleet.send(Host::Director, forget());
            let expected = Event::Failed {
                operation: "delete the neighbour entry".to_owned(),
                error: format!("`forget-neighbours` in {shown} on this host is false"),
            };
            assert_eq!(event(&mut fleet).await, expected);
            assert!(ip("neigh show dev near").contains("02:00:00:00:00:99"));
            fleet.send(Host::Director, send(5, packet(RIP, CIP, 7)));
            assert!(is_sent(&event(&mut fleet).await, 5));
            assert!(fleet.finish().await.is_empty());
            assert_eq!(marks(&mut tap).await, [7]);
        },
    );
}

#[test]
fn a_tap_hears_the_paths_packets_and_nobody_elses() {
    in_namespace(
        "policy::a_tap_hears_the_paths_packets_and_nobody_elses",
        || async {
            let mut fleet = fleet().await;
            let mut spec = tap_spec();
            spec.paths[0].cip = std::net::Ipv4Addr::new(8, 8, 8, 8);
            let rewritten = TapSpec {
                rewritten: Some(spec.paths[0].cip),
                ..tap_spec()
            };
            for (spec, role) in [(spec, "client"), (rewritten, "destination")] {
                fleet.send(Host::Director, Order::OpenTap(spec));
                let expected = Event::Failed {
                    operation: "open the tap".to_owned(),
                    error: format!(
                        "8.8.8.8, the {role} to hear, is not an address of the path file"
                    ),
                };
                assert_eq!(event(&mut fleet).await, expected);
            }
            fleet.send(Host::Director, Order::OpenTap(tap_spec()));
            assert_eq!(event(&mut fleet).await, Event::TapOpen);
            assert!(fleet.finish().await.is_empty());
        },
    );
}

#[test]
fn what_is_no_cleanup_and_whom_nobody_declared_is_declined() {
    in_namespace(
        "policy::what_is_no_cleanup_and_whom_nobody_declared_is_declined",
        || async {
            let mut tap = Tap::open(&tap_spec()).unwrap();
            let mut fleet = fleet().await;
            for cleanup in [packet(VIP, CIP, 2), segment(2, 2)] {
                let order = Order::Send {
                    token: 1,
                    transmit: segment(2, 1),
                    cleanup: Some(cleanup),
                };
                fleet.send(Host::Director, order);
                let expected = "the cleanup is no bare RST of the flow that the packet opens";
                assert_eq!(declined(&mut fleet).await, expected);
            }
            let connect = Order::Connect {
                token: 2,
                to: (RIP, 80),
                timeout_ms: 100,
            };
            fleet.send(Host::Director, connect);
            let reason =
                "203.0.113.5 is no VIP of the path file, and connections go to nothing else"
                    .to_owned();
            let expected = Event::Connected {
                token: 2,
                outcome: ConnectOutcome::Declined { reason },
            };
            assert_eq!(event(&mut fleet).await, expected);
            let asked = |source| {
                Order::Firewall(FirewallQuery {
                    packets: vec![FirewallPacket {
                        leg: Leg::Request,
                        incoming: true,
                        protocol: 6,
                        source,
                        destination: VIP,
                        source_port: None,
                        destination_port: Some(80),
                        devices: Vec::new(),
                    }],
                })
            };
            for (source, is_told) in [(Ipv4Addr::new(8, 8, 8, 8), false), (CIP, true)] {
                fleet.send(Host::Director, asked(source));
                let Event::Firewall(found) = event(&mut fleet).await else {
                    panic!("no firewall");
                };
                let stranger = "8.8.8.8, the source to ask the firewall about, is not an address of the path file";
                let is_declined = found.unread.iter().any(|unread| unread.error == stranger);
                assert_eq!(is_declined, !is_told, "{found:?}");
            }
            assert!(fleet.finish().await.is_empty());
            assert_eq!(marks(&mut tap).await, Vec::<u8>::new());
        },
    );
}

#[test]
fn what_was_closed_is_closed_once_more_at_the_end() {
    in_namespace(
        "policy::what_was_closed_is_closed_once_more_at_the_end",
        || async {
            let mut fleet = fleet().await;
            for token in 0..20 {
                fleet.send(Host::Director, opening(token));
                assert!(is_sent(&event(&mut fleet).await, token));
                fleet.send(Host::Director, Order::Settle { token });
                assert_eq!(event(&mut fleet).await, Event::Settled { token });
            }
            let mut tap = Tap::open(&tap_spec()).unwrap();
            assert!(fleet.finish().await.is_empty());
            // At what pace, `live::gate` has a test for.
            assert_eq!(marks(&mut tap).await.len(), 20);
        },
    );
}

#[test]
fn a_controller_is_told_the_rate_and_what_comes_faster_is_kept() {
    in_namespace(
        "policy::a_controller_is_told_the_rate_and_what_comes_faster_is_kept",
        || async {
            let policy = file("rate", "rate = 10");
            let vantages = vec![vantage(&script(&policy))];
            let (agents, failures) = start(vantages, &paths(), options()).await;
            assert_eq!(failures, []);
            let allowance = agents[0].allowance().clone();
            assert_eq!(
                (allowance.rate, allowance.policy.as_deref()),
                (10, policy.to_str())
            );
            let mut fleet = Fleet::new(agents);
            // How they are slowed down, `live::gate` has tests for; none of them is lost.
            for token in 0..25 {
                fleet.send(Host::Director, send(token, packet(VIP, CIP, 1)));
            }
            for token in 0..25 {
                assert!(is_sent(&event(&mut fleet).await, token));
            }
            assert!(fleet.finish().await.is_empty());
            // A host that says nothing allows as much as is usual with so many real servers.
            for (realservers, usual) in [(1, 100), (3, 300), (200, 10_000)] {
                let paths = vec![paths()[0].clone(); realservers];
                assert_eq!(fleet_allowance(&paths).await, (usual, None));
            }
        },
    );
}

async fn fleet_allowance(paths: &[TapPath]) -> (u32, Option<String>) {
    let script = format!("exec {TUNPROOF} \"$1\"");
    let (agents, _) = start(vec![vantage(&script)], paths, options()).await;
    let allowance = agents[0].allowance().clone();
    assert!(Fleet::new(agents).finish().await.is_empty());
    (allowance.rate, allowance.policy)
}

#[test]
fn who_asks_for_more_is_told_what_the_host_allows() {
    in_namespace(
        "policy::who_asks_for_more_is_told_what_the_host_allows",
        || async {
            let run = Command::new(TUNPROOF)
                .args(["realserver", "--rate", "500", "--timeout", "1s"])
                .args(["--vip", &VIP.to_string(), "--cip", &CIP.to_string()])
                .args(["--dip", &DIP.to_string(), "--rip", &RIP.to_string()])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&run.stderr);
            let note = "note: 100 packets a second and host instead of 500: 203.0.113.5 has no policy, and so the usual; \
                        its administrator may allow it by `rate = 500` in /etc/tunproof/agent.toml\n";
            assert!(said.contains(note), "{said}");
        },
    );
}

/// The messages as a controller writes them.
fn written(messages: &[ToAgent]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for message in messages {
        MessageCodec::default().encode(message, &mut bytes).unwrap();
    }
    bytes.to_vec()
}

fn beginning() -> ToAgent {
    ToAgent::Start {
        protocol: PROTOCOL,
        paths: paths(),
    }
}

/// An agent that is told this, and then nothing more, until it ends by itself.
fn told(bytes: &[u8]) -> Output {
    let mut agent = Command::new(TUNPROOF)
        .arg("agent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = agent.stdin.take().unwrap();
    // It may end before it has read all.
    let _ = stdin.write_all(bytes);
    let ended = agent.wait_with_output().unwrap();
    drop(stdin);
    ended
}

#[test]
fn what_is_no_conversation_ends_it_and_nothing_is_sent() {
    in_namespace(
        "policy::what_is_no_conversation_ends_it_and_nothing_is_sent",
        || async {
            let mut tap = Tap::open(&tap_spec()).unwrap();
            let sending = || ToAgent::Do(opening(1));
            let with = |between: &[u8]| {
                let begun = written(&[beginning(), sending()]);
                [&begun, between, &written(&[sending()])].concat()
            };
            let framed = |text: &str| {
                let length = (text.len() as u32).to_be_bytes();
                [&length[..], text.as_bytes()].concat()
            };
            let other = ToAgent::Start {
                protocol: PROTOCOL + 1,
                paths: paths(),
            };
            let cases = [
                (vec![0xff; 64], "a message is longer than 16777216 octets"),
                (
                    with(&[0x7f, 0, 0, 0]),
                    "a message is longer than 16777216 octets",
                ),
                (framed("no message"), "`no message` is no message: "),
                (
                    with(&framed("{\"do\":{\"send\":{}}}")),
                    "is no message: missing field",
                ),
                (
                    with(&framed("{\"do\":\"reboot\"}")),
                    "is no message: unknown variant `reboot`",
                ),
                (
                    with(&framed("\"\x1b[2J\"")),
                    r#"`\"\x1b[2J\"` is no message"#,
                ),
                (
                    written(&[sending(), beginning()]),
                    "the controller's first message is not `start`",
                ),
                (
                    written(&[beginning(), beginning(), sending()]),
                    "the controller says `start` twice",
                ),
                (
                    written(&[other, sending()]),
                    "the controller speaks protocol 3; this is tunproof",
                ),
            ];
            for (bytes, expected) in cases {
                let ended = told(&bytes);
                let said = String::from_utf8_lossy(&ended.stderr);
                assert_eq!(ended.status.code(), Some(2), "{said}");
                assert!(said.starts_with("tunproof agent: "), "{said}");
                assert!(said.contains(expected), "{expected}: {said}");
            }
            assert_eq!(marks(&mut tap).await, Vec::<u8>::new());
        },
    );
}

/// A log that this test reads, and a script that starts an agent of whose host it is.
fn logged(name: &str) -> (UnixDatagram, String) {
    let folder = std::env::temp_dir().join(format!("tunproof-{}-{name}", std::process::id()));
    // One that was left over is of a process with the same number.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("dev")).unwrap();
    let log = UnixDatagram::bind(folder.join("log")).unwrap();
    log.set_read_timeout(Some(SOON)).unwrap();
    let shown = folder.display();
    let script = format!(
        "export SSH_CONNECTION='198.51.100.99 40000 203.0.113.5 22'
         exec unshare --mount sh -c 'mount -t tmpfs none {shown}/dev && cd {shown}/dev && touch null log \
         && mount --bind /dev/null null && mount --bind {shown}/log log && mount --rbind {shown}/dev /dev \
         && exec {TUNPROOF} agent'"
    );
    (log, script)
}

fn line(log: &UnixDatagram) -> String {
    let mut buffer = [0; 2048];
    let length = log.recv(&mut buffer).expect("a line in time");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn each_request_leaves_a_line_in_the_log() {
    in_namespace("policy::each_request_leaves_a_line_in_the_log", || async {
        let (log, script) = logged("log");
        let mut fleet = fleet_of(&script, options()).await;
        let agent = pid(&format!("{TUNPROOF} agent"));
        for (token, transmit) in [
            (1, packet(VIP, CIP, 1)),
            (2, packet(VIP, CIP, 1)),
            (3, packet(RIP, CIP, 1)),
        ] {
            fleet.send(Host::Director, send(token, transmit));
            assert!(is_sent(&event(&mut fleet).await, token));
        }
        let stranger = std::net::Ipv4Addr::new(8, 8, 8, 8);
        fleet.send(Host::Director, send(4, packet(VIP, stranger, 1)));
        declined(&mut fleet).await;
        assert!(fleet.finish().await.is_empty());
        let user = nix::unistd::getuid();
        let who = format!("198.51.100.99 by ssh, uid {user}");
        let path = "VIP 192.0.2.10 at 203.0.113.5 for 198.51.100.7 from director 192.0.2.2";
        let expected = format!(
            "<30>tunproof[{agent}]: {who}: {path}; sent spoof 2, control 1; declined 1; finished"
        );
        assert_eq!(line(&log), expected);

        let mut fleet = fleet_of(&script, options()).await;
        fleet.send(Host::Director, opening(1));
        assert!(is_sent(&event(&mut fleet).await, 1));
        let janitor = pid("janitor");
        kill(pid(&format!("{TUNPROOF} agent")), Signal::SIGKILL).unwrap();
        assert_eq!(fleet.finish().await.len(), 1);
        let expected = format!(
            "<30>tunproof[{janitor}]: {who}: the agent ended early; left behind: 1, put right"
        );
        assert_eq!(line(&log), expected);

        let wrong = file("wrong", "rate = 0");
        let argument = format!("{TUNPROOF} agent --policy {}", wrong.display());
        let script = script.replace(&format!("{TUNPROOF} agent"), &argument);
        let (agents, _) = start(vec![vantage(&script)], &paths(), options()).await;
        assert!(agents.is_empty());
        let said = line(&log);
        let expected = format!("{who}: nothing is served: ");
        assert!(
            said.contains(&expected) && said.contains("agent.toml:1:8"),
            "{said}"
        );
    });
}
