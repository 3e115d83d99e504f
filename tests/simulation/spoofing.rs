//! The spoof check: a filter is named where it is, and nothing else is called one.

use std::net::Ipv4Addr;

use tunproof::plan::Toward;
use tunproof::suite::Embedded;
use tunproof::suite::Override;
use tunproof::verdict::SpoofJudgement;
use tunproof::verdict::SpoofOutcome;
use tunproof::verdict::judge_spoofing;

use crate::CIP;
use crate::VIP;
use crate::play::Played;
use crate::play::plan;
use crate::play::play_plan;
use crate::scenario::Detour;
use crate::scenario::Filter;
use crate::scenario::Impair;
use crate::scenario::Rewrite;
use crate::scenario::Scenario;
use crate::scenario::Server;

const ALL: &[&str] = &["director", "realserver", "client"];
const NO_CLIENT: &[&str] = &["director", "realserver"];

/// The routers from the real server to the client: gw, isp, core, r1; then the client.
const CLIENT: u8 = 5;

pub(crate) fn network() -> Scenario {
    Scenario {
        server: vec![Server::default()],
        ..Scenario::default()
    }
}

fn drop_at(at: &str, source: Option<Ipv4Addr>, reject: Option<(u8, u8)>) -> Filter {
    Filter {
        at: at.to_owned(),
        hook: String::new(),
        source,
        destination: Some(CIP),
        protocol: None,
        destination_port: None,
        reject,
        until_ms: None,
    }
}

pub(crate) fn loses(loss: f64) -> Impair {
    Impair {
        at: "core".to_owned(),
        loss,
        ..Impair::default()
    }
}

fn check(scenario: &Scenario, vantages: &[&str], seed: u64) -> SpoofJudgement {
    check_toward(Toward::Client, scenario, vantages, seed).0
}

/// What is said, and what that rests on.
pub(crate) fn check_toward(
    toward: Toward,
    scenario: &Scenario,
    vantages: &[&str],
    seed: u64,
) -> (SpoofJudgement, Played) {
    let vantages: Vec<_> = vantages.iter().map(ToString::to_string).collect();
    let mut plan = plan(scenario, &vantages, seed);
    let set = Override {
        name: "toward".to_owned(),
        text: toward.id().to_owned(),
    };
    plan.suites = Embedded::SPOOF_FILTER.suites_with(&plan.paths, &[set]);
    let played = play_plan(scenario, plan, seed);
    let judged = judge_spoofing(&played.known).remove(0);
    if std::env::var("SHOW").is_ok() {
        let sent = played.known.probes().len();
        println!(
            "{vantages:?} {seed}: {sent} probes in {:?}\n{judged:#?}",
            played.elapsed
        );
    }
    (judged, played)
}

/// What is wrong with a check that should name a filter between these times to live.
pub(crate) fn misnamed(
    judged: &SpoofJudgement,
    outcome: SpoofOutcome,
    passed: u8,
    stopped: u8,
) -> Option<String> {
    let ttl = |router: &Option<tunproof::verdict::Router>| router.as_ref().map_or(0, |r| r.ttl);
    let got = (judged.outcome, ttl(&judged.passed), ttl(&judged.stopped));
    (got != (outcome, passed, stopped)).then(|| format!("{got:?}: {}", judged.summary))
}

#[test]
fn a_healthy_path_passes() {
    for vantages in [ALL, NO_CLIENT, &["realserver", "client"]] {
        let judged = check(&network(), vantages, 1);
        assert_eq!(
            judged.outcome,
            SpoofOutcome::Passed,
            "{vantages:?}: {}",
            judged.summary
        );
        let sure = judged.confidence.unwrap();
        assert!(sure > 0.99 && sure < 1.0, "{sure}");
        assert_eq!(judged.flows.len(), 8);
    }
    let alone = check(&network(), &["realserver"], 1);
    assert_eq!(
        alone.outcome,
        SpoofOutcome::Inconclusive,
        "{}",
        alone.summary
    );
}

