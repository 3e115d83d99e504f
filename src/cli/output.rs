//! Where reports go.

use std::io;
use std::io::Write;
use std::path::Path;

use anstream::AutoStream;

use crate::cli::common::Format;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::whole;
use crate::cli::whole::Readers;
use crate::cli::whole::Whole;
use crate::evidence;
use crate::evidence::Evidence;
use crate::evidence::Purpose;
use crate::exchange::Timing;
use crate::live::terminal;
use crate::report;
use crate::report::Report;
use crate::report::RunReport;
use crate::report::SpoofReport;
use crate::verdict::Judgement;

/// Whether the files that are asked for can be written, which is better known before the packets are sent.
pub(super) fn check(settings: &Settings) -> Result<(), Failure> {
    let files = [&settings.output, &settings.pcap, &settings.save];
    for path in files.into_iter().flatten() {
        whole::check(path, Readers::Owner).map_err(|source| cannot_write(path, source))?;
    }
    Ok(())
}

/// Whether everything was written: that one thing could not be keeps nobody from the others.
pub(super) fn all<const N: usize>(written: [Result<(), Failure>; N]) -> Result<(), Failure> {
    let mut failures = written.into_iter().filter_map(Result::err);
    let last = failures.next_back();
    for failure in failures {
        failure.print();
    }
    last.map_or(Ok(()), Err)
}

fn cannot_write(path: &Path, source: io::Error) -> Failure {
    Failure::Write {
        what: format!("`{}`", path.display()),
        source,
    }
}

/// The case file, where one is asked for: of one case, or of one for each round.
///
/// That it cannot be written keeps nobody from the report, and so is said at its end.
pub(super) struct Cases<'a> {
    path: Option<&'a Path>,
    is_list: bool,
    file: io::Result<Option<Whole>>,
}

impl Cases<'_> {
    pub(super) fn new(settings: &Settings, is_list: bool) -> Cases<'_> {
        Cases {
            path: settings.save.as_deref(),
            is_list,
            file: Ok(None),
        }
    }

    /// Writes a case; before it is judged.
    pub(super) fn add(&mut self, evidence: &Evidence, timing: Timing, purpose: Purpose) {
        let Some(path) = self.path else {
            return;
        };
        if let Ok(file) = &mut self.file {
            let text = evidence::save(evidence, timing, purpose);
            let [first, between, _] = evidence::ROUNDS;
            let before = match (self.is_list, &file) {
                (false, _) => "",
                (true, None) => first,
                (true, Some(_)) => between,
            };
            let file = match file.take() {
                None => Whole::begin(path, Readers::Owner),
                Some(file) => Ok(file),
            };
            self.file = file.and_then(|mut file| {
                file.add(before.as_bytes())?;
                file.add(text.as_bytes())?;
                Ok(Some(file))
            });
        }
    }

    /// That there are no more.
    pub(super) fn end(self) -> Result<(), Failure> {
        let ended = self.file.and_then(|file| {
            let Some(mut file) = file else {
                return Ok(());
            };
            if self.is_list {
                file.add(evidence::ROUNDS[2].as_bytes())?;
            }
            file.end()
        });
        ended.map_err(|source| cannot_write(self.path.unwrap_or(Path::new("")), source))
    }
}

/// The file of the evidence's packets, where one is asked for. That it cannot be written is said at its end.
pub(super) struct Packets<'a> {
    path: Option<&'a Path>,
    file: io::Result<Option<Whole>>,
}

impl Packets<'_> {
    pub(super) fn new(settings: &Settings) -> Packets<'_> {
        Packets {
            path: settings.pcap.as_deref(),
            file: Ok(None),
        }
    }

    /// Writes what is known, of several rounds that of one.
    pub(super) fn add(&mut self, evidence: &Evidence, judgement: &Judgement, round: Option<usize>) {
        let Some(path) = self.path else {
            return;
        };
        if let Ok(file) = &mut self.file {
            let file = match file.take() {
                None => Whole::begin(path, Readers::Usual),
                Some(file) => Ok(file),
            };
            self.file = file.and_then(|mut file| {
                file.add(&report::pcapng(evidence, judgement, round))?;
                Ok(Some(file))
            });
        }
    }

    /// That there are no more.
    pub(super) fn end(self) -> Result<(), Failure> {
        let ended = self.file.and_then(|file| file.map_or(Ok(()), Whole::end));
        ended.map_err(|source| cannot_write(self.path.unwrap_or(Path::new("")), source))
    }
}

/// Writes the report.
pub(super) fn write_report(report: &Report, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report::text(report, settings.verbose, width(settings)),
        Format::Json => report.to_json(),
        Format::Junit => report::junit(report),
        Format::Tap => report::tap(report),
        Format::Html => report::html(report, settings.verbose),
    };
    say(&text, settings)
}

/// Writes the report of a suite.
pub(super) fn write_run(report: &RunReport, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report::run_text(report, settings.verbose, width(settings)),
        Format::Json => report.to_json(),
        Format::Junit => report::run_junit(report),
        Format::Tap => report::run_tap(report),
        Format::Html => report::run_html(report, settings.verbose),
    };
    say(&text, settings)
}

/// Writes the spoof check's report.
pub(super) fn write_spoofing(report: &SpoofReport, settings: &Settings) -> Result<(), Failure> {
    let text = match settings.format {
        Format::Text => report.to_text(width(settings)),
        Format::Json => report.to_json(),
        Format::Junit => report::spoof_junit(report),
        Format::Tap => report::spoof_tap(report),
        Format::Html => report::spoof_html(report, settings.verbose),
    };
    say(&text, settings)
}

/// How wide a report for people is: as the terminal, within what reads well.
fn width(settings: &Settings) -> usize {
    let terminal = terminal::size(&io::stdout()).filter(|_| settings.output.is_none());
    terminal.map_or(report::WIDTH, |size| size.columns.clamp(40, 100))
}

/// Prints text, with colour only to a terminal that wants it.
pub(super) fn say(text: &str, settings: &Settings) -> Result<(), Failure> {
    write(text, settings.output.as_deref())
}

/// Writes text to a file, or to stdout; to stdout, too, if the file cannot be written.
pub(super) fn write(text: &str, file: Option<&Path>) -> Result<(), Failure> {
    match file {
        None => print(text),
        Some(path) => {
            let plain = anstream::adapter::strip_str(text).to_string();
            let whole = Whole::begin(path, Readers::Usual).and_then(|mut file| {
                file.add(plain.as_bytes())?;
                file.end()
            });
            let Err(source) = whole else { return Ok(()) };
            // What was found out is not to be lost with it.
            print(text)?;
            Err(cannot_write(path, source))
        }
    }
}

/// Prints to stdout; that nobody reads it any more is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    // As a whole: piece by piece, each line would be a system call of its own.
    let mut shown = AutoStream::new(Vec::new(), AutoStream::choice(&stdout));
    let written = shown
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(&shown.into_inner()))
        .and_then(|()| stdout.flush());
    match written {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Write {
            what: "stdout".to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
