//! Others read what tunproof writes, and tunproof reads what others write: tcpdump and tshark judge the
//! crafted packets and our one-line summaries; the kernel's answers are recognised.
//!
//! Needs tcpdump and tshark, and fails without them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use pcap_file::DataLink;
use pcap_file::pcap::PcapHeader;
use pcap_file::pcap::PcapPacket;
use pcap_file::pcap::PcapReader;
use pcap_file::pcap::PcapWriter;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::tcp::TcpPacket;
use pnet_packet::udp::UdpPacket;
use proptest::collection::vec;
use proptest::prelude::Just;
use proptest::prelude::any;
use proptest::prop_assert;
use proptest::prop_assert_eq;
use proptest::proptest;
use tunproof::craft;
use tunproof::matching::Matcher;
use tunproof::plan::Form;
use tunproof::plan::Path;
use tunproof::plan::Probe;
use tunproof::plan::ProbeId;
use tunproof::plan::ProbeKind;
use tunproof::plan::Protocol;
use tunproof::plan::Quoting;
use tunproof::plan::SessionKey;
use tunproof::wire;
use tunproof::wire::EtherType;
use tunproof::wire::Octets;
use tunproof::wire::TcpFlags;
use tunproof::wire::dissect;
use tunproof::wire::dissect_frame;
use tunproof::wire::hexdump;
use tunproof::wire::layers::Icmpv4;
use tunproof::wire::layers::Ipv4;
use tunproof::wire::layers::Layer;
use tunproof::wire::layers::Tcp;
use tunproof::wire::layers::Udp;

const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

fn key() -> SessionKey {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for kind in ProbeKind::ALL {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let path = Path {
                realserver: "rs1".to_owned(),
                vip: VIP,
                port: 80,
                protocol,
                rip: RIP,
                dip: Some(DIP),
                cip: CIP,
                gateway: None,
                tunnel: None,
            };
            for index in [0, 3, 2047] {
                probes.extend(Probe::new(ProbeId { kind, index }, 0, &path, &key()));
            }
        }
    }
    probes
}

/// Every probe, its cleanup, and ICMP errors and segments of many shapes.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for probe in probes() {
        packets.push(craft::probe(&probe, &key()));
        packets.extend(craft::cleanup(&probe, &key()));
    }
    let probe = craft::probe(&probes()[0], &key());
    let errors = [
        (3, 0, [0; 4]),
        (3, 1, [0; 4]),
        (3, 2, [0; 4]),
        (3, 3, [0; 4]),
        (3, 4, [0, 0, 0x05, 0xc8]),
        (3, 9, [0; 4]),
        (3, 10, [0; 4]),
        (3, 13, [0; 4]),
        (11, 0, [0; 4]),
        (11, 1, [0; 4]),
        (5, 1, [10, 0, 0, 1]),
        (8, 0, [0, 7, 0, 1]),
        (0, 0, [0, 7, 0, 1]),
    ];
    for (icmp_type, code, rest) in errors {
        for quotation in [&probe[..], &probe[20..]] {
            let icmp = Icmpv4 {
                rest,
                ..Icmpv4::error(icmp_type, code)
            };
            packets.push(built(vec![
                Layer::Icmpv4(icmp),
                Layer::Raw(quotation.to_vec()),
            ]));
        }
    }
    for (flags, options, payload) in [
        (0x12, "020405b40402080a0000000100000002010303070000", ""),
        (0x18, "0101080a0000000100000002", "odd"),
        (0x10, "0101050a0000000100000005", ""),
        (0x04, "", ""),
        (0x14, "", ""),
        (0x11, "", ""),
        (0x00, "", "x"),
    ] {
        let tcp = Tcp {
            sequence_number: 0xffff_ffff,
            acknowledgment_number: 1,
            window: 512,
            options: hex::decode(options).unwrap(),
            ..Tcp::new(50000, 81, TcpFlags(flags))
        };
        packets.push(built(vec![
            Layer::Tcp(tcp),
            Layer::Raw(payload.as_bytes().to_vec()),
        ]));
    }
    packets.push(built(vec![Layer::Raw(vec![0xa5; 7])]));
    packets
}

