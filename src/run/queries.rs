//! Which facts to ask of whom, and what the engine reads out of the answers.

use std::net::Ipv4Addr;

use crate::exchange::Address;
use crate::exchange::FactQuery;
use crate::exchange::FirewallPacket;
use crate::exchange::FirewallQuery;
use crate::exchange::HostFacts;
use crate::exchange::Leg;
use crate::exchange::Link;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::exchange::ServiceQuery;
use crate::exchange::TapPath;
use crate::exchange::TapSpec;
use crate::plan::Action;
use crate::plan::Host;
use crate::plan::Packet;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Protocol;
use crate::plan::Subject;

/// What can be asked of `host` without knowing anything of it.
pub(super) fn first(plan: &Plan, host: Host) -> FactQuery {
    let path = &plan.paths[path_of(host)];
    let mut routes = match host {
        Host::Director => {
            let mut routes: Vec<_> = plan.paths.iter().map(|path| to(path.rip)).collect();
            routes.extend([to(path.vip), to(path.cip)]);
            routes.extend(path.dip.map(to));
            routes
        }
        Host::Realserver(_) => realserver_routes(path),
        Host::Client => vec![to(path.vip)],
    };
    for query in framed(plan, host).map(to) {
        if !routes.contains(&query) {
            routes.push(query);
        }
    }
    FactQuery {
        routes,
        neighbours: Vec::new(),
        sysctls: settings(plan, host).collect(),
        service: (host == Host::Director).then_some(ServiceQuery {
            vip: path.vip,
            cip: path.cip,
        }),
        listeners: matches!(host, Host::Realserver(_)).then_some(path.port),
        only: false,
    }
}

/// What the first answer makes worth asking: input routes by device, the gateway's neighbour entry. All else that the
/// host said stands; on a busy one listing connections takes its time.
pub(super) fn second(plan: &Plan, host: Host, known: &HostFacts) -> FactQuery {
    let mut query = whole(plan, host, known);
    let is_new = |asked: &RouteQuery| known.route(asked).is_none();
    query.routes.retain(is_new);
    FactQuery {
        routes: query.routes,
        neighbours: query.neighbours,
        only: true,
        ..FactQuery::default()
    }
}

/// All that is worth asking a host of which something is known.
pub(super) fn whole(plan: &Plan, host: Host, known: &HostFacts) -> FactQuery {
    let mut query = first(plan, host);
    let path = &plan.paths[path_of(host)];
    match host {
        Host::Director => {
            let ingress = plan.ingress.clone().or_else(|| {
                let answer = known.route(&to(path.cip))?;
                match answer {
                    RouteAnswer::Route(route) => route.device.clone(),
                    RouteAnswer::Error { .. } => None,
                }
            });
            query.routes.extend(ingress.map(|device| RouteQuery {
                to: path.vip,
                from: Some(path.cip),
                iif: Some(device),
            }));
            for path in &plan.paths {
                if let Some(RouteAnswer::Route(route)) = known.route(&to(path.rip)) {
                    query.routes.extend(route.source.map(to));
                    query.neighbours.push(route.gateway.unwrap_or(path.rip));
                }
            }
            // Who is a router there may answer ARP for others.
            if let Some(RouteAnswer::Route(route)) = known.route(&to(path.cip)) {
                query.neighbours.extend(route.gateway);
            }
        }
        Host::Realserver(_) => {
            for link in tunnels(known, path) {
                query.routes.push(RouteQuery {
                    to: path.vip,
                    from: Some(path.cip),
                    iif: Some(link.name.clone()),
                });
            }
            query
                .neighbours
                .extend(egress(known, path).map(|e| e.next_hop));
        }
        Host::Client => {}
    }
    for destination in framed(plan, host) {
        if let Some(RouteAnswer::Route(route)) = known.route(&to(destination)) {
            let next_hop = route.gateway.unwrap_or(destination);
            if !query.neighbours.contains(&next_hop) {
                query.neighbours.push(next_hop);
            }
        }
    }
    for asked in asked(plan, host) {
        if !query.routes.contains(&asked) {
            query.routes.push(asked);
        }
    }
    query
}

