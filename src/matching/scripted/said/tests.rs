use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::prop_assert_eq;
use proptest::proptest;

use crate::craft;
use crate::matching::Certainty;
use crate::matching::Matcher;
use crate::matching::Sighting;
use crate::plan::Carrier;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Packet;
use crate::plan::Probe;
use crate::plan::Quoting;
use crate::plan::SessionKey;
use crate::wire::Mac;
use crate::wire::TcpFlags;
use crate::wire::layers::Arp;
use crate::wire::layers::Ethernet;
use crate::wire::layers::Field;
use crate::wire::layers::Icmpv4;
use crate::wire::layers::Ipv4;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;
use crate::wire::layers::Udp;

const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn key() -> SessionKey {
    "00112233445566778899aabbccddeeff".parse().unwrap()
}

/// A session in which suites wrote packets out.
struct Session {
    matcher: Matcher,
    sent: Vec<(Probe, Vec<u8>)>,
}

impl Session {
    fn of(packets: Vec<Packet>) -> Session {
        let mut session = Session {
            matcher: Matcher::new(key()),
            sent: Vec::new(),
        };
        for (index, packet) in packets.into_iter().enumerate() {
            let probe = Probe::script(index as u16, 0, Host::Director, packet, &key());
            let packet = probe.script.as_ref().unwrap();
            let bytes = craft::script(packet, probe.id, &key()).unwrap().bytes;
            session.matcher.add_script(&probe, &bytes);
            session.sent.push((probe, bytes));
        }
        session
    }

    fn seen(&self, packet: &[u8]) -> Sighting {
        self.matcher.recognise(packet).expect("a packet of ours")
    }

    fn altered(&self, index: usize, packet: &[u8]) -> Vec<String> {
        let alterations = self.matcher.alterations(&self.sent[index].0, packet);
        alterations.into_iter().map(|a| a.field).collect()
    }
}

fn packet(layers: Vec<Layer>, carriers: &[(usize, Carrier)]) -> Packet {
    Packet {
        layers,
        carriers: carriers.to_vec(),
        hardware: Vec::new(),
    }
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr) -> Layer {
    Layer::Ipv4(Ipv4::new(source, destination))
}

fn built(layers: &[Layer]) -> Vec<u8> {
    craft::build(layers).unwrap().bytes
}

/// IPIP, as the suite leaves it: everything that can carries identity.
fn tunnelled_udp() -> Packet {
    let layers = vec![
        ip(DIP, RIP),
        ip(CIP, VIP),
        Layer::Udp(Udp::new(0, 33434)),
        Layer::Raw(Vec::new()),
    ];
    let carriers = [
        (0, Carrier::Identification),
        (1, Carrier::Identification),
        (2, Carrier::SourcePort),
        (3, Carrier::Payload),
    ];
    packet(layers, &carriers)
}

/// Everything forced: it carries nothing of the session.
fn forced_udp(ttl: u8) -> Packet {
    let header = Ipv4 {
        identification: 7,
        time_to_live: ttl,
        ..Ipv4::new(DIP, RIP)
    };
    let layers = vec![
        Layer::Ipv4(header),
        Layer::Udp(Udp::new(1000, 33434)),
        Layer::Raw(b"abc".to_vec()),
    ];
    packet(layers, &[])
}

fn syn() -> Packet {
    let layers = vec![ip(CIP, VIP), Layer::Tcp(Tcp::new(0, 80, TcpFlags::SYN))];
    let carriers = [
        (0, Carrier::Identification),
        (1, Carrier::SourcePort),
        (1, Carrier::SequenceNumber),
    ];
    packet(layers, &carriers)
}

fn echo() -> Packet {
    let layers = vec![ip(DIP, RIP), Layer::Icmpv4(Icmpv4::echo(0, 0))];
    packet(layers, &[(0, Carrier::Identification), (1, Carrier::Echo)])
}

fn error(to: Ipv4Addr, quotation: &[u8]) -> Vec<u8> {
    built(&[
        ip(ROUTER, to),
        Layer::Icmpv4(Icmpv4::error(11, 0)),
        Layer::Raw(quotation.to_vec()),
    ])
}

