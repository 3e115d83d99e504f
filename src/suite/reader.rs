//! Strict reading of TOML tables: every problem is kept with its place, and reading goes on.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeString;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::suite::Diagnostic;
use crate::suite::Diagnostics;
use crate::suite::environment::Scope;
use crate::suite::environment::Value;
use crate::suite::nearest;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::alternatives;

/// A value and where it stands, in octets of the source.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
    /// The variable that it came from.
    pub(crate) variable: Option<Variable>,
}

/// A variable that stood in the place of a value.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    name: String,
    shown: String,
    place: Option<Range<usize>>,
}

impl<T> At<T> {
    /// A value that stands in the file itself.
    pub(crate) fn new(value: T, span: Range<usize>) -> At<T> {
        At {
            value,
            span,
            variable: None,
        }
    }

    /// The same place with another value.
    pub(crate) fn with<U>(&self, value: U) -> At<U> {
        At {
            value,
            span: self.span.clone(),
            variable: self.variable.clone(),
        }
    }

    /// What is wrong with it.
    pub(crate) fn wrong(&self, message: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        let problem = Diagnostic::new(self.span.clone(), message, label);
        match &self.variable {
            None => problem,
            Some(Variable {
                name,
                shown,
                place: None,
            }) => problem.hint(format!("`${name}` is {shown} here")),
            Some(Variable {
                name,
                place: Some(place),
                ..
            }) => problem.context(place.clone(), format!("`${name}` comes from here")),
        }
    }
}

/// A file's text, and what is wrong with it so far.
pub(crate) struct Source<'a> {
    text: &'a str,
    problems: RefCell<Vec<Diagnostic>>,
}

impl<'a> Source<'a> {
    /// What `read` makes of `text`, which is called `file`; a text that is no TOML is not read.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(crate) fn parse<T>(
        file: &str,
        text: &str,
        read: impl FnOnce(&DeTable<'_>, &Source<'_>) -> Option<T>,
    ) -> Result<T, Diagnostics> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let problems = errors.iter().map(|error| {
            let span = error.span().unwrap_or(0..0);
            Diagnostic::new(span, error.message().replace('\n', ", "), "")
        });
        let source = Source {
            text,
            problems: RefCell::new(problems.collect()),
        };
        let value = match source.is_clean() {
            true => read(table.get_ref(), &source),
            false => None,
        };
        let problems = source.problems.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(Diagnostics::new(file, text, problems)),
        }
    }

    /// Notes a problem.
    pub(crate) fn problem(&self, problem: Diagnostic) {
        self.problems.borrow_mut().push(problem);
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Notes that something is missing from the file as a whole.
    pub(crate) fn missing(&self, header: &str) {
        let end = self.text.trim_end().len();
        self.problem(Diagnostic::new(
            end..end,
            format!("there is no `{header}`"),
            "expected before the end",
        ));
    }

    /// The place of the octet `at` of a string; the whole string where escapes move it.
    pub(crate) fn inside(&self, span: &Range<usize>, text: &str, at: usize) -> Range<usize> {
        match self.text.get(span.start + 1..span.end.saturating_sub(1)) {
            Some(raw) if raw == text && text.is_char_boundary(at) => {
                let length = text[at..].chars().next().map_or(1, char::len_utf8);
                span.start + 1 + at..span.start + 1 + at + length
            }
            _ => span.clone(),
        }
    }
}

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
    /// Something else: what it is, and whether it is true.
    Other(String, Option<bool>),
}

