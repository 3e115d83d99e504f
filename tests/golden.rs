//! What tunproof crafts is, octet for octet, what scapy and the kernel make of the same fields
//! (`tests/data/README.md`).

use std::net::Ipv4Addr;

use pcap_file::pcap::PcapReader;
use tunproof::craft;
use tunproof::craft::Forced;
use tunproof::plan::Carrier;
use tunproof::plan::Packet;
use tunproof::plan::Path;
use tunproof::plan::Probe;
use tunproof::plan::ProbeId;
use tunproof::plan::ProbeKind;
use tunproof::plan::Protocol;
use tunproof::plan::SessionKey;
use tunproof::wire;
use tunproof::wire::IpProtocol;
use tunproof::wire::Mac;
use tunproof::wire::Octets;
use tunproof::wire::TcpFlags;
use tunproof::wire::layers::Ethernet;
use tunproof::wire::layers::Field;
use tunproof::wire::layers::Icmpv4;
use tunproof::wire::layers::Ipv4;
use tunproof::wire::layers::Layer;
use tunproof::wire::layers::Tcp;
use tunproof::wire::layers::Udp;

const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// Compares packets with the lines of a golden file, all of them and in order.
fn compare(golden: &str, packets: Vec<(&str, Vec<u8>)>) {
    let expected: Vec<_> = golden
        .lines()
        .map(|line| line.split_once(' ').expect("a name and hex"))
        .collect();
    for ((name, packet), (golden_name, golden)) in packets.iter().zip(&expected) {
        assert_eq!(name, golden_name);
        assert_eq!(
            hex::encode(packet),
            **golden,
            "\n{name}: crafted left, scapy's right"
        );
    }
    assert_eq!(packets.len(), expected.len());
}

#[test]
fn probes_are_scapys() {
    let key: SessionKey = "00112233445566778899aabbccddeeff".parse().unwrap();
    let probe = |kind, protocol| {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 80,
            protocol,
            rip: Ipv4Addr::new(203, 0, 113, 5),
            dip: Some(Ipv4Addr::new(192, 0, 2, 2)),
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        };
        Probe::new(ProbeId { kind, index: 3 }, 0, &path, &key).unwrap()
    };
    let sent = |kind| craft::probe(&probe(kind, Protocol::Tcp), &key);
    let cleanup = |kind| craft::cleanup(&probe(kind, Protocol::Tcp), &key).unwrap();
    let limited = probe(ProbeKind::SpoofTrace, Protocol::Tcp).with_ttl(1);
    let near = probe(ProbeKind::SpoofTraceToDirector, Protocol::Tcp).with_ttl(1);
    let service = probe(ProbeKind::Service, Protocol::Udp);
    let traced = probe(ProbeKind::TunnelTrace, Protocol::Tcp).with_ttl(2);
    let sized = probe(ProbeKind::Mtu, Protocol::Tcp).with_size(1001);
    compare(
        include_str!("data/scapy-probes.hex"),
        vec![
            ("tunnel-udp.3", sent(ProbeKind::TunnelUdp)),
            ("tunnel-syn.3", sent(ProbeKind::TunnelSyn)),
            ("cleanup-of-tunnel-syn.3", cleanup(ProbeKind::TunnelSyn)),
            ("ipvs-loop.3", sent(ProbeKind::IpvsLoop)),
            ("cleanup-of-ipvs-loop.3", cleanup(ProbeKind::IpvsLoop)),
            ("reflect.3", sent(ProbeKind::Reflect)),
            ("return-control.3", sent(ProbeKind::ReturnControl)),
            ("spoof-trace.3", sent(ProbeKind::SpoofTrace)),
            ("spoof-trace.3-ttl-1", craft::probe(&limited, &key)),
            ("control-trace.3", sent(ProbeKind::ControlTrace)),
            ("spoof-synack.3", sent(ProbeKind::SpoofSynack)),
            ("service.3", sent(ProbeKind::Service)),
            ("service.3-udp", craft::probe(&service, &key)),
            ("control-synack.3", sent(ProbeKind::ControlSynack)),
            ("tunnel-trace.3-ttl-2", craft::probe(&traced, &key)),
            ("tunnel-control.3", sent(ProbeKind::TunnelControl)),
            ("mtu.3-of-1001", craft::probe(&sized, &key)),
            ("open-tunnel.3", sent(ProbeKind::OpenTunnel)),
            ("reflect-syn.3", sent(ProbeKind::ReflectSyn)),
            ("cleanup-of-reflect-syn.3", cleanup(ProbeKind::ReflectSyn)),
            ("spoof-trace-to-director.3-ttl-1", craft::probe(&near, &key)),
            (
                "control-trace-to-director.3",
                sent(ProbeKind::ControlTraceToDirector),
            ),
            (
                "spoof-synack-to-director.3",
                sent(ProbeKind::SpoofSynackToDirector),
            ),
            (
                "control-synack-to-director.3",
                sent(ProbeKind::ControlSynackToDirector),
            ),
        ],
    );
    for kind in ProbeKind::ALL
        .into_iter()
        .filter(|kind| *kind != ProbeKind::Script)
    {
        let opened = craft::cleanup(&probe(kind, Protocol::Udp), &key).is_some();
        let opens = matches!(kind, ProbeKind::TunnelSyn | ProbeKind::ReflectSyn);
        assert_eq!(opened, opens, "{kind}");
    }
}

