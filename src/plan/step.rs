//! What a suite does for one path, step by step: values, nothing left to look up.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Packet;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::plan::Toward;
use crate::wire::Mac;

/// A suite, as it is played on one path: variables replaced, loops unrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// What it shows, in one sentence; possibly empty.
    pub about: String,
    /// What is done, in the order of the file.
    pub steps: Vec<Step>,
    /// Hops that must be proven for the suite to pass.
    pub hops: Vec<Hop>,
}

/// One thing to do, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name, unique in the suite.
    pub id: String,
    /// What it is for, in one sentence; possibly empty.
    pub about: String,
    /// What is done.
    pub action: Action,
    /// How long after the start, or after the end of the last step that it waits for.
    pub start: Duration,
    /// The steps that must be over before, by their place in the suite; they stand before it.
    pub after: Vec<After>,
    /// It is left out unless tunproof runs on all of these.
    pub with: Vec<Role>,
    /// It is left out if tunproof runs on one of these.
    pub without: Vec<Role>,
    /// What must come of it, besides the itinerary of a kind of probe.
    pub expect: Vec<Expectation>,
}

/// A step that must be over before another begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// Its place in the suite.
    pub step: usize,
    /// Whether the other is played although this one failed.
    pub go_on: bool,
}

impl Role {
    /// The host that has it on path number `path`.
    pub fn host(self, path: usize) -> Host {
        match self {
            Role::Director => Host::Director,
            Role::Realserver => Host::Realserver(path),
            Role::Client => Host::Client,
        }
    }
}

/// A host by its role: each path has one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The load balancer.
    Director,
    /// The path's real server.
    Realserver,
    /// The client.
    Client,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::Director, Role::Realserver, Role::Client];

    /// Its name in suites.
    pub fn id(self) -> &'static str {
        match self {
            Role::Director => "director",
            Role::Realserver => "realserver",
            Role::Client => "client",
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// One of the things that tunproof knows how to do.
    Builtin(Builtin),
    /// Packets written out.
    Script(Script),
    /// A question to a host about itself.
    Ask(Question),
}

/// A built-in action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builtin {
    /// Which.
    pub task: Task,
    /// So often, no more and no less; `None` until its itinerary is complete, six times at most.
    pub count: Option<u16>,
    /// At least so often, even if the first went all the way.
    pub at_least: u16,
    /// Between two of them, where they are counted; 100 ms, unless it is said.
    pub interval: Duration,
    /// Times to live of the outermost header; empty is the full one.
    pub ttls: Vec<u8>,
    /// Octets of the whole packet, with DF; empty is as few as it takes.
    pub sizes: Vec<u16>,
    /// How many flows are asked, by what asks several.
    pub flows: u16,
    /// To whom they go, of what can go to either.
    #[serde(default)]
    pub toward: Toward,
}

impl Builtin {
    /// How often a step is tried at most, if its count is not said.
    pub const MOST_TRIES: u16 = 6;
}

/// What tunproof knows how to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Probes of a kind.
    Probe(ProbeKind),
    /// `resolve-gateway`: the neighbour entry of the real server's gateway goes, so that its kernel must ask.
    ResolveGateway,
    /// `who-has-gateway`: ARP for the gateway, told to the real server's own address.
    WhoHasGateway,
    /// `who-has-gateway-tell-vip`: told to the VIP, where that announces nothing wrong.
    WhoHasGatewayTellVip,
    /// `who-has-vip`: every host that claims the VIP, at the real server.
    WhoHasVip,
    /// `who-has-vip-on-director`: the same at the director.
    WhoHasVipOnDirector,
    /// `connect`: a real connection by the client, once crafted packets went all the way.
    Connect,
    /// `spoof-sweep`: spoof-trace and control-trace by time to live, while the VIP's packets do not reach the
    /// client.
    SpoofSweep,
    /// `tunnel-sweep`: tunnel-trace and tunnel-control by time to live, while tunnelled packets do not arrive.
    TunnelSweep,
    /// `mtu-search`: the largest packet that passes the tunnel.
    MtuSearch,
    /// `more-flows`: spoof-synack in other flows, for equal paths of which one filters.
    MoreFlows,
    /// `spoof-passes`: several flows from the VIP, each with its control, by UDP and by SYN-ACK, by every time to live
    /// and the full one, in `count` passes that begin `interval` apart.
    SpoofPasses,
}

impl Task {
    /// Every task that is no kind of probe.
    const OTHERS: [Task; 11] = [
        Task::ResolveGateway,
        Task::WhoHasGateway,
        Task::WhoHasGatewayTellVip,
        Task::WhoHasVip,
        Task::WhoHasVipOnDirector,
        Task::Connect,
        Task::SpoofSweep,
        Task::TunnelSweep,
        Task::MtuSearch,
        Task::MoreFlows,
        Task::SpoofPasses,
    ];

    /// Every task that a suite can name.
    pub fn all() -> Vec<Task> {
        let kinds = ProbeKind::ALL.into_iter();
        // What a suite writes out, it names by its layers.
        let kinds = kinds.filter(|kind| *kind != ProbeKind::Script);
        kinds.map(Task::Probe).chain(Self::OTHERS).collect()
    }

