//! Which probe to send when: the phase's state, what it is told, and what it has due.

mod beside;
mod outset;
mod play;
mod task;
mod wait;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::exchange::ConnectOutcome;
use crate::exchange::Mono;
use crate::exchange::SendOutcome;
use crate::matching::Arp;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::run::Command;
use crate::run::Limits;
use crate::run::flows::Flows;
use crate::run::mtu::Search;
use crate::run::pacer::Pacer;
use crate::run::passes::Passes;
use crate::run::probing::play::Play;
use crate::run::probing::task::Aim;
use crate::run::probing::task::Task;
use crate::run::probing::task::Tasks;
use crate::run::sweep::Sweep;

/// When a kernel repeats a SYN-ACK first (`TCP_TIMEOUT_INIT`, RFC 6298).
const SYN_ACK_AGAIN: Duration = Duration::from_secs(1);

/// How long witnesses are waited for while there is nothing else to do. Each of the programs that list rules may take
/// four seconds.
const WATCHING: Duration = Duration::from_secs(5);

/// What of a host tells why packets died there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Witness {
    /// The counters of its firewall's rules, from their first listing on.
    Rules,
    /// The kernel's own account of drops.
    Drops,
}

/// The probing phase.
#[derive(Debug)]
pub(super) struct Probing {
    pacer: Pacer,
    /// Of each of the paths that have begun.
    plays: Vec<Vec<Play>>,
    /// When each of the paths began that have begun, in their order.
    begun: Vec<Mono>,
    tasks: Tasks,
    sweeps: Vec<Sweep>,
    searches: Vec<Search>,
    flows: Vec<Flows>,
    passes: Vec<Passes>,
    closing: Vec<(Host, Command)>,
    next: BTreeMap<ProbeKind, u16>,
    /// How many tries of the flow of a kind the passes have made.
    tries: BTreeMap<(ProbeKind, u16), u16>,
    slowest: Duration,
    /// The slowest answer to what goes the way of the searches' packets, which no kernel repeats.
    trip: Duration,
    measured: BTreeSet<ProbeId>,
    proven: Vec<bool>,
    /// Of which paths packets prove all but what takes IPVS's choice of their real server.
    answered: Vec<bool>,
    /// The paths of which something was learnt since it was last thought over.
    heard_of: BTreeSet<usize>,
    /// Those of which that may change whether they are proven.
    doubted: BTreeSet<usize>,
    proven_at: Option<Mono>,
    settled: bool,
    /// Who was asked, and does not watch yet.
    absent: BTreeSet<(Host, Witness)>,
    /// When they are no longer waited for.
    watched_by: Option<Mono>,
}

impl Probing {
    /// Nothing is begun yet.
    pub(super) fn new(evidence: &Evidence, limits: Limits, now: Mono) -> Probing {
        let plan = evidence.plan();
        Probing {
            pacer: Pacer::new(limits, plan.paths.len(), now),
            plays: Vec::new(),
            begun: Vec::new(),
            tasks: Tasks::default(),
            sweeps: Vec::new(),
            searches: Vec::new(),
            flows: Vec::new(),
            passes: Vec::new(),
            closing: Vec::new(),
            next: BTreeMap::new(),
            tries: BTreeMap::new(),
            slowest: Duration::ZERO,
            trip: Duration::ZERO,
            measured: BTreeSet::new(),
            proven: vec![false; plan.paths.len()],
            answered: vec![false; plan.paths.len()],
            heard_of: BTreeSet::new(),
            doubted: BTreeSet::new(),
            proven_at: None,
            settled: false,
            absent: BTreeSet::new(),
            watched_by: None,
        }
    }

    /// A probe, or what it caused, was seen.
    pub(super) fn handle_sighting(&mut self, id: ProbeId, evidence: &Evidence, now: Mono) {
        let Some(probe) = evidence.probe(id) else {
            return;
        };
        if probe.is_limited() {
            return;
        }
        if id.kind == ProbeKind::Mtu {
            let mut searches = self.searches.iter_mut();
            if let Some(search) = searches.find(|search| search.path() == probe.path) {
                search.handle_sighting(evidence, now);
            }
        }
        let passage = evidence.passage(probe);
        self.heard_of.insert(passage.path);
        let goal = evidence.goal(id.kind, passage.path);
        let reached = goal.is_some_and(|goal| passage.furthest() >= Some(goal));
        if reached {
            if let Some(departed) = self.pacer.departed(id) {
                let took = now.since(departed);
                // A kernel repeats its SYN-ACK after a second: whose answer comes then is not known.
                if !id.kind.opens(probe.flow.protocol) || took < SYN_ACK_AGAIN {
                    self.slowest = self.slowest.max(took);
                }
                // What other hosts have to say of it comes later.
                let is_new = self.measured.insert(id);
                if is_new && matches!(id.kind, ProbeKind::Reflect | ProbeKind::Mtu) {
                    self.trip = self.trip.max(took);
                }
            }
            let plays = &self.plays;
            self.tasks.end(passage.path, |task| {
                let enough = task.counted.is_none() && task.tries >= task.at_least;
                task.aim == Aim::Probe(id.kind) && enough && !expects(plays, task)
            });
        }
        if passage.is_complete() {
            self.closing.extend(self.pacer.settle(id));
            let is_tcp = probe.flow.protocol == Protocol::Tcp;
            if id.kind == ProbeKind::Service && is_tcp && !passage.refused {
                self.begin_connection(passage.path, now);
            }
        }
        // What the director does with the client's own packets may take a proof back.
        if !self.proven[passage.path] || id.kind == ProbeKind::Service {
            self.doubted.insert(passage.path);
        }
    }

