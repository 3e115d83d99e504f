//! What a host has disturbed and must put right again.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Neighbour;
use crate::exchange::Transmit;

/// A line of the ledger; written before the deed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// A packet goes out that opens something.
    Opened {
        /// Its token.
        token: u32,
        /// What closes it.
        cleanup: Transmit,
    },
    /// It is closed, or never went out.
    Closed {
        /// Its token.
        token: u32,
    },
    /// A neighbour entry is deleted.
    Forgotten(Neighbour),
    /// The kernel's drop monitor is turned on, which had this alert mode before.
    Watching {
        /// `NET_DM_ALERT_MODE_*`.
        mode: u8,
    },
    /// It was not turned on after all.
    NotWatching,
    /// Everything is settled.
    Done,
}

/// What is not settled yet.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<u32, Transmit>,
    forgotten: Vec<Neighbour>,
    watching: Option<u8>,
}

impl Ledger {
    /// Takes a line in.
    pub fn record(&mut self, entry: Entry) {
        match entry {
            Entry::Opened { token, cleanup } => {
                self.open.insert(token, cleanup);
            }
            Entry::Closed { token } => {
                self.open.remove(&token);
            }
            Entry::Forgotten(neighbour) => self.forgotten.push(neighbour),
            Entry::Watching { mode } => self.watching = Some(mode),
            Entry::NotWatching => self.watching = None,
            Entry::Done => *self = Ledger::default(),
        }
    }

    /// What closes what this token opened, if it is open.
    pub fn cleanup(&self, token: u32) -> Option<&Transmit> {
        self.open.get(&token)
    }

    /// Every packet that still has to be sent.
    pub fn cleanups(&self) -> impl Iterator<Item = &Transmit> {
        self.open.values()
    }

    /// The alert mode to give the kernel's drop monitor back, if it has to be turned off.
    pub fn watching(&self) -> Option<u8> {
        self.watching
    }

    /// Every neighbour entry that still has to be put back; the first that was there comes last.
    pub fn forgotten(&self) -> impl Iterator<Item = &Neighbour> {
        self.forgotten.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Way;

    fn packet(octet: u8) -> Transmit {
        Transmit {
            way: Way::Stack,
            bytes: vec![octet],
        }
    }

    #[test]
    fn what_was_closed_is_not_closed_again() {
        let mut ledger = Ledger::default();
        for token in [1, 2, 3] {
            ledger.record(Entry::Opened {
                token,
                cleanup: packet(token as u8),
            });
        }
        ledger.record(Entry::Closed { token: 2 });
        assert_eq!(ledger.cleanup(2), None);
        assert_eq!(
            ledger.cleanups().collect::<Vec<_>>(),
            [&packet(1), &packet(3)]
        );
        assert_eq!(ledger.watching(), None);
        ledger.record(Entry::Watching { mode: 0 });
        assert_eq!(ledger.watching(), Some(0));
        ledger.record(Entry::Done);
        assert_eq!((ledger.cleanups().count(), ledger.watching()), (0, None));
    }
}
