//! The packets that suites write out.

use crate::craft::CraftError;
use crate::craft::Crafted;
use crate::craft::build;
use crate::plan::Carrier;
use crate::plan::Packet;
use crate::plan::ProbeId;
use crate::plan::SessionKey;
use crate::wire::Ethernet;
use crate::wire::TcpFlags;
use crate::wire::closes;
use crate::wire::layers::Field;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;

/// Octets of a payload that is left out: as a probe's own, without the tuning of the checksum.
const LEAST_PAYLOAD: usize = 16;

/// The octets of a packet that a suite writes out, as probe `id` of the session with `key`.
///
/// What the suite left out carries the identity: identifications as those of tunproof's own probes (the
/// innermost header the probe's, the others that of its tunnel header), the client's port, the cookie as sequence number or
/// as echo identifier and sequence number; a payload starts with the tag (8 octets, big endian) and the number
/// (2), as far as there is room, and has 16 octets if it was left out entirely.
///
/// # Errors
/// As [`build()`]; a packet that starts neither at IPv4 nor at Ethernet; one that starts at IPv4, and that a raw
/// socket does not send as it is (raw(7)).
pub fn script(packet: &Packet, id: ProbeId, key: &SessionKey) -> Result<Crafted, CraftError> {
    let layers = filled(packet, id, key)?;
    let crafted = build(&layers)?;
    match layers.first() {
        Some(Layer::Ethernet(_)) => Ok(crafted),
        Some(Layer::Ipv4(_)) => as_a_raw_socket_sends(crafted),
        _ => Err(CraftError::NoStart),
    }
}

/// The RST that closes what a SYN that a suite writes out may have opened: the same headers before it, the same
/// ports, the sequence number behind the SYN's. `None` if the packet is no SYN, or one
/// that nobody can read behind its headers.
///
/// Its headers have no identification, by which it is told from the packet itself.
pub(super) fn cleanup(packet: &Packet, id: ProbeId, key: &SessionKey) -> Option<Vec<u8>> {
    let mut layers = filled(packet, id, key).ok()?;
    let last = layers
        .iter()
        .rposition(|layer| matches!(layer, Layer::Tcp(_)))?;
    let Layer::Tcp(syn) = &layers[last] else {
        return None;
    };
    if syn.flags.kind() != TcpFlags::SYN {
        return None;
    }
    let rst = Tcp {
        sequence_number: syn.sequence_number.wrapping_add(1),
        ..Tcp::new(syn.source_port, syn.destination_port, TcpFlags::RST)
    };
    layers.truncate(last);
    for layer in &mut layers {
        if let Layer::Ipv4(ip) = layer {
            ip.identification = 0;
            (ip.total_length, ip.header_checksum) = (Field::Derived, Field::Derived);
        }
    }
    layers.push(Layer::Tcp(rst));
    let cleanup = build(&layers).ok()?.bytes;
    let link = match packet.layers.first() {
        Some(Layer::Ethernet(_)) => Ethernet::LENGTH,
        _ => 0,
    };
    let opening = build(&filled(packet, id, key).ok()?).ok()?.bytes;
    let is_read = closes(opening.get(link..)?, cleanup.get(link..)?);
    is_read.then_some(cleanup)
}

/// The layers, with the identity in what the suite left out.
fn filled(packet: &Packet, id: ProbeId, key: &SessionKey) -> Result<Vec<Layer>, CraftError> {
    let mut layers = packet.layers.clone();
    let innermost = layers
        .iter()
        .rposition(|layer| matches!(layer, Layer::Ipv4(_)));
    for (layer, carrier) in &packet.carriers {
        let identification = match innermost == Some(*layer) {
            true => key.identification(id),
            false => key.outer_identification(id),
        };
        let cookie = key.cookie(id);
        match (carrier, layers.get_mut(*layer)) {
            (Carrier::Identification, Some(Layer::Ipv4(ip))) => ip.identification = identification,
            (Carrier::SourcePort, Some(Layer::Udp(udp))) => udp.source_port = key.client_port(id),
            (Carrier::SourcePort, Some(Layer::Tcp(tcp))) => tcp.source_port = key.client_port(id),
            (Carrier::SequenceNumber, Some(Layer::Tcp(tcp))) => tcp.sequence_number = cookie,
            (Carrier::AcknowledgmentNumber, Some(Layer::Tcp(tcp))) => {
                tcp.acknowledgment_number = cookie;
            }
            (Carrier::Echo, Some(Layer::Icmpv4(icmp))) => icmp.rest = cookie.to_be_bytes(),
            (Carrier::Payload, Some(Layer::Raw(payload))) => fill(payload, id, key),
            (carrier, _) => {
                return Err(CraftError::NoCarrier {
                    layer: *layer,
                    carrier: name(*carrier),
                });
            }
        }
    }
    Ok(layers)
}

fn fill(payload: &mut Vec<u8>, id: ProbeId, key: &SessionKey) {
    if payload.is_empty() {
        payload.resize(LEAST_PAYLOAD, 0);
    }
    let identity = key.tag(id).to_be_bytes().into_iter();
    let identity = identity.chain(id.number().to_be_bytes());
    for (octet, value) in payload.iter_mut().zip(identity) {
        *octet = value;
    }
}

/// The packet, if the kernel leaves it as it is: `raw_send_hdrinc` writes the total length and the checksum,
/// and an identification and a source that are 0; and it refuses a header length that does not fit, or takes
/// it for the checksum's.
fn as_a_raw_socket_sends(crafted: Crafted) -> Result<Crafted, CraftError> {
    let overwritten = crafted.forced.iter().find(|forced| {
        let overwritten = ["total length", "header length", "header checksum"];
        forced.layer == 0 && forced.value != forced.derived && overwritten.contains(&forced.field)
    });
    if let Some(forced) = overwritten {
        return Err(CraftError::NotByRawSocket {
            field: forced.field,
            value: forced.value,
            instead: match forced.field {
                "header length" => format!("refuse it or count on it; it has {}", forced.derived),
                _ => format!("make it {}", forced.derived),
            },
        });
    }
    for (field, octets) in [("identification", 4..6), ("source", 12..16)] {
        if crafted.bytes[octets].iter().all(|octet| *octet == 0) {
            return Err(CraftError::NotByRawSocket {
                field,
                value: 0,
                instead: "choose another".to_owned(),
            });
        }
    }
    Ok(crafted)
}

fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Identification => "identification",
        Carrier::SourcePort => "source port",
        Carrier::SequenceNumber => "sequence number",
        Carrier::AcknowledgmentNumber => "acknowledgment number",
        Carrier::Echo => "echo identifier",
        Carrier::Payload => "payload",
    }
}
