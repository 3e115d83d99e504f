//! Whatever loss, delay, duplication and reordering do to a healthy path, nothing is found broken.

use tunproof::verdict::Outcome;
use tunproof::verdict::Severity;

use crate::play::play;
use crate::scenario::Impair;
use crate::scenario::Scenario;
use crate::scenario::Server;
use crate::world::World;

const VANTAGES: [&[&str]; 6] = [
    &["director", "realserver", "client"],
    &["director", "realserver"],
    &["director"],
    &["realserver"],
    &["director", "client"],
    &["realserver", "client"],
];

/// A healthy path whose links do their worst, within what the internet does.
fn healthy(seed: u64) -> Scenario {
    let mut scenario = Scenario {
        server: vec![Server::default()],
        ..Scenario::default()
    };
    let mut dice = World::new(scenario.clone(), seed ^ 0xd1ce);
    for node in ["core", "isp", "rd", "r1"] {
        if dice.chance() < 0.5 {
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
    scenario.client.no_icmp = dice.chance() < 0.2;
    scenario.network.minimal_quotes = dice.chance() < 0.3;
    scenario
}

#[test]
fn bad_weather_breaks_nothing() {
    let seeds: u64 = std::env::var("SEEDS").map_or(200, |n| n.parse().expect("a number"));
    let mut wrong = Vec::new();
    for seed in 0..seeds {
        let scenario = healthy(seed);
        for vantages in VANTAGES {
            let vantages: Vec<String> = vantages.iter().map(|v| (*v).to_owned()).collect();
            let played = play(&scenario, &vantages, seed);
            let errors: Vec<_> = played
                .judgement
                .paths
                .iter()
                .flat_map(|path| &path.findings)
                .filter(|finding| finding.severity == Severity::Error)
                .map(|finding| finding.code.id())
                .collect();
            if !errors.is_empty() || played.judgement.outcome() == Outcome::Broken {
                wrong.push(format!("seed {seed} {vantages:?}: {errors:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
