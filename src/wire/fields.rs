//! Any field of any packet as a number, under the name that scapy and suites give it.

use std::net::Ipv4Addr;

use crate::wire::Arp;
use crate::wire::Ethernet;
use crate::wire::Header;
use crate::wire::Icmpv4;
use crate::wire::Ipv4;
use crate::wire::Mac;
use crate::wire::Octets;
use crate::wire::Tcp;
use crate::wire::TcpStart;
use crate::wire::UdpStart;
use crate::wire::dissect;
use crate::wire::dissect_frame;

/// The headers of a packet, and what they say. What an ICMP error quotes is counted with the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    packet: &'a [u8],
    headers: Vec<(Header, usize)>,
}

impl<'a> Fields<'a> {
    /// Those of a packet that starts at its network header.
    pub fn of(packet: &'a [u8], ethertype: u16) -> Fields<'a> {
        let headers = dissect(packet, ethertype).headers;
        let headers = headers
            .into_iter()
            .map(|found| (found.header, found.offset));
        Fields {
            packet,
            headers: headers.collect(),
        }
    }

    /// Those of a packet that starts at its Ethernet header.
    pub fn of_frame(frame: &'a [u8]) -> Fields<'a> {
        let headers = dissect_frame(frame).headers;
        let headers = headers
            .into_iter()
            .map(|found| (found.header, found.offset));
        Fields {
            packet: frame,
            headers: headers.collect(),
        }
    }

    /// How many headers there are of a kind: `ethernet`, `arp`, `ipv4`, `udp`, `tcp`, `icmp`.
    pub fn count(&self, layer: &str) -> usize {
        let mut kinds = self.headers.iter();
        let count = kinds.by_ref().filter(|(header, _)| name(*header) == layer);
        count.count()
    }

    /// A field of header number `number` of its kind, counted from the outermost, in the units of the header;
    /// `None` where the packet does not have it, or no kind of header does.
    pub fn value(&self, layer: &str, number: usize, field: &str) -> Option<u64> {
        let mut of_kind = self
            .headers
            .iter()
            .filter(|(header, _)| name(*header) == layer);
        let (header, offset) = of_kind.nth(number)?;
        let octets = Octets::new(self.packet.get(*offset..)?);
        match header {
            Header::Ethernet => ethernet(octets, field),
            Header::Arp => arp(octets, field),
            Header::Ipv4 => ipv4(octets, field),
            Header::Udp => udp(octets, field),
            Header::Tcp => tcp(octets, field),
            Header::Icmpv4 => icmp(octets, field),
        }
    }
}

fn name(header: Header) -> &'static str {
    match header {
        Header::Ethernet => "ethernet",
        Header::Arp => "arp",
        Header::Ipv4 => "ipv4",
        Header::Udp => "udp",
        Header::Tcp => "tcp",
        Header::Icmpv4 => "icmp",
    }
}

fn address(address: Ipv4Addr) -> u64 {
    u64::from(u32::from(address))
}

fn hardware(Mac(octets): Mac) -> u64 {
    octets
        .iter()
        .fold(0, |all, octet| all << 8 | u64::from(*octet))
}

fn ethernet(octets: Octets<'_>, field: &str) -> Option<u64> {
    let frame = Ethernet::checked(octets).ok()?;
    Some(match field {
        "dst" => hardware(frame.destination),
        "src" => hardware(frame.source),
        "type" => frame.ethertype.into(),
        _ => return None,
    })
}

fn arp(octets: Octets<'_>, field: &str) -> Option<u64> {
    let arp = Arp::checked(octets).ok()?;
    Some(match field {
        "op" => arp.operation.into(),
        "hwsrc" => hardware(arp.sender_mac),
        "psrc" => address(arp.sender_ip),
        "hwdst" => hardware(arp.target_mac),
        "pdst" => address(arp.target_ip),
        _ => return None,
    })
}

fn ipv4(octets: Octets<'_>, field: &str) -> Option<u64> {
    let ip = Ipv4::quoted(octets).ok()?;
    Some(match field {
        "version" => u64::from(ip.header()[0] >> 4),
        "ihl" => ip.ihl().into(),
        "tos" => ip.type_of_service().into(),
        "len" => ip.total_length().into(),
        "id" => ip.identification().into(),
        "flags" => u64::from(ip.header()[6] >> 5),
        "frag" => ip.fragment_offset().into(),
        "ttl" => ip.time_to_live().into(),
        "proto" => ip.protocol().into(),
        "chksum" => ip.header_checksum().into(),
        "src" => address(ip.source()),
        "dst" => address(ip.destination()),
        _ => return None,
    })
}

fn udp(octets: Octets<'_>, field: &str) -> Option<u64> {
    let udp = UdpStart::quoted(octets).ok()?;
    Some(match field {
        "sport" => udp.source_port.into(),
        "dport" => udp.destination_port.into(),
        "len" => udp.length.into(),
        "chksum" => udp.checksum.into(),
        _ => return None,
    })
}

fn tcp(octets: Octets<'_>, field: &str) -> Option<u64> {
    let start = TcpStart::quoted(octets).ok()?;
    match field {
        "sport" => return Some(start.source_port.into()),
        "dport" => return Some(start.destination_port.into()),
        "seq" => return Some(start.sequence_number.into()),
        _ => {}
    }
    let tcp = Tcp::checked(octets).ok()?;
    let before = octets.bytes().get(12)?;
    Some(match field {
        "ack" => tcp.acknowledgment_number().into(),
        "dataofs" => tcp.data_offset().into(),
        // NS, the lowest of the four bits before, counts among the flags.
        "flags" => u64::from(before & 1) << 8 | u64::from(tcp.flags().0),
        "reserved" => u64::from(before >> 1 & 7),
        "window" => tcp.window().into(),
        "chksum" => tcp.checksum().into(),
        "urgptr" => tcp.urgent_pointer().into(),
        _ => return None,
    })
}

fn icmp(octets: Octets<'_>, field: &str) -> Option<u64> {
    let icmp = Icmpv4::checked(octets).ok()?;
    let [first, second, third, fourth] = icmp.rest();
    Some(match field {
        "type" => icmp.icmp_type().into(),
        "code" => icmp.code().into(),
        "chksum" => icmp.checksum().into(),
        "id" => u16::from_be_bytes([first, second]).into(),
        "seq" | "mtu" => u16::from_be_bytes([third, fourth]).into(),
        "gateway" => u32::from_be_bytes(icmp.rest()).into(),
        "ptr" => first.into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::EtherType;

    /// `IP(src="192.0.2.2",dst="203.0.113.5",ttl=9,id=7,flags="DF")/IP(src="198.51.100.7",dst="192.0.2.10",
    /// ttl=64,id=8)/UDP(sport=4000,dport=33434)/b"abcd"`, by scapy.
    const TUNNELLED: &str = "4500003400074000090473b7c0000202cb007105\
        450000200008000040118e80c6336407c000020a0fa0829a000cbc8f61626364";

    #[test]
    fn fields_are_found_by_scapys_names_in_both_headers() {
        let packet = hex::decode(TUNNELLED).unwrap();
        let fields = Fields::of(&packet, EtherType::IPV4);
        assert_eq!((fields.count("ipv4"), fields.count("udp")), (2, 1));
        for (layer, number, field, expected) in [
            ("ipv4", 0, "ttl", Some(9)),
            ("ipv4", 1, "ttl", Some(64)),
            ("ipv4", 0, "flags", Some(2)),
            ("ipv4", 0, "proto", Some(4)),
            ("ipv4", 1, "id", Some(8)),
            ("ipv4", 1, "src", Some(0xc633_6407)),
            ("udp", 0, "dport", Some(33434)),
            ("udp", 0, "len", Some(12)),
            ("ipv4", 2, "ttl", None),
            ("tcp", 0, "sport", None),
            ("udp", 0, "ttl", None),
        ] {
            assert_eq!(
                fields.value(layer, number, field),
                expected,
                "{layer}.{number}.{field}"
            );
        }
    }

    #[test]
    fn a_cut_off_header_has_no_fields_beyond_its_end() {
        let packet = hex::decode(TUNNELLED).unwrap();
        for length in 0..packet.len() {
            let fields = Fields::of(&packet[..length], EtherType::IPV4);
            let whole = fields.value("udp", 0, "chksum");
            assert_eq!(whole.is_some(), length >= 48, "{length} octets");
        }
    }

    #[test]
    fn bits_and_the_rest_of_icmp_are_as_scapy_wrote_them() {
        for (packet, layer, field, expected) in [
            ("evil-and-type-of-service", "ipv4", "flags", 6),
            ("every-flag-and-reserved-bit", "tcp", "flags", 0x1ff),
            ("every-flag-and-reserved-bit", "tcp", "reserved", 5),
            ("syn-ack", "tcp", "flags", 0x12),
            ("fragmentation-needed", "icmp", "mtu", 1400),
            ("redirect", "icmp", "gateway", 0xcb00_7101),
            ("parameter-problem", "icmp", "ptr", 20),
        ] {
            let mut lines = include_str!("../../tests/data/scapy-suite.hex").lines();
            let hex = lines.find_map(|line| line.strip_prefix(packet)?.strip_prefix(' '));
            let octets = hex::decode(hex.unwrap()).unwrap();
            let value = Fields::of(&octets, EtherType::IPV4).value(layer, 0, field);
            assert_eq!(value, Some(expected), "{packet}: {layer}.{field}");
        }
    }
}
