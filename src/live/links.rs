//! The host's devices and their IPv4 addresses, as `ip -d address` lists them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::AfSpecInet;
use netlink_packet_route::link::AfSpecUnspec;
use netlink_packet_route::link::InetDevConf;
use netlink_packet_route::link::InfoData;
use netlink_packet_route::link::InfoIpTunnel;
use netlink_packet_route::link::InfoKind;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkExtentMask;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkInfo;
use netlink_packet_route::link::LinkMessage;

use crate::exchange::Address;
use crate::exchange::Link;
use crate::exchange::TunnelEnds;
use crate::exchange::Unread;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;

/// A setting's name, and its value among a device's.
type Setting = (&'static str, fn(&InetDevConf) -> i32);

/// The settings that are read of `all` and of devices.
pub(super) const SETTINGS: [Setting; 6] = [
    ("rp_filter", |of| of.rp_filter),
    ("arp_ignore", |of| of.arp_ignore),
    ("arp_announce", |of| of.arp_announce),
    ("arp_filter", |of| of.arpfilter),
    ("accept_local", |of| of.accept_local),
    ("forwarding", |of| of.forwarding),
];

/// What the kernel says of its devices.
#[derive(Debug, Default)]
pub(super) struct Devices {
    /// All of them, with their IPv4 addresses.
    pub(super) links: Vec<Link>,
    /// Their settings, by their names: those of `/proc/sys/net/ipv4/conf/NAME`, without opening a file for each.
    pub(super) settings: BTreeMap<String, InetDevConf>,
    /// A note for each that could not be read.
    pub(super) unread: Vec<Unread>,
}

/// Lists all devices.
pub(super) fn list(netlink: &mut Netlink) -> Result<Devices, NetlinkError> {
    let mut settings = BTreeMap::new();
    let mut unread = Vec::new();
    let mut ask = LinkMessage::default();
    ask.attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answer = netlink.dump(RouteNetlinkMessage::GetLink(ask))?;
    unread.extend(answer.undecoded.iter().map(|error| Unread {
        what: "a device".to_owned(),
        error: error.to_string(),
    }));
    let mut links: Vec<_> = answer
        .messages
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(message),
            _ => None,
        })
        .map(|message| {
            let link = link(message);
            settings.extend(self::settings(message).map(|found| (link.name.clone(), found)));
            link
        })
        .collect();

    let mut ask = AddressMessage::default();
    ask.header.family = AddressFamily::Inet;
    let answer = netlink.dump(RouteNetlinkMessage::GetAddress(ask))?;
    unread.extend(answer.undecoded.iter().map(|error| Unread {
        what: "an address".to_owned(),
        error: error.to_string(),
    }));
    for message in &answer.messages {
        let RouteNetlinkMessage::NewAddress(message) = message else {
            continue;
        };
        let Some(address) = address(message) else {
            continue;
        };
        match links
            .iter_mut()
            .find(|link| link.index == message.header.index)
        {
            Some(link) => link.addresses.push(address),
            None => unread.push(Unread {
                what: format!("device {}", message.header.index),
                error: format!("it has address {} and is not listed", address.ip),
            }),
        }
    }
    Ok(Devices {
        links,
        settings,
        unread,
    })
}

fn settings(message: &LinkMessage) -> Option<InetDevConf> {
    let families = message.attributes.iter().find_map(|found| match found {
        LinkAttribute::AfSpecUnspec(families) => Some(families),
        _ => None,
    })?;
    let own = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet(own) => Some(own),
        _ => None,
    })?;
    own.iter().find_map(|found| match found {
        AfSpecInet::DevConf(settings) => Some(*settings),
        _ => None,
    })
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        noarp: flags.contains(LinkFlags::Noarp),
        mtu: 0,
        mac: None,
        addresses: Vec::new(),
        tunnel: None,
        carrier_changes: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::CarrierChanges(count) => link.carrier_changes = *count,
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::LinkInfo(infos) => {
                let kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
                link.kind = kind.map(ToString::to_string);
                if kind == Some(&InfoKind::IpIp) {
                    link.tunnel = infos.iter().find_map(|info| match info {
                        LinkInfo::Data(InfoData::IpTunnel(ends)) => Some(tunnel(ends)),
                        _ => None,
                    });
                }
            }
            _ => {}
        }
    }
    link
}

fn tunnel(attributes: &[InfoIpTunnel]) -> TunnelEnds {
    let mut ends = TunnelEnds {
        local: None,
        remote: None,
        link: None,
    };
    for attribute in attributes {
        match attribute {
            InfoIpTunnel::Local(address) => ends.local = end(*address),
            InfoIpTunnel::Remote(address) => ends.remote = end(*address),
            InfoIpTunnel::Link(index) => ends.link = (*index != 0).then_some(*index),
            _ => {}
        }
    }
    ends
}

