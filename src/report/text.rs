//! The report for people: each path drawn hop by hop, as wide as is asked for but for commands to type.
//!
//! Signs and words say the same, so that it reads without colour and without either.

use std::net::Ipv4Addr;

use anstyle::Effects;
use anstyle::Style;

use crate::evidence::EvidenceId;
use crate::plan::Hop;
use crate::report::EvidenceReport;
use crate::report::FindingReport;
use crate::report::HopReport;
use crate::report::PathHop;
use crate::report::PathReport;
use crate::report::Picture;
use crate::report::Report;
use crate::report::RunReport;
use crate::report::StepReport;
use crate::report::picture::Ends;
use crate::report::style::BAD;
use crate::report::style::BOLD;
use crate::report::style::DIM;
use crate::report::style::GOOD;
use crate::report::style::OPEN;
use crate::report::style::TYPE;
use crate::report::style::sign;
use crate::report::style::visible_width;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Outcome;
use crate::verdict::Severity;
use crate::verdict::StepOutcome;

/// The width of a report that goes to no terminal.
pub const WIDTH: usize = 80;
/// Words that have less room than this beside something begin a line of their own.
const CRAMPED: usize = 24;

/// The report as text, with escape sequences for colour; `verbose` adds every piece of evidence.
pub fn text(report: &Report, verbose: bool, width: usize) -> String {
    let mut page = Page::new(width);
    for path in &report.paths {
        draw(&mut page, report, path);
        for finding in &path.findings {
            page.blank();
            tell(&mut page, finding);
        }
        page.blank();
    }
    if verbose {
        list_evidence(&mut page, &report.evidence);
    }
    if report.paths.len() > 1 {
        for line in Picture::judged(report).overview(width) {
            page.line(&line);
        }
        page.blank();
    }
    let (style, word, words) = sum(report);
    let first = format!("{style}{word}{style:#}: ");
    match width >= WIDTH {
        true => page.line(&format!("{first}{words}")),
        false => page.wrapped(&first, "  ", &words, Style::new()),
    }
    page.text
}

/// The report of a suite as text; `verbose` adds every piece of evidence and what each step is for.
pub fn run_text(report: &RunReport, verbose: bool, width: usize) -> String {
    let mut page = Page::new(width);
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
            let (sign, style, word) = sign(entry.hop.verdict);
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
        tell(&mut page, finding);
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
    let service = (path.vip, path.port, path.protocol.name());
    let title = title(&path.realserver, path.cip, service);
    let (style, word) = outcome(path.verdict);
    let used = title.chars().count() + word.len() + 5;
    if used <= page.width {
        let rule = "─".repeat(page.width - used);
        page.line(&format!(
            "{BOLD}{title}{BOLD:#} {DIM}{rule}{DIM:#} {style}{word}{style:#} {DIM}──{DIM:#}"
        ));
    } else {
        page.wrapped("", "  ", &title, BOLD);
        page.line(&format!("  {style}{word}{style:#}"));
    }

    let mut last_reason = None;
    let ends = Ends::of(path);
    for hop in &path.hops {
        if let Some((name, address)) = node_before(hop.id, &ends) {
            node(page, &name, address);
        }
        draw_hop(page, report, hop, last_reason);
        last_reason = hop.reason.as_deref();
    }
    node(page, "director", shown(path.dip));
}

/// What a path is called.
pub(super) fn title(
    realserver: &str,
    cip: Option<Ipv4Addr>,
    (vip, port, protocol): (Ipv4Addr, u16, &str),
) -> String {
    let client = cip.map_or("any client".to_owned(), |cip| cip.to_string());
    format!("{realserver}: {client} > {vip}:{port}/{protocol}")
}

fn node(page: &mut Page, name: &str, address: String) {
    page.line(&format!("  {BOLD}{name}{BOLD:#}{address}"));
}

/// The host that a hop starts from, where the road comes to another one, and its address.
pub(super) fn node_before(hop: Hop, ends: &Ends) -> Option<(String, String)> {
    let name = &ends.realserver;
    Some(match hop {
        Hop::ClientToDirector | Hop::ReturnToDirector => ("client".to_owned(), shown(ends.cip)),
        Hop::DirectorForward => ("director".to_owned(), shown(ends.dip)),
        Hop::Decapsulation => match ends.rip {
            None => (name.clone(), String::new()),
            Some(rip) if *name == rip.to_string() => ("real server".to_owned(), shown(ends.rip)),
            Some(_) => (format!("real server {name}"), shown(ends.rip)),
        },
        Hop::SpoofedSourceTransit => ("gateway".to_owned(), shown(ends.gateway)),
        _ => return None,
    })
}

pub(super) fn shown(address: Option<Ipv4Addr>) -> String {
    address.map_or_else(String::new, |address| format!(" {address}"))
}

/// What a hop's road is drawn with.
pub(super) fn road(hop: Hop, is_proven: bool) -> char {
    match (is_proven, hop) {
        (true, Hop::DirectorToRealserver | Hop::Decapsulation) => '║',
        (true, _) => '│',
        (false, _) => '┊',
    }
}

