//! Questions to a host about itself.

use crate::plan::Question;
use crate::plan::Role;
use crate::plan::Subject;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;
use crate::suite::step::ROLE;

/// A step's `ask`.
pub(crate) const ASK: Shape = Shape {
    name: "`ask`",
    about: "A question to a host about itself, with the answer that is expected.",
    keys: &[
        key("host", "Whom.", Need::Required("\"director\""), ROLE),
        key(
            "route",
            "`ip route get`: how it would send; without an answer, that it could.",
            Need::Optional,
            Kind::Table(&ROUTE),
        ),
        key(
            "source",
            "The source that its kernel must choose.",
            Need::With("route"),
            Kind::Address,
        ),
        key(
            "device",
            "The device that it must leave by.",
            Need::With("route"),
            Kind::Device,
        ),
        key(
            "gateway",
            "The next hop that it must take.",
            Need::With("route"),
            Kind::Address,
        ),
        key(
            "sysctl",
            "A setting below `net`, with dots.",
            Need::Optional,
            Kind::Special(
                "a sysctl's name such as `\"net.ipv4.ip_forward\"`",
                "^net(\\.[^.]+)+$",
            ),
        ),
        key(
            "value",
            "What the setting must be.",
            Need::With("sysctl"),
            Kind::Either(&[Kind::Number(0, u32::MAX as u64), Kind::Line]),
        ),
        key(
            "address",
            "An address that it has or has not.",
            Need::Optional,
            Kind::Address,
        ),
        key(
            "present",
            "Whether it must have the address; it must, unless it is said.",
            Need::With("address"),
            Kind::Bool,
        ),
    ],
    one_of: &["route", "sysctl", "address"],
};

const ROUTE: Shape = Shape {
    name: "`route`",
    about: "What `ip route get` is asked.",
    keys: &[
        key("to", "To where.", Need::Required("\"$rip\""), Kind::Address),
        key("from", "From which source.", Need::Optional, Kind::Address),
        key(
            "iif",
            "As if it had come in there.",
            Need::Optional,
            Kind::Device,
        ),
    ],
    one_of: &[],
};

/// Reads a question.
pub(crate) fn read(table: &Table<'_>) -> Option<Question> {
    let host = table.word("host", &Role::ALL, Role::id);
    let about = match () {
        () if table.has("route") => route(table),
        () if table.has("sysctl") => sysctl(table),
        () => address(table),
    };
    Some(Question {
        host: host?.value,
        about: about?,
    })
}

fn route(table: &Table<'_>) -> Option<Subject> {
    let source = table.address("source");
    let device = table.device("device");
    let gateway = table.address("gateway");
    let route = table.table("route")?;
    let (to, from, iif) = (
        route.address("to"),
        route.address("from"),
        route.device("iif"),
    );
    Some(Subject::Route {
        to: to?.value,
        from: from.map(|at| at.value),
        iif,
        source: source.map(|at| at.value),
        device,
        gateway: gateway.map(|at| at.value),
    })
}

fn sysctl(table: &Table<'_>) -> Option<Subject> {
    let name = sysctl_name(table);
    if !table.has("value") {
        table.missing("value", "1");
    }
    let at = table.given("value")?;
    let value = match &at.value {
        Given::Integer(number) => number.to_string(),
        Given::Text(_) => table.line("value")?.value,
        _ => return table.wrong_type("value", &at),
    };
    Some(Subject::Sysctl { name: name?, value })
}

/// A name below `net` that names nothing else: it becomes a path below `/proc/sys`.
fn sysctl_name(table: &Table<'_>) -> Option<String> {
    let at = table.string("sysctl")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '@' | ':');
    let mut parts = at.value.split('.');
    let is_right = parts.next() == Some("net")
        && at.value.contains('.')
        && parts.all(|part| !part.is_empty() && !part.starts_with('/') && part.chars().all(fits));
    if !is_right {
        let message = format!("`{}` is no setting of the network", at.value.escape_debug());
        let problem = at.wrong(
            message,
            "expected a name with dots, such as `net.ipv4.ip_forward`",
        );
        table.source.problem(problem);
        return None;
    }
    Some(at.value)
}

fn address(table: &Table<'_>) -> Option<Subject> {
    let present = match table.has("present") {
        true => table.truth("present"),
        false => Some(At::new(true, table.span.clone())),
    };
    Some(Subject::Address {
        address: table.address("address")?.value,
        present: present?.value,
    })
}
