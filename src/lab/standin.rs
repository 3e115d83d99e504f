//! The stand-in for the kernel's `ipip` on the real server: takes packets out of the tunnel.
//!
//! `tunl0` is one end of a veth pair, the other is backstage. A raw socket gets protocol 4 where the kernel's own
//! tunnel would, after the INPUT rules and the checks of the outer source; what is inside is put in at the far
//! end, so that it arrives on `tunl0`, whose routing, rp_filter and rules are the kernel's own.

use std::io;
use std::net::Ipv4Addr;

use etherparse::IpNumber;
use etherparse::Ipv4HeaderSlice;
use etherparse::icmpv4::DestUnreachableHeader;

use crate::lab::LabError;
use crate::lab::Node;
use crate::lab::packet;
use crate::lab::state::Faults;
use crate::lab::topology::Hosts;
use crate::lab::topology::TUNNEL_INDEX;
use crate::lab::topology::TUNNEL_MTU;
use crate::lab::topology::VIP;
use crate::lab::topology::handle;
use crate::live::frames::Packets;
use crate::live::netns::Namespace;
use crate::live::network::Network;
use crate::live::network::VethEnd;

/// The tunnel device's name, and its far end's.
pub(super) const TUNNEL: &str = "tunl0";

/// The fault that has the stand-in act as a kernel without `ipip`.
pub(super) const NOT_SUPPORTED: &str = "ipip-not-supported";

/// Makes the device pair, with the VIP on it.
pub(super) fn add_device(
    server: (&Namespace, &mut Network),
    backstage: (&Namespace, &mut Network),
) -> Result<(), LabError> {
    let (here, there) = (handle(server.0)?, handle(backstage.0)?);
    let end = |index, namespace| VethEnd {
        name: TUNNEL,
        index,
        namespace,
    };
    server
        .1
        .add_veth(&end(TUNNEL_INDEX, &here), &end(TUNNEL_INDEX + 1, &there))?;
    server.1.set_tunnel_like(TUNNEL, TUNNEL_MTU)?;
    server.1.add_address(TUNNEL, VIP, 32)?;
    backstage.1.set_tunnel_like(TUNNEL, TUNNEL_MTU)?;
    set_device_up(server.1, backstage.1)
}

/// Switches both ends on.
pub(super) fn set_device_up(server: &mut Network, backstage: &mut Network) -> Result<(), LabError> {
    for network in [&mut *server, &mut *backstage] {
        network.set_up(TUNNEL, true)?;
    }
    for network in [server, backstage] {
        network.wait_until_passing(TUNNEL)?;
    }
    Ok(())
}

/// The stand-in.
pub(super) struct Tunnel {
    arriving: Packets,
    errors: Packets,
    frames: Packets,
    server: Network,
    backstage: Network,
    faults: Faults,
}

impl Tunnel {
    /// Opens its sockets.
    pub(super) fn open(
        hosts: &Hosts,
        backstage: &Namespace,
        faults: Faults,
    ) -> Result<Tunnel, LabError> {
        let failed = |source| LabError::Socket {
            what: "the tunnel's stand-in",
            source,
        };
        let server = hosts.namespace(Node::S);
        let raw = |protocol: IpNumber| {
            server
                .run(move || Packets::of_protocol(protocol.0, None))
                .map_err(failed)
        };
        Ok(Tunnel {
            arriving: raw(IpNumber::IPV4)?,
            errors: raw(IpNumber(255))?,
            frames: backstage.run(Packets::frames).map_err(failed)?,
            server: server.run(Network::open)?,
            backstage: backstage.run(Network::open)?,
            faults,
        })
    }

    /// Takes packets out of the tunnel for as long as the lab lives.
    pub(super) fn run(mut self) {
        while let Ok(packet) = self.arriving.receive().map(<[u8]>::to_vec) {
            // A packet that cannot go on is lost, as anywhere.
            let _ = self.handle(&packet);
        }
    }

    fn handle(&mut self, packet: &[u8]) -> Result<(), LabError> {
        let Ok(outer) = Ipv4HeaderSlice::from_slice(packet) else {
            return Ok(());
        };
        let inner = &packet[outer.slice().len()..];
        if self.faults.has(NOT_SUPPORTED) {
            return self.refuse(DestUnreachableHeader::Protocol, &outer, packet);
        }
        // `tunnel4_rcv` of `net/ipv4/tunnel4.c`: no device takes it.
        let device = self.server.link(TUNNEL)?.filter(|device| device.up);
        let Some(mac) = device.and_then(|device| device.mac) else {
            return self.refuse(DestUnreachableHeader::Port, &outer, packet);
        };
        if Ipv4HeaderSlice::from_slice(inner).is_err() {
            return Ok(());
        }
        let Some(far) = self.backstage.link(TUNNEL)? else {
            return Ok(());
        };
        self.frames
            .send_frame(inner, far.index, mac)
            .map_err(failed_to_send)
    }

    fn refuse(
        &self,
        code: DestUnreachableHeader,
        outer: &Ipv4HeaderSlice<'_>,
        packet: &[u8],
    ) -> Result<(), LabError> {
        let (from, to) = (
            Ipv4Addr::from(outer.destination()),
            Ipv4Addr::from(outer.source()),
        );
        self.errors
            .send(&packet::unreachable(code, from, to, packet), to)
            .map_err(failed_to_send)
    }
}

fn failed_to_send(source: io::Error) -> LabError {
    LabError::Socket {
        what: "the tunnel's stand-in",
        source,
    }
}
