//! Everything that is known, in the order in which it became known.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::hash_map::Entry;

use serde::Deserialize;
use serde::Serialize;

use crate::evidence::Course;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::evidence::index::Index;
use crate::evidence::passage::Progress;
use crate::exchange::ConnectOutcome;
use crate::exchange::Firewall;
use crate::exchange::Freed;
use crate::exchange::HostFacts;
use crate::exchange::Neighbour;
use crate::exchange::SendOutcome;
use crate::exchange::TapStatistics;
use crate::exchange::Unread;
use crate::exchange::Wall;
use crate::matching::Arp;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Station;

/// What is known of one host, besides packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// Its facts before anything was sent.
    pub before: Option<HostFacts>,
    /// Its facts at the end.
    pub after: Option<HostFacts>,
    /// What of its firewall could stop our packets, when the first of them had fallen silent.
    pub firewall_before: Option<Firewall>,
    /// The same at the end.
    pub firewall_after: Option<Firewall>,
    /// Why its kernel does not tell of drops, if it was asked and does not.
    pub drops_unread: Option<Unread>,
    /// What its kernel gave up and does not show.
    pub freed: Freed,
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
    /// How far each of the probes came.
    progress: Vec<Progress>,
    hosts: BTreeMap<Host, HostRecord>,
    index: Index,
    scheduled: HashMap<ProbeId, usize>,
    strayed: HashSet<ProbeId>,
    cut_short: Option<String>,
    young: HashSet<ProbeId>,
    expected: HashSet<ProbeId>,
    /// Ports from which the client's own programs ask the service.
    asking: HashSet<u16>,
    unasked: BTreeSet<u16>,
    /// By path and step.
    courses: Vec<Vec<Course>>,
}

impl Evidence {
    /// Nothing yet, about `plan`.
    pub fn new(plan: Plan) -> Evidence {
        let hosts = plan
            .vantages
            .iter()
            .map(|host| (*host, HostRecord::default()))
            .collect();
        let courses = plan
            .suites
            .iter()
            .map(|suite| vec![Course::default(); suite.steps.len()])
            .collect();
        Evidence {
            plan,
            items: Vec::new(),
            probes: Vec::new(),
            progress: Vec::new(),
            hosts,
            index: Index::default(),
            scheduled: HashMap::new(),
            strayed: HashSet::new(),
            cut_short: None,
            young: HashSet::new(),
            expected: HashSet::new(),
            asking: HashSet::new(),
            unasked: BTreeSet::new(),
            courses,
        }
    }

    /// How far every step of every path came.
    pub fn courses(&self) -> &[Vec<Course>] {
        &self.courses
    }

    /// How far a step came, to complete it.
    ///
    /// # Panics
    ///
    /// If the plan has no such step.
    pub fn course_mut(&mut self, path: usize, step: usize) -> &mut Course {
        &mut self.courses[path][step]
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
        self.index.probe(id).map(|number| &self.probes[number])
    }

    /// The probes of a kind, in order.
    pub fn probes_of_kind(&self, kind: ProbeKind) -> impl Iterator<Item = &Probe> {
        let numbers = self.index.of_kind(kind);
        numbers.map(|number| &self.probes[number])
    }

    /// The probes that took a path, in order, and how far each came.
    pub(super) fn probes_on(&self, path: usize) -> impl Iterator<Item = (&Probe, &Progress)> {
        let numbers = self.index.of_path(path);
        numbers.map(|number| (&self.probes[number], &self.progress[number]))
    }

