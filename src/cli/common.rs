//! The options that every proving command has, as typed and as meant.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use crate::run::Limits;

#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    reporting: Reporting,
    /// Keep plan, evidence and packets in FILE, for `tunproof judge`; readable by you alone (mode 0600), as it
    /// has the session's key, the packets, and what the hosts say of themselves
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print every packet that would be sent if nothing answered, decoded and in hex; send nothing
    #[arg(long)]
    dry_run: bool,
    /// Packets a second that one host sends at most. Unless it is said: 100 for each real server that it has to do
    /// with, 10000 in all; of `spoofcheck` 50
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// When to give up, such as `20s` or `1m`
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// The options of whatever prints a report.
#[derive(clap::Args)]
pub(super) struct Reporting {
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the report to FILE instead of stdout; a FILE that is there is replaced by a whole one or stays. If it
    /// cannot be written, the report goes to stdout and the exit status is 2
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write every packet of the evidence to FILE, a pcapng with a comment on each; whole, or FILE stays as it was
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Show all evidence, what hosts could not read of themselves, and what agents write to their stderr
    #[arg(short, long)]
    verbose: bool,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Text,
    /// For programs: one object, schema `tunproof.report/1`, of a suite `tunproof.run/1`, of the spoof check
    /// `tunproof.spoofcheck/1`
    Json,
    /// For continuous integration: JUnit's XML
    Junit,
    /// For test harnesses: TAP 13, such as `prove` reads
    Tap,
    /// For people, to keep, print or attach to a ticket: one page that loads nothing and runs no script; path and
    /// sweeps drawn, packets taken apart
    Html,
}

/// What the options mean.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) format: Format,
    pub(super) output: Option<PathBuf>,
    pub(super) pcap: Option<PathBuf>,
    pub(super) save: Option<PathBuf>,
    pub(super) dry_run: bool,
    pub(super) limits: Limits,
    pub(super) verbose: bool,
    pub(super) push: bool,
}

impl Options {
    /// What they mean, with these limits where none are typed.
    pub(super) fn settings(self, usual: Limits) -> Settings {
        Settings {
            save: self.save,
            dry_run: self.dry_run,
            limits: Limits {
                rate: self.rate.or(usual.rate),
                timeout: self.timeout.unwrap_or(usual.timeout),
            },
            ..Settings::from(self.reporting)
        }
    }
}

impl Settings {
    /// What a command means that has no report of its own for each proof.
    pub(super) fn of_rounds(limits: Limits, verbose: bool) -> Settings {
        Settings {
            format: Format::Text,
            output: None,
            pcap: None,
            save: None,
            dry_run: false,
            limits,
            verbose,
            push: false,
        }
    }
}

impl From<Options> for Settings {
    fn from(options: Options) -> Settings {
        options.settings(Limits::default())
    }
}

impl From<Reporting> for Settings {
    fn from(reporting: Reporting) -> Settings {
        Settings {
            format: reporting.format,
            output: reporting.output,
            pcap: reporting.pcap,
            save: None,
            dry_run: false,
            limits: Limits::default(),
            verbose: reporting.verbose,
            push: false,
        }
    }
}

/// A duration such as `20s`, above 0.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("expected more than nothing".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("expected a duration such as `20s`: {error}")),
    }
}
