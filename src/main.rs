//! The `tunproof` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tunproof::cli::main()
}
