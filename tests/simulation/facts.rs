//! What the hosts say of themselves.

use std::net::Ipv4Addr;

use tunproof::exchange::Address;
use tunproof::exchange::FactQuery;
use tunproof::exchange::HostFacts;
use tunproof::exchange::Ipvs;
use tunproof::exchange::IpvsDestination;
use tunproof::exchange::IpvsKey;
use tunproof::exchange::IpvsMethod;
use tunproof::exchange::IpvsService;
use tunproof::exchange::Link;
use tunproof::exchange::Listener;
use tunproof::exchange::Neighbour;
use tunproof::exchange::Route;
use tunproof::exchange::RouteAnswer;
use tunproof::exchange::RouteKind;
use tunproof::exchange::RouteQuery;
use tunproof::exchange::TunnelEnds;
use tunproof::exchange::Wall;
use tunproof::plan::Host;

use crate::CIP;
use crate::DIP;
use crate::PORT;
use crate::VIP;
use crate::gateway;
use crate::rip;
use crate::scenario::Scenario;
use crate::scenario::Server;

/// What the world counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Packets that rp_filter dropped.
    pub(crate) rp_filter: u64,
    /// Packets with a wrong checksum: TCP, UDP.
    pub(crate) wrong_checksums: [u64; 2],
    /// SYNs that found a full accept queue.
    pub(crate) listen_drops: u64,
    /// ICMP errors that a limit held back.
    pub(crate) icmp_withheld: u64,
    /// Whether the gateway's neighbour entry is there.
    pub(crate) neighbour: bool,
}

/// The answer to `query` on `host`.
pub(crate) fn facts(
    scenario: &Scenario,
    host: Host,
    query: &FactQuery,
    counted: Counted,
) -> HostFacts {
    let mut facts = HostFacts {
        time: Wall::from_nanos(1_000_000_000),
        hostname: host.to_string(),
        kernel: "6.1.0".to_owned(),
        ..HostFacts::default()
    };
    facts.links.push(Link {
        loopback: true,
        mac: None,
        ..link(1, "lo", &[(Ipv4Addr::LOCALHOST, 8)])
    });
    match host {
        Host::Director => director(scenario, &mut facts),
        Host::Client => facts.links.push(link(2, "eth0", &[(CIP, 24)])),
        Host::Realserver(n) => server(&scenario.server[n], n, counted, &mut facts),
    }
    for link in facts.links.iter_mut().filter(|link| !link.loopback) {
        link.mtu = match link.tunnel {
            Some(_) => scenario.network.mtu - 20,
            None => scenario.network.mtu,
        };
    }
    for asked in &query.routes {
        facts
            .routes
            .push((asked.clone(), route(scenario, host, asked)));
    }
    facts
}

fn director(scenario: &Scenario, facts: &mut HostFacts) {
    let director = &scenario.director;
    let disc = ("net.ipv4.vs.pmtu_disc".to_owned(), director.pmtu_disc);
    facts.sysctls.extend([disc]);
    facts.neighbours.push(Neighbour {
        ip: Ipv4Addr::new(192, 0, 2, 1),
        device: "eth0".to_owned(),
        mac: Some([2, 0, 0, 0, 1, 200]),
        state: 2,
    });
    // Real servers of the director's own link.
    if let Some(octet) = director.realserver_on_link {
        facts.neighbours.push(Neighbour {
            ip: rip(0),
            device: "eth0".to_owned(),
            mac: Some([2, 0, 0, 0, 1, octet]),
            state: 2,
        });
    }
    let mut eth0 = vec![(Ipv4Addr::new(192, 0, 2, 3), 29)];
    if director.has_dip {
        eth0.push((DIP, 29));
    }
    if director.vip_on_link {
        eth0.push((Ipv4Addr::new(192, 0, 2, 4), 24));
    }
    facts.links.push(Link {
        mtu: u32::from(director.mtu),
        ..link(2, "eth0", &eth0)
    });
    for other in &director.addresses {
        facts.links[0].addresses.push(address(*other, 32));
    }
    if director.has_vip && !director.vip_by_rule {
        facts.links[0].addresses.push(address(VIP, 32));
    }
    let number = if scenario.network.protocol == "tcp" {
        6
    } else {
        17
    };
    let destinations = scenario
        .server
        .iter()
        .enumerate()
        .filter(|(_, server)| server.in_ipvs)
        .map(|(n, server)| IpvsDestination {
            address: rip(n),
            port: PORT,
            method: match server.method.as_str() {
                "tunnel" => IpvsMethod::Tunnel,
                "route" => IpvsMethod::Route,
                "masq" => IpvsMethod::Masq,
                other => panic!("no method `{other}`"),
            },
            weight: server.weight,
            tunnel_type: server.tunnel_type,
            tunnel_port: 6080,
        });
    let service = IpvsService {
        key: IpvsKey::Address {
            protocol: number,
            address: VIP,
            port: PORT,
        },
        scheduler: director.scheduler.clone(),
        destinations: destinations.collect(),
    };
    facts.ipvs = Ipvs::Services(if director.service {
        vec![service]
    } else {
        vec![]
    });
}