    /// Its name in suites.
    pub fn id(self) -> &'static str {
        match self {
            Task::Probe(kind) => kind.id(),
            Task::ResolveGateway => "resolve-gateway",
            Task::WhoHasGateway => "who-has-gateway",
            Task::WhoHasGatewayTellVip => "who-has-gateway-tell-vip",
            Task::WhoHasVip => "who-has-vip",
            Task::WhoHasVipOnDirector => "who-has-vip-on-director",
            Task::Connect => "connect",
            Task::SpoofSweep => "spoof-sweep",
            Task::TunnelSweep => "tunnel-sweep",
            Task::MtuSearch => "mtu-search",
            Task::MoreFlows => "more-flows",
            Task::SpoofPasses => "spoof-passes",
        }
    }

    /// Whether a suite may say how often: a sweep or a search ends when it knows, and a connection is made
    /// once.
    pub fn is_counted(self) -> bool {
        !matches!(
            self,
            Task::Connect
                | Task::SpoofSweep
                | Task::TunnelSweep
                | Task::MtuSearch
                | Task::MoreFlows
        )
    }
}

/// Packets written out, outermost layer first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// Which host sends them.
    pub from: Role,
    /// Each, in the order of sending.
    pub packets: Vec<Packet>,
    /// Between two of them.
    pub interval: Duration,
    /// The device that packets leave by which start at an Ethernet header; `None` is the one that the host's
    /// route to their destination names.
    pub device: Option<String>,
}

/// A question to a host about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Which host.
    pub host: Role,
    /// What.
    pub about: Subject,
}

/// What is asked, with the answer that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// `ip route get TO [from FROM] [iif IIF]`
    Route {
        /// To where.
        to: Ipv4Addr,
        /// From which source.
        from: Option<Ipv4Addr>,
        /// As if it had come in there.
        iif: Option<String>,
        /// The source that the kernel must choose.
        source: Option<Ipv4Addr>,
        /// The device that it must leave by.
        device: Option<String>,
        /// The next hop that it must take.
        gateway: Option<Ipv4Addr>,
    },
    /// `sysctl NAME`, such as `net.ipv4.ip_forward`
    Sysctl {
        /// The name, with dots.
        name: String,
        /// What it must be.
        value: String,
    },
    /// `ip addr`: whether the host has the address.
    Address {
        /// Which.
        address: Ipv4Addr,
        /// Whether it must have it.
        present: bool,
    },
}

/// What must be seen of a step's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expectation {
    /// Where.
    pub at: Place,
    /// What.
    pub see: See,
    /// The source of its outermost header: of an ICMP error, who sent it.
    pub from: Option<Ipv4Addr>,
    /// How soon after the packet was sent; two seconds, unless it is said.
    pub within: Duration,
    /// Of how many of the step's packets it must be seen; `None` is of all. 0 where a suite says only how
    /// many at most.
    pub at_least: Option<u16>,
    /// And of how many at most; 0 is never.
    pub at_most: Option<u16>,
    /// What must be true of each packet that counts.
    pub fields: Vec<Condition>,
}

impl Expectation {
    /// That an answer of whatever kind comes back to the real server, however late.
    pub fn answered() -> Expectation {
        Expectation {
            at: Place::Station(Station::RealserverArp),
            see: See::Reply,
            from: None,
            within: Duration::MAX,
            at_least: None,
            at_most: None,
            fields: Vec::new(),
        }
    }

    /// Whether too much can be seen of it, so that only silence can meet it.
    pub fn is_limited(&self) -> bool {
        self.at_most.is_some()
    }
}

/// Where something must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// At a station.
    Station(Station),
    /// Anywhere on a host.
    Host(Role),
}

/// What must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum See {
    /// `probe`: the packet as it was sent.
    Probe,
    /// `tunnelled`: encapsulated, whoever did it.
    Tunnelled,
    /// `decapsulated`: what was inside.
    Decapsulated,
    /// `syn-ack`
    SynAck,
    /// `rst`: the answer to a SYN-ACK nobody asked for.
    Rst,
    /// `refused`: the RST/ACK of a closed port.
    Refused,
    /// `reply`: a datagram back, an echo reply, an ARP reply.
    Reply,
    /// `icmp-error`, or `port-unreachable`, `time-exceeded`, `frag-needed` and so on.
    IcmpError {
        /// Its type; `None` is any.
        icmp_type: Option<u8>,
        /// Its code; `None` is any.
        code: Option<u8>,
    },
}

/// Something that must be true of a packet's field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which layer, counted from the outermost of its kind: `ipv4`, `ipv4.1` (the inner), `udp`, `tcp`, `icmp`, `arp`.
    pub layer: String,
    /// Which field, by its name in a suite: `ttl`, `id`, `src`.
    pub field: String,
    /// What must be true of it.
    pub test: Test,
}

impl Condition {
    /// A value of its field, as people write it.
    pub fn shown(&self, value: u64) -> String {
        let is_hardware = self.layer == "ethernet" && self.field != "type";
        match (self.field.as_str(), u32::try_from(value)) {
            ("hwsrc" | "hwdst", _) => Mac::from_bits(value).to_string(),
            ("src" | "dst", _) if is_hardware => Mac::from_bits(value).to_string(),
            ("src" | "dst" | "psrc" | "pdst" | "gateway", Ok(address)) => {
                Ipv4Addr::from(address).to_string()
            }
            _ => value.to_string(),
        }
    }
}

/// What must be true of a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// It has this value: addresses as numbers, hardware addresses too, flags as the bits in the header (IPv4:
    /// three with the reserved bit first; TCP: nine with NS first), numbers in the units of the header.
    Equals(u64),
    /// It lies between these, both included.
    Between(u64, u64),
    /// It has the value with which it was sent.
    Unchanged,
    /// It has fallen by so much since it was sent.
    DecrementedBy(u64),
    /// It has the value with which another field was sent.
    Sent {
        /// Which layer of what was sent, as in [`Condition::layer`].
        layer: String,
        /// Which field of it.
        field: String,
    },
}
