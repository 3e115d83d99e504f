//! A host's policy: what its administrator lets an agent do there.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use toml::de::DeTable;

use crate::plan::Family;
use crate::plan::Policy;
use crate::plan::Range;
use crate::suite::Diagnostics;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::Source;

/// Packets a second that no host is asked to send.
const FASTEST: u64 = 100_000;

/// Reads a policy's text; `file` is the name that errors and refusals show.
///
/// # Errors
///
/// Everything that is wrong with it. A text that is no TOML is not examined further.
pub fn policy(file: &str, text: &str) -> Result<Policy, Diagnostics> {
    let read = |table: &DeTable<'_>, source: &Source<'_>| {
        let table = Table::new(&FILE, table, 0..0, source, None);
        Some(read(&table, file))
    };
    Ok(Source::parse(file, text, read)?.0)
}

/// Whether a text is rather a policy than a suite, a path file or a fleet file.
pub fn is_policy(text: &str) -> bool {
    let (file, _) = DeTable::parse_recoverable(text);
    let has = |key: &str| file.get_ref().contains_key(key);
    FILE.keys.iter().any(|key| has(key.name))
}

/// The policy file.
pub(crate) const FILE: Shape = Shape {
    name: "the policy",
    about: "What a host's agent does for those who may start it. What is not named, every request may.",
    keys: &[
        key(
            "vips",
            "The VIPs that may be probed: addresses and prefixes.",
            Need::Optional,
            ADDRESSES,
        ),
        key(
            "realservers",
            "The real servers' own addresses.",
            Need::Optional,
            ADDRESSES,
        ),
        key(
            "clients",
            "The clients' addresses.",
            Need::Optional,
            ADDRESSES,
        ),
        key(
            "directors",
            "The directors' own addresses.",
            Need::Optional,
            ADDRESSES,
        ),
        key(
            "probes",
            "The families of packets that may be sent.",
            Need::Optional,
            Kind::List(&FAMILY),
        ),
        key(
            "rate",
            "Packets a second in all, at most; 100 for each real server, unless it is said.",
            Need::Optional,
            Kind::Number(1, FASTEST),
        ),
        key(
            "forget-neighbours",
            "Whether neighbour entries may be deleted, which are put back; true, unless it is said.",
            Need::Optional,
            Kind::Bool,
        ),
    ],
    one_of: &[],
};

const ADDRESSES: Kind = Kind::List(&ADDRESS);

const ADDRESS: Kind = Kind::Special(
    "an address such as `\"203.0.113.5\"`, or a prefix such as `\"203.0.113.0/24\"`",
    "^[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?$",
);

const FAMILY: Kind = Kind::Word(|| Family::ALL.map(Family::name).to_vec());

fn read(table: &Table<'_>, file: &str) -> Policy {
    let usual = Policy::default();
    Policy {
        file: Some(file.to_owned()),
        vips: ranges(table, "vips"),
        realservers: ranges(table, "realservers"),
        clients: ranges(table, "clients"),
        directors: ranges(table, "directors"),
        probes: families(table),
        rate: table.number("rate").map(|at| at.value as u32),
        forget_neighbours: table
            .truth("forget-neighbours")
            .map_or(usual.forget_neighbours, |at| at.value),
    }
}

/// An empty list has none of them.
fn ranges(table: &Table<'_>, key: &str) -> Option<Vec<Range>> {
    table.given(key)?;
    let list = table.list(key);
    let ranges = list.iter().filter_map(|at| match &at.value {
        Given::Text(text) => match range(text) {
            Ok(range) => Some(range),
            Err((message, label)) => {
                table.source.problem(at.wrong(message, label));
                None
            }
        },
        _ => {
            let message = format!("`{key}` has {}", at.value.described());
            let expected = format!("expected {}", ADDRESS.expected());
            table.source.problem(at.wrong(message, expected));
            None
        }
    });
    Some(ranges.collect())
}

