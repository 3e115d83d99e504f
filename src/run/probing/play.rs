//! The lives of a suite's steps: what each waits for, when it begins, and when it is over.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::Standing;
use crate::exchange::Mono;
use crate::plan;
use crate::plan::Action;
use crate::plan::Expectation;
use crate::plan::Host;
use crate::plan::Suite;
use crate::run::probing::Probing;
use crate::run::probing::outset::wanted;
use crate::run::probing::task::Aim;
use crate::run::probing::task::TRIES;
use crate::run::probing::task::Task;

/// How many paths have their first tries at once.
const AT_ONCE: usize = 8;

/// A step of a path's suite.
#[derive(Debug)]
pub(super) struct Play {
    path: usize,
    step: usize,
    /// What it does, if that is built in.
    task: Option<plan::Task>,
    /// Whether it expects something of its own.
    pub(super) expects: bool,
    /// Whether it is waited for: the others are but means to prove the suite's hops.
    is_needed: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Others must be over first.
    Waiting,
    /// It has begun, or will.
    Playing {
        begin: Mono,
    },
    Over {
        passed: bool,
    },
}

impl Play {
    fn new(suite: &Suite, path: usize, step: usize) -> Play {
        let played = &suite.steps[step];
        let expects = !played.expect.is_empty() || matches!(played.action, Action::Ask(_));
        let awaited = suite
            .steps
            .iter()
            .flat_map(|other| &other.after)
            .any(|after| after.step == step);
        Play {
            path,
            step,
            task: match &played.action {
                Action::Builtin(builtin) => Some(builtin.task),
                _ => None,
            },
            expects,
            is_needed: expects || awaited || suite.hops.is_empty(),
            state: State::Waiting,
        }
    }

    /// Its path, and its number there.
    fn at(&self) -> (usize, usize) {
        (self.path, self.step)
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. })
    }

    /// Whether it is to begin, or to end by what is heard.
    fn may_change(&self) -> bool {
        match self.state {
            State::Waiting => true,
            State::Playing { .. } => self.is_needed,
            State::Over { .. } => false,
        }
    }
}

/// By how many of the last paths it is told how long the others take.
const RECENT: usize = 16;

/// How long it takes about until the last of `all` paths begins, if each takes as long as those did that began last.
fn time_left(begun: &[Mono], all: usize, now: Mono) -> Option<Duration> {
    let missing = u32::try_from(all - begun.len())
        .ok()
        .filter(|some| *some > 0)?;
    let recent = &begun[begun.len().saturating_sub(RECENT + 1)..];
    let (first, last) = (recent.first()?, recent.last()?);
    let count = u32::try_from(recent.len() - 1)
        .ok()
        .filter(|some| *some > 0)?;
    let each = last.since(*first) / count;
    Some((each * missing).saturating_sub(now.since(*last).min(each)))
}

impl Probing {
    /// The steps of the next path's suite, of which those begin that wait for no other; whether its time has come.
    ///
    /// It waits until the director and the client have sent what they had to: what a path's steps are given from their
    /// beginning on, until a try is missed or a sweep is due, is not to pass while its first packets stand in a queue.
    /// Nor is it to pass while what was heard stands in one: no more than a few paths have their first tries at once. Those
    /// that wait for nothing but IPVS's choice are none of them, as it is the next paths' packets that bring it about.
    pub(super) fn set_out(&mut self, evidence: &mut Evidence, now: Mono) -> bool {
        if self.next_path().is_none_or(|begin| now < begin) {
            return false;
        }
        let path = self.begun.len();
        self.begun.push(now);
        let suite = evidence.plan().suites.get(path);
        let plays = suite.into_iter().flat_map(|suite| {
            let steps = 0..suite.steps.len();
            steps.map(move |step| Play::new(suite, path, step))
        });
        self.plays.push(plays.collect());
        self.advance_plays(evidence, now);
        self.advance_tasks(evidence, now);
        true
    }

    /// How long it takes about until the last path begins, if there are more; `None` until it can be told, and where that
    /// is not about all there is to do.
    pub(in crate::run) fn time_left(&self, now: Mono) -> Option<Duration> {
        match self.passes.is_empty() {
            true => time_left(&self.begun, self.proven.len(), now),
            false => None,
        }
    }

