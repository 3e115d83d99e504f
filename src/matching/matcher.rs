//! What does it say: a packet that is ours, as a [`Sighting`], and in what it differs from what was sent.

use std::fmt;

use crate::matching::Alteration;
use crate::matching::Outer;
use crate::matching::Sighting;
use crate::matching::anatomy::Anatomy;
use crate::matching::anatomy::Core;
use crate::matching::identify::Identified;
use crate::matching::identify::Role;
use crate::matching::identify::identify;
use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::Probe;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::SessionKey;
use crate::wire::Ipv4;
use crate::wire::TcpStart;
use crate::wire::UdpStart;

/// Finds a session's probes, and what they caused, among packets.
#[derive(Clone, Debug)]
pub struct Matcher {
    key: SessionKey,
}

impl Matcher {
    /// A matcher for the session with this key.
    pub fn new(key: SessionKey) -> Matcher {
        Matcher { key }
    }

    /// Which probe's packet, or answer to which probe, `packet` is. It starts at its IPv4 header, and may
    /// be cut off anywhere behind it.
    ///
    /// Allocates nothing. Addresses decide nothing, and ports little: what network address translation
    /// changed is matched all the same where the tag, or the cookie with port or identification, is
    /// there; [`Matcher::alterations`] tells the difference. A [`Certainty::Minimal`] sighting should
    /// count only if its probe was sent and its outer addresses are the path's.
    ///
    /// [`Certainty::Minimal`]: crate::matching::Certainty::Minimal
    pub fn recognise(&self, packet: &[u8]) -> Option<Sighting> {
        let anatomy = Anatomy::read(packet)?;
        let identified = identify(&self.key, anatomy.core)?;
        let inner_ttl = match anatomy.core {
            Core::Datagram(ip) if identified.role.is_own() => Some(ip.time_to_live()),
            _ => None,
        };
        Some(Sighting {
            probe: identified.probe,
            form: form(&anatomy, &identified),
            certainty: identified.certainty,
            source: anatomy.outermost.source(),
            destination: anatomy.outermost.destination(),
            ttl: anatomy.outermost.time_to_live(),
            outer: anatomy.tunnel.map(|outer| Outer {
                source: outer.source(),
                destination: outer.destination(),
                ttl: outer.time_to_live(),
                identification: outer.identification(),
            }),
            flow: identified.flow,
            inner_ttl,
            quoted: anatomy
                .error
                .map(|error| u16::try_from(error.octets).unwrap_or(u16::MAX)),
        })
    }

    /// In what `packet`, recognised as `probe`'s or as an answer to it, differs from what was sent, or
    /// from the answer to be expected. Times to live always differ and are no alteration.
    ///
    /// Of a probe: addresses, ports, identification, UDP checksum, TCP numbers, and those of a tunnel
    /// header that tunproof wrote. Of an answer: addresses and ports. As far as they are there.
    pub fn alterations(&self, probe: &Probe, packet: &[u8]) -> Vec<Alteration> {
        let mut differences = Differences(Vec::new());
        let Some(anatomy) = Anatomy::read(packet) else {
            return Vec::new();
        };
        let Some(identified) = identify(&self.key, anatomy.core) else {
            return Vec::new();
        };
        if identified.probe != probe.id {
            return Vec::new();
        }
        if let Some(seen) = &identified.flow {
            differences.flow(&expected_flow(probe, identified.role), seen);
        }
        if identified.role.is_own() {
            let identification = match anatomy.core {
                Core::Datagram(ip) => ip.identification(),
                Core::Start(_, inner) => inner.identification,
            };
            let sent = self.key.identification(probe.id);
            differences.hex16("identification", sent, identification);
            if let Core::Datagram(ip) = anatomy.core {
                self.transport(&mut differences, probe, identified.role, ip);
            }
            if let (Some(sent), Some(seen)) = (probe.tunnel, anatomy.tunnel) {
                let identification = self.key.outer_identification(probe.id);
                differences.text("tunnel source address", sent.source, seen.source());
                differences.text(
                    "tunnel destination address",
                    sent.destination,
                    seen.destination(),
                );
                differences.hex16(
                    "tunnel identification",
                    identification,
                    seen.identification(),
                );
            }
        }
        differences.0
    }

