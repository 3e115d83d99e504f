//! Which probe to send when: each kind is tried until its itinerary is complete, or six times.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::craft;
use crate::evidence::Evidence;
use crate::exchange::ConnectOutcome;
use crate::exchange::Mono;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::matching::Arp;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::itinerary;
use crate::run::Command;
use crate::run::pacer::Outgoing;
use crate::run::pacer::Pacer;
use crate::run::queries;
use crate::run::sweep::Sweep;

/// When the tries of a task are due, after its first: three quickly, then slower, so that loss is told from
/// a filter. Six port unreachables are what a Linux host sends in a burst (`icmp_ratelimit`).
const TRIES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2000),
    Duration::from_millis(3000),
];
/// How often the kernel is given occasion to ask for its next hop.
const RESOLUTIONS: usize = 3;
/// How long the last try may take, unless slower answers were seen.
const LAST_WAIT: Duration = Duration::from_secs(1);
/// When the sweeps start, if the VIP's packets have not been seen to reach the client by then.
const SWEEP_AFTER: Duration = Duration::from_millis(700);
/// How long the probes still on their way may take once everything is proven.
const GRACE: Duration = Duration::from_millis(100);

/// The probing phase.
#[derive(Debug)]
pub(super) struct Probing {
    pacer: Pacer,
    tasks: Vec<Task>,
    sweeps: Vec<Sweep>,
    settled: Vec<(Host, Command)>,
    next: BTreeMap<ProbeKind, u16>,
    slowest: Duration,
    proven: Vec<bool>,
    proven_at: Option<Mono>,
}

/// Something to try until it succeeds.
#[derive(Debug)]
struct Task {
    aim: Aim,
    path: usize,
    host: Host,
    begin: Mono,
    tries: usize,
    at_least: usize,
    done: bool,
}

/// What a task tries.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Aim {
    Probe(ProbeKind),
    Arp {
        mac: [u8; 6],
        device: String,
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    /// The kernel's own ARP for the next hop: its entry is deleted and a packet from the VIP sent, until the
    /// kernel was seen to ask; the gateway's own questions may fill the entry in between.
    Resolution {
        next_hop: Ipv4Addr,
        device: String,
    },
    /// A real connection, once a crafted one went all the way: one that cannot complete would stay half
    /// open on the real server.
    Connect,
}

impl Probing {
    /// The tasks for every path of the plan, from what the hosts said of themselves.
    pub(super) fn new(evidence: &Evidence, rate: u32, now: Mono) -> Probing {
        let plan = evidence.plan();
        let mut probing = Probing {
            pacer: Pacer::new(rate, now),
            tasks: Vec::new(),
            sweeps: Vec::new(),
            settled: Vec::new(),
            next: BTreeMap::new(),
            slowest: Duration::ZERO,
            proven: vec![false; plan.paths.len()],
            proven_at: None,
        };
        for path in 0..plan.paths.len() {
            probing.plan_realserver(evidence, path, now);
            probing.plan_director(evidence, path, now);
            probing.plan_client(evidence, path, now);
        }
        probing
    }

    fn plan_director(&mut self, evidence: &Evidence, path: usize, now: Mono) {
        if !is_there(evidence, Host::Director) {
            return;
        }
        let mut kinds = vec![
            ProbeKind::IpvsLoop,
            ProbeKind::TunnelUdp,
            ProbeKind::Reflect,
        ];
        if evidence.plan().paths[path].protocol == Protocol::Tcp {
            kinds.push(ProbeKind::TunnelSyn);
        }
        if path == 0 {
            kinds.push(ProbeKind::ReturnControl);
        }
        for kind in kinds {
            self.add(Aim::Probe(kind), path, Host::Director, now, 1);
        }
    }

    fn plan_client(&mut self, evidence: &Evidence, path: usize, now: Mono) {
        if !is_there(evidence, Host::Client) || evidence.misplaced(Host::Client).is_some() {
            return;
        }
        self.add(Aim::Probe(ProbeKind::Service), path, Host::Client, now, 1);
    }

