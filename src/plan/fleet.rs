//! A fleet: real servers times services, numbered by arithmetic, never listed.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::plan::ProbeKind;
use crate::plan::Protocol;

/// What a director sweeps. Pairs of a real server and a service are numbered from 0: group by group, in each
/// service by service, in each real server by real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fleet {
    dip: Ipv4Addr,
    cip: Option<Ipv4Addr>,
    groups: Vec<Group>,
    pairs: u32,
}

/// Services, and the real servers that each of them has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    services: Vec<Service>,
    /// In rising order, without overlap.
    ranges: Vec<Range>,
    /// How many addresses stand before each range.
    before: Vec<u32>,
    realservers: u32,
    first_pair: u32,
}

/// A virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Service {
    /// The virtual IP.
    pub vip: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// Addresses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Range {
    /// The first.
    pub first: Ipv4Addr,
    /// The last, not below the first.
    pub last: Ipv4Addr,
}

/// A service at a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its number.
    pub number: u32,
    /// Its group's number.
    pub group: usize,
    /// Its service's number within the group.
    pub service_index: u32,
    /// Its real server's number within the group.
    pub realserver_index: u32,
    /// The real server's own address.
    pub rip: Ipv4Addr,
    /// The service.
    pub service: Service,
}

/// What is sent to a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FleetProbe {
    /// IPIP(DIP→RIP){CIP→VIP:port SYN}: the client's RST comes back.
    ClosedLoop,
    /// IPIP(DIP→RIP){DIP→VIP:port SYN}: the service's SYN-ACK or RST comes back.
    ReflectSyn,
    /// IPIP(DIP→RIP){DIP→VIP UDP closed port}: port unreachable comes back.
    ReflectUdp,
}

impl FleetProbe {
    /// Every one.
    pub const ALL: [FleetProbe; 3] = [
        FleetProbe::ClosedLoop,
        FleetProbe::ReflectSyn,
        FleetProbe::ReflectUdp,
    ];

    /// The kind of probe that it is.
    pub fn kind(self) -> ProbeKind {
        match self {
            FleetProbe::ClosedLoop => ProbeKind::TunnelSyn,
            FleetProbe::ReflectSyn => ProbeKind::ReflectSyn,
            FleetProbe::ReflectUdp => ProbeKind::Reflect,
        }
    }

    /// Whether it opens a connection, which has to be closed again.
    pub fn opens(self) -> bool {
        self != FleetProbe::ReflectUdp
    }
}

impl Range {
    /// How many addresses it has.
    pub fn len(&self) -> u64 {
        u64::from(self.last.to_bits() - self.first.to_bits()) + 1
    }

    /// Whether it has none, which cannot be.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether it has an address of `other`.
    pub fn overlaps(&self, other: &Range) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Fleet {
    /// The most pairs: their numbers have 24 bits in a probe's identity.
    pub const MOST_PAIRS: u32 = 1 << 24;

    /// The fleet of these groups, each of services and of ranges without overlap; `None` if it has more than
    /// [`Fleet::MOST_PAIRS`].
    pub fn new(
        dip: Ipv4Addr,
        cip: Option<Ipv4Addr>,
        groups: Vec<(Vec<Service>, Vec<Range>)>,
    ) -> Option<Fleet> {
        let mut pairs = 0u64;
        let mut built = Vec::new();
        for (services, mut ranges) in groups {
            ranges.sort_unstable();
            let mut realservers = 0u64;
            let mut before = Vec::with_capacity(ranges.len());
            for range in &ranges {
                before.push(u32::try_from(realservers).ok()?);
                realservers += range.len();
            }
            let first_pair = u32::try_from(pairs).ok()?;
            pairs = pairs.checked_add(realservers.checked_mul(services.len() as u64)?)?;
            if pairs > u64::from(Fleet::MOST_PAIRS) {
                return None;
            }
            built.push(Group {
                services,
                ranges,
                before,
                realservers: realservers as u32,
                first_pair,
            });
        }
        Some(Fleet {
            dip,
            cip,
            groups: built,
            pairs: pairs as u32,
        })
    }

    /// The director's own address.
    pub fn dip(&self) -> Ipv4Addr {
        self.dip
    }

    /// The client's address.
    pub fn cip(&self) -> Option<Ipv4Addr> {
        self.cip
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> u32 {
        self.pairs
    }

    /// How many pairs are of TCP services.
    pub fn tcp_pairs(&self) -> u32 {
        let of = |group: &Group| {
            let tcp = group
                .services
                .iter()
                .filter(|s| s.protocol == Protocol::Tcp);
            tcp.count() as u32 * group.realservers
        };
        self.groups.iter().map(of).sum()
    }

    /// The pair of this number, if there is one.
    pub fn pair(&self, number: u32) -> Option<Pair> {
        if number >= self.pairs {
            return None;
        }
        let after = self.groups.partition_point(|g| g.first_pair <= number);
        let group = &self.groups[after - 1];
        let within = number - group.first_pair;
        let service_index = within / group.realservers;
        let realserver_index = within % group.realservers;
        Some(Pair {
            number,
            group: after - 1,
            service_index,
            realserver_index,
            rip: group.realserver(realserver_index),
            service: group.services[service_index as usize],
        })
    }

    /// The pairs that a real server is in: one for each service of each group that has it.
    pub fn pairs_of(&self, rip: Ipv4Addr) -> impl Iterator<Item = u32> + '_ {
        self.groups.iter().flat_map(move |group| {
            let services = 0..group.services.len() as u32;
            let index = group.index_of(rip);
            services.filter_map(move |service| Some(group.number(service, index?)))
        })
    }

    /// The services, group by group.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.groups
            .iter()
            .flat_map(|group| group.services.iter().copied())
    }
}

