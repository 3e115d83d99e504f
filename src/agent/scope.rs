//! What an agent may do: for the addresses that the path file declares, as far as its host's policy has them, and for
//! nobody else.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::exchange::FirewallQuery;
use crate::exchange::TapPath;
use crate::exchange::TapSpec;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::plan::Family;
use crate::plan::Policy;
use crate::wire::Arp;
use crate::wire::EtherType;
use crate::wire::Ethernet;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Named;
use crate::wire::Octets;
use crate::wire::closes;
use crate::wire::named;

/// The declared addresses, and the policy.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    addresses: BTreeSet<Ipv4Addr>,
    paths: Vec<TapPath>,
    policy: Policy,
    /// Next hops that this host's own routes name: ARP may ask for them.
    gateways: BTreeSet<Ipv4Addr>,
    /// This host's own addresses: ARP may come from them.
    own: BTreeSet<Ipv4Addr>,
    /// The hardware addresses of this host's devices; none, if they are not known.
    macs: BTreeSet<[u8; 6]>,
}

/// Why something is not done.
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
    /// A connection to an address that is no VIP.
    #[error("{0} is no VIP of the path file, and connections go to nothing else")]
    NoVip(Ipv4Addr),
    /// Addresses of the path file, but of several paths.
    #[error("no path of the path file is VIP {vip} at {rip} for {cip}, with the director to hear")]
    NoPath {
        /// The VIP.
        vip: Ipv4Addr,
        /// The RIP.
        rip: Ipv4Addr,
        /// The CIP.
        cip: Ipv4Addr,
    },
    /// What shall close a connection is another packet.
    #[error("the cleanup is no bare RST of the flow that the packet opens")]
    Cleanup,
    /// It cannot be told where it would go.
    #[error("the packet is {0}")]
    Unclear(&'static str),
    /// The path file has an address that the policy does not.
    #[error("`{key}` in {policy} on that host does not have {address}, the {role}")]
    Unlisted {
        /// The address.
        address: Ipv4Addr,
        /// Whose it is, such as `VIP`.
        role: &'static str,
        /// The key that has others.
        key: &'static str,
        /// The policy's file.
        policy: String,
    },
    /// The policy does not have this family.
    #[error("`probes` in {policy} on this host does not have `{family}`")]
    Family {
        /// The family.
        family: Family,
        /// The policy's file.
        policy: String,
    },
    /// The policy lets neighbour entries be.
    #[error("`forget-neighbours` in {policy} on this host is false")]
    Neighbours {
        /// The policy's file.
        policy: String,
    },
}

