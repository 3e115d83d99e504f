//! A sweep in its course: what is sent, heard, told and kept.

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove::Ended;
use crate::cli::screen::Screen;
use crate::cli::sweep::Format;
use crate::cli::sweep::Kept;
use crate::cli::sweep::ears::Ears;
use crate::cli::sweep::ears::Heard;
use crate::cli::sweep::keeper::Keeper;
use crate::cli::sweep::keeper::Open;
use crate::cli::sweep::mouth::Mouth;
use crate::cli::sweep::name;
use crate::cli::sweep::results::Results;
use crate::cli::sweep::results::cannot_write;
use crate::cli::whole::Readers;
use crate::cli::whole::Whole;
use crate::exchange::Mono;
use crate::live::burst::Burst;
use crate::live::clock;
use crate::matching::FleetAnswer;
use crate::matching::FleetSighting;
use crate::report;
use crate::report::FleetCsv;
use crate::report::FleetEnd;
use crate::report::FleetSummary;
use crate::report::Realservers;
use crate::run::FleetPoll;
use crate::run::FleetSweep;
use crate::verdict;
use std::fs;
use std::io;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How often progress is said where stderr is no terminal, and how often where it is.
const SAID: Duration = Duration::from_secs(10);
const SHOWN: Duration = Duration::from_millis(200);
/// How often results are flushed, and the state is kept.
const FLUSHED: Duration = Duration::from_millis(100);
const KEPT: Duration = Duration::from_secs(1);
/// Naps up to this are slept through; from longer ones, up to the second, what is heard wakes.
const NAP: Duration = Duration::from_micros(100);
const SLEEP: Duration = Duration::from_millis(100);

/// A sweep in its course.
pub(super) struct Run {
    pub(super) sweep: FleetSweep,
    pub(super) mouth: Mouth,
    /// What may be half open, and who closes it if this process is killed.
    pub(super) open: Arc<Open>,
    pub(super) keeper: Keeper,
    /// What it and the ears have to say; they end with the run.
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) _ears: Ears,
    pub(super) interrupts: Arc<AtomicU32>,
    pub(super) results: Results,
    /// Why results could not be written; the sweep is then stopped, so that nothing stays open.
    pub(super) unwritten: Option<Failure>,
    pub(super) format: Format,
    pub(super) csv: FleetCsv,
    pub(super) output: Option<PathBuf>,
    pub(super) summary: FleetSummary,
    /// How long it took before it went on.
    pub(super) earlier: Duration,
    pub(super) began: Mono,
    pub(super) state: Option<PathBuf>,
}

/// When something is to be done next.
struct Every {
    period: Duration,
    last: Mono,
}

