//! What must be true of a packet's fields: an expectation's `where`.

use std::ops::Range;

use toml::de::DeTable;

use crate::plan::Condition;
use crate::plan::Test;
use crate::suite::Diagnostic;
use crate::suite::layer;
use crate::suite::nearest;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;

/// What a field is held against, if not a value.
pub(crate) const TEST: Shape = Shape {
    name: "a condition",
    about: "What must be true of a field.",
    keys: &[
        key(
            "between",
            "It lies between two values, both included.",
            Need::Optional,
            Kind::List(&Kind::Special("the field's value", "")),
        ),
        key(
            "decremented-by",
            "It has fallen by so much since it was sent.",
            Need::Optional,
            Kind::Number(0, u32::MAX as u64),
        ),
        key(
            "sent",
            "It has the value with which another field was sent, such as `\"udp.sport\"`.",
            Need::Optional,
            Kind::Special(
                "a layer and a field, such as `\"udp.sport\"`",
                "^[a-z0-9]+(\\.[0-9]+)?\\.[a-z]+$",
            ),
        ),
    ],
    one_of: &["between", "decremented-by", "sent"],
};

/// Every condition, as far as it could be read.
pub(crate) fn read_all(table: &Table<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    if let Some(at) = table.given("where") {
        match at.value {
            Given::Table(entries) => walk(table, "", entries, &mut conditions),
            _ => table.wrong_type("where", &at).unwrap_or_default(),
        }
    }
    conditions
}

/// `"ipv4.ttl" = 64` and `ipv4.ttl = 64` say the same.
fn walk<'a>(
    table: &Table<'a>,
    before: &str,
    entries: &'a DeTable<'a>,
    conditions: &mut Vec<Condition>,
) {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in sorted {
        let path = match before {
            "" => name.get_ref().to_string(),
            before => format!("{before}.{}", name.get_ref()),
        };
        if let Some(inner) = value.get_ref().as_table()
            && is_layer(&path)
        {
            walk(table, &path, inner, conditions);
            continue;
        }
        let Some(field) = find(table, &path, name.span()) else {
            continue;
        };
        let Some(at) = table.resolve(value) else {
            continue;
        };
        let test = read_test(table, &field, &at);
        conditions.extend(test.map(|test| Condition {
            layer: field.layer,
            field: field.name.to_owned(),
            test,
        }));
    }
}

/// A field that a condition is about.
struct Found {
    layer: String,
    name: &'static str,
    kind: &'static Kind,
}

/// Whether a path ends with a layer, and so a field is still to come.
fn is_layer(path: &str) -> bool {
    let (layer, number) = path.split_once('.').unwrap_or((path, "0"));
    number.parse::<u8>().is_ok() && layer::WITH_FIELDS.iter().any(|(name, _)| *name == layer)
}

fn find(table: &Table<'_>, path: &str, span: Range<usize>) -> Option<Found> {
    let wrong = |message: String, label: String| {
        table
            .source
            .problem(Diagnostic::new(span.clone(), message, label));
        None
    };
    let shown = path.escape_debug();
    let Some((layer, field)) = path.rsplit_once('.') else {
        return wrong(
            format!("`{shown}` is no field"),
            "expected a layer and a field, such as `\"ipv4.ttl\"`".to_owned(),
        );
    };
    let (kind, number) = layer.split_once('.').unwrap_or((layer, "0"));
    let Some((_, shape)) = layer::WITH_FIELDS.iter().find(|(name, _)| *name == kind) else {
        let known = layer::WITH_FIELDS.map(|(name, _)| name);
        let label = match nearest(kind, known) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("expected one of {}", quoted(&known)),
        };
        return wrong(format!("unknown layer `{}`", kind.escape_debug()), label);
    };
    if number.parse::<u8>().is_err() {
        return wrong(
            format!("`{}` counts no layer", number.escape_debug()),
            format!("expected a number: `{kind}.1` is the second from outside"),
        );
    }
    let fields = || shape.keys.iter().filter(|key| is_number(&key.kind));
    let Some(found) = fields().find(|key| key.name == field) else {
        let names: Vec<_> = fields().map(|key| key.name).collect();
        let label = match nearest(field, names.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("expected one of {}", quoted(&names)),
        };
        let message = format!("`{kind}` has no number `{}`", field.escape_debug());
        return wrong(message, label);
    };
    Some(Found {
        layer: layer.to_owned(),
        name: found.name,
        kind: &found.kind,
    })
}