#[test]
fn layers_are_scapys() {
    let ip = |identification| Ipv4 {
        identification,
        ..Ipv4::new(A, B)
    };
    let marked = Layer::Ipv4(Ipv4 {
        time_to_live: 33,
        type_of_service: 0xb9,
        ..ip(0x1234)
    });
    let raw = |octets: &[u8]| Layer::Raw(octets.to_vec());
    let built = |layers: &[Layer]| craft::build(layers).unwrap().bytes;
    let quoted = [
        Layer::Ipv4(Ipv4 {
            identification: 0x4321,
            time_to_live: 1,
            ..Ipv4::new(B, A)
        }),
        Layer::Udp(Udp::new(50000, 33434)),
        raw(b"sixteen octets!!"),
    ];
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let ethernet = Layer::Ethernet(Ethernet {
        destination: Mac([2, 0, 0, 0, 0, 2]),
        source: mac,
        ethertype: Field::Derived,
    });
    let tcp = Tcp {
        sequence_number: 0xffff_fffe,
        window: 64240,
        urgent_pointer: 7,
        options: hex::decode("020405b40402080a000000010000000201030307").unwrap(),
        ..Tcp::new(4000, 80, TcpFlags(0xc2))
    };
    let zero_sum = golden_tail(2, "udp-zero-becomes-ffff");
    compare(
        include_str!("data/scapy-layers.hex"),
        vec![
            (
                "ip-options",
                built(&[
                    Layer::Ipv4(Ipv4 {
                        options: vec![0x94, 4, 0, 0],
                        ..ip(1)
                    }),
                    Layer::Udp(Udp::new(1, 2)),
                    raw(b"odd"),
                ]),
            ),
            (
                "udp-no-checksum",
                built(&[
                    marked.clone(),
                    Layer::Udp(Udp {
                        checksum: Field::Forced(0),
                        ..Udp::new(53, 5353)
                    }),
                    raw(b"abc"),
                ]),
            ),
            (
                "udp-zero-becomes-ffff",
                built(&[
                    Layer::Ipv4(ip(1)),
                    Layer::Udp(Udp::new(0x1111, 0x2222)),
                    raw(&zero_sum),
                ]),
            ),
            (
                "tcp-options",
                built(&[marked.clone(), Layer::Tcp(tcp), raw(b"odd")]),
            ),
            (
                "icmp-echo",
                built(&[
                    marked.clone(),
                    Layer::Icmpv4(Icmpv4::echo(0x77, 5)),
                    raw(b"ping!"),
                ]),
            ),
            (
                "icmp-error",
                built(
                    &[
                        &[
                            Layer::Ipv4(Ipv4 {
                                dont_fragment: true,
                                ..ip(2)
                            }),
                            Layer::Icmpv4(Icmpv4::error(3, 3)),
                        ],
                        &quoted[..],
                    ]
                    .concat(),
                ),
            ),
            (
                "icmp-minimal-quote",
                built(&[
                    Layer::Ipv4(ip(3)),
                    Layer::Icmpv4(Icmpv4::error(11, 0)),
                    raw(&built(&quoted)[..28]),
                ]),
            ),
            (
                "ipip-of-ipip",
                built(&[
                    Layer::Ipv4(ip(4)),
                    Layer::Ipv4(Ipv4 {
                        identification: 5,
                        more_fragments: true,
                        ..Ipv4::new(B, A)
                    }),
                    marked.clone(),
                    Layer::Udp(Udp::new(1, 2)),
                ]),
            ),
            ("forced", built(&forced_layers())),
            ("arp", craft::arp_request(mac.0, A, B)),
            (
                "arp-announces-nobody",
                craft::arp_request(mac.0, Ipv4Addr::UNSPECIFIED, B),
            ),
            (
                "ethernet-ip",
                built(&[ethernet, marked, Layer::Icmpv4(Icmpv4::echo(0, 0))]),
            ),
        ],
    );
}