    /// When the next path may begin, if there is one, and nothing is to be sent before.
    pub(super) fn next_path(&self) -> Option<Mono> {
        let shared = [Host::Director, Host::Client];
        let is_busy = shared.iter().any(|host| self.pacer.is_busy(*host));
        if self.begun.len() == self.proven.len() || is_busy {
            return None;
        }
        let begun = self.begun.iter().zip(&self.answered);
        let mut unanswered = begun.rev().filter(|(_, answered)| !**answered);
        let before = unanswered.nth(AT_ONCE - 1);
        Some(before.map_or(Mono::default(), |(begun, _)| *begun + TRIES[1]))
    }

    /// Begins the steps that need not wait any longer, and ends those that are over, until nothing changes.
    pub(super) fn advance_plays(&mut self, evidence: &mut Evidence, now: Mono) {
        while self.advance_each_play(evidence, now) {}
    }

    fn advance_each_play(&mut self, evidence: &mut Evidence, now: Mono) -> bool {
        let mut has_changed = false;
        let plays = self.plays.iter().flatten();
        let open: Vec<_> = plays
            .filter(|play| play.may_change())
            .map(Play::at)
            .collect();
        for at in open {
            let (path, step) = at;
            let before = self.plays[path][step].state;
            match before {
                State::Waiting => match self.may_begin(evidence, at) {
                    None => {}
                    Some(Ok(())) => {
                        let played = &evidence.plan().suites[path].steps[step];
                        let begin = now + played.start;
                        if let Err(reason) = wanted(played, path, evidence) {
                            self.skip(at, reason, evidence);
                            return true;
                        }
                        // Of what is built in, many a step is no more than a means to prove a hop.
                        let is_own = !matches!(played.action, Action::Builtin(_));
                        match self.begin(evidence, at, begin) {
                            Ok(()) => {
                                evidence.course_mut(path, step).begun = true;
                                self.plays[path][step].state = State::Playing { begin };
                            }
                            Err(reason) => {
                                self.skip(at, reason, evidence);
                                evidence.course_mut(path, step).barred = is_own;
                            }
                        }
                    }
                    Some(Err(reason)) => self.skip(at, reason, evidence),
                },
                State::Playing { begin } => {
                    let play = &self.plays[path][step];
                    if let Some(passed) = self.ending(play, begin, evidence, now) {
                        self.plays[path][step].state = State::Over { passed };
                        evidence.course_mut(path, step).over = true;
                        self.tasks.end(path, |task| task.step == step);
                    }
                }
                State::Over { .. } => {}
            }
            has_changed |= self.plays[path][step].state != before;
        }
        has_changed
    }

    /// Whether what a step waits for is over; or why it is not played.
    fn may_begin(
        &self,
        evidence: &Evidence,
        (path, step): (usize, usize),
    ) -> Option<Result<(), String>> {
        let steps = &evidence.plan().suites[path].steps;
        let mut result = Ok(());
        for after in &steps[step].after {
            match self.plays[path][after.step].state {
                State::Over { passed: false } if !after.go_on => {
                    result = Err(format!("`{}` did not pass", steps[after.step].id));
                }
                State::Over { .. } => {}
                State::Waiting | State::Playing { .. } => return None,
            }
        }
        Some(result)
    }

    fn skip(&mut self, (path, step): (usize, usize), reason: String, evidence: &mut Evidence) {
        self.plays[path][step].state = State::Over { passed: false };
        evidence.course_mut(path, step).skipped = Some(reason);
    }

    /// Whether a step is over, and then whether it passed.
    fn ending(&self, play: &Play, begin: Mono, evidence: &Evidence, now: Mono) -> Option<bool> {
        if now < begin {
            return None;
        }
        let at = (play.path, play.step);
        let step = &evidence.plan().suites[play.path].steps[play.step];
        if let Action::Ask(question) = &step.action {
            let answer = evidence.answer(play.path, question);
            return Some(answer.is_some_and(|answer| answer.is_expected()));
        }
        let sending = self.is_sending(play);
        let until = self.deadline(play, begin, &step.expect);
        if play.expects {
            let exactly = !sending;
            return match evidence.standing(at, exactly) {
                Standing::Violated => Some(false),
                Standing::Met => Some(true),
                Standing::Open if !sending && now >= until => {
                    Some(evidence.standing_at_end(at) == Standing::Met)
                }
                Standing::Open => None,
            };
        }
        let reached = self
            .of(play)
            .any(|task| task.done && task.counted.is_none());
        match sending {
            true => None,
            false if reached => Some(true),
            false if now >= until => Some(evidence.went_all_the_way(at)),
            false => None,
        }
    }

