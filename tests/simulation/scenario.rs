//! A scenario: the network as it is, and the verdict expected of each run.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;

/// One file of `tests/scenarios`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// What the network is like.
    #[serde(default)]
    pub(crate) network: Network,
    /// The director.
    #[serde(default)]
    pub(crate) director: Director,
    /// The client.
    #[serde(default)]
    pub(crate) client: Client,
    /// The real servers; one healthy one, if none is named.
    #[serde(default)]
    pub(crate) server: Vec<Server>,
    /// What is dropped where.
    #[serde(default)]
    pub(crate) filter: Vec<Filter>,
    /// Links that take shorter packets only.
    #[serde(default)]
    pub(crate) narrow: Vec<Narrow>,
    /// What is delayed, lost, duplicated or reordered where.
    #[serde(default)]
    pub(crate) impair: Vec<Impair>,
    /// Which packets take another router.
    #[serde(default)]
    pub(crate) detour: Vec<Detour>,
    /// What is sent on from another source.
    #[serde(default)]
    pub(crate) rewrite: Vec<Rewrite>,
    /// The runs, and what is expected of them.
    pub(crate) run: Vec<Run>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    /// Routers that never send ICMP.
    pub(crate) silent_routers: Vec<String>,
    /// Routers quote the IP header and 8 octets only.
    pub(crate) minimal_quotes: bool,
    /// So many ICMP errors a second each router sends in all, to whomever.
    pub(crate) router_icmp_per_second: Option<f64>,
    /// The MTU of every link.
    pub(crate) mtu: u32,
    /// How long a hop takes, in milliseconds.
    pub(crate) hop_ms: u64,
    /// How long agents take to answer, in milliseconds.
    pub(crate) agent_ms: u64,
    /// How long a host takes to list the rules of its firewall, and with counters: the one of INPUT for IPIP is all
    /// that is listed. Without it nothing is.
    pub(crate) listing_ms: Option<u64>,
    /// Packets that the taps of these hosts lose, as their statistics say.
    pub(crate) tap_drops: BTreeMap<String, u64>,
    /// Hosts whose agents are lost so many milliseconds after the start.
    pub(crate) lost_after_ms: BTreeMap<String, u64>,
    /// The user interrupts after so many milliseconds.
    pub(crate) interrupt_after_ms: Option<u64>,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            protocol: "tcp".to_owned(),
            silent_routers: Vec::new(),
            minimal_quotes: false,
            router_icmp_per_second: None,
            mtu: 1500,
            hop_ms: 1,
            agent_ms: 2,
            listing_ms: None,
            tap_drops: BTreeMap::new(),
            lost_after_ms: BTreeMap::new(),
            interrupt_after_ms: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Director {
    /// The outer source that its kernel chooses.
    pub(crate) outer_source: Ipv4Addr,
    /// Whether a route prefers that source, from which IPVS sends nothing unless it is the director's own.
    pub(crate) source_by_route: bool,
    /// Addresses that it has besides the DIP.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// The VIP is on-link on eth0.
    pub(crate) vip_on_link: bool,
    /// Hosts of its link, by the last octets of their hardware addresses, that claim the VIP.
    pub(crate) vip_claimed_by: Vec<u8>,
    /// The last octet of the first real server's hardware address, if it is the director's neighbour.
    pub(crate) realserver_on_link: Option<u8>,
    /// Whether it has the DIP.
    pub(crate) has_dip: bool,
    /// Whether the VIP is an address of its own.
    pub(crate) has_vip: bool,
    /// Whether only a policy rule, for what arrives by eth0, makes the VIP local.
    pub(crate) vip_by_rule: bool,
    /// Whether something else listens there on VIP:port.
    pub(crate) listens: bool,
    /// Whether IPVS has the service.
    pub(crate) service: bool,
    /// `rr` or `sh`.
    pub(crate) scheduler: String,
    /// Whether it has a route to the real servers.
    pub(crate) route: bool,
    /// The MTU of its device.
    pub(crate) mtu: u16,
    /// `net.ipv4.vs.pmtu_disc`.
    pub(crate) pmtu_disc: i64,
}

