//! The kernel's filter of a tap: a classic BPF program for exactly what a [`TapSpec`] describes.
//!
//! A tap is an AF_PACKET `SOCK_DGRAM` socket, so offset 0 is the network header; the EtherType comes from
//! the kernel's ancillary data (`SKF_AD_PROTOCOL`). A load beyond the packet's end makes the kernel drop
//! it, so what every packet has is looked at first. The program grows by 5 to 7 instructions a real server.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::exchange::TapSpec;

/// The most instructions the kernel takes (`BPF_MAXINSNS`).
pub(crate) const LIMIT: usize = 4096;

/// How many comparisons may share one target: jump offsets have 8 bits.
const CHUNK: usize = 200;

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_WORD_X: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
const LOAD_BYTE_X: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
const HEADER_LENGTH_TO_X: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH: X = 4 * (packet[k] & 15)
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// `SKF_AD_OFF + SKF_AD_PROTOCOL`.
const ETHER_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL) as u32;

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

/// What the paths have in common, each address once.
struct Sets {
    /// Destinations → the sources that send to exactly these.
    pairs: BTreeMap<Vec<u32>, Vec<u32>>,
    /// VIP → the inner sources that are sent to it through the tunnel.
    tunnelled: BTreeMap<u32, Vec<u32>>,
    /// Where ICMP errors go.
    errors: Vec<u32>,
    /// What ARP is about.
    resolved: Vec<u32>,
}

impl Sets {
    fn of(spec: &TapSpec) -> Sets {
        let mut destinations = BTreeMap::<Ipv4Addr, BTreeSet<Ipv4Addr>>::new();
        let mut tunnelled = BTreeMap::<Ipv4Addr, BTreeSet<Ipv4Addr>>::new();
        let mut errors = BTreeSet::new();
        let mut resolved = BTreeSet::new();
        for path in &spec.paths {
            let (vip, cip, rip) = (path.vip, path.cip, path.rip);
            let with_dip = path.dip.map(|dip| (dip, vip));
            for (a, b) in [(cip, vip), (cip, rip)].into_iter().chain(with_dip) {
                destinations.entry(a).or_default().insert(b);
                destinations.entry(b).or_default().insert(a);
            }
            tunnelled
                .entry(vip)
                .or_default()
                .extend([cip].into_iter().chain(path.dip));
            errors.extend([vip, rip, cip].into_iter().chain(path.dip));
            resolved.extend([vip, rip].into_iter().chain(path.gateway));
        }
        let mut pairs = BTreeMap::<Vec<u32>, Vec<u32>>::new();
        for (source, destinations) in destinations {
            pairs
                .entry(numbers(destinations))
                .or_default()
                .push(source.to_bits());
        }
        Sets {
            pairs,
            tunnelled: tunnelled
                .into_iter()
                .map(|(vip, sources)| (vip.to_bits(), numbers(sources)))
                .collect(),
            errors: numbers(errors),
            resolved: numbers(resolved),
        }
    }
}

fn numbers(addresses: BTreeSet<Ipv4Addr>) -> Vec<u32> {
    addresses.into_iter().map(Ipv4Addr::to_bits).collect()
}

fn ipv4(program: &mut Program, sets: &Sets) {
    for (destinations, sources) in &sets.pairs {
        program.load(LOAD_WORD, 12);
        program.one_of(sources, |p| {
            p.load(LOAD_WORD, 16);
            p.one_of(destinations, |p| p.end(ACCEPT));
        });
    }
    program.load(LOAD_HALF, 6);
    // Only a first fragment has the header that is looked at next.
    program.unless_bits(0x1fff);
    program.load(HEADER_LENGTH_TO_X, 0);
    program.load(LOAD_BYTE, 9);
    program.one_of(&[4], |p| {
        for (vip, sources) in &sets.tunnelled {
            p.load(LOAD_WORD_X, 16);
            p.one_of(&[*vip], |p| {
                p.load(LOAD_WORD_X, 12);
                p.one_of(sources, |p| p.end(ACCEPT));
            });
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

    /// Rejects if the accumulator has any of `bits`.
    fn unless_bits(&mut self, bits: u32) {
        self.push(JUMP_BITS, 0, 1, bits);
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
