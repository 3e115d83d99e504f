//! What became of a suite's steps: passed, failed, inconclusive, skipped.
//!
//! What was not seen fails a step only where silence counts: a tap that was open over the whole run and lost
//! nothing, and three packets that were sent. Else it is inconclusive, and the reason says what would decide.

use serde::Serialize;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Passage;
use crate::evidence::Tally;
use crate::evidence::What;
use crate::exchange::SendOutcome;
use crate::plan::Action;
use crate::plan::Builtin;
use crate::plan::Expectation;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Place;
use crate::plan::ProbeKind;
use crate::plan::Question;
use crate::plan::Step;
use crate::plan::Subject;
use crate::plan::Task;
use crate::plan::Toward;
use crate::plan::itinerary;
use crate::verdict::Code;
use crate::verdict::HopVerdict;
use crate::verdict::Judgement;
use crate::verdict::Outcome;
use crate::verdict::PathJudgement;
use crate::verdict::expectation::packets;
use crate::verdict::expectation::unlike;
use crate::verdict::expectation::withholds;
use crate::verdict::expectation::words;
use crate::verdict::spoofing::judge_spoofing_toward;

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepJudgement {
    /// The path's number in the plan.
    pub path: usize,
    /// The step's place in the path's suite.
    pub step: usize,
    /// The outcome.
    pub outcome: StepOutcome,
    /// Why it failed, is inconclusive (and what would decide) or was skipped; what a pass rests on, where that is
    /// less than the whole itinerary.
    pub reason: Option<String>,
    /// The evidence, most telling first.
    pub evidence: Vec<EvidenceId>,
    /// What became of each of its expectations.
    pub expectations: Vec<ExpectationJudgement>,
}

/// The outcome of a step, or of one of its expectations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepOutcome {
    /// What it expects came.
    Passed,
    /// It did not, and that counts.
    Failed,
    /// It cannot be told.
    Inconclusive,
    /// It was not played.
    Skipped,
}

impl StepOutcome {
    /// The worse of two rounds' outcomes.
    pub fn or_worse(self, other: StepOutcome) -> StepOutcome {
        let worst = [
            StepOutcome::Failed,
            StepOutcome::Inconclusive,
            StepOutcome::Passed,
        ];
        let found = worst
            .into_iter()
            .find(|worst| [self, other].contains(worst));
        found.unwrap_or(StepOutcome::Skipped)
    }

    /// Its name in reports.
    pub fn id(self) -> &'static str {
        match self {
            StepOutcome::Passed => "passed",
            StepOutcome::Failed => "failed",
            StepOutcome::Inconclusive => "inconclusive",
            StepOutcome::Skipped => "skipped",
        }
    }
}

/// What became of an expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectationJudgement {
    /// What was expected, in words.
    pub expected: String,
    /// The outcome.
    pub outcome: StepOutcome,
    /// Of how many packets it was seen.
    pub seen: usize,
    /// How many were sent.
    pub sent: usize,
    /// Why, unless it passed.
    pub reason: Option<String>,
    /// The evidence.
    pub evidence: Vec<EvidenceId>,
}

/// Judges the steps of every path's suite, in path order, beside the hops.
pub fn judge_steps(evidence: &Evidence, judgement: &Judgement) -> Vec<StepJudgement> {
    let mut judged = Vec::new();
    for path in &judgement.paths {
        let Some(suite) = evidence.plan().suites.get(path.path) else {
            continue;
        };
        for number in 0..suite.steps.len() {
            let case = StepCase {
                evidence,
                path,
                number,
                step: &suite.steps[number],
            };
            judged.push(case.judge());
        }
    }
    judged
}

/// The outcome of the suites: broken if a step failed, or one of the hops that they ask for is broken; unproven if
/// a step is inconclusive, a hop is not proven, or nothing was found out.
pub fn suite_outcome(
    evidence: &Evidence,
    judgement: &Judgement,
    steps: &[StepJudgement],
) -> Outcome {
    let of_steps = steps.iter().filter_map(|step| match step.outcome {
        StepOutcome::Passed => Some(Outcome::Proven),
        StepOutcome::Failed => Some(Outcome::Broken),
        StepOutcome::Inconclusive => Some(Outcome::Unproven),
        StepOutcome::Skipped => None,
    });
    let of_hops = judgement.paths.iter().flat_map(|path| {
        let asked = evidence.plan().suites.get(path.path);
        let asked = asked.map(|suite| &suite.hops[..]).unwrap_or_default();
        let judged = path.hops.iter().filter(|hop| asked.contains(&hop.hop));
        judged.map(|hop| match hop.verdict {
            HopVerdict::Proven => Outcome::Proven,
            HopVerdict::Broken => Outcome::Broken,
            HopVerdict::Unproven | HopVerdict::Skipped => Outcome::Unproven,
        })
    });
    let worst = of_steps.chain(of_hops).max();
    worst.unwrap_or(Outcome::Unproven)
}

