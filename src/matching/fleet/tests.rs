//! What a Linux real server, its client and routers answer, what they do not, and what is not ours.

use etherparse::Icmpv4Header;
use etherparse::Icmpv4Type;
use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;
use crate::plan::Range;
use crate::plan::Service;

const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

fn fleet() -> Arc<Fleet> {
    let service = |vip: u8, port, protocol| Service {
        vip: [192, 0, 2, vip].into(),
        port,
        protocol,
    };
    let services = vec![
        service(10, 80, Protocol::Tcp),
        service(10, 443, Protocol::Tcp),
        service(11, 53, Protocol::Udp),
    ];
    let ranges = vec![Range {
        first: [203, 0, 112, 1].into(),
        last: [203, 0, 113, 254].into(),
    }];
    let fleet = Fleet::new(DIP, Some(CIP), vec![(services, ranges)]);
    Arc::new(fleet.unwrap())
}

fn key(octet: u8) -> SessionKey {
    SessionKey::new([octet; 16])
}

fn matcher() -> FleetMatcher {
    FleetMatcher::new(fleet(), key(1))
}

/// The probe of a pair, from its own header on; the tunnel header is [`wrapped`] around it.
fn probe(probe: FleetProbe, pair: &Pair) -> Vec<u8> {
    let identity = FleetIdentity::new(&key(1), probe, pair.number);
    let source = match probe {
        FleetProbe::ClosedLoop => CIP,
        _ => DIP,
    };
    let builder = PacketBuilder::ipv4(source.octets(), pair.service.vip.octets(), 64);
    let mut octets = Vec::new();
    match probe {
        FleetProbe::ReflectUdp => {
            let mut payload = identity.tag.to_be_bytes().to_vec();
            payload.extend([0; 8]);
            let udp = builder.udp(identity.port, identity.closed_port);
            udp.write(&mut octets, &payload).unwrap();
            octets[26..28].copy_from_slice(&(identity.word as u16).to_be_bytes());
        }
        _ => {
            let tcp = builder.tcp(identity.port, pair.service.port, identity.word, 64_240);
            tcp.syn().write(&mut octets, &[]).unwrap();
        }
    }
    octets[4..6].copy_from_slice(&identity.identification.to_be_bytes());
    octets
}

fn wrapped(which: FleetProbe, pair: &Pair) -> Vec<u8> {
    let inner = probe(which, pair);
    let identity = FleetIdentity::new(&key(1), which, pair.number);
    let length = inner.len() as u16;
    let mut outer =
        Ipv4Header::new(length, 64, IpNumber::IPV4, DIP.octets(), pair.rip.octets()).unwrap();
    outer.identification = identity.outer_identification;
    [&outer.to_bytes()[..], &inner].concat()
}

fn icmp(from: Ipv4Addr, to: Ipv4Addr, (kind, code): (u8, u8), quote: &[u8]) -> Vec<u8> {
    let unknown = Icmpv4Type::Unknown {
        type_u8: kind,
        code_u8: code,
        bytes5to8: [0; 4],
    };
    let icmp = Icmpv4Header::with_checksum(unknown, quote);
    let length = (8 + quote.len()) as u16;
    let ip = Ipv4Header::new(length, 60, IpNumber::ICMP, from.octets(), to.octets()).unwrap();
    [&ip.to_bytes()[..], &icmp.to_bytes(), quote].concat()
}

/// What the service answers to a SYN.
fn answered(which: FleetProbe, pair: &Pair, flags: u8) -> Vec<u8> {
    let identity = FleetIdentity::new(&key(1), which, pair.number);
    let to = match which {
        FleetProbe::ClosedLoop => CIP,
        _ => DIP,
    };
    let builder = PacketBuilder::ipv4(pair.service.vip.octets(), to.octets(), 60);
    let tcp = builder.tcp(pair.service.port, identity.port, 0x1234_5678, 65_160);
    let mut octets = Vec::new();
    tcp.ack(identity.word.wrapping_add(1))
        .write(&mut octets, &[])
        .unwrap();
    octets[33] = flags;
    octets
}

fn of(pair: &Pair, probe: FleetProbe, answer: FleetAnswer) -> Option<FleetSighting> {
    Some(FleetSighting::Of {
        pair: pair.number,
        probe,
        answer,
    })
}

fn tcp_pairs() -> impl Iterator<Item = Pair> {
    let fleet = fleet();
    (0..fleet.tcp_pairs()).map(move |number| fleet.pair(number).unwrap())
}

fn udp_pairs() -> impl Iterator<Item = Pair> {
    let fleet = fleet();
    (fleet.tcp_pairs()..fleet.pairs()).map(move |number| fleet.pair(number).unwrap())
}

