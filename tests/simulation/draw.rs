//! Random networks: any of the oddities of healthy ones at once, and at most one fault in them.
//!
//! What is truly broken is said here, by the fault, and held against what a real client's connections do in
//! that network: never by the verdict under test.

use std::net::Ipv4Addr;

use tunproof::plan::Hop;

use crate::CIP;
use crate::DIP;
use crate::PORT;
use crate::VIP;
use crate::scenario::Detour;
use crate::scenario::Filter;
use crate::scenario::Impair;
use crate::scenario::Rewrite;
use crate::scenario::Scenario;
use crate::scenario::Server;
use crate::world::World;

/// A fault and what it truly breaks.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// The hops that do not do what they claim.
    pub(crate) broken: Vec<Hop>,
    /// Only on the path of this real server; all paths, if none.
    pub(crate) only: Option<usize>,
    /// Only some of the packets are hit, so that others may prove the hop before one of those is asked.
    pub(crate) some: bool,
}

/// Hosts that a proof may stand on.
pub(crate) const VANTAGES: [&[&str]; 6] = [
    &["director", "realserver", "client"],
    &["director", "realserver"],
    &["director"],
    &["realserver"],
    &["director", "client"],
    &["realserver", "client"],
];

/// Dice of their own, so that the network's stay as they are.
pub(crate) struct Dice(World);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(World::new(Scenario::default(), seed ^ 0xd1ce_d1ce))
    }

    pub(crate) fn often(&mut self, share: f64) -> bool {
        self.0.chance() < share
    }

    pub(crate) fn below(&mut self, end: f64) -> f64 {
        self.0.chance() * end
    }

    pub(crate) fn one_of<T: Clone>(&mut self, these: &[T]) -> T {
        these[(self.0.chance() * these.len() as f64) as usize].clone()
    }
}

/// A network that works, however odd, and the hosts that tunproof runs on.
pub(crate) fn healthy(seed: u64) -> (Scenario, Vec<String>) {
    let mut dice = Dice::new(seed);
    let mut scenario = Scenario::default();
    let udp = dice.often(0.25);
    scenario.network.protocol = if udp { "udp" } else { "tcp" }.to_owned();
    let servers = if dice.often(0.25) { 2 } else { 1 };
    scenario.server = (0..servers).map(|_| server(&mut dice)).collect();
    if let [_, second] = &mut scenario.server[..] {
        second.declared = dice.often(0.6);
    }
    scenario.director.scheduler = dice.one_of(&["rr", "sh"]).to_owned();
    scenario.client.no_icmp = dice.often(0.15);
    scenario.client.icmp_per_second = dice.often(0.15).then_some(1.0);
    scenario.client.stateful = dice.often(0.1);
    let network = &mut scenario.network;
    network.minimal_quotes = dice.often(0.25);
    network.router_icmp_per_second = dice.often(0.15).then(|| 0.5 + dice.below(4.0));
    network.mtu = dice.one_of(&[1500, 1500, 9000]);
    network.hop_ms = dice.one_of(&[0, 1, 1, 5]);
    if dice.often(0.2) {
        network.agent_ms = dice.below(300.0) as u64;
    }
    for node in ["gw", "isp", "core", "r1", "rd"] {
        if dice.often(0.12) {
            network.silent_routers.push(node.to_owned());
        }
    }
    for (at, by) in [("isp", "ispb"), ("r1", "r1b"), ("rd", "rdb")] {
        if dice.often(0.2) {
            let share = dice.one_of(&[0.5, 0.5, 0.25, 1.0]);
            let destination = dice
                .often(0.3)
                .then(|| dice.one_of(&[CIP, VIP, crate::rip(0)]));
            scenario.detour.push(Detour {
                at: at.to_owned(),
                by: by.to_owned(),
                share,
                destination,
            });
        }
    }
    weather(&mut scenario, &mut dice);
    let vantages = dice.one_of(&VANTAGES);
    (scenario, vantages.iter().map(ToString::to_string).collect())
}

fn server(dice: &mut Dice) -> Server {
    let mut server = Server {
        tunnel: dice.one_of(&["tunl0", "tunl0", "lvs0"]).to_owned(),
        answers: dice.often(0.6),
        ip_forward: dice.often(0.2),
        hidden: dice.often(0.1),
        permanent_neighbour: dice.often(0.1),
        arp_announce: dice.one_of(&[0, 0, 1, 2]),
        ..Server::default()
    };
    server.vip_on = dice
        .one_of(&[server.tunnel.as_str(), "lo", "dummy0", "eth0"])
        .to_owned();
    if server.vip_on == server.tunnel && dice.often(0.2) {
        server.rp_filter_tunnel = 2;
    }
    if dice.often(0.15) {
        server.snat = "own".to_owned();
    }
    if server.tunnel == "lvs0" {
        server.tunnel_remote = Some(DIP);
    }
    if dice.often(0.15) {
        server.arptables = true;
        server.gateway_answers_vip = dice.often(0.5);
    }
    if server.arp_announce == 2 {
        server.gateway_answers_vip &= dice.often(0.8);
    }
    server
}

