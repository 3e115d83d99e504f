//! What must be seen of a step's packets.

use std::time::Duration;

use crate::plan::Action;
use crate::plan::Expectation;
use crate::plan::Packet;
use crate::plan::Place;
use crate::plan::Role;
use crate::plan::See;
use crate::plan::Station;
use crate::plan::Task;
use crate::suite::condition;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;
use crate::suite::step::MOMENT;
use crate::suite::step::MOST_PACKETS;
use crate::suite::step::ROLE;

/// A `[[step.expect]]`.
pub(crate) const EXPECT: Shape = Shape {
    name: "an expectation",
    about: "What must be seen of the step's packets; of all of them, unless it is said.",
    keys: &[
        key(
            "at",
            "The station where it must be seen.",
            Need::Optional,
            Kind::Word(|| STATIONS.map(Station::id).to_vec()),
        ),
        key(
            "host",
            "The host on which it must be seen, wherever there.",
            Need::Optional,
            ROLE,
        ),
        key(
            "see",
            "What must be seen; `probe`, unless it is said.",
            Need::Optional,
            Kind::Word(|| SEE.map(|(name, _)| name).to_vec()),
        ),
        key(
            "type",
            "The type of an `icmp-error`; any, unless it is said.",
            Need::With("see"),
            Kind::Number(0, 255),
        ),
        key(
            "code",
            "The code of an `icmp-error`; any, unless it is said.",
            Need::With("type"),
            Kind::Number(0, 255),
        ),
        key(
            "from",
            "Its outermost source: of an ICMP error, who sent it.",
            Need::Optional,
            Kind::Address,
        ),
        key(
            "within",
            "How soon after the packet was sent; two seconds, unless it is said.",
            Need::Optional,
            Kind::Duration(MOMENT),
        ),
        key(
            "count",
            "Of how many of the packets: `2` is exactly two, `\"2 of 3\"` at least two of the three.",
            Need::Optional,
            Kind::Either(&[
                Kind::Number(1, MOST_PACKETS),
                Kind::Special("such as `\"2 of 3\"`", "^[0-9]+ of [0-9]+$"),
            ]),
        ),
        key(
            "at-least",
            "Of so many at least.",
            Need::Optional,
            Kind::Number(1, MOST_PACKETS),
        ),
        key(
            "at-most",
            "Of so many at most.",
            Need::Optional,
            Kind::Number(0, MOST_PACKETS),
        ),
        key(
            "never",
            "It must not be seen at all.",
            Need::Optional,
            Kind::Bool,
        ),
        key(
            "where",
            "What must be true of each packet that counts: `\"ipv4.ttl\"`, `\"ipv4.1.ttl\"` for the second IPv4 header.",
            Need::Optional,
            Kind::Conditions,
        ),
    ],
    one_of: &["at", "host"],
};

const STATIONS: [Station; 8] = [
    Station::ClientOut,
    Station::ClientIn,
    Station::DirectorIn,
    Station::DirectorOut,
    Station::RealserverIn,
    Station::RealserverTunnel,
    Station::RealserverOut,
    Station::RealserverArp,
];

const SEE: [(&str, See); 18] = [
    ("probe", See::Probe),
    ("tunnelled", See::Tunnelled),
    ("decapsulated", See::Decapsulated),
    ("syn-ack", See::SynAck),
    ("rst", See::Rst),
    ("refused", See::Refused),
    ("reply", See::Reply),
    ("icmp-error", icmp(None, None)),
    ("net-unreachable", icmp(Some(3), Some(0))),
    ("host-unreachable", icmp(Some(3), Some(1))),
    ("protocol-unreachable", icmp(Some(3), Some(2))),
    ("port-unreachable", icmp(Some(3), Some(3))),
    ("frag-needed", icmp(Some(3), Some(4))),
    ("admin-prohibited", icmp(Some(3), Some(13))),
    ("unreachable", icmp(Some(3), None)),
    ("redirect", icmp(Some(5), None)),
    ("time-exceeded", icmp(Some(11), None)),
    ("parameter-problem", icmp(Some(12), None)),
];

