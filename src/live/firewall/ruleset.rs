//! Rules as nftables and iptables have them in common, and which of them a packet can meet.
//!
//! A rule's tests are true, false or unknown for a packet. What could match is never left out; what must match
//! ends the search, if it accepts.

use std::collections::HashMap;

use crate::exchange::FirewallPacket;
use crate::exchange::FirewallRule;
use crate::exchange::FirewallTool;
use crate::exchange::RulePlace;
use crate::exchange::RuleVerdict;

/// How deep jumps may nest; the kernels allow 16.
const DEPTH: usize = 16;

/// All the chains of a tool.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: Vec<Chain>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) tool: FirewallTool,
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    /// What a chain that packets meet of themselves has, and one that rules jump to has not.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) hook: String,
    pub(super) priority: i32,
    /// Whether its policy is to drop.
    pub(super) drops: bool,
    /// The policy's counter.
    pub(super) counter: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) place: RulePlace,
    pub(super) text: String,
    pub(super) tests: Vec<Test>,
    pub(super) action: Action,
    pub(super) counter: Option<u64>,
}

/// What a rule does to what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Accept,
    Drop,
    Reject,
    Return,
    Jump(String),
    Goto(String),
    /// It counts, marks, logs.
    Other,
    /// One of several, by a field of the packet (`vmap`).
    Map(Vec<(Test, Action)>),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) field: Field,
    pub(super) negated: bool,
    pub(super) values: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Source,
    Destination,
    Protocol,
    SourcePort,
    DestinationPort,
    InDevice,
    OutDevice,
    /// 4 for all our packets.
    IpVersion,
    /// The state that connection tracking gives; never known.
    ConnectionState,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// First and last.
    Range(u32, u32),
    /// A name, of which a `*` or `+` at the end stands for the rest.
    Name(String),
    /// A set that is not looked into, or something that is not understood.
    Unknown,
}

/// Whether a packet matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    Maybe,
    Yes,
}

impl Test {
    pub(super) fn new(field: Field, values: Vec<Value>) -> Test {
        Test {
            field,
            negated: false,
            values,
        }
    }

    /// A condition of which nothing is known.
    pub(super) fn unknown() -> Test {
        Test::new(Field::Unknown, Vec::new())
    }

    fn holds(&self, packet: &FirewallPacket) -> Match {
        let number = |number: u32| {
            let within = |value: &Value| match value {
                Value::Range(first, last) => match (*first..=*last).contains(&number) {
                    true => Match::Yes,
                    false => Match::No,
                },
                Value::Name(_) | Value::Unknown => Match::Maybe,
            };
            self.values.iter().map(within).max().unwrap_or(Match::No)
        };
        let port = |port: Option<u16>| match packet.protocol {
            6 | 17 => port.map_or(Match::Maybe, |port| number(port.into())),
            _ => Match::Maybe,
        };
        let found = match self.field {
            Field::Source => number(packet.source.to_bits()),
            Field::Destination => number(packet.destination.to_bits()),
            Field::Protocol => number(packet.protocol.into()),
            Field::SourcePort => port(packet.source_port),
            Field::DestinationPort => port(packet.destination_port),
            Field::IpVersion => number(4),
            Field::InDevice if packet.incoming => self.is_device(&packet.devices),
            Field::OutDevice if !packet.incoming => self.is_device(&packet.devices),
            // It has no such device at these hooks.
            Field::InDevice | Field::OutDevice => Match::No,
            Field::ConnectionState | Field::Unknown => Match::Maybe,
        };
        match (self.negated, found) {
            (false, found) => found,
            (true, Match::No) => Match::Yes,
            (true, Match::Yes) => Match::No,
            (true, Match::Maybe) => Match::Maybe,
        }
    }