#[test]
fn what_is_left_out_carries_the_identity() {
    let key: SessionKey = "00112233445566778899aabbccddeeff".parse().unwrap();
    let id = ProbeId {
        kind: ProbeKind::Script,
        index: 3,
    };
    let script = |layers: Vec<Layer>, carriers: &[(usize, Carrier)]| {
        let packet = Packet {
            layers,
            carriers: carriers.to_vec(),
            hardware: Vec::new(),
        };
        craft::script(&packet, id, &key)
    };
    let ip = || Layer::Ipv4(Ipv4::new(A, B));
    let identification = (0, Carrier::Identification);
    let udp = |payload| vec![ip(), ip(), Layer::Udp(Udp::new(0, 9)), Layer::Raw(payload)];
    let carriers = [
        identification,
        (1, Carrier::Identification),
        (2, Carrier::SourcePort),
        (3, Carrier::Payload),
    ];
    let bytes = |payload| script(udp(payload), &carriers).unwrap().bytes;
    let packet = bytes(Vec::new());
    assert_eq!(packet.len(), 20 + 20 + 8 + 16);
    assert_eq!(packet[4..6], key.outer_identification(id).to_be_bytes());
    assert_eq!(packet[24..26], key.identification(id).to_be_bytes());
    assert_eq!(packet[40..42], key.client_port(id).to_be_bytes());
    assert_eq!(packet[48..56], key.tag(id).to_be_bytes());
    assert_eq!(packet[56..58], id.number().to_be_bytes());
    let long = bytes(vec![7; 20]);
    assert_eq!(
        (long.len(), &long[48..58], long[58]),
        (68, &packet[48..58], 7)
    );
    let short = bytes(vec![7; 3]);
    assert_eq!((short.len(), &short[48..]), (51, &packet[48..51]));

    let tcp = Layer::Tcp(Tcp::new(0, 80, TcpFlags::SYN));
    let carriers = [
        identification,
        (1, Carrier::SourcePort),
        (1, Carrier::SequenceNumber),
    ];
    let packet = script(vec![ip(), tcp], &carriers).unwrap().bytes;
    assert_eq!(packet[20..22], key.client_port(id).to_be_bytes());
    assert_eq!(packet[24..28], key.cookie(id).to_be_bytes());

    let echo = vec![ip(), Layer::Icmpv4(Icmpv4::echo(0, 0))];
    let packet = script(echo, &[identification, (1, Carrier::Echo)])
        .unwrap()
        .bytes;
    assert_eq!(packet[24..28], key.cookie(id).to_be_bytes());

    let wrong = script(vec![ip()], &[identification, (1, Carrier::Payload)]);
    assert_eq!(
        wrong.unwrap_err().to_string(),
        "layer 1: it has no payload to carry the identity"
    );
}

