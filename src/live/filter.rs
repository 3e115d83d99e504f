//! The kernel's filter of a tap: a classic BPF program for exactly what a [`TapSpec`] describes.
//!
//! A tap is an AF_PACKET `SOCK_DGRAM` socket, so offset 0 is the network header; the EtherType comes from
//! the kernel's ancillary data (`SKF_AD_PROTOCOL`). A load beyond the packet's end makes the kernel drop
//! it, so what every packet has is looked at first. The program grows by 5 to 7 instructions a real server.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::exchange::TapSpec;
use crate::plan::SessionKey;

pub(super) mod fleet;

/// The most instructions the kernel takes (`BPF_MAXINSNS`).
pub(crate) const LIMIT: usize = 4096;

/// How many comparisons may share one target: jump offsets have 8 bits.
const CHUNK: usize = 200;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_WORD_X: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
const LOAD_HALF_X: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
const LOAD_BYTE_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
const HEADER_LENGTH_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: X = 4 * (packet[k] & 15)
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_LEFT: u16 = 0x64; // BPF_ALU | BPF_LSH | BPF_K
const ADD_X: u16 = 0x0c; // BPF_ALU | BPF_ADD | BPF_X
const TO_X: u16 = 0x07; // BPF_MISC | BPF_TAX
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// `SKF_AD_OFF + SKF_AD_PROTOCOL`.
const ETHER_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;

/// TCP's flags SYN and RST.
const RST: u32 = 0x04;
const SYN: u32 = 0x02;
const SYN_OR_RST: u32 = SYN | RST;
/// TCP's flag ACK.
const ACK: u32 = 0x10;

const ACCEPT: u32 = 0x4_0000;
const REJECT: u32 = 0;

/// One instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) code: u16,
    pub(crate) if_true: u8,
    pub(crate) if_false: u8,
    pub(crate) k: u32,
}

/// The program for `spec`. It may be longer than [`LIMIT`], and the kernel then refuses it.
pub(crate) fn assemble(spec: &TapSpec) -> Vec<Instruction> {
    let sets = Sets::of(spec);
    let mut program = Program::default();
    program.load(LOAD_WORD, ETHER_TYPE);
    program.one_of(&[0x0800], |ip| ipv4(ip, &sets));
    program.one_of(&[0x0806], |arp| arp_ipv4(arp, &sets.resolved));
    program.end(REJECT);
    program.0
}

/// Destinations → the sources that send to exactly these.
type Pairs = BTreeMap<Vec<u32>, Vec<u32>>;

/// What the paths have in common, each address once.
struct Sets {
    /// What the service's packets go between.
    service: Pairs,
    /// What the control probes go between.
    control: Pairs,
    /// Director → the real servers that its control probes go to.
    director: Pairs,
    /// VIP → the inner sources that are sent to it through the tunnel.
    tunnelled: BTreeMap<u32, Vec<u32>>,
    /// Where ICMP errors go.
    errors: Vec<u32>,
    /// VIPs whose client is not known: RSTs to them are seen whoever sends them.
    open: Vec<u32>,
    /// What ARP is about.
    resolved: Vec<u32>,
    /// Where probes are seen whoever sends them.
    rewritten: Option<u32>,
    /// What is seen besides if suites write packets out.
    scripted: Option<Scripted>,
}

/// What packets that suites write out go between, and what they are told by.
struct Scripted {
    addresses: Vec<u32>,
    ports: Vec<u32>,
}

