//! When the last slots were sent, in memory that no fleet makes larger.

use std::collections::VecDeque;

use crate::exchange::Mono;

/// Batches, each with its first slot, in rising order.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    batches: VecDeque<(u32, Mono)>,
    /// Which of them was asked for last.
    last: usize,
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

    /// When a slot was sent, if that is still known. What is answered next was mostly sent next.
    pub(super) fn when(&mut self, slot: u32) -> Option<Mono> {
        let near = [self.last, self.last + 1];
        self.last = match near.into_iter().find(|batch| self.is_of(*batch, slot)) {
            Some(batch) => batch,
            None => {
                let after = self.batches.partition_point(|(first, _)| *first <= slot);
                after.checked_sub(1)?
            }
        };
        let (_, time) = self.batches.get(self.last)?;
        Some(*time)
    }

    /// Whether a slot is of this batch.
    fn is_of(&self, batch: usize, slot: u32) -> bool {
        let begins = |batch| self.batches.get(batch).map(|(first, _)| *first);
        begins(batch).is_some_and(|first| first <= slot)
            && begins(batch + 1).is_none_or(|next| slot < next)
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_was_asked_for_before_the_time_is_that_of_the_slots_batch() {
        let mut recent = Recent::default();
        let time = |first: u32| Mono::new(Duration::from_micros(first.into()));
        // Of one to five slots each, the first three of none.
        let begins: Vec<u32> = (0..200).map(|n| 3 + n * 3 + n % 3).collect();
        assert_eq!(recent.when(0), None);
        for first in &begins {
            recent.sent(*first, time(*first));
        }
        let expected = |slot| {
            begins
                .iter()
                .rfind(|first| **first <= slot)
                .copied()
                .map(time)
        };
        for before in (0..620).step_by(7) {
            for slot in 0..620 {
                recent.when(before);
                assert_eq!(recent.when(slot), expected(slot), "{slot} after {before}");
            }
        }
        recent.when(600);
        recent.clear();
        assert_eq!(recent.when(600), None);
        for first in 0..=Recent::MOST as u32 {
            recent.sent(first, time(first));
        }
        assert_eq!(
            [0, 1, 2].map(|slot| recent.when(slot)),
            [None, Some(time(1)), Some(time(2))]
        );
    }
}
