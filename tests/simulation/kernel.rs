//! The hosts' kernels: what Linux does with a packet.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tunproof::craft;
use tunproof::exchange::Capture;
use tunproof::exchange::ConnectOutcome;
use tunproof::exchange::Direction;
use tunproof::exchange::TapSpec;
use tunproof::exchange::Transmit;
use tunproof::plan::Host;
use tunproof::run::Event;
use tunproof::wire::Mac;
use tunproof::wire::TcpFlags;
use tunproof::wire::layers;
use tunproof::wire::layers::Layer;

use crate::CIP;
use crate::PORT;
use crate::VIP;
use crate::facts::rejects;
use crate::gateway;
use crate::packet;
use crate::packet::Body;
use crate::rip;
use crate::world::Happening;
use crate::world::World;

/// A host's kernel, and what its agent keeps.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) tap: Option<TapSpec>,
    pub(crate) captured: u64,
    pub(crate) cleanups: BTreeMap<u32, Transmit>,
    pub(crate) settled: HashSet<u32>,
    pub(crate) finished: bool,
    pub(crate) sent: Vec<Duration>,
    pub(crate) rp_filter_drops: u64,
    /// Packets with a wrong checksum, by protocol.
    pub(crate) wrong_checksums: BTreeMap<u8, u64>,
    pub(crate) icmp_withheld: u64,
    pub(crate) listen_drops: u64,
    /// Packets that rules of INPUT dropped before they came out of a tunnel.
    pub(crate) filtered: u64,
    neighbour: Neighbour,
    half_open: HashMap<(Ipv4Addr, u16), (u16, u32)>,
    connections: HashMap<(Ipv4Addr, u16, u8), usize>,
    scheduled: usize,
    asked: HashSet<(u8, u16)>,
    connecting: HashMap<u16, u32>,
}

/// The gateway's neighbour entry.
#[derive(Debug, Default)]
pub(crate) enum Neighbour {
    #[default]
    Known,
    Forgotten,
    Asking {
        waiting: Vec<Vec<u8>>,
        tries: u32,
    },
}

const ETHERNET: u16 = 1;
const TUNNEL: u16 = 768;
const LOOPBACK: u16 = 772;

impl World {
    pub(crate) fn kernel(&mut self, host: Host) -> &mut Kernel {
        self.kernels.get_mut(&host).expect("a host of the world")
    }

    /// A packet arrives on eth0.
    pub(crate) fn receive(&mut self, host: Host, bytes: Vec<u8>) {
        self.tap(host, "eth0", ETHERNET, Direction::In, Capture::IPV4, &bytes);
        let node = crate::node_of(host);
        let packet = packet::read(&bytes);
        if self.filter(&node, "input", &bytes).is_some() {
            self.kernel(host).filtered += 1;
            return;
        }
        match host {
            Host::Client => self.client_input(bytes),
            Host::Director => {
                // Martians: what claims to come from the VIP.
                if packet.source == VIP && self.scenario.director.has_vip {
                    return;
                }
                if packet.destination == VIP {
                    if !self.scenario.director.has_vip || self.ipvs(&bytes) {
                        return;
                    }
                    self.stack(host, &bytes);
                } else if packet.destination == crate::DIP {
                    self.stack(host, &bytes);
                }
            }
            Host::Realserver(n) => match packet.body {
                Body::Tunnel(inner) => self.tunnelled(n, bytes, inner),
                _ => self.stack(host, &bytes),
            },
        }
    }

    fn client_input(&mut self, bytes: Vec<u8>) {
        let packet = packet::read(&bytes);
        let client = &self.scenario.client;
        if client.silent {
            return;
        }
        let port = packet::ports(&packet).1;
        let expected = self.kernels[&Host::Client]
            .asked
            .contains(&(packet.protocol, port));
        if self.scenario.client.stateful && !expected {
            return;
        }
        self.stack(Host::Client, &bytes);
    }