fn encapsulated(datagram: &[u8]) -> Vec<u8> {
    let outer = Ipv4 {
        protocol: Field::Forced(4),
        identification: 0x4242,
        ..Ipv4::new(DIP, RIP)
    };
    built(&[Layer::Ipv4(outer), Layer::Raw(datagram.to_vec())])
}

fn of(of: Quoting) -> Form {
    Form::IcmpError {
        icmp_type: 11,
        code: 0,
        of,
    }
}

#[test]
fn it_is_known_as_it_was_sent_in_more_headers_and_in_less() {
    let session = Session::of(vec![tunnelled_udp(), forced_udp(64), syn(), echo()]);
    for (index, (probe, bytes)) in session.sent.iter().enumerate() {
        let mut aged = bytes.clone();
        // A router's work, and a marking.
        (aged[1], aged[8]) = (0x20, 3);
        aged[10..12].copy_from_slice(&[0xab, 0xcd]);
        let seen = session.seen(&aged);
        assert_eq!(
            (seen.probe, seen.form, seen.ttl),
            (probe.id, Form::Plain, 3)
        );
        let tos = match index {
            0 => "tunnel type of service",
            _ => "type of service",
        };
        assert_eq!(session.altered(index, &aged), [tos]);
        assert_eq!(session.altered(index, bytes), [""; 0]);
        let wrapped = encapsulated(bytes);
        let seen = session.seen(&wrapped);
        assert_eq!((seen.probe, seen.form), (probe.id, Form::Tunnelled));
        assert_eq!(seen.outer.unwrap().identification, 0x4242);
        assert_eq!(session.altered(index, &wrapped), [""; 0]);
    }
    let (probe, bytes) = &session.sent[0];
    let seen = session.seen(bytes);
    assert_eq!(seen.outer.unwrap().destination, RIP);
    assert_eq!(seen.flow, Some(probe.flow));
    let inner = session.seen(&bytes[20..]);
    assert_eq!((inner.probe, inner.form), (probe.id, Form::Decapsulated));
    assert_eq!((inner.source, inner.outer), (CIP, None));
    let again = session.seen(&encapsulated(&bytes[20..]));
    assert_eq!((again.probe, again.form), (probe.id, Form::Tunnelled));
}

#[test]
fn an_error_is_known_however_little_it_quotes() {
    let session = Session::of(vec![tunnelled_udp(), forced_udp(64), syn(), echo()]);
    for (probe, bytes) in &session.sent {
        let quoting = match probe.tunnel {
            Some(_) => Quoting::Tunnelled,
            None => Quoting::Plain,
        };
        for length in 28..=bytes.len() {
            let seen = session.seen(&error(DIP, &bytes[..length]));
            assert_eq!((seen.probe, seen.form), (probe.id, of(quoting)));
            assert_eq!(seen.quoted, Some(length as u16));
            assert_eq!((seen.source, seen.destination), (ROUTER, DIP));
        }
        assert_eq!(session.matcher.recognise(&error(DIP, &bytes[..27])), None);
        // What the kernel encapsulated: the start of its header is then all there is.
        let wrapped = encapsulated(bytes);
        let seen = session.seen(&error(DIP, &wrapped[..28]));
        assert_eq!((seen.probe, seen.form), (probe.id, of(Quoting::Tunnelled)));
        assert_eq!(seen.certainty, Certainty::Minimal);
        let seen = session.seen(&error(DIP, &wrapped[..48]));
        assert_eq!((seen.probe, seen.certainty), (probe.id, Certainty::Fields));
    }
    let (probe, bytes) = &session.sent[0];
    let unreachable = error(CIP, &bytes[20..]);
    let seen = session.seen(&unreachable);
    assert_eq!((seen.probe, seen.form), (probe.id, of(Quoting::Plain)));
    let seen = session.seen(&error(VIP, &unreachable));
    assert_eq!((seen.probe, seen.form), (probe.id, of(Quoting::Answer)));
}

/// A segment between two ends.
fn segment(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), tcp: Tcp) -> Vec<u8> {
    let tcp = Tcp {
        source_port: from.1,
        destination_port: to.1,
        ..tcp
    };
    built(&[ip(from.0, to.0), Layer::Tcp(tcp)])
}

fn numbered(sequence_number: u32, acknowledgment_number: u32, flags: TcpFlags) -> Tcp {
    Tcp {
        sequence_number,
        acknowledgment_number,
        ..Tcp::new(0, 0, flags)
    }
}