impl Given<'_> {
    /// What it is, for a message.
    pub(crate) fn described(&self) -> &str {
        match self {
            Given::Integer(_) => "an integer",
            Given::Text(_) => "a string",
            Given::List(_) => "an array",
            Given::Table(_) => "a table",
            Given::Other(what, _) => what,
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
                    Err(_) => Given::Other("an integer of more than 64 bits".to_owned(), None),
                }
            }
            DeValue::Array(array) => {
                Given::List(array.iter().filter_map(|v| self.resolve(v)).collect())
            }
            DeValue::Table(table) => Given::Table(table),
            DeValue::Boolean(truth) => Given::Other("a boolean".to_owned(), Some(*truth)),
            other => Given::Other(described(other), None),
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

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Option<At<String>> {
        let at = self.given(key)?;
        match &at.value {
            Given::Text(text) => Some(at.with(text.clone())),
            _ => self.wrong_type(key, &at),
        }
    }

    /// One line of text.
    pub(crate) fn line(&self, key: &str) -> Option<At<String>> {
        let at = self.string(key)?;
        if let Some((place, _)) = at.value.char_indices().find(|(_, c)| c.is_control()) {
            self.source.problem(Diagnostic::new(
                self.source.inside(&at.span, &at.value, place),
                format!("`{key}` has control characters"),
                "expected one line of text",
            ));
            return None;
        }
        Some(at)
    }

    /// A name of letters, digits, `-`, `_` and `.`.
    pub(crate) fn name(&self, key: &str) -> Option<At<String>> {
        let at = self.string(key)?;
        self.check_name(key, &at).then_some(at)
    }

    /// Whether a text can be the name of something.
    pub(crate) fn check_name(&self, what: &str, at: &At<String>) -> bool {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let label = match at.value.as_str() {
            "" => "expected a name",
            name if name.len() > 64 => "expected 64 characters at most",
            name if !name.chars().all(fits) => "expected letters, digits, `-`, `_` and `.` only",
            _ => return true,
        };
        let shown = at.value.escape_debug();
        self.source
            .problem(at.wrong(format!("`{shown}` is no name for `{what}`"), label));
        false
    }

    /// `true` or `false`.
    pub(crate) fn truth(&self, key: &str) -> Option<At<bool>> {
        let at = self.given(key)?;
        match at.value {
            Given::Other(_, Some(truth)) => Some(at.with(truth)),
            _ => self.wrong_type(key, &at),
        }
    }

    /// A number in the limits of the key.
    pub(crate) fn number(&self, key: &str) -> Option<At<u64>> {
        let at = self.given(key)?;
        match (at.value.clone(), self.shape.kind(key)) {
            (Given::Integer(number), Kind::Number(low, high) | Kind::Flags(low, high, _)) => {
                self.limited(key, &at.with(number), *low, *high)
            }
            _ => self.wrong_type(key, &at),
        }
    }

    /// A number between two, both included.
    pub(crate) fn limited(&self, key: &str, at: &At<i64>, low: u64, high: u64) -> Option<At<u64>> {
        let number = u64::try_from(at.value).ok();
        let number = number.filter(|number| (low..=high).contains(number));
        if number.is_none() {
            let is_port = (low, high) == (1, 65535) && key.ends_with("port");
            let message = match is_port {
                true => format!("`{}` is no port", at.value),
                false => format!("`{key}` cannot be {}", at.value),
            };
            let bits = (high + 1).trailing_zeros();
            let label = match low {
                0 if high.count_ones() == bits && bits > 1 => {
                    format!("expected 0 to {high}: the field has {bits} bits")
                }
                _ => format!("expected {low} to {high}"),
            };
            self.source.problem(at.wrong(message, label));
        }
        Some(at.with(number?))
    }

    /// A number, a list of them, or a range such as `1..12`, in the limits of the key.
    pub(crate) fn numbers(&self, key: &str) -> Option<Vec<At<u64>>> {
        let at = self.given(key)?;
        let Kind::Numbers(low, high) = *self.shape.kind(key) else {
            return self.wrong_type(key, &at);
        };
        let values = self.expand(key, at)?;
        let numbers = values.iter().map(|at| match at.value {
            Given::Integer(number) => self.limited(key, &at.with(number), low, high),
            _ => self.wrong_type(key, at),
        });
        // Every wrong one is noted.
        let numbers: Vec<_> = numbers.collect();
        numbers.into_iter().collect()
    }

    /// A list as its elements, a range as its numbers, anything else as the only one.
    pub(crate) fn expand(&self, key: &str, at: At<Given<'a>>) -> Option<Vec<At<Given<'a>>>> {
        match &at.value {
            Given::List(list) if list.is_empty() => {
                let message = format!("`{key}` is empty");
                let problem = at.wrong(message, "expected one value at least");
                self.source.problem(problem);
                None
            }
            Given::List(list) => Some(list.clone()),
            Given::Text(text) => match range(text) {
                None => Some(vec![at]),
                Some(Ok((first, last))) => {
                    let numbers = (first..=last).map(|number| at.with(Given::Integer(number)));
                    Some(numbers.collect())
                }
                Some(Err(label)) => {
                    let shown = text.escape_debug();
                    self.source
                        .problem(at.wrong(format!("`{shown}` is no range"), label));
                    None
                }
            },
            _ => Some(vec![at]),
        }
    }

    /// A duration of no more than the key's limit.
    pub(crate) fn duration(&self, key: &str) -> Option<At<Duration>> {
        let at = self.string(key)?;
        let Kind::Duration(limit) = *self.shape.kind(key) else {
            panic!("`{key}` is no duration");
        };
        let shown = at.value.escape_debug();
        match humantime::parse_duration(&at.value) {
            Ok(duration) if duration <= Duration::from_secs(limit) => Some(at.with(duration)),
            Ok(_) => {
                let limit = humantime::format_duration(Duration::from_secs(limit));
                let message = format!("`{key}` is {shown}");
                let problem = at.wrong(message, format!("expected {limit} at most"));
                self.source.problem(problem);
                None
            }
            Err(error) => {
                let message = format!("`{shown}` is no duration: {error}");
                let problem = at.wrong(message, "expected a number and a unit, such as `100ms`");
                self.source.problem(problem);
                None
            }
        }
    }

    /// An IPv4 address that one host can have.
    pub(crate) fn address(&self, key: &str) -> Option<At<Ipv4Addr>> {
        let at = self.string(key)?;
        match address(&at.value) {
            Ok(value) => Some(at.with(value)),
            Err((message, label)) => {
                self.source.problem(at.wrong(message, label));
                None
            }
        }
    }

    /// One of `all`, by its name.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &str,
        all: &[T],
        id: impl Fn(T) -> &'static str,
    ) -> Option<At<T>> {
        let at = self.string(key)?;
        self.one_of(key, at, all, id)
    }

    /// Which of `all` a text names.
    pub(crate) fn one_of<T: Copy>(
        &self,
        key: &str,
        at: At<String>,
        all: &[T],
        id: impl Fn(T) -> &'static str,
    ) -> Option<At<T>> {
        if let Some(found) = all.iter().find(|one| id(**one) == at.value) {
            return Some(at.with(*found));
        }
        let names: Vec<_> = all.iter().map(|one| id(*one)).collect();
        let expected = format!("expected {}", alternatives(&names));
        let message = format!("unknown {key} `{}`", at.value.escape_debug());
        let problem = match nearest(&at.value, names) {
            Some(name) => at.wrong(message, format!("did you mean `\"{name}\"`?")),
            None => at.wrong(message, expected),
        };
        self.source.problem(problem);
        None
    }

    /// Some of `all`, by their names, none of them twice; a single one may stand without brackets.
    pub(crate) fn words<T: Copy + PartialEq>(
        &self,
        key: &str,
        all: &[T],
        id: impl Fn(T) -> &'static str,
    ) -> Vec<At<T>> {
        let mut found: Vec<At<T>> = Vec::new();
        for at in self.list(key) {
            let Given::Text(text) = &at.value else {
                self.wrong_type::<()>(key, &at);
                continue;
            };
            let Some(word) = self.one_of(key, at.with(text.clone()), all, &id) else {
                continue;
            };
            match found.iter().find(|earlier| earlier.value == word.value) {
                None => found.push(word),
                Some(earlier) => {
                    let message = format!("`{text}` stands twice in `{key}`");
                    let problem = word.wrong(message, "expected once");
                    let problem = problem.context(earlier.span.clone(), "the first");
                    self.source.problem(problem);
                }
            }
        }
        found
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

    /// A network device's name (`dev_valid_name` in `net/core/dev.c`).
    pub(crate) fn device(&self, key: &str) -> Option<String> {
        let at = self.string(key)?;
        let value = &at.value;
        let wrong = match value.as_str() {
            "" | "." | ".." => Some("expected a device name such as `eth0`"),
            name if name.len() > 15 => Some("a device name has at most 15 octets"),
            name if name.contains(|c: char| {
                c == '/' || c == ':' || c.is_whitespace() || c.is_control()
            }) =>
            {
                Some("a device name has no `/`, `:` or space")
            }
            _ => None,
        };
        match wrong {
            None => Some(value.clone()),
            Some(label) => {
                let message = format!("`{}` is no device name", value.escape_debug());
                self.source.problem(at.wrong(message, label));
                None
            }
        }
    }

    /// A command, split as a shell splits words, without a shell.
    pub(crate) fn command(&self, key: &str) -> Option<Vec<String>> {
        let At {
            value: text, span, ..
        } = self.string(key)?;
        match shlex::split(&text) {
            Some(words) if !words.is_empty() => Some(words),
            Some(_) => {
                self.source.problem(
                    Diagnostic::new(span, format!("`{key}` is empty"), "expected a command")
                        .hint("a host that tunproof cannot run on has no `via` at all"),
                );
                None
            }
            None => {
                let (at, what) = unbalanced(&text);
                let span = self.source.inside(&span, &text, at);
                self.source.problem(Diagnostic::new(
                    span,
                    format!("`{key}` cannot be split into words"),
                    what,
                ));
                None
            }
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

/// The ends of a range such as `1..12`; `None` is no range at all.
fn range(text: &str) -> Option<Result<(i64, i64), &'static str>> {
    let (first, last) = text.split_once("..")?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
        digits.then(|| text.parse::<i64>().ok()).flatten()
    };
    Some(match (number(first), number(last)) {
        (Some(first), Some(last)) if last < first => Err("expected the smaller number first"),
        (Some(first), Some(last)) if last - first >= LONGEST_RANGE => {
            Err("expected 65536 numbers at most")
        }
        (Some(first), Some(last)) => Ok((first, last)),
        _ => Err("expected two numbers, such as `1..12`"),
    })
}

/// How many numbers a range can have.
const LONGEST_RANGE: i64 = 65536;

/// What a value is, for a message.
pub(crate) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::Integer(_) => "an integer".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        other => format!("a {}", other.type_str()),
    }
}