    /// Protocol 4 on the real server (`net/ipv4/tunnel4.c`, `ipip.c`).
    fn tunnelled(&mut self, n: usize, bytes: Vec<u8>, inner: Vec<u8>) {
        let host = Host::Realserver(n);
        let server = self.scenario.server[n].clone();
        let outer = packet::read(&bytes);
        let own = outer.source == rip(n)
            || server.addresses.contains(&outer.source)
            || (outer.source == VIP && !server.vip_on.is_empty());
        let stranger = server.protected && outer.source != self.scenario.director.outer_source;
        if own || stranger && outer.source != crate::DIP {
            return;
        }
        if !server.ipip {
            return self.refuse(host, (3, 2), &bytes);
        }
        let takes = !server.tunnel.is_empty()
            && server.tunnel_up
            && server
                .tunnel_local
                .is_none_or(|local| local == outer.destination)
            && server
                .tunnel_remote
                .is_none_or(|remote| remote == outer.source);
        if !takes {
            return self.refuse(host, (3, 3), &bytes);
        }
        let device = server.tunnel.clone();
        self.tap(host, &device, TUNNEL, Direction::In, Capture::IPV4, &inner);
        if rejects(&server) {
            self.kernel(host).rp_filter_drops += 1;
            return;
        }
        if server.routing_refuses {
            return;
        }
        let packet = packet::read(&inner);
        // A martian: it claims to come from the host itself.
        if server.addresses.contains(&packet.source) {
            return;
        }
        if server.wrong_checksums {
            let counted = &mut self.kernel(host).wrong_checksums;
            *counted.entry(inner[9]).or_default() += 1;
            return;
        }
        if server.vip_on.is_empty() {
            if server.ip_forward && packet.ttl > 1 {
                let mut inner = inner;
                packet::set_ttl(&mut inner, packet.ttl - 1);
                self.emit(host, inner, false);
            }
            return;
        }
        if self
            .filter(&crate::node_of(host), "input", &inner)
            .is_none()
        {
            self.stack(host, &inner);
        }
    }

    /// The local stack gets a packet for one of the host's addresses.
    pub(crate) fn stack(&mut self, host: Host, bytes: &[u8]) {
        let packet = packet::read(bytes);
        let here = (packet.destination, packet::ports(&packet).1);
        let there = (packet.source, packet::ports(&packet).0);
        let listens = here == (VIP, PORT)
            && match host {
                Host::Director => self.scenario.director.listens,
                Host::Realserver(n) => {
                    let server = &self.scenario.server[n];
                    server.listens && server.bound_to.is_none()
                }
                Host::Client => false,
            };
        let answers = match host {
            Host::Realserver(n) => self.scenario.server[n].answers,
            Host::Director | Host::Client => true,
        };
        match packet.body {
            Body::Udp { .. } if listens && answers => self.answer(host, packet::udp(here, there)),
            Body::Udp { .. } if listens => {}
            // What a client asked for.
            Body::Udp { .. } if self.expects(host, here.1, there) => {
                let token = self
                    .kernel(host)
                    .connecting
                    .remove(&here.1)
                    .expect("a token");
                self.connected(host, token, here);
            }
            Body::Udp { .. } => self.refuse(host, (3, 3), bytes),
            Body::Tcp {
                sequence,
                acknowledgment,
                flags,
                ..
            } => match flags {
                TcpFlags::SYN if listens && self.is_queue_full(host) => {
                    self.kernel(host).listen_drops += 1;
                }
                TcpFlags::SYN if listens => {
                    let answer = (here.1, sequence.wrapping_add(1));
                    self.kernel(host).half_open.insert(there, answer);
                    self.syn_ack_again(host, there, 0);
                }
                TcpFlags::SYN => {
                    let numbers = (0, sequence.wrapping_add(1));
                    self.answer(host, packet::tcp(here, there, numbers, TcpFlags::RST_ACK));
                }
                TcpFlags::SYN_ACK => match self.expects(host, here.1, there) {
                    true => {
                        let token = self.kernel(host).connecting.remove(&here.1);
                        let token = token.expect("a token");
                        let numbers = (acknowledgment, sequence.wrapping_add(1));
                        self.answer(host, packet::tcp(here, there, numbers, TcpFlags(0x10)));
                        self.connected(host, token, here);
                    }
                    false => {
                        let numbers = (acknowledgment, 0);
                        self.answer(host, packet::tcp(here, there, numbers, TcpFlags::RST));
                    }
                },
                // An RST, or the ACK that completes a handshake.
                _ => {
                    self.kernel(host).half_open.remove(&there);
                }
            },
            _ => {}
        }
    }

    fn is_queue_full(&self, host: Host) -> bool {
        matches!(host, Host::Realserver(n) if self.scenario.server[n].queue_full)
    }

