//! The layers a packet is made of, as values.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::wire::Mac;
use crate::wire::TcpFlags;

/// A field that follows from the rest of the packet, unless it is forced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Field<T> {
    /// What a correct packet has.
    #[default]
    Derived,
    /// This, right or wrong.
    Forced(T),
}

/// One layer of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// An Ethernet II header.
    Ethernet(Ethernet),
    /// An ARP packet for IPv4 on Ethernet; nothing follows it.
    Arp(Arp),
    /// An IPv4 header; followed by another it is IPIP (RFC 2003).
    Ipv4(Ipv4),
    /// A UDP header.
    Udp(Udp),
    /// A TCP header.
    Tcp(Tcp),
    /// An ICMPv4 header; the datagram that an error quotes follows as layers of its own, or raw.
    Icmpv4(Icmpv4),
    /// Octets as they are.
    Raw(Vec<u8>),
}

/// An Ethernet II header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ethernet {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// EtherType; derived from the next layer.
    pub ethertype: Field<u16>,
}

/// An ARP packet for IPv4 on Ethernet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arp {
    /// Operation: 1 request, 2 reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

/// An IPv4 header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4 {
    /// Version; derived 4.
    pub version: Field<u8>,
    /// Header length in 32-bit words; derived from the options.
    pub header_length: Field<u8>,
    /// Type of service.
    pub type_of_service: u8,
    /// Total length in octets; derived from what follows.
    pub total_length: Field<u16>,
    /// Identification.
    pub identification: u16,
    /// The reserved bit before the other two flags (RFC 3514's).
    pub reserved_flag: bool,
    /// Don't fragment.
    pub dont_fragment: bool,
    /// More fragments.
    pub more_fragments: bool,
    /// Fragment offset in units of 8 octets, below 8192.
    pub fragment_offset: u16,
    /// Time to live.
    pub time_to_live: u8,
    /// Protocol; derived from the next layer, 253 (RFC 3692) before raw octets.
    pub protocol: Field<u8>,
    /// Header checksum; derived over the header as it is, forced fields included.
    pub header_checksum: Field<u16>,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Options; padded with zero to 32 bits.
    pub options: Vec<u8>,
}

impl Ipv4 {
    /// A header between two addresses: time to live 64, identification 0, no flags, everything else derived.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Ipv4 {
        Ipv4 {
            version: Field::Derived,
            header_length: Field::Derived,
            type_of_service: 0,
            total_length: Field::Derived,
            identification: 0,
            reserved_flag: false,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol: Field::Derived,
            header_checksum: Field::Derived,
            source,
            destination,
            options: Vec::new(),
        }
    }

    /// Where it goes in the end: the last hop of a source route, which is the destination when it gets there
    /// (RFC 791 §3.1), and so what checksums cover.
    pub fn final_destination(&self) -> Ipv4Addr {
        const NOTHING: u8 = 1;
        let mut rest = &self.options[..];
        while let [kind, more @ ..] = rest {
            let length = match (*kind, more.first()) {
                (NOTHING, _) => 1,
                (0, _) | (_, None | Some(0 | 1)) => break,
                (_, Some(length)) => usize::from(*length),
            };
            let Some(option) = rest.get(..length) else {
                break;
            };
            let is_route = matches!(kind, 131 | 137) && length >= 7;
            if let (true, Some(last)) = (is_route, option.last_chunk::<4>()) {
                return (*last).into();
            }
            rest = &rest[length..];
        }
        self.destination
    }
}

/// A UDP header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Udp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length in octets; derived from what follows.
    pub length: Field<u16>,
    /// Checksum; a derived 0 is sent as 0xffff (RFC 768), a forced 0 means "none".
    pub checksum: Field<u16>,
}

impl Udp {
    /// A header with length and checksum derived.
    pub fn new(source_port: u16, destination_port: u16) -> Udp {
        Udp {
            source_port,
            destination_port,
            length: Field::Derived,
            checksum: Field::Derived,
        }
    }
}

/// A TCP header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcp {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence_number: u32,
    /// Acknowledgment number.
    pub acknowledgment_number: u32,
    /// Header length in 32-bit words; derived from the options.
    pub data_offset: Field<u8>,
    /// The four reserved bits.
    pub reserved: u8,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window.
    pub window: u16,
    /// Checksum.
    pub checksum: Field<u16>,
    /// Urgent pointer.
    pub urgent_pointer: u16,
    /// Options; padded with zero to 32 bits.
    pub options: Vec<u8>,
}

impl Tcp {
    /// A header with these ports and flags; numbers and window 0, no options.
    pub fn new(source_port: u16, destination_port: u16, flags: TcpFlags) -> Tcp {
        Tcp {
            source_port,
            destination_port,
            sequence_number: 0,
            acknowledgment_number: 0,
            data_offset: Field::Derived,
            reserved: 0,
            flags,
            window: 0,
            checksum: Field::Derived,
            urgent_pointer: 0,
            options: Vec::new(),
        }
    }
}

/// An ICMPv4 header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icmpv4 {
    /// Type.
    pub icmp_type: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub checksum: Field<u16>,
    /// Octets 4 to 7, whose meaning depends on the type.
    pub rest: [u8; 4],
}

impl Icmpv4 {
    /// An echo request (type 8).
    pub fn echo(identifier: u16, sequence_number: u16) -> Icmpv4 {
        let ([i1, i2], [s1, s2]) = (identifier.to_be_bytes(), sequence_number.to_be_bytes());
        Icmpv4 {
            rest: [i1, i2, s1, s2],
            ..Icmpv4::error(crate::wire::Icmpv4::ECHO, 0)
        }
    }

    /// An error whose octets 4 to 7 are unused; the quoted datagram follows as layers.
    pub fn error(icmp_type: u8, code: u8) -> Icmpv4 {
        Icmpv4 {
            icmp_type,
            code,
            checksum: Field::Derived,
            rest: [0; 4],
        }
    }
}
