use proptest::prelude::*;

use super::*;
use crate::exchange::TapPath;

const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const IP: u16 = 0x0800;
const ARP: u16 = 0x0806;

fn path() -> TapPath {
    TapPath {
        vip: VIP,
        cip: CIP,
        dip: Some(DIP),
        rip: RIP,
        gateway: Some(GATEWAY),
    }
}

fn spec() -> TapSpec {
    TapSpec {
        paths: vec![path()],
        rewritten: None,
        scripted: None,
    }
}

/// A port that the suite left to tunproof, and one that it says.
const PORTS: [u16; 2] = [50_000, 7];

fn scripted_spec() -> TapSpec {
    TapSpec {
        scripted: Some(BTreeSet::from(PORTS)),
        ..spec()
    }
}

fn client_spec() -> TapSpec {
    TapSpec {
        rewritten: Some(CIP),
        ..spec()
    }
}

/// What the kernel does with the program (`bpf_prog_run`, and `Documentation/networking/filter.rst`).
pub(super) fn run(program: &[Instruction], ether_type: u16, packet: &[u8]) -> bool {
    let load = |offset: u32, length: usize| -> Option<u32> {
        if offset == ETHER_TYPE {
            return Some(u32::from(ether_type));
        }
        let bytes = packet.get(offset as usize..)?.get(..length)?;
        Some(
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
        )
    };
    let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
    for _ in 0..program.len() {
        let Instruction {
            code,
            if_true,
            if_false,
            k,
        } = program[at];
        at += 1;
        let loaded = match code {
            LOAD_WORD => load(k, 4),
            LOAD_HALF => load(k, 2),
            LOAD_BYTE => load(k, 1),
            LOAD_WORD_X => load(x + k, 4),
            LOAD_HALF_X => load(x + k, 2),
            LOAD_BYTE_X => load(x + k, 1),
            HEADER_LENGTH_TO_X => match load(k, 1) {
                Some(byte) => {
                    x = 4 * (byte & 15);
                    continue;
                }
                None => None,
            },
            JUMP => {
                at += k as usize;
                continue;
            }
            AND => Some(a & k),
            SHIFT_LEFT => Some(a << k),
            ADD_X => Some(a.wrapping_add(x)),
            TO_X => {
                x = a;
                continue;
            }
            JUMP_EQUAL => {
                at += usize::from(if a == k { if_true } else { if_false });
                continue;
            }
            JUMP_AT_LEAST => {
                at += usize::from(if a >= k { if_true } else { if_false });
                continue;
            }
            JUMP_BITS => {
                at += usize::from(if a & k != 0 { if_true } else { if_false });
                continue;
            }
            RETURN => return k != 0,
            other => panic!("no instruction: {other:#x}"),
        };
        match loaded {
            Some(value) => a = value,
            None => return false,
        }
    }
    panic!("the program does not end");
}

fn takes(ether_type: u16, packet: &[u8]) -> bool {
    run(&assemble(&spec()), ether_type, packet)
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn with_options(mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] = 0x47;
    packet.splice(20..20, [1; 8]);
    packet
}

fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1];
    packet.extend(sender.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    packet
}

#[test]
fn the_tunnel_is_seen_by_its_inner_addresses() {
    let inner = ipv4(CIP, VIP, 17, &[0; 8]);
    // Whoever sent it: a VIP as outer source is a fault to be seen.
    assert!(takes(IP, &ipv4(DIP, RIP, 4, &inner)));
    assert!(takes(IP, &ipv4(STRANGER, RIP, 4, &inner)));
    assert!(takes(IP, &with_options(ipv4(DIP, RIP, 4, &inner))));
    assert!(takes(IP, &ipv4(DIP, RIP, 4, &ipv4(DIP, VIP, 17, &[]))));
    assert!(!takes(IP, &ipv4(DIP, RIP, 4, &ipv4(VIP, CIP, 17, &[]))));
    assert!(!takes(
        IP,
        &ipv4(DIP, RIP, 4, &ipv4(STRANGER, VIP, 17, &[]))
    ));
    assert!(!takes(IP, &ipv4(DIP, RIP, 47, &inner)));
    let mut fragment = ipv4(DIP, RIP, 4, &inner);
    fragment[7] = 1;
    assert!(!takes(IP, &fragment));
    fragment[6..8].copy_from_slice(&[0x20, 0]);
    assert!(takes(IP, &fragment), "the first fragment has the header");
}

