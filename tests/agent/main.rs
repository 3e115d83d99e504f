//! Agents as processes: started, obeyed, hung, killed; each test in a network namespace of its own.

mod policy;
mod rights;

use std::fs;
use std::future::Future;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use nix::unistd::geteuid;
use tokio::time::timeout;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Encoder;

use tunproof::agent::Hello;
use tunproof::agent::MessageCodec;
use tunproof::agent::PROTOCOL;
use tunproof::agent::ToAgent;
use tunproof::exchange::Capture;
use tunproof::exchange::ConnectOutcome;
use tunproof::exchange::Direction;
use tunproof::exchange::FactQuery;
use tunproof::exchange::SendOutcome;
use tunproof::exchange::TapPath;
use tunproof::exchange::TapSpec;
use tunproof::exchange::TapStatistics;
use tunproof::exchange::Transmit;
use tunproof::exchange::Way;
use tunproof::live::clock;
use tunproof::live::controller::drive;
use tunproof::live::fleet::Fleet;
use tunproof::live::fleet::Report;
use tunproof::live::network::Network;
use tunproof::live::tap::Tap;
use tunproof::live::vantage::AgentFailure;
use tunproof::live::vantage::AgentHandle;
use tunproof::live::vantage::StartOptions;
use tunproof::live::vantage::Vantage;
use tunproof::live::vantage::Vantages;
use tunproof::plan::Host;
use tunproof::plan::Path;
use tunproof::plan::Plan;
use tunproof::plan::Protocol;
use tunproof::plan::SessionKey;
use tunproof::run::Command as Order;
use tunproof::run::Engine;
use tunproof::run::Event;
use tunproof::run::Limits;
use tunproof::run::Task;
use tunproof::suite::Embedded;

const TUNPROOF: &str = env!("CARGO_BIN_EXE_tunproof");
const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const SOON: Duration = Duration::from_secs(5);

/// Runs `body` in a network namespace that has the RIP on a veth pair `near` (its other end is `far`), and
/// checks that no process is left in it. An ordinary user gets a user namespace, too, and the test runs once
/// more in it.
fn in_namespace<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F + Send + 'static) {
    if !geteuid().is_root() {
        let run = Command::new("unshare")
            .args(["--user", "--map-root-user", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .output()
            .expect("unshare of util-linux");
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && output.contains("1 passed"),
            "{output}\n{}",
            String::from_utf8_lossy(&run.stderr)
        );
        return;
    }
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        ip("link set lo up");
        ip("link add near type veth peer name far");
        ip("link set far up");
        ip("link set near up");
        let mut network = Network::open().unwrap();
        network.wait_until_passing("near").unwrap();
        ip("addr add 203.0.113.5/24 dev near");
        ip("route add default via 203.0.113.1 dev near");
        ip("neigh replace 203.0.113.1 lladdr 02:00:00:00:00:99 dev near nud stale");
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(body());
        let deadline = Instant::now() + SOON;
        while !inhabitants().is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", inhabitants());
            thread::sleep(Duration::from_millis(20));
        }
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip of iproute2");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Process numbers and command lines of the other processes in this thread's network namespace; a janitor, which has its
/// agent's command line, is called that.
fn inhabitants() -> Vec<(i32, String)> {
    let ours = fs::read_link("/proc/thread-self/ns/net").unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let is_here = fs::read_link(format!("/proc/{name}/ns/net")).is_ok_and(|n| n == ours);
        let line = fs::read_to_string(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let process = fs::read_to_string(format!("/proc/{name}/comm")).unwrap_or_default();
        // A zombie has no command line.
        if is_here && pid as u32 != std::process::id() && !line.is_empty() {
            found.push(match process.trim_end() {
                "janitor" => (pid, "janitor".to_owned()),
                _ => (pid, line.trim_end_matches('\0').replace('\0', " ")),
            });
        }
    }
    found
}

/// The process whose command line ends so.
fn pid(ending: &str) -> Pid {
    let all = inhabitants();
    let found = all.iter().find(|(_, line)| line.ends_with(ending));
    Pid::from_raw(found.unwrap_or_else(|| panic!("no {ending} in {all:?}")).0)
}