    /// Whether a connection attempt from this port waits for the service's answer.
    fn expects(&self, host: Host, port: u16, from: (Ipv4Addr, u16)) -> bool {
        from == (VIP, PORT) && self.kernels[&host].connecting.contains_key(&port)
    }

    fn connected(&mut self, host: Host, token: u32, local: (Ipv4Addr, u16)) {
        let outcome = ConnectOutcome::Connected {
            local,
            micros: 4000,
        };
        self.say(host, Event::Connected { token, outcome });
    }

    pub(crate) fn syn_ack_again(&mut self, host: Host, peer: (Ipv4Addr, u16), tries: u32) {
        let Some((port, acknowledgment)) = self.kernel(host).half_open.get(&peer).copied() else {
            return;
        };
        let numbers = (0x1234_5678, acknowledgment);
        let mss = match host {
            Host::Realserver(n) => self.scenario.server[n].mss,
            _ => 1460,
        };
        let packet = packet::syn_ack((VIP, port), peer, numbers, mss);
        self.answer(host, packet);
        if tries < 3 {
            let delay = Duration::from_secs(1 << tries);
            self.later(delay, Happening::SynAckAgain(host, peer, tries + 1));
        }
    }

    /// An ICMP error of the kernel, as far as the limit allows.
    fn refuse(&mut self, host: Host, icmp: (u8, u8), about: &[u8]) {
        let packet = packet::read(about);
        let mute = host == Host::Client && self.scenario.client.no_icmp;
        if let Host::Realserver(n) = host
            && self.scenario.server[n].icmp_exhausted
        {
            self.kernel(host).icmp_withheld += 1;
            return;
        }
        if !mute && self.may_complain(&crate::node_of(host), packet.source) {
            let error = packet::icmp_error(packet.destination, packet.source, icmp, about, false);
            self.answer(host, error);
        }
    }

    /// The kernel itself sends something, past OUTPUT.
    fn answer(&mut self, host: Host, bytes: Vec<u8>) {
        if self
            .filter(&crate::node_of(host), "output", &bytes)
            .is_none()
        {
            self.emit(host, bytes, false);
        }
    }

    /// A packet is routed, translated and resolved, and leaves. `own`: the host starts the flow.
    pub(crate) fn emit(&mut self, host: Host, mut bytes: Vec<u8>, own: bool) {
        let Host::Realserver(n) = host else {
            self.leave(host, bytes);
            return;
        };
        let server = &self.scenario.server[n];
        if !server.route {
            return;
        }
        let packet = packet::read(&bytes);
        let translated = server.snat == "all" || server.snat == "own" && own;
        if translated && packet.source == VIP {
            packet::set_source(&mut bytes, rip(n));
        }
        let neighbour = &mut self.kernel(host).neighbour;
        match neighbour {
            Neighbour::Known => self.leave(host, bytes),
            Neighbour::Asking { waiting, .. } => waiting.push(bytes),
            Neighbour::Forgotten => {
                *neighbour = Neighbour::Asking {
                    waiting: vec![bytes],
                    tries: 0,
                };
                self.arp_again(n);
            }
        }
    }

    fn leave(&mut self, host: Host, bytes: Vec<u8>) {
        if self
            .filter(&crate::node_of(host), "device", &bytes)
            .is_some()
        {
            return;
        }
        self.tap(
            host,
            "eth0",
            ETHERNET,
            Direction::Out,
            Capture::IPV4,
            &bytes,
        );
        self.inject(&crate::node_of(host), bytes);
    }

    /// IPVS: whether it took the packet.
    pub(crate) fn ipvs(&mut self, bytes: &[u8]) -> bool {
        let packet = packet::read(bytes);
        let (from, to) = packet::ports(&packet);
        let key = (packet.source, from, packet.protocol);
        if let Some(n) = self.kernel(Host::Director).connections.get(&key).copied() {
            self.forward(n, bytes);
            return true;
        }
        let protocol = if self.scenario.network.protocol == "tcp" {
            6
        } else {
            17
        };
        let new = match packet.body {
            Body::Tcp { flags, .. } => flags == TcpFlags::SYN,
            Body::Udp { .. } => true,
            _ => false,
        };
        if !self.scenario.director.service || packet.protocol != protocol || to != PORT || !new {
            return false;
        }
        let able: Vec<usize> = (0..self.scenario.server.len())
            .filter(|n| self.scenario.server[*n].in_ipvs && self.scenario.server[*n].weight > 0)
            .collect();
        if able.is_empty() {
            self.refuse(Host::Director, (3, 3), bytes);
            return true;
        }
        let director = self.kernel(Host::Director);
        director.scheduled += 1;
        let turn = director.scheduled;
        let chosen = match self.scenario.director.scheduler.as_str() {
            "sh" => able[0],
            _ => able[turn % able.len()],
        };
        self.kernel(Host::Director).connections.insert(key, chosen);
        self.forward(chosen, bytes);
        true
    }

