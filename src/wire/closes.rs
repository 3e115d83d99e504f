//! What closes a half-open connection, told from any other packet.

use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Tcp;
use crate::wire::TcpFlags;

/// Whether a packet can do nothing but close what another opened: a TCP RST and no octet more, with the same ports behind
/// the same IPv4 headers, of which only identification, length and checksum may differ. Both begin with IPv4.
pub fn closes(opening: &[u8], closing: &[u8]) -> bool {
    let (mut opening, mut closing) = (opening, closing);
    while let (Some(header), Some(same)) = (header(opening), header(closing)) {
        if blank(header) != blank(same) {
            return false;
        }
        (opening, closing) = (&opening[header.len()..], &closing[same.len()..]);
        match header[9] {
            IpProtocol::IPIP => {}
            IpProtocol::TCP => return is_reset(closing) && opening.get(..4) == closing.get(..4),
            _ => return false,
        }
    }
    false
}

fn is_reset(segment: &[u8]) -> bool {
    segment.len() == Tcp::MIN_LENGTH && segment[12..14] == [0x50, TcpFlags::RST.0]
}

/// The IPv4 header at the front, with its options.
fn header(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let length = usize::from(first & 0x0f) * 4;
    let header = packet.get(..length)?;
    (first >> 4 == 4 && length >= Ipv4::MIN_LENGTH).then_some(header)
}

/// Without what differs from packet to packet.
fn blank(header: &[u8]) -> Vec<u8> {
    let mut blank = header.to_vec();
    blank[2..6].fill(0);
    blank[10..12].fill(0);
    blank
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    use super::*;

    fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20, 9, 9, 0, 0, 64, protocol, 1, 1];
        packet.extend([192, 0, 2, 10, 198, 51, 100, 7]);
        packet.extend(payload);
        packet
    }

    fn segment(flags: u8) -> Vec<u8> {
        let mut segment = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0x50, flags];
        segment.resize(20, 0);
        segment
    }

    fn with(mut packet: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
        packet[at] = value;
        packet
    }

    #[test]
    fn only_the_rst_of_the_same_flow_closes_it() {
        for wrap in [|packet| packet, |packet: Vec<u8>| ipv4(4, &packet)] {
            let syn = wrap(ipv4(6, &[&segment(2)[..], b"data"].concat()));
            let rst = wrap(ipv4(6, &segment(4)));
            let inner = rst.len() - 40;
            assert!(closes(&syn, &rst));
            // Lengths, identification, checksums, sequence number.
            for at in [2, 3, 4, 5, 10, 11, 24, 27, 36] {
                assert!(closes(&syn, &with(rst.clone(), inner + at, 0xee)), "{at}");
            }
            // Fragment, time to live, protocol, addresses, ports, data offset, flags.
            for at in [0, 1, 6, 8, 9, 12, 19, 20, 23, 32, 33] {
                assert!(!closes(&syn, &with(rst.clone(), inner + at, 0xee)), "{at}");
            }
            assert!(!closes(&syn, &syn));
            assert!(!closes(&syn, &[&rst[..], &[0]].concat()));
            assert!(!closes(&syn, &rst[..rst.len() - 1]));
            assert!(!closes(&syn, &ipv4(4, &rst)));
            assert!(!closes(&ipv4(4, &syn), &rst));
            assert!(!closes(&ipv4(17, &[0; 8]), &rst));
        }
        assert!(!closes(&ipv4(17, &segment(2)), &ipv4(17, &segment(4))));
    }

    proptest! {
        #[test]
        fn it_never_panics(opening in vec(any::<u8>(), 0..90), closing in vec(any::<u8>(), 0..90)) {
            closes(&opening, &closing);
            closes(&opening, &opening);
        }
    }
}