fn via(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

fn vantage(script: &str) -> Vantage {
    Vantage {
        host: Host::Director,
        via: via(script),
    }
}

/// Starts an agent at every vantage, as tunproof does.
async fn start(
    vantages: Vec<Vantage>,
    paths: &[TapPath],
    options: StartOptions,
) -> (Vec<AgentHandle>, Vec<AgentFailure>) {
    let program = std::path::Path::new(TUNPROOF);
    let vantages = Vantages::reach(program, vantages, false).unwrap();
    let started = vantages.start(paths, options).await;
    // Who drops them waits for their end.
    thread::spawn(|| drop(vantages));
    started
}

fn paths() -> Vec<TapPath> {
    vec![TapPath {
        vip: VIP,
        cip: CIP,
        dip: Some(DIP),
        rip: RIP,
        gateway: Some(GATEWAY),
    }]
}

fn options() -> StartOptions {
    StartOptions {
        silence: SOON,
        ..StartOptions::default()
    }
}

async fn fleet_of(script: &str, options: StartOptions) -> Fleet {
    let (agents, failures) = start(vec![vantage(script)], &paths(), options).await;
    assert_eq!(failures, []);
    Fleet::new(agents)
}

async fn fleet() -> Fleet {
    fleet_of(&format!("exec {TUNPROOF} \"$1\""), options()).await
}

async fn event(fleet: &mut Fleet) -> Event {
    match timeout(SOON, fleet.next()).await.expect("a report in time") {
        Report::Said(Host::Director, event) => event,
        other => panic!("{other:?}"),
    }
}

async fn lost(fleet: &mut Fleet) -> AgentFailure {
    loop {
        match timeout(SOON, fleet.next()).await.expect("a report in time") {
            Report::Lost(failure) => return failure,
            Report::Said(..) => {}
        }
    }
}

fn packet(source: Ipv4Addr, destination: Ipv4Addr, mark: u8) -> Transmit {
    let mut bytes = vec![0x45, 0, 0, 28, 0, mark, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend([mark; 8]);
    Transmit {
        way: Way::Stack,
        bytes,
    }
}

/// A segment whose sequence number is the mark.
fn segment(flags: u8, mark: u8) -> Transmit {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    bytes.extend(VIP.octets());
    bytes.extend(CIP.octets());
    bytes.extend([0x9c, 0x40, 0, 80, 0, 0, 0, mark, 0, 0, 0, 0, 0x50, flags]);
    bytes.extend([0; 6]);
    Transmit {
        way: Way::Stack,
        bytes,
    }
}

fn opening(token: u32) -> Order {
    Order::Send {
        token,
        transmit: segment(2, 1),
        cleanup: Some(segment(4, 0xcc)),
    }
}

fn tap_spec() -> TapSpec {
    TapSpec {
        paths: vec![TapPath {
            vip: VIP,
            cip: CIP,
            dip: Some(DIP),
            rip: RIP,
            gateway: None,
        }],
        rewritten: None,
        scripted: None,
    }
}

/// The marks of the packets that leave by `near`, until none has come for a second.
async fn marks(tap: &mut Tap) -> Vec<u8> {
    let mut found = Vec::new();
    while let Ok(capture) = timeout(Duration::from_secs(1), tap.receive()).await {
        let capture = capture.unwrap();
        if capture.direction == Direction::Out && capture.protocol == Capture::IPV4 {
            found.push(capture.bytes[27]);
        }
    }
    found
}

fn forget() -> Order {
    Order::ForgetNeighbour {
        address: GATEWAY,
        device: "near".to_owned(),
    }
}

fn is_sent(event: &Event, expected: u32) -> bool {
    matches!(event, Event::Sent { token, outcome: SendOutcome::Sent { .. } } if *token == expected)
}

#[test]
fn who_starts_agents_is_waited_for() {
    in_namespace("who_starts_agents_is_waited_for", || async {
        let program = std::path::Path::new(TUNPROOF);
        let script = format!("exec {TUNPROOF} \"$1\"");
        let vantages = Vantages::reach(program, vec![vantage(&script)], false).unwrap();
        let (agents, failures) = vantages.start(&paths(), options()).await;
        assert_eq!(failures, []);
        let starter = pid("agent --starter").as_raw();
        let failures = Fleet::new(agents).finish().await;
        assert_eq!(failures, []);
        assert!(vantages.can_start());
        drop(vantages);
        // No zombie either: what it took counts as this process's.
        let left = std::path::PathBuf::from(format!("/proc/{starter}"));
        assert!(!left.exists());
    });
}

#[test]
fn commands_are_carried_out_and_answered() {
    in_namespace("commands_are_carried_out_and_answered", || async {
        let mut fleet = fleet().await;
        fleet.send(Host::Director, Order::Facts(FactQuery::default()));
        let Event::Facts(facts) = event(&mut fleet).await else {
            panic!("no facts");
        };
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(facts.hostname, hostname.trim());

        let nowhere = Order::ForgetNeighbour {
            address: GATEWAY,
            device: "nonesuch".to_owned(),
        };
        for (order, operation, error) in [
            (
                Order::TapStatistics,
                "read the tap's statistics",
                "no tap is open",
            ),
            (
                nowhere,
                "delete the neighbour entry",
                "there is no device `nonesuch`: No such device (os error 19)",
            ),
        ] {
            fleet.send(Host::Director, order);
            let expected = Event::Failed {
                operation: operation.to_owned(),
                error: error.to_owned(),
            };
            assert_eq!(event(&mut fleet).await, expected);
        }
        fleet.send(Host::Director, Order::OpenTap(tap_spec()));
        assert_eq!(event(&mut fleet).await, Event::TapOpen);

        fleet.send(Host::Director, opening(7));
        let mut answers = vec![event(&mut fleet).await, event(&mut fleet).await];
        answers.push(event(&mut fleet).await);
        assert!(
            answers.iter().any(|answer| is_sent(answer, 7)),
            "{answers:?}"
        );
        let mut seen = answers.iter().filter_map(|answer| match answer {
            Event::Captured(capture) => Some((capture.device.as_str(), capture.direction)),
            _ => None,
        });
        assert_eq!(seen.next(), Some(("near", Direction::Out)));
        assert_eq!(seen.next(), Some(("far", Direction::In)));

        // Packets that arrived before the question come before the answer.
        fleet.send(Host::Director, Order::Settle { token: 7 });
        fleet.send(Host::Director, Order::Settle { token: 7 });
        fleet.send(Host::Director, Order::TapStatistics);
        let mut answers = Vec::new();
        loop {
            match event(&mut fleet).await {
                Event::Statistics(statistics) => {
                    let expected = TapStatistics {
                        received: 4,
                        dropped: 0,
                    };
                    assert_eq!(statistics, expected);
                    break;
                }
                other => answers.push(other),
            }
        }
        let settled = answers
            .iter()
            .filter(|e| **e == Event::Settled { token: 7 });
        assert_eq!((settled.count(), answers.len()), (2, 4), "{answers:?}");

        assert!(fleet.finish().await.is_empty());
    });
}

#[test]
fn a_run_ends_with_its_engine_and_its_agents_with_it() {
    in_namespace(
        "a_run_ends_with_its_engine_and_its_agents_with_it",
        || async {
            let script = format!("exec {TUNPROOF} \"$1\"");
            let (agents, failures) = start(vec![vantage(&script)], &paths(), options()).await;
            assert_eq!(failures, []);
            let path = Path {
                realserver: "rs1".to_owned(),
                vip: VIP,
                port: 80,
                protocol: Protocol::Tcp,
                rip: RIP,
                dip: Some(DIP),
                cip: CIP,
                gateway: None,
                tunnel: None,
            };
            let paths = vec![path];
            let plan = Plan {
                session: SessionKey::new([7; 16]),
                vantages: vec![Host::Director],
                ingress: None,
                egress: None,
                suites: Embedded::LVS_TUN.suites(&paths),
                paths,
            };
            let limits = Limits {
                rate: None,
                timeout: Duration::from_millis(300),
            };
            let mut engine = Engine::new(plan, Task::Prove, limits, clock::mono());
            let mut calls = 0;
            let mut progress = |_: &Engine| {
                calls += 1;
                None
            };
            let run = drive(&mut engine, agents, &mut progress);
            let driven = timeout(4 * SOON, run).await.unwrap().unwrap();
            assert_eq!(driven.failures, []);
            assert!(engine.is_finished() && !driven.interrupted);
            assert_eq!(driven.end().await, []);
            assert!(calls > 0);
        },
    );
}

#[test]
fn nothing_is_sent_to_strangers() {
    in_namespace("nothing_is_sent_to_strangers", || async {
        let mut tap = Tap::open(&tap_spec()).unwrap();
        let mut fleet = fleet().await;
        let stranger = Ipv4Addr::new(8, 8, 8, 8);
        let orders = [
            (packet(VIP, stranger, 1), None),
            (packet(VIP, CIP, 1), Some(packet(stranger, CIP, 2))),
        ];
        for (transmit, cleanup) in orders {
            let order = Order::Send {
                token: 1,
                transmit,
                cleanup,
            };
            fleet.send(Host::Director, order);
            let Event::Sent {
                outcome: SendOutcome::Declined { reason, .. },
                ..
            } = event(&mut fleet).await
            else {
                panic!("not declined");
            };
            assert!(
                reason.starts_with("8.8.8.8, the ")
                    && reason.ends_with("is not an address of the path file"),
                "{reason}"
            );
        }
        let order = Order::Connect {
            token: 2,
            to: (stranger, 80),
            timeout_ms: 1000,
        };
        fleet.send(Host::Director, order);
        let answer = event(&mut fleet).await;
        assert!(
            matches!(&answer, Event::Connected { outcome: ConnectOutcome::Declined { reason }, .. } if reason.starts_with("8.8.8.8, the destination")),
            "{answer:?}"
        );
        assert!(fleet.finish().await.is_empty());
        assert_eq!(marks(&mut tap).await, Vec::<u8>::new());
    });
}

#[test]
fn connections_are_opened_beside_other_commands() {
    in_namespace("connections_are_opened_beside_other_commands", || async {
        ip("addr add 192.0.2.10/32 dev lo");
        let listener = TcpListener::bind((VIP, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let deaf = Ipv4Addr::new(192, 0, 2, 11);
        let mut paths = paths();
        paths.push(TapPath {
            vip: deaf,
            ..paths[0].clone()
        });
        let script = format!("exec {TUNPROOF} \"$1\"");
        let (agents, failures) = start(vec![vantage(&script)], &paths, options()).await;
        assert_eq!(failures, []);
        let mut fleet = Fleet::new(agents);
        let connect = |token, to, timeout_ms| Order::Connect {
            token,
            to,
            timeout_ms,
        };
        // Nobody answers for the other VIP: this one is still open when the others are answered.
        fleet.send(Host::Director, connect(1, (deaf, 80), 700));
        fleet.send(Host::Director, connect(2, (VIP, port), 1000));
        let answer = event(&mut fleet).await;
        assert!(
            matches!(&answer, Event::Connected { token: 2, outcome: ConnectOutcome::Connected { local, .. } } if local.0 == VIP),
            "{answer:?}"
        );
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "closed by FIN");
        drop((listener, stream));
        fleet.send(Host::Director, connect(3, (VIP, port), 1000));
        let answer = event(&mut fleet).await;
        assert!(
            matches!(&answer, Event::Connected { token: 3, outcome: ConnectOutcome::Failed { errno, .. } } if *errno == libc::ECONNREFUSED),
            "{answer:?}"
        );
        let outcome = ConnectOutcome::TimedOut;
        let expected = Event::Connected { token: 1, outcome };
        assert_eq!(event(&mut fleet).await, expected);
        assert!(fleet.finish().await.is_empty());
    });
}

#[test]
fn finish_settles_what_is_open() {
    in_namespace("finish_settles_what_is_open", || async {
        let mut tap = Tap::open(&tap_spec()).unwrap();
        let mut fleet = fleet().await;
        fleet.send(Host::Director, opening(1));
        assert!(is_sent(&event(&mut fleet).await, 1));
        fleet.send(Host::Director, forget());
        let answer = event(&mut fleet).await;
        assert!(
            matches!(&answer, Event::NeighbourForgotten { old: Some(old), .. } if old.mac == Some([2, 0, 0, 0, 0, 0x99])),
            "{answer:?}"
        );
        assert!(!ip("neigh show dev near").contains("02:00:00:00:00:99"));
        assert!(fleet.finish().await.is_empty());
        assert!(ip("neigh show dev near").contains("203.0.113.1 lladdr 02:00:00:00:00:99"));
        assert_eq!(marks(&mut tap).await, [1, 0xcc, 0xcc]);
    });
}

#[test]
fn what_cannot_be_settled_is_told() {
    in_namespace("what_cannot_be_settled_is_told", || async {
        let mut fleet = fleet().await;
        fleet.send(Host::Director, forget());
        event(&mut fleet).await;
        ip("link del near");
        let failures = fleet.finish().await;
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].reason, "the agent ended (exit status: 2)");
        assert_eq!(
            failures[0].stderr,
            "tunproof agent: cannot settle everything: there is no device `near`: \
             No such device (os error 19)"
        );
    });
}

#[test]
fn a_killed_agent_leaves_nothing_behind() {
    in_namespace("a_killed_agent_leaves_nothing_behind", || async {
        let mut tap = Tap::open(&tap_spec()).unwrap();
        let mut fleet = fleet().await;
        for order in [opening(1), opening(2), forget()] {
            fleet.send(Host::Director, order);
            event(&mut fleet).await;
        }
        fleet.send(Host::Director, Order::Settle { token: 1 });
        assert_eq!(event(&mut fleet).await, Event::Settled { token: 1 });
        // Who kills everything that he sees kills the agent; the janitor is harder.
        for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
            kill(pid("janitor"), signal).unwrap();
        }
        kill(pid(&format!("{TUNPROOF} agent")), Signal::SIGKILL).unwrap();
        let failures = fleet.finish().await;
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].reason, "the agent ended (signal: 9 (SIGKILL))");
        assert_eq!(marks(&mut tap).await, [1, 1, 0xcc, 0xcc, 0xcc]);
        assert!(ip("neigh show dev near").contains("203.0.113.1 lladdr 02:00:00:00:00:99"));
    });
}

