//! What a packet costs before the kernel gets it, and an answer after: nanoseconds each, by criterion.

use std::fs;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::LaxSlicedPacket;
use etherparse::NetSlice;
use etherparse::SlicedPacket;
use etherparse::TcpHeader;
use etherparse::TransportSlice;
use pnet_packet::Packet;
use pnet_packet::icmp::IcmpPacket;
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv4::MutableIpv4Packet;
use pnet_packet::tcp;
use pnet_packet::tcp::MutableTcpPacket;
use pnet_packet::tcp::TcpFlags;
use pnet_packet::udp::UdpPacket;
use tunproof::craft;
use tunproof::craft::FleetCraft;
use tunproof::matching::FleetMatcher;
use tunproof::plan;
use tunproof::plan::FleetIdentity;
use tunproof::plan::FleetProbe;
use tunproof::plan::Pair;
use tunproof::plan::Probe;
use tunproof::plan::ProbeId;
use tunproof::plan::ProbeKind;
use tunproof::plan::Protocol;
use tunproof::wire;
use tunproof::wire::Icmpv4;
use tunproof::wire::Ipv4;
use tunproof::wire::Octets;
use tunproof::wire::Quote;

use crate::fleet;
use crate::fleet::Asked;
use crate::responder;
use crate::site;
use crate::table::Table;

/// The figures that others are divided by.
const CRAFT: &str = "tunproof: sweep's SYN, patched";
const PARSE: &str = "tunproof: checked views and quote";

pub(crate) fn run(folder: &Path) -> String {
    let folder = folder.join("criterion");
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(&folder)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    crafted(&mut criterion);
    heard(&mut criterion);
    format!(
        "Medians of 20 samples. The packet is IPIP {{ SYN with MSS }}, 64 octets, every one with another identity; the answer \
         an ICMP port unreachable with a quote of 44 octets.\n\n{}\n{}",
        table(&folder, CRAFTS, CRAFT),
        table(&folder, PARSES, PARSE)
    )
}

const CRAFTS: &[(&str, &str)] = &[
    (
        CRAFT,
        "template, identity by SipHash-2-4, checksums patched (RFC 1624)",
    ),
    (
        "tunproof: sweep's datagram, patched",
        "the same, and a payload that tunes the checksum",
    ),
    (
        "tunproof: the identity alone",
        "two SipHash-2-4 of what the above takes",
    ),
    (
        "tunproof: the pair of a number",
        "address and service by arithmetic",
    ),
    (
        "tunproof: verify's SYN, built whole",
        "layers, every field derived or forced; allocates",
    ),
    (
        "etherparse: headers",
        "the same packet into a fixed buffer, all checksums; identity given",
    ),
    (
        "pnet: all fields",
        "the same packet into a fixed buffer, all checksums; identity given",
    ),
];

const PARSES: &[(&str, &str)] = &[
    (
        PARSE,
        "IPv4, ICMP and its checksum, the quoted header; nothing looked up",
    ),
    (
        "tunproof: quote matched with identity",
        "whose pair it is and what it says, from octets to `FleetSighting`",
    ),
    (
        "tunproof: client's RST matched",
        "the same of the closed loop's answer",
    ),
    (
        "tunproof: dissected for people",
        "every field named, never fails; allocates",
    ),
    (
        "etherparse: sliced, quote lax",
        "IPv4, ICMP, the quoted headers; no checksum",
    ),
    ("pnet: views", "IPv4, ICMP, the quoted headers; no checksum"),
];

fn table(folder: &Path, rows: &[(&str, &str)], reference: &str) -> String {
    let mut table = Table::new(&["what", "ns", "ratio", "how"]);
    let reference = nanoseconds(folder, reference);
    for (name, how) in rows {
        let each = nanoseconds(folder, name);
        table.row(&[
            (*name).to_owned(),
            format!("{each:.0}"),
            format!("{:.2}", each / reference),
            (*how).to_owned(),
        ]);
    }
    table.to_markdown()
}

/// The name as it stands in a file's path.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Criterion's median.
fn nanoseconds(folder: &Path, name: &str) -> f64 {
    let file = folder.join(plain(name)).join("new/estimates.json");
    let text =
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let estimates: serde_json::Value = serde_json::from_str(&text).expect("criterion writes JSON");
    estimates["median"]["point_estimate"]
        .as_f64()
        .expect("a number")
}