#[test]
fn the_paths_pairs_are_seen_both_ways_and_no_other() {
    let all = [CIP, VIP, DIP, RIP, GATEWAY, STRANGER];
    for source in all {
        for destination in all {
            let pair = [source, destination];
            let expected = [[CIP, VIP], [DIP, VIP], [CIP, RIP]]
                .into_iter()
                .any(|[a, b]| pair == [a, b] || pair == [b, a]);
            for protocol in [6, 17, 1, 4] {
                // As TCP: a SYN.
                let packet = ipv4(source, destination, protocol, &[2; 14]);
                assert_eq!(takes(IP, &packet), expected, "{pair:?} {protocol}");
            }
        }
    }
}

#[test]
fn an_agent_reached_from_the_client_does_not_see_its_own_words() {
    for flags in 0..=0x3f {
        let mut segment = [0; 20];
        segment[13] = flags;
        let is_probe = flags & 0x06 != 0;
        for (a, b) in [(CIP, RIP), (RIP, CIP)] {
            assert_eq!(takes(IP, &ipv4(a, b, 6, &segment)), is_probe, "{flags:#x}");
            let long = with_options(ipv4(a, b, 6, &segment));
            assert_eq!(takes(IP, &long), is_probe, "{flags:#x}");
        }
        assert!(takes(IP, &ipv4(CIP, VIP, 6, &segment)));
    }
}

#[test]
fn of_what_the_director_sends_the_real_server_only_its_control_is_seen() {
    for port in [53, 6080, 33433, 33434, 33523, 33524, 65535] {
        let mut datagram = [0; 8];
        datagram[2..4].copy_from_slice(&u16::to_be_bytes(port));
        let expected = SessionKey::CLOSED_PORTS.contains(&port);
        let packet = ipv4(DIP, RIP, 17, &datagram);
        assert_eq!(takes(IP, &packet), expected, "{port}");
        assert_eq!(takes(IP, &with_options(packet)), expected, "{port}");
        assert!(!takes(IP, &ipv4(RIP, DIP, 17, &datagram)), "{port}");
        assert!(!takes(IP, &ipv4(DIP, RIP, 6, &datagram)), "{port}");
    }
}

#[test]
fn icmp_errors_are_seen_wherever_they_come_from() {
    for icmp_type in 0..=255 {
        let expected = [3, 4, 5, 11, 12].contains(&icmp_type);
        for to in [VIP, DIP, RIP, CIP] {
            let packet = ipv4(STRANGER, to, 1, &[icmp_type, 0]);
            assert_eq!(takes(IP, &packet), expected, "{icmp_type}");
            assert_eq!(takes(IP, &with_options(packet)), expected, "{icmp_type}");
        }
    }
    assert!(!takes(IP, &ipv4(STRANGER, GATEWAY, 1, &[3, 3])));
    assert!(!takes(IP, &ipv4(STRANGER, VIP, 17, &[3, 3])));
}

#[test]
fn arp_is_seen_by_either_address() {
    for about in [VIP, RIP, GATEWAY] {
        assert!(takes(ARP, &arp(about, STRANGER)));
        assert!(takes(ARP, &arp(STRANGER, about)));
    }
    for other in [CIP, DIP, STRANGER] {
        assert!(!takes(ARP, &arp(other, STRANGER)));
        assert!(!takes(ARP, &arp(STRANGER, other)));
    }
    for byte in [1, 3, 4, 5] {
        let mut strange = arp(VIP, RIP);
        strange[byte] ^= 0x10;
        assert!(!takes(ARP, &strange), "octet {byte}");
    }
}

