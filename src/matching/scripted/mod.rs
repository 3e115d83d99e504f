//! Is it a packet that a suite wrote out, or what came of one? These carry what the suite says, be it no
//! identity at all, so they are told by what was sent.
//!
//! A datagram is one of those sent if protocol, identification, fragment offset and the first 8 octets of its
//! payload are the same, checksums aside; or else, if the suite left the carriers to tunproof, by the tag, the cookie
//! or the echo's numbers, which address translation leaves alone.

mod said;

use std::collections::HashMap;

use crate::matching::Certainty;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::SessionKey;
use crate::wire::Arp;
use crate::wire::Icmpv4;
use crate::wire::InnerStart;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::Tcp;
use crate::wire::TcpFlags;
use crate::wire::TcpStart;
use crate::wire::UdpStart;

/// How many headers may lie in one another.
const NESTED: usize = 8;

/// The packets that suites wrote out and that were sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Scripted {
    sent: Vec<Sent>,
    /// By the identification of each of its headers: which packet, which header.
    by_identification: HashMap<u16, Vec<(usize, usize)>>,
    /// By what an answer gives back.
    by_answer: HashMap<Answering, Vec<usize>>,
}

/// A packet that was sent.
#[derive(Clone, Debug)]
struct Sent {
    id: ProbeId,
    is_arp: bool,
    /// From its network header on.
    packet: Vec<u8>,
}

/// What an answer gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answering {
    /// The packet's own protocol and ports.
    Ports(u8, u16, u16),
    /// Octets 4 to 7 of an ICMP question.
    Rest([u8; 4]),
}

/// Whose datagram it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    probe: ProbeId,
    role: ScriptRole,
    certainty: Certainty,
}

/// What a datagram is to the packet that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScriptRole {
    /// The packet itself: so many headers more before it, so many of its own missing.
    Own {
        before: usize,
        missing: usize,
    },
    SynAck,
    Refused,
    Rst,
    Reply,
}

