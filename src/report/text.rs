//! The report for people: each path drawn hop by hop, at most 80 columns wide but for commands to type.
//!
//! Signs and words say the same, so that it reads without colour and without either.

use anstyle::AnsiColor;
use anstyle::Effects;
use anstyle::Style;

use crate::evidence::EvidenceId;
use crate::plan::Hop;
use crate::report::EvidenceReport;
use crate::report::FindingReport;
use crate::report::HopReport;
use crate::report::PathHop;
use crate::report::PathReport;
use crate::report::Report;
use crate::report::RunReport;
use crate::report::StepReport;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Outcome;
use crate::verdict::Severity;
use crate::verdict::StepOutcome;

const WIDTH: usize = 80;
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
const OPEN: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().effects(Effects::DIMMED);
const BOLD: Style = Style::new().effects(Effects::BOLD);
const TYPE: Style = AnsiColor::Cyan.on_default().effects(Effects::BOLD);

/// The report as text, with escape sequences for colour; `verbose` adds every piece of evidence.
pub fn text(report: &Report, verbose: bool) -> String {
    let mut page = Page::default();
    for path in &report.paths {
        draw(&mut page, report, path);
        for finding in &path.findings {
            page.blank();
            tell(&mut page, finding, is_drawn(path, finding));
        }
        page.blank();
    }
    if verbose {
        list_evidence(&mut page, &report.evidence);
    }
    summarise(&mut page, report);
    page.text
}

/// The report of a suite as text; `verbose` adds every piece of evidence and what each step is for.
pub fn run_text(report: &RunReport, verbose: bool) -> String {
    let mut page = Page::default();
    let about = match report.about.is_empty() {
        true => String::new(),
        false => format!(": {}", report.about),
    };
    page.wrapped("", "  ", &format!("{}{about}", report.suite), BOLD);
    if report.rounds > 1 {
        let (round, rounds) = (report.round, report.rounds);
        page.line(&format!(
            "{DIM}round {round} of {rounds}, the first of the worst{DIM:#}"
        ));
    }
    let width = report
        .steps
        .iter()
        .map(|step| step.id.chars().count())
        .max();
    for steps in report
        .steps
        .chunk_by(|one, next| one.realserver == next.realserver)
    {
        page.blank();
        let realserver = &steps[0].realserver;
        page.line(&format!("{BOLD}{realserver}{BOLD:#}"));
        for step in steps {
            draw_step(
                &mut page,
                report,
                step,
                (width.unwrap_or_default(), verbose),
            );
        }
        let of_path = |entry: &&PathHop| entry.realserver == *realserver;
        for entry in report.hops.iter().filter(of_path) {
            let (sign, style, word) = match entry.hop.verdict {
                HopVerdict::Proven => ('✔', GOOD, "proven"),
                HopVerdict::Broken => ('✘', BAD, "broken"),
                HopVerdict::Unproven => ('?', OPEN, "unproven"),
                HopVerdict::Skipped => ('·', DIM, "skipped"),
            };
            let words = match &entry.hop.reason {
                Some(reason) => format!("{word}: {reason}"),
                None => word.to_owned(),
            };
            let first = format!("  {style}{sign}{style:#} hop {}: ", entry.hop.id);
            page.wrapped(&first, "      ", &words, Style::new());
        }
    }
    for finding in &report.findings {
        page.blank();
        tell(&mut page, finding, false);
    }
    page.blank();
    if verbose {
        list_evidence(&mut page, &report.evidence);
    }
    let words = steps_sum(report);
    let (style, word) = outcome(report.outcome);
    let elapsed = elapsed(report.timing.elapsed_ms);
    page.line(&format!("{style}{word}{style:#}: {words} in {elapsed}"));
    page.text
}

/// How many steps passed, and what became of the others.
pub(super) fn steps_sum(report: &RunReport) -> String {
    let count = |outcome| {
        let steps = report.steps.iter();
        steps.filter(|step| step.outcome == outcome).count()
    };
    let passed = count(StepOutcome::Passed);
    let mut words = format!("{passed} of {} steps passed", report.steps.len());
    for outcome in [
        StepOutcome::Failed,
        StepOutcome::Inconclusive,
        StepOutcome::Skipped,
    ] {
        match count(outcome) {
            0 => {}
            number => words = format!("{words}, {number} {}", outcome.id()),
        }
    }
    words
}