    fn forward(&mut self, n: usize, bytes: &[u8]) {
        let host = Host::Director;
        let mut inner = bytes.to_vec();
        let ttl = packet::read(bytes).ttl;
        if ttl <= 1 || !self.scenario.director.route {
            return;
        }
        packet::set_ttl(&mut inner, ttl - 1);
        if self.scenario.server[n].method != "tunnel" {
            // Direct routing across a router, or a NAT whose answers pass the director by: it leaves, and no more.
            self.tap(
                host,
                "eth0",
                ETHERNET,
                Direction::Out,
                Capture::IPV4,
                &inner,
            );
            return;
        }
        if self.scenario.director.source_by_route {
            return;
        }
        // GUE or GRE: not for the tap's filter, and the real server has no port or device for it.
        if self.scenario.server[n].tunnel_type != 0 {
            return;
        }
        let outer = packet::encapsulate(self.scenario.director.outer_source, rip(n), &inner);
        self.answer(host, outer);
    }

    /// The agent's raw socket; the error number if the kernel refuses.
    pub(crate) fn raw(&mut self, host: Host, bytes: Vec<u8>) -> Result<(), i32> {
        let node = crate::node_of(host);
        let packet = packet::read(&bytes);
        let now = self.now;
        self.kernel(host).sent.push(now);
        match host {
            Host::Director if packet.destination == VIP => {
                if self.ipvs(&bytes) {
                    return Ok(());
                }
                if self.filter(&node, "output", &bytes).is_some() {
                    return Err(1);
                }
                if !self.scenario.director.has_vip {
                    self.leave(host, bytes);
                    return Ok(());
                }
                for direction in [Direction::Out, Direction::In] {
                    self.tap(host, "lo", LOOPBACK, direction, Capture::IPV4, &bytes);
                }
                self.stack(host, &bytes);
            }
            Host::Director => {
                if !self.scenario.director.route && packet.destination != CIP {
                    return Err(101);
                }
                if bytes.len() > usize::from(self.scenario.director.mtu) {
                    return Err(90);
                }
                if self.filter(&node, "output", &bytes).is_some() {
                    return Err(1);
                }
                self.leave(host, bytes);
            }
            Host::Realserver(n) => {
                if !self.scenario.server[n].route {
                    return Err(101);
                }
                if self.filter(&node, "output", &bytes).is_some() {
                    return Err(1);
                }
                self.emit(host, bytes, true);
            }
            Host::Client => {
                if self.filter(&node, "output", &bytes).is_some() {
                    return Err(1);
                }
                let asked = (packet.protocol, packet::ports(&packet).0);
                self.kernel(host).asked.insert(asked);
                self.leave(host, bytes);
            }
        }
        Ok(())
    }

    /// The client's own connection attempt.
    pub(crate) fn connect(&mut self, token: u32, to: (Ipv4Addr, u16), timeout: Duration) {
        let port = 40_000 + token as u16;
        let client = self.kernel(Host::Client);
        client.connecting.insert(port, token);
        client.asked.extend([(6, port), (17, port)]);
        let first = match self.scenario.network.protocol.as_str() {
            "tcp" => packet::tcp((CIP, port), to, (0x0bad_cafe, 0), TcpFlags::SYN),
            _ => packet::udp((CIP, port), to),
        };
        self.answer(Host::Client, first);
        self.later(timeout, Happening::ConnectTimeout(token, port));
    }

    pub(crate) fn connect_timeout(&mut self, token: u32, port: u16) {
        if self.kernel(Host::Client).connecting.remove(&port).is_some() {
            let outcome = ConnectOutcome::TimedOut;
            self.say(Host::Client, Event::Connected { token, outcome });
        }
    }

