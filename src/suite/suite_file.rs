//! The suite file.

use std::ops::Range;
use std::path::Path;

use toml::de::DeTable;

use crate::plan::Hop;
use crate::plan::Suite;
use crate::suite::Diagnostic;
use crate::suite::Diagnostics;
use crate::suite::Environment;
use crate::suite::Override;
use crate::suite::environment::Scope;
use crate::suite::environment::Value;
use crate::suite::nearest;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;
use crate::suite::source::Source;
use crate::suite::step;

/// A suite file.
pub struct SuiteFile;

impl SuiteFile {
    /// Reads a suite file's text for one path: variables replaced, loops unrolled. `file` is the name that
    /// errors show, and its stem the suite's name, unless the file gives it one.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it. A text that is no TOML is not examined further, and a value from the
    /// command line that fits no variable is the only error.
    pub fn parse(file: &str, text: &str, environment: &Environment) -> Result<Suite, Diagnostics> {
        Ok(SuiteFile::check(file, text, environment)?.0)
    }

    /// The same with what is to be noted, if anything is: what only a path can judge.
    ///
    /// # Errors
    ///
    /// As [`SuiteFile::parse`].
    pub fn check(
        file: &str,
        text: &str,
        environment: &Environment,
    ) -> Result<(Suite, Option<Diagnostics>), Diagnostics> {
        let mut misset = None;
        let suite = Source::parse(file, text, |table, source| {
            read(file, table, source, environment, &mut misset)
        });
        match misset {
            Some(misset) => Err(misset),
            None => suite,
        }
    }
}

/// The suite file.
pub(crate) const FILE: Shape = Shape {
    name: "the suite",
    about: "What tunproof sends on a path, and what must come of it.",
    keys: &[
        key(
            "name",
            "The suite's name; the file's, unless it is said.",
            Need::Optional,
            Kind::Name,
        ),
        key(
            "about",
            "What it shows, in one sentence.",
            Need::Optional,
            Kind::Line,
        ),
        key(
            "hops",
            "The hops that must be proven for the suite to pass; `\"all\"` is every hop.",
            Need::Optional,
            Kind::Either(&[
                Kind::List(&Kind::Word(|| Hop::ALL.map(Hop::id).to_vec())),
                Kind::Word(|| [&[ALL][..], &Hop::ALL.map(Hop::id)].concat()),
            ]),
        ),
        key(
            "vars",
            "Variables of its own, used as `$name`, set by `--set name=value`.",
            Need::Optional,
            Kind::Map(&Kind::Special("a number, a string or a list of them", "")),
        ),
        key(
            "step",
            "What is done, in this order; steps that wait for none begin together.",
            Need::Expected,
            Kind::List(&Kind::Table(&step::STEP)),
        ),
    ],
    one_of: &[],
};

/// Every hop.
const ALL: &str = "all";

fn read(
    file: &str,
    table: &DeTable<'_>,
    source: &Source<'_>,
    environment: &Environment,
    misset: &mut Option<Diagnostics>,
) -> Option<Suite> {
    let mut scope = environment.scope();
    let plain = Table::new(&FILE, table, 0..0, source, None);
    *misset = read_vars(&plain, environment, &mut scope);
    let table = plain.within(&scope);
    let name = table.name("name").map(|name| name.value);
    let suite = Suite {
        name: name.unwrap_or_else(|| stem(file)),
        about: table.line("about").map(|at| at.value).unwrap_or_default(),
        hops: read_hops(&table),
        steps: step::read_all(&table, &scope),
    };
    let is_there = table.has("step");
    if !is_there {
        source.missing("[[step]]");
    }
    Some(suite)
}

/// What a file is called without its folder and its extension.
fn stem(file: &str) -> String {
    let stem = Path::new(file).file_stem();
    stem.map_or_else(|| file.to_owned(), |stem| stem.to_string_lossy().into())
}

fn read_hops(table: &Table<'_>) -> Vec<Hop> {
    if let Some(At {
        value: Given::Text(text),
        ..
    }) = table.given("hops")
        && text == ALL
    {
        return Hop::ALL.to_vec();
    }
    let hops = table.words("hops", &Hop::ALL, Hop::id);
    let mut hops: Vec<_> = hops.into_iter().map(|at| at.value).collect();
    hops.sort();
    hops
}

