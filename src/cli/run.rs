//! `tunproof run`: a suite, played on every path of a path file.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use tokio::runtime;

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
use crate::live::controller;
use crate::plan::Plan;
use crate::plan::SessionKey;
use crate::plan::Suite;
use crate::report::Report;
use crate::report::RunReport;
use crate::run::Engine;
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
  tunproof run own.toml --path path.toml --repeat 20 --save case.json --pcap all.pcapng
      `tunproof judge case.json` gives the report of all twenty again; in all.pcapng each packet's comment says
      of which round it is
  tunproof run own.toml --path path.toml --session 0123456789abcdef0123456789abcdef
      a tcpdump anywhere, `tunproof match` with the same key, and what of it came by is found; of the packets
      that own.toml writes out, those that leave ports and payload, or sequence number, to tunproof (all of
      them: `tunproof judge case.json --add STATION=FILE`)
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
    /// Play only these steps (commas between them) and what they wait for; the suite's hops are not asked for
    /// then
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    only: Vec<String>,
    /// The session's key, 32 hex digits, for `tunproof match` afterwards; a new one for every run, as
    /// nothing else tells one run's probes from another's
    #[arg(long, value_name = "KEY")]
    session: Option<SessionKey>,
    /// Play it so often, three seconds apart, each time with a session key of its own: one higher than the
    /// one before, as a number
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    repeat: u16,
    /// Give a variable of the suite another value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<Override>,
    /// Bring this program along, through `via`, to hosts that lack it or have another version: into a private
    /// folder that is gone before the agent starts, so that nothing is left there
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let Arguments {
        suite,
        path,
        only,
        session,
        repeat,
        overrides,
        push,
        options,
    } = arguments;
    let mut settings = Settings::from(options);
    settings.push = push;
    let file = verify::path_file(&path)?;
    let session = session.unwrap_or_else(|| SessionKey::new(rand::random()));
    let mut plan = file.plan(session);
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
        dry_run::say(plan, &vias, repeat, &settings)?;
        return Ok(Ended::Said);
    }
    output::check(&settings)?;
    play(plan, vias, repeat, &settings)
}

/// Plays the suites so often, and reports.
fn play(mut plan: Plan, vias: Vias, rounds: u16, settings: &Settings) -> Result<Ended, Failure> {
    let mut cases = output::Cases::new(settings, rounds > 1);
    let mut played = Rounds::new(rounds > 1, settings);
    let mut had_all = true;
    let vantages = prove::reach(vias, &[], settings)?;
    for round in 1..=rounds {
        let (known, ending) =
            prove::run(plan.clone(), &vantages, Task::Prove, settings, &mut |_| {})?;
        let interrupted = known.evidence.is_cut_short() == Some(Engine::INTERRUPTED);
        cases.add(&known.evidence, known.timing, Purpose::Suite);
        played.add(known);
        let all_there = ending.had_all();
        had_all &= all_there;
        // Without an agent, the next round is the same; and who interrupts one, means all.
        if !all_there || interrupted || round == rounds {
            break;
        }
        if pause()? {
            anstream::eprintln!("interrupted: the report is of {round} rounds, not {rounds}");
            break;
        }
        plan.session = plan.session.next();
    }
    let mut ended = Ended::Nothing;
    let reported = played.end().map(|how| ended = how);
    output::all([reported, cases.end()])?;
    Ok(match had_all {
        true => ended,
        false => Ended::WithoutAnAgent,
    })
}

/// Waits between two rounds; whether the user has enough.
fn pause() -> Result<bool, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let paused = runtime.and_then(|runtime| runtime.block_on(controller::pause(prove::APART)));
    paused.map_err(Failure::Runtime)
}

/// Judges again what was kept of each round, and reports.
pub(super) fn again(rounds: Vec<Known>, settings: &Settings) -> Result<Ended, Failure> {
    let mut played = Rounds::new(rounds.len() > 1, settings);
    for known in rounds {
        played.add(known);
    }
    played.end()
}

/// What is said of the rounds so far.
struct Rounds<'a> {
    settings: &'a Settings,
    are_several: bool,
    packets: output::Packets<'a>,
    report: Option<RunReport>,
}

impl Rounds<'_> {
    fn new(are_several: bool, settings: &Settings) -> Rounds<'_> {
        Rounds {
            settings,
            are_several,
            packets: output::Packets::new(settings),
            report: None,
        }
    }

    /// Judges one round, and writes its packets.
    fn add(&mut self, known: Known) {
        let Known {
            mut evidence,
            timing,
        } = known;
        if self.settings.verbose {
            prove::tell_unread(&evidence);
        }
        let judgement = judge(&mut evidence);
        let steps = judge_steps(&evidence, &judgement);
        let outcome = suite_outcome(&evidence, &judgement, &steps);
        let before = self.report.take();
        let round = 1 + before.as_ref().map_or(0, |report| report.rounds);
        self.packets
            .add(&evidence, &judgement, self.are_several.then_some(round));
        let report = Report::new(&evidence, &judgement, timing);
        let report = RunReport::new(&evidence, report, &steps, outcome);
        self.report = Some(match before {
            Some(before) => before.and(report),
            None => report,
        });
    }

    /// Reports.
    fn end(self) -> Result<Ended, Failure> {
        let Some(report) = self.report else {
            return Ok(Ended::Nothing);
        };
        let written = output::write_run(&report, self.settings);
        output::all([written, self.packets.end()])?;
        Ok(Ended::Judged(report.outcome))
    }
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
            known: known().map(str::to_owned).collect(),
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
