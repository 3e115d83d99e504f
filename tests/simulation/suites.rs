//! What a suite does not ask for is not done.

use std::collections::BTreeSet;

use tunproof::evidence::What;
use tunproof::plan::Action;
use tunproof::plan::ProbeKind;
use tunproof::plan::Suite;
use tunproof::plan::Task;

use crate::play::plan;
use crate::play::play_plan;
use crate::scenario::Scenario;
use crate::scenarios;

pub(crate) fn network(name: &str) -> Scenario {
    let mut known = scenarios().into_iter();
    let found = known.find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no scenario `{name}`")).1
}

/// The kinds of probes that a step may send.
fn kinds(task: Task) -> Vec<ProbeKind> {
    match task {
        Task::Probe(kind) => vec![kind],
        // A packet from the VIP is what makes the kernel ask.
        Task::ResolveGateway => vec![ProbeKind::SpoofSynack],
        Task::MoreFlows => vec![
            ProbeKind::SpoofSynack,
            ProbeKind::ControlSynack,
            ProbeKind::ReturnControl,
        ],
        Task::SpoofSweep => vec![ProbeKind::SpoofTrace, ProbeKind::ControlTrace],
        Task::TunnelSweep => vec![ProbeKind::TunnelTrace, ProbeKind::TunnelControl],
        Task::MtuSearch => vec![ProbeKind::Mtu],
        _ => Vec::new(),
    }
}

fn task(action: &Action) -> Task {
    match action {
        Action::Builtin(builtin) => builtin.task,
        other => panic!("{other:?} in a built-in suite"),
    }
}

/// The kinds that are sent in a network when `change` was made to the suite.
fn sent(scenario: &Scenario, change: impl Fn(&mut Suite)) -> BTreeSet<ProbeKind> {
    let vantages = ["director", "realserver", "client"].map(str::to_owned);
    let mut plan = plan(scenario, &vantages, 7);
    plan.suites.iter_mut().for_each(change);
    let played = play_plan(scenario, plan, 7);
    let probes = played.evidence.probes().iter();
    probes.map(|probe| probe.id.kind).collect()
}

#[test]
fn a_step_left_out_leaves_its_probes_out() {
    for name in ["healthy", "spoof-filter-at-isp", "core-drops-ipip"] {
        let scenario = network(name);
        let usual = sent(&scenario, |_| {});
        assert!(usual.len() >= 10, "{name}: only {usual:?}");
        for kind in &usual {
            let left = sent(&scenario, |suite| {
                suite
                    .steps
                    .retain(|step| !kinds(task(&step.action)).contains(kind));
            });
            assert!(
                !left.contains(kind),
                "{name}: {kind} is sent without a step"
            );
        }
    }
}

#[test]
fn an_empty_suite_sends_nothing() {
    let scenario = network("healthy");
    let vantages = ["director", "realserver", "client"].map(str::to_owned);
    let mut plan = plan(&scenario, &vantages, 7);
    for suite in &mut plan.suites {
        suite.steps.clear();
    }
    let played = play_plan(&scenario, plan, 7);
    assert_eq!(played.evidence.probes(), []);
    let mut items = played.evidence.items().iter();
    assert!(!items.any(|item| matches!(item.what, What::Sent { .. } | What::Connect { .. })));
}
