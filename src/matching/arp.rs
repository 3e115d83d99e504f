//! What an ARP packet says.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::wire;
use crate::wire::Octets;

/// An ARP packet for IPv4 on Ethernet (RFC 826).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arp {
    /// Request (1) or reply (2).
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: [u8; 6],
    /// Sender protocol address: `tell` of a request, the address that `is-at` of a reply.
    pub sender: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: [u8; 6],
    /// Target protocol address: `who-has` of a request.
    pub target: Ipv4Addr,
}

impl Arp {
    /// A request.
    pub const REQUEST: u16 = 1;
    /// A reply.
    pub const REPLY: u16 = 2;

    /// The ARP packet in `packet`, if it is one for IPv4 on Ethernet.
    pub fn read(packet: &[u8]) -> Option<Arp> {
        let arp = wire::Arp::checked(Octets::new(packet)).ok()?;
        Some(Arp {
            operation: arp.operation,
            sender_mac: arp.sender_mac.0,
            sender: arp.sender_ip,
            target_mac: arp.target_mac.0,
            target: arp.target_ip,
        })
    }

    /// Whether tunproof sent it: its requests fill the target hardware address, which RFC 826 leaves open,
    /// with ones, as `arping` does; kernels leave it zero.
    pub fn is_ours(&self) -> bool {
        self.operation == Self::REQUEST && self.target_mac == [0xff; 6]
    }
}