    /// First the gateway's neighbour entry goes, so that ARP is exercised as the HOWTO does with
    /// `arp -d GW`; then the spoofed probes, whose source the kernel may use for its ARP requests; the
    /// control and our own ARP probes only after them.
    fn plan_realserver(&mut self, evidence: &Evidence, path: usize, now: Mono) {
        let host = Host::Realserver(path);
        if !is_there(evidence, host) {
            return;
        }
        let declared = &evidence.plan().paths[path];
        let egress = evidence
            .facts(host)
            .and_then(|facts| queries::egress(facts, declared));
        if let Some(egress) = &egress {
            let announces = egress.vip_on_link && egress.tells_vip;
            if !announces {
                let aim = Aim::Resolution {
                    next_hop: egress.next_hop,
                    device: egress.device.clone(),
                };
                self.add(aim, path, host, now, 1);
            }
        }
        let director = is_there(evidence, Host::Director);
        // A listener in another terminal has no other way to see repeats.
        let at_least = if director { 1 } else { 3 };
        for kind in [ProbeKind::SpoofSynack, ProbeKind::SpoofTrace] {
            self.add(Aim::Probe(kind), path, host, now, at_least);
        }
        let later = now + Duration::from_millis(60);
        for kind in [ProbeKind::ControlSynack, ProbeKind::ControlTrace] {
            self.add(Aim::Probe(kind), path, host, later, 1);
        }
        if let Some(egress) = egress {
            let arp = |sender, target| Aim::Arp {
                mac: egress.mac,
                device: egress.device.clone(),
                sender,
                target,
            };
            let after = |ms| now + Duration::from_millis(ms);
            let own = arp(egress.address, egress.next_hop);
            self.add(own, path, host, after(100), 1);
            if egress.tells_vip && !egress.vip_on_link {
                let vip = arp(declared.vip, egress.next_hop);
                self.add(vip, path, host, after(150), 1);
            }
            if egress.vip_on_link {
                let who = arp(egress.address, declared.vip);
                self.add(who, path, host, after(120), 1);
            }
        }
        let begin = match director {
            true => now + SWEEP_AFTER,
            false => now + Duration::from_millis(200),
        };
        self.sweeps.push(Sweep::new(path, begin));
    }

    fn add(&mut self, aim: Aim, path: usize, host: Host, begin: Mono, at_least: usize) {
        self.tasks.push(Task {
            aim,
            path,
            host,
            begin,
            tries: 0,
            at_least,
            done: false,
        });
    }

    /// A probe, or what it caused, was seen.
    pub(super) fn handle_sighting(&mut self, id: ProbeId, evidence: &Evidence, now: Mono) {
        let Some(probe) = evidence.probe(id) else {
            return;
        };
        if probe.is_limited() {
            return;
        }
        let passage = evidence.passage(probe);
        let goal = goal(evidence.plan(), evidence, id.kind, passage.path);
        let reached = goal.is_some_and(|goal| passage.furthest() >= Some(goal));
        if reached {
            if let Some(departed) = self.pacer.departed(id) {
                self.slowest = self.slowest.max(now.since(departed));
            }
            for task in &mut self.tasks {
                let same = task.aim == Aim::Probe(id.kind) && task.path == passage.path;
                task.done |= same && task.tries >= task.at_least;
            }
        }
        if passage.is_complete() {
            self.settled.extend(self.pacer.settle(id));
            let connects = self.tasks.iter().any(|task| task.aim == Aim::Connect);
            let is_tcp = probe.flow.protocol == Protocol::Tcp;
            if id.kind == ProbeKind::Service && is_tcp && !passage.refused && !connects {
                self.add(Aim::Connect, passage.path, Host::Client, now, 1);
            }
        }
        if !self.proven[passage.path] {
            self.reconsider(passage.path, evidence, now);
        }
    }

    /// Notes whether packets prove every hop of `path`, and since when those of every path.
    fn reconsider(&mut self, path: usize, evidence: &Evidence, now: Mono) {
        self.proven[path] = evidence.proofs(path).len() == Hop::ALL.len();
        match self.everything_is_proven() {
            true => {
                self.proven_at.get_or_insert(now);
            }
            false => self.proven_at = None,
        }
    }