    /// Thinks over what was learnt: once a path, however much that was.
    pub(super) fn think(&mut self, evidence: &Evidence, now: Mono) {
        let heard_of = std::mem::take(&mut self.heard_of);
        for search in &mut self.searches {
            if heard_of.contains(&search.path()) {
                search.look(evidence);
            }
        }
        for path in std::mem::take(&mut self.doubted) {
            self.reconsider(path, evidence, now);
        }
    }

    /// Notes whether packets prove every hop of `path`, and since when those of every path.
    fn reconsider(&mut self, path: usize, evidence: &Evidence, now: Mono) {
        let goals = match evidence.plan().suites.get(path) {
            Some(suite) if !suite.hops.is_empty() => &suite.hops,
            _ => return,
        };
        let proofs = evidence.proofs(path);
        let mut open = goals.iter().filter(|hop| !proofs.contains_key(hop));
        let chosen = [Hop::DirectorForward, Hop::DirectorSource];
        self.answered[path] = open.clone().all(|hop| chosen.contains(hop));
        self.proven[path] = open.next().is_none();
        if self.proven[path] {
            let aim = Aim::Probe(ProbeKind::ReflectSyn);
            self.tasks.end(path, |task| task.aim == aim);
        }
        match self.everything_is_proven() {
            true => {
                self.proven_at.get_or_insert(now);
            }
            false => self.proven_at = None,
        }
    }

    /// An ARP packet of the real server of `path` was seen: one that stays unanswered takes a proof back.
    pub(super) fn handle_arp(&mut self, arp: &Arp, path: usize) {
        self.doubted.insert(path);
        let plays = &self.plays;
        self.tasks.end(path, |task| {
            let adapts = task.counted.is_none() && !expects(plays, task);
            adapts
                && match &task.aim {
                    Aim::Arp { sender, target, .. } => {
                        let ends = (arp.sender, arp.target);
                        arp.operation == Arp::REPLY && ends == (*target, *sender)
                    }
                    Aim::Resolution { next_hop, .. } => {
                        arp.operation == Arp::REQUEST && !arp.is_ours() && arp.target == *next_hop
                    }
                    Aim::Probe(_) | Aim::Script(_) | Aim::MoreFlows | Aim::Connect => false,
                }
        });
    }

    /// What became of a packet.
    pub(super) fn handle_sent(
        &mut self,
        token: u32,
        outcome: SendOutcome,
        evidence: &mut Evidence,
    ) {
        self.pacer.handle_sent(token, outcome, evidence);
    }

    /// What became of a connection.
    pub(super) fn handle_connected(
        &mut self,
        token: u32,
        outcome: ConnectOutcome,
        evidence: &mut Evidence,
    ) {
        let connected = matches!(outcome, ConnectOutcome::Connected { .. });
        self.pacer.handle_connected(token, outcome, evidence);
        for task in self
            .tasks
            .iter_mut()
            .filter(|task| task.aim == Aim::Connect)
        {
            task.done |= connected;
        }
    }

    /// These were asked to watch.
    pub(super) fn await_witnesses(&mut self, asked: BTreeSet<(Host, Witness)>, now: Mono) {
        self.absent.extend(asked);
        self.watched_by = Some(now + WATCHING);
    }

    /// A host watches. It tells only of what dies from now on: on a slow one, everything may have been tried before.
    pub(super) fn handle_watching(&mut self, host: Host, witness: Witness, now: Mono) {
        if self.absent.remove(&(host, witness)) && self.absent.is_empty() {
            for task in self.tasks.iter_mut() {
                task.try_before_witnesses(now);
            }
        }
    }

