//! What an ARP packet says.

use std::net::Ipv4Addr;

use etherparse::ArpHardwareId;
use etherparse::ArpPacketSlice;
use etherparse::EtherType;

use serde::Deserialize;
use serde::Serialize;

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
        let slice = ArpPacketSlice::from_slice(packet).ok()?;
        if slice.hw_addr_type() != ArpHardwareId::ETHERNET
            || slice.proto_addr_type() != EtherType::IPV4
        {
            return None;
        }
        let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
        Some(Arp {
            operation: slice.operation().0,
            sender_mac: slice.sender_hw_addr().try_into().ok()?,
            sender: address(slice.sender_protocol_addr())?,
            target_mac: slice.target_hw_addr().try_into().ok()?,
            target: address(slice.target_protocol_addr())?,
        })
    }

    /// Whether tunproof sent it: its requests fill the target hardware address, which RFC 826 leaves open,
    /// with ones, as `arping` does; kernels leave it zero.
    pub fn is_ours(&self) -> bool {
        self.operation == Self::REQUEST && self.target_mac == [0xff; 6]
    }
}
