//! Steps: what is done, when, and whether.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::Action;
use crate::plan::After;
use crate::plan::Builtin;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Role;
use crate::plan::Step;
use crate::plan::Task;
use crate::plan::Toward;
use crate::suite::Diagnostic;
use crate::suite::ask;
use crate::suite::builtin;
use crate::suite::environment::Scope;
use crate::suite::expectation;
use crate::suite::layer;
use crate::suite::nearest;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::script;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;

/// A `[[step]]`.
pub(crate) const STEP: Shape = Shape {
    name: "a step",
    about: "One thing to do: `probe` is built in, `send` writes packets out, `ask` asks a host.",
    keys: &[
        key(
            "id",
            "Its name, unique in the suite.",
            Need::Required("\"first\""),
            Kind::Name,
        ),
        key(
            "about",
            "What it is for, in one sentence.",
            Need::Optional,
            Kind::Line,
        ),
        key(
            "start",
            "When it begins, after the suite's start or after what it waits for; at once, unless it is said.",
            Need::Optional,
            Kind::Duration(MOMENT),
        ),
        key(
            "after",
            "Earlier steps that must be over; each by its name, or with what to do if it failed.",
            Need::Optional,
            Kind::Either(&[
                Kind::Name,
                Kind::List(&Kind::Either(&[Kind::Name, Kind::Table(&AFTER)])),
            ]),
        ),
        key(
            "with",
            "It is left out unless tunproof runs on all of these.",
            Need::Optional,
            ROLES,
        ),
        key(
            "without",
            "It is left out if tunproof runs on one of these.",
            Need::Optional,
            ROLES,
        ),
        key(
            "probe",
            "What tunproof knows how to do, by its name.",
            Need::Optional,
            Kind::Word(|| Task::all().into_iter().map(Task::id).collect()),
        ),
        key(
            "at-least",
            "So often at least, even if the first went all the way; without it and `count` as often as it takes, six times at most.",
            Need::With("probe"),
            Kind::Number(1, MOST_TRIES),
        ),
        key(
            "ttl",
            "Time to live of the outermost header: a number, a list or a range; 64, unless it is said.",
            Need::With("probe"),
            Kind::Numbers(1, 255),
        ),
        key(
            "size",
            "Octets of the whole packet, with DF: a number, a list or a range; as few as it takes, unless it is said.",
            Need::With("probe"),
            Kind::Numbers(64, 65535),
        ),
        key(
            "flows",
            "How many flows `spoof-passes` asks; 8, unless it is said.",
            Need::With("probe"),
            Kind::Number(1, ProbeId::FLOWS as u64),
        ),
        key(
            "toward",
            "To whom `spoof-passes` sends: the client, unless it is said, or the director.",
            Need::With("probe"),
            Kind::Word(|| Toward::ALL.map(Toward::id).to_vec()),
        ),
        key(
            "send",
            "The layers of a packet, outermost first.",
            Need::Optional,
            Kind::List(&Kind::Table(&layer::LAYER)),
        ),
        key(
            "from",
            "The host that sends what is written out.",
            Need::With("send"),
            ROLE,
        ),
        key(
            "device",
            "The device that packets leave by which start at an Ethernet header; the one of the route to their \
             destination, unless it is said.",
            Need::With("send"),
            Kind::Device,
        ),
        key(
            "loop",
            "Variables for `send`, each with a list or a range of values; the last runs fastest.",
            Need::With("send"),
            Kind::Map(&Kind::Special(
                "a value, a list or a range such as `\"1..12\"`",
                "",
            )),
        ),
        key(
            "count",
            "So often, no more and no less; what is written out once, unless it is said, or the whole loop so often.",
            Need::Optional,
            Kind::Number(1, MOST_PACKETS),
        ),
        key(
            "interval",
            "Between two packets; 100 ms, unless it is said.",
            Need::Optional,
            Kind::Duration(MOMENT),
        ),
        key(
            "ask",
            "A question to a host about itself, with the answer that is expected.",
            Need::Optional,
            Kind::Table(&ask::ASK),
        ),
        key(
            "expect",
            "What must be seen of the step's packets.",
            Need::Optional,
            Kind::List(&Kind::Table(&expectation::EXPECT)),
        ),
    ],
    one_of: &["probe", "send", "ask"],
};