#[test]
fn what_a_raw_socket_does_not_send_is_refused() {
    let key = SessionKey::new([1; 16]);
    let id = ProbeId {
        kind: ProbeKind::Script,
        index: 3,
    };
    let ethernet = Layer::Ethernet(Ethernet {
        destination: Mac::BROADCAST,
        source: Mac([2, 0, 0, 0, 0, 1]),
        ethertype: Field::Derived,
    });
    let craft = |layers: Vec<Layer>| {
        let carriers = Vec::new();
        let hardware = Vec::new();
        let packet = Packet {
            layers,
            carriers,
            hardware,
        };
        craft::script(&packet, id, &key)
    };
    let sent = |change: &dyn Fn(&mut Ipv4)| {
        let mut ip = Ipv4 {
            identification: 1,
            ..Ipv4::new(A, B)
        };
        change(&mut ip);
        let layers = vec![Layer::Ipv4(ip), Layer::Udp(Udp::new(1, 2))];
        let framed = [std::slice::from_ref(&ethernet), &layers[..]].concat();
        assert!(craft(framed).is_ok(), "out of a device it goes as it is");
        craft(layers)
            .map(|crafted| crafted.bytes)
            .map_err(|e| e.to_string())
    };
    let refused = |what: &str| {
        Err(format!(
            "{what} in what a raw socket sends; with an `ethernet` layer before `ipv4` it goes out of a device as it is"
        ))
    };
    for total_length in [27, 29, 0] {
        assert_eq!(
            sent(&|ip| ip.total_length = Field::Forced(total_length)),
            refused(&format!(
                "total length is {total_length}, and the kernel would make it 28"
            ))
        );
    }
    assert_eq!(
        sent(&|ip| ip.header_checksum = Field::Forced(7)),
        refused("header checksum is 7, and the kernel would make it 36505")
    );
    assert_eq!(
        sent(&|ip| ip.header_length = Field::Forced(6)),
        refused("header length is 6, and the kernel would refuse it or count on it; it has 5")
    );
    assert_eq!(
        sent(&|ip| ip.identification = 0),
        refused("identification is 0, and the kernel would choose another")
    );
    assert_eq!(
        sent(&|ip| ip.source = Ipv4Addr::UNSPECIFIED),
        refused("source is 0, and the kernel would choose another")
    );
    // What is forced to what it would be anyway is sent as it is.
    assert!(sent(&|ip| ip.total_length = Field::Forced(28)).is_ok());
    assert!(sent(&|ip| ip.version = Field::Forced(5)).is_ok());
    let headless = craft(vec![Layer::Raw(vec![1; 20])]).unwrap_err();
    assert!(
        headless
            .to_string()
            .starts_with("a packet starts at `ipv4`")
    );
}

#[test]
fn forced_fields_are_listed_with_what_they_would_have_been() {
    let forced = craft::build(&forced_layers()).unwrap().forced;
    let field = |layer, field, value, derived| Forced {
        layer,
        field,
        value,
        derived,
    };
    assert_eq!(
        forced[..6],
        [
            field(0, "version", 7, 4),
            field(0, "header length", 15, 5),
            field(0, "total length", 9, 29),
            field(0, "protocol", 99, 17),
            field(0, "header checksum", 0xdead, forced[4].derived),
            field(1, "length", 3, 9),
        ]
    );
    assert_eq!((forced[6].field, forced[6].value), ("checksum", 0xbeef));
    assert_eq!(forced.len(), 7);
}

#[test]
fn what_no_header_holds_is_an_error() {
    let options = |length| {
        craft::build(&[Layer::Ipv4(Ipv4 {
            options: vec![1; length],
            ..Ipv4::new(A, B)
        })])
    };
    assert_eq!(options(37).unwrap().bytes.len(), 60);
    let error = options(41).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 0: 44 octets of options, and a header has room for 40"
    );
    let long = [
        Layer::Ipv4(Ipv4::new(A, B)),
        Layer::Udp(Udp::new(1, 2)),
        Layer::Raw(vec![0; 65508]),
    ];
    assert_eq!(
        craft::build(&long),
        Err(craft::CraftError::TooLong {
            layer: 0,
            octets: 65536
        })
    );
    assert_eq!(
        craft::build(&long[1..]),
        Err(craft::CraftError::NoPseudoHeader { layer: 0 })
    );
}

