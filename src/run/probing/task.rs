//! What is tried until it succeeds: each task until its itinerary is complete, or six times.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Index;
use std::ops::IndexMut;
use std::time::Duration;

use crate::craft;
use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::plan::Action;
use crate::plan::Host;
use crate::plan::Packet;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::run::pacer::Outgoing;
use crate::run::probing::Probing;
use crate::run::probing::expects;

/// When the tries of a task are due, after its first: three quickly, then slower, so that loss is told from
/// a filter. Six port unreachables are what a Linux host sends in a burst (`icmp_ratelimit`).
pub(super) const TRIES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(150),
    Duration::from_millis(350),
    Duration::from_millis(600),
    Duration::from_millis(950),
    Duration::from_millis(1400),
];

/// How many tries of a kind witnesses have to see: what is joined by time takes three (`verdict/freed.rs`).
const TELLING: usize = 3;

/// How often the kernel is given occasion to ask for its next hop.
pub(super) const RESOLUTIONS: usize = 3;

/// How many flows from the VIP are asked at once, besides the first.
const MORE_FLOWS: usize = 4;

/// Something to try until it succeeds.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) aim: Aim,
    pub(super) path: usize,
    /// The step of its path's suite.
    pub(super) step: usize,
    pub(super) host: Host,
    pub(super) begin: Mono,
    pub(super) tries: usize,
    /// So often, whatever is answered.
    pub(super) counted: Option<Counted>,
    pub(super) at_least: usize,
    /// Tries behind the usual ones: since when, and how many.
    pub(super) again: Option<(Mono, usize)>,
    /// Whether its step is waited for.
    pub(super) is_awaited: bool,
    pub(super) done: bool,
}

/// An exact number of tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub(super) count: usize,
    /// Between two.
    pub(super) interval: Duration,
}

/// What a task tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Aim {
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
    /// The packets that a suite wrote out, one a try, and how each leaves the host.
    Script(Vec<(Packet, Way)>),
    /// SYN-ACKs from the VIP in a few flows at once.
    MoreFlows,
    /// A real connection, once a crafted one went all the way: one that cannot complete would stay half
    /// open on the real server.
    Connect,
}

/// All tasks, in the order in which they began. With many real servers, most of them are done.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    all: Vec<Task>,
    /// The numbers of each path's.
    by_path: BTreeMap<usize, Vec<usize>>,
    /// The numbers of those that were not done when it was last looked.
    open: Vec<usize>,
}

impl Tasks {
    pub(super) fn push(&mut self, task: Task) {
        let number = self.all.len();
        self.by_path.entry(task.path).or_default().push(number);
        self.open.push(number);
        self.all.push(task);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.all.iter_mut()
    }

    /// The numbers of a path's.
    pub(super) fn numbers(&self, path: usize) -> &[usize] {
        self.by_path.get(&path).map_or(&[], Vec::as_slice)
    }

    /// A path's.
    pub(super) fn of(&self, path: usize) -> impl Iterator<Item = &Task> {
        self.numbers(path).iter().map(|number| &self.all[*number])
    }

    /// A path's are done that are like this.
    pub(super) fn end(&mut self, path: usize, is_over: impl Fn(&Task) -> bool) {
        for number in self.by_path.get(&path).into_iter().flatten() {
            let task = &mut self.all[*number];
            task.done |= is_over(task);
        }
    }

    /// Those that are not done.
    pub(super) fn open(&self) -> impl Iterator<Item = &Task> {
        let tasks = self.open.iter().map(|number| &self.all[*number]);
        tasks.filter(|task| !task.done)
    }

    /// The numbers of those that have a try due by now; what is done is not looked at again.
    fn due(&mut self, now: Mono) -> Vec<usize> {
        self.open.retain(|number| !self.all[*number].done);
        let is_due = |number: &usize| self.all[*number].due().is_some_and(|due| due <= now);
        self.open.iter().copied().filter(is_due).collect()
    }
}

impl Index<usize> for Tasks {
    type Output = Task;

    fn index(&self, number: usize) -> &Task {
        &self.all[number]
    }
}

