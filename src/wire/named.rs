//! Every address that a packet names, however odd the packet is: what it could make anybody send to, or take for the
//! sender.
//!
//! Addresses are read by their place, also where version, header length or total length are wrong, as far as a
//! receiver could read on. What could hide an address is an error.

use std::net::Ipv4Addr;

use crate::wire::Icmpv4;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;

/// An address in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The address.
    pub address: Ipv4Addr,
    /// What it is, such as `inner destination`.
    pub role: &'static str,
}

/// Why it cannot be told which addresses a packet names: what the packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden(pub &'static str);

/// Every address that a packet names, from its IPv4 header on: sources and destinations of headers in one another,
/// and of those that an ICMP error quotes; the hops of a source route; the gateway of a redirect.
///
/// # Errors
/// The outermost header is not whole; options that cannot be read; something that could hold another packet, and is not
/// IPIP, or a fragment of it.
pub fn named(packet: &[u8]) -> Result<Vec<Named>, Hidden> {
    let mut reader = Reader::default();
    let mut next = Some((packet, PLAIN));
    while let Some((octets, roles)) = next {
        if reader.headers == MOST_HEADERS {
            return Err(Hidden("more than 16 headers in one another"));
        }
        next = reader.header(octets, roles)?;
    }
    Ok(reader.named)
}

/// How many headers may lie in one another.
const MOST_HEADERS: usize = 16;

