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
    /// What is delayed, lost, duplicated or reordered where.
    #[serde(default)]
    pub(crate) impair: Vec<Impair>,
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
    /// How long a hop takes, in milliseconds.
    pub(crate) hop_ms: u64,
    /// How long agents take to answer, in milliseconds.
    pub(crate) agent_ms: u64,
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
            hop_ms: 1,
            agent_ms: 2,
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
    /// Whether the VIP is an address of its own.
    pub(crate) has_vip: bool,
    /// Whether something else listens there on VIP:port.
    pub(crate) listens: bool,
    /// Whether IPVS has the service.
    pub(crate) service: bool,
    /// `rr` or `sh`.
    pub(crate) scheduler: String,
    /// Whether it has a route to the real servers.
    pub(crate) route: bool,
}

impl Default for Director {
    fn default() -> Director {
        Director {
            outer_source: super::DIP,
            has_vip: true,
            listens: false,
            service: true,
            scheduler: "rr".to_owned(),
            route: true,
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
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    /// Whether IPVS knows it.
    pub(crate) in_ipvs: bool,
    /// `tunnel`, `route` or `masq`.
    pub(crate) method: String,
    pub(crate) weight: i32,
    /// Whether its kernel takes protocol 4.
    pub(crate) ipip: bool,
    /// The tunnel device; none if empty.
    pub(crate) tunnel: String,
    pub(crate) tunnel_up: bool,
    pub(crate) tunnel_local: Option<Ipv4Addr>,
    pub(crate) tunnel_remote: Option<Ipv4Addr>,
    pub(crate) rp_filter_all: i64,
    pub(crate) rp_filter_tunnel: i64,
    /// The device that has the VIP; none if empty.
    pub(crate) vip_on: String,
    /// Other addresses that it has, on lo.
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) listens: bool,
    /// What comes out of the tunnel has wrong checksums.
    pub(crate) wrong_checksums: bool,
    /// Its kernel's limit of ICMP errors is used up by others.
    pub(crate) icmp_exhausted: bool,
    pub(crate) route: bool,
    pub(crate) ip_forward: bool,
    /// `all` or `own`: what a source NAT rewrites.
    pub(crate) snat: String,
    pub(crate) arp_announce: i64,
    /// A patched kernel that hides the VIP.
    pub(crate) hidden: bool,
    pub(crate) permanent_neighbour: bool,
    /// eth0's prefix contains the VIP.
    pub(crate) vip_on_link: bool,
    pub(crate) gateway_answers: bool,
    pub(crate) gateway_answers_vip: bool,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            in_ipvs: true,
            method: "tunnel".to_owned(),
            weight: 1,
            ipip: true,
            tunnel: "tunl0".to_owned(),
            tunnel_up: true,
            tunnel_local: None,
            tunnel_remote: None,
            rp_filter_all: 0,
            rp_filter_tunnel: 0,
            vip_on: "tunl0".to_owned(),
            addresses: Vec::new(),
            listens: true,
            wrong_checksums: false,
            icmp_exhausted: false,
            route: true,
            ip_forward: false,
            snat: String::new(),
            arp_announce: 0,
            hidden: false,
            permanent_neighbour: false,
            vip_on_link: false,
            gateway_answers: true,
            gateway_answers_vip: true,
        }
    }
}

/// Drops what satisfies every field given. On a host it is a rule of INPUT or OUTPUT.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// A router (`gw`, `isp`, `core`, `r1`, `rd`) or a host (`c`, `d`, `s`).
    pub(crate) at: String,
    /// On a host: `input` or `output`.
    #[serde(default)]
    pub(crate) hook: String,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) destination: Option<Ipv4Addr>,
    pub(crate) protocol: Option<u8>,
    pub(crate) destination_port: Option<u16>,
    /// ICMP type and code with which a router says so.
    pub(crate) reject: Option<(u8, u8)>,
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
