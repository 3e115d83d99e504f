//! The codes of findings.

use std::fmt;

use serde::Serialize;
use serde::Serializer;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in path order.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code's name in reports and for `tunproof explain`.
            pub fn id(self) -> &'static str {
                match self { $(Code::$name => $id,)* }
            }
        }
    };
}

codes! {
    /// The client's packets do not reach the director.
    ClientPacketsLost = "client-packets-lost",
    /// The VIP is not local on the director.
    VipNotOnDirector = "vip-not-on-director",
    /// IPVS has no service for VIP:port.
    IpvsServiceMissing = "ipvs-service-missing",
    /// The service lacks this real server.
    IpvsDestinationMissing = "ipvs-destination-missing",
    /// The real server's forwarding method is not Tunnel.
    IpvsNotTunnel = "ipvs-not-tunnel",
    /// The real server's weight is 0.
    IpvsWeightZero = "ipvs-weight-zero",
    /// The director's own packets are forwarded, and those that arrive from the client are not.
    DirectorFirewallIngress = "director-firewall-ingress",
    /// The director takes the client's packets and does not forward them, and no fact says why.
    DirectorNotForwarding = "director-not-forwarding",
    /// The outer source is the VIP (HOWTO Q1).
    SourceIsVip = "source-is-vip",
    /// The outer source is an address of the real server (HOWTO Q1).
    SourceOnRealserver = "source-on-realserver",
    /// The director has no route to the RIP.
    NoRouteToRealserver = "no-route-to-realserver",
    /// The director's next hop to the RIP does not answer ARP.
    NextHopUnreachable = "next-hop-unreachable",
    /// The IPIP packets do not leave the director.
    DirectorFirewallEgress = "director-firewall-egress",
    /// The IPIP packets leave the director and do not reach the real server.
    TunnelLostInTransit = "tunnel-lost-in-transit",
    /// A router or host on the way refuses the IPIP packets with an ICMP error.
    TunnelRejected = "tunnel-rejected",
    /// The real server's kernel does not take protocol 4.
    IpipNotSupported = "ipip-not-supported",
    /// The real server has no tunnel device.
    TunnelMissing = "tunnel-missing",
    /// The tunnel device is down.
    TunnelDown = "tunnel-down",
    /// The tunnel device's endpoints are not DIP and RIP.
    TunnelEndpointMismatch = "tunnel-endpoint-mismatch",
    /// The real server's firewall drops the IPIP packets.
    RealserverFirewallIpip = "realserver-firewall-ipip",
    /// rp_filter drops the decapsulated packets (HOWTO Q2).
    RpFilterDrops = "rp-filter-drops",
    /// The VIP is not local on the real server (HOWTO Q2).
    VipNotLocal = "vip-not-local",
    /// The real server's routing refuses the decapsulated packets, and not by rp_filter.
    RouteRejects = "route-rejects",
    /// The real server's firewall drops the decapsulated packets (HOWTO Q4).
    RealserverFirewallDecapsulated = "realserver-firewall-decapsulated",
    /// What comes out of the tunnel has wrong checksums.
    ChecksumErrors = "checksum-errors",
    /// Nothing listens on VIP:port.
    ServiceNotListening = "service-not-listening",
    /// The service's socket is bound to another address than the VIP.
    ServiceBoundElsewhere = "service-bound-elsewhere",
    /// The service takes no more connections.
    ServiceSilent = "service-silent",
    /// The real server has no route to the client.
    NoRouteToClient = "no-route-to-client",
    /// The answers do not leave the real server, and no fact says why.
    RealserverFirewallEgress = "realserver-firewall-egress",
    /// The answers leave the real server with another source than the VIP.
    EgressSourceRewritten = "egress-source-rewritten",
    /// The real server advertises the VIP by ARP.
    VipAdvertised = "vip-advertised",
    /// The gateway does not answer ARP at all.
    GatewayUnreachable = "gateway-unreachable",
    /// The gateway does not answer `who-has GW tell VIP` (HOWTO Q4).
    GatewayDropsVipArp = "gateway-drops-vip-arp",
    /// A network between filters the VIP as a source (HOWTO Q3).
    SpoofedSourceFiltered = "spoofed-source-filtered",
    /// The client cannot be reached, from the real server's own address either.
    ClientUnreachable = "client-unreachable",
    /// The packets arrive at the client, which does not answer.
    ClientSilent = "client-silent",
    /// The client's answers do not reach the director.
    ReturnPathBroken = "return-path-broken",
    /// The real server rewrites the source of flows it starts itself, but not of its answers.
    OwnFlowsRewritten = "own-flows-rewritten",
    /// ICMP errors are withheld by a limit, so that their absence proves nothing.
    IcmpLimited = "icmp-limited",
    /// Packets are lost on the way, and get through when repeated.
    Loss = "loss",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}