fn draw_step(
    page: &mut Page,
    report: &RunReport,
    step: &StepReport,
    (width, verbose): (usize, bool),
) {
    let (sign, style) = signed(step.worst);
    let mut words = step.outcome.id().to_owned();
    if report.rounds > 1 {
        words = format!("passed in {} of {} rounds", step.passed, report.rounds);
    }
    let told = step
        .expectations
        .iter()
        .any(|expected| expected.reason.is_some());
    match &step.reason {
        Some(reason) if !told => {
            let reason = without_what_follows(reason, report, &step.realserver);
            words = format!("{words}: {reason}");
        }
        _ => {}
    }
    if !step.evidence.is_empty() && step.expectations.is_empty() {
        let first = &step.evidence[..step.evidence.len().min(2)];
        words = format!("{words} ({})", ids(first));
    }
    let id = &step.id;
    let first = format!("  {style}{sign}{style:#} {id:width$} ");
    page.wrapped(&first, "      ", &words, Style::new());
    if verbose && !step.about.is_empty() {
        page.wrapped("      ", "      ", &step.about, DIM);
    }
    for expected in &step.expectations {
        let (sign, style) = signed(expected.outcome);
        let mut words = match &expected.reason {
            Some(reason) => format!("{}: {reason}", expected.expected),
            None => format!(
                "{}: seen for {} of {}",
                expected.expected, expected.seen, expected.sent
            ),
        };
        if let Some(first) = expected.evidence.first() {
            words = format!("{words} ({first})");
        }
        page.wrapped(
            &format!("      {style}{sign}{style:#} "),
            "        ",
            &words,
            Style::new(),
        );
    }
}

/// A step's reason without what the hop or a finding below says in full.
fn without_what_follows<'a>(reason: &'a str, report: &RunReport, realserver: &str) -> &'a str {
    let hops = report.hops.iter();
    let hops = hops.filter(|entry| entry.realserver == realserver);
    let hops = hops.filter_map(|entry| entry.hop.reason.as_deref());
    let findings = report.findings.iter();
    let findings = findings.map(|finding| finding.summary.as_str());
    let mut follows = hops.chain(findings);
    let shortened = follows.find_map(|said| reason.strip_suffix(said)?.strip_suffix(": "));
    shortened.unwrap_or(reason)
}

fn signed(outcome: StepOutcome) -> (char, Style) {
    match outcome {
        StepOutcome::Passed => ('✔', GOOD),
        StepOutcome::Failed => ('✘', BAD),
        StepOutcome::Inconclusive => ('?', OPEN),
        StepOutcome::Skipped => ('·', DIM),
    }
}

/// Draws a path: hosts as the nodes of a road, hops as what lies between them.
fn draw(page: &mut Page, report: &Report, path: &PathReport) {
    let protocol = path.protocol.name();
    let client = path
        .cip
        .map_or("any client".to_owned(), |cip| cip.to_string());
    let title = format!(
        "{}: {client} > {}:{}/{protocol} ",
        path.realserver, path.vip, path.port
    );
    let (style, word) = outcome(path.verdict);
    let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count() + word.len() + 4));
    page.line(&format!(
        "{BOLD}{title}{BOLD:#}{DIM}{rule}{DIM:#} {style}{word}{style:#} {DIM}──{DIM:#}"
    ));

    let mut last_reason = None;
    for hop in &path.hops {
        if let Some((name, address)) = node_before(hop.id, path) {
            node(page, &name, address);
        }
        draw_hop(page, report, path, hop, last_reason);
        last_reason = hop.reason.as_deref();
    }
    node(page, "director", shown(path.dip));
}

fn node(page: &mut Page, name: &str, address: String) {
    page.line(&format!("  {BOLD}{name}{BOLD:#}{address}"));
}

/// The host that a hop starts from, where the road comes to another one.
fn node_before(hop: Hop, path: &PathReport) -> Option<(String, String)> {
    Some(match hop {
        Hop::ClientToDirector | Hop::ReturnToDirector => ("client".to_owned(), shown(path.cip)),
        Hop::DirectorForward => ("director".to_owned(), shown(path.dip)),
        Hop::Decapsulation => match path.rip {
            None => (path.realserver.clone(), String::new()),
            Some(rip) if path.realserver == rip.to_string() => {
                ("real server".to_owned(), shown(path.rip))
            }
            Some(_) => (format!("real server {}", path.realserver), shown(path.rip)),
        },
        Hop::SpoofedSourceTransit => ("gateway".to_owned(), shown(path.gateway)),
        _ => return None,
    })
}

fn shown(address: Option<std::net::Ipv4Addr>) -> String {
    address.map_or_else(String::new, |address| format!(" {address}"))
}