/// Whether a field is a number, and so can be compared.
pub(crate) fn is_number(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Number(..)
            | Kind::Named(..)
            | Kind::Flags(..)
            | Kind::Address
            | Kind::AnyAddress
            | Kind::Mac
    )
}

fn is_hardware(kind: &Kind) -> bool {
    matches!(kind, Kind::Mac)
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn read_test(table: &Table<'_>, field: &Found, at: &At<Given<'_>>) -> Option<Test> {
    let number = |at: &At<Given<'_>>| table.number_of(field.name, field.kind, at);
    let entries = match &at.value {
        Given::Text(text) if text == "unchanged" => return Some(Test::Unchanged),
        Given::Table(entries) => *entries,
        _ => return number(at).map(Test::Equals),
    };
    let test = table.sub(&TEST, entries, at.span.clone());
    if test.has("between") {
        let at = test.given("between")?;
        let ends = match &at.value {
            Given::List(list) if list.len() == 2 => (number(&list[0]), number(&list[1])),
            _ => {
                let message = "`between` is not two values".to_owned();
                let problem = at.wrong(message, "expected a list such as `[50, 64]`");
                table.source.problem(problem);
                return None;
            }
        };
        let (low, high) = (ends.0?, ends.1?);
        if low > high {
            let message = "`between` is empty".to_owned();
            let problem = at.wrong(message, "expected the smaller value first");
            table.source.problem(problem);
            return None;
        }
        return Some(Test::Between(low, high));
    }
    if test.has("sent") {
        let at = test.string("sent")?;
        let found = find(table, &at.value, at.span.clone())?;
        if is_hardware(found.kind) != is_hardware(field.kind) {
            let message = format!("`{}` is never `{}`", field.name, at.value);
            let problem = at.wrong(message, "expected a field of the same kind");
            table.source.problem(problem);
            return None;
        }
        return Some(Test::Sent {
            layer: found.layer,
            field: found.name.to_owned(),
        });
    }
    let by = test.number("decremented-by")?;
    let most = match field.kind {
        Kind::Number(_, high) | Kind::Named(high, _) => *high,
        _ => {
            let problem = At::new((), at.span.clone()).wrong(
                format!("`{}` does not fall", field.name),
                "expected a value, or `\"unchanged\"`",
            );
            table.source.problem(problem);
            return None;
        }
    };
    if by.value > most {
        let message = format!("`{}` cannot fall by {}", field.name, by.value);
        let problem = by.wrong(message, format!("expected {most} at most"));
        table.source.problem(problem);
        return None;
    }
    Some(Test::DecrementedBy(by.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::EtherType;
    use crate::wire::Fields;

    /// What may be asked of a field, the packets must be able to answer.
    #[test]
    fn every_field_of_a_condition_can_be_read_from_a_packet() {
        let mac = [2, 0, 0, 0, 0, 1];
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &[0; 4], &mac, &[0; 4]].concat();
        let frame = [&mac[..], &mac, &[8, 6], &arp].concat();
        let ip = |protocol: u8, rest: &[u8]| {
            let length = 20 + rest.len() as u8;
            let header = [0x45, 0, 0, length, 0, 1, 0, 0, 64, protocol, 0, 0];
            [&header[..], &[192, 0, 2, 1, 192, 0, 2, 2], rest].concat()
        };
        let udp = ip(17, &[0, 1, 0, 2, 0, 8, 0, 0]);
        let tcp = ip(6, &[&[0; 12][..], &[0x50], &[0; 7]].concat());
        let icmp = ip(1, &[8, 0, 0, 0, 0, 0, 0, 0]);
        let of = |packet| Fields::of(packet, EtherType::IPV4);
        let packets = [Fields::of_frame(&frame), of(&udp), of(&tcp), of(&icmp)];
        for (layer, shape) in layer::WITH_FIELDS {
            let fields = shape.keys.iter().filter(|key| is_number(&key.kind));
            for field in fields {
                let mut values = packets.iter().map(|p| p.value(layer, 0, field.name));
                assert!(values.any(|v| v.is_some()), "{layer}.{}", field.name);
            }
        }
    }
}
