//! Values that completion offers and parsing does not insist on.

use std::ffi::OsStr;

use clap::Arg;
use clap::Command;
use clap::Error;
use clap::builder::PossibleValue;
use clap::builder::StringValueParser;
use clap::builder::TypedValueParser;

/// Takes any text, and has shells offer these: what is wrong with another is better said by who looks it up, with
/// the name that was meant. `hide_possible_values` keeps them out of `--help`.
pub(super) fn offered(
    names: impl Iterator<Item = &'static str>,
) -> impl TypedValueParser<Value = String> {
    Offered(names.collect())
}

#[derive(Clone)]
struct Offered(Vec<&'static str>);

impl TypedValueParser for Offered {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}