impl Every {
    fn is_due(&mut self, now: Mono) -> bool {
        let is_due = now.since(self.last) >= self.period;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

impl Run {
    /// Sweeps, to the end or until it is stopped.
    pub(super) fn play(mut self) -> Result<Ended, Failure> {
        let every = |period| Every {
            period,
            last: self.began,
        };
        let is_terminal = io::stderr().is_terminal();
        let mut shown = every(if is_terminal { SHOWN } else { SAID });
        let (mut flushed, mut kept) = (every(FLUSHED), every(KEPT));
        // Results that come on the same terminal would be torn by it.
        let streams = self.format != Format::Text && self.results.is_stdout();
        let mut screen = Screen::stderr(!streams || !io::stdout().is_terminal());
        let is_closed = loop {
            self.hear_all()?;
            let interrupts = self.interrupts.load(Ordering::Relaxed);
            let now = clock::mono();
            let is_over = self.results.is_closed() || self.unwritten.is_some();
            if (interrupts > 0 || is_over) && !self.sweep.is_partial() {
                self.sweep.stop(now);
                // That nobody reads the results any more is nothing to talk about.
                if !self.results.is_closed() {
                    screen.clear();
                    anstream::eprintln!(
                        "stopping: what was opened is closed first; Ctrl-C again ends at once, and leaves that to a \
                         process in the background"
                    );
                }
            }
            let mut batch = Vec::new();
            let poll = self.sweep.poll(now, &mut batch);
            if !batch.is_empty() {
                self.mouth.say(batch);
            }
            let now = clock::mono();
            let mut written = self.tell();
            if flushed.is_due(now) {
                written = written.and_then(|()| self.results.flush());
            }
            self.unwritten = self.unwritten.take().or(written.err());
            if kept.is_due(now) && self.unwritten.is_none() {
                self.unwritten = self.keep(now).err();
                // A twentieth of the time, at most.
                let cost = clock::mono().since(now);
                kept.period = KEPT.max(20 * cost);
            }
            if shown.is_due(now) {
                let words = self.progress(now);
                match is_terminal {
                    true => drop(screen.show(|_| vec![words])),
                    false => anstream::eprintln!("{words}"),
                }
            }
            match poll {
                FleetPoll::Done => break true,
                _ if interrupts > 1 => break false,
                FleetPoll::Wait(until) => self.nap(until)?,
            }
        };
        screen.clear();
        let ended = self.end();
        // In all other cases it has something to close.
        if is_closed {
            drop(self.mouth);
            self.keeper.dismiss();
        }
        ended
    }

    /// Takes what was heard meanwhile.
    fn hear_all(&mut self) -> Result<(), Failure> {
        while let Ok(heard) = self.heard.try_recv() {
            self.take(heard)?;
        }
        Ok(())
    }

    fn take(&mut self, heard: Heard) -> Result<(), Failure> {
        match heard {
            Heard::Lost(packets) => self.sweep.handle_lost(packets),
            Heard::Failed(error) => return Err(Failure::Ring(error)),
            Heard::CannotSend(error) => return Err(Failure::Burst(error)),
            Heard::Closed(closings) => {
                for send in closings {
                    self.open.set(send.pair.number, send.probe, false);
                }
            }
            Heard::NotSent(refused, time) => {
                for (send, errno) in refused {
                    self.sweep.handle_not_sent(&send, errno, time);
                }
            }
            Heard::Mute(realservers) => {
                for realserver in realservers {
                    self.sweep.handle_mute(realserver, Burst::MUTE);
                }
            }
            Heard::Sightings(sightings) => {
                for (sighting, time) in sightings {
                    match sighting {
                        FleetSighting::Of {
                            pair,
                            probe,
                            answer,
                        } => {
                            if answer == FleetAnswer::Reset {
                                self.open.set(pair, probe, false);
                            }
                            self.sweep.handle_heard(pair, probe, answer, time);
                        }
                        FleetSighting::OneOf { rip, error } => self.summary.add_vague(rip, &error),
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes what was decided.
    fn tell(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        while let Some(swept) = self.sweep.poll_result() {
            if self.unwritten.is_some() {
                continue;
            }
            let judgement = verdict::judge_pair(&swept);
            self.summary.add(&swept, &judgement);
            match self.format {
                Format::Text => {}
                Format::Json => self
                    .results
                    .write(&report::fleet_json(&swept, &judgement))?,
                Format::Csv => {
                    line.clear();
                    self.csv.line(&swept, &judgement, &mut line);
                    self.results.write(&line)?;
                }
            }
        }
        Ok(())
    }

    /// Sleeps until then, or until something is heard.
    fn nap(&mut self, until: Mono) -> Result<(), Failure> {
        let left = until.since(clock::mono());
        if left.is_zero() {
            return Ok(());
        }
        // While much is sent, what was heard is taken between two batches anyhow.
        if left <= NAP {
            thread::sleep(left);
            return Ok(());
        }
        match self.heard.recv_timeout(left.min(SLEEP)) {
            Ok(heard) => self.take(heard),
            Err(_) => Ok(()),
        }
    }

    /// Writes the state, once all that it counts as told is written.
    fn keep(&mut self, now: Mono) -> Result<(), Failure> {
        let Some(path) = self.state.clone() else {
            return Ok(());
        };
        self.results.sync()?;
        let saved = self.sweep.save(Kept {
            summary: self.summary.clone(),
            written: self.results.written,
            elapsed: self.elapsed(now),
            format: name(self.format),
            output: self.output.clone(),
        });
        let write = || {
            let mut file = Whole::begin(&path, Readers::Owner)?;
            file.add(&saved)?;
            file.end()
        };
        write().map_err(|source| cannot_write(&path, source))
    }

    fn elapsed(&self, now: Mono) -> Duration {
        self.earlier + now.since(self.began)
    }

    fn progress(&self, now: Mono) -> String {
        let progress = self.sweep.progress();
        let counts = progress.counts;
        let sent = counts.probes + counts.closings;
        let rate = sent as f64 / self.elapsed(now).as_secs_f64().max(0.001);
        let left = Duration::from_secs(progress.left.as_secs());
        format!(
            "pass {}: {sent} sent, {rate:.0}/s, {} answered, {} errors, {} undecided, {} lost, {} left",
            progress.pass,
            counts.answered,
            counts.errors,
            progress.undecided,
            counts.lost,
            humantime::format_duration(left)
        )
    }

    fn end(&mut self) -> Result<Ended, Failure> {
        if let Some(failure) = self.unwritten.take() {
            return Err(failure);
        }
        let now = clock::mono();
        let is_partial = self.sweep.is_partial();
        match (&self.state, is_partial) {
            (Some(_), true) => self.keep(now)?,
            (Some(path), false) => {
                if let Err(source) = fs::remove_file(path)
                    && source.kind() != io::ErrorKind::NotFound
                {
                    return Err(cannot_write(path, source));
                }
            }
            (None, _) => {}
        }
        let fleet = Arc::clone(self.sweep.fleet());
        let counts = self.sweep.counts();
        let undecided = self.sweep.progress().undecided;
        let end = FleetEnd {
            is_partial,
            undecided,
            probes: counts.probes,
            closings: counts.closings,
            errors: counts.errors,
            repeated: counts.repeated,
            late: counts.late,
            lost: counts.lost,
            elapsed: self.elapsed(now),
        };
        let servers = Realservers::count(&fleet, |pair| self.sweep.is_proven(pair));
        match self.format {
            Format::Json => {
                let line = self.summary.to_json(&fleet, &end, &servers);
                self.results.write(&line)?;
            }
            Format::Text => {
                let text = self.summary.to_text(&fleet, &end, &servers);
                match self.results.is_stdout() {
                    true => output::print(&text)?,
                    false => self.results.write(&text)?,
                }
            }
            Format::Csv => anstream::eprint!("{}", self.summary.to_text(&fleet, &end, &servers)),
        }
        self.results.flush()?;
        if let (Some(path), true) = (&self.state, is_partial) {
            anstream::eprintln!(
                "stopped; the same command goes on from `{}`",
                path.display()
            );
        }
        Ok(Ended::Judged(self.summary.outcome(fleet.pairs())))
    }
}
