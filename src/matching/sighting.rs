//! What a packet of ours says.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::ProbeId;

/// A tunnel header as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outer {
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// Outer time to live.
    pub ttl: u8,
    /// Outer identification.
    pub identification: u16,
}

/// How much of the identity the packet showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// One 16-bit field only: the inner identification in a minimal quote of a tunnel, and in one of a datagram
    /// whose checksum is not as sent, which ports go with.
    Minimal,
    /// 32 bits or more: identification with checksum, both identifications, a TCP cookie.
    Fields,
    /// The 64-bit tag of the payload.
    Tag,
}

/// A packet recognised as a probe, or as the answer to one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Which probe.
    pub probe: ProbeId,
    /// In which form.
    pub form: Form,
    /// How sure.
    pub certainty: Certainty,
    /// The source of the outermost IP header: of an ICMP error, the router or host that sent it.
    pub source: Ipv4Addr,
    /// The destination of the outermost IP header.
    pub destination: Ipv4Addr,
    /// The time to live of the outermost IP header.
    pub ttl: u8,
    /// The tunnel header: the packet's own, or the quoted one.
    pub outer: Option<Outer>,
    /// The flow of the probe's own header as seen (in an error: as quoted; in an answer: the answer's own,
    /// so with the ends exchanged), as far as it was there.
    pub flow: Option<Flow>,
    /// The time to live of the probe's own header as seen or quoted; `None` in answers and short quotes.
    pub inner_ttl: Option<u8>,
    /// The time to live with which the probe was sent, where its payload was there to say so.
    pub sent_ttl: Option<u8>,
    /// In an error: how many octets of the probe (from its outermost header on) were quoted.
    pub quoted: Option<u16>,
    /// In "fragmentation needed": the next hop's MTU, if it tells one.
    pub next_hop_mtu: Option<u16>,
    /// In a SYN-ACK: the maximum segment size that it announces, if any.
    pub maximum_segment_size: Option<u16>,
}

/// A field that differs from what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alteration {
    /// The field's name, such as `source address`, `identification`, `UDP checksum`.
    pub field: String,
    /// What was sent.
    pub sent: String,
    /// What was seen.
    pub seen: String,
}