/// An element of `after`.
const AFTER: Shape = Shape {
    name: "an element of `after`",
    about: "An earlier step, and what to do if it failed.",
    keys: &[
        key(
            "step",
            "The earlier step's `id`.",
            Need::Required("\"first\""),
            Kind::Name,
        ),
        key(
            "if-failed",
            "Whether this one is played although the other failed; `stop`, unless it is said.",
            Need::Optional,
            Kind::Word(|| IF_FAILED.map(|(word, _)| word).to_vec()),
        ),
    ],
    one_of: &[],
};

const IF_FAILED: [(&str, bool); 2] = [("stop", false), ("go-on", true)];

const ROLES: Kind = Kind::Either(&[ROLE, Kind::List(&ROLE)]);

/// A host by its role.
pub(crate) const ROLE: Kind = Kind::Word(|| Role::ALL.map(Role::id).to_vec());

/// How many packets a step can send.
pub(crate) const MOST_PACKETS: u64 = ProbeId::PER_KIND as u64;

/// How often a built-in step is tried, if its count is not said.
pub(crate) const MOST_TRIES: u64 = Builtin::MOST_TRIES as u64;

/// The longest time that a suite can name, in seconds.
pub(crate) const MOMENT: u64 = 3600;

/// Between two packets.
pub(crate) const INTERVAL: Duration = Duration::from_millis(100);

/// Every step of a suite, as far as it could be read.
pub(crate) fn read_all(suite: &Table<'_>, scope: &Scope<'_>) -> Vec<Step> {
    let tables = suite.tables("step");
    if suite.has("step") && tables.is_empty() && suite.source.is_clean() {
        suite.source.problem(
            At::new((), suite.key("step"))
                .wrong("`step` is empty", "expected one or more tables `[[step]]`"),
        );
    }
    let mut ids: Vec<At<String>> = Vec::new();
    let mut steps = Vec::new();
    let mut sent = BTreeMap::new();
    for table in &tables {
        let id = table.name("id");
        let step = read(table, scope, id.as_ref(), &ids);
        let twice = id
            .as_ref()
            .and_then(|id| ids.iter().find(|earlier| earlier.value == id.value));
        if let (Some(id), Some(earlier)) = (&id, twice) {
            let message = format!("two steps are called `{}`", id.value);
            let problem = id.wrong(message, "expected another name");
            let problem = problem.context(earlier.span.clone(), "the first");
            table.source.problem(problem);
        }
        // A step that could not be read keeps its place, so that others can name it.
        ids.push(id.unwrap_or_else(|| At::new(String::new(), table.span.clone())));
        if let Some(step) = &step {
            check_total(table, &step.action, &mut sent);
        }
        steps.extend(step);
    }
    steps
}

/// A kind of probe has so many numbers, and a suite cannot use more, whatever its steps are.
fn check_total(table: &Table<'_>, action: &Action, sent: &mut BTreeMap<ProbeKind, u64>) {
    let (kind, packets, key) = match action {
        Action::Builtin(Builtin {
            task: Task::Probe(kind),
            count,
            ttls,
            sizes,
            ..
        }) => {
            let values = (ttls.len().max(1) * sizes.len().max(1)) as u64;
            let tries = count.map_or(MOST_TRIES, u64::from);
            (*kind, values * tries, "probe")
        }
        Action::Script(script) => (ProbeKind::Script, script.packets.len() as u64, "send"),
        _ => return,
    };
    let most = u64::from(ProbeId::once(kind));
    let total = sent.entry(kind).or_default();
    *total += packets;
    if *total > most && packets <= most {
        let what = match kind {
            ProbeKind::Script => "packets written out".to_owned(),
            kind => format!("packets of `{kind}`"),
        };
        let problem = At::new((), table.key(key)).wrong(
            format!("{total} {what} in the suite up to here"),
            format!("expected {most} at most"),
        );
        table.source.problem(problem);
    }
}