fn built(layers: Vec<Layer>) -> Vec<u8> {
    let ip = Layer::Ipv4(Ipv4::new(VIP, CIP));
    let layers: Vec<_> = [ip].into_iter().chain(layers).collect();
    craft::build(&layers).unwrap().bytes
}

/// Writes a pcap for the test named `test` and gives its path.
fn pcap(test: &str, datalink: DataLink, packets: &[Vec<u8>]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.pcap"));
    let header = PcapHeader {
        datalink,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(fs::File::create(&path).unwrap(), header).unwrap();
    for packet in packets {
        let packet =
            PcapPacket::new(std::time::Duration::ZERO, packet.len() as u32, packet).unwrap();
        writer.write_packet(&packet).unwrap();
    }
    path
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("cannot run {program}: {error}\nhint: apt-get install tcpdump tshark")
        });
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tcpdump_finds_every_checksum_right() {
    let packets = packets();
    let path = pcap("checksums", DataLink::RAW, &packets);
    let text = output("tcpdump", &["-nvvvr", path.to_str().unwrap()]);
    for wrong in ["incorrect", "bad ", "wrong", "truncated", "[|", "invalid"] {
        assert!(!text.contains(wrong), "`{wrong}` in\n{text}");
    }
    let transport = probes().len();
    let right = text.matches("(correct)").count() + text.matches("[udp sum ok]").count();
    assert!(right >= transport, "{right} of {transport} in\n{text}");
}

#[test]
fn tshark_finds_every_checksum_right() {
    let packets = packets();
    let path = pcap("tshark", DataLink::RAW, &packets);
    let arguments = [
        ["-r", path.to_str().unwrap()],
        ["-o", "ip.check_checksum:TRUE"],
        ["-o", "udp.check_checksum:TRUE"],
        ["-o", "tcp.check_checksum:TRUE"],
        ["-T", "fields"],
        ["-e", "ip.checksum.status"],
        ["-e", "udp.checksum.status"],
        ["-e", "tcp.checksum.status"],
        ["-e", "icmp.checksum.status"],
    ];
    let text = output("tshark", &arguments.concat());
    assert_eq!(text.lines().count(), packets.len());
    for (line, packet) in text.lines().zip(&packets) {
        let packet = dissect(packet, EtherType::IPV4);
        // 0 bad, 1 good, 2 unverified (in a quote).
        assert!(!line.contains('0'), "{line} for\n{packet}");
        assert!(line.contains('1'), "{line} for\n{packet}");
    }
}

#[test]
fn our_summary_is_tcpdumps_line() {
    let packets = packets();
    let path = pcap("summary", DataLink::RAW, &packets);
    let text = output("tcpdump", &["-tnSr", path.to_str().unwrap()]);
    assert_eq!(text.lines().count(), packets.len());
    for (line, packet) in text.lines().zip(&packets) {
        let seen = dissect(packet, EtherType::IPV4);
        let ours = seen.summary.split(", quoting ").next().unwrap();
        // tcpdump puts a second space before a protocol it does not know.
        assert_eq!(ours, line.replace(":  ip-proto", ": ip-proto"));
        assert!(!seen.has_wrong_checksum(), "{seen}");
        assert_eq!(seen.stopped, None, "{seen}");
    }
    let frames: Vec<_> = [DIP, Ipv4Addr::UNSPECIFIED]
        .map(|sender| craft::arp_request([2, 0, 0, 0, 0, 1], sender, VIP))
        .into();
    let path = pcap("arp", DataLink::ETHERNET, &frames);
    let text = output("tcpdump", &["-tnr", path.to_str().unwrap()]);
    let ours: Vec<_> = frames
        .iter()
        .map(|frame| dissect_frame(frame).summary)
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), ours);
}

