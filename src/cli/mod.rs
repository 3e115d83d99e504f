//! People: arguments, settings, one file a command; wiring only.

use std::process::ExitCode;

mod agent;

/// The whole command, from the process's arguments to its exit status.
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["agent"] => agent::main(false),
        ["agent", "--janitor"] => agent::main(true),
        _ => ExitCode::from(2),
    }
}
