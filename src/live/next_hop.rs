//! By which device and to which neighbour a fleet's packets leave, where that is the same for many of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufRead;
use std::io::BufReader;
use std::net::Ipv4Addr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteAddress;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleAttribute;
use netlink_packet_route::rule::RuleMessage;
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::exchange::RouteQuery;
use crate::live::neighbour;
use crate::live::neighbour::NeighbourError;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;
use crate::live::routes;
use crate::plan::Fleet;
use crate::plan::Group;
use crate::plan::Range;

/// More pieces than this are left to the host's stack.
const MOST_PIECES: usize = 4096;

/// A host with a full table has 1,000,000 routes, each of which takes some hundred octets to read.
const MOST_ROUTES: usize = 20_000;

/// A gateway on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NextHop {
    pub(super) device: String,
    pub(super) gateway: Ipv4Addr,
}

/// Addresses that leave by the same gateway, in rising order; what lies between is left to the host's stack.
pub(super) type Pieces = Vec<(Range, NextHop)>;

/// The gateways of a fleet's real servers. Left to the host's stack are those that are on-link, have several next
/// hops or none, and all of them where policy rules choose the routes, or nobody can be asked.
pub(super) fn find(fleet: &Fleet) -> Result<Pieces, NetlinkError> {
    let mut netlink = Netlink::open(NETLINK_ROUTE)?;
    if !has_usual_rules(&mut netlink)? {
        return Ok(Pieces::new());
    }
    let Some(edges) = edges() else {
        return Ok(Pieces::new());
    };
    let Some(multipath) = several_hops(&mut netlink)? else {
        return Ok(Pieces::new());
    };
    let mut pieces = Pieces::new();
    let ranges: BTreeSet<_> = fleet.groups().iter().flat_map(Group::ranges).collect();
    for range in ranges {
        let (first, last) = (range.first.to_bits(), range.last.to_bits());
        let inside = edges.range(first.saturating_add(1)..=last.max(first.saturating_add(1)));
        let starts: Vec<_> = [first]
            .into_iter()
            .chain(inside.copied().filter(|edge| *edge <= last))
            .collect();
        if pieces.len() + starts.len() > MOST_PIECES {
            break;
        }
        for (number, start) in starts.iter().enumerate() {
            let end = starts.get(number + 1).map_or(last, |next| next - 1);
            let piece = Range {
                first: Ipv4Addr::from_bits(*start),
                last: Ipv4Addr::from_bits(end),
            };
            let has_several = multipath.iter().any(|several| several.overlaps(&piece));
            let hop = next_hop(&mut netlink, fleet.dip(), piece.first)?;
            if let Some(hop) = hop.filter(|_| !has_several) {
                pieces.push((piece, hop));
            }
        }
    }
    pieces.sort();
    Ok(pieces)
}

fn next_hop(
    netlink: &mut Netlink,
    dip: Ipv4Addr,
    to: Ipv4Addr,
) -> Result<Option<NextHop>, NetlinkError> {
    let query = RouteQuery {
        to,
        from: Some(dip),
        iif: None,
    };
    Ok(match routes::look_up(netlink, &query)? {
        RouteAnswer::Route(route) if route.kind == RouteKind::Unicast => {
            let (device, gateway) = (route.device, route.gateway);
            device
                .zip(gateway)
                .map(|(device, gateway)| NextHop { device, gateway })
        }
        _ => None,
    })
}

/// Whether routes are chosen by destination alone: the three rules that every host begins with.
fn has_usual_rules(netlink: &mut Netlink) -> Result<bool, NetlinkError> {
    let mut ask = RuleMessage::default();
    ask.header.family = AddressFamily::Inet;
    let answer = netlink.dump(RouteNetlinkMessage::GetRule(ask))?;
    let is_usual = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRule(rule) => {
            let selects = rule.header.src_len > 0 || rule.header.dst_len > 0;
            let priority = rule
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RuleAttribute::Priority(priority) => Some(*priority),
                    _ => None,
                });
            !selects && matches!(priority.unwrap_or(0), 0 | 32_766 | 32_767)
        }
        _ => false,
    };
    Ok(answer.undecoded.is_empty() && answer.messages.iter().all(is_usual))
}

/// The destinations of routes that have several next hops, and so none for all packets; `None` if they cannot
/// be read.
fn several_hops(netlink: &mut Netlink) -> Result<Option<Vec<Range>>, NetlinkError> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = AddressFamily::Inet;
    let answer = netlink.dump(RouteNetlinkMessage::GetRoute(ask))?;
    if !answer.undecoded.is_empty() {
        return Ok(None);
    }
    let mut several = Vec::new();
    for message in &answer.messages {
        let RouteNetlinkMessage::NewRoute(route) = message else {
            continue;
        };
        let has_one = |attribute: &RouteAttribute| {
            matches!(attribute, RouteAttribute::Oif(_)) // not of a group of next hops
        };
        let is_many =
            |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::MultiPath(_));
        let plain = route.attributes.iter().any(has_one) && !route.attributes.iter().any(is_many);
        let to = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(to.to_bits()),
                _ => None,
            });
        if !plain {
            let to = to.unwrap_or(0);
            let length = u32::from(route.header.destination_prefix_length);
            several.push(Range {
                first: Ipv4Addr::from_bits(to),
                last: Ipv4Addr::from_bits(to | u32::MAX.checked_shr(length).unwrap_or(0)),
            });
        }
    }
    Ok(Some(several))
}

/// Where routes of the main table begin, and where what follows them does; `None` if they cannot be read, or are too
/// many.
fn edges() -> Option<BTreeSet<u32>> {
    let file = File::open("/proc/thread-self/net/route").ok()?;
    let mut edges = BTreeSet::new();
    for line in BufReader::new(file).lines().skip(1) {
        let line = line.ok()?;
        let words: Vec<_> = line.split_whitespace().collect();
        // Words in hex of this host's own byte order.
        let word = |nth: usize| {
            let number = u32::from_str_radix(words.get(nth)?, 16).ok()?;
            Some(u32::from_be_bytes(number.to_ne_bytes()))
        };
        let (to, mask) = (word(1)?, word(7)?);
        edges.insert(to);
        edges.extend((to | !mask).checked_add(1));
        if edges.len() > MOST_ROUTES {
            return None;
        }
    }
    Some(edges)
}

/// The hardware address of a next hop, if the kernel knows it now.
pub(super) fn hardware_address(hop: &NextHop) -> Result<Option<[u8; 6]>, NeighbourError> {
    let found = neighbour::find(hop.gateway, &hop.device)?.map(|(found, _)| found);
    let usable = found.filter(|entry| entry.state & neighbour::VALID != 0);
    Ok(usable.and_then(|entry| entry.mac))
}