fn crafted(criterion: &mut Criterion) {
    let fleet = Asked::ClosedLoop.fleet();
    let key = fleet::key();
    let craft = FleetCraft::new(&fleet, key);
    let pairs: Vec<Pair> = (0..4096).filter_map(|number| fleet.pair(number)).collect();
    let mut each = |name: &str, run: &mut dyn FnMut(&Pair)| {
        let mut pairs = pairs.iter().cycle();
        criterion.bench_function(&plain(name), |bencher| {
            bencher.iter(|| run(black_box(pairs.next().expect("they go round"))));
        });
    };
    each(CRAFT, &mut |pair| {
        black_box(craft.probe(FleetProbe::ClosedLoop, pair));
    });
    each(CRAFTS[1].0, &mut |pair| {
        black_box(craft.probe(FleetProbe::ReflectUdp, pair));
    });
    each(CRAFTS[2].0, &mut |pair| {
        black_box(FleetIdentity::new(
            &key,
            FleetProbe::ClosedLoop,
            pair.number,
        ));
    });
    each(CRAFTS[3].0, &mut |pair| {
        black_box(fleet.pair(pair.number));
    });
    let path = plan::Path {
        realserver: "s".to_owned(),
        vip: address(site::VIP),
        port: 80,
        protocol: Protocol::Tcp,
        rip: pairs[0].rip,
        dip: Some(address(site::DIP)),
        cip: address(site::CIP),
        gateway: None,
        tunnel: None,
    };
    let id = ProbeId {
        kind: ProbeKind::TunnelSyn,
        index: 3,
    };
    let probe = Probe::new(id, 0, &path, &key).expect("the path has a director");
    each(CRAFTS[4].0, &mut |_| {
        black_box(craft::probe(black_box(&probe), &key));
    });
    let identity = FleetIdentity::new(&key, FleetProbe::ClosedLoop, 0);
    let mut buffer = [0; 64];
    each(CRAFTS[5].0, &mut |pair| {
        by_etherparse(&mut buffer, pair, &identity);
    });
    each(CRAFTS[6].0, &mut |pair| {
        by_pnet(&mut buffer, pair, &identity);
    });
    let same = craft.probe(FleetProbe::ClosedLoop, &pairs[0]);
    by_etherparse(&mut buffer, &pairs[0], &identity);
    assert_eq!(buffer, same.octets(), "etherparse makes another packet");
    by_pnet(&mut buffer, &pairs[0], &identity);
    assert_eq!(buffer, same.octets(), "pnet makes another packet");
}

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("an address")
}

fn by_etherparse(buffer: &mut [u8; 64], pair: &Pair, identity: &FleetIdentity) {
    let header = |length: u16, protocol, from: &str, to: Ipv4Addr, identification| {
        let from = address_octets(from);
        let mut header = Ipv4Header::new(length, 64, protocol, from, to.octets()).expect("short");
        header.dont_fragment = false;
        header.identification = identification;
        header.header_checksum = header.calc_header_checksum();
        header
    };
    let outer = header(
        44,
        IpNumber::IPV4,
        site::DIP,
        pair.rip,
        identity.outer_identification,
    );
    let inner = header(
        24,
        IpNumber::TCP,
        site::CIP,
        pair.service.vip,
        identity.identification,
    );
    let mut tcp = TcpHeader::new(identity.port, pair.service.port, identity.word, 64_240);
    tcp.syn = true;
    tcp.set_options_raw(&[2, 4, 0x05, 0xb4])
        .expect("four octets");
    tcp.checksum = tcp.calc_checksum_ipv4(&inner, &[]).expect("short");
    let mut rest = &mut buffer[..];
    outer.write(&mut rest).expect("there is room");
    inner.write(&mut rest).expect("there is room");
    tcp.write(&mut rest).expect("there is room");
}

/// The addresses are constants of this program; the compiler is not to know.
fn address_octets(text: &str) -> [u8; 4] {
    match black_box(text == site::DIP) {
        true => [10, 9, 0, 1],
        false => [198, 51, 100, 7],
    }
}