    fn is_device(&self, devices: &[String]) -> Match {
        let named = |device: &String| {
            self.values.iter().any(|value| match value {
                Value::Name(name) => match name.strip_suffix(['*', '+']) {
                    Some(begin) => device.starts_with(begin),
                    None => name == device,
                },
                Value::Range(..) | Value::Unknown => true,
            })
        };
        let vague = self.values.contains(&Value::Unknown);
        match devices.iter().filter(|device| named(device)).count() {
            0 if devices.is_empty() => Match::Maybe,
            0 => Match::No,
            count if count == devices.len() && !vague => Match::Yes,
            _ => Match::Maybe,
        }
    }

    fn is_invalid(&self) -> bool {
        self.field == Field::ConnectionState
            && !self.negated
            && self.values.contains(&Value::Name("invalid".to_owned()))
    }
}

impl Rule {
    /// Whether it names addresses, ports, devices, or protocol 4: else it is for all sorts of packets.
    fn is_specific(&self) -> bool {
        self.tests.iter().any(|test| {
            let named = match test.field {
                Field::Protocol => test.values == [Value::Range(4, 4)],
                Field::Source
                | Field::Destination
                | Field::SourcePort
                | Field::DestinationPort
                | Field::InDevice
                | Field::OutDevice => !test.values.contains(&Value::Range(0, u32::MAX)),
                _ => false,
            };
            named && !test.negated
        })
    }

    fn holds(&self, packet: &FirewallPacket) -> Match {
        let holds = self.tests.iter().map(|test| test.holds(packet));
        holds.min().unwrap_or(Match::Yes)
    }
}

impl Ruleset {
    /// The rules and policies that could stop one of the packets, in the order in which packets meet them.
    pub(super) fn dooms(&self, packets: &[FirewallPacket]) -> Vec<FirewallRule> {
        let mut found = Vec::new();
        let mut known = HashMap::new();
        let mut bases: Vec<(&Chain, &Base)> = self
            .chains
            .iter()
            .filter_map(|chain| Some((chain, chain.base.as_ref()?)))
            .collect();
        bases.sort_by_key(|(_, base)| (order(&base.hook), base.priority));
        for (chain, base) in bases {
            for packet in packets {
                if !meets(packet, &base.hook) {
                    continue;
                }
                let mut walk = Walk {
                    ruleset: self,
                    base,
                    packet,
                    found: &mut found,
                    known: &mut known,
                };
                if walk.chain(chain, Match::Yes, 0) != Match::Yes && base.drops {
                    walk.doom(chain, None);
                }
            }
        }
        found
    }

    fn chain(&self, like: &Chain, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| {
            chain.name == name
                && (chain.tool, &chain.family, &chain.table)
                    == (like.tool, &like.family, &like.table)
        })
    }
}

/// One packet on its way through one base chain.
struct Walk<'a, 'f> {
    ruleset: &'a Ruleset,
    base: &'a Base,
    packet: &'a FirewallPacket,
    found: &'f mut Vec<FirewallRule>,
    /// Where in `found` a rule of a chain is, or its policy, by hook: there may be thousands.
    known: &'f mut HashMap<Doom<'a>, usize>,
}

/// A rule of a chain, or its policy, met at a hook.
type Doom<'a> = (FirewallTool, [&'a str; 4], RulePlace);

