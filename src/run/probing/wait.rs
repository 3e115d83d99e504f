//! How long to wait: until something is due, until an answer is missed, until all is over.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::run::flows::Flows;
use crate::run::mtu::Search;
use crate::run::passes::Passes;
use crate::run::probing::Probing;
use crate::run::probing::task::Aim;
use crate::run::probing::task::RESOLUTIONS;
use crate::run::probing::task::TRIES;
use crate::run::probing::task::Task;
use crate::run::sweep::BATCH;
use crate::run::sweep::BATCH_WAIT;
use crate::run::sweep::Sweep;

/// How long an answer may take before its flow is asked again, unless slower answers were seen.
const MISSED: Duration = Duration::from_millis(50);

/// How long the last try may take, unless slower answers were seen: a second, the first timeout of a TCP that has
/// measured nothing yet (RFC 6298 §2.1). Behind a silence nothing was measured, and what Linux holds back of ICMP
/// errors to one address it holds back for a second (`icmp_ratelimit`).
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How long the last try may take where the same way's round trip was measured, unless that took a quarter of it.
const LAST_TRIP: Duration = Duration::from_millis(500);

/// How long an answer may take before its packet may be called lost, unless slower answers were seen.
const EXPECTED: Duration = Duration::from_millis(200);

/// How long the probes still on their way may take once everything is proven.
const GRACE: Duration = Duration::from_millis(100);

impl Probing {
    /// When something is due next.
    pub(in crate::run) fn poll_timeout(&self, evidence: &Evidence) -> Mono {
        let late = self
            .searches
            .iter()
            .filter_map(|search| search.due(self.trip))
            .chain(self.flows.iter().filter_map(Flows::due))
            .chain(self.passes.iter().filter_map(Passes::due))
            .chain(self.pacer.due())
            .chain(self.next_ending(evidence))
            .chain(self.awaited_due())
            .chain(self.next_path())
            .min();
        let wanted = self.tasks.open().filter(|task| self.is_wanted(task));
        let usual = wanted
            .filter_map(Task::due)
            .chain(self.sweeps.iter().filter_map(Sweep::due))
            .min();
        let end = match self.proven_at {
            Some(at) => self.settled_at(at),
            None => {
                let watched = self.watched_by.filter(|_| !self.absent.is_empty());
                let answered = self.pacer.last() + self.last_wait();
                watched.map_or(answered, |watched| watched.max(answered))
            }
        };
        match self.proven_at {
            None => usual.into_iter().chain(late).min().unwrap_or(end),
            Some(_) if self.settled => late.unwrap_or(end),
            Some(_) => usual.into_iter().chain(late).fold(end, Mono::min),
        }
    }

    /// Whether nothing more is to be sent, and nothing more to be expected.
    pub(in crate::run) fn is_over(&self, evidence: &Evidence, now: Mono) -> bool {
        let has_begun = self.begun.len() == self.proven.len();
        if !has_begun || self.asks_flows() || self.is_awaited() {
            return false;
        }
        let own = || self.tasks.open().filter(|task| !task.is_aside());
        if let Some(at) = self.proven_at {
            let settled = own().next().is_none() || now >= self.settled_at(at);
            return settled && !self.is_searching();
        }
        let wanted = || own().filter(|task| self.is_wanted(task));
        let all_done = wanted().next().is_none();
        let nothing_due = wanted().all(|task| task.due().is_none())
            && self.sweeps.iter().all(|sweep| {
                sweep.due().is_none() || sweep.is_fresh() && !self.is_worth(sweep, evidence)
            })
            && !self.is_searching()
            && self.pacer.is_empty();
        let answered = now >= self.pacer.last() + self.last_wait();
        nothing_due && (all_done || answered && !self.awaits_witnesses(now))
    }

    /// Whether there is a host that may still come to watch.
    fn awaits_witnesses(&self, now: Mono) -> bool {
        !self.absent.is_empty() && self.watched_by.is_some_and(|by| now < by)
    }

    /// When a step that is waited for has something to send.
    fn awaited_due(&self) -> Option<Mono> {
        let wanted = |task: &&Task| self.settled && task.is_awaited;
        let tasks = self.tasks.open().filter(wanted);
        tasks.filter_map(Task::due).min()
    }

    fn asks_flows(&self) -> bool {
        self.flows.iter().any(|flows| flows.due().is_some())
    }

    /// Whether the answer to a packet of some size is still worth waiting for.
    fn is_searching(&self) -> bool {
        self.searches.iter().any(Search::is_pending)
    }

    /// When a proof that was complete at `at` stands: the probes on their way have arrived, and every real
    /// server's kernel has asked for its next hop, or had its occasions.
    pub(super) fn settled_at(&self, at: Mono) -> Mono {
        self.tasks
            .open()
            .filter(|task| matches!(task.aim, Aim::Resolution { .. }))
            .map(|task| task.begin + TRIES[RESOLUTIONS - 1])
            .fold(at, Mono::max)
            + GRACE
    }

    /// The probes whose answers may still be on their way.
    pub(in crate::run) fn young(&self, now: Mono) -> Vec<ProbeId> {
        let young = self.pacer.younger_than(self.last_wait(), now);
        // A search has waited for the answers to its own, which no kernel repeats.
        let others = young.filter(|probe| probe.kind != ProbeKind::Mtu);
        let sizes = self.pacer.younger_than(self.trip_wait(), now);
        others
            .chain(sizes.filter(|probe| probe.kind == ProbeKind::Mtu))
            .collect()
    }

    /// The probes whose answers are likely to be on their way.
    pub(in crate::run) fn expected(&self, now: Mono) -> Vec<ProbeId> {
        let usual = EXPECTED.max(self.slowest * 3);
        self.pacer.younger_than(usual, now).collect()
    }

    /// How long an answer may take before it is missed.
    pub(super) fn patience(&self) -> Duration {
        MISSED.max(self.slowest * 2)
    }

    /// How long a sweep's batch may take: until it is sent, and twice what its answers may take.
    pub(super) fn batch_wait(&self) -> Duration {
        let sending = self.pacer.gap_of_one() * u32::from(BATCH) * 2;
        match self.slowest.is_zero() {
            true => BATCH_WAIT,
            false => BATCH_WAIT.min(sending + self.patience() * 2),
        }
    }

    /// How long an answer to the last try may take.
    pub(super) fn last_wait(&self) -> Duration {
        LAST_WAIT.max(self.slowest * 2)
    }

    /// The same for what no kernel repeats, of which others were answered.
    pub(super) fn trip_wait(&self) -> Duration {
        match self.trip.is_zero() {
            true => LAST_WAIT,
            false => LAST_TRIP.max(self.trip * 4),
        }
    }
}