proptest! {
    /// Three implementations of the checksums, and two readers: ours, etherparse, pnet_packet.
    #[test]
    fn etherparse_and_pnet_packet_agree_with_us(
        (source, destination) in any::<([u8; 4], [u8; 4])>(),
        (from, to, identification, window) in any::<(u16, u16, u16, u16)>(),
        (sequence, acknowledgment) in any::<(u32, u32)>(),
        (ttl, flags, tos) in any::<(u8, u8, u8)>(),
        ip_options in vec(Just(1u8), 0..=40),
        tcp_options in vec(Just(1u8), 0..=40),
        payload in vec(any::<u8>(), 0..70),
    ) {
        let (source, destination) = (source.into(), destination.into());
        let ip = Layer::Ipv4(Ipv4 {
            identification,
            time_to_live: ttl,
            type_of_service: tos,
            options: ip_options,
            ..Ipv4::new(source, destination)
        });
        let tcp = Layer::Tcp(Tcp {
            sequence_number: sequence,
            acknowledgment_number: acknowledgment,
            window,
            options: tcp_options,
            ..Tcp::new(from, to, TcpFlags(flags))
        });
        let raw = Layer::Raw(payload.clone());
        let udp = Layer::Udp(Udp::new(from, to));
        for transport in [tcp, udp] {
            let packet = craft::build(&[ip.clone(), transport, raw.clone()]).unwrap().bytes;
            let theirs = etherparse::SlicedPacket::from_ip(&packet).unwrap();
            let Some(etherparse::NetSlice::Ipv4(net)) = theirs.net else { panic!("no IPv4") };
            let header = net.header();
            prop_assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
            prop_assert_eq!(header.identification(), identification);
            prop_assert_eq!(header.ttl(), ttl);
            let view = Ipv4Packet::new(&packet).unwrap();
            prop_assert_eq!(pnet_packet::ipv4::checksum(&view), header.header_checksum());
            let ours = wire::Ipv4::checked(Octets::new(&packet)).unwrap();
            prop_assert!(ours.is_checksum_right());
            prop_assert_eq!((ours.source(), ours.destination()), (source, destination));
            prop_assert_eq!(ours.type_of_service(), tos);
            let segment = ours.payload();
            match theirs.transport {
                Some(etherparse::TransportSlice::Tcp(tcp)) => {
                    let checksum = tcp.calc_checksum_ipv4(source.octets(), destination.octets());
                    prop_assert_eq!(checksum.unwrap(), tcp.checksum());
                    let view = TcpPacket::new(segment.bytes()).unwrap();
                    let checksum = pnet_packet::tcp::ipv4_checksum(&view, &source, &destination);
                    prop_assert_eq!(checksum, tcp.checksum());
                    let ours = wire::Tcp::checked(segment).unwrap();
                    prop_assert!(ours.is_checksum_right(source, destination));
                    prop_assert_eq!(ours.flags(), TcpFlags(flags));
                    prop_assert_eq!(ours.sequence_number(), sequence);
                    prop_assert_eq!(ours.payload().bytes(), &payload);
                }
                Some(etherparse::TransportSlice::Udp(udp)) => {
                    let checksum = udp.to_header()
                        .calc_checksum_ipv4_raw(source.octets(), destination.octets(), &payload);
                    prop_assert_eq!(checksum.unwrap(), udp.checksum());
                    let view = UdpPacket::new(segment.bytes()).unwrap();
                    let checksum = pnet_packet::udp::ipv4_checksum(&view, &source, &destination);
                    // pnet_packet knows no RFC 768 zero.
                    let sent = if checksum == 0 { 0xffff } else { checksum };
                    prop_assert_eq!(sent, udp.checksum());
                    let ours = wire::Udp::checked(segment).unwrap();
                    prop_assert_eq!(ours.is_checksum_right(source, destination), Some(true));
                    prop_assert_eq!(ours.start().payload.bytes(), &payload);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// No octets make a reader panic: random ones, and real packets with one octet changed and cut.
    #[test]
    fn no_reader_panics(
        octets in vec(any::<u8>(), 0..100),
        which in 0..64usize,
        (at, octet) in any::<(usize, u8)>(),
        length in 0..140usize,
    ) {
        let packets = packets();
        let mut packet = packets[which % packets.len()].clone();
        let at = at % packet.len();
        packet[at] = octet;
        packet.truncate(length);
        let unwritten = vec![0xa5; length];
        for bytes in [&octets, &packet, &unwritten] {
            for ethertype in [EtherType::IPV4, EtherType::ARP, 0] {
                let seen = dissect(bytes, ethertype);
                prop_assert!(!seen.summary.is_empty());
                prop_assert!(!seen.to_string().contains('\r'));
            }
            dissect_frame(bytes);
            hexdump(bytes);
            let octets = Octets::new(bytes);
            let _ = (wire::Tcp::checked(octets), wire::TcpStart::quoted(octets));
            let _ = (wire::Udp::checked(octets), wire::UdpStart::quoted(octets));
            let _ = (wire::Icmpv4::checked(octets), wire::Quote::read(octets));
        }
    }
}

#[test]
fn the_kernels_answers_are_recognised() {
    let error = |icmp_type, code, of| Form::IcmpError {
        icmp_type,
        code,
        of,
    };
    let expected = [
        ("service.3", Form::Plain),
        ("service.3", Form::Refused),
        ("tunnel-udp.3", Form::Tunnelled),
        ("tunnel-udp.3", error(3, 2, Quoting::Tunnelled)),
        ("tunnel-udp.3", Form::Plain),
        ("tunnel-udp.3", Form::PORT_UNREACHABLE),
        ("tunnel-syn.3", Form::Plain),
        ("tunnel-syn.3", Form::SynAck),
        ("tunnel-syn.3", Form::Rst),
        ("tunnel-syn.3", Form::Cleanup),
        ("spoof-trace.3", Form::Plain),
        ("spoof-trace.3", Form::PORT_UNREACHABLE),
        ("spoof-trace.3", Form::Plain),
        ("spoof-trace.3", error(11, 0, Quoting::Plain)),
        ("spoof-synack.3", Form::Plain),
        ("spoof-synack.3", Form::Rst),
        ("control-synack.3", Form::Plain),
        ("control-synack.3", Form::Rst),
        ("control-trace.3", Form::Plain),
        ("control-trace.3", Form::PORT_UNREACHABLE),
    ];
    let matcher = Matcher::new(key());
    let capture = include_bytes!("data/kernel-answers.pcap");
    let mut reader = PcapReader::new(&capture[..]).unwrap();
    let mut seen = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let frame = packet.unwrap();
        let packet = &frame.data()[14..];
        assert!(!dissect_frame(frame.data()).has_wrong_checksum());
        let sighting = matcher.recognise(packet).expect("all of them are ours");
        let probe = probes().into_iter().find(|probe| {
            probe.id == sighting.probe
                && sighting
                    .flow
                    .is_none_or(|flow| flow.protocol == probe.flow.protocol)
        });
        assert_eq!(matcher.alterations(&probe.unwrap(), packet), []);
        seen.push((sighting.probe.to_string(), sighting.form));
    }
    let expected = expected.map(|(probe, form)| (probe.to_owned(), form));
    assert_eq!(seen, expected);
}

/// A capture file's packets as `number time captured original`.
fn rows(octets: &[u8]) -> Vec<String> {
    let mut savefile = wire::Savefile::default();
    savefile.feed(octets);
    let mut rows = Vec::new();
    while let Some(packet) = savefile.next_packet().unwrap() {
        let time = packet.time.unwrap();
        rows.push(format!(
            "{} {}.{:09} {} {}",
            packet.number,
            time / 1_000_000_000,
            time % 1_000_000_000,
            packet.bytes.len(),
            packet.original_length
        ));
    }
    assert_eq!(savefile.end(), Ok(()));
    rows
}

#[test]
fn capture_files_are_read_as_tshark_reads_them() {
    for name in [
        "captures/ethernet-snap-60.pcap",
        "captures/sll2.pcap",
        "captures/raw-big-endian-ns.pcap",
        "captures/two-interfaces.pcapng",
        "captures/two-sections.pcapng",
        "guest-answers.pcap",
    ] {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(name);
        let fields = "-n -T fields -E separator=/s -e frame.number -e frame.time_epoch -e frame.cap_len \
                      -e frame.len -r";
        let arguments: Vec<_> = fields.split_whitespace().chain(file.to_str()).collect();
        let text = output("tshark", &arguments);
        let expected: Vec<_> = text.lines().collect();
        let seen = rows(&fs::read(&file).unwrap());
        assert!(
            !seen.is_empty() && seen == expected,
            "{file:?}\n{seen:#?}\n{expected:#?}"
        );
    }
}
