//! The director: the kernel's IPVS where it has one, else a stand-in.
//!
//! The stand-in takes what IPVS would take at LOCAL_IN and LOCAL_OUT by policy routing: TCP to the VIP's port goes
//! to `ipvs0`, one end of a veth pair, ahead of the table `local`. The far end is read backstage, packets are
//! encapsulated and sent by a raw socket, through the director's own routing and OUTPUT rules. Unlike IPVS, it
//! leaves the time to live of the director's own packets as it is.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use std::time::Instant;

use etherparse::IpNumber;
use etherparse::Ipv4HeaderSlice;
use etherparse::TcpHeaderSlice;
use etherparse::icmpv4::DestUnreachableHeader;
use nix::libc;

use crate::exchange::IpvsDestination;
use crate::exchange::IpvsKey;
use crate::exchange::IpvsMethod;
use crate::lab::LabError;
use crate::lab::Maker;
use crate::lab::Node;
use crate::lab::packet;
use crate::lab::packet::Ends;
use crate::lab::state::Faults;
use crate::lab::topology::DIRECTOR_INDEX;
use crate::lab::topology::Hosts;
use crate::lab::topology::PORT;
use crate::lab::topology::RIP;
use crate::lab::topology::TUNNEL_MTU;
use crate::lab::topology::VIP;
use crate::lab::topology::handle;
use crate::live::NetlinkError;
use crate::live::frames::Packets;
use crate::live::ipvs;
use crate::live::netns::Namespace;
use crate::live::network::Network;
use crate::live::network::NextHop;
use crate::live::network::Route;
use crate::live::network::Rule;
use crate::live::network::VethEnd;

/// A fault that the stand-in acts out itself, as it does the two below.
pub(super) const NO_DESTINATION: &str = "ipvs-destination-missing";
/// The second.
pub(super) const NO_WEIGHT: &str = "ipvs-weight-zero";
/// The third.
pub(super) const NOT_TUNNEL: &str = "ipvs-not-tunnel";

/// The fourth.
pub(super) const TUNNEL_TYPE: &str = "ipvs-tunnel-type-mismatch";
/// GUE's port (`ipvsadm`'s documentation has it so).
const GUE_PORT: u16 = 6080;

/// The lab's service, as IPVS names it.
const SERVICE: IpvsKey = IpvsKey::Address {
    protocol: 6,
    address: VIP,
    port: PORT,
};

const SCHEDULER: &str = "wlc";

/// The lab's real server, as IPVS has it.
fn destination(method: IpvsMethod, weight: i32) -> IpvsDestination {
    IpvsDestination {
        address: RIP,
        port: PORT,
        method,
        weight,
        tunnel_type: 0,
        tunnel_port: 0,
    }
}

/// Sets the kernel's IPVS up in the calling thread's namespace; false where there is none for us.
pub(super) fn configure_kernel() -> Result<bool, LabError> {
    let failed = |source| LabError::Ipvs {
        operation: "set up",
        source,
    };
    ipvs::load().map_err(failed)?;
    let Some(mut control) = ipvs::Control::open().map_err(failed)? else {
        return Ok(false);
    };
    match control.add_service(&SERVICE, SCHEDULER) {
        // In a user namespace, or without the scheduler.
        Err(error) if error.refusal().is_some() => return Ok(false),
        result => result.map_err(failed)?,
    }
    control
        .add_destination(&SERVICE, &destination(IpvsMethod::Tunnel, 1))
        .map_err(failed)?;
    Ok(true)
}

const DEVICE: &str = "ipvs0";
const TABLE: u32 = 80;
/// The kernel's table of the host's own addresses.
pub(super) const LOCAL: u32 = 255;

/// Where the stand-in's lab has the rule for the table `local`, so that others can come before it.
const LOCAL_BEHIND: Rule = Rule::lookup(100, LOCAL);
/// Where the kernel has it.
const LOCAL_FIRST: Rule = Rule::lookup(0, LOCAL);

/// What a raw socket with a header of its own counts as in a route lookup, whatever the header says.
const IPPROTO_RAW: u8 = 255;

/// What the stand-in takes of what arrives, as IPVS does at LOCAL_IN.
const TAKE_ARRIVING: Rule = Rule {
    to: Some(VIP),
    iif: Some("eth0"),
    protocol: Some(6),
    port: Some(PORT),
    ..Rule::lookup(10, TABLE)
};

/// What it takes of what the director itself sends, as IPVS does at LOCAL_OUT.
const TAKE_OWN: Rule = Rule {
    iif: Some("lo"),
    priority: 11,
    ..TAKE_ARRIVING
};

/// The same, sent by a raw socket.
const TAKE_RAW: Rule = Rule {
    protocol: Some(IPPROTO_RAW),
    port: None,
    priority: 12,
    ..TAKE_OWN
};