#[test]
fn no_other_protocol_is_seen() {
    for ether_type in [0x86dd, 0x8100, 0x0801] {
        assert!(!takes(ether_type, &ipv4(CIP, VIP, 17, &[0; 8])));
    }
    assert!(!run(
        &assemble(&TapSpec::default()),
        IP,
        &ipv4(CIP, VIP, 17, &[])
    ));
}

#[test]
fn without_a_client_anyones_rsts_and_errors_to_the_vip_are_seen() {
    let open = TapPath {
        cip: Ipv4Addr::UNSPECIFIED,
        ..path()
    };
    let program = assemble(&TapSpec {
        paths: vec![open],
        rewritten: None,
        scripted: None,
    });
    let mut segment = [0; 20];
    assert!(!run(&program, IP, &ipv4(STRANGER, VIP, 6, &segment)));
    segment[13] = 4;
    assert!(run(&program, IP, &ipv4(STRANGER, VIP, 6, &segment)));
    assert!(!run(&program, IP, &ipv4(VIP, STRANGER, 6, &segment)));
    assert!(run(&program, IP, &ipv4(STRANGER, VIP, 1, &[3, 3])));
    assert!(!run(&program, IP, &ipv4(STRANGER, VIP, 1, &[8, 0])));
    assert!(!run(&program, IP, &ipv4(STRANGER, VIP, 17, &[0; 8])));
}

#[test]
fn the_client_sees_probes_whatever_their_source_is_now() {
    let program = assemble(&client_spec());
    let sees = |packet: &[u8]| run(&program, IP, packet);
    let udp = |to: Ipv4Addr, port: u16| {
        let port = port.to_be_bytes();
        ipv4(STRANGER, to, 17, &[0, 53, port[0], port[1], 0, 8, 0, 0])
    };
    for (port, expected) in [(33433, false), (33434, true), (33523, true), (33524, false)] {
        assert_eq!(sees(&udp(CIP, port)), expected, "{port}");
        assert_eq!(sees(&with_options(udp(CIP, port))), expected, "{port}");
        assert!(!sees(&udp(GATEWAY, port)));
        assert!(!takes(IP, &udp(CIP, port)), "another host's tap");
    }
    for flags in 0..=0x3f {
        for port in [49151u16, 49152, 65535] {
            let mut segment = [0; 20];
            segment[2..4].copy_from_slice(&port.to_be_bytes());
            segment[13] = flags;
            let expected = port >= 49152 && flags & 0x12 == 0x12;
            let packet = ipv4(STRANGER, CIP, 6, &segment);
            assert_eq!(sees(&packet), expected, "{port} {flags:#x}");
        }
    }
    let mut fragment = udp(CIP, 33434);
    fragment[7] = 1;
    assert!(!sees(&fragment), "no header to look at");
}

#[test]
fn where_probes_go_to_the_director_they_and_their_answers_are_seen() {
    let program = assemble(&TapSpec {
        rewritten: Some(DIP),
        ..spec()
    });
    let sees = |packet: &[u8]| run(&program, IP, packet);
    let packet = |from, to, protocol, ports: [u16; 2], flags: u8| {
        let mut header = [0; 20];
        header[..2].copy_from_slice(&ports[0].to_be_bytes());
        header[2..4].copy_from_slice(&ports[1].to_be_bytes());
        header[13] = flags;
        ipv4(from, to, protocol, &header)
    };
    for (from, is_known) in [(VIP, true), (RIP, false), (STRANGER, false)] {
        assert!(sees(&packet(from, DIP, 17, [50_000, 33434], 0)));
        assert!(sees(&packet(from, DIP, 6, [80, 50_000], 0x12)));
        // No conversation of the director's own.
        assert_eq!(sees(&packet(from, DIP, 17, [53, 50_000], 0)), is_known);
        assert_eq!(sees(&packet(from, DIP, 6, [80, 50_000], 0x10)), is_known);
        assert_eq!(sees(&packet(from, DIP, 6, [50_000, 22], 2)), is_known);
    }
    assert!(sees(&packet(DIP, RIP, 6, [50_000, 80], 4)));
    assert!(!sees(&packet(DIP, RIP, 6, [22, 50_000], 4)));
    assert!(!sees(&packet(DIP, RIP, 6, [50_000, 80], 2)));
    assert!(sees(&ipv4(DIP, RIP, 1, &[3, 3])));
    let tunnelled = ipv4(DIP, RIP, 4, &ipv4(CIP, VIP, 6, &[]));
    assert!(sees(&tunnelled));
    assert!(sees(&ipv4(VIP, DIP, 1, &[11, 0])));
}