const fn icmp(icmp_type: Option<u8>, code: Option<u8>) -> See {
    See::IcmpError { icmp_type, code }
}

/// How soon something must be seen.
const WITHIN: Duration = Duration::from_secs(2);

/// What a step expects, as far as it could be read.
pub(crate) fn read_all(table: &Table<'_>, action: Option<&Action>) -> Vec<Expectation> {
    let packets = action.and_then(packets);
    let tables = table.tables("expect");
    let read = tables
        .iter()
        .filter_map(|table| read(table, action, packets));
    read.collect()
}

/// How many packets a step sends, if that is known before.
fn packets(action: &Action) -> Option<u64> {
    match action {
        Action::Script(script) => Some(script.packets.len() as u64),
        Action::Builtin(builtin) => {
            let values = builtin.ttls.len().max(1) * builtin.sizes.len().max(1);
            Some(u64::from(builtin.count?) * values as u64)
        }
        Action::Ask(_) => None,
    }
}

fn read(table: &Table<'_>, action: Option<&Action>, packets: Option<u64>) -> Option<Expectation> {
    let place = match table.has("at") {
        true => table
            .word("at", &STATIONS, Station::id)
            .map(|at| Place::Station(at.value)),
        false => table
            .word("host", &Role::ALL, Role::id)
            .map(|at| Place::Host(at.value)),
    };
    let see = read_see(table);
    let from = table.address("from");
    let within = table.duration("within");
    let bounds = read_bounds(table, action, packets);
    let fields = condition::read_all(table);
    let (place, see, bounds) = (place?, see?, bounds?);
    if see == See::Decapsulated && !can_be_unwrapped(place, action) {
        let place = table.key(if table.has("at") { "at" } else { "host" });
        let problem = At::new((), table.key("see")).wrong(
            "`decapsulated` of a packet that is sent without a tunnel header",
            "only what the director has tunnelled comes out of a tunnel, at `realserver.tunnel`",
        );
        let problem = problem.context(place, "not here");
        let problem = problem.hint("`see = \"probe\"` is the packet as it was sent");
        table.source.problem(problem);
    }
    Some(Expectation {
        at: place,
        see,
        from: from.map(|at| at.value),
        within: within.map_or(WITHIN, |at| at.value),
        at_least: bounds.at_least.map(|number| number as u16),
        at_most: bounds.at_most.map(|number| number as u16),
        fields,
    })
}

/// Whether a step's packets can be seen there without a tunnel header that they had: if it is not their own, it is
/// the director's.
fn can_be_unwrapped(place: Place, action: Option<&Action>) -> bool {
    let at_the_tunnel = [
        Place::Station(Station::RealserverTunnel),
        Place::Host(Role::Realserver),
    ];
    let is_plain = match action {
        Some(Action::Script(script)) => script.packets.iter().all(Packet::is_plain),
        Some(Action::Builtin(builtin)) => match builtin.task {
            Task::Probe(kind) => !kind.is_tunnelled(),
            _ => false,
        },
        Some(Action::Ask(_)) | None => false,
    };
    !is_plain || at_the_tunnel.contains(&place)
}

fn read_see(table: &Table<'_>) -> Option<See> {
    let see = match table.has("see") {
        true => table.word("see", &SEE, |(name, _)| name)?,
        false => At::new(SEE[0], table.span.clone()),
    };
    let number = |key| Some(table.number(key)?.value as u8);
    let (icmp_type, code) = (number("type"), number("code"));
    let (name, value) = see.value;
    if name == "icmp-error" {
        return Some(icmp(icmp_type, code));
    }
    if table.has("see") && table.has("type") {
        let problem = At::new((), table.key("type")).wrong(
            format!("`type` of `{name}`"),
            "it has a meaning only for `see = \"icmp-error\"`",
        );
        let problem = problem.context(see.span, "what is seen");
        table.source.problem(problem);
    }
    Some(value)
}

