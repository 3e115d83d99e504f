//! Whatever loss, delay, duplication and reordering do to a healthy path, nothing is found broken.

use tunproof::plan::Hop;
use tunproof::verdict::Finding;
use tunproof::verdict::HopVerdict;
use tunproof::verdict::Severity;

use crate::draw::Dice;
use crate::draw::VANTAGES;
use crate::draw::disturb as disturb_drawn;
use crate::draw::fault;
use crate::draw::healthy;
use crate::play::Played;
use crate::play::connections;
use crate::play::play;
use crate::scenario::Impair;
use crate::scenario::Scenario;
use crate::scenario::Server;
use crate::world::World;

/// Makes the links of a network do their worst, within what the internet does.
fn worsen(scenario: &mut Scenario, seed: u64) {
    let mut dice = World::new(scenario.clone(), seed ^ 0xd1ce);
    // One link that loses up to a third, or several that lose some.
    let heavy = dice.chance() < 0.3;
    for node in ["core", "isp", "rd", "r1"] {
        if heavy && node == "core" {
            scenario.impair.push(Impair {
                at: node.to_owned(),
                loss: dice.chance() * 0.33,
                ..Impair::default()
            });
        }
        if !heavy && dice.chance() < 0.5 {
            scenario.impair.push(Impair {
                at: node.to_owned(),
                loss: if dice.chance() < 0.5 {
                    dice.chance() * 0.12
                } else {
                    0.0
                },
                duplicate: dice.chance() * 0.2,
                delay_ms: (dice.chance() * 120.0) as u64,
                jitter_ms: (dice.chance() * 80.0) as u64,
            });
        }
    }
    scenario.client.no_icmp |= dice.chance() < 0.2;
    scenario.network.minimal_quotes |= dice.chance() < 0.3;
    if dice.chance() < 0.3 {
        scenario.network.agent_ms = (dice.chance() * 300.0) as u64;
    }
    for node in ["gw", "isp", "core", "r1", "rd"] {
        // A router that drops in silence is another fault than one that rejects.
        let rejects = scenario.filter.iter().any(|filter| filter.at == node);
        if dice.chance() < 0.1 && !rejects {
            scenario.network.silent_routers.push(node.to_owned());
        }
    }
}

/// Lets agents be lost, taps lose packets, and the user lose patience.
fn disturb(scenario: &mut Scenario, seed: u64) {
    let mut dice = World::new(scenario.clone(), seed ^ 0xbad);
    let mut at = || {
        (
            dice.chance(),
            (dice.chance() * dice.chance() * 5000.0) as u64,
        )
    };
    for node in ["s", "d", "c"] {
        if let (0.0..0.1, ms) = at() {
            scenario.network.lost_after_ms.insert(node.to_owned(), ms);
        }
        if let (0.0..0.1, _) = at() {
            scenario.network.tap_drops.insert(node.to_owned(), 1);
        }
    }
    if let (0.0..0.3, ms) = at() {
        scenario.network.interrupt_after_ms = Some(ms);
    }
}

pub(crate) fn seeds(usual: u64) -> u64 {
    std::env::var("SEEDS").map_or(usual, |n| n.parse().expect("a number"))
}

fn errors(played: &Played) -> Vec<&Finding> {
    played
        .judgement
        .paths
        .iter()
        .flat_map(|path| &path.findings)
        .filter(|finding| finding.severity == Severity::Error)
        .collect()
}

