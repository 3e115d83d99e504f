//! Somebody who answers every probe with plausible forgeries: right addresses and ports, guessed tokens, replays of an
//! earlier session, quotes of other people's packets and of ours with a token changed. None may count.
//!
//! He knows all but the identity: who sees the packets themselves can answer them, and nothing tells his answers from
//! those of the hosts. `FORGERIES=n` sets how many are tried.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tunproof::craft;
use tunproof::craft::FleetCraft;
use tunproof::evidence::Item;
use tunproof::evidence::What;
use tunproof::exchange::Capture;
use tunproof::exchange::Direction;
use tunproof::exchange::Transmit;
use tunproof::exchange::Wall;
use tunproof::matching::FleetMatcher;
use tunproof::matching::FleetSighting;
use tunproof::plan::Fleet;
use tunproof::plan::FleetProbe;
use tunproof::plan::Host;
use tunproof::plan::Path;
use tunproof::plan::Probe;
use tunproof::plan::ProbeId;
use tunproof::plan::ProbeKind;
use tunproof::plan::Protocol;
use tunproof::plan::Range;
use tunproof::plan::Service;
use tunproof::plan::SessionKey;
use tunproof::run::add_recorded;
use tunproof::verdict::HopVerdict;
use tunproof::verdict::Judgement;
use tunproof::verdict::judge;
use tunproof::wire::TcpFlags;

use crate::CIP;
use crate::DIP;
use crate::PORT;
use crate::VIP;
use crate::packet;
use crate::packet::Body;
use crate::play::Played;
use crate::play::plan;
use crate::play::play;
use crate::play::play_against;
use crate::rip;
use crate::router_address;

/// What shows that a packet was forged.
const FORGED: &str = "forged";

fn forgeries() -> usize {
    std::env::var("FORGERIES").map_or(1_000_000, |n| n.parse().expect("a number"))
}

/// A forger, who guesses by a fixed seed.
struct Forger {
    random: u64,
    earlier: SessionKey,
    made: usize,
}

impl Forger {
    fn new(seed: u64) -> Forger {
        Forger {
            random: seed,
            earlier: SessionKey::new([0xea; 16]),
            made: 0,
        }
    }

    fn guess(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.guess() % end
    }

    fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.below(these.len() as u64) as usize]
    }

    /// A packet of the same shape with every token guessed: identifications, numbers, checksum, payload; ports and
    /// addresses as they are.
    fn guessed(&mut self, sent: &[u8]) -> Vec<u8> {
        let mut forged = sent.to_vec();
        let at = inner(sent);
        for identification in [4, at + 4] {
            let guess = self.guess().to_be_bytes();
            forged[identification..identification + 2].copy_from_slice(&guess[..2]);
        }
        let tokens = match forged[at + 9] {
            6 => at + 24..at + 32,
            _ => at + 26..forged.len(),
        };
        for octet in &mut forged[tokens] {
            *octet = self.guess() as u8;
        }
        forged
    }

    /// Ours, but for one bit of each thing that identifies it.
    fn mutated(&mut self, sent: &[u8]) -> Vec<u8> {
        let mut forged = sent.to_vec();
        let at = inner(sent);
        // The identification, and both numbers of a segment (not their last octets: an answer has the next number),
        // checksum and tag of a datagram.
        let tokens = match forged[at + 9] {
            6 => [at + 4..at + 6, at + 24..at + 27, at + 28..at + 31],
            _ => [at + 4..at + 6, at + 26..at + 28, at + 28..at + 36],
        };
        for token in tokens {
            let place = token.start + self.below(token.len() as u64) as usize;
            forged[place] ^= 1 << self.below(8);
        }
        forged
    }

    /// The same probe of an earlier session, with the ports of this one or its own.
    fn replayed(&mut self, sent: &[u8]) -> Vec<u8> {
        let of = packet_of(sent);
        let kinds: Vec<ProbeKind> = ProbeKind::ALL
            .into_iter()
            .filter(|kind| *kind != ProbeKind::Script && kind.is_tunnelled() == (inner(sent) == 20))
            .collect();
        let id = ProbeId {
            kind: self.one_of(&kinds),
            index: self.below(64) as u16,
        };
        let path = path(match of.protocol {
            6 => Protocol::Tcp,
            _ => Protocol::Udp,
        });
        let mut probe = Probe::new(id, 0, &path, &self.earlier).expect("a probe");
        let same = probe.flow.protocol.number() == of.protocol;
        if same && self.below(2) == 0 {
            (probe.flow.source_port, probe.flow.destination_port) = packet::ports(&of);
        }
        craft::probe(&probe, &self.earlier)
    }

    /// What others send through the same tunnel to the same service.
    fn strangers(&mut self) -> Vec<u8> {
        let client = (
            Ipv4Addr::from_bits(self.guess() as u32),
            0xc000 | self.guess() as u16,
        );
        let inner = match self.below(2) {
            0 => packet::udp(client, (VIP, PORT)),
            _ => {
                let numbers = (self.guess() as u32, self.guess() as u32);
                packet::tcp(client, (VIP, PORT), numbers, TcpFlags::SYN)
            }
        };
        let mut outer = packet::encapsulate(DIP, rip(0), &inner);
        let guess = self.guess().to_be_bytes();
        outer[4..6].copy_from_slice(&guess[..2]);
        outer[24..26].copy_from_slice(&guess[2..4]);
        // A probe has 44 octets, as a SYN with one option has.
        outer[22..24].copy_from_slice(&[0, 44]);
        outer
    }

    /// A packet that passes for the probe, for an answer to it or for an error about it.
    fn forge(&mut self, sent: &[u8]) -> Vec<u8> {
        self.made += 1;
        let quoted = self.one_of(&[8, 20, 528]);
        let about = match self.below(8) {
            0..4 => self.guessed(sent),
            4 => self.replayed(sent),
            5 => self.strangers(),
            _ => self.mutated(sent),
        };
        let own = about[inner(&about)..].to_vec();
        match self.below(4) {
            0 => answer(&own, self.guess()),
            1 => about,
            _ => {
                let (whole, to) = match self.below(3) {
                    0 => (own, None),
                    _ => (about, None),
                };
                self.error(&whole, to, quoted)
            }
        }
    }

    fn error(&mut self, about: &[u8], to: Option<Ipv4Addr>, quoted: usize) -> Vec<u8> {
        let errors = [
            (3, 0),
            (3, 1),
            (3, 2),
            (3, 3),
            (3, 4),
            (3, 10),
            (3, 13),
            (11, 0),
            (11, 1),
        ];
        let (of, code) = self.one_of(&errors);
        let hosts = [
            rip(0),
            VIP,
            CIP,
            router_address("isp"),
            router_address("gw"),
            router_address("core"),
        ];
        let from = self.one_of(&hosts);
        let to = to.unwrap_or(packet_of(about).source);
        let length = (inner(about) + 20 + quoted).min(about.len());
        // As routers do: the outermost header and 8 octets.
        let length = if quoted == 8 && self.below(2) == 0 {
            28
        } else {
            length
        };
        packet::icmp_error(from, to, (of, code), &about[..length], false)
    }
}

/// Where the innermost header of a probe begins.
fn inner(bytes: &[u8]) -> usize {
    if bytes[9] == 4 { 20 } else { 0 }
}

fn packet_of(bytes: &[u8]) -> packet::Packet {
    packet::Packet {
        source: Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]),
        destination: Ipv4Addr::new(bytes[16], bytes[17], bytes[18], bytes[19]),
        protocol: bytes[inner(bytes) + 9],
        ttl: bytes[8],
        dont_fragment: false,
        body: {
            let at = inner(bytes) + 20;
            let port = |at| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            Body::Udp {
                from: port(at),
                to: port(at + 2),
            }
        },
    }
}

/// What a host would say to a probe if its numbers were those; to a datagram the port unreachable.
fn answer(own: &[u8], guess: u64) -> Vec<u8> {
    let of = packet_of(own);
    let (from, to) = packet::ports(&of);
    if of.protocol != 6 {
        return packet::icmp_error(of.destination, of.source, (3, 3), own, false);
    }
    let number = |at: usize| u32::from_be_bytes(own[at..at + 4].try_into().expect("4 octets"));
    let (sequence, acknowledgment) = (number(24), number(28));
    let (back, there) = ((of.destination, to), (of.source, from));
    let next = sequence.wrapping_add(1);
    match (own[33] & 0x12, guess % 3) {
        (0x12, _) => packet::tcp(back, there, (acknowledgment, 0), TcpFlags::RST),
        (_, 0) => packet::syn_ack(back, there, (guess as u32, next), 1460),
        (_, 1) => packet::tcp(back, there, (0, next), TcpFlags::RST_ACK),
        _ => packet::tcp(there, back, (next, 0), TcpFlags::RST),
    }
}

