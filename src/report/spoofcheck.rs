//! The spoof check's report, schema `tunproof.spoofcheck/1`, and its drawing: both sweeps side by side.
//!
//! | field | content |
//! | --- | --- |
//! | `outcome` | the worst over all paths |
//! | `paths[]` | one for each real server: `realserver`, `vip`, `rip`, `cip`, `dip`, `toward` (`client` or `director`), `outcome`, `confidence`, `summary`, `detail`, `advice[]`, `last_passed`, `first_stopped`, `rewritten_to[]`, `sweep[]`, `flows[]`, `return`, `shared[]`, `evidence[]` |
//! | `outcome` of a path | `passed`, `filtered`, `partly-filtered`, `rewritten`, `control-dies-too` or `inconclusive` |
//! | `confidence` | from 0 to 0.999, or null where nothing is claimed |
//! | `last_passed`, `first_stopped` | null, or `ttl`, `spoofed` and `control` (the addresses that answered), `client` and `director` (whether it is the client, or the director) |
//! | `sweep[]` | `ttl`, and of `spoofed` and `control` `sent`, `answered`, `arrived`, `refused`, `by[]` |
//! | `flows[]` | `port`, and of `spoofed` and `control` `sent` and `arrived` |
//! | `return` | `sent` and `arrived`: the director's own probes of the way back |
//! | `shared[]` | `ttl`, `address`: toward the director, the routers that the control meets on its way to the client as well |
//! | `evidence[]` at top level, `timing` | as in `tunproof.report/1` |

use std::net::Ipv4Addr;

use anstyle::AnsiColor;
use anstyle::Effects;
use anstyle::Style;
use serde::Serialize;

use crate::evidence::Count;
use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::exchange::Timing;
use crate::plan::Host;
use crate::plan::Protocol;
use crate::plan::Toward;
use crate::report::EvidenceReport;
use crate::report::ProbeReport;
use crate::report::TimingReport;
use crate::report::escape::escape;
use crate::report::model::piece;
use crate::report::model::probe;
use crate::report::sweep::Sweep;
use crate::report::sweep::SweepCell;
use crate::report::sweep::SweepRow;
use crate::report::sweep::round_trips;
use crate::report::text::Page;
use crate::verdict::Router;
use crate::verdict::SpoofCell;
use crate::verdict::SpoofJudgement;
use crate::verdict::SpoofOutcome;
use crate::verdict::SpoofRow;

/// The schema's name.
const SCHEMA: &str = "tunproof.spoofcheck/1";