impl Default for Director {
    fn default() -> Director {
        Director {
            outer_source: super::DIP,
            source_by_route: false,
            addresses: Vec::new(),
            vip_on_link: false,
            vip_claimed_by: Vec::new(),
            realserver_on_link: None,
            has_dip: true,
            has_vip: true,
            vip_by_rule: false,
            listens: false,
            service: true,
            scheduler: "rr".to_owned(),
            route: true,
            mtu: 1500,
            pmtu_disc: 1,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Client {
    /// Its kernel answers nothing.
    pub(crate) silent: bool,
    /// A stateful firewall drops what it did not ask for.
    pub(crate) stateful: bool,
    /// It sends no ICMP errors at all.
    pub(crate) no_icmp: bool,
    /// It sends so many a second and no burst.
    pub(crate) icmp_per_second: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// Whether the path file names it; those that it does not name stand last.
    pub(crate) declared: bool,
    /// Whether IPVS knows it.
    pub(crate) in_ipvs: bool,
    /// `tunnel`, `route` or `masq`.
    pub(crate) method: String,
    pub(crate) weight: i32,
    /// How IPVS encapsulates: 0 ipip, 1 gue, 2 gre.
    pub(crate) tunnel_type: u8,
    /// Whether its kernel takes protocol 4.
    pub(crate) ipip: bool,
    /// The tunnel device; none if empty.
    pub(crate) tunnel: String,
    pub(crate) tunnel_up: bool,
    pub(crate) tunnel_local: Option<Ipv4Addr>,
    pub(crate) tunnel_remote: Option<Ipv4Addr>,
    /// It has another ipip device, to another host, with rp_filter 1.
    pub(crate) other_tunnel: bool,
    /// Behind an address translator: its own address is not the RIP.
    pub(crate) own_address: Option<Ipv4Addr>,
    pub(crate) rp_filter_all: i64,
    pub(crate) rp_filter_tunnel: i64,
    /// The device that has the VIP; none if empty.
    pub(crate) vip_on: String,
    /// Other addresses that it has, on lo.
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) listens: bool,
    /// The only address that the service is bound to, if it is none of the VIP.
    pub(crate) bound_to: Option<Ipv4Addr>,
    /// Its accept queue is full: the kernel drops SYNs, and counts them.
    pub(crate) queue_full: bool,
    /// A policy rule refuses what comes out of the tunnel.
    pub(crate) routing_refuses: bool,
    /// The segment size that its SYN-ACKs announce.
    pub(crate) mss: u16,
    /// Whether the service answers any datagram; a DNS server answers only questions.
    pub(crate) answers: bool,
    /// What comes out of the tunnel has wrong checksums.
    pub(crate) wrong_checksums: bool,
    /// Its kernel's limit of ICMP errors is used up by others.
    pub(crate) icmp_exhausted: bool,
    pub(crate) route: bool,
    /// The route to the client is one by a mark, which no question to the routing finds.
    pub(crate) route_by_mark: bool,
    pub(crate) ip_forward: bool,
    /// `all` or `own`: what a source NAT rewrites.
    pub(crate) snat: String,
    pub(crate) arp_announce: i64,
    /// A patched kernel that hides the VIP.
    pub(crate) hidden: bool,
    /// An arptables rule gives the kernel's requests the real server's own address as their sender.
    pub(crate) arptables: bool,
    pub(crate) permanent_neighbour: bool,
    /// How long it takes to forget the gateway's entry; what it sends until then leaves.
    pub(crate) forgets_after_ms: u64,
    /// eth0's prefix contains the VIP.
    pub(crate) vip_on_link: bool,
    /// Hosts of its link, by the last octets of their hardware addresses, that claim the VIP.
    pub(crate) vip_claimed_by: Vec<u8>,
    /// It takes tunnelled packets from the DIP only.
    pub(crate) protected: bool,
    pub(crate) gateway_answers: bool,
    pub(crate) gateway_answers_vip: bool,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            declared: true,
            in_ipvs: true,
            method: "tunnel".to_owned(),
            weight: 1,
            tunnel_type: 0,
            ipip: true,
            tunnel: "tunl0".to_owned(),
            tunnel_up: true,
            tunnel_local: None,
            tunnel_remote: None,
            other_tunnel: false,
            own_address: None,
            rp_filter_all: 0,
            rp_filter_tunnel: 0,
            vip_on: "tunl0".to_owned(),
            addresses: Vec::new(),
            listens: true,
            bound_to: None,
            queue_full: false,
            routing_refuses: false,
            mss: 1460,
            answers: true,
            wrong_checksums: false,
            icmp_exhausted: false,
            route: true,
            route_by_mark: false,
            ip_forward: false,
            snat: String::new(),
            arp_announce: 0,
            hidden: false,
            arptables: false,
            permanent_neighbour: false,
            forgets_after_ms: 0,
            vip_on_link: false,
            vip_claimed_by: Vec::new(),
            protected: true,
            gateway_answers: true,
            gateway_answers_vip: true,
        }
    }
}

