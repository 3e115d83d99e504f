//! Where in a packet a probe could be: in it, in its tunnel header, in what an ICMP error quotes.

use crate::wire::Icmpv4;
use crate::wire::InnerStart;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::Quote;
use crate::wire::Quoted;

/// Octets of a transport header that hold ports and checksum, or ports and sequence number.
const TRANSPORT_START: usize = 8;

/// A packet taken apart, without a word on whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anatomy<'a> {
    /// The outermost header.
    pub(super) outermost: Ipv4<'a>,
    /// The tunnel header around the innermost datagram or around the error: the packet's own, or else the
    /// quoted one.
    pub(super) tunnel: Option<Ipv4<'a>>,
    /// The ICMP error that quotes the innermost datagram.
    pub(super) error: Option<Error>,
    /// The innermost datagram.
    pub(super) core: Core<'a>,
}

/// An ICMP error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Error {
    pub(super) icmp_type: u8,
    pub(super) code: u8,
    /// Whether it quotes a tunnel header around the innermost datagram.
    pub(super) quotes_tunnel: bool,
    /// Whether it quotes another ICMP error, which quotes the innermost datagram.
    pub(super) quotes_error: bool,
    /// Octets it quotes.
    pub(super) octets: usize,
    /// The next hop's MTU, of "fragmentation needed".
    pub(super) next_hop_mtu: Option<u16>,
}

/// The innermost datagram.
#[derive(Clone, Copy, Debug)]
pub(super) enum Core<'a> {
    /// With its whole header and, in a tunnel, at least 8 octets behind it.
    Datagram(Ipv4<'a>),
    /// Less of it: the start of its header, and the tunnel header before it.
    Start(Ipv4<'a>, InnerStart),
}

impl<'a> Anatomy<'a> {
    /// Takes a packet apart that starts at its IPv4 header and may be cut off.
    pub(super) fn read(packet: &'a [u8]) -> Option<Anatomy<'a>> {
        let whole = Quote::read(Octets::new(packet)).ok()?;
        let outermost = whole.header;
        let (tunnel, core) = Self::unwrap(whole)?;
        let plain = Anatomy {
            outermost,
            tunnel,
            error: None,
            core,
        };
        let Some((icmp, quote)) = core.quotation() else {
            return Some(plain);
        };
        let (quoted_tunnel, quoted) = Self::unwrap(quote)?;
        let mut error = Error {
            icmp_type: icmp.icmp_type(),
            code: icmp.code(),
            quotes_tunnel: quoted_tunnel.is_some(),
            quotes_error: false,
            octets: quote.octets(),
            next_hop_mtu: icmp.next_hop_mtu(),
        };
        let mut inner = (quoted_tunnel, quoted);
        if let Some((_, quote)) = quoted.quotation() {
            inner = Self::unwrap(quote)?;
            error.quotes_error = true;
        }
        Some(Anatomy {
            tunnel: tunnel.or(inner.0),
            error: Some(error),
            core: inner.1,
            ..plain
        })
    }

    fn unwrap(quote: Quote<'a>) -> Option<(Option<Ipv4<'a>>, Core<'a>)> {
        let header = quote.header;
        match quote.content {
            Quoted::Plain => Some((None, Core::Datagram(header))),
            Quoted::Tunnelled(inner) if inner.payload().len() < TRANSPORT_START => {
                let start = InnerStart::read(header.payload()).ok()?;
                Some((Some(header), Core::Start(header, start)))
            }
            Quoted::Tunnelled(inner) => Some((Some(header), Core::Datagram(inner))),
            Quoted::TunnelledStart(start) => Some((Some(header), Core::Start(header, start))),
            Quoted::TunnelledUnread => None,
        }
    }
}

impl<'a> Core<'a> {
    /// The ICMP error that it is, and what that quotes.
    fn quotation(self) -> Option<(Icmpv4<'a>, Quote<'a>)> {
        let Core::Datagram(ip) = self else {
            return None;
        };
        if ip.protocol() != IpProtocol::ICMP || ip.fragment_offset() != 0 {
            return None;
        }
        let icmp = Icmpv4::checked(ip.payload()).ok()?;
        let quote = Quote::read(icmp.quotation()?).ok()?;
        Some((icmp, quote))
    }
}
