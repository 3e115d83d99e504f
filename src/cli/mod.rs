//! People: arguments, settings, one file a command; wiring only.

use std::process::ExitCode;

use clap::Parser;

mod agent;
mod lab;

/// What was typed.
#[derive(Parser)]
#[command(name = "tunproof", version)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(clap::Subcommand)]
enum Subcommand {
    /// The whole path on one machine, in network namespaces
    Lab(lab::LabArgs),
    /// Serve one controller over stdin and stdout
    Agent {
        #[arg(long, hide = true)]
        janitor: bool,
    },
}

/// The whole command, from the process's arguments to its exit status.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Subcommand::Lab(arguments) => lab::run(arguments),
        Subcommand::Agent { janitor } => agent::main(janitor),
    }
}
