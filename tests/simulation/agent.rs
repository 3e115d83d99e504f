//! The agents: they obey the engine's commands and report what their taps see.

use std::time::Duration;

use tunproof::exchange::Capture;
use tunproof::exchange::Direction;
use tunproof::exchange::Firewall;
use tunproof::exchange::FirewallRule;
use tunproof::exchange::FirewallTool;
use tunproof::exchange::Leg;
use tunproof::exchange::Listing;
use tunproof::exchange::RulePlace;
use tunproof::exchange::RuleVerdict;
use tunproof::exchange::SendOutcome;
use tunproof::exchange::TapSpec;
use tunproof::exchange::TapStatistics;
use tunproof::exchange::Transmit;
use tunproof::exchange::Wall;
use tunproof::exchange::Way;
use tunproof::plan::Host;
use tunproof::plan::SessionKey;
use tunproof::run::Command;
use tunproof::run::Event;
use tunproof::wire::Arp;
use tunproof::wire::Ethernet;
use tunproof::wire::Octets;
use tunproof::wire::TcpFlags;

use crate::facts;
use crate::facts::Counted;
use crate::packet;
use crate::packet::Body;
use crate::world::Happening;
use crate::world::World;

const IPIP: u8 = 4;

impl World {
    /// The agent of `host` carries out a command.
    pub(crate) fn obey(&mut self, host: Host, command: Command) {
        assert!(
            !self.kernel(host).finished,
            "{host}: {command:?} after `Finish`"
        );
        match command {
            Command::Facts(query) => {
                let counted = Counted {
                    rp_filter: self.kernels[&host].rp_filter_drops,
                    wrong_checksums: [6, 17].map(|protocol| {
                        let counted = self.kernels[&host].wrong_checksums.get(&protocol);
                        counted.copied().unwrap_or(0)
                    }),
                    listen_drops: self.kernels[&host].listen_drops,
                    icmp_withheld: self.kernels[&host].icmp_withheld,
                    neighbour: self.knows_neighbour(host),
                };
                let facts = facts::facts(&self.scenario, host, &query, counted);
                self.say(host, Event::Facts(Box::new(facts)));
            }
            Command::OpenTap(spec) => {
                assert!(self.kernel(host).tap.is_none(), "a second tap on {host}");
                self.kernel(host).tap = Some(spec);
                self.say(host, Event::TapOpen);
            }
            Command::Send {
                token,
                transmit,
                cleanup,
            } => {
                let outcome = self.transmit(host, transmit);
                if let (Some(cleanup), SendOutcome::Sent { .. }) = (cleanup, &outcome) {
                    self.kernel(host).cleanups.insert(token, cleanup);
                }
                self.say(host, Event::Sent { token, outcome });
            }
            Command::Settle { token } => {
                self.settle(host, token);
                self.say(host, Event::Settled { token });
            }
            Command::Connect {
                token,
                to,
                timeout_ms,
            } => self.connect(token, to, Duration::from_millis(timeout_ms)),
            Command::ForgetNeighbour { address, device } => {
                let Host::Realserver(n) = host else {
                    panic!("{host} was told to forget a neighbour");
                };
                assert_eq!((address, device.as_str()), (crate::gateway(n), "eth0"));
                let old = facts::neighbour(&self.scenario.server[n], n);
                let old = self.forget(n).then_some(old);
                self.say(host, Event::NeighbourForgotten { address, old });
            }
            Command::Firewall(_) => self.list_rules(host),
            Command::WatchDrops(_) => self.say(host, Event::DropsWatched(None)),
            Command::TapStatistics => {
                let node = crate::node_of(host);
                let dropped = self.scenario.network.tap_drops.get(&node).copied();
                let statistics = TapStatistics {
                    received: self.kernel(host).captured,
                    dropped: dropped.unwrap_or(0),
                };
                self.say(host, Event::Statistics(statistics));
            }
            Command::Finish => {
                let tokens: Vec<u32> = self.kernel(host).cleanups.keys().copied().collect();
                for token in tokens {
                    self.settle(host, token);
                }
                self.kernel(host).finished = true;
            }
        }
    }

    /// Lists its rules, counted when it begins.
    fn list_rules(&mut self, host: Host) {
        let network = &self.scenario.network;
        let Some(listing) = network.listing_ms.map(Duration::from_millis) else {
            self.say(host, Event::Firewall(Box::default()));
            return;
        };
        let agent = Duration::from_millis(network.agent_ms);
        let node = crate::node_of(host);
        let mut filters = self.scenario.filter.iter();
        let found = filters.find(|f| f.at == node && f.hook == "input" && f.protocol == Some(IPIP));
        let rule = found.map(|_| FirewallRule {
            tool: FirewallTool::Nft,
            family: "ip".to_owned(),
            table: "filter".to_owned(),
            chain: "input".to_owned(),
            hook: "input".to_owned(),
            priority: 0,
            place: RulePlace::Handle(2),
            text: "ip protocol 4 counter drop".to_owned(),
            verdict: RuleVerdict::Drop,
            counter: Some(self.kernels[&host].filtered),
            invalid: false,
            general: false,
            matches: vec![(Leg::Tunnel, IPIP)],
        });
        let begun = self.wall(host);
        let firewall = Firewall {
            listings: vec![Listing {
                tool: FirewallTool::Nft,
                begun,
                ended: Wall::from_nanos(begun.as_nanos() + listing.as_nanos() as u64),
            }],
            rules: rule.into_iter().collect(),
            ..Firewall::default()
        };
        let said = Event::Firewall(Box::new(firewall));
        self.later(listing + agent, Happening::Said(host, said));
    }

