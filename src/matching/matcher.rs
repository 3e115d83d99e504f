//! What does it say: a packet that is ours, as a [`Sighting`], and in what it differs from what was sent.

use std::net::Ipv4Addr;

use crate::matching::Alteration;
use crate::matching::Outer;
use crate::matching::Sighting;
use crate::matching::anatomy::Anatomy;
use crate::matching::anatomy::Core;
use crate::matching::difference::Differences;
use crate::matching::identify::Identified;
use crate::matching::identify::Role;
use crate::matching::identify::identify;
use crate::matching::identify::written_out;
use crate::matching::scripted::Scripted;
use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::Packet;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::SessionKey;
use crate::wire::Checksum;
use crate::wire::EtherType;
use crate::wire::Ethernet;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::Tcp;
use crate::wire::TcpStart;
use crate::wire::UdpStart;

/// Finds a session's probes, and what they caused, among packets.
#[derive(Clone, Debug)]
pub struct Matcher {
    key: SessionKey,
    scripted: Scripted,
    /// Whether a suite that nobody knows here may have written packets out.
    unknown_suite: bool,
}

impl Matcher {
    /// A matcher for the session with this key.
    pub fn new(key: SessionKey) -> Matcher {
        Matcher {
            key,
            scripted: Scripted::default(),
            unknown_suite: false,
        }
    }

    /// The same, where the suite that was played is not known: of the packets that it wrote out those are recognised
    /// whose identity it left to tunproof.
    pub fn without_suite(key: SessionKey) -> Matcher {
        Matcher {
            unknown_suite: true,
            ..Matcher::new(key)
        }
    }

    /// Notes that a packet was sent that a suite wrote out: from now on it is recognised, and what answers it.
    /// `bytes` are those of `craft::script`.
    pub fn add_script(&mut self, probe: &Probe, bytes: &[u8]) {
        let is_frame = probe.script.as_ref().is_some_and(Packet::is_frame);
        let (ethertype, packet) = match Ethernet::checked(Octets::new(bytes)) {
            Ok(frame) if is_frame => (frame.ethertype, frame.payload.bytes()),
            _ => (EtherType::IPV4, bytes),
        };
        self.scripted
            .add(probe.id, ethertype == EtherType::ARP, packet);
    }

    /// The packets that nothing tells from that of `probe` but the order in which they were sent, itself
    /// included; empty if no suite wrote it out.
    pub fn twins(&self, probe: ProbeId) -> impl Iterator<Item = ProbeId> {
        self.scripted.twins(probe)
    }

    /// Which probe's packet, or answer to which probe, `packet` is. It starts at its IPv4 header, and may
    /// be cut off anywhere behind it.
    ///
    /// Allocates nothing, unless suites wrote packets out. Addresses decide nothing, and ports little: what network address translation
    /// changed is matched all the same where the tag, or the cookie with port or identification, is
    /// there; [`Matcher::alterations`] tells the difference. A [`Certainty::Minimal`] sighting should
    /// count only if [`Matcher::is_translated`]: what chance gives once, a forger has as often as he tries.
    ///
    /// [`Certainty::Minimal`]: crate::matching::Certainty::Minimal
    pub fn recognise(&self, packet: &[u8]) -> Option<Sighting> {
        let scripted = || match self.scripted.is_empty() {
            true => None,
            false => self.scripted.recognise(&self.key, packet),
        };
        self.by_identity(packet).or_else(scripted)
    }

    /// Which packet that a suite wrote out, or reply to which, an ARP packet is.
    pub fn recognise_arp(&self, packet: &[u8]) -> Option<Sighting> {
        self.scripted.recognise_arp(packet)
    }

    fn by_identity(&self, packet: &[u8]) -> Option<Sighting> {
        let anatomy = Anatomy::read(packet)?;
        let identified = identify(&self.key, anatomy.core).or_else(|| {
            let may_be = self.unknown_suite;
            may_be.then(|| written_out(&self.key, anatomy.core))?
        })?;
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
            sent_ttl: identified.sent_ttl,
            quoted: anatomy
                .error
                .map(|error| u16::try_from(error.octets).unwrap_or(u16::MAX)),
            next_hop_mtu: anatomy.error.and_then(|error| error.next_hop_mtu),
            maximum_segment_size: match anatomy.core {
                Core::Datagram(ip) if identified.role == Role::SynAck => Tcp::checked(ip.payload())
                    .ok()
                    .and_then(|tcp| tcp.maximum_segment_size()),
                _ => None,
            },
        })
    }

    /// In what `packet`, recognised as `probe`'s or as an answer to it, differs from what was sent, or
    /// from the answer to be expected. Times to live always differ and are no alteration.
    ///
    /// Of a probe: addresses, ports, identification, UDP checksum, TCP numbers, and those of a tunnel
    /// header that tunproof wrote. Of an answer: addresses and ports. As far as they are there.
    pub fn alterations(&self, probe: &Probe, packet: &[u8]) -> Vec<Alteration> {
        let mut differences = Differences::default();
        if probe.script.is_some() {
            self.scripted
                .alterations(&self.key, probe.id, packet, &mut differences);
            return differences.0;
        }
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

    /// Whether the UDP checksum in `packet`, recognised as the probe's, is the one as sent, adjusted to the addresses
    /// there as translation does it (RFC 3022 §4.1): so many bits more that a forger would have to guess.
    pub fn is_translated(&self, probe: &Probe, packet: &[u8]) -> bool {
        let Some(Core::Datagram(ip)) = Anatomy::read(packet).map(|anatomy| anatomy.core) else {
            return false;
        };
        let Ok(udp) = UdpStart::quoted(ip.payload()) else {
            return false;
        };
        let inverted = |address: Ipv4Addr| address.octets().map(|octet| !octet);
        let adjusted = Checksum::default()
            .over(&(!self.key.udp_checksum(probe.id)).to_be_bytes())
            .over(&inverted(probe.flow.source))
            .over(&inverted(probe.flow.destination))
            .over(&ip.source().octets())
            .over(&ip.destination().octets())
            .finish();
        ip.protocol() == IpProtocol::UDP
            && udp.checksum == if adjusted == 0 { 0xffff } else { adjusted }
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
    flow.reversed()
}

#[cfg(test)]
mod tests;