/// UDP or TCP: ports, and a flag that no rule asks for.
fn ports(source: u16, destination: u16) -> Vec<u8> {
    let mut header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    header
}

#[test]
fn what_suites_write_out_is_seen_between_all_hosts_of_the_path() {
    let program = assemble(&scripted_spec());
    let sees = |packet: &[u8]| run(&program, IP, packet);
    for (source, destination) in [(DIP, RIP), (RIP, DIP), (RIP, VIP), (CIP, DIP), (CIP, RIP)] {
        let long = |protocol, payload: &[u8]| {
            let mut packet = ipv4(source, destination, protocol, payload);
            packet[3] = packet.len() as u8;
            packet
        };
        for protocol in [6, 17] {
            // Either port, in either direction; nobody else's conversation.
            for (near, far, expected) in [
                (50_000, 22, true),
                (22, 50_000, true),
                (7, 22, true),
                (22, 50_001, false),
                (22, 33434, false),
            ] {
                let packet = long(protocol, &ports(near, far));
                let known = takes(IP, &packet);
                assert_eq!(sees(&packet), expected || known, "{protocol} {near} {far}");
                let wrapped = ipv4(STRANGER, VIP, 4, &packet);
                assert_eq!(sees(&wrapped), expected, "{protocol} {near} {far}");
                let twice = ipv4(STRANGER, VIP, 4, &ipv4(GATEWAY, STRANGER, 4, &packet));
                assert_eq!(sees(&twice), expected, "{protocol} {near} {far}");
                let optional = ipv4(STRANGER, VIP, 4, &with_options(packet));
                assert_eq!(sees(&optional), expected, "{protocol} {near} {far}");
            }
            let mut odd = long(protocol, &ports(22, 22));
            assert!(!sees(&odd) || takes(IP, &odd));
            assert!(sees(&with_options(odd.clone())));
            odd[7] = 3;
            assert!(sees(&odd), "a later fragment");
            odd[7] = 0;
            odd[0] = 0x55;
            assert!(sees(&odd), "another version");
            assert!(sees(&long(protocol, &[0; 3])), "too short for ports");
        }
        for protocol in [1, 2, 47, 253] {
            let packet = long(protocol, &[0; 8]);
            assert!(sees(&packet), "{protocol}");
            assert!(sees(&ipv4(STRANGER, VIP, 4, &packet)), "{protocol}");
            let twice = ipv4(STRANGER, VIP, 4, &ipv4(GATEWAY, STRANGER, 4, &packet));
            assert!(sees(&twice), "{protocol}");
        }
    }
    // What the director forwards for others is not the suite's.
    let clients = ipv4(STRANGER, VIP, 6, &ports(50_000, 80));
    let mut forwarded = ipv4(DIP, RIP, 4, &clients);
    forwarded[3] = forwarded.len() as u8;
    assert!(!sees(&forwarded));
    assert!(!sees(&ipv4(DIP, STRANGER, 253, &[0; 8])));
    assert!(!sees(&ipv4(STRANGER, RIP, 17, &ports(50_000, 7))));
    for about in [CIP, DIP] {
        assert!(run(&program, ARP, &arp(about, STRANGER)));
        assert!(run(&program, ARP, &arp(STRANGER, about)));
    }
}

