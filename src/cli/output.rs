//! Where reports go.

use std::fs;
use std::io;
use std::io::Write;

use crate::cli::common::Format;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::evidence::Evidence;
use crate::report;
use crate::report::Report;
use crate::verdict::Judgement;

/// Writes the packets of the evidence, where that is asked for.
pub(super) fn write_packets(
    evidence: &Evidence,
    judgement: &Judgement,
    settings: &Settings,
) -> Result<(), Failure> {
    let Some(path) = &settings.pcap else {
        return Ok(());
    };
    fs::write(path, report::pcapng(evidence, judgement)).map_err(|source| Failure::Write {
        what: format!("`{}`", path.display()),
        source,
    })
}

/// Writes the report.
pub(super) fn write_report(report: &Report, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report::text(report, settings.verbose),
        Format::Json => report.to_json(),
    };
    say(&text, settings)
}

/// Prints text, with colour only to a terminal that wants it.
pub(super) fn say(text: &str, settings: &Settings) -> Result<(), Failure> {
    match &settings.output {
        None => print(text),
        Some(path) => {
            let plain = anstream::adapter::strip_str(text).to_string();
            fs::write(path, plain).map_err(|source| Failure::Write {
                what: format!("`{}`", path.display()),
                source,
            })
        }
    }
}

/// Prints to stdout; that nobody reads it any more is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Write {
            what: "stdout".to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