#[test]
fn an_agent_ends_with_its_controller_also_while_busy() {
    in_namespace(
        "an_agent_ends_with_its_controller_also_while_busy",
        || async {
            let mut tap = Tap::open(&tap_spec()).unwrap();
            let mut agent = Command::new(TUNPROOF)
                .arg("agent")
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let connect = Order::Connect {
                token: 2,
                to: (VIP, 80),
                timeout_ms: 60_000,
            };
            let mut bytes = BytesMut::new();
            for message in [
                ToAgent::Start {
                    protocol: PROTOCOL,
                    paths: paths(),
                },
                ToAgent::Do(opening(1)),
                ToAgent::Do(connect),
            ] {
                MessageCodec::default()
                    .encode(&message, &mut bytes)
                    .unwrap();
            }
            let mut stdin = agent.stdin.take().unwrap();
            stdin.write_all(&bytes).unwrap();
            let sent = timeout(SOON, tap.receive()).await.unwrap().unwrap();
            assert_eq!(sent.bytes[27], 1);
            let start = Instant::now();
            // What the kernel does when the controller is killed.
            drop(stdin);
            let output = agent.wait_with_output().unwrap();
            assert!(start.elapsed() < Duration::from_secs(1));
            assert!(
                output
                    .stdout
                    .starts_with(Hello::ours().to_string().as_bytes())
            );
            assert_eq!(output.status.code(), Some(2));
            assert_eq!(
                String::from_utf8_lossy(&output.stderr),
                "tunproof agent: the controller is gone\n"
            );
            let closed = marks(&mut tap).await.into_iter().filter(|m| *m == 0xcc);
            assert_eq!(closed.count(), 2);
        },
    );
}

