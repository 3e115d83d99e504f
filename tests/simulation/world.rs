//! The network: links, routers, filters, loss, and the time.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::Ipv4Addr;
use std::time::Duration;

use tunproof::exchange::Capture;
use tunproof::plan::Host;
use tunproof::run::Command;
use tunproof::run::Event;

use crate::kernel::Kernel;
use crate::packet;
use crate::packet::Body;
use crate::scenario::Filter;
use crate::scenario::Scenario;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A packet arrives at a node, with the rest of its way before it.
    Arrival(String, Vec<String>, Vec<u8>),
    /// An agent gets a command.
    Ordered(Host, Command),
    /// The engine hears from an agent.
    Said(Host, Event),
    /// Taps see packets that somebody forged.
    Forged(Vec<(Host, Capture)>),
    /// An agent is gone.
    Lost(Host),
    /// The user interrupts.
    Interrupt,
    /// The gateway's ARP reply arrives.
    ArpReply(usize, Ipv4Addr),
    /// Somebody, by the last octet of his hardware address, claims the VIP.
    ArpClaim(Host, u8, Ipv4Addr),
    /// The kernel asks for the gateway again.
    ArpAgain(usize),
    /// A SYN-ACK is sent again, to this client's address and port.
    SynAckAgain(Host, (Ipv4Addr, u16), u32),
    /// A connection attempt times out.
    ConnectTimeout(u32, u16),
}