    fn transport(&self, differences: &mut Differences, probe: &Probe, role: Role, ip: Ipv4<'_>) {
        let (id, key) = (probe.id, &self.key);
        if probe.flow.protocol == Protocol::Udp {
            if let Ok(udp) = UdpStart::quoted(ip.payload()) {
                differences.hex16("UDP checksum", key.udp_checksum(id), udp.checksum);
            }
            return;
        }
        let Ok(tcp) = TcpStart::quoted(ip.payload()) else {
            return;
        };
        let (sequence, acknowledgment) = match (role, id.kind.sends_syn_ack()) {
            (Role::Cleanup, _) => (key.cookie(id).wrapping_add(1), 0),
            (_, false) => (key.cookie(id), 0),
            (_, true) => (key.tag(id) as u32, key.cookie(id)),
        };
        differences.text("TCP sequence number", sequence, tcp.sequence_number);
        if let Some((seen, _)) = tcp.rest {
            differences.text("TCP acknowledgment number", acknowledgment, seen);
        }
    }
}

fn form(anatomy: &Anatomy<'_>, identified: &Identified) -> Form {
    if let Some(error) = anatomy.error {
        let of = match (error.quotes_error, identified.role.is_own()) {
            (false, true) if error.quotes_tunnel => Quoting::Tunnelled,
            (false, true) => Quoting::Plain,
            _ => Quoting::Answer,
        };
        return Form::IcmpError {
            icmp_type: error.icmp_type,
            code: error.code,
            of,
        };
    }
    match (identified.role, anatomy.tunnel) {
        (Role::Probe, Some(_)) => Form::Tunnelled,
        (Role::Probe, None) => Form::Plain,
        (Role::Cleanup, _) => Form::Cleanup,
        (Role::SynAck, _) => Form::SynAck,
        (Role::Refused, _) => Form::Refused,
        (Role::Rst, _) => Form::Rst,
    }
}

/// The flow that a datagram in this role should have.
fn expected_flow(probe: &Probe, role: Role) -> Flow {
    let flow = probe.flow;
    let from_the_client = match role {
        Role::Probe | Role::Cleanup => return flow,
        Role::SynAck | Role::Refused => false,
        Role::Rst => true,
    };
    // A SYN comes from the client's end, a SYN-ACK of ours goes to it.
    if from_the_client != probe.id.kind.sends_syn_ack() {
        return flow;
    }
    Flow {
        source: flow.destination,
        source_port: flow.destination_port,
        destination: flow.source,
        destination_port: flow.source_port,
        ..flow
    }
}

struct Differences(Vec<Alteration>);

impl Differences {
    fn flow(&mut self, sent: &Flow, seen: &Flow) {
        self.text("source address", sent.source, seen.source);
        self.text("destination address", sent.destination, seen.destination);
        self.text("source port", sent.source_port, seen.source_port);
        self.text(
            "destination port",
            sent.destination_port,
            seen.destination_port,
        );
    }

    fn text<T: PartialEq + fmt::Display>(&mut self, field: &str, sent: T, seen: T) {
        if sent != seen {
            self.0.push(Alteration {
                field: field.to_owned(),
                sent: sent.to_string(),
                seen: seen.to_string(),
            });
        }
    }

    fn hex16(&mut self, field: &str, sent: u16, seen: u16) {
        if sent != seen {
            self.text(field, format!("{sent:#06x}"), format!("{seen:#06x}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::craft;
    use crate::craft::Field;
    use crate::craft::Icmpv4;
    use crate::craft::Layer;
    use crate::craft::Tcp;

    use crate::plan::Path;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;

    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn key() -> SessionKey {
        "00112233445566778899aabbccddeeff".parse().unwrap()
    }

    fn probe_of(kind: ProbeKind, index: u16, protocol: Protocol) -> Probe {
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
        Probe::new(ProbeId { kind, index }, 0, &path, &key()).unwrap()
    }

    /// Every kind with both protocols of the service, a few numbers of each.
    fn probes() -> impl Iterator<Item = Probe> {
        ProbeKind::ALL.into_iter().flat_map(|kind| {
            [0, 1, 77, 4095].into_iter().flat_map(move |index| {
                [Protocol::Tcp, Protocol::Udp].map(|service| probe_of(kind, index, service))
            })
        })
    }

    fn recognise(packet: &[u8]) -> Option<Sighting> {
        Matcher::new(key()).recognise(packet)
    }

    fn encapsulated(source: Ipv4Addr, destination: Ipv4Addr, datagram: Vec<u8>) -> Vec<u8> {
        let outer = craft::Ipv4 {
            protocol: Field::Forced(4),
            identification: 0x4242,
            ..craft::Ipv4::new(source, destination)
        };
        craft::build(&[Layer::Ipv4(outer), Layer::Raw(datagram)])
            .unwrap()
            .bytes
    }

    fn error(icmp_type: u8, code: u8, to: Ipv4Addr, quotation: &[u8]) -> Vec<u8> {
        craft::build(&[
            Layer::Ipv4(craft::Ipv4::new(ROUTER, to)),
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
            Layer::Ipv4(craft::Ipv4::new(source.0, to.0)),
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
}
