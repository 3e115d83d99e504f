//! What is tried until it succeeds: each task until its itinerary is complete, or six times.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::craft;
use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::ProbeKind;
use crate::plan::itinerary;
use crate::run::pacer::Outgoing;
use crate::run::probing::Probing;

/// When the tries of a task are due, after its first: three quickly, then slower, so that loss is told from
/// a filter. Six port unreachables are what a Linux host sends in a burst (`icmp_ratelimit`).
pub(super) const TRIES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2000),
    Duration::from_millis(3000),
];

/// How often the kernel is given occasion to ask for its next hop.
pub(super) const RESOLUTIONS: usize = 3;

/// How many flows from the VIP are asked at once, besides the first.
const MORE_FLOWS: usize = 4;

/// Something to try until it succeeds.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) aim: Aim,
    pub(super) path: usize,
    pub(super) host: Host,
    pub(super) begin: Mono,
    pub(super) tries: usize,
    pub(super) at_least: usize,
    pub(super) done: bool,
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
    /// A real connection, once a crafted one went all the way: one that cannot complete would stay half
    /// open on the real server.
    Connect,
}

impl Probing {
    /// Queues the tries that are due.
    pub(super) fn advance_tasks(&mut self, evidence: &Evidence, now: Mono) {
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
                // One flow shows one of several equal paths; a few show whether another filters.
                if let (Aim::Probe(ProbeKind::SpoofTrace), 1) = (&self.tasks[number].aim, tries) {
                    for _ in 0..MORE_FLOWS {
                        let probe = self.probe(ProbeKind::SpoofSynack, path, evidence);
                        if let Some(probe) = probe {
                            self.pacer.push(host, Outgoing::Probe(probe));
                        }
                    }
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

    fn has_reached(&self, kind: ProbeKind, path: usize, evidence: &Evidence) -> bool {
        goal(evidence.plan(), evidence, kind, path)
            .is_some_and(|goal| self.has_passed(kind, path, goal, evidence))
    }
}

impl Task {
    /// When its next try is due, if it has one.
    pub(super) fn due(&self) -> Option<Mono> {
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

/// The last waypoint of a kind's itinerary at which a tap is open.
pub(super) fn goal(
    plan: &Plan,
    evidence: &Evidence,
    kind: ProbeKind,
    path: usize,
) -> Option<usize> {
    itinerary(kind, plan.paths[path].protocol)
        .iter()
        .rposition(|waypoint| {
            evidence
                .host(Host::of(waypoint.station, path))
                .is_some_and(|record| record.lost.is_none() && record.tap_open)
        })
}