fn read(
    table: &Table<'_>,
    scope: &Scope<'_>,
    id: Option<&At<String>>,
    earlier: &[At<String>],
) -> Option<Step> {
    let about = table.line("about").map(|at| at.value).unwrap_or_default();
    let start = table.duration("start").map(|at| at.value);
    let after = read_after(table, id, earlier);
    let (with, without) = read_roles(table);
    let action = read_action(table, scope);
    let expect = expectation::read_all(table, action.as_ref());
    Some(Step {
        id: id?.value.clone(),
        about,
        action: action?,
        start: start.unwrap_or_default(),
        after,
        with,
        without,
        expect,
    })
}

fn read_roles(table: &Table<'_>) -> (Vec<Role>, Vec<Role>) {
    let with = table.words("with", &Role::ALL, Role::id);
    let without = table.words("without", &Role::ALL, Role::id);
    for role in &without {
        if let Some(other) = with.iter().find(|with| with.value == role.value) {
            let message = format!("`{}` in `with` and in `without`", role.value.id());
            let problem = role.wrong(message, "the step would never be played");
            let problem = problem.context(other.span.clone(), "in `with`");
            table.source.problem(problem);
        }
    }
    let values = |roles: Vec<At<Role>>| roles.into_iter().map(|at| at.value).collect();
    (values(with), values(without))
}

fn read_after(table: &Table<'_>, id: Option<&At<String>>, earlier: &[At<String>]) -> Vec<After> {
    let mut found: Vec<At<After>> = Vec::new();
    for at in table.list("after") {
        let (name, go_on) = match at.value {
            Given::Text(ref name) => (Some(at.with(name.clone())), false),
            Given::Table(entries) => {
                let element = table.sub(&AFTER, entries, at.span.clone());
                let go_on = element.word("if-failed", &IF_FAILED, |(word, _)| word);
                let go_on = go_on.is_some_and(|at| at.value.1);
                (element.string("step"), go_on)
            }
            _ => {
                table.wrong_type::<()>("after", &at);
                continue;
            }
        };
        let Some(name) = name else {
            continue;
        };
        let Some(step) = earlier.iter().position(|step| step.value == name.value) else {
            let problem = not_earlier(&name, id, earlier);
            table.source.problem(problem);
            continue;
        };
        match found.iter().find(|other| other.value.step == step) {
            None => found.push(name.with(After { step, go_on })),
            Some(other) => {
                let message = format!("`{}` stands twice in `after`", name.value);
                let problem = name.wrong(message, "expected once");
                let problem = problem.context(other.span.clone(), "the first");
                table.source.problem(problem);
            }
        }
    }
    found.into_iter().map(|at| at.value).collect()
}

fn not_earlier(name: &At<String>, id: Option<&At<String>>, earlier: &[At<String>]) -> Diagnostic {
    let shown = name.value.escape_debug();
    if id.is_some_and(|id| id.value == name.value) {
        let message = format!("`{shown}` would wait for itself");
        return name.wrong(message, "expected an earlier step");
    }
    let known = || earlier.iter().map(|step| step.value.as_str());
    let label = match nearest(&name.value, known()) {
        Some(known) => format!("did you mean `\"{known}\"`?"),
        None if earlier.is_empty() => "this is the first step".to_owned(),
        None => {
            let known: Vec<_> = known().map(|name| format!("`\"{name}\"`")).collect();
            format!("expected one of {}", known.join(", "))
        }
    };
    name.wrong(format!("no earlier step is called `{shown}`"), label)
        .hint("a step can wait only for steps that stand before it")
}

fn read_action(table: &Table<'_>, scope: &Scope<'_>) -> Option<Action> {
    if table.has("probe") {
        return builtin::read(table).map(Action::Builtin);
    }
    if table.has("send") {
        return script::read(table, scope).map(Action::Script);
    }
    for key in ["count", "interval", "expect"] {
        if table.has("ask") && table.has(key) {
            let problem = At::new((), table.key(key)).wrong(
                format!("`{key}` beside `ask`"),
                "a question is asked once, and says itself what is expected",
            );
            table.source.problem(problem);
        }
    }
    ask::read(&table.table("ask")?).map(Action::Ask)
}