fn server(server: &Server, n: usize, counted: Counted, facts: &mut HostFacts) {
    let mut eth0 = vec![(server.own_address.unwrap_or(rip(n)), 25)];
    if server.vip_on_link {
        eth0.push((Ipv4Addr::new(192, 0, 2, 77), 24));
    }
    if server.vip_on == "eth0" {
        eth0.push((VIP, 32));
    }
    facts.links.push(link(2, "eth0", &eth0));
    for other in &server.addresses {
        facts.links[0].addresses.push(address(*other, 32));
    }
    if server.vip_on == "dummy0" {
        let mut dummy = link(4, "dummy0", &[(VIP, 32)]);
        dummy.noarp = true;
        facts.links.push(dummy);
    }
    if server.vip_on == "lo" {
        facts.links[0].addresses.push(address(VIP, 32));
    }
    if !server.tunnel.is_empty() {
        let mut tunnel = link(3, &server.tunnel, &[]);
        tunnel.kind = Some("ipip".to_owned());
        tunnel.mac = None;
        tunnel.noarp = true;
        tunnel.up = server.tunnel_up;
        tunnel.mtu = 1480;
        tunnel.tunnel = Some(TunnelEnds {
            local: server.tunnel_local,
            remote: server.tunnel_remote,
            link: None,
        });
        if server.vip_on == server.tunnel {
            tunnel.addresses.push(address(VIP, 32));
        }
        facts.links.push(tunnel);
    }
    if server.other_tunnel {
        let mut other = link(9, "office", &[(Ipv4Addr::new(10, 9, 9, 1), 30)]);
        other.kind = Some("ipip".to_owned());
        other.mac = None;
        other.noarp = true;
        other.tunnel = Some(TunnelEnds {
            local: Some(rip(n)),
            remote: Some(Ipv4Addr::new(10, 8, 8, 8)),
            link: None,
        });
        facts.links.push(other);
        let name = "net.ipv4.conf.office.rp_filter".to_owned();
        facts.sysctls.insert(name, 1);
    }
    let mut set = |device: &str, name: &str, value: i64| {
        let name = format!("net.ipv4.conf.{device}.{name}");
        facts.sysctls.insert(name, value);
    };
    for device in ["all", "default", "lo", "eth0", server.tunnel.as_str()] {
        let own = device == server.tunnel;
        let filter = match device {
            "all" => server.rp_filter_all,
            _ if own => server.rp_filter_tunnel,
            _ => 0,
        };
        set(device, "rp_filter", filter);
        set(device, "arp_ignore", 0);
        set(
            device,
            "arp_announce",
            if device == "all" {
                server.arp_announce
            } else {
                0
            },
        );
        if server.hidden {
            set(device, "hidden", i64::from(device == "all" || own));
        }
    }
    let mut count = |name: &str, value| facts.counters.insert(name.to_owned(), value);
    count("TcpExtIPReversePathFilter", 17 + counted.rp_filter);
    count("TcpExtListenDrops", 3 + counted.listen_drops);
    count("TcpInCsumErrors", counted.wrong_checksums[0]);
    count("UdpInCsumErrors", 5 + counted.wrong_checksums[1]);
    count("IcmpOutRateLimitGlobal", 9 + counted.icmp_withheld);
    count("IcmpOutRateLimitHost", 0);
    if let Some(address) = server.bound_to {
        for protocol in [6, 17] {
            facts.listeners.push(Listener {
                protocol,
                address: Some(address),
                port: PORT,
            });
        }
    } else if server.listens {
        facts.listeners.push(Listener {
            protocol: 6,
            address: None,
            port: PORT,
        });
        facts.listeners.push(Listener {
            protocol: 17,
            address: Some(VIP),
            port: PORT,
        });
    }
    if counted.neighbour {
        facts.neighbours.push(neighbour(server, n));
    }
}

