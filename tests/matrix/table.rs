//! What came of the cases, as tables in Markdown; the committed ones are held against a full run.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Set to `write`, the tables are written instead of compared.
const SWITCH: &str = "TUNPROOF_TABLES";

/// What a case must come to. Several of a kind mean any of them; none, that it is not asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    /// Exit statuses.
    pub(crate) exits: Vec<i64>,
    /// The first broken hop, or `-`.
    pub(crate) hops: Vec<String>,
    /// The codes of the errors.
    pub(crate) codes: Vec<String>,
}

/// What a case came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) exit: i64,
    /// The first broken hop, or `-`.
    pub(crate) hop: String,
    /// The codes of the findings, by severity, each once, in the report's order.
    pub(crate) errors: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Outcome {
    /// Reads a report.
    pub(crate) fn of(exit: i64, report: &Value) -> Outcome {
        let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let codes = |severity: &str| {
            let mut codes: Vec<String> = Vec::new();
            for finding in list("findings") {
                let code = word(&finding["code"]);
                if finding["severity"] == severity && !codes.contains(&code) {
                    codes.push(code);
                }
            }
            codes
        };
        let hops = list("hops");
        let broken = hops.iter().find(|hop| hop["verdict"] == "broken");
        Outcome {
            exit,
            hop: broken.map_or_else(|| "-".to_owned(), |hop| word(&hop["id"])),
            errors: codes("error"),
            warnings: codes("warning"),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) topology: String,
    pub(crate) fault: String,
    pub(crate) vantages: String,
    pub(crate) expected: Expected,
    pub(crate) outcome: Outcome,
    pub(crate) as_expected: bool,
}

impl Row {
    fn part(&self) -> Part {
        match &self.expected.exits[..] {
            exits if exits.contains(&1) => Part::Fault,
            [3] => Part::Undecided,
            _ if !self.expected.codes.is_empty() => Part::Warned,
            _ => Part::Trap,
        }
    }

    /// The line. Where several outcomes are right, they stand there, not the one of this run.
    fn line(&self) -> String {
        let verdict = |exit: &i64| match exit {
            0 => "proven",
            1 => "broken",
            3 => "unproven",
            _ => "not run",
        };
        let free = |several: bool| several && self.as_expected;
        let verdicts: Vec<_> = match free(self.expected.exits.len() > 1) {
            true => self.expected.exits.iter().map(verdict).collect(),
            false => vec![verdict(&self.outcome.exit)],
        };
        let hop = match free(self.expected.hops.len() > 1) {
            true => self.expected.hops.join(" or "),
            false => self.outcome.hop.clone(),
        };
        let mut findings = match free(self.expected.codes.iter().any(|code| code.contains('/'))) {
            true => self.expected.codes.join(", ").replace('/', " or "),
            false => self.outcome.errors.join(", "),
        };
        if findings.is_empty() {
            "-".clone_into(&mut findings);
        }
        for warning in &self.outcome.warnings {
            let _ = write!(findings, ", warning {warning}");
        }
        let findings = findings.trim_start_matches("-, ");
        format!(
            "| {} | {} | {} | {} | {hop} | {findings} | {} |\n",
            self.topology,
            self.fault,
            self.vantages,
            verdicts.join(" or "),
            if self.as_expected { "yes" } else { "**no**" }
        )
    }
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Fault,
    Warned,
    Undecided,
    Trap,
}

const PARTS: [(Part, &str); 4] = [
    (Part::Fault, "Faults"),
    (Part::Warned, "It works, and should not stay so"),
    (
        Part::Undecided,
        "Nothing that these vantages could decide: no error",
    ),
    (Part::Trap, "Healthy, if odd: no error"),
];

/// The page: what it is, then the lines of each part.
pub(crate) fn page(head: &str, rows: &[Row]) -> String {
    let mut page = head.to_owned();
    for (part, title) in PARTS {
        let rows: Vec<_> = rows.iter().filter(|row| row.part() == part).collect();
        let _ = write!(
            page,
            "\n## {title} ({} cases)\n\n\
             | topology | fault | vantages | verdict | first broken hop | finding | as expected |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            rows.len()
        );
        page.extend(rows.iter().map(|row| row.line()));
    }
    page
}

/// Holds the page against the committed one, or writes it. What differs, if anything does.
pub(crate) fn compare(name: &str, page: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/matrix")
        .join(name);
    if env::var(SWITCH).is_ok_and(|value| value == "write") {
        return fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()));
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    if committed == page {
        return Ok(());
    }
    let only = |lines: &str, others: &str, sign: char| {
        let others: Vec<_> = others.lines().collect();
        let missing = lines.lines().filter(|line| !others.contains(line));
        missing
            .map(|line| format!("{sign} {line}\n"))
            .collect::<String>()
    };
    Err(format!(
        "{} is not what this run gave; `{SWITCH}=write` writes it anew\n{}{}",
        path.display(),
        only(&committed, page, '-'),
        only(page, &committed, '+')
    ))
}
