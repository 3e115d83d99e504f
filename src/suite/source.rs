//! A file's text, values with their places, and what is wrong so far.

use std::cell::RefCell;
use std::ops::Range;

use toml::de::DeTable;

use crate::suite::Diagnostic;
use crate::suite::Diagnostics;
use crate::suite::Environment;

/// A value and where it stands, in octets of the source.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
    /// The variable that it came from.
    pub(crate) variable: Option<Variable>,
}

/// A variable that stood in the place of a value.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) shown: String,
    pub(crate) place: Option<Range<usize>>,
}

impl<T> At<T> {
    /// A value that stands in the file itself.
    pub(crate) fn new(value: T, span: Range<usize>) -> At<T> {
        At {
            value,
            span,
            variable: None,
        }
    }

    /// The same place with another value.
    pub(crate) fn with<U>(&self, value: U) -> At<U> {
        At {
            value,
            span: self.span.clone(),
            variable: self.variable.clone(),
        }
    }

    /// Whether the command line says it.
    pub(crate) fn is_set(&self) -> bool {
        let is_set = |variable: &Variable| {
            variable.place.is_none() && !Environment::NAMES.contains(&variable.name.as_str())
        };
        self.variable.as_ref().is_some_and(is_set)
    }

    /// What is wrong with it.
    pub(crate) fn wrong(&self, message: impl Into<String>, label: impl Into<String>) -> Diagnostic {
        let problem = Diagnostic::new(self.span.clone(), message, label);
        match &self.variable {
            None => problem,
            Some(Variable {
                name,
                shown,
                place: None,
            }) => problem.hint(format!("`${name}` is {shown} here")),
            Some(Variable {
                name,
                place: Some(place),
                ..
            }) => problem.context(place.clone(), format!("`${name}` comes from here")),
        }
    }
}

/// A file's text, and what is wrong with it so far.
pub(crate) struct Source<'a> {
    text: &'a str,
    problems: RefCell<Vec<Diagnostic>>,
    notes: RefCell<Vec<Diagnostic>>,
}

impl<'a> Source<'a> {
    /// What `read` makes of `text`, which is called `file`, and what is to be noted; a text that is no TOML is not
    /// read.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(crate) fn parse<T>(
        file: &str,
        text: &str,
        read: impl FnOnce(&DeTable<'_>, &Source<'_>) -> Option<T>,
    ) -> Result<(T, Option<Diagnostics>), Diagnostics> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let problems = errors.iter().map(|error| {
            let span = error.span().unwrap_or(0..0);
            Diagnostic::new(span, error.message().replace('\n', ", "), "")
        });
        let source = Source {
            text,
            problems: RefCell::new(problems.collect()),
            notes: RefCell::default(),
        };
        let value = match source.is_clean() {
            true => read(table.get_ref(), &source),
            false => None,
        };
        let (problems, notes) = (source.problems.into_inner(), source.notes.into_inner());
        match value {
            Some(value) if problems.is_empty() => {
                Ok((value, Diagnostics::notes(file, text, notes)))
            }
            _ => Err(Diagnostics::new(file, text, problems)),
        }
    }

    /// Notes a problem.
    pub(crate) fn problem(&self, problem: Diagnostic) {
        self.problems.borrow_mut().push(problem);
    }

    /// Notes what is not wrong, and should be known; once for each place.
    pub(crate) fn note(&self, note: Diagnostic) {
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Notes that something is missing from the file as a whole.
    pub(crate) fn missing(&self, header: &str) {
        let end = self.text.trim_end().len();
        self.problem(Diagnostic::new(
            end..end,
            format!("there is no `{header}`"),
            "expected before the end",
        ));
    }

    /// The place of the octet `at` of a string; the whole string where escapes move it.
    pub(crate) fn inside(&self, span: &Range<usize>, text: &str, at: usize) -> Range<usize> {
        match self.text.get(span.start + 1..span.end.saturating_sub(1)) {
            Some(raw) if raw == text && text.is_char_boundary(at) => {
                let length = text[at..].chars().next().map_or(1, char::len_utf8);
                span.start + 1 + at..span.start + 1 + at + length
            }
            _ => span.clone(),
        }
    }
}