    fn settle(&mut self, host: Host, token: u32) {
        if let Some(cleanup) = self.kernel(host).cleanups.remove(&token) {
            self.kernel(host).settled.insert(token);
            self.transmit(host, cleanup);
            // Cleanups are not paced.
            self.kernel(host).sent.pop();
        }
    }

    fn transmit(&mut self, host: Host, transmit: Transmit) -> SendOutcome {
        let time = self.wall(host);
        let sent = match transmit.way {
            Way::Stack => self.raw(host, transmit.bytes),
            Way::Frame { device } => {
                assert_eq!(device, "eth0");
                let frame = Ethernet::checked(Octets::new(&transmit.bytes)).expect("a frame");
                let arp = Arp::checked(frame.payload).expect("an ARP packet");
                let now = self.now;
                self.kernel(host).sent.push(now);
                match host {
                    Host::Realserver(n) => {
                        self.arp_request(n, arp.sender_ip, arp.target_ip, arp.target_mac);
                    }
                    Host::Director => {
                        assert_eq!((arp.sender_ip, arp.target_ip), (crate::DIP, crate::VIP));
                        self.claims(host, arp.sender_ip);
                    }
                    Host::Client => panic!("a frame on {host}"),
                }
                Ok(())
            }
        };
        match sent {
            Ok(()) => SendOutcome::Sent { time },
            Err(errno) => SendOutcome::Refused {
                time,
                errno,
                error: format!("errno {errno}"),
            },
        }
    }

    /// The tap of `host` sees a packet, if it is open and its filter lets it.
    pub(crate) fn tap(
        &mut self,
        host: Host,
        device: &str,
        hardware: u16,
        direction: Direction,
        protocol: u16,
        bytes: &[u8],
    ) {
        let time = self.wall(host);
        let kernel = self.kernel(host);
        let Some(spec) = &kernel.tap else { return };
        if kernel.finished || protocol == Capture::IPV4 && !passes(spec, bytes) {
            return;
        }
        kernel.captured += 1;
        let capture = Capture {
            time,
            device: device.to_owned(),
            hardware,
            direction,
            protocol,
            link_source: None,
            bytes: bytes.to_vec(),
            original_length: bytes.len() as u32,
        };
        self.say(host, Event::Captured(capture));
    }

    pub(crate) fn say(&mut self, host: Host, event: Event) {
        let delay = Duration::from_millis(self.scenario.network.agent_ms);
        self.later(delay, Happening::Said(host, event));
    }

    /// Every host's clock is wrong in its own way.
    fn wall(&self, host: Host) -> Wall {
        let wrong = match host {
            Host::Director => 0,
            Host::Client => 90,
            Host::Realserver(n) => 40 - 37 * n as u64,
        };
        Wall::from_nanos((1_700_000_000 + wrong) * 1_000_000_000 + self.now.as_nanos() as u64)
    }
}

/// The kernel filter that a `TapSpec` describes.
fn passes(spec: &TapSpec, bytes: &[u8]) -> bool {
    let packet = packet::read(bytes);
    let ends = (packet.source, packet.destination);
    if spec.rewritten == Some(packet.destination) {
        let probe = match packet.body {
            Body::Udp { to, .. } => SessionKey::CLOSED_PORTS.contains(&to),
            Body::Tcp { to, flags, .. } => {
                SessionKey::CLIENT_PORTS.contains(&to) && flags == TcpFlags::SYN_ACK
            }
            _ => false,
        };
        if probe {
            return true;
        }
    }
    if spec.rewritten == Some(packet.source)
        && let Body::Tcp { from, flags, .. } = packet.body
        && SessionKey::CLIENT_PORTS.contains(&from)
        && flags == TcpFlags::RST
    {
        return true;
    }
    spec.paths.iter().any(|path| {
        let between = |a, b| ends == (a, b) || ends == (b, a);
        match &packet.body {
            Body::Tunnel(inner) => {
                let inner = packet::read(inner);
                let known = inner.source == path.cip || Some(inner.source) == path.dip;
                return inner.destination == path.vip && known;
            }
            Body::Icmp { error: true } => {
                let to = packet.destination;
                return [path.vip, path.rip, path.cip].contains(&to) || Some(to) == path.dip;
            }
            Body::Udp { to, .. } if ends.1 == path.rip && Some(ends.0) == path.dip => {
                return SessionKey::CLOSED_PORTS.contains(to);
            }
            _ => {}
        }
        between(path.cip, path.vip)
            || between(path.cip, path.rip)
            || path.dip.is_some_and(|dip| between(dip, path.vip))
    })
}
