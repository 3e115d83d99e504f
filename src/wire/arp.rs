//! ARP for IPv4 on Ethernet (RFC 826).

use std::net::Ipv4Addr;

use etherparse::ArpHardwareId;
use etherparse::ArpPacketSlice;
use etherparse::EtherType as EtherparseType;

use crate::wire::EtherType;
use crate::wire::Header;
use crate::wire::Mac;
use crate::wire::Octets;
use crate::wire::WireError;

/// An ARP packet for IPv4 on Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Operation: 1 request, 2 reply.
    pub operation: u16,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Octets.
    pub const LENGTH: usize = 28;
    /// Operation request.
    pub const REQUEST: u16 = 1;
    /// Operation reply.
    pub const REPLY: u16 = 2;

    /// A packet that is there whole.
    ///
    /// # Errors
    /// It is cut off, or not for IPv4 on Ethernet.
    pub fn checked(octets: Octets<'_>) -> Result<Arp, WireError> {
        let slice = ArpPacketSlice::from_slice(octets.bytes())
            .map_err(|error| octets.length_error(Header::Arp, &error))?;
        let wrong = |field, value, expected| WireError::Value {
            header: Header::Arp,
            offset: octets.offset(),
            field,
            value: u32::from(value),
            expected,
        };
        if slice.hw_addr_type() != ArpHardwareId::ETHERNET {
            return Err(wrong("hardware type", slice.hw_addr_type().0, "1"));
        }
        if slice.proto_addr_type() != EtherparseType(EtherType::IPV4) {
            return Err(wrong("protocol type", slice.proto_addr_type().0, "2048"));
        }
        let (Ok(sender_mac), Ok(target_mac)) = (
            slice.sender_hw_addr().try_into(),
            slice.target_hw_addr().try_into(),
        ) else {
            let length = slice.hw_addr_size().into();
            return Err(wrong("hardware address length", length, "6"));
        };
        let (Ok(sender_ip), Ok(target_ip)) = (
            <[u8; 4]>::try_from(slice.sender_protocol_addr()),
            <[u8; 4]>::try_from(slice.target_protocol_addr()),
        ) else {
            let length = slice.proto_addr_size().into();
            return Err(wrong("protocol address length", length, "4"));
        };
        Ok(Arp {
            operation: slice.operation().0,
            sender_mac: Mac(sender_mac),
            sender_ip: sender_ip.into(),
            target_mac: Mac(target_mac),
            target_ip: target_ip.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_lengths_of_another_network_are_errors() {
        let mut octets = [0; 60];
        octets[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        octets[14..18].copy_from_slice(&[192, 0, 2, 1]);
        let arp = Arp::checked(Octets::new(&octets)).unwrap();
        assert_eq!(arp.operation, Arp::REQUEST);
        assert_eq!(arp.sender_ip, Ipv4Addr::new(192, 0, 2, 1));
        octets[4] = 8;
        assert!(matches!(
            Arp::checked(Octets::new(&octets)),
            Err(WireError::Value { value: 8, .. })
        ));
        octets[4] = 200;
        assert_eq!(
            Arp::checked(Octets::new(&octets)),
            Err(Octets::new(&octets).too_short(Header::Arp, 8 + 400 + 8))
        );
    }
}
