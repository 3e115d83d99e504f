//! What a host says of itself.
//!
//! Each fact's doc names the command by which a person checks it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Wall;

/// What to ask a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactQuery {
    /// Routes to look up.
    pub routes: Vec<RouteQuery>,
    /// Addresses whose neighbour entries to list.
    pub neighbours: Vec<Ipv4Addr>,
    /// Settings of the network to read, by `sysctl`'s names.
    #[serde(default)]
    pub sysctls: Vec<String>,
    /// The service to look for in IPVS.
    pub service: Option<ServiceQuery>,
    /// The port whose listening sockets to list. The kernel looks through everything that is connected, too: some
    /// milliseconds, even on an idle host.
    #[serde(default)]
    pub listeners: Option<u16>,
    /// Whether that is all: what every answer has else (its name, counters and the like) the host has said before.
    #[serde(default)]
    pub only: bool,
}

/// The service to look for in IPVS and its connection table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceQuery {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The client, whose IPVS connections are listed.
    pub cip: Ipv4Addr,
}

/// `ip route get TO [from FROM] [iif IIF]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteQuery {
    /// Destination.
    pub to: Ipv4Addr,
    /// Source.
    pub from: Option<Ipv4Addr>,
    /// Input device; with it the lookup is the one for received packets.
    pub iif: Option<String>,
}

/// What a host says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// When they were read.
    pub time: Wall,
    /// `hostname`.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `ip -d address`.
    pub links: Vec<Link>,
    /// The answers to the routes asked, in order.
    pub routes: Vec<(RouteQuery, RouteAnswer)>,
    /// `ip neigh show` for the addresses asked.
    pub neighbours: Vec<Neighbour>,
    /// `sysctl` by name: `net.ipv4.ip_forward`, `net.ipv4.vs.pmtu_disc` and, for `all`, `default` and each device,
    /// `net.ipv4.conf.DEV.{rp_filter,arp_ignore,arp_announce,arp_filter,accept_local,forwarding,hidden}`, where they exist.
    /// Devices without an IPv4 address are left out, unless they are tunnels or a route asked names them. A dot in a
    /// device's name stays one, where `sysctl` writes a slash.
    pub sysctls: BTreeMap<String, i64>,
    /// `sysctl` for the names asked, as it prints them, with one space between several values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// `nstat -az` by name: `TcpExtIPReversePathFilter`, `IpInAddrErrors`, `TcpExtListenDrops`, ….
    pub counters: BTreeMap<String, u64>,
    /// `ipvsadm -Ln`.
    pub ipvs: Ipvs,
    /// `ipvsadm -Lnc` for the client and VIP asked.
    pub ipvs_connections: Vec<IpvsConnection>,
    /// `ss -Htuln sport = :PORT`.
    pub listeners: Vec<Listener>,
    /// What could not be read, and why; nothing is ever left out silently.
    pub unread: Vec<Unread>,
}

/// What the host's facts come to. `None` stands where they do not tell: that nothing is known of it is in `unread`.
impl HostFacts {
    /// The device of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The first device that has this address.
    pub fn holds(&self, ip: Ipv4Addr) -> Option<&Link> {
        self.links
            .iter()
            .find(|link| link.addresses.iter().any(|address| address.ip == ip))
    }

    /// Whether the address is one of a device. A `local` route may make other addresses the host's, too: ask
    /// for a route to them.
    pub fn is_local(&self, ip: Ipv4Addr) -> bool {
        self.holds(ip).is_some()
    }

    /// The answer to this lookup, if it was asked and answered.
    pub fn route(&self, query: &RouteQuery) -> Option<&RouteAnswer> {
        self.routes
            .iter()
            .find(|(asked, _)| asked == query)
            .map(|(_, answer)| answer)
    }

    /// The counters that are read, of the hundreds that there are: those that tell why packets died or were not answered.
    pub const COUNTERS: [&str; 6] = [
        "IcmpOutRateLimitGlobal",
        "IcmpOutRateLimitHost",
        "TcpExtIPReversePathFilter",
        "TcpExtListenDrops",
        "TcpInCsumErrors",
        "UdpInCsumErrors",
    ];

    /// The counter of this name, one of [`HostFacts::COUNTERS`]; the kernel does not show those of parts that are not
    /// loaded.
    pub fn counter(&self, name: &str) -> Option<u64> {
        debug_assert!(HostFacts::COUNTERS.contains(&name), "{name} is not read");
        self.counters.get(name).copied()
    }

    /// The reverse path filter in force: the larger of `all` and the device.
    pub fn rp_filter_in_force(&self, device: &str) -> Option<i64> {
        self.larger_of_all_and(device, "rp_filter")
    }

    /// Which sender address the device's ARP requests may have: the larger of `all` and the device.
    pub fn arp_announce_in_force(&self, device: &str) -> Option<i64> {
        self.larger_of_all_and(device, "arp_announce")
    }

    /// Whether the device's addresses are hidden from ARP, on a kernel patched with `hidden`: both `all` and the
    /// device must say so.
    pub fn hidden(&self, device: &str) -> bool {
        ["all", device]
            .iter()
            .all(|name| self.setting(name, "hidden").is_some_and(|value| value != 0))
    }

