//! `tunproof explain`: what a finding means.

use crate::cli::failure::Failure;
use crate::cli::offered::offered;
use crate::cli::output;
use crate::cli::prove::Ended;
use crate::lab::FAULTS;
use crate::report;
use crate::suite;
use crate::verdict::Code;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The code in a finding's brackets, such as `rp-filter-drops`; without it all codes are listed
    #[arg(value_name = "CODE", value_parser = offered(Code::ALL.iter().map(|code| code.id())), hide_possible_values = true)]
    code: Option<String>,
}

pub(super) fn main(arguments: &Arguments) -> Result<Ended, Failure> {
    let text = match &arguments.code {
        None => report::contents(),
        Some(code) => page(known(code)?),
    };
    output::print(&text)?;
    Ok(Ended::Said)
}

/// The page, and how the lab shows it.
fn page(code: Code) -> String {
    let mut text = report::page(code);
    for fault in FAULTS.iter().filter(|fault| fault.finding == code.id()) {
        text.push_str(&format!("Lab    tunproof lab break {}\n", fault.name));
    }
    text
}

fn known(text: &str) -> Result<Code, Failure> {
    let found = Code::ALL.iter().find(|code| code.id() == text);
    found.copied().ok_or_else(|| Failure::UnknownCode {
        code: text.escape_debug().to_string(),
        nearest: suite::nearest(text, Code::ALL.iter().map(|code| code.id())),
    })
}
