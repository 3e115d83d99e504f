//! The packets of tunproof's own probes.

use std::net::Ipv4Addr;

use crate::craft::build;
use crate::craft::script;
use crate::plan::Flow;
use crate::plan::Probe;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::wire;
use crate::wire::IpProtocol;
use crate::wire::Mac;
use crate::wire::TcpFlags;
use crate::wire::layers::Arp;
use crate::wire::layers::Ethernet;
use crate::wire::layers::Field;
use crate::wire::layers::Ipv4;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;
use crate::wire::layers::Udp;
use crate::wire::transport_checksum;

/// The MSS option of a SYN on Ethernet: kind 2, length 4, 1460 (RFC 9293 §3.7.1).
pub(super) const MSS_1460: [u8; 4] = [2, 4, 0x05, 0xb4];

/// What Linux offers in a SYN.
pub(super) const WINDOW: u16 = 64_240;

/// Octets of an IPv4 header without options (RFC 791 §3.1).
const IPV4_HEADER: usize = 20;

/// Octets before the payload of a UDP probe without a tunnel.
const UDP_HEADERS: usize = IPV4_HEADER + 8;

/// Octets that a UDP probe carries at least.
const LEAST_PAYLOAD: usize = 16;

/// Why the expectations below hold: a probe has a few fixed, small layers.
pub(super) const FITS: &str = "a probe's layers fit in their headers";

/// The packet of `probe`, from its outermost IPv4 header on.
///
/// Its own header has the key's identification, and so has the tunnel header; both have DF if the probe has
/// a size, to which zeros then fill it up. A UDP probe carries 16 octets: the tag (8, big endian), the number (2),
/// the time to live (1), 0 (3), and two that tune the checksum to the key's. A SYN has the cookie as its
/// sequence number; a SYN-ACK has it as its acknowledgment number, and the tag's lower half as its
/// sequence number; both carry MSS 1460 and window 64240.
pub fn probe(probe: &Probe, key: &SessionKey) -> Vec<u8> {
    let Flow {
        source_port,
        destination_port,
        ..
    } = probe.flow;
    let tcp = |flags| Tcp {
        window: WINDOW,
        options: MSS_1460.to_vec(),
        ..Tcp::new(source_port, destination_port, flags)
    };
    let transport = match (probe.flow.protocol, probe.id.kind.sends_syn_ack()) {
        (Protocol::Udp, _) => vec![
            Layer::Udp(Udp::new(source_port, destination_port)),
            Layer::Raw(udp_payload(probe, key)),
        ],
        (Protocol::Tcp, false) => vec![Layer::Tcp(Tcp {
            sequence_number: key.cookie(probe.id),
            ..tcp(TcpFlags::SYN)
        })],
        (Protocol::Tcp, true) => vec![Layer::Tcp(Tcp {
            sequence_number: key.tag(probe.id) as u32,
            acknowledgment_number: key.cookie(probe.id),
            ..tcp(TcpFlags::SYN_ACK)
        })],
    };
    on_the_wire(probe, key, transport)
}

/// The RST that closes what `probe` opened on the real server: same flow, same tunnel header, sequence
/// number cookie + 1. `None` if it opened nothing.
///
/// That of a SYN that a suite writes out has the same headers before it, without identification.
///
/// It has the probe's own identification, by which `matching` tells it from the RST of the client's
/// kernel, which is otherwise the same.
pub fn cleanup(probe: &Probe, key: &SessionKey) -> Option<Vec<u8>> {
    if let Some(packet) = &probe.script {
        return script::cleanup(packet, probe.id, key);
    }
    if !probe.id.kind.opens(probe.flow.protocol) {
        return None;
    }
    let rst = Tcp {
        sequence_number: key.cookie(probe.id).wrapping_add(1),
        ..Tcp::new(
            probe.flow.source_port,
            probe.flow.destination_port,
            TcpFlags::RST,
        )
    };
    Some(on_the_wire(probe, key, vec![Layer::Tcp(rst)]))
}

/// The Ethernet frame "who-has `target_ip` tell `sender_ip`", to everybody, 42 octets. A sender address of
/// 0.0.0.0 announces nobody (RFC 5227 §1.1). The target hardware address, which RFC 826 leaves open, is all
/// ones, as `arping` does it and no kernel: so tunproof's own requests are told from the kernel's.
pub fn arp_request(sender_mac: [u8; 6], sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let sender_mac = Mac(sender_mac);
    build(&[
        Layer::Ethernet(Ethernet {
            destination: Mac::BROADCAST,
            source: sender_mac,
            ethertype: Field::Derived,
        }),
        Layer::Arp(Arp {
            operation: wire::Arp::REQUEST,
            sender_mac,
            sender_ip,
            target_mac: Mac::BROADCAST,
            target_ip,
        }),
    ])
    .expect(FITS)
    .bytes
}