impl Sets {
    fn of(spec: &TapSpec) -> Sets {
        let mut service = Vec::new();
        let mut control = Vec::new();
        let mut director = BTreeMap::<Ipv4Addr, BTreeSet<Ipv4Addr>>::new();
        let mut tunnelled = BTreeMap::<Ipv4Addr, BTreeSet<Ipv4Addr>>::new();
        let mut errors = BTreeSet::new();
        let mut open = BTreeSet::new();
        let mut resolved = BTreeSet::new();
        let mut declared = BTreeSet::new();
        for path in &spec.paths {
            let (vip, cip, rip) = (path.vip, path.cip, path.rip);
            if cip.is_unspecified() {
                open.insert(vip);
                errors.insert(vip);
                continue;
            }
            service.push((cip, vip));
            service.extend(path.dip.map(|dip| (dip, vip)));
            control.push((cip, rip));
            if let Some(dip) = path.dip {
                director.entry(dip).or_default().insert(rip);
            }
            tunnelled
                .entry(vip)
                .or_default()
                .extend([cip].into_iter().chain(path.dip));
            errors.extend([vip, rip, cip].into_iter().chain(path.dip));
            resolved.extend([vip, rip].into_iter().chain(path.gateway));
            declared.extend([vip, rip, cip].into_iter().chain(path.dip));
        }
        let scripted = spec.scripted.as_ref().map(|ports| {
            resolved.extend(&declared);
            Scripted {
                addresses: numbers(declared),
                ports: ports.iter().map(|port| u32::from(*port)).collect(),
            }
        });
        Sets {
            service: both_ways(&service),
            control: both_ways(&control),
            director: grouped(director),
            tunnelled: tunnelled
                .into_iter()
                .map(|(vip, sources)| (vip.to_bits(), numbers(sources)))
                .collect(),
            errors: numbers(errors),
            open: numbers(open),
            resolved: numbers(resolved),
            rewritten: spec.rewritten.map(Ipv4Addr::to_bits),
            scripted,
        }
    }
}

fn both_ways(pairs: &[(Ipv4Addr, Ipv4Addr)]) -> Pairs {
    let mut destinations = BTreeMap::<Ipv4Addr, BTreeSet<Ipv4Addr>>::new();
    for (a, b) in pairs {
        destinations.entry(*a).or_default().insert(*b);
        destinations.entry(*b).or_default().insert(*a);
    }
    grouped(destinations)
}

fn grouped(destinations: BTreeMap<Ipv4Addr, BTreeSet<Ipv4Addr>>) -> Pairs {
    let mut grouped = Pairs::new();
    for (source, destinations) in destinations {
        grouped
            .entry(numbers(destinations))
            .or_default()
            .push(source.to_bits());
    }
    grouped
}

fn numbers(addresses: BTreeSet<Ipv4Addr>) -> Vec<u32> {
    addresses.into_iter().map(Ipv4Addr::to_bits).collect()
}

fn ipv4(program: &mut Program, sets: &Sets) {
    between(program, &sets.service, |p| p.end(ACCEPT));
    if let Some(scripted) = &sets.scripted {
        program.load(LOAD_WORD, 12);
        program.one_of(&scripted.addresses, |p| {
            p.load(LOAD_WORD, 16);
            p.one_of(&scripted.addresses, |p| written_out(p, &scripted.ports));
        });
    }
    between(program, &sets.control, |p| {
        p.load(LOAD_BYTE, 9);
        p.one_of(&[6], |tcp| {
            tcp.load(LOAD_HALF, 6);
            tcp.unless_bits(0x1fff);
            tcp.load(HEADER_LENGTH_TO_X, 0);
            tcp.load(LOAD_BYTE_X, 13);
            tcp.if_bits(SYN_OR_RST);
            tcp.end(REJECT);
        });
        p.end(ACCEPT);
    });
    program.load(LOAD_HALF, 6);
    // Only a first fragment has the header that is looked at next.
    program.unless_bits(0x1fff);
    program.load(HEADER_LENGTH_TO_X, 0);
    if let Some(client) = sets.rewritten {
        program.load(LOAD_WORD, 16);
        program.one_of(&[client], rewritten);
        program.load(LOAD_WORD, 12);
        program.one_of(&[client], refusing);
    }
    program.load(LOAD_BYTE, 9);
    program.one_of(&[17], |p| {
        p.load(LOAD_HALF_X, 2);
        p.unless_between(&SessionKey::CLOSED_PORTS);
        between(p, &sets.director, |p| p.end(ACCEPT));
        p.end(REJECT);
    });
    if !sets.open.is_empty() {
        program.one_of(&[6], |p| {
            p.load(LOAD_BYTE_X, 13);
            p.unless_set(RST);
            p.load(LOAD_WORD, 16);
            p.one_of(&sets.open, |p| p.end(ACCEPT));
            p.end(REJECT);
        });
    }
    program.one_of(&[4], |p| {
        for (vip, sources) in &sets.tunnelled {
            p.load(LOAD_WORD_X, 16);
            p.one_of(&[*vip], |p| {
                p.load(LOAD_WORD_X, 12);
                p.one_of(sources, |p| p.end(ACCEPT));
            });
        }
        if let Some(scripted) = &sets.scripted {
            inside(p, scripted);
        }
        p.end(REJECT);
    });
    program.one_of(&[1], |p| {
        p.load(LOAD_BYTE_X, 0);
        p.one_of(&[3, 4, 5, 11, 12], |p| {
            p.load(LOAD_WORD, 16);
            p.one_of(&sets.errors, |p| p.end(ACCEPT));
        });
    });
    program.end(REJECT);
}