fn end(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// `IFA_ADDRESS` is the peer's where there is a peer, `IFA_LOCAL` always the device's own.
fn address(message: &AddressMessage) -> Option<Address> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(ip)) => own = Some(*ip),
            AddressAttribute::Address(IpAddr::V4(ip)) => own = own.or(Some(*ip)),
            _ => {}
        }
    }
    own.map(|ip| Address {
        ip,
        prefix: message.header.prefix_len,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;
    use netlink_packet_core::NetlinkPayload;
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;
    use crate::live::testbed::in_namespace;
    use crate::live::testbed::ip;

    /// What 6.1 answers for `ip link add ipip1 type ipip local 203.0.113.5 remote 192.0.2.2 dev 3`, cut
    /// down to the attributes read here (`include/uapi/linux/if_link.h`, `if_tunnel.h`).
    #[cfg(target_endian = "little")]
    #[rustfmt::skip]
    const IPIP: &[u8] = &[
        // struct nlmsghdr: length 104, RTM_NEWLINK, NLM_F_MULTI, sequence, port
        104, 0, 0, 0,  16, 0,  2, 0,  1, 0, 0, 0,  0, 0, 0, 0,
        // struct ifinfomsg: AF_UNSPEC, ARPHRD_TUNNEL, index 7, IFF_UP|RUNNING|NOARP|LOWER_UP, change
        0, 0, 0, 3,  7, 0, 0, 0,  0xc1, 0, 1, 0,  0, 0, 0, 0,
        // IFLA_IFNAME "ipip1"
        10, 0, 3, 0,  b'i', b'p', b'i', b'p', b'1', 0, 0, 0,
        // IFLA_MTU 1480
        8, 0, 4, 0,  0xc8, 0x05, 0, 0,
        // IFLA_ADDRESS: the local end, four octets
        8, 0, 1, 0,  203, 0, 113, 5,
        // IFLA_LINKINFO
        44, 0, 18, 0,
            // IFLA_INFO_KIND "ipip"
            9, 0, 1, 0,  b'i', b'p', b'i', b'p', 0, 0, 0, 0,
            // IFLA_INFO_DATA
            28, 0, 2, 0,
                // IFLA_IPTUN_LINK 3, IFLA_IPTUN_LOCAL, IFLA_IPTUN_REMOTE
                8, 0, 1, 0,  3, 0, 0, 0,
                8, 0, 2, 0,  203, 0, 113, 5,
                8, 0, 3, 0,  192, 0, 2, 2,
    ];

    fn decode(octets: &[u8]) -> Link {
        match NetlinkMessage::deserialize(octets).unwrap().payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => link(&message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_ipip_device_shows_its_ends() {
        assert_eq!(
            decode(IPIP),
            Link {
                index: 7,
                name: "ipip1".to_owned(),
                kind: Some("ipip".to_owned()),
                up: true,
                running: true,
                loopback: false,
                noarp: true,
                mtu: 1480,
                mac: None,
                addresses: Vec::new(),
                tunnel: Some(TunnelEnds {
                    local: Some(Ipv4Addr::new(203, 0, 113, 5)),
                    remote: Some(Ipv4Addr::new(192, 0, 2, 2)),
                    link: Some(3),
                }),
                carrier_changes: 0,
            }
        );
    }

    #[test]
    fn tunl0_takes_packets_from_and_to_any() {
        let mut octets = IPIP.to_vec();
        for end in [84, 92, 100] {
            octets[end..end + 4].fill(0);
        }
        assert_eq!(
            decode(&octets).tunnel,
            Some(TunnelEnds {
                local: None,
                remote: None,
                link: None,
            })
        );
    }

    #[ignore = "needs a kernel with ipip"]
    #[test]
    fn the_kernels_own_tunnels_show_their_ends() {
        in_namespace(
            concat!(module_path!(), "::the_kernels_own_tunnels_show_their_ends"),
            || {
                ip("link add eth0 type veth peer name eth1
                    link add ipip1 type ipip local 203.0.113.5 remote 192.0.2.2 dev eth0
                    link set ipip1 up");
                let mut netlink = Netlink::open(NETLINK_ROUTE).unwrap();
                let Devices { links, unread, .. } = list(&mut netlink).unwrap();
                assert_eq!(unread, []);
                let find = |name| links.iter().find(|link| link.name == name).unwrap();
                let eth0 = find("eth0").index;
                let ends = find("ipip1").tunnel.clone().unwrap();
                assert_eq!(ends.local, Some(Ipv4Addr::new(203, 0, 113, 5)));
                assert_eq!(ends.remote, Some(Ipv4Addr::new(192, 0, 2, 2)));
                assert_eq!(ends.link, Some(eth0));
                let fallback = TunnelEnds {
                    local: None,
                    remote: None,
                    link: None,
                };
                assert_eq!(find("tunl0").tunnel, Some(fallback));
                assert_eq!(find("tunl0").kind.as_deref(), Some("ipip"));
            },
        );
    }
}
