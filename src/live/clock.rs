//! This host's clocks.

use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use crate::exchange::Mono;
use crate::exchange::Wall;

/// The monotonic clock; its zero is the first call in this process.
pub fn mono() -> Mono {
    Mono::new(began().0.elapsed())
}

/// The wall clock.
pub fn wall() -> Wall {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Wall::from_nanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// The wall clock as it was when this process began, and as it has run since: to set it does not move this one, by which
/// a host tells when things happened.
pub fn steady() -> Wall {
    let (mono, wall) = began();
    later(*wall, mono.elapsed())
}

/// When something happened, by [`steady`], to which the kernel gave a time of the wall clock in the last minute.
pub fn steadied(stamp: Wall) -> Wall {
    static STEPS: Mutex<Steps> = Mutex::new(Steps { now: 0, before: 0 });
    let mut steps = STEPS.lock().unwrap_or_else(PoisonError::into_inner);
    let (steady, wall) = at_once(steady, wall);
    steps.steadied(stamp, steady, wall)
}

/// How far [`steady`] is ahead of `CLOCK_MONOTONIC`, which is [`Instant`]'s.
pub(super) fn steady_ahead(monotonic: impl Fn() -> Duration) -> Duration {
    let (monotonic, steady) = at_once(monotonic, steady);
    Duration::from_nanos(steady.as_nanos()).saturating_sub(monotonic)
}

/// One moment by two clocks: of three readings that in which the least time went by.
pub(super) fn at_once<A, B>(one: impl Fn() -> A, other: impl Fn() -> B) -> (A, B) {
    let readings = [(); 3].map(|()| {
        let before = Instant::now();
        let both = (one(), other());
        (before.elapsed(), both)
    });
    let [first, second, third] = readings;
    let least = |a: (Duration, (A, B)), b: (Duration, (A, B))| if b.0 < a.0 { b } else { a };
    least(least(first, second), third).1
}

/// When this process first asked.
fn began() -> &'static (Instant, Wall) {
    static BEGAN: OnceLock<(Instant, Wall)> = OnceLock::new();
    BEGAN.get_or_init(|| at_once(Instant::now, wall))
}

fn later(wall: Wall, by: Duration) -> Wall {
    let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    Wall::from_nanos(wall.as_nanos().saturating_add(by))
}

/// How far the wall clock has been set, in nanoseconds: all in all, and before it was set the last time.
#[derive(Debug)]
struct Steps {
    now: i128,
    before: i128,
}

impl Steps {
    /// More than two readings lie apart, less than an answer that counts.
    const NOTED: i128 = 5_000_000;
    /// How long packets wait for an agent, at the longest.
    const WAITED: i128 = 60_000_000_000;

    /// A stamp by the steady clock. Those of the time before the last step are told by that it would put them into the
    /// future, or long ago.
    fn steadied(&mut self, stamp: Wall, steady: Wall, wall: Wall) -> Wall {
        let nanos = |time: Wall| i128::from(time.as_nanos());
        let step = nanos(wall) - nanos(steady);
        if (step - self.now).abs() > Self::NOTED {
            self.before = self.now;
            self.now = step;
        }
        let near = |step: i128| {
            let time = nanos(stamp) - step;
            let age = nanos(steady) - time;
            (-Self::NOTED..Self::WAITED)
                .contains(&age)
                .then(|| u64::try_from(time).ok())?
        };
        near(self.now)
            .or_else(|| near(self.before))
            .map_or(steady, Wall::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3600 * SECOND;
    const NOON: u64 = 1_795_348_800 * SECOND;

    /// What becomes of stamps as they come: each at so many nanoseconds after noon, read a millisecond later, with the
    /// clock ahead by so much as it is stamped and as it is read.
    fn steadied(stamps: &[(u64, i64, i64)]) -> Vec<u64> {
        let mut steps = Steps { now: 0, before: 0 };
        let at = |nanos: u64, ahead: i64| {
            Wall::from_nanos((NOON + nanos).checked_add_signed(ahead).unwrap())
        };
        let each = stamps.iter().map(|(nanos, then, now)| {
            let read = nanos + 1_000_000;
            steps
                .steadied(at(*nanos, *then), at(read, 0), at(read, *now))
                .as_nanos()
                - NOON
        });
        each.collect()
    }

    #[test]
    fn a_clock_that_is_set_moves_nothing() {
        let hour = HOUR as i64;
        for set in [
            hour,
            -hour,
            2 * SECOND as i64,
            -(2 * SECOND as i64),
            -400_000_000,
        ] {
            let stamps = [
                (0, 0, 0),
                (SECOND, 0, 0),
                // It waited while the clock was set.
                (2 * SECOND, 0, set),
                (2 * SECOND + 5, set, set),
                (3 * SECOND, set, set),
                // Set back.
                (4 * SECOND, set, 0),
                (5 * SECOND, 0, 0),
            ];
            // A clock set forward by no more than packets wait moves the one that waited; and set back, by no more.
            let moved = if set == 2 * SECOND as i64 {
                [2].as_slice()
            } else {
                &[]
            };
            let back = if set < 0 && set > -hour {
                [5].as_slice()
            } else {
                &[]
            };
            for (number, (found, (expected, ..))) in
                steadied(&stamps).into_iter().zip(stamps).enumerate()
            {
                let is_moved = moved.contains(&number) || back.contains(&number);
                assert_eq!(found == expected, !is_moved, "{set}, {number}: {found}");
            }
        }
    }

    #[test]
    fn two_readings_that_lie_apart_are_no_step() {
        let stamps = [
            (0, 0, 0),
            (SECOND, 0, 3_000_000),
            (2 * SECOND, 0, -3_000_000),
        ];
        assert_eq!(steadied(&stamps), [0, SECOND, 2 * SECOND]);
    }

    #[test]
    fn the_steady_clock_runs_with_the_others() {
        let before = wall();
        let between = steady();
        assert!(
            between.distance(before) < Duration::from_secs(60),
            "{between}"
        );
        assert!(super::steadied(wall()).distance(steady()) < Duration::from_secs(60));
        assert!(steady() >= between);
    }
}