/// Where the frames are for that suites let a host send by the device that leads there.
fn framed(plan: &Plan, host: Host) -> impl Iterator<Item = Ipv4Addr> {
    let steps = plan.suites.iter().enumerate().flat_map(|(path, suite)| {
        let steps = suite.steps.iter();
        steps.map(move |step| (path, &step.action))
    });
    let scripts = steps.filter_map(move |(path, action)| match action {
        Action::Script(script) if script.from.host(path) == host => Some(script),
        _ => None,
    });
    let packets = scripts.flat_map(|script| &script.packets);
    let frames = packets.filter(|packet| packet.is_frame());
    let destinations = frames.map(Packet::destination);
    destinations.filter(|to| !to.is_unspecified())
}

/// The settings that the suites ask a host for.
fn settings(plan: &Plan, host: Host) -> impl Iterator<Item = String> {
    let steps = plan.suites.iter().enumerate().flat_map(|(path, suite)| {
        let steps = suite.steps.iter();
        steps.map(move |step| (path, &step.action))
    });
    steps.filter_map(move |(path, action)| match action {
        Action::Ask(question) if question.host.host(path) == host => match &question.about {
            Subject::Sysctl { name, .. } => Some(name.clone()),
            Subject::Route { .. } | Subject::Address { .. } => None,
        },
        _ => None,
    })
}

/// The routes that the suites ask a host for.
fn asked(plan: &Plan, host: Host) -> impl Iterator<Item = RouteQuery> {
    let steps = plan.suites.iter().enumerate().flat_map(|(path, suite)| {
        let steps = suite.steps.iter();
        steps.map(move |step| (path, &step.action))
    });
    steps.filter_map(move |(path, action)| match action {
        Action::Ask(question) if question.host.host(path) == host => match &question.about {
            Subject::Route { to, from, iif, .. } => Some(RouteQuery {
                to: *to,
                from: *from,
                iif: iif.clone(),
            }),
            Subject::Sysctl { .. } | Subject::Address { .. } => None,
        },
        _ => None,
    })
}

/// What the tap of every host shall see.
pub(super) fn tap(plan: &Plan, host: Host, known: Option<&HostFacts>) -> TapSpec {
    let one = |path: &Path| TapPath {
        vip: path.vip,
        cip: path.cip,
        dip: path.dip,
        rip: path.rip,
        gateway: known
            .and_then(|facts| egress(facts, path))
            .map(|egress| egress.next_hop)
            .or(path.gateway),
    };
    let scripts = plan.scripts();
    TapSpec {
        paths: match host {
            Host::Realserver(number) => vec![one(&plan.paths[number])],
            Host::Director | Host::Client => plan.paths.iter().map(one).collect(),
        },
        rewritten: match host {
            Host::Client => Some(plan.paths[0].cip),
            Host::Director | Host::Realserver(_) => plan.paths[path_of(host)]
                .dip
                .filter(|_| plan.sends_to_director()),
        },
        scripted: (!scripts.is_empty()).then(|| {
            // Which number a packet gets depends on what is played before it.
            let ports = scripts
                .iter()
                .flat_map(|probe| [probe.flow.source_port, plan.session.client_port(probe.id)]);
            ports.filter(|port| *port != 0).collect()
        }),
    }
}

