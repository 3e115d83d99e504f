//! The hops of every path, round after round: what `tunproof watch` knows.
//!
//! A round's verdict is the judge's. Here they are only compared: what changed, since when it is so, and how packets
//! fared over all rounds.

mod said;
mod table;

use std::collections::VecDeque;
use std::time::Duration;

use crate::evidence::Count;
use crate::evidence::Evidence;
use crate::exchange::Wall;
use crate::plan::Hop;
use crate::report::FindingReport;
use crate::report::HopReport;
use crate::report::PathReport;
use crate::report::Report;
use crate::report::picture::Ends;
use crate::report::text;
use crate::verdict::Code;
use crate::verdict::HopVerdict;
use crate::verdict::Outcome;
use crate::verdict::Severity;

/// How many changes are kept to be drawn.
const KEPT: usize = 50;

/// Everything since the first round.
#[derive(Debug, Default)]
pub struct Watch {
    paths: Vec<Watched>,
    rounds: u32,
    /// How many rounds were proven, unproven and broken.
    proven: u32,
    unproven: u32,
    broken: u32,
    flaps: u32,
    recent: VecDeque<Change>,
    began: Option<Wall>,
    last: Option<Last>,
}

/// The last round.
#[derive(Clone, Debug)]
struct Last {
    began: Wall,
    verdict: Outcome,
    elapsed_ms: u64,
    sent: usize,
}

/// A path over all rounds.
#[derive(Debug)]
struct Watched {
    realserver: String,
    title: String,
    ends: Ends,
    verdict: Outcome,
    hops: Vec<WatchedHop>,
    findings: Vec<FindingReport>,
}

/// A hop over all rounds.
#[derive(Debug)]
struct WatchedHop {
    hop: Hop,
    verdict: HopVerdict,
    /// The beginning of the first round of those in which it was so.
    since: Wall,
    count: Count,
    trips: Trips,
    flaps: u32,
    /// What it was when it was last proven or broken.
    decided: Option<HopVerdict>,
}

/// A hop's verdict that is another than that of the round before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the round began.
    pub time: Wall,
    /// Its number, from 1.
    pub round: u32,
    /// The real server whose path it is.
    pub realserver: String,
    /// The hop.
    pub hop: Hop,
    /// Its verdict before; `None` in the first round.
    pub from: Option<HopVerdict>,
    /// Its verdict now.
    pub to: HopVerdict,
    /// What breaks it.
    pub code: Option<Code>,
    /// That in one line, or why it is unproven or skipped.
    pub reason: Option<String>,
    /// Commands to type.
    pub fix: Vec<String>,
}

/// Round trips: the last, and what is known of all (Welford's method).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Trips {
    count: u32,
    last: f64,
    best: f64,
    worst: f64,
    mean: f64,
    squares: f64,
}

impl Trips {
    /// In milliseconds.
    fn add(&mut self, trip: Duration) {
        let ms = trip.as_secs_f64() * 1e3;
        self.best = if self.count == 0 {
            ms
        } else {
            self.best.min(ms)
        };
        self.worst = self.worst.max(ms);
        self.last = ms;
        self.count += 1;
        let off = ms - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (ms - self.mean);
    }

    fn deviation(&self) -> f64 {
        match self.count {
            0 | 1 => 0.0,
            count => (self.squares / f64::from(count - 1)).sqrt(),
        }
    }
}