fn draw_hop(
    page: &mut Page,
    report: &Report,
    path: &PathReport,
    hop: &HopReport,
    last_reason: Option<&str>,
) {
    let tunnel = matches!(hop.id, Hop::DirectorToRealserver | Hop::Decapsulation);
    let road = match hop.verdict {
        HopVerdict::Proven if tunnel => '║',
        HopVerdict::Proven => '│',
        _ => '┊',
    };
    let reason = hop.reason.as_deref();
    let (sign, style, words) = match hop.verdict {
        HopVerdict::Proven => ('✔', GOOD, proven(report, hop)),
        HopVerdict::Broken => (
            '✘',
            BAD,
            match hop.between {
                Some((last, first)) => format!("broken between {last} and {first}"),
                None => "broken".to_owned(),
            },
        ),
        HopVerdict::Unproven => ('?', OPEN, because("unproven", reason, last_reason)),
        HopVerdict::Skipped => ('·', DIM, because("skipped", reason, last_reason)),
    };
    let head = format!(
        "  {DIM}{road}{DIM:#} {style}{sign} {:<22}{style:#} ",
        hop.id.id()
    );
    let next = format!("  {DIM}{road}{DIM:#} {:25}", "");
    let words_style = if hop.verdict == HopVerdict::Broken {
        BAD
    } else {
        Style::new()
    };
    page.wrapped(&head, &next, &words, words_style);
    if hop.verdict == HopVerdict::Broken {
        explain_break(
            page,
            report,
            path,
            hop,
            &format!("  {DIM}{road}{DIM:#}     "),
        );
    }
}

/// Why it is broken, what shows it, and what to type.
fn explain_break(
    page: &mut Page,
    report: &Report,
    path: &PathReport,
    hop: &HopReport,
    margin: &str,
) {
    if let Some(reason) = &hop.reason {
        page.wrapped(margin, margin, reason, Style::new());
    }
    for piece in hop.evidence.iter().filter_map(|id| report.piece(*id)) {
        let text = evidence_line(piece);
        page.wrapped(
            &format!("{margin}{DIM}{:<4}{DIM:#} ", piece.id),
            &format!("{margin}     "),
            &text,
            Style::new(),
        );
    }
    for command in causes(path, hop).flat_map(|finding| &finding.fix) {
        page.line(&format!("{margin}type {TYPE}{command}{TYPE:#}"));
    }
}

/// The findings because of which a hop is broken.
fn causes<'a>(path: &'a PathReport, hop: &HopReport) -> impl Iterator<Item = &'a FindingReport> {
    let id = hop.id;
    path.findings
        .iter()
        .filter(move |finding| finding.severity == Severity::Error && finding.hop == id)
}

fn proven(report: &Report, hop: &HopReport) -> String {
    let best = hop.evidence.first().and_then(|id| report.piece(*id));
    let words = match (best, hop.how) {
        (None, _) => return "proven".to_owned(),
        (Some(piece), Some(How::Fact)) => format!("{}'s own word: {}", piece.host, piece.noun),
        (Some(piece), how) => {
            let by = if how == Some(How::Implied) {
                "implied by"
            } else {
                "proven by"
            };
            let what = if piece.noun.is_empty() {
                &piece.summary
            } else {
                &piece.noun
            };
            match piece.station {
                Some(station) => format!("{by} {what} at {station}"),
                None => format!("{by} {what} of {}", piece.host),
            }
        }
    };
    format!("{words} ({})", ids(&hop.evidence))
}

/// A reason is given once to hops in a row.
fn because(word: &str, reason: Option<&str>, last: Option<&str>) -> String {
    match reason {
        Some(reason) if last != Some(reason) => {
            format!("{word}: {}", reason.trim_start_matches("not tried: "))
        }
        _ => word.to_owned(),
    }
}

fn evidence_line(piece: &EvidenceReport) -> String {
    match piece.station {
        Some(station) => format!("{station}: {}", piece.summary),
        None => format!("{}: {}", piece.host, piece.summary),
    }
}

