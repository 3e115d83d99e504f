//! Layers to octets.
//!
//! IP and transport headers are written in place with pnet_packet's mutable views, which know every
//! field's place and refuse none of its values; `wire` reads them with etherparse, so each can be held
//! against the other.

use std::net::Ipv4Addr;

use etherparse::ArpEthIpv4Packet;
use etherparse::ArpOperation;
use etherparse::EtherType as EtherparseType;
use etherparse::Ethernet2Header;
use pnet_packet::MutablePacket;
use pnet_packet::icmp::IcmpCode;
use pnet_packet::icmp::IcmpType;
use pnet_packet::icmp::MutableIcmpPacket;
use pnet_packet::ip::IpNextHeaderProtocol;
use pnet_packet::ipv4::MutableIpv4Packet;
use pnet_packet::tcp::MutableTcpPacket;
use pnet_packet::udp::MutableUdpPacket;

use crate::wire;
use crate::wire::Checksum;
use crate::wire::EtherType;
use crate::wire::IpProtocol;
use crate::wire::layers::Arp;
use crate::wire::layers::Ethernet;
use crate::wire::layers::Field;
use crate::wire::layers::Icmpv4;
use crate::wire::layers::Ipv4;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;
use crate::wire::layers::Udp;
use crate::wire::transport_checksum;

/// A packet, and in which fields it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crafted {
    /// The octets.
    pub bytes: Vec<u8>,
    /// The forced fields, outermost layer first; also those forced to what they would have been anyway.
    pub forced: Vec<Forced>,
}

/// A field that was forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    /// In which layer, counted from 0.
    pub layer: usize,
    /// Which field, in the RFC's words.
    pub field: &'static str,
    /// What it is.
    pub value: u32,
    /// What it would have been.
    pub derived: u32,
}

/// Why layers make no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CraftError {
    /// Options do not fit in the header.
    #[error("layer {layer}: {octets} octets of options, and a header has room for 40")]
    OptionsTooLong {
        /// Which layer, counted from 0.
        layer: usize,
        /// How long they are, padded.
        octets: usize,
    },
    /// A length field cannot hold the length.
    #[error(
        "layer {layer}: {octets} octets, and its length field holds 65535; force it, or send less"
    )]
    TooLong {
        /// Which layer, counted from 0.
        layer: usize,
        /// How long it is with what follows.
        octets: usize,
    },
    /// TCP and UDP checksums cover the addresses of the IPv4 header before.
    #[error(
        "layer {layer}: no IPv4 header before it to derive its checksum from; force the checksum"
    )]
    NoPseudoHeader {
        /// Which layer, counted from 0.
        layer: usize,
    },
    /// A layer does not have the field that is to carry the identity.
    #[error("layer {layer}: it has no {carrier} to carry the identity")]
    NoCarrier {
        /// Which layer, counted from 0.
        layer: usize,
        /// Which field.
        carrier: &'static str,
    },
    /// It starts at a header that nothing sends.
    #[error(
        "a packet starts at `ipv4`, which goes out by a raw socket, or at `ethernet`, which goes out of a device as it is"
    )]
    NoStart,
    /// A raw socket sends something else.
    #[error(
        "{field} is {value}, and the kernel would {instead} in what a raw socket sends; with an `ethernet` layer \
         before `ipv4` it goes out of a device as it is"
    )]
    NotByRawSocket {
        /// Which field, in the RFC's words.
        field: &'static str,
        /// What it is.
        value: u32,
        /// What the kernel would do.
        instead: String,
    },
}

/// The octets of `layers`, outermost first.
///
/// # Errors
/// Options or lengths that no header can hold; a checksum that depends on a header that is not there.
pub fn build(layers: &[Layer]) -> Result<Crafted, CraftError> {
    let mut crafted = Crafted {
        bytes: Vec::new(),
        forced: Vec::new(),
    };
    for (layer, content) in layers.iter().enumerate().rev() {
        let mut writer = Writer {
            layer,
            next: layers.get(layer + 1),
            addresses: layer
                .checked_sub(1)
                .and_then(|before| match &layers[before] {
                    Layer::Ipv4(ip) => Some((ip.source, ip.final_destination())),
                    _ => None,
                }),
            payload: std::mem::take(&mut crafted.bytes),
            forced: Vec::new(),
        };
        crafted.bytes = match content {
            Layer::Ethernet(ethernet) => writer.ethernet(ethernet),
            Layer::Arp(arp) => writer.arp(arp),
            Layer::Ipv4(ip) => writer.ipv4(ip)?,
            Layer::Udp(udp) => writer.udp(udp)?,
            Layer::Tcp(tcp) => writer.tcp(tcp)?,
            Layer::Icmpv4(icmp) => writer.icmpv4(icmp),
            Layer::Raw(octets) => [octets.as_slice(), &writer.payload].concat(),
        };
        writer.forced.append(&mut crafted.forced);
        crafted.forced = writer.forced;
    }
    Ok(crafted)
}

