//! What a host has disturbed and must put right again.

use std::collections::BTreeMap;

use crate::exchange::Neighbour;
use crate::exchange::Transmit;

/// What is not settled yet.
#[derive(Debug, Default)]
pub struct Ledger {
    open: BTreeMap<u32, Transmit>,
    /// With the index of its device, which may be renamed.
    forgotten: Vec<(Neighbour, u32)>,
    watching: Option<u8>,
}

impl Ledger {
    /// A packet goes out that opens something, and `cleanup` closes it.
    pub fn open(&mut self, token: u32, cleanup: Transmit) {
        self.open.insert(token, cleanup);
    }

    /// It is closed, or never went out.
    pub fn close(&mut self, token: u32) {
        self.open.remove(&token);
    }

    /// A neighbour entry is deleted, on the device of this index.
    pub fn forget(&mut self, neighbour: Neighbour, index: u32) {
        self.forgotten.push((neighbour, index));
    }

    /// The kernel's drop monitor is turned on, which had this alert mode (`NET_DM_ALERT_MODE_*`) before; `None`: it was
    /// not turned on after all.
    pub fn watch(&mut self, mode: Option<u8>) {
        self.watching = mode;
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

    /// Every neighbour entry that still has to be put back, with its device's index; the first that was there comes last.
    pub fn forgotten(&self) -> impl Iterator<Item = &(Neighbour, u32)> {
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
            ledger.open(token, packet(token as u8));
        }
        ledger.close(2);
        assert_eq!(ledger.cleanup(2), None);
        assert_eq!(
            ledger.cleanups().collect::<Vec<_>>(),
            [&packet(1), &packet(3)]
        );
        assert_eq!(ledger.watching(), None);
        ledger.watch(Some(0));
        assert_eq!(ledger.watching(), Some(0));
        ledger.watch(None);
        assert_eq!(ledger.watching(), None);
    }
}
