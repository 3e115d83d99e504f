//! The heart of every proving command: agents, engine, judge, report.

use std::collections::BTreeMap;
use std::io;
use std::io::IsTerminal;
use std::path::Path as FilePath;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime;
use tokio::runtime::Runtime;

use crate::cli::common::Settings;
use crate::cli::dry_run;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::recording::Recordings;
use crate::cli::screen::Screen;
use crate::evidence::Evidence;
use crate::evidence::Purpose;
use crate::exchange::Mono;
use crate::exchange::TapPath;
use crate::exchange::Timing;
use crate::exchange::Unread;
use crate::live::clock;
use crate::live::controller;
use crate::live::controller::Driven;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::live::vantage::AgentFailure;
use crate::live::vantage::AgentHandle;
use crate::live::vantage::Allowance;
use crate::live::vantage::OWN;
use crate::live::vantage::StartOptions;
use crate::live::vantage::Vantage;
use crate::live::vantage::Vantages;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Policy;
use crate::report::Picture;
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

/// Between two proofs of the same path: a Linux host that has spent its burst of six answers one datagram a second by
/// ICMP (`icmp_ratelimit`).
pub(super) const APART: Duration = Duration::from_secs(3);

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

/// How long an agent may be silent while it owes an answer: a third of the time, but no less and no more.
const BRIEF: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(10);

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
    let vantages = reach(vias, &recordings.files(), settings)?;
    let (mut known, mut ending) = run(plan, &vantages, Task::Prove, settings, &mut |evidence| {
        recordings.watch(evidence);
    })?;
    let collected = recordings.collect(&mut known.evidence);
    ending.had_all &= matches!(collected, Ok(true));
    ending.after(|| {
        collected?;
        report(known, settings)
    })
}

/// What was found out, and when.
pub(super) struct Known {
    pub(super) evidence: Evidence,
    pub(super) timing: Timing,
}

/// The agents of a task that is through, while they end.
pub(super) struct Ending {
    runtime: Runtime,
    driven: Driven,
    plan: Plan,
    /// Whether every agent started and stayed.
    had_all: bool,
}

impl Ending {
    /// Waits until they have ended. Those that do not end in order are returned.
    pub(super) fn wait(self) -> Vec<Missing> {
        let failures = self.runtime.block_on(self.driven.end()).into_iter();
        let missing = failures.map(|failure| missing(&self.plan, failure, true));
        missing.collect()
    }

    /// Waits until they have ended, and complains; whether every agent started, stayed, and ended in order.
    pub(super) fn had_all(self) -> bool {
        let had_all = self.had_all;
        let missing = self.wait();
        missing.iter().for_each(Missing::complain);
        had_all && missing.is_empty()
    }

    /// Judges while they end.
    pub(super) fn after(
        self,
        judge: impl FnOnce() -> Result<Outcome, Failure>,
    ) -> Result<Ended, Failure> {
        let judged = judge();
        Ok(match (self.had_all(), judged?) {
            (true, outcome) => Ended::Judged(outcome),
            (false, _) => Ended::WithoutAnAgent,
        })
    }
}

/// Who follows a task while it is carried out.
pub(super) trait Audience {
    /// The agents are being started.
    fn begin(&mut self);

    /// Something happened, or the time has come that was given the last time: when to call again at the latest.
    fn look(&mut self, engine: &Engine) -> Option<Duration>;

    /// A host goes without an agent.
    fn miss(&mut self, missing: &Missing);

    /// The task is carried out in another way than was asked for.
    fn note(&mut self, words: &str);
}

/// A host without an agent.
pub(super) struct Missing {
    /// Its name.
    pub(super) host: String,
    /// Whether there was an agent before.
    pub(super) was_there: bool,
    /// Why.
    pub(super) failure: AgentFailure,
}

/// What has been said of run after run: the same is said once, however many runs it is so.
#[derive(Default)]
pub(super) struct Told {
    /// The hosts without an agent in this run, with the reason; and in the run before.
    missing: Vec<(String, String)>,
    missed: Vec<(String, String)>,
    noted: String,
}

impl Told {
    /// Whether that was not so in the run before.
    pub(super) fn is_news(&mut self, missing: &Missing) -> bool {
        let entry = (missing.host.clone(), missing.failure.reason.clone());
        let is_news = !self.missed.contains(&entry);
        self.missing.push(entry);
        is_news
    }

    /// Whether these are other words than the last ones.
    pub(super) fn is_new_note(&mut self, words: &str) -> bool {
        let last = std::mem::replace(&mut self.noted, words.to_owned());
        last != words
    }