    /// Adds the answers to more questions, asked a moment later.
    pub fn complete(&mut self, later: HostFacts) {
        self.routes.extend(later.routes);
        self.neighbours = later.neighbours;
        self.sysctls.extend(later.sysctls);
        for unread in later.unread {
            if !self.unread.contains(&unread) {
                self.unread.push(unread);
            }
        }
    }

    fn larger_of_all_and(&self, device: &str, setting: &str) -> Option<i64> {
        let all = self.setting("all", setting)?;
        let own = self.setting(device, setting)?;
        Some(all.max(own))
    }

    fn setting(&self, device: &str, setting: &str) -> Option<i64> {
        self.sysctls
            .get(&format!("net.ipv4.conf.{device}.{setting}"))
            .copied()
    }
}

/// A fact that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// What, such as `ipvs services`.
    pub what: String,
    /// Why.
    pub error: String,
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// The driver's kind (`ipip`, `veth`, `vlan`, …), where it has one (`IFLA_INFO_KIND`).
    pub kind: Option<String>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Carrier (`IFF_LOWER_UP`).
    pub running: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// Without ARP (`IFF_NOARP`).
    pub noarp: bool,
    /// MTU in octets.
    pub mtu: u32,
    /// Hardware address, if it has 6 octets.
    pub mac: Option<[u8; 6]>,
    /// IPv4 addresses.
    pub addresses: Vec<Address>,
    /// Tunnel endpoints, of an `ipip` device.
    pub tunnel: Option<TunnelEnds>,
    /// How often its carrier came or went, since it was made (`cat /sys/class/net/DEVICE/carrier_changes`).
    #[serde(default)]
    pub carrier_changes: u32,
}

/// An IPv4 address of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
}

impl Address {
    /// Whether `ip` is in the network of this address.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let shift = 32 - u32::from(self.prefix.min(32));
        let bits = |ip: Ipv4Addr| u32::from(ip).checked_shr(shift).unwrap_or(0);
        bits(self.ip) == bits(ip)
    }
}

/// The endpoints of an `ipip` device, `ip -d link show type ipip`; `None` is `any`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelEnds {
    /// Local end.
    pub local: Option<Ipv4Addr>,
    /// Remote end.
    pub remote: Option<Ipv4Addr>,
    /// Underlying device's index, if it is bound to one.
    pub link: Option<u32>,
}

/// The kernel's answer to a route lookup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteAnswer {
    /// A route.
    Route(Route),
    /// An error: EXDEV (18) or EINVAL (22) where the source is refused, EHOSTUNREACH (113), ENETUNREACH
    /// (101), EACCES (13), ENODEV (19).
    Error {
        /// The error number.
        errno: i32,
        /// The kernel's words for it.
        error: String,
    },
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Its type.
    pub kind: RouteKind,
    /// Output device.
    pub device: Option<String>,
    /// Next hop.
    pub gateway: Option<Ipv4Addr>,
    /// Preferred source.
    pub source: Option<Ipv4Addr>,
    /// Routing table.
    pub table: u32,
    /// MTU, where the route has one.
    pub mtu: Option<u32>,
}

/// A route's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// Forwarded or sent.
    Unicast,
    /// To the host itself.
    Local,
    /// Any other `RTN_*`.
    Other(u8),
}

/// A neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The neighbour.
    pub ip: Ipv4Addr,
    /// On this device.
    pub device: String,
    /// Its hardware address, if known.
    pub mac: Option<[u8; 6]>,
    /// `NUD_*`.
    pub state: u16,
}

impl Neighbour {
    /// `NUD_PERMANENT`: somebody typed it.
    pub const PERMANENT: u16 = 0x80;
    /// `NUD_NOARP`.
    pub const NOARP: u16 = 0x40;
    /// `NUD_FAILED`.
    pub const FAILED: u16 = 0x20;
    /// `NUD_INCOMPLETE`.
    pub const INCOMPLETE: u16 = 0x01;
}

/// The director's IPVS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipvs {
    /// The kernel has none, or its module is not loaded.
    #[default]
    Absent,
    /// It was not asked for, or could not be asked (see `unread`).
    Unknown,
    /// Its IPv4 services, with their IPv4 destinations.
    Services(Vec<IpvsService>),
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpvsService {
    /// What it takes.
    pub key: IpvsKey,
    /// Its scheduler, such as `wlc`.
    pub scheduler: String,
    /// Its destinations.
    pub destinations: Vec<IpvsDestination>,
}

/// What a virtual service takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpvsKey {
    /// Packets of this protocol (6 TCP, 17 UDP) to this address and port (0: every port).
    Address {
        /// IP protocol number.
        protocol: u8,
        /// The VIP.
        address: Ipv4Addr,
        /// The port.
        port: u16,
    },
    /// Packets with this firewall mark.
    Fwmark(u32),
}