/// The path's packets that the firewall of `host` could stop. Asking the firewalls is worth it only once
/// packets have died.
pub(super) fn firewall(plan: &Plan, host: Host, known: &HostFacts) -> Option<FirewallQuery> {
    let devices = |to| match known.route(&self::to(to)) {
        Some(RouteAnswer::Route(route)) => route.device.iter().cloned().collect(),
        _ => Vec::new(),
    };
    let mut packets = Vec::new();
    let path = &plan.paths[path_of(host)];
    let service = path.protocol.number();
    let client = |leg, incoming, protocol: u8| {
        let asks = leg != Leg::Answer;
        let (source, destination) = if asks {
            (path.cip, path.vip)
        } else {
            (path.vip, path.cip)
        };
        let port = Some(path.port).filter(|_| protocol == service && protocol != ICMP);
        FirewallPacket {
            leg,
            incoming,
            protocol,
            source,
            destination,
            source_port: port.filter(|_| !asks),
            destination_port: port.filter(|_| asks),
            devices: Vec::new(),
        }
    };
    let tunnel = |path: &Path, incoming| {
        Some(FirewallPacket {
            leg: Leg::Tunnel,
            incoming,
            protocol: 4,
            source: path.dip?,
            destination: path.rip,
            source_port: None,
            destination_port: None,
            devices: if incoming {
                Vec::new()
            } else {
                devices(path.rip)
            },
        })
    };
    match host {
        Host::Director => {
            packets.push(client(Leg::Request, true, service));
            packets.extend(plan.paths.iter().filter_map(|path| tunnel(path, false)));
        }
        Host::Realserver(_) => {
            packets.extend(tunnel(path, true));
            let names: Vec<_> = tunnels(known, path).map(|link| link.name.clone()).collect();
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let packet = client(Leg::Decapsulated, true, protocol.number());
                packets.push(FirewallPacket {
                    devices: names.clone(),
                    // Datagrams go to closed ports, too.
                    destination_port: packet
                        .destination_port
                        .filter(|_| protocol == Protocol::Tcp),
                    ..packet
                });
            }
            for protocol in [service, ICMP] {
                packets.push(FirewallPacket {
                    devices: devices(path.cip),
                    ..client(Leg::Answer, false, protocol)
                });
            }
        }
        Host::Client => {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                packets.push(client(Leg::Answer, true, protocol.number()));
            }
        }
    }
    (!path.cip.is_unspecified()).then_some(FirewallQuery { packets })
}

/// How the real server reaches the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Egress {
    /// The device.
    pub(super) device: String,
    /// The gateway, or the client itself where it is on-link.
    pub(super) next_hop: Ipv4Addr,
    /// The real server's own address there.
    pub(super) address: Ipv4Addr,
    /// Its hardware address there.
    pub(super) mac: [u8; 6],
    /// Whether the VIP is on-link there, so that an ARP request from it would hijack it.
    pub(super) vip_on_link: bool,
    /// Whether the kernel may use the VIP as the sender of its ARP requests there.
    pub(super) tells_vip: bool,
}

/// How the real server reaches the client, if it has a route over a device with ARP.
pub(super) fn egress(facts: &HostFacts, path: &Path) -> Option<Egress> {
    let route = realserver_routes(path)
        .iter()
        .find_map(|query| match facts.route(query) {
            Some(RouteAnswer::Route(route)) if route.device.is_some() => Some(route.clone()),
            _ => None,
        })?;
    let link = facts.link(route.device.as_deref()?)?;
    let mac = link.mac.filter(|_| !link.noarp && !link.loopback)?;
    let next_hop = path.gateway.or(route.gateway).unwrap_or(path.cip);
    let address = link
        .addresses
        .iter()
        .find(|address| address.ip != path.vip && address.contains(next_hop))
        .or_else(|| link.addresses.iter().find(|address| address.ip != path.vip))
        .map_or(path.rip, |address| address.ip);
    let vip_on_link = link
        .addresses
        .iter()
        .any(|a| a.prefix < 32 && a.contains(path.vip));
    Some(Egress {
        next_hop,
        address,
        mac,
        // 1 keeps to addresses of the target's own subnet, which an on-link VIP is; what is unknown may
        // be 0.
        tells_vip: match facts.arp_announce_in_force(&link.name) {
            Some(2..) => false,
            Some(1) => vip_on_link,
            Some(_) | None => true,
        } && !facts
            .holds(path.vip)
            .is_some_and(|holder| facts.hidden(&holder.name)),
        vip_on_link,
        device: link.name.clone(),
    })
}