const GOOD: Style = AnsiColor::Green.on_default().effects(Effects::BOLD);
const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
const OPEN: Style = AnsiColor::Yellow.on_default().effects(Effects::BOLD);
const BOLD: Style = Style::new().effects(Effects::BOLD);
const DIM: Style = Style::new().effects(Effects::DIMMED);

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct SpoofReport {
    pub(super) schema: &'static str,
    pub(super) outcome: SpoofOutcome,
    pub(super) paths: Vec<SpoofPath>,
    pub(super) evidence: Vec<EvidenceReport>,
    pub(super) timing: TimingReport,
    #[serde(skip)]
    pub(super) probes: Vec<ProbeReport>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SpoofPath {
    pub(super) realserver: String,
    pub(super) vip: Ipv4Addr,
    pub(super) rip: Ipv4Addr,
    pub(super) cip: Ipv4Addr,
    pub(super) dip: Option<Ipv4Addr>,
    pub(super) toward: Toward,
    pub(super) outcome: SpoofOutcome,
    pub(super) confidence: Option<f64>,
    pub(super) summary: String,
    pub(super) detail: String,
    pub(super) advice: Vec<String>,
    pub(super) last_passed: Option<Place>,
    pub(super) first_stopped: Option<Place>,
    pub(super) rewritten_to: Vec<Ipv4Addr>,
    pub(super) sweep: Vec<Row>,
    pub(super) flows: Vec<Flow>,
    #[serde(rename = "return")]
    pub(super) back: Tally,
    pub(super) shared: Vec<Shared>,
    pub(super) evidence: Vec<EvidenceId>,
    /// The sweep to plot: as above, with its round trips.
    #[serde(skip)]
    pub(super) plotted: Sweep,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Place {
    pub(super) ttl: u8,
    pub(super) spoofed: Vec<Ipv4Addr>,
    pub(super) control: Vec<Ipv4Addr>,
    pub(super) client: bool,
    pub(super) director: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Shared {
    pub(super) ttl: u8,
    pub(super) address: Ipv4Addr,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) ttl: u8,
    pub(super) spoofed: Cell,
    pub(super) control: Cell,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Cell {
    pub(super) sent: usize,
    pub(super) answered: usize,
    pub(super) arrived: usize,
    pub(super) refused: usize,
    pub(super) by: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Flow {
    pub(super) port: u16,
    pub(super) spoofed: Tally,
    pub(super) control: Tally,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Tally {
    pub(super) sent: usize,
    pub(super) arrived: usize,
}

impl SpoofReport {
    /// The report of what was judged.
    pub fn new(evidence: &Evidence, judged: &[SpoofJudgement], timing: Timing) -> SpoofReport {
        let pieces = evidence.items().iter().map(|item| piece(evidence, item));
        SpoofReport {
            schema: SCHEMA,
            outcome: SpoofOutcome::worst(judged),
            paths: judged.iter().map(|judged| path(evidence, judged)).collect(),
            evidence: pieces.collect(),
            timing: TimingReport::from(timing),
            probes: evidence
                .probes()
                .iter()
                .map(|item| probe(evidence, item))
                .collect(),
        }
    }

    /// One JSON object, with a newline at its end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report has string keys only");
        text.push('\n');
        text
    }

    /// For people: both sweeps side by side, with a line where they part.
    pub fn to_text(&self, width: usize) -> String {
        let mut page = Page::new(width);
        for path in &self.paths {
            draw(&mut page, path);
            page.blank();
        }
        let seconds = self.timing.elapsed_ms as f64 / 1000.0;
        let outcome = self.outcome.id();
        page.line(&format!(
            "{}{outcome}{:#} in {seconds:.1} s",
            style(self.outcome),
            style(self.outcome)
        ));
        page.text
    }
}

fn path(evidence: &Evidence, judged: &SpoofJudgement) -> SpoofPath {
    let path = &evidence.plan().paths[judged.path];
    SpoofPath {
        realserver: escape(&path.realserver),
        vip: path.vip,
        rip: path.rip,
        cip: path.cip,
        dip: path.dip,
        toward: judged.toward,
        outcome: judged.outcome,
        // Four digits say all there is to say.
        confidence: judged.confidence.map(|sure| (sure * 1e4).floor() / 1e4),
        summary: escape(&judged.summary),
        detail: escape(&judged.detail),
        advice: judged.advice.iter().map(|line| escape(line)).collect(),
        last_passed: judged.passed.as_ref().map(place),
        first_stopped: judged.stopped.as_ref().map(place),
        rewritten_to: judged.rewritten_to.clone(),
        sweep: judged.rows.iter().map(row).collect(),
        flows: judged
            .flows
            .iter()
            .map(|flow| Flow {
                port: flow.port,
                spoofed: tally(flow.spoofed),
                control: tally(flow.control),
            })
            .collect(),
        back: tally(judged.back),
        shared: judged
            .shared
            .iter()
            .map(|(ttl, address)| Shared {
                ttl: *ttl,
                address: *address,
            })
            .collect(),
        evidence: judged.evidence.clone(),
        plotted: plotted(evidence, judged),
    }
}

/// The judged rows, with the round trips of the control.
fn plotted(evidence: &Evidence, judged: &SpoofJudgement) -> Sweep {
    let path = &evidence.plan().paths[judged.path];
    let controls = [Protocol::Udp, Protocol::Tcp].map(|protocol| judged.toward.pair(protocol).1);
    let mut trips = round_trips(evidence, judged.path, &controls);
    let last = judged.rows.last().map_or(0, |row| row.ttl);
    let cell = |cell: &SpoofCell| SweepCell {
        sent: cell.sent,
        answered: cell.answered,
        refused: cell.refused,
        by: cell.by.clone(),
        round_trips: Vec::new(),
    };
    let mut rows: Vec<_> = judged
        .rows
        .iter()
        .map(|row| {
            let is_end = row.ttl == last && row.control.arrived > 0;
            let mut control = cell(&row.control);
            control.round_trips = match is_end {
                false => trips.remove(&row.ttl).unwrap_or_default(),
                true => trips.split_off(&row.ttl).into_values().flatten().collect(),
            };
            SweepRow {
                ttl: row.ttl,
                is_end,
                asked: cell(&row.spoofed),
                control,
            }
        })
        .collect();
    rows.sort_by_key(|row| row.ttl);
    let passed = judged.passed.as_ref().map_or(0, |router| router.ttl);
    Sweep {
        ends: (escape(&path.realserver), judged.toward.id().to_owned()),
        end: judged.toward.id(),
        sides: (
            format!("from the VIP {}", path.vip),
            format!("from {}", path.rip),
        ),
        heard: ("director", evidence.sees(Host::Director)),
        rows,
        cut: judged
            .stopped
            .as_ref()
            .map(|_| (passed, cut_word(judged.outcome))),
    }
}

/// What becomes of the VIP's packets where the sweeps part.
fn cut_word(outcome: SpoofOutcome) -> &'static str {
    match outcome {
        SpoofOutcome::Rewritten => "has another source",
        SpoofOutcome::PartlyFiltered => "none of these flows",
        SpoofOutcome::Inconclusive => "perhaps",
        _ => "nothing passes",
    }
}

fn place(router: &Router) -> Place {
    Place {
        ttl: router.ttl,
        spoofed: router.to_the_vip.clone(),
        control: router.to_the_control.clone(),
        client: router.end == Some(Toward::Client),
        director: router.end == Some(Toward::Director),
    }
}

fn row(row: &SpoofRow) -> Row {
    let cell = |cell: &SpoofCell| Cell {
        sent: cell.sent,
        answered: cell.answered,
        arrived: cell.arrived,
        refused: cell.refused,
        by: cell.by.clone(),
    };
    Row {
        ttl: row.ttl,
        spoofed: cell(&row.spoofed),
        control: cell(&row.control),
    }
}

fn tally(count: Count) -> Tally {
    Tally {
        sent: count.sent,
        arrived: count.arrived,
    }
}

/// How wide an address is drawn, with the number of answers behind it.
const ADDRESS: usize = 16;
const COUNT: usize = 7;

fn draw(page: &mut Page, path: &SpoofPath) {
    let there = match path.toward {
        Toward::Client => path.cip,
        Toward::Director => path.dip.unwrap_or(Ipv4Addr::UNSPECIFIED),
    };
    let whom = path.toward.id();
    page.line(&format!(
        "{BOLD}{}{BOLD:#}: what is sent to the {whom} {there}, and who answers",
        path.realserver
    ));
    page.blank();
    let column = ADDRESS + 1 + COUNT;
    let (vip, rip) = (
        format!("from the VIP {}", path.vip),
        format!("from {}", path.rip),
    );
    page.line(&format!(
        "  {DIM}TTL{DIM:#}  {vip:<column$} {DIM}│{DIM:#} {rip:<column$}"
    ));
    let cut = path.first_stopped.as_ref().map(|stopped| stopped.ttl);
    let passed = path.last_passed.as_ref().map_or(0, |router| router.ttl);
    let word = cut_word(path.outcome);
    let mut is_cut = false;
    for row in &path.sweep {
        if cut.is_some() && !is_cut && row.ttl > passed {
            is_cut = true;
            let rule = "─".repeat(column.saturating_sub(word.chars().count() + 1));
            page.line(&format!("  {BAD}──✂─ {word} {rule}{BAD:#} {DIM}│{DIM:#}"));
        }
        draw_row(page, row, (whom, there));
    }
    page.blank();
    let style = style(path.outcome);
    let sure = match path.confidence {
        Some(sure) => format!(", confidence {:.1} %", (sure * 1000.0).floor() / 10.0),
        None => String::new(),
    };
    let outcome = path.outcome.id().to_uppercase();
    page.wrapped(
        &format!("{style}{outcome}{style:#}{sure}: "),
        "  ",
        &path.summary,
        Style::new(),
    );
    page.wrapped("  ", "  ", &path.detail, Style::new());
    if path
        .flows
        .iter()
        .any(|flow| flow.spoofed.arrived < flow.spoofed.sent)
    {
        for flow in &path.flows {
            page.line(&format!(
                "  flow of port {}: {} of {} from the VIP, {} of {} from {}",
                flow.port,
                flow.spoofed.arrived,
                flow.spoofed.sent,
                flow.control.arrived,
                flow.control.sent,
                path.rip
            ));
        }
    }
    if path.back.sent > 0 {
        page.line(&format!(
            "  way back to the VIP, by the director's own probes: {} of {}",
            path.back.arrived, path.back.sent
        ));
    }
    for line in &path.advice {
        page.line(&format!("  {DIM}›{DIM:#} {line}"));
    }
}

fn draw_row(page: &mut Page, row: &Row, (whom, end): (&str, Ipv4Addr)) {
    let lines = row.spoofed.by.len().max(row.control.by.len()).max(1);
    for line in 0..lines {
        let ttl = match line {
            0 => row.ttl.to_string(),
            _ => String::new(),
        };
        let cell = |cell: &Cell| {
            let by = match cell.by.get(line) {
                Some(by) => by.to_string(),
                None if line > 0 || cell.sent == 0 => String::new(),
                None => "·".to_owned(),
            };
            let count = match line {
                0 if cell.sent > 0 => format!("{}/{}", cell.answered - cell.refused, cell.sent),
                _ => String::new(),
            };
            format!("{by:<ADDRESS$} {count:>COUNT$}")
        };
        let is_end = line == 0 && (row.spoofed.by.contains(&end) || row.control.by.contains(&end));
        let who = match (is_end, row.spoofed.refused) {
            (true, 0) => format!("  {whom}"),
            (true, refused) => format!("  {whom}; {refused} refused"),
            (false, refused @ 1..) if line == 0 => format!("  {refused} refused"),
            _ => String::new(),
        };
        page.line(&format!(
            "  {ttl:>3}  {} {DIM}│{DIM:#} {}{who}",
            cell(&row.spoofed),
            cell(&row.control)
        ));
    }
}

fn style(outcome: SpoofOutcome) -> Style {
    match outcome {
        SpoofOutcome::Passed => GOOD,
        SpoofOutcome::ControlDiesToo | SpoofOutcome::Inconclusive => OPEN,
        SpoofOutcome::Filtered | SpoofOutcome::PartlyFiltered | SpoofOutcome::Rewritten => BAD,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::report::fixture;

    #[test]
    fn both_sweeps_stand_side_by_side_with_a_line_where_they_part() {
        let text = anstream::adapter::strip_str(&fixture::spoof_report().to_text(80)).to_string();
        let lines: Vec<_> = text.lines().collect();
        let at = |words: &str| lines.iter().position(|line| line.contains(words));
        let first = at("  1  203.0.113.1          6/6 │ 203.0.113.1          6/6");
        let cut = at("──✂─ nothing passes ─");
        let second = at("  2  ·                    0/6 │ 10.0.0.1             6/6");
        assert!(first.is_some() && first < cut && cut < second, "{text}");
        assert!(
            at("FILTERED, confidence 99.9 %: a network filters it").is_some(),
            "{text}"
        );
        assert!(at("› rs1# traceroute\\u{7}").is_some(), "{text}");
        assert!(
            at("flow of port 50000: 0 of 6 from the VIP, 6 of 6 from").is_some(),
            "{text}"
        );
    }

    /// The contract, as a script would read it.
    #[test]
    fn the_json_has_the_fields_that_are_documented() {
        let json: Value = serde_json::from_str(&fixture::spoof_report().to_json()).unwrap();
        let keys = |value: &Value| -> Vec<String> {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(json["schema"], "tunproof.spoofcheck/1");
        assert_eq!(
            keys(&json),
            ["evidence", "outcome", "paths", "schema", "timing"]
        );
        let path = &json["paths"][0];
        assert_eq!(
            keys(path),
            [
                "advice",
                "cip",
                "confidence",
                "detail",
                "dip",
                "evidence",
                "first_stopped",
                "flows",
                "last_passed",
                "outcome",
                "realserver",
                "return",
                "rewritten_to",
                "rip",
                "shared",
                "summary",
                "sweep",
                "toward",
                "vip"
            ]
        );
        assert_eq!(path["outcome"], "filtered");
        assert_eq!(path["confidence"], 0.999);
        assert_eq!(
            keys(&path["first_stopped"]),
            ["client", "control", "director", "spoofed", "ttl"]
        );
        assert_eq!(path["first_stopped"]["control"][0], "10.0.0.1");
        assert_eq!(keys(&path["sweep"][0]), ["control", "spoofed", "ttl"]);
        assert_eq!(
            keys(&path["sweep"][0]["spoofed"]),
            ["answered", "arrived", "by", "refused", "sent"]
        );
        assert_eq!(keys(&path["flows"][0]), ["control", "port", "spoofed"]);
        assert_eq!(keys(&path["flows"][0]["spoofed"]), ["arrived", "sent"]);
        assert_eq!(path["evidence"][0], "e1");
        assert_eq!(json["evidence"][0]["id"], "e1");
    }
}
