use super::*;
use crate::plan::Range;

const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 6);
const STRANGER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

fn scope() -> Scope {
    Scope::new([CIP, VIP, DIP, RIP])
}

fn path() -> TapPath {
    TapPath {
        vip: VIP,
        cip: CIP,
        dip: Some(DIP),
        rip: RIP,
        gateway: Some(GATEWAY),
    }
}

fn served(policy: Policy) -> Scope {
    let other = TapPath {
        rip: OTHER,
        gateway: None,
        ..path()
    };
    Scope::under(policy, vec![path(), other]).unwrap()
}

fn only(address: Ipv4Addr) -> Range {
    Range {
        first: address,
        last: address,
    }
}

fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    packet[3] = 20 + payload.len() as u8;
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Transmit {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 8, 6]);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    Transmit {
        way: Way::Frame {
            device: "eth0".to_owned(),
        },
        bytes: frame,
    }
}

fn check(packet: Vec<u8>) -> Result<(), String> {
    let transmit = Transmit {
        way: Way::Stack,
        bytes: packet,
    };
    scope()
        .check(&transmit)
        .map(drop)
        .map_err(|e| e.to_string())
}

#[test]
fn declared_addresses_may_be_sent_to() {
    let inner = ipv4(CIP, VIP, 17, &[0; 8]);
    assert_eq!(check(ipv4(DIP, RIP, 4, &inner)), Ok(()));
    assert_eq!(check(inner), Ok(()));
    assert_eq!(
        served(Policy::default()).check_destination(VIP),
        Ok(Family::Service)
    );
    assert_eq!(
        served(Policy::default()).check_destination(RIP),
        Err(OutOfScope::NoVip(RIP))
    );
}

#[test]
fn a_stranger_is_refused_wherever_it_stands() {
    let refused = |role| {
        Err(format!(
            "8.8.8.8, the {role}, is not an address of the path file"
        ))
    };
    let tunnelled = |inner: Vec<u8>| check(ipv4(DIP, RIP, 4, &inner));
    assert_eq!(check(ipv4(STRANGER, VIP, 6, &[])), refused("source"));
    assert_eq!(check(ipv4(CIP, STRANGER, 6, &[])), refused("destination"));
    assert_eq!(
        tunnelled(ipv4(STRANGER, VIP, 6, &[])),
        refused("inner source")
    );
    assert_eq!(
        tunnelled(ipv4(CIP, STRANGER, 6, &[])),
        refused("inner destination")
    );
    let mut routed = ipv4(CIP, VIP, 6, &[131, 7, 4, 8, 8, 8, 8, 0]);
    routed[0] = 0x47;
    assert_eq!(check(routed), refused("hop of the source route"));
    let quoting = |icmp: [u8; 8]| {
        let quoted = ipv4(CIP, STRANGER, 6, &[0; 8]);
        check(ipv4(VIP, CIP, 1, &[&icmp[..], &quoted].concat()))
    };
    let unreachable = [3, 3, 0, 0, 0, 0, 0, 0];
    assert_eq!(quoting(unreachable), refused("quoted destination"));
    let redirect = [5, 1, 0, 0, 8, 8, 8, 8];
    assert_eq!(quoting(redirect), refused("gateway of the redirect"));
    let twice = ipv4(CIP, VIP, 4, &ipv4(CIP, STRANGER, 6, &[]));
    assert_eq!(tunnelled(twice), refused("inner destination"));
    assert!(scope().check_destination(STRANGER).is_err());
}

