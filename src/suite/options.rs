//! Options of IPv4 and TCP headers: in hex, or a list in which each is a name, or a list of a name and what
//! it holds.

use std::net::Ipv4Addr;

use crate::suite::environment::Scope;
use crate::suite::layer;
use crate::suite::nearest;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::alternatives;
use crate::suite::source::At;

/// Options of an IPv4 header.
pub(crate) const IPV4: Kind = Kind::Either(&[
    Kind::Hex,
    Kind::List(&Kind::Special(
        "a name, or a list of a name and what it holds, such as `[\"rr\", 3]`",
        "^(eol|nop|rr|timestamp|router-alert)$",
    )),
]);

/// Options of a TCP header.
pub(crate) const TCP: Kind = Kind::Either(&[
    Kind::Hex,
    Kind::List(&Kind::Special(
        "a name, or a list of a name and what it holds, such as `[\"mss\", 1460]`",
        "^(eol|nop|sackok)$",
    )),
]);

/// What an option holds.
#[derive(Clone, Copy)]
enum Holds {
    /// Nothing, not even a length (RFC 791 and RFC 9293).
    Nothing,
    /// A length, and octets that are always the same.
    Fixed(&'static [u8]),
    /// Numbers of so many octets each.
    Numbers(&'static [usize]),
    /// Any number of pairs of 32-bit numbers.
    Blocks,
    /// A pointer to the first of so many free slots of 4 octets, or as many as fit, behind so many octets.
    Slots(u8),
    /// A pointer to the first of some addresses.
    Route,
}

const IPV4_OPTIONS: &[(&str, u8, Holds)] = &[
    ("eol", 0, Holds::Nothing),
    ("nop", 1, Holds::Nothing),
    ("rr", 7, Holds::Slots(3)),
    ("timestamp", 68, Holds::Slots(4)),
    ("lsrr", 131, Holds::Route),
    ("ssrr", 137, Holds::Route),
    ("router-alert", 148, Holds::Fixed(&[0, 0])),
];

const TCP_OPTIONS: &[(&str, u8, Holds)] = &[
    ("eol", 0, Holds::Nothing),
    ("nop", 1, Holds::Nothing),
    ("mss", 2, Holds::Numbers(&[2])),
    ("wscale", 3, Holds::Numbers(&[1])),
    ("sackok", 4, Holds::Fixed(&[])),
    ("sack", 5, Holds::Blocks),
    ("timestamp", 8, Holds::Numbers(&[4, 4])),
];

/// How many octets of options a header has room for.
const ROOM: usize = 40;

/// The options of an IPv4 header.
pub(crate) fn ipv4(table: &Table<'_>, at: &At<Given<'_>>, scope: &Scope<'_>) -> Option<Vec<u8>> {
    let reader = Reader {
        table,
        known: IPV4_OPTIONS,
        scope: Some(scope),
    };
    reader.read(at)
}

/// The options of a TCP header.
pub(crate) fn tcp(table: &Table<'_>, at: &At<Given<'_>>) -> Option<Vec<u8>> {
    let reader = Reader {
        table,
        known: TCP_OPTIONS,
        scope: None,
    };
    reader.read(at)
}

struct Reader<'a> {
    table: &'a Table<'a>,
    known: &'static [(&'static str, u8, Holds)],
    scope: Option<&'a Scope<'a>>,
}

