//! The report of a suite that was played, schema `tunproof.run/1`.
//!
//! | field | content |
//! | --- | --- |
//! | `suite`, `about` | the suite's name, and what it shows |
//! | `outcome` | `proven`, `broken` (a step failed, or a hop that the suite asks for is broken) or `unproven`, over all rounds |
//! | `rounds`, `round` | how often it was played, and which of them all that follows is of: the first of the worst |
//! | `steps[]` | by path: `realserver`, `id`, `about`, `outcome` (`passed`, `failed`, `inconclusive`, `skipped`), `reason`, `evidence` (ids), `passed` (in how many rounds), `expectations[]` |
//! | an expectation | `expected` (in words), `outcome`, `seen`, `sent`, `reason`, `evidence` |
//! | `hops[]` | the hops that the suite asks for, as in `tunproof.report/1` |
//! | `findings[]`, `evidence[]`, `probes[]`, `timing` | as in `tunproof.report/1` |

use serde::Serialize;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::report::EvidenceReport;
use crate::report::FindingReport;
use crate::report::PathHop;
use crate::report::ProbeReport;
use crate::report::Report;
use crate::report::TimingReport;
use crate::report::escape;
use crate::verdict::Outcome;
use crate::verdict::StepJudgement;
use crate::verdict::StepOutcome;

/// The schema's name.
pub const RUN_SCHEMA: &str = "tunproof.run/1";

/// A suite, played on every path.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// [`RUN_SCHEMA`].
    pub schema: &'static str,
    /// The suite's name.
    pub suite: String,
    /// What it shows.
    pub about: String,
    /// Over all paths and rounds.
    pub outcome: Outcome,
    /// How often it was played.
    pub rounds: usize,
    /// Which of them the rest is of, counted from 1: the first of the worst.
    pub round: usize,
    /// The steps of every path.
    pub steps: Vec<StepReport>,
    /// The hops that the suite asks for.
    pub hops: Vec<PathHop>,
    /// What the judge found besides.
    pub findings: Vec<FindingReport>,
    /// Everything that is known.
    pub evidence: Vec<EvidenceReport>,
    /// Everything that was to be sent.
    pub probes: Vec<ProbeReport>,
    /// When and how long.
    pub timing: TimingReport,
}

/// A step of a path.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// The real server's name.
    pub realserver: String,
    /// The step's name.
    pub id: String,
    /// What it is for.
    pub about: String,
    /// What became of it.
    pub outcome: StepOutcome,
    /// Why.
    pub reason: Option<String>,
    /// Names of the evidence.
    pub evidence: Vec<EvidenceId>,
    /// In how many rounds it passed.
    pub passed: usize,
    /// What became of what it expects.
    pub expectations: Vec<ExpectationReport>,
}

/// An expectation of a step.
#[derive(Clone, Debug, Serialize)]
pub struct ExpectationReport {
    /// In words.
    pub expected: String,
    /// What became of it.
    pub outcome: StepOutcome,
    /// Of how many packets it was seen.
    pub seen: usize,
    /// How many were sent.
    pub sent: usize,
    /// Why, unless it passed.
    pub reason: Option<String>,
    /// Names of the evidence.
    pub evidence: Vec<EvidenceId>,
}

impl RunReport {
    /// The report of one round.
    pub fn new(
        evidence: &Evidence,
        report: Report,
        steps: &[StepJudgement],
        outcome: Outcome,
    ) -> RunReport {
        let plan = evidence.plan();
        let suite = plan.suites.first();
        let asked = report
            .hops
            .into_iter()
            .filter(|entry| suite.is_some_and(|suite| suite.hops.contains(&entry.hop.id)));
        RunReport {
            schema: RUN_SCHEMA,
            suite: suite.map_or_else(String::new, |suite| escape(&suite.name)),
            about: suite.map_or_else(String::new, |suite| escape(&suite.about)),
            outcome,
            rounds: 1,
            round: 1,
            steps: steps.iter().map(|judged| step(evidence, judged)).collect(),
            hops: asked.collect(),
            findings: report.findings,
            evidence: report.evidence,
            probes: report.probes,
            timing: report.timing,
        }
    }

    /// The report of several rounds, from those of each; `None` if there is none.
    pub fn of_rounds(rounds: Vec<RunReport>) -> Option<RunReport> {
        let worst = rounds.iter().map(|round| round.outcome).max()?;
        let place = rounds.iter().position(|round| round.outcome == worst)?;
        let passed: Vec<usize> = (0..rounds[place].steps.len())
            .map(|step| {
                let of_step = rounds.iter().filter_map(|round| round.steps.get(step));
                of_step.map(|step| step.passed).sum()
            })
            .collect();
        let (all, mut shown) = (rounds.len(), rounds.into_iter().nth(place)?);
        for (step, passed) in shown.steps.iter_mut().zip(passed) {
            step.passed = passed;
        }
        shown.rounds = all;
        shown.round = place + 1;
        Some(shown)
    }

    /// One JSON object, with a newline at its end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report has string keys only");
        text.push('\n');
        text
    }
}

fn step(evidence: &Evidence, judged: &StepJudgement) -> StepReport {
    let plan = evidence.plan();
    let of_suite = plan.step(judged.path, judged.step);
    StepReport {
        realserver: escape(&plan.paths[judged.path].realserver),
        id: of_suite.map_or_else(String::new, |step| escape(&step.id)),
        about: of_suite.map_or_else(String::new, |step| escape(&step.about)),
        outcome: judged.outcome,
        reason: judged.reason.as_deref().map(escape),
        evidence: judged.evidence.clone(),
        passed: usize::from(judged.outcome == StepOutcome::Passed),
        expectations: judged
            .expectations
            .iter()
            .map(|judged| ExpectationReport {
                expected: escape(&judged.expected),
                outcome: judged.outcome,
                seen: judged.seen,
                sent: judged.sent,
                reason: judged.reason.as_deref().map(escape),
                evidence: judged.evidence.clone(),
            })
            .collect(),
    }
}
