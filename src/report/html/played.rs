//! A suite that was played, as a page.

use crate::report::HopReport;
use crate::report::RunReport;
use crate::report::StepReport;
use crate::report::html::begun;
use crate::report::html::drawn_and_listed;
use crate::report::html::errors;
use crate::report::html::mark;
use crate::report::html::mark::Mark;
use crate::report::html::markup::Html;
use crate::report::html::page;
use crate::report::html::parts;
use crate::report::html::parts::Pieces;
use crate::report::html::plot;
use crate::report::text::steps_sum;

/// The report of a suite as a page; `verbose` adds every piece of evidence.
pub fn run_html(report: &RunReport, verbose: bool) -> String {
    let word = mark::outcome(report.outcome);
    page(&format!("{word}: {}", report.suite), |html| {
        html.element("header", &[], |html| {
            Mark::from(report.outcome).with_word(html, word);
            html.words("h1", &[], &report.suite);
            html.words("p", &[], &report.about);
            errors(html, &report.findings, report.paths.len() > 1);
            html.words("p", &[("class", &"sum")], steps_sum(report));
            if report.rounds > 1 {
                let (round, rounds) = (report.round, report.rounds);
                html.words(
                    "p",
                    &[],
                    format!(
                        "What follows is of round {round} of {rounds}, the first of the worst."
                    ),
                );
            }
            begun(html, &report.timing);
        });
        let mut pieces = Pieces::new(&report.evidence);
        let mut finding = 0;
        for (number, path) in report.paths.iter().enumerate() {
            let id = format!("p{}", number + 1);
            html.element("section", &[("class", &"of-path"), ("id", &id)], |html| {
                html.words("h2", &[], &path.realserver);
                let of_path = report
                    .steps
                    .iter()
                    .filter(|step| step.realserver == path.realserver);
                steps(html, &mut pieces, report, of_path.collect());
                let hops = report
                    .hops
                    .iter()
                    .filter(|entry| entry.realserver == path.realserver);
                let hops: Vec<&HopReport> = hops.map(|entry| &entry.hop).collect();
                if !hops.is_empty() {
                    html.words("h3", &[], "The hops that the suite asks for");
                    drawn_and_listed(html, &mut pieces, path, &hops);
                }
                let findings: Vec<_> = report
                    .findings
                    .iter()
                    .filter(|found| found.realserver == path.realserver)
                    .collect();
                if !findings.is_empty() {
                    html.words("h3", &[], "Findings");
                }
                for one in findings {
                    finding += 1;
                    parts::finding(html, &mut pieces, one, &format!("f{finding}"));
                }
                parts::unproven(html, &hops);
                for sweep in &path.sweeps {
                    html.words(
                        "h3",
                        &[],
                        format!("Sweep from {} to the {}", sweep.ends.0, sweep.ends.1),
                    );
                    plot::sweep(html, sweep);
                }
            });
        }
        parts::times(html, &report.probes);
        parts::evidence(html, &pieces, verbose);
    })
}

fn steps(html: &mut Html, pieces: &mut Pieces<'_>, report: &RunReport, steps: Vec<&StepReport>) {
    html.element("table", &[("class", &"steps")], |html| {
        html.words("caption", &[], "Steps, and what each expects");
        html.columns(&["step", "outcome", "expected, and why"]);
        let mut last = None;
        for step in steps {
            html.element(
                "tr",
                &[("class", &Mark::from(step.worst).class())],
                |html| {
                    html.element("th", &[("scope", &"row")], |html| {
                        html.say(&step.id);
                        if !step.about.is_empty() {
                            html.words("small", &[], &step.about);
                        }
                    });
                    html.element("td", &[], |html| {
                        Mark::from(step.worst).with_word(html, step.worst.id());
                        if report.rounds > 1 {
                            html.words(
                                "small",
                                &[],
                                format!("passed in {} of {} rounds", step.passed, report.rounds),
                            );
                        }
                    });
                    html.element("td", &[], |html| expected(html, pieces, step, last));
                },
            );
            last = step.reason.as_deref();
        }
    });
}

fn expected(html: &mut Html, pieces: &mut Pieces<'_>, step: &StepReport, last: Option<&str>) {
    let told = step
        .expectations
        .iter()
        .any(|expected| expected.reason.is_some());
    if let Some(reason) = step.reason.as_ref().filter(|_| !told) {
        // A reason is given once to steps in a row.
        match last == Some(reason.as_str()) {
            true => html.say("as above "),
            false => html.say(format!("{reason} ")),
        }
    }
    if step.expectations.is_empty() {
        pieces.links(html, &step.evidence[..step.evidence.len().min(6)]);
        return;
    }
    html.element("ul", &[("class", &"expected")], |html| {
        for expected in &step.expectations {
            html.element("li", &[], |html| {
                Mark::from(expected.outcome).with_word(html, expected.outcome.id());
                html.say(format!(
                    " {}: seen for {} of {}",
                    expected.expected, expected.seen, expected.sent
                ));
                if let Some(reason) = &expected.reason {
                    html.say(format!("; {reason}"));
                }
                if !expected.evidence.is_empty() {
                    html.say(" (");
                    pieces.links(html, &expected.evidence[..expected.evidence.len().min(6)]);
                    html.say(")");
                }
            });
        }
    });
}