/// A datagram's headers, outermost first, each in the one before.
fn nested(octets: Octets<'_>) -> Vec<Ipv4<'_>> {
    let mut headers = Vec::new();
    let mut rest = octets;
    while headers.len() < NESTED
        && let Ok(header) = Ipv4::quoted(rest)
    {
        headers.push(header);
        if !holds_another(header) {
            break;
        }
        rest = header.payload();
    }
    headers
}

fn holds_another(header: Ipv4<'_>) -> bool {
    header.protocol() == IpProtocol::IPIP && header.fragment_offset() == 0
}

impl Scripted {
    /// Whether none were sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Notes that a packet was sent; it starts at its network header.
    pub(super) fn add(&mut self, id: ProbeId, is_arp: bool, packet: &[u8]) {
        let number = self.sent.len();
        let headers = match is_arp {
            true => Vec::new(),
            false => nested(Octets::new(packet)),
        };
        for (header, ip) in headers.iter().enumerate() {
            let known = self.by_identification.entry(ip.identification());
            known.or_default().push((number, header));
        }
        let answering = headers.last().and_then(|ip| answering(*ip));
        if let Some(answering) = answering {
            self.by_answer.entry(answering).or_default().push(number);
        }
        self.sent.push(Sent {
            id,
            is_arp,
            packet: packet.to_vec(),
        });
    }

    /// The packets that nothing tells from `id`'s but the order of sending, itself included.
    pub(super) fn twins(&self, id: ProbeId) -> impl Iterator<Item = ProbeId> {
        let own = self.sent.iter().find(|sent| sent.id == id);
        let own = own.map(|sent| (sent.is_arp, unchanging(&sent.packet, sent.is_arp)));
        let same = move |sent: &&Sent| {
            own.as_ref().is_some_and(|(is_arp, packet)| {
                *is_arp == sent.is_arp && *packet == unchanging(&sent.packet, *is_arp)
            })
        };
        self.sent.iter().filter(same).map(|sent| sent.id)
    }

    /// The packet of this name, from its network header on.
    fn packet(&self, id: ProbeId) -> Option<&[u8]> {
        let sent = self.sent.iter().find(|sent| sent.id == id)?;
        Some(&sent.packet)
    }

    /// Whose datagram these headers are, or what answers it.
    fn identify(
        &self,
        key: &SessionKey,
        octets: Octets<'_>,
        headers: &[Ipv4<'_>],
    ) -> Option<Found> {
        if headers.is_empty() {
            return self.unreadable(octets);
        }
        self.own(headers)
            .or_else(|| self.translated(key, headers))
            .or_else(|| self.answer(*headers.last()?))
    }

    /// The ARP packet that was sent, or the reply to it.
    fn identify_arp(&self, seen: &Arp) -> Option<Found> {
        let sent = self.sent.iter().filter(|sent| sent.is_arp);
        let sent = sent.filter_map(|sent| {
            let arp = Arp::checked(Octets::new(&sent.packet)).ok()?;
            Some((sent.id, arp))
        });
        let role = |arp: &Arp| {
            let replies = (arp.operation, seen.operation) == (Arp::REQUEST, Arp::REPLY)
                && (arp.sender_ip, arp.target_ip) == (seen.target_ip, seen.sender_ip);
            match (arp == seen, replies) {
                (true, _) => Some(OWN),
                (_, true) => Some(ScriptRole::Reply),
                _ => None,
            }
        };
        let mut found = sent.filter_map(|(probe, arp)| {
            Some(Found {
                probe,
                role: role(&arp)?,
                certainty: Certainty::Fields,
            })
        });
        found.next()
    }

    /// A packet whose outermost header cannot be read: octet for octet, as far as no router changes them.
    fn unreadable(&self, octets: Octets<'_>) -> Option<Found> {
        let seen = octets.bytes();
        let sent = self.sent.iter().find(|sent| {
            let length = sent.packet.len();
            let is_long_enough = length >= Ipv4::MIN_LENGTH && seen.len() >= length;
            !sent.is_arp
                && is_long_enough
                && nested(Octets::new(&sent.packet)).is_empty()
                && routed(&seen[..length]) == routed(&sent.packet)
        })?;
        Some(Found {
            probe: sent.id,
            role: OWN,
            certainty: Certainty::Fields,
        })
    }

    fn own(&self, headers: &[Ipv4<'_>]) -> Option<Found> {
        for (before, seen) in headers.iter().enumerate() {
            if let Some(found) = self.same_as(*seen, before) {
                return Some(found);
            }
        }
        // Of what somebody encapsulated, a short quote holds the start of its header and no more.
        let last = *headers.last()?;
        let start = InnerStart::read(last.payload()).ok()?;
        if !holds_another(last) {
            return None;
        }
        let known = self.by_identification.get(&start.identification)?;
        let is_same = |(sent, header): &&(usize, usize)| {
            let headers = nested(Octets::new(&self.sent[*sent].packet));
            let ip = headers[*header];
            let fragment = start.fragment & 0x1fff;
            (ip.total_length(), ip.fragment_offset()) == (start.total_length, fragment)
        };
        let (sent, missing) = *known.iter().find(is_same)?;
        Some(Found {
            probe: self.sent[sent].id,
            role: ScriptRole::Own {
                before: headers.len(),
                missing,
            },
            certainty: Certainty::Minimal,
        })
    }

    /// Of the packets that it could be, the one with which it agrees the furthest.
    fn same_as(&self, seen: Ipv4<'_>, before: usize) -> Option<Found> {
        let known = self.by_identification.get(&seen.identification())?;
        let mut best: Option<(usize, Found)> = None;
        for (sent, missing) in known {
            let headers = nested(Octets::new(&self.sent[*sent].packet));
            let Some(agreed) = agreement(headers[*missing], seen) else {
                continue;
            };
            if best.is_none_or(|(furthest, _)| agreed > furthest) {
                let found = Found {
                    probe: self.sent[*sent].id,
                    role: ScriptRole::Own {
                        before,
                        missing: *missing,
                    },
                    certainty: Certainty::Fields,
                };
                best = Some((agreed, found));
            }
        }
        best.map(|(_, found)| found)
    }

    /// A datagram whose identification or ports somebody changed, by the carriers that were left to tunproof.
    fn translated(&self, key: &SessionKey, headers: &[Ipv4<'_>]) -> Option<Found> {
        let ip = headers.last().filter(|ip| ip.fragment_offset() == 0)?;
        let (probe, certainty) = carried(key, *ip)?;
        let sent = self.sent.iter().find(|sent| sent.id == probe)?;
        let own = nested(Octets::new(&sent.packet));
        if carried(key, *own.last()?) != Some((probe, certainty)) || !has_flags(*own.last()?, *ip) {
            return None;
        }
        Some(Found {
            probe,
            role: ScriptRole::Own {
                before: headers.len().saturating_sub(own.len()),
                missing: own.len().saturating_sub(headers.len()),
            },
            certainty,
        })
    }

    fn answer(&self, seen: Ipv4<'_>) -> Option<Found> {
        if seen.fragment_offset() != 0 {
            return None;
        }
        let found = |(probe, role, certainty)| Found {
            probe,
            role,
            certainty,
        };
        match seen.protocol() {
            IpProtocol::TCP => self.segment(seen).map(found),
            IpProtocol::UDP => self.datagram(seen).map(found),
            IpProtocol::ICMP => self.message(seen).map(found),
            _ => None,
        }
    }

    fn segment(&self, seen: Ipv4<'_>) -> Option<(ProbeId, ScriptRole, Certainty)> {
        let tcp = TcpStart::quoted(seen.payload()).ok()?;
        let (acknowledgment, flags) = tcp.rest?;
        let (near, far) = (tcp.source_port, tcp.destination_port);
        let mut back = self.asked(Answering::Ports(IpProtocol::TCP, far, near));
        let answered = back.find_map(|(probe, ip)| {
            let (sent, asked) = (TcpStart::quoted(ip.payload()).ok()?, ip);
            let (sent_acknowledgment, sent_flags) = sent.rest?;
            let syn = u32::from(sent_flags.0 & TcpFlags::SYN.0 != 0);
            let expected = sent.sequence_number.wrapping_add(syn);
            let whole = sent.sequence_number.wrapping_add(consumed(asked));
            let role = match flags.kind() {
                TcpFlags::SYN_ACK if acknowledgment == expected => ScriptRole::SynAck,
                TcpFlags::RST_ACK if [expected, whole].contains(&acknowledgment) => {
                    ScriptRole::Refused
                }
                TcpFlags::RST
                    if sent_flags.0 & TcpFlags::ACK.0 != 0
                        && tcp.sequence_number == sent_acknowledgment =>
                {
                    ScriptRole::Rst
                }
                _ => return None,
            };
            ends_meet(ip, seen).then_some((probe, role, Certainty::Fields))
        });
        // The client's RST to the SYN-ACK that answers a SYN in its name.
        let mut along = self.asked(Answering::Ports(IpProtocol::TCP, near, far));
        answered.or_else(|| {
            along.find_map(|(probe, ip)| {
                let sent = TcpStart::quoted(ip.payload()).ok()?;
                let is_answered = flags.kind() == TcpFlags::RST
                    && sent.rest?.1.kind() == TcpFlags::SYN
                    && tcp.sequence_number == sent.sequence_number.wrapping_add(1)
                    && (ip.source() == seen.source() || ip.destination() == seen.destination());
                is_answered.then_some((probe, ScriptRole::Rst, Certainty::Fields))
            })
        })
    }

    fn datagram(&self, seen: Ipv4<'_>) -> Option<(ProbeId, ScriptRole, Certainty)> {
        let udp = UdpStart::quoted(seen.payload()).ok()?;
        let ports = Answering::Ports(IpProtocol::UDP, udp.destination_port, udp.source_port);
        let mut asked = self.asked(ports);
        let (probe, _) = asked.find(|(_, ip)| {
            (ip.source(), ip.destination()) == (seen.destination(), seen.source())
        })?;
        Some((probe, ScriptRole::Reply, Certainty::Minimal))
    }

    fn message(&self, seen: Ipv4<'_>) -> Option<(ProbeId, ScriptRole, Certainty)> {
        let reply = Icmpv4::checked(seen.payload()).ok()?;
        let mut asked = self.asked(Answering::Rest(reply.rest()));
        let (probe, _) = asked.find(|(_, ip)| {
            let question = Icmpv4::checked(ip.payload());
            let answers =
                |asked: Icmpv4<'_>| QUESTIONS.contains(&(asked.icmp_type(), reply.icmp_type()));
            question.is_ok_and(answers) && ends_meet(*ip, seen)
        })?;
        Some((probe, ScriptRole::Reply, Certainty::Fields))
    }

    /// The packets to which such an answer could belong, and the innermost header of each.
    fn asked(&self, answering: Answering) -> impl Iterator<Item = (ProbeId, Ipv4<'_>)> {
        let known = self.by_answer.get(&answering).into_iter().flatten();
        known.filter_map(|sent| {
            let sent = &self.sent[*sent];
            Some((sent.id, *nested(Octets::new(&sent.packet)).last()?))
        })
    }
}

/// The packet itself, as it was sent.
const OWN: ScriptRole = ScriptRole::Own {
    before: 0,
    missing: 0,
};

/// ICMP questions with their answers: echo, timestamp (RFC 792), information (RFC 792), address mask (RFC 950).
const QUESTIONS: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];

fn answering(ip: Ipv4<'_>) -> Option<Answering> {
    if ip.fragment_offset() != 0 {
        return None;
    }
    match ip.protocol() {
        IpProtocol::TCP => {
            let tcp = TcpStart::quoted(ip.payload()).ok()?;
            Some(Answering::Ports(
                IpProtocol::TCP,
                tcp.source_port,
                tcp.destination_port,
            ))
        }
        IpProtocol::UDP => {
            let udp = UdpStart::quoted(ip.payload()).ok()?;
            Some(Answering::Ports(
                IpProtocol::UDP,
                udp.source_port,
                udp.destination_port,
            ))
        }
        IpProtocol::ICMP => {
            let icmp = Icmpv4::checked(ip.payload()).ok()?;
            Some(Answering::Rest(icmp.rest()))
        }
        _ => None,
    }
}

/// How many octets of `seen` are those of `sent`, if it is that datagram: at least the 8 that an ICMP error must
/// quote, checksums aside; where there are fewer, the addresses must be the same as well.
fn agreement(sent: Ipv4<'_>, seen: Ipv4<'_>) -> Option<usize> {
    if (sent.protocol(), sent.fragment_offset()) != (seen.protocol(), seen.fragment_offset()) {
        return None;
    }
    // What a router or translator changes: of a header inside the type of service, of UDP and ICMP the checksum.
    let changing = match (sent.protocol(), sent.fragment_offset()) {
        (IpProtocol::IPIP, 0) => 1..2,
        (IpProtocol::UDP, 0) => 6..8,
        (IpProtocol::ICMP, 0) => 2..4,
        _ => 0..0,
    };
    let (own, other) = (sent.payload().bytes(), seen.payload().bytes());
    let pairs = own.iter().zip(other).enumerate();
    let mut same = pairs.take_while(|(at, (a, b))| a == b || changing.contains(at));
    let agreed = same.by_ref().count();
    let ends = (
        sent.source() == seen.source(),
        sent.destination() == seen.destination(),
    );
    let enough = match own.len().min(START) {
        START => agreed >= START && (ends.0 || ends.1),
        short => agreed == short && ends == (true, true),
    };
    enough.then_some(agreed)
}

/// What an ICMP error quotes behind the IP header at least.
const START: usize = 8;

/// Whose datagram it is by what tunproof chose in it.
fn carried(key: &SessionKey, ip: Ipv4<'_>) -> Option<(ProbeId, Certainty)> {
    let is_script = |probe: &ProbeId| probe.kind == ProbeKind::Script;
    match ip.protocol() {
        IpProtocol::UDP => {
            let udp = UdpStart::quoted(ip.payload()).ok()?;
            let identity = udp.payload.bytes().first_chunk::<10>()?;
            let (tag, number) = identity.split_first_chunk()?;
            let number = u16::from_be_bytes(number.try_into().ok()?);
            let probe = ProbeId::from_number(number).filter(is_script)?;
            (key.tag(probe) == u64::from_be_bytes(*tag)).then_some((probe, Certainty::Tag))
        }
        IpProtocol::TCP => {
            let tcp = TcpStart::quoted(ip.payload()).ok()?;
            let probe = key.by_cookie(tcp.sequence_number).filter(is_script)?;
            let ours = tcp.source_port == key.client_port(probe)
                || ip.identification() == key.identification(probe);
            ours.then_some((probe, Certainty::Fields))
        }
        IpProtocol::ICMP => {
            let icmp = Icmpv4::checked(ip.payload()).ok()?;
            let probe = key.by_cookie(u32::from_be_bytes(icmp.rest()));
            let is_question = QUESTIONS.iter().any(|(asks, _)| *asks == icmp.icmp_type());
            Some((
                probe.filter(is_script).filter(|_| is_question)?,
                Certainty::Fields,
            ))
        }
        _ => None,
    }
}

/// Whether it has the control bits of the segment that was sent, if it is one and has any.
fn has_flags(sent: Ipv4<'_>, seen: Ipv4<'_>) -> bool {
    let flags = |ip: Ipv4<'_>| Some(TcpStart::quoted(ip.payload()).ok()?.rest?.1.kind());
    seen.protocol() != IpProtocol::TCP || flags(seen).is_none_or(|own| Some(own) == flags(sent))
}

/// What an answer to a segment acknowledges of it: its data, SYN and FIN (RFC 9293 §3.10.7.1).
fn consumed(ip: Ipv4<'_>) -> u32 {
    let Ok(tcp) = Tcp::checked(ip.payload()) else {
        return 0;
    };
    let flags = tcp.flags().0;
    let control = [TcpFlags::SYN, TcpFlags::FIN]
        .iter()
        .filter(|flag| flags & flag.0 != 0);
    (tcp.payload().len() + control.count()) as u32
}

/// Whether one end of what was sent is the other end of an answer; a translator may have changed the other.
fn ends_meet(sent: Ipv4<'_>, answer: Ipv4<'_>) -> bool {
    sent.source() == answer.destination() || sent.destination() == answer.source()
}

/// The packet without what routers change in a header: type of service, time to live, checksum.
fn routed(packet: &[u8]) -> Vec<u8> {
    let mut kept = packet.to_vec();
    for octet in [1, 8, 10, 11] {
        if let Some(octet) = kept.get_mut(octet) {
            *octet = 0;
        }
    }
    kept
}

/// The packet without what routers change in any of its headers.
fn unchanging(packet: &[u8], is_arp: bool) -> Vec<u8> {
    let mut kept = match is_arp {
        true => return packet.to_vec(),
        false => routed(packet),
    };
    for header in nested(Octets::new(packet)) {
        let start = header.payload().offset() - header.header().len();
        let inner = routed(&packet[start..]);
        kept[start..].copy_from_slice(&inner);
    }
    kept
}
