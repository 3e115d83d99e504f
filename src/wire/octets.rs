//! Octets that know where they lie and who set their end, and the error that says so.

use std::fmt;

use etherparse::err::LenError;

/// A header, as errors and dissections name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Header {
    /// Ethernet II.
    Ethernet,
    /// ARP for IPv4 on Ethernet (RFC 826).
    Arp,
    /// IPv4 (RFC 791).
    Ipv4,
    /// UDP (RFC 768).
    Udp,
    /// TCP (RFC 9293).
    Tcp,
    /// ICMPv4 (RFC 792).
    Icmpv4,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Header::Ethernet => "Ethernet",
            Header::Arp => "ARP",
            Header::Ipv4 => "IPv4",
            Header::Udp => "UDP",
            Header::Tcp => "TCP",
            Header::Icmpv4 => "ICMPv4",
        })
    }
}

/// Who set the end of the octets that are available.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// The buffer: nothing more was captured or given.
    Buffer,
    /// The total length of the IPv4 header around.
    Ipv4TotalLength,
    /// The length of the UDP header.
    UdpLength,
    /// The length of the original datagram in an ICMP error (RFC 4884).
    OriginalDatagramLength,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Limit::Buffer => "the end of the buffer",
            Limit::Ipv4TotalLength => "the IPv4 total length",
            Limit::UdpLength => "the UDP length",
            Limit::OriginalDatagramLength => "the length of the original datagram",
        })
    }
}

/// Octets, where they start in the packet, and who set their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octets<'a> {
    bytes: &'a [u8],
    offset: usize,
    limit: Limit,
}

impl<'a> Octets<'a> {
    /// A whole buffer.
    pub fn new(bytes: &'a [u8]) -> Octets<'a> {
        Octets {
            bytes,
            offset: 0,
            limit: Limit::Buffer,
        }
    }

    /// The octets themselves.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Where they start in the packet.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// Who set their end.
    pub fn limit(self) -> Limit {
        self.limit
    }

    /// What follows the first `count` octets; empty if there are not as many.
    pub(crate) fn after(self, count: usize) -> Octets<'a> {
        let count = count.min(self.bytes.len());
        Octets {
            bytes: &self.bytes[count..],
            offset: self.offset + count,
            limit: self.limit,
        }
    }

    /// At most the first `count` octets, as `limit` has it.
    pub(crate) fn up_to(self, count: usize, limit: Limit) -> Octets<'a> {
        match self.bytes.get(..count) {
            Some(bytes) => Octets {
                bytes,
                offset: self.offset,
                limit,
            },
            None => self,
        }
    }

    /// The error that `header` needs `needed` octets and these are not as many.
    pub(crate) fn too_short(self, header: Header, needed: usize) -> WireError {
        WireError::Length {
            header,
            offset: self.offset,
            needed,
            available: self.bytes.len(),
            limit: self.limit,
        }
    }

    pub(crate) fn length_error(self, header: Header, error: &LenError) -> WireError {
        self.too_short(header, error.required_len)
    }
}

/// Why octets are no such header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not all of it is there.
    #[error(
        "{header} at offset {offset}: {needed} octets needed, {available} available up to {limit}"
    )]
    Length {
        /// Of which header.
        header: Header,
        /// Where it starts.
        offset: usize,
        /// Octets needed, from there on.
        needed: usize,
        /// Octets available, from there on.
        available: usize,
        /// Who set the end.
        limit: Limit,
    },
    /// A field cannot be what it is.
    #[error("{header} at offset {offset}: {field} is {value}, not {expected}")]
    Value {
        /// Of which header.
        header: Header,
        /// Where it starts.
        offset: usize,
        /// Which field, in the RFC's words.
        field: &'static str,
        /// What it is.
        value: u32,
        /// What it must be.
        expected: &'static str,
    },
}

impl WireError {
    /// Which header it is about.
    pub fn header(&self) -> Header {
        match self {
            WireError::Length { header, .. } | WireError::Value { header, .. } => *header,
        }
    }
}
