//! Ethernet II.

use std::fmt;

use etherparse::Ethernet2HeaderSlice;
use serde::Deserialize;
use serde::Serialize;

use crate::wire::Header;
use crate::wire::Octets;
use crate::wire::WireError;

/// EtherTypes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EtherType;

impl EtherType {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// The address whose six octets are the lowest of a number.
    pub fn from_bits(bits: u64) -> Mac {
        let [_, _, octets @ ..] = bits.to_be_bytes();
        Mac(octets)
    }
}

/// Six hex octets with colons.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An Ethernet II header with what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet<'a> {
    /// Destination.
    pub destination: Mac,
    /// Source.
    pub source: Mac,
    /// EtherType.
    pub ethertype: u16,
    /// What follows, padding included.
    pub payload: Octets<'a>,
}

impl<'a> Ethernet<'a> {
    /// Octets of the header.
    pub const LENGTH: usize = 14;

    /// A frame whose header is there.
    ///
    /// # Errors
    /// The header is cut off.
    pub fn checked(frame: Octets<'a>) -> Result<Ethernet<'a>, WireError> {
        let header = Ethernet2HeaderSlice::from_slice(frame.bytes())
            .map_err(|error| frame.length_error(Header::Ethernet, &error))?;
        Ok(Ethernet {
            destination: Mac(header.destination()),
            source: Mac(header.source()),
            ethertype: header.ether_type().0,
            payload: frame.after(Self::LENGTH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_a_short_one_refused() {
        let frame = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x08, 0x06, 0xa5,
        ];
        let ethernet = Ethernet::checked(Octets::new(&frame)).unwrap();
        assert_eq!(ethernet.destination, Mac::BROADCAST);
        assert_eq!(ethernet.source.to_string(), "02:00:00:00:00:01");
        assert_eq!(ethernet.ethertype, EtherType::ARP);
        assert_eq!(ethernet.payload.bytes(), [0xa5]);
        assert!(Ethernet::checked(Octets::new(&frame[..13])).is_err());
    }
}