fn ids(evidence: &[EvidenceId]) -> String {
    let ids: Vec<_> = evidence.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

/// Whether what to type is drawn beside the hop already.
fn is_drawn(path: &PathReport, finding: &FindingReport) -> bool {
    let mut hops = path.hops.iter();
    finding.severity == Severity::Error
        && hops.any(|hop| hop.id == finding.hop && hop.verdict == HopVerdict::Broken)
}

/// Tells a finding as a compiler would.
fn tell(page: &mut Page, finding: &FindingReport, is_drawn: bool) {
    let (word, style) = match finding.severity {
        Severity::Error => ("error", BAD),
        Severity::Warning => ("warning", OPEN.effects(Effects::BOLD)),
        Severity::Note => ("note", BOLD),
    };
    let tag = format!("{word}[{}]", finding.code);
    page.wrapped(
        &format!("{style}{tag}{style:#}: "),
        "  ",
        &finding.summary,
        BOLD,
    );
    let mut place = format!("{} of {}", finding.hop, finding.realserver);
    if !finding.evidence.is_empty() {
        place = format!("{place}, shown by {}", ids(&finding.evidence));
    }
    page.wrapped(&format!(" {DIM}-->{DIM:#} "), "     ", &place, Style::new());
    if !finding.detail.is_empty() {
        let margin = format!("  {DIM}|{DIM:#}  ");
        page.wrapped(&margin, &margin, &finding.detail, Style::new());
    }
    for command in finding.fix.iter().filter(|_| !is_drawn) {
        page.line(&format!("  {DIM}={DIM:#} type {TYPE}{command}{TYPE:#}"));
    }
    page.line(&format!(
        "  {DIM}={DIM:#} more `tunproof explain {}`",
        finding.code
    ));
}

fn list_evidence(page: &mut Page, evidence: &[EvidenceReport]) {
    page.line(&format!("{BOLD}evidence{BOLD:#}"));
    for piece in evidence {
        let clock = piece.time.get(11..26).unwrap_or(&piece.time);
        page.wrapped(
            &format!("{DIM}{:>5} {clock}{DIM:#} ", piece.id),
            "        ",
            &evidence_line(piece),
            Style::new(),
        );
    }
    page.blank();
}

fn summarise(page: &mut Page, report: &Report) {
    let count = |verdict| {
        let hops = report.hops.iter();
        hops.filter(|entry| entry.hop.verdict == verdict).count()
    };
    let mut words = format!(
        "{} of {} hops proven",
        count(HopVerdict::Proven),
        report.hops.len()
    );
    let others = [
        (HopVerdict::Broken, "broken"),
        (HopVerdict::Unproven, "unproven"),
        (HopVerdict::Skipped, "skipped"),
    ];
    for (verdict, word) in others {
        match count(verdict) {
            0 => {}
            number => words = format!("{words}, {number} {word}"),
        }
    }
    let elapsed = elapsed(report.timing.elapsed_ms);
    let probes = match report.probes_sent() {
        1 => "1 probe".to_owned(),
        number => format!("{number} probes"),
    };
    let (style, word) = outcome(report.verdict);
    page.line(&format!(
        "{style}{word}{style:#}: {words}; {probes} sent in {elapsed}"
    ));
}

pub(super) fn elapsed(ms: u64) -> String {
    match ms {
        ms @ 0..1000 => format!("{ms} ms"),
        ms => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}

fn outcome(outcome: Outcome) -> (Style, &'static str) {
    match outcome {
        Outcome::Proven => (GOOD.effects(Effects::BOLD), "proven"),
        Outcome::Unproven => (OPEN.effects(Effects::BOLD), "unproven"),
        Outcome::Broken => (BAD, "broken"),
    }
}

/// Lines of text.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
}

impl Page {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    pub(super) fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// `words` after `first`, broken at spaces into lines that begin with `next`.
    pub(super) fn wrapped(&mut self, first: &str, next: &str, words: &str, style: Style) {
        let mut begin = first;
        let mut room = WIDTH - visible_width(first);
        let mut line = String::new();
        for word in words.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                self.line(&format!("{begin}{style}{line}{style:#}"));
                line.clear();
                begin = next;
                room = WIDTH - visible_width(next);
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&format!("{begin}{style}{line}{style:#}"));
    }
}

