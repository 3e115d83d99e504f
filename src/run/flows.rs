//! Several flows from the VIP, each asked several times: is it loss, or do some never pass?

use std::collections::BTreeMap;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::FlowTally;
use crate::exchange::Mono;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;

/// How many flows are asked.
const FLOWS: u16 = ProbeId::FLOWS;
/// How often each is asked at most.
const PASSES: u16 = 6;
/// How far apart the passes begin at least.
const APART: Duration = Duration::from_millis(250);

/// The flows of one path.
#[derive(Clone, Debug)]
pub(super) struct Flows {
    path: usize,
    tried: u16,
    passes: u16,
    begin: Mono,
    done: bool,
}

impl Flows {
    /// Flows for `path` that are asked from `now` on; `number` counts the paths for which that is done.
    pub(super) fn new(path: usize, number: u16, now: Mono) -> Flows {
        Flows {
            path,
            tried: number.saturating_mul(PASSES),
            passes: 0,
            begin: now,
            done: false,
        }
    }

    /// The path that they are of.
    pub(super) fn path(&self) -> usize {
        self.path
    }

    /// When they want to be asked again.
    pub(super) fn due(&self) -> Option<Mono> {
        (!self.done).then_some(self.begin)
    }

    /// The probes to send now, `patience` being how long an answer may take, and how long the last may.
    ///
    /// Every pass asks all flows, in another order, so that neither an outage nor a limit hits one flow more
    /// than another. It ends as soon as every flow has passed once: what was lost met no filter.
    pub(super) fn poll(
        &mut self,
        evidence: &Evidence,
        patience: (Duration, Duration),
        now: Mono,
    ) -> Vec<ProbeId> {
        if self.done || now < self.begin {
            return Vec::new();
        }
        let tallies = evidence.flows(self.path);
        if self.passes == PASSES || self.passes > 0 && is_loss(&tallies) {
            self.done = true;
            return Vec::new();
        }
        let pass = self.passes;
        self.passes += 1;
        let mut probes = Vec::new();
        for place in 0..FLOWS {
            let flow = (place * 3 + pass * 5) % FLOWS;
            let silent = tallies
                .get(&flow)
                .is_some_and(|tally| tally.arrived.is_empty());
            let mut kinds = vec![ProbeKind::SpoofSynack];
            if silent {
                kinds.push(ProbeKind::ControlSynack);
                // A tap at the client shows what becomes of the packets; without one the way back must be shown.
                let blind = evidence
                    .host(Host::Client)
                    .is_none_or(|client| client.lost.is_some() || !client.tap_open);
                if blind && evidence.host(Host::Director).is_some() {
                    kinds.push(ProbeKind::ReturnControl);
                }
            }
            for kind in kinds {
                probes.extend(ProbeId::repeated(kind, flow, self.tried + pass));
            }
        }
        if probes.is_empty() {
            self.done = true;
        }
        let sending = Duration::from_millis(10) * probes.len() as u32;
        self.begin = now
            + match self.passes {
                PASSES => sending + patience.1,
                _ => APART.max(sending + patience.0),
            };
        probes
    }
}

/// Whether what was lost is no sign of a filter of some flows: every flow passed, or nothing passes any more.
fn is_loss(tallies: &BTreeMap<u16, FlowTally>) -> bool {
    let silent = tallies.values().filter(|tally| tally.arrived.is_empty());
    let silent = silent.count();
    let dead = silent == tallies.len() && tallies.values().any(|tally| tally.left.len() >= 2);
    silent == 0 || dead
}
