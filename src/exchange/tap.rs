//! What a tap shall see, and how well it saw.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

/// The addresses of one path, for the kernel filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapPath {
    /// The VIP.
    pub vip: Ipv4Addr,
    /// The CIP; 0.0.0.0 where a listener does not know it: then RSTs and ICMP errors to the VIP are seen,
    /// whoever sends them, and nothing else.
    pub cip: Ipv4Addr,
    /// The DIP, if known.
    pub dip: Option<Ipv4Addr>,
    /// The RIP.
    pub rip: Ipv4Addr,
    /// The real server's gateway, if known.
    pub gateway: Option<Ipv4Addr>,
}

/// Exactly the paths' packets: the union over `paths` of
///
/// - IPv4 protocol 4 whose inner header goes from CIP or DIP to VIP;
/// - IPv4 between CIP and VIP, between DIP and VIP, between CIP and RIP; of TCP between CIP and RIP only
///   segments with SYN or RST, lest an agent that is reached by ssh from the client sees its own words;
/// - UDP from DIP to RIP, to traceroute's ports (33434 to 33523);
/// - ICMP errors (types 3, 4, 5, 11, 12) to VIP, DIP, RIP or CIP;
/// - ARP (Ethernet, IPv4) whose sender or target protocol address is the VIP, the gateway or the RIP;
/// - if suites write packets out, IPv4 between any two of VIP, CIP, DIP and RIP, and in protocol 4 also inside, or inside
///   of that: of UDP and TCP only what has one of the ports `scripted`, lest an agent sees its own words, or what is
///   too odd to tell (options, another version, a later fragment, too short); and ARP about any of them;
/// - to `rewritten`, from whatever source: UDP to closed ports and SYN-ACKs to ports from
///   49152 on: a probe whose source somebody on the way has changed, or, where that is the DIP, one from the RIP; and RSTs
///   from it and such ports, which answer them.
///
/// The tap is one AF_PACKET `SOCK_DGRAM` socket of all devices, so packets start at their network header
/// and a packet that takes an unexpected device is seen all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSpec {
    /// The paths.
    pub paths: Vec<TapPath>,
    /// The CIP, on the client: probes for it are seen whatever became of their source. The DIP, on the director and the
    /// real server, if probes go there.
    #[serde(default)]
    pub rewritten: Option<Ipv4Addr>,
    /// The source ports of the packets that suites write out; `None` if they write none out.
    #[serde(default)]
    pub scripted: Option<BTreeSet<u16>>,
}

/// How well a tap saw: a silence counts only if it lost nothing (`PACKET_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapStatistics {
    /// Packets that passed the filter.
    pub received: u64,
    /// Packets that passed the filter and were lost for want of room.
    pub dropped: u64,
}