#[test]
fn thirty_percent_loss_is_no_filter() {
    let mut wrong = Vec::new();
    let mut passed = 0;
    for seed in 0..200 {
        let mut scenario = network();
        scenario.impair.push(loses(0.3));
        for vantages in [ALL, NO_CLIENT] {
            let judged = check(&scenario, vantages, seed);
            match judged.outcome {
                SpoofOutcome::Passed => passed += 1,
                SpoofOutcome::Inconclusive => {}
                other => wrong.push(format!(
                    "{seed} {vantages:?}: {other:?}: {}",
                    judged.summary
                )),
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(passed >= 390, "only {passed} of 400 passed");
}

/// A filter behind the check of the time to live, as Linux's FORWARD is: the router itself still answers.
#[test]
fn a_filter_is_named_where_it_is() {
    let mut wrong = Vec::new();
    for (hop, at) in (1u8..).zip(["gw", "isp", "core"]) {
        for reject in [None, Some((3, 13))] {
            for loss in [0.0, 0.05] {
                for seed in 0..12 {
                    let mut scenario = network();
                    scenario.filter.push(drop_at(at, Some(VIP), reject));
                    scenario.filter.last_mut().unwrap().destination = Some(CIP);
                    scenario.impair.push(loses(loss));
                    for vantages in [ALL, NO_CLIENT] {
                        // The core is the director's way to the client, too.
                        if at == "core" && vantages == NO_CLIENT {
                            continue;
                        }
                        let judged = check(&scenario, vantages, seed);
                        let problem = misnamed(&judged, SpoofOutcome::Filtered, hop, hop + 1);
                        wrong.extend(
                            problem.map(|p| {
                                format!("{at} {reject:?} {loss} {seed} {vantages:?}: {p}")
                            }),
                        );
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_filter_that_hits_the_directors_packets_as_well_needs_the_client() {
    for at in ["core", "r1"] {
        let mut scenario = network();
        scenario.filter.push(drop_at(at, Some(VIP), None));
        let judged = check(&scenario, NO_CLIENT, 3);
        assert_eq!(
            judged.outcome,
            SpoofOutcome::Inconclusive,
            "{}",
            judged.summary
        );
        let hop = if at == "core" { 3 } else { 4 };
        let problem = misnamed(&judged, SpoofOutcome::Inconclusive, hop, hop + 1);
        assert_eq!(problem, None);
        let judged = check(&scenario, ALL, 3);
        assert_eq!(
            misnamed(&judged, SpoofOutcome::Filtered, hop, hop + 1),
            None
        );
        assert!(at == "core" || hop + 1 == CLIENT);
    }
}

#[test]
fn a_router_that_never_answers_right_before_the_filter_widens_the_place_by_one() {
    for vantages in [ALL, NO_CLIENT] {
        let mut scenario = network();
        scenario.network.silent_routers.push("isp".to_owned());
        scenario.filter.push(drop_at("isp", Some(VIP), None));
        let judged = check(&scenario, vantages, 1);
        assert_eq!(misnamed(&judged, SpoofOutcome::Filtered, 1, 3), None);
    }
}

#[test]
fn silent_routers_and_limits_are_no_filter() {
    for vantages in [ALL, NO_CLIENT] {
        for seed in 0..6 {
            let mut scenario = network();
            scenario.network.silent_routers =
                ["gw", "isp", "core", "r1"].map(str::to_owned).to_vec();
            assert_eq!(
                check(&scenario, vantages, seed).outcome,
                SpoofOutcome::Passed
            );
            let mut scenario = network();
            scenario.network.router_icmp_per_second = Some(1.0);
            scenario.client.no_icmp = true;
            assert_eq!(
                check(&scenario, vantages, seed).outcome,
                SpoofOutcome::Passed
            );
        }
    }
}

#[test]
fn without_the_director_a_filter_has_no_place() {
    let mut scenario = network();
    scenario.filter.push(drop_at("isp", Some(VIP), None));
    let judged = check(&scenario, &["realserver", "client"], 1);
    assert_eq!(misnamed(&judged, SpoofOutcome::Filtered, 0, 0), None);
}

#[test]
fn a_dead_client_is_no_filter() {
    for vantages in [ALL, NO_CLIENT] {
        for seed in 0..6 {
            for filtered in [false, true] {
                let mut scenario = network();
                scenario.filter.push(drop_at("r1", None, None));
                if filtered {
                    scenario.filter.push(drop_at("isp", Some(VIP), None));
                }
                scenario.impair.push(loses(0.2));
                let judged = check(&scenario, vantages, seed);
                assert_eq!(
                    judged.outcome,
                    SpoofOutcome::ControlDiesToo,
                    "{}",
                    judged.summary
                );
                assert_eq!(judged.confidence, None);
            }
        }
    }
}

#[test]
fn a_dead_way_back_to_the_vip_is_no_filter() {
    for at in ["r1", "core", "rd"] {
        for seed in 0..6 {
            let mut scenario = network();
            scenario.filter.push(Filter {
                at: at.to_owned(),
                hook: String::new(),
                source: None,
                destination: Some(VIP),
                protocol: None,
                destination_port: None,
                reject: None,
                until_ms: None,
            });
            let judged = check(&scenario, NO_CLIENT, seed);
            assert_eq!(
                judged.outcome,
                SpoofOutcome::Inconclusive,
                "{at}: {}",
                judged.summary
            );
            let judged = check(&scenario, ALL, seed);
            assert_eq!(
                judged.outcome,
                SpoofOutcome::Passed,
                "{at}: {}",
                judged.summary
            );
        }
    }
}

fn two_paths() -> Scenario {
    let mut scenario = network();
    scenario.detour.push(Detour {
        at: "isp".to_owned(),
        by: "ispb".to_owned(),
        share: 0.5,
        destination: None,
    });
    scenario
}

#[test]
fn one_of_two_equal_paths_that_filters_is_told_from_loss() {
    for (vantages, loss) in [(ALL, 0.0), (NO_CLIENT, 0.0), (ALL, 0.05)] {
        let mut found = 0;
        for seed in 0..12 {
            let mut scenario = two_paths();
            scenario.filter.push(drop_at("ispb", Some(VIP), None));
            scenario.impair.push(loses(loss));
            let judged = check(&scenario, vantages, seed);
            match judged.outcome {
                SpoofOutcome::PartlyFiltered => {
                    found += 1;
                    let problem = misnamed(&judged, SpoofOutcome::PartlyFiltered, 2, 3);
                    assert_eq!(problem, None, "{vantages:?} {loss} {seed}");
                }
                // All eight flows take one path: once in 128 networks.
                SpoofOutcome::Passed | SpoofOutcome::Filtered => {
                    let silent = judged.flows.iter().filter(|flow| flow.spoofed.arrived == 0);
                    assert!([0, 8].contains(&silent.count()), "{}", judged.summary);
                }
                other => panic!("{vantages:?} {loss} {seed}: {other:?}: {}", judged.summary),
            }
        }
        assert!(found >= 10, "{vantages:?} {loss}: {found} of 12");
    }
}

#[test]
fn one_of_two_equal_paths_that_is_dead_for_all_is_no_filter() {
    for vantages in [ALL, NO_CLIENT] {
        for seed in 0..12 {
            let mut scenario = two_paths();
            scenario.filter.push(drop_at("ispb", None, None));
            let judged = check(&scenario, vantages, seed);
            let claims = [SpoofOutcome::Inconclusive, SpoofOutcome::Passed];
            assert!(
                claims.contains(&judged.outcome),
                "{seed}: {}",
                judged.summary
            );
        }
    }
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
        let judged = check(&scenario, ALL, 1);
        let ttl = judged.passed.as_ref().map(|router| router.ttl);
        assert_eq!(
            (judged.outcome, ttl),
            (SpoofOutcome::Rewritten, Some(hop)),
            "{}",
            judged.summary
        );
        assert_eq!(judged.rewritten_to, [to]);
        // Without the client it looks like a filter, and the report says so.
        let judged = check(&scenario, NO_CLIENT, 1);
        assert_eq!(
            misnamed(&judged, SpoofOutcome::Filtered, hop, hop + 1),
            None
        );
        assert!(
            judged.detail.contains("from another source"),
            "{}",
            judged.detail
        );
    }
}

#[test]
fn an_agent_that_is_lost_gives_no_filter() {
    for (host, ms) in [("d", 1500), ("c", 1500), ("s", 700)] {
        for vantages in [ALL, NO_CLIENT] {
            let mut scenario = network();
            scenario.network.lost_after_ms.insert(host.to_owned(), ms);
            let judged = check(&scenario, vantages, 1);
            let claims = [SpoofOutcome::Inconclusive, SpoofOutcome::Passed];
            assert!(
                claims.contains(&judged.outcome),
                "{host}: {}",
                judged.summary
            );
        }
    }
}