/// Binds the file's variables, or to them what the command line says; what is wrong with that.
fn read_vars(
    table: &Table<'_>,
    environment: &Environment,
    scope: &mut Scope<'_>,
) -> Option<Diagnostics> {
    let mut misset = None;
    let declared = declare(table, environment, scope, &mut misset);
    let unknown = environment.overrides().iter().find_map(|given| {
        let names = || declared.iter().map(String::as_str);
        if names().any(|name| name == given.name) {
            return None;
        }
        let message = format!("the suite has no variable `{}`", given.name.escape_debug());
        let label = match nearest(&given.name, names()) {
            _ if Environment::NAMES.contains(&given.name.as_str()) => {
                "the path file says what this is".to_owned()
            }
            Some(name) => format!("did you mean `{name}`?"),
            None if declared.is_empty() => "its `[vars]` declare none".to_owned(),
            None => {
                let names: Vec<_> = names().map(|name| format!("`{name}`")).collect();
                format!("expected one of {}", names.join(", "))
            }
        };
        Some(wrong_override(given, 0..given.name.len(), message, label))
    });
    unknown.or(misset)
}

/// What is wrong with a value from the command line, shown as it was typed.
fn wrong_override(
    given: &Override,
    span: Range<usize>,
    message: String,
    label: impl Into<String>,
) -> Diagnostics {
    let text = format!("{}={}", given.name, given.text);
    let problem = Diagnostic::new(span, message, label);
    Diagnostics::new("--set", &text, vec![problem])
}

/// Binds what `[vars]` declares, or the command line says instead; each may use the path's and those before it.
fn declare(
    table: &Table<'_>,
    environment: &Environment,
    scope: &mut Scope<'_>,
    misset: &mut Option<Diagnostics>,
) -> Vec<String> {
    let mut declared = Vec::new();
    let Some(at) = table.given("vars") else {
        return declared;
    };
    let Given::Table(entries) = at.value else {
        table.wrong_type::<()>("vars", &at);
        return declared;
    };
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let name = At::new(name.get_ref().to_string(), name.span());
        if !may_be_bound(table, &name) {
            continue;
        }
        let outer = scope.clone();
        let Some(given) = table.within(&outer).resolve(value) else {
            continue;
        };
        let Some(value) = given.value.held() else {
            let what = given.value.described();
            let message = format!("the variable `{}` is {what}", name.value);
            let problem = given.wrong(message, "expected a number, a string or a list");
            table.source.problem(problem);
            continue;
        };
        let overrides = environment.overrides().iter().rev();
        match overrides.clone().find(|given| given.name == name.value) {
            None => scope.bind(&name.value, value, Some(name.span)),
            Some(given) => match overriding(given, &outer) {
                Ok(value) => scope.bind(&name.value, value, None),
                Err(wrong) => {
                    misset.get_or_insert(wrong);
                }
            },
        }
        declared.push(name.value);
    }
    declared
}

/// The value that the command line gives a variable; it may be another's.
fn overriding(given: &Override, scope: &Scope<'_>) -> Result<Value, Diagnostics> {
    let start = given.name.len() + 1;
    let wrong = |message, label: String| {
        let end = start + given.text.len();
        wrong_override(given, start..end, message, label)
    };
    let value = given
        .value()
        .map_err(|(message, label)| wrong(message, label.to_owned()))?;
    let Value::Text(text) = &value else {
        return Ok(value);
    };
    let Some(name) = text.strip_prefix('$') else {
        return Ok(value);
    };
    if name.starts_with('$') {
        return Ok(Value::Text(name.to_owned()));
    }
    let shown = name.escape_debug();
    match scope.get(name).map(|bound| &bound.value) {
        Some(Ok(value)) => Ok(value.clone()),
        Some(Err(why)) => Err(wrong(format!("`${shown}` has no value"), (*why).to_owned())),
        None => {
            let known: Vec<_> = scope.names().map(|name| format!("`${name}`")).collect();
            let label = format!("expected one of {}", known.join(", "));
            Err(wrong(format!("unknown variable `${shown}`"), label))
        }
    }
}