#[test]
fn segments_answer_by_their_ports_and_numbers() {
    let session = Session::of(vec![syn()]);
    let probe = &session.sent[0].0;
    let cookie = key().cookie(probe.id);
    let client = (CIP, probe.flow.source_port);
    let service = (VIP, 80);
    let next = cookie.wrapping_add(1);
    for (form, from, to, tcp) in [
        (
            Form::SynAck,
            service,
            client,
            numbered(9, next, TcpFlags::SYN_ACK),
        ),
        (
            Form::Refused,
            service,
            client,
            numbered(0, next, TcpFlags::RST_ACK),
        ),
        (Form::Rst, client, service, numbered(next, 0, TcpFlags::RST)),
    ] {
        let answer = segment(from, to, tcp);
        let seen = session.seen(&answer);
        assert_eq!((seen.probe, seen.form), (probe.id, form));
        assert_eq!(session.altered(0, &answer), [""; 0]);
        let relayed = session.seen(&encapsulated(&answer));
        assert_eq!((relayed.form, relayed.outer.is_some()), (form, true));
        let seen = session.seen(&error(VIP, &answer));
        assert_eq!((seen.probe, seen.form), (probe.id, of(Quoting::Answer)));
    }
    for (from, to, tcp) in [
        (service, client, numbered(9, cookie, TcpFlags::SYN_ACK)),
        (
            service,
            (CIP, client.1 ^ 1),
            numbered(9, next, TcpFlags::SYN_ACK),
        ),
        (service, client, numbered(9, next, TcpFlags::ACK)),
        (client, service, numbered(cookie, 0, TcpFlags::RST)),
        (
            (DIP, 80),
            (RIP, client.1),
            numbered(9, next, TcpFlags::SYN_ACK),
        ),
    ] {
        let stranger = segment(from, to, tcp);
        assert_eq!(session.matcher.recognise(&stranger), None);
    }
    // From another address than asked: it answers all the same, and the difference shows.
    let tcp = numbered(9, next, TcpFlags::SYN_ACK);
    let rewritten = segment((RIP, 80), client, tcp);
    assert_eq!(session.seen(&rewritten).form, Form::SynAck);
    assert_eq!(session.altered(0, &rewritten), ["source address"]);
}

#[test]
fn a_segment_with_an_acknowledgment_is_answered_by_an_rst() {
    let tcp = Tcp {
        sequence_number: 5,
        acknowledgment_number: 0x0102_0304,
        ..Tcp::new(4000, 4001, TcpFlags::ACK)
    };
    let header = Ipv4 {
        identification: 9,
        ..Ipv4::new(DIP, RIP)
    };
    let session = Session::of(vec![packet(
        vec![Layer::Ipv4(header), Layer::Tcp(tcp)],
        &[],
    )]);
    let rst = numbered(0x0102_0304, 0, TcpFlags::RST);
    let seen = session.seen(&segment((RIP, 4001), (DIP, 4000), rst));
    assert_eq!(seen.form, Form::Rst);
    let other = numbered(0x0102_0305, 0, TcpFlags::RST);
    let other = segment((RIP, 4001), (DIP, 4000), other);
    assert_eq!(session.matcher.recognise(&other), None);
}

#[test]
fn datagrams_and_messages_answer() {
    let session = Session::of(vec![forced_udp(64), echo()]);
    let reply = built(&[ip(RIP, DIP), Layer::Udp(Udp::new(33434, 1000))]);
    let seen = session.seen(&reply);
    assert_eq!((seen.probe, seen.form), (session.sent[0].0.id, Form::Reply));
    let other = built(&[ip(VIP, DIP), Layer::Udp(Udp::new(33434, 1000))]);
    assert_eq!(session.matcher.recognise(&other), None);

    let (probe, bytes) = &session.sent[1];
    let pong = |source, icmp_type| {
        let icmp = Icmpv4 {
            rest: bytes[24..28].try_into().unwrap(),
            ..Icmpv4::error(icmp_type, 0)
        };
        built(&[ip(source, DIP), Layer::Icmpv4(icmp)])
    };
    let seen = session.seen(&pong(RIP, 0));
    assert_eq!((seen.probe, seen.form), (probe.id, Form::Reply));
    assert_eq!(session.matcher.recognise(&pong(RIP, 14)), None, "no echo");
}

