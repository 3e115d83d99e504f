//! What `$names` stand for.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::str::FromStr;

use toml::de::DeValue;

use crate::plan::Packet;
use crate::plan::Path;
use crate::plan::Protocol;

/// What a variable holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A whole number.
    Integer(i64),
    /// A string.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

impl Value {
    /// The value, if a variable can hold it.
    pub(crate) fn of(value: &DeValue<'_>) -> Option<Value> {
        match value {
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix());
                Some(Value::Integer(number.ok()?))
            }
            DeValue::String(text) => Some(Value::Text(text.to_string())),
            DeValue::Array(array) => {
                let values: Option<_> = array.iter().map(|v| Value::of(v.get_ref())).collect();
                values.map(Value::List)
            }
            _ => None,
        }
    }
}

/// As in TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Integer(number) => write!(f, "{number}"),
            Value::Text(text) => write!(f, "\"{text}\""),
            Value::List(list) => {
                let each: Vec<_> = list.iter().map(Value::to_string).collect();
                write!(f, "[{}]", each.join(", "))
            }
        }
    }
}

/// A variable's value from the command line: `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The variable's name, without `$`.
    pub name: String,
    /// Its value as it was typed.
    pub text: String,
}

impl Override {
    /// The value: a number, a list or a string in quotes as in TOML, or else the text itself.
    ///
    /// # Errors
    ///
    /// Why it is no such value, and what was expected.
    pub(crate) fn value(&self) -> Result<Value, (String, &'static str)> {
        let shown = self.text.escape_debug();
        let parsed = DeValue::parse(&self.text);
        match (&parsed, self.text.chars().next()) {
            (Ok(value), _) if Value::of(value.get_ref()).is_some() => {
                Ok(Value::of(value.get_ref()).expect("it is one"))
            }
            (_, Some('[')) => Err((
                format!("`{shown}` is no list"),
                "expected numbers or strings as in TOML, such as `[1,2]` or `[\"a\",\"b\"]`",
            )),
            (_, Some('"' | '\'')) => Err((
                format!("`{shown}` is no string"),
                "expected a string as in TOML, or the text without quotes",
            )),
            _ => Ok(Value::Text(self.text.clone())),
        }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Override, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Override {
                name: name.trim_start_matches('$').to_owned(),
                text: value.to_owned(),
            }),
            _ => Err("expected `name=value`, such as `burst=5`".to_owned()),
        }
    }
}

/// What stands in the place of the names that a path file gives, and of those that `--set` changes.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The path's names; an error is why this path has no value for one.
    path: Vec<(&'static str, Result<Value, &'static str>)>,
    /// The addresses that a packet may bear; empty is any, where there is no path yet.
    addresses: Vec<Ipv4Addr>,
    overrides: Vec<Override>,
    judge: Option<Judge>,
}

/// What keeps a packet from being sent where only these addresses are declared.
pub type Judge = fn(&Packet, &[Ipv4Addr]) -> Result<(), String>;

impl Environment {
    /// The names of a path.
    pub const NAMES: [&'static str; 8] = [
        "vip",
        "port",
        "protocol",
        "cip",
        "dip",
        "rip",
        "gateway",
        "realserver",
    ];

    /// What `path` says.
    pub fn of(path: &Path) -> Environment {
        let address = |address: Ipv4Addr| Ok(Value::Text(address.to_string()));
        let known = |given: Option<Ipv4Addr>, why| given.map_or(Err(why), address);
        Environment {
            path: vec![
                ("vip", address(path.vip)),
                ("port", Ok(Value::Integer(path.port.into()))),
                ("protocol", Ok(Value::Text(path.protocol.name().to_owned()))),
                ("cip", address(path.cip)),
                (
                    "dip",
                    known(path.dip, "the director's address is not known"),
                ),
                ("rip", address(path.rip)),
                (
                    "gateway",
                    known(
                        path.gateway,
                        "the path file names no `gateway` for this real server",
                    ),
                ),
                ("realserver", Ok(Value::Text(path.realserver.clone()))),
            ],
            addresses: [path.vip, path.cip, path.rip]
                .into_iter()
                .chain(path.dip)
                .chain(path.gateway)
                .collect(),
            overrides: Vec::new(),
            judge: None,
        }
    }

    /// Documentation addresses (RFC 5737), for a suite that is checked without a path.
    pub fn example() -> Environment {
        let mut environment = Environment::of(&Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 80,
            protocol: Protocol::Tcp,
            rip: Ipv4Addr::new(203, 0, 113, 5),
            dip: Some(Ipv4Addr::new(192, 0, 2, 2)),
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: Some(Ipv4Addr::new(203, 0, 113, 1)),
            tunnel: None,
        });
        environment.addresses.clear();
        environment
    }

    /// The same with values from the command line.
    pub fn with(mut self, overrides: impl IntoIterator<Item = Override>) -> Environment {
        self.overrides.extend(overrides);
        self
    }

    /// Values from the command line.
    pub(crate) fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// The same where `judge` says what keeps a packet from being sent on a path with such addresses, none if there
    /// is no path yet.
    pub fn judged_by(mut self, judge: Judge) -> Environment {
        self.judge = Some(judge);
        self
    }

    /// What keeps a packet from being sent, if that is judged.
    pub(crate) fn judge(&self, packet: &Packet) -> Result<(), String> {
        match self.judge {
            Some(judge) => judge(packet, &self.addresses),
            None => Ok(()),
        }
    }

    /// Whether the path declares `address`, and so a packet may bear it; `None` if there is no path yet.
    pub(crate) fn declares(&self, address: Ipv4Addr) -> Option<bool> {
        (!self.addresses.is_empty()).then(|| self.addresses.contains(&address))
    }

    /// The path's names, as a scope.
    pub(crate) fn scope(&self) -> Scope<'_> {
        let names = self.path.iter().map(|(name, value)| {
            let bound = Bound {
                value: value.clone(),
                place: None,
            };
            ((*name).to_owned(), bound)
        });
        Scope {
            environment: self,
            names: names.collect(),
        }
    }
}

/// The variables that a place of a file can use.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    /// The path's.
    pub(crate) environment: &'a Environment,
    names: BTreeMap<String, Bound>,
}

/// A variable's value.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// What it is, or why it is nothing.
    pub(crate) value: Result<Value, &'static str>,
    /// Where the file says so, if it does.
    pub(crate) place: Option<Range<usize>>,
}

impl Scope<'_> {
    /// Adds a variable; an old one of the name is forgotten.
    pub(crate) fn bind(&mut self, name: &str, value: Value, place: Option<Range<usize>>) {
        let value = Ok(value);
        self.names.insert(name.to_owned(), Bound { value, place });
    }

    /// What `name` stands for.
    pub(crate) fn get(&self, name: &str) -> Option<&Bound> {
        self.names.get(name)
    }

    /// Every name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}
