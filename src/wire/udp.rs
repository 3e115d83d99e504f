//! UDP (RFC 768).

use std::net::Ipv4Addr;

use etherparse::UdpHeaderSlice;

use crate::wire::Header;
use crate::wire::IpProtocol;
use crate::wire::Limit;
use crate::wire::Octets;
use crate::wire::WireError;
use crate::wire::transport_checksum;

/// A UDP datagram that is there whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    start: UdpStart<'a>,
    datagram: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Octets of the header.
    pub const LENGTH: usize = 8;

    /// A datagram that is there whole.
    ///
    /// # Errors
    /// The header or the datagram is cut off, or the length is below 8.
    pub fn checked(octets: Octets<'a>) -> Result<Udp<'a>, WireError> {
        let start = UdpStart::quoted(octets)?;
        let length = usize::from(start.length);
        if length < Self::LENGTH {
            return Err(WireError::Value {
                header: Header::Udp,
                offset: octets.offset(),
                field: "length",
                value: u32::from(start.length),
                expected: "at least 8",
            });
        }
        match octets.bytes().get(..length) {
            Some(datagram) => Ok(Udp { start, datagram }),
            None => Err(octets.too_short(Header::Udp, length)),
        }
    }

    /// Its fields and payload.
    pub fn start(&self) -> UdpStart<'a> {
        self.start
    }

    /// Whether the checksum is right between these addresses; `None` if there is none (0).
    pub fn is_checksum_right(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Option<bool> {
        if self.start.checksum == 0 {
            return None;
        }
        let rest = transport_checksum(source, destination, IpProtocol::UDP, self.datagram);
        Some(rest == 0)
    }
}

/// A UDP header, and as much of the payload as there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpStart<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Length of header and payload in octets.
    pub length: u16,
    /// Checksum; 0 is none.
    pub checksum: u16,
    /// The payload, as far as it is there.
    pub payload: Octets<'a>,
}

impl<'a> UdpStart<'a> {
    /// A datagram that may be cut off behind its header.
    ///
    /// # Errors
    /// The header is cut off.
    pub fn quoted(octets: Octets<'a>) -> Result<UdpStart<'a>, WireError> {
        let header = UdpHeaderSlice::from_slice(octets.bytes())
            .map_err(|error| octets.length_error(Header::Udp, &error))?;
        let length = header.length();
        let whole = match usize::from(length) < Udp::LENGTH {
            true => octets,
            false => octets.up_to(usize::from(length), Limit::UdpLength),
        };
        Ok(UdpStart {
            source_port: header.source_port(),
            destination_port: header.destination_port(),
            length,
            checksum: header.checksum(),
            payload: whole.after(Udp::LENGTH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_octets_are_enough_when_quoted_only() {
        let octets = [0xc3, 0x50, 0x82, 0x9b, 0x00, 0x18, 0xbe, 0xef];
        let start = UdpStart::quoted(Octets::new(&octets)).unwrap();
        assert_eq!(
            (start.source_port, start.destination_port, start.checksum),
            (50000, 33435, 0xbeef)
        );
        assert!(start.payload.is_empty());
        assert_eq!(
            Udp::checked(Octets::new(&octets)),
            Err(Octets::new(&octets).too_short(Header::Udp, 24))
        );
        assert_eq!(
            UdpStart::quoted(Octets::new(&octets[..7])),
            Err(Octets::new(&octets[..7]).too_short(Header::Udp, 8))
        );
    }
}
