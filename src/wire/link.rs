//! What stands before the network header in a capture file: the link headers that Linux's captures have.
//!
//! Layouts: <https://www.tcpdump.org/linktypes.html>.

use std::fmt;

use crate::wire::Bound;
use crate::wire::EtherType;

/// What the packets of an interface begin with, a `LINKTYPE_` number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: the address family in the capturing host's byte order.
    pub const NULL: LinkType = LinkType(0);
    /// Ethernet.
    pub const ETHERNET: LinkType = LinkType(1);
    /// The network header at once (`DLT_RAW` of most systems, which some programs write).
    pub const RAW_12: LinkType = LinkType(12);
    /// The same, of OpenBSD.
    pub const RAW_14: LinkType = LinkType(14);
    /// The network header at once.
    pub const RAW: LinkType = LinkType(101);
    /// OpenBSD loopback: the address family in network byte order.
    pub const LOOP: LinkType = LinkType(108);
    /// Linux cooked, of `tcpdump -i any` before libpcap 1.10 and of PPP.
    pub const LINUX_SLL: LinkType = LinkType(113);
    /// The IPv4 header at once.
    pub const IPV4: LinkType = LinkType(228);
    /// Linux cooked, version 2, of `tcpdump -i any`.
    pub const LINUX_SLL2: LinkType = LinkType(276);

    /// Its name in tcpdump's list, if tunproof reads it.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            LinkType::NULL => "NULL",
            LinkType::ETHERNET => "ETHERNET",
            LinkType::RAW | LinkType::RAW_12 | LinkType::RAW_14 => "RAW",
            LinkType::LOOP => "LOOP",
            LinkType::LINUX_SLL => "LINUX_SLL",
            LinkType::IPV4 => "IPV4",
            LinkType::LINUX_SLL2 => "LINUX_SLL2",
            _ => return None,
        })
    }
}

/// `ETHERNET (1)`; of one that tunproof does not read, the number only.
impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(&format!("{name} ({})", self.0)),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// A packet without its link header, and what that said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFrame<'a> {
    /// What follows.
    pub ether_type: u16,
    /// Which way it went, where the header says.
    pub bound: Option<Bound>,
    /// The interface's index, where the header says.
    pub interface_index: Option<u32>,
    /// `ARPHRD_*` of the device, where it is known.
    pub hardware: Option<u16>,
    /// The sender's hardware address, where there is one of 6 octets.
    pub link_source: Option<[u8; 6]>,
    /// The identifiers of its VLAN tags (802.1Q, 802.1ad), outermost first.
    pub vlans: Vec<u16>,
    /// Octets before the network header.
    pub header: usize,
    /// The packet from its network header on.
    pub network: &'a [u8],
}

/// Why a link header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// tunproof does not know the link type.
    #[error(
        "link type {} is none that tunproof reads: NULL, ETHERNET, RAW, LOOP, LINUX_SLL, IPV4, LINUX_SLL2", .0.0
    )]
    Unknown(LinkType),
    /// It is cut off.
    #[error("the link header of type {0} is cut off")]
    Cut(LinkType),
}

const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

const IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what was in use before that.
const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const PPPOE_SESSION: u16 = 0x8864;

/// Takes the link header off a packet.
///
/// # Errors
///
/// [`LinkError`].
pub fn link_frame(link_type: LinkType, packet: &[u8]) -> Result<LinkFrame<'_>, LinkError> {
    let cut = LinkError::Cut(link_type);
    let mut frame = LinkFrame {
        ether_type: 0,
        bound: None,
        interface_index: None,
        hardware: None,
        link_source: None,
        vlans: Vec::new(),
        header: 0,
        network: packet,
    };
    match link_type {
        LinkType::ETHERNET => {
            let header = packet.get(..14).ok_or(cut)?;
            frame.ether_type = u16_at(header, 12);
            frame.hardware = Some(ARPHRD_ETHER);
            frame.link_source = header[6..12].try_into().ok();
            frame.header = 14;
        }
        LinkType::LINUX_SLL => {
            let header = packet.get(..16).ok_or(cut)?;
            frame.bound = Some(bound(u16_at(header, 0)));
            frame.hardware = Some(u16_at(header, 2));
            frame.link_source = link_source(u16_at(header, 4), &header[6..12]);
            frame.ether_type = u16_at(header, 14);
            frame.header = 16;
        }
        LinkType::LINUX_SLL2 => {
            let header = packet.get(..20).ok_or(cut)?;
            frame.ether_type = u16_at(header, 0);
            let index = u32::from(u16_at(header, 4)) << 16 | u32::from(u16_at(header, 6));
            frame.interface_index = Some(index);
            frame.hardware = Some(u16_at(header, 8));
            frame.bound = Some(bound(u16::from(header[10])));
            frame.link_source = link_source(u16::from(header[11]), &header[12..18]);
            frame.header = 20;
        }
        LinkType::NULL | LinkType::LOOP => {
            let family = packet.get(..4).ok_or(cut)?;
            const AF_INET: u8 = 2;
            if let [0, 0, 0, AF_INET] | [AF_INET, 0, 0, 0] = family {
                frame.ether_type = EtherType::IPV4;
            }
            frame.hardware = Some(ARPHRD_LOOPBACK);
            frame.header = 4;
        }
        LinkType::RAW | LinkType::RAW_12 | LinkType::RAW_14 | LinkType::IPV4 => {
            frame.ether_type = match packet.first().ok_or(cut)? >> 4 {
                4 => EtherType::IPV4,
                6 => IPV6,
                _ => 0,
            };
        }
        other => return Err(LinkError::Unknown(other)),
    }
    frame.inner_headers().ok_or(cut)
}

impl LinkFrame<'_> {
    /// Goes on behind VLAN tags and PPPoE.
    fn inner_headers(mut self) -> Option<Self> {
        let packet = self.network;
        while VLAN.contains(&self.ether_type) {
            let tag = packet.get(self.header..self.header + 4)?;
            self.vlans.push(u16_at(tag, 0) & 0x0fff);
            self.ether_type = u16_at(tag, 2);
            self.header += 4;
        }
        if self.ether_type == PPPOE_SESSION {
            // Version and type, code, session, length (RFC 2516 §4), and PPP's protocol.
            let header = packet.get(self.header..self.header + 8)?;
            const PPP_IPV4: u16 = 0x0021;
            if u16_at(header, 6) == PPP_IPV4 {
                self.ether_type = EtherType::IPV4;
                self.header += 8;
            }
        }
        self.network = packet.get(self.header..)?;
        Some(self)
    }
}

/// By `PACKET_HOST`, `_BROADCAST`, `_MULTICAST`, `_OTHERHOST` (0 to 3) and `_OUTGOING` (4).
fn bound(packet_type: u16) -> Bound {
    match packet_type {
        4 => Bound::Out,
        _ => Bound::In,
    }
}

fn link_source(length: u16, octets: &[u8]) -> Option<[u8; 6]> {
    octets.try_into().ok().filter(|_| length == 6)
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}
