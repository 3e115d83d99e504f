//! Is it ours: the innermost datagram against the session's key. No allocation.
//!
//! A match needs 30 keyed bits or more, spread over fields that a middlebox rarely changes together; what
//! shows fewer is marked [`Certainty::Minimal`].

use crate::matching::Certainty;
use crate::matching::anatomy::Core;
use crate::plan::Flow;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::wire::InnerStart;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::TcpFlags;
use crate::wire::TcpStart;
use crate::wire::UdpStart;

/// Total length of every probe's own datagram: 20 + 8 + 16 of UDP, 20 + 24 of TCP.
pub(super) const PROBE_LENGTH: u16 = 44;

/// Where a UDP payload holds the time to live with which it was sent.
const TTL_AT: usize = 10;

/// Whose datagram it is, and what it is to the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identified {
    pub(super) probe: ProbeId,
    pub(super) role: Role,
    pub(super) certainty: Certainty,
    pub(super) flow: Option<Flow>,
    pub(super) sent_ttl: Option<u8>,
}

/// What a datagram is to the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Probe,
    Cleanup,
    SynAck,
    Refused,
    Rst,
}

impl Role {
    /// Whether tunproof itself sent it.
    pub(super) fn is_own(self) -> bool {
        matches!(self, Role::Probe | Role::Cleanup)
    }
}

/// Whose datagram it is.
pub(super) fn identify(key: &SessionKey, core: Core<'_>) -> Option<Identified> {
    match core {
        Core::Start(outer, inner) => start(key, outer, inner),
        Core::Datagram(ip) if ip.fragment_offset() != 0 => None,
        Core::Datagram(ip) => match ip.protocol() {
            IpProtocol::UDP => udp(key, ip),
            IpProtocol::TCP => tcp(key, ip),
            _ => None,
        },
    }
}

/// The 8 octets of an inner header that a minimal quote of a tunnel holds. Both identifications ours, or,
/// of kinds that the kernel encapsulates, the inner one with the probe's length.
fn start(key: &SessionKey, outer: Ipv4<'_>, inner: InnerStart) -> Option<Identified> {
    let probe = key.by_identification(inner.identification)?;
    if probe.kind == ProbeKind::Script {
        return None;
    }
    let by_kernel = matches!(probe.kind, ProbeKind::IpvsLoop | ProbeKind::Service);
    let certainty = match by_kernel {
        true if inner.total_length == PROBE_LENGTH => Certainty::Minimal,
        false if outer.identification() == key.outer_identification(probe) => Certainty::Fields,
        _ => return None,
    };
    Some(Identified {
        probe,
        role: Role::Probe,
        certainty,
        flow: None,
        sent_ttl: None,
    })
}

/// Whose datagram it is that some suite wrote out and whose identity it left to tunproof, where nobody knows the
/// suite: by the tag, or by what is left of it in a quote; a segment by cookie and port.
pub(super) fn written_out(key: &SessionKey, core: Core<'_>) -> Option<Identified> {
    let Core::Datagram(ip) = core else {
        return None;
    };
    if ip.fragment_offset() != 0 {
        return None;
    }
    let (probe, role, certainty, flow) = match ip.protocol() {
        IpProtocol::UDP => {
            let udp = UdpStart::quoted(ip.payload()).ok()?;
            let (probe, certainty) = match payload_identity(udp.payload.bytes()) {
                Some((tag, number)) => {
                    let probe = ProbeId::from_number(number)?;
                    (key.tag(probe) == tag).then_some((probe, Certainty::Tag))?
                }
                None => {
                    let probe = key.by_identification(ip.identification())?;
                    let ours = udp.source_port == key.client_port(probe);
                    ours.then_some((probe, Certainty::Minimal))?
                }
            };
            let ends = (Protocol::Udp, udp.source_port, udp.destination_port);
            (probe, Role::Probe, certainty, ends)
        }
        IpProtocol::TCP => {
            let tcp = TcpStart::quoted(ip.payload()).ok()?;
            let (probe, role) = written_out_segment(key, ip, &tcp)?;
            let ends = (Protocol::Tcp, tcp.source_port, tcp.destination_port);
            (probe, role, Certainty::Fields, ends)
        }
        _ => return None,
    };
    let (protocol, source_port, destination_port) = flow;
    (probe.kind == ProbeKind::Script).then(|| Identified {
        probe,
        role,
        certainty,
        flow: Some(self::flow(ip, protocol, source_port, destination_port)),
        sent_ttl: None,
    })
}

