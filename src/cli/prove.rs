//! The heart of every proving command: agents, engine, judge, report.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tokio::runtime;

use crate::agent::Scope;
use crate::cli::common::Settings;
use crate::cli::dry_run;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::progress::ProgressLine;
use crate::cli::recording::Recordings;
use crate::evidence::Evidence;
use crate::evidence::Purpose;
use crate::exchange::Timing;
use crate::exchange::Unread;
use crate::live::clock;
use crate::live::controller;
use crate::live::vantage;
use crate::live::vantage::AgentFailure;
use crate::live::vantage::StartOptions;
use crate::live::vantage::Vantage;
use crate::plan::Host;
use crate::plan::Plan;
use crate::report::Report;
use crate::report::SpoofReport;
use crate::report::escape;
use crate::run::Engine;
use crate::run::Task;
use crate::suite::Embedded;
use crate::verdict::Outcome;
use crate::verdict::SpoofOutcome;
use crate::verdict::judge;
use crate::verdict::judge_spoofing;

/// The commands through which hosts are reached.
pub(super) type Vias = BTreeMap<Host, Vec<String>>;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a verdict.
    Judged(Outcome),
    /// With a verdict from fewer hosts than were named: an agent did not start, or not stay.
    WithoutAnAgent,
    /// It said what it was asked, and had nothing to judge.
    Said,
    /// It looked for something, and found nothing.
    Nothing,
}

impl Ended {
    /// The exit status. 0: every hop proven; 1: one broken; 2: an agent was missing; 3: nothing broken, not all
    /// proven. What proves nothing: 0: done, 3: nothing found.
    pub(super) fn status(self) -> u8 {
        match self {
            Ended::WithoutAnAgent => 2,
            Ended::Judged(Outcome::Broken) => 1,
            Ended::Judged(Outcome::Unproven) | Ended::Nothing => 3,
            Ended::Judged(Outcome::Proven) | Ended::Said => 0,
        }
    }
}

/// The way to a host that is this one.
pub(super) fn local() -> Vec<String> {
    vec!["local".to_owned()]
}

/// Proves a plan and reports.
pub(super) fn prove(plan: Plan, vias: Vias, settings: &Settings) -> Result<Ended, Failure> {
    prove_with(plan, vias, Recordings::default(), settings)
}

/// Proves a plan, with captures of hosts on which tunproof does not run, and reports.
pub(super) fn prove_with(
    plan: Plan,
    vias: Vias,
    mut recordings: Recordings,
    settings: &Settings,
) -> Result<Ended, Failure> {
    if settings.dry_run {
        dry_run::say(plan, &vias, 1, settings)?;
        return Ok(Ended::Said);
    }
    output::check(settings)?;
    recordings.begin(settings.limits.timeout)?;
    let (mut known, mut had_all) = run(plan, vias, Task::Prove, settings, &mut |evidence| {
        recordings.watch(evidence);
    })?;
    had_all &= recordings.collect(&mut known.evidence)?;
    Ok(match (report(known, settings)?, had_all) {
        (outcome, true) => Ended::Judged(outcome),
        (_, false) => Ended::WithoutAnAgent,
    })
}

/// What was found out, and when.
pub(super) struct Known {
    pub(super) evidence: Evidence,
    pub(super) timing: Timing,
}

