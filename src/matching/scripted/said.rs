//! What does it say: a packet of a suite's, or what came of one, as a [`Sighting`], and in what it differs from what
//! was sent.

use crate::matching::Outer;
use crate::matching::Sighting;
use crate::matching::difference::Differences;
use crate::matching::scripted::Found;
use crate::matching::scripted::ScriptRole;
use crate::matching::scripted::Scripted;
use crate::matching::scripted::holds_another;
use crate::matching::scripted::nested;
use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::ProbeId;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::SessionKey;
use crate::wire::Arp;
use crate::wire::Icmpv4;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::Tcp;
use crate::wire::TcpStart;
use crate::wire::UdpStart;

/// Whose packet it is, and where in it the datagram lies by which that is known.
struct Read<'a> {
    /// The packet's own headers.
    outside: Vec<Ipv4<'a>>,
    /// The headers of the datagram: the packet's own, or those that an ICMP error quotes.
    headers: Vec<Ipv4<'a>>,
    /// The error, and whether it quotes another.
    error: Option<(Icmpv4<'a>, bool)>,
    found: Found,
}

impl Scripted {
    /// What a packet says, from its IPv4 header on, if it is a suite's or came of one.
    pub(in crate::matching) fn recognise(
        &self,
        key: &SessionKey,
        packet: &[u8],
    ) -> Option<Sighting> {
        let read = self.read(key, packet)?;
        let ends = |at: usize| {
            let octets = packet.get(at..)?.first_chunk::<4>()?;
            Some((*octets).into())
        };
        let tunnel = match (&read.outside[..], &read.headers[..]) {
            ([outer, _, ..], _) => Some(outer),
            (_, [outer, _, ..]) => Some(outer),
            (_, [outer]) if holds_another(*outer) => Some(outer),
            _ => None,
        };
        let inner = read.headers.last();
        let is_own = matches!(read.found.role, ScriptRole::Own { .. });
        let quoted = read.error.map(|_| read.headers[0].available());
        Some(Sighting {
            probe: read.found.probe,
            form: read.form(),
            certainty: read.found.certainty,
            source: ends(12)?,
            destination: ends(16)?,
            ttl: packet[8],
            outer: tunnel.map(|outer| Outer {
                source: outer.source(),
                destination: outer.destination(),
                ttl: outer.time_to_live(),
                identification: outer.identification(),
            }),
            flow: inner.and_then(|ip| flow(*ip)),
            inner_ttl: inner.filter(|_| is_own).map(Ipv4::time_to_live),
            sent_ttl: None,
            quoted: quoted.map(|octets| u16::try_from(octets).unwrap_or(u16::MAX)),
            next_hop_mtu: read.error.and_then(|(icmp, _)| icmp.next_hop_mtu()),
            maximum_segment_size: inner
                .filter(|_| read.found.role == ScriptRole::SynAck && read.error.is_none())
                .and_then(|ip| Tcp::checked(ip.payload()).ok()?.maximum_segment_size()),
        })
    }

    /// What an ARP packet says: its ends are sender and target, and it has no time to live.
    pub(in crate::matching) fn recognise_arp(&self, packet: &[u8]) -> Option<Sighting> {
        let arp = Arp::checked(Octets::new(packet)).ok()?;
        let found = self.identify_arp(&arp)?;
        Some(Sighting {
            probe: found.probe,
            form: match found.role {
                ScriptRole::Own { .. } => Form::Plain,
                _ => Form::Reply,
            },
            certainty: found.certainty,
            source: arp.sender_ip,
            destination: arp.target_ip,
            ttl: 0,
            outer: None,
            flow: None,
            inner_ttl: None,
            sent_ttl: None,
            quoted: None,
            next_hop_mtu: None,
            maximum_segment_size: None,
        })
    }

    /// In what a packet differs from what was sent, header by header from the one on that it shows, or in its ends
    /// from the answer to be expected.
    pub(in crate::matching) fn alterations(
        &self,
        key: &SessionKey,
        id: ProbeId,
        packet: &[u8],
        differences: &mut Differences,
    ) {
        let Some(read) = self.read(key, packet).filter(|read| read.found.probe == id) else {
            return;
        };
        let Some(sent) = self.packet(id).map(|sent| nested(Octets::new(sent))) else {
            return;
        };
        if let ScriptRole::Own { before, missing } = read.found.role {
            let pairs = sent
                .iter()
                .skip(missing)
                .zip(read.headers.iter().skip(before));
            let innermost = sent.len() - 1;
            for (number, (sent, seen)) in pairs.enumerate() {
                match number + missing == innermost {
                    true => datagram(differences, *sent, *seen),
                    false => tunnel(differences, *sent, *seen),
                }
            }
            return;
        }
        let asked = sent.last().and_then(|ip| flow(*ip));
        let answer = read.headers.last().and_then(|ip| flow(*ip));
        if let (Some(asked), Some(answer)) = (asked, answer) {
            let is_along = asked.source_port == answer.source_port
                && asked.destination_port == answer.destination_port;
            let expected = match is_along {
                true => asked,
                false => asked.reversed(),
            };
            differences.flow(&expected, &answer);
        }
    }