    /// A host is gone.
    pub(super) fn handle_lost(&mut self, host: Host) {
        self.absent.retain(|(absent, _)| *absent != host);
        self.pacer.drop_host(host);
        for task in self.tasks.iter_mut().filter(|task| task.host == host) {
            task.done = true;
        }
        self.sweeps.retain(|sweep| sweep.from() != host);
        match host {
            Host::Director => self.searches.clear(),
            Host::Realserver(path) => {
                self.flows.retain(|flows| flows.path() != path);
                self.passes.retain(|passes| passes.path() != path);
                self.heard_of.insert(path);
            }
            Host::Client => {}
        }
    }

    /// Queues what is due.
    pub(super) fn advance(&mut self, evidence: &mut Evidence, now: Mono) {
        self.think(evidence, now);
        // Beyond a settled proof only the search for a size goes on, and that for filtered flows, and the
        // steps that ask something of their own.
        self.settled = self.proven_at.is_some_and(|at| now >= self.settled_at(at));
        self.advance_plays(evidence, now);
        self.advance_tasks(evidence, now);
        if !self.settled {
            self.advance_sweeps(evidence, now);
        }
        self.advance_searches(evidence, now);
        self.ask_again(evidence, now);
        self.advance_passes(evidence, now);
    }

    /// The next command whose time has come.
    pub(super) fn poll_command(
        &mut self,
        evidence: &mut Evidence,
        now: Mono,
    ) -> Option<(Host, Command)> {
        loop {
            let next = self.closing.pop();
            let next = next.or_else(|| self.pacer.poll_command(evidence, now));
            if next.is_some() || !self.set_out(evidence, now) {
                return next;
            }
        }
    }

    /// Closes everything that is still open.
    pub(super) fn settle(&mut self) -> Vec<(Host, Command)> {
        let mut commands = std::mem::take(&mut self.closing);
        commands.extend(self.pacer.settle_all());
        commands
    }

    /// The hosts of the paths of which a probe was sent a third time, because what should have come of the first two was
    /// not seen: one that is lost, or late, is nothing to ask every host about.
    pub(super) fn suspects(&self) -> BTreeSet<Host> {
        let repeats = self.tasks.open().filter(|task| {
            let adapts = matches!(task.aim, Aim::Probe(_)) && task.counted.is_none();
            adapts && task.tries > task.at_least.max(1) + 1
        });
        let hosts = |task: &Task| [Host::Director, Host::Realserver(task.path), Host::Client];
        repeats.flat_map(hosts).collect()
    }

    /// Whether packets prove every hop that the suites ask for.
    pub(super) fn everything_is_proven(&self) -> bool {
        self.proven.iter().all(|proven| *proven)
    }

    /// Whether that is every hop there is.
    pub(super) fn is_whole(&self, evidence: &Evidence) -> bool {
        let mut suites = evidence.plan().suites.iter();
        suites.all(|suite| suite.hops.len() == Hop::ALL.len())
    }

    /// Whether a probe of `kind` was seen at waypoint number `waypoint` or behind it.
    fn has_passed(
        &self,
        kind: ProbeKind,
        path: usize,
        waypoint: usize,
        evidence: &Evidence,
    ) -> bool {
        evidence
            .passages(path)
            .any(|p| p.probe.id.kind == kind && p.furthest() >= Some(waypoint))
    }

    /// A new probe of `kind`, never with the ports of a connection that IPVS knows.
    fn probe(&mut self, kind: ProbeKind, path: usize, evidence: &Evidence) -> Option<Probe> {
        let plan = evidence.plan();
        loop {
            let next = self.next.entry(kind).or_insert(0);
            let index = *next;
            if index >= ProbeId::once(kind) {
                return None;
            }
            *next += 1;
            let id = ProbeId { kind, index };
            let probe = Probe::new(id, path, &plan.paths[path], &plan.session)?;
            if !is_taken(evidence, path, id) {
                return Some(probe);
            }
            // The flow of a trace is constant: the next number has the same.
            if kind.is_trace() {
                return None;
            }
        }
    }
}

/// Whether a task's step says what must come of it, so that no itinerary ends it.
fn expects(plays: &[Vec<Play>], task: &Task) -> bool {
    plays[task.path][task.step].expects
}

/// Whether IPVS knows a connection of the client from this probe's port.
fn is_taken(evidence: &Evidence, path: usize, id: ProbeId) -> bool {
    let plan = evidence.plan();
    let client = (plan.paths[path].cip, plan.session.client_port(id));
    evidence.facts(Host::Director).is_some_and(|facts| {
        let mut live = facts.ipvs_connections.iter();
        live.any(|connection| connection.client == client)
    })
}

/// Whether tunproof runs on `host` and has not lost it.
fn is_there(evidence: &Evidence, host: Host) -> bool {
    evidence
        .host(host)
        .is_some_and(|record| record.lost.is_none())
}
