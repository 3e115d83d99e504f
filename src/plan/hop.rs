//! The twelve claims a path is made of.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// A claim between two stations, in path order (`Ord` is path order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// What the client sends to the VIP reaches the director's ingress.
    ClientToDirector,
    /// The director schedules it for this real server and encapsulates it.
    DirectorForward,
    /// The outer source is the director's own (HOWTO Q1).
    DirectorSource,
    /// The IPIP packet leaves the director and reaches the real server.
    DirectorToRealserver,
    /// The real server takes it out of the tunnel.
    Decapsulation,
    /// The real server's routing and firewall deliver it to the VIP (HOWTO Q2, Q4).
    RealserverAccept,
    /// Something answers on VIP:port.
    Service,
    /// The answer leaves the real server with the VIP as its source.
    RealserverEgress,
    /// The gateway answers ARP whichever sender address the kernel will use (HOWTO Q4).
    GatewayArp,
    /// Gateway and ISPs pass packets whose source is the VIP (HOWTO Q3).
    SpoofedSourceTransit,
    /// It arrives at the client.
    ClientArrival,
    /// What the client answers reaches the director (HOWTO Q3).
    ReturnToDirector,
}

impl Hop {
    /// Every hop, in path order.
    pub const ALL: [Hop; 12] = [
        Hop::ClientToDirector,
        Hop::DirectorForward,
        Hop::DirectorSource,
        Hop::DirectorToRealserver,
        Hop::Decapsulation,
        Hop::RealserverAccept,
        Hop::Service,
        Hop::RealserverEgress,
        Hop::GatewayArp,
        Hop::SpoofedSourceTransit,
        Hop::ClientArrival,
        Hop::ReturnToDirector,
    ];

    /// The hop's name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Hop::ClientToDirector => "client-to-director",
            Hop::DirectorForward => "director-forward",
            Hop::DirectorSource => "director-source",
            Hop::DirectorToRealserver => "director-to-realserver",
            Hop::Decapsulation => "decapsulation",
            Hop::RealserverAccept => "realserver-accept",
            Hop::Service => "service",
            Hop::RealserverEgress => "realserver-egress",
            Hop::GatewayArp => "gateway-arp",
            Hop::SpoofedSourceTransit => "spoofed-source-transit",
            Hop::ClientArrival => "client-arrival",
            Hop::ReturnToDirector => "return-to-director",
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}