    /// How far the probe of this name came.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(super) fn progress(&self, id: ProbeId) -> &Progress {
        let number = self.index.probe(id).expect("the probe was to be sent");
        &self.progress[number]
    }

    /// The ARP packets that a host saw, in order.
    pub fn arps(&self, host: Host) -> impl DoubleEndedIterator<Item = (&Item, &Arp)> {
        let items = self.index.arps(host).map(|number| &self.items[number]);
        items.filter_map(|item| match &item.what {
            What::Arp { arp, .. } => Some((item, arp)),
            _ => None,
        })
    }

    /// The items about a probe, in order.
    pub fn about(&self, probe: ProbeId) -> impl Iterator<Item = &Item> {
        self.index.about(probe).map(|number| &self.items[number])
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

    /// Whether IPVS gave a probe to a real server that is none of the plan's: what becomes of it there says
    /// nothing of those that are.
    pub fn has_strayed(&self, probe: &Probe) -> bool {
        self.strayed.contains(&probe.id) && !self.scheduled.contains_key(&probe.id)
    }

    /// What is known of a vantage; `None` if tunproof does not run there.
    pub fn host(&self, host: Host) -> Option<&HostRecord> {
        self.hosts.get(&host)
    }

    /// What is known of each vantage.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (Host, &HostRecord)> {
        self.hosts.iter().map(|(host, record)| (*host, record))
    }

    /// The record of a vantage, to complete it.
    pub fn host_mut(&mut self, host: Host) -> &mut HostRecord {
        self.hosts.entry(host).or_default()
    }

    /// A host's facts, read before anything was sent.
    pub fn facts(&self, host: Host) -> Option<&HostFacts> {
        self.host(host)?.before.as_ref()
    }

    /// Why an agent did not send the first of these that it did not hand to its kernel, in words.
    pub fn why_declined(&self, sent: &[EvidenceId]) -> Option<String> {
        let declined = |id: &EvidenceId| {
            let item = self.item(*id)?;
            match &item.what {
                What::Sent {
                    outcome: SendOutcome::Declined { reason, .. },
                    ..
                }
                | What::Connect {
                    outcome: ConnectOutcome::Declined { reason },
                    ..
                } => Some((item.host, reason)),
                _ => None,
            }
        };
        let mut all = sent.iter().filter_map(declined);
        let (host, reason) = all.next()?;
        let (name, count) = (self.plan.host_name(host), 1 + all.count());
        let packets = if count == 1 { "packet" } else { "packets" };
        Some(format!("{name} did not send {count} {packets}: {reason}"))
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
        if let Some(reason) = self.misplaced(host) {
            return Err(reason);
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

    /// Why a host cannot be the client that it is taken for: it does not have the client's address, so it
    /// would spoof it, and sees nothing that is for it.
    pub fn misplaced(&self, host: Host) -> Option<String> {
        let facts = self.facts(host).filter(|_| host == Host::Client)?;
        let cip = self.plan.paths[0].cip;
        (!facts.is_local(cip))
            .then(|| format!("{cip} is not an address of the host taken for the client"))
    }

    /// Notes that a probe is to be sent.
    pub fn add_probe(&mut self, probe: Probe) {
        let path = self.path_of(&probe);
        self.index.add_probe(&probe, path, self.probes.len());
        self.progress.push(self.follow(&probe));
        self.probes.push(probe);
    }

    /// Notes why probing ended before it was over.
    pub fn cut_short(&mut self, why: impl Into<String>) {
        self.cut_short.get_or_insert_with(|| why.into());
    }

    /// Why probing ended before it was over, if it did.
    pub fn is_cut_short(&self) -> Option<&str> {
        self.cut_short.as_deref()
    }

    /// Notes that a probe was sent so shortly before the end that its silence says nothing.
    pub fn excuse(&mut self, probe: ProbeId) {
        self.young.insert(probe);
    }

    /// Notes that a probe was sent so shortly before the end that its answer may well have been on its way:
    /// sooner than for [`Evidence::excuse`], where a hop is to break by its silence.
    pub fn expect(&mut self, probe: ProbeId) {
        self.expected.insert(probe);
    }

    /// The probes of [`Evidence::excuse`] and of [`Evidence::expect`], in the order of sending.
    pub(super) fn unfinished(&self) -> (Vec<ProbeId>, Vec<ProbeId>) {
        let those = |set: &HashSet<ProbeId>| {
            let ids = self.probes.iter().map(|probe| probe.id);
            ids.filter(|id| set.contains(id)).collect()
        };
        (those(&self.young), those(&self.expected))
    }

    /// Whether a probe's answer may have been on its way at the end.
    pub fn is_expected(&self, probe: ProbeId) -> bool {
        self.expected.contains(&probe)
    }

    /// Whether a probe's silence says nothing, because it was sent too shortly before the end.
    pub fn is_excused(&self, probe: ProbeId) -> bool {
        self.young.contains(&probe)
    }

    /// Notes that a program of the client's asks the service from this port.
    pub fn note_question(&mut self, port: u16) {
        self.asking.insert(port);
        // What it was sent before may answer an older question.
        self.unasked.remove(&port);
    }

    /// Notes that the service says something to this port of the client, from which no probe asked it.
    pub fn note_answer(&mut self, port: u16) {
        if !self.asking.contains(&port) {
            self.unasked.insert(port);
        }
    }

    /// The ports of the client to which the service said something, and from which nobody had asked it.
    pub fn unasked(&self) -> &BTreeSet<u16> {
        &self.unasked
    }

    /// The same, of a run before.
    pub(super) fn set_unasked(&mut self, unasked: BTreeSet<u16>) {
        self.unasked = unasked;
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
            self.index.add_about(probe, self.items.len());
            if let What::Seen { sighting, .. } = &what {
                self.note_scheduling(host, station, sighting);
            }
        }
        if matches!(what, What::Arp { .. }) {
            self.index.add_arp(host, self.items.len());
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
        if let Some(number) = probe.and_then(|probe| self.index.probe(probe)) {
            self.progress[number] = self.follow(&self.probes[number]);
        }
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
            let before = self.probe(sighting.probe).map(|probe| probe.path);
            if let (Entry::Vacant(unknown), from) = (self.scheduled.entry(sighting.probe), before) {
                unknown.insert(path);
                self.index
                    .reschedule(sighting.probe, from.unwrap_or(path), path);
            }
        } else if kernels && tunnelled && host == Host::Director {
            self.strayed.insert(sighting.probe);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::exchange::Address;
    use crate::exchange::Link;
    use crate::plan::Path;
    use crate::plan::Protocol;
    use crate::plan::SessionKey;

    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    fn client_with(ip: Ipv4Addr) -> Evidence {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 80,
            protocol: Protocol::Tcp,
            rip: Ipv4Addr::new(203, 0, 113, 5),
            dip: None,
            cip: CIP,
            gateway: None,
            tunnel: None,
        };
        let mut evidence = Evidence::new(Plan {
            session: SessionKey::new([1; 16]),
            paths: vec![path],
            vantages: vec![Host::Client],
            ingress: None,
            egress: None,
            suites: Vec::new(),
        });
        let link = Link::eth0(vec![Address { ip, prefix: 24 }]);
        let record = evidence.host_mut(Host::Client);
        record.tap_open = true;
        record.statistics = Some(TapStatistics::default());
        record.before = Some(HostFacts {
            links: vec![link],
            ..HostFacts::default()
        });
        evidence
    }

    #[test]
    fn a_host_without_the_clients_address_hears_nothing_that_counts() {
        assert_eq!(client_with(CIP).hears(Host::Client), Ok(()));
        let elsewhere = client_with(Ipv4Addr::new(10, 0, 0, 2)).hears(Host::Client);
        let reason = "198.51.100.7 is not an address of the host taken for the client";
        assert_eq!(elsewhere, Err(reason.to_owned()));
    }

    #[test]
    fn a_tap_that_lost_packets_hears_nothing_that_counts() {
        let mut evidence = client_with(CIP);
        evidence.host_mut(Host::Client).statistics = Some(TapStatistics {
            received: 9,
            dropped: 2,
        });
        let reason = "the tap on client lost 2 packets".to_owned();
        assert_eq!(evidence.hears(Host::Client), Err(reason));
    }
}
