//! Answers to a sweep's probes: whose pair is it, and what does it say? By arithmetic and without allocation; nothing
//! is known of what was sent.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Fleet;
use crate::plan::FleetIdentity;
use crate::plan::FleetProbe;
use crate::plan::Pair;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::wire::Icmpv4;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::Quote;
use crate::wire::Quoted;
use crate::wire::TcpFlags;

/// How many pairs of a real server are compared with a quote that does not say which it was.
const MOST_CANDIDATES: usize = 4096;

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FleetAnswer {
    /// The service's SYN-ACK.
    SynAck,
    /// An RST in the service's place: nothing listens there, or a firewall says so.
    Reset,
    /// The VIP's port unreachable for a datagram to a closed port.
    PortUnreachable,
    /// The client's RST.
    ClientReset,
    /// The probe itself, out of the tunnel: its end forwarded what it should have taken. Whatever is answered then, it
    /// may be another host that answers.
    CameBack,
    /// An ICMP error.
    Error(FleetError),
}

/// An ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FleetError {
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub code: u8,
    /// What it is about.
    pub about: About,
    /// Who sent it.
    pub from: Whom,
}

/// Which packet an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// The tunnelled probe, on its way to the real server.
    Tunnel,
    /// The probe out of the tunnel.
    Inner,
    /// The service's answer, on its way back.
    Return,
}

/// Who sent an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// The pair's VIP.
    Vip,
    /// The pair's real server.
    RealServer,
    /// Another host.
    Other(Ipv4Addr),
}

/// What a packet is to a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetSighting {
    /// An answer to the probe of this pair.
    Of {
        /// The pair's number.
        pair: u32,
        /// Which of its probes.
        probe: FleetProbe,
        /// What it says.
        answer: FleetAnswer,
    },
    /// An error about the probe of one of this real server's pairs, which does not say of which.
    OneOf {
        /// The real server.
        rip: Ipv4Addr,
        /// What it says.
        error: FleetError,
    },
}

impl FleetAnswer {
    /// Whether it is what the probe was sent for.
    pub fn completes(&self, probe: FleetProbe) -> bool {
        matches!(
            (self, probe),
            (FleetAnswer::SynAck, FleetProbe::ReflectSyn)
                | (FleetAnswer::PortUnreachable, FleetProbe::ReflectUdp)
                | (FleetAnswer::ClientReset, FleetProbe::ClosedLoop)
        )
    }
}

/// Recognises the answers to one session's probes.
#[derive(Clone)]
pub struct FleetMatcher {
    fleet: Arc<Fleet>,
    key: SessionKey,
}

impl FleetMatcher {
    /// For the probes of a fleet under this key.
    pub fn new(fleet: Arc<Fleet>, key: SessionKey) -> FleetMatcher {
        FleetMatcher { fleet, key }
    }

    /// What a packet is to the sweep, from its IPv4 header on; `None` if it is nothing to it.
    pub fn recognise(&self, packet: &[u8]) -> Option<FleetSighting> {
        let ip = Ipv4::quoted(Octets::new(packet)).ok()?;
        if ip.fragment_offset() != 0 || ip.more_fragments() {
            return None;
        }
        match ip.protocol() {
            IpProtocol::TCP => self.came_back(&ip).or_else(|| self.segment(&ip)),
            IpProtocol::UDP => self.came_back(&ip),
            IpProtocol::ICMP => self.error(&ip),
            _ => None,
        }
    }

    /// A probe that comes to the director, and to no real server.
    fn came_back(&self, ip: &Ipv4<'_>) -> Option<FleetSighting> {
        let probe = match ip.source() {
            source if source == self.fleet.dip() => FleetProbe::ReflectSyn,
            source if Some(source) == self.fleet.cip() => FleetProbe::ClosedLoop,
            _ => return None,
        };
        if ip.protocol() == IpProtocol::TCP {
            let tcp = Segment::read(ip.payload().bytes())?;
            if TcpFlags(tcp.flags).kind() != TcpFlags::SYN {
                return None;
            }
        }
        let (pair, probe) = self.transport(ip, probe)?;
        Some(FleetSighting::Of {
            pair: pair.number,
            probe,
            answer: FleetAnswer::CameBack,
        })
    }

    fn segment(&self, ip: &Ipv4<'_>) -> Option<FleetSighting> {
        let tcp = Segment::read(ip.payload().bytes())?;
        let kind = TcpFlags(tcp.flags).kind();
        let (found, probe, answer) = if ip.destination() == self.fleet.dip() {
            let answer = match kind {
                TcpFlags::SYN_ACK => FleetAnswer::SynAck,
                TcpFlags::RST_ACK => FleetAnswer::Reset,
                _ => return None,
            };
            (self.answered(ip, &tcp)?, FleetProbe::ReflectSyn, answer)
        } else if Some(ip.source()) == self.fleet.cip() && tcp.flags & TcpFlags::RST.0 != 0 {
            let probe = FleetProbe::ClosedLoop;
            let word = tcp.sequence_number.wrapping_sub(1);
            let pair = self.find(probe, (word, tcp.source_port, 0))?;
            let service = (ip.destination(), tcp.destination_port);
            (self.of(pair, service)?, probe, FleetAnswer::ClientReset)
        } else {
            return None;
        };
        Some(FleetSighting::Of {
            pair: found.number,
            probe,
            answer,
        })
    }