#[test]
fn what_is_no_agent_is_named_and_shown() {
    in_namespace("what_is_no_agent_is_named_and_shown", || async {
        let quick = StartOptions {
            handshake: Duration::from_millis(800),
            ..options()
        };
        let unprivileged =
            format!("exec setpriv --bounding-set=-all --inh-caps=-all {TUNPROOF} $1");
        let hello = Hello::ours().to_string();
        let gibberish =
            format!("printf '{hello}'; head -c 9 >/dev/null; echo tunproof is not here");
        let silent = format!("printf '{hello}'; exec sleep 5");
        let cases = [
            (
                "echo 'SSH-2.0-OpenSSH_9.2p1 Debian'; exec sleep 5",
                "expected an agent's hello, got `SSH-2.0-OpenSSH_9.2p1 Debian`",
                "",
            ),
            (
                "exec /no/such/tunproof",
                "the agent ended (exit status: 127)",
                "/no/such/tunproof: not found",
            ),
            (
                "echo tunproof agent 99 8.8.8",
                "the agent there is tunproof 8.8.8 and speaks protocol 99; this is tunproof",
                "",
            ),
            (
                "echo last words >&2; exec sleep 5",
                "no hello of an agent within 800ms",
                "last words",
            ),
            (
                silent.as_str(),
                "no answer to the first message within 800ms",
                "",
            ),
            (
                gibberish.as_str(),
                "a message is longer than 16777216 octets",
                "",
            ),
            (
                unprivileged.as_str(),
                "the agent there cannot open a raw IPv4 socket: Operation not permitted (os error 1)",
                "tunproof agent: cannot open a raw IPv4 socket",
            ),
        ];
        let vantages = cases.map(|(script, ..)| vantage(script)).to_vec();
        let begin = Instant::now();
        let (agents, failures) = start(vantages, &paths(), quick).await;
        assert!(begin.elapsed() < SOON, "side by side");
        assert!(agents.is_empty());
        assert_eq!(failures.len(), cases.len());
        for ((script, reason, stderr), failure) in cases.into_iter().zip(failures) {
            assert_eq!(failure.via, via(script));
            assert!(failure.reason.starts_with(reason), "{failure}");
            assert!(failure.stderr.contains(stderr), "{failure}");
            assert!(failure.to_string().starts_with("director (via `sh -c "));
        }
        let nothing = Vantage {
            host: Host::Client,
            via: vec!["/no/such/program".to_owned()],
        };
        let (_, failures) = start(vec![nothing], &paths(), quick).await;
        assert_eq!(
            failures[0].to_string(),
            "client (via `/no/such/program`): cannot run `/no/such/program`: \
             No such file or directory (os error 2)"
        );
    });
}

