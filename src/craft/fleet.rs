//! The packets of a sweep: templates, of which a pair's addresses, ports and identity are patched in with their
//! checksums (RFC 1624), without allocation.

use std::net::Ipv4Addr;

use crate::craft::build;
use crate::craft::probe::FITS;
use crate::craft::probe::MSS_1460;
use crate::craft::probe::WINDOW;
use crate::plan::Fleet;
use crate::plan::FleetIdentity;
use crate::plan::FleetProbe;
use crate::plan::Pair;
use crate::plan::SessionKey;
use crate::wire::TcpFlags;
use crate::wire::layers::Ipv4;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;
use crate::wire::layers::Udp;

/// Where the inner header, and what it carries, begin.
const INNER: usize = 20;
const TRANSPORT: usize = 40;
/// Octets that a UDP probe carries: the tag (8), zeros, and two that tune the checksum.
const PAYLOAD: usize = 16;

/// A packet of a sweep, from its outermost IPv4 header on.
#[derive(Clone, Copy)]
pub struct FleetPacket {
    octets: [u8; FleetPacket::LONGEST],
    length: usize,
}

impl FleetPacket {
    /// No packet is longer.
    pub const LONGEST: usize = TRANSPORT + 24;

    /// Its octets.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    fn crafted(craft: impl FnOnce(&mut Room) -> usize) -> FleetPacket {
        let mut octets = [0; FleetPacket::LONGEST];
        let length = craft(&mut octets);
        FleetPacket { octets, length }
    }
}

/// Where a packet is crafted; it may be shorter.
type Room = [u8; FleetPacket::LONGEST];

/// What all packets of a sweep have in common.
pub struct FleetCraft {
    closed_loop: Syn,
    reflect: Syn,
    datagram: Template,
    key: SessionKey,
}

struct Syn {
    opening: Template,
    closing: Template,
}

/// A packet whose variable fields are zero, and its checksums over that.
struct Template {
    packet: FleetPacket,
    outer: u16,
    inner: u16,
    transport: u16,
}

impl FleetCraft {
    /// The packets of a fleet's sweep under this key.
    pub fn new(fleet: &Fleet, key: SessionKey) -> FleetCraft {
        let dip = fleet.dip();
        let nobody = Ipv4Addr::UNSPECIFIED;
        let syn = |source| Syn {
            opening: Template::new(
                dip,
                source,
                &[Layer::Tcp(Tcp {
                    window: WINDOW,
                    options: MSS_1460.to_vec(),
                    ..Tcp::new(0, 0, TcpFlags::SYN)
                })],
            ),
            closing: Template::new(dip, source, &[Layer::Tcp(Tcp::new(0, 0, TcpFlags::RST))]),
        };
        FleetCraft {
            closed_loop: syn(fleet.cip().unwrap_or(nobody)),
            reflect: syn(dip),
            datagram: Template::new(
                dip,
                dip,
                &[Layer::Udp(Udp::new(0, 0)), Layer::Raw(vec![0; PAYLOAD])],
            ),
            key,
        }
    }

    /// The probe of a pair.
    ///
    /// Both headers have a time to live of 64 and no DF. A SYN has the identity's word as its sequence number, MSS
    /// 1460 and window 64240, as those of [`probe`](crate::craft::probe()); a datagram has it as identification and
    /// checksum.
    pub fn probe(&self, probe: FleetProbe, pair: &Pair) -> FleetPacket {
        FleetPacket::crafted(|room| self.probe_into(room, probe, pair))
    }

    /// The RST that closes what the probe of a pair opened; `None` if it opened nothing.
    pub fn closing(&self, probe: FleetProbe, pair: &Pair) -> Option<FleetPacket> {
        let closing = || FleetPacket::crafted(|room| self.closing_into(room, probe, pair));
        probe.opens().then(closing)
    }

    /// Crafts [`FleetCraft::probe`] where it is sent from, and says how long it is.
    pub fn probe_into(&self, room: &mut Room, probe: FleetProbe, pair: &Pair) -> usize {
        let identity = FleetIdentity::new(&self.key, probe, pair.number);
        let template = match probe {
            FleetProbe::ClosedLoop => &self.closed_loop.opening,
            FleetProbe::ReflectSyn => &self.reflect.opening,
            FleetProbe::ReflectUdp => return self.datagram(room, &identity, pair),
        };
        segment((room, template), &identity, pair, identity.word)
    }