/// The address that `text` says, or what is wrong with it and what was expected.
pub fn address(text: &str) -> Result<Ipv4Addr, (String, String)> {
    let shown = text.escape_debug();
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err((
            format!("`{shown}` is an IPv6 address"),
            "tunproof knows IPv4 only".to_owned(),
        ));
    }
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        let label = match text.split_once('/') {
            Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
                format!("expected the address alone: `{address}`")
            }
            _ => {
                "expected an IPv4 address such as `192.0.2.10`; names are not looked up".to_owned()
            }
        };
        return Err((format!("`{shown}` is no IPv4 address"), label));
    };
    let kind = match address.octets() {
        [0, ..] => "is no host's address",
        [127, ..] => "is a loopback address",
        [224..=239, ..] => "is a multicast address",
        [255, 255, 255, 255] => "is the broadcast address",
        [240..=255, ..] => "is a reserved address",
        _ => return Ok(address),
    };
    Err((
        format!("`{address}` {kind}"),
        "expected a unicast address".to_owned(),
    ))
}

/// The place in `text` where a quote is opened and not closed, or a backslash ends it.
fn unbalanced(text: &str) -> (usize, &'static str) {
    let mut open = None;
    let mut octets = text.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match (octet, open) {
            (b'\\', None | Some((_, b'"'))) => {
                let Some(_escaped) = octets.next() else {
                    return (at, "nothing follows this backslash");
                };
            }
            (b'\'' | b'"', None) => open = Some((at, octet)),
            (quote, Some((_, opened))) if quote == opened => open = None,
            _ => {}
        }
    }
    (open.map_or(0, |(at, _)| at), "this quote is never closed")
}