fn forced_layers() -> [Layer; 3] {
    [
        Layer::Ipv4(Ipv4 {
            version: Field::Forced(7),
            header_length: Field::Forced(15),
            total_length: Field::Forced(9),
            protocol: Field::Forced(99),
            header_checksum: Field::Forced(0xdead),
            identification: 6,
            ..Ipv4::new(A, B)
        }),
        Layer::Udp(Udp {
            length: Field::Forced(3),
            checksum: Field::Forced(0xbeef),
            ..Udp::new(1, 2)
        }),
        Layer::Raw(b"x".to_vec()),
    ]
}

/// The last octets of a golden packet, where scapy had to search for them.
fn golden_tail(count: usize, name: &str) -> Vec<u8> {
    let line = include_str!("data/scapy-layers.hex")
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    let packet = hex::decode(line.trim()).unwrap();
    packet[packet.len() - count..].to_vec()
}

/// The same packet anew: what a person would write is taken over, what follows from it (lengths, protocols,
/// header lengths, checksums) is left to the crafter.
fn anew(datagram: Octets<'_>) -> Vec<Layer> {
    let seen = wire::Ipv4::checked(datagram).unwrap();
    let mut layers = vec![Layer::Ipv4(Ipv4 {
        type_of_service: seen.type_of_service(),
        identification: seen.identification(),
        dont_fragment: seen.dont_fragment(),
        time_to_live: seen.time_to_live(),
        ..Ipv4::new(seen.source(), seen.destination())
    })];
    match seen.protocol() {
        IpProtocol::IPIP => layers.extend(anew(seen.payload())),
        IpProtocol::TCP => {
            let tcp = wire::Tcp::checked(seen.payload()).unwrap();
            layers.push(Layer::Tcp(Tcp {
                sequence_number: tcp.sequence_number(),
                acknowledgment_number: tcp.acknowledgment_number(),
                window: tcp.window(),
                options: tcp.options().to_vec(),
                ..Tcp::new(tcp.source_port(), tcp.destination_port(), tcp.flags())
            }));
            layers.push(Layer::Raw(tcp.payload().bytes().to_vec()));
        }
        IpProtocol::UDP => {
            let udp = wire::Udp::checked(seen.payload()).unwrap().start();
            layers.push(Layer::Udp(Udp::new(udp.source_port, udp.destination_port)));
            layers.push(Layer::Raw(udp.payload.bytes().to_vec()));
        }
        other => panic!("protocol {other} in a capture of tunnels"),
    }
    layers
}

/// What leaves a kernel by an `ipip` device and by IPVS, `tests/data/README.md` says how it was captured.
#[test]
fn tunnels_are_the_kernels() {
    let capture = include_bytes!("data/kernel-ipip.pcap");
    let mut reader = PcapReader::new(&capture[..]).unwrap();
    let mut tunnelled = 0;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        let frame = wire::Ethernet::checked(Octets::new(packet.data())).unwrap();
        let datagram = wire::Ipv4::checked(frame.payload).unwrap();
        assert_eq!(datagram.protocol(), IpProtocol::IPIP);
        let length = usize::from(datagram.total_length());
        let seen = &frame.payload.bytes()[..length];
        let crafted = craft::build(&anew(Octets::new(seen))).unwrap();
        assert_eq!(crafted.forced, []);
        assert_eq!(
            hex::encode(&crafted.bytes),
            hex::encode(seen),
            "\npacket {tunnelled}: crafted left, the kernel's right"
        );
        tunnelled += 1;
    }
    assert!(tunnelled >= 8, "only {tunnelled} packets");
}