/// Of how many packets it must be seen.
#[derive(Default)]
struct Bounds {
    at_least: Option<u64>,
    at_most: Option<u64>,
}

fn read_bounds(table: &Table<'_>, action: Option<&Action>, packets: Option<u64>) -> Option<Bounds> {
    let groups: [&[&str]; 3] = [&["never"], &["count"], &["at-least", "at-most"]];
    let mut said = groups
        .iter()
        .filter_map(|keys| keys.iter().find(|key| table.has(key)));
    let Some(first) = said.next() else {
        return Some(Bounds::default());
    };
    if let Some(second) = said.next() {
        let problem = At::new((), table.key(second)).wrong(
            format!("`{second}` beside `{first}`"),
            "both say of how many",
        );
        let problem = problem.context(table.key(first), "the other");
        table.source.problem(problem);
        return None;
    }
    match *first {
        "never" => {
            let never = table.truth("never")?.value;
            let none = Bounds {
                at_least: Some(0),
                at_most: Some(0),
            };
            Some(if never { none } else { Bounds::default() })
        }
        "count" => read_count(table, action, packets),
        _ => {
            let at_least = possible(table, "at-least", packets);
            let at_most = table.number("at-most");
            if let (Some(least), Some(most)) = (&at_least, &at_most)
                && least.value > most.value
            {
                let message = format!("at most {} and at least {}", most.value, least.value);
                let problem = most.wrong(message, format!("expected {} or more", least.value));
                let problem = problem.context(least.span.clone(), "at least");
                table.source.problem(problem);
            }
            Some(Bounds {
                at_least: Some(at_least.map_or(0, |at| at.value)),
                at_most: at_most.map(|at| at.value),
            })
        }
    }
}

/// A number that is not more than there are packets.
fn possible(table: &Table<'_>, key: &str, packets: Option<u64>) -> Option<At<u64>> {
    let at = table.number(key)?;
    match packets {
        Some(packets) if at.value > packets => {
            let message = format!("`{key}` is {}", at.value);
            let problem = at.wrong(message, format!("the step sends {}", sent(packets)));
            table.source.problem(problem);
            None
        }
        _ => Some(at),
    }
}

fn sent(packets: u64) -> String {
    match packets {
        1 => "one packet".to_owned(),
        packets => format!("{packets} packets"),
    }
}

fn read_count(table: &Table<'_>, action: Option<&Action>, packets: Option<u64>) -> Option<Bounds> {
    let at = table.given("count")?;
    let text = match &at.value {
        Given::Integer(_) => {
            let number = table.number_of("count", &Kind::Number(1, MOST_PACKETS), &at)?;
            if let Some(packets) = packets.filter(|packets| number > *packets) {
                let problem = at.wrong(
                    format!("`count` is {number}"),
                    format!("the step sends {}", sent(packets)),
                );
                table.source.problem(problem);
                return None;
            }
            return Some(Bounds {
                at_least: Some(number),
                at_most: Some(number),
            });
        }
        Given::Text(text) => text,
        _ => return table.wrong_type("count", &at),
    };
    let numbers = text.split_once(" of ").and_then(|(some, all)| {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        Some((number(some)?, number(all)?))
    });
    let wrong = |message: String, label: String| {
        table.source.problem(at.wrong(message, label));
        None
    };
    let Some((some, all)) = numbers else {
        let message = format!("`{}` is no count", text.escape_debug());
        return wrong(message, "expected a number, or such as `2 of 3`".to_owned());
    };
    match packets {
        _ if some > all || some == 0 => wrong(
            format!("`{some} of {all}`"),
            format!("expected 1 to {all} of {all}"),
        ),
        Some(packets) if packets != all => wrong(
            format!("{some} of {all}"),
            format!("the step sends {}", sent(packets)),
        ),
        None if action.is_some() => wrong(
            format!("{some} of {all}"),
            "the step sends as many as it takes: give it a `count`".to_owned(),
        ),
        _ => Some(Bounds {
            at_least: Some(some),
            at_most: None,
        }),
    }
}