#[test]
fn a_dying_agents_last_words_are_kept() {
    in_namespace("a_dying_agents_last_words_are_kept", || async {
        let script = format!("{TUNPROOF} \"$1\"; echo 'client_loop: broken pipe' >&2; exit 255");
        let mut fleet = fleet_of(&script, options()).await;
        kill(pid(&format!("{TUNPROOF} agent")), Signal::SIGKILL).unwrap();
        let failure = lost(&mut fleet).await;
        assert_eq!(failure.host, Host::Director);
        assert_eq!(failure.reason, "the agent ended (exit status: 255)");
        assert!(
            failure.stderr.ends_with("client_loop: broken pipe"),
            "{failure}"
        );
        assert!(fleet.is_empty());
    });
}

#[test]
fn a_hanging_agent_is_lost_and_killed() {
    in_namespace("a_hanging_agent_is_lost_and_killed", || async {
        let mut tap = Tap::open(&tap_spec()).unwrap();
        let impatient = StartOptions {
            silence: Duration::from_millis(600),
            ..options()
        };
        let mut fleet = fleet_of(&format!("exec {TUNPROOF} \"$1\""), impatient).await;
        fleet.send(Host::Director, opening(1));
        assert!(is_sent(&event(&mut fleet).await, 1));
        // It answers while it is well.
        assert!(
            timeout(Duration::from_millis(1500), fleet.next())
                .await
                .is_err()
        );
        kill(pid(&format!("{TUNPROOF} agent")), Signal::SIGSTOP).unwrap();
        let failure = lost(&mut fleet).await;
        assert_eq!(failure.reason, "no answer within 600ms");
        assert_eq!(marks(&mut tap).await, [1, 0xcc, 0xcc]);
    });
}
