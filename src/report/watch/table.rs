//! The rounds so far as a table for a terminal.

use std::time::Duration;

use anstyle::Style;

use crate::exchange::Wall;
use crate::plan::Hop;
use crate::report::picture::fitted;
use crate::report::picture::with_cells;
use crate::report::style::BAD;
use crate::report::style::BOLD;
use crate::report::style::DIM;
use crate::report::style::Line;
use crate::report::style::PLAIN;
use crate::report::style::TYPE;
use crate::report::style::sign;
use crate::report::text;
use crate::report::watch::Trips;
use crate::report::watch::Watch;
use crate::report::watch::Watched;
use crate::report::watch::WatchedHop;
use crate::verdict::HopVerdict;
use crate::verdict::Severity;

/// The first column: sign and hop.
const FIRST: usize = 24;
/// How many changes are drawn, if there is room.
const CHANGES: usize = 6;

/// A column: heading, width, what it says of a hop, and how it looks.
type Column = (
    &'static str,
    usize,
    fn(&WatchedHop, Wall) -> (String, Style),
);

/// All columns, from left to right; the number says in which order they are left out where there is no room.
const COLUMNS: [(u8, Column); 11] = [
    (
        10,
        ("state", 8, |hop, _| {
            let (_, style, word) = sign(hop.verdict);
            (word.to_owned(), style)
        }),
    ),
    (
        1,
        ("since", 6, |hop, now| (age(now.distance(hop.since)), PLAIN)),
    ),
    (
        9,
        ("seen", 9, |hop, _| match hop.count.sent {
            0 => dash(),
            sent => (format!("{}/{sent}", hop.count.arrived), PLAIN),
        }),
    ),
    (2, ("loss", 6, loss)),
    (3, ("last ms", 7, |hop, _| time(hop, |trips| trips.last))),
    (4, ("avg", 6, |hop, _| time(hop, |trips| trips.mean))),
    (6, ("best", 6, |hop, _| time(hop, |trips| trips.best))),
    (7, ("worst", 6, |hop, _| time(hop, |trips| trips.worst))),
    (8, ("stdev", 6, |hop, _| time(hop, Trips::deviation))),
    (
        5,
        ("flaps", 5, |hop, _| match hop.flaps {
            0 => dash(),
            flaps => (flaps.to_string(), BOLD),
        }),
    ),
    (
        11,
        ("samples", 7, |hop, _| match hop.trips.count {
            0 => dash(),
            samples => (samples.to_string(), PLAIN),
        }),
    ),
];

impl Watch {
    /// The table as it is `now`, in lines with escape sequences for colour, at most so many and so wide: every hop; or,
    /// where that is too much, a line for each path. Below it what is broken, what changed, and `status`.
    pub fn lines(&self, (columns, rows): (usize, usize), now: Wall, status: &str) -> Vec<String> {
        let room = rows.saturating_sub(1);
        let mut lines: Vec<_> = self
            .paths
            .iter()
            .flat_map(|path| path.table(columns, now))
            .collect();
        if lines.len() > room {
            lines = self.overview(columns, now);
            lines.truncate(room);
        }
        for path in &self.paths {
            let causes = path.causes(columns);
            // All of them or none: half a command is none.
            if lines.len() + causes.len() <= room {
                lines.extend(causes);
            }
        }
        let changes = room.saturating_sub(lines.len() + 1).min(CHANGES);
        let skipped = self.recent.len().saturating_sub(changes);
        if changes > 0 && !self.recent.is_empty() {
            lines.push(String::new());
        }
        for change in self.recent.iter().skip(skipped) {
            let clock = change.time.to_string();
            let clock = clock.get(11..19).unwrap_or_default();
            let line = Line::new(columns)
                .with(DIM, &format!("{clock} "))
                .with(PLAIN, &format!("{} {}: ", change.realserver, change.hop));
            let line = line.with(sign(change.to).1, &change.course());
            lines.push(line.end());
        }
        lines.push(Line::new(columns).with(DIM, status).end());
        lines
    }

    fn overview(&self, columns: usize, now: Wall) -> Vec<String> {
        let names = self
            .paths
            .iter()
            .map(|path| path.realserver.chars().count());
        let width = names
            .max()
            .unwrap_or_default()
            .clamp(4, columns.max(20) / 4);
        let heading = format!(
            "{:width$} c d   s     g  c {:>7} {:>6} {:>7} {:>5}",
            "", "since", "loss", "loop ms", "flaps"
        );
        let heading = Line::new(columns).with(DIM, &heading).end();
        let rows = self.paths.iter().map(|path| path.row(width, columns, now));
        [heading].into_iter().chain(rows).collect()
    }
}

