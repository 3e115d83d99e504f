//! People: arguments, settings, one file a command; wiring only.

use std::process::ExitCode;

/// The whole command, from the process's arguments to its exit status.
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