/// Writes one layer before what is already there.
struct Writer<'a> {
    layer: usize,
    next: Option<&'a Layer>,
    addresses: Option<(Ipv4Addr, Ipv4Addr)>,
    payload: Vec<u8>,
    forced: Vec<Forced>,
}

/// What a byte is that nobody wrote: visible in a dump, and in tests.
const UNWRITTEN: u8 = 0xa5;

/// What is wrong if a view does not open: a buffer is always made with room for its header.
const ROOM: &str = "the buffer has room for the header";

impl Writer<'_> {
    fn ethernet(&mut self, ethernet: &Ethernet) -> Vec<u8> {
        let next = match self.next {
            Some(Layer::Ipv4(_)) => EtherType::IPV4,
            Some(Layer::Arp(_)) => EtherType::ARP,
            // IEEE 802, local experimental EtherType 1.
            _ => 0x88b5,
        };
        let ethertype = self.field("EtherType", ethernet.ethertype, next);
        let header = Ethernet2Header {
            destination: ethernet.destination.0,
            source: ethernet.source.0,
            ether_type: EtherparseType(ethertype),
        };
        [header.to_bytes().as_slice(), &self.payload].concat()
    }

    fn arp(&self, arp: &Arp) -> Vec<u8> {
        let packet = ArpEthIpv4Packet {
            operation: ArpOperation(arp.operation),
            sender_mac: arp.sender_mac.0,
            sender_ipv4: arp.sender_ip.octets(),
            target_mac: arp.target_mac.0,
            target_ipv4: arp.target_ip.octets(),
        };
        [packet.to_bytes().as_slice(), &self.payload].concat()
    }

    fn ipv4(&mut self, ip: &Ipv4) -> Result<Vec<u8>, CraftError> {
        let length = wire::Ipv4::MIN_LENGTH + self.options_length(&ip.options)?;
        let protocol = match self.next {
            Some(Layer::Ipv4(_)) => IpProtocol::IPIP,
            Some(Layer::Udp(_)) => IpProtocol::UDP,
            Some(Layer::Tcp(_)) => IpProtocol::TCP,
            Some(Layer::Icmpv4(_)) => IpProtocol::ICMP,
            Some(Layer::Ethernet(_) | Layer::Arp(_) | Layer::Raw(_)) | None => {
                IpProtocol::EXPERIMENT
            }
        };
        let version = self.field("version", ip.version, 4);
        let words = self.field("header length", ip.header_length, (length / 4) as u8);
        let total = self.length("total length", ip.total_length, length)?;
        let protocol = self.field("protocol", ip.protocol, protocol);
        let mut bytes = self.buffer(length);
        write_options(&mut bytes[..length], wire::Ipv4::MIN_LENGTH, &ip.options);
        let mut view = MutableIpv4Packet::new(&mut bytes).expect(ROOM);
        view.set_version(version);
        view.set_header_length(words);
        view.set_dscp(ip.type_of_service >> 2);
        view.set_ecn(ip.type_of_service & 3);
        view.set_total_length(total);
        view.set_identification(ip.identification);
        view.set_flags(
            u8::from(ip.reserved_flag) << 2
                | u8::from(ip.dont_fragment) << 1
                | u8::from(ip.more_fragments),
        );
        view.set_fragment_offset(ip.fragment_offset);
        view.set_ttl(ip.time_to_live);
        view.set_next_level_protocol(IpNextHeaderProtocol(protocol));
        view.set_checksum(0);
        view.set_source(ip.source);
        view.set_destination(ip.destination);
        let derived = Checksum::default().over(&bytes[..length]).finish();
        let checksum = self.field("header checksum", ip.header_checksum, derived);
        let mut view = MutableIpv4Packet::new(&mut bytes).expect(ROOM);
        view.set_checksum(checksum);
        Ok(bytes)
    }

    fn udp(&mut self, udp: &Udp) -> Result<Vec<u8>, CraftError> {
        let length = self.length("length", udp.length, wire::Udp::LENGTH)?;
        let mut bytes = self.buffer(wire::Udp::LENGTH);
        let mut view = MutableUdpPacket::new(&mut bytes).expect(ROOM);
        view.set_source(udp.source_port);
        view.set_destination(udp.destination_port);
        view.set_length(length);
        view.set_checksum(0);
        let checksum = self.transport_checksum(IpProtocol::UDP, udp.checksum, &bytes)?;
        let mut view = MutableUdpPacket::new(&mut bytes).expect(ROOM);
        view.set_checksum(checksum);
        Ok(bytes)
    }

    fn tcp(&mut self, tcp: &Tcp) -> Result<Vec<u8>, CraftError> {
        let length = wire::Tcp::MIN_LENGTH + self.options_length(&tcp.options)?;
        let words = self.field("data offset", tcp.data_offset, (length / 4) as u8);
        let mut bytes = self.buffer(length);
        write_options(&mut bytes[..length], wire::Tcp::MIN_LENGTH, &tcp.options);
        let mut view = MutableTcpPacket::new(&mut bytes).expect(ROOM);
        view.set_source(tcp.source_port);
        view.set_destination(tcp.destination_port);
        view.set_sequence(tcp.sequence_number);
        view.set_acknowledgement(tcp.acknowledgment_number);
        view.set_data_offset(words);
        view.set_reserved(tcp.reserved);
        view.set_flags(tcp.flags.0);
        view.set_window(tcp.window);
        view.set_checksum(0);
        view.set_urgent_ptr(tcp.urgent_pointer);
        let checksum = self.transport_checksum(IpProtocol::TCP, tcp.checksum, &bytes)?;
        let mut view = MutableTcpPacket::new(&mut bytes).expect(ROOM);
        view.set_checksum(checksum);
        Ok(bytes)
    }

    fn icmpv4(&mut self, icmp: &Icmpv4) -> Vec<u8> {
        let mut bytes = self.buffer(wire::Icmpv4::LENGTH);
        let mut view = MutableIcmpPacket::new(&mut bytes).expect(ROOM);
        view.set_icmp_type(IcmpType(icmp.icmp_type));
        view.set_icmp_code(IcmpCode(icmp.code));
        view.set_checksum(0);
        view.payload_mut()[..icmp.rest.len()].copy_from_slice(&icmp.rest);
        let derived = Checksum::default().over(&bytes).finish();
        let checksum = self.field("checksum", icmp.checksum, derived);
        let mut view = MutableIcmpPacket::new(&mut bytes).expect(ROOM);
        view.set_checksum(checksum);
        bytes
    }

    /// A header of `length` octets that nobody wrote yet, and the payload behind it.
    fn buffer(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![UNWRITTEN; length];
        bytes.extend(&self.payload);
        bytes
    }

    fn field<T: Copy + Into<u32>>(&mut self, name: &'static str, field: Field<T>, derived: T) -> T {
        match field {
            Field::Derived => derived,
            Field::Forced(value) => {
                self.forced.push(Forced {
                    layer: self.layer,
                    field: name,
                    value: value.into(),
                    derived: derived.into(),
                });
                value
            }
        }
    }

    fn length(
        &mut self,
        name: &'static str,
        field: Field<u16>,
        header: usize,
    ) -> Result<u16, CraftError> {
        let octets = header + self.payload.len();
        match (u16::try_from(octets), field) {
            (Ok(derived), field) => Ok(self.field(name, field, derived)),
            (Err(_), Field::Forced(_)) => Ok(self.field(name, field, u16::MAX)),
            (Err(_), Field::Derived) => Err(CraftError::TooLong {
                layer: self.layer,
                octets,
            }),
        }
    }

    fn options_length(&self, options: &[u8]) -> Result<usize, CraftError> {
        match options.len().next_multiple_of(4) {
            octets @ ..=40 => Ok(octets),
            octets => Err(CraftError::OptionsTooLong {
                layer: self.layer,
                octets,
            }),
        }
    }

    fn transport_checksum(
        &mut self,
        protocol: u8,
        field: Field<u16>,
        segment: &[u8],
    ) -> Result<u16, CraftError> {
        let derived = match (self.addresses, field) {
            (Some((source, destination)), _) => {
                transport_checksum(source, destination, protocol, segment)
            }
            (None, Field::Forced(_)) => 0,
            (None, Field::Derived) => return Err(CraftError::NoPseudoHeader { layer: self.layer }),
        };
        let derived = match (protocol, derived) {
            // RFC 768: a computed zero is transmitted as all ones.
            (IpProtocol::UDP, 0) => 0xffff,
            (_, derived) => derived,
        };
        Ok(self.field("checksum", field, derived))
    }
}

fn write_options(header: &mut [u8], start: usize, options: &[u8]) {
    let (written, padding) = header[start..].split_at_mut(options.len());
    written.copy_from_slice(options);
    padding.fill(0);
}
