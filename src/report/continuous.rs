//! What continuous integration reads: JUnit's XML and TAP, of hops or of steps.
//!
//! TAP 13, as Perl's `prove` takes a later version for an error, and nothing of one is needed.
//!
//! What is broken is a JUnit `failure`, what could not be decided an `error`: neither is green. In TAP both are
//! `not ok`; the YAML block says which. The XML has what the schemas of Jenkins (`junit-10.xsd`) and of Maven's
//! Surefire both take and both require, but for `<testsuites>` around it and the time stamps, which are Jenkins's.

use std::fmt::Write;

use crate::plan::Toward;
use crate::report::FindingReport;
use crate::report::PathHop;
use crate::report::Report;
use crate::report::RunReport;
use crate::report::SpoofReport;
use crate::report::spoofcheck::SpoofPath;
use crate::verdict::HopVerdict;
use crate::verdict::Outcome;
use crate::verdict::StepOutcome;

/// The report of a proof as JUnit's XML: a suite for each real server, a case for each hop.
pub fn junit(report: &Report) -> String {
    let cases: Vec<_> = report
        .hops
        .iter()
        .map(|hop| of_hop(hop, &report.findings))
        .collect();
    let timing = &report.timing;
    xml("tunproof", &cases, timing.elapsed_ms, &timing.started)
}

/// The report of a proof as TAP: a line for each hop.
pub fn tap(report: &Report) -> String {
    let cases: Vec<_> = report
        .hops
        .iter()
        .map(|hop| of_hop(hop, &report.findings))
        .collect();
    lines(&cases)
}

/// The report of a suite as JUnit's XML: a suite for each real server, a case for each step and each hop that the
/// suite asks for.
pub fn run_junit(report: &RunReport) -> String {
    let timing = &report.timing;
    let cases = of_run(report);
    xml(&report.suite, &cases, timing.elapsed_ms, &timing.started)
}

/// The report of a suite as TAP.
pub fn run_tap(report: &RunReport) -> String {
    lines(&of_run(report))
}

/// The spoof check's report as JUnit's XML: a suite for each real server, with one case.
pub fn spoof_junit(report: &SpoofReport) -> String {
    let cases: Vec<_> = report.paths.iter().map(of_check).collect();
    let timing = &report.timing;
    xml("spoofcheck", &cases, timing.elapsed_ms, &timing.started)
}

/// The spoof check's report as TAP: a line for each real server.
pub fn spoof_tap(report: &SpoofReport) -> String {
    let cases: Vec<_> = report.paths.iter().map(of_check).collect();
    lines(&cases)
}

fn of_check(path: &SpoofPath) -> Case<'_> {
    Case {
        realserver: &path.realserver,
        name: match path.toward {
            Toward::Client => "spoofed source".to_owned(),
            Toward::Director => "spoofed source, toward the director".to_owned(),
        },
        outcome: match path.outcome.verdict() {
            Outcome::Proven => StepOutcome::Passed,
            Outcome::Broken => StepOutcome::Failed,
            Outcome::Unproven => StepOutcome::Inconclusive,
        },
        reason: path.summary.clone(),
        found: Vec::new(),
        rounds: None,
    }
}

struct Case<'a> {
    realserver: &'a str,
    name: String,
    outcome: StepOutcome,
    reason: String,
    /// What was found about it, in lines.
    found: Vec<String>,
    /// How it went in each round, of several.
    rounds: Option<String>,
}

fn of_hop<'a>(entry: &'a PathHop, findings: &[FindingReport]) -> Case<'a> {
    let about = findings
        .iter()
        .filter(|found| found.hop == entry.hop.id && found.realserver == entry.realserver);
    Case {
        realserver: &entry.realserver,
        name: entry.hop.id.to_string(),
        outcome: match entry.hop.verdict {
            HopVerdict::Proven => StepOutcome::Passed,
            HopVerdict::Broken => StepOutcome::Failed,
            HopVerdict::Unproven => StepOutcome::Inconclusive,
            HopVerdict::Skipped => StepOutcome::Skipped,
        },
        reason: entry.hop.reason.clone().unwrap_or_default(),
        found: about.flat_map(of_finding).collect(),
        rounds: None,
    }
}