/// What the addresses of a header are: source and destination.
type Roles = [&'static str; 2];

const PLAIN: Roles = ["source", "destination"];
const INNER: Roles = ["inner source", "inner destination"];
const QUOTED: Roles = ["quoted source", "quoted destination"];

/// Protocols that hold other packets, besides IPIP: IPv6, GRE, AH, minimal encapsulation, KA9Q's IPIP, EtherIP,
/// RFC 1241's encapsulation, L2TP, MPLS (IANA's protocol numbers).
const HOLDERS: [u8; 9] = [41, 47, 51, 55, 94, 97, 98, 115, 137];

/// In units of 8 octets: behind it no header can lie that begins where the fragmented payload does.
const BEHIND_A_HEADER: u16 = 8;

#[derive(Default)]
struct Reader {
    named: Vec<Named>,
    headers: usize,
    /// Whether a header before is one of a first fragment.
    is_fragmented: bool,
}

impl Reader {
    /// Reads a header; where the next begins, and what its addresses are.
    fn header<'a>(
        &mut self,
        octets: &'a [u8],
        roles: Roles,
    ) -> Result<Option<(&'a [u8], Roles)>, Hidden> {
        self.headers += 1;
        let (Some(source), Some(destination)) = (address(octets, 12), address(octets, 16)) else {
            return match self.headers {
                1 => Err(Hidden("no whole IPv4 header")),
                // Nobody else can read them, either.
                _ => Ok(None),
            };
        };
        self.name(source, roles[0]);
        self.name(destination, roles[1]);
        let length = usize::from(octets[0] & 0x0f) * 4;
        let is_read_on = octets[0] >> 4 == 4 && length >= Ipv4::MIN_LENGTH;
        let (true, Some(payload)) = (is_read_on, octets.get(length..)) else {
            return Ok(None);
        };
        self.options(&octets[Ipv4::MIN_LENGTH..length])?;
        let fragment = u16::from_be_bytes([octets[6], octets[7]]);
        let (more, offset) = (fragment & 0x2000 != 0, fragment & 0x1fff);
        match octets[9] {
            IpProtocol::IPIP => self.tunnel(payload, more, offset, roles),
            IpProtocol::ICMP if offset == 0 => Ok(self.message(payload)),
            other if HOLDERS.contains(&other) => {
                match more || offset != 0 || payload.len() >= Ipv4::MIN_LENGTH {
                    true => Err(Hidden("of a protocol that can hold another packet")),
                    false => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    fn tunnel<'a>(
        &mut self,
        payload: &'a [u8],
        more: bool,
        offset: u16,
        roles: Roles,
    ) -> Result<Option<(&'a [u8], Roles)>, Hidden> {
        if self.is_fragmented {
            return Err(Hidden("a fragment of headers in one another"));
        }
        if offset != 0 {
            return match offset < BEHIND_A_HEADER {
                true => Err(Hidden("a fragment of a header in another")),
                false => Ok(None),
            };
        }
        let inner = payload
            .first()
            .map_or(0, |first| usize::from(first & 0x0f) * 4);
        if more && payload.len() < inner.max(Ipv4::MIN_LENGTH) {
            return Err(Hidden("a fragment of a header in another"));
        }
        self.is_fragmented = more;
        Ok(Some((payload, if roles == PLAIN { INNER } else { roles })))
    }

    fn message<'a>(&mut self, message: &'a [u8]) -> Option<(&'a [u8], Roles)> {
        let quotation = message.get(Icmpv4::LENGTH..)?;
        match message[0] {
            Icmpv4::REDIRECT => self.name(address(message, 4)?, "gateway of the redirect"),
            Icmpv4::DESTINATION_UNREACHABLE
            | Icmpv4::SOURCE_QUENCH
            | Icmpv4::TIME_EXCEEDED
            | Icmpv4::PARAMETER_PROBLEM => {}
            _ => return None,
        }
        Some((quotation, QUOTED))
    }

    /// Of the options those with other addresses to go to (RFC 791 §3.1).
    fn options(&mut self, options: &[u8]) -> Result<(), Hidden> {
        const END: u8 = 0;
        const NOTHING: u8 = 1;
        const LOOSE_ROUTE: u8 = 131;
        const STRICT_ROUTE: u8 = 137;
        let mut rest = options;
        while let Some(kind) = rest.first() {
            let length = match *kind {
                END => return Ok(()),
                NOTHING => 1,
                _ => rest.get(1).map_or(0, |length| usize::from(*length)),
            };
            let is_whole = *kind == NOTHING || length >= 2;
            let (true, Some(option)) = (is_whole, rest.get(..length)) else {
                return Err(Hidden("an IPv4 packet with options that cannot be read"));
            };
            if [LOOSE_ROUTE, STRICT_ROUTE].contains(kind) {
                for hop in option.get(3..).unwrap_or_default().chunks(4) {
                    let hop =
                        address(hop, 0).ok_or(Hidden("a source route that cannot be read"))?;
                    self.name(hop, "hop of the source route");
                }
            }
            rest = &rest[length..];
        }
        Ok(())
    }

    fn name(&mut self, address: Ipv4Addr, role: &'static str) {
        self.named.push(Named { address, role });
    }
}

fn address(octets: &[u8], at: usize) -> Option<Ipv4Addr> {
    let address = octets.get(at..)?.first_chunk::<4>()?;
    Some((*address).into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::any;
    use proptest::proptest;

    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const C: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);

    fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    fn with(mut packet: Vec<u8>, changes: &[(usize, u8)]) -> Vec<u8> {
        for (at, value) in changes {
            packet[*at] = *value;
        }
        packet
    }

    fn names(packet: &[u8]) -> Result<Vec<(Ipv4Addr, &'static str)>, &'static str> {
        let named = named(packet).map_err(|hidden| hidden.0)?;
        Ok(named.into_iter().map(|n| (n.address, n.role)).collect())
    }

    const OUTSIDE: [(Ipv4Addr, &str); 2] = [(A, "source"), (B, "destination")];
    const INSIDE: [(Ipv4Addr, &str); 2] = [(B, "inner source"), (C, "inner destination")];

    #[test]
    fn headers_in_one_another_are_read_to_the_last() {
        let inner = ipv4(B, C, 17, &[0; 8]);
        assert_eq!(names(&inner[..8]), Err("no whole IPv4 header"));
        let tunnelled = ipv4(A, B, 4, &inner);
        let both = [OUTSIDE, INSIDE].concat();
        assert_eq!(names(&tunnelled), Ok(both.clone()));
        let twice = ipv4(A, B, 4, &ipv4(B, C, 4, &inner));
        assert_eq!(names(&twice), Ok([OUTSIDE, INSIDE, INSIDE].concat()));
        // However wrong version, header length or total length of the inner one are.
        for first in [0x65, 0x44, 0x4f, 0x00] {
            assert_eq!(
                names(&with(tunnelled.clone(), &[(20, first)])),
                Ok(both.clone())
            );
        }
        // Too short for anybody to read.
        assert_eq!(names(&ipv4(A, B, 4, &inner[..19])), Ok(OUTSIDE.to_vec()));
        let mut deep = ipv4(A, B, 17, &[]);
        for _ in 0..MOST_HEADERS {
            deep = ipv4(A, B, 4, &deep);
        }
        assert_eq!(names(&deep), Err("more than 16 headers in one another"));
        assert!(names(&deep[20..]).is_ok());
    }

    #[test]
    fn what_a_wrong_outermost_header_keeps_from_being_read_nobody_reads() {
        let tunnelled = ipv4(A, B, 4, &ipv4(B, C, 17, &[0; 8]));
        for first in [0x55, 0x43, 0x00] {
            let packet = with(tunnelled.clone(), &[(0, first)]);
            assert_eq!(names(&packet), Ok(OUTSIDE.to_vec()));
        }
    }

    #[test]
    fn no_fragment_hides_a_header() {
        let split = Err("a fragment of a header in another");
        let inner = ipv4(B, C, 17, &[0; 80]);
        let fragment = |octets: &[u8], flags: u8, offset: u8| {
            names(&with(ipv4(A, B, 4, octets), &[(6, flags), (7, offset)]))
        };
        let both = Ok([OUTSIDE, INSIDE].concat());
        assert_eq!(fragment(&inner, 0x20, 0), both);
        assert_eq!(fragment(&inner[..16], 0x20, 0), split);
        assert_eq!(
            fragment(&with(inner.clone(), &[(0, 0x46)])[..20], 0x20, 0),
            split
        );
        for offset in 1..8 {
            assert_eq!(fragment(&inner, 0, offset), split);
        }
        // Behind the longest header there is only what it carries.
        assert_eq!(fragment(&inner, 0, 8), Ok(OUTSIDE.to_vec()));
        let twice = ipv4(B, C, 4, &ipv4(C, A, 17, &[0; 8]));
        assert_eq!(
            fragment(&twice, 0x20, 0),
            Err("a fragment of headers in one another")
        );
        // Of other protocols every fragment is as good as any.
        let datagram = with(ipv4(A, B, 17, &[0; 8]), &[(6, 0x20), (7, 3)]);
        assert_eq!(names(&datagram), Ok(OUTSIDE.to_vec()));
    }

    #[test]
    fn quotes_redirects_and_source_routes_name_addresses() {
        let quoted = [(B, "quoted source"), (C, "quoted destination")];
        for icmp_type in [3, 4, 11, 12] {
            let message = [&[icmp_type, 0, 0, 0, 0, 0, 0, 0][..], &ipv4(B, C, 6, &[])].concat();
            let error = ipv4(A, B, 1, &message);
            assert_eq!(names(&error), Ok([OUTSIDE, quoted].concat()));
        }
        let octets = [[5, 1, 0, 0], C.octets()].concat();
        let redirect = ipv4(A, B, 1, &octets);
        let gateway = [(C, "gateway of the redirect")];
        assert_eq!(names(&redirect), Ok([&OUTSIDE[..], &gateway].concat()));
        let echo = ipv4(A, B, 1, &[&[8; 8][..], &ipv4(B, C, 6, &[])].concat());
        assert_eq!(names(&echo), Ok(OUTSIDE.to_vec()));
        for kind in [131, 137] {
            let options = [&[1, kind, 11, 4][..], &A.octets(), &C.octets()].concat();
            let routed = with(ipv4(A, B, 17, &options), &[(0, 0x48)]);
            let hops = [
                (A, "hop of the source route"),
                (C, "hop of the source route"),
            ];
            assert_eq!(names(&routed), Ok([OUTSIDE, hops].concat()));
        }
    }

    #[test]
    fn options_must_be_readable_to_their_end() {
        let with_options = |options: [u8; 8]| {
            let packet = with(ipv4(A, B, 17, &options), &[(0, 0x47)]);
            names(&packet).map(drop)
        };
        let unread = Err("an IPv4 packet with options that cannot be read");
        // Router alert; record route; nothing behind the end of the list counts.
        assert_eq!(with_options([148, 4, 0, 0, 1, 1, 1, 1]), Ok(()));
        assert_eq!(with_options([7, 7, 4, 0, 0, 0, 0, 0]), Ok(()));
        assert_eq!(with_options([0, 131, 3, 4, 5, 6, 7, 8]), Ok(()));
        assert_eq!(with_options([7, 9, 4, 0, 0, 0, 0, 0]), unread);
        assert_eq!(with_options([1, 1, 1, 1, 1, 1, 1, 7]), unread);
        assert_eq!(with_options([7, 0, 131, 7, 4, 8, 8, 8]), unread);
        assert_eq!(with_options([7, 1, 131, 7, 4, 8, 8, 8]), unread);
        let odd = Err("a source route that cannot be read");
        assert_eq!(with_options([131, 6, 4, 8, 8, 8, 1, 1]), odd);
    }

    #[test]
    fn what_holds_packets_that_are_not_read_is_hidden() {
        let hidden = Err("of a protocol that can hold another packet");
        for protocol in HOLDERS {
            assert_eq!(names(&ipv4(A, B, protocol, &[0; 20])), hidden);
            assert_eq!(names(&ipv4(A, B, protocol, &[0; 19])), Ok(OUTSIDE.to_vec()));
            let first = with(ipv4(A, B, protocol, &[0; 8]), &[(6, 0x20)]);
            assert_eq!(names(&first), hidden);
        }
        for protocol in [2, 6, 17, 50, 132, 253] {
            assert_eq!(names(&ipv4(A, B, protocol, &[0; 40])), Ok(OUTSIDE.to_vec()));
        }
    }

    proptest! {
        #[test]
        fn it_never_panics_and_names_the_outermost(octets in vec(any::<u8>(), 0..100)) {
            match named(&octets) {
                Ok(named) => {
                    assert_eq!(named[0].address.octets(), octets[12..16]);
                    assert_eq!(named[1].address.octets(), octets[16..20]);
                }
                Err(Hidden(what)) => assert!(octets.len() >= 20 || what == "no whole IPv4 header"),
            }
        }
    }
}