    /// The hosts that went without an agent in the run that is over.
    pub(super) fn end_run(&mut self) -> &[(String, String)] {
        self.missed = std::mem::take(&mut self.missing);
        &self.missed
    }

    /// The same, of the last run that is over.
    pub(super) fn missed(&self) -> &[(String, String)] {
        &self.missed
    }
}

/// Carries a task out, and shows on a terminal how far it is; what is known then, and the agents as they end. `watch`
/// sees all evidence as it comes.
pub(super) fn run(
    plan: Plan,
    vantages: &Vantages,
    task: Task,
    settings: &Settings,
    watch: &mut dyn FnMut(&Evidence),
) -> Result<(Known, Ending), Failure> {
    let mut onlooker = Onlooker {
        // What agents say themselves would stand in the middle of it.
        screen: Screen::stderr(task == Task::Prove && !settings.verbose),
        film: Film::new(),
        watch,
        has_all: true,
    };
    let (known, mut ending) = carry_out(plan, vantages, task, settings, &mut onlooker)?;
    let Onlooker {
        mut screen,
        has_all,
        ..
    } = onlooker;
    screen.clear();
    let interrupted = known.evidence.is_cut_short() == Some(Engine::INTERRUPTED);
    if interrupted && task == Task::Prove {
        anstream::eprintln!("interrupted: the report says what was known by then");
    }
    ending.had_all = has_all;
    Ok((known, ending))
}

/// Carries a task out; what is known then, and the agents as they end.
pub(super) fn carry_out(
    plan: Plan,
    vantages: &Vantages,
    task: Task,
    settings: &Settings,
    audience: &mut dyn Audience,
) -> Result<(Known, Ending), Failure> {
    let paths: Vec<TapPath> = plan.paths.iter().map(ends).collect();
    let options = StartOptions {
        // Those that are still there need the rest of the time.
        silence: (settings.limits.timeout / 3).clamp(BRIEF, LONG),
        relay: settings.verbose.then_some(escape),
        ..StartOptions::default()
    };
    let (started, began) = (clock::wall(), clock::mono());
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let (evidence, driven) = runtime.block_on(async {
        audience.begin();
        let starting = vantages.start(&paths, options);
        let started = controller::unless_stopped(starting).await;
        let started = started.map_err(Failure::Runtime)?;
        let (agents, absent) = started.ok_or(Failure::Stopped)?;
        let mut limits = settings.limits;
        if let Some((rate, note)) = slower(limits, &agents, &plan) {
            limits.rate = Some(rate);
            audience.note(&note);
        }
        let mut engine = Engine::new(plan, task, limits, clock::mono());
        for failure in absent {
            let (host, reason) = (failure.host, failure.to_string());
            audience.miss(&missing(engine.evidence().plan(), failure, false));
            engine.handle_lost(host, reason, clock::mono());
        }
        let look = &mut |engine: &Engine| audience.look(engine);
        let driven = controller::drive(&mut engine, agents, look).await;
        let mut driven = driven.map_err(Failure::Runtime)?;
        for failure in std::mem::take(&mut driven.failures) {
            audience.miss(&missing(engine.evidence().plan(), failure, true));
        }
        Ok((engine.into_evidence(), driven))
    })?;
    let timing = Timing {
        started,
        elapsed: clock::mono().since(began),
    };
    let ending = Ending {
        runtime,
        driven,
        plan: evidence.plan().clone(),
        had_all: true,
    };
    Ok((Known { evidence, timing }, ending))
}

fn missing(plan: &Plan, failure: AgentFailure, was_there: bool) -> Missing {
    Missing {
        host: plan.host_name(failure.host),
        was_there,
        failure,
    }
}

/// Who looks at one proof.
struct Onlooker<'a> {
    screen: Screen,
    film: Film,
    watch: &'a mut dyn FnMut(&Evidence),
    has_all: bool,
}

impl Audience for Onlooker<'_> {
    fn begin(&mut self) {
        self.screen.note("starting agents");
    }

    fn look(&mut self, engine: &Engine) -> Option<Duration> {
        (self.watch)(engine.evidence());
        let film = &mut self.film;
        self.screen
            .show(|size| film.picture(engine).lines(size.columns, size.rows - 1))
    }

    fn miss(&mut self, missing: &Missing) {
        self.has_all = false;
        self.screen.clear();
        missing.complain();
    }

    fn note(&mut self, words: &str) {
        self.screen.clear();
        anstream::eprintln!("note: {words}");
    }
}

/// The pictures of a proof, one after the other.
pub(super) struct Film {
    began: Mono,
    /// When each probe was first there.
    noticed: Vec<Mono>,
}

