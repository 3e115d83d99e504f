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
use crate::plan::Toward;
use crate::report::EvidenceReport;
use crate::report::TimingReport;
use crate::report::escape::escape;
use crate::report::model::piece;
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
    schema: &'static str,
    outcome: SpoofOutcome,
    pub(super) paths: Vec<SpoofPath>,
    evidence: Vec<EvidenceReport>,
    pub(super) timing: TimingReport,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SpoofPath {
    pub(super) realserver: String,
    vip: Ipv4Addr,
    rip: Ipv4Addr,
    cip: Ipv4Addr,
    dip: Option<Ipv4Addr>,
    pub(super) toward: Toward,
    pub(super) outcome: SpoofOutcome,
    confidence: Option<f64>,
    pub(super) summary: String,
    detail: String,
    advice: Vec<String>,
    last_passed: Option<Place>,
    first_stopped: Option<Place>,
    rewritten_to: Vec<Ipv4Addr>,
    sweep: Vec<Row>,
    flows: Vec<Flow>,
    #[serde(rename = "return")]
    back: Tally,
    shared: Vec<Shared>,
    evidence: Vec<EvidenceId>,
}

#[derive(Clone, Debug, Serialize)]
struct Place {
    ttl: u8,
    spoofed: Vec<Ipv4Addr>,
    control: Vec<Ipv4Addr>,
    client: bool,
    director: bool,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Shared {
    ttl: u8,
    address: Ipv4Addr,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    ttl: u8,
    spoofed: Cell,
    control: Cell,
}

#[derive(Clone, Debug, Serialize)]
struct Cell {
    sent: usize,
    answered: usize,
    arrived: usize,
    refused: usize,
    by: Vec<Ipv4Addr>,
}

#[derive(Clone, Debug, Serialize)]
struct Flow {
    port: u16,
    spoofed: Tally,
    control: Tally,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Tally {
    sent: usize,
    arrived: usize,
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
    let word = match path.outcome {
        SpoofOutcome::Rewritten => "has another source",
        SpoofOutcome::PartlyFiltered => "none of these flows",
        SpoofOutcome::Inconclusive => "perhaps",
        _ => "nothing passes",
    };
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
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::exchange::Wall;
    use crate::report::fixture;

    fn cell(sent: usize, arrived: usize, by: &[[u8; 4]]) -> SpoofCell {
        SpoofCell {
            sent,
            answered: if by.is_empty() { 0 } else { sent },
            arrived,
            refused: 0,
            by: by.iter().map(|octets| Ipv4Addr::from(*octets)).collect(),
        }
    }

    fn report() -> SpoofReport {
        let gateway = [203, 0, 113, 1];
        let core = [10, 0, 0, 1];
        let router = |ttl, address: [u8; 4], passed: bool| Router {
            ttl,
            to_the_vip: passed.then_some(address.into()).into_iter().collect(),
            to_the_control: vec![address.into()],
            end: None,
        };
        let count = Count {
            sent: 6,
            arrived: 0,
        };
        let judged = SpoofJudgement {
            path: 0,
            toward: Toward::Client,
            outcome: SpoofOutcome::Filtered,
            confidence: Some(0.999),
            summary: "a network filters it".to_owned(),
            detail: "None arrived.".to_owned(),
            advice: vec!["rs1# traceroute\u{7}".to_owned()],
            passed: Some(router(1, gateway, true)),
            stopped: Some(router(2, core, false)),
            rewritten_to: Vec::new(),
            rows: vec![
                SpoofRow {
                    ttl: 1,
                    spoofed: cell(6, 0, &[gateway]),
                    control: cell(6, 0, &[gateway]),
                },
                SpoofRow {
                    ttl: 2,
                    spoofed: cell(6, 0, &[]),
                    control: cell(6, 0, &[core, [10, 0, 0, 2]]),
                },
            ],
            flows: vec![crate::verdict::SpoofFlow {
                port: 50_000,
                spoofed: count,
                control: Count {
                    sent: 6,
                    arrived: 6,
                },
            }],
            back: Count::default(),
            shared: Vec::new(),
            evidence: vec![EvidenceId(1)],
        };
        let timing = Timing {
            started: Wall::default(),
            elapsed: Duration::from_millis(7100),
        };
        SpoofReport::new(&fixture::evidence(), &[judged], timing)
    }

    #[test]
    fn both_sweeps_stand_side_by_side_with_a_line_where_they_part() {
        let text = anstream::adapter::strip_str(&report().to_text(80)).to_string();
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
        let json: Value = serde_json::from_str(&report().to_json()).unwrap();
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