#[test]
fn answers_name_their_pairs() {
    let matcher = matcher();
    let syn = FleetProbe::ReflectSyn;
    for pair in tcp_pairs() {
        let says = |flags| matcher.recognise(&answered(syn, &pair, flags));
        assert_eq!(says(0x12), of(&pair, syn, FleetAnswer::SynAck));
        assert_eq!(says(0x52), of(&pair, syn, FleetAnswer::SynAck), "with ECN");
        assert_eq!(says(0x14), of(&pair, syn, FleetAnswer::Reset));
        for other in [0x02, 0x04, 0x10, 0x11, 0x18] {
            assert_eq!(says(other), None);
        }
        let identity = FleetIdentity::new(&key(1), FleetProbe::ClosedLoop, pair.number);
        let client = |port, number| {
            let vip = pair.service.vip.octets();
            let builder = PacketBuilder::ipv4(CIP.octets(), vip, 60);
            let tcp = builder.tcp(identity.port, port, number, 0).rst();
            let mut octets = Vec::new();
            tcp.write(&mut octets, &[]).unwrap();
            matcher.recognise(&octets)
        };
        let number = identity.word.wrapping_add(1);
        let expected = of(&pair, FleetProbe::ClosedLoop, FleetAnswer::ClientReset);
        assert_eq!(client(pair.service.port, number), expected);
        assert_eq!(client(pair.service.port + 1, number), None);
        assert_eq!(client(pair.service.port, number.wrapping_add(1)), None);
    }
}

#[test]
fn a_probe_that_comes_out_of_the_tunnel_to_the_director_came_back() {
    let matcher = matcher();
    let stranger = FleetMatcher::new(fleet(), key(2));
    let asked = tcp_pairs()
        .flat_map(|pair| {
            [FleetProbe::ClosedLoop, FleetProbe::ReflectSyn].map(|probe| (pair, probe))
        })
        .chain(udp_pairs().map(|pair| (pair, FleetProbe::ReflectUdp)));
    for (pair, which) in asked.step_by(7) {
        let mut packet = probe(which, &pair);
        packet[8] -= 1; // who forwards counts down; no checksum of IPv4 is compared
        let expected = of(&pair, which, FleetAnswer::CameBack);
        assert_eq!(matcher.recognise(&packet), expected);
        assert_eq!(stranger.recognise(&packet), None);
        // Still in its tunnel it is what IPVS, or somebody's route, sends.
        assert_eq!(matcher.recognise(&wrapped(which, &pair)), None);
        if which != FleetProbe::ReflectUdp {
            packet[33] = 0x10;
            assert_eq!(matcher.recognise(&packet), None, "an ACK is no SYN");
        }
    }
}

#[test]
fn port_unreachable_of_the_vip_answers_a_datagram() {
    let matcher = matcher();
    let udp = FleetProbe::ReflectUdp;
    for pair in udp_pairs() {
        let packet = probe(udp, &pair);
        for length in [28, 36, 44] {
            let quote = &packet[..length];
            let answer = matcher.recognise(&icmp(pair.service.vip, DIP, (3, 3), quote));
            assert_eq!(
                answer,
                of(&pair, udp, FleetAnswer::PortUnreachable),
                "{length}"
            );
            let stranger = matcher.recognise(&icmp(ROUTER, DIP, (3, 3), quote));
            let expected = FleetAnswer::Error(FleetError {
                icmp_type: 3,
                code: 3,
                about: About::Inner,
                from: Whom::Other(ROUTER),
            });
            assert_eq!(stranger, of(&pair, udp, expected));
        }
        assert_eq!(
            matcher.recognise(&icmp(pair.service.vip, DIP, (3, 3), &packet[..27])),
            None
        );
        let mut other = packet.clone();
        other[30] ^= 1;
        assert_eq!(
            matcher.recognise(&icmp(pair.service.vip, DIP, (3, 3), &other)),
            None,
            "tag"
        );
    }
}

#[test]
fn errors_about_the_tunnel_name_their_pairs_as_far_as_they_quote() {
    let matcher = matcher();
    for (pair, which) in tcp_pairs()
        .step_by(17)
        .flat_map(|pair| {
            [
                (pair, FleetProbe::ReflectSyn),
                (pair, FleetProbe::ClosedLoop),
            ]
        })
        .chain(
            udp_pairs()
                .step_by(17)
                .map(|pair| (pair, FleetProbe::ReflectUdp)),
        )
    {
        let packet = wrapped(which, &pair);
        for (from, whom) in [(pair.rip, Whom::RealServer), (ROUTER, Whom::Other(ROUTER))] {
            let error = FleetError {
                icmp_type: 3,
                code: 2,
                about: About::Tunnel,
                from: whom,
            };
            for length in 20..=packet.len() {
                let seen = matcher.recognise(&icmp(from, DIP, (3, 2), &packet[..length]));
                let expected = match length {
                    // Nothing but the tunnel header: one of the real server's, nobody knows which.
                    20..28 => Some(FleetSighting::OneOf {
                        rip: pair.rip,
                        error,
                    }),
                    _ => of(&pair, which, FleetAnswer::Error(error)),
                };
                assert_eq!(seen, expected, "{length} octets of {which:?}");
            }
        }
    }
}