impl IndexMut<usize> for Tasks {
    fn index_mut(&mut self, number: usize) -> &mut Task {
        &mut self.all[number]
    }
}

impl Probing {
    /// Queues the tries that are due; what asks aside comes behind what the path's own proof needs.
    pub(super) fn advance_tasks(&mut self, evidence: &Evidence, now: Mono) {
        let mut due = self.tasks.due(now);
        due.sort_by_key(|number| self.tasks[*number].is_aside());
        for number in due {
            if self.is_wanted(&self.tasks[number]) {
                self.advance_task(number, evidence, now);
            }
        }
    }

    fn advance_task(&mut self, number: usize, evidence: &Evidence, now: Mono) {
        while self.tasks[number].due().is_some_and(|due| due <= now) {
            self.tasks[number].note_try(now);
            let outgoing = self.outgoing(number, evidence);
            let host = self.tasks[number].host;
            if outgoing.is_empty() {
                self.tasks[number].done = true;
            }
            for outgoing in outgoing {
                self.pacer.push(host, outgoing);
            }
            let task = &self.tasks[number];
            let enough = match (&task.aim, task.counted) {
                (_, Some(counted)) => task.tries >= counted.count,
                (Aim::Probe(kind), None) => {
                    task.at_least > 1
                        && task.tries >= task.at_least
                        && !expects(&self.plays, task)
                        && self.has_reached(*kind, task.path, evidence)
                }
                _ => false,
            };
            self.tasks[number].done |= enough;
        }
    }

    /// What the next try of a task sends.
    fn outgoing(&mut self, number: usize, evidence: &Evidence) -> Vec<Outgoing> {
        let Task {
            path, step, tries, ..
        } = self.tasks[number];
        let from_vip = ProbeKind::SpoofSynack;
        if let Aim::Script(packets) = &self.tasks[number].aim {
            let next = packets.get(tries - 1).cloned();
            let outgoing =
                next.and_then(|(packet, way)| self.scripted((path, step), packet, way, evidence));
            return outgoing.into_iter().collect();
        }
        match self.tasks[number].aim.clone() {
            Aim::Probe(kind) => self.probes(kind, (path, step), evidence),
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
                vec![Outgoing::Frame((path, step), transmit)]
            }
            Aim::Resolution { next_hop, device } => {
                let mut outgoing = vec![Outgoing::Forget(next_hop, device)];
                // Behind the first, the first spoofed probe is due anyway, if the suite has one.
                if tries > 1 || !self.sends(&Aim::Probe(from_vip), path) {
                    let probe = self.probe(from_vip, path, evidence);
                    outgoing.extend(probe.map(|probe| Outgoing::Probe(probe.of_step(step))));
                }
                outgoing
            }
            Aim::Script(_) => Vec::new(),
            Aim::MoreFlows => (0..MORE_FLOWS)
                .filter_map(|_| self.probe(from_vip, path, evidence))
                .map(|probe| Outgoing::Probe(probe.of_step(step)))
                .collect(),
            Aim::Connect => {
                let declared = &evidence.plan().paths[path];
                vec![Outgoing::Connect((declared.vip, declared.port))]
            }
        }
    }

    /// A probe of every time to live and size that a step asks for.
    fn probes(
        &mut self,
        kind: ProbeKind,
        (path, step): (usize, usize),
        evidence: &Evidence,
    ) -> Vec<Outgoing> {
        let (mut ttls, mut sizes) = (vec![None], vec![None]);
        if let Some(Action::Builtin(builtin)) =
            evidence.plan().step(path, step).map(|step| &step.action)
        {
            if !builtin.ttls.is_empty() {
                ttls = builtin.ttls.iter().copied().map(Some).collect();
            }
            if !builtin.sizes.is_empty() {
                sizes = builtin.sizes.iter().copied().map(Some).collect();
            }
        }
        let mut probes = Vec::new();
        for ttl in ttls {
            for size in &sizes {
                let Some(mut probe) = self.probe(kind, path, evidence) else {
                    return probes;
                };
                if let Some(ttl) = ttl {
                    probe = probe.with_ttl(ttl);
                }
                if let Some(size) = size {
                    probe = probe.with_size(*size);
                }
                probes.push(Outgoing::Probe(probe.of_step(step)));
            }
        }
        probes
    }

    /// A packet that a suite wrote out; `None` if there were too many before it.
    fn scripted(
        &mut self,
        (path, step): (usize, usize),
        packet: Packet,
        way: Way,
        evidence: &Evidence,
    ) -> Option<Outgoing> {
        let Action::Script(script) = &evidence.plan().step(path, step)?.action else {
            return None;
        };
        let next = self.next.entry(ProbeKind::Script).or_insert(0);
        let index = *next;
        if index >= ProbeId::once(ProbeKind::Script) {
            return None;
        }
        *next += 1;
        let (from, key) = (script.from.host(path), &evidence.plan().session);
        let probe = Probe::script(index, path, from, packet, key).of_step(step);
        let crafted = craft::script(probe.script.as_ref()?, probe.id, key).ok()?;
        let bytes = crafted.bytes;
        Some(Outgoing::Script(probe, Transmit { way, bytes }))
    }

    /// Whether something of the suite is already played that sends for this aim.
    fn sends(&self, aim: &Aim, path: usize) -> bool {
        self.tasks.of(path).any(|task| task.aim == *aim)
    }

    fn has_reached(&self, kind: ProbeKind, path: usize, evidence: &Evidence) -> bool {
        evidence
            .goal(kind, path)
            .is_some_and(|goal| self.has_passed(kind, path, goal, evidence))
    }
}