impl Reader<'_> {
    fn read(&self, at: &At<Given<'_>>) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        match &at.value {
            Given::Text(text) => octets = self.table.hex_of("options", &at.with(text.clone()))?,
            Given::List(list) => {
                for option in list {
                    self.option(option, &mut octets)?;
                }
            }
            _ => return self.table.wrong_type("options", at),
        }
        if octets.len() > ROOM {
            let message = format!("{} octets of options", octets.len());
            let problem = at.wrong(message, format!("a header has room for {ROOM}"));
            self.table.source.problem(problem);
            return None;
        }
        Some(octets)
    }

    fn option(&self, at: &At<Given<'_>>, octets: &mut Vec<u8>) -> Option<()> {
        let (first, rest) = match &at.value {
            Given::List(list) if !list.is_empty() => (&list[0], &list[1..]),
            Given::List(_) => {
                return self.fail(at, "an option is an empty list", "expected its name".into());
            }
            _ => (at, &[][..]),
        };
        let name = match &first.value {
            Given::Text(name) => name,
            Given::Integer(_) => return self.numbered(first, rest, octets),
            other => {
                let message = format!("an option is {}", other.described());
                return self.fail(first, &message, "expected its name or its number".into());
            }
        };
        let Some((_, kind, holds)) = self.known.iter().find(|(known, ..)| known == name) else {
            let names: Vec<_> = self.known.iter().map(|(name, ..)| *name).collect();
            let label = match nearest(name, names.iter().copied()) {
                Some(known) => format!("did you mean `\"{known}\"`?"),
                None => format!("expected {}, or a number", alternatives(&names)),
            };
            let message = format!("unknown option `{}`", name.escape_debug());
            return self.fail(first, &message, label);
        };
        if let Holds::Nothing = holds {
            self.no_more(name, rest)?;
            octets.push(*kind);
            return Some(());
        }
        let content = self.content(first, name, *holds, rest)?;
        self.push(at, *kind, &content, octets)
    }

    /// An option by its number, with what it holds in hex.
    fn numbered(
        &self,
        first: &At<Given<'_>>,
        rest: &[At<Given<'_>>],
        octets: &mut Vec<u8>,
    ) -> Option<()> {
        let kind = self
            .table
            .number_of("options", &Kind::Number(0, 255), first)? as u8;
        if kind <= 1 {
            self.no_more(&kind.to_string(), rest)?;
            octets.push(kind);
            return Some(());
        }
        let content = match rest {
            [] => Vec::new(),
            [at] => match &at.value {
                Given::Text(text) => self.table.hex_of("options", &at.with(text.clone()))?,
                other => {
                    let message = format!("what option {kind} holds is {}", other.described());
                    return self.fail(at, &message, "expected octets in hex".into());
                }
            },
            [_, more, ..] => {
                let message = format!("option {kind} holds more than one thing");
                return self.fail(more, &message, "expected octets in hex, once".into());
            }
        };
        self.push(first, kind, &content, octets)
    }

    fn push(
        &self,
        at: &At<Given<'_>>,
        kind: u8,
        content: &[u8],
        octets: &mut Vec<u8>,
    ) -> Option<()> {
        let Ok(length) = u8::try_from(content.len() + 2) else {
            let message = format!("an option of {} octets", content.len() + 2);
            return self.fail(at, &message, format!("a header has room for {ROOM}"));
        };
        octets.extend([kind, length]);
        octets.extend(content);
        Some(())
    }

    fn content(
        &self,
        first: &At<Given<'_>>,
        name: &str,
        holds: Holds,
        rest: &[At<Given<'_>>],
    ) -> Option<Vec<u8>> {
        match holds {
            Holds::Nothing => Some(Vec::new()),
            Holds::Fixed(content) => {
                self.no_more(name, rest)?;
                Some(content.to_vec())
            }
            Holds::Numbers(widths) => self.numbers(first, name, widths, rest),
            Holds::Blocks => self.numbers(first, name, &vec![4; rest.len()], rest),
            Holds::Slots(before) => {
                let most = (ROOM - usize::from(before)) / 4;
                let slots = match rest {
                    [] => most as u64,
                    [at] => self
                        .table
                        .number_of(name, &Kind::Number(0, most as u64), at)?,
                    [_, more, ..] => {
                        let message = format!("`{name}` holds more than one thing");
                        return self.fail(more, &message, "expected how many slots, once".into());
                    }
                };
                // The pointer counts from the option's own first octet, from 1.
                let mut content = vec![before + 1];
                content.resize(usize::from(before) - 2 + 4 * slots as usize, 0);
                Some(content)
            }
            Holds::Route => {
                let mut content = vec![4];
                for at in rest {
                    content.extend(self.address(at)?.octets());
                }
                Some(content)
            }
        }
    }

    fn numbers(
        &self,
        first: &At<Given<'_>>,
        name: &str,
        widths: &[usize],
        rest: &[At<Given<'_>>],
    ) -> Option<Vec<u8>> {
        if widths.len() != rest.len() {
            let message = format!("`{name}` with {} numbers", rest.len());
            return self.fail(first, &message, format!("expected {}", widths.len()));
        }
        let mut content = Vec::new();
        for (width, at) in widths.iter().zip(rest) {
            let high = u64::MAX >> (64 - 8 * width);
            let number = self.table.number_of(name, &Kind::Number(0, high), at)?;
            content.extend(&number.to_be_bytes()[8 - width..]);
        }
        Some(content)
    }

    fn address(&self, at: &At<Given<'_>>) -> Option<Ipv4Addr> {
        match (&at.value, self.scope) {
            (Given::Text(text), Some(scope)) => {
                layer::allowed(self.table, &at.with(text.clone()), scope, false, false)
            }
            (other, _) => {
                let message = format!("an address is {}", other.described());
                self.fail(at, &message, "expected a string".into())
            }
        }
    }

    fn no_more(&self, name: &str, rest: &[At<Given<'_>>]) -> Option<()> {
        match rest {
            [] => Some(()),
            [more, ..] => {
                let message = format!("`{name}` holds nothing");
                self.fail(more, &message, "expected the end of the list".into())
            }
        }
    }

    fn fail<T>(&self, at: &At<Given<'_>>, message: &str, label: String) -> Option<T> {
        self.table.source.problem(at.wrong(message, label));
        None
    }
}
