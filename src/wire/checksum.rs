//! The Internet checksum (RFC 1071).

use std::net::Ipv4Addr;

/// A ones' complement sum in the making.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// Adds octets; an odd last one is padded with zero (RFC 1071 §4.1), so only the last part may be odd.
    #[must_use]
    pub fn over(mut self, octets: &[u8]) -> Checksum {
        let mut pairs = octets.chunks_exact(2);
        for pair in &mut pairs {
            self.0 += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
        }
        if let [last] = pairs.remainder() {
            self.0 += u64::from(u16::from_be_bytes([*last, 0]));
        }
        self
    }

    /// The checksum: the complement of the sum. Over octets that contain a right checksum it is 0.
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// The checksum of a TCP segment or UDP datagram with its pseudo header (RFC 768, RFC 9293 §3.1): 0 if the
/// one in it is right.
pub fn transport_checksum(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    segment: &[u8],
) -> u16 {
    Checksum::default()
        .over(&source.octets())
        .over(&destination.octets())
        .over(&[0, protocol])
        .over(&(segment.len() as u16).to_be_bytes())
        .over(segment)
        .finish()
}

/// Whether `checksum`, in a segment of `length` octets, is the sum over the pseudo header alone: what Linux
/// leaves there for the device to complete, and a tap on the sending host sees.
pub fn is_left_to_the_device(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    length: u16,
    checksum: u16,
) -> bool {
    let pseudo_header = Checksum::default()
        .over(&source.octets())
        .over(&destination.octets())
        .over(&[0, protocol])
        .over(&length.to_be_bytes());
    !pseudo_header.finish() == checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        // RFC 1071 §3: the sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2.
        let sum = Checksum::default().over(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn an_odd_octet_is_padded_with_zero_behind_it() {
        assert_eq!(
            Checksum::default().over(&[0x12, 0x34, 0x56]).finish(),
            Checksum::default().over(&[0x12, 0x34, 0x56, 0x00]).finish()
        );
    }
}
