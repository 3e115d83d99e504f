//! IPv4 (RFC 791), and IPv4 in IPv4 (RFC 2003), which is only its protocol number.

use std::net::Ipv4Addr;

use etherparse::Ipv4HeaderSlice;
use etherparse::err::ipv4::HeaderError;
use etherparse::err::ipv4::HeaderSliceError;

use crate::wire::Checksum;
use crate::wire::Header;
use crate::wire::Limit;
use crate::wire::Octets;
use crate::wire::WireError;

/// IP protocol numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol;

impl IpProtocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IPv4.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// For experiments (RFC 3692).
    pub const EXPERIMENT: u8 = 253;
}

/// An IPv4 header with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4<'a> {
    header: Ipv4HeaderSlice<'a>,
    payload: Octets<'a>,
}

impl<'a> Ipv4<'a> {
    /// Octets of a header without options.
    pub const MIN_LENGTH: usize = 20;

    /// A datagram that is there whole; octets behind its total length (padding) are not its own.
    ///
    /// # Errors
    /// The version is not 4, the header length is below 5, or the header or the datagram is cut off.
    pub fn checked(octets: Octets<'a>) -> Result<Ipv4<'a>, WireError> {
        let header = header(octets)?;
        let (total, length) = (usize::from(header.total_len()), header.slice().len());
        if total < length {
            return Err(WireError::Value {
                header: Header::Ipv4,
                offset: octets.offset(),
                field: "total length",
                value: total as u32,
                expected: "at least the header length",
            });
        }
        if total > octets.len() {
            return Err(octets.too_short(Header::Ipv4, total));
        }
        let payload = octets.up_to(total, Limit::Ipv4TotalLength).after(length);
        Ok(Ipv4 { header, payload })
    }

    /// A datagram that may be cut off behind its header. A total length below the header length, which some
    /// hosts quote, sets no limit.
    ///
    /// # Errors
    /// The version is not 4, the header length is below 5, or the header is cut off.
    pub fn quoted(octets: Octets<'a>) -> Result<Ipv4<'a>, WireError> {
        let header = header(octets)?;
        let (total, length) = (usize::from(header.total_len()), header.slice().len());
        let payload = match total < length {
            true => octets.after(length),
            false => octets.up_to(total, Limit::Ipv4TotalLength).after(length),
        };
        Ok(Ipv4 { header, payload })
    }

    /// What follows the header.
    pub fn payload(&self) -> Octets<'a> {
        self.payload
    }

    /// The header's octets.
    pub fn header(&self) -> &'a [u8] {
        self.header.slice()
    }

    /// Octets that are there, header and payload.
    pub fn available(&self) -> usize {
        self.header().len() + self.payload.len()
    }

    /// Header length in 32-bit words.
    pub fn ihl(&self) -> u8 {
        self.header.ihl()
    }

    /// Type of service (differentiated services field and ECN).
    pub fn type_of_service(&self) -> u8 {
        self.header.dcp().value() << 2 | self.header.ecn().value()
    }

    /// Total length in octets.
    pub fn total_length(&self) -> u16 {
        self.header.total_len()
    }

    /// Identification.
    pub fn identification(&self) -> u16 {
        self.header.identification()
    }

    /// Don't fragment.
    pub fn dont_fragment(&self) -> bool {
        self.header.dont_fragment()
    }

    /// More fragments.
    pub fn more_fragments(&self) -> bool {
        self.header.more_fragments()
    }

    /// Fragment offset in units of 8 octets; if it is not 0 the payload starts with no header.
    pub fn fragment_offset(&self) -> u16 {
        self.header.fragments_offset().value()
    }

    /// Time to live.
    pub fn time_to_live(&self) -> u8 {
        self.header.ttl()
    }

    /// Protocol.
    pub fn protocol(&self) -> u8 {
        self.header.protocol().0
    }

    /// Header checksum.
    pub fn header_checksum(&self) -> u16 {
        self.header.header_checksum()
    }

    /// Whether the header checksum is right.
    pub fn is_checksum_right(&self) -> bool {
        Checksum::default().over(self.header()).finish() == 0
    }

    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        self.header.source_addr()
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        self.header.destination_addr()
    }

    /// Options, with their padding.
    pub fn options(&self) -> &'a [u8] {
        self.header.options()
    }
}

fn header(octets: Octets<'_>) -> Result<Ipv4HeaderSlice<'_>, WireError> {
    Ipv4HeaderSlice::from_slice(octets.bytes()).map_err(|error| {
        let (field, value, expected) = match error {
            HeaderSliceError::Len(error) => return octets.length_error(Header::Ipv4, &error),
            HeaderSliceError::Content(HeaderError::UnexpectedVersion { version_number }) => {
                ("version", version_number, "4")
            }
            HeaderSliceError::Content(HeaderError::HeaderLengthSmallerThanHeader { ihl }) => {
                ("header length", ihl, "at least 5 (32-bit words)")
            }
        };
        WireError::Value {
            header: Header::Ipv4,
            offset: octets.offset(),
            field,
            value: u32::from(value),
            expected,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071's many retellings: 192.168.0.1 > 192.168.0.199, UDP, total length 115.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn a_quoted_header_is_read_and_its_checksum_judged() {
        let ip = Ipv4::quoted(Octets::new(&HEADER)).unwrap();
        assert_eq!(ip.source(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(ip.total_length(), 115);
        assert!(ip.dont_fragment() && ip.is_checksum_right());
        assert!(ip.payload().is_empty());
        let mut wrong = HEADER;
        wrong[8] -= 1;
        assert!(
            !Ipv4::quoted(Octets::new(&wrong))
                .unwrap()
                .is_checksum_right()
        );
    }

    #[test]
    fn a_header_that_promises_options_it_lacks_is_an_error() {
        let mut octets = HEADER;
        octets[0] = 0x4f;
        let expected = WireError::Length {
            header: Header::Ipv4,
            offset: 0,
            needed: 60,
            available: 20,
            limit: Limit::Buffer,
        };
        assert_eq!(Ipv4::checked(Octets::new(&octets)), Err(expected.clone()));
        assert_eq!(Ipv4::quoted(Octets::new(&octets)), Err(expected.clone()));
        assert_eq!(
            expected.to_string(),
            "IPv4 at offset 0: 60 octets needed, 20 available up to the end of the buffer"
        );
    }

    #[test]
    fn a_cut_datagram_is_refused_checked_and_taken_quoted() {
        assert_eq!(
            Ipv4::checked(Octets::new(&HEADER)),
            Err(Octets::new(&HEADER).too_short(Header::Ipv4, 115))
        );
        let mut six = HEADER;
        six[0] = 0x65;
        let error = Ipv4::checked(Octets::new(&six)).unwrap_err();
        assert_eq!(error.to_string(), "IPv4 at offset 0: version is 6, not 4");
    }

    #[test]
    fn padding_behind_the_total_length_is_not_the_datagrams() {
        let mut padded = HEADER.to_vec();
        padded[2..4].copy_from_slice(&24u16.to_be_bytes());
        padded.extend([0xa5; 26]);
        let ip = Ipv4::checked(Octets::new(&padded)).unwrap();
        assert_eq!(ip.payload().len(), 4);
        assert_eq!(ip.payload().offset(), 20);
        assert_eq!(ip.payload().limit(), Limit::Ipv4TotalLength);
    }
}
