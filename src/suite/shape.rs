//! What a table may hold: one list for the parser and for the schema, so that they cannot differ.

/// A kind of table.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What errors call it.
    pub(crate) name: &'static str,
    /// What it is, in one sentence.
    pub(crate) about: &'static str,
    /// Every key that it may have.
    pub(crate) keys: &'static [Key],
    /// Exactly one of these must be there; empty is no such rule.
    pub(crate) one_of: &'static [&'static str],
}

impl Shape {
    /// What `key` holds.
    ///
    /// # Panics
    ///
    /// If the shape has no such key: the parser asks for what the schema does not know.
    pub(crate) fn kind(&self, key: &str) -> &'static Kind {
        match self.keys.iter().find(|known| known.name == key) {
            Some(key) => &key.kind,
            None => panic!("`{key}` is no key of {}", self.name),
        }
    }
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it means, in one sentence.
    pub(crate) about: &'static str,
    /// Whether it must be there.
    pub(crate) need: Need,
    /// What it holds.
    pub(crate) kind: Kind,
}

/// A key of a table.
pub(crate) const fn key(name: &'static str, about: &'static str, need: Need, kind: Kind) -> Key {
    Key {
        name,
        about,
        need,
        kind,
    }
}

/// Whether a key must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// It may be left out.
    Optional,
    /// It must be there, such as this.
    Required(&'static str),
    /// It must be there; the parser says so in its own words.
    Expected,
    /// It has a meaning only beside this other key.
    With(&'static str),
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// One line of text.
    Line,
    /// Letters, digits, `-`, `_` and `.`.
    Name,
    /// `true` or `false`.
    Bool,
    /// A number between these, both included.
    Number(u64, u64),
    /// Such a number, a list of them, or a range such as `"1..12"`.
    Numbers(u64, u64),
    /// A duration such as `"100ms"`, of so many seconds at most.
    Duration(u64),
    /// The address of a host.
    Address,
    /// Any IPv4 address.
    AnyAddress,
    /// A hardware address.
    Mac,
    /// The name of a network device.
    Device,
    /// A command, split as a shell splits words.
    Command,
    /// Octets in hex; spaces may stand between them.
    Hex,
    /// Any text.
    Text,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    /// A number up to this, or one of these names for some.
    Named(u64, &'static [(&'static str, u64)]),
    /// Bits as a number, or by their names, the lowest first: letters in a row such as `"SA"`, longer names
    /// with `+` between them.
    Flags(&'static [&'static str]),
    /// A table.
    Table(&'static Shape),
    /// Any number of these.
    List(&'static Kind),
    /// One of these.
    Either(&'static [Kind]),
    /// A table with names of the user's own.
    Map(&'static Kind),
    /// What must be true of the fields of layers.
    Conditions,
    /// Something with a syntax of its own: what it is, and a pattern for the schema.
    Special(&'static str, &'static str),
}

impl Kind {
    /// What was expected, for a message.
    pub(crate) fn expected(&self) -> String {
        match self {
            Kind::Line | Kind::Text => "a string".to_owned(),
            Kind::Name => "a name of letters, digits, `-`, `_` and `.`".to_owned(),
            Kind::Bool => "`true` or `false`".to_owned(),
            Kind::Number(1, 65535) => "a number from 1 to 65535, without quotes".to_owned(),
            Kind::Number(low, high) => format!("a number from {low} to {high}"),
            Kind::Numbers(low, high) => format!(
                "a number from {low} to {high}, a list of them, or a range such as `\"{low}..{}\"`",
                (low + 4).min(*high)
            ),
            Kind::Duration(_) => "a duration such as `\"100ms\"`".to_owned(),
            Kind::Address | Kind::AnyAddress => {
                "an IPv4 address such as `\"192.0.2.10\"`".to_owned()
            }
            Kind::Mac => "a hardware address such as `\"02:00:00:00:00:01\"`".to_owned(),
            Kind::Device => "a device name such as `\"eth0\"`".to_owned(),
            Kind::Command => "a string".to_owned(),
            Kind::Hex => "octets in hex such as `\"00 01 ff\"`".to_owned(),
            Kind::Word(words) => alternatives(&words()),
            Kind::Named(high, names) => {
                let names: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                format!("a number from 0 to {high}, or {}", alternatives(&names))
            }
            Kind::Flags(names) => format!(
                "some of `{}`, or a number from 0 to {}",
                names.join(flags_between(names)),
                (1u64 << names.len()) - 1
            ),
            Kind::Table(shape) => format!("a table: {}", shape.name),
            Kind::List(Kind::Table(shape)) => format!("a list of tables: {}", shape.name),
            Kind::List(kind) => format!("a list, each {}", kind.expected()),
            Kind::Either(kinds) => {
                let each: Vec<_> = kinds.iter().map(Kind::expected).collect();
                each.join(", or ")
            }
            Kind::Map(_) | Kind::Conditions => "a table".to_owned(),
            Kind::Special(what, _) => (*what).to_owned(),
        }
    }
}

/// What stands between the names of flags: nothing between letters.
pub(crate) fn flags_between(names: &[&str]) -> &'static str {
    match names.iter().all(|name| name.len() == 1) {
        true => "",
        false => "+",
    }
}

/// Words as they are written, joined for a message.
pub(crate) fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    match quoted.len() {
        0..=3 => quoted.join(" or "),
        _ => format!("one of {}", quoted.join(", ")),
    }
}