/// Whether a name can be a variable's.
pub(crate) fn may_be_bound(table: &Table<'_>, at: &At<String>) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let shown = at.value.escape_debug();
    let problem = match at.value.as_str() {
        name if Environment::NAMES.contains(&name) => at.wrong(
            format!("`${shown}` is the path's"),
            "expected another name: the path file says what this is",
        ),
        name if name.is_empty() || !name.chars().all(is_word) => at.wrong(
            format!("`{shown}` is no name for a variable"),
            "expected letters, digits, `-` and `_`",
        ),
        _ => return true,
    };
    table.source.problem(problem);
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::plan::Action;
    use crate::plan::After;
    use crate::plan::Builtin;
    use crate::plan::ProbeKind;
    use crate::plan::Role;
    use crate::plan::Task;
    use crate::plan::Toward;

    fn parse(text: &str) -> Suite {
        let suite = SuiteFile::parse("probes/own.toml", text, &Environment::example());
        suite.unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn a_built_in_step_has_every_attribute() {
        let suite = parse(
            r#"
            about = "all of it"
            hops = ["client-arrival", "spoofed-source-transit"]
            [vars]
            burst = 3
            [[step]]
            id = "first"
            probe = "connect"
            [[step]]
            id = "second"
            about = "more"
            probe = "spoof-trace"
            start = "60ms"
            count = "$burst"
            interval = "1s 500ms"
            ttl = "1..3"
            size = [100, 1400]
            after = ["first"]
            with = ["realserver", "director"]
            without = "client"
            [[step]]
            id = "third"
            probe = "who-has-vip"
            at-least = 3
            after = ["first", { step = "second", if-failed = "go-on" }]
            "#,
        );
        assert_eq!(suite.name, "own");
        assert_eq!(suite.about, "all of it");
        assert_eq!(suite.hops, [Hop::SpoofedSourceTransit, Hop::ClientArrival]);
        let [first, second, third] = &suite.steps[..] else {
            panic!("{suite:?}");
        };
        assert_eq!(first.start, Duration::ZERO);
        assert_eq!(
            (first.after.as_slice(), first.with.as_slice()),
            (&[][..], &[][..])
        );
        assert_eq!(second.start, Duration::from_millis(60));
        assert_eq!(second.with, [Role::Realserver, Role::Director]);
        assert_eq!(second.without, [Role::Client]);
        let builtin = Builtin {
            flows: 8,
            toward: Toward::Client,
            task: Task::Probe(ProbeKind::SpoofTrace),
            count: Some(3),
            at_least: 1,
            interval: Duration::from_millis(1500),
            ttls: vec![1, 2, 3],
            sizes: vec![100, 1400],
        };
        assert_eq!(second.action, Action::Builtin(builtin));
        let after = |step, go_on| After { step, go_on };
        assert_eq!(second.after, [after(0, false)]);
        assert_eq!(third.after, [after(0, false), after(1, true)]);
        let Action::Builtin(Builtin {
            count, at_least, ..
        }) = third.action
        else {
            panic!("{third:?}");
        };
        assert_eq!((count, at_least), (None, 3));
    }

    #[test]
    fn all_is_every_hop() {
        let suite = parse("hops = \"all\"\nstep = [{ id = \"a\", probe = \"mtu\" }]");
        assert_eq!(suite.hops, Hop::ALL);
    }

    #[test]
    fn the_command_line_overrides_what_the_file_declares() {
        let text =
            "vars = { burst = 3 }\nstep = [{ id = \"a\", probe = \"mtu\", count = \"$burst\" }]";
        let with = |given: &str| {
            let environment = Environment::example().with([given.parse().unwrap()]);
            SuiteFile::parse("own.toml", text, &environment)
        };
        let suite = with("burst=7").unwrap();
        let Action::Builtin(Builtin { count, .. }) = suite.steps[0].action else {
            panic!("{suite:?}");
        };
        assert_eq!(count, Some(7));
        let shown = with("brust=7").unwrap_err().to_string();
        assert!(shown.contains("did you mean `burst`?"), "{shown}");
        assert!(shown.contains("--set:1:1"), "{shown}");
        let shown = with("vip=192.0.2.1").unwrap_err().to_string();
        assert!(shown.contains("the path file says what this is"), "{shown}");
        let shown = with("burst=0").unwrap_err().to_string();
        assert!(shown.contains("own.toml:2:"), "{shown}");
        assert!(shown.contains("`$burst` is 0 here"), "{shown}");
    }
}