    /// As [`FleetCraft::probe_into`] the RST that closes what it opened.
    ///
    /// # Panics
    ///
    /// If it opened nothing.
    pub fn closing_into(&self, room: &mut Room, probe: FleetProbe, pair: &Pair) -> usize {
        let template = match probe {
            FleetProbe::ClosedLoop => &self.closed_loop.closing,
            FleetProbe::ReflectSyn => &self.reflect.closing,
            FleetProbe::ReflectUdp => panic!("a datagram opens nothing"),
        };
        let identity = FleetIdentity::new(&self.key, probe, pair.number);
        let sequence_number = identity.word.wrapping_add(1);
        segment((room, template), &identity, pair, sequence_number)
    }

    fn datagram(&self, room: &mut Room, identity: &FleetIdentity, pair: &Pair) -> usize {
        let mut patch = Patch::headers((room, &self.datagram), identity, pair);
        patch.set(TRANSPORT, &identity.port.to_be_bytes());
        patch.set(TRANSPORT + 2, &identity.closed_port.to_be_bytes());
        patch.set(TRANSPORT + 8, &identity.tag.to_be_bytes());
        let wanted = identity.word as u16;
        let untuned = patch.checksum();
        // The checksum falls by as much as these two octets add, modulo 0xffff.
        let tuning = (u32::from(untuned) + 0xffff - u32::from(wanted)) % 0xffff;
        patch.set(TRANSPORT + 22, &(tuning as u16).to_be_bytes());
        patch.put(TRANSPORT + 6, wanted);
        self.datagram.packet.length
    }
}

fn segment(
    (room, template): (&mut Room, &Template),
    identity: &FleetIdentity,
    pair: &Pair,
    sequence_number: u32,
) -> usize {
    let mut patch = Patch::headers((room, template), identity, pair);
    patch.set(TRANSPORT, &identity.port.to_be_bytes());
    patch.set(TRANSPORT + 2, &pair.service.port.to_be_bytes());
    patch.set(TRANSPORT + 4, &sequence_number.to_be_bytes());
    let checksum = patch.checksum();
    patch.put(TRANSPORT + 16, checksum);
    template.packet.length
}

impl Template {
    fn new(dip: Ipv4Addr, source: Ipv4Addr, transport: &[Layer]) -> Template {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let mut layers = vec![
            Layer::Ipv4(Ipv4::new(dip, nobody)),
            Layer::Ipv4(Ipv4::new(source, nobody)),
        ];
        layers.extend(transport.iter().cloned());
        let crafted = build(&layers).expect(FITS).bytes;
        let mut octets = [0; FleetPacket::LONGEST];
        octets[..crafted.len()].copy_from_slice(&crafted);
        let half = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let checksum_at = match transport {
            [Layer::Tcp(_), ..] => TRANSPORT + 16,
            _ => TRANSPORT + 6,
        };
        Template {
            packet: FleetPacket {
                octets,
                length: crafted.len(),
            },
            outer: half(10),
            inner: half(INNER + 10),
            transport: half(checksum_at),
        }
    }
}

/// A packet in the making, and the sum of its transport checksum.
struct Patch<'a> {
    octets: &'a mut Room,
    sum: u32,
}