#[test]
fn hundreds_of_ports_fit() {
    let program = assemble(&TapSpec {
        scripted: Some((0..400).map(|n| 49_152 + n * 7).collect()),
        rewritten: Some(CIP),
        ..spec()
    });
    assert!(program.len() < LIMIT, "{} instructions", program.len());
    for n in [0, 199, 200, 399] {
        let mut packet = ipv4(RIP, DIP, 17, &ports(33434, 49_152 + n * 7));
        packet[3] = 40;
        assert!(run(&program, IP, &packet), "{n}");
    }
}

#[test]
fn hundreds_of_real_servers_fit() {
    let rip = |n: u32| Ipv4Addr::from_bits(RIP.to_bits() + n);
    let paths = (0..500).map(|n| TapPath {
        rip: rip(n),
        ..path()
    });
    let program = assemble(&TapSpec {
        paths: paths.collect(),
        rewritten: Some(CIP),
        scripted: None,
    });
    assert!(program.len() < LIMIT, "{} instructions", program.len());
    for n in [0, 199, 200, 254, 255, 256, 499] {
        assert!(run(&program, IP, &ipv4(CIP, rip(n), 17, &[])), "{n}");
        assert!(run(&program, IP, &ipv4(rip(n), CIP, 17, &[])), "{n}");
        assert!(run(&program, IP, &ipv4(STRANGER, rip(n), 1, &[11, 0])));
        assert!(run(&program, ARP, &arp(rip(n), STRANGER)), "{n}");
        assert!(run(&program, ARP, &arp(STRANGER, rip(n))), "{n}");
    }
    assert!(!run(&program, IP, &ipv4(CIP, rip(500), 17, &[])));
    assert!(!run(&program, IP, &ipv4(rip(3), rip(4), 17, &[])));
    assert!(run(
        &program,
        IP,
        &ipv4(DIP, rip(9), 4, &ipv4(CIP, VIP, 6, &[]))
    ));
}

/// `TapSpec`'s doc once more, in plain words.
fn described(ether_type: u16, packet: &[u8], rewritten: bool, scripted: bool) -> bool {
    let path = path();
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().unwrap();
        Some(Ipv4Addr::from(octets))
    };
    let byte = |at: usize| packet.get(at).copied();
    if ether_type == ARP {
        let mut about = vec![Some(path.vip), Some(path.rip), path.gateway];
        if scripted {
            about.extend([Some(path.cip), path.dip]);
        }
        return packet.len() >= 18
            && packet[..6] == [0, 1, 8, 0, 6, 4]
            && (about.contains(&address(14))
                || address(24).is_some_and(|target| about.contains(&Some(target))));
    }
    let (Some(source), Some(destination)) = (address(12), address(16)) else {
        return false;
    };
    let between = |a, b| (source, destination) == (a, b) || (source, destination) == (b, a);
    if between(CIP, VIP) || between(DIP, VIP) {
        return true;
    }
    let start = usize::from(packet[0] & 15) * 4;
    let half = |at: usize| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?]));
    let has_port = |at: usize| {
        let known = |port: Option<u16>| port.is_some_and(|port| PORTS.contains(&port));
        half(at).is_some() && (known(half(at)) || known(half(at + 2)))
    };
    let declared = |at: usize| {
        let known = |address: Option<Ipv4Addr>| {
            address.is_some_and(|address| [CIP, VIP, DIP, RIP].contains(&address))
        };
        known(address(at + 12)) && known(address(at + 16))
    };
    if scripted && declared(0) {
        let fragment = packet[6] & 0x1f != 0 || packet[7] != 0;
        let odd = packet[0] != 0x45 || fragment || half(2) < Some(24);
        let told = match packet[9] {
            6 | 17 => {
                // A load beyond the end drops the packet, whatever else would take it.
                if !odd && half(20).is_none() {
                    return false;
                }
                has_port(20)
            }
            protocol => protocol != 4,
        };
        if odd || told {
            return true;
        }
        if matches!(packet[9], 6 | 17) && half(22).is_none() {
            return false;
        }
    }
    if between(CIP, RIP) && packet[9] != 6 {
        return true;
    }
    if packet[6] & 0x1f != 0 || packet[7] != 0 {
        return false;
    }
    let port = Some(start + 2).and_then(|at| Some(u16::from_be_bytes([byte(at)?, byte(at + 1)?])));
    let answers = rewritten && source == CIP && destination != CIP;
    let rewritten = rewritten && destination == CIP;
    match packet[9] {
        6 if between(CIP, RIP) => byte(start + 13).is_some_and(|flags| flags & 6 != 0),
        6 => {
            let flag = |bits: u8| byte(start + 13).is_some_and(|flags| flags & bits == bits);
            rewritten && port >= Some(49152) && flag(0x12)
                || answers && half(start) >= Some(49152) && flag(4)
        }
        17 => {
            let crafted = (source, destination) == (DIP, RIP) || rewritten;
            crafted && port.is_some_and(|port| (33434..=33523).contains(&port))
        }
        4 => {
            let in_tunnel = address(start + 16) == Some(VIP)
                && [Some(CIP), Some(DIP)].contains(&address(start + 12));
            let written_out = |at: usize| {
                let behind = at + byte(at).map_or(0, |first| usize::from(first & 15) * 4);
                declared(at)
                    && match byte(at + 9) {
                        Some(6 | 17) => has_port(behind),
                        _ => true,
                    }
            };
            let inner = start + byte(start).map_or(0, |first| usize::from(first & 15) * 4);
            let twice = byte(start + 9) == Some(4);
            in_tunnel || scripted && (written_out(start) || twice && written_out(inner))
        }
        1 => {
            byte(start).is_some_and(|t| [3, 4, 5, 11, 12].contains(&t))
                && [VIP, DIP, RIP, CIP].contains(&destination)
        }
        _ => false,
    }
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop::sample::select(vec![CIP, VIP, DIP, RIP, GATEWAY, STRANGER])
}