#[test]
fn what_a_translator_changed_is_known_by_what_it_carries() {
    let session = Session::of(vec![tunnelled_udp(), syn(), echo(), forced_udp(64)]);
    let changed = ["source address", "source port", "identification"];
    for (index, expected) in [(0, &changed[..]), (1, &changed[..2]), (2, &changed[2..])] {
        let (probe, bytes) = &session.sent[index];
        let own = if index == 0 { 20 } else { 0 };
        let mut packet = bytes[own..].to_vec();
        if index < 2 {
            packet[12..16].copy_from_slice(&ROUTER.octets());
            packet[20..22].copy_from_slice(&[0x12, 0x34]);
        }
        if index != 1 {
            packet[4..6].copy_from_slice(&[0x55, 0x66]);
        }
        let seen = session.seen(&packet);
        assert_eq!(seen.probe, probe.id);
        let form = if index == 0 {
            Form::Decapsulated
        } else {
            Form::Plain
        };
        assert_eq!(seen.form, form);
        assert_eq!(session.altered(index, &packet), expected);
    }
    // What carries nothing is no more than what it says.
    let mut packet = session.sent[3].1.clone();
    packet[4] = 1;
    assert_eq!(session.matcher.recognise(&packet), None);
}

#[test]
fn equal_packets_are_twins_whatever_their_time_to_live() {
    let packets = vec![
        forced_udp(1),
        tunnelled_udp(),
        forced_udp(2),
        tunnelled_udp(),
    ];
    let session = Session::of(packets);
    let id = |index: usize| session.sent[index].0.id;
    let twins = |index| session.matcher.twins(id(index)).collect::<Vec<_>>();
    assert_eq!(twins(0), [id(0), id(2)]);
    assert_eq!(twins(2), [id(0), id(2)]);
    assert_eq!(twins(1), [id(1)]);
    assert_eq!(session.seen(&session.sent[3].1).probe, id(3));
    assert_eq!(session.seen(&session.sent[2].1).probe, id(0));
}

#[test]
fn the_longest_agreement_decides_between_packets_that_start_alike() {
    let with = |text: &str| {
        let mut packet = forced_udp(64);
        packet.layers[2] = Layer::Raw(text.as_bytes().to_vec());
        packet
    };
    let session = Session::of(vec![with("abc"), with("abd")]);
    for (probe, bytes) in &session.sent {
        assert_eq!(session.seen(bytes).probe, probe.id);
    }
}

#[test]
fn fragments_are_known_and_what_answers_their_whole() {
    let fragment = |offset, more_fragments, octets: &[u8]| {
        let header = Ipv4 {
            identification: 77,
            fragment_offset: offset,
            more_fragments,
            protocol: Field::Forced(17),
            ..Ipv4::new(DIP, RIP)
        };
        packet(vec![Layer::Ipv4(header), Layer::Raw(octets.to_vec())], &[])
    };
    let whole = built(&[
        ip(DIP, RIP),
        Layer::Udp(Udp::new(1000, 33434)),
        Layer::Raw(vec![7; 24]),
    ]);
    let session = Session::of(vec![
        fragment(0, true, &whole[20..36]),
        fragment(2, false, &whole[36..]),
    ]);
    for (probe, bytes) in &session.sent {
        let seen = session.seen(bytes);
        assert_eq!((seen.probe, seen.form), (probe.id, Form::Plain));
    }
    let mut reassembled = whole;
    reassembled[4..6].copy_from_slice(&[0, 77]);
    let seen = session.seen(&error(DIP, &reassembled));
    assert_eq!(seen.probe, session.sent[0].0.id);
    assert_eq!(seen.form, of(Quoting::Plain));
}