/// Carries a task out; what is known then, and whether every agent started and stayed to the end. `watch`
/// sees all evidence as it comes.
pub(super) fn run(
    plan: Plan,
    vias: Vias,
    task: Task,
    settings: &Settings,
    watch: &mut dyn FnMut(&Evidence),
) -> Result<(Known, bool), Failure> {
    let scope = Scope::new(addresses(&plan));
    let vantages = vias
        .into_iter()
        .map(|(host, via)| Vantage { host, via })
        .collect();
    let options = StartOptions {
        verbose: settings.verbose,
        push: settings.push,
        ..StartOptions::default()
    };
    let (started, began) = (clock::wall(), clock::mono());
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let (evidence, had_all) = runtime.block_on(async {
        let mut line = ProgressLine::new(task == Task::Prove);
        line.say("starting agents");
        let (agents, absent) = vantage::start(vantages, &scope, options).await;
        let mut engine = Engine::new(plan, task, settings.limits, clock::mono());
        line.clear();
        for failure in &absent {
            complain("no agent on", failure, &engine);
            engine.handle_lost(failure.host, failure.to_string(), clock::mono());
        }
        let driven = controller::drive(&mut engine, agents, &mut |engine| {
            watch(engine.evidence());
            line.show(|| engine.progress(clock::mono()));
        })
        .await
        .map_err(Failure::Runtime)?;
        line.clear();
        for failure in &driven.failures {
            complain("lost the agent on", failure, &engine);
        }
        if driven.interrupted && task == Task::Prove {
            anstream::eprintln!("interrupted: the report says what was known by then");
        }
        let had_all = absent.is_empty() && driven.failures.is_empty();
        Ok((engine.into_evidence(), had_all))
    })?;
    let timing = Timing {
        started,
        elapsed: clock::mono().since(began),
    };
    Ok((Known { evidence, timing }, had_all))
}

/// Saves what is known, judges it and writes the report and the packets. That it could not be saved keeps
/// nobody from the report.
pub(super) fn report(known: Known, settings: &Settings) -> Result<Outcome, Failure> {
    let Known {
        mut evidence,
        timing,
    } = known;
    if settings.verbose {
        tell_unread(&evidence);
    }
    let mut cases = output::Cases::new(settings, false);
    cases.add(&evidence, timing, Purpose::Proof);
    let mut packets = output::Packets::new(settings);
    if Embedded::SPOOF_FILTER.is_of(evidence.plan()) {
        let judged = judge_spoofing(&evidence);
        output::write_spoofing(&SpoofReport::new(&evidence, &judged, timing), settings)?;
        let judgement = judge(&mut evidence);
        packets.add(&evidence, &judgement, None);
        packets.end()?;
        cases.end()?;
        return Ok(SpoofOutcome::worst(&judged).verdict());
    }
    let judgement = judge(&mut evidence);
    let report = Report::new(&evidence, &judgement, timing);
    output::write_report(&report, settings)?;
    packets.add(&evidence, &judgement, None);
    packets.end()?;
    cases.end()?;
    Ok(judgement.outcome())
}

/// What the hosts could not tell: the verdict stands without it.
pub(super) fn tell_unread(evidence: &Evidence) {
    for host in &evidence.plan().vantages {
        let Some(record) = evidence.host(*host) else {
            continue;
        };
        let facts = record.after.as_ref().or(record.before.as_ref());
        let firewall = record.firewall_after.as_ref();
        let firewall = firewall.or(record.firewall_before.as_ref());
        let unread = facts.into_iter().flat_map(|facts| &facts.unread);
        let unread = unread.chain(firewall.into_iter().flat_map(|firewall| &firewall.unread));
        let drops = record
            .drops_unread
            .clone()
            .or_else(|| record.freed.unread());
        for Unread { what, error } in unread.chain(&drops) {
            let host = escape(&evidence.plan().host_name(*host));
            let (what, error) = (escape(what), escape(error));
            anstream::eprintln!("{host}: not read: {what}: {error}");
        }
    }
}

/// Every address that a plan's packets may carry.
fn addresses(plan: &Plan) -> impl Iterator<Item = Ipv4Addr> {
    plan.paths.iter().flat_map(|path| {
        [path.vip, path.rip, path.cip]
            .into_iter()
            .chain(path.dip)
            .chain(path.gateway)
    })
}

/// An agent is missing; the proof goes on.
fn complain(what: &str, failure: &AgentFailure, engine: &Engine) {
    let host = engine.evidence().plan().host_name(failure.host);
    let via = failure.via.iter().map(String::as_str);
    let via = shlex::try_join(via).unwrap_or_else(|_| failure.via.join(" "));
    let (host, via, reason) = (escape(&host), escape(&via), escape(&failure.reason));
    anstream::eprintln!("error: {what} {host}: {reason}");
    anstream::eprintln!("  via: {via}");
    for line in failure.stderr.lines() {
        anstream::eprintln!("  its stderr: {}", escape(line));
    }
    if !failure.hint.is_empty() {
        anstream::eprintln!("hint: {}", escape(&failure.hint));
    }
}