proptest! {
    #[test]
    fn program_and_description_agree(
        addresses in prop::collection::vec(any_address(), 6),
        inner_protocol in prop::sample::select(vec![1u8, 4, 6, 17]),
        inner_port in prop::sample::select(vec![7u16, 8]),
        total_length in prop::sample::select(vec![0u8, 23, 24, 80]),
        protocol in prop::sample::select(vec![1u8, 4, 6, 17]),
        payload_start in prop::sample::select(vec![0u8, 3, 8, 11, 0x45]),
        fragment in prop::sample::select(vec![0u16, 0, 0x2000, 0x4000, 1, 0x2100]),
        flags in 0u8..32,
        port in prop::sample::select(vec![0u16, 33433, 33434, 33523, 33524, 49151, 49152, 50_000, 65535]),
        options in any::<bool>(),
        is_client in any::<bool>(),
        is_scripted in any::<bool>(),
        is_arp in any::<bool>(),
        length in 0usize..84,
    ) {
        let innermost = ipv4(addresses[4], addresses[5], 253, &[]);
        let carried = if inner_protocol == 4 { innermost } else { ports(22, inner_port) };
        let inner = ipv4(addresses[2], addresses[3], inner_protocol, &carried);
        let mut packet = ipv4(addresses[0], addresses[1], protocol, &inner);
        packet[3] = total_length;
        packet[20] = payload_start;
        packet[33] = flags;
        if protocol != 4 {
            packet[22..24].copy_from_slice(&port.to_be_bytes());
        }
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        if options {
            packet = with_options(packet);
        }
        if is_arp {
            packet = arp(addresses[0], addresses[1]);
        }
        packet.truncate(length);
        let ether_type = if is_arp { ARP } else { IP };
        let program = assemble(&TapSpec {
            rewritten: is_client.then_some(CIP),
            scripted: is_scripted.then(|| BTreeSet::from(PORTS)),
            ..spec()
        });
        let taken = run(&program, ether_type, &packet);
        let expected = described(ether_type, &packet, is_client, is_scripted);
        prop_assert_eq!(taken, expected);
    }
}
