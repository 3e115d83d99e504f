//! What is sent beside the tasks: sweeps, searches for a size, and flows asked again.

use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Task;
use crate::run::flows::Flows;
use crate::run::pacer::Outgoing;
use crate::run::probing::Probing;
use crate::run::probing::is_taken;
use crate::run::probing::is_there;
use crate::run::sweep::Sweep;

impl Probing {
    /// Queues the times to live that are due; a sweep that would find nothing new is not begun.
    pub(super) fn advance_sweeps(&mut self, evidence: &Evidence, now: Mono) {
        let wait = self.batch_wait();
        let mut sweeps = std::mem::take(&mut self.sweeps);
        for sweep in &mut sweeps {
            let path = sweep.path();
            let idle = sweep.is_fresh() && sweep.due().is_some_and(|due| due <= now);
            if idle && !self.is_worth(sweep, evidence) {
                sweep.cancel();
            }
            let task = match sweep.from() {
                Host::Director => Task::TunnelSweep,
                _ => Task::SpoofSweep,
            };
            let step = self.step_of(path, task);
            for (kind, ttl) in sweep.poll(evidence, wait, now) {
                if let Some(mut probe) = self.probe(kind, path, evidence) {
                    probe.step = step;
                    let probe = Outgoing::Probe(probe.with_ttl(ttl));
                    self.pacer.push(sweep.from(), probe);
                }
            }
        }
        self.sweeps = sweeps;
    }

    /// Whether a sweep would find something that is not known.
    pub(super) fn is_worth(&self, sweep: &Sweep, evidence: &Evidence) -> bool {
        let path = sweep.path();
        match sweep.from() {
            Host::Director => {
                let refused = evidence
                    .passages(path)
                    .any(|p| p.probe.tunnel.is_some() && p.unsendable.is_some());
                let stuck = refused || self.has_passed(ProbeKind::ReturnControl, 0, 0, evidence);
                let leaves = self.has_passed(ProbeKind::TunnelUdp, path, 0, evidence)
                    || self.has_passed(ProbeKind::Reflect, path, 0, evidence);
                (leaves || !stuck) && !self.is_proven(Hop::DirectorToRealserver, path, evidence)
            }
            _ => {
                !is_there(evidence, Host::Director)
                    || !self.is_proven(Hop::SpoofedSourceTransit, path, evidence)
            }
        }
    }

    /// Queues the sizes that are due.
    pub(super) fn advance_searches(&mut self, evidence: &Evidence, now: Mono) {
        let last_wait = self.trip_wait();
        let mut searches = std::mem::take(&mut self.searches);
        for search in &mut searches {
            for size in search.poll(evidence, now, self.trip, last_wait) {
                match self.probe(ProbeKind::Mtu, search.path(), evidence) {
                    Some(mut probe) => {
                        probe.step = self.step_of(search.path(), Task::MtuSearch);
                        let probe = Outgoing::Probe(probe.with_size(size));
                        self.pacer.push(Host::Director, probe);
                    }
                    None => search.cancel(),
                }
            }
        }
        self.searches = searches;
    }

    /// Where some of the VIP's flows passed and others did not, finds out whether that is loss: once a path,
    /// when nothing else is to be done.
    pub(super) fn ask_again(&mut self, evidence: &Evidence, now: Mono) {
        if self.is_over(evidence, now) {
            for path in 0..self.proven.len() {
                let known = self.flows.iter().any(|flows| flows.path() == path);
                let asked = self.step_of(path, Task::MoreFlows).is_some();
                if asked && !known && self.is_mixed(path, evidence, now) {
                    let number = self.flows.len() as u16;
                    self.flows.push(Flows::new(path, number, now));
                }
            }
        }
        let mut flows = std::mem::take(&mut self.flows);
        let (patience, last) = (self.patience(), self.last_wait());
        for asked in &mut flows {
            let path = asked.path();
            let declared = &evidence.plan().paths[path];
            for id in asked.poll(evidence, (patience, last), now) {
                let probe = Probe::new(id, path, declared, &evidence.plan().session);
                let free = !is_taken(evidence, path, id);
                if let Some(mut probe) = probe.filter(|_| free) {
                    probe.step = self.step_of(path, Task::MoreFlows);
                    self.pacer.push(probe.from, Outgoing::Probe(probe));
                }
            }
        }
        self.flows = flows;
    }

    /// Queues what the passes of the spoof check have due.
    pub(super) fn advance_passes(&mut self, evidence: &Evidence, now: Mono) {
        let gap = self.pacer.gap_of_one();
        let mut all = std::mem::take(&mut self.passes);
        for passes in &mut all {
            let path = passes.path();
            let step = Some(passes.step());
            for (kind, flow, ttl) in passes.poll(evidence, gap, now) {
                if let Some(mut probe) = self.next_try(kind, flow, path, evidence) {
                    probe.step = step;
                    let probe = probe.with_ttl(ttl);
                    self.pacer.push(probe.from, Outgoing::Probe(probe));
                }
            }
        }
        self.passes = all;
    }

    /// The next probe of a flow that is asked again and again, unless IPVS knows a connection with its ports.
    fn next_try(
        &mut self,
        kind: ProbeKind,
        flow: u16,
        path: usize,
        evidence: &Evidence,
    ) -> Option<Probe> {
        let tries = self.tries.entry((kind, flow)).or_insert(0);
        let id = ProbeId::repeated(kind, flow, *tries)?;
        *tries += 1;
        let plan = evidence.plan();
        let probe = Probe::new(id, path, &plan.paths[path], &plan.session)?;
        (!is_taken(evidence, path, id)).then_some(probe)
    }

    /// Whether of the SYN-ACKs that left the real server from the VIP some came to the client and some, sent
    /// long enough ago, did not.
    fn is_mixed(&self, path: usize, evidence: &Evidence, now: Mono) -> bool {
        let listens = is_there(evidence, Host::Director) || is_there(evidence, Host::Client);
        if !listens || !is_there(evidence, Host::Realserver(path)) {
            return false;
        }
        let old = |id| {
            let departed = self.pacer.departed(id);
            departed.is_some_and(|departed| now.since(departed) >= self.patience())
        };
        let sees_client = is_there(evidence, Host::Client);
        let (mut some, mut none) = (false, false);
        for passage in evidence.passages(path) {
            let id = passage.probe.id;
            let unasked = matches!(
                id.kind,
                ProbeKind::SpoofSynack | ProbeKind::TunnelSyn | ProbeKind::IpvsLoop
            );
            // Nobody answers the RST/ACK of a closed port: that it arrived shows at the client alone.
            let shows = sees_client || !passage.refused;
            if !unasked || !shows || passage.left_realserver().is_none() {
                continue;
            }
            match passage.arrived() {
                Some(_) => some = true,
                None => none |= old(id),
            }
        }
        some && none
    }

    fn is_proven(&self, hop: Hop, path: usize, evidence: &Evidence) -> bool {
        let goals = &evidence.plan().suites[path].hops;
        self.proven[path] && goals.contains(&hop) || evidence.proofs(path).contains_key(&hop)
    }
}
