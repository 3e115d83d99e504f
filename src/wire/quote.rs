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
