//! Numbers of any notation: in decimal or hex, by name, as flags, ranges, addresses, octets.

use std::net::Ipv4Addr;

use crate::suite::nearest;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::flags_between;
use crate::suite::source::At;
use crate::wire::Mac;

impl<'a> Table<'a> {
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
            let message = format!("`{key}` has an odd number of hex digits, {}", digits.len());
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