/// A finding's lines.
fn of_finding(found: &FindingReport) -> Vec<String> {
    let code = found.code.id();
    let severity = found.severity.id();
    let mut lines = vec![format!("{severity}[{code}]: {}", found.summary)];
    if !found.detail.is_empty() {
        lines.push(found.detail.clone());
    }
    lines.extend(found.fix.iter().map(|fix| format!("type {fix}")));
    lines.push(format!("more `tunproof explain {code}`"));
    lines
}

fn of_run(report: &RunReport) -> Vec<Case<'_>> {
    let steps = report.steps.iter().map(|step| {
        let rounds = format!("passed in {} of {} rounds", step.passed, report.rounds);
        Case {
            realserver: &step.realserver,
            name: step.id.clone(),
            outcome: step.worst,
            reason: match step.worst == step.outcome {
                true => step.reason.clone().unwrap_or_default(),
                false => rounds.clone(),
            },
            found: Vec::new(),
            rounds: (report.rounds > 1).then_some(rounds),
        }
    });
    let hops = report.hops.iter().map(|entry| {
        let case = of_hop(entry, &report.findings);
        let name = format!("hop {}", case.name);
        Case { name, ..case }
    });
    let mut cases: Vec<_> = steps.chain(hops).collect();
    // Real servers stand in the order of their paths.
    let order: Vec<&str> = report.steps.iter().map(|step| &*step.realserver).collect();
    cases.sort_by_key(|case| order.iter().position(|name| *name == case.realserver));
    cases
}