/// What a suite may have written out, or what answers it: between two of the paths' hosts. Goes on if it is neither.
fn written_out(program: &mut Program, ports: &[u32]) {
    // Version 4 and no options, so that ports have their place.
    program.load(LOAD_BYTE, 0);
    program.unless_accepted(&[0x45]);
    program.load(LOAD_HALF, 6);
    program.if_bits(0x1fff);
    // Too short for ports.
    program.load(LOAD_HALF, 2);
    program.push(JUMP_AT_LEAST, 1, 0, 24);
    program.end(ACCEPT);
    program.load(LOAD_BYTE, 9);
    program.unless_accepted(&[4, 6, 17]);
    program.one_of(&[6, 17], |p| {
        for port in [20, 22] {
            p.load(LOAD_HALF, port);
            p.one_of(ports, |p| p.end(ACCEPT));
        }
    });
}

/// The same in the header that X is the length of, or in one inside. Goes on if it is neither.
fn inside(program: &mut Program, scripted: &Scripted) {
    let Scripted { addresses, ports } = scripted;
    let is_between = |program: &mut Program, body: &dyn Fn(&mut Program)| {
        program.load(LOAD_WORD_X, 12);
        program.one_of(addresses, |p| {
            p.load(LOAD_WORD_X, 16);
            p.one_of(addresses, |p| body(p));
        });
    };
    program.load(LOAD_BYTE_X, 9);
    program.one_of(&[4], |p| {
        is_between(p, &|p| p.end(ACCEPT));
        p.skip_header();
    });
    is_between(program, &|p| {
        p.load(LOAD_BYTE_X, 9);
        p.unless_accepted(&[6, 17]);
        p.skip_header();
        for port in [0, 2] {
            p.load(LOAD_HALF_X, port);
            p.one_of(ports, |p| p.end(ACCEPT));
        }
        p.end(REJECT);
    });
}

/// What could be a probe for the client, but for its source.
fn rewritten(program: &mut Program) {
    program.load(LOAD_BYTE, 9);
    program.one_of(&[17], |p| {
        p.load(LOAD_HALF_X, 2);
        p.unless_between(&SessionKey::CLOSED_PORTS);
        p.end(ACCEPT);
    });
    program.one_of(&[6], |p| {
        p.load(LOAD_HALF_X, 2);
        p.unless_at_least((*SessionKey::CLIENT_PORTS.start()).into());
        p.load(LOAD_BYTE_X, 13);
        p.unless_set(SYN);
        p.unless_set(ACK);
        p.end(ACCEPT);
    });
}

/// What answers a SYN-ACK among them.
fn refusing(program: &mut Program) {
    program.load(LOAD_BYTE, 9);
    program.one_of(&[6], |p| {
        p.load(LOAD_HALF_X, 0);
        p.unless_at_least((*SessionKey::CLIENT_PORTS.start()).into());
        p.load(LOAD_BYTE_X, 13);
        p.unless_set(RST);
        p.end(ACCEPT);
    });
}

