//! `tunproof run`: a suite, played on every path of a path file.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::cli::common::Options;
use crate::cli::common::Settings;
use crate::cli::dry_run;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove;
use crate::cli::prove::Ended;
use crate::cli::prove::Known;
use crate::cli::prove::Vias;
use crate::cli::sendable;
use crate::cli::verify;
use crate::evidence::Purpose;
use crate::plan::Plan;
use crate::plan::SessionKey;
use crate::plan::Suite;
use crate::report::Report;
use crate::report::RunReport;
use crate::run::Task;
use crate::suite::Embedded;
use crate::suite::Environment;
use crate::suite::Override;
use crate::suite::SuiteFile;
use crate::suite::nearest;
use crate::verdict::judge;
use crate::verdict::judge_steps;
use crate::verdict::suite_outcome;

const EXAMPLES: &str = "\
Examples:
  tunproof run q3-spoofed-source --path path.toml
      a suite that comes with tunproof; `tunproof suite list` names them
  tunproof run own.toml --path path.toml --set burst=5 --format junit --output result.xml
  tunproof run own.toml --path path.toml --only spoofed-udp --repeat 20
      one step and what it waits for, twenty times; tells how often it passed
  tunproof run own.toml --path path.toml --dry-run --pcap would-be.pcapng
      every packet, decoded and in hex, and as a capture for Wireshark; sends nothing

Exit status: 0 every step passed and every hop proven that the suite asks for; 1 a step failed or such a hop
is broken; 2 could not run; 3 nothing broken, not all decided";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The suite: a file, or the name of one that comes with tunproof
    #[arg(value_name = "SUITE")]
    suite: PathBuf,
    /// The path file
    #[arg(long, value_name = "PATH.toml")]
    path: PathBuf,
    /// Play only these steps and what they wait for; the suite's hops are not asked for then
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// Play it so often, each time with a session key of its own
    #[arg(long, value_name = "N", conflicts_with_all = ["save", "pcap", "dry_run"],
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    repeat: Option<u16>,
    /// Give a variable of the suite another value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<Override>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let Arguments {
        suite,
        path,
        only,
        repeat,
        overrides,
        options,
    } = arguments;
    let settings = Settings::from(options);
    let file = verify::path_file(&path)?;
    let mut plan = file.plan(SessionKey::new(rand::random()));
    if plan.vantages.is_empty() {
        return Err(Failure::NoVantage { path });
    }
    let (name, text) = read(&suite)?;
    plan.suites = plan
        .paths
        .iter()
        .map(|path| {
            let environment = Environment::of(path)
                .with(overrides.iter().cloned())
                .judged_by(sendable::judge);
            SuiteFile::parse(&name, &text, &environment).map_err(Failure::PathFile)
        })
        .collect::<Result<_, _>>()?;
    if !only.is_empty() {
        for suite in &mut plan.suites {
            restrict(suite, &only)?;
        }
    }
    let vias = verify::vias(file);
    if settings.dry_run {
        dry_run::say(plan, &vias, &settings)?;
        return Ok(Ended::Said);
    }
    output::check(&settings)?;
    play(plan, &vias, repeat.unwrap_or(1), &settings)
}

/// Between two rounds: a Linux host that has spent its burst of six answers one datagram a second by ICMP
/// (`icmp_ratelimit`).
const APART: Duration = Duration::from_secs(3);

