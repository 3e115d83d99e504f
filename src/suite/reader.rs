//! Strict reading of TOML tables: every problem is kept with its place, and reading goes on.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeString;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::suite::Diagnostic;
use crate::suite::environment::Scope;
use crate::suite::environment::Value;
use crate::suite::nearest;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::source::At;
use crate::suite::source::Source;
use crate::suite::source::Variable;

/// A value of a file, variables replaced.
#[derive(Clone, Debug)]
pub(crate) enum Given<'a> {
    /// A whole number.
    Integer(i64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<At<Given<'a>>>),
    /// A table.
    Table(&'a DeTable<'a>),
    /// `true` or `false`.
    Truth(bool),
    /// What no key holds, such as a date: what it is.
    Unheld(String),
}

impl Given<'_> {
    /// What it is, for a message.
    pub(crate) fn described(&self) -> &str {
        match self {
            Given::Integer(_) => "an integer",
            Given::Text(_) => "a string",
            Given::List(_) => "an array",
            Given::Table(_) => "a table",
            Given::Truth(_) => "a boolean",
            Given::Unheld(what) => what,
        }
    }

    /// The value, if a variable can hold it.
    pub(crate) fn held(&self) -> Option<Value> {
        match self {
            Given::Integer(number) => Some(Value::Integer(*number)),
            Given::Text(text) => Some(Value::Text(text.clone())),
            Given::List(list) => {
                let values: Option<_> = list.iter().map(|at| at.value.held()).collect();
                values.map(Value::List)
            }
            Given::Table(_) | Given::Truth(_) | Given::Unheld(_) => None,
        }
    }

    fn of_variable(value: &Value, place: &At<()>) -> Self {
        match value {
            Value::Integer(number) => Given::Integer(*number),
            Value::Text(text) => Given::Text(text.clone()),
            Value::List(list) => Given::List(
                list.iter()
                    .map(|value| place.with(Given::of_variable(value, place)))
                    .collect(),
            ),
        }
    }
}

/// A table of a file.
#[derive(Clone)]
pub(crate) struct Table<'a> {
    pub(crate) shape: &'static Shape,
    pub(crate) entries: &'a DeTable<'a>,
    pub(crate) span: Range<usize>,
    pub(crate) source: &'a Source<'a>,
    scope: Option<&'a Scope<'a>>,
}