/// Drops what satisfies every field given. On a host it is a rule of INPUT or OUTPUT, or a device that lets nothing out
/// and says nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// A router (`gw`, `isp`, `core`, `r1`, `rd`) or a host (`c`, `d`, `s`).
    pub(crate) at: String,
    /// On a host: `input`, `output` or `device`.
    #[serde(default)]
    pub(crate) hook: String,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) protocol: Option<u8>,
    pub(crate) destination_port: Option<u16>,
    /// Only until so many milliseconds after the start.
    pub(crate) until_ms: Option<u64>,
    /// ICMP type and code with which a router says so.
    pub(crate) reject: Option<(u8, u8)>,
}

/// A router that passes no packet with DF of more than `octets`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Narrow {
    pub(crate) at: String,
    pub(crate) octets: u16,
    /// It does not say so.
    #[serde(default)]
    pub(crate) silent: bool,
    /// It says so without the MTU, as before RFC 1191.
    #[serde(default)]
    pub(crate) untold: bool,
}

/// What happens to packets on their way into a router or host.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Impair {
    pub(crate) at: String,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) delay_ms: u64,
    /// Up to so much more delay, different for each packet.
    pub(crate) jitter_ms: u64,
}

/// A second router beside one of the tree: for the packets to a destination (asymmetric routes), or for a
/// share of the flows (ECMP).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Detour {
    /// The router of the tree.
    pub(crate) at: String,
    /// The other, such as `ispb`.
    pub(crate) by: String,
    #[serde(default = "whole")]
    pub(crate) share: f64,
    pub(crate) destination: Option<Ipv4Addr>,
}

fn whole() -> f64 {
    1.0
}

/// A router that translates sources.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rewrite {
    pub(crate) at: String,
    pub(crate) source: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    /// Ports as well, as masquerading may.
    #[serde(default)]
    pub(crate) ports: bool,
    pub(crate) protocol: Option<u8>,
}

/// One run, or one for each seed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// Of `director`, `realserver` and `client`.
    pub(crate) vantages: Vec<String>,
    #[serde(default = "one_seed")]
    pub(crate) seeds: Vec<u64>,
    /// `proven`, `broken` or `unproven`.
    pub(crate) outcome: String,
    /// The first broken hop.
    pub(crate) broken: Option<String>,
    /// Codes that must be among the findings.
    #[serde(default)]
    pub(crate) codes: Vec<String>,
    /// Whether no other error may be among them.
    #[serde(default = "yes")]
    pub(crate) only: bool,
    /// Codes that must not be among them.
    #[serde(default)]
    pub(crate) forbidden: Vec<String>,
    /// Hops that must be proven.
    #[serde(default)]
    pub(crate) proven: Vec<String>,
    /// Hops that must not be proven.
    #[serde(default)]
    pub(crate) not_proven: Vec<String>,
    /// What some summary or reason must contain.
    #[serde(default)]
    pub(crate) says: Vec<String>,
    /// How long it may take, in milliseconds of the network's time.
    #[serde(default = "ten_seconds")]
    pub(crate) within_ms: u64,
    /// Of which path; all, if not given.
    pub(crate) path: Option<usize>,
}

fn one_seed() -> Vec<u64> {
    vec![1]
}

fn yes() -> bool {
    true
}

fn ten_seconds() -> u64 {
    10_000
}