#[test]
fn what_ipvs_tunnels_itself_is_not_ours() {
    let matcher = matcher();
    let pair = tcp_pairs().next().unwrap();
    // Another identification, as the kernel gives it, in either header; the inner one is quoted from octet 28 on.
    for (at, from) in [(4, 20), (24, 28)] {
        let mut packet = wrapped(FleetProbe::ClosedLoop, &pair);
        packet[at] ^= 0x55;
        for length in from..40 {
            let seen = matcher.recognise(&icmp(ROUTER, DIP, (11, 0), &packet[..length]));
            assert_eq!(seen, None, "{length}");
        }
    }
}

#[test]
fn errors_about_the_answer_come_to_the_vip() {
    let matcher = matcher();
    for which in [FleetProbe::ReflectSyn, FleetProbe::ClosedLoop] {
        for pair in tcp_pairs().step_by(13) {
            let quote = answered(which, &pair, 0x12);
            let seen = |to| matcher.recognise(&icmp(ROUTER, to, (3, 13), &quote));
            let expected = FleetAnswer::Error(FleetError {
                icmp_type: 3,
                code: 13,
                about: About::Return,
                from: Whom::Other(ROUTER),
            });
            assert_eq!(seen(pair.service.vip), of(&pair, which, expected));
            assert_eq!(seen(ROUTER), None);
        }
    }
}

#[test]
fn a_changed_octet_of_an_answer_is_not_ours_or_changes_nothing() {
    let matcher = matcher();
    let pair = tcp_pairs().nth(5).unwrap();
    let packet = answered(FleetProbe::ReflectSyn, &pair, 0x12);
    for at in (12..24).chain(28..32) {
        for bit in 0..8 {
            let mut changed = packet.clone();
            changed[at] ^= 1 << bit;
            assert_eq!(matcher.recognise(&changed), None, "octet {at}, bit {bit}");
        }
    }
    let mut wrong = icmp(
        pair.service.vip,
        DIP,
        (3, 3),
        &probe(FleetProbe::ReflectSyn, &pair),
    );
    assert!(matcher.recognise(&wrong).is_some());
    wrong[22] ^= 1;
    assert_eq!(matcher.recognise(&wrong), None, "a wrong ICMP checksum");
}

#[test]
fn answers_of_another_session_are_not_ours() {
    let theirs = FleetMatcher::new(fleet(), key(2));
    for pair in tcp_pairs() {
        for which in [FleetProbe::ReflectSyn, FleetProbe::ClosedLoop] {
            assert_eq!(theirs.recognise(&answered(which, &pair, 0x12)), None);
            let packet = wrapped(which, &pair);
            for length in [20, 28, 48, packet.len()] {
                let error = icmp(ROUTER, DIP, (11, 0), &packet[..length]);
                // 20 octets have 16 bits of identity: one of three pairs of six probes.
                let seen = theirs.recognise(&error);
                let is_vague = matches!(seen, Some(FleetSighting::OneOf { .. }));
                assert!(seen.is_none() || length == 20 && is_vague, "{seen:?}");
            }
        }
    }
    for pair in udp_pairs() {
        let packet = probe(FleetProbe::ReflectUdp, &pair);
        assert_eq!(
            theirs.recognise(&icmp(pair.service.vip, DIP, (3, 3), &packet)),
            None
        );
    }
}

#[test]
fn what_kernels_and_others_sent_is_not_ours() {
    let matcher = matcher();
    let mut packets = 0;
    for octets in [
        &include_bytes!("../../../tests/data/kernel-answers.pcap")[..],
        include_bytes!("../../../tests/data/kernel-ipip.pcap"),
        include_bytes!("../../../tests/data/guest-answers.pcap"),
    ] {
        // Each octet as the start of a packet: harder than where packets begin.
        for start in 0..octets.len() {
            assert_eq!(matcher.recognise(&octets[start..]), None);
            packets += 1;
        }
    }
    assert!(packets > 1000, "{packets}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn random_answers_are_not_ours(
        port in any::<u16>(),
        words in any::<[u32; 2]>(),
        flags in any::<u8>(),
        to_client in any::<bool>(),
        is_second in any::<bool>(),
    ) {
        let to = if to_client { CIP } else { DIP };
        let service = if is_second { 443 } else { 80 };
        let builder = PacketBuilder::ipv4([192, 0, 2, 10], to.octets(), 60);
        let mut octets = Vec::new();
        builder.tcp(service, port, words[0], 1).ack(words[1]).write(&mut octets, &[]).unwrap();
        octets[33] = flags;
        prop_assert_eq!(matcher().recognise(&octets), None);
    }

    #[test]
    fn no_octets_make_it_panic(octets in prop::collection::vec(any::<u8>(), 0..120), kind in 0usize..3) {
        let mut packet = octets;
        let pair = fleet().pair(3).unwrap();
        let real = icmp(ROUTER, DIP, (11, 0), &wrapped(FleetProbe::ReflectSyn, &pair));
        if kind > 0 {
            let length = packet.len().min(real.len());
            let keep = if kind == 1 { 20 } else { 48 };
            let kept = length.min(keep);
            packet[..kept].copy_from_slice(&real[..kept]);
        }
        matcher().recognise(&packet);
    }
}
