//! ICMPv4 (RFC 792).

use std::net::Ipv4Addr;

use etherparse::Icmpv4Slice;

use crate::wire::Checksum;
use crate::wire::Header;
use crate::wire::IpProtocol;
use crate::wire::Limit;
use crate::wire::Octets;
use crate::wire::Quote;
use crate::wire::WireError;

/// An ICMPv4 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmpv4<'a> {
    icmp_type: u8,
    code: u8,
    checksum: u16,
    rest: [u8; 4],
    message: Octets<'a>,
}

impl<'a> Icmpv4<'a> {
    /// Octets of the header.
    pub const LENGTH: usize = 8;
    /// Type echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Type destination unreachable.
    pub const DESTINATION_UNREACHABLE: u8 = 3;
    /// Type source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Type redirect.
    pub const REDIRECT: u8 = 5;
    /// Type echo.
    pub const ECHO: u8 = 8;
    /// Type time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Type parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Code of destination unreachable: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;

    /// A message whose header is there.
    ///
    /// # Errors
    /// The header is cut off.
    pub fn checked(message: Octets<'a>) -> Result<Icmpv4<'a>, WireError> {
        let slice = Icmpv4Slice::from_slice(message.bytes())
            .map_err(|error| message.length_error(Header::Icmpv4, &error))?;
        Ok(Icmpv4 {
            icmp_type: slice.type_u8(),
            code: slice.code_u8(),
            checksum: slice.checksum(),
            rest: slice.bytes5to8(),
            message,
        })
    }

    /// Type.
    pub fn icmp_type(&self) -> u8 {
        self.icmp_type
    }

    /// Code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Checksum.
    pub fn checksum(&self) -> u16 {
        self.checksum
    }

    /// Octets 4 to 7, whose meaning depends on the type.
    pub fn rest(&self) -> [u8; 4] {
        self.rest
    }

    /// Whether the checksum is right; of a message that was cut off it never is.
    pub fn is_checksum_right(&self) -> bool {
        Checksum::default().over(self.message.bytes()).finish() == 0
    }

    /// What follows the header.
    pub fn payload(&self) -> Octets<'a> {
        self.message.after(Self::LENGTH)
    }

    /// Whether it is an error, which quotes a datagram.
    pub fn is_error(&self) -> bool {
        matches!(
            self.icmp_type,
            Self::DESTINATION_UNREACHABLE
                | Self::SOURCE_QUENCH
                | Self::REDIRECT
                | Self::TIME_EXCEEDED
                | Self::PARAMETER_PROBLEM
        )
    }

    /// The octets of the datagram that an error quotes. Where the message has a length of the original
    /// datagram (RFC 4884 §4.1 to §4.3), extensions follow it that are not the datagram's.
    pub fn quotation(&self) -> Option<Octets<'a>> {
        if !self.is_error() {
            return None;
        }
        let has_length = matches!(
            self.icmp_type,
            Self::DESTINATION_UNREACHABLE | Self::TIME_EXCEEDED | Self::PARAMETER_PROBLEM
        );
        let words = usize::from(self.rest[1]);
        Some(match has_length && words != 0 {
            true => self
                .payload()
                .up_to(words * 4, Limit::OriginalDatagramLength),
            false => self.payload(),
        })
    }

    /// The next hop's MTU that "fragmentation needed" tells (RFC 1191 §4); `None` if it tells none.
    pub fn next_hop_mtu(&self) -> Option<u16> {
        let tells = self.icmp_type == Self::DESTINATION_UNREACHABLE
            && self.code == Self::FRAGMENTATION_NEEDED;
        let mtu = u16::from_be_bytes([self.rest[2], self.rest[3]]);
        (tells && mtu != 0).then_some(mtu)
    }
}

