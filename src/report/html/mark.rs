//! Verdicts as shapes, words and classes: who sees no colour reads the shape, who sees neither the word.

use crate::report::html::markup::Html;
use crate::verdict::HopVerdict;
use crate::verdict::Outcome;
use crate::verdict::Severity;
use crate::verdict::SpoofOutcome;
use crate::verdict::StepOutcome;

/// What a shape and a colour say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Bad,
    Open,
    None,
    Warning,
    Note,
}

impl Mark {
    /// The class that colours, and the name of the symbol.
    pub(super) fn class(self) -> &'static str {
        match self {
            Mark::Good => "good",
            Mark::Bad => "bad",
            Mark::Open => "open",
            Mark::None => "none",
            Mark::Warning => "warning",
            Mark::Note => "note",
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Mark::Good => "#good",
            Mark::Bad => "#bad",
            Mark::Open => "#open",
            Mark::None => "#none",
            Mark::Warning => "#warning",
            Mark::Note => "#note",
        }
    }

    /// The mark in running text.
    pub(super) fn inline(self, html: &mut Html) {
        let class = format!("mark {}", self.class());
        let attributes: [(_, &dyn std::fmt::Display); 3] = [
            ("class", &class),
            ("viewBox", &"0 0 16 16"),
            ("aria-hidden", &"true"),
        ];
        html.element("svg", &attributes, |html| {
            html.shape("use", &[("href", &self.symbol())]);
        });
    }

    /// The mark and its word.
    pub(super) fn with_word(self, html: &mut Html, word: &str) {
        let class = format!("verdict {}", self.class());
        html.element("span", &[("class", &class)], |html| {
            self.inline(html);
            html.words("b", &[], word);
        });
    }

    /// The mark in a drawing, its middle there.
    pub(super) fn drawn(self, html: &mut Html, (x, y): (i32, i32), size: i32) {
        let (left, top) = (x - size / 2, y - size / 2);
        html.shape(
            "use",
            &[
                ("class", &self.class()),
                ("href", &self.symbol()),
                ("x", &left),
                ("y", &top),
                ("width", &size),
                ("height", &size),
            ],
        );
    }
}

/// The symbols that [`Mark`] uses.
pub(super) const SYMBOLS: &str = r#"<svg class="symbols" aria-hidden="true">
<symbol id="good" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7.5"/><path d="M4.2 8.3l2.6 2.7 5-5.6"/></symbol>
<symbol id="bad" viewBox="0 0 16 16"><path class="fill" d="M5 .5h6L15.5 5v6L11 15.5H5L.5 11V5z"/><path d="M5 5l6 6M11 5l-6 6"/></symbol>
<symbol id="open" viewBox="0 0 16 16"><path class="fill" d="M8 0l8 8-8 8-8-8z"/><path d="M6 6.4C6 3.8 10 4 10 6.2 10 8 8 7.8 8 9.5M8 11v1.5"/></symbol>
<symbol id="none" viewBox="0 0 16 16"><circle class="empty" cx="8" cy="8" r="6.5"/><path class="bar" d="M5 8h6"/></symbol>
<symbol id="warning" viewBox="0 0 16 16"><path class="fill" d="M8 .5L16 15H0z"/><path d="M8 5v5M8 11.5v1.5"/></symbol>
<symbol id="note" viewBox="0 0 16 16"><rect class="fill" x="1" y="1" width="14" height="14" rx="3"/><path d="M8 3.5v1.5M8 7v5.5"/></symbol>
</svg>
"#;

impl From<Outcome> for Mark {
    fn from(outcome: Outcome) -> Mark {
        match outcome {
            Outcome::Proven => Mark::Good,
            Outcome::Broken => Mark::Bad,
            Outcome::Unproven => Mark::Open,
        }
    }
}

impl From<HopVerdict> for Mark {
    fn from(verdict: HopVerdict) -> Mark {
        match verdict {
            HopVerdict::Proven => Mark::Good,
            HopVerdict::Broken => Mark::Bad,
            HopVerdict::Unproven => Mark::Open,
            HopVerdict::Skipped => Mark::None,
        }
    }
}

impl From<StepOutcome> for Mark {
    fn from(outcome: StepOutcome) -> Mark {
        match outcome {
            StepOutcome::Passed => Mark::Good,
            StepOutcome::Failed => Mark::Bad,
            StepOutcome::Inconclusive => Mark::Open,
            StepOutcome::Skipped => Mark::None,
        }
    }
}

impl From<SpoofOutcome> for Mark {
    fn from(outcome: SpoofOutcome) -> Mark {
        Mark::from(outcome.verdict())
    }
}

impl From<Severity> for Mark {
    fn from(severity: Severity) -> Mark {
        match severity {
            Severity::Error => Mark::Bad,
            Severity::Warning => Mark::Warning,
            Severity::Note => Mark::Note,
        }
    }
}

/// An outcome's word.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Proven => "proven",
        Outcome::Broken => "broken",
        Outcome::Unproven => "unproven",
    }
}

/// A hop's verdict's word.
pub(super) fn verdict(verdict: HopVerdict) -> &'static str {
    match verdict {
        HopVerdict::Proven => "proven",
        HopVerdict::Broken => "broken",
        HopVerdict::Unproven => "unproven",
        HopVerdict::Skipped => "skipped",
    }
}