/// Loss of a third at most in all, delay, duplication, reordering.
fn weather(scenario: &mut Scenario, dice: &mut Dice) {
    if dice.often(0.3) {
        return;
    }
    let heavy = dice.often(0.3);
    for node in ["core", "isp", "ispb", "rd", "r1", "c", "d", "s"] {
        if heavy && node == "core" {
            scenario.impair.push(Impair {
                at: node.to_owned(),
                loss: dice.below(0.30),
                ..Impair::default()
            });
        }
        if !heavy && dice.often(0.3) {
            scenario.impair.push(Impair {
                at: node.to_owned(),
                loss: if dice.often(0.4) {
                    dice.below(0.08)
                } else {
                    0.0
                },
                duplicate: dice.below(0.2),
                delay_ms: dice.below(100.0) as u64,
                jitter_ms: if dice.often(0.5) {
                    dice.below(80.0) as u64
                } else {
                    0
                },
            });
        }
    }
}

/// Agents that are lost, taps that lose packets, users without patience.
pub(crate) fn disturb(scenario: &mut Scenario, dice: &mut Dice) {
    for node in ["s", "d", "c"] {
        let ms = (dice.below(1.0) * dice.below(5000.0)) as u64;
        if dice.often(0.08) {
            scenario.network.lost_after_ms.insert(node.to_owned(), ms);
        }
        if dice.often(0.08) {
            scenario.network.tap_drops.insert(node.to_owned(), 1);
        }
    }
    if dice.often(0.15) {
        scenario.network.interrupt_after_ms = Some(dice.below(4000.0) as u64);
    }
}

/// How a fault gets in.
type Breaks = fn(&mut Scenario, &mut Dice);

const VIP_SOURCES: Breaks = |scenario, dice| {
    let at = dice.one_of(&["gw", "isp", "core"]);
    drop_at(scenario, at, |f| {
        f.source = Some(VIP);
        f.destination = Some(CIP);
        f.reject = dice.often(0.3).then_some((3, 13));
    });
};

