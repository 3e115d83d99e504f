//! The spoof check toward the director: what that way does, and nothing of the clients'.

use std::net::Ipv4Addr;

use tunproof::plan::Toward;
use tunproof::suite::Embedded;
use tunproof::suite::Override;
use tunproof::verdict::HopVerdict;
use tunproof::verdict::SpoofJudgement;
use tunproof::verdict::SpoofOutcome;
use tunproof::verdict::StepOutcome;
use tunproof::verdict::judge_steps;

use crate::CIP;
use crate::DIP;
use crate::VIP;
use crate::play::Played;
use crate::play::plan;
use crate::play::play_plan;
use crate::router_address;
use crate::scenario::Detour;
use crate::scenario::Filter;
use crate::scenario::Rewrite;
use crate::scenario::Scenario;
use crate::spoofing::check_toward;
use crate::spoofing::loses;
use crate::spoofing::misnamed;
use crate::spoofing::network;

const DIRECTOR: &[&str] = &["director", "realserver"];
const ALL: &[&str] = &["director", "realserver", "client"];

fn check(scenario: &Scenario, vantages: &[&str], seed: u64) -> SpoofJudgement {
    judged(scenario, vantages, seed).0
}

/// No run proves a hop, whatever is said of the director's way.
fn judged(scenario: &Scenario, vantages: &[&str], seed: u64) -> (SpoofJudgement, Played) {
    let (judged, played) = check_toward(Toward::Director, scenario, vantages, seed);
    let hops = played.judgement.paths.iter().flat_map(|path| &path.hops);
    for hop in hops {
        assert_ne!(hop.verdict, HopVerdict::Proven, "{}", hop.hop);
    }
    (judged, played)
}

fn drop_at(at: &str, source: Option<Ipv4Addr>, destination: Option<Ipv4Addr>) -> Filter {
    Filter {
        at: at.to_owned(),
        hook: String::new(),
        source,
        destination,
        protocol: None,
        destination_port: None,
        reject: None,
        until_ms: None,
    }
}

#[test]
fn a_healthy_way_passes_and_says_of_whom() {
    for vantages in [DIRECTOR, ALL] {
        let judged = check(&network(), vantages, 1);
        assert_eq!(judged.outcome, SpoofOutcome::Passed, "{}", judged.summary);
        assert!(judged.confidence.is_some_and(|sure| sure > 0.99));
        assert_eq!((judged.flows.len(), judged.back.sent), (8, 0));
        assert!(
            judged.summary.contains("to the director")
                && judged.detail.contains("proven toward the director only"),
            "{}: {}",
            judged.summary,
            judged.detail
        );
        let shared = ["gw", "isp", "core"].map(router_address);
        let expected: Vec<_> = (1..).zip(shared).collect();
        assert_eq!(judged.shared, expected);
    }
}

#[test]
fn without_a_witness_on_the_director_nothing_is_claimed() {
    for vantages in [&["realserver"][..], &["realserver", "client"]] {
        for filtered in [false, true] {
            let mut scenario = network();
            if filtered {
                scenario.filter.push(drop_at("isp", Some(VIP), None));
            }
            let judged = check(&scenario, vantages, 1);
            assert_eq!(judged.outcome, SpoofOutcome::Inconclusive);
            assert!(judged.summary.contains("nobody sees"), "{}", judged.summary);
            let decides = judged.advice.iter().any(|line| line.contains("--dip"));
            assert!(decides, "{:?}", judged.advice);
        }
    }
}

