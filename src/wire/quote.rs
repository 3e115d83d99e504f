//! A datagram as an ICMP error quotes it: cut off, down to the IP header and 8 octets (RFC 792), IPIP
//! included.
//!
//! Of an IPIP packet the 8 octets are the start of the *inner IP header*: version, header length, type of
//! service, total length, identification, flags and fragment offset, and that is then all there is.

use crate::wire::Header;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::WireError;

/// A quoted datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote<'a> {
    /// Its outermost header.
    pub header: Ipv4<'a>,
    /// What lies in it.
    pub content: Quoted<'a>,
}

/// What lies in the outermost header of a quoted datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted<'a> {
    /// Anything but IPIP: the payload as far as it was quoted, possibly nothing.
    Plain,
    /// IPIP, with the whole inner header; the inner payload may be empty.
    Tunnelled(Ipv4<'a>),
    /// IPIP, with the start of the inner header only.
    TunnelledStart(InnerStart),
    /// IPIP, and what was quoted of the inner header is below 8 octets, or not IPv4.
    TunnelledUnread,
}

/// The first 8 octets of an inner IPv4 header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerStart {
    /// Header length in 32-bit words.
    pub ihl: u8,
    /// Type of service.
    pub type_of_service: u8,
    /// Total length.
    pub total_length: u16,
    /// Identification.
    pub identification: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
}

impl<'a> Quote<'a> {
    /// Reads a quoted datagram.
    ///
    /// # Errors
    /// The outermost header is cut off or not IPv4.
    pub fn read(octets: Octets<'a>) -> Result<Quote<'a>, WireError> {
        let header = Ipv4::quoted(octets)?;
        let content = match header.protocol() == IpProtocol::IPIP && header.fragment_offset() == 0 {
            true => Quoted::tunnelled(header.payload()),
            false => Quoted::Plain,
        };
        Ok(Quote { header, content })
    }

    /// How many octets of the datagram were quoted, from its outermost header on.
    pub fn octets(&self) -> usize {
        self.header.available()
    }

    /// How many octets the datagram had, as its total length says.
    pub fn original_octets(&self) -> usize {
        usize::from(self.header.total_length())
    }

    /// Whether the whole datagram was quoted.
    pub fn is_whole(&self) -> bool {
        self.octets() >= self.original_octets()
    }
}

impl<'a> Quoted<'a> {
    fn tunnelled(octets: Octets<'a>) -> Quoted<'a> {
        match Ipv4::quoted(octets) {
            Ok(inner) => Quoted::Tunnelled(inner),
            Err(_) => match InnerStart::read(octets) {
                Ok(start) => Quoted::TunnelledStart(start),
                Err(_) => Quoted::TunnelledUnread,
            },
        }
    }
}

impl InnerStart {
    /// Reads the first 8 octets of an inner header.
    ///
    /// # Errors
    /// There are fewer, the version is not 4, or the header length is below 5.
    pub fn read(octets: Octets<'_>) -> Result<InnerStart, WireError> {
        let Some([first, tos, l1, l2, i1, i2, f1, f2]) = octets.bytes().first_chunk().copied()
        else {
            return Err(octets.too_short(Header::Ipv4, 8));
        };
        let wrong = |field, value, expected| WireError::Value {
            header: Header::Ipv4,
            offset: octets.offset(),
            field,
            value: u32::from(value),
            expected,
        };
        match (first >> 4, first & 0x0f) {
            (4, 5..) => Ok(InnerStart {
                ihl: first & 0x0f,
                type_of_service: tos,
                total_length: u16::from_be_bytes([l1, l2]),
                identification: u16::from_be_bytes([i1, i2]),
                fragment: u16::from_be_bytes([f1, f2]),
            }),
            (4, ihl) => Err(wrong("header length", ihl, "at least 5 (32-bit words)")),
            (version, _) => Err(wrong("version", version, "4")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tunnel-udp.3` of tests/data/scapy-probes.hex.
    fn tunnelled() -> Vec<u8> {
        hex::decode(
            "45000040a6d000004004d5e1c0000202cb0071054500002ce19e00004011acddc6336407c000020a\
             dd3b82f10018692ab16c0e79d3caf2b510034000000073b7",
        )
        .unwrap()
    }

    #[test]
    fn each_length_of_a_quoted_tunnel_says_what_it_holds() {
        let packet = tunnelled();
        for length in 0..=packet.len() {
            let octets = Octets::new(&packet[..length]);
            let read = Quote::read(octets);
            if length < 20 {
                assert_eq!(read, Err(octets.too_short(Header::Ipv4, 20)));
                continue;
            }
            let quote = read.unwrap();
            assert_eq!(quote.octets(), length);
            assert_eq!(quote.original_octets(), 64);
            assert_eq!(quote.is_whole(), length == 64);
            match (length, quote.content) {
                (20..28, Quoted::TunnelledUnread) => {}
                (28..40, Quoted::TunnelledStart(start)) => {
                    assert_eq!((start.total_length, start.identification), (44, 0xe19e));
                }
                (40..=64, Quoted::Tunnelled(inner)) => {
                    assert_eq!(inner.available(), length - 20);
                }
                (_, other) => panic!("{length} octets: {other:?}"),
            }
        }
    }

    #[test]
    fn what_lies_behind_the_total_length_was_not_quoted() {
        let mut padded = tunnelled();
        padded.extend([0; 64]);
        let quote = Quote::read(Octets::new(&padded)).unwrap();
        assert_eq!(quote.octets(), 64);
        // A total length below the header's, which some hosts quote, sets no limit.
        padded[2..4].copy_from_slice(&[0, 0]);
        assert_eq!(Quote::read(Octets::new(&padded)).unwrap().octets(), 128);
    }

    #[test]
    fn an_inner_header_of_another_version_is_unread() {
        for (octet, expected) in [
            (0x65, "IPv4 at offset 20: version is 6, not 4"),
            (
                0x44,
                "IPv4 at offset 20: header length is 4, not at least 5 (32-bit words)",
            ),
        ] {
            let mut packet = tunnelled();
            packet[20] = octet;
            let quote = Quote::read(Octets::new(&packet)).unwrap();
            assert_eq!(quote.content, Quoted::TunnelledUnread);
            let error = InnerStart::read(quote.header.payload()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_later_fragment_holds_no_inner_header() {
        let mut packet = tunnelled();
        packet[7] = 1;
        let quote = Quote::read(Octets::new(&packet)).unwrap();
        assert_eq!(quote.content, Quoted::Plain);
    }
}
