//! When a silence counts.
//!
//! A silence lies between the last station that saw a probe and the first tap after it that should have
//! and did not. It counts if that tap lost nothing and if enough probes were silent there that chance is no
//! explanation: on one host nothing is lost, between hosts a third of the packets may be.

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Passage;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Station;

/// How many probes must be silent within one host.
const ON_ONE_HOST: usize = 3;
/// How many between hosts: with a third of the packets lost, six are lost in one case of 700.
const BETWEEN_HOSTS: usize = 6;

/// A silence: where probes were last seen, and where they should have been seen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The kind of the probes.
    pub kind: ProbeKind,
    /// The last station that saw them; `None` if they were sent and no station saw them leave.
    pub after: Option<Station>,
    /// The first station after it that has a tap and did not see them.
    pub at: Station,
    /// The hops between, in itinerary order.
    pub hops: Vec<Hop>,
    /// The probes.
    pub probes: Vec<ProbeId>,
    /// Where each was last seen, or that it was sent.
    pub evidence: Vec<EvidenceId>,
}

impl Silence {
    /// Whether no host but one is involved.
    pub fn is_local(&self, path: usize) -> bool {
        self.after
            .is_none_or(|after| Host::of(after, path) == Host::of(self.at, path))
    }
}

impl Evidence {
    /// The silences of `path` at taps that lost nothing, by kind and place; each with all its probes,
    /// whether they are enough or not. None, if a device of the path was taken away meanwhile.
    pub fn silences(&self, path: usize) -> Vec<Silence> {
        let mut silences: Vec<Silence> = Vec::new();
        if self.why_disturbed(path).is_some() {
            return silences;
        }
        let passages = self.passages(path);
        for passage in passages.filter(|passage| !passage.probe.id.kind.is_aside()) {
            let Some((next, last_seen)) = self.falls_silent(&passage) else {
                continue;
            };
            let from = passage.furthest().map_or(0, |n| n + 1);
            let (kind, at) = (passage.probe.id.kind, passage.waypoints[next].station);
            let after = from.checked_sub(1).map(|n| passage.waypoints[n].station);
            let known = silences
                .iter_mut()
                .find(|s| (s.kind, s.after, s.at) == (kind, after, at));
            match known {
                Some(silence) => {
                    silence.probes.push(passage.probe.id);
                    silence.evidence.push(last_seen);
                }
                None => {
                    let mut hops: Vec<Hop> = Vec::new();
                    for hop in passage.waypoints[from..=next].iter().flat_map(|w| w.hops) {
                        if !hops.contains(hop) {
                            hops.push(*hop);
                        }
                    }
                    silences.push(Silence {
                        kind,
                        after,
                        at,
                        hops,
                        probes: vec![passage.probe.id],
                        evidence: vec![last_seen],
                    });
                }
            }
        }
        silences
    }

    /// Whether so many silent probes are no accident. Probes of several kinds that fell silent in the same
    /// place may be counted together.
    pub fn counts(&self, probes: usize, local: bool) -> bool {
        probes >= if local { ON_ONE_HOST } else { BETWEEN_HOSTS }
    }

    /// The waypoint at which a probe should have been seen next, and the last that is known of it.
    fn falls_silent(&self, passage: &Passage<'_>) -> Option<(usize, EvidenceId)> {
        if self.is_excused(passage.probe.id) {
            return None;
        }
        let from = passage.furthest().map_or(0, |n| n + 1);
        // A refused connection ends with the RST/ACK's arrival: nobody answers that.
        let end = match passage.refused {
            true => passage.waypoints.iter().position(|w| w.form == Form::Rst)?,
            false => passage.waypoints.len(),
        };
        let next = (from..end).find(|n| {
            let host = Host::of(passage.waypoints[*n].station, passage.path);
            self.hears(host).is_ok()
        })?;
        let last_seen = match from {
            0 => passage.sent?,
            n => passage.seen[n - 1]?,
        };
        Some((next, last_seen))
    }
}