fn written_out_segment(key: &SessionKey, ip: Ipv4<'_>, tcp: &TcpStart) -> Option<(ProbeId, Role)> {
    let own = |cookie| {
        let ours = |probe: &ProbeId| {
            tcp.source_port == key.client_port(*probe)
                || ip.identification() == key.identification(*probe)
        };
        Some((key.by_cookie(cookie).filter(ours)?, Role::Probe))
    };
    let answer = |cookie, port, role| {
        let ours = |probe: &ProbeId| port == key.client_port(*probe);
        Some((key.by_cookie(cookie).filter(ours)?, role))
    };
    let sequence = tcp.sequence_number;
    let Some((acknowledgment, flags)) = tcp.rest else {
        return own(sequence);
    };
    let answered = acknowledgment.wrapping_sub(1);
    match flags.kind() {
        TcpFlags::SYN_ACK => answer(answered, tcp.destination_port, Role::SynAck),
        TcpFlags::RST_ACK => answer(answered, tcp.destination_port, Role::Refused),
        // To a SYN-ACK nobody asked for, and to the answer to a SYN.
        TcpFlags::RST => answer(sequence.wrapping_sub(1), tcp.source_port, Role::Rst)
            .or_else(|| answer(sequence, tcp.destination_port, Role::Rst)),
        _ => None,
    }
    .or_else(|| own(sequence))
    .or_else(|| own(acknowledgment))
}

fn udp(key: &SessionKey, ip: Ipv4<'_>) -> Option<Identified> {
    let udp = UdpStart::quoted(ip.payload()).ok()?;
    let (probe, certainty) = match payload_identity(udp.payload.bytes()) {
        Some((tag, number)) => {
            let probe = ProbeId::from_number(number)?;
            (key.tag(probe) == tag).then_some((probe, Certainty::Tag))?
        }
        None => {
            let probe = key.by_identification(ip.identification())?;
            let closed =
                !has_service_port(probe.kind) && udp.destination_port == key.closed_port(probe);
            let certainty = match udp.checksum == key.udp_checksum(probe) {
                true => Certainty::Fields,
                // Address translation changes it. Who knows the ports has the identification to guess.
                false if closed => Certainty::Minimal,
                false => return None,
            };
            (udp.source_port == key.client_port(probe)).then_some((probe, certainty))?
        }
    };
    sends_udp(probe.kind).then_some(Identified {
        probe,
        role: Role::Probe,
        certainty,
        flow: Some(flow(
            ip,
            Protocol::Udp,
            udp.source_port,
            udp.destination_port,
        )),
        sent_ttl: match certainty {
            Certainty::Tag => udp.payload.bytes().get(TTL_AT).copied(),
            _ => None,
        },
    })
}

/// Tag and number, if the payload is long enough to hold them.
fn payload_identity(payload: &[u8]) -> Option<(u64, u16)> {
    let tag = payload.first_chunk().copied().map(u64::from_be_bytes)?;
    let number = payload[8..]
        .first_chunk()
        .copied()
        .map(u16::from_be_bytes)?;
    Some((tag, number))
}

fn tcp(key: &SessionKey, ip: Ipv4<'_>) -> Option<Identified> {
    let tcp = TcpStart::quoted(ip.payload()).ok()?;
    let (probe, role) = match tcp.rest {
        None => cut_tcp(key, ip, &tcp)?,
        Some((acknowledgment, flags)) => match flags.kind() {
            TcpFlags::SYN => (own_syn(key, ip, &tcp)?, Role::Probe),
            TcpFlags::SYN_ACK => match own_syn_ack(key, ip, &tcp, acknowledgment) {
                Some(probe) => (probe, Role::Probe),
                None => (answered(key, &tcp, acknowledgment)?, Role::SynAck),
            },
            TcpFlags::RST_ACK => (answered(key, &tcp, acknowledgment)?, Role::Refused),
            TcpFlags::RST => rst(key, ip, &tcp)?,
            _ => return None,
        },
    };
    Some(Identified {
        probe,
        role,
        certainty: Certainty::Fields,
        flow: Some(flow(
            ip,
            Protocol::Tcp,
            tcp.source_port,
            tcp.destination_port,
        )),
        sent_ttl: None,
    })
}

