//! The filter of a sweep's ring: what can be an answer to it, for a socket that is bound to IPv4 (`ETH_P_IP`).

use std::collections::BTreeSet;

use super::ACCEPT;
use super::ACK;
use super::HEADER_LENGTH_TO_X;
use super::Instruction;
use super::LOAD_BYTE;
use super::LOAD_BYTE_X;
use super::LOAD_HALF;
use super::LOAD_HALF_X;
use super::LOAD_WORD;
use super::Program;
use super::REJECT;
use super::SYN_OR_RST;
use crate::plan::Fleet;
use crate::plan::SessionKey;

/// Octets of a packet that are kept: more than a Linux host quotes of ours, with the extensions that routers add.
pub(crate) const SNAP_LENGTH: usize = 256;

/// More VIPs than this are not told apart by the kernel, whose programs have an end.
const MOST_VIPS: usize = 1000;

/// Segments with SYN and ACK, or RST, from a VIP to the DIP, and RSTs from the client to a VIP, with a port of ours;
/// ICMP errors to the DIP or a VIP; and what may be a probe that came back: SYNs from the client and from the DIP, and
/// datagrams from the DIP, to a VIP.
pub(crate) fn assemble(fleet: &Fleet) -> Vec<Instruction> {
    let vips: BTreeSet<_> = fleet
        .services()
        .map(|service| service.vip.to_bits())
        .collect();
    let vips: Vec<_> = vips.into_iter().collect();
    let is_known = vips.len() <= MOST_VIPS;
    let one_of_vips = |program: &mut Program, at, body: &dyn Fn(&mut Program)| match is_known {
        true => {
            program.load(LOAD_WORD, at);
            program.one_of(&vips, |p| body(p));
        }
        false => body(program),
    };
    let dip = [fleet.dip().to_bits()];
    let sources: Vec<_> = fleet
        .cip()
        .iter()
        .map(|cip| cip.to_bits())
        .chain(dip)
        .collect();
    let first_port = u32::from(*SessionKey::CLIENT_PORTS.start());
    let mut program = Program::default();
    program.load(LOAD_HALF, 6);
    program.unless_bits(0x3fff);
    program.load(HEADER_LENGTH_TO_X, 0);
    program.load(LOAD_BYTE, 9);
    program.one_of(&[6], |tcp| {
        tcp.load(LOAD_BYTE_X, 13);
        tcp.unless_set(SYN_OR_RST);
        tcp.load(LOAD_WORD, 16);
        tcp.one_of(&dip, |p| {
            p.load(LOAD_BYTE_X, 13);
            p.unless_set(ACK);
            p.load(LOAD_HALF_X, 2);
            p.unless_at_least(first_port);
            one_of_vips(p, 12, &|p| p.end(ACCEPT));
            p.end(REJECT);
        });
        tcp.load(LOAD_WORD, 12);
        tcp.one_of(&sources, |p| {
            p.load(LOAD_HALF_X, 0);
            p.unless_at_least(first_port);
            one_of_vips(p, 16, &|p| p.end(ACCEPT));
        });
        tcp.end(REJECT);
    });
    program.one_of(&[17], |udp| {
        udp.load(LOAD_WORD, 12);
        // From an address of this host's own: nobody else has a reason to.
        udp.one_of(&dip, |p| {
            p.load(LOAD_HALF_X, 0);
            p.unless_at_least(first_port);
            p.end(ACCEPT);
        });
        udp.end(REJECT);
    });
    program.one_of(&[1], |icmp| {
        icmp.load(LOAD_BYTE_X, 0);
        icmp.one_of(&[3, 11, 12], |p| {
            p.load(LOAD_WORD, 16);
            p.one_of(&dip, |p| p.end(ACCEPT));
            one_of_vips(p, 16, &|p| p.end(ACCEPT));
        });
        icmp.end(REJECT);
    });
    program.end(REJECT);
    let mut program = program.0;
    for instruction in &mut program {
        if (instruction.code, instruction.k) == (super::RETURN, ACCEPT) {
            instruction.k = SNAP_LENGTH as u32;
        }
    }
    program
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::LIMIT;
    use super::super::tests::run;
    use super::*;
    use crate::plan::Protocol;
    use crate::plan::Range;
    use crate::plan::Service;

    const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 3, 0);
    const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);

    fn fleet(vips: u32) -> Fleet {
        let services = (0..vips).map(|n| Service {
            vip: Ipv4Addr::from_bits(VIP.to_bits() + n),
            port: 80,
            protocol: Protocol::Tcp,
        });
        let rip = [203, 0, 113, 5].into();
        let ranges = vec![Range {
            first: rip,
            last: rip,
        }];
        Fleet::new(DIP, Some(CIP), vec![(services.collect(), ranges)]).unwrap()
    }

    fn packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    fn segment(ports: (u16, u16), flags: u8) -> Vec<u8> {
        let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        segment.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        segment
    }

    #[test]
    fn exactly_what_can_be_an_answer_is_kept() {
        for vips in [1, 700, 1000, 1001, 3000] {
            let program = assemble(&fleet(vips));
            assert!(program.len() < LIMIT, "{} instructions", program.len());
            let keeps = |packet: &[u8]| run(&program, 0x0800, packet);
            let last = Ipv4Addr::from_bits(VIP.to_bits() + vips - 1);
            let is_vague = vips > 1000;
            for vip in [VIP, last] {
                for flags in 0..=0x3f {
                    let answers = flags & 6 != 0 && flags & 0x10 != 0;
                    assert_eq!(
                        keeps(&packet(vip, DIP, 6, &segment((80, 50_000), flags))),
                        answers
                    );
                    assert!(!keeps(&packet(vip, DIP, 6, &segment((80, 49_151), flags))));
                    for source in [CIP, DIP] {
                        let told = flags & 6 != 0;
                        let segment = segment((50_000, 80), flags);
                        assert_eq!(keeps(&packet(source, vip, 6, &segment)), told);
                    }
                    assert!(!keeps(&packet(
                        STRANGER,
                        vip,
                        6,
                        &segment((50_000, 80), flags)
                    )));
                    assert!(!keeps(&packet(CIP, vip, 6, &segment((80, 50_000), flags))));
                    assert!(!keeps(&packet(DIP, vip, 6, &segment((80, 50_000), flags))));
                }
                let datagram = segment((50_000, 33_434), 0);
                assert!(keeps(&packet(DIP, vip, 17, &datagram)));
                assert!(!keeps(&packet(CIP, vip, 17, &datagram)));
                assert!(!keeps(&packet(DIP, vip, 17, &segment((53, 33_434), 0))));
                for kind in 0..20 {
                    let told = matches!(kind, 3 | 11 | 12);
                    assert_eq!(keeps(&packet(STRANGER, vip, 1, &[kind, 0])), told);
                    assert_eq!(keeps(&packet(STRANGER, DIP, 1, &[kind, 0])), told);
                    let elsewhere = packet(STRANGER, CIP, 1, &[kind, 0]);
                    assert_eq!(keeps(&elsewhere), told && is_vague);
                }
            }
            let stranger = packet(STRANGER, DIP, 6, &segment((80, 50_000), 0x12));
            assert_eq!(keeps(&stranger), is_vague);
            let mut fragment = packet(VIP, DIP, 6, &segment((80, 50_000), 0x12));
            assert!(keeps(&fragment));
            fragment[6] = 0x20;
            assert!(!keeps(&fragment));
            assert!(!keeps(&packet(VIP, DIP, 17, &segment((80, 50_000), 0x12))));
        }
    }
}
