//! What `watch` says line by line: text for people and logs, and JSON lines of schema `tunproof.watch/1`.
//!
//! Each line is an object with `schema`, `event` and `time` (RFC 3339):
//!
//! | event | fields |
//! | --- | --- |
//! | `round` | `round` (from 1), `verdict`, `elapsed_ms`, `probes` sent, `missing` (names of hosts without an agent), `paths` |
//! | `change` | `round`, `realserver`, `hop`, `from` (null in the first round), `to`, `code` of the finding that breaks it or null, `reason` or null, `fix` (commands to type) |
//! | `end` | `verdict` (the worst of all rounds), `rounds`, `proven`, `unproven`, `broken` (rounds of that verdict), `flaps` |
//!
//! A path has `realserver`, `verdict`, `findings` (codes) and `hops`; a hop has `id`, `verdict`, `since` (RFC 3339), and
//! over all rounds `sent` and `seen` (probes that set out on it, and were seen beyond it), `flaps` (from proven to broken
//! or back), and `round_trip_ms`: `samples`, `last`, `avg`, `best`, `worst`, `stdev`, or null where none is known.
//! Fields may be added under this name; none is renamed or removed.

use serde::Serialize;

use crate::exchange::Wall;
use crate::plan::Hop;
use crate::report::style::sign;
use crate::report::text::elapsed;
use crate::report::watch::Change;
use crate::report::watch::Trips;
use crate::report::watch::Watch;
use crate::report::watch::Watched;
use crate::report::watch::WatchedHop;
use crate::report::watch::table::age;
use crate::verdict::Code;
use crate::verdict::HopVerdict;
use crate::verdict::Outcome;

/// The schema's name.
const SCHEMA: &str = "tunproof.watch/1";

#[derive(Serialize)]
struct Event<'a, T: Serialize> {
    schema: &'static str,
    event: &'static str,
    time: String,
    #[serde(flatten)]
    content: &'a T,
}

#[derive(Serialize)]
struct Round<'a> {
    round: u32,
    verdict: Outcome,
    elapsed_ms: u64,
    probes: usize,
    missing: &'a [String],
    paths: Vec<PathNow<'a>>,
}

#[derive(Serialize)]
struct PathNow<'a> {
    realserver: &'a str,
    verdict: Outcome,
    findings: Vec<Code>,
    hops: Vec<HopNow>,
}

#[derive(Serialize)]
struct HopNow {
    id: Hop,
    verdict: HopVerdict,
    since: String,
    sent: usize,
    seen: usize,
    flaps: u32,
    round_trip_ms: Option<RoundTrip>,
}

#[derive(Serialize)]
struct RoundTrip {
    samples: u32,
    last: f64,
    avg: f64,
    best: f64,
    worst: f64,
    stdev: f64,
}

#[derive(Serialize)]
struct Changed<'a> {
    round: u32,
    realserver: &'a str,
    hop: Hop,
    from: Option<HopVerdict>,
    to: HopVerdict,
    code: Option<Code>,
    reason: Option<&'a str>,
    fix: &'a [String],
}

#[derive(Serialize)]
struct End {
    verdict: Option<Outcome>,
    rounds: u32,
    proven: u32,
    unproven: u32,
    broken: u32,
    flaps: u32,
}

fn line<T: Serialize>(event: &'static str, time: Wall, content: &T) -> String {
    let line = Event {
        schema: SCHEMA,
        event,
        time: time.to_string(),
        content,
    };
    let mut text = serde_json::to_string(&line).expect("it has string keys only");
    text.push('\n');
    text
}

impl Change {
    /// The change as a JSON line.
    pub fn to_json(&self) -> String {
        let changed = Changed {
            round: self.round,
            realserver: &self.realserver,
            hop: self.hop,
            from: self.from,
            to: self.to,
            code: self.code,
            reason: self.reason.as_deref(),
            fix: &self.fix,
        };
        line("change", self.time, &changed)
    }

    /// The change on one line: when, where, from what to what, and why; what to type.
    pub fn to_text(&self) -> String {
        let (realserver, hop) = (&self.realserver, self.hop);
        let time = seconds(self.time);
        format!("{time} {realserver} {hop}: {}\n", self.course())
    }

    /// From what to what, and why; what to type.
    pub(super) fn course(&self) -> String {
        let to = word(self.to);
        let mut text = match self.from {
            Some(from) => format!("{} -> {to}", word(from)),
            None => to.to_owned(),
        };
        if let Some(code) = self.code {
            text = format!("{text} [{code}]");
        }
        if let Some(reason) = self
            .reason
            .as_deref()
            .filter(|_| self.to != HopVerdict::Proven)
        {
            text = format!("{text} {}", reason.trim_start_matches("not tried: "));
        }
        if !self.fix.is_empty() {
            text = format!("{text}; type {}", self.fix.join("; "));
        }
        text
    }
}

