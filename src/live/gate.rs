//! How fast an agent sends, whoever asks.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::live::janitor::PACE;

/// When packets may go: never more than so many in any second; and cleanups, which are not counted, one by one.
#[derive(Debug)]
pub(crate) struct Gate {
    rate: usize,
    /// When the last packets went, as many as may go in a second.
    went: VecDeque<Instant>,
    /// When the next cleanup may.
    next_cleanup: Option<Instant>,
}

impl Gate {
    /// Nothing has gone yet.
    pub(crate) fn new(rate: u32) -> Gate {
        Gate {
            rate: rate.max(1) as usize,
            went: VecDeque::new(),
            next_cleanup: None,
        }
    }

    /// Waits until one more packet may go, and counts it.
    pub(crate) async fn pass(&mut self) {
        if self.went.len() == self.rate
            && let Some(first) = self.went.pop_front()
        {
            sleep_until(first + Duration::from_secs(1)).await;
        }
        self.went.push_back(Instant::now());
    }

    /// Waits until one more cleanup may go: at a pace of their own, or at the rate, if that is faster.
    pub(crate) async fn close(&mut self) {
        let pace = PACE.min(Duration::from_secs(1).div_f64(self.rate as f64));
        // No timer is finer, and it may come a tick late: who is woken by it sends what was to go in the meantime, too.
        let slack = (PACE - pace) * 2;
        let due = match self.next_cleanup {
            Some(due) => {
                sleep_until(due).await;
                due.max(Instant::now() - slack)
            }
            None => Instant::now(),
        };
        self.next_cleanup = Some(due + pace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after the first of them so many came through.
    async fn passing(count: u32, mut pass: impl AsyncFnMut()) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..count {
            pass().await;
            times.push(Instant::now());
        }
        times.iter().map(|time| *time - times[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_packets_than_the_rate() {
        let mut gate = Gate::new(10);
        let times = passing(25, async || gate.pass().await).await;
        let second = Duration::from_secs(1);
        let expected: Vec<_> = (0..25).map(|number| second * (number / 10)).collect();
        // Timers count in milliseconds, and come no earlier.
        let late = times.iter().zip(&expected).map(|(at, due)| *at - *due);
        assert!(late.max() <= Some(Duration::from_millis(3)), "{times:?}");
        for window in times.windows(11) {
            assert!(window[10] - window[0] >= second, "{times:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn cleanups_go_one_by_one_beside_the_rate() {
        let mut gate = Gate::new(1);
        gate.pass().await;
        let times = passing(50, async || gate.close().await).await;
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= PACE, "{times:?}");
        }
        assert!(times[49] < Duration::from_secs(1), "{times:?}");
        let mut fast = Gate::new(10_000);
        let times = passing(500, async || fast.close().await).await;
        let expected = Duration::from_millis(49)..Duration::from_millis(60);
        assert!(expected.contains(&times[499]), "{times:?}");
    }
}
