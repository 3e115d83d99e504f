//! Time-to-live sweeps, spoofed and control, that find the router after which the VIP's packets die.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeKind;

/// How many times to live are tried at once.
pub(super) const BATCH: u8 = 8;
/// The greatest time to live tried, traceroute's default.
const FARTHEST: u8 = 30;
/// How long a batch may take before the next, unless answers were seen that take less.
pub(super) const BATCH_WAIT: Duration = Duration::from_millis(350);
/// How long after its first try a silent time to live is tried for the last time: one ICMP error a second is what a
/// Linux router sends to one address when its burst is spent, and others send no more from the outset.
const AGAIN: Duration = Duration::from_millis(1100);
/// How many silent times to live behind the last that was answered are tried again, mtr's default (`--max-unknown`).
const UNKNOWN: u8 = 5;
/// How often silent times to live are tried again.
const REPEATS: u8 = 2;

/// A sweep of one path and its control.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    path: usize,
    from: Host,
    kind: ProbeKind,
    control: ProbeKind,
    begin: Mono,
    /// When the last times to live were tried first.
    widened: Mono,
    reached: u8,
    repeats: u8,
    done: bool,
}

impl Sweep {
    /// From the real server, from the VIP and from its own address, that begins at `begin`.
    pub(super) fn spoofed(path: usize, begin: Mono) -> Sweep {
        Sweep {
            path,
            from: Host::Realserver(path),
            kind: ProbeKind::SpoofTrace,
            control: ProbeKind::ControlTrace,
            begin,
            widened: begin,
            reached: 0,
            repeats: 0,
            done: false,
        }
    }

    /// From the director, through the tunnel and beside it, that begins at `begin`.
    pub(super) fn tunnel(path: usize, begin: Mono) -> Sweep {
        Sweep {
            from: Host::Director,
            kind: ProbeKind::TunnelTrace,
            control: ProbeKind::TunnelControl,
            ..Sweep::spoofed(path, begin)
        }
    }

    /// The path that it is for.
    pub(super) fn path(&self) -> usize {
        self.path
    }

    /// The host that sends it.
    pub(super) fn from(&self) -> Host {
        self.from
    }

    /// Whether nothing of it was sent yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.reached == 0
    }

    /// It is not needed.
    pub(super) fn cancel(&mut self) {
        self.done = true;
    }

    /// When it wants to be asked again.
    pub(super) fn due(&self) -> Option<Mono> {
        (!self.done).then_some(self.begin)
    }

    /// Which kinds and times to live to send now; `wait` is what a batch is given.
    pub(super) fn poll(
        &mut self,
        evidence: &Evidence,
        wait: Duration,
        now: Mono,
    ) -> Vec<(ProbeKind, u8)> {
        if self.done || now < self.begin {
            return Vec::new();
        }
        let control = answered(evidence, self.path, self.control);
        let distance = distance(evidence, self.path, self.control);
        let recent = control.iter().any(|ttl| *ttl + BATCH > self.reached);
        let wider = self.reached == 0 || distance.is_none() && recent && self.reached < FARTHEST;
        if wider && self.repeats == 0 {
            let batch = self.reached + 1..=(self.reached + BATCH).min(FARTHEST);
            self.reached = *batch.end();
            self.widened = now;
            self.begin = now + wait;
            return batch
                .flat_map(|ttl| [(self.kind, ttl), (self.control, ttl)])
                .chain(self.whole())
                .collect();
        }
        self.repeats += 1;
        self.done = self.repeats == REPEATS;
        self.begin = now.max(self.widened + AGAIN);
        let passed = answered(evidence, self.path, self.kind);
        let last = passed.iter().chain(&control).max().map_or(0, |ttl| *ttl);
        let farthest = distance.unwrap_or((last + UNKNOWN).min(self.reached));
        (1..=farthest)
            .flat_map(|ttl| {
                [
                    (!passed.contains(&ttl)).then_some((self.kind, ttl)),
                    (!control.contains(&ttl)).then_some((self.control, ttl)),
                ]
            })
            .flatten()
            .chain(self.whole())
            .collect()
    }

    /// The control with its full time to live, where no task sends it.
    fn whole(&self) -> Option<(ProbeKind, u8)> {
        let control = ProbeKind::TunnelControl;
        (self.control == control).then_some((control, Probe::FULL_TTL))
    }
}

/// The times to live of `kind` that something answered.
fn answered(evidence: &Evidence, path: usize, kind: ProbeKind) -> BTreeSet<u8> {
    evidence
        .probes_of_kind(kind)
        .filter(|probe| probe.path == path && probe.is_limited())
        .filter(|probe| {
            evidence
                .sightings(probe.id)
                .any(|(_, sighting)| matches!(sighting.form, Form::IcmpError { .. }))
        })
        .map(Probe::outermost_ttl)
        .collect()
}

/// The least time to live with which the control reached its destination.
fn distance(evidence: &Evidence, path: usize, control: ProbeKind) -> Option<u8> {
    evidence
        .probes_of_kind(control)
        .filter(|probe| probe.path == path && probe.is_limited())
        .filter(|probe| evidence.passage(probe).furthest() >= Some(1))
        .map(Probe::outermost_ttl)
        .min()
}