/// Puts the rule for the table `local` behind others, or back.
pub(super) fn move_local(network: &mut Network, behind: bool) -> Result<(), LabError> {
    let (to, from) = match behind {
        true => (LOCAL_BEHIND, LOCAL_FIRST),
        false => (LOCAL_FIRST, LOCAL_BEHIND),
    };
    network.add_rule(&to)?;
    network.delete_rule(&from)?;
    Ok(())
}

/// A director that forwards wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It does not have the VIP.
    VipGone,
    /// It has no such service.
    NoService,
    /// The service has no real server.
    NoDestination,
    /// The real server gets no new connections.
    NoWeight,
    /// Packets are passed on without a tunnel header.
    NotTunnel,
    /// Packets are encapsulated by GUE.
    TunnelType,
}

impl Broken {
    /// Breaks the director, in whose namespace `namespace` is.
    pub(super) fn apply(self, director: Maker, namespace: &Namespace) -> Result<(), LabError> {
        if self == Broken::VipGone {
            namespace
                .run(Network::open)?
                .delete_address("lo", VIP, 32)?;
        }
        match director {
            Maker::StandIn => {
                let mut network = namespace.run(Network::open)?;
                for rule in self.rules_gone() {
                    network.delete_rule(rule)?;
                }
                Ok(())
            }
            Maker::Kernel => namespace.run(move || {
                with_ipvs("break", |control| match self {
                    Broken::VipGone => Ok(()),
                    Broken::NoService => tolerate(control.delete_service(&SERVICE)),
                    Broken::NoDestination => {
                        tolerate(control.delete_destination(&SERVICE, RIP, PORT))
                    }
                    Broken::NoWeight => {
                        control.edit_destination(&SERVICE, &destination(IpvsMethod::Tunnel, 0))
                    }
                    Broken::TunnelType => {
                        let gue = IpvsDestination {
                            tunnel_type: 1,
                            tunnel_port: GUE_PORT,
                            ..destination(IpvsMethod::Tunnel, 1)
                        };
                        control.edit_destination(&SERVICE, &gue)
                    }
                    Broken::NotTunnel => {
                        control.edit_destination(&SERVICE, &destination(IpvsMethod::Route, 1))
                    }
                })
            }),
        }
    }

    /// Mends the director.
    pub(super) fn undo(self, director: Maker, namespace: &Namespace) -> Result<(), LabError> {
        if self == Broken::VipGone {
            namespace.run(Network::open)?.add_address("lo", VIP, 32)?;
        }
        match director {
            Maker::StandIn => {
                let mut network = namespace.run(Network::open)?;
                for rule in self.rules_gone() {
                    network.add_rule(rule)?;
                }
                Ok(())
            }
            Maker::Kernel => namespace.run(move || {
                with_ipvs("mend", |control| {
                    let healthy = destination(IpvsMethod::Tunnel, 1);
                    tolerate(control.add_service(&SERVICE, SCHEDULER))?;
                    tolerate(control.add_destination(&SERVICE, &healthy))?;
                    control.edit_destination(&SERVICE, &healthy)
                })
            }),
        }
    }

    /// The stand-in's rules that make it so; what needs none, it does by the fault's name.
    fn rules_gone(self) -> &'static [Rule] {
        match self {
            Broken::VipGone => &[TAKE_ARRIVING],
            Broken::NoService => &[TAKE_ARRIVING, TAKE_OWN, TAKE_RAW],
            Broken::NoDestination | Broken::NoWeight | Broken::NotTunnel | Broken::TunnelType => {
                &[]
            }
        }
    }
}

fn with_ipvs(
    operation: &'static str,
    job: impl FnOnce(&mut ipvs::Control) -> Result<(), NetlinkError>,
) -> Result<(), LabError> {
    let failed = |source| LabError::Ipvs { operation, source };
    match ipvs::Control::open().map_err(failed)? {
        Some(mut control) => job(&mut control).map_err(failed),
        None => Ok(()),
    }
}

/// What is there may be there already, and what is to go may be gone.
fn tolerate(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error)
            if matches!(
                error.refusal(),
                Some(libc::EEXIST | libc::ENOENT | libc::ESRCH)
            ) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// The stand-in.
pub(super) struct Director {
    arriving: Packets,
    tunnel: Packets,
    direct: Packets,
    network: Network,
    /// When each had its last packet.
    connections: HashMap<(Ipv4Addr, u16), Instant>,
    identification: u16,
    faults: Faults,
}

/// How long a connection is known after its last packet, as of SYNs in `net/netfilter/ipvs/ip_vs_proto_tcp.c`.
const REMEMBERED: Duration = Duration::from_secs(60);

/// More connections than a lab has at once.
const CONNECTIONS: usize = 65_536;

