use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::prop_assert_eq;
use proptest::prop_assume;
use proptest::proptest;

use super::*;
use crate::craft;
use crate::matching::Certainty;
use crate::plan::Carrier;
use crate::plan::Path;
use crate::plan::ProbeKind;
use crate::wire::TcpFlags;
use crate::wire::layers;
use crate::wire::layers::Field;
use crate::wire::layers::Icmpv4;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;

const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn key() -> SessionKey {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

fn probe_of(kind: ProbeKind, index: u16, protocol: Protocol) -> Probe {
    any_probe_of(kind, index, protocol).unwrap()
}

/// None of those that suites write out.
fn any_probe_of(kind: ProbeKind, index: u16, protocol: Protocol) -> Option<Probe> {
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
    Probe::new(ProbeId { kind, index }, 0, &path, &key())
}

/// Every kind with both protocols of the service, a few numbers of each.
fn probes() -> impl Iterator<Item = Probe> {
    ProbeKind::ALL.into_iter().flat_map(|kind| {
        [0, 1, 77, 2047].into_iter().flat_map(move |index| {
            let services = [Protocol::Tcp, Protocol::Udp].into_iter();
            services.filter_map(move |service| any_probe_of(kind, index, service))
        })
    })
}

fn recognise(packet: &[u8]) -> Option<Sighting> {
    Matcher::new(key()).recognise(packet)
}

fn encapsulated(source: Ipv4Addr, destination: Ipv4Addr, datagram: Vec<u8>) -> Vec<u8> {
    let outer = layers::Ipv4 {
        protocol: Field::Forced(4),
        identification: 0x4242,
        ..layers::Ipv4::new(source, destination)
    };
    craft::build(&[Layer::Ipv4(outer), Layer::Raw(datagram)])
        .unwrap()
        .bytes
}

fn error(icmp_type: u8, code: u8, to: Ipv4Addr, quotation: &[u8]) -> Vec<u8> {
    craft::build(&[
        Layer::Ipv4(layers::Ipv4::new(ROUTER, to)),
        Layer::Icmpv4(Icmpv4::error(icmp_type, code)),
        Layer::Raw(quotation.to_vec()),
    ])
    .unwrap()
    .bytes
}

fn segment(source: (Ipv4Addr, u16), to: (Ipv4Addr, u16), tcp: Tcp) -> Vec<u8> {
    let tcp = Tcp {
        source_port: source.1,
        destination_port: to.1,
        ..tcp
    };
    craft::build(&[
        Layer::Ipv4(layers::Ipv4::new(source.0, to.0)),
        Layer::Tcp(tcp),
    ])
    .unwrap()
    .bytes
}

#[test]
fn every_probe_is_recognised_as_sent_and_decapsulated() {
    for probe in probes() {
        let packet = craft::probe(&probe, &key());
        let seen = recognise(&packet).unwrap_or_else(|| panic!("{} not recognised", probe.id));
        assert_eq!(seen.probe, probe.id);
        assert_eq!(seen.flow, Some(probe.flow));
        assert_eq!(seen.inner_ttl, Some(probe.ttl));
        let carries_ttl = probe.flow.protocol == Protocol::Udp;
        assert_eq!(seen.sent_ttl, carries_ttl.then_some(probe.ttl));
        assert_eq!(Matcher::new(key()).alterations(&probe, &packet), []);
        let Some(tunnel) = probe.tunnel else {
            assert_eq!(seen.form, Form::Plain);
            assert_eq!(seen.outer, None);
            continue;
        };
        assert_eq!(seen.form, Form::Tunnelled);
        let expected = Outer {
            source: tunnel.source,
            destination: tunnel.destination,
            ttl: tunnel.ttl,
            identification: key().outer_identification(probe.id),
        };
        assert_eq!(seen.outer, Some(expected));
        let decapsulated = recognise(&packet[20..]).unwrap();
        assert_eq!(decapsulated.form, Form::Plain);
        assert_eq!(decapsulated.outer, None);
    }
}

/// What a host sends back: VIP:port to the client, or the client to VIP:port.
fn answer(probe: &Probe, from_client: bool, tcp: Tcp) -> Vec<u8> {
    let flow = probe.flow;
    let ends = (
        (flow.source, flow.source_port),
        (flow.destination, flow.destination_port),
    );
    match from_client == probe.id.kind.sends_syn_ack() {
        true => segment(ends.1, ends.0, tcp),
        false => segment(ends.0, ends.1, tcp),
    }
}

fn tcp(sequence_number: u32, acknowledgment_number: u32, flags: TcpFlags) -> Tcp {
    Tcp {
        sequence_number,
        acknowledgment_number,
        ..Tcp::new(0, 0, flags)
    }
}

/// SYN-ACK, RST/ACK and the client's RST to each SYN, the client's RST to each SYN-ACK.
fn answers(probe: &Probe) -> Vec<(Form, Vec<u8>)> {
    let cookie = key().cookie(probe.id);
    let next = cookie.wrapping_add(1);
    let rst = |sequence| {
        (
            Form::Rst,
            answer(probe, true, tcp(sequence, 0, TcpFlags::RST)),
        )
    };
    match (probe.flow.protocol, probe.id.kind.sends_syn_ack()) {
        (Protocol::Udp, _) => Vec::new(),
        (Protocol::Tcp, true) => vec![rst(cookie)],
        (Protocol::Tcp, false) => vec![
            (
                Form::SynAck,
                answer(probe, false, tcp(99, next, TcpFlags::SYN_ACK)),
            ),
            (
                Form::Refused,
                answer(probe, false, tcp(0, next, TcpFlags::RST_ACK)),
            ),
            rst(next),
        ],
    }
}

#[test]
fn a_segment_size_and_a_next_hops_mtu_are_told() {
    let probe = probe_of(ProbeKind::TunnelSyn, 1, Protocol::Tcp);
    let next = key().cookie(probe.id).wrapping_add(1);
    let with = |options: &[u8]| {
        let syn_ack = Tcp {
            options: options.to_vec(),
            ..tcp(99, next, TcpFlags::SYN_ACK)
        };
        let seen = recognise(&answer(&probe, false, syn_ack)).unwrap();
        assert_eq!(seen.form, Form::SynAck);
        seen.maximum_segment_size
    };
    assert_eq!(with(&[]), None);
    assert_eq!(with(&[1, 1, 2, 4, 0x05, 0x3c, 4, 2]), Some(1340));
    // Behind an option that cannot be read, none can.
    assert_eq!(with(&[0x55, 0, 0, 0, 2, 4, 5, 0xb4]), None);

    let probe = probe_of(ProbeKind::Mtu, 1, Protocol::Tcp).with_size(1500);
    let packet = craft::probe(&probe, &key());
    assert_eq!(packet.len(), 1500);
    for (quoted, mtu) in [(28, 1400u16), (548, 576), (48, 0)] {
        let [high, low] = mtu.to_be_bytes();
        let mut told = error(3, 4, DIP, &packet[..quoted]);
        told[26..28].copy_from_slice(&[high, low]);
        let seen = recognise(&told).unwrap();
        assert_eq!(seen.next_hop_mtu, (mtu != 0).then_some(mtu));
        assert_eq!(seen.quoted, Some(quoted as u16));
        assert_eq!(seen.maximum_segment_size, None);
    }
}

#[test]
fn a_probe_that_the_kernel_encapsulated_is_recognised() {
    for probe in probes().filter(|probe| probe.tunnel.is_none()) {
        let packet = encapsulated(DIP, RIP, craft::probe(&probe, &key()));
        let seen = recognise(&packet).unwrap();
        assert_eq!((seen.probe, seen.form), (probe.id, Form::Tunnelled));
        let outer = seen.outer.unwrap();
        assert_eq!((outer.source, outer.identification), (DIP, 0x4242));
        assert_eq!((seen.source, seen.destination), (DIP, RIP));
        assert_eq!(Matcher::new(key()).alterations(&probe, &packet), []);
    }
}

#[test]
fn answers_are_recognised_also_in_a_tunnel() {
    let mut count = 0;
    for probe in probes() {
        for (form, packet) in answers(&probe) {
            let seen = recognise(&packet).unwrap_or_else(|| panic!("{} {form:?}", probe.id));
            assert_eq!((seen.probe, seen.form), (probe.id, form));
            assert_eq!(
                (seen.inner_ttl, seen.outer, seen.quoted),
                (None, None, None)
            );
            assert_eq!(Matcher::new(key()).alterations(&probe, &packet), []);
            let relayed = recognise(&encapsulated(DIP, RIP, packet)).unwrap();
            assert_eq!((relayed.probe, relayed.form), (probe.id, form));
            assert!(relayed.outer.is_some());
            count += 1;
        }
    }
    assert!(count > 50, "{count} answers");
}

#[test]
fn a_cleanup_is_no_clients_rst() {
    for probe in probes() {
        let Some(packet) = craft::cleanup(&probe, &key()) else {
            continue;
        };
        let seen = recognise(&packet).unwrap();
        assert_eq!((seen.probe, seen.form), (probe.id, Form::Cleanup));
        assert_eq!(seen.outer.is_some(), probe.tunnel.is_some());
        assert_eq!(Matcher::new(key()).alterations(&probe, &packet), []);
        if probe.tunnel.is_none() {
            let seen = recognise(&encapsulated(DIP, RIP, packet)).unwrap();
            assert_eq!(seen.form, Form::Cleanup);
            assert!(seen.outer.is_some());
        }
    }
}

#[test]
fn errors_are_recognised_however_little_they_quote() {
    for probe in probes() {
        let packet = craft::probe(&probe, &key());
        let of = match probe.tunnel {
            Some(_) => Quoting::Tunnelled,
            None => Quoting::Plain,
        };
        let transport = if probe.tunnel.is_some() { 40 } else { 20 };
        for length in 28..=packet.len() {
            let error = error(11, 0, DIP, &packet[..length]);
            let Some(seen) = recognise(&error) else {
                panic!("{} quoted to {length} octets", probe.id)
            };
            assert_eq!(seen.probe, probe.id);
            let expected = Form::IcmpError {
                icmp_type: 11,
                code: 0,
                of,
            };
            assert_eq!(seen.form, expected);
            assert_eq!((seen.source, seen.destination), (ROUTER, DIP));
            assert_eq!(seen.quoted, Some(length as u16));
            let certainty = match probe.flow.protocol {
                Protocol::Udp if length >= transport + 18 => Certainty::Tag,
                _ => Certainty::Fields,
            };
            assert_eq!(seen.certainty, certainty, "{} to {length}", probe.id);
            let flow = (length >= transport + 8).then_some(probe.flow);
            assert_eq!(seen.flow, flow);
            assert_eq!(Matcher::new(key()).alterations(&probe, &error), []);
        }
        assert_eq!(recognise(&error(11, 0, DIP, &packet[..27])), None);
    }
}

#[test]
fn a_minimal_quote_of_what_the_kernel_encapsulated_is_minimal() {
    for kind in [ProbeKind::IpvsLoop, ProbeKind::Service] {
        for service in [Protocol::Tcp, Protocol::Udp] {
            let probe = probe_of(kind, 9, service);
            let own = craft::probe(&probe, &key());
            assert_eq!(
                own.len(),
                usize::from(crate::matching::identify::PROBE_LENGTH)
            );
            let packet = encapsulated(DIP, RIP, own);
            let seen = recognise(&error(3, 13, DIP, &packet[..28])).unwrap();
            assert_eq!((seen.probe, seen.certainty), (probe.id, Certainty::Minimal));
            assert_eq!(seen.outer.unwrap().destination, RIP);
            let longer = recognise(&error(3, 13, DIP, &packet[..48])).unwrap();
            assert_eq!(longer.certainty, Certainty::Fields);
        }
    }
}

#[test]
fn an_error_about_an_answer_says_so() {
    let about_answer = Form::IcmpError {
        icmp_type: 3,
        code: 1,
        of: Quoting::Answer,
    };
    for probe in probes() {
        for (form, packet) in answers(&probe) {
            let seen = recognise(&error(3, 1, VIP, &packet)).unwrap();
            assert_eq!((seen.probe, seen.form), (probe.id, about_answer));
            if form == Form::Rst {
                let minimal = recognise(&error(3, 1, VIP, &packet[..28])).unwrap();
                assert_eq!((minimal.probe, minimal.form), (probe.id, about_answer));
            }
        }
    }
    let probe = probe_of(ProbeKind::TunnelUdp, 5, Protocol::Tcp);
    let packet = craft::probe(&probe, &key());
    let unreachable = error(3, 3, CIP, &packet[20..]);
    let seen = recognise(&error(3, 1, VIP, &unreachable)).unwrap();
    assert_eq!((seen.probe, seen.form), (probe.id, about_answer));
}

#[test]
fn an_error_that_ipvs_relays_keeps_its_own_tunnel() {
    let probe = probe_of(ProbeKind::SpoofTrace, 5, Protocol::Tcp);
    let unreachable = error(3, 3, VIP, &craft::probe(&probe, &key()));
    let seen = recognise(&encapsulated(DIP, RIP, unreachable)).unwrap();
    assert_eq!(seen.form, Form::PORT_UNREACHABLE);
    assert_eq!(seen.outer.unwrap().identification, 0x4242);
}

#[test]
fn translated_addresses_and_ports_are_alterations() {
    for (kind, expected) in [
        (
            ProbeKind::SpoofTrace,
            vec!["source address", "source port", "UDP checksum"],
        ),
        (
            ProbeKind::SpoofSynack,
            vec!["source address", "source port"],
        ),
        (ProbeKind::Service, vec!["source address", "source port"]),
    ] {
        let probe = probe_of(kind, 1, Protocol::Tcp);
        let mut sent_otherwise = probe.clone();
        sent_otherwise.flow.source = ROUTER;
        sent_otherwise.flow.source_port = 1024;
        let mut packet = craft::probe(&sent_otherwise, &key());
        if probe.flow.protocol == Protocol::Udp {
            // A translator adjusts the checksum; the payload still gives it to the flow as sent.
            let original = craft::probe(&probe, &key());
            packet[28..].copy_from_slice(&original[28..]);
            packet[26..28].copy_from_slice(&[0x12, 0x34]);
        }
        assert_eq!(recognise(&packet).unwrap().probe, probe.id);
        let alterations = Matcher::new(key()).alterations(&probe, &packet);
        let fields: Vec<_> = alterations.iter().map(|a| a.field.as_str()).collect();
        assert_eq!(fields, expected, "{kind}");
        assert_eq!(
            (alterations[0].sent.clone(), alterations[0].seen.clone()),
            (probe.flow.source.to_string(), ROUTER.to_string())
        );
    }
}

#[test]
fn another_session_sees_nothing() {
    let other = Matcher::new(SessionKey::new([9; 16]));
    for probe in probes() {
        let packet = craft::probe(&probe, &key());
        assert_eq!(other.recognise(&packet), None, "{}", probe.id);
        for (_, answer) in answers(&probe) {
            assert_eq!(other.recognise(&answer), None, "{}", probe.id);
        }
    }
}

#[test]
fn a_cookie_counts_only_in_the_segment_it_belongs_to() {
    for probe in probes().filter(|probe| probe.flow.protocol == Protocol::Tcp) {
        let cookie = key().cookie(probe.id);
        for flags in 0..=0x3f {
            let flags = TcpFlags(flags);
            for from_client in [true, false] {
                let packet = answer(&probe, from_client, tcp(cookie, cookie, flags));
                let Some(seen) = recognise(&packet) else {
                    continue;
                };
                let fits = match (probe.id.kind.sends_syn_ack(), flags.kind()) {
                    (false, TcpFlags::SYN) => seen.form == Form::Plain,
                    (true, TcpFlags::SYN_ACK) => seen.form == Form::Plain,
                    (true, TcpFlags::RST) => seen.form == Form::Rst,
                    _ => false,
                };
                assert!(fits, "{} as {:?} in {flags}", probe.id, seen.form);
            }
        }
    }
}

#[test]
fn a_flipped_keyed_bit_is_no_match_or_an_alteration() {
    for probe in probes() {
        let packet = craft::probe(&probe, &key());
        let own = if probe.tunnel.is_some() { 20 } else { 0 };
        let mut keyed: Vec<usize> = vec![own + 4, own + 5];
        keyed.extend(own + 12..own + 24);
        keyed.extend(match probe.flow.protocol {
            // Checksum, tag and number.
            Protocol::Udp => own + 26..own + 38,
            // Sequence and acknowledgment number.
            Protocol::Tcp => own + 24..own + 32,
        });
        if probe.tunnel.is_some() {
            keyed.extend([4, 5].into_iter().chain(12..20));
        }
        for octet in keyed {
            for bit in 0..8 {
                let mut flipped = packet.clone();
                flipped[octet] ^= 1 << bit;
                let told = match recognise(&flipped) {
                    None => true,
                    Some(seen) if seen.probe != probe.id => false,
                    Some(_) => !Matcher::new(key()).alterations(&probe, &flipped).is_empty(),
                };
                assert!(told, "{}: octet {octet} bit {bit}", probe.id);
            }
        }
    }
}

proptest! {
    #[test]
    fn random_octets_neither_match_nor_panic(octets in vec(any::<u8>(), 0..120)) {
        prop_assert_eq!(recognise(&octets), None);
    }

    #[test]
    fn forged_segments_never_match(
        (sequence, acknowledgment) in any::<(u32, u32)>(),
        flags in 0..=0x3fu8,
        which in 0..120usize,
        from_client in any::<bool>(),
    ) {
        let probe = probes().nth(which).unwrap();
        let cookie = key().cookie(probe.id);
        prop_assume!(![cookie, cookie.wrapping_add(1)].contains(&sequence));
        let forged = tcp(sequence, acknowledgment, TcpFlags(flags));
        prop_assert_eq!(recognise(&answer(&probe, from_client, forged)), None);
    }

    #[test]
    fn damaged_errors_never_panic(
        which in 0..120usize,
        at in 0..92usize,
        octet in any::<u8>(),
        length in 0..=92usize,
    ) {
        let probe = probes().nth(which).unwrap();
        let mut packet = error(3, 3, VIP, &craft::probe(&probe, &key()));
        let at = at % packet.len();
        packet[at] = octet;
        packet.truncate(length);
        let _ = Matcher::new(key()).recognise(&packet);
        let _ = Matcher::new(key()).alterations(&probe, &packet);
        packet.fill(0xa5);
        prop_assert_eq!(recognise(&packet), None);
    }
}

/// What a suite writes out without a word on identity, innermost datagram `layers`, in the tunnel.
fn left_out(layers: Vec<Layer>, carriers: &[(usize, Carrier)]) -> (ProbeId, Vec<u8>) {
    let tunnel = Layer::Ipv4(layers::Ipv4::new(DIP, RIP));
    let inner = Layer::Ipv4(layers::Ipv4::new(CIP, VIP));
    let common = [(0, Carrier::Identification), (1, Carrier::Identification)];
    let packet = Packet {
        layers: [vec![tunnel, inner], layers].concat(),
        carriers: [&common, carriers].concat(),
        hardware: Vec::new(),
    };
    let id = ProbeId {
        kind: ProbeKind::Script,
        index: 7,
    };
    (id, craft::script(&packet, id, &key()).unwrap().bytes)
}

#[test]
fn a_suite_need_not_be_known_where_it_left_the_identity_out() {
    let udp = vec![
        Layer::Udp(layers::Udp::new(0, 33434)),
        Layer::Raw(Vec::new()),
    ];
    let (id, udp) = left_out(udp, &[(2, Carrier::SourcePort), (3, Carrier::Payload)]);
    let segment = |flags| vec![Layer::Tcp(Tcp::new(0, 80, flags))];
    let own = [(2, Carrier::SourcePort), (2, Carrier::SequenceNumber)];
    let (_, syn) = left_out(segment(TcpFlags::SYN), &own);
    let (_, psh) = left_out(segment(TcpFlags(0x18)), &own);
    let known = Matcher::without_suite(key());
    let other = Matcher::without_suite(key().next());
    let error = |quoted: &[u8]| {
        let icmp = Layer::Icmpv4(Icmpv4::error(11, 0));
        let ip = Layer::Ipv4(layers::Ipv4::new(ROUTER, DIP));
        let layers = [ip, icmp, Layer::Raw(quoted.to_vec())];
        craft::build(&layers).unwrap().bytes
    };
    for packet in [&udp, &syn, &psh] {
        for (packet, is_error) in [
            (packet.clone(), false),
            (packet[20..].to_vec(), false),
            (error(packet), true),
            (error(&packet[20..48]), true),
        ] {
            let seen = known.recognise(&packet).expect("it is ours");
            assert_eq!(seen.probe, id);
            assert_eq!(matches!(seen.form, Form::IcmpError { .. }), is_error);
            assert_eq!(seen.sent_ttl, None);
            assert_eq!(other.recognise(&packet), None);
            // Where suites are known, unknown ones do not count.
            assert_eq!(recognise(&packet), None);
        }
    }
    let syn = TcpStart::quoted(Octets::new(&syn[40..])).unwrap();
    for (flags, sequence, acknowledgment, form) in [
        (TcpFlags::SYN_ACK, 5, syn.sequence_number + 1, Form::SynAck),
        (TcpFlags::RST_ACK, 0, syn.sequence_number + 1, Form::Refused),
    ] {
        let answer = Layer::Tcp(Tcp {
            sequence_number: sequence,
            acknowledgment_number: acknowledgment,
            ..Tcp::new(80, syn.source_port, flags)
        });
        let ip = Layer::Ipv4(layers::Ipv4::new(VIP, CIP));
        let packet = craft::build(&[ip, answer]).unwrap().bytes;
        let seen = known.recognise(&packet).unwrap();
        assert_eq!((seen.probe, seen.form), (id, form));
        assert_eq!(other.recognise(&packet), None);
    }
}