fn path(protocol: Protocol) -> Path {
    Path {
        realserver: "rs1".to_owned(),
        vip: VIP,
        port: PORT,
        protocol,
        rip: rip(0),
        dip: Some(DIP),
        cip: CIP,
        gateway: None,
        tunnel: None,
    }
}

/// As if a tap of the host had seen it.
fn captured(bytes: Vec<u8>, direction: Direction, is_tunnel: bool) -> Capture {
    Capture {
        time: Wall::from_nanos(0),
        device: FORGED.to_owned(),
        hardware: if is_tunnel { 768 } else { 1 },
        direction,
        protocol: Capture::IPV4,
        link_source: None,
        original_length: bytes.len() as u32,
        bytes,
    }
}

/// Packets that count, and were forged.
fn accepted(played: &Played) -> Vec<&Item> {
    let is_forged =
        |item: &&Item| matches!(&item.what, What::Seen { capture, .. } if capture.device == FORGED);
    played.evidence.items().iter().filter(is_forged).collect()
}

/// Every hop's verdict.
fn verdicts(played: &Played) -> Vec<HopVerdict> {
    let hops = played.judgement.paths.iter().flat_map(|path| &path.hops);
    hops.map(|hop| hop.verdict).collect()
}

/// Networks of which much, little and nothing works.
const NETWORKS: [&str; 6] = [
    "healthy",
    "healthy-udp",
    "spoof-filter-at-isp",
    "core-drops-ipip",
    "rp-filter-tunnel",
    "isp-rejects-ipip-minimal",
];

