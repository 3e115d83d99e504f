//! The engine: every decision about what to do next, and when.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::matching::Matcher;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::Policy;
use crate::run::Command;
use crate::run::Event;
use crate::run::arrival;
use crate::run::arrival::Noted;
use crate::run::probing::Probing;
use crate::run::probing::Witness;
use crate::run::queries;

/// How fast and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets a second that one host sends at most; `None`: [`Policy::usual_rate`].
    pub rate: Option<u32>,
    /// When to give up, however much is unproven.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            rate: None,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Limits {
    /// Packets a second that `host` sends at most if there are so many real servers. A real server has to do with itself alone.
    pub fn rate_of(self, host: Host, realservers: usize) -> u32 {
        self.rate.unwrap_or_else(|| match host {
            Host::Realserver(_) => Policy::usual_rate(1),
            Host::Director | Host::Client => Policy::usual_rate(realservers),
        })
    }
}

/// What the engine does once its taps are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Prove the plan's paths.
    Prove,
    /// Send nothing; report another terminal's probes, for so long (or until interrupted).
    Listen(Option<Duration>),
}

/// Proves a plan's paths.
///
/// The caller feeds it events, as many as there are, and then asks [`Engine::poll_command`] until it says `None`,
/// and only then [`Engine::poll_timeout`] for when to call [`Engine::handle_timeout`]. It is over when
/// [`Engine::is_finished`].
#[derive(Debug)]
pub struct Engine {
    evidence: Evidence,
    matcher: Matcher,
    limits: Limits,
    task: Task,
    started: Mono,
    phase: Phase,
    hosts: BTreeMap<Host, HostState>,
    outbox: VecDeque<(Host, Command)>,
    /// The hosts that were asked for causes, because probes of their paths had fallen silent.
    suspicious: BTreeSet<Host>,
    /// Whether something happened of which the consequences are still to be drawn.
    is_behind: bool,
}

#[derive(Debug)]
enum Phase {
    /// Facts are read and taps opened.
    Preparing,
    /// Probes are on their way.
    Probing(Box<Probing>),
    /// Nothing is sent; arrivals are noted until then.
    Listening(Option<Mono>),
    /// Half-open connections are closed, counters read; at the latest until then.
    Closing(Mono),
    /// Every host was told to finish.
    Finished,
}

#[derive(Debug, PartialEq, Eq)]
enum HostState {
    /// Its first facts are on their way.
    Asked,
    /// Its second facts are on their way, and after them its tap.
    Completing,
    /// Its tap is on its way.
    Opening,
    /// It can send and see.
    Ready,
    /// Its statistics and last facts are on their way.
    Closing {
        /// Answers still to come.
        awaited: u32,
    },
    /// It has said everything, or is gone.
    Done,
}

/// How long a host may take to say its last.
const CLOSING: Duration = Duration::from_secs(6);

impl Engine {
    /// Why the evidence was cut short that [`Engine::handle_interrupt`] ended.
    pub const INTERRUPTED: &str = "it was interrupted";

    /// An engine that carries out `task` for `plan`, starting at `now`.
    pub fn new(plan: Plan, task: Task, limits: Limits, now: Mono) -> Engine {
        let mut outbox = VecDeque::new();
        let mut hosts = BTreeMap::new();
        for host in &plan.vantages {
            outbox.push_back((*host, Command::Facts(queries::first(&plan, *host))));
            hosts.insert(*host, HostState::Asked);
        }
        let matcher = Matcher::new(plan.session);
        Engine {
            evidence: Evidence::new(plan),
            matcher,
            limits,
            task,
            started: now,
            phase: Phase::Preparing,
            hosts,
            outbox,
            suspicious: BTreeSet::new(),
            is_behind: false,
        }
    }

    /// What is known so far.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Everything that is known, at the end.
    pub fn into_evidence(self) -> Evidence {
        self.evidence
    }

