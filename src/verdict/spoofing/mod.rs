//! The spoof check: does a network between the real server and the client (or the director) filter the VIP as a source?
//!
//! Everything rests on differences between what is sent from the VIP and the same from the real server's own
//! address: the client must have got the control before a silence of the VIP's packets means anything. What is
//! answered to the VIP comes back to the director; where the client itself is not seen, the director's own packets
//! from the VIP show whether the way back works.
//!
//! Toward the director the same is judged of another way: it shows what that way does, and no hop of the path. A packet
//! from the VIP that comes there is proof by its arrival alone, for the director's kernel takes none from its own
//! address. A network refuses its own addresses from outside as a rule (RFC 2827, RFC 3704), so that what dies right
//! before the director is no finding.
//!
//! # Confidence
//!
//! - **filtered**, **partly filtered**: 1 − the chance that so many probes were lost by accident, where of N controls
//!   L were lost: ∏ (L + 1 + i) / (N + 2 + i) over the n silent probes, i = 0 … n − 1, which is the posterior
//!   predictive of a loss rate of which nothing was known before. Without a vantage at the client, L is the loss of
//!   the control's round trip and of the director's own together. Nothing is called a filter unless that chance, times
//!   the number of flows, is below 1 in 100,000.
//! - **partly filtered** at most 1 − ½^c, c being the flows in which the control passed: of equal paths one could be
//!   dead for everybody, and the control's flows have all missed it.
//! - **passed**: 1 − ½^f, f being the flows that passed: of two equal paths all might have missed the one that filters.
//! - Where the way back to the VIP is shown by nothing but routers before the filter (a capture of the director
//!   instead of an agent), or the silence is that of a capture, at most 90 %.
//! - Never more than 99.9 %: the network may change.

mod arrival;
mod check;
mod director;
mod sweep;
mod translation;

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::evidence::Count;
use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::plan::Toward;
use crate::verdict::Outcome;
use crate::verdict::spoofing::check::Check;

/// What the spoof check found of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoofJudgement {
    /// Its number in the plan.
    pub path: usize,
    /// Whose way was asked.
    pub toward: Toward,
    /// What it comes to.
    pub outcome: SpoofOutcome,
    /// How sure that is, from 0 to 1; `None` where nothing is claimed.
    pub confidence: Option<f64>,
    /// In one line.
    pub summary: String,
    /// More, in sentences.
    pub detail: String,
    /// What to do, or what would decide.
    pub advice: Vec<String>,
    /// The last router that passed the VIP's packets, where a line can be drawn.
    pub passed: Option<Router>,
    /// The first that did not.
    pub stopped: Option<Router>,
    /// The sources that the VIP was replaced by.
    pub rewritten_to: Vec<Ipv4Addr>,
    /// Time to live by time to live, as far as anything was sent; of the flows that were silent, if only some were.
    pub rows: Vec<SpoofRow>,
    /// Flow by flow, what arrived of those that could.
    pub flows: Vec<SpoofFlow>,
    /// Of the director's own packets from the VIP, how many the client's answers came back for.
    pub back: Count,
    /// Toward the director, the routers that are on the client's way as well, by their time to live.
    pub shared: Vec<(u8, Ipv4Addr)>,
    /// The evidence, most telling first.
    pub evidence: Vec<EvidenceId>,
}

/// What the spoof check comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpoofOutcome {
    /// The client, or the director where that was asked, gets what comes from the VIP.
    Passed,
    /// It gets nothing from the VIP, and the control.
    Filtered,
    /// It gets some flows always and others never.
    PartlyFiltered,
    /// It gets what was sent from the VIP with another source.
    Rewritten,
    /// It gets nothing of the control either.
    ControlDiesToo,
    /// These vantages and probes do not tell.
    Inconclusive,
}

impl SpoofOutcome {
    /// The worst of several: what a network does to the VIP's packets, then what is not known.
    pub fn worst(judged: &[SpoofJudgement]) -> SpoofOutcome {
        let outcomes = judged.iter().map(|judged| judged.outcome);
        let worst = outcomes.min_by_key(|outcome| {
            let verdict = outcome.verdict();
            (
                verdict != Outcome::Broken,
                verdict != Outcome::Unproven,
                *outcome as u8,
            )
        });
        worst.unwrap_or(SpoofOutcome::Inconclusive)
    }

    /// What it is in the words of other verdicts.
    pub fn verdict(self) -> Outcome {
        match self {
            SpoofOutcome::Passed => Outcome::Proven,
            SpoofOutcome::Filtered | SpoofOutcome::PartlyFiltered | SpoofOutcome::Rewritten => {
                Outcome::Broken
            }
            SpoofOutcome::ControlDiesToo | SpoofOutcome::Inconclusive => Outcome::Unproven,
        }
    }

    /// Its name.
    pub fn id(self) -> &'static str {
        match self {
            SpoofOutcome::Passed => "passed",
            SpoofOutcome::Filtered => "filtered",
            SpoofOutcome::PartlyFiltered => "partly-filtered",
            SpoofOutcome::Rewritten => "rewritten",
            SpoofOutcome::ControlDiesToo => "control-dies-too",
            SpoofOutcome::Inconclusive => "inconclusive",
        }
    }
}

/// A router, or the host that everything goes to, by its distance from the real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// The time to live that ends there.
    pub ttl: u8,
    /// The addresses that answered the VIP.
    pub to_the_vip: Vec<Ipv4Addr>,
    /// The addresses that answered the control.
    pub to_the_control: Vec<Ipv4Addr>,
    /// Whether it is the host that everything goes to, and then which.
    pub end: Option<Toward>,
}

/// What became of a time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoofRow {
    /// The time to live.
    pub ttl: u8,
    /// From the VIP.
    pub spoofed: SpoofCell,
    /// From the real server's own address.
    pub control: SpoofCell,
}

/// One side of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoofCell {
    /// How many were sent.
    pub sent: usize,
    /// How many were answered by a router, or arrived.
    pub answered: usize,
    /// How many of those arrived.
    pub arrived: usize,
    /// How many of those a router refused.
    pub refused: usize,
    /// Who answered.
    pub by: Vec<Ipv4Addr>,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoofFlow {
    /// The far port.
    pub port: u16,
    /// From the VIP.
    pub spoofed: Count,
    /// From the real server's own address.
    pub control: Count,
}

/// Judges what the passes of the spoof check have shown of every path.
pub fn judge_spoofing(evidence: &Evidence) -> Vec<SpoofJudgement> {
    let paths = 0..evidence.plan().paths.len();
    paths
        .map(|number| judge_spoofing_toward(evidence, number, evidence.plan().toward(number)))
        .collect()
}

/// Judges what the passes of the spoof check toward a host have shown of path number `path`.
pub(super) fn judge_spoofing_toward(
    evidence: &Evidence,
    path: usize,
    toward: Toward,
) -> SpoofJudgement {
    Check::new(evidence, path, toward).judge()
}