impl Scope {
    /// A scope of these addresses, under no policy but the usual.
    pub fn new(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Scope {
        Scope {
            addresses: addresses.into_iter().collect(),
            ..Scope::default()
        }
    }

    /// The scope of a request for these paths, under a policy.
    ///
    /// # Errors
    ///
    /// [`OutOfScope::Unlisted`], if the policy lacks an address. A gateway is no role of its own: it is of the real
    /// servers' network, and is sent to only if it is one of them or a next hop of this host, if the policy has any. It is
    /// heard all the same.
    pub fn under(policy: Policy, paths: Vec<TapPath>) -> Result<Scope, OutOfScope> {
        let mut addresses = BTreeSet::new();
        for path in &paths {
            let known = |address: Option<Ipv4Addr>| address.filter(|a| !a.is_unspecified());
            for (address, role, key, list) in [
                (Some(path.vip), "VIP", "vips", &policy.vips),
                // A listener may know neither real server nor client, and sends nothing.
                (
                    known(Some(path.rip)),
                    "real server",
                    "realservers",
                    &policy.realservers,
                ),
                (known(Some(path.cip)), "client", "clients", &policy.clients),
                (path.dip, "director", "directors", &policy.directors),
            ] {
                let Some(address) = address else { continue };
                if !Policy::names(list, address) {
                    let policy = policy.place().to_owned();
                    return Err(OutOfScope::Unlisted {
                        address,
                        role,
                        key,
                        policy,
                    });
                }
                addresses.insert(address);
            }
            let gateway = path.gateway.filter(|gateway| {
                policy.realservers.is_none() || Policy::names(&policy.realservers, *gateway)
            });
            addresses.extend(gateway);
        }
        Ok(Scope {
            addresses,
            paths,
            policy,
            ..Scope::default()
        })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Lets ARP ask for a next hop that this host's own routes name.
    pub fn allow_gateway(&mut self, gateway: Ipv4Addr) {
        self.gateways.insert(gateway);
    }

    /// Lets ARP come from an address of this host: it may reach the client by another device than the RIP's.
    pub fn allow_own(&mut self, address: Ipv4Addr) {
        self.own.insert(address);
    }

    /// A device of this host has this hardware address: ARP may come from it.
    pub fn allow_mac(&mut self, mac: [u8; 6]) {
        self.macs.insert(mac);
    }

    /// Whether a packet may be sent: it may name nobody but those that are declared, neither in a header nor in
    /// one inside, in a quote or in a source route, and nothing in it may hide a header.
    ///
    /// What a UDP datagram or a TCP segment carries is not looked at.
    ///
    /// Its family is returned.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`], for the first thing in it that may not.
    pub fn check(&self, transmit: &Transmit) -> Result<Family, OutOfScope> {
        let octets = Octets::new(&transmit.bytes);
        let family = match &transmit.way {
            Way::Stack => self.check_ipv4(octets)?,
            Way::Frame { .. } => {
                let frame = Ethernet::checked(octets)
                    .map_err(|_| OutOfScope::Unclear("too short for a frame"))?;
                match frame.ethertype {
                    EtherType::IPV4 => self.check_ipv4(frame.payload)?,
                    EtherType::ARP => self.check_arp(&frame)?,
                    _ => return Err(OutOfScope::Unclear("neither IPv4 nor ARP")),
                }
            }
        };
        self.check_family(family)
    }

    /// Whether a packet may be kept, to be sent after another: only what closes a connection that the other opens.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`].
    pub fn check_cleanup(&self, opening: &Transmit, cleanup: &Transmit) -> Result<(), OutOfScope> {
        self.check(cleanup)?;
        let link = match opening.way {
            Way::Stack => 0,
            Way::Frame { .. } => Ethernet::LENGTH,
        };
        match (
            opening.bytes.split_at_checked(link),
            cleanup.bytes.split_at_checked(link),
        ) {
            (Some((frame, opened)), Some((same, closing)))
                if frame == same && opening.way == cleanup.way && closes(opened, closing) =>
            {
                Ok(())
            }
            _ => Err(OutOfScope::Cleanup),
        }
    }

    /// Whether it may be told how the firewall treats these packets: only the paths'.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`].
    pub fn check_firewall(&self, query: &FirewallQuery) -> Result<(), OutOfScope> {
        for packet in &query.packets {
            self.contains(packet.source, "source to ask the firewall about")?;
            self.contains(packet.destination, "destination to ask the firewall about")?;
        }
        Ok(())
    }

    /// Whether a connection may be opened to this address.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`].
    pub fn check_destination(&self, address: Ipv4Addr) -> Result<Family, OutOfScope> {
        self.contains(address, "destination")?;
        match self.paths.iter().any(|path| path.vip == address) {
            true => self.check_family(Family::Service),
            false => Err(OutOfScope::NoVip(address)),
        }
    }

    /// Whether the neighbour entry of this address may be deleted for a while.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`].
    pub fn check_neighbour(&self, address: Ipv4Addr) -> Result<(), OutOfScope> {
        if !self.policy.forget_neighbours {
            let policy = self.policy.place().to_owned();
            return Err(OutOfScope::Neighbours { policy });
        }
        match self.gateways.contains(&address) {
            true => Ok(()),
            false => self.contains(address, "neighbour"),
        }
    }

    /// Whether a tap may see this: nobody's packets but those of the paths.
    ///
    /// # Errors
    ///
    /// [`OutOfScope`].
    pub fn check_tap(&self, spec: &TapSpec) -> Result<(), OutOfScope> {
        for path in &spec.paths {
            for (address, role) in [
                (Some(path.vip), "VIP to hear"),
                (Some(path.rip), "real server to hear"),
                (Some(path.cip), "client to hear"),
                (path.dip, "director to hear"),
            ] {
                if let Some(address) = address.filter(|address| !address.is_unspecified()) {
                    self.contains(address, role)?;
                }
            }
            // A DIP that is declared need not be heard.
            let is_declared = |declared: &&TapPath| {
                (declared.vip, declared.cip, declared.rip) == (path.vip, path.cip, path.rip)
                    && (path.dip.is_none() || declared.dip == path.dip)
            };
            let mut declared = self.paths.iter().filter(is_declared).peekable();
            if declared.peek().is_none() {
                let (vip, rip, cip) = (path.vip, path.rip, path.cip);
                return Err(OutOfScope::NoPath { vip, rip, cip });
            }
            if let Some(gateway) = path.gateway
                && !self.gateways.contains(&gateway)
                && !self.own.contains(&gateway)
                && !declared.any(|declared| declared.gateway == path.gateway)
            {
                self.contains(gateway, "gateway to hear")?;
            }
        }
        if spec.scripted.is_some() {
            self.check_family(Family::Script)?;
        }
        match spec.rewritten.filter(|address| !address.is_unspecified()) {
            Some(address) => self.contains(address, "destination to hear"),
            None => Ok(()),
        }
    }

    fn check_family(&self, family: Family) -> Result<Family, OutOfScope> {
        match self.policy.allows(family) {
            true => Ok(family),
            false => Err(OutOfScope::Family {
                family,
                policy: self.policy.place().to_owned(),
            }),
        }
    }

    fn check_ipv4(&self, packet: Octets<'_>) -> Result<Family, OutOfScope> {
        let named = named(packet.bytes()).map_err(|hidden| OutOfScope::Unclear(hidden.0))?;
        for name in &named {
            self.contains(name.address, name.role)?;
        }
        Ok(self.family(packet, &named))
    }

    /// What a packet is by its ends; of several paths, on any of them.
    fn family(&self, packet: Octets<'_>, named: &[Named]) -> Family {
        let ends: Vec<_> = named.iter().map(|name| name.address).collect();
        let carried = Ipv4::checked(packet).and_then(|outer| match outer.protocol() {
            IpProtocol::IPIP => Ipv4::checked(outer.payload()).map(|inner| inner.protocol()),
            protocol => Ok(protocol),
        });
        if !matches!(carried, Ok(IpProtocol::TCP | IpProtocol::UDP)) {
            return Family::Script;
        }
        let of_path = |path: &TapPath| {
            let (vip, cip, rip) = (path.vip, path.cip, path.rip);
            let dip = path.dip.unwrap_or(Ipv4Addr::UNSPECIFIED);
            Some(match ends[..] {
                [from, to] if (from, to) == (cip, vip) => Family::Service,
                [from, to] if from == vip && [cip, dip].contains(&to) => Family::Spoof,
                [from, to] if from == rip && [cip, dip].contains(&to) => Family::Control,
                [from, to] if (from, to) == (dip, rip) => Family::Control,
                [from, to, inner, last] if to == rip && last == vip => match (from, inner) {
                    (from, inner) if (from, inner) == (dip, cip) => Family::Tunnel,
                    (from, inner) if (from, inner) == (dip, dip) => Family::Reflect,
                    (from, inner) if from == cip && [cip, dip].contains(&inner) => {
                        Family::OpenTunnel
                    }
                    _ => return None,
                },
                _ => return None,
            })
        };
        let mut families = self.paths.iter().filter_map(of_path);
        families.next().unwrap_or(Family::Script)
    }

    /// What is no request, or comes from another's hardware address, is of the family `script`.
    fn check_arp(&self, frame: &Ethernet<'_>) -> Result<Family, OutOfScope> {
        let arp = Arp::checked(frame.payload)
            .map_err(|_| OutOfScope::Unclear("no whole ARP packet for IPv4"))?;
        // Sender 0.0.0.0 is a probe of RFC 5227: it announces nobody.
        let sender = arp.sender_ip;
        if !sender.is_unspecified() && !self.own.contains(&sender) {
            self.contains(sender, "ARP sender")?;
        }
        if !self.gateways.contains(&arp.target_ip) {
            self.contains(arp.target_ip, "ARP target")?;
        }
        let mac = arp.sender_mac;
        let is_own = self.macs.is_empty() || self.macs.contains(&mac.0);
        match arp.operation == Arp::REQUEST && mac == frame.source && is_own {
            true => Ok(Family::Arp),
            false => Ok(Family::Script),
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
mod tests;
