//! Route lookups, as `ip route get` makes them.

use std::net::Ipv4Addr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteAddress;
use netlink_packet_route::route::RouteAttribute;
use netlink_packet_route::route::RouteFlags;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::route::RouteMetric;
use netlink_packet_route::route::RouteType;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::net::if_::if_nametoindex;

use crate::exchange::Route;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::exchange::RouteQuery;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;

/// Asks the kernel for one route. An error of the lookup is an answer; the error returned is one of the
/// conversation.
pub(super) fn look_up(
    netlink: &mut Netlink,
    query: &RouteQuery,
) -> Result<RouteAnswer, NetlinkError> {
    let iif = match query.iif.as_deref().map(if_nametoindex).transpose() {
        Ok(index) => index,
        Err(errno) => {
            return Ok(RouteAnswer::Error {
                errno: errno as i32,
                error: errno.desc().to_owned(),
            });
        }
    };
    match netlink.request(RouteNetlinkMessage::GetRoute(ask(query, iif)), 0) {
        Ok(answer) => answer
            .messages
            .iter()
            .find_map(|message| match message {
                RouteNetlinkMessage::NewRoute(message) => Some(route(message)),
                _ => None,
            })
            .map(RouteAnswer::Route)
            .ok_or_else(|| {
                let why: Vec<_> = answer.undecoded.iter().map(ToString::to_string).collect();
                NetlinkError::Unreadable(format!("no route in it {}", why.join(", ")))
            }),
        Err(NetlinkError::Refused(error)) => {
            let errno = error.raw_os_error().unwrap_or(0);
            Ok(RouteAnswer::Error {
                errno,
                error: Errno::from_raw(errno).desc().to_owned(),
            })
        }
        Err(error) => Err(error),
    }
}

fn ask(query: &RouteQuery, iif: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    // Without it the answer names table 254 whatever the table.
    message.header.flags = RouteFlags::LookupTable;
    message
        .attributes
        .push(RouteAttribute::Destination(RouteAddress::Inet(query.to)));
    if let Some(from) = query.from {
        message.header.source_prefix_length = 32;
        message
            .attributes
            .push(RouteAttribute::Source(RouteAddress::Inet(from)));
    }
    if let Some(index) = iif {
        message.attributes.push(RouteAttribute::Iif(index));
    }
    message
}

fn route(message: &RouteMessage) -> Route {
    let mut route = Route {
        kind: match message.header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::Local => RouteKind::Local,
            other => RouteKind::Other(other.into()),
        },
        device: None,
        gateway: None,
        source: None,
        table: u32::from(message.header.table),
        mtu: None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => {
                route.device = if_indextoname(*index)
                    .ok()
                    .and_then(|name| name.into_string().ok());
            }
            RouteAttribute::Gateway(address) => route.gateway = inet(address),
            RouteAttribute::PrefSource(address) => route.source = inet(address),
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    route
}

fn inet(address: &RouteAddress) -> Option<Ipv4Addr> {
    match address {
        RouteAddress::Inet(address) => Some(*address),
        _ => None,
    }
}
