//! The spoof check's passes: flows from the VIP, each with its control, by every time to live and with the full one.
//!
//! Toward the director the control's sweep goes to the client as well: it tells which routers both ways have in common.
//!
//! All ICMP errors to spoofed probes go to the VIP, and a Linux router sends one address six at once and then one a
//! second (`icmp_ratelimit`): a pass asks a router four times at most, two of them from the VIP (and in the first
//! passes toward the director a fifth time), and the next pass begins seconds later. Which of the two goes first
//! changes from time to live to time to live and from pass to pass, so that a limit hits neither more than the other.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::Trial;
use crate::exchange::Mono;
use crate::plan::Builtin;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Toward;

/// How many passes there are, unless it is said.
const PASSES: u16 = 3;
/// How many times to live are tried at once.
const BATCH: u8 = 8;
/// The greatest time to live tried, traceroute's default.
const FARTHEST: u8 = 30;
/// How long a batch may take before the next.
const BATCH_WAIT: Duration = Duration::from_millis(400);
/// How often each flow is asked in a pass with its full time to live.
const FULL: u16 = 2;
/// How many more passes there are where chance still explains what is silent.
const EXTRA: u16 = 4;
/// How many passes look for the routers that both ways have in common.
const SHARED: u16 = 3;

/// A pair of kinds: from the VIP, and its control.
type Pair = (ProbeKind, ProbeKind);

/// A probe to send: kind, number of its flow, time to live.
pub(super) type Wanted = (ProbeKind, u16, u8);

/// The passes of one path.
#[derive(Clone, Debug)]
pub(super) struct Passes {
    path: usize,
    step: usize,
    toward: Toward,
    flows: u16,
    passes: u16,
    apart: Duration,
    begin: Mono,
    /// How many have begun.
    begun: u16,
    /// How far the first has come.
    reached: u8,
    next: Mono,
    done: bool,
}

impl Passes {
    /// The passes of a step of a path, that begin at `begin`.
    pub(super) fn new((path, step): (usize, usize), builtin: &Builtin, begin: Mono) -> Passes {
        Passes {
            path,
            step,
            toward: builtin.toward,
            flows: builtin.flows,
            passes: builtin.count.unwrap_or(PASSES),
            apart: builtin.interval,
            begin,
            begun: 0,
            reached: 0,
            next: begin,
            done: false,
        }
    }

    /// The path that they are of.
    pub(super) fn path(&self) -> usize {
        self.path
    }

    /// The step that they are of.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// When they want to be asked again.
    pub(super) fn due(&self) -> Option<Mono> {
        (!self.done).then_some(self.begin)
    }

    /// The probes to send now, in their order; `gap` lies between two of a host.
    pub(super) fn poll(&mut self, evidence: &Evidence, gap: Duration, now: Mono) -> Vec<Wanted> {
        if self.done || now < self.begin {
            return Vec::new();
        }
        let (udp, syn_ack) = (
            self.toward.pair(Protocol::Udp),
            self.toward.pair(Protocol::Tcp),
        );
        let trials = evidence.trials(self.path, self.toward);
        let distance = evidence.control_distance(self.path, self.toward);
        if self.begun == 1 && self.is_short(&trials, distance) {
            let batch = self.reached + 1..=(self.reached + BATCH).min(FARTHEST);
            self.reached = *batch.end();
            let probes = self.sweep(batch, 0, &[udp, syn_ack]);
            self.begin = now + gap * probes.len() as u32 + BATCH_WAIT;
            return probes;
        }
        if self.begun > 0 && now < self.next {
            self.begin = self.next;
            return Vec::new();
        }
        let undecided = evidence.undecided_flows(self.path, self.toward);
        if self.begun >= self.passes {
            if self.begun >= self.passes + EXTRA || undecided.is_empty() {
                self.done = true;
                return Vec::new();
            }
            let probes = self.whole(&undecided, 3 * FULL, evidence);
            self.begun += 1;
            return self.send(probes, gap, now);
        }
        let mut probes = Vec::new();
        let end = match self.begun {
            0 => BATCH.min(FARTHEST),
            _ => distance.unwrap_or(self.reached),
        };
        self.reached = self.reached.max(end);
        probes.extend(self.sweep(1..=end, 0, &[udp, syn_ack]));
        let silent = evidence.arrivals(self.path, self.toward).silent_flows();
        let others = self.begun > 0 && silent.len() < usize::from(self.flows);
        // Of equal paths one may filter: where, the sweep of a flow that takes it shows.
        if let Some(flow) = silent.iter().find(|flow| **flow != 0 && others) {
            probes.extend(self.sweep(1..=end, *flow, &[syn_ack]));
        }
        let all: Vec<_> = (0..self.flows).collect();
        probes.extend(self.whole(&all, FULL, evidence));
        probes.extend([udp.0, udp.1].map(|kind| (kind, 0, Probe::FULL_TTL)));
        self.begun += 1;
        self.send(probes, gap, now)
    }

    fn send(&mut self, probes: Vec<Wanted>, gap: Duration, now: Mono) -> Vec<Wanted> {
        let sending = gap * probes.len() as u32 + BATCH_WAIT;
        self.next = now + sending.max(self.apart);
        self.begin = match self.begun {
            1 => now + sending,
            _ => self.next,
        };
        probes
    }

    /// Whether the first pass has not got to the client yet, and may by going on.
    fn is_short(&self, trials: &[Trial<'_>], distance: Option<u8>) -> bool {
        let recent = trials
            .iter()
            .any(|trial| trial.expired().is_some() && trial.probe.ttl + BATCH > self.reached);
        distance.is_none() && recent && self.reached < FARTHEST
    }

    fn sweep(&self, ttls: std::ops::RangeInclusive<u8>, flow: u16, pairs: &[Pair]) -> Vec<Wanted> {
        let mut probes = Vec::new();
        for ttl in ttls {
            for pair in pairs {
                let (first, second) = match (u16::from(ttl) + self.begun) % 2 {
                    0 => *pair,
                    _ => (pair.1, pair.0),
                };
                probes.extend([(first, flow, ttl), (second, flow, ttl)]);
            }
            if self.toward == Toward::Director && flow == 0 && self.begun < SHARED {
                let (_, control) = Toward::Client.pair(Protocol::Udp);
                probes.push((control, flow, ttl));
            }
        }
        probes
    }

    /// These flows with their full time to live, and the way back from the director, where the client's answers
    /// must show what arrived.
    fn whole(&self, flows: &[u16], tries: u16, evidence: &Evidence) -> Vec<Wanted> {
        let there = |host| {
            evidence
                .host(host)
                .is_some_and(|record| record.lost.is_none() && record.tap_open)
        };
        let needs_answers = self.toward == Toward::Client && !there(Host::Client);
        let back = needs_answers && there(Host::Director);
        let syn_ack = self.toward.pair(Protocol::Tcp);
        let mut probes = Vec::new();
        for try_ in 0..tries {
            for flow in flows {
                let kinds = [
                    Some(syn_ack.0),
                    Some(syn_ack.1),
                    back.then_some(ProbeKind::ReturnControl)
                        .filter(|_| try_ % 2 == 0),
                ];
                let kinds = kinds.into_iter().flatten();
                probes.extend(kinds.map(|kind| (kind, *flow, Probe::FULL_TTL)));
            }
        }
        probes
    }
}
