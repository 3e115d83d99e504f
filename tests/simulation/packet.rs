//! Packets as kernels and routers read and write them.

use std::net::Ipv4Addr;

use tunproof::craft;
use tunproof::wire::Icmpv4;
use tunproof::wire::Ipv4;
use tunproof::wire::Octets;
use tunproof::wire::Tcp;
use tunproof::wire::TcpFlags;
use tunproof::wire::Udp;
use tunproof::wire::layers;
use tunproof::wire::layers::Field;
use tunproof::wire::layers::Layer;
use tunproof::wire::transport_checksum;

/// A packet taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Udp {
        from: u16,
        to: u16,
    },
    Tcp {
        from: u16,
        to: u16,
        sequence: u32,
        acknowledgment: u32,
        flags: TcpFlags,
    },
    Icmp {
        error: bool,
    },
    Tunnel(Vec<u8>),
    Other,
}

/// Reads a packet; every packet of the simulation is well formed.
pub(crate) fn read(bytes: &[u8]) -> Packet {
    let ip = Ipv4::checked(Octets::new(bytes)).expect("a whole IPv4 packet");
    assert!(ip.is_checksum_right(), "wrong header checksum");
    let payload = ip.payload();
    let body = match ip.protocol() {
        1 => Body::Icmp {
            error: Icmpv4::checked(payload).expect("ICMP").is_error(),
        },
        4 => Body::Tunnel(payload.bytes().to_vec()),
        6 => {
            let tcp = Tcp::checked(payload).expect("a whole TCP header");
            assert!(tcp.is_checksum_right(ip.source(), ip.destination()));
            Body::Tcp {
                from: tcp.source_port(),
                to: tcp.destination_port(),
                sequence: tcp.sequence_number(),
                acknowledgment: tcp.acknowledgment_number(),
                flags: tcp.flags().kind(),
            }
        }
        17 => {
            let udp = Udp::checked(payload).expect("a whole UDP datagram");
            assert_ne!(
                udp.is_checksum_right(ip.source(), ip.destination()),
                Some(false)
            );
            Body::Udp {
                from: udp.start().source_port,
                to: udp.start().destination_port,
            }
        }
        _ => Body::Other,
    };
    Packet {
        source: ip.source(),
        destination: ip.destination(),
        protocol: ip.protocol(),
        ttl: ip.time_to_live(),
        dont_fragment: ip.dont_fragment(),
        body,
    }
}

/// The ports of a packet, source first.
pub(crate) fn ports(packet: &Packet) -> (u16, u16) {
    match packet.body {
        Body::Udp { from, to } | Body::Tcp { from, to, .. } => (from, to),
        _ => (0, 0),
    }
}

pub(crate) fn tcp(
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    numbers: (u32, u32),
    flags: TcpFlags,
) -> Vec<u8> {
    segment(source, destination, numbers, flags, Vec::new())
}

/// A SYN-ACK with a segment size.
pub(crate) fn syn_ack(
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    numbers: (u32, u32),
    mss: u16,
) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    let options = vec![2, 4, high, low];
    segment(source, destination, numbers, TcpFlags::SYN_ACK, options)
}

fn segment(
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    numbers: (u32, u32),
    flags: TcpFlags,
    options: Vec<u8>,
) -> Vec<u8> {
    build(&[
        Layer::Ipv4(layers::Ipv4 {
            dont_fragment: true,
            ..layers::Ipv4::new(source.0, destination.0)
        }),
        Layer::Tcp(layers::Tcp {
            sequence_number: numbers.0,
            acknowledgment_number: numbers.1,
            options,
            ..layers::Tcp::new(source.1, destination.1, flags)
        }),
    ])
}

/// What a service says to a datagram that is no question of its own: a few octets of its own.
pub(crate) fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Vec<u8> {
    build(&[
        Layer::Ipv4(layers::Ipv4 {
            identification: 0x2323,
            ..layers::Ipv4::new(source.0, destination.0)
        }),
        Layer::Udp(layers::Udp::new(source.1, destination.1)),
        Layer::Raw(b"what?".to_vec()),
    ])
}

/// An ICMP error; `minimal` quotes the IP header and 8 octets, else what Linux quotes.
pub(crate) fn icmp_error(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    icmp: (u8, u8),
    about: &[u8],
    minimal: bool,
) -> Vec<u8> {
    with_mtu(source, destination, (icmp.0, icmp.1, 0), about, minimal)
}

/// The same with a next hop's MTU.
pub(crate) fn with_mtu(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    icmp: (u8, u8, u16),
    about: &[u8],
    minimal: bool,
) -> Vec<u8> {
    let [high, low] = icmp.2.to_be_bytes();
    let quoted = about.len().min(if minimal { 28 } else { 548 });
    build(&[
        Layer::Ipv4(layers::Ipv4 {
            identification: 0x5151,
            ..layers::Ipv4::new(source, destination)
        }),
        Layer::Icmpv4(layers::Icmpv4 {
            rest: [0, 0, high, low],
            ..layers::Icmpv4::error(icmp.0, icmp.1)
        }),
        Layer::Raw(about[..quoted].to_vec()),
    ])
}

pub(crate) fn encapsulate(source: Ipv4Addr, destination: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    build(&[
        Layer::Ipv4(layers::Ipv4 {
            protocol: Field::Forced(4),
            identification: 0x7777,
            ..layers::Ipv4::new(source, destination)
        }),
        Layer::Raw(inner.to_vec()),
    ])
}

pub(crate) fn set_ttl(bytes: &mut [u8], ttl: u8) {
    bytes[8] = ttl;
    fix_header(bytes);
}

/// What a source NAT does.
pub(crate) fn set_source(bytes: &mut [u8], source: Ipv4Addr) {
    bytes[12..16].copy_from_slice(&source.octets());
    fix_header(bytes);
    fix_transport(bytes);
}

/// What masquerading may do besides.
pub(crate) fn set_source_port(bytes: &mut [u8], port: u16) {
    if matches!(read(bytes).body, Body::Udp { .. } | Body::Tcp { .. }) {
        bytes[20..22].copy_from_slice(&port.to_be_bytes());
        fix_transport(bytes);
    }
}

fn fix_transport(bytes: &mut [u8]) {
    let header = Ipv4::checked(Octets::new(bytes)).expect("a whole IPv4 packet");
    let (source, destination, protocol) =
        (header.source(), header.destination(), header.protocol());
    let at = match protocol {
        6 => 20 + 16,
        17 => 20 + 6,
        _ => return,
    };
    bytes[at..at + 2].fill(0);
    let checksum = transport_checksum(source, destination, protocol, &bytes[20..]);
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn fix_header(bytes: &mut [u8]) {
    bytes[10..12].fill(0);
    let checksum = tunproof::wire::Checksum::default()
        .over(&bytes[..20])
        .finish();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn build(layers: &[Layer]) -> Vec<u8> {
    craft::build(layers).expect("layers that fit").bytes
}