/// The width of a text without its escape sequences.
fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn plain(verbose: bool) -> String {
        let styled = text(&fixture::report(), verbose);
        anstream::adapter::strip_str(&styled).to_string()
    }

    #[test]
    fn a_step_does_not_repeat_what_a_finding_tells() {
        let evidence = fixture::evidence();
        let mut run = RunReport::new(&evidence, fixture::report(), &[], Outcome::Broken);
        let told = run.findings[0].summary.clone();
        for (id, reason) in [
            ("told", format!("realserver-accept is broken: {told}")),
            ("untold", "realserver-accept is broken: for once".to_owned()),
        ] {
            run.steps.push(StepReport {
                realserver: "rs1".to_owned(),
                id: id.to_owned(),
                about: String::new(),
                outcome: StepOutcome::Failed,
                reason: Some(reason),
                evidence: Vec::new(),
                worst: StepOutcome::Failed,
                passed: 0,
                expectations: Vec::new(),
            });
        }
        let page = anstream::adapter::strip_str(&run_text(&run, false)).to_string();
        for line in [
            "  ✘ told   failed: realserver-accept is broken\n",
            "  ✘ untold failed: realserver-accept is broken: for once\n",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[test]
    fn a_broken_hop_shows_where_why_by_what_and_what_to_type() {
        let page = plain(false);
        let expected = "\
  ║ ✔ director-to-realserver proven by SYN in IPIP at realserver.in (e4, e3)
  real server rs1 203.0.113.5
  ║ ✔ decapsulation          implied by SYN at realserver.tunnel (e5)
  ┊ ✘ realserver-accept      broken between realserver.tunnel and realserver.out
  ┊     what leaves the tunnel is dropped before it reaches a socket
  ┊     e7   rs1: 3 probes were taken out of the tunnel and none was answered
  ┊     e5   realserver.tunnel: 198.51.100.7:63284 > 192.0.2.10:80 SYN, ttl 64
  ┊          on tunl0
  ┊     type rs1# sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0
  ┊ · service                skipped: realserver-accept is broken
  ┊ · realserver-egress      skipped
  ┊ · gateway-arp            skipped
  gateway 203.0.113.1
  ┊ · spoofed-source-transit skipped
";
        assert!(page.contains(expected), "expected\n{expected}\ngot\n{page}");
    }

    #[test]
    fn findings_follow_as_a_compiler_tells_them() {
        let page = plain(false);
        let expected = "
error[rp-filter-drops]: rp_filter on tunl0 drops the decapsulated packets
 --> realserver-accept of rs1, shown by e8
  |  The route back to 198.51.100.7 leaves by eth0, not by tunl0, so a strict
  |  reverse path filter takes every packet out of the tunnel for a forgery.
  = more `tunproof explain rp-filter-drops`

note[loss]: 1 of 2 probes was lost
 --> director-to-realserver of rs1
  = type director# mtr 203.0.113.5
  = more `tunproof explain loss`
";
        assert!(page.contains(expected), "expected\n{expected}\ngot\n{page}");
    }

    #[test]
    fn the_last_line_sums_up() {
        let page = plain(true);
        assert_eq!(
            page.lines().next_back().unwrap(),
            "broken: 16 of 24 hops proven, 1 broken, 1 unproven, 6 skipped; 3 probes sent in 3.2 s"
        );
    }

    #[test]
    fn every_real_server_has_a_block_and_verbose_lists_all_evidence() {
        let page = plain(true);
        assert!(
            page.starts_with("rs1: 198.51.100.7 > 192.0.2.10:80/tcp ───"),
            "{page}"
        );
        assert!(
            page.contains("\nrs\\u{1b}2: 198.51.100.7 > 192.0.2.10:80/tcp ───"),
            "{page}"
        );
        for id in 1..=8 {
            assert!(page.contains(&format!("\n   e{id} 12:00:00.00")), "{page}");
        }
        assert!(!plain(false).contains("12:00:00"));
    }

    #[test]
    fn what_a_listener_does_not_know_is_left_out_and_a_reason_is_given_once() {
        let mut report = fixture::report();
        let path = &mut report.paths[0];
        path.realserver = "any real server".to_owned();
        (path.rip, path.cip) = (None, None);
        for hop in &mut path.hops {
            hop.verdict = HopVerdict::Unproven;
            hop.reason = Some("a vantage would decide".to_owned());
        }
        let page = anstream::adapter::strip_str(&text(&report, false)).to_string();
        assert!(
            page.starts_with("any real server: any client > 192.0.2.10:80/tcp ───"),
            "{page}"
        );
        let expected = "
  client
  ┊ ? client-to-director     unproven: a vantage would decide
  director 192.0.2.2
  ┊ ? director-forward       unproven
  ┊ ? director-source        unproven
  ┊ ? director-to-realserver unproven
  any real server
  ┊ ? decapsulation          unproven
";
        assert!(page.contains(expected), "expected\n{expected}\ngot\n{page}");
    }

    #[test]
    fn nothing_but_commands_and_the_sum_is_wider_than_a_terminal() {
        for line in plain(true).lines() {
            let width = line.chars().count();
            let may = line.contains(" type ") || line.starts_with("broken: ");
            assert!(may || width <= WIDTH, "{width}: {line}");
        }
    }
}