impl<'a> Walk<'a, '_> {
    /// Goes through a chain; whether the packet's fate is decided in it.
    fn chain(&mut self, chain: &'a Chain, reached: Match, depth: usize) -> Match {
        if depth > DEPTH {
            return Match::No;
        }
        let mut decided = Match::No;
        for rule in &chain.rules {
            let holds = rule.holds(self.packet);
            if holds == Match::No {
                continue;
            }
            let ends = self.act(chain, rule, &rule.action, holds.min(reached), depth);
            match ends {
                Ends::Packet(Match::Yes) => return Match::Yes,
                Ends::Packet(sure) => decided = decided.max(sure.min(Match::Maybe)),
                Ends::Chain(Match::Yes) => return decided,
                Ends::Chain(_) => {}
            }
        }
        decided
    }

    fn act(
        &mut self,
        chain: &'a Chain,
        rule: &'a Rule,
        action: &'a Action,
        holds: Match,
        depth: usize,
    ) -> Ends {
        match action {
            Action::Accept => Ends::Packet(holds),
            Action::Drop | Action::Reject => {
                let verdict = match action {
                    Action::Reject => RuleVerdict::Reject,
                    _ => RuleVerdict::Drop,
                };
                self.doom(chain, Some((rule, verdict)));
                Ends::Packet(holds)
            }
            Action::Return => Ends::Chain(holds),
            Action::Other => Ends::Packet(Match::No),
            Action::Jump(name) | Action::Goto(name) => {
                let Some(target) = self.ruleset.chain(chain, name) else {
                    return Ends::Packet(Match::No);
                };
                let decided = self.chain(target, holds, depth + 1).min(holds);
                match action {
                    // A policy still waits at the end of the base chain.
                    Action::Goto(_) if decided != Match::Yes => Ends::Chain(holds),
                    _ => Ends::Packet(decided),
                }
            }
            Action::Map(entries) => {
                let mut decided = Match::No;
                for (test, action) in entries {
                    let holds = holds.min(test.holds(self.packet));
                    if holds == Match::No {
                        continue;
                    }
                    match self.act(chain, rule, action, holds, depth) {
                        Ends::Packet(sure) => decided = decided.max(sure),
                        Ends::Chain(Match::Yes) => return Ends::Chain(Match::Yes),
                        Ends::Chain(_) => {}
                    }
                }
                Ends::Packet(decided)
            }
        }
    }

    /// Notes a rule that could be the packet's end; without one, the policy.
    fn doom(&mut self, chain: &'a Chain, rule: Option<(&Rule, RuleVerdict)>) {
        let place = rule.map_or(RulePlace::Policy, |(rule, _)| rule.place);
        let names: [&'a str; 4] = [&chain.family, &chain.table, &chain.name, &self.base.hook];
        let key = (chain.tool, names, place);
        if let Some(number) = self.known.get(&key).copied() {
            self.note_match(number);
            return;
        }
        let found = FirewallRule {
            tool: chain.tool,
            family: chain.family.clone(),
            table: chain.table.clone(),
            chain: chain.name.clone(),
            hook: self.base.hook.clone(),
            priority: self.base.priority,
            place,
            text: match rule {
                Some((rule, _)) => rule.text.clone(),
                None => "policy drop".to_owned(),
            },
            verdict: rule.map_or(RuleVerdict::Drop, |(_, verdict)| verdict),
            counter: match rule {
                Some((rule, _)) => rule.counter,
                None => self.base.counter,
            },
            invalid: rule.is_some_and(|(rule, _)| drops_invalid(rule)),
            general: rule.is_none_or(|(rule, _)| !rule.is_specific()),
            matches: Vec::new(),
        };
        let number = self.found.len();
        self.found.push(found);
        self.known.insert(key, number);
        self.note_match(number);
    }

    fn note_match(&mut self, number: usize) {
        let matches = &mut self.found[number].matches;
        let packet = (self.packet.leg, self.packet.protocol);
        if !matches.contains(&packet) {
            matches.push(packet);
        }
    }
}

/// What a rule ends, and how surely.
enum Ends {
    Packet(Match),
    Chain(Match),
}

fn drops_invalid(rule: &Rule) -> bool {
    let mapped = match &rule.action {
        Action::Map(entries) => entries.iter().any(|(test, action)| {
            test.is_invalid() && matches!(action, Action::Drop | Action::Reject)
        }),
        _ => false,
    };
    mapped || rule.tests.iter().any(Test::is_invalid)
}

fn meets(packet: &FirewallPacket, hook: &str) -> bool {
    match hook {
        "ingress" | "prerouting" | "input" => packet.incoming,
        "output" | "postrouting" | "egress" => !packet.incoming,
        _ => false,
    }
}

fn order(hook: &str) -> usize {
    [
        "ingress",
        "prerouting",
        "input",
        "output",
        "postrouting",
        "egress",
    ]
    .iter()
    .position(|known| *known == hook)
    .unwrap_or(usize::MAX)
}
