//! Colours, signs, and lines that are no wider than a terminal.

use anstyle::AnsiColor;
use anstyle::Effects;
use anstyle::Style;

use crate::verdict::HopVerdict;

pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
pub(super) const OPEN: Style = AnsiColor::Yellow.on_default();
pub(super) const DIM: Style = Style::new().effects(Effects::DIMMED);
pub(super) const BOLD: Style = Style::new().effects(Effects::BOLD);
pub(super) const TYPE: Style = AnsiColor::Cyan.on_default().effects(Effects::BOLD);
pub(super) const PLAIN: Style = Style::new();

/// A verdict's sign, its colour and its word.
pub(super) fn sign(verdict: HopVerdict) -> (char, Style, &'static str) {
    match verdict {
        HopVerdict::Proven => ('✔', GOOD, "proven"),
        HopVerdict::Broken => ('✘', BAD, "broken"),
        HopVerdict::Unproven => ('?', OPEN, "unproven"),
        HopVerdict::Skipped => ('·', DIM, "skipped"),
    }
}

/// The width of a text without its escape sequences.
pub(super) fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .count()
}

/// A line of styled pieces, cut off where it ends.
#[derive(Debug)]
pub(super) struct Line {
    text: String,
    room: usize,
}

impl Line {
    /// An empty line of so many characters at most.
    pub(super) fn new(width: usize) -> Line {
        Line {
            text: String::new(),
            room: width,
        }
    }

    /// How many characters are left.
    /// The line with this appended, as far as it fits; what does not, ends in `…`, and nothing comes after it.
    pub(super) fn with(mut self, style: Style, piece: &str) -> Line {
        let width = piece.chars().count();
        let fitting = match width <= self.room {
            true => piece.to_owned(),
            false => {
                let kept = piece.chars().take(self.room.saturating_sub(1));
                kept.chain((self.room > 0).then_some('…')).collect()
            }
        };
        self.room = self.room.saturating_sub(width);
        if !fitting.is_empty() {
            self.text.push_str(&format!("{style}{fitting}{style:#}"));
        }
        self
    }

    /// The line as it is written.
    pub(super) fn end(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_where_the_terminal_does() {
        let line = |width| {
            let line = Line::new(width).with(GOOD, "✔ eight").with(PLAIN, " more");
            anstream::adapter::strip_str(&line.end()).to_string()
        };
        assert_eq!(line(80), "✔ eight more");
        assert_eq!(line(12), "✔ eight more");
        assert_eq!(line(11), "✔ eight mo…");
        assert_eq!(line(7), "✔ eight");
        assert_eq!(line(3), "✔ …");
        assert_eq!(line(0), "");
    }
}