/// Goes on with `body` if the packet goes between one of `pairs`.
fn between(program: &mut Program, pairs: &Pairs, body: impl Fn(&mut Program)) {
    for (destinations, sources) in pairs {
        program.load(LOAD_WORD, 12);
        program.one_of(sources, |p| {
            p.load(LOAD_WORD, 16);
            p.one_of(destinations, &body);
        });
    }
}

fn arp_ipv4(program: &mut Program, addresses: &[u32]) {
    // Ethernet and IPv4, by type and by length.
    for (offset, value) in [(0, 0x0001), (2, 0x0800), (4, 0x0604)] {
        program.load(LOAD_HALF, offset);
        program.unless_other(value);
    }
    for protocol_address in [14, 24] {
        program.load(LOAD_WORD, protocol_address);
        program.one_of(addresses, |p| p.end(ACCEPT));
    }
    program.end(REJECT);
}

#[derive(Default)]
struct Program(Vec<Instruction>);

impl Program {
    fn load(&mut self, code: u16, k: u32) {
        self.push(code, 0, 0, k);
    }

    fn end(&mut self, verdict: u32) {
        self.push(RETURN, 0, 0, verdict);
    }

    /// Goes on with `body` if the accumulator is one of `values`, else behind it. `body` stands once for
    /// every [`CHUNK`] values; the jump over it has 32 bits, so it may be of any length.
    fn one_of(&mut self, values: &[u32], body: impl Fn(&mut Program)) {
        for chunk in values.chunks(CHUNK) {
            for (index, value) in chunk.iter().enumerate() {
                self.push(JUMP_EQUAL, (chunk.len() - index) as u8, 0, *value);
            }
            let over = self.0.len();
            self.push(JUMP, 0, 0, 0);
            body(self);
            self.0[over].k = (self.0.len() - over - 1) as u32;
        }
    }

    /// Adds to X the length of the header that begins there.
    fn skip_header(&mut self) {
        self.load(LOAD_BYTE_X, 0);
        self.load(AND, 15);
        self.load(SHIFT_LEFT, 2);
        self.load(ADD_X, 0);
        self.load(TO_X, 0);
    }

    /// Accepts if the accumulator is none of a few `values`.
    fn unless_accepted(&mut self, values: &[u32]) {
        for (index, value) in values.iter().enumerate() {
            self.push(JUMP_EQUAL, (values.len() - index) as u8, 0, *value);
        }
        self.end(ACCEPT);
    }

    /// Rejects if the accumulator has any of `bits`.
    fn unless_bits(&mut self, bits: u32) {
        self.push(JUMP_BITS, 0, 1, bits);
        self.end(REJECT);
    }

    /// Rejects if the accumulator has none of `bits`.
    fn unless_set(&mut self, bits: u32) {
        self.push(JUMP_BITS, 1, 0, bits);
        self.end(REJECT);
    }

    /// Rejects if the accumulator is less than `value`.
    fn unless_at_least(&mut self, value: u32) {
        self.push(JUMP_AT_LEAST, 1, 0, value);
        self.end(REJECT);
    }

    /// Accepts if the accumulator has any of `bits`.
    fn if_bits(&mut self, bits: u32) {
        self.push(JUMP_BITS, 0, 1, bits);
        self.end(ACCEPT);
    }

    /// Rejects if the accumulator is not in `range`.
    fn unless_between(&mut self, range: &RangeInclusive<u16>) {
        self.unless_at_least(u32::from(*range.start()));
        self.push(JUMP_AT_LEAST, 0, 1, u32::from(*range.end()) + 1);
        self.end(REJECT);
    }

    /// Rejects if the accumulator is not `value`.
    fn unless_other(&mut self, value: u32) {
        self.push(JUMP_EQUAL, 1, 0, value);
        self.end(REJECT);
    }

    fn push(&mut self, code: u16, if_true: u8, if_false: u8, k: u32) {
        self.0.push(Instruction {
            code,
            if_true,
            if_false,
            k,
        });
    }
}

#[cfg(test)]
mod tests;
