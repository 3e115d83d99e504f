//! The lab's hosts, devices, addresses and routes.
//!
//! ```text
//! c ── r1 ── core ── rd ── d
//!             └── isp ── gw ── s
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::lab::LabError;
use crate::live::netns::Namespace;
use crate::live::network::Network;
use crate::live::network::Route;
use crate::live::network::VethEnd;

/// The virtual IP.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The service's port.
pub(super) const PORT: u16 = 80;
/// The client's address.
pub(super) const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The director's own address.
pub(super) const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The director's router.
pub(super) const RD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The real server's own address.
pub(super) const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// The real server's gateway.
pub(super) const GW: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The ISP's address toward `core`.
pub(super) const ISP: Ipv4Addr = Ipv4Addr::new(10, 64, 3, 2);
/// An address of the real server's network that nobody has.
pub(super) const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// An address that the director had once.
pub(super) const FORMER: Ipv4Addr = Ipv4Addr::new(10, 64, 9, 9);
/// What a tunnel leaves of 1500 octets.
pub(super) const TUNNEL_MTU: u32 = 1480;

/// A host of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// The client.
    C,
    /// The client's router.
    R1,
    /// The router between the networks.
    Core,
    /// The director's router.
    Rd,
    /// The director.
    D,
    /// The real server's ISP.
    Isp,
    /// The real server's gateway.
    Gw,
    /// The real server.
    S,
}

impl Node {
    /// Every host, from the client on.
    pub const ALL: [Node; 8] = [
        Node::C,
        Node::R1,
        Node::Core,
        Node::Rd,
        Node::D,
        Node::Isp,
        Node::Gw,
        Node::S,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Node::C => "c",
            Node::R1 => "r1",
            Node::Core => "core",
            Node::Rd => "rd",
            Node::D => "d",
            Node::Isp => "isp",
            Node::Gw => "gw",
            Node::S => "s",
        }
    }

    /// Whether it passes packets on.
    fn forwards(self) -> bool {
        !matches!(self, Node::C | Node::S)
    }

    fn routes(self) -> Vec<Route> {
        let ip = Ipv4Addr::new;
        match self {
            Node::C => vec![Route::default_via(ip(198, 51, 100, 1))],
            Node::R1 => vec![Route::default_via(ip(10, 64, 1, 2))],
            Node::Core => vec![
                Route::via(ip(198, 51, 100, 0), 24, ip(10, 64, 1, 1)),
                Route::via(ip(192, 0, 2, 0), 29, ip(10, 64, 2, 2)),
                Route::via(VIP, 32, ip(10, 64, 2, 2)),
                Route::via(ip(203, 0, 113, 0), 24, ISP),
                Route::via(ip(10, 64, 4, 0), 30, ISP),
            ],
            Node::Rd => vec![
                Route::default_via(ip(10, 64, 2, 1)),
                Route::via(VIP, 32, DIP),
            ],
            Node::D => vec![Route::default_via(RD)],
            Node::Isp => vec![
                Route::default_via(ip(10, 64, 3, 1)),
                Route::via(ip(203, 0, 113, 0), 24, ip(10, 64, 4, 2)),
            ],
            Node::Gw => vec![Route::default_via(ip(10, 64, 4, 1))],
            Node::S => vec![Route::default_via(GW)],
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The index of the first device; the kernel's own have lower ones. Every device of the lab has another.
const FIRST_INDEX: u32 = 100;
/// The tunnel device's index; its far end has the next.
pub(super) const TUNNEL_INDEX: u32 = 200;
/// The same for the director's stand-in.
pub(super) const DIRECTOR_INDEX: u32 = 202;

/// One end of a link: host, device, address, prefix length.
type End = (Node, &'static str, Ipv4Addr, u8);

const fn end(node: Node, name: &'static str, ip: [u8; 4], prefix: u8) -> End {
    (
        node,
        name,
        Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]),
        prefix,
    )
}

const LINKS: [(End, End); 7] = [
    (
        end(Node::C, "eth0", [198, 51, 100, 7], 24),
        end(Node::R1, "eth0", [198, 51, 100, 1], 24),
    ),
    (
        end(Node::R1, "eth1", [10, 64, 1, 1], 30),
        end(Node::Core, "eth0", [10, 64, 1, 2], 30),
    ),
    (
        end(Node::Core, "eth1", [10, 64, 2, 1], 30),
        end(Node::Rd, "eth0", [10, 64, 2, 2], 30),
    ),
    (
        end(Node::Rd, "eth1", [192, 0, 2, 1], 29),
        end(Node::D, "eth0", [192, 0, 2, 2], 29),
    ),
    (
        end(Node::Core, "eth2", [10, 64, 3, 1], 30),
        end(Node::Isp, "eth0", [10, 64, 3, 2], 30),
    ),
    (
        end(Node::Isp, "eth1", [10, 64, 4, 1], 30),
        end(Node::Gw, "eth0", [10, 64, 4, 2], 30),
    ),
    (
        end(Node::Gw, "eth1", [203, 0, 113, 1], 24),
        end(Node::S, "eth0", [203, 0, 113, 5], 24),
    ),
];

/// Settings of every host, before it has devices; those with a device's name are its devices' later on.
const SETTINGS: [(&str, &str); 6] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/lo/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
];