#[test]
fn bad_weather_breaks_nothing() {
    let mut wrong = Vec::new();
    for seed in 0..seeds(200) {
        let mut scenario = Scenario {
            server: vec![Server::default()],
            ..Scenario::default()
        };
        worsen(&mut scenario, seed);
        disturb(&mut scenario, seed);
        for vantages in VANTAGES {
            let vantages: Vec<String> = vantages.iter().map(|v| (*v).to_owned()).collect();
            let played = play(&scenario, &vantages, seed);
            for error in errors(&played) {
                wrong.push(format!("seed {seed} {vantages:?}: {}", error.summary));
            }
            // Loss is neither a size that dies nor a filter of protocol 4, not even in a note.
            let findings = played.judgement.paths.iter().flat_map(|p| &p.findings);
            for finding in findings.filter(|finding| {
                let code = finding.code.id();
                code.starts_with("tunnel-") || code == "quotes-too-short"
            }) {
                wrong.push(format!("seed {seed} {vantages:?}: {}", finding.summary));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A fault is found for what it is or not at all: no other code is an error, and the broken hop is never
/// proven.
#[test]
fn bad_weather_hides_faults_and_changes_none() {
    let mut wrong = Vec::new();
    for (name, fair) in crate::scenarios() {
        for run in &fair.run {
            for seed in 0..2 {
                let mut scenario = fair.clone();
                worsen(&mut scenario, seed);
                disturb(&mut scenario, seed);
                let played = play(&scenario, &run.vantages, seed);
                let mut differ = |what: String| {
                    wrong.push(format!("{name} {:?} seed {seed}: {what}", run.vantages));
                };
                let expected: Vec<_> = fair.run.iter().flat_map(|run| &run.codes).collect();
                for error in errors(&played) {
                    if !expected.iter().any(|code| *code == error.code.id()) {
                        differ(format!("{}: {}", error.code, error.summary));
                    }
                }
                let paths = &played.judgement.paths;
                let network = &scenario.network;
                let disturbed = network.interrupt_after_ms.is_some()
                    || !network.tap_drops.is_empty()
                    || !network.lost_after_ms.is_empty();
                for path in paths
                    .iter()
                    .filter(|p| run.path.is_none_or(|n| n == p.path))
                {
                    for hop in path.hops.iter().filter(|h| h.verdict == HopVerdict::Proven) {
                        // A rule against some packets shows only once their silence counts: until then the others
                        // pass.
                        let partly = !fair.filter.is_empty()
                            && matches!(
                                hop.hop,
                                Hop::DirectorForward
                                    | Hop::RealserverAccept
                                    | Hop::RealserverEgress
                            );
                        // So it is with sizes: small packets do pass.
                        let short = !fair.narrow.is_empty() && hop.hop == Hop::DirectorToRealserver;
                        // So does a path of which only some flows are filtered, until one of those is asked.
                        let some_flows =
                            !fair.detour.is_empty() && hop.hop == Hop::SpoofedSourceTransit;
                        // What leaves before the gateway's entry is forgotten, passes by that.
                        let by_old_entry = fair.server.iter().any(|s| s.forgets_after_ms > 0)
                            && hop.hop == Hop::GatewayArp;
                        if some_flows || disturbed && (partly || short || by_old_entry) {
                            continue;
                        }
                        if Some(hop.hop.id()) == run.broken.as_deref()
                            || run.not_proven.iter().any(|id| id == hop.hop.id())
                        {
                            differ(format!("{} is proven", hop.hop));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// How many real connections are tried to learn the truth.
const CONNECTIONS: u32 = 32;

/// Plays `count` random networks from `first` on, each without and with a fault, and returns what is wrong.
fn counter_examples(seeds: impl IntoIterator<Item = u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    for seed in seeds {
        wrong.extend(healthy_counter_examples(seed));
        wrong.extend(faulty_counter_examples(seed));
    }
    wrong
}

fn healthy_counter_examples(seed: u64) -> Vec<String> {
    let (mut scenario, vantages) = healthy(seed);
    let mut dice = Dice::new(seed ^ 0xbad);
    if dice.often(0.3) {
        disturb_drawn(&mut scenario, &mut dice);
    }
    let truth = connections(&scenario, seed, CONNECTIONS);
    assert_eq!(truth, CONNECTIONS as usize, "{seed}: no healthy network");
    let played = play(&scenario, &vantages, seed);
    errors(&played)
        .into_iter()
        .map(|error| {
            let (code, hop, summary) = (error.code, error.hop, &error.summary);
            format!("{seed} healthy {vantages:?}: {code} ({hop}): {summary}")
        })
        .collect()
}

fn faulty_counter_examples(seed: u64) -> Vec<String> {
    let (mut scenario, vantages) = healthy(seed);
    let fault = fault(&mut scenario, seed);
    // What goes round in a loop and is duplicated there is a storm, which only its time to live ends.
    if scenario.server.iter().any(|server| server.ip_forward) {
        for impair in &mut scenario.impair {
            impair.duplicate = 0.0;
        }
    }
    let mut dice = Dice::new(seed ^ 0xbad);
    if dice.often(0.2) {
        disturb_drawn(&mut scenario, &mut dice);
    }
    let truth = connections(&scenario, seed, CONNECTIONS);
    let name = fault.name;
    assert!(
        truth == 0 || fault.some && truth < CONNECTIONS as usize || name == "spoof-filter-some",
        "{seed} {name}: {truth} connections work"
    );
    let played = play(&scenario, &vantages, seed);
    let mut wrong = Vec::new();
    for path in &played.judgement.paths {
        let hit = fault.only.is_none_or(|only| only == path.path);
        // As long as the gateway's entry is there, packets pass: only the real server's agent deletes it.
        let asks = vantages.iter().any(|v| v == "realserver");
        let disturbed = scenario.network.interrupt_after_ms.is_some()
            || scenario.network.lost_after_ms.contains_key("s");
        let stale = fault.broken == [Hop::GatewayArp] && (!asks || disturbed);
        let is_broken = |hop| hit && fault.broken.contains(&hop);
        let which = format!("{seed} {name} {vantages:?} path {}", path.path);
        for finding in &path.findings {
            if finding.severity == Severity::Error && !is_broken(finding.hop) {
                let (code, hop, summary) = (finding.code, finding.hop, &finding.summary);
                wrong.push(format!("{which}: {code} ({hop}): {summary}"));
            }
        }
        for hop in &path.hops {
            let excused = fault.some || stale;
            if hop.verdict == HopVerdict::Proven && is_broken(hop.hop) && !excused {
                wrong.push(format!("{which}: {} is proven ({:?})", hop.hop, hop.how));
            }
        }
    }
    wrong
}

#[test]
fn random_networks_give_no_invented_proof_and_no_false_alarm() {
    let first: u64 = std::env::var("FIRST").map_or(0, |n| n.parse().expect("a number"));
    let wrong = counter_examples(first..first + seeds(200));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
#[ignore = "takes minutes: cargo test --release --test simulation -- --ignored ten_thousand_seeds"]
fn ten_thousand_seeds() {
    let halves: Vec<_> = (0..2)
        .map(|half| std::thread::spawn(move || counter_examples((half..10_000).step_by(2))))
        .collect();
    let wrong: Vec<_> = halves
        .into_iter()
        .flat_map(|half| half.join().expect("no panic"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Plays a healthy path that loses `loss` of all packets each way, and returns how often flows were asked
/// again, and each word of a partial filter.
fn lossy(seeds: impl IntoIterator<Item = u64>, loss: f64) -> (usize, Vec<String>) {
    let (mut asked, mut wrong) = (0, Vec::new());
    for seed in seeds {
        let scenario = Scenario {
            server: vec![Server::default()],
            impair: vec![Impair {
                at: "core".to_owned(),
                loss,
                ..Impair::default()
            }],
            ..Scenario::default()
        };
        for vantages in &VANTAGES[..2] {
            let vantages: Vec<_> = vantages.iter().map(ToString::to_string).collect();
            let played = play(&scenario, &vantages, seed);
            asked += usize::from(!played.evidence.flows(0).is_empty());
            for error in errors(&played) {
                wrong.push(format!(
                    "{seed} {vantages:?}: {}: {}",
                    error.code, error.summary
                ));
            }
        }
    }
    (asked, wrong)
}

#[test]
fn loss_alone_is_no_partial_filter() {
    let (asked, wrong) = lossy(0..40, 0.3);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(asked >= 40, "only {asked} of 80 runs asked flows again");
}

#[test]
#[ignore = "takes a minute: cargo test --release --test simulation -- --ignored a_thousand_lossy_paths"]
fn a_thousand_lossy_paths() {
    for loss in [0.15, 0.3] {
        let (asked, wrong) = lossy(0..1000, loss);
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
        assert!(asked >= 500, "only {asked} of 2000 runs asked flows again");
    }
}
