//! The faults, in the order of the path.

use std::net::Ipv4Addr;

use crate::lab::Fault;
use crate::lab::Needs;
use crate::lab::Node;
use crate::lab::director;
use crate::lab::director::Broken;
use crate::lab::fault::Change;
use crate::lab::service;
use crate::lab::service::Manner;
use crate::lab::standin;
use crate::lab::standin::TUNNEL;
use crate::lab::topology::CIP;
use crate::lab::topology::DIP;
use crate::lab::topology::FORMER;
use crate::lab::topology::GW;
use crate::lab::topology::ISP;
use crate::lab::topology::NOBODY;
use crate::lab::topology::RD;
use crate::lab::topology::RIP;
use crate::lab::topology::VIP;
use crate::live::network::NextHop;
use crate::live::network::Route;
use crate::live::network::Rule;
use crate::plan::Hop;

/// Before the main table's rule, behind that of the host's own addresses.
const RULE: Rule = Rule::blackhole(50);

/// A narrow link behind `core`, for what goes to the real server.
const NARROW: Change = Change::Route {
    on: Node::Core,
    route: Route {
        mtu: Some(1400),
        ..Route::via(RIP, 32, ISP)
    },
    healthy: None,
};

/// Every fault.
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "client-packets-lost",
        finding: "client-packets-lost",
        hop: Hop::ClientToDirector,
        about: "core loses what the client sends to the VIP",
        needs: Needs::Nothing,
        changes: &[Change::Rule {
            on: Node::Core,
            rule: Rule {
                from: Some(CIP),
                to: Some(VIP),
                ..RULE
            },
        }],
    },
    Fault {
        name: "duplicate-vip",
        finding: "duplicate-vip",
        hop: Hop::ClientToDirector,
        about: "rd has the VIP, too, which is on-link there, and answers for it itself",
        needs: Needs::Nothing,
        changes: &[
            Change::Address {
                on: Node::D,
                device: "eth0",
                ip: Ipv4Addr::new(192, 0, 2, 3),
                prefix: 28,
            },
            Change::Address {
                on: Node::Rd,
                device: "lo",
                ip: VIP,
                prefix: 32,
            },
        ],
    },
    Fault {
        name: "vip-not-on-director",
        finding: "vip-not-on-director",
        hop: Hop::DirectorForward,
        about: "d does not have the VIP",
        needs: Needs::Nothing,
        changes: &[Change::Director(Broken::VipGone)],
    },
    Fault {
        name: "ipvs-service-missing",
        finding: "ipvs-service-missing",
        hop: Hop::DirectorForward,
        about: "d has no virtual service for the VIP and port",
        needs: Needs::Nothing,
        changes: &[Change::Director(Broken::NoService)],
    },
    Fault {
        name: director::NO_DESTINATION,
        finding: "ipvs-destination-missing",
        hop: Hop::DirectorForward,
        about: "the virtual service has no real server",
        needs: Needs::Nothing,
        changes: &[Change::Director(Broken::NoDestination)],
    },
    Fault {
        name: director::NOT_TUNNEL,
        finding: "ipvs-not-tunnel",
        hop: Hop::DirectorForward,
        about: "the real server is to be reached by direct routing, ipvsadm's default",
        needs: Needs::Nothing,
        changes: &[Change::Director(Broken::NotTunnel)],
    },
    Fault {
        name: director::NO_WEIGHT,
        finding: "ipvs-weight-zero",
        hop: Hop::DirectorForward,
        about: "the real server has weight 0",
        needs: Needs::Nothing,
        changes: &[Change::Director(Broken::NoWeight)],
    },
    Fault {
        name: director::TUNNEL_TYPE,
        finding: "ipvs-tunnel-type-mismatch",
        hop: Hop::DirectorForward,
        about: "the director encapsulates by GUE",
        needs: Needs::Nothing,
        changes: &[Change::Director(Broken::TunnelType)],
    },
    Fault {
        name: "director-firewall-ingress",
        finding: "director-firewall-ingress",
        hop: Hop::DirectorForward,
        about: "d's own rules drop what the client sends to the service",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::D,
            chain: "chain director_firewall_ingress { type filter hook prerouting priority 0; \
                    iifname \"eth0\" ip saddr 198.51.100.7 ip daddr 192.0.2.10 tcp dport 80 drop; }",
        }],
    },
    Fault {
        name: "source-is-vip",
        finding: "source-is-vip",
        hop: Hop::DirectorSource,
        about: "d's route to the real server prefers the VIP as its source (HOWTO Q1)",
        needs: Needs::Nothing,
        changes: &[Change::Route {
            on: Node::D,
            route: Route {
                source: Some(VIP),
                ..Route::via(RIP, 32, RD)
            },
            healthy: None,
        }],
    },
    Fault {
        name: "source-on-realserver",
        finding: "source-on-realserver",
        hop: Hop::DirectorSource,
        about: "s has the director's address, too (HOWTO Q1)",
        needs: Needs::Nothing,
        changes: &[Change::Address {
            on: Node::S,
            device: "lo",
            ip: DIP,
            prefix: 32,
        }],
    },
    Fault {
        name: "source-not-owned",
        finding: "source-not-owned",
        hop: Hop::DirectorSource,
        about: "d's route to the real server prefers an address that d no longer has",
        needs: Needs::Nothing,
        changes: &[Change::StaleSource {
            on: Node::D,
            route: Route {
                source: Some(FORMER),
                ..Route::via(RIP, 32, RD)
            },
        }],
    },
    Fault {
        name: "no-route-to-realserver",
        finding: "no-route-to-realserver",
        hop: Hop::DirectorSource,
        about: "d has no route to the real server",
        needs: Needs::Nothing,
        changes: &[Change::Route {
            on: Node::D,
            route: Route::new(RIP, 32, NextHop::Unreachable),
            healthy: None,
        }],
    },
    Fault {
        name: "director-firewall-egress",
        finding: "director-firewall-egress",
        hop: Hop::DirectorToRealserver,
        about: "d's own rules drop IPIP",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::D,
            chain: "chain director_firewall_egress { type filter hook output priority 0; ip protocol 4 drop; }",
        }],
    },
    Fault {
        name: "tunnel-lost-in-transit",
        finding: "tunnel-lost-in-transit",
        hop: Hop::DirectorToRealserver,
        about: "isp drops IPIP",
        needs: Needs::Nothing,
        changes: &[Change::Rule {
            on: Node::Isp,
            rule: Rule {
                to: Some(RIP),
                protocol: Some(4),
                ..RULE
            },
        }],
    },
    Fault {
        name: "tunnel-rejected",
        finding: "tunnel-rejected",
        hop: Hop::DirectorToRealserver,
        about: "isp refuses IPIP, and says so by ICMP",
        needs: Needs::Nothing,
        changes: &[Change::Rule {
            on: Node::Isp,
            rule: Rule {
                to: Some(RIP),
                protocol: Some(4),
                told: true,
                ..RULE
            },
        }],
    },
    Fault {
        name: "tunnel-mtu-low",
        finding: "tunnel-mtu-low",
        hop: Hop::DirectorToRealserver,
        about: "core passes 1400 octets to the real server at most, and says so by ICMP",
        needs: Needs::Nothing,
        changes: &[NARROW],
    },
    Fault {
        name: "tunnel-mtu-black-hole",
        finding: "tunnel-mtu-black-hole",
        hop: Hop::DirectorToRealserver,
        about: "core passes 1400 octets to the real server at most, and says nothing",
        needs: Needs::Nothing,
        changes: &[
            NARROW,
            Change::Filter {
                on: Node::Core,
                chain: "chain tunnel_mtu_black_hole { type filter hook output priority 0; \
                        icmp type destination-unreachable icmp code 4 drop; }",
            },
        ],
    },
    Fault {
        name: standin::NOT_SUPPORTED,
        finding: "ipip-not-supported",
        hop: Hop::Decapsulation,
        about: "s has no ipip",
        needs: Needs::StandInTunnel,
        changes: &[Change::ByName],
    },
    Fault {
        name: "tunnel-missing",
        finding: "tunnel-missing",
        hop: Hop::Decapsulation,
        about: "s has no tunl0",
        needs: Needs::StandInTunnel,
        changes: &[Change::TunnelGone],
    },
    Fault {
        name: "tunnel-down",
        finding: "tunnel-down",
        hop: Hop::Decapsulation,
        about: "tunl0 is down",
        needs: Needs::Nothing,
        changes: &[Change::TunnelDown],
    },
    Fault {
        name: "tunnel-endpoint-mismatch",
        finding: "tunnel-endpoint-mismatch",
        hop: Hop::Decapsulation,
        about: "the tunnel on s has another remote end than the director",
        needs: Needs::KernelTunnel,
        changes: &[Change::Ends {
            device: "tun1",
            local: RIP,
            remote: Ipv4Addr::new(192, 0, 2, 6),
        }],
    },
    Fault {
        name: "realserver-firewall-ipip",
        finding: "realserver-firewall-ipip",
        hop: Hop::Decapsulation,
        about: "s's own rules drop IPIP",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::S,
            chain: "chain realserver_firewall_ipip { type filter hook input priority 0; ip protocol 4 drop; }",
        }],
    },
    Fault {
        name: "tunnel-open-to-anyone",
        finding: "tunnel-open-to-anyone",
        hop: Hop::Decapsulation,
        about: "s takes tunnelled packets from anyone (HOWTO Q2); the path works",
        needs: Needs::Nothing,
        changes: &[Change::Unprotected],
    },
    Fault {
        name: "rp-filter-drops",
        finding: "rp-filter-drops",
        hop: Hop::RealserverAccept,
        about: "rp_filter is 1 on tunl0 (HOWTO Q2)",
        needs: Needs::Nothing,
        changes: &[Change::Setting {
            on: Node::S,
            name: "net/ipv4/conf/tunl0/rp_filter",
            value: "1",
            healthy: "0",
        }],
    },
    Fault {
        name: "rp-filter-all",
        finding: "rp-filter-drops",
        hop: Hop::RealserverAccept,
        about: "rp_filter is 0 on tunl0, but 1 on `all`",
        needs: Needs::Nothing,
        changes: &[Change::Setting {
            on: Node::S,
            name: "net/ipv4/conf/all/rp_filter",
            value: "1",
            healthy: "0",
        }],
    },
    Fault {
        name: "vip-not-local",
        finding: "vip-not-local",
        hop: Hop::RealserverAccept,
        about: "s does not have the VIP (HOWTO Q2)",
        needs: Needs::Nothing,
        changes: &[Change::AddressGone {
            on: Node::S,
            device: TUNNEL,
            ip: VIP,
        }],
    },
    Fault {
        name: "route-rejects",
        finding: "route-rejects",
        hop: Hop::RealserverAccept,
        about: "a policy rule on s drops what comes out of the tunnel",
        needs: Needs::Nothing,
        changes: &[
            Change::Rule {
                on: Node::S,
                rule: Rule {
                    iif: Some(TUNNEL),
                    ..RULE
                },
            },
            Change::LocalBehind { on: Node::S },
        ],
    },
    Fault {
        name: "client-address-is-local",
        finding: "client-address-is-local",
        hop: Hop::RealserverAccept,
        about: "s has the client's address, too",
        needs: Needs::Nothing,
        changes: &[Change::Address {
            on: Node::S,
            device: "lo",
            ip: CIP,
            prefix: 32,
        }],
    },
    Fault {
        name: "realserver-firewall-decapsulated",
        finding: "realserver-firewall-decapsulated",
        hop: Hop::RealserverAccept,
        about: "s's own rules drop what comes out of the tunnel (HOWTO Q4)",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::S,
            chain: "chain realserver_firewall_decapsulated { type filter hook input priority 0; iifname \"tunl0\" drop; }",
        }],
    },
    Fault {
        name: service::STOPPED,
        finding: "service-not-listening",
        hop: Hop::Service,
        about: "nothing listens on the port",
        needs: Needs::Nothing,
        changes: &[Change::Service(Manner::Stopped)],
    },
    Fault {
        name: service::ELSEWHERE,
        finding: "service-bound-elsewhere",
        hop: Hop::Service,
        about: "the service listens on s's own address only",
        needs: Needs::Nothing,
        changes: &[Change::Service(Manner::Elsewhere)],
    },
    Fault {
        name: service::FULL,
        finding: "service-silent",
        hop: Hop::Service,
        about: "the service takes no more connections: its queue is full",
        needs: Needs::Nothing,
        changes: &[Change::Service(Manner::Full)],
    },
    Fault {
        name: "no-route-to-client",
        finding: "no-route-to-client",
        hop: Hop::RealserverEgress,
        about: "s has no route to the client",
        needs: Needs::Nothing,
        changes: &[Change::Route {
            on: Node::S,
            route: Route::new(CIP, 32, NextHop::Unreachable),
            healthy: None,
        }],
    },
    Fault {
        name: "realserver-firewall-egress",
        finding: "realserver-firewall-egress",
        hop: Hop::RealserverEgress,
        about: "s's own rules drop what leaves from the VIP",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::S,
            chain: "chain realserver_firewall_egress { type filter hook output priority 0; ip saddr 192.0.2.10 drop; }",
        }],
    },
    Fault {
        name: "egress-source-rewritten",
        finding: "egress-source-rewritten",
        hop: Hop::RealserverEgress,
        about: "s rewrites the answers' source to its own address",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::S,
            chain: "chain egress_source_rewritten { type filter hook postrouting priority 300; \
                    ip saddr 192.0.2.10 ip saddr set 203.0.113.5; }",
        }],
    },
    Fault {
        name: "gateway-unreachable",
        finding: "gateway-unreachable",
        hop: Hop::GatewayArp,
        about: "s's default gateway is an address that nobody has",
        needs: Needs::Nothing,
        changes: &[Change::Route {
            on: Node::S,
            route: Route::default_via(NOBODY),
            healthy: Some(Route::default_via(GW)),
        }],
    },
    Fault {
        name: "gateway-drops-vip-arp",
        finding: "gateway-drops-vip-arp",
        hop: Hop::GatewayArp,
        about: "gw does not answer \"who-has GW tell VIP\" (HOWTO Q4)",
        needs: Needs::Nothing,
        changes: &[
            Change::Rule {
                on: Node::Gw,
                rule: Rule {
                    from: Some(VIP),
                    to: Some(GW),
                    iif: Some("eth1"),
                    ..RULE
                },
            },
            Change::LocalBehind { on: Node::Gw },
            Change::ServerKnown,
            Change::Forgotten {
                on: Node::S,
                device: "eth0",
                ip: GW,
            },
        ],
    },
    Fault {
        name: "spoofed-source-filtered-at-gateway",
        finding: "spoofed-source-filtered",
        hop: Hop::SpoofedSourceTransit,
        about: "gw drops packets from the VIP (HOWTO Q3)",
        needs: Needs::Nothing,
        changes: &[Change::Rule {
            on: Node::Gw,
            rule: Rule {
                from: Some(VIP),
                iif: Some("eth1"),
                ..RULE
            },
        }],
    },
    Fault {
        name: "spoofed-source-filtered",
        finding: "spoofed-source-filtered",
        hop: Hop::SpoofedSourceTransit,
        about: "isp, the second router, drops packets from the VIP (HOWTO Q3)",
        needs: Needs::Nothing,
        changes: &[Change::Setting {
            on: Node::Isp,
            name: "net/ipv4/conf/eth1/rp_filter",
            value: "1",
            healthy: "0",
        }],
    },
    Fault {
        name: "client-unreachable",
        finding: "client-unreachable",
        hop: Hop::ClientArrival,
        about: "r1 loses whatever is for the client",
        needs: Needs::Nothing,
        changes: &[Change::Route {
            on: Node::R1,
            route: Route::new(CIP, 32, NextHop::Blackhole),
            healthy: None,
        }],
    },
    Fault {
        name: "client-silent",
        finding: "client-silent",
        hop: Hop::ReturnToDirector,
        about: "c's own rules drop its RSTs and ICMP errors",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::C,
            chain: "chain client_silent { type filter hook output priority 0; \
                    tcp flags & rst == rst drop; icmp type destination-unreachable drop; }",
        }],
    },
    Fault {
        name: "return-path-broken",
        finding: "return-path-broken",
        hop: Hop::ReturnToDirector,
        about: "r1, as a firewall that has seen no connection, drops the client's RSTs and ICMP errors to the VIP",
        needs: Needs::Nothing,
        changes: &[Change::Filter {
            on: Node::R1,
            chain: "chain return_path_broken { type filter hook forward priority 0; \
                    ip saddr 198.51.100.7 ip daddr 192.0.2.10 tcp flags & rst == rst drop; \
                    ip saddr 198.51.100.7 ip daddr 192.0.2.10 icmp type destination-unreachable drop; }",
        }],
    },
];