#[test]
fn odd_packets_are_known() {
    let header = |change: fn(&mut Ipv4)| {
        let mut header = Ipv4 {
            identification: 5,
            ..Ipv4::new(DIP, RIP)
        };
        change(&mut header);
        Layer::Ipv4(header)
    };
    let ethernet = Layer::Ethernet(Ethernet {
        destination: Mac([2, 0, 0, 0, 0, 1]),
        source: Mac([2, 0, 0, 0, 0, 2]),
        ethertype: Field::Derived,
    });
    let udp = Layer::Udp(Udp::new(1000, 33434));
    let odd = [
        header(|ip| ip.version = Field::Forced(5)),
        header(|ip| ip.header_length = Field::Forced(2)),
        header(|ip| ip.total_length = Field::Forced(9)),
        header(|ip| ip.header_checksum = Field::Forced(1)),
        header(|ip| ip.time_to_live = 0),
    ];
    for header in odd {
        let layers = vec![ethernet.clone(), header, udp.clone()];
        let session = Session::of(vec![packet(layers, &[])]);
        let mut seen = session.sent[0].1[14..].to_vec();
        // What Ethernet adds to a short frame.
        seen.extend([0; 18]);
        assert_eq!(
            session.seen(&seen).form,
            Form::Plain,
            "{header:?}",
            header = session.sent[0].0
        );
        seen[12] ^= 1;
        seen[16] ^= 1;
        assert_eq!(session.matcher.recognise(&seen), None);
    }
    // Nothing behind the header: protocol, identification and both addresses must do.
    let mut empty = forced_udp(64);
    empty.layers.truncate(1);
    let session = Session::of(vec![empty]);
    let mut bytes = session.sent[0].1.clone();
    assert_eq!(session.seen(&bytes).form, Form::Plain);
    bytes[15] ^= 1;
    assert_eq!(session.matcher.recognise(&bytes), None);
}

#[test]
fn arp_is_known_and_its_reply() {
    let (own, other) = (Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 9]));
    let question = Arp {
        operation: 1,
        sender_mac: own,
        sender_ip: RIP,
        target_mac: Mac([0; 6]),
        target_ip: VIP,
    };
    let ethernet = Layer::Ethernet(Ethernet {
        destination: Mac::BROADCAST,
        source: own,
        ethertype: Field::Derived,
    });
    let layers = vec![ethernet, Layer::Arp(question.clone())];
    let session = Session::of(vec![packet(layers, &[])]);
    let seen = |arp: Arp| session.matcher.recognise_arp(&built(&[Layer::Arp(arp)]));
    let ends = |seen: Option<Sighting>| seen.map(|seen| (seen.form, seen.source, seen.destination));
    assert_eq!(ends(seen(question.clone())), Some((Form::Plain, RIP, VIP)));
    let reply = Arp {
        operation: 2,
        sender_mac: other,
        sender_ip: VIP,
        target_mac: own,
        target_ip: RIP,
    };
    assert_eq!(ends(seen(reply.clone())), Some((Form::Reply, VIP, RIP)));
    let stranger = Arp {
        target_ip: DIP,
        ..reply
    };
    assert_eq!(seen(stranger), None);
    let kernels = Arp {
        sender_mac: other,
        ..question
    };
    assert_eq!(seen(kernels), None);
    assert_eq!(session.matcher.recognise(&session.sent[0].1[14..]), None);
}

#[test]
fn built_in_probes_keep_their_way() {
    let session = Session::of(vec![tunnelled_udp(), syn()]);
    for (_, bytes) in &session.sent {
        assert_eq!(Matcher::new(key()).recognise(bytes), None);
        let minimal = error(DIP, &bytes[..28]);
        assert_eq!(Matcher::new(key()).recognise(&minimal), None);
    }
}

proptest! {
    #[test]
    fn random_octets_neither_match_nor_panic(octets in vec(any::<u8>(), 0..120)) {
        let session = Session::of(vec![tunnelled_udp(), syn(), echo(), forced_udp(1)]);
        prop_assert_eq!(session.matcher.recognise(&octets), None);
        prop_assert_eq!(session.matcher.recognise_arp(&octets), None);
    }

    #[test]
    fn damaged_packets_never_panic(
        which in 0..4usize,
        at in 0..80usize,
        octet in any::<u8>(),
        length in 0..=80usize,
        is_quoted in any::<bool>(),
    ) {
        let session = Session::of(vec![tunnelled_udp(), syn(), echo(), forced_udp(1)]);
        let (probe, bytes) = &session.sent[which];
        let mut packet = if is_quoted { error(VIP, bytes) } else { bytes.clone() };
        let at = at % packet.len();
        packet[at] = octet;
        packet.truncate(length);
        let _ = session.matcher.recognise(&packet);
        let _ = session.matcher.alterations(probe, &packet);
    }
}
