//! This host's two clocks.

use std::sync::OnceLock;
use std::time::Instant;
use std::time::SystemTime;

use crate::exchange::Mono;
use crate::exchange::Wall;

/// The monotonic clock; its zero is the first call in this process.
pub fn mono() -> Mono {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    Mono::new(ZERO.get_or_init(Instant::now).elapsed())
}

/// The wall clock.
pub fn wall() -> Wall {
    let since_epoch = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Wall::from_nanos(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}