    /// The pair whose SYN this segment of the service answers, from the DIP or from the client.
    fn answered(&self, ip: &Ipv4<'_>, tcp: &Segment) -> Option<Pair> {
        let probe = match ip.destination() == self.fleet.dip() {
            true => FleetProbe::ReflectSyn,
            false => FleetProbe::ClosedLoop,
        };
        let word = tcp.acknowledgment_number.wrapping_sub(1);
        let pair = self.find(probe, (word, tcp.destination_port, 0))?;
        self.of(pair, (ip.source(), tcp.source_port))
    }

    fn error(&self, ip: &Ipv4<'_>) -> Option<FleetSighting> {
        let icmp = Icmpv4::checked(ip.payload()).ok()?;
        let is_whole = ip.available() >= usize::from(ip.total_length());
        let told = matches!(
            icmp.icmp_type(),
            Icmpv4::DESTINATION_UNREACHABLE | Icmpv4::TIME_EXCEEDED | Icmpv4::PARAMETER_PROBLEM
        );
        if !told || is_whole && !icmp.is_checksum_right() {
            return None;
        }
        let quote = Quote::read(icmp.quotation()?).ok()?;
        if quote.header.fragment_offset() != 0 {
            return None;
        }
        match quote.content {
            Quoted::Plain => self.plain(ip, &icmp, &quote),
            _ => self.tunnelled(ip, &icmp, &quote),
        }
    }

    /// An error about what came out of the tunnel, or about what the service answered.
    fn plain(&self, ip: &Ipv4<'_>, icmp: &Icmpv4<'_>, quote: &Quote<'_>) -> Option<FleetSighting> {
        let header = &quote.header;
        let dip = self.fleet.dip();
        if header.source() == dip && ip.destination() == dip {
            let (pair, probe) = self.transport(header, FleetProbe::ReflectSyn)?;
            let is_port = (icmp.icmp_type(), icmp.code()) == (Icmpv4::DESTINATION_UNREACHABLE, 3);
            let is_vip = ip.source() == pair.service.vip;
            let answer = match probe == FleetProbe::ReflectUdp && is_port && is_vip {
                true => FleetAnswer::PortUnreachable,
                false => FleetAnswer::Error(error(ip, icmp, About::Inner, &pair)),
            };
            return Some(FleetSighting::Of {
                pair: pair.number,
                probe,
                answer,
            });
        }
        let is_back = header.destination() == dip || Some(header.destination()) == self.fleet.cip();
        if header.protocol() != IpProtocol::TCP || !is_back || header.source() != ip.destination() {
            return None;
        }
        let tcp = Segment::read(header.payload().bytes())?;
        if TcpFlags(tcp.flags).kind() != TcpFlags::SYN_ACK {
            return None;
        }
        let pair = self.answered(header, &tcp)?;
        Some(FleetSighting::Of {
            pair: pair.number,
            probe: match header.destination() == dip {
                true => FleetProbe::ReflectSyn,
                false => FleetProbe::ClosedLoop,
            },
            answer: FleetAnswer::Error(error(ip, icmp, About::Return, &pair)),
        })
    }

    /// An error about the tunnelled packet.
    fn tunnelled(
        &self,
        ip: &Ipv4<'_>,
        icmp: &Icmpv4<'_>,
        quote: &Quote<'_>,
    ) -> Option<FleetSighting> {
        let outer = &quote.header;
        let dip = self.fleet.dip();
        if outer.source() != dip || ip.destination() != dip {
            return None;
        }
        let rip = outer.destination();
        let of = |pair: &Pair, probe| FleetSighting::Of {
            pair: pair.number,
            probe,
            answer: FleetAnswer::Error(error(ip, icmp, About::Tunnel, pair)),
        };
        let identification = match quote.content {
            Quoted::Tunnelled(inner) => {
                let from = match inner.source() == dip {
                    true => FleetProbe::ReflectSyn,
                    false => FleetProbe::ClosedLoop,
                };
                if from == FleetProbe::ClosedLoop && Some(inner.source()) != self.fleet.cip() {
                    return None;
                }
                if inner.payload().len() >= 8 {
                    let (pair, probe) = self.transport(&inner, from)?;
                    return (pair.rip == rip).then(|| of(&pair, probe));
                }
                Some(inner.identification())
            }
            Quoted::TunnelledStart(start) => Some(start.identification),
            Quoted::TunnelledUnread | Quoted::Plain => None,
        };
        let mut candidates = self.candidates(rip, outer.identification(), identification);
        let (pair, probe) = candidates.next()?;
        if candidates.next().is_some() || identification.is_none() {
            return Some(FleetSighting::OneOf {
                rip,
                error: error(ip, icmp, About::Tunnel, &pair),
            });
        }
        Some(of(&pair, probe))
    }