/// Everything outside the engine.
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now: Duration,
    pub(crate) kernels: BTreeMap<Host, Kernel>,
    queue: BTreeMap<(Duration, u64), Happening>,
    number: u64,
    random: u64,
    salt: u64,
    buckets: HashMap<(String, Ipv4Addr), (f64, Duration)>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, seed: u64) -> World {
        let mut kernels = BTreeMap::from([
            (Host::Director, Kernel::default()),
            (Host::Client, Kernel::default()),
        ]);
        for n in 0..scenario.server.len() {
            kernels.insert(Host::Realserver(n), Kernel::default());
        }
        let mut world = World {
            now: Duration::ZERO,
            kernels,
            queue: BTreeMap::new(),
            number: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed,
            salt: seed,
            buckets: HashMap::new(),
            scenario,
        };
        let lost = world.scenario.network.lost_after_ms.clone();
        for (name, ms) in lost {
            let host = crate::host_named(&name);
            world.later(Duration::from_millis(ms), Happening::Lost(host));
        }
        if let Some(ms) = world.scenario.network.interrupt_after_ms {
            world.later(Duration::from_millis(ms), Happening::Interrupt);
        }
        world
    }

    /// When the next thing happens.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.queue.keys().next().map(|(time, _)| *time)
    }

    /// Lets the next thing happen; what concerns the engine is returned.
    pub(crate) fn step(&mut self) -> Option<Happening> {
        let ((time, _), happening) = self.queue.pop_first()?;
        self.now = time;
        match happening {
            Happening::Arrival(node, rest, bytes) => self.arrive(node, rest, bytes),
            Happening::Ordered(host, command) => self.obey(host, command),
            Happening::ArpReply(n, target) => self.arp_reply(n, target),
            Happening::ArpClaim(host, octet, to) => self.arp_claim(host, octet, to),
            Happening::ArpAgain(n) => self.arp_again(n),
            Happening::SynAckAgain(host, peer, tries) => self.syn_ack_again(host, peer, tries),
            Happening::ConnectTimeout(token, port) => self.connect_timeout(token, port),
            engines => return Some(engines),
        }
        None
    }

    pub(crate) fn later(&mut self, delay: Duration, happening: Happening) {
        self.number += 1;
        self.queue
            .insert((self.now + delay, self.number), happening);
    }

    /// Between 0 and 1.
    pub(crate) fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Linux's limit of ICMP errors: six at once, then one a second to one address; and the stricter ones of
    /// the scenario.
    pub(crate) fn may_complain(&mut self, node: &str, to: Ipv4Addr) -> bool {
        let network = &self.scenario.network;
        let client = self.scenario.client.icmp_per_second.filter(|_| node == "c");
        let router = network
            .router_icmp_per_second
            .filter(|_| crate::host_at(node).is_none());
        let (rate, burst, to) = match (client, router) {
            (Some(rate), _) => (rate, 1.0, to),
            (_, Some(rate)) => (rate, rate.max(1.0), Ipv4Addr::UNSPECIFIED),
            _ => (1.0, 6.0, to),
        };
        let now = self.now;
        let (tokens, since) = self
            .buckets
            .entry((node.to_owned(), to))
            .or_insert((burst, now));
        *tokens = (*tokens + rate * (now - *since).as_secs_f64()).min(burst);
        *since = now;
        let may = *tokens >= 1.0;
        if may {
            *tokens -= 1.0;
        }
        may
    }

    /// A packet leaves a node.
    pub(crate) fn inject(&mut self, node: &str, bytes: Vec<u8>) {
        let destination = packet::read(&bytes).destination;
        let mut way = match crate::owner(&self.scenario, destination) {
            Some(to) => way(node, &to),
            None => way(node, "core"),
        };
        for detour in &self.scenario.detour {
            let taken = detour.destination.is_none_or(|to| to == destination)
                && self.lot(&bytes) < detour.share;
            for router in way
                .iter_mut()
                .filter(|router| taken && **router == detour.at)
            {
                router.clone_from(&detour.by);
            }
        }
        self.travel(way, bytes);
    }

    /// A number between 0 and 1, the same for all packets of a flow; of ICMP, for all between two hosts.
    fn lot(&self, bytes: &[u8]) -> f64 {
        let packet = packet::read(bytes);
        let mut hasher = DefaultHasher::new();
        (
            self.salt,
            packet.source,
            packet.destination,
            packet.protocol,
        )
            .hash(&mut hasher);
        packet::ports(&packet).hash(&mut hasher);
        (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn travel(&mut self, mut way: Vec<String>, bytes: Vec<u8>) {
        if way.is_empty() {
            return;
        }
        let next = way.remove(0);
        let hop = Duration::from_millis(self.scenario.network.hop_ms);
        let impairs: Vec<_> = self
            .scenario
            .impair
            .iter()
            .filter(|impair| impair.at == next)
            .cloned()
            .collect();
        let (mut copies, mut delay) = (1, hop);
        for impair in &impairs {
            if self.chance() < impair.loss {
                return;
            }
            if self.chance() < impair.duplicate {
                copies += 1;
            }
            delay += Duration::from_millis(impair.delay_ms);
        }
        for _ in 0..copies {
            let mut delay = delay;
            for impair in &impairs {
                delay += Duration::from_secs_f64(self.chance() * impair.jitter_ms as f64 / 1000.0);
            }
            let arrival = Happening::Arrival(next.clone(), way.clone(), bytes.clone());
            self.later(delay, arrival);
        }
    }

    fn arrive(&mut self, node: String, rest: Vec<String>, mut bytes: Vec<u8>) {
        if let Some(host) = crate::host_at(&node) {
            self.receive(host, bytes);
            return;
        }
        let packet = packet::read(&bytes);
        if packet.ttl <= 1 {
            self.complain(&node, (11, 0, 0), &bytes);
            return;
        }
        packet::set_ttl(&mut bytes, packet.ttl - 1);
        if let Some(filter) = self.filter(&node, "", &bytes) {
            if let Some(reject) = filter.reject {
                self.complain(&node, (reject.0, reject.1, 0), &bytes);
            }
            return;
        }
        let narrow = self.scenario.narrow.iter().find(|narrow| {
            let long = bytes.len() > usize::from(narrow.octets);
            narrow.at == node && long && packet.dont_fragment
        });
        if let Some(narrow) = narrow.cloned() {
            if !narrow.silent {
                let mtu = if narrow.untold { 0 } else { narrow.octets };
                self.complain(&node, (3, 4, mtu), &bytes);
            }
            return;
        }
        self.rewrite(&node, &mut bytes);
        self.travel(rest, bytes);
    }

    fn rewrite(&self, node: &str, bytes: &mut [u8]) {
        let packet = packet::read(bytes);
        let rule = self.scenario.rewrite.iter().find(|rule| {
            rule.at == node
                && rule.source == packet.source
                && rule
                    .protocol
                    .is_none_or(|protocol| protocol == packet.protocol)
        });
        if let Some(rule) = rule {
            packet::set_source(bytes, rule.to);
            if rule.ports {
                packet::set_source_port(bytes, packet::ports(&packet).0 ^ 0x2a2a);
            }
        }
    }

    /// A router sends an ICMP error, if it does and may.
    fn complain(&mut self, node: &str, icmp: (u8, u8, u16), about: &[u8]) {
        let packet = packet::read(about);
        let silent = self
            .scenario
            .network
            .silent_routers
            .iter()
            .any(|n| n == node);
        if silent
            || matches!(packet.body, Body::Icmp { error: true })
            || !self.may_complain(node, packet.source)
        {
            return;
        }
        let minimal = self.scenario.network.minimal_quotes;
        let address = crate::router_address(node);
        let error = packet::with_mtu(address, packet.source, icmp, about, minimal);
        self.inject(node, error);
    }

    /// The rule that drops this packet here.
    pub(crate) fn filter(&self, node: &str, hook: &str, bytes: &[u8]) -> Option<Filter> {
        let packet = packet::read(bytes);
        self.scenario
            .filter
            .iter()
            .find(|f| {
                f.at == node
                    && f.hook == hook
                    && f.source.is_none_or(|source| source == packet.source)
                    && f.destination.is_none_or(|to| to == packet.destination)
                    && f.protocol
                        .is_none_or(|protocol| protocol == packet.protocol)
                    && f.until_ms
                        .is_none_or(|ms| self.now.as_millis() < u128::from(ms))
                    && f.destination_port
                        .is_none_or(|port| port == packet::ports(&packet).1)
            })
            .cloned()
    }
}

/// The nodes after `from`, up to and including `to`.
fn way(from: &str, to: &str) -> Vec<String> {
    let ancestors = |node: &str| {
        let mut line = vec![node.to_owned()];
        while let Some(parent) = parent(line.last().unwrap()) {
            line.push(parent);
        }
        line
    };
    let (up, down) = (ancestors(from), ancestors(to));
    let meet = up.iter().find(|node| down.contains(node)).unwrap().clone();
    let climb = up.into_iter().skip(1).take_while(|node| *node != meet);
    let mut way: Vec<String> = if from == meet {
        vec![]
    } else {
        climb.chain([meet.clone()]).collect()
    };
    let descent: Vec<_> = down.into_iter().take_while(|node| *node != meet).collect();
    way.extend(descent.into_iter().rev());
    way
}

fn parent(node: &str) -> Option<String> {
    let (name, suffix) = match node.strip_suffix('2') {
        Some(name) => (name, "2"),
        None => (node, ""),
    };
    Some(match name {
        "c" => "r1".to_owned(),
        "d" => "rd".to_owned(),
        "s" => format!("gw{suffix}"),
        "gw" => format!("isp{suffix}"),
        "core" => return None,
        _ => "core".to_owned(),
    })
}
