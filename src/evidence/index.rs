//! Where in the ledger stands what is asked for again and again: with many real servers, looking through everything
//! for each of them takes longer than the packets do.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;

use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;

/// Numbers of probes and items, each list in the ledger's order.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    probes: HashMap<ProbeId, usize>,
    by_kind: BTreeMap<ProbeKind, Vec<usize>>,
    /// By the path that they took.
    by_path: BTreeMap<usize, BTreeSet<usize>>,
    about: HashMap<ProbeId, Vec<usize>>,
    arps: BTreeMap<Host, Vec<usize>>,
}

impl Index {
    /// Notes probe number `number`, which took `path`.
    pub(super) fn add_probe(&mut self, probe: &Probe, path: usize, number: usize) {
        self.probes.entry(probe.id).or_insert(number);
        self.by_kind.entry(probe.id.kind).or_default().push(number);
        self.by_path.entry(path).or_default().insert(number);
    }

    /// Notes that a probe took another path than the one that it was sent for.
    pub(super) fn reschedule(&mut self, probe: ProbeId, from: usize, to: usize) {
        if let Some(number) = self.probe(probe) {
            self.by_path.entry(from).or_default().remove(&number);
            self.by_path.entry(to).or_default().insert(number);
        }
    }

    /// Notes that item number `number` is about a probe.
    pub(super) fn add_about(&mut self, probe: ProbeId, number: usize) {
        self.about.entry(probe).or_default().push(number);
    }

    /// Notes that item number `number` is an ARP packet that `host` saw.
    pub(super) fn add_arp(&mut self, host: Host, number: usize) {
        self.arps.entry(host).or_default().push(number);
    }

    /// The probe of this name.
    pub(super) fn probe(&self, id: ProbeId) -> Option<usize> {
        self.probes.get(&id).copied()
    }

    /// The probes of a kind.
    pub(super) fn of_kind(&self, kind: ProbeKind) -> impl Iterator<Item = usize> {
        self.by_kind.get(&kind).into_iter().flatten().copied()
    }

    /// The probes that took a path.
    pub(super) fn of_path(&self, path: usize) -> impl Iterator<Item = usize> {
        self.by_path.get(&path).into_iter().flatten().copied()
    }

    /// The items about a probe.
    pub(super) fn about(&self, probe: ProbeId) -> impl Iterator<Item = usize> {
        self.about.get(&probe).into_iter().flatten().copied()
    }

    /// The ARP packets that a host saw.
    pub(super) fn arps(&self, host: Host) -> impl DoubleEndedIterator<Item = usize> {
        self.arps.get(&host).into_iter().flatten().copied()
    }
}