#[test]
fn what_cannot_be_told_is_refused() {
    let unclear = |what: &str| Err(format!("the packet is {what}"));
    assert_eq!(check(vec![0x45; 19]), unclear("no whole IPv4 header"));
    let mut broken = ipv4(CIP, VIP, 6, &[131, 9, 4, 8, 8, 8, 8, 0]);
    broken[0] = 0x47;
    assert_eq!(
        check(broken),
        unclear("an IPv4 packet with options that cannot be read")
    );
    let mut fragment = ipv4(DIP, RIP, 4, &[0; 40]);
    fragment[7] = 1;
    assert_eq!(
        check(fragment),
        unclear("a fragment of a header in another")
    );
    assert_eq!(
        check(ipv4(DIP, RIP, 47, &[0; 24])),
        unclear("of a protocol that can hold another packet")
    );
    let mut tagged = arp(VIP, VIP);
    tagged.bytes[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(
        scope().check(&tagged),
        Err(OutOfScope::Unclear("neither IPv4 nor ARP"))
    );
}

#[test]
fn arp_may_ask_for_declared_addresses_and_for_this_hosts_next_hops() {
    let mut scope = scope();
    assert_eq!(scope.check(&arp(RIP, VIP)), Ok(Family::Arp));
    assert_eq!(
        scope.check(&arp(Ipv4Addr::UNSPECIFIED, VIP)),
        Ok(Family::Arp)
    );
    let refused = scope.check(&arp(VIP, GATEWAY)).unwrap_err();
    assert!(
        refused
            .to_string()
            .starts_with("203.0.113.1, the ARP target")
    );
    scope.allow_gateway(GATEWAY);
    assert_eq!(scope.check(&arp(VIP, GATEWAY)), Ok(Family::Arp));
    assert!(scope.check(&arp(GATEWAY, VIP)).is_err());
    let other = Ipv4Addr::new(10, 64, 5, 2);
    assert!(scope.check(&arp(other, GATEWAY)).is_err());
    scope.allow_own(other);
    assert_eq!(scope.check(&arp(other, GATEWAY)), Ok(Family::Arp));
    assert!(scope.check(&arp(GATEWAY, other)).is_err());
}

#[test]
fn a_declared_gateway_is_heard_though_nothing_may_be_sent_to_it() {
    let policy = Policy {
        realservers: Some(vec![only(RIP), only(OTHER)]),
        ..Policy::default()
    };
    let scope = served(policy);
    let hear = |path| {
        scope.check_tap(&TapSpec {
            paths: vec![path],
            ..TapSpec::default()
        })
    };
    assert_eq!(hear(path()), Ok(()));
    assert!(scope.check(&arp(RIP, GATEWAY)).is_err());
    assert!(scope.check_neighbour(GATEWAY).is_err());
    // The gateway of another path is not this one's.
    let other = TapPath {
        rip: OTHER,
        ..path()
    };
    assert!(hear(other).is_err());
}

#[test]
fn a_tap_hears_paths_as_they_are_declared() {
    let hear = |policy: Policy, path, scripted: Option<u16>| {
        served(policy).check_tap(&TapSpec {
            paths: vec![path],
            rewritten: None,
            scripted: scripted.map(|port| [port].into()),
        })
    };
    assert_eq!(hear(Policy::default(), path(), Some(80)), Ok(()));
    let unknown = TapPath {
        dip: None,
        gateway: None,
        ..path()
    };
    assert_eq!(hear(Policy::default(), unknown, None), Ok(()));
    let anybody = Ipv4Addr::UNSPECIFIED;
    for (cip, dip, rip) in [
        (anybody, DIP, RIP),
        (RIP, DIP, RIP),
        (CIP, CIP, RIP),
        (CIP, DIP, DIP),
    ] {
        let mixed = TapPath {
            cip,
            dip: Some(dip),
            rip,
            ..path()
        };
        let refused = hear(Policy::default(), mixed, None);
        assert_eq!(refused, Err(OutOfScope::NoPath { vip: VIP, rip, cip }));
    }
    let policy = Policy {
        probes: Some([Family::Service].into()),
        ..Policy::default()
    };
    assert_eq!(hear(policy.clone(), path(), None), Ok(()));
    let refused = hear(policy, path(), Some(80)).unwrap_err();
    assert!(refused.to_string().ends_with("does not have `script`"));
}

#[test]
fn arp_that_is_no_request_of_this_host_is_a_script() {
    let mut scope = scope();
    let with = |at: usize, value| {
        let mut frame = arp(RIP, VIP);
        frame.bytes[at] = value;
        frame
    };
    // The operation; the sender's hardware address, in the frame and in ARP.
    for (at, value) in [(21, 2), (11, 9), (27, 9)] {
        assert_eq!(scope.check(&with(at, value)), Ok(Family::Script), "{at}");
    }
    scope.allow_mac([2, 0, 0, 0, 0, 7]);
    assert_eq!(scope.check(&arp(RIP, VIP)), Ok(Family::Script));
    scope.allow_mac([2, 0, 0, 0, 0, 1]);
    assert_eq!(scope.check(&arp(RIP, VIP)), Ok(Family::Arp));
    scope.policy.probes = Some([Family::Arp].into());
    assert!(scope.check(&with(21, 2)).is_err());
}

#[test]
fn a_cleanup_is_the_rst_of_its_packet_by_the_same_way() {
    let segment = |flags| {
        let mut segment = [0; 20];
        segment[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        segment[12..14].copy_from_slice(&[0x50, flags]);
        ipv4(CIP, VIP, 6, &segment)
    };
    let stack = |bytes| Transmit {
        way: Way::Stack,
        bytes,
    };
    let frame = |last, packet: Vec<u8>| Transmit {
        way: arp(RIP, VIP).way,
        bytes: [&[2, 0, 0, 0, 0, last, 2, 0, 0, 0, 0, 1, 8, 0][..], &packet].concat(),
    };
    let check = |opening, cleanup| scope().check_cleanup(&opening, &cleanup);
    assert_eq!(check(stack(segment(2)), stack(segment(4))), Ok(()));
    assert_eq!(check(frame(9, segment(2)), frame(9, segment(4))), Ok(()));
    for (opening, cleanup) in [
        (stack(segment(2)), stack(segment(2))),
        (stack(segment(2)), frame(9, segment(4))),
        (frame(9, segment(2)), frame(8, segment(4))),
        (stack(segment(2)), stack(ipv4(CIP, VIP, 17, &[0; 8]))),
    ] {
        assert_eq!(check(opening, cleanup), Err(OutOfScope::Cleanup));
    }
}