impl Film {
    /// A proof that begins now.
    pub(super) fn new() -> Film {
        Film {
            began: clock::mono(),
            noticed: Vec::new(),
        }
    }

    /// What the engine knows now.
    pub(super) fn picture(&mut self, engine: &Engine) -> Picture {
        let (now, evidence) = (clock::mono(), engine.evidence());
        self.noticed.resize(evidence.probes().len(), now);
        let newest = self.noticed.iter().rev();
        let young = newest.take_while(|at| now.since(**at) < ON_THE_WAY).count();
        let picture = Picture::new(evidence, young, engine.phase(), now.since(self.began));
        match engine.time_left(now) {
            Some((needed, allowed)) => picture.with_time_left(needed, allowed),
            None => picture,
        }
    }
}

/// How long a packet is taken to be on its way that was not seen at its end.
const ON_THE_WAY: Duration = Duration::from_secs(1);

/// Gets ready to start agents, as often as need be, and gives up all but to write the reports, and to read these files.
pub(super) fn reach(
    vias: Vias,
    reads: &[PathBuf],
    settings: &Settings,
) -> Result<Vantages, Failure> {
    let own = FilePath::new(OWN);
    let vantages = vias
        .into_iter()
        .map(|(host, via)| Vantage { host, via })
        .collect();
    let vantages = Vantages::reach(own, vantages, settings.push).map_err(Failure::Runtime)?;
    let mut reads: Vec<_> = reads.iter().map(PathBuf::as_path).collect();
    reads.extend(settings.push.then_some(own));
    confine(&reads, settings).map_err(Failure::Confine)?;
    Ok(vantages)
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

/// The rate as far as every agent's host allows it, if that is slower, and what to say of it.
fn slower(limits: Limits, agents: &[AgentHandle], plan: &Plan) -> Option<(u32, String)> {
    let asked = |agent: &AgentHandle| limits.rate_of(agent.host(), plan.paths.len());
    let slowest = agents
        .iter()
        .filter(|agent| agent.allowance().rate < asked(agent))
        .min_by_key(|agent| agent.allowance().rate)?;
    let rate = asked(slowest);
    let Allowance { rate: most, policy } = slowest.allowance();
    let host = escape(&plan.host_name(slowest.host()));
    let why = match policy {
        Some(file) => format!(
            "{} on {host} allows no more (`rate`; {} for each real server, unless it is said)",
            escape(file),
            Policy::RATE
        ),
        None => format!(
            "{host} has no policy, and so the usual; its administrator may allow it by `rate = {rate}` in {}",
            Policy::FILE
        ),
    };
    let note = format!("{most} packets a second and host instead of {rate}: {why}");
    Some((*most, note))
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
        let report = SpoofReport::new(&evidence, &judged, timing);
        let written = output::write_spoofing(&report, settings);
        let judgement = judge(&mut evidence);
        packets.add(&evidence, &judgement, None);
        output::all([written, packets.end(), cases.end()])?;
        return Ok(SpoofOutcome::worst(&judged).verdict());
    }
    let judgement = judge(&mut evidence);
    let report = Report::new(&evidence, &judgement, timing);
    leave_verdict(&report, settings);
    let written = output::write_report(&report, settings);
    packets.add(&evidence, &judgement, None);
    output::all([written, packets.end(), cases.end()])?;
    Ok(judgement.outcome())
}

/// Where the report goes elsewhere, the picture with its verdicts stays on the terminal.
fn leave_verdict(report: &Report, settings: &Settings) {
    let is_elsewhere = settings.output.is_some() || !io::stdout().is_terminal();
    let mut screen = Screen::stderr(is_elsewhere && !settings.verbose);
    screen.leave(|size| Picture::judged(report).lines(size.columns, size.rows - 1));
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

impl Missing {
    /// An agent is missing; the proof goes on.
    pub(super) fn complain(&self) {
        let failure = &self.failure;
        let what = match self.was_there {
            true => "lost the agent on",
            false => "no agent on",
        };
        let via = failure.via.iter().map(String::as_str);
        let via = shlex::try_join(via).unwrap_or_else(|_| failure.via.join(" "));
        let (host, via, reason) = (escape(&self.host), escape(&via), escape(&failure.reason));
        anstream::eprintln!("error: {what} {host}: {reason}");
        anstream::eprintln!("  via: {via}");
        for line in failure.stderr.lines() {
            anstream::eprintln!("  its stderr: {}", escape(line));
        }
        if !failure.hint.is_empty() {
            anstream::eprintln!("hint: {}", escape(&failure.hint));
        }
    }
}