    /// What it is doing, for people.
    pub fn phase(&self) -> &'static str {
        match &self.phase {
            Phase::Preparing => "reading facts",
            Phase::Probing(_) => "probing",
            Phase::Listening(_) => "listening",
            Phase::Closing(_) => "closing",
            Phase::Finished => "finished",
        }
    }

    /// How long it takes about until everything was asked, and how long it may take; `None` unless there are real servers
    /// that are still to be asked, and while that cannot be told.
    pub fn time_left(&self, now: Mono) -> Option<(Duration, Duration)> {
        let Phase::Probing(probing) = &self.phase else {
            return None;
        };
        let allowed = (self.started + self.limits.timeout).since(now);
        Some((probing.time_left(now)?, allowed))
    }

    /// A host said something; [`Engine::poll_command`] draws the consequences.
    pub fn handle_event(&mut self, host: Host, event: Event, now: Mono) {
        match event {
            Event::Facts(facts) => match self.hosts.get(&host) {
                Some(HostState::Asked) => {
                    let plan = self.evidence.plan();
                    let query = queries::second(plan, host, &facts);
                    let tap = queries::tap(plan, host, Some(&facts));
                    self.outbox.push_back((host, Command::Facts(query)));
                    self.outbox.push_back((host, Command::OpenTap(tap)));
                    self.evidence.host_mut(host).before = Some(*facts);
                    self.hosts.insert(host, HostState::Completing);
                }
                Some(HostState::Completing) => {
                    let before = &mut self.evidence.host_mut(host).before;
                    before.get_or_insert_default().complete(*facts);
                    self.hosts.insert(host, HostState::Opening);
                }
                Some(HostState::Closing { .. }) => {
                    self.evidence.host_mut(host).after = Some(*facts);
                    self.said_its_last(host);
                }
                _ => {}
            },
            Event::Firewall(found) => {
                let record = self.evidence.host_mut(host);
                if record.firewall_before.is_none() {
                    record.firewall_before = Some(*found);
                    if let Phase::Probing(probing) = &mut self.phase {
                        probing.handle_watching(host, Witness::Rules, now);
                    }
                } else if record.firewall_after.is_none() {
                    record.firewall_after = Some(*found);
                    self.said_its_last(host);
                }
            }
            Event::DropsWatched(unread) => {
                self.evidence.host_mut(host).drops_unread = unread;
                if let Phase::Probing(probing) = &mut self.phase {
                    probing.handle_watching(host, Witness::Drops, now);
                }
            }
            Event::Dropped(dropped) => {
                arrival::note_drop(&mut self.evidence, &self.matcher, host, dropped);
            }
            Event::Freed(freed) => self.evidence.host_mut(host).freed.extend(freed),
            Event::TapOpen => {
                self.evidence.host_mut(host).tap_open = true;
                self.hosts.insert(host, HostState::Ready);
            }
            Event::Failed { operation, error } => {
                let text = format!("{operation}: {error}");
                self.evidence.host_mut(host).failures.push(text);
                match self.hosts.get(&host) {
                    // Without facts a tap is good for much all the same.
                    Some(HostState::Asked) => {
                        let tap = queries::tap(self.evidence.plan(), host, None);
                        self.outbox.push_back((host, Command::OpenTap(tap)));
                        self.hosts.insert(host, HostState::Opening);
                    }
                    Some(HostState::Completing) => {
                        self.hosts.insert(host, HostState::Opening);
                    }
                    Some(HostState::Opening) => {
                        self.hosts.insert(host, HostState::Ready);
                    }
                    Some(HostState::Closing { .. }) => self.said_its_last(host),
                    _ => {}
                }
            }
            Event::Statistics(statistics) => {
                self.evidence.host_mut(host).statistics = Some(statistics);
                self.said_its_last(host);
            }
            Event::Captured(capture) => {
                let listening = matches!(self.phase, Phase::Listening(_));
                let noted =
                    arrival::note(&mut self.evidence, &self.matcher, host, capture, listening);
                if let Phase::Probing(probing) = &mut self.phase {
                    match noted {
                        Noted::Probe(probe) => probing.handle_sighting(probe, &self.evidence, now),
                        Noted::Arp(arp, path) => {
                            probing.handle_arp(&arp, path);
                        }
                        Noted::Nothing => {}
                    }
                }
            }
            Event::Sent { token, outcome } => {
                if let Phase::Probing(probing) = &mut self.phase {
                    probing.handle_sent(token, outcome, &mut self.evidence);
                }
            }
            Event::Connected { token, outcome } => {
                if let Phase::Probing(probing) = &mut self.phase {
                    probing.handle_connected(token, outcome, &mut self.evidence);
                }
            }
            Event::NeighbourForgotten { old, .. } => {
                self.evidence.host_mut(host).forgotten.extend(old);
            }
            Event::Settled { .. } => {}
        }
        self.is_behind = true;
    }

    /// A host is gone, or never came: the proof goes on without it.
    pub fn handle_lost(&mut self, host: Host, reason: String, now: Mono) {
        self.evidence.host_mut(host).lost = Some(reason);
        self.hosts.insert(host, HostState::Done);
        if let Phase::Probing(probing) = &mut self.phase {
            probing.handle_lost(host);
        }
        self.advance(now);
    }

    /// The time that [`Engine::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, now: Mono) {
        self.advance(now);
    }

    /// The user wants to stop: clean up and finish.
    pub fn handle_interrupt(&mut self, now: Mono) {
        match self.phase {
            Phase::Preparing => {
                self.evidence.cut_short(Self::INTERRUPTED);
                self.finish();
            }
            Phase::Probing(_) => {
                self.evidence.cut_short(Self::INTERRUPTED);
                self.close(now);
            }
            Phase::Listening(_) => self.close(now),
            Phase::Closing(_) | Phase::Finished => {}
        }
    }

    /// The next command for a host.
    pub fn poll_command(&mut self, now: Mono) -> Option<(Host, Command)> {
        if std::mem::take(&mut self.is_behind) {
            self.advance(now);
        }
        if let Some(command) = self.outbox.pop_front() {
            return Some(command);
        }
        let Phase::Probing(probing) = &mut self.phase else {
            return None;
        };
        let known = self.evidence.probes().len();
        let command = probing.poll_command(&mut self.evidence, now);
        if let Some((_, Command::Send { transmit, .. })) = &command {
            for probe in &self.evidence.probes()[known..] {
                if probe.script.is_some() {
                    self.matcher.add_script(probe, &transmit.bytes);
                }
            }
        }
        command
    }

    /// When to call [`Engine::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Mono> {
        let end = self.started + self.limits.timeout;
        match &self.phase {
            Phase::Preparing => Some(end),
            Phase::Probing(probing) => Some(probing.poll_timeout(&self.evidence).min(end)),
            Phase::Listening(until) => *until,
            Phase::Closing(until) => Some(*until),
            Phase::Finished => None,
        }
    }

    /// Whether every host has been told to finish.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished) && self.outbox.is_empty()
    }

    fn advance(&mut self, now: Mono) {
        let late = now >= self.started + self.limits.timeout;
        match &mut self.phase {
            Phase::Preparing => {
                let ready = |state: &HostState| matches!(state, HostState::Ready | HostState::Done);
                if self.hosts.values().all(|state| *state == HostState::Done) {
                    self.finish();
                } else if self.hosts.values().all(ready) || late {
                    self.phase = match self.task {
                        Task::Prove => {
                            Phase::Probing(Box::new(Probing::new(&self.evidence, self.limits, now)))
                        }
                        Task::Listen(duration) => {
                            Phase::Listening(duration.map(|duration| now + duration))
                        }
                    };
                    if late {
                        self.evidence.cut_short("time was up");
                        self.close(now);
                    }
                }
            }
            Phase::Probing(probing) => {
                probing.advance(&mut self.evidence, now);
                let over = probing.is_over(&self.evidence, now);
                let mut suspects = probing.suspects();
                suspects.retain(|host| self.suspicious.insert(*host));
                if !suspects.is_empty() {
                    suspects.retain(|host| self.hosts.get(host) == Some(&HostState::Ready));
                    let asked = ask_hosts(&self.evidence, &suspects, &mut self.outbox);
                    probing.await_witnesses(asked, now);
                }
                if !over && late {
                    self.evidence.cut_short("time was up");
                }
                if over || late {
                    self.close(now);
                }
            }
            Phase::Listening(until) => {
                let all_gone = self.hosts.values().all(|state| *state == HostState::Done);
                if until.is_some_and(|until| now >= until) || all_gone {
                    self.close(now);
                }
            }
            Phase::Closing(until) => {
                let all_said = self.hosts.values().all(|state| *state == HostState::Done);
                if all_said || now >= *until {
                    self.finish();
                }
            }
            Phase::Finished => {}
        }
    }

    fn close(&mut self, now: Mono) {
        let mut everything_proven = false;
        if let Phase::Probing(probing) = &mut self.phase {
            probing.think(&self.evidence, now);
            for probe in probing.young(now) {
                self.evidence.excuse(probe);
            }
            for probe in probing.expected(now) {
                self.evidence.expect(probe);
            }
            self.outbox.extend(probing.settle());
            everything_proven = probing.everything_is_proven() && probing.is_whole(&self.evidence);
        }
        let plan = self.evidence.plan();
        for (host, state) in &mut self.hosts {
            if *state != HostState::Ready {
                *state = HostState::Done;
                continue;
            }
            let mut awaited = 1;
            self.outbox.push_back((*host, Command::TapStatistics));
            if let (Some(known), false) = (self.evidence.facts(*host), everything_proven) {
                let query = queries::whole(plan, *host, known);
                self.outbox.push_back((*host, Command::Facts(query)));
                awaited += 1;
                let is_suspicious = self.suspicious.contains(host);
                if let Some(query) = queries::firewall(plan, *host, known).filter(|_| is_suspicious)
                {
                    self.outbox.push_back((*host, Command::Firewall(query)));
                    awaited += 1;
                }
            }
            *state = HostState::Closing { awaited };
        }
        self.phase = Phase::Closing(now + CLOSING);
        self.advance(now);
    }

    fn said_its_last(&mut self, host: Host) {
        if let Some(HostState::Closing { awaited }) = self.hosts.get_mut(&host) {
            *awaited -= 1;
            if *awaited == 0 {
                self.hosts.insert(host, HostState::Done);
            }
        }
    }

    fn finish(&mut self) {
        for host in self.hosts.keys() {
            if self
                .evidence
                .host(*host)
                .is_some_and(|record| record.lost.is_none())
            {
                self.outbox.push_back((*host, Command::Finish));
            }
        }
        self.phase = Phase::Finished;
    }
}

/// Packets that are not answered may have died on a host: from now on counters tell by which rule, and the
/// kernel for what reason. On a path that works, nothing is asked. Gives who was asked.
fn ask_hosts(
    evidence: &Evidence,
    hosts: &BTreeSet<Host>,
    outbox: &mut VecDeque<(Host, Command)>,
) -> BTreeSet<(Host, Witness)> {
    let mut asked = BTreeSet::new();
    for host in hosts {
        let Some(facts) = evidence.facts(*host) else {
            continue;
        };
        let query = queries::firewall(evidence.plan(), *host, facts);
        let tap = queries::tap(evidence.plan(), *host, Some(facts));
        outbox.push_back((*host, Command::WatchDrops(tap)));
        asked.insert((*host, Witness::Drops));
        if let Some(query) = query {
            outbox.push_back((*host, Command::Firewall(query)));
            asked.insert((*host, Witness::Rules));
        }
    }
    asked
}
