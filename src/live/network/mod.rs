//! Devices, addresses, routes and rules of a network namespace, as `ip` sets them up.
//!
//! Each call leaves things as it says, whatever they were before: what is to be added may be there already,
//! what is to be deleted may be gone.

mod routing;

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_core::NLM_F_EXCL;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::InfoData;
use netlink_packet_route::link::InfoVeth;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourAddress;
use netlink_packet_route::neighbour::NeighbourAttribute;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::neighbour::NeighbourState;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::LinkIpIp;
use rtnetlink::LinkMessageBuilder;
use rtnetlink::LinkUnspec;
use rtnetlink::LinkVeth;

use crate::exchange::Link;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::live::links;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;
use crate::live::routes;

pub use routing::NextHop;
pub use routing::Route;
pub use routing::Rule;

/// Why the network could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct NetworkError {
    /// What was tried, as in `add route default via 192.0.2.1`.
    pub operation: String,
    /// Why it failed.
    pub source: NetlinkError,
}

/// One end of a veth pair.
pub struct VethEnd<'a> {
    /// The device's name.
    pub name: &'a str,
    /// The device's index. If both ends have the same, the kernel takes them for no pair and may wait a second
    /// before it lets packets pass (`linkwatch_urgent_event` of `net/core/link_watch.c`).
    pub index: u32,
    /// The namespace it is in.
    pub namespace: &'a File,
}

/// A conversation with the kernel about one namespace's network.
pub struct Network {
    netlink: Netlink,
}

impl Network {
    /// Opens one in the calling thread's network namespace; it may be used from any thread.
    ///
    /// # Errors
    ///
    /// If there is no netlink.
    pub fn open() -> Result<Network, NetlinkError> {
        Ok(Network {
            netlink: Netlink::open(NETLINK_ROUTE)?,
        })
    }