impl Watch {
    /// Takes a round that was judged; what changed. In the first round that is what is not proven.
    pub fn add(&mut self, evidence: &Evidence, report: &Report, began: Wall) -> Vec<Change> {
        self.rounds += 1;
        self.began.get_or_insert(began);
        match report.verdict {
            Outcome::Proven => self.proven += 1,
            Outcome::Unproven => self.unproven += 1,
            Outcome::Broken => self.broken += 1,
        }
        self.last = Some(Last {
            began,
            verdict: report.verdict,
            elapsed_ms: report.timing.elapsed_ms,
            sent: report.probes_sent(),
        });
        let mut changes = Vec::new();
        for (number, path) in report.paths.iter().enumerate() {
            if self.paths.len() == number {
                self.paths.push(Watched::new(path, began));
            }
            let watched = &mut self.paths[number];
            watched.verdict = path.verdict;
            watched.ends = Ends::of(path);
            watched.findings.clone_from(&path.findings);
            let broken = path.hops.iter();
            let broken = broken.filter(|hop| hop.verdict == HopVerdict::Broken);
            let broken: Vec<_> = broken.map(|hop| hop.id).collect();
            let traffic = evidence.traffic(number, &broken);
            let trips = evidence.round_trips(number);
            for (known, hop) in watched.hops.iter_mut().zip(&path.hops) {
                let before = (self.rounds > 1).then_some(known.verdict);
                if before.unwrap_or(HopVerdict::Proven) != hop.verdict {
                    changes.push(change((began, self.rounds), path, hop, before));
                }
                self.flaps += known.take(hop, began);
                if let Some(count) = traffic.get(&hop.id) {
                    known.count.sent += count.sent;
                    known.count.arrived += count.arrived;
                }
                for (_, trip) in trips.iter().filter(|(of, _)| *of == hop.id) {
                    known.trips.add(*trip);
                }
            }
        }
        self.recent.extend(changes.iter().cloned());
        self.recent.drain(..self.recent.len().saturating_sub(KEPT));
        changes
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The worst verdict of all rounds; `None` before the first.
    pub fn worst(&self) -> Option<Outcome> {
        Some(match (self.rounds, self.unproven, self.broken) {
            (0, ..) => return None,
            (_, 0, 0) => Outcome::Proven,
            (_, _, 0) => Outcome::Unproven,
            _ => Outcome::Broken,
        })
    }
}

fn change(
    (time, round): (Wall, u32),
    path: &PathReport,
    hop: &HopReport,
    from: Option<HopVerdict>,
) -> Change {
    let mut causes = path.findings.iter();
    let cause = causes.find(|f| f.severity == Severity::Error && f.hop == hop.id);
    let cause = cause.filter(|_| hop.verdict == HopVerdict::Broken);
    Change {
        time,
        round,
        realserver: path.realserver.clone(),
        hop: hop.id,
        from,
        to: hop.verdict,
        code: cause.map(|cause| cause.code),
        reason: match cause {
            Some(cause) => Some(cause.summary.clone()),
            None => hop.reason.clone(),
        },
        fix: cause.map(|cause| cause.fix.clone()).unwrap_or_default(),
    }
}

impl Watched {
    fn new(path: &PathReport, began: Wall) -> Watched {
        let service = (path.vip, path.port, path.protocol.name());
        let hops = path.hops.iter().map(|hop| WatchedHop {
            hop: hop.id,
            verdict: hop.verdict,
            since: began,
            count: Count::default(),
            trips: Trips::default(),
            flaps: 0,
            decided: None,
        });
        Watched {
            realserver: path.realserver.clone(),
            title: text::title(&path.realserver, path.cip, service),
            ends: Ends::of(path),
            verdict: path.verdict,
            hops: hops.collect(),
            findings: Vec::new(),
        }
    }
}

impl WatchedHop {
    /// Takes the verdict of a round; 1 if the hop went from proven to broken or back, whatever it was in between.
    fn take(&mut self, hop: &HopReport, began: Wall) -> u32 {
        if self.verdict != hop.verdict {
            (self.verdict, self.since) = (hop.verdict, began);
        }
        if !matches!(hop.verdict, HopVerdict::Proven | HopVerdict::Broken) {
            return 0;
        }
        let before = self.decided.replace(hop.verdict);
        let flapped = u32::from(before.is_some_and(|before| before != hop.verdict));
        self.flaps += flapped;
        flapped
    }
}

#[cfg(test)]
mod tests;
