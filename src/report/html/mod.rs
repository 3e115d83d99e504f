//! The report as one page for a browser: it loads nothing, runs no script, and reads on paper, on a phone, in the dark
//! and without colour.
//!
//! Whatever comes from outside passes through [`markup::Html`], whose types let nothing unescaped in; beyond that the
//! page's own policy forbids scripts and requests.

mod mark;
mod markup;
mod packet;
mod parts;
mod picture;
mod played;
mod plot;
mod spoofcheck;
use crate::plan::Hop;
use crate::report::FindingReport;
use crate::report::HopReport;
use crate::report::PathReport;
use crate::report::Report;
use crate::report::TimingReport;
use crate::report::html::mark::Mark;
use crate::report::html::markup::Html;
use crate::report::html::parts::Pieces;
use crate::report::text::elapsed;
use crate::verdict::HopVerdict;
use crate::verdict::Outcome;
use crate::verdict::Severity;

pub use played::run_html;
pub use spoofcheck::spoof_html;

/// The report as a page; `verbose` adds every piece of evidence.
pub fn html(report: &Report, verbose: bool) -> String {
    let what = match &report.paths[..] {
        [path] => service(path),
        [path, ..] => format!(
            "{}:{}/{}, {} real servers",
            path.vip,
            path.port,
            path.protocol.name(),
            report.paths.len()
        ),
        [] => String::new(),
    };
    let word = mark::outcome(report.verdict);
    page(&format!("{word}: {what}"), |html| {
        html.element("header", &[], |html| {
            Mark::from(report.verdict).with_word(html, word);
            html.words("h1", &[], what);
            errors(html, &report.findings, report.paths.len() > 1);
            html.words("p", &[("class", &"sum")], sum(report));
            begun(html, &report.timing);
        });
        let mut pieces = Pieces::new(&report.evidence);
        if report.paths.len() > 1 {
            overview(html, &report.paths);
        }
        let mut finding = 0;
        for (number, path) in report.paths.iter().enumerate() {
            let is_one = report.paths.len() == 1;
            path_section(html, &mut pieces, (number, path, is_one), &mut finding);
        }
        parts::times(html, &report.probes);
        parts::evidence(html, &pieces, verbose);
    })
}

/// A page: what stands around every report.
fn page(title: &str, body: impl FnOnce(&mut Html)) -> String {
    let mut html = Html::default();
    html.markup(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n",
    );
    html.words("title", &[], format!("tunproof, {title}"));
    html.markup("<style>\n");
    html.markup(include_str!("style.css"));
    html.markup("</style>\n</head>\n<body>\n");
    html.markup(mark::SYMBOLS);
    html.element("main", &[], body);
    html.element("footer", &[], |html| {
        html.say(concat!("tunproof ", env!("CARGO_PKG_VERSION"), ". "));
        html.say(
            "A hop is proven by a packet that was seen on both sides of it or beyond it, or by the host's own word; \
             broken only where packets were repeated, and a tap that lost nothing did not see them.",
        );
    });
    html.markup("</body>\n</html>\n");
    html.into_text()
}

/// Who asks whom.
fn service(path: &PathReport) -> String {
    let client = path
        .cip
        .map_or_else(|| "any client".to_owned(), |cip| cip.to_string());
    format!(
        "{}: {client} → {}:{}/{}",
        path.realserver,
        path.vip,
        path.port,
        path.protocol.name()
    )
}

/// What is broken, first of all; what is so of several real servers once.
fn errors(html: &mut Html, findings: &[FindingReport], several: bool) {
    let mut errors: Vec<(&FindingReport, Vec<usize>)> = Vec::new();
    for (number, finding) in findings.iter().enumerate() {
        if finding.severity != Severity::Error {
            continue;
        }
        let is_same = |known: &FindingReport| {
            (known.code, known.hop, &known.summary) == (finding.code, finding.hop, &finding.summary)
        };
        match errors.iter_mut().find(|(known, _)| is_same(known)) {
            Some((_, numbers)) => numbers.push(number),
            None => errors.push((finding, vec![number])),
        }
    }
    if errors.is_empty() {
        return;
    }
    html.element("ul", &[("class", &"errors")], |html| {
        for (finding, numbers) in errors {
            html.element("li", &[], |html| {
                if several {
                    for (place, number) in numbers.iter().enumerate() {
                        html.say(if place == 0 { "" } else { ", " });
                        let to = format!("#f{}", number + 1);
                        html.words("a", &[("href", &to)], &findings[*number].realserver);
                    }
                    html.say(format!(": {}: {}", finding.hop, finding.summary));
                } else {
                    let to = format!("#f{}", numbers[0] + 1);
                    html.words("a", &[("href", &to)], finding.hop);
                    html.say(format!(": {}", finding.summary));
                }
            });
        }
    });
}

