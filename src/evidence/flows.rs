//! Flows that are asked again and again: which always pass, and which never do.
//!
//! Where several equal paths lead to the client and one of them filters the VIP, some connections work and
//! others hang. Loss looks the same from a few packets; from many of few flows it does not: loss hits every
//! flow.

use std::collections::BTreeMap;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Passage;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Station;

/// How often a flow must have been tried.
const TRIES: usize = 6;
/// How many flows must be of each sort. Whatever the loss, chance alone makes eight flows of six tries each
/// look so once in ten million times at most (1.0·10⁻⁷ if 35 % are lost).
const EACH: usize = 2;
/// How many of a silent flow's controls must have arrived.
const CONTROLS: usize = 4;

/// What became of the tries of one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTally {
    /// The client's port.
    pub port: u16,
    /// Where each try left; tries whose answer may still be on its way are not counted unless it came.
    pub left: Vec<EvidenceId>,
    /// That a try arrived.
    pub arrived: Vec<EvidenceId>,
}

impl FlowTally {
    /// How many tries were lost.
    pub fn lost(&self) -> usize {
        self.left.len() - self.arrived.len()
    }
}

/// Flows of which some always pass and the others never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFlows {
    /// Those that never pass.
    pub silent: Vec<FlowTally>,
    /// Those that pass.
    pub passing: Vec<FlowTally>,
    /// That the same ports from the control's source arrive, one for each silent flow.
    pub controls: Vec<EvidenceId>,
}

impl Evidence {
    /// The tries of every repeated flow of `path` from the VIP, by the flow's number.
    pub fn flows(&self, path: usize) -> BTreeMap<u16, FlowTally> {
        self.tallies(path, ProbeKind::SpoofSynack)
    }

    /// Whether some flows from the VIP pass always and others never, although the same ports from the real
    /// server's own address (and, where no tap at the client can tell, from the director) get through.
    pub fn split_flows(&self, path: usize) -> Option<SplitFlows> {
        let flows = self.flows(path);
        if flows.is_empty() {
            return None;
        }
        self.hears(Host::Realserver(path)).ok()?;
        let client = self.hears(Host::Client).is_ok();
        if !client {
            self.hears(Host::Director).ok()?;
        }
        let mut kinds = vec![ProbeKind::ControlSynack];
        if !client {
            kinds.push(ProbeKind::ReturnControl);
        }
        let controls: Vec<_> = kinds
            .into_iter()
            .map(|kind| self.tallies(path, kind))
            .collect();
        let mut split = SplitFlows {
            silent: Vec::new(),
            passing: Vec::new(),
            controls: Vec::new(),
        };
        for (number, flow) in flows {
            if flow.left.len() < TRIES {
                return None;
            }
            match (flow.arrived.len(), flow.lost()) {
                (_, 0 | 1) => split.passing.push(flow),
                (0, _) => {
                    for control in &controls {
                        let arrived = &control.get(&number)?.arrived;
                        if arrived.len() < CONTROLS {
                            return None;
                        }
                        split.controls.extend(arrived.first());
                    }
                    split.silent.push(flow);
                }
                _ => return None,
            }
        }
        let both = split.silent.len() >= EACH && split.passing.len() >= EACH;
        both.then_some(split)
    }

    /// The flows from the VIP of which every try was lost, and there were enough: that packets of other flows
    /// passed proves nothing of these.
    pub fn silent_flows(&self, path: usize) -> Vec<FlowTally> {
        let silent = |flow: &FlowTally| flow.left.len() >= TRIES && flow.arrived.is_empty();
        self.flows(path).into_values().filter(silent).collect()
    }

    fn tallies(&self, path: usize, kind: ProbeKind) -> BTreeMap<u16, FlowTally> {
        let mut tallies = BTreeMap::<u16, FlowTally>::new();
        let of_kind = |(probe, _): &(&Probe, _)| probe.id.kind == kind;
        for (probe, progress) in self.probes_on(path).filter(of_kind) {
            let flow = probe.id.repeated_flow();
            let asked = !probe.is_limited();
            let (Some(flow), true) = (flow, asked) else {
                continue;
            };
            let tally = tallies.entry(flow).or_default();
            tally.port = client_port(probe);
            let passage = progress.of(probe);
            let Some(left) = passage.seen[0] else {
                continue;
            };
            let arrived = passage.arrived();
            if arrived.is_some() || !self.is_excused(probe.id) {
                tally.left.push(left);
                tally.arrived.extend(arrived);
            }
        }
        tallies
    }
}

impl Passage<'_> {
    /// That it, or the answer to it, came to the client, as seen there or beyond.
    pub fn arrived(&self) -> Option<EvidenceId> {
        let at_client = self
            .waypoints
            .iter()
            .position(|w| w.station == Station::ClientIn)?;
        self.seen[at_client..].iter().find_map(|seen| *seen)
    }

    /// That it, or the answer to it, left the real server from the VIP.
    pub fn left_realserver(&self) -> Option<EvidenceId> {
        let mut points = self.waypoints.iter().zip(self.seen);
        points.find_map(|(w, seen)| seen.filter(|_| w.station == Station::RealserverOut))
    }
}

/// The port at the client's end of a SYN-ACK probe.
fn client_port(probe: &Probe) -> u16 {
    probe.flow.destination_port
}
