//! The packets the stand-ins write themselves.

use std::net::Ipv4Addr;

use etherparse::Icmpv4Header;
use etherparse::Icmpv4Type;
use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::Ipv4HeaderSlice;
use etherparse::TcpHeaderSlice;
use etherparse::UdpHeader;
use etherparse::icmpv4::DestUnreachableHeader;

/// How much of a packet Linux quotes: 576 octets in all (RFC 1812 §4.3.2.3), less the headers before it.
const QUOTE: usize = 548;

const TTL: u8 = 64;

/// An ICMP destination unreachable that quotes `packet`.
pub(super) fn unreachable(
    code: DestUnreachableHeader,
    from: Ipv4Addr,
    to: Ipv4Addr,
    packet: &[u8],
) -> Vec<u8> {
    let quote = &packet[..packet.len().min(QUOTE)];
    let kind = Icmpv4Type::DestinationUnreachable(code);
    let icmp = Icmpv4Header::with_checksum(kind, quote);
    let header = header(icmp.header_len() + quote.len(), IpNumber::ICMP, from, to);
    [&header.to_bytes()[..], &icmp.to_bytes()[..], quote].concat()
}

/// `inner` in an IPIP packet (RFC 2003 §3.1: type of service and don't-fragment are the inner header's).
pub(super) fn tunnelled(inner: &Ipv4HeaderSlice<'_>, packet: &[u8], ends: Ends) -> Vec<u8> {
    let mut outer = header(packet.len(), IpNumber::IPV4, ends.from, ends.to);
    outer.dscp = inner.dcp();
    outer.ecn = inner.ecn();
    outer.dont_fragment = inner.dont_fragment();
    outer.identification = ends.identification;
    [&outer.to_bytes()[..], packet].concat()
}

/// `inner` in a UDP datagram, GUE of variant 1 (draft-ietf-intarea-gue §4), without a checksum.
pub(super) fn in_udp(inner: &[u8], ends: Ends, port: u16) -> Vec<u8> {
    let datagram = inner.len() + UdpHeader::LEN;
    let mut outer = header(datagram, IpNumber::UDP, ends.from, ends.to);
    outer.identification = ends.identification;
    let udp = UdpHeader {
        source_port: port,
        destination_port: port,
        length: u16::try_from(datagram).unwrap_or(u16::MAX),
        checksum: 0,
    };
    [&outer.to_bytes()[..], &udp.to_bytes()[..], inner].concat()
}

/// Where a tunnelled packet goes, and its identification.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    pub(super) identification: u16,
}

fn header(length: usize, protocol: IpNumber, from: Ipv4Addr, to: Ipv4Addr) -> Ipv4Header {
    let length = u16::try_from(length).unwrap_or(u16::MAX - Ipv4Header::MIN_LEN_U16);
    let mut header = Ipv4Header::new(length, TTL, protocol, from.octets(), to.octets())
        .expect("the length leaves room for the header");
    header.dont_fragment = false;
    header
}

/// Completes the TCP checksum of a packet whose sender left that to a device, as the kernel does between
/// devices of its own: what stands there then is the sum of the pseudo-header alone.
pub(super) fn complete_checksum(packet: &mut [u8]) {
    let Ok(ip) = Ipv4HeaderSlice::from_slice(packet) else {
        return;
    };
    let (source, destination) = (ip.source(), ip.destination());
    let start = ip.slice().len();
    let segment = &packet[start..];
    let Ok(tcp) = TcpHeaderSlice::from_slice(segment) else {
        return;
    };
    let halves = |address: [u8; 4]| {
        u32::from(u16::from_be_bytes([address[0], address[1]]))
            + u32::from(u16::from_be_bytes([address[2], address[3]]))
    };
    let sum = halves(source) + halves(destination) + 6 + segment.len() as u32;
    let folded = (sum & 0xffff) + (sum >> 16);
    let pseudo = ((folded & 0xffff) + (folded >> 16)) as u16;
    if tcp.checksum() != pseudo {
        return;
    }
    let payload = &segment[tcp.slice().len()..];
    let whole = tcp
        .calc_checksum_ipv4_raw(source, destination, payload)
        .expect("the segment is shorter than an IP packet");
    // RFC 9293 §3.1: octets 16 and 17 of the header.
    packet[start + 16..start + 18].copy_from_slice(&whole.to_be_bytes());
}