/// A real server as IPVS knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpvsDestination {
    /// The RIP.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// How packets are forwarded.
    pub method: IpvsMethod,
    /// Weight; 0 takes no new connections.
    pub weight: i32,
    /// Tunnel type: 0 ipip, 1 gue, 2 gre (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
    pub tunnel_type: u8,
    /// Tunnel port, for gue.
    pub tunnel_port: u16,
}

/// IPVS's forwarding method (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpvsMethod {
    /// NAT, `-m`.
    Masq,
    /// Local node.
    Local,
    /// Tunnel, `-i`.
    Tunnel,
    /// Direct routing, `-g`.
    Route,
    /// Any other.
    Other(u8),
}

/// A connection of IPVS (`/proc/net/ip_vs_conn`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpvsConnection {
    /// IP protocol number.
    pub protocol: u8,
    /// The client.
    pub client: (Ipv4Addr, u16),
    /// The virtual service.
    pub virtual_service: (Ipv4Addr, u16),
    /// The real server.
    pub destination: (Ipv4Addr, u16),
    /// Its state, such as `SYN_RECV`.
    pub state: String,
}

/// A listening or bound socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// IP protocol number, 6 or 17.
    pub protocol: u8,
    /// Local address; `None` is any, also by an IPv6 socket bound to `::` that takes IPv4 too (where only `/proc/net`
    /// tells, by any bound to `::`).
    pub address: Option<Ipv4Addr>,
    /// Local port.
    pub port: u16,
}

#[cfg(test)]
impl Link {
    /// An Ethernet device `eth0` that is up.
    pub(crate) fn eth0(addresses: Vec<Address>) -> Link {
        Link {
            index: 2,
            name: "eth0".to_owned(),
            kind: None,
            up: true,
            running: true,
            loopback: false,
            noarp: false,
            mtu: 1500,
            mac: None,
            addresses,
            tunnel: None,
            carrier_changes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(sysctls: &[(&str, i64)]) -> HostFacts {
        let link = |index, name: &str, ip| Link {
            index,
            name: name.to_owned(),
            ..Link::eth0(vec![Address { ip, prefix: 24 }])
        };
        HostFacts {
            links: vec![
                link(1, "eth0", Ipv4Addr::new(203, 0, 113, 5)),
                link(2, "tunl0", Ipv4Addr::new(192, 0, 2, 10)),
            ],
            sysctls: sysctls
                .iter()
                .map(|(name, value)| (format!("net.ipv4.conf.{name}"), *value))
                .collect(),
            ..HostFacts::default()
        }
    }

    #[test]
    fn the_larger_of_all_and_the_device_is_in_force() {
        for (all, own, expected) in [(0, 1, 1), (2, 1, 2), (1, 0, 1), (0, 0, 0)] {
            let facts = facts(&[
                ("all.rp_filter", all),
                ("tunl0.rp_filter", own),
                ("all.arp_announce", all),
                ("tunl0.arp_announce", own),
                ("eth0.rp_filter", 9),
            ]);
            assert_eq!(facts.rp_filter_in_force("tunl0"), Some(expected));
            assert_eq!(facts.arp_announce_in_force("tunl0"), Some(expected));
        }
    }

    #[test]
    fn half_a_setting_tells_nothing() {
        assert_eq!(
            facts(&[("all.rp_filter", 2)]).rp_filter_in_force("tunl0"),
            None
        );
        assert_eq!(
            facts(&[("tunl0.rp_filter", 2)]).rp_filter_in_force("tunl0"),
            None
        );
    }

    #[test]
    fn hidden_needs_both() {
        assert!(!facts(&[]).hidden("tunl0"));
        assert!(!facts(&[("all.hidden", 1), ("tunl0.hidden", 0)]).hidden("tunl0"));
        assert!(!facts(&[("all.hidden", 0), ("tunl0.hidden", 1)]).hidden("tunl0"));
        assert!(facts(&[("all.hidden", 1), ("tunl0.hidden", 1)]).hidden("tunl0"));
    }

    #[test]
    fn an_address_is_found_on_its_device() {
        let facts = facts(&[]);
        let vip = Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(facts.holds(vip).map(|link| link.index), Some(2));
        assert!(facts.is_local(vip));
        assert!(!facts.is_local(Ipv4Addr::new(192, 0, 2, 11)));
        assert_eq!(facts.link("eth0").map(|link| link.index), Some(1));
        assert_eq!(facts.link("eth1"), None);
    }

    #[test]
    fn a_route_is_the_answer_to_exactly_that_question() {
        let query = RouteQuery {
            to: Ipv4Addr::new(192, 0, 2, 10),
            from: Some(Ipv4Addr::new(198, 51, 100, 7)),
            iif: Some("tunl0".to_owned()),
        };
        let answer = RouteAnswer::Error {
            errno: 18,
            error: "Invalid cross-device link".to_owned(),
        };
        let mut facts = facts(&[]);
        facts.routes.push((query.clone(), answer.clone()));
        assert_eq!(facts.route(&query), Some(&answer));
        assert_eq!(facts.route(&RouteQuery { iif: None, ..query }), None);
    }
}
