//! The engine against the network, in the network's own time.

use std::time::Duration;

use tunproof::evidence::Evidence;
use tunproof::exchange::Capture;
use tunproof::exchange::ConnectOutcome;
use tunproof::exchange::Mono;
use tunproof::exchange::Transmit;
use tunproof::plan::Host;
use tunproof::plan::Path;
use tunproof::plan::Plan;
use tunproof::plan::Protocol;
use tunproof::plan::SessionKey;
use tunproof::run::Command;
use tunproof::run::Engine;
use tunproof::run::Event;
use tunproof::run::Limits;
use tunproof::run::Task;
use tunproof::suite::Embedded;
use tunproof::verdict::HopVerdict;
use tunproof::verdict::Judgement;
use tunproof::verdict::Severity;
use tunproof::verdict::judge;

use crate::CIP;
use crate::DIP;
use crate::PORT;
use crate::VIP;
use crate::rip;
use crate::scenario::Scenario;
use crate::world::Happening;
use crate::world::World;

/// What came out of a run.
pub(crate) struct Played {
    /// What was known when it was judged.
    pub(crate) known: Evidence,
    pub(crate) judgement: Judgement,
    /// That, and what the judgement rests on.
    pub(crate) evidence: Evidence,
    pub(crate) elapsed: Duration,
}

/// More than any run takes.
const STEPS: usize = 100_000;

/// Plays one run, and checks what must hold of every run.
pub(crate) fn play(scenario: &Scenario, vantages: &[String], seed: u64) -> Played {
    play_plan(scenario, plan(scenario, vantages, seed), seed)
}

/// The same with a plan of one's own.
pub(crate) fn play_plan(scenario: &Scenario, plan: Plan, seed: u64) -> Played {
    play_against(scenario, plan, seed, &mut |_, _| Vec::new())
}

/// Who sees every packet that is sent, and by whom, and has hosts capture packets of his own.
pub(crate) type Adversary<'a> = &'a mut dyn FnMut(Host, &Transmit) -> Vec<(Host, Capture)>;

/// The same where somebody answers.
pub(crate) fn play_against(
    scenario: &Scenario,
    plan: Plan,
    seed: u64,
    adversary: Adversary<'_>,
) -> Played {
    let hosts = plan.vantages.clone();
    let (limits, paths) = (Limits::default(), plan.paths.len());
    let mut world = World::new(scenario.clone(), seed);
    let mut engine = Engine::new(plan, Task::Prove, limits, Mono::default());
    let agent = Duration::from_millis(scenario.network.agent_ms);
    let mut lost = Vec::new();
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < STEPS, "seed {seed}: no end after {:?}", world.now);
        while let Some((host, command)) = engine.poll_command(mono(&world)) {
            if !lost.contains(&host) {
                let slow = match (host, &command) {
                    (Host::Realserver(n), Command::ForgetNeighbour { .. }) => {
                        Duration::from_millis(scenario.server[n].forgets_after_ms)
                    }
                    _ => Duration::ZERO,
                };
                if let Command::Send { transmit, .. } = &command {
                    world.later(agent * 2, Happening::Forged(adversary(host, transmit)));
                }
                world.later(agent + slow, Happening::Ordered(host, command));
            }
        }
        if engine.is_finished() {
            break;
        }
        let due = engine.poll_timeout().map(|due| due.since(Mono::default()));
        let next = world.next();
        let at_engine = match (due, next) {
            (Some(due), Some(next)) => due <= next,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => panic!("nothing more will happen, and the engine waits"),
        };
        if at_engine {
            world.now = world.now.max(due.unwrap());
            engine.handle_timeout(mono(&world));
            continue;
        }
        match world.step() {
            Some(Happening::Said(host, event)) if !lost.contains(&host) => {
                engine.handle_event(host, event, mono(&world));
            }
            Some(Happening::Forged(captures)) => {
                let heard = |host: &Host| hosts.contains(host) && !lost.contains(host);
                for (host, capture) in captures.into_iter().filter(|(host, _)| heard(host)) {
                    engine.handle_event(host, Event::Captured(capture), mono(&world));
                }
            }
            Some(Happening::Lost(host)) if hosts.contains(&host) => {
                lost.push(host);
                engine.handle_lost(host, "the pipe broke".to_owned(), mono(&world));
            }
            Some(Happening::Interrupt) => engine.handle_interrupt(mono(&world)),
            _ => {}
        }
    }
    let elapsed = world.now;
    let end = world.now + agent;
    while world.next().is_some_and(|next| next <= end) {
        world.step();
    }
    for host in hosts.iter().filter(|host| !lost.contains(host)) {
        let kernel = &world.kernels[host];
        assert!(kernel.finished, "{host} was not told to finish");
        assert!(kernel.cleanups.is_empty(), "{host} has probes to settle");
        let in_a_second = kernel
            .sent
            .iter()
            .map(|start| {
                let second = *start..*start + Duration::from_secs(1);
                kernel.sent.iter().filter(|at| second.contains(at)).count()
            })
            .max();
        assert!(
            in_a_second <= Some(limits.rate_of(*host, paths) as usize),
            "{host} sent too fast"
        );
    }
    let known = engine.into_evidence();
    let mut evidence = known.clone();
    let judgement = judge(&mut evidence);
    check(&judgement, &evidence);
    Played {
        known,
        judgement,
        evidence,
        elapsed,
    }
}