/// A link that the VIP is on, and how to ask there who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OnLink {
    /// The device.
    pub(super) device: String,
    /// Its hardware address.
    pub(super) mac: [u8; 6],
    /// Whom the answer is told to: the host's own declared address, or nobody (RFC 5227); never the VIP.
    pub(super) sender: Ipv4Addr,
}

/// The link by which `host` gets or sends the client's packets, if the VIP is on it.
pub(super) fn on_link(
    facts: &HostFacts,
    host: Host,
    path: &Path,
    ingress: Option<&str>,
) -> Option<OnLink> {
    let (device, own) = match host {
        Host::Director => {
            let toward_client = match facts.route(&to(path.cip)) {
                Some(RouteAnswer::Route(route)) => route.device.clone(),
                _ => None,
            };
            (ingress.map(str::to_owned).or(toward_client)?, path.dip)
        }
        Host::Realserver(_) => (egress(facts, path)?.device, Some(path.rip)),
        Host::Client => return None,
    };
    let link = facts.link(&device)?;
    let mac = link.mac.filter(|_| !link.noarp && !link.loopback)?;
    let on_link = |a: &Address| (1..32).contains(&a.prefix) && a.contains(path.vip);
    link.addresses.iter().find(|a| on_link(a))?;
    let sender = own
        .filter(|own| link.addresses.iter().any(|address| address.ip == *own))
        .unwrap_or(Ipv4Addr::UNSPECIFIED);
    Some(OnLink {
        device,
        mac,
        sender,
    })
}

/// The devices that may take the path's packets out of the tunnel.
pub(super) fn tunnels<'a>(
    facts: &'a HostFacts,
    path: &'a Path,
) -> impl Iterator<Item = &'a Link> + 'a {
    facts
        .links
        .iter()
        .filter(|link| path.is_tunnel(&link.name, link.kind.as_deref()))
}

/// ICMP's protocol number.
const ICMP: u8 = 1;

fn realserver_routes(path: &Path) -> Vec<RouteQuery> {
    let from = |source| RouteQuery {
        from: Some(source),
        ..to(path.cip)
    };
    let mut routes = vec![from(path.vip), from(path.rip), to(path.cip)];
    routes.extend(path.dip.map(to));
    routes
}

fn to(address: Ipv4Addr) -> RouteQuery {
    RouteQuery {
        to: address,
        from: None,
        iif: None,
    }
}

fn path_of(host: Host) -> usize {
    match host {
        Host::Realserver(path) => path,
        Host::Director | Host::Client => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Route;
    use crate::exchange::RouteKind;
    use crate::plan::SessionKey;

    #[test]
    fn the_director_is_asked_for_its_routers_toward_the_real_server_and_the_client() {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 80,
            protocol: Protocol::Tcp,
            rip: Ipv4Addr::new(203, 0, 113, 5),
            dip: None,
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        };
        let by = |gateway| {
            RouteAnswer::Route(Route {
                kind: RouteKind::Unicast,
                device: Some("eth0".to_owned()),
                gateway: Some(gateway),
                source: None,
                table: 254,
                mtu: None,
            })
        };
        let [inner, outer] = [1, 9].map(|octet| Ipv4Addr::new(10, 0, 0, octet));
        let known = HostFacts {
            routes: vec![(to(path.rip), by(inner)), (to(path.cip), by(outer))],
            ..HostFacts::default()
        };
        let plan = Plan {
            session: SessionKey::new([1; 16]),
            paths: vec![path],
            vantages: vec![Host::Director],
            ingress: None,
            egress: None,
            suites: Vec::new(),
        };
        let query = second(&plan, Host::Director, &known);
        assert_eq!(query.neighbours, [inner, outer]);
    }
}