/// Plays the suites so often, and reports.
fn play(plan: Plan, vias: &Vias, rounds: u16, settings: &Settings) -> Result<Ended, Failure> {
    let mut reports = Vec::new();
    let mut had_all = true;
    let mut saved = Ok(());
    for round in 0..rounds {
        let mut plan = plan.clone();
        if round > 0 {
            thread::sleep(APART);
            plan.session = SessionKey::new(rand::random());
        }
        let (known, all_there) =
            prove::run(plan, vias.clone(), Task::Prove, settings, &mut |_| {})?;
        let interrupted = known.evidence.is_cut_short() == Some("it was interrupted");
        saved = output::save(&known.evidence, known.timing, Purpose::Suite, settings);
        reports.push(report(known, settings)?);
        had_all &= all_there;
        // Without an agent, the next round is the same; and who interrupts one, means all.
        if !all_there || interrupted {
            break;
        }
    }
    let Some(report) = RunReport::of_rounds(reports) else {
        return Ok(Ended::Nothing);
    };
    output::write_run(&report, settings)?;
    // That it could not be saved keeps nobody from the report.
    saved?;
    Ok(match had_all {
        true => Ended::Judged(report.outcome),
        false => Ended::WithoutAnAgent,
    })
}

/// Judges again what was kept of a round, and reports.
pub(super) fn again(known: Known, settings: &Settings) -> Result<Ended, Failure> {
    let Some(report) = RunReport::of_rounds(vec![report(known, settings)?]) else {
        return Ok(Ended::Nothing);
    };
    output::write_run(&report, settings)?;
    Ok(Ended::Judged(report.outcome))
}

/// Judges one round, and writes its packets.
fn report(known: Known, settings: &Settings) -> Result<RunReport, Failure> {
    let Known {
        mut evidence,
        timing,
    } = known;
    if settings.verbose {
        prove::tell_unread(&evidence);
    }
    let judgement = judge(&mut evidence);
    let steps = judge_steps(&evidence, &judgement);
    let outcome = suite_outcome(&evidence, &judgement, &steps);
    output::write_packets(&evidence, &judgement, settings)?;
    let report = Report::new(&evidence, &judgement, timing);
    Ok(RunReport::new(&evidence, report, &steps, outcome))
}

/// A suite's name in messages, and its text: a file's, or that of one that comes with tunproof.
fn read(suite: &Path) -> Result<(String, String), Failure> {
    let typed = suite.display().to_string();
    let is_name = suite.extension().is_none() && suite.components().count() == 1;
    if is_name && !suite.exists() {
        let known = || Embedded::ALL.iter().map(|suite| suite.name);
        return match Embedded::named(&typed) {
            Some(found) => Ok((format!("probes/{}.toml", found.name), found.text.to_owned())),
            None => Err(Failure::UnknownSuite {
                nearest: nearest(&typed, known()),
                name: typed,
            }),
        };
    }
    let text = fs::read_to_string(suite).map_err(|source| Failure::ReadSuite {
        path: suite.to_owned(),
        source,
    })?;
    Ok((typed, text))
}

/// Leaves only these steps, and what they wait for.
fn restrict(suite: &mut Suite, only: &[String]) -> Result<(), Failure> {
    let mut kept = vec![false; suite.steps.len()];
    for name in only {
        let place = suite.steps.iter().position(|step| step.id == *name);
        let known = || suite.steps.iter().map(|step| step.id.as_str());
        kept[place.ok_or_else(|| Failure::UnknownStep {
            name: name.clone(),
            nearest: nearest(name, known()).map(str::to_owned),
        })?] = true;
    }
    // What a step waits for stands before it.
    for step in (0..kept.len())
        .rev()
        .filter(|step| kept[*step])
        .collect::<Vec<_>>()
    {
        need(suite, step, &mut kept);
    }
    let places: Vec<usize> = (0..kept.len())
        .scan(0, |next, step| {
            let place = *next;
            *next += usize::from(kept[step]);
            Some(place)
        })
        .collect();
    let mut keeps = kept.iter();
    suite.steps.retain(|_| keeps.next() == Some(&true));
    for after in suite.steps.iter_mut().flat_map(|step| &mut step.after) {
        after.step = places[after.step];
    }
    suite.hops.clear();
    Ok(())
}

fn need(suite: &Suite, step: usize, kept: &mut [bool]) {
    kept[step] = true;
    for after in &suite.steps[step].after {
        need(suite, after.step, kept);
    }
}
