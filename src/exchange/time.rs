//! Two clocks that must not be confused.

use std::fmt;
use std::ops::Add;
use std::time::Duration;
use std::time::SystemTime;

use serde::Deserialize;
use serde::Serialize;

/// A time of one host's monotonic clock; the zero is arbitrary.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Mono(Duration);

impl Mono {
    /// The time this long after the clock's zero.
    pub fn new(since_zero: Duration) -> Mono {
        Mono(since_zero)
    }

    /// The time this long before; the clock's zero if it is not that old.
    pub fn before(self, duration: Duration) -> Mono {
        Mono(self.0.saturating_sub(duration))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Mono) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;

    fn add(self, duration: Duration) -> Mono {
        Mono(self.0 + duration)
    }
}

/// A time of a host's wall clock, in nanoseconds since 1970-01-01T00:00:00Z; for people, and not for durations
/// by which a hop breaks: the clock may be set.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Wall(u64);

impl Wall {
    /// The time this many nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Wall {
        Wall(nanos)
    }

    /// How far apart two times of one host are.
    pub fn distance(self, other: Wall) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0))
    }

    /// Nanoseconds since the epoch.
    pub fn as_nanos(self) -> u64 {
        self.0
    }
}

/// When a proof was made and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When it began, by the controller's wall clock.
    pub started: Wall,
    /// How long it took, by the controller's monotonic clock.
    pub elapsed: Duration,
}

/// RFC 3339 in UTC, with nanoseconds.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(self.0);
        humantime::format_rfc3339_nanos(time).fmt(f)
    }
}