fn range(text: &str) -> Result<Range, (String, String)> {
    let (network, length) = text.split_once('/').unwrap_or((text, "32"));
    let (Ok(network), Ok(length @ 0..=32)) = (network.parse::<Ipv4Addr>(), length.parse::<u8>())
    else {
        return Err((
            format!("`{}` is no IPv4 address or prefix", text.escape_debug()),
            format!("expected {}", ADDRESS.expected()),
        ));
    };
    let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    let first = Ipv4Addr::from_bits(network.to_bits() & !hosts);
    if first != network {
        return Err((
            format!("`{text}` has bits behind its length"),
            format!("expected `{first}/{length}`, or `{network}` alone"),
        ));
    }
    Ok(Range {
        first,
        last: Ipv4Addr::from_bits(first.to_bits() | hosts),
    })
}

fn families(table: &Table<'_>) -> Option<BTreeSet<Family>> {
    table.given("probes")?;
    let list = table.list("probes");
    let families = list.iter().filter_map(|at| match &at.value {
        Given::Text(text) => {
            let named = at.with(text.clone());
            let family = table.one_of("probes", named, &Family::ALL, Family::name)?;
            Some(family.value)
        }
        _ => table.wrong_type("probes", at),
    });
    Some(families.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_holds_and_what_does_not_is_as_usual() {
        let text = "vips = [\"192.0.2.0/24\"]\nrealservers = [\"203.0.113.5\", \"0.0.0.0/0\"]\nclients = []\n\
                    probes = [\"service\", \"open-tunnel\"]\nrate = 20\nforget-neighbours = false\n";
        let policy = policy("agent.toml", text).unwrap();
        let names = |list, address: [u8; 4]| Policy::names(list, Ipv4Addr::from(address));
        assert!(names(&policy.vips, [192, 0, 2, 0]) && names(&policy.vips, [192, 0, 2, 255]));
        assert!(!names(&policy.vips, [192, 0, 3, 0]));
        assert!(names(&policy.realservers, [8, 8, 8, 8]));
        assert!(!names(&policy.clients, [198, 51, 100, 7]));
        assert!(names(&policy.directors, [192, 0, 2, 2]), "it is not named");
        assert!(policy.allows(Family::OpenTunnel) && !policy.allows(Family::Spoof));
        assert_eq!((policy.rate, policy.forget_neighbours), (Some(20), false));
        assert_eq!(policy.place(), "agent.toml");
        let empty = super::policy("agent.toml", "").unwrap();
        let file = Some("agent.toml".to_owned());
        let usual = Policy::default();
        assert_eq!(
            empty,
            Policy {
                file,
                ..usual.clone()
            }
        );
        assert_eq!(usual.rate, None);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, message, place) in [
            ("vip = []", "unknown key `vip` in the policy", (1, 1)),
            ("rate = 0", "`rate` cannot be 0", (1, 8)),
            ("rate = \"9\"", "`rate` is a string", (1, 8)),
            ("\nvips = [7]", "`vips` has an integer", (2, 9)),
            (
                "vips = [\"1.2.3.4/33\"]",
                "is no IPv4 address or prefix",
                (1, 9),
            ),
            (
                "vips = [\"192.0.2.1/24\"]",
                "has bits behind its length",
                (1, 9),
            ),
            ("probes = [\"spoofed\"]", "spoofed", (1, 11)),
            ("forget-neighbours = 1", "is an integer", (1, 21)),
            ("rate = 1\nrate = 2", "duplicate key", (2, 1)),
        ] {
            let problems = policy("agent.toml", text).unwrap_err();
            let first = problems.iter().next().unwrap();
            assert!(problems.to_string().contains(message), "{problems}");
            assert_eq!(problems.place(first), place, "{problems}");
            assert!(is_policy(text) || message.starts_with("unknown"));
        }
        assert!(!is_policy("[path]\nvip = \"192.0.2.10\""));
    }
}