    fn read<'a>(&self, key: &SessionKey, packet: &'a [u8]) -> Option<Read<'a>> {
        let octets = Octets::new(packet);
        let outside = nested(octets);
        if let Some(found) = self.identify(key, octets, &outside) {
            return Some(Read {
                headers: outside.clone(),
                outside,
                error: None,
                found,
            });
        }
        let (icmp, mut quote) = quotation(*outside.last()?)?;
        for is_of_an_error in [false, true] {
            let headers = nested(quote);
            if let Some(found) = self.identify(key, quote, &headers) {
                return Some(Read {
                    outside,
                    headers,
                    error: Some((icmp, is_of_an_error)),
                    found,
                });
            }
            quote = quotation(*headers.last()?)?.1;
        }
        None
    }
}

impl Read<'_> {
    fn form(&self) -> Form {
        if let Some((icmp, is_of_an_error)) = self.error {
            let is_own = matches!(self.found.role, ScriptRole::Own { .. });
            let is_tunnelled =
                self.headers.len() > 1 || self.headers.iter().any(|ip| holds_another(*ip));
            return Form::IcmpError {
                icmp_type: icmp.icmp_type(),
                code: icmp.code(),
                of: match (is_own && !is_of_an_error, is_tunnelled) {
                    (false, _) => Quoting::Answer,
                    (true, true) => Quoting::Tunnelled,
                    (true, false) => Quoting::Plain,
                },
            };
        }
        match self.found.role {
            ScriptRole::Own { before: 1.., .. } => Form::Tunnelled,
            ScriptRole::Own { missing: 1.., .. } => Form::Decapsulated,
            ScriptRole::Own { .. } => Form::Plain,
            ScriptRole::SynAck => Form::SynAck,
            ScriptRole::Refused => Form::Refused,
            ScriptRole::Rst => Form::Rst,
            ScriptRole::Reply => Form::Reply,
        }
    }
}

/// The ICMP error that a datagram is, and what that quotes.
fn quotation(ip: Ipv4<'_>) -> Option<(Icmpv4<'_>, Octets<'_>)> {
    if ip.protocol() != IpProtocol::ICMP || ip.fragment_offset() != 0 {
        return None;
    }
    let icmp = Icmpv4::checked(ip.payload()).ok()?;
    Some((icmp, icmp.quotation()?))
}

/// Addresses and ports, if there are ports.
fn flow(ip: Ipv4<'_>) -> Option<Flow> {
    if ip.fragment_offset() != 0 {
        return None;
    }
    let (protocol, source_port, destination_port) = match ip.protocol() {
        IpProtocol::UDP => {
            let udp = UdpStart::quoted(ip.payload()).ok()?;
            (Protocol::Udp, udp.source_port, udp.destination_port)
        }
        IpProtocol::TCP => {
            let tcp = TcpStart::quoted(ip.payload()).ok()?;
            (Protocol::Tcp, tcp.source_port, tcp.destination_port)
        }
        _ => return None,
    };
    Some(Flow {
        protocol,
        source: ip.source(),
        source_port,
        destination: ip.destination(),
        destination_port,
    })
}

fn tunnel(differences: &mut Differences, sent: Ipv4<'_>, seen: Ipv4<'_>) {
    differences.text("tunnel source address", sent.source(), seen.source());
    differences.text(
        "tunnel destination address",
        sent.destination(),
        seen.destination(),
    );
    differences.hex16(
        "tunnel identification",
        sent.identification(),
        seen.identification(),
    );
    differences.hex8(
        "tunnel type of service",
        sent.type_of_service(),
        seen.type_of_service(),
    );
}

fn datagram(differences: &mut Differences, sent: Ipv4<'_>, seen: Ipv4<'_>) {
    match (flow(sent), flow(seen)) {
        (Some(sent), Some(seen)) => differences.flow(&sent, &seen),
        _ => {
            differences.text("source address", sent.source(), seen.source());
            differences.text(
                "destination address",
                sent.destination(),
                seen.destination(),
            );
        }
    }
    differences.hex16(
        "identification",
        sent.identification(),
        seen.identification(),
    );
    differences.hex8(
        "type of service",
        sent.type_of_service(),
        seen.type_of_service(),
    );
    if sent.fragment_offset() != 0 {
        return;
    }
    match sent.protocol() {
        IpProtocol::UDP => {
            let start = |ip: Ipv4<'_>| UdpStart::quoted(ip.payload()).map(|udp| udp.checksum);
            if let (Ok(sent), Ok(seen)) = (start(sent), start(seen)) {
                differences.hex16("UDP checksum", sent, seen);
            }
        }
        IpProtocol::TCP => {
            let (Ok(sent), Ok(seen)) = (
                TcpStart::quoted(sent.payload()),
                TcpStart::quoted(seen.payload()),
            ) else {
                return;
            };
            let (own, other) = (sent.sequence_number, seen.sequence_number);
            differences.text("TCP sequence number", own, other);
            if let (Some((own, own_flags)), Some((other, flags))) = (sent.rest, seen.rest) {
                differences.text("TCP acknowledgment number", own, other);
                differences.text("TCP flags", own_flags, flags);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