    /// The kernel asks for its gateway: as the source of the packet that it asks for last, if `arp_announce`
    /// lets it.
    pub(crate) fn arp_again(&mut self, n: usize) {
        let server = self.scenario.server[n].clone();
        let Neighbour::Asking { waiting, tries } = &mut self.kernel(Host::Realserver(n)).neighbour
        else {
            return;
        };
        if *tries == 3 {
            self.kernel(Host::Realserver(n)).neighbour = Neighbour::Forgotten;
            return;
        }
        *tries += 1;
        let source = packet::read(waiting.last().expect("a packet that waits")).source;
        let vip = source == VIP && server.arp_announce == 0 && !server.hidden && !server.arptables;
        let sender = if vip { VIP } else { rip(n) };
        self.arp_request(n, sender, gateway(n), Mac([0; 6]));
        self.later(Duration::from_secs(1), Happening::ArpAgain(n));
    }

    /// A request goes out on the real server's link, whoever sends it.
    pub(crate) fn arp_request(
        &mut self,
        n: usize,
        sender: Ipv4Addr,
        target: Ipv4Addr,
        target_mac: Mac,
    ) {
        let server = &self.scenario.server[n];
        assert!(
            !(sender == VIP && server.vip_on_link && target_mac != Mac([0; 6])),
            "tunproof announced a VIP that is on-link"
        );
        if target == VIP {
            self.claims(Host::Realserver(n), sender);
        }
        let server = &self.scenario.server[n];
        let answers = target == gateway(n)
            && server.gateway_answers
            && (sender != VIP || server.gateway_answers_vip);
        let arp = arp(1, (Mac([2, 0, 0, 0, 1, 2]), sender), (target_mac, target));
        let host = Host::Realserver(n);
        self.tap(host, "eth0", ETHERNET, Direction::Out, Capture::ARP, &arp);
        if answers {
            self.later(Duration::from_micros(300), Happening::ArpReply(n, sender));
        }
    }

    /// Whoever claims the VIP answers for it.
    pub(crate) fn claims(&mut self, host: Host, to: Ipv4Addr) {
        let claimed = match host {
            Host::Director => &self.scenario.director.vip_claimed_by,
            Host::Realserver(n) => &self.scenario.server[n].vip_claimed_by,
            Host::Client => return,
        };
        for octet in claimed.clone() {
            self.later(
                Duration::from_micros(400),
                Happening::ArpClaim(host, octet, to),
            );
        }
    }

    pub(crate) fn arp_claim(&mut self, host: Host, octet: u8, to: Ipv4Addr) {
        let own = (Mac([2, 0, 0, 0, 1, 2]), to);
        let reply = arp(2, (Mac([2, 0, 0, 0, 1, octet]), VIP), own);
        self.tap(host, "eth0", ETHERNET, Direction::In, Capture::ARP, &reply);
    }

    pub(crate) fn arp_reply(&mut self, n: usize, target: Ipv4Addr) {
        let host = Host::Realserver(n);
        let own = (Mac([2, 0, 0, 0, 1, 2]), target);
        let reply = arp(2, (Mac([2, 0, 0, 0, 0, 1]), gateway(n)), own);
        self.tap(host, "eth0", ETHERNET, Direction::In, Capture::ARP, &reply);
        let neighbour = &mut self.kernel(host).neighbour;
        if let Neighbour::Asking { waiting, .. } = neighbour {
            let waiting = std::mem::take(waiting);
            *neighbour = Neighbour::Known;
            for bytes in waiting {
                self.leave(host, bytes);
            }
        }
    }

    /// Deletes the gateway's entry, unless a person made it.
    pub(crate) fn forget(&mut self, n: usize) -> bool {
        let permanent = self.scenario.server[n].permanent_neighbour;
        let neighbour = &mut self.kernel(Host::Realserver(n)).neighbour;
        let known = matches!(neighbour, Neighbour::Known) && !permanent;
        if known {
            *neighbour = Neighbour::Forgotten;
        }
        known
    }

    /// Whether the gateway's entry is there.
    pub(crate) fn knows_neighbour(&self, host: Host) -> bool {
        matches!(self.kernels[&host].neighbour, Neighbour::Known)
    }
}

fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    craft::build(&[Layer::Arp(layers::Arp {
        operation,
        sender_mac: sender.0,
        sender_ip: sender.1,
        target_mac: target.0,
        target_ip: target.1,
    })])
    .expect("layers that fit")
    .bytes
}
