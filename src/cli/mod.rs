//! People: arguments, settings, one file a command; wiring only.

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::Parser;
use clap::Subcommand;

mod addresses;
mod agent;
mod common;
mod completions;
mod director;
mod dry_run;
mod explain;
mod failure;
mod judge;
mod lab;
mod listen;
mod man;
mod match_capture;
mod monitor;
mod offered;
mod output;
mod prove;
mod realserver;
mod recording;
mod run;
mod screen;
mod sendable;
mod spoofcheck;
mod suite;
mod sweep;
mod verify;
mod watch;
mod whole;

use failure::Failure;
use prove::Ended;

const EXAMPLES: &str = "\
Examples:
  tunproof verify path.toml
      the whole path, from one place; the hosts are reached by `via` in path.toml
  tunproof watch path.toml
      the same again and again: each hop's state, since when, loss and round trips
  tunproof director --vip 192.0.2.10 --rip 203.0.113.5 --cip 198.51.100.7
      typed on the director, which proves most of the path without any other host
  tunproof realserver --vip 192.0.2.10 --cip 198.51.100.7
      typed on the real server; prints what to type on the director
  tunproof sweep fleet.toml
      typed on the director: which of many real servers answer through the tunnel, for which services
  tunproof explain rp-filter-drops
      what a finding means, and how to mend it
  tunproof lab demo
      a whole path on this machine, in network namespaces: proven, broken, mended

Exit status: 0 every hop proven; 1 a hop broken; 2 could not run; 3 nothing broken, not all proven";

/// Proves, hop by hop, that an LVS-TUN path works, or shows where and why it does not.
///
/// A client sends to the VIP; the director tunnels the packet (IPIP) to a real server; the real server
/// answers the client directly, with the VIP as its source. tunproof sends a few packets of its own along
/// that path, recognises them wherever they show up, and says which hop is broken, by what evidence, and
/// what to type. It sends only from and to the addresses that you name. It needs root where it sends and
/// listens, or once `setcap cap_net_raw,cap_net_admin+ep` on the program.
#[derive(Parser)]
#[command(name = "tunproof", version, after_help = EXAMPLES, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prove the whole path: start an agent at every host of a path file that has a `via`
    Verify(verify::Arguments),
    /// Prove the whole path again and again, and show what changes
    Watch(watch::Arguments),
    /// Prove what the director can prove alone
    Director(director::Arguments),
    /// Prove what the real server can prove alone
    Realserver(realserver::Arguments),
    /// Play a suite, built in or your own, on every path of a path file
    Run(run::Arguments),
    /// Report the arrivals of another terminal's probes, on the director or the client
    Listen(listen::Arguments),
    /// Say whether a network drops the VIP as a source, and after which router
    Spoofcheck(spoofcheck::Arguments),
    /// Prove the whole path again and again, for Prometheus
    Monitor(monitor::Arguments),
    /// Ask a whole fleet of real servers, at a stated rate, whether they answer through the tunnel
    Sweep(sweep::Arguments),
    /// Find a session's probes in a capture file that tcpdump or Wireshark wrote
    Match(match_capture::Arguments),
    /// Judge again what a run has kept by `--save`
    Judge(judge::Arguments),
    /// Check suites and path files, or print their schema for editors
    Suite(suite::Arguments),
    /// Say what a finding means, how it is shown, and how to mend it
    Explain(explain::Arguments),
    /// Build the whole path on this machine, in network namespaces, and break it
    Lab(lab::LabArgs),
    /// Print what a shell needs to complete commands, options, faults and codes
    Completions(completions::Arguments),
    /// Print a command's page of the manual, or write all of them
    Man(man::Arguments),
    #[command(flatten)]
    Serving(Serving),
}

#[derive(Subcommand)]
enum Serving {
    /// Serve one controller over stdin and stdout, as far as this host's policy allows; `verify` starts it
    Agent(agent::Arguments),
}

/// What an agent is typed by: a hundred may be started at once, and none need know what all other commands take.
#[derive(Parser)]
#[command(name = "tunproof", max_term_width = 100)]
struct AgentsArguments {
    #[command(subcommand)]
    serving: Serving,
}

/// The whole command, from the process's arguments to its exit status.
pub fn main() -> ExitCode {
    leave_a_dumb_terminal_plain();
    let is_agent = std::env::args_os()
        .nth(1)
        .is_some_and(|typed| typed == "agent");
    let parsed = match is_agent {
        true => AgentsArguments::try_parse().map(|arguments| Command::Serving(arguments.serving)),
        false => Arguments::try_parse().map(|arguments| arguments.command),
    };
    let command = match parsed {
        Ok(command) => command,
        Err(error) => {
            // A closed terminal cannot be told.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let result = match command {
        Command::Verify(arguments) => verify::main(arguments),
        Command::Watch(arguments) => watch::main(arguments),
        Command::Director(arguments) => director::main(arguments),
        Command::Realserver(arguments) => realserver::main(arguments),
        Command::Run(arguments) => run::main(arguments),
        Command::Listen(arguments) => listen::main(arguments),
        Command::Spoofcheck(arguments) => spoofcheck::main(arguments),
        Command::Monitor(arguments) => monitor::main(arguments),
        Command::Sweep(arguments) => sweep::main(arguments),
        Command::Match(arguments) => match_capture::main(arguments),
        Command::Judge(arguments) => judge::main(arguments),
        Command::Suite(arguments) => suite::main(arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::Completions(arguments) => completions::main(&arguments),
        Command::Man(arguments) => man::main(&arguments),
        Command::Lab(arguments) => return lab::run(arguments),
        Command::Serving(Serving::Agent(arguments)) => return agent::main(&arguments),
    };
    if let Err(failure) = &result {
        failure.print();
    }
    status(&result)
}

/// A terminal that says that it has no colours is shown none, in CI neither, where [`anstream`] takes each for one of a
/// log that has them; `CLICOLOR_FORCE` (https://bixense.com/clicolors) asks for them even so.
fn leave_a_dumb_terminal_plain() {
    let set = |name| std::env::var_os(name).unwrap_or_default();
    if set("TERM") == "dumb" && matches!(set("CLICOLOR_FORCE").to_str(), Some("" | "0")) {
        ColorChoice::Never.write_global();
    }
}

/// 2, if it could not run; else how it ended.
fn status(result: &Result<Ended, Failure>) -> ExitCode {
    ExitCode::from(result.as_ref().map_or(2, |ended| ended.status()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