impl Patch<'_> {
    /// Both headers, and the pseudo header's part of the sum.
    fn headers<'a>(
        (octets, template): (&'a mut Room, &Template),
        identity: &FleetIdentity,
        pair: &Pair,
    ) -> Patch<'a> {
        *octets = template.packet.octets;
        let mut patch = Patch {
            octets,
            sum: u32::from(!template.transport),
        };
        let (rip, vip) = (pair.rip.octets(), pair.service.vip.octets());
        let (outer, inner) = (identity.outer_identification, identity.identification);
        let fields = [
            (0, template.outer, rip, outer),
            (INNER, template.inner, vip, inner),
        ];
        for (at, checksum, destination, identification) in fields {
            patch.octets[at + 4..at + 6].copy_from_slice(&identification.to_be_bytes());
            patch.octets[at + 16..at + 20].copy_from_slice(&destination);
            let sum = u32::from(!checksum) + u32::from(identification) + halves(&destination);
            patch.put(at + 10, complement(sum));
        }
        patch.sum += halves(&vip);
        patch
    }

    /// Writes where there were zeros. RFC 1624 §3, equation 3, with m = 0: HC' = ~(~HC + m').
    fn set(&mut self, at: usize, octets: &[u8]) {
        self.octets[at..at + octets.len()].copy_from_slice(octets);
        self.sum += halves(octets);
    }

    fn put(&mut self, at: usize, checksum: u16) {
        self.octets[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn checksum(&self) -> u16 {
        complement(self.sum)
    }
}

fn halves(octets: &[u8]) -> u32 {
    let pairs = octets.chunks_exact(2);
    pairs
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum()
}

fn complement(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Protocol;
    use crate::plan::Range;
    use crate::plan::Service;
    use crate::wire::layers::Field;

    fn fleet() -> Fleet {
        let service = |vip: [u8; 4], port, protocol| Service {
            vip: vip.into(),
            port,
            protocol,
        };
        let services = vec![
            service([192, 0, 2, 10], 80, Protocol::Tcp),
            service([192, 0, 2, 11], 65535, Protocol::Udp),
        ];
        let ranges = vec![Range {
            first: [203, 0, 112, 0].into(),
            last: [203, 0, 127, 255].into(),
        }];
        let cip = Ipv4Addr::new(198, 51, 100, 7);
        Fleet::new([192, 0, 2, 2].into(), Some(cip), vec![(services, ranges)]).unwrap()
    }

    /// The same packet by the crafter of everything else, which scapy's bytes pin.
    fn whole(
        fleet: &Fleet,
        key: &SessionKey,
        probe: FleetProbe,
        pair: &Pair,
        is_rst: bool,
    ) -> Vec<u8> {
        let identity = FleetIdentity::new(key, probe, pair.number);
        let source = match probe {
            FleetProbe::ClosedLoop => fleet.cip().unwrap(),
            _ => fleet.dip(),
        };
        let header = |identification, from, to| {
            Layer::Ipv4(Ipv4 {
                identification,
                ..Ipv4::new(from, to)
            })
        };
        let mut layers = vec![
            header(identity.outer_identification, fleet.dip(), pair.rip),
            header(identity.identification, source, pair.service.vip),
        ];
        let tcp = |flags| Tcp::new(identity.port, pair.service.port, flags);
        match (probe, is_rst) {
            (FleetProbe::ReflectUdp, _) => {
                let mut payload = identity.tag.to_be_bytes().to_vec();
                payload.extend([0; 6]);
                let packet = FleetCraft::new(fleet, *key).probe(probe, pair);
                payload.extend(&packet.octets()[TRANSPORT + 22..]);
                layers.push(Layer::Udp(Udp::new(identity.port, identity.closed_port)));
                layers.push(Layer::Raw(payload));
            }
            (_, false) => layers.push(Layer::Tcp(Tcp {
                sequence_number: identity.word,
                window: 64_240,
                options: vec![2, 4, 0x05, 0xb4],
                ..tcp(TcpFlags::SYN)
            })),
            (_, true) => layers.push(Layer::Tcp(Tcp {
                sequence_number: identity.word.wrapping_add(1),
                ..tcp(TcpFlags::RST)
            })),
        }
        build(&layers).unwrap().bytes
    }

    #[test]
    fn patched_packets_are_those_that_are_built_whole() {
        let fleet = fleet();
        for octet in 0..8 {
            let key = SessionKey::new([octet; 16]);
            let craft = FleetCraft::new(&fleet, key);
            for number in 0..fleet.pairs() {
                let pair = fleet.pair(number).unwrap();
                for probe in FleetProbe::ALL {
                    let packet = craft.probe(probe, &pair);
                    assert_eq!(packet.octets(), whole(&fleet, &key, probe, &pair, false));
                    match craft.closing(probe, &pair) {
                        Some(rst) => {
                            assert_eq!(rst.octets(), whole(&fleet, &key, probe, &pair, true));
                        }
                        None => assert!(!probe.opens()),
                    }
                    if probe == FleetProbe::ReflectUdp {
                        let identity = FleetIdentity::new(&key, probe, number);
                        let checksum = &packet.octets()[TRANSPORT + 6..TRANSPORT + 8];
                        assert_eq!(checksum, (identity.word as u16).to_be_bytes());
                    }
                }
            }
        }
    }

    #[test]
    fn a_built_datagram_derives_its_checksum() {
        // `whole` compares what it derives; a forced one would compare with itself.
        assert_eq!(Udp::new(1, 2).checksum, Field::Derived);
    }
}