/// What holds of every judgement.
fn check(judgement: &Judgement, evidence: &Evidence) {
    for path in &judgement.paths {
        assert_eq!(path.hops.len(), 12);
        for hop in &path.hops {
            let blamed = path
                .findings
                .iter()
                .any(|f| f.hop == hop.hop && f.severity == Severity::Error);
            let broken = hop.verdict == HopVerdict::Broken;
            assert_eq!(blamed, broken, "{} of path {}", hop.hop, path.path);
            if hop.verdict == HopVerdict::Proven {
                assert!(!hop.evidence.is_empty(), "{} proven by nothing", hop.hop);
            }
            for id in &hop.evidence {
                assert!(evidence.item(*id).is_some(), "{} cites {id}", hop.hop);
            }
        }
        for finding in &path.findings {
            assert!(
                finding.severity != Severity::Error || !finding.evidence.is_empty(),
                "{} without evidence",
                finding.code
            );
        }
    }
}

pub(crate) fn plan(scenario: &Scenario, vantages: &[String], seed: u64) -> Plan {
    let protocol = match scenario.network.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => panic!("no protocol `{other}`"),
    };
    let servers = 0..scenario
        .server
        .iter()
        .filter(|server| server.declared)
        .count();
    let mut hosts = Vec::new();
    for vantage in vantages {
        match vantage.as_str() {
            "director" => hosts.push(Host::Director),
            "realserver" => hosts.extend(servers.clone().map(Host::Realserver)),
            "client" => hosts.push(Host::Client),
            other => panic!("no vantage `{other}`"),
        }
    }
    let paths = servers.map(|n| Path {
        realserver: format!("rs{}", n + 1),
        vip: VIP,
        port: PORT,
        protocol,
        rip: rip(n),
        dip: Some(DIP),
        cip: CIP,
        gateway: None,
        tunnel: None,
    });
    let paths: Vec<_> = paths.collect();
    let mut key = [7; 16];
    key[..8].copy_from_slice(&seed.to_be_bytes());
    Plan {
        session: SessionKey::new(key),
        vantages: hosts,
        ingress: None,
        egress: None,
        suites: Embedded::LVS_TUN.suites(&paths),
        paths,
    }
}

fn mono(world: &World) -> Mono {
    Mono::new(world.now)
}

/// How many of so many real connections of a client work in this network, if no packet is lost by chance: the
/// truth, without a word of tunproof's.
pub(crate) fn connections(scenario: &Scenario, seed: u64, tried: u32) -> usize {
    let mut scenario = scenario.clone();
    scenario.impair.clear();
    scenario.server.truncate(1);
    scenario.server[0].answers = true;
    let mut world = World::new(scenario, seed);
    world.forget(0);
    for token in 0..tried {
        world.connect(token, (VIP, PORT), Duration::from_secs(10));
    }
    let mut connected = 0;
    while world.next().is_some() {
        if let Some(Happening::Said(_, Event::Connected { outcome, .. })) = world.step() {
            connected += usize::from(matches!(outcome, ConnectOutcome::Connected { .. }));
        }
    }
    connected
}
