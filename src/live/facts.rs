//! What this host says of itself: everything in [`HostFacts`], read once.

use std::collections::BTreeMap;
use std::error::Error;

use netlink_packet_route::link::InetDevConf;
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::task::yield_now;

use crate::exchange::FactQuery;
use crate::exchange::HostFacts;
use crate::exchange::Ipvs;
use crate::exchange::Link;
use crate::exchange::RouteAnswer;
use crate::exchange::Unread;
use crate::live::clock;
use crate::live::links;
use crate::live::links::Devices;
use crate::live::links::SETTINGS;
use crate::live::listeners;
use crate::live::neighbour;
use crate::live::netlink::Netlink;
use crate::live::procfs;
use crate::live::procfs::Failure;
use crate::live::routes;

/// Reads the facts of the calling thread's network namespace. What cannot be read is listed in `unread`.
///
/// Of settings, those of `all` and the devices that can matter are read: those with an IPv4 address,
/// tunnels, and those that the routes asked name; only on these, too, neighbours are looked up. It takes a few
/// milliseconds and leaves other tasks their turn between the steps. `ipvs` reads the kernel's IPVS, which takes
/// `CAP_NET_ADMIN`.
pub async fn gather<E: Error + 'static>(
    query: &FactQuery,
    ipvs: impl FnOnce() -> Result<Ipvs, E>,
) -> HostFacts {
    let mut facts = HostFacts {
        time: clock::steady(),
        ipvs: Ipvs::Unknown,
        ..HostFacts::default()
    };
    let mut failures = Vec::new();
    let names = [
        (&mut facts.hostname, "hostname"),
        (&mut facts.kernel, "osrelease"),
    ];
    for (field, name) in names.into_iter().filter(|_| !query.only) {
        match procfs::kernel(name) {
            Ok(value) => *field = value,
            Err(failure) => failures.push(failure),
        }
    }

    let mut settings = BTreeMap::new();
    match Netlink::open(NETLINK_ROUTE) {
        Ok(mut netlink) => settings = ask_netlink(&mut netlink, query, &mut facts).await,
        Err(error) => facts
            .unread
            .push(unread("devices, routes and neighbours", &error)),
    }
    yield_now().await;

    let devices: Vec<_> = relevant(&facts, query)
        .map(|link| link.name.as_str())
        .collect();
    let mut sysctls = procfs::sysctls(&devices, query.only, &mut failures);
    for device in devices {
        let Some(found) = settings.get(device) else {
            continue;
        };
        for (setting, value) in SETTINGS {
            let key = format!("net.ipv4.conf.{device}.{setting}");
            sysctls.insert(key, value(found).into());
        }
    }
    facts.sysctls = sysctls;
    for name in &query.sysctls {
        match procfs::setting(name) {
            Ok(value) => {
                facts.settings.insert(name.clone(), value);
            }
            Err(failure) => failures.push(failure),
        }
    }
    yield_now().await;
    if !query.only {
        facts.counters = procfs::counters(&mut failures);
        yield_now().await;
    }

    if let Some(port) = query.listeners {
        facts.listeners = listeners::list(port, &mut failures);
        yield_now().await;
    }
    if let Some(service) = &query.service {
        facts.ipvs = match ipvs() {
            Ok(ipvs) => ipvs,
            Err(error) => {
                facts.unread.push(unread("ipvs services", &error));
                Ipvs::Unknown
            }
        };
        yield_now().await;
        facts.ipvs_connections = procfs::connections(service, &mut failures);
    }
    facts.unread.extend(
        failures
            .into_iter()
            .map(|Failure { what, error }| Unread { what, error }),
    );
    facts
}

/// What netlink knows; the devices' settings are given back.
async fn ask_netlink(
    netlink: &mut Netlink,
    query: &FactQuery,
    facts: &mut HostFacts,
) -> BTreeMap<String, InetDevConf> {
    let devices = links::list(netlink).unwrap_or_else(|error| Devices {
        unread: vec![unread("devices", &error)],
        ..Devices::default()
    });
    facts.links = devices.links;
    facts.unread.extend(devices.unread);
    yield_now().await;

    for route in &query.routes {
        match routes::look_up(netlink, route) {
            Ok(answer) => facts.routes.push((route.clone(), answer)),
            Err(error) => {
                let what = format!("route to {}", route.to);
                facts.unread.push(unread(&what, &error));
            }
        }
    }
    yield_now().await;

    let near: Vec<_> = relevant(facts, query).filter(|link| !link.noarp).collect();
    match neighbour::list(netlink, &query.neighbours, &near) {
        Ok(neighbours) => facts.neighbours = neighbours,
        Err(error) => facts.unread.push(unread("neighbours", &error)),
    }
    devices.settings
}