/// Name, what it breaks, and how; those of one real server hit the first.
const FAULTS: &[(&str, &[Hop], bool, Breaks)] = &[
    ("outer-source-vip", &[Hop::DirectorSource], false, |s, _| {
        s.director.outer_source = VIP;
    }),
    (
        "outer-source-on-server",
        &[Hop::DirectorSource],
        true,
        |s, _| {
            s.server[0].addresses.push(DIP);
        },
    ),
    (
        "no-route-to-server",
        &[Hop::DirectorSource],
        false,
        |s, _| s.director.route = false,
    ),
    ("no-ipvs-service", &[Hop::DirectorForward], false, |s, _| {
        s.director.service = false;
    }),
    (
        "no-ipvs-destination",
        &[Hop::DirectorForward],
        true,
        |s, _| s.server[0].in_ipvs = false,
    ),
    ("weight-0", &[Hop::DirectorForward], true, |s, _| {
        s.server[0].weight = 0;
    }),
    ("method-route", &[Hop::DirectorForward], true, |s, _| {
        s.server[0].method = "route".to_owned();
    }),
    (
        "no-vip-on-director",
        &[Hop::DirectorForward],
        false,
        |s, _| s.director.has_vip = false,
    ),
    (
        "director-drops-tunnel",
        &[Hop::DirectorToRealserver],
        false,
        |s, _| {
            drop_on(s, "d", "output", |f| f.protocol = Some(4));
        },
    ),
    (
        "network-drops-tunnel",
        &[Hop::DirectorToRealserver],
        false,
        |s, dice| {
            let at = dice.one_of(&["rd", "core", "isp", "gw"]);
            s.detour.retain(|detour| detour.at != at);
            drop_at(s, at, |f| {
                f.protocol = Some(4);
                f.reject = dice.often(0.3).then_some((3, 13));
            });
            if at == "isp" || at == "gw" {
                s.server.truncate(1);
            }
        },
    ),
    (
        "server-drops-tunnel",
        &[Hop::Decapsulation],
        true,
        |s, _| {
            drop_on(s, "s", "input", |f| f.protocol = Some(4));
        },
    ),
    ("no-ipip", &[Hop::Decapsulation], true, |s, _| {
        s.server[0].ipip = false;
    }),
    ("tunnel-down", &[Hop::Decapsulation], true, |s, _| {
        s.server[0].tunnel_up = false;
    }),
    ("tunnel-remote", &[Hop::Decapsulation], true, |s, _| {
        s.server[0].tunnel_remote = Some(Ipv4Addr::new(192, 0, 2, 99));
    }),
    ("rp-filter", &[Hop::RealserverAccept], true, |s, dice| {
        s.server[0].rp_filter_tunnel = 0;
        match dice.often(0.5) {
            true => s.server[0].rp_filter_all = 1,
            false => s.server[0].rp_filter_tunnel = 1,
        }
    }),
    ("no-vip", &[Hop::RealserverAccept], true, |s, _| {
        s.server[0].vip_on.clear();
    }),
    (
        "server-drops-inner",
        &[Hop::RealserverAccept],
        true,
        |s, _| {
            drop_on(s, "s", "input", |f| f.destination = Some(VIP));
        },
    ),
    (
        "server-drops-port",
        &[Hop::RealserverAccept],
        true,
        |s, _| {
            drop_on(s, "s", "input", |f| {
                f.destination = Some(VIP);
                f.destination_port = Some(PORT);
            });
        },
    ),
    ("no-service", &[Hop::Service], true, |s, _| {
        s.server[0].listens = false;
    }),
    (
        "no-route-to-client",
        &[Hop::RealserverEgress],
        true,
        |s, _| s.server[0].route = false,
    ),
    (
        "server-drops-answers",
        &[Hop::RealserverEgress],
        true,
        |s, _| {
            drop_on(s, "s", "output", |f| f.source = Some(VIP));
        },
    ),
    (
        "answers-translated",
        &[Hop::RealserverEgress],
        true,
        |s, _| {
            s.server[0].snat = "all".to_owned();
        },
    ),
    ("gateway-dead", &[Hop::GatewayArp], true, |s, _| {
        s.server[0].gateway_answers = false;
        s.server[0].permanent_neighbour = false;
    }),
    ("gateway-drops-vip", &[Hop::GatewayArp], true, |s, _| {
        let server = &mut s.server[0];
        server.gateway_answers_vip = false;
        server.permanent_neighbour = false;
        server.arp_announce = 0;
        server.hidden = false;
        server.arptables = false;
        server.snat.clear();
    }),
    (
        "spoof-filter",
        &[Hop::SpoofedSourceTransit, Hop::ClientArrival],
        false,
        |s, dice| {
            s.detour.clear();
            s.server.truncate(1);
            VIP_SOURCES(s, dice);
        },
    ),
    (
        "spoof-filter-some",
        &[Hop::SpoofedSourceTransit],
        false,
        |s, dice| {
            s.detour.clear();
            s.server.truncate(1);
            s.detour.push(Detour {
                at: "isp".to_owned(),
                by: "ispb".to_owned(),
                share: dice.one_of(&[0.25, 0.5, 0.75]),
                destination: None,
            });
            drop_at(s, "ispb", |f| f.source = Some(VIP));
        },
    ),
    (
        "rewritten",
        &[Hop::SpoofedSourceTransit],
        false,
        |s, dice| {
            s.detour.retain(|detour| detour.at != "isp");
            s.server.truncate(1);
            let udp = s.network.protocol == "udp";
            s.rewrite.push(Rewrite {
                at: dice.one_of(&["gw", "isp"]).to_owned(),
                source: VIP,
                to: dice.one_of(&[Ipv4Addr::new(10, 0, 3, 1), Ipv4Addr::new(100, 64, 0, 9)]),
                ports: dice.often(0.5),
                protocol: (udp && dice.often(0.5)).then_some(17),
            });
        },
    ),
    (
        "client-unreachable",
        &[Hop::SpoofedSourceTransit, Hop::ClientArrival],
        false,
        |s, dice| {
            s.detour.retain(|detour| detour.at != "r1");
            drop_at(s, "r1", |f| {
                f.destination = Some(CIP);
                f.reject = dice.often(0.3).then_some((3, 1));
            });
        },
    ),
    ("client-silent", &[Hop::ReturnToDirector], false, |s, _| {
        s.client.silent = true;
    }),
    (
        "way-to-the-vip-dead",
        &[Hop::ClientToDirector, Hop::ReturnToDirector],
        false,
        |s, dice| {
            let at = dice.one_of(&["r1", "core", "rd"]);
            s.detour.retain(|detour| detour.at != at);
            drop_at(s, at, |f| {
                f.source = Some(CIP);
                f.destination = Some(VIP);
            });
        },
    ),
];

/// Puts one fault into a healthy network.
pub(crate) fn fault(scenario: &mut Scenario, seed: u64) -> Fault {
    let mut dice = Dice::new(seed ^ 0xfa01);
    let (name, broken, one, breaks) = dice.one_of(FAULTS);
    breaks(scenario, &mut dice);
    Fault {
        name,
        broken: broken.to_vec(),
        only: one.then_some(0),
        // Of a UDP service whose datagrams alone are translated, TCP and ICMP pass: without a datagram that is seen
        // at the client, nothing tells.
        some: matches!(name, "spoof-filter-some" | "server-drops-port")
            || scenario.rewrite.iter().any(|rule| rule.protocol.is_some()),
    }
}

fn drop_at(scenario: &mut Scenario, at: &str, set: impl FnOnce(&mut Filter)) {
    drop_on(scenario, at, "", set);
}

fn drop_on(scenario: &mut Scenario, at: &str, hook: &str, set: impl FnOnce(&mut Filter)) {
    let mut filter = Filter {
        until_ms: None,
        at: at.to_owned(),
        hook: hook.to_owned(),
        source: None,
        destination: None,
        protocol: None,
        destination_port: None,
        reject: None,
    };
    set(&mut filter);
    scenario.filter.push(filter);
}