fn sum(report: &Report) -> String {
    let count = |verdict| {
        report
            .hops
            .iter()
            .filter(|entry| entry.hop.verdict == verdict)
            .count()
    };
    let mut words = format!(
        "{} of {} hops proven",
        count(HopVerdict::Proven),
        report.hops.len()
    );
    for verdict in [
        HopVerdict::Broken,
        HopVerdict::Unproven,
        HopVerdict::Skipped,
    ] {
        match count(verdict) {
            0 => {}
            number => words = format!("{words}, {number} {}", mark::verdict(verdict)),
        }
    }
    let probes = match report.probes_sent() {
        1 => "1 probe".to_owned(),
        number => format!("{number} probes"),
    };
    format!("{words}; {probes} sent")
}

fn begun(html: &mut Html, timing: &TimingReport) {
    html.element("p", &[("class", &"where")], |html| {
        html.say("Begun ");
        let second = timing.started.get(..19).unwrap_or(&timing.started);
        html.words(
            "time",
            &[("datetime", &timing.started)],
            second.replace('T', " "),
        );
        html.say(format!(" UTC, took {}", elapsed(timing.elapsed_ms)));
    });
}

/// Of several real servers: every hop of each at a glance.
fn overview(html: &mut Html, paths: &[PathReport]) {
    html.element("section", &[], |html| {
        html.words("h2", &[], "Real servers");
        html.element("table", &[("class", &"overview")], |html| {
            html.words(
                "caption",
                &[],
                "Each real server, and each of its hops by its number",
            );
            html.element("tr", &[], |html| {
                html.words("th", &[("scope", &"col")], "real server");
                html.words("th", &[("scope", &"col")], "verdict");
                for number in 1..=Hop::ALL.len() {
                    let name = Hop::ALL[number - 1];
                    html.words("th", &[("scope", &"col"), ("title", &name)], number);
                }
            });
            for (number, path) in paths.iter().enumerate() {
                html.element("tr", &[], |html| {
                    html.element("th", &[("scope", &"row")], |html| {
                        let to = format!("#p{}", number + 1);
                        html.words("a", &[("href", &to)], &path.realserver);
                    });
                    html.element("td", &[], |html| {
                        Mark::from(path.verdict).with_word(html, mark::outcome(path.verdict));
                    });
                    for hop in &path.hops {
                        let words = format!("{}: {}", hop.id, mark::verdict(hop.verdict));
                        html.element("td", &[("title", &words)], |html| {
                            Mark::from(hop.verdict).inline(html);
                        });
                    }
                });
            }
        });
        html.element("p", &[("class", &"legend")], |html| {
            for (number, hop) in Hop::ALL.into_iter().enumerate() {
                let gap = if number == 0 { "" } else { ", " };
                html.say(format!("{gap}{} {hop}", number + 1));
            }
            html.say(". ");
            for verdict in [
                HopVerdict::Proven,
                HopVerdict::Broken,
                HopVerdict::Unproven,
                HopVerdict::Skipped,
            ] {
                Mark::from(verdict).with_word(html, mark::verdict(verdict));
                html.say(" ");
            }
        });
    });
}

fn path_section(
    html: &mut Html,
    pieces: &mut Pieces<'_>,
    (number, path, is_one): (usize, &PathReport, bool),
    finding: &mut usize,
) {
    let id = format!("p{}", number + 1);
    html.element("section", &[("class", &"of-path")], |html| {
        let title = |html: &mut Html| {
            html.element("h2", &[], |html| match is_one {
                true => html.say("The path, hop by hop"),
                false => {
                    html.say(service(path));
                    html.say(" ");
                    Mark::from(path.verdict).with_word(html, mark::outcome(path.verdict));
                }
            });
        };
        // Of several, those of which there is nothing to say need not be read.
        if !is_one && path.verdict == Outcome::Proven && path.findings.is_empty() {
            html.element("details", &[], |html| {
                html.element("summary", &[], title);
                html.element("div", &[("id", &id)], |html| {
                    within(html, pieces, path, finding);
                });
            });
        } else {
            title(html);
            html.element("div", &[("id", &id)], |html| {
                within(html, pieces, path, finding);
            });
        }
    });
}

fn within(html: &mut Html, pieces: &mut Pieces<'_>, path: &PathReport, finding: &mut usize) {
    let hops: Vec<_> = path.hops.iter().collect();
    drawn_and_listed(html, pieces, path, &hops);
    if !path.findings.is_empty() {
        html.words("h3", &[], "Findings");
    }
    for one in &path.findings {
        *finding += 1;
        parts::finding(html, pieces, one, &format!("f{finding}"));
    }
    if path.verdict != Outcome::Proven {
        parts::unproven(html, &hops);
    }
    for sweep in &path.sweeps {
        let (from, to) = &sweep.ends;
        html.words("h3", &[], format!("Sweep from {from} to the {to}"));
        plot::sweep(html, sweep);
    }
}

/// A path's picture, and beside it its hops in words.
fn drawn_and_listed(
    html: &mut Html,
    pieces: &mut Pieces<'_>,
    path: &PathReport,
    hops: &[&HopReport],
) {
    html.element("div", &[("class", &"beside")], |html| {
        html.element("figure", &[], |html| picture::picture(html, path, hops));
        let caption = format!("The hops of {}, in path order", path.realserver);
        parts::hops(html, pieces, &caption, hops);
    });
}

#[cfg(test)]
mod tests;
