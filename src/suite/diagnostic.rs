//! What is wrong with a file, shown at its place.

use std::error::Error;
use std::fmt;
use std::ops::Range;

use annotate_snippets::AnnotationKind;
use annotate_snippets::Group;
use annotate_snippets::Level;
use annotate_snippets::Renderer;
use annotate_snippets::Snippet;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in one line.
    pub message: String,
    /// The text at fault, in octets of the source.
    pub span: Range<usize>,
    /// What was expected there; possibly empty.
    pub label: String,
    /// Another place that has to do with it, and what.
    pub context: Option<(Range<usize>, String)>,
    /// What to do, if there is more to say.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// `message` about `span`, where `label` was expected.
    pub(crate) fn new(
        span: Range<usize>,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic {
            message: message.into(),
            span,
            label: label.into(),
            context: None,
            hint: None,
        }
    }

    /// The same with a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// The same with another place.
    pub(crate) fn context(mut self, span: Range<usize>, label: impl Into<String>) -> Diagnostic {
        self.context = Some((span, label.into()));
        self
    }
}

/// Everything that is wrong with a file, or is to be noted of it, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    source: String,
    list: Vec<Diagnostic>,
    are_notes: bool,
}

impl Diagnostics {
    /// What is wrong with `source`, read from `file`.
    pub(crate) fn new(file: &str, source: &str, mut list: Vec<Diagnostic>) -> Diagnostics {
        list.sort_by_key(|problem| problem.span.start);
        Diagnostics {
            file: file.to_owned(),
            source: source.to_owned(),
            list,
            are_notes: false,
        }
    }

    /// What is to be noted of `source`, read from `file`; `None` if that is nothing.
    pub(crate) fn notes(file: &str, source: &str, list: Vec<Diagnostic>) -> Option<Diagnostics> {
        let notes = Diagnostics {
            are_notes: true,
            ..Diagnostics::new(file, source, list)
        };
        (!notes.list.is_empty()).then_some(notes)
    }

    /// Each in turn.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// Line and column of a diagnostic, both from 1, the column in characters.
    pub fn place(&self, problem: &Diagnostic) -> (usize, usize) {
        let before = &self.source[..problem.span.start.min(self.source.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// For a terminal, with escape sequences for colour.
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        self.list
            .iter()
            .map(|problem| renderer.render(&[self.group(problem)]))
            .collect::<Vec<_>>()
            .join("\n\n")
    }

    fn group<'a>(&'a self, problem: &'a Diagnostic) -> Group<'a> {
        let mut snippet = Snippet::source(&self.source).path(&self.file).annotation(
            AnnotationKind::Primary
                .span(problem.span.clone())
                .label(&problem.label),
        );
        if let Some((span, label)) = &problem.context {
            snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label));
        }
        let level = match self.are_notes {
            true => Level::NOTE,
            false => Level::ERROR,
        };
        let mut group = level.primary_title(&problem.message).element(snippet);
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
        group
    }
}

/// Without colour.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl Error for Diagnostics {}

/// The known name that is nearest to `name`, if one is near enough to have been meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters to insert, delete, replace or exchange with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above = &rows[i - 1];
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("prot", "port"), 1);
    }

    #[test]
    fn nearest_finds_what_was_meant_and_nothing_far_off() {
        let known = ["ingress", "egress", "via", "ip"];
        assert_eq!(nearest("ingres", known), Some("ingress"));
        assert_eq!(nearest("egres", known), Some("egress"));
        assert_eq!(nearest("vai", ["name", "via"]), Some("via"));
        assert_eq!(nearest("gateway", known), None);
    }
}
