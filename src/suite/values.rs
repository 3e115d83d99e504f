//! The values of keys: what a kind takes, and what is wrong with what it does not take.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::suite::Diagnostic;
use crate::suite::nearest;
use crate::suite::reader::At;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::alternatives;
use crate::suite::shape::flags_between;
use crate::wire::Mac;

impl<'a> Table<'a> {
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
            Given::Other(_, Some(truth)) => Some(at.with(truth)),
            _ => self.wrong_type(key, &at),
        }
    }

    /// A number in the limits of the key.
    pub(crate) fn number(&self, key: &str) -> Option<At<u64>> {
        let at = self.given(key)?;
        let number = self.number_of(key, self.shape.kind(key), &at)?;
        Some(at.with(number))
    }

    /// The number that a value stands for, in the limits of a kind: names, flags and addresses, too.
    pub(crate) fn number_of(&self, key: &str, kind: &Kind, at: &At<Given<'_>>) -> Option<u64> {
        let found = match (&at.value, kind) {
            (Given::Integer(number), Kind::Number(low, high)) => {
                return Some(self.limited(key, &at.with(*number), *low, *high)?.value);
            }
            (Given::Integer(number), Kind::Named(high, _)) => {
                return Some(self.limited(key, &at.with(*number), 0, *high)?.value);
            }
            (Given::Integer(number), Kind::Flags(names)) => {
                let high = (1 << names.len()) - 1;
                return Some(self.limited(key, &at.with(*number), 0, high)?.value);
            }
            (Given::Text(text), Kind::Named(_, names)) => names
                .iter()
                .find(|(name, _)| name == text)
                .map(|(_, number)| *number),
            (Given::Text(text), Kind::Flags(names)) => flags(text, names),
            (Given::Text(text), Kind::Address | Kind::AnyAddress) => text
                .parse::<Ipv4Addr>()
                .ok()
                .map(|address| address.to_bits().into()),
            (Given::Text(text), Kind::Mac) => mac(text)
                .map(|Mac([a, b, c, d, e, f])| u64::from_be_bytes([0, 0, a, b, c, d, e, f])),
            _ => {
                self.source.problem(at.wrong(
                    format!("`{key}` is {}", at.value.described()),
                    format!("expected {}", kind.expected()),
                ));
                return None;
            }
        };
        if found.is_none()
            && let Given::Text(text) = &at.value
        {
            self.not_understood(key, kind, &at.with(text.as_str()));
        }
        found
    }

    /// Notes that a text is nothing that a kind knows.
    fn not_understood(&self, key: &str, kind: &Kind, at: &At<&str>) {
        let names: Vec<_> = match kind {
            Kind::Named(_, names) => names.iter().map(|(name, _)| *name).collect(),
            _ => Vec::new(),
        };
        let label = match nearest(at.value, names) {
            Some(name) => format!("did you mean `\"{name}\"`?"),
            None => format!("expected {}", kind.expected()),
        };
        let message = format!("`{}` is no `{key}`", at.value.escape_debug());
        self.source.problem(at.wrong(message, label));
    }

    /// A hardware address.
    pub(crate) fn mac(&self, key: &str) -> Option<At<Mac>> {
        let at = self.given(key)?;
        let number = self.number_of(key, &Kind::Mac, &at)?;
        let [_, _, octets @ ..] = number.to_be_bytes();
        Some(at.with(Mac(octets)))
    }

    /// Octets in hex; spaces and colons may stand between them.
    pub(crate) fn hex(&self, key: &str) -> Option<At<Vec<u8>>> {
        let at = self.string(key)?;
        self.hex_of(key, &at).map(|octets| at.with(octets))
    }

    /// The octets that a text writes in hex.
    pub(crate) fn hex_of(&self, key: &str, at: &At<String>) -> Option<Vec<u8>> {
        let is_between = |c: char| c.is_ascii_whitespace() || c == ':';
        let mut digits = Vec::new();
        for (place, c) in at.value.char_indices().filter(|(_, c)| !is_between(*c)) {
            let Some(digit) = c.to_digit(16) else {
                let mut problem = at.wrong(
                    format!("`{key}` is not in hex"),
                    "expected hex digits, such as `00 01 ff`",
                );
                problem.span = self.source.inside(&at.span, &at.value, place);
                self.source.problem(problem);
                return None;
            };
            digits.push(digit as u8);
        }
        if digits.len() % 2 != 0 {
            let message = format!("`{key}` has {} hex digits", digits.len());
            let problem = at.wrong(message, "expected two for each octet");
            self.source.problem(problem);
            return None;
        }
        let octets = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]);
        Some(octets.collect())
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

/// The bits that a text names.
fn flags(text: &str, names: &[&str]) -> Option<u64> {
    let bit = |name: &str| {
        let place = names.iter().position(|known| *known == name)?;
        Some(1u64 << place)
    };
    match flags_between(names) {
        "" => text
            .chars()
            .map(|letter| bit(letter.encode_utf8(&mut [0; 4])))
            .try_fold(0, |bits, bit| Some(bits | bit?)),
        _ if text.is_empty() => Some(0),
        between => text
            .split(between)
            .map(bit)
            .try_fold(0, |bits, bit| Some(bits | bit?)),
    }
}

/// The hardware address that a text says.
fn mac(text: &str) -> Option<Mac> {
    let mut octets = [0; 6];
    let mut parts = text.split(':');
    for octet in &mut octets {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Mac(octets))
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
