//! When the last slots were sent, in memory that no fleet makes larger.

use std::collections::VecDeque;

use crate::exchange::Mono;

/// Batches, each with its first slot, in rising order.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    batches: VecDeque<(u32, Mono)>,
}

impl Recent {
    /// As many as are sent in four seconds at a million packets a second.
    const MOST: usize = 1 << 16;

    /// A batch begins with this slot.
    pub(super) fn sent(&mut self, slot: u32, now: Mono) {
        if self.batches.len() == Recent::MOST {
            self.batches.pop_front();
        }
        self.batches.push_back((slot, now));
    }

    /// When a slot was sent, if that is still known.
    pub(super) fn when(&self, slot: u32) -> Option<Mono> {
        let after = self.batches.partition_point(|(first, _)| *first <= slot);
        let (_, time) = self.batches.get(after.checked_sub(1)?)?;
        Some(*time)
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
    }
}