    /// The devices and their addresses; `ip -d address`.
    ///
    /// # Errors
    ///
    /// If the kernel could not be asked.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        Ok(links::list(&mut self.netlink)?.links)
    }

    /// The device `name`, if there is one; `ip -d address show dev NAME`.
    ///
    /// # Errors
    ///
    /// If the kernel could not be asked.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Waits until a device that was switched on, or whose other end was, passes packets: the kernel gets round to
    /// that a little later, and drops them until then.
    ///
    /// # Errors
    ///
    /// If it does not within five seconds.
    pub fn wait_until_passing(&mut self, name: &str) -> Result<(), NetworkError> {
        let failed = |source| NetworkError {
            operation: format!("see device {name} pass packets"),
            source,
        };
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            // IFF_RUNNING, unlike IFF_LOWER_UP, comes with the queue's activation.
            let answer = self
                .netlink
                .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
                .map_err(failed)?;
            let is_passing = answer.messages.iter().any(|message| match message {
                RouteNetlinkMessage::NewLink(link) => {
                    let is_meant = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(other) if other == name);
                    link.header.flags.contains(LinkFlags::Running)
                        && link.attributes.iter().any(is_meant)
                }
                _ => false,
            });
            if is_passing {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(failed(NetlinkError::Refused(
                    io::ErrorKind::TimedOut.into(),
                )));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The source address the kernel chooses toward `to`, if there is a route; `ip route get TO`.
    ///
    /// # Errors
    ///
    /// If the kernel could not be asked.
    pub fn source_toward(&mut self, to: Ipv4Addr) -> Result<Option<Ipv4Addr>, NetlinkError> {
        let query = RouteQuery {
            to,
            from: None,
            iif: None,
        };
        match routes::look_up(&mut self.netlink, &query)? {
            RouteAnswer::Route(route) => Ok(route.source),
            RouteAnswer::Error { .. } => Ok(None),
        }
    }

    /// Adds a veth pair, both ends down.
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub fn add_veth(&mut self, one: &VethEnd<'_>, other: &VethEnd<'_>) -> Result<(), NetworkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(other.name)
            .index(other.index)
            .setns_by_fd(other.namespace.as_raw_fd())
            .build();
        let message = LinkVeth::new(one.name, other.name)
            .index(one.index)
            .setns_by_fd(one.namespace.as_raw_fd())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.request(
            || format!("add devices {} and {}", one.name, other.name),
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            &[],
        )
    }

    /// Adds an `ipip` device; without ends it takes every packet that no other one takes. A kernel that makes
    /// `tunl0` by itself has it already.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP if the kernel has no `ipip`.
    pub fn add_ipip(
        &mut self,
        name: &str,
        ends: Option<(Ipv4Addr, Ipv4Addr)>,
    ) -> Result<(), NetworkError> {
        let mut builder = LinkIpIp::new(name);
        if let Some((local, remote)) = ends {
            builder = builder.local(local).remote(remote);
        }
        self.request(
            || format!("add ipip device {name}"),
            RouteNetlinkMessage::NewLink(builder.build()),
            NLM_F_CREATE | NLM_F_EXCL,
            &[libc::EEXIST],
        )
    }

    /// Deletes a device, a veth with its other end.
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetworkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new().name(name).build();
        self.request(
            || format!("delete device {name}"),
            RouteNetlinkMessage::DelLink(message),
            0,
            &[libc::ENODEV],
        )
    }

    /// Switches a device on or off.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), NetworkError> {
        let builder = LinkMessageBuilder::<LinkUnspec>::new().name(name);
        let message = if up { builder.up() } else { builder.down() };
        let state = if up { "up" } else { "down" };
        self.change_link(|| format!("set device {name} {state}"), message.build())
    }

    /// Makes a device look like a tunnel's: no ARP, this MTU, and no segmentation left to it.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn set_tunnel_like(&mut self, name: &str, mtu: u32) -> Result<(), NetworkError> {
        let message = LinkMessageBuilder::<LinkUnspec>::new()
            .name(name)
            .mtu(mtu)
            .arp(false)
            .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
            .build();
        self.change_link(|| format!("set device {name} noarp mtu {mtu}"), message)
    }

    fn change_link(
        &mut self,
        operation: impl FnOnce() -> String,
        message: LinkMessage,
    ) -> Result<(), NetworkError> {
        self.request(operation, RouteNetlinkMessage::SetLink(message), 0, &[])
    }

    /// Gives a device an address.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn add_address(
        &mut self,
        name: &str,
        ip: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let operation = || format!("add address {ip}/{prefix} to {name}");
        let message = self.address(operation, name, ip, prefix)?;
        self.request(
            operation,
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &[],
        )
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn delete_address(
        &mut self,
        name: &str,
        ip: Ipv4Addr,
        prefix: u8,
    ) -> Result<(), NetworkError> {
        let operation = || format!("delete address {ip}/{prefix} from {name}");
        let message = self.address(operation, name, ip, prefix)?;
        self.request(
            operation,
            RouteNetlinkMessage::DelAddress(message),
            0,
            &[libc::EADDRNOTAVAIL],
        )
    }

    fn address(
        &mut self,
        operation: impl Fn() -> String,
        name: &str,
        ip: Ipv4Addr,
        prefix: u8,
    ) -> Result<AddressMessage, NetworkError> {
        Ok(AddressMessageBuilder::<Ipv4Addr>::new()
            .index(self.index(operation, name)?)
            .address(ip, prefix)
            .build())
    }

    fn index(&mut self, operation: impl Fn() -> String, name: &str) -> Result<u32, NetworkError> {
        self.link(name)
            .and_then(|link| match link {
                Some(link) => Ok(link.index),
                None => Err(NetlinkError::Refused(io::Error::from_raw_os_error(
                    libc::ENODEV,
                ))),
            })
            .map_err(|source| NetworkError {
                operation: operation(),
                source,
            })
    }

    /// Adds a neighbour entry that never needs ARP; `ip neigh replace IP lladdr MAC nud permanent dev NAME`.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn add_neighbour(
        &mut self,
        name: &str,
        ip: Ipv4Addr,
        mac: [u8; 6],
    ) -> Result<(), NetworkError> {
        let operation = || format!("add neighbour {ip} of {name}");
        let mut message = self.neighbour(operation, name, ip)?;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.request(
            operation,
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &[],
        )
    }

    /// Deletes a neighbour entry; `ip neigh del IP dev NAME`.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn delete_neighbour(&mut self, name: &str, ip: Ipv4Addr) -> Result<(), NetworkError> {
        let operation = || format!("delete neighbour {ip} of {name}");
        let message = self.neighbour(operation, name, ip)?;
        self.request(
            operation,
            RouteNetlinkMessage::DelNeighbour(message),
            0,
            &[libc::ENOENT],
        )
    }

    fn neighbour(
        &mut self,
        operation: impl Fn() -> String,
        name: &str,
        ip: Ipv4Addr,
    ) -> Result<NeighbourMessage, NetworkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = self.index(operation, name)?;
        message
            .attributes
            .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)));
        Ok(message)
    }

    /// Has one thing done; the error numbers in `done` say that it is so already.
    fn request(
        &mut self,
        operation: impl FnOnce() -> String,
        message: RouteNetlinkMessage,
        flags: u16,
        done: &[i32],
    ) -> Result<(), NetworkError> {
        match self.netlink.request(message, flags) {
            Ok(_) => Ok(()),
            Err(error) if error.refusal().is_some_and(|errno| done.contains(&errno)) => Ok(()),
            Err(source) => Err(NetworkError {
                operation: operation(),
                source,
            }),
        }
    }
}