/// The devices that can matter to the path: a host may have hundreds that do not.
fn relevant<'a>(facts: &'a HostFacts, query: &'a FactQuery) -> impl Iterator<Item = &'a Link> {
    facts.links.iter().filter(|link| {
        let name = Some(link.name.as_str());
        !link.addresses.is_empty()
            || link.tunnel.is_some()
            || query.routes.iter().any(|route| route.iif.as_deref() == name)
            || facts.routes.iter().any(|(_, answer)| {
                matches!(answer, RouteAnswer::Route(route) if route.device.as_deref() == name)
            })
    })
}

fn unread(what: &str, error: &dyn Error) -> Unread {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words += ": ";
        words += &error.to_string();
        cause = error.source();
    }
    Unread {
        what: what.to_owned(),
        error: words,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::net::SocketAddr;
    use std::net::TcpListener;
    use std::net::UdpSocket;

    use socket2::Domain;
    use socket2::Socket;
    use socket2::Type;

    use super::*;
    use crate::exchange::Address;
    use crate::exchange::Listener;
    use crate::exchange::Neighbour;
    use crate::exchange::Route;
    use crate::exchange::RouteKind;
    use crate::exchange::RouteQuery;
    use crate::exchange::ServiceQuery;
    use crate::exchange::Wall;
    use crate::live::ipvs;
    use crate::live::testbed::in_namespace;
    use crate::live::testbed::ip;
    use crate::live::testbed::ip_says;
    use crate::live::testbed::set;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

    /// A real server: `eth0` to the gateway, a veth end named `decap0` with the VIP, and `eth9` without an address.
    fn real_server() {
        ip("link set lo up
            link add eth0 address 02:00:00:00:00:05 type veth peer name eth1
            link set eth0 up mtu 1400
            link set eth1 up
            address add 203.0.113.5/24 dev eth0
            link add decap0 type veth peer name inner
            link set decap0 up arp off
            link set inner up
            address add 192.0.2.10/32 dev decap0
            link add eth9 type veth peer name eth8
            route add default via 203.0.113.1 mtu 1300
            route add 198.51.100.128/25 via 203.0.113.2 table 100
            rule add to 198.51.100.128/25 table 100
            route add unreachable 198.18.0.0/24
            route add prohibit 198.18.1.0/24
            neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev eth0 nud stale
            neigh add 203.0.113.2 lladdr 02:00:00:00:00:02 dev eth0 nud stale");
    }

    fn gather_now(query: &FactQuery) -> HostFacts {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(gather(query, ipvs::read))
    }

    fn to(to: Ipv4Addr) -> RouteQuery {
        RouteQuery {
            to,
            from: None,
            iif: None,
        }
    }

    fn decapsulated() -> RouteQuery {
        RouteQuery {
            to: VIP,
            from: Some(CIP),
            iif: Some("decap0".to_owned()),
        }
    }

    fn answer(query: RouteQuery) -> RouteAnswer {
        let query = FactQuery {
            routes: vec![query],
            ..FactQuery::default()
        };
        let mut facts = gather_now(&query);
        assert_eq!(facts.unread, []);
        assert_eq!(facts.routes[0].0, query.routes[0]);
        facts.routes.remove(0).1
    }

    fn errno(answer: RouteAnswer) -> i32 {
        match answer {
            RouteAnswer::Error { errno, .. } => errno,
            RouteAnswer::Route(route) => panic!("{route:?}"),
        }
    }

    #[test]
    fn the_host_describes_itself() {
        in_namespace(
            concat!(module_path!(), "::the_host_describes_itself"),
            || {
                real_server();
                set("conf/all/rp_filter", 0);
                set("conf/decap0/rp_filter", 2);
                set("conf/all/arp_ignore", 1);
                set("ip_forward", 1);
                let facts = gather_now(&FactQuery::default());
                assert_eq!(facts.unread, []);

                let shown = ip_says("-d address");
                let names: Vec<_> = facts.links.iter().map(|link| link.name.as_str()).collect();
                let expected: Vec<_> = shown
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|link| link["ifname"].as_str().unwrap())
                    .collect();
                assert_eq!(names, expected);

                let eth0 = facts.link("eth0").unwrap();
                assert_eq!(eth0.kind.as_deref(), Some("veth"));
                assert_eq!(eth0.mac, Some([2, 0, 0, 0, 0, 5]));
                assert_eq!(eth0.mtu, 1400);
                assert!(eth0.up && eth0.running && !eth0.noarp && !eth0.loopback);
                let expected = Address {
                    ip: Ipv4Addr::new(203, 0, 113, 5),
                    prefix: 24,
                };
                assert_eq!(eth0.addresses, [expected]);
                assert!(facts.link("decap0").unwrap().noarp);
                assert!(facts.link("lo").unwrap().loopback);
                let eth9 = facts.link("eth9").unwrap();
                assert!(!eth9.up && !eth9.running);
                assert_eq!(facts.holds(VIP).unwrap().name, "decap0");

                assert_eq!(facts.sysctls["net.ipv4.ip_forward"], 1);
                assert_eq!(facts.rp_filter_in_force("decap0"), Some(2));
                assert_eq!(facts.sysctls["net.ipv4.conf.all.arp_ignore"], 1);
                assert_eq!(facts.arp_announce_in_force("decap0"), Some(0));
                assert_eq!(facts.rp_filter_in_force("eth9"), None, "it cannot matter");
                assert_eq!(facts.ipvs, Ipvs::Unknown, "it was not asked for");
                assert_eq!(facts.counter("TcpExtIPReversePathFilter"), Some(0));
                assert_eq!(facts.counter("TcpExtListenDrops"), Some(0));
                assert!(!facts.hostname.is_empty() && !facts.kernel.is_empty());
                assert!(facts.time > Wall::from_nanos(1_700_000_000_000_000_000));
            },
        );
    }

    #[test]
    fn what_was_said_before_is_not_said_again() {
        in_namespace(
            concat!(module_path!(), "::what_was_said_before_is_not_said_again"),
            || {
                real_server();
                set("conf/decap0/rp_filter", 2);
                let query = FactQuery {
                    routes: vec![to(CIP)],
                    only: true,
                    ..FactQuery::default()
                };
                let more = gather_now(&query);
                assert_eq!(more.unread, []);
                assert!(matches!(more.routes[..], [(_, RouteAnswer::Route(_))]));
                // Those of devices, which a route may have made matter, are cheap.
                assert_eq!(more.sysctls["net.ipv4.conf.decap0.rp_filter"], 2);
                assert!(!more.sysctls.contains_key("net.ipv4.conf.all.rp_filter"));
                assert!(more.hostname.is_empty() && more.counters.is_empty());
                let mut whole = gather_now(&FactQuery::default());
                whole.complete(more);
                assert_eq!(whole.rp_filter_in_force("decap0"), Some(2));
                assert!(!whole.hostname.is_empty() && !whole.counters.is_empty());
            },
        );
    }

    #[test]
    fn a_peers_address_is_not_the_devices_own() {
        in_namespace(
            concat!(module_path!(), "::a_peers_address_is_not_the_devices_own"),
            || {
                real_server();
                ip("address add 10.0.0.1 peer 10.0.0.2/32 dev eth0");
                let facts = gather_now(&FactQuery::default());
                assert!(facts.is_local(Ipv4Addr::new(10, 0, 0, 1)));
                assert!(!facts.is_local(Ipv4Addr::new(10, 0, 0, 2)));
            },
        );
    }

    #[test]
    fn routes_say_where_packets_go() {
        in_namespace(
            concat!(module_path!(), "::routes_say_where_packets_go"),
            || {
                real_server();
                let unicast = Route {
                    kind: RouteKind::Unicast,
                    device: Some("eth0".to_owned()),
                    gateway: Some(GATEWAY),
                    source: Some(Ipv4Addr::new(203, 0, 113, 5)),
                    table: 254,
                    mtu: Some(1300),
                };
                assert_eq!(answer(to(CIP)), RouteAnswer::Route(unicast.clone()));
                let by_rule = Route {
                    gateway: Some(Ipv4Addr::new(203, 0, 113, 2)),
                    table: 100,
                    mtu: None,
                    ..unicast.clone()
                };
                let other_client = Ipv4Addr::new(198, 51, 100, 200);
                assert_eq!(answer(to(other_client)), RouteAnswer::Route(by_rule));
                let from_vip = RouteQuery {
                    from: Some(VIP),
                    ..to(CIP)
                };
                let asked_from = Route {
                    source: None,
                    ..unicast
                };
                assert_eq!(answer(from_vip), RouteAnswer::Route(asked_from));
            },
        );
    }

    #[test]
    fn the_reverse_path_filter_shows_in_the_received_route() {
        in_namespace(
            concat!(
                module_path!(),
                "::the_reverse_path_filter_shows_in_the_received_route"
            ),
            || {
                real_server();
                set("conf/all/rp_filter", 0);
                set("conf/decap0/rp_filter", 0);
                match answer(decapsulated()) {
                    RouteAnswer::Route(route) => {
                        assert_eq!(route.kind, RouteKind::Local);
                        assert_eq!(route.device.as_deref(), Some("lo"));
                        assert_eq!(route.table, 255);
                    }
                    error => panic!("{error:?}"),
                }
                set("conf/decap0/rp_filter", 1);
                let errno = errno(answer(decapsulated()));
                assert!([libc::EXDEV, libc::EINVAL].contains(&errno), "{errno}");
            },
        );
    }

    #[test]
    fn errors_of_a_lookup_are_answers() {
        in_namespace(
            concat!(module_path!(), "::errors_of_a_lookup_are_answers"),
            || {
                real_server();
                let unreachable = to(Ipv4Addr::new(198, 18, 0, 1));
                assert_eq!(errno(answer(unreachable)), libc::EHOSTUNREACH);
                let prohibited = to(Ipv4Addr::new(198, 18, 1, 1));
                assert_eq!(errno(answer(prohibited)), libc::EACCES);
                let no_device = RouteQuery {
                    iif: Some("tunl7".to_owned()),
                    ..decapsulated()
                };
                assert_eq!(errno(answer(no_device)), libc::ENODEV);
                ip("route del default");
                assert_eq!(errno(answer(to(CIP))), libc::ENETUNREACH);
            },
        );
    }

    #[test]
    fn neighbours_are_those_asked_for() {
        in_namespace(
            concat!(module_path!(), "::neighbours_are_those_asked_for"),
            || {
                real_server();
                let query = FactQuery {
                    neighbours: vec![GATEWAY, Ipv4Addr::new(203, 0, 113, 9)],
                    ..FactQuery::default()
                };
                let expected = Neighbour {
                    ip: GATEWAY,
                    device: "eth0".to_owned(),
                    mac: Some([2, 0, 0, 0, 0, 1]),
                    state: 4,
                };
                let facts = gather_now(&query);
                assert_eq!(facts.neighbours, [expected]);
                assert_eq!(facts.unread, []);
            },
        );
    }

    #[test]
    fn sockets_and_ipvs_are_this_namespaces() {
        in_namespace(
            concat!(module_path!(), "::sockets_and_ipvs_are_this_namespaces"),
            || {
                real_server();
                let _any = TcpListener::bind("0.0.0.0:8080").unwrap();
                let _vip = UdpSocket::bind("192.0.2.10:8080").unwrap();
                let _other = TcpListener::bind("192.0.2.10:8081").unwrap();
                // As std does not set IPV6_V6ONLY, `::` takes IPv4, too.
                let _dual = UdpSocket::bind("[::]:8084").unwrap();
                let v6_only = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
                v6_only.set_only_v6(true).unwrap();
                let own = "[::]:8083".parse::<SocketAddr>().unwrap();
                v6_only.bind(&own.into()).unwrap();
                let connected = TcpListener::bind("192.0.2.10:8082").unwrap();
                let _client = std::net::TcpStream::connect(connected.local_addr().unwrap());
                let query = FactQuery {
                    service: Some(ServiceQuery { vip: VIP, cip: CIP }),
                    listeners: Some(8080),
                    ..FactQuery::default()
                };
                let facts = gather_now(&query);
                let listener = |protocol, address| Listener {
                    protocol,
                    address,
                    port: 8080,
                };
                let expected = [listener(6, None), listener(17, Some(VIP))];
                assert_eq!(facts.listeners, expected);
                let mut failures = Vec::new();
                assert_eq!(procfs::listeners(8080, &mut failures), expected);
                let dual = listeners::list(8084, &mut failures);
                assert_eq!(dual.iter().map(|it| it.address).collect::<Vec<_>>(), [None]);
                assert_eq!(procfs::listeners(8084, &mut failures), dual);
                assert_eq!(listeners::list(8083, &mut failures), []);
                assert!(failures.is_empty());
                match facts.ipvs {
                    Ipvs::Absent => assert_eq!(facts.unread, []),
                    Ipvs::Services(services) => {
                        assert_eq!(services, []);
                        assert_eq!(facts.unread, []);
                    }
                    // Where ip_vs is loaded, up to some kernels root of a user namespace is not root enough.
                    Ipvs::Unknown => {
                        let expected = Unread {
                            what: "ipvs services".to_owned(),
                            error: "the kernel refused it: Operation not permitted (os error 1)"
                                .to_owned(),
                        };
                        assert_eq!(facts.unread, [expected]);
                    }
                }
                assert_eq!(facts.ipvs_connections, []);
            },
        );
    }
}
