//! What an agent may send: packets from and to the addresses that the path file declares, nothing else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::wire::Arp;
use crate::wire::EtherType;
use crate::wire::Ethernet;
use crate::wire::Octets;
use crate::wire::named;

/// The declared addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    addresses: BTreeSet<Ipv4Addr>,
    /// Next hops that this host's own routes name: ARP may ask for them.
    #[serde(skip)]
    gateways: BTreeSet<Ipv4Addr>,
    /// This host's own addresses: ARP may come from them.
    #[serde(skip)]
    own: BTreeSet<Ipv4Addr>,
}

/// Why a packet is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfScope {
    /// An address is not in the path file.
    #[error("{address}, the {role}, is not an address of the path file")]
    Address {
        /// The address.
        address: Ipv4Addr,
        /// What it is in the packet, such as `inner destination`.
        role: &'static str,
    },
    /// It cannot be told where it would go.
    #[error("the packet is {0}")]
    Unclear(&'static str),
}

impl Scope {
    /// A scope of these addresses.
    pub fn new(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Scope {
        Scope {
            addresses: addresses.into_iter().collect(),
            ..Scope::default()
        }
    }

    /// Lets ARP ask for a next hop that this host's own routes name.
    pub fn allow_gateway(&mut self, gateway: Ipv4Addr) {
        self.gateways.insert(gateway);
    }

    /// Lets ARP come from an address of this host: it may reach the client by another device than the RIP's.
    pub fn allow_own(&mut self, address: Ipv4Addr) {
        self.own.insert(address);
    }

    /// Whether a packet may be sent: it may name nobody but those that are declared, neither in a header nor in
    /// one inside, in a quote or in a source route, and nothing in it may hide a header.
    ///
    /// What a UDP datagram or a TCP segment carries is not looked at.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`], for the first thing in it that may not.
    pub fn check(&self, transmit: &Transmit) -> Result<(), OutOfScope> {
        let octets = Octets::new(&transmit.bytes);
        match &transmit.way {
            Way::Stack => self.check_ipv4(octets),
            Way::Frame { .. } => {
                let frame = Ethernet::checked(octets)
                    .map_err(|_| OutOfScope::Unclear("too short for a frame"))?;
                match frame.ethertype {
                    EtherType::IPV4 => self.check_ipv4(frame.payload),
                    EtherType::ARP => self.check_arp(frame.payload),
                    _ => Err(OutOfScope::Unclear("neither IPv4 nor ARP")),
                }
            }
        }
    }

    /// Whether a connection may be opened to this address.
    ///
    /// # Errors
    ///
    /// [`OutOfScope::Address`].
    pub fn check_destination(&self, address: Ipv4Addr) -> Result<(), OutOfScope> {
        self.contains(address, "destination")
    }

    fn check_ipv4(&self, packet: Octets<'_>) -> Result<(), OutOfScope> {
        let named = named(packet.bytes()).map_err(|hidden| OutOfScope::Unclear(hidden.0))?;
        for name in named {
            self.contains(name.address, name.role)?;
        }
        Ok(())
    }

    fn check_arp(&self, packet: Octets<'_>) -> Result<(), OutOfScope> {
        let arp = Arp::checked(packet)
            .map_err(|_| OutOfScope::Unclear("no whole ARP packet for IPv4"))?;
        // Sender 0.0.0.0 is a probe of RFC 5227: it announces nobody.
        let sender = arp.sender_ip;
        if !sender.is_unspecified() && !self.own.contains(&sender) {
            self.contains(sender, "ARP sender")?;
        }
        match self.gateways.contains(&arp.target_ip) {
            true => Ok(()),
            false => self.contains(arp.target_ip, "ARP target"),
        }
    }

    fn contains(&self, address: Ipv4Addr, role: &'static str) -> Result<(), OutOfScope> {
        match self.addresses.contains(&address) {
            true => Ok(()),
            false => Err(OutOfScope::Address { address, role }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    const STRANGER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

    fn scope() -> Scope {
        Scope::new([CIP, VIP, DIP, RIP])
    }

    fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[3] = 20 + payload.len() as u8;
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(payload);
        packet
    }

    fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Transmit {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 6]);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1]);
        frame.extend(sender.octets());
        frame.extend([0; 6]);
        frame.extend(target.octets());
        Transmit {
            way: Way::Frame {
                device: "eth0".to_owned(),
            },
            bytes: frame,
        }
    }

    fn check(packet: Vec<u8>) -> Result<(), String> {
        let transmit = Transmit {
            way: Way::Stack,
            bytes: packet,
        };
        scope().check(&transmit).map_err(|e| e.to_string())
    }

    #[test]
    fn declared_addresses_may_be_sent_to() {
        let inner = ipv4(CIP, VIP, 17, &[0; 8]);
        assert_eq!(check(ipv4(DIP, RIP, 4, &inner)), Ok(()));
        assert_eq!(check(inner), Ok(()));
        assert_eq!(scope().check_destination(VIP), Ok(()));
    }

    #[test]
    fn a_stranger_is_refused_wherever_it_stands() {
        let refused = |role| {
            Err(format!(
                "8.8.8.8, the {role}, is not an address of the path file"
            ))
        };
        let tunnelled = |inner: Vec<u8>| check(ipv4(DIP, RIP, 4, &inner));
        assert_eq!(check(ipv4(STRANGER, VIP, 6, &[])), refused("source"));
        assert_eq!(check(ipv4(CIP, STRANGER, 6, &[])), refused("destination"));
        assert_eq!(
            tunnelled(ipv4(STRANGER, VIP, 6, &[])),
            refused("inner source")
        );
        assert_eq!(
            tunnelled(ipv4(CIP, STRANGER, 6, &[])),
            refused("inner destination")
        );
        let mut routed = ipv4(CIP, VIP, 6, &[131, 7, 4, 8, 8, 8, 8, 0]);
        routed[0] = 0x47;
        assert_eq!(check(routed), refused("hop of the source route"));
        let quoting = |icmp: [u8; 8]| {
            let quoted = ipv4(CIP, STRANGER, 6, &[0; 8]);
            check(ipv4(VIP, CIP, 1, &[&icmp[..], &quoted].concat()))
        };
        let unreachable = [3, 3, 0, 0, 0, 0, 0, 0];
        assert_eq!(quoting(unreachable), refused("quoted destination"));
        let redirect = [5, 1, 0, 0, 8, 8, 8, 8];
        assert_eq!(quoting(redirect), refused("gateway of the redirect"));
        let twice = ipv4(CIP, VIP, 4, &ipv4(CIP, STRANGER, 6, &[]));
        assert_eq!(tunnelled(twice), refused("inner destination"));
        assert!(scope().check_destination(STRANGER).is_err());
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        let unclear = |what: &str| Err(format!("the packet is {what}"));
        assert_eq!(check(vec![0x45; 19]), unclear("no whole IPv4 header"));
        let mut broken = ipv4(CIP, VIP, 6, &[131, 9, 4, 8, 8, 8, 8, 0]);
        broken[0] = 0x47;
        assert_eq!(
            check(broken),
            unclear("an IPv4 packet with options that cannot be read")
        );
        let mut fragment = ipv4(DIP, RIP, 4, &[0; 40]);
        fragment[7] = 1;
        assert_eq!(
            check(fragment),
            unclear("a fragment of a header in another")
        );
        assert_eq!(
            check(ipv4(DIP, RIP, 47, &[0; 24])),
            unclear("of a protocol that can hold another packet")
        );
        let mut tagged = arp(VIP, VIP);
        tagged.bytes[12..14].copy_from_slice(&[0x81, 0]);
        assert_eq!(
            scope().check(&tagged),
            Err(OutOfScope::Unclear("neither IPv4 nor ARP"))
        );
    }

    #[test]
    fn arp_may_ask_for_declared_addresses_and_for_this_hosts_next_hops() {
        let mut scope = scope();
        assert_eq!(scope.check(&arp(RIP, VIP)), Ok(()));
        assert_eq!(scope.check(&arp(Ipv4Addr::UNSPECIFIED, VIP)), Ok(()));
        let refused = scope.check(&arp(VIP, GATEWAY)).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("203.0.113.1, the ARP target")
        );
        scope.allow_gateway(GATEWAY);
        assert_eq!(scope.check(&arp(VIP, GATEWAY)), Ok(()));
        assert!(scope.check(&arp(GATEWAY, VIP)).is_err());
        let other = Ipv4Addr::new(10, 64, 5, 2);
        assert!(scope.check(&arp(other, GATEWAY)).is_err());
        scope.allow_own(other);
        assert_eq!(scope.check(&arp(other, GATEWAY)), Ok(()));
        assert!(scope.check(&arp(GATEWAY, other)).is_err());
    }
}
