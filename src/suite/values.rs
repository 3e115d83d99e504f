//! The values of keys: what a kind takes, and what is wrong with what it does not take.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::suite::Diagnostic;
use crate::suite::nearest;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::alternatives;
use crate::suite::source::At;

impl Table<'_> {
    /// A string.
    pub(crate) fn string(&self, key: &str) -> Option<At<String>> {
        let at = self.given(key)?;
        match &at.value {
            Given::Text(text) => Some(at.with(text.clone())),
            // `--set octets=10` may mean the digits.
            Given::Integer(number) if at.is_set() => Some(at.with(number.to_string())),
            _ => self.wrong_type(key, &at),
        }
    }

    /// One line of text.
    pub(crate) fn line(&self, key: &str) -> Option<At<String>> {
        let at = self.string(key)?;
        if let Some((place, _)) = at.value.char_indices().find(|(_, c)| c.is_control()) {
            let message = format!("`{key}` has control characters");
            let mut problem = at.wrong(message, "expected one line of text");
            problem.span = self.source.inside(&at.span, &at.value, place);
            self.source.problem(problem);
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
            Given::Truth(truth) => Some(at.with(truth)),
            _ => self.wrong_type(key, &at),
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