fn draw_hop(page: &mut Page, report: &Report, hop: &HopReport, last_reason: Option<&str>) {
    let road = road(hop.id, hop.verdict == HopVerdict::Proven);
    let reason = hop.reason.as_deref();
    let (sign, style, word) = sign(hop.verdict);
    let (words, words_style) = match hop.verdict {
        HopVerdict::Proven => (proven(report, hop), Style::new()),
        HopVerdict::Broken => match hop.between {
            Some((last, first)) => (format!("broken between {last} and {first}"), BAD),
            None => ("broken".to_owned(), BAD),
        },
        HopVerdict::Unproven | HopVerdict::Skipped => {
            (because(word, reason, last_reason), Style::new())
        }
    };
    let margin = format!("  {DIM}{road}{DIM:#} ");
    let id = hop.id.id();
    let rest = 23 - id.len();
    let head = format!("{margin}{style}{sign} {id}{style:#}{:rest$}", "");
    let indent = match page.room_beside(&head) < CRAMPED {
        true => 4,
        false => 25,
    };
    let next = format!("{margin}{:indent$}", "");
    page.wrapped(&head, &next, &words, words_style);
    if hop.verdict == HopVerdict::Broken {
        explain_break(page, report, hop, &format!("{margin}    "));
    }
}

/// Why it is broken, and what shows it.
fn explain_break(page: &mut Page, report: &Report, hop: &HopReport, margin: &str) {
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

/// Tells a finding as a compiler would.
fn tell(page: &mut Page, finding: &FindingReport) {
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
    for command in &finding.fix {
        page.line(&format!("  {DIM}={DIM:#} type {}", typed(command)));
    }
    page.line(&format!(
        "  {DIM}={DIM:#} more `tunproof explain {}`",
        finding.code
    ));
}

/// A command, apart from the host that it is for.
pub(super) fn typed(command: &str) -> String {
    match command.split_once("# ") {
        Some((host, command)) => format!("{host}# {TYPE}{command}{TYPE:#}"),
        None => format!("{TYPE}{command}{TYPE:#}"),
    }
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

/// The verdict over all paths, its colour, and what it is made of.
pub(super) fn sum(report: &Report) -> (Style, &'static str, String) {
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
    (style, word, format!("{words}; {probes} sent in {elapsed}"))
}

pub(super) fn elapsed(ms: u64) -> String {
    match ms {
        ms @ 0..1000 => format!("{ms} ms"),
        ms => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
    }
}

pub(super) fn outcome(outcome: Outcome) -> (Style, &'static str) {
    match outcome {
        Outcome::Proven => (GOOD.effects(Effects::BOLD), "proven"),
        Outcome::Unproven => (OPEN.effects(Effects::BOLD), "unproven"),
        Outcome::Broken => (BAD, "broken"),
    }
}

/// Lines of text.
pub(super) struct Page {
    pub(super) text: String,
    width: usize,
}

impl Page {
    pub(super) fn new(width: usize) -> Page {
        Page {
            text: String::new(),
            width,
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    pub(super) fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// How many characters are left beside `begin`.
    fn room_beside(&self, begin: &str) -> usize {
        self.width.saturating_sub(visible_width(begin))
    }

    /// `words` after `first`, broken at spaces into lines that begin with `next`; below `first`, where there is
    /// more room than beside it, if that is little.
    pub(super) fn wrapped(&mut self, first: &str, next: &str, words: &str, style: Style) {
        let mut begin = first;
        let mut room = self.room_beside(first);
        let below = self.room_beside(next);
        if room < CRAMPED && room < below && room < words.chars().count() {
            self.line(first);
            (begin, room) = (next, below);
        }
        let mut line = String::new();
        for word in words.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                self.line(&format!("{begin}{style}{line}{style:#}"));
                line.clear();
                (begin, room) = (next, below);
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        self.line(&format!("{begin}{style}{line}{style:#}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn plain(verbose: bool) -> String {
        let styled = text(&fixture::report(), verbose, WIDTH);
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
        let page = anstream::adapter::strip_str(&run_text(&run, false, WIDTH)).to_string();
        for line in [
            "  ✘ told   failed: realserver-accept is broken\n",
            "  ✘ untold failed: realserver-accept is broken: for once\n",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[test]
    fn a_broken_hop_shows_where_why_and_by_what() {
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
  = type rs1# sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0
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
        let page = anstream::adapter::strip_str(&text(&report, false, WIDTH)).to_string();
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
    #[test]
    fn on_a_narrow_terminal_words_stand_below_the_hop() {
        let page = text(&fixture::report(), false, 40);
        let page = anstream::adapter::strip_str(&page).to_string();
        let expected = "
  ║ ✔ director-to-realserver
  ║     proven by SYN in IPIP at
  ║     realserver.in (e4, e3)
  real server rs1 203.0.113.5
  ║ ✔ decapsulation
  ║     implied by SYN at
  ║     realserver.tunnel (e5)
  ┊ ✘ realserver-accept
  ┊     broken between realserver.tunnel
  ┊     and realserver.out
";
        assert!(page.contains(expected), "expected\n{expected}\ngot\n{page}");
        for line in page.lines() {
            let width = line.chars().count();
            let is_command = line.contains(" = type ") || line.contains(" = more ");
            assert!(is_command || width <= 40, "{width}: {line}");
        }
    }

    #[test]
    fn several_paths_are_summed_up_in_a_line_each() {
        let page = plain(false);
        let expected = "
rs1       ? ✔✔✔ ✔✘··· ·· · 4/12 realserver-accept broken: rp-filter-drops
rs\\u{1b}2 ✔ ✔✔✔ ✔✔✔✔✔ ✔✔ ✔ 12/12

broken: ";
        assert!(page.contains(expected), "expected\n{expected}\ngot\n{page}");
    }
}