/// A step under judgement.
struct StepCase<'a> {
    evidence: &'a Evidence,
    path: &'a PathJudgement,
    number: usize,
    step: &'a Step,
}

/// An outcome, why, and the evidence.
type Found = (StepOutcome, Option<String>, Vec<EvidenceId>);

impl StepCase<'_> {
    fn judge(&self) -> StepJudgement {
        let at = (self.path.path, self.number);
        let course = self.evidence.course(at.0, at.1);
        let mut expectations = Vec::new();
        let skipped = course.and_then(|course| course.skipped.clone());
        let (outcome, reason, evidence) = match (skipped, course) {
            (Some(reason), Some(course)) if course.barred => {
                (StepOutcome::Inconclusive, Some(reason), Vec::new())
            }
            (Some(reason), _) => (StepOutcome::Skipped, Some(reason), Vec::new()),
            (None, Some(course)) if !course.begun => {
                let reason = match self.evidence.is_cut_short() {
                    Some(why) => format!("{why} before it began"),
                    None => "the suite ended before it began".to_owned(),
                };
                (StepOutcome::Inconclusive, Some(reason), Vec::new())
            }
            _ => match &self.step.action {
                Action::Ask(question) => self.judge_answer(question),
                _ if !self.step.expect.is_empty() => {
                    let each = self.step.expect.iter();
                    expectations = each
                        .map(|expected| self.judge_expectation(expected))
                        .collect();
                    worst(&expectations)
                }
                Action::Builtin(builtin) => self.judge_builtin(builtin),
                Action::Script(_) => self.judge_script(),
            },
        };
        StepJudgement {
            path: at.0,
            step: at.1,
            outcome,
            reason,
            evidence,
            expectations,
        }
    }

    fn judge_answer(&self, question: &Question) -> Found {
        let host = question.host.host(self.path.path);
        match self.evidence.answer(self.path.path, question) {
            Some(answer) if answer.is_expected() => {
                let says = format!("{}: {}", answer.command, answer.says);
                (StepOutcome::Passed, Some(says), Vec::new())
            }
            Some(answer) => {
                let reason = format!("`{}`: {}", answer.command, answer.differs.join(", "));
                (StepOutcome::Failed, Some(reason), Vec::new())
            }
            None => {
                let name = self.evidence.plan().host_name(host);
                let reason = match self.evidence.host(host) {
                    None => format!("tunproof does not run on {name}"),
                    Some(_) => match self.unread(host, question) {
                        Some(why) => format!("{name} did not say: {why}"),
                        None => format!("{name} did not say"),
                    },
                };
                (StepOutcome::Inconclusive, Some(reason), Vec::new())
            }
        }
    }

    /// Why a host could not read what was asked.
    fn unread(&self, host: Host, question: &Question) -> Option<String> {
        let Subject::Sysctl { name, .. } = &question.about else {
            return None;
        };
        let what = format!("sysctl {name}");
        let mut unread = self.evidence.facts(host)?.unread.iter();
        let unread = unread.find(|unread| unread.what == what)?;
        Some(format!("{what}: {}", unread.error))
    }

    fn judge_expectation(&self, expected: &Expectation) -> ExpectationJudgement {
        let at = (self.path.path, self.number);
        let tally = self.evidence.tally(at, expected);
        let least = self.evidence.least(at, expected);
        let seen = tally.seen.len();
        let counted = format!("seen for {seen} of {}", packets(tally.sent));
        let most = expected.at_most.map(usize::from);
        let (outcome, reason) = if most.is_some_and(|most| seen > most) {
            (StepOutcome::Failed, Some(counted))
        } else if seen < least || most.is_some() && tally.sent == 0 {
            // What was seen otherwise is no silence.
            let could = (tally.sent + tally.refused.len()).saturating_sub(tally.unlike.len());
            let unlike = unlike(&tally);
            match self.silence(expected, &tally) {
                Ok(()) => {
                    let reason = self.failure(&tally, counted) + &unlike;
                    (StepOutcome::Failed, Some(reason))
                }
                Err(_) if tally.sent > 0 && could < least => {
                    (StepOutcome::Failed, Some(counted + &unlike))
                }
                Err(why) => {
                    let reason = format!("{counted}{unlike}: {why}");
                    (StepOutcome::Inconclusive, Some(reason))
                }
            }
        } else if most.is_some() {
            match self.silence(expected, &tally) {
                Ok(()) => (StepOutcome::Passed, None),
                Err(why) => (StepOutcome::Inconclusive, Some(format!("{counted}: {why}"))),
            }
        } else {
            (StepOutcome::Passed, None)
        };
        let evidence = match seen >= least {
            true => [tally.seen, tally.unseen].concat(),
            false => {
                let unlike: Vec<_> = tally.unlike.iter().map(|(id, _)| *id).collect();
                let unsent = [tally.refused, tally.declined].concat();
                [unsent, unlike, tally.unseen, tally.seen].concat()
            }
        };
        ExpectationJudgement {
            expected: words(expected),
            outcome,
            seen,
            sent: tally.sent,
            reason,
            evidence,
        }
    }

    /// Whether what was not seen counts; else why not, and what would decide.
    fn silence(&self, expected: &Expectation, tally: &Tally) -> Result<(), String> {
        if let Some(why) = self.evidence.why_declined(&tally.declined) {
            return Err(why);
        }
        if !tally.refused.is_empty() && expected.at_most.is_none() {
            return Ok(());
        }
        let host = match expected.at {
            Place::Station(station) => Host::of(station, self.path.path),
            Place::Host(role) => role.host(self.path.path),
        };
        self.evidence.hears(host)?;
        if let Some(why) = self.evidence.is_cut_short() {
            return Err(format!("{why} before it could be told"));
        }
        let course = self.evidence.course(self.path.path, self.number);
        if !course.is_some_and(|course| course.over) {
            return Err("the suite ended before it was over".to_owned());
        }
        if let Some(withheld) = self.evidence.withheld(expected, &tally.unseen) {
            let could = tally.seen.len() + withheld.packets;
            let least = self.evidence.least((self.path.path, self.number), expected);
            let decides = match expected.at_most {
                Some(most) if tally.seen.len() >= least => could > usize::from(most),
                _ => could >= least,
            };
            if decides {
                return Err(withholds(&withheld));
            }
        }
        if tally.sent < Evidence::SILENCE {
            let (least, sent) = (Evidence::SILENCE, packets(tally.sent));
            let planned = match &self.step.action {
                Action::Script(script) => script.packets.len(),
                Action::Builtin(builtin) => builtin.count.map_or(0, usize::from),
                Action::Ask(_) => 0,
            };
            return Err(match planned >= least {
                true => format!("the step was over after {sent}, whose silence may be chance"),
                false => format!(
                    "the silence of fewer than {least} packets may be chance; send more (`count`)"
                ),
            });
        }
        Ok(())
    }

    /// Why it failed: what a kernel said of the packets that it did not send, else what was counted.
    fn failure(&self, tally: &Tally, counted: String) -> String {
        let refusal = tally
            .refused
            .iter()
            .find_map(|id| match &self.evidence.item(*id)?.what {
                What::Sent {
                    outcome: SendOutcome::Refused { error, .. },
                    ..
                } => Some(error),
                _ => None,
            });
        match refusal {
            Some(error) if tally.sent == 0 => {
                let refused = packets(tally.refused.len());
                format!("the kernel refused to send {refused}: {error}")
            }
            Some(error) => format!("{counted}; the kernel refused to send: {error}"),
            None => counted,
        }
    }

    /// What the spoof check says of the path.
    fn judge_passes(&self, toward: Toward) -> Found {
        let judged = judge_spoofing_toward(self.evidence, self.path.path, toward);
        let outcome = match judged.outcome.verdict() {
            Outcome::Proven => {
                let only = "that is the way to the director, and not the clients'".to_owned();
                let reason = (toward == Toward::Director).then_some(only);
                return (StepOutcome::Passed, reason, judged.evidence);
            }
            Outcome::Broken => StepOutcome::Failed,
            Outcome::Unproven => StepOutcome::Inconclusive,
        };
        (outcome, Some(judged.summary), judged.evidence)
    }

    /// A built-in task without expectations of its own passes when its itinerary is complete as far as taps see, and
    /// fails when a hop is broken that it passes.
    fn judge_builtin(&self, builtin: &Builtin) -> Found {
        let at = (self.path.path, self.number);
        if let Task::Probe(kind) = builtin.task {
            return self.judge_probes(kind);
        }
        if builtin.task == Task::SpoofPasses {
            return self.judge_passes(builtin.toward);
        }
        let (hops, codes): (&[Hop], &[Code]) = match builtin.task {
            Task::ResolveGateway | Task::WhoHasGateway | Task::WhoHasGatewayTellVip => {
                (&[Hop::GatewayArp], &[])
            }
            Task::WhoHasVip | Task::WhoHasVipOnDirector => {
                (&[], &[Code::DuplicateVip, Code::VipAdvertised])
            }
            Task::Connect => (&[Hop::Service], &[]),
            Task::SpoofSweep | Task::MoreFlows => (&[Hop::SpoofedSourceTransit], &[]),
            Task::TunnelSweep => (&[Hop::DirectorToRealserver], &[]),
            Task::MtuSearch => (&[], &[Code::TunnelMtuLow, Code::TunnelMtuBlackHole]),
            Task::Probe(_) | Task::SpoofPasses => (&[], &[]),
        };
        let asked: Vec<_> = self.evidence.probes_of(at.0, at.1).collect();
        let frames = self
            .evidence
            .course(at.0, at.1)
            .map_or(0, |course| course.frames.len());
        let passed = (StepOutcome::Passed, None, Vec::new());
        // What was answered is answered, whatever else is broken there.
        let answered = match builtin.task {
            Task::WhoHasGateway | Task::WhoHasGatewayTellVip => frames > 0,
            Task::MoreFlows => !asked.is_empty(),
            Task::Connect => true,
            _ => false,
        };
        if answered && self.evidence.went_all_the_way(at) {
            return passed;
        }
        if let Some(found) = self.found(codes).or_else(|| self.broken(hops)) {
            return found;
        }
        match builtin.task {
            Task::WhoHasVip | Task::WhoHasVipOnDirector if frames > 0 => passed,
            Task::SpoofSweep | Task::TunnelSweep if asked.is_empty() => {
                let reason = "not needed: the packets arrive".to_owned();
                (StepOutcome::Skipped, Some(reason), Vec::new())
            }
            Task::MtuSearch if !asked.is_empty() => {
                let sizes = self.evidence.sizes(at.0);
                let longest = asked.iter().filter_map(|probe| probe.size).max();
                match longest.is_some_and(|longest| sizes.passing() >= longest) {
                    true => passed,
                    false => self.undecided(),
                }
            }
            Task::SpoofSweep | Task::TunnelSweep => self.undecided(),
            Task::ResolveGateway if self.evidence.went_all_the_way(at) => passed,
            _ => self.undecided(),
        }
    }

    fn judge_probes(&self, kind: ProbeKind) -> Found {
        let path = self.path.path;
        let protocol = self.evidence.plan().paths[path].protocol;
        let waypoints = itinerary(kind, protocol);
        let passages = || {
            let probes = self.evidence.probes_of(path, self.number);
            probes.map(|probe| self.evidence.passage(probe))
        };
        // Another real server may have been chosen; it is its path's step that counts.
        let best = passages().max_by_key(Passage::furthest);
        let Some(best) = best else {
            return self.undecided();
        };
        let seen: Vec<_> = best.seen.iter().rev().flatten().copied().collect();
        let goal = self.evidence.goal(kind, path);
        if goal.is_some() && best.furthest() >= goal {
            let last = goal == Some(waypoints.len() - 1);
            let reason = match last || best.is_complete() {
                true => None,
                false => goal.map(|goal| {
                    format!(
                        "seen as far as {}; no tap is beyond",
                        waypoints[goal].station
                    )
                }),
            };
            return (StepOutcome::Passed, reason, seen);
        }
        let from = best.furthest().map_or(0, |furthest| furthest + 1);
        let ahead = waypoints[from.min(waypoints.len())..].iter();
        let hops: Vec<Hop> = ahead.flat_map(|waypoint| waypoint.hops).copied().collect();
        if let Some(found) = self.broken(&hops) {
            return found;
        }
        self.undecided()
    }

    /// Packets written out of which nothing is expected pass when they were sent.
    fn judge_script(&self) -> Found {
        let any = Expectation::answered();
        let tally = self.evidence.tally((self.path.path, self.number), &any);
        if let Some(why) = self.evidence.why_declined(&tally.declined) {
            return (StepOutcome::Inconclusive, Some(why), tally.declined);
        }
        match tally.refused.is_empty() {
            true if tally.sent > 0 => {
                let reason = format!("{} sent, nothing expected", packets(tally.sent));
                (StepOutcome::Passed, Some(reason), tally.unseen)
            }
            true => self.undecided(),
            false => {
                let reason = self.failure(&tally, format!("{} sent", packets(tally.sent)));
                (StepOutcome::Failed, Some(reason), tally.refused)
            }
        }
    }

    fn found(&self, codes: &[Code]) -> Option<Found> {
        let mut findings = self.path.findings.iter();
        let finding = findings.find(|finding| codes.contains(&finding.code))?;
        let evidence = finding.evidence.clone();
        Some((StepOutcome::Failed, Some(finding.summary.clone()), evidence))
    }

    fn broken(&self, hops: &[Hop]) -> Option<Found> {
        let mut judged = self.path.hops.iter();
        let broken = judged
            .find(|judged| hops.contains(&judged.hop) && judged.verdict == HopVerdict::Broken)?;
        let mut findings = self.path.findings.iter();
        let summary = findings
            .find(|finding| finding.hop == broken.hop)
            .map(|finding| finding.summary.clone())
            .or_else(|| broken.reason.clone())
            .unwrap_or_default();
        let reason = format!("{} is broken: {summary}", broken.hop);
        Some((StepOutcome::Failed, Some(reason), broken.evidence.clone()))
    }

    /// Nothing broken was found, and it did not go all the way.
    fn undecided(&self) -> Found {
        let path = self.path.path;
        let hops = &self.evidence.plan().suites[path].hops;
        let is_proven = |hop: &Hop| {
            let mut judged = self.path.hops.iter();
            judged.any(|judged| judged.hop == *hop && judged.verdict == HopVerdict::Proven)
        };
        if !hops.is_empty() && hops.iter().all(is_proven) {
            let reason = "every hop was proven without it".to_owned();
            return (StepOutcome::Skipped, Some(reason), Vec::new());
        }
        let course = self.evidence.course(path, self.number);
        let frames = course
            .into_iter()
            .flat_map(|course| &course.frames)
            .copied();
        let sent: Vec<_> = self
            .evidence
            .probes_of(path, self.number)
            .flat_map(|probe| self.evidence.about(probe.id))
            .filter(|item| matches!(item.what, What::Sent { .. }))
            .map(|item| item.id)
            .chain(frames)
            .collect();
        let cut_short = self.evidence.is_cut_short();
        let cut_short = cut_short.map(|why| format!("{why} before it could be told"));
        let reason = match (cut_short.or(self.evidence.why_declined(&sent)), sent.len()) {
            (Some(why), _) => why,
            (None, 0) => "nothing was sent for it".to_owned(),
            (None, sent) => format!(
                "no answer to {} was seen where tunproof runs, and no hop was found broken by it",
                packets(sent)
            ),
        };
        (StepOutcome::Inconclusive, Some(reason), sent)
    }
}

/// The outcome of a step by its expectations: the worst of theirs.
fn worst(expectations: &[ExpectationJudgement]) -> Found {
    let rank = |outcome: StepOutcome| match outcome {
        StepOutcome::Failed => 0,
        StepOutcome::Inconclusive => 1,
        StepOutcome::Skipped | StepOutcome::Passed => 2,
    };
    let Some(worst) = expectations
        .iter()
        .min_by_key(|judged| rank(judged.outcome))
    else {
        return (StepOutcome::Inconclusive, None, Vec::new());
    };
    let reason = worst.reason.as_ref();
    let reason = reason.map(|reason| format!("{}: {reason}", worst.expected));
    (worst.outcome, reason, worst.evidence.clone())
}