    /// An ARP packet of the real server of `path` was seen: one that stays unanswered takes a proof back.
    pub(super) fn handle_arp(&mut self, arp: &Arp, path: usize, evidence: &Evidence, now: Mono) {
        self.reconsider(path, evidence, now);
        for task in self.tasks.iter_mut().filter(|task| task.path == path) {
            task.done |= match &task.aim {
                Aim::Arp { sender, target, .. } => {
                    arp.operation == Arp::REPLY && arp.sender == *target && arp.target == *sender
                }
                Aim::Resolution { next_hop, .. } => {
                    arp.operation == Arp::REQUEST && !arp.is_ours() && arp.target == *next_hop
                }
                Aim::Probe(_) | Aim::Connect => false,
            };
        }
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

    /// A host is gone.
    pub(super) fn handle_lost(&mut self, host: Host) {
        self.pacer.drop_host(host);
        for task in self.tasks.iter_mut().filter(|task| task.host == host) {
            task.done = true;
        }
        if let Host::Realserver(path) = host {
            self.sweeps.retain(|sweep| sweep.path() != path);
        }
    }

    /// Queues what is due.
    pub(super) fn advance(&mut self, evidence: &Evidence, now: Mono) {
        for number in 0..self.tasks.len() {
            while self.tasks[number].due().is_some_and(|due| due <= now) {
                self.tasks[number].tries += 1;
                let host = self.tasks[number].host;
                match self.outgoing(number, evidence) {
                    Some(outgoing) => self.pacer.push(host, outgoing),
                    None => self.tasks[number].done = true,
                }
                let Task { path, tries, .. } = self.tasks[number];
                let resolves = matches!(self.tasks[number].aim, Aim::Resolution { .. });
                // Behind the first, the first spoofed probe is due anyway.
                if let (true, 2..) = (resolves, tries)
                    && let Some(probe) = self.probe(ProbeKind::SpoofSynack, path, evidence)
                {
                    self.pacer.push(host, Outgoing::Probe(probe));
                }
                let Task {
                    tries,
                    at_least,
                    aim,
                    path,
                    ..
                } = &self.tasks[number];
                let enough = *tries >= *at_least
                    && *at_least > 1
                    && match aim {
                        Aim::Probe(kind) => self.has_reached(*kind, *path, evidence),
                        Aim::Arp { .. } | Aim::Resolution { .. } | Aim::Connect => false,
                    };
                self.tasks[number].done |= enough;
            }
        }
        let mut sweeps = std::mem::take(&mut self.sweeps);
        for sweep in &mut sweeps {
            let path = sweep.path();
            let director = is_there(evidence, Host::Director);
            if director && sweep.is_fresh() && self.transit_is_proven(path, evidence) {
                sweep.cancel();
            }
            for (kind, ttl) in sweep.poll(evidence, now) {
                if let Some(probe) = self.probe(kind, path, evidence) {
                    let probe = Outgoing::Probe(probe.with_ttl(ttl));
                    self.pacer.push(Host::Realserver(path), probe);
                }
            }
        }
        self.sweeps = sweeps;
    }

    /// Whether a probe was sent a second time, because what should have come of the first was not seen.
    pub(super) fn repeats(&self) -> bool {
        self.tasks.iter().any(|task| {
            matches!(task.aim, Aim::Probe(_)) && !task.done && task.tries > task.at_least.max(1)
        })
    }

    /// The next command whose time has come.
    pub(super) fn poll_command(
        &mut self,
        evidence: &mut Evidence,
        now: Mono,
    ) -> Option<(Host, Command)> {
        self.settled
            .pop()
            .or_else(|| self.pacer.poll_command(evidence, now))
    }

    /// When something is due next.
    pub(super) fn poll_timeout(&self) -> Mono {
        let due = self
            .tasks
            .iter()
            .filter_map(Task::due)
            .chain(self.sweeps.iter().filter_map(Sweep::due))
            .chain(self.pacer.due())
            .min();
        match (self.proven_at, due) {
            (Some(at), Some(due)) => due.min(self.settled_at(at)),
            (Some(at), None) => self.settled_at(at),
            (None, Some(due)) => due,
            (None, None) => self.pacer.last() + self.last_wait(),
        }
    }

    /// Whether nothing more is to be sent, and nothing more to be expected.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        let all_done = self.tasks.iter().all(|task| task.done);
        if let Some(at) = self.proven_at {
            return all_done || now >= self.settled_at(at);
        }
        let nothing_due = self.tasks.iter().all(|task| task.due().is_none())
            && self.sweeps.iter().all(|sweep| sweep.due().is_none())
            && self.pacer.is_empty();
        nothing_due && (all_done || now >= self.pacer.last() + self.last_wait())
    }