/// Ports and sequence number only: which segment it was, they must tell.
fn cut_tcp(key: &SessionKey, ip: Ipv4<'_>, tcp: &TcpStart) -> Option<(ProbeId, Role)> {
    if let Some(probe) = own_syn(key, ip, tcp) {
        return Some((probe, Role::Probe));
    }
    if let Some(probe) = key.by_identification(ip.identification())
        && probe.kind.sends_syn_ack()
        && tcp.sequence_number == key.tag(probe) as u32
    {
        return Some((probe, Role::Probe));
    }
    rst(key, ip, tcp)
}

fn own_syn(key: &SessionKey, ip: Ipv4<'_>, tcp: &TcpStart) -> Option<ProbeId> {
    let probe = key.by_cookie(tcp.sequence_number)?;
    let ours = tcp.source_port == key.client_port(probe)
        || ip.identification() == key.identification(probe);
    (sends_syn(probe.kind) && ours).then_some(probe)
}

fn own_syn_ack(
    key: &SessionKey,
    ip: Ipv4<'_>,
    tcp: &TcpStart,
    acknowledgment: u32,
) -> Option<ProbeId> {
    let probe = key.by_cookie(acknowledgment)?;
    let ours = tcp.destination_port == key.client_port(probe)
        || ip.identification() == key.identification(probe)
        || tcp.sequence_number == key.tag(probe) as u32;
    (probe.kind.sends_syn_ack() && ours).then_some(probe)
}

/// The probe whose SYN a segment to the client acknowledges.
fn answered(key: &SessionKey, tcp: &TcpStart, acknowledgment: u32) -> Option<ProbeId> {
    let probe = key.by_cookie(acknowledgment.wrapping_sub(1))?;
    let ours = tcp.destination_port == key.client_port(probe);
    (sends_syn(probe.kind) && ours).then_some(probe)
}

/// An RST from the client's end: the answer to a SYN-ACK has its acknowledgment number as its sequence
/// number, cookie + 1 for a server's SYN-ACK, the cookie for ours; so has our own cleanup, with the
/// probe's identification, which a kernel hits once in 65536 times.
fn rst(key: &SessionKey, ip: Ipv4<'_>, tcp: &TcpStart) -> Option<(ProbeId, Role)> {
    if let Some(probe) = key.by_cookie(tcp.sequence_number.wrapping_sub(1))
        && sends_syn(probe.kind)
    {
        if ip.identification() == key.identification(probe) {
            return Some((probe, Role::Cleanup));
        }
        if tcp.source_port == key.client_port(probe) {
            return Some((probe, Role::Rst));
        }
    }
    let probe = key.by_cookie(tcp.sequence_number)?;
    let ours = probe.kind.sends_syn_ack() && tcp.source_port == key.client_port(probe);
    ours.then_some((probe, Role::Rst))
}

fn sends_syn(kind: ProbeKind) -> bool {
    kind.opens(Protocol::Tcp)
}

fn has_service_port(kind: ProbeKind) -> bool {
    matches!(kind, ProbeKind::IpvsLoop | ProbeKind::Service)
}

fn sends_udp(kind: ProbeKind) -> bool {
    matches!(
        kind,
        ProbeKind::TunnelUdp
            | ProbeKind::Reflect
            | ProbeKind::TunnelTrace
            | ProbeKind::TunnelControl
            | ProbeKind::Mtu
            | ProbeKind::OpenTunnel
            | ProbeKind::SpoofTunnel
            | ProbeKind::SpoofTrace
            | ProbeKind::ControlTrace
            | ProbeKind::SpoofTraceToDirector
            | ProbeKind::ControlTraceToDirector
            | ProbeKind::IpvsLoop
            | ProbeKind::Service
    )
}

fn flow(ip: Ipv4<'_>, protocol: Protocol, source_port: u16, destination_port: u16) -> Flow {
    Flow {
        protocol,
        source: ip.source(),
        source_port,
        destination: ip.destination(),
        destination_port,
    }
}
