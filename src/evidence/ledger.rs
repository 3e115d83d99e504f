//! Everything that is known, in the order in which it became known.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::HostFacts;
use crate::exchange::Neighbour;
use crate::exchange::TapStatistics;
use crate::exchange::Wall;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Station;

/// What is known of one host, besides packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRecord {
    /// Its facts before anything was sent.
    pub before: Option<HostFacts>,
    /// Its facts at the end.
    pub after: Option<HostFacts>,
    /// Whether its tap was open before anything was sent.
    pub tap_open: bool,
    /// How well its tap saw, read at the end.
    pub statistics: Option<TapStatistics>,
    /// The neighbour entries that were deleted.
    pub forgotten: Vec<Neighbour>,
    /// Why it was lost, if it was.
    pub lost: Option<String>,
    /// What it could not do.
    pub failures: Vec<String>,
}

/// Everything that is known.
#[derive(Clone, Debug)]
pub struct Evidence {
    plan: Plan,
    items: Vec<Item>,
    probes: Vec<Probe>,
    hosts: BTreeMap<Host, HostRecord>,
    by_probe: HashMap<ProbeId, Vec<usize>>,
    scheduled: HashMap<ProbeId, usize>,
}

impl Evidence {
    /// Nothing yet, about `plan`.
    pub fn new(plan: Plan) -> Evidence {
        let hosts = plan
            .vantages
            .iter()
            .map(|host| (*host, HostRecord::default()))
            .collect();
        Evidence {
            plan,
            items: Vec::new(),
            probes: Vec::new(),
            hosts,
            by_probe: HashMap::new(),
            scheduled: HashMap::new(),
        }
    }

    /// The plan that it is about.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Every item, in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The item of this name.
    pub fn item(&self, id: EvidenceId) -> Option<&Item> {
        self.items.get(id.0.checked_sub(1)? as usize)
    }

    /// Every probe that was to be sent, in order.
    pub fn probes(&self) -> &[Probe] {
        &self.probes
    }

    /// The probe of this name.
    pub fn probe(&self, id: ProbeId) -> Option<&Probe> {
        self.probes.iter().find(|probe| probe.id == id)
    }

    /// The items about a probe, in order.
    pub fn about(&self, probe: ProbeId) -> impl Iterator<Item = &Item> {
        self.by_probe
            .get(&probe)
            .into_iter()
            .flatten()
            .map(|index| &self.items[*index])
    }

    /// The sightings of a probe and of what it caused, in order.
    pub fn sightings(&self, probe: ProbeId) -> impl Iterator<Item = (&Item, &Sighting)> {
        self.about(probe).filter_map(|item| match &item.what {
            What::Seen { sighting, .. } => Some((item, sighting)),
            _ => None,
        })
    }

    /// The path that a probe took: the one that it was sent for, unless IPVS chose another real server.
    pub fn path_of(&self, probe: &Probe) -> usize {
        self.scheduled.get(&probe.id).copied().unwrap_or(probe.path)
    }

    /// Whether IPVS was seen to choose a real server for this probe.
    pub fn is_scheduled(&self, probe: ProbeId) -> bool {
        self.scheduled.contains_key(&probe)
    }

    /// What is known of a vantage; `None` if tunproof does not run there.
    pub fn host(&self, host: Host) -> Option<&HostRecord> {
        self.hosts.get(&host)
    }

    /// The record of a vantage, to complete it.
    pub fn host_mut(&mut self, host: Host) -> &mut HostRecord {
        self.hosts.entry(host).or_default()
    }

    /// A host's facts, read before anything was sent.
    pub fn facts(&self, host: Host) -> Option<&HostFacts> {
        self.host(host)?.before.as_ref()
    }

    /// Whether silence at a host's stations counts; else why not.
    pub fn hears(&self, host: Host) -> Result<(), String> {
        let name = self.plan.host_name(host);
        let Some(record) = self.host(host) else {
            return Err(format!("tunproof does not run on {name}"));
        };
        if let Some(reason) = &record.lost {
            return Err(format!("{name} was lost: {reason}"));
        }
        if !record.tap_open {
            return Err(format!("no tap could be opened on {name}"));
        }
        match record.statistics {
            None => Err(format!("{name} did not say how well its tap saw")),
            Some(statistics) if statistics.dropped > 0 => Err(format!(
                "the tap on {name} lost {} packets",
                statistics.dropped
            )),
            Some(_) => Ok(()),
        }
    }

    /// Notes that a probe is to be sent.
    pub fn add_probe(&mut self, probe: Probe) {
        self.probes.push(probe);
    }

    /// Appends an item.
    pub fn append(
        &mut self,
        host: Host,
        station: Option<Station>,
        time: Wall,
        subject: (Option<ProbeId>, Option<usize>),
        what: What,
    ) -> EvidenceId {
        let (probe, path) = subject;
        let id = EvidenceId(self.items.len() as u32 + 1);
        if let Some(probe) = probe {
            self.by_probe
                .entry(probe)
                .or_default()
                .push(self.items.len());
            if let What::Seen { sighting, .. } = &what {
                self.note_scheduling(host, station, sighting);
            }
        }
        self.items.push(Item {
            id,
            host,
            station,
            time,
            probe,
            path,
            what,
        });
        id
    }

    /// Which real server IPVS chose: the tunnel header says it at the director, and at the real server its
    /// arrival there.
    fn note_scheduling(&mut self, host: Host, station: Option<Station>, sighting: &Sighting) {
        let kernels = matches!(
            sighting.probe.kind,
            ProbeKind::IpvsLoop | ProbeKind::Service
        );
        let tunnelled = sighting.form == Form::Tunnelled;
        let path = match (host, sighting.outer) {
            (Host::Director, Some(outer)) if tunnelled => self
                .plan
                .paths
                .iter()
                .position(|path| path.rip == outer.destination),
            (Host::Realserver(path), _)
                if tunnelled || station == Some(Station::RealserverTunnel) =>
            {
                Some(path)
            }
            _ => None,
        };
        if let (true, Some(path)) = (kernels, path) {
            self.scheduled.entry(sighting.probe).or_insert(path);
        }
    }
}