    /// When a proof that was complete at `at` stands: the probes on their way have arrived, and every real
    /// server's kernel has asked for its next hop, or had its occasions.
    fn settled_at(&self, at: Mono) -> Mono {
        self.tasks
            .iter()
            .filter(|task| !task.done && matches!(task.aim, Aim::Resolution { .. }))
            .map(|task| task.begin + TRIES[RESOLUTIONS - 1])
            .fold(at, Mono::max)
            + GRACE
    }

    /// Whether packets prove every hop of every path.
    pub(super) fn everything_is_proven(&self) -> bool {
        self.proven.iter().all(|proven| *proven)
    }

    /// The probes whose answers may still be on their way.
    pub(super) fn young(&self, now: Mono) -> Vec<ProbeId> {
        self.pacer.younger_than(self.last_wait(), now).collect()
    }

    /// Closes everything that is still open.
    pub(super) fn settle(&mut self) -> Vec<(Host, Command)> {
        let mut commands = std::mem::take(&mut self.settled);
        commands.extend(self.pacer.settle_all());
        commands
    }

    fn last_wait(&self) -> Duration {
        LAST_WAIT.max(self.slowest * 2)
    }

    fn has_reached(&self, kind: ProbeKind, path: usize, evidence: &Evidence) -> bool {
        goal(evidence.plan(), evidence, kind, path).is_some_and(|goal| {
            evidence
                .passages(path)
                .any(|p| p.probe.id.kind == kind && p.furthest() >= Some(goal))
        })
    }

    fn transit_is_proven(&self, path: usize, evidence: &Evidence) -> bool {
        self.proven[path]
            || evidence
                .proofs(path)
                .contains_key(&Hop::SpoofedSourceTransit)
    }

    fn outgoing(&mut self, number: usize, evidence: &Evidence) -> Option<Outgoing> {
        let path = self.tasks[number].path;
        Some(match self.tasks[number].aim.clone() {
            Aim::Probe(kind) => Outgoing::Probe(self.probe(kind, path, evidence)?),
            Aim::Arp {
                mac,
                device,
                sender,
                target,
            } => {
                let transmit = Transmit {
                    way: Way::Frame { device },
                    bytes: craft::arp_request(mac, sender, target),
                };
                Outgoing::Frame(path, transmit)
            }
            Aim::Resolution { next_hop, device } => Outgoing::Forget(next_hop, device),
            Aim::Connect => {
                let declared = &evidence.plan().paths[path];
                Outgoing::Connect((declared.vip, declared.port))
            }
        })
    }

    /// A new probe of `kind`, never with the ports of a connection that IPVS knows.
    fn probe(&mut self, kind: ProbeKind, path: usize, evidence: &Evidence) -> Option<Probe> {
        let plan = evidence.plan();
        let live = evidence
            .facts(Host::Director)
            .map(|facts| &facts.ipvs_connections);
        loop {
            let next = self.next.entry(kind).or_insert(0);
            let index = *next;
            if index >= ProbeId::PER_KIND {
                return None;
            }
            *next += 1;
            let id = ProbeId { kind, index };
            let probe = Probe::new(id, path, &plan.paths[path], &plan.session)?;
            let port = plan.session.client_port(id);
            let taken = live
                .into_iter()
                .flatten()
                .any(|connection| connection.client == (plan.paths[path].cip, port));
            if !taken {
                return Some(probe);
            }
            // The flow of a trace is constant: the next number has the same.
            if kind.is_trace() {
                return None;
            }
        }
    }
}

impl Task {
    /// When its next try is due, if it has one.
    fn due(&self) -> Option<Mono> {
        if self.done {
            return None;
        }
        let tries = match self.aim {
            Aim::Resolution { .. } => &TRIES[..RESOLUTIONS],
            _ => &TRIES,
        };
        tries.get(self.tries).map(|offset| self.begin + *offset)
    }
}

/// Whether tunproof runs on `host` and has not lost it.
fn is_there(evidence: &Evidence, host: Host) -> bool {
    evidence
        .host(host)
        .is_some_and(|record| record.lost.is_none())
}

/// The last waypoint of a kind's itinerary at which a tap is open.
fn goal(plan: &Plan, evidence: &Evidence, kind: ProbeKind, path: usize) -> Option<usize> {
    itinerary(kind, plan.paths[path].protocol)
        .iter()
        .rposition(|waypoint| {
            evidence
                .host(Host::of(waypoint.station, path))
                .is_some_and(|record| record.lost.is_none() && record.tap_open)
        })
}