impl Task {
    /// When its next try is due, if it has one.
    pub(super) fn due(&self) -> Option<Mono> {
        if self.done {
            return None;
        }
        if let Some(counted) = self.counted {
            let tries = self.tries as u32;
            return (self.tries < counted.count).then(|| self.begin + counted.interval * tries);
        }
        let tries = match self.aim {
            Aim::Resolution { .. } => &TRIES[..RESOLUTIONS],
            _ => &TRIES,
        };
        match tries.get(self.tries) {
            Some(offset) => Some(self.begin + *offset),
            None => {
                let (begin, count) = self.again?;
                let number = self.tries - TRIES.len();
                (number < count).then(|| begin + TRIES[number])
            }
        }
    }

    /// It is tried `now`. What is late moves those behind it: they are no nearer to it than they were to be.
    fn note_try(&mut self, now: Mono) {
        let number = self.tries;
        self.tries += 1;
        let since = |offset| now.before(offset);
        if let Some(counted) = self.counted {
            self.begin = self.begin.max(since(counted.interval * number as u32));
        } else if let Some(offset) = TRIES.get(number) {
            self.begin = self.begin.max(since(*offset));
        } else if let Some((begin, _)) = &mut self.again {
            *begin = (*begin).max(since(TRIES[number - TRIES.len()]));
        }
    }

    /// Whether it would tell nothing new of a path that is proven.
    pub(super) fn is_moot(&self) -> bool {
        let may_repeat = self.counted.is_some() || matches!(self.aim, Aim::Resolution { .. });
        self.tries > 0 && !may_repeat
    }

    /// From `now` on it is tried so often that witnesses can tell.
    pub(super) fn try_before_witnesses(&mut self, now: Mono) {
        let adapts = matches!(self.aim, Aim::Probe(_)) && self.counted.is_none();
        let left = TRIES.len().saturating_sub(self.tries);
        if adapts && !self.is_aside() && left < TELLING {
            let last = self.begin + TRIES[TRIES.len() - 1];
            self.again = Some((now.max(last) + TRIES[1], TELLING - left));
        }
    }

    /// Whether it asks something beside the path, whose answers nobody waits for.
    pub(super) fn is_aside(&self) -> bool {
        match &self.aim {
            Aim::Probe(kind) => kind.is_aside(),
            Aim::Arp { .. } => self.counted.is_some(),
            Aim::Script(_) | Aim::Resolution { .. } | Aim::MoreFlows | Aim::Connect => false,
        }
    }
}