impl<'a> Table<'a> {
    /// The table `entries` at `span`; what is wrong with its keys is noted. Without a scope `$` is a letter
    /// as any other.
    pub(crate) fn new(
        shape: &'static Shape,
        entries: &'a DeTable<'a>,
        span: Range<usize>,
        source: &'a Source<'a>,
        scope: Option<&'a Scope<'a>>,
    ) -> Table<'a> {
        let table = Table {
            shape,
            entries,
            span,
            source,
            scope,
        };
        table.check_keys();
        table
    }

    fn check_keys(&self) {
        for key in self.entries.keys() {
            let name = key.get_ref();
            match self.shape.keys.iter().find(|known| known.name == &**name) {
                None => self.source.problem(unknown_key(self.shape, key)),
                Some(known) => match known.need {
                    Need::With(other) if !self.has(other) => {
                        self.source.problem(Diagnostic::new(
                            key.span(),
                            format!("`{name}` without `{other}`"),
                            format!("it has a meaning only beside `{other}`"),
                        ));
                    }
                    _ => {}
                },
            }
        }
        for key in self.shape.keys {
            if let Need::Required(example) = key.need
                && !self.has(key.name)
            {
                self.missing(key.name, example);
            }
        }
        self.check_one_of();
    }

    fn check_one_of(&self) {
        let choices = self.shape.one_of;
        let mut found = self.entries.keys();
        let mut found: Vec<_> = found
            .by_ref()
            .filter(|key| choices.contains(&&**key.get_ref()))
            .collect();
        found.sort_by_key(|key| key.span().start);
        let names = || {
            let quoted: Vec<_> = choices.iter().map(|name| format!("`{name}`")).collect();
            quoted.join(", ")
        };
        match found.as_slice() {
            [] if !choices.is_empty() && self.only_known() => {
                self.source.problem(Diagnostic::new(
                    self.span.clone(),
                    format!("{} has none of {}", self.shape.name, names()),
                    "expected one of them",
                ));
            }
            [first, second, ..] => self.source.problem(
                Diagnostic::new(
                    second.span(),
                    format!("`{}` beside `{}`", second.get_ref(), first.get_ref()),
                    format!("expected only one of {}", names()),
                )
                .context(first.span(), "the first"),
            ),
            _ => {}
        }
    }

    /// Whether no key is a mistake, which is then the one mistake to talk of.
    fn only_known(&self) -> bool {
        self.entries
            .keys()
            .all(|key| self.shape.keys.iter().any(|k| k.name == &**key.get_ref()))
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Where the key itself stands.
    pub(crate) fn key(&self, name: &str) -> Range<usize> {
        let key = self.entries.keys().find(|key| &**key.get_ref() == name);
        key.map_or(self.span.clone(), Spanned::span)
    }

    /// Notes that `key` must be there.
    pub(crate) fn missing(&self, key: &str, example: &str) {
        self.source.problem(Diagnostic::new(
            self.span.clone(),
            format!("{} has no `{key}`", self.shape.name),
            format!("expected `{key} = {example}`"),
        ));
    }

    /// The value of a key, as it is.
    pub(crate) fn given(&self, key: &str) -> Option<At<Given<'a>>> {
        self.resolve(self.entries.get(key)?)
    }

    /// A value, variables replaced.
    pub(crate) fn resolve(&self, value: &'a Spanned<DeValue<'a>>) -> Option<At<Given<'a>>> {
        let at = |given| At::new(given, value.span());
        Some(at(match value.get_ref() {
            DeValue::String(text) => match (self.scope, text.strip_prefix('$')) {
                (Some(_), Some(literal)) if literal.starts_with('$') => {
                    Given::Text(literal.to_owned())
                }
                (Some(scope), Some(name)) => return self.variable(scope, name, value.span()),
                _ => Given::Text(text.to_string()),
            },
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(number) => Given::Integer(number),
                    Err(_) => Given::Unheld("an integer of more than 64 bits".to_owned()),
                }
            }
            DeValue::Array(array) => {
                Given::List(array.iter().filter_map(|v| self.resolve(v)).collect())
            }
            DeValue::Table(table) => Given::Table(table),
            DeValue::Boolean(truth) => Given::Truth(*truth),
            other => Given::Unheld(described(other)),
        }))
    }

    fn variable(&self, scope: &Scope<'_>, name: &str, span: Range<usize>) -> Option<At<Given<'a>>> {
        let shown = name.escape_debug();
        let Some(bound) = scope.get(name) else {
            let label = match nearest(name, scope.names()) {
                Some(known) => format!("did you mean `${known}`?"),
                None => {
                    let known: Vec<_> = scope.names().map(|name| format!("`${name}`")).collect();
                    format!("expected one of {}", known.join(", "))
                }
            };
            self.source.problem(
                Diagnostic::new(span, format!("unknown variable `${shown}`"), label)
                    .hint("write `$$` for a string that begins with a dollar sign"),
            );
            return None;
        };
        match &bound.value {
            Err(why) => {
                let message = format!("`${shown}` has no value");
                self.source.problem(Diagnostic::new(span, message, *why));
                None
            }
            Ok(value) => {
                let place = At {
                    value: (),
                    span,
                    variable: Some(Variable {
                        name: name.to_owned(),
                        shown: value.to_string().escape_debug().to_string(),
                        place: bound.place.clone(),
                    }),
                };
                Some(place.with(Given::of_variable(value, &place)))
            }
        }
    }

    /// Notes that a value of `key` is of the wrong type.
    pub(crate) fn wrong_type<T>(&self, key: &str, at: &At<Given<'_>>) -> Option<T> {
        let kind = self.shape.kind(key);
        self.source.problem(at.wrong(
            format!("`{key}` is {}", at.value.described()),
            format!("expected {}", kind.expected()),
        ));
        None
    }

    /// The elements of a list; a single value is a list of one.
    pub(crate) fn list(&self, key: &str) -> Vec<At<Given<'a>>> {
        match self.given(key) {
            None => Vec::new(),
            Some(At {
                value: Given::List(list),
                ..
            }) => list,
            Some(other) => vec![other],
        }
    }

    /// A table in this one, in another scope or in the same.
    pub(crate) fn table(&self, key: &str) -> Option<Table<'a>> {
        let at = self.given(key)?;
        let (Given::Table(entries), Kind::Table(shape)) = (&at.value, self.shape.kind(key)) else {
            return self.wrong_type(key, &at);
        };
        Some(self.sub(shape, entries, at.span))
    }

    /// A list of tables in this one.
    pub(crate) fn tables(&self, key: &str) -> Vec<Table<'a>> {
        let Some(at) = self.given(key) else {
            return Vec::new();
        };
        let (Given::List(list), Kind::List(Kind::Table(shape))) = (&at.value, self.shape.kind(key))
        else {
            self.wrong_type::<()>(key, &at);
            return Vec::new();
        };
        let tables = list.iter().filter_map(|element| match element.value {
            Given::Table(entries) => Some(self.sub(shape, entries, element.span.clone())),
            _ => {
                let message = format!("{} is {}", shape.name, element.value.described());
                self.source
                    .problem(element.wrong(message, "expected a table"));
                None
            }
        });
        tables.collect()
    }

    /// A table in this one, of this shape.
    pub(crate) fn sub(
        &self,
        shape: &'static Shape,
        entries: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Table<'a> {
        Table::new(shape, entries, span, self.source, self.scope)
    }

    /// The same table where other variables hold.
    pub(crate) fn within<'b>(&self, scope: &'b Scope<'b>) -> Table<'b>
    where
        'a: 'b,
    {
        Table {
            shape: self.shape,
            entries: self.entries,
            span: self.span.clone(),
            source: self.source,
            scope: Some(scope),
        }
    }
}

fn unknown_key(shape: &Shape, key: &Spanned<DeString<'_>>) -> Diagnostic {
    let name = key.get_ref();
    let known = || shape.keys.iter().map(|key| key.name);
    let label = match nearest(name, known()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => {
            let known: Vec<_> = known().map(|key| format!("`{key}`")).collect();
            format!("expected one of {}", known.join(", "))
        }
    };
    let message = format!("unknown key `{}` in {}", name.escape_debug(), shape.name);
    Diagnostic::new(key.span(), message, label)
}

/// What a value is, for a message.
pub(crate) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) => "an integer".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}
