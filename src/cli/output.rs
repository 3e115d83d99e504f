//! Where reports go.

use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;

use crate::cli::common::Format;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::whole;
use crate::evidence;
use crate::evidence::Evidence;
use crate::evidence::Purpose;
use crate::exchange::Timing;
use crate::report;
use crate::report::Report;
use crate::report::RunReport;
use crate::report::SpoofReport;
use crate::verdict::Judgement;

/// Whether the files that are asked for can be written, which is better known before the packets are sent.
pub(super) fn check(settings: &Settings) -> Result<(), Failure> {
    for path in settings.output.iter().chain(&settings.pcap) {
        let opened = fs::OpenOptions::new().append(true).create(true).open(path);
        opened.map_err(|source| cannot_write(path, source))?;
    }
    match &settings.save {
        Some(path) => whole::check(path).map_err(|source| cannot_write(path, source)),
        None => Ok(()),
    }
}

fn cannot_write(path: &Path, source: io::Error) -> Failure {
    Failure::Write {
        what: format!("`{}`", path.display()),
        source,
    }
}

/// Writes the case file, where that is asked for.
pub(super) fn save(
    evidence: &Evidence,
    timing: Timing,
    purpose: Purpose,
    settings: &Settings,
) -> Result<(), Failure> {
    let Some(path) = &settings.save else {
        return Ok(());
    };
    let text = evidence::save(evidence, timing, purpose);
    whole::write(path, text.as_bytes()).map_err(|source| cannot_write(path, source))
}

/// Writes the packets of the evidence, where that is asked for.
pub(super) fn write_packets(
    evidence: &Evidence,
    judgement: &Judgement,
    settings: &Settings,
) -> Result<(), Failure> {
    let Some(path) = &settings.pcap else {
        return Ok(());
    };
    let packets = report::pcapng(evidence, judgement);
    fs::write(path, packets).map_err(|source| cannot_write(path, source))
}

/// Writes the report.
pub(super) fn write_report(report: &Report, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report::text(report, settings.verbose),
        Format::Json => report.to_json(),
        Format::Junit => report::junit(report),
        Format::Tap => report::tap(report),
    };
    say(&text, settings)
}

/// Writes the report of a suite.
pub(super) fn write_run(report: &RunReport, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report::run_text(report, settings.verbose),
        Format::Json => report.to_json(),
        Format::Junit => report::run_junit(report),
        Format::Tap => report::run_tap(report),
    };
    say(&text, settings)
}

/// Writes the spoof check's report.
pub(super) fn write_spoofing(report: &SpoofReport, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report.to_text(),
        Format::Json => report.to_json(),
        Format::Junit => report::spoof_junit(report),
        Format::Tap => report::spoof_tap(report),
    };
    say(&text, settings)
}

/// Prints text, with colour only to a terminal that wants it.
pub(super) fn say(text: &str, settings: &Settings) -> Result<(), Failure> {
    write(text, settings.output.as_deref())
}

/// Writes text to a file, or to stdout.
pub(super) fn write(text: &str, file: Option<&Path>) -> Result<(), Failure> {
    match file {
        None => print(text),
        Some(path) => {
            let plain = anstream::adapter::strip_str(text).to_string();
            fs::write(path, plain).map_err(|source| cannot_write(path, source))
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