fn xml(name: &str, cases: &[Case<'_>], elapsed_ms: u64, started: &str) -> String {
    let seconds = format!("{}.{:03}", elapsed_ms / 1000, elapsed_ms % 1000);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let name = xml_text(name);
    let _ = writeln!(
        text,
        "<testsuites name=\"{name}\" {} time=\"{seconds}\">",
        counts(cases)
    );
    for of_path in cases.chunk_by(|one, next| one.realserver == next.realserver) {
        let realserver = xml_text(of_path[0].realserver);
        // What stands behind the last dot is the class, and before it packages.
        let class = realserver.replace('.', "_");
        let skipped = count(of_path, StepOutcome::Skipped);
        let counts = counts(of_path);
        let started = xml_text(started.get(..19).unwrap_or(started));
        let _ = writeln!(
            text,
            "  <testsuite name=\"{name}: {realserver}\" {counts} skipped=\"{skipped}\" time=\"{seconds}\" timestamp=\"{started}\">"
        );
        for case in of_path {
            let case_name = xml_text(&case.name);
            // No hop has a time of its own.
            let begin = format!(
                "    <testcase classname=\"{name}.{class}\" name=\"{case_name}\" time=\"0.000\""
            );
            let reason = xml_text(&case.reason);
            let found = xml_text(&case.found.join("\n"));
            let (mut within, rest) = match case.outcome {
                StepOutcome::Passed => (String::new(), found),
                StepOutcome::Skipped => (format!("<skipped message=\"{reason}\"/>"), found),
                // Some readers show the message alone, others the text alone.
                StepOutcome::Failed => {
                    let element = "failure type=\"failed\"";
                    let text =
                        format!("<{element} message=\"{reason}\">{reason}\n{found}</failure>");
                    (text, String::new())
                }
                StepOutcome::Inconclusive => {
                    let element = "error type=\"inconclusive\"";
                    let text = format!("<{element} message=\"{reason}\">{reason}\n{found}</error>");
                    (text, String::new())
                }
            };
            let rest: Vec<_> = case
                .rounds
                .iter()
                .chain([&rest])
                .map(String::as_str)
                .collect();
            let rest = rest.join("\n");
            if !rest.trim().is_empty() {
                let _ = write!(within, "<system-out>{}</system-out>", rest.trim());
            }
            let _ = match within.is_empty() {
                true => writeln!(text, "{begin}/>"),
                false => writeln!(text, "{begin}>{within}</testcase>"),
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

fn count(cases: &[Case<'_>], outcome: StepOutcome) -> usize {
    cases.iter().filter(|case| case.outcome == outcome).count()
}

fn counts(cases: &[Case<'_>]) -> String {
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\"",
        cases.len(),
        count(cases, StepOutcome::Failed),
        count(cases, StepOutcome::Inconclusive)
    )
}

/// Text for an attribute or an element; reports have no control characters.
fn xml_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn lines(cases: &[Case<'_>]) -> String {
    let mut text = format!("TAP version 13\n1..{}\n", cases.len());
    for (number, case) in cases.iter().enumerate() {
        let number = number + 1;
        let name = tap_text(&format!("{}: {}", case.realserver, case.name));
        let _ = match case.outcome {
            StepOutcome::Passed => writeln!(text, "ok {number} - {name}"),
            StepOutcome::Skipped => {
                writeln!(
                    text,
                    "ok {number} - {name} # SKIP {}",
                    tap_text(&case.reason)
                )
            }
            StepOutcome::Failed | StepOutcome::Inconclusive => {
                // A JSON string is one of YAML's.
                let reason = serde_json::Value::from(&*case.reason);
                let outcome = case.outcome.id();
                writeln!(
                    text,
                    "not ok {number} - {name}\n  ---\n  outcome: {outcome}\n  reason: {reason}\n  ..."
                )
            }
        };
        if let Some(rounds) = &case.rounds {
            let _ = writeln!(text, "# {rounds}");
        }
    }
    text
}

fn tap_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn junit_counts_hops_by_outcome_and_gives_reasons() {
        let text = junit(&fixture::report());
        for expected in [
            "<testsuites name=\"tunproof\" tests=\"24\" failures=\"1\" errors=\"1\" time=\"3.219\">",
            "<testsuite name=\"tunproof: rs1\" tests=\"12\" failures=\"1\" errors=\"1\" skipped=\"6\" \
             time=\"3.219\" timestamp=\"2026-11-22T12:00:00\">",
            "<testcase classname=\"tunproof.rs1\" name=\"realserver-accept\" time=\"0.000\">\
             <failure type=\"failed\" message=\"what leaves the tunnel",
            "error[rp-filter-drops]: rp_filter on tunl0 drops the decapsulated packets\n",
            "type rs1# sysctl -w net.ipv4.conf.all.rp_filter=0",
            "name=\"director-to-realserver\" time=\"0.000\"><system-out>note[loss]: 1 of 2 probes was lost\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert_eq!(text.matches("<testcase ").count(), 24);
        assert_eq!(text.matches("</testsuite>").count(), 2);
    }

    /// Each element of a report: its name, and its attributes'.
    fn elements(text: &str) -> Vec<(String, Vec<String>)> {
        let element = regex::Regex::new(r#"<([a-z-]+)((?: [a-z]+="[^"]*")*)/?>"#).unwrap();
        let attribute = regex::Regex::new(r#" ([a-z]+)="#).unwrap();
        let of = |text: &str| {
            let found = attribute.captures_iter(text);
            let mut names: Vec<_> = found.map(|found| found[1].to_owned()).collect();
            names.sort();
            names
        };
        let found = element.captures_iter(text);
        found
            .map(|found| (found[1].to_owned(), of(&found[2])))
            .collect()
    }

    #[test]
    fn jenkins_and_surefire_know_all_of_it() {
        // Of junit-10.xsd and surefire-test-report.xsd: what both allow, with all that either requires.
        let allowed = [
            ("testsuites", "errors failures name tests time"),
            (
                "testsuite",
                "errors failures name skipped tests time timestamp",
            ),
            ("testcase", "classname name time"),
            ("failure", "message type"),
            ("error", "message type"),
            ("skipped", "message"),
            ("system-out", ""),
        ];
        let text = junit(&fixture::report());
        let found = elements(&text);
        assert_eq!(
            found.len(),
            text.matches('<').count() - text.matches("</").count() - 1
        );
        for (name, attributes) in found {
            let known = allowed.iter().find(|(known, _)| *known == name);
            let (_, expected) = known.unwrap_or_else(|| panic!("<{name}>"));
            assert_eq!(attributes.join(" "), *expected, "<{name}>");
        }
    }

    #[test]
    fn an_address_is_one_class_and_no_packages() {
        let case = Case {
            realserver: "203.0.113.5",
            ..cases(&[], None).remove(0)
        };
        let text = xml("tunproof", &[case], 5, "now");
        assert!(text.contains("name=\"tunproof: 203.0.113.5\""), "{text}");
        assert!(
            text.contains("classname=\"tunproof.203_0_113_5\""),
            "{text}"
        );
    }

    #[test]
    fn tap_numbers_every_hop() {
        let text = tap(&fixture::report());
        assert!(
            text.starts_with("TAP version 13\n1..24\nnot ok 1 - rs1: client-to-director\n"),
            "{text}"
        );
        assert!(
            text.contains("not ok 6 - rs1: realserver-accept\n  ---\n  outcome: failed\n"),
            "{text}"
        );
        assert_eq!(
            text.matches("\nok ").count() + text.matches("\nnot ok ").count(),
            24
        );
    }

    /// A case of each outcome, but for these.
    fn cases(without: &[StepOutcome], rounds: Option<&str>) -> Vec<Case<'static>> {
        let outcomes = [
            StepOutcome::Passed,
            StepOutcome::Failed,
            StepOutcome::Inconclusive,
            StepOutcome::Skipped,
        ];
        let outcomes = outcomes.into_iter();
        let case = |outcome: StepOutcome| Case {
            realserver: "rs1",
            name: outcome.id().to_owned(),
            outcome,
            reason: "what: \\ \"it\" # is".to_owned(),
            found: Vec::new(),
            rounds: rounds.map(str::to_owned),
        };
        let kept = outcomes.filter(|outcome| !without.contains(outcome));
        kept.map(case).collect()
    }

    /// What Perl's harness says of a report: whether all is well, and what it prints.
    fn proved(text: &str) -> (bool, String) {
        let name = format!("tunproof-tap-{}-{}", std::process::id(), text.len());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        let mut prove = std::process::Command::new("prove");
        let output = prove.args(["-v", "-e", "cat"]).arg(&file).output();
        std::fs::remove_file(&file).unwrap();
        let output = output.expect("this test needs `prove` (apt-get install perl)");
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        (output.status.success(), printed)
    }

    #[test]
    fn a_harness_reads_what_it_is_told() {
        let bad = [StepOutcome::Failed, StepOutcome::Inconclusive];
        for rounds in [None, Some("passed in 2 of 3 rounds")] {
            let (is_well, printed) = proved(&lines(&cases(&bad, rounds)));
            assert!(is_well && !printed.contains("Parse errors"), "{printed}");
            let (is_well, printed) = proved(&lines(&cases(&[], rounds)));
            assert!(!is_well && !printed.contains("Parse errors"), "{printed}");
            assert!(printed.contains("Failed tests:  2-3"), "{printed}");
        }
    }

    #[test]
    fn rounds_change_no_name() {
        let text = xml("s", &cases(&[], Some("passed in 2 of 3 rounds")), 5, "now");
        for line in [
            "name=\"passed\" time=\"0.000\"><system-out>passed in 2 of 3 rounds</system-out></testcase>\n",
            "# is\"/><system-out>passed in 2 of 3 rounds</system-out></testcase>\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn what_xml_and_tap_mean_otherwise_is_escaped() {
        let case = Case {
            realserver: "a<b",
            name: "x#y".to_owned(),
            outcome: StepOutcome::Failed,
            reason: "\"1 & 2\"".to_owned(),
            found: vec!["]]> & <x>".to_owned()],
            rounds: None,
        };
        let text = xml("s", std::slice::from_ref(&case), 5, "now");
        assert!(
            text.contains("s: a&lt;b") && text.contains("&quot;1 &amp; 2&quot;"),
            "{text}"
        );
        assert!(
            text.contains("\n]]&gt; &amp; &lt;x&gt;</failure>"),
            "{text}"
        );
        let text = lines(&[case]);
        assert!(text.contains("not ok 1 - a<b: x\\#y\n"), "{text}");
        assert!(text.contains("reason: \"\\\"1 & 2\\\"\""), "{text}");
    }
}
