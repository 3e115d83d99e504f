//! Strict reading of a TOML table: every problem is kept with its place, and reading goes on.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeString;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::suite::Diagnostic;
use crate::suite::nearest;

/// A value and where it stands, in octets of the source.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// A table, and what is wrong with it so far.
pub(crate) struct Table<'a> {
    name: &'static str,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    source: &'a str,
    problems: Vec<Diagnostic>,
}

impl<'a> Table<'a> {
    /// The table `name` at `span`, which may have the keys `known` and no other.
    pub(crate) fn new(
        name: &'static str,
        known: &[&'static str],
        entries: &'a DeTable<'a>,
        span: Range<usize>,
        source: &'a str,
    ) -> Table<'a> {
        let problems = entries
            .keys()
            .filter(|key| !known.contains(&&**key.get_ref()))
            .map(|key| unknown_key(name, key, known))
            .collect();
        Table {
            name,
            entries,
            span,
            source,
            problems,
        }
    }

    /// What is wrong.
    pub(crate) fn into_problems(self) -> Vec<Diagnostic> {
        self.problems
    }

    /// Notes a problem.
    pub(crate) fn problem(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    /// A key that must be there; that it is not is a problem.
    pub(crate) fn must<T>(
        &mut self,
        key: &str,
        example: &str,
        value: Option<At<T>>,
    ) -> Option<At<T>> {
        if !self.entries.contains_key(key) {
            let (name, span) = (self.name, self.span.clone());
            self.problem(Diagnostic::new(
                span,
                format!("`{name}` has no `{key}`"),
                format!("expected `{key} = {example}`"),
            ));
        }
        value
    }

    /// A string.
    pub(crate) fn string(&mut self, key: &str) -> Option<At<String>> {
        let value = self.entries.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(key, value, "a string");
            return None;
        };
        Some(At {
            value: text.to_owned(),
            span: value.span(),
        })
    }

    /// An IPv4 address that one host can have.
    pub(crate) fn address(&mut self, key: &str) -> Option<At<Ipv4Addr>> {
        let At { value: text, span } = self.string(key)?;
        match address(&text) {
            Ok(value) => Some(At { value, span }),
            Err((message, label)) => {
                self.problem(Diagnostic::new(span, message, label));
                None
            }
        }
    }

    /// A port.
    pub(crate) fn port(&mut self, key: &str) -> Option<At<u16>> {
        let value = self.entries.get(key)?;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a port from 1 to 65535, without quotes");
            return None;
        };
        let port = u16::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|port| *port != 0);
        let span = value.span();
        if port.is_none() {
            self.problem(Diagnostic::new(
                span.clone(),
                format!("`{integer}` is no port"),
                "expected 1 to 65535",
            ));
        }
        Some(At { value: port?, span })
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let At { value: text, span } = self.string(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let expected: Vec<_> = words
                .iter()
                .map(|(word, _)| format!("`\"{word}\"`"))
                .collect();
            self.problem(Diagnostic::new(
                span.clone(),
                format!("unknown {key} `{text}`"),
                format!("expected {}", expected.join(" or ")),
            ));
        }
        Some(At {
            value: found?.1,
            span,
        })
    }

    /// A network device's name (`dev_valid_name` in `net/core/dev.c`).
    pub(crate) fn device(&mut self, key: &str) -> Option<String> {
        let At { value, span } = self.string(key)?;
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
            None => Some(value),
            Some(label) => {
                self.problem(Diagnostic::new(
                    span,
                    format!("`{}` is no device name", value.escape_debug()),
                    label,
                ));
                None
            }
        }
    }

    /// A command, split as a shell splits words, without a shell.
    pub(crate) fn command(&mut self, key: &str) -> Option<Vec<String>> {
        let At { value: text, span } = self.string(key)?;
        match shlex::split(&text) {
            Some(words) if !words.is_empty() => Some(words),
            Some(_) => {
                self.problem(
                    Diagnostic::new(span, format!("`{key}` is empty"), "expected a command")
                        .hint("a host that tunproof cannot run on has no `via` at all"),
                );
                None
            }
            None => {
                let (at, what) = unbalanced(&text);
                let span = self.inside(&span, &text, at);
                self.problem(Diagnostic::new(
                    span,
                    format!("`{key}` cannot be split into words"),
                    what,
                ));
                None
            }
        }
    }

    /// The place of the octet `at` of a string; the whole string where escapes move it.
    fn inside(&self, span: &Range<usize>, text: &str, at: usize) -> Range<usize> {
        match self.source.get(span.start + 1..span.end.saturating_sub(1)) {
            Some(raw) if raw == text => span.start + 1 + at..span.start + 2 + at,
            _ => span.clone(),
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        self.problem(Diagnostic::new(
            value.span(),
            format!("`{key}` is {}", described(value.get_ref())),
            format!("expected {expected}"),
        ));
    }
}

fn unknown_key(table: &str, key: &Spanned<DeString<'_>>, known: &[&'static str]) -> Diagnostic {
    let name = key.get_ref();
    let label = match nearest(name, known.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => {
            let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
            format!("expected one of {}", known.join(", "))
        }
    };
    Diagnostic::new(
        key.span(),
        format!("unknown key `{}` in {table}", name.escape_debug()),
        label,
    )
}

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