impl Director {
    /// Makes its device, routes and rules, and opens its sockets.
    pub(super) fn open(
        hosts: &mut Hosts,
        backstage: &Namespace,
        faults: Faults,
    ) -> Result<Director, LabError> {
        let mut far_end = backstage.run(Network::open)?;
        let (here, there) = (handle(hosts.namespace(Node::D))?, handle(backstage)?);
        let end = |index, namespace| VethEnd {
            name: DEVICE,
            index,
            namespace,
        };
        let network = hosts.network(Node::D);
        network.add_veth(
            &end(DIRECTOR_INDEX, &here),
            &end(DIRECTOR_INDEX + 1, &there),
        )?;
        for network in [&mut *network, &mut far_end] {
            network.set_tunnel_like(DEVICE, TUNNEL_MTU)?;
            network.set_up(DEVICE, true)?;
        }
        for network in [&mut *network, &mut far_end] {
            network.wait_until_passing(DEVICE)?;
        }
        network.add_route(&Route {
            table: TABLE,
            ..Route::new(Ipv4Addr::UNSPECIFIED, 0, NextHop::Device(DEVICE))
        })?;
        move_local(network, true)?;
        for rule in [TAKE_ARRIVING, TAKE_OWN, TAKE_RAW] {
            network.add_rule(&rule)?;
        }
        let index = far_end.link(DEVICE)?.map_or(0, |link| link.index);
        let here = hosts.namespace(Node::D);
        let open = || -> io::Result<_> {
            Ok((
                backstage.run(move || Packets::of_device(index))?,
                here.run(|| Packets::of_protocol(IPPROTO_RAW, None))?,
                here.run(|| Packets::of_protocol(IPPROTO_RAW, Some("eth0")))?,
            ))
        };
        let (arriving, tunnel, direct) = open().map_err(|source| LabError::Socket {
            what: "the director's stand-in",
            source,
        })?;
        Ok(Director {
            arriving,
            tunnel,
            direct,
            network: here.run(Network::open)?,
            connections: HashMap::new(),
            identification: 0,
            faults,
        })
    }

    /// Schedules and encapsulates for as long as the lab lives.
    pub(super) fn run(mut self) {
        loop {
            match self.arriving.receive().map(<[u8]>::to_vec) {
                Ok(mut packet) => {
                    packet::complete_checksum(&mut packet);
                    // A packet that cannot go on is lost, as anywhere.
                    let _ = self.handle(&packet);
                }
                // Its device was down for a while.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(_) => return,
            }
        }
    }

    fn handle(&mut self, packet: &[u8]) -> Result<(), LabError> {
        let Ok(header) = Ipv4HeaderSlice::from_slice(packet) else {
            return Ok(());
        };
        let Ok(tcp) = TcpHeaderSlice::from_slice(&packet[header.slice().len()..]) else {
            return Ok(());
        };
        if header.protocol() != IpNumber::TCP
            || Ipv4Addr::from(header.destination()) != VIP
            || tcp.destination_port() != PORT
        {
            return Ok(());
        }
        let client = Ipv4Addr::from(header.source());
        let connection = (client, tcp.source_port());
        let faults = self.faults.names();
        let has = |name: &str| faults.iter().any(|fault| fault == name);
        let is_known = match self.connections.get_mut(&connection) {
            Some(last) if last.elapsed() < REMEMBERED => {
                *last = Instant::now();
                true
            }
            _ => false,
        };
        if !is_known {
            if !tcp.syn() || tcp.ack() {
                return Ok(());
            }
            // `ip_vs_leave` of `net/netfilter/ipvs/ip_vs_core.c`.
            if has(NO_DESTINATION) || has(NO_WEIGHT) {
                let error = packet::unreachable(DestUnreachableHeader::Port, VIP, client, packet);
                return self.tunnel.send(&error, client).map_err(failed_to_send);
            }
            if self.connections.len() == CONNECTIONS {
                self.connections.clear();
            }
            self.connections.insert(connection, Instant::now());
        }
        if has(NO_DESTINATION) {
            return Ok(());
        }
        if has(NOT_TUNNEL) {
            return self.direct.send(packet, VIP).map_err(failed_to_send);
        }
        let Some(from) = self.network.source_toward(RIP)? else {
            return Ok(());
        };
        self.identification = self.identification.checked_add(1).unwrap_or(1);
        let ends = Ends {
            from,
            to: RIP,
            identification: self.identification,
        };
        let packet = match has(TUNNEL_TYPE) {
            true => packet::in_udp(packet, ends, GUE_PORT),
            false => packet::tunnelled(&header, packet, ends),
        };
        self.tunnel.send(&packet, RIP).map_err(failed_to_send)
    }
}

fn failed_to_send(source: io::Error) -> LabError {
    LabError::Socket {
        what: "the director's stand-in",
        source,
    }
}