    /// Whether more of a step is to be sent.
    fn is_sending(&self, play: &Play) -> bool {
        let beside = match play.task {
            // Beyond a settled proof no more of them is sent.
            Some(plan::Task::SpoofSweep | plan::Task::TunnelSweep | plan::Task::Connect)
                if self.settled =>
            {
                false
            }
            Some(plan::Task::SpoofSweep | plan::Task::TunnelSweep) => {
                let mut sweeps = self.sweeps.iter();
                sweeps.any(|sweep| sweep.path() == play.path && sweep.due().is_some())
            }
            Some(plan::Task::SpoofPasses) => self.passes.iter().any(|passes| {
                (passes.path(), passes.step()) == (play.path, play.step) && passes.due().is_some()
            }),
            Some(plan::Task::MtuSearch) => self.searches.iter().any(|search| {
                search.path() == play.path
                    && (search.due(self.trip).is_some() || search.is_pending())
            }),
            Some(plan::Task::Connect) => {
                let is_service = |task: &&Task| task.aim == Aim::Probe(plan::ProbeKind::Service);
                let of_path = self.tasks.of(play.path);
                of_path.filter(is_service).any(|task| task.due().is_some())
            }
            _ => false,
        };
        beside
            || self.of(play).any(|task| task.due().is_some())
            || self.pacer.awaits((play.path, play.step))
    }

    /// Until when what a step sent last may be answered.
    fn deadline(&self, play: &Play, begin: Mono, expectations: &[Expectation]) -> Mono {
        if play.task.is_none() && expectations.is_empty() {
            return begin;
        }
        let wait = match expectations.iter().map(|expected| expected.within).max() {
            Some(within) => within,
            None => self.last_wait(),
        };
        let last = self.pacer.last_of((play.path, play.step));
        let last = match play.task {
            Some(plan::Task::Connect | plan::Task::ResolveGateway) => Some(self.pacer.last()),
            _ => last,
        };
        last.unwrap_or(begin).max(begin) + wait
    }

    fn of(&self, play: &Play) -> impl Iterator<Item = &Task> {
        let step = play.step;
        let tasks = self.tasks.of(play.path);
        tasks.filter(move |task| task.step == step)
    }

    /// When the first step ends that is waited for, if nothing is heard of it.
    pub(super) fn next_ending(&self, evidence: &Evidence) -> Option<Mono> {
        let waited = |play: &Play| match play.state {
            State::Playing { begin } if play.is_needed => {
                let step = &evidence.plan().suites[play.path].steps[play.step];
                Some(self.deadline(play, begin, &step.expect)).filter(|_| !self.is_sending(play))
            }
            _ => None,
        };
        self.plays.iter().flatten().filter_map(waited).min()
    }

    /// Whether a step that is waited for is not over.
    pub(super) fn is_awaited(&self) -> bool {
        let mut plays = self.plays.iter().flatten();
        plays.any(|play| play.is_needed && !play.is_over())
    }

    /// Whether a task's next try is wanted: beyond its path's proof only where it asks something else, and beyond a
    /// settled one only if its step is waited for.
    pub(super) fn is_wanted(&self, task: &Task) -> bool {
        let is_enough = self.settled || self.proven[task.path] && task.is_moot();
        !is_enough || task.is_awaited
    }

    /// Whether a step is waited for.
    pub(super) fn awaits(&self, path: usize, step: usize) -> bool {
        self.plays[path][step].is_needed
    }

    /// The step of a path that plays `task`.
    pub(super) fn step_of(&self, path: usize, task: plan::Task) -> Option<usize> {
        let playing =
            |play: &&Play| play.task == Some(task) && matches!(play.state, State::Playing { .. });
        let plays = self.plays.get(path)?;
        plays.iter().find(playing).map(|play| play.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_began_last_tell_how_long_the_others_take() {
        let ms = |number| Mono::default() + Duration::from_millis(number);
        let left = |begun: &[Mono], all, now| time_left(begun, all, ms(now));
        assert_eq!(left(&[], 9, 0), None);
        assert_eq!(left(&[ms(0)], 9, 50), None);
        let begun = [ms(0), ms(100), ms(200)];
        let some_ms = |number| Some(Duration::from_millis(number));
        assert_eq!(left(&begun, 103, 200), some_ms(10_000));
        assert_eq!(left(&begun, 103, 240), some_ms(9_960));
        // The next one is late: how much longer it takes, nobody knows.
        assert_eq!(left(&begun, 103, 2_000), some_ms(9_900));
        assert_eq!(left(&begun, 3, 250), None);
        let mut slower: Vec<_> = (0..50).map(|number| ms(10 * number)).collect();
        slower.extend((1..=16).map(|number| ms(490 + 1_000 * number)));
        assert_eq!(left(&slower, 70, 16_490), some_ms(4_000));
    }
}