fn on_the_wire(probe: &Probe, key: &SessionKey, transport: Vec<Layer>) -> Vec<u8> {
    let dont_fragment = probe.size.is_some();
    let tunnel = probe.tunnel.map(|tunnel| {
        Layer::Ipv4(Ipv4 {
            identification: key.outer_identification(probe.id),
            time_to_live: tunnel.ttl,
            dont_fragment,
            ..Ipv4::new(tunnel.source, tunnel.destination)
        })
    });
    let own = Layer::Ipv4(Ipv4 {
        identification: key.identification(probe.id),
        time_to_live: probe.ttl,
        dont_fragment,
        ..Ipv4::new(probe.flow.source, probe.flow.destination)
    });
    let layers: Vec<_> = tunnel.into_iter().chain([own]).chain(transport).collect();
    build(&layers).expect(FITS).bytes
}

fn udp_payload(probe: &Probe, key: &SessionKey) -> Vec<u8> {
    let headers = UDP_HEADERS
        + if probe.tunnel.is_some() {
            IPV4_HEADER
        } else {
            0
        };
    let wanted = probe
        .size
        .map_or(0, |size| usize::from(size).saturating_sub(headers));
    let mut payload = vec![0; wanted.max(LEAST_PAYLOAD)];
    payload[..8].copy_from_slice(&key.tag(probe.id).to_be_bytes());
    payload[8..10].copy_from_slice(&probe.id.number().to_be_bytes());
    payload[10] = probe.outermost_ttl();
    let tuning = tuning(&probe.flow, key.udp_checksum(probe.id), &payload);
    payload[14..LEAST_PAYLOAD].copy_from_slice(&tuning.to_be_bytes());
    payload
}

/// The two octets that, in the place of zeros, give the datagram the checksum `wanted`: the checksum falls
/// by as much as they add, modulo 0xffff.
fn tuning(flow: &Flow, wanted: u16, payload: &[u8]) -> u16 {
    let untuned = build(&[
        Layer::Udp(Udp {
            checksum: Field::Forced(0),
            ..Udp::new(flow.source_port, flow.destination_port)
        }),
        Layer::Raw(payload.to_vec()),
    ])
    .expect(FITS);
    let (source, destination) = (flow.source, flow.destination);
    let checksum = transport_checksum(source, destination, IpProtocol::UDP, &untuned.bytes);
    ((u32::from(checksum) + 0xffff - u32::from(wanted)) % 0xffff) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Host;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;
    use crate::wire::Ipv4 as Ipv4View;
    use crate::wire::Octets;
    use crate::wire::Udp as UdpView;

    fn udp_probe(index: u16, ttl: u8) -> Probe {
        Probe {
            id: ProbeId {
                kind: ProbeKind::SpoofTrace,
                index,
            },
            path: 0,
            from: Host::Realserver(0),
            flow: Flow {
                protocol: Protocol::Udp,
                source: Ipv4Addr::new(192, 0, 2, 10),
                source_port: 50000,
                destination: Ipv4Addr::new(198, 51, 100, 7),
                destination_port: 33434,
            },
            ttl,
            tunnel: None,
            size: None,
            step: None,
            script: None,
        }
    }

    #[test]
    fn a_trace_has_one_checksum_a_probe_whatever_its_time_to_live() {
        let key = SessionKey::new([3; 16]);
        for index in 0..ProbeId::PER_KIND {
            let probe = udp_probe(index, (index % 65) as u8);
            let packet = super::probe(&probe, &key);
            let ip = Ipv4View::checked(Octets::new(&packet)).unwrap();
            assert_eq!(ip.time_to_live(), probe.ttl);
            let udp = UdpView::checked(ip.payload()).unwrap();
            assert_eq!(udp.start().checksum, key.udp_checksum(probe.id));
            let right = udp.is_checksum_right(ip.source(), ip.destination());
            assert_eq!(right, Some(true));
            assert_eq!(udp.start().payload.bytes()[10], probe.ttl);
        }
    }

    #[test]
    fn every_checksum_but_none_can_be_tuned() {
        let flow = udp_probe(0, 64).flow;
        for wanted in [1, 2, 0x8000, 0xfffe, 0xffff] {
            let mut payload = [0x5a; 16];
            payload[14..].fill(0);
            let tuned = tuning(&flow, wanted, &payload);
            payload[14..].copy_from_slice(&tuned.to_be_bytes());
            let crafted = build(&[
                Layer::Ipv4(Ipv4::new(flow.source, flow.destination)),
                Layer::Udp(Udp::new(flow.source_port, flow.destination_port)),
                Layer::Raw(payload.to_vec()),
            ]);
            assert_eq!(crafted.unwrap().bytes[26..28], wanted.to_be_bytes());
        }
    }
}
