//! The fields of each header, under the RFC's names.

use std::fmt;
use std::ops::Range;

use crate::wire::InnerStart;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Tcp;
use crate::wire::TcpStart;
use crate::wire::dissect::DissectedField;
use crate::wire::is_left_to_the_device;

pub(super) const RIGHT: &str = "(right)";
pub(super) const WRONG: &str = "(wrong)";
pub(super) const DEVICE: &str = "(left to the device)";
pub(super) const CUT: &str = "(not all of it is here)";

/// A field; `octets` from its header's start on, until the dissector moves them to where that lies.
pub(super) fn field(
    name: &'static str,
    octets: Range<usize>,
    value: impl fmt::Display,
) -> DissectedField {
    DissectedField {
        name,
        value: value.to_string(),
        octets,
    }
}

pub(super) fn verdict(is_right: bool) -> &'static str {
    if is_right { RIGHT } else { WRONG }
}

pub(super) fn wrong_or_left(ip: &Ipv4<'_>, checksum: u16) -> &'static str {
    let ends = (ip.source(), ip.destination());
    let length = ip.payload().len() as u16;
    match is_left_to_the_device(ends, ip.protocol(), length, checksum) {
        true => DEVICE,
        false => WRONG,
    }
}

pub(super) fn ipv4_fields(ip: &Ipv4<'_>) -> Vec<DissectedField> {
    let flags = match (ip.dont_fragment(), ip.more_fragments()) {
        (false, false) => "none",
        (true, false) => "don't fragment",
        (false, true) => "more fragments",
        (true, true) => "don't fragment, more fragments",
    };
    let protocol = match ip.protocol() {
        IpProtocol::ICMP => "1 (ICMP)".to_owned(),
        IpProtocol::IPIP => "4 (IPv4 in IPv4)".to_owned(),
        IpProtocol::TCP => "6 (TCP)".to_owned(),
        IpProtocol::UDP => "17 (UDP)".to_owned(),
        other => other.to_string(),
    };
    let verdict = verdict(ip.is_checksum_right());
    let mut fields = vec![
        field("version", 0..1, 4),
        field("header length", 0..1, format!("{} words", ip.ihl())),
        field(
            "type of service",
            1..2,
            format!("{:#04x}", ip.type_of_service()),
        ),
        field("total length", 2..4, ip.total_length()),
        field(
            "identification",
            4..6,
            format!("{:#06x}", ip.identification()),
        ),
        field("flags", 6..7, flags),
        field("fragment offset", 6..8, ip.fragment_offset()),
        field("time to live", 8..9, ip.time_to_live()),
        field("protocol", 9..10, protocol),
        field(
            "header checksum",
            10..12,
            format!("{:#06x} {verdict}", ip.header_checksum()),
        ),
        field("source address", 12..16, ip.source()),
        field("destination address", 16..20, ip.destination()),
    ];
    if !ip.options().is_empty() {
        fields.push(field(
            "options",
            20..20 + ip.options().len(),
            hex::encode(ip.options()),
        ));
    }
    fields
}

pub(super) fn inner_start_fields(start: InnerStart) -> Vec<DissectedField> {
    vec![
        field("version", 0..1, 4),
        field("header length", 0..1, format!("{} words", start.ihl)),
        field(
            "type of service",
            1..2,
            format!("{:#04x}", start.type_of_service),
        ),
        field("total length", 2..4, start.total_length),
        field(
            "identification",
            4..6,
            format!("{:#06x}", start.identification),
        ),
        field(
            "flags, fragment offset",
            6..8,
            format!("{:#06x}", start.fragment),
        ),
    ]
}

pub(super) fn tcp_start_fields(start: &TcpStart) -> Vec<DissectedField> {
    let mut fields = vec![
        field("source port", 0..2, start.source_port),
        field("destination port", 2..4, start.destination_port),
        field("sequence number", 4..8, start.sequence_number),
    ];
    if let Some((acknowledgment, flags)) = start.rest {
        fields.push(field("acknowledgment number", 8..12, acknowledgment));
        fields.push(field("control bits", 13..14, flags));
    }
    fields
}

pub(super) fn tcp_fields(tcp: &Tcp<'_>, verdict: &str) -> Vec<DissectedField> {
    let mut fields = vec![
        field("source port", 0..2, tcp.source_port()),
        field("destination port", 2..4, tcp.destination_port()),
        field("sequence number", 4..8, tcp.sequence_number()),
        field("acknowledgment number", 8..12, tcp.acknowledgment_number()),
        field(
            "data offset",
            12..13,
            format!("{} words", tcp.data_offset()),
        ),
        field("control bits", 13..14, tcp.flags()),
        field("window", 14..16, tcp.window()),
        field(
            "checksum",
            16..18,
            format!("{:#06x} {verdict}", tcp.checksum()),
        ),
        field("urgent pointer", 18..20, tcp.urgent_pointer()),
    ];
    if !tcp.options().is_empty() {
        fields.push(field(
            "options",
            20..20 + tcp.options().len(),
            hex::encode(tcp.options()),
        ));
    }
    fields
}