fn by_pnet(buffer: &mut [u8; 64], pair: &Pair, identity: &FleetIdentity) {
    let (inner_source, vip) = (Ipv4Addr::from(address_octets(site::CIP)), pair.service.vip);
    let header = |octets: &mut [u8], length, protocol, (from, to), identification| {
        let mut header = MutableIpv4Packet::new(octets).expect("there is room");
        header.set_version(4);
        header.set_header_length(5);
        header.set_total_length(length);
        header.set_identification(identification);
        header.set_ttl(64);
        header.set_next_level_protocol(protocol);
        header.set_source(from);
        header.set_destination(to);
        header.set_checksum(0);
        header.set_checksum(ipv4::checksum(&header.to_immutable()));
    };
    let outer = (address_octets(site::DIP).into(), pair.rip);
    let ids = (identity.outer_identification, identity.identification);
    header(
        &mut buffer[..20],
        64,
        IpNextHeaderProtocols::Ipv4,
        outer,
        ids.0,
    );
    header(
        &mut buffer[20..40],
        44,
        IpNextHeaderProtocols::Tcp,
        (inner_source, vip),
        ids.1,
    );
    let mut segment = MutableTcpPacket::new(&mut buffer[40..]).expect("there is room");
    segment.set_source(identity.port);
    segment.set_destination(pair.service.port);
    segment.set_sequence(identity.word);
    segment.set_acknowledgement(0);
    segment.set_data_offset(6);
    segment.set_flags(TcpFlags::SYN);
    segment.set_window(64_240);
    segment.set_urgent_ptr(0);
    segment.set_options(&[tcp::TcpOption::mss(1460)]);
    segment.set_checksum(0);
    let checksum = tcp::ipv4_checksum(&segment.to_immutable(), &inner_source, &vip);
    segment.set_checksum(checksum);
}

fn heard(criterion: &mut Criterion) {
    let error = &responder::sample(Asked::Reflect)[14..];
    let reset = &responder::sample(Asked::ClosedLoop)[14..];
    let reflecting = FleetMatcher::new(Asked::Reflect.fleet(), fleet::key());
    let looping = FleetMatcher::new(Asked::ClosedLoop.fleet(), fleet::key());
    assert!(reflecting.recognise(error).is_some() && looping.recognise(reset).is_some());
    let mut each = |name: &str, packet: &[u8], run: &dyn Fn(&[u8])| {
        criterion.bench_function(&plain(name), |bencher| {
            bencher.iter(|| run(black_box(packet)));
        });
    };
    each(PARSE, error, &|packet| {
        let ip = Ipv4::quoted(Octets::new(packet)).expect("IPv4");
        let icmp = Icmpv4::checked(ip.payload()).expect("ICMP");
        assert!(icmp.is_checksum_right());
        let quote = Quote::read(icmp.quotation().expect("an error")).expect("a quote");
        black_box((quote.header.source(), quote.header.identification()));
    });
    each(PARSES[1].0, error, &|packet| {
        black_box(reflecting.recognise(packet));
    });
    each(PARSES[2].0, reset, &|packet| {
        black_box(looping.recognise(packet));
    });
    each(PARSES[3].0, error, &|packet| {
        black_box(wire::dissect(packet, 0x0800));
    });
    each(PARSES[4].0, error, &|packet| {
        let sliced = SlicedPacket::from_ip(packet).expect("IPv4");
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else {
            panic!("no ICMP");
        };
        let quoted = LaxSlicedPacket::from_ip(icmp.payload()).expect("a quote");
        black_box((quoted.net, quoted.transport));
        assert!(matches!(sliced.net, Some(NetSlice::Ipv4(_))));
    });
    each(PARSES[5].0, error, &|packet| {
        let ip = Ipv4Packet::new(packet).expect("IPv4");
        let icmp = IcmpPacket::new(ip.payload()).expect("ICMP");
        let quoted = Ipv4Packet::new(&icmp.payload()[4..]).expect("a quote");
        let udp = UdpPacket::new(quoted.payload()).expect("UDP");
        black_box((
            quoted.get_source(),
            quoted.get_identification(),
            udp.get_checksum(),
        ));
    });
}
