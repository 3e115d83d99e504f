//! A packet as a tap saw it.

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Wall;
use crate::exchange::hexadecimal;

/// Which way a packet went, seen from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It arrived (`PACKET_HOST`, `_BROADCAST`, `_MULTICAST`, `_OTHERHOST`).
    In,
    /// It left (`PACKET_OUTGOING`).
    Out,
}

/// A packet as a tap saw it, from its network header on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// The kernel's time stamp (`SO_TIMESTAMPNS`).
    pub time: Wall,
    /// The device's name.
    pub device: String,
    /// `ARPHRD_*` of the device: 1 Ethernet, 768 tunnel, 772 loopback, 65534 none.
    pub hardware: u16,
    /// Which way.
    pub direction: Direction,
    /// EtherType: 0x0800 IPv4, 0x0806 ARP.
    pub protocol: u16,
    /// The sender's hardware address, where the device has one.
    pub link_source: Option<[u8; 6]>,
    /// The packet.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
    /// Its length on the wire from the network header on; more than `bytes` has if it was cut off.
    pub original_length: u32,
}

impl Capture {
    /// EtherType of IPv4.
    pub const IPV4: u16 = 0x0800;
    /// EtherType of ARP.
    pub const ARP: u16 = 0x0806;
}