impl Group {
    /// Its services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Its real servers' ranges, in rising order.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// How many real servers it has.
    pub fn realservers(&self) -> u32 {
        self.realservers
    }

    /// The number of its first pair.
    pub fn first_pair(&self) -> u32 {
        self.first_pair
    }

    /// The number of the pair of a service and a real server.
    pub fn number(&self, service: u32, realserver: u32) -> u32 {
        self.first_pair + service * self.realservers + realserver
    }

    /// The real server of this number.
    ///
    /// # Panics
    ///
    /// If there are not as many.
    pub fn realserver(&self, index: u32) -> Ipv4Addr {
        assert!(index < self.realservers, "{index} of {}", self.realservers);
        let range = self.before.partition_point(|before| *before <= index) - 1;
        Ipv4Addr::from_bits(self.ranges[range].first.to_bits() + index - self.before[range])
    }

    /// The number of a real server, if it is one of them.
    pub fn index_of(&self, rip: Ipv4Addr) -> Option<u32> {
        let after = self.ranges.partition_point(|range| range.first <= rip);
        let at = after.checked_sub(1)?;
        let range = self.ranges[at];
        (rip <= range.last).then(|| self.before[at] + rip.to_bits() - range.first.to_bits())
    }

    /// Whether a real server is in both groups.
    pub fn overlaps(&self, other: &Group) -> bool {
        let (mut one, mut two) = (
            self.ranges.iter().peekable(),
            other.ranges.iter().peekable(),
        );
        while let (Some(a), Some(b)) = (one.peek(), two.peek()) {
            if a.overlaps(b) {
                return true;
            }
            match a.last < b.first {
                true => one.next(),
                false => two.next(),
            };
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: [u8; 4], last: [u8; 4]) -> Range {
        Range {
            first: first.into(),
            last: last.into(),
        }
    }

    fn service(vip: u8, port: u16, protocol: Protocol) -> Service {
        Service {
            vip: [192, 0, 2, vip].into(),
            port,
            protocol,
        }
    }

    fn fleet() -> Fleet {
        let dip = Ipv4Addr::new(192, 0, 2, 2);
        let tcp = [80, 443].map(|port| service(10, port, Protocol::Tcp));
        let few = vec![
            range([203, 0, 113, 9], [203, 0, 113, 9]),
            range([198, 51, 100, 1], [198, 51, 100, 3]),
        ];
        let many = vec![range([10, 0, 0, 1], [10, 0, 255, 254])];
        let udp = vec![service(11, 53, Protocol::Udp)];
        Fleet::new(dip, None, vec![(tcp.to_vec(), few), (udp, many)]).unwrap()
    }

    #[test]
    fn numbers_and_pairs_are_one_to_one() {
        let fleet = fleet();
        assert_eq!(fleet.pairs(), 8 + 65_534);
        assert_eq!(fleet.tcp_pairs(), 8);
        for number in 0..fleet.pairs() {
            let pair = fleet.pair(number).unwrap();
            let group = &fleet.groups()[pair.group];
            assert_eq!(
                group.number(pair.service_index, pair.realserver_index),
                number
            );
            assert_eq!(group.index_of(pair.rip), Some(pair.realserver_index));
            assert!(fleet.pairs_of(pair.rip).any(|other| other == number));
        }
        assert_eq!(fleet.pair(fleet.pairs()), None);
        let pair = fleet.pair(7).unwrap();
        assert_eq!(
            (pair.rip, pair.service.port),
            (Ipv4Addr::new(203, 0, 113, 9), 443)
        );
    }

    #[test]
    fn a_stranger_is_in_no_pair() {
        let fleet = fleet();
        for stranger in [
            [10, 0, 0, 0],
            [10, 0, 255, 255],
            [198, 51, 100, 4],
            [0, 0, 0, 0],
        ] {
            assert_eq!(fleet.pairs_of(stranger.into()).count(), 0);
        }
        assert_eq!(
            fleet.pairs_of([198, 51, 100, 3].into()).collect::<Vec<_>>(),
            [2, 6]
        );
    }

    #[test]
    fn too_many_pairs_are_no_fleet() {
        let services: Vec<_> = (1..=256).map(|p| service(10, p, Protocol::Tcp)).collect();
        let of = |last| {
            let groups = vec![(services.clone(), vec![range([10, 0, 0, 0], last)])];
            Fleet::new([192, 0, 2, 2].into(), None, groups)
        };
        assert_eq!(of([10, 0, 255, 255]).unwrap().pairs(), Fleet::MOST_PAIRS);
        assert_eq!(of([10, 1, 0, 0]), None);
        assert_eq!(of([255, 255, 255, 255]), None);
    }

    #[test]
    fn groups_overlap_where_a_real_server_is_in_both() {
        let fleet = fleet();
        let [one, two] = fleet.groups() else { panic!() };
        assert!(one.overlaps(one) && !one.overlaps(two) && !two.overlaps(one));
    }
}