impl Watched {
    fn table(&self, columns: usize, now: Wall) -> Vec<String> {
        let shown = shown(columns);
        let (style, word) = text::outcome(self.verdict);
        let title = Line::new(columns)
            .with(BOLD, &self.title)
            .with(PLAIN, "  ")
            .with(style, word);
        let mut heading = Line::new(columns).with(DIM, &format!("{:FIRST$}", "  hop"));
        for (name, width, _) in &shown {
            heading = heading.with(DIM, &format!(" {name:>width$}"));
        }
        let mut lines = vec![title.end(), heading.end()];
        for hop in &self.hops {
            let (sign, style, _) = sign(hop.verdict);
            let name = format!("{sign} {:22}", hop.hop.id());
            let mut line = Line::new(columns).with(style, &name);
            for (_, width, cell) in &shown {
                let (text, style) = cell(hop, now);
                line = line.with(style, &format!(" {text:>width$}"));
            }
            lines.push(line.end());
        }
        lines
    }

    /// One line for the whole path: its worst hop's age and loss, and the closed loop.
    fn row(&self, width: usize, columns: usize, now: Wall) -> String {
        let line = Line::new(columns).with(BOLD, &fitted(&self.realserver, width));
        let cells = self.hops.iter().map(|hop| {
            let (sign, style, _) = sign(hop.verdict);
            (hop.hop, (sign, style))
        });
        let line = with_cells(line, &self.ends, cells);
        let newest = self.hops.iter().max_by_key(|hop| hop.since);
        let since = newest.map_or_else(String::new, |hop| age(now.distance(hop.since)));
        let worst = self
            .hops
            .iter()
            .max_by(|a, b| a.lost().total_cmp(&b.lost()));
        let (lost, style) = worst.map_or_else(dash, |hop| loss(hop, now));
        let mut line = line
            .with(PLAIN, &format!(" {since:>7}"))
            .with(style, &format!(" {lost:>6}"));
        let end = self
            .hops
            .iter()
            .find(|hop| hop.hop == Hop::ReturnToDirector);
        let (took, style) = end.map_or_else(dash, |hop| time(hop, |trips| trips.last));
        line = line.with(style, &format!(" {took:>7}"));
        let flaps: u32 = self.hops.iter().map(|hop| hop.flaps).sum();
        let (flaps, style) = match flaps {
            0 => dash(),
            flaps => (flaps.to_string(), BOLD),
        };
        line = line.with(style, &format!(" {flaps:>5}"));
        let mut hops = self.hops.iter();
        match hops.find(|hop| hop.verdict == HopVerdict::Broken) {
            Some(hop) => line.with(BAD, &format!(" {}", hop.hop)).end(),
            None => line.end(),
        }
    }

    /// What breaks it, and what mends it.
    fn causes(&self, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let errors = self.findings.iter();
        for cause in errors.filter(|finding| finding.severity == Severity::Error) {
            lines.push(String::new());
            let line = Line::new(columns).with(BAD, &format!("error[{}]", cause.code));
            let summary = format!(": {}: {}", self.realserver, cause.summary);
            lines.push(line.with(BOLD, &summary).end());
            for command in &cause.fix {
                // Nothing of a command is cut off.
                let all: Vec<char> = format!("  type {command}").chars().collect();
                let pieces = all.chunks(columns.max(1));
                let pieces = pieces.map(|piece| piece.iter().collect::<String>());
                lines.extend(pieces.map(|p| Line::new(columns).with(TYPE, &p).end()));
            }
        }
        lines
    }
}

impl WatchedHop {
    /// The part of the probes that was not seen beyond it.
    fn lost(&self) -> f64 {
        match self.count.sent {
            0 => 0.0,
            sent => self.count.lost() as f64 / sent as f64,
        }
    }
}

/// The columns that fit, from left to right.
fn shown(columns: usize) -> Vec<Column> {
    let mut by_worth: Vec<_> = COLUMNS.iter().collect();
    by_worth.sort_by_key(|(worth, _)| *worth);
    let mut room = columns.saturating_sub(FIRST);
    let mut least = 0;
    for (worth, (_, width, _)) in by_worth {
        let Some(left) = room.checked_sub(width + 1) else {
            break;
        };
        (room, least) = (left, *worth);
    }
    let kept = COLUMNS.iter().filter(|(worth, _)| *worth <= least);
    kept.map(|(_, column)| *column).collect()
}

fn loss(hop: &WatchedHop, _: Wall) -> (String, Style) {
    match (hop.count.sent, hop.count.lost()) {
        (0, _) => dash(),
        (_, 0) => ("0%".to_owned(), PLAIN),
        _ => (format!("{:.1}%", hop.lost() * 100.0), BOLD),
    }
}

fn time(hop: &WatchedHop, of: fn(&Trips) -> f64) -> (String, Style) {
    if hop.trips.count == 0 {
        return (String::new(), PLAIN);
    }
    let text = match of(&hop.trips) {
        ms if ms < 9.995 => format!("{ms:.2}"),
        ms if ms < 99.95 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    };
    (text, PLAIN)
}

fn dash() -> (String, Style) {
    ("-".to_owned(), DIM)
}

/// A duration in at most six characters: its two greatest units.
pub(super) fn age(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{:02}m", minutes % 60),
        (..100, _, _) => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}