    /// The pairs of a real server whose probes have these identifications.
    fn candidates(
        &self,
        rip: Ipv4Addr,
        outer: u16,
        inner: Option<u16>,
    ) -> impl Iterator<Item = (Pair, FleetProbe)> + '_ {
        let numbers = self.fleet.pairs_of(rip).take(MOST_CANDIDATES);
        let pairs = numbers.filter_map(|number| self.fleet.pair(number));
        let each = pairs.flat_map(|pair| FleetProbe::ALL.map(|probe| (pair, probe)));
        each.filter(move |(pair, probe)| {
            let identity = FleetIdentity::new(&self.key, *probe, pair.number);
            self.is_asked(pair, *probe)
                && identity.outer_identification == outer
                && inner.is_none_or(|inner| identity.identification == inner)
        })
    }

    /// The pair whose probe is quoted, from its own header on, with 8 octets or more behind it.
    fn transport(&self, header: &Ipv4<'_>, segment: FleetProbe) -> Option<(Pair, FleetProbe)> {
        let octets = header.payload().bytes();
        let [s1, s2, d1, d2, a, b, c, d] = *octets.first_chunk()?;
        let (source, destination) = (u16::from_be_bytes([s1, s2]), u16::from_be_bytes([d1, d2]));
        let (probe, pair) = match header.protocol() {
            IpProtocol::TCP => {
                let word = u32::from_be_bytes([a, b, c, d]);
                (segment, self.find(segment, (word, source, 0))?)
            }
            IpProtocol::UDP if segment == FleetProbe::ReflectSyn => {
                let word = u32::from(header.identification()) << 16
                    | u32::from(u16::from_be_bytes([c, d]));
                let probe = FleetProbe::ReflectUdp;
                (probe, self.find(probe, (word, source, destination))?)
            }
            _ => return None,
        };
        let pair = self.fleet.pair(pair)?;
        let is_right = match probe {
            FleetProbe::ReflectUdp => {
                let tag = FleetIdentity::new(&self.key, probe, pair.number).tag;
                let quoted = octets.get(8..16);
                quoted.is_none_or(|quoted| quoted == tag.to_be_bytes())
            }
            _ => destination == pair.service.port,
        };
        let is_it =
            is_right && self.is_asked(&pair, probe) && header.destination() == pair.service.vip;
        is_it.then_some((pair, probe))
    }

    fn find(&self, probe: FleetProbe, carried: (u32, u16, u16)) -> Option<u32> {
        FleetIdentity::find(&self.key, probe, carried)
    }

    /// The pair of this number, if it is of a TCP service at this address and port.
    fn of(&self, pair: u32, (vip, port): (Ipv4Addr, u16)) -> Option<Pair> {
        let pair = self.fleet.pair(pair)?;
        let service = pair.service;
        let is_it = (service.vip, service.port) == (vip, port) && service.protocol == Protocol::Tcp;
        is_it.then_some(pair)
    }

    /// Whether such a probe is ever sent to the pair.
    fn is_asked(&self, pair: &Pair, probe: FleetProbe) -> bool {
        match probe {
            FleetProbe::ClosedLoop => {
                pair.service.protocol == Protocol::Tcp && self.fleet.cip().is_some()
            }
            FleetProbe::ReflectSyn => pair.service.protocol == Protocol::Tcp,
            FleetProbe::ReflectUdp => pair.service.protocol == Protocol::Udp,
        }
    }
}

fn error(ip: &Ipv4<'_>, icmp: &Icmpv4<'_>, about: About, pair: &Pair) -> FleetError {
    FleetError {
        icmp_type: icmp.icmp_type(),
        code: icmp.code(),
        about,
        from: match ip.source() {
            from if from == pair.service.vip => Whom::Vip,
            from if from == pair.rip => Whom::RealServer,
            from => Whom::Other(from),
        },
    }
}

/// What a segment begins with (RFC 9293 §3.1).
struct Segment {
    source_port: u16,
    destination_port: u16,
    sequence_number: u32,
    acknowledgment_number: u32,
    flags: u8,
}

impl Segment {
    fn read(octets: &[u8]) -> Option<Segment> {
        let [s1, s2, d1, d2, n1, n2, n3, n4, a1, a2, a3, a4, _, flags] = *octets.first_chunk()?;
        Some(Segment {
            source_port: u16::from_be_bytes([s1, s2]),
            destination_port: u16::from_be_bytes([d1, d2]),
            sequence_number: u32::from_be_bytes([n1, n2, n3, n4]),
            acknowledgment_number: u32::from_be_bytes([a1, a2, a3, a4]),
            flags,
        })
    }
}

#[cfg(test)]
mod tests;
