//! The verdict's nouns.

use serde::Serialize;

use crate::evidence::EvidenceId;
use crate::plan::Hop;
use crate::plan::Station;
use crate::verdict::Code;

/// The verdict over all paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// One for each path of the plan, in order.
    pub paths: Vec<PathJudgement>,
}

impl Judgement {
    /// Over all paths: broken if one is, else unproven if one is.
    pub fn outcome(&self) -> Outcome {
        self.paths
            .iter()
            .map(|path| path.outcome)
            .max()
            .unwrap_or(Outcome::Unproven)
    }
}

/// The verdict of a path, or of all; `Ord` is "how bad".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every hop is proven.
    Proven,
    /// No hop is broken, and not every hop is proven.
    Unproven,
    /// A hop is broken.
    Broken,
}

/// The verdict of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathJudgement {
    /// Its number in the plan.
    pub path: usize,
    /// The verdict over its hops.
    pub outcome: Outcome,
    /// All twelve hops, in path order.
    pub hops: Vec<HopJudgement>,
    /// The findings, worst and nearest to the client first.
    pub findings: Vec<Finding>,
}

/// The verdict of one hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HopJudgement {
    /// The hop.
    pub hop: Hop,
    /// Its verdict.
    pub verdict: HopVerdict,
    /// By what it is proven.
    pub how: Option<How>,
    /// The evidence, most telling first.
    pub evidence: Vec<EvidenceId>,
    /// The last station that saw a probe and the first that should have and did not.
    pub between: Option<(Station, Station)>,
    /// Why it is broken, unproven (and which vantage would decide) or skipped.
    pub reason: Option<String>,
}

/// A hop's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HopVerdict {
    /// It works.
    Proven,
    /// It does not.
    Broken,
    /// These vantages could not decide.
    Unproven,
    /// Not tried, because an earlier hop is broken.
    Skipped,
}

/// By what a hop is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// A probe was seen on both sides of it.
    Seen,
    /// A probe was seen beyond it.
    Implied,
    /// The host says so, where no packet could decide.
    Fact,
}

/// Why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its code.
    pub code: Code,
    /// How bad.
    pub severity: Severity,
    /// The hop it is about.
    pub hop: Hop,
    /// One line.
    pub summary: String,
    /// More, in sentences.
    pub detail: String,
    /// Commands to type, each prefixed with the host as in `rs1# ip link set tunl0 up`; possibly none.
    pub fix: Vec<String>,
    /// The evidence.
    pub evidence: Vec<EvidenceId>,
}

/// How bad a finding is; `Ord` is worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A hop is broken because of it.
    Error,
    /// It works, and should not stay so.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// Its name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        }
    }
}