/// The gateway's entry.
pub(crate) fn neighbour(server: &Server, n: usize) -> Neighbour {
    Neighbour {
        ip: gateway(n),
        device: "eth0".to_owned(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        state: if server.permanent_neighbour {
            Neighbour::PERMANENT
        } else {
            2
        },
    }
}

fn route(scenario: &Scenario, host: Host, asked: &RouteQuery) -> RouteAnswer {
    let local = |device: &str| {
        RouteAnswer::Route(Route {
            kind: RouteKind::Local,
            device: Some(device.to_owned()),
            gateway: None,
            source: None,
            table: 255,
            mtu: None,
        })
    };
    let by = |gateway: Ipv4Addr, source: Ipv4Addr| {
        RouteAnswer::Route(Route {
            kind: RouteKind::Unicast,
            device: Some("eth0".to_owned()),
            gateway: Some(gateway),
            source: Some(source),
            table: 254,
            mtu: None,
        })
    };
    let error = |errno: i32, error: &str| RouteAnswer::Error {
        errno,
        error: error.to_owned(),
    };
    match host {
        Host::Director => {
            let director = &scenario.director;
            match asked.to {
                VIP if director.has_vip && (!director.vip_by_rule || asked.iif.is_some()) => {
                    local("lo")
                }
                to if (0..scenario.server.len()).any(|n| to == rip(n)) && !director.route => {
                    error(101, "Network is unreachable")
                }
                to if (0..scenario.server.len()).any(|n| to == rip(n)) => {
                    by(Ipv4Addr::new(192, 0, 2, 1), director.outer_source)
                }
                _ => by(Ipv4Addr::new(192, 0, 2, 1), DIP),
            }
        }
        Host::Client => by(Ipv4Addr::new(198, 51, 100, 1), CIP),
        Host::Realserver(n) => {
            let server = &scenario.server[n];
            if asked.iif.is_some() && asked.to == VIP {
                return match () {
                    () if asked.iif.as_deref() == Some("office") => error(22, "Invalid argument"),
                    () if server.routing_refuses => error(13, "Permission denied"),
                    () if rejects(server) || server.addresses.contains(&CIP) => {
                        error(22, "Invalid argument")
                    }
                    () if server.vip_on.is_empty() => error(113, "No route to host"),
                    () => local(&server.tunnel),
                };
            }
            match asked.to {
                VIP if !server.vip_on.is_empty() => local("lo"),
                to if server.addresses.contains(&to) => local("lo"),
                _ if !server.route || server.route_by_mark => error(101, "Network is unreachable"),
                _ => by(gateway(n), asked.from.unwrap_or(rip(n))),
            }
        }
    }
}

/// Whether rp_filter drops what comes out of the tunnel.
pub(crate) fn rejects(server: &Server) -> bool {
    match server.rp_filter_all.max(server.rp_filter_tunnel) {
        0 => false,
        1 => true,
        _ => server.vip_on != server.tunnel,
    }
}

fn link(index: u32, name: &str, addresses: &[(Ipv4Addr, u8)]) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: None,
        up: true,
        running: true,
        loopback: false,
        noarp: false,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 1, index as u8]),
        addresses: addresses
            .iter()
            .map(|(ip, prefix)| address(*ip, *prefix))
            .collect(),
        tunnel: None,
        carrier_changes: 0,
    }
}

fn address(ip: Ipv4Addr, prefix: u8) -> Address {
    Address { ip, prefix }
}