/// The hosts' namespaces, with the network of each.
pub(super) struct Hosts {
    hosts: BTreeMap<Node, (Namespace, Network)>,
}

impl Hosts {
    /// Builds them all, with links, addresses and routes, and the VIP on the director.
    pub(super) fn build() -> Result<Hosts, LabError> {
        let mut hosts = BTreeMap::new();
        for node in Node::ALL {
            let namespace = Namespace::new()?;
            for (name, value) in SETTINGS {
                set(&namespace, node, name, value)?;
            }
            set(
                &namespace,
                node,
                "net/ipv4/ip_forward",
                if node.forwards() { "1" } else { "0" },
            )?;
            // A kernel without IPv6 has no such setting.
            let _ = namespace.set("net/ipv6/conf/default/disable_ipv6", "1");
            let mut network = namespace.run(Network::open)?;
            network.set_up("lo", true)?;
            hosts.insert(node, (namespace, network));
        }
        let mut hosts = Hosts { hosts };
        for (index, (one, other)) in (FIRST_INDEX..).step_by(2).zip(LINKS) {
            hosts.link(one, other, index)?;
        }
        for node in Node::ALL {
            for route in node.routes() {
                hosts.network(node).add_route(&route)?;
            }
        }
        hosts.network(Node::D).add_address("lo", VIP, 32)?;
        Ok(hosts)
    }

    fn link(&mut self, one: End, other: End, index: u32) -> Result<(), LabError> {
        let (here, there) = (
            handle(self.namespace(one.0))?,
            handle(self.namespace(other.0))?,
        );
        let ends = [
            VethEnd {
                name: one.1,
                index,
                namespace: &here,
            },
            VethEnd {
                name: other.1,
                index: index + 1,
                namespace: &there,
            },
        ];
        self.network(one.0).add_veth(&ends[0], &ends[1])?;
        for (node, name, ip, prefix) in [one, other] {
            self.network(node).add_address(name, ip, prefix)?;
            self.network(node).set_up(name, true)?;
        }
        for (node, name, ..) in [one, other] {
            self.network(node).wait_until_passing(name)?;
        }
        Ok(())
    }

    pub(super) fn namespace(&self, node: Node) -> &Namespace {
        &self.hosts[&node].0
    }

    pub(super) fn network(&mut self, node: Node) -> &mut Network {
        let (_, network) = self.hosts.get_mut(&node).expect("every host is built");
        network
    }

    /// The number of each host's thread.
    pub(super) fn threads(&self) -> BTreeMap<Node, u32> {
        self.hosts
            .iter()
            .map(|(node, (namespace, _))| (*node, namespace.thread()))
            .collect()
    }
}

/// A handle to a namespace of our own.
pub(super) fn handle(namespace: &Namespace) -> Result<std::fs::File, LabError> {
    namespace.file().map_err(|source| LabError::Keeper {
        operation: "find a namespace of",
        source,
    })
}

/// Writes a setting of `node`.
pub(super) fn set(
    namespace: &Namespace,
    node: Node,
    name: &str,
    value: &str,
) -> Result<(), LabError> {
    namespace
        .set(name, value)
        .map_err(|source| LabError::Setting {
            name: name.replace('/', "."),
            value: value.to_owned(),
            host: node.to_string(),
            source,
        })
}

/// The lab's path file; `via` is the command that runs an argv on a host.
pub fn path_file(via: impl Fn(Node) -> String) -> String {
    format!(
        "# The lab's path: c - r1 - core - rd - d, and core - isp - gw - s.\n\n\
         [path]\nvip = \"{VIP}\"\nport = {PORT}\nprotocol = \"tcp\"\n\n\
         [director]\nip = \"{DIP}\"\nvia = {}\n\n\
         [[realserver]]\nname = \"s\"\nip = \"{RIP}\"\nvia = {}\n\n\
         [client]\nip = \"{CIP}\"\nvia = {}\n",
        quoted(&via(Node::D)),
        quoted(&via(Node::S)),
        quoted(&via(Node::C)),
    )
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::network::NextHop;

    #[test]
    fn every_gateway_is_a_neighbour() {
        let of = |node: Node| {
            LINKS
                .iter()
                .filter_map(move |(one, other)| match () {
                    () if one.0 == node => Some(other.2),
                    () if other.0 == node => Some(one.2),
                    () => None,
                })
                .collect::<Vec<_>>()
        };
        for node in Node::ALL {
            for route in node.routes() {
                let NextHop::Via(gateway) = route.hop else {
                    panic!("{node}: {route}");
                };
                assert!(of(node).contains(&gateway), "{node}: {route}");
            }
        }
    }
}
