//! What an expectation asks for, and why it was not met, in words.

use crate::evidence::Tally;
use crate::evidence::Withheld;
use crate::plan::Condition;
use crate::plan::Expectation;
use crate::plan::Place;
use crate::plan::See;
use crate::plan::Test;

/// That ICMP errors may have been withheld, and what would decide.
pub(super) fn withholds(withheld: &Withheld) -> String {
    let by = withheld.by;
    let known = match withheld.counted {
        Some(counted) => format!("{by} withheld {counted} ICMP errors: its limits are reached"),
        None => format!(
            "{by} answered others shortly before, and may have withheld the rest: hosts limit their ICMP errors, \
             Linux to six at once and then one a second"
        ),
    };
    format!("{known}; send fewer, or further apart (`interval = \"1200ms\"`)")
}

/// What was seen otherwise than expected, as an example.
pub(super) fn unlike(tally: &Tally) -> String {
    match tally.unlike.first() {
        Some((_, how)) => format!(", but seen {how}"),
        None => String::new(),
    }
}

/// `1 packet`, `2 packets`.
pub(super) fn packets(number: usize) -> String {
    match number {
        1 => "1 packet".to_owned(),
        number => format!("{number} packets"),
    }
}

/// An expectation in words.
pub(super) fn words(expected: &Expectation) -> String {
    let place = match expected.at {
        Place::Station(station) => station.to_string(),
        Place::Host(role) => role.id().to_owned(),
    };
    let see = match expected.see {
        See::Probe => "the packet itself".to_owned(),
        See::Tunnelled => "the packet tunnelled".to_owned(),
        See::Decapsulated => "the packet decapsulated".to_owned(),
        See::SynAck => "a SYN-ACK".to_owned(),
        See::Rst => "an RST".to_owned(),
        See::Refused => "a refusal (RST/ACK)".to_owned(),
        See::Reply => "a reply".to_owned(),
        See::IcmpError { icmp_type, code } => match (icmp_type, code) {
            (Some(3), Some(3)) => "port unreachable".to_owned(),
            (Some(3), Some(4)) => "fragmentation needed".to_owned(),
            (Some(11), _) => "time exceeded".to_owned(),
            (None, _) => "an ICMP error".to_owned(),
            (Some(icmp_type), None) => format!("an ICMP error of type {icmp_type}"),
            (Some(icmp_type), Some(code)) => {
                format!("an ICMP error of type {icmp_type}, code {code}")
            }
        },
    };
    let mut words = format!("{see} at {place}");
    if let Some(from) = expected.from {
        words.push_str(&format!(" from {from}"));
    }
    match (expected.at_least, expected.at_most) {
        (_, Some(0)) => words.insert_str(0, "never "),
        (None | Some(0), Some(most)) => words.push_str(&format!(", of {most} at most")),
        (Some(least), Some(most)) if least == most => {
            words.push_str(&format!(", of exactly {least}"));
        }
        (Some(least), Some(most)) => words.push_str(&format!(", of {least} to {most}")),
        (Some(least), None) => words.push_str(&format!(", of {least} at least")),
        (None, None) => {}
    }
    for condition in &expected.fields {
        words.push_str(&format!(", {}", condition_in_words(condition)));
    }
    words
}

/// A condition in words.
fn condition_in_words(condition: &Condition) -> String {
    let Condition { layer, field, test } = condition;
    let value = |value: &u64| condition.shown(*value);
    match test {
        Test::Equals(expected) => format!("{layer}.{field} {}", value(expected)),
        Test::Between(least, most) => {
            format!("{layer}.{field} {} to {}", value(least), value(most))
        }
        Test::Unchanged => format!("{layer}.{field} unchanged"),
        Test::DecrementedBy(by) => format!("{layer}.{field} less by {by}"),
        Test::Sent {
            layer: other,
            field: sent,
        } => format!("{layer}.{field} the {other}.{sent} that was sent"),
    }
}
