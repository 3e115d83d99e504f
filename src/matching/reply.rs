//! Is it what a UDP service answered? Such a datagram carries nothing of the probe's but its addresses and
//! ports, of which the client's is keyed.

use crate::matching::Certainty;
use crate::matching::Sighting;
use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::Path;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::UdpStart;

/// Which of the `sent` probes for a UDP service `packet` answers: its addresses and ports are exactly that
/// probe's, the other way round.
///
/// 14 keyed bits and three declared numbers: [`Certainty::Minimal`]. A client that talks to the service from
/// the same port at the same time would be mistaken for the probe, and its answer shows the same. Whoever sends to
/// every port hits it, and many others: [`talk`] shows those.
pub fn reply<'a>(packet: &[u8], sent: impl IntoIterator<Item = &'a Probe>) -> Option<Sighting> {
    let ip = Ipv4::checked(Octets::new(packet)).ok()?;
    if ip.protocol() != IpProtocol::UDP || ip.fragment_offset() != 0 {
        return None;
    }
    let udp = UdpStart::quoted(ip.payload()).ok()?;
    let flow = Flow {
        protocol: Protocol::Udp,
        source: ip.source(),
        source_port: udp.source_port,
        destination: ip.destination(),
        destination_port: udp.destination_port,
    };
    let asked = Flow {
        protocol: Protocol::Udp,
        source: flow.destination,
        source_port: flow.destination_port,
        destination: flow.source,
        destination_port: flow.source_port,
    };
    let asks = |probe: &Probe| matches!(probe.id.kind, ProbeKind::IpvsLoop | ProbeKind::Service);
    let probe = sent
        .into_iter()
        .find(|probe| asks(probe) && probe.flow == asked)?;
    Some(Sighting {
        maximum_segment_size: None,
        next_hop_mtu: None,
        probe: probe.id,
        form: Form::Reply,
        certainty: Certainty::Minimal,
        source: flow.source,
        destination: flow.destination,
        ttl: ip.time_to_live(),
        outer: None,
        flow: Some(flow),
        inner_ttl: None,
        sent_ttl: None,
        quoted: None,
    })
}

/// The client's port, and whether the datagram is from it, of one between the client and the path's UDP service.
pub fn talk(packet: &[u8], path: &Path) -> Option<(u16, bool)> {
    let ip = Ipv4::checked(Octets::new(packet)).ok()?;
    if ip.protocol() != IpProtocol::UDP || ip.fragment_offset() != 0 {
        return None;
    }
    let udp = UdpStart::quoted(ip.payload()).ok()?;
    let (client, service) = ((path.cip, path.vip), path.port);
    match (ip.source(), ip.destination()) {
        ends if ends == client && udp.destination_port == service => Some((udp.source_port, true)),
        (vip, cip) if (cip, vip) == client && udp.source_port == service => {
            Some((udp.destination_port, false))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::plan::ProbeId;
    use crate::plan::SessionKey;

    fn datagram(flow: Flow, protocol: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 60, protocol, 0, 0];
        packet.extend(flow.source.octets());
        packet.extend(flow.destination.octets());
        packet.extend(flow.source_port.to_be_bytes());
        packet.extend(flow.destination_port.to_be_bytes());
        packet.extend([0, 12, 0, 0, 1, 2, 3, 4]);
        packet
    }

    #[test]
    fn only_the_exact_reverse_of_a_sent_question_is_an_answer() {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 53,
            protocol: Protocol::Udp,
            rip: Ipv4Addr::new(203, 0, 113, 5),
            dip: Some(Ipv4Addr::new(192, 0, 2, 2)),
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        };
        let key = SessionKey::new([3; 16]);
        let probe = |kind| Probe::new(ProbeId { kind, index: 0 }, 0, &path, &key).unwrap();
        let sent = [probe(ProbeKind::TunnelUdp), probe(ProbeKind::Service)];
        let asked = sent[1].flow;
        let answer = Flow {
            protocol: Protocol::Udp,
            source: asked.destination,
            source_port: asked.destination_port,
            destination: asked.source,
            destination_port: asked.source_port,
        };
        let seen = reply(&datagram(answer, 17), &sent).expect("an answer");
        assert_eq!((seen.probe, seen.form), (sent[1].id, Form::Reply));
        assert_eq!(reply(&datagram(asked, 17), &sent), None, "the question");
        assert_eq!(reply(&datagram(answer, 6), &sent), None, "no UDP");
        assert_eq!(reply(&datagram(answer, 17), &sent[..1]), None, "not sent");
        let other = Flow {
            destination_port: answer.destination_port ^ 1,
            ..answer
        };
        assert_eq!(reply(&datagram(other, 17), &sent), None, "another's port");
        let own = Flow {
            source: path.rip,
            ..answer
        };
        assert_eq!(reply(&datagram(own, 17), &sent), None, "not from the VIP");
        assert_eq!(reply(&datagram(answer, 17)[..24], &sent), None, "cut off");
    }
}
