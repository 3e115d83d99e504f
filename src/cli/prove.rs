//! The heart of every proving command: agents, engine, judge, report.

use std::collections::BTreeMap;
use std::io;
use std::path::Path as FilePath;
use std::path::PathBuf;

use tokio::runtime;

use crate::cli::common::Settings;
use crate::cli::dry_run;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::progress::ProgressLine;
use crate::cli::recording::Recordings;
use crate::evidence::Evidence;
use crate::evidence::Purpose;
use crate::exchange::TapPath;
use crate::exchange::Timing;
use crate::exchange::Unread;
use crate::live::clock;
use crate::live::controller;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::live::vantage;
use crate::live::vantage::AgentFailure;
use crate::live::vantage::AgentHandle;
use crate::live::vantage::Allowance;
use crate::live::vantage::StartOptions;
use crate::live::vantage::Vantage;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::report::Report;
use crate::report::SpoofReport;
use crate::report::escape;
use crate::run::Engine;
use crate::run::Limits;
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
    let later = recordings.files();
    let sandbox = Sandbox::last(settings, &later);
    let (mut known, mut had_all) = run(
        plan,
        vias,
        Task::Prove,
        settings,
        sandbox,
        &mut |evidence| {
            recordings.watch(evidence);
        },
    )?;
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
    sandbox: Sandbox<'_>,
    watch: &mut dyn FnMut(&Evidence),
) -> Result<(Known, bool), Failure> {
    let paths: Vec<TapPath> = plan.paths.iter().map(ends).collect();
    let vantages = vias
        .into_iter()
        .map(|(host, via)| Vantage { host, via })
        .collect();
    let options = StartOptions {
        verbose: settings.verbose,
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
        let (agents, absent) = vantage::start(vantages, &paths, options).await;
        sandbox.close().map_err(Failure::Confine)?;
        line.clear();
        let limits = allowed(settings.limits, &agents, &plan);
        let mut engine = Engine::new(plan, task, limits, clock::mono());
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

/// What this process gives up when its agents have started.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sandbox<'a> {
    /// Nothing: more agents will be started.
    Later,
    /// All but to write the reports, and to read what is added.
    Now(&'a Settings, &'a [PathBuf]),
}

impl<'a> Sandbox<'a> {
    /// These are the last agents; the files `later` will still be read.
    pub(super) fn last(settings: &'a Settings, later: &'a [PathBuf]) -> Sandbox<'a> {
        Sandbox::Now(settings, later)
    }

    fn close(self) -> io::Result<()> {
        let Sandbox::Now(settings, later) = self else {
            return Ok(());
        };
        let reads: Vec<_> = later.iter().map(PathBuf::as_path).collect();
        confine(&reads, settings)
    }
}

/// Gives up all but to read these files and to write what the settings ask for.
pub(super) fn confine(reads: &[&FilePath], settings: &Settings) -> io::Result<()> {
    let writes = [&settings.output, &settings.pcap, &settings.save];
    let writes: Vec<_> = writes.into_iter().flatten().map(PathBuf::as_path).collect();
    privileges::confine(Role::Command {
        reads,
        writes: &writes,
    })
}

/// The limits as far as every agent's host allows them; who asked for more is told.
fn allowed(limits: Limits, agents: &[AgentHandle], plan: &Plan) -> Limits {
    let slowest = agents.iter().min_by_key(|agent| agent.allowance().rate);
    let Some(agent) = slowest.filter(|agent| agent.allowance().rate < limits.rate) else {
        return limits;
    };
    let Allowance { rate, policy } = agent.allowance();
    let (host, policy) = (escape(&plan.host_name(agent.host())), escape(policy));
    anstream::eprintln!(
        "note: {rate} packets a second and host instead of {}: `rate` in {policy} on {host} allows no more",
        limits.rate
    );
    Limits {
        rate: *rate,
        ..limits
    }
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
        for failure in &record.failures {
            let host = escape(&evidence.plan().host_name(*host));
            anstream::eprintln!("{host}: not done: {}", escape(failure));
        }
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

/// The addresses that a path's packets may carry.
fn ends(path: &Path) -> TapPath {
    TapPath {
        vip: path.vip,
        cip: path.cip,
        dip: path.dip,
        rip: path.rip,
        gateway: path.gateway,
    }
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
