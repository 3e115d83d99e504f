//! How far a proof is, on one line of a terminal.

use std::io::IsTerminal;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use crate::run;

/// How often the line is written anew, at the most.
const PERIOD: Duration = Duration::from_millis(100);

/// A line on stderr that is updated in place, and erased when dropped; nothing where stderr is no terminal.
pub(super) struct ProgressLine {
    is_shown: bool,
    written: Option<Instant>,
    /// How long it took to find out what was shown last.
    cost: Duration,
}

impl ProgressLine {
    /// A line, if it is wanted: a listener's own output would be torn by it.
    pub(super) fn new(is_wanted: bool) -> ProgressLine {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        ProgressLine {
            is_shown: is_wanted && !is_dumb && std::io::stderr().is_terminal(),
            written: None,
            cost: Duration::ZERO,
        }
    }

    /// Shows how far it is, unless that was shown just now: finding it out takes time, a twentieth at most.
    pub(super) fn show(&mut self, progress: impl FnOnce() -> run::Progress) {
        let period = PERIOD.max(20 * self.cost);
        if self.is_shown && self.written.is_none_or(|at| at.elapsed() >= period) {
            let began = Instant::now();
            let line = line(&progress());
            self.cost = began.elapsed();
            self.say(&line);
        }
    }

    /// Shows `words`, cut off where the terminal ends.
    pub(super) fn say(&mut self, words: &str) {
        if self.is_shown {
            self.written = Some(Instant::now());
            // It is of no account if it cannot be written.
            let _ = write!(std::io::stderr(), "\r\x1b[K\x1b[?7l{words}\x1b[?7h");
        }
    }

    /// Erases the line, so that something else can be written.
    pub(super) fn clear(&mut self) {
        if self.written.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(progress: &run::Progress) -> String {
    let run::Progress {
        phase,
        proven,
        hops,
        sent,
        elapsed,
    } = progress;
    let probes = if *sent == 1 { "probe" } else { "probes" };
    format!(
        "{phase}: {proven} of {hops} hops proven, {sent} {probes} sent, {:.1} s",
        elapsed.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_a_terminal() {
        let progress = run::Progress {
            phase: "probing",
            proven: 7,
            hops: 12,
            sent: 31,
            elapsed: Duration::from_millis(2_345),
        };
        assert_eq!(
            line(&progress),
            "probing: 7 of 12 hops proven, 31 probes sent, 2.3 s"
        );
    }
}