impl Icmpv4<'_> {
    /// The message in tcpdump's words.
    pub(super) fn describe(&self) -> String {
        let quote = self.quotation().and_then(|octets| Quote::read(octets).ok());
        let [r1, r2, r3, r4] = self.rest;
        match (self.icmp_type, quote) {
            (Self::ECHO | Self::ECHO_REPLY, _) => {
                let what = match self.icmp_type {
                    Self::ECHO => "request",
                    _ => "reply",
                };
                let identifier = u16::from_be_bytes([r1, r2]);
                let sequence = u16::from_be_bytes([r3, r4]);
                format!("echo {what}, id {identifier}, seq {sequence}")
            }
            (Self::DESTINATION_UNREACHABLE, Some(quote)) => self.unreachable(&quote),
            (Self::SOURCE_QUENCH, _) => "source quench".to_owned(),
            (Self::REDIRECT, Some(quote)) => {
                let what = match self.code {
                    0 => "net",
                    1 => "host",
                    2 => "tos net",
                    _ => "tos host",
                };
                let (destination, gateway) =
                    (quote.header.destination(), Ipv4Addr::from(self.rest));
                format!("redirect {destination} to {what} {gateway}")
            }
            (Self::TIME_EXCEEDED, _) if self.code == 0 => "time exceeded in-transit".to_owned(),
            (Self::TIME_EXCEEDED, _) => "ip reassembly time exceeded".to_owned(),
            (Self::PARAMETER_PROBLEM, _) => format!("parameter problem - octet {r1}"),
            (icmp_type, _) => format!("type-#{icmp_type}, code {}", self.code),
        }
    }

    fn unreachable(&self, quote: &Quote<'_>) -> String {
        let destination = quote.header.destination();
        let protocol = quote.header.protocol();
        match self.code {
            0 | 6 => format!("net {destination} unreachable"),
            1 | 7 => format!("host {destination} unreachable"),
            2 => format!("{destination} protocol {protocol} unreachable"),
            3 => {
                let port = match quote.header.payload().bytes() {
                    [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
                    _ => return format!("{destination} port unreachable"),
                };
                match protocol {
                    IpProtocol::TCP => format!("{destination} tcp port {port} unreachable"),
                    IpProtocol::UDP => format!("{destination} udp port {port} unreachable"),
                    _ => format!("{destination} protocol {protocol} port {port} unreachable"),
                }
            }
            Self::FRAGMENTATION_NEEDED => match self.next_hop_mtu() {
                Some(mtu) => format!("{destination} unreachable - need to frag (mtu {mtu})"),
                None => format!("{destination} unreachable - need to frag"),
            },
            5 => format!("{destination} unreachable - source route failed"),
            9 => format!("net {destination} unreachable - admin prohibited"),
            10 => format!("host {destination} unreachable - admin prohibited"),
            11 => format!("net {destination} unreachable - tos prohibited"),
            12 => format!("host {destination} unreachable - tos prohibited"),
            13 => format!("host {destination} unreachable - admin prohibited filter"),
            code => format!("{destination} unreachable - #{code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extensions_of_rfc_4884_are_not_quoted() {
        let mut message = vec![11, 0, 0, 0, 0, 32, 0, 0];
        message.extend([0x45; 128]);
        message.extend([0x20, 0, 0, 0]);
        let icmp = Icmpv4::checked(Octets::new(&message)).unwrap();
        assert_eq!(icmp.quotation().unwrap().len(), 128);
        message[5] = 0;
        let icmp = Icmpv4::checked(Octets::new(&message)).unwrap();
        assert_eq!(icmp.quotation().unwrap().len(), 132);
    }

    #[test]
    fn only_errors_quote() {
        let octets = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
        let icmp = Icmpv4::checked(Octets::new(&octets)).unwrap();
        assert_eq!(icmp.quotation(), None);
        assert!(icmp.is_checksum_right());
        assert!(Icmpv4::checked(Octets::new(&octets[..7])).is_err());
    }

    #[test]
    fn fragmentation_needed_tells_the_next_hops_mtu() {
        let octets = [3, 4, 0, 0, 0, 0, 0x05, 0xc8];
        let icmp = Icmpv4::checked(Octets::new(&octets)).unwrap();
        assert_eq!(icmp.next_hop_mtu(), Some(1480));
    }
}