#[test]
fn thirty_percent_loss_is_no_filter() {
    let mut wrong = Vec::new();
    let mut passed = 0;
    for seed in 0..200 {
        let mut scenario = network();
        scenario.impair.push(loses(0.3));
        let judged = check(&scenario, DIRECTOR, seed);
        match judged.outcome {
            SpoofOutcome::Passed => passed += 1,
            SpoofOutcome::Inconclusive => {}
            other => wrong.push(format!("{seed}: {other:?}: {}", judged.summary)),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(passed >= 195, "only {passed} of 200 passed");
}

#[test]
fn a_filter_is_named_where_it_is() {
    let mut wrong = Vec::new();
    for (hop, at) in (1u8..).zip(["gw", "isp"]) {
        for reject in [None, Some((3, 13))] {
            for loss in [0.0, 0.05, 0.3] {
                for seed in 0..12 {
                    let mut scenario = network();
                    let filter = drop_at(at, Some(VIP), None);
                    scenario.filter.push(Filter { reject, ..filter });
                    scenario.impair.push(loses(loss));
                    let judged = check(&scenario, DIRECTOR, seed);
                    let is_lossy = loss > 0.1 && judged.outcome == SpoofOutcome::Inconclusive;
                    let problem = misnamed(&judged, SpoofOutcome::Filtered, hop, hop + 1);
                    let problem = problem.filter(|_| !is_lossy);
                    wrong.extend(problem.map(|p| format!("{at} {reject:?} {loss} {seed}: {p}")));
                    if !is_lossy && !judged.detail.contains("toward the director only") {
                        wrong.push(judged.detail);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A network refuses its own addresses from outside.
#[test]
fn the_directors_own_network_is_no_finding() {
    for at in ["core", "rd"] {
        for reject in [None, Some((3, 13))] {
            for seed in 0..6 {
                let mut scenario = network();
                let filter = drop_at(at, Some(VIP), Some(DIP));
                scenario.filter.push(Filter { reject, ..filter });
                let judged = check(&scenario, DIRECTOR, seed);
                // The core is on the client's way as well, and says itself that it refuses.
                let expected = match (at, reject) {
                    ("core", Some(_)) => SpoofOutcome::Filtered,
                    _ => SpoofOutcome::Inconclusive,
                };
                assert_eq!(judged.outcome, expected, "{at}: {}", judged.summary);
                assert_eq!(
                    judged.confidence.is_some(),
                    expected == SpoofOutcome::Filtered
                );
            }
        }
    }
    let mut scenario = network();
    scenario.network.silent_routers = ["gw", "isp", "core", "rd"].map(str::to_owned).to_vec();
    scenario.filter.push(drop_at("isp", Some(VIP), None));
    let judged = check(&scenario, DIRECTOR, 1);
    assert_eq!(
        judged.outcome,
        SpoofOutcome::Inconclusive,
        "{}",
        judged.summary
    );
}

/// What routers say to the VIP, another director gets: then nobody knows which router was the last.
#[test]
fn a_director_without_the_vip_cannot_tell_where() {
    let mut scenario = network();
    scenario.director.has_vip = false;
    scenario.filter.push(drop_at("isp", Some(VIP), None));
    scenario.filter.push(drop_at("rd", None, Some(VIP)));
    let judged = check(&scenario, DIRECTOR, 1);
    assert_eq!(misnamed(&judged, SpoofOutcome::Inconclusive, 0, 0), None);
    let (judged, _) = check_toward(Toward::Client, &scenario, ALL, 1);
    assert_eq!(misnamed(&judged, SpoofOutcome::Filtered, 0, 0), None);
    scenario.filter.remove(0);
    assert_eq!(check(&scenario, DIRECTOR, 1).outcome, SpoofOutcome::Passed);
}

#[test]
fn a_filter_on_the_clients_way_alone_is_not_seen_here() {
    let mut scenario = network();
    scenario.filter.push(drop_at("isp", Some(VIP), Some(CIP)));
    assert_eq!(check(&scenario, ALL, 1).outcome, SpoofOutcome::Passed);
    let (toward_the_client, _) = check_toward(Toward::Client, &scenario, ALL, 1);
    assert_eq!(toward_the_client.outcome, SpoofOutcome::Filtered);
}

#[test]
fn a_director_whose_firewall_drops_everything_sees_it_all_the_same() {
    let mut scenario = network();
    scenario.filter.push(Filter {
        hook: "input".to_owned(),
        ..drop_at("d", None, None)
    });
    for seed in 0..6 {
        let judged = check(&scenario, DIRECTOR, seed);
        assert_eq!(judged.outcome, SpoofOutcome::Passed, "{}", judged.summary);
    }
    let alone = check(&scenario, &["realserver"], 1);
    assert_eq!(alone.outcome, SpoofOutcome::ControlDiesToo);
}

#[test]
fn a_dead_way_to_the_director_is_no_filter() {
    for filtered in [false, true] {
        for seed in 0..6 {
            let mut scenario = network();
            scenario.filter.push(drop_at("core", None, Some(DIP)));
            if filtered {
                scenario.filter.push(drop_at("isp", Some(VIP), None));
            }
            scenario.impair.push(loses(0.2));
            let judged = check(&scenario, DIRECTOR, seed);
            let expected = (SpoofOutcome::ControlDiesToo, None);
            assert_eq!((judged.outcome, judged.confidence), expected);
        }
    }
}

#[test]
fn silent_routers_and_limits_are_no_filter() {
    for seed in 0..6 {
        let mut scenario = network();
        scenario.network.silent_routers = ["gw", "isp", "core", "rd"].map(str::to_owned).to_vec();
        assert_eq!(
            check(&scenario, DIRECTOR, seed).outcome,
            SpoofOutcome::Passed
        );
        let mut scenario = network();
        scenario.network.router_icmp_per_second = Some(1.0);
        assert_eq!(
            check(&scenario, DIRECTOR, seed).outcome,
            SpoofOutcome::Passed
        );
    }
}

#[test]
fn one_of_two_equal_paths_that_filters_is_told_from_loss() {
    let mut found = 0;
    for seed in 0..12 {
        let mut scenario = network();
        scenario.detour.push(Detour {
            at: "isp".to_owned(),
            by: "ispb".to_owned(),
            share: 0.5,
            destination: None,
        });
        scenario.filter.push(drop_at("ispb", Some(VIP), None));
        let judged = check(&scenario, DIRECTOR, seed);
        match judged.outcome {
            SpoofOutcome::PartlyFiltered => {
                found += 1;
                let problem = misnamed(&judged, SpoofOutcome::PartlyFiltered, 2, 3);
                assert_eq!(problem, None, "{seed}");
            }
            // All eight flows take one path: once in 128 networks.
            SpoofOutcome::Passed | SpoofOutcome::Filtered => {
                let silent = judged.flows.iter().filter(|flow| flow.spoofed.arrived == 0);
                assert!([0, 8].contains(&silent.count()), "{}", judged.summary);
            }
            other => panic!("{seed}: {other:?}: {}", judged.summary),
        }
    }
    assert!(found >= 10, "{found} of 12");
}

#[test]
fn a_rewritten_source_is_named() {
    for (at, hop) in [("gw", 1), ("isp", 2)] {
        let mut scenario = network();
        let to = Ipv4Addr::new(100, 64, 0, 9);
        scenario.rewrite.push(Rewrite {
            at: at.to_owned(),
            source: VIP,
            to,
            ports: false,
            protocol: None,
        });
        let judged = check(&scenario, DIRECTOR, 1);
        let problem = misnamed(&judged, SpoofOutcome::Rewritten, hop, hop + 1);
        assert_eq!(problem, None);
        assert_eq!(judged.rewritten_to, [to]);
    }
}

#[test]
fn an_agent_that_is_lost_gives_no_filter() {
    for (host, ms) in [("d", 1500), ("c", 1500), ("s", 700)] {
        let mut scenario = network();
        scenario.network.lost_after_ms.insert(host.to_owned(), ms);
        let judged = check(&scenario, ALL, 1);
        let claims = [SpoofOutcome::Inconclusive, SpoofOutcome::Passed];
        assert!(
            claims.contains(&judged.outcome),
            "{host}: {}",
            judged.summary
        );
    }
}

/// A suite may ask both ways, and each step is judged by its own.
#[test]
fn both_ways_in_one_suite_are_told_apart() {
    let vantages: Vec<_> = ALL.iter().map(ToString::to_string).collect();
    for (destination, expected) in [
        (CIP, [StepOutcome::Failed, StepOutcome::Passed]),
        (DIP, [StepOutcome::Passed, StepOutcome::Failed]),
    ] {
        let mut scenario = network();
        scenario
            .filter
            .push(drop_at("isp", Some(VIP), Some(destination)));
        let mut plan = plan(&scenario, &vantages, 1);
        let suites = |toward: Toward| {
            let set = Override {
                name: "toward".to_owned(),
                text: toward.id().to_owned(),
            };
            Embedded::SPOOF_FILTER.suites_with(&plan.paths, &[set])
        };
        let (mut suites, others) = (suites(Toward::Client), suites(Toward::Director));
        for (suite, other) in suites.iter_mut().zip(others) {
            suite.steps.extend(other.steps);
        }
        plan.suites = suites;
        let played = play_plan(&scenario, plan, 1);
        let steps = judge_steps(&played.evidence, &played.judgement);
        let outcomes: Vec<_> = steps.iter().map(|step| step.outcome).collect();
        assert_eq!(outcomes, expected, "{steps:#?}");
    }
}
