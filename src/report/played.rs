//! The report of a suite that was played, schema `tunproof.run/1`.
//!
//! | field | content |
//! | --- | --- |
//! | `suite`, `about` | the suite's name, and what it shows |
//! | `outcome` | `proven`, `broken` (a step failed, or a hop that the suite asks for is broken) or `unproven`, over all rounds |
//! | `rounds`, `round` | how often it was played, and which of them all that follows is of: the first of the worst |
//! | `steps[]` | by path: `realserver`, `id`, `about`, `outcome` (`passed`, `failed`, `inconclusive`, `skipped`), `reason`, `evidence` (ids), `worst` (outcome over all rounds), `passed` (in how many), `expectations[]` |
//! | an expectation | `expected` (in words), `outcome`, `seen`, `sent`, `reason`, `evidence` |
//! | `hops[]` | the hops that the suite asks for, as in `tunproof.report/1` |
//! | `findings[]`, `evidence[]`, `probes[]`, `timing` | as in `tunproof.report/1` |

use serde::Serialize;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::report::EvidenceReport;
use crate::report::FindingReport;
use crate::report::PathHop;
use crate::report::PathReport;
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
    /// The paths, of whose hops only those above were asked for.
    #[serde(skip)]
    pub(crate) paths: Vec<PathReport>,
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
    /// What became of it in the round that went worst for it.
    pub worst: StepOutcome,
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
            paths: report.paths,
        }
    }

    /// The report of these rounds and the next one.
    pub fn and(mut self, mut next: RunReport) -> RunReport {
        let rounds = self.rounds + 1;
        for (one, other) in self.steps.iter_mut().zip(&mut next.steps) {
            let passed = one.passed + other.passed;
            (one.passed, other.passed) = (passed, passed);
            let worst = one.worst.or_worse(other.worst);
            (one.worst, other.worst) = (worst, worst);
        }
        let mut shown = self;
        if next.outcome > shown.outcome {
            shown = next;
            shown.round = rounds;
        }
        shown.rounds = rounds;
        shown
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
        worst: judged.outcome,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn round(outcomes: [StepOutcome; 2]) -> RunReport {
        let step = |outcome| StepReport {
            realserver: "rs1".to_owned(),
            id: "a".to_owned(),
            about: String::new(),
            outcome,
            reason: None,
            evidence: Vec::new(),
            worst: outcome,
            passed: usize::from(outcome == StepOutcome::Passed),
            expectations: Vec::new(),
        };
        let is_broken = outcomes.contains(&StepOutcome::Failed);
        RunReport {
            schema: RUN_SCHEMA,
            suite: "own".to_owned(),
            about: String::new(),
            outcome: match is_broken {
                true => Outcome::Broken,
                false => Outcome::Proven,
            },
            rounds: 1,
            round: 1,
            steps: outcomes.map(step).into(),
            hops: Vec::new(),
            findings: Vec::new(),
            evidence: Vec::new(),
            probes: Vec::new(),
            timing: TimingReport {
                started: String::new(),
                elapsed_ms: 1,
            },
            paths: Vec::new(),
        }
    }

    #[test]
    fn a_step_that_failed_in_any_round_has_not_passed() {
        use StepOutcome::Failed;
        use StepOutcome::Passed;
        use StepOutcome::Skipped;
        let rounds = [
            [Passed, Passed],
            [Failed, Passed],
            [Passed, Failed],
            [Passed, Skipped],
        ];
        let all = rounds
            .map(round)
            .into_iter()
            .reduce(RunReport::and)
            .unwrap();
        assert_eq!(
            (all.outcome, all.rounds, all.round),
            (Outcome::Broken, 4, 2)
        );
        let steps = all.steps.iter();
        let steps: Vec<_> = steps.map(|s| (s.outcome, s.worst, s.passed)).collect();
        assert_eq!(steps, [(Failed, Failed, 3), (Passed, Failed, 2)]);
    }
}