impl Watch {
    /// The round that was added last, as a JSON line; `missing` are the hosts without an agent.
    ///
    /// # Panics
    ///
    /// Before the first round.
    pub fn round_json(&self, missing: &[String]) -> String {
        let last = self.last.as_ref().expect("there was a round");
        let round = Round {
            round: self.rounds,
            verdict: last.verdict,
            elapsed_ms: last.elapsed_ms,
            probes: last.sent,
            missing,
            paths: self.paths.iter().map(Watched::now).collect(),
        };
        line("round", last.began, &round)
    }

    /// The round that was added last, on one line.
    ///
    /// # Panics
    ///
    /// Before the first round.
    pub fn round_text(&self) -> String {
        let last = self.last.as_ref().expect("there was a round");
        let hops = || self.paths.iter().flat_map(|path| &path.hops);
        let proven = hops().filter(|hop| hop.verdict == HopVerdict::Proven);
        let (proven, all) = (proven.count(), hops().count());
        let loops = hops().filter(|hop| hop.hop == Hop::ReturnToDirector);
        let mut loops = loops.filter(|hop| hop.trips.count > 0).peekable();
        let round_trip = match loops.peek() {
            Some(_) => {
                let worst = loops.map(|hop| hop.trips.last).fold(0.0, f64::max);
                format!("; closed loop {worst:.1} ms")
            }
            None => String::new(),
        };
        let (time, took) = (seconds(last.began), elapsed(last.elapsed_ms));
        let (number, sent) = (self.rounds, last.sent);
        let verdict = match last.verdict {
            Outcome::Proven => "proven",
            Outcome::Unproven => "unproven",
            Outcome::Broken => "broken",
        };
        format!(
            "{time} round {number}: {verdict}, {proven} of {all} hops{round_trip}; {sent} probes in {took}\n"
        )
    }

    /// All rounds, as a JSON line.
    pub fn end_json(&self, now: Wall) -> String {
        let end = End {
            verdict: self.worst(),
            rounds: self.rounds,
            proven: self.proven,
            unproven: self.unproven,
            broken: self.broken,
            flaps: self.flaps,
        };
        line("end", now, &end)
    }

    /// All rounds, on one line.
    pub fn end_text(&self, now: Wall) -> String {
        let began = self.began.unwrap_or(now);
        let took = age(now.distance(began));
        let rounds = match self.rounds {
            1 => "1 round".to_owned(),
            number => format!("{number} rounds"),
        };
        let counts = [
            (self.proven, "proven"),
            (self.unproven, "unproven"),
            (self.broken, "broken"),
        ];
        let counts = counts.iter().filter(|(number, _)| *number > 0);
        let counts: Vec<_> = counts
            .map(|(number, word)| format!("{number} {word}"))
            .collect();
        let flaps = match self.flaps {
            0 => String::new(),
            1 => "; a hop flapped once".to_owned(),
            number => format!("; hops flapped {number} times"),
        };
        format!("{rounds} in {took}: {}{flaps}\n", counts.join(", "))
    }
}

impl Watched {
    fn now(&self) -> PathNow<'_> {
        PathNow {
            realserver: &self.realserver,
            verdict: self.verdict,
            findings: self.findings.iter().map(|finding| finding.code).collect(),
            hops: self.hops.iter().map(WatchedHop::now).collect(),
        }
    }
}

impl WatchedHop {
    fn now(&self) -> HopNow {
        HopNow {
            id: self.hop,
            verdict: self.verdict,
            since: self.since.to_string(),
            sent: self.count.sent,
            seen: self.count.arrived,
            flaps: self.flaps,
            round_trip_ms: (self.trips.count > 0).then(|| RoundTrip::from(&self.trips)),
        }
    }
}

impl From<&Trips> for RoundTrip {
    fn from(trips: &Trips) -> RoundTrip {
        // A kernel's time stamps say no more than that.
        let micros = |ms: f64| (ms * 1e3).round() / 1e3;
        RoundTrip {
            samples: trips.count,
            last: micros(trips.last),
            avg: micros(trips.mean),
            best: micros(trips.best),
            worst: micros(trips.worst),
            stdev: micros(trips.deviation()),
        }
    }
}

/// A time without fractions of a second.
fn seconds(time: Wall) -> String {
    let time = time.to_string();
    format!("{}Z", time.get(..19).unwrap_or(&time))
}

fn word(verdict: HopVerdict) -> &'static str {
    sign(verdict).2
}