#[test]
fn no_forgery_counts() {
    let mut forger = Forger::new(1);
    let networks: Vec<_> = crate::scenarios()
        .into_iter()
        .filter(|(name, _)| NETWORKS.contains(&name.as_str()))
        .collect();
    assert_eq!(networks.len(), NETWORKS.len());
    let mut wrong = Vec::new();
    let share = forgeries() / networks.len();
    for (name, scenario) in networks {
        let run = &scenario.run[0];
        let fair = play(&scenario, &run.vantages, 1);
        let until = forger.made + share;
        // As many for each probe, and the rest for the last.
        let each = share / fair.evidence.probes().len().min(40);
        let mut adversary = |_: Host, transmit: &Transmit| {
            let places = [Host::Director, Host::Realserver(0), Host::Client];
            let count = each.min(until - forger.made);
            let forged = (0..count).map(|number| {
                let bytes = forger.forge(&transmit.bytes);
                let direction = if number % 5 == 0 {
                    Direction::Out
                } else {
                    Direction::In
                };
                (
                    places[number % 3],
                    captured(bytes, direction, number % 7 == 0),
                )
            });
            forged.collect()
        };
        let plan = plan(&scenario, &run.vantages, 1);
        let played = play_against(&scenario, plan, 1, &mut adversary);
        for item in accepted(&played).into_iter().take(5) {
            wrong.push(format!("{name}: {item:?}"));
        }
        if verdicts(&played) != verdicts(&fair) {
            wrong.push(format!(
                "{name}: {:?}, without {:?}",
                verdicts(&played),
                verdicts(&fair)
            ));
        }
    }
    println!("{} forgeries, {} wrong", forger.made, wrong.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(
        forger.made * 10 >= forgeries() * 9,
        "only {} were made",
        forger.made
    );
}

/// Whoever sends datagrams from the service's address to every port that a probe may have, hits those that it has, and is
/// noticed by those that it has not.
#[test]
fn who_answers_every_port_answers_none() {
    let (_, scenario) = crate::scenarios()
        .into_iter()
        .find(|(name, _)| name == "udp-spoof-filter")
        .expect("the scenario");
    let vantages = ["director", "realserver", "client"].map(str::to_owned);
    let fair = play(&scenario, &vantages, 1);
    let mut sent = 0;
    let mut adversary = |_: Host, _: &Transmit| {
        let ports = SessionKey::CLIENT_PORTS.filter(|_| sent < 10);
        let replies = ports.map(|port| {
            let reply = packet::udp((VIP, PORT), (CIP, port));
            (Host::Client, captured(reply, Direction::In, false))
        });
        let replies: Vec<_> = replies.collect();
        sent += 1;
        replies
    };
    let plan = plan(&scenario, &vantages, 1);
    let played = play_against(&scenario, plan, 1, &mut adversary);
    assert_eq!(verdicts(&played), verdicts(&fair));
    assert!(!accepted(&played).is_empty(), "none was hit");
    assert_eq!(fair.evidence.why_replies_are_doubted(0), None);
    let why = played
        .evidence
        .why_replies_are_doubted(0)
        .expect("a reason");
    let count = played.evidence.unasked().len();
    let begin = format!(
        "client got answers of the service at {count} ports from which nobody had asked it"
    );
    assert!(why.starts_with(&begin), "{why}");
}

#[test]
fn a_replay_within_the_session_counts_once() {
    for (name, scenario) in crate::scenarios() {
        if !NETWORKS.contains(&name.as_str()) {
            continue;
        }
        // What arrived arrives again and again.
        let fair = play(&scenario, &scenario.run[0].vantages, 1);
        let mut again = fair.known.clone();
        let seen = fair
            .known
            .items()
            .iter()
            .filter_map(|item| match &item.what {
                What::Seen { capture, .. } if capture.direction == Direction::In => {
                    Some((item.host, capture))
                }
                _ => None,
            });
        for (host, capture) in seen.clone() {
            for _ in 0..50 {
                add_recorded(&mut again, host, capture.clone());
            }
        }
        let noted = again.items().len() - fair.known.items().len();
        assert!(
            noted <= 3 * seen.count(),
            "{name}: {noted} replays were noted"
        );
        for path in 0..again.plan().paths.len() {
            assert_eq!(again.proofs(path), fair.known.proofs(path), "{name}");
        }
        let judgement = judge(&mut again);
        let hops = |judgement: &Judgement| -> Vec<_> {
            let hops = judgement.paths.iter().flat_map(|path| &path.hops);
            hops.map(|hop| hop.verdict).collect()
        };
        assert_eq!(hops(&judgement), hops(&fair.judgement), "{name}");
        let mut findings = judgement.paths.iter().flat_map(|path| &path.findings);
        let told = findings.any(|finding| finding.code.id() == "duplication");
        assert!(told || name != "healthy", "no word of duplicates");
    }
}

/// A sweep's probes have 46 bits for all its pairs: of a fleet of n pairs a guess with right addresses and a right port
/// is one of 2^32 words, of which n / 2^14 and the one that was sent are ours.
#[test]
fn no_forgery_is_a_sweeps_answer() {
    let service = Service {
        vip: VIP,
        port: PORT,
        protocol: Protocol::Tcp,
    };
    let range = Range {
        first: Ipv4Addr::new(10, 0, 0, 0),
        last: Ipv4Addr::new(10, 15, 255, 255),
    };
    let udp = Service {
        protocol: Protocol::Udp,
        ..service
    };
    let fleet = Fleet::new(DIP, Some(CIP), vec![(vec![service, udp], vec![range])]);
    let fleet = Arc::new(fleet.expect("two million pairs"));
    let key = SessionKey::new([7; 16]);
    let craft = FleetCraft::new(&fleet, key);
    let replayed = FleetCraft::new(&fleet, SessionKey::new([0xea; 16]));
    let matcher = FleetMatcher::new(Arc::clone(&fleet), key);
    let mut forger = Forger::new(2);
    let (mut taken, mut vague, mut ours) = (0, 0, 0);
    while forger.made < forgeries() {
        let pair = fleet
            .pair(forger.below(fleet.pairs().into()) as u32)
            .expect("a pair");
        let which = match (pair.service.protocol, forger.below(2)) {
            (Protocol::Udp, _) => FleetProbe::ReflectUdp,
            (Protocol::Tcp, 0) => FleetProbe::ClosedLoop,
            (Protocol::Tcp, _) => FleetProbe::ReflectSyn,
        };
        let sent = craft.probe(which, &pair);
        let theirs = replayed.probe(which, &pair);
        let reply = answer(&sent.octets()[20..], 0);
        ours += usize::from(matcher.recognise(&reply).is_some() || which == FleetProbe::ClosedLoop);
        let forged = match forger.below(4) {
            0 => {
                forger.made += 1;
                answer(&theirs.octets()[20..], forger.guess())
            }
            _ => forger.forge(sent.octets()),
        };
        match matcher.recognise(&forged) {
            Some(FleetSighting::Of { .. }) => taken += 1,
            Some(FleetSighting::OneOf { .. }) => vague += 1,
            None => {}
        }
    }
    println!(
        "{} forgeries: {taken} taken, {vague} vague; {ours} real answers",
        forger.made
    );
    assert_eq!(ours, forger.made, "of the real answers");
    assert_eq!(taken, 0);
}
