//! A packet that the kernel gave up.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Capture;
use crate::exchange::Unread;
use crate::exchange::Wall;

/// A packet that a host's kernel freed without having used it: `dropwatch -l kas`, then `set alertmode packet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The kernel's reason, such as `NETFILTER_DROP` (`include/net/dropreason-core.h`); kernels before 5.18 give
    /// none, and many places in later ones `NOT_SPECIFIED`.
    pub reason: Option<String>,
    /// Where in the kernel, the function, such as `nf_hook_slow`.
    pub place: String,
    /// The packet, as it was then. Of its direction nothing is known.
    pub capture: Capture,
}

/// IPv4 packets that a host's kernel freed without having used them, in any network namespace, without the packets:
/// `perf trace --no-syscalls -a -e skb:kfree_skb`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Since when it is told.
    pub since: Wall,
    /// Whether some were missed.
    pub missed: bool,
    /// Each; of one reason at one place [`Freed::LIMIT`] at most.
    pub drops: Vec<FreedOne>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedOne {
    /// When.
    pub time: Wall,
    /// The kernel's reason.
    pub reason: String,
    /// The kernel's function, or its address where the names are not told.
    pub place: String,
}

impl Freed {
    /// More of one reason at one place are not told of: they are too common to say anything.
    pub const LIMIT: usize = 1000;

    /// Adds what was told later.
    pub fn extend(&mut self, later: Freed) {
        self.since = later.since;
        self.missed |= later.missed;
        self.drops.extend(later.drops);
    }

    /// Why some of it says nothing, if so.
    pub fn unread(&self) -> Option<Unread> {
        let mut kinds: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for FreedOne { reason, place, .. } in &self.drops {
            *kinds.entry((reason, place)).or_default() += 1;
        }
        let common = kinds.into_iter().find(|(_, count)| *count >= Freed::LIMIT);
        let error = match common {
            _ if self.missed => "tracepoint skb:kfree_skb: some records were lost".to_owned(),
            Some(((reason, place), count)) => format!(
                "tracepoint skb:kfree_skb: {reason} in {place} came {count} times, which is too common to be joined \
                 to our packets"
            ),
            None => return None,
        };
        Some(Freed::untold(error))
    }

    /// That the kernel's drop reasons are not known, and why.
    pub fn untold(error: String) -> Unread {
        Unread {
            what: "the kernel's drop reasons".to_owned(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_and_a_loss_are_said() {
        let one = FreedOne {
            time: Wall::from_nanos(1),
            reason: "IP_RPFILTER".to_owned(),
            place: "ip_rcv_finish_core".to_owned(),
        };
        let mut freed = Freed {
            drops: vec![one.clone(); Freed::LIMIT - 1],
            ..Freed::default()
        };
        assert_eq!(freed.unread(), None);
        freed.drops.push(one);
        let said = "tracepoint skb:kfree_skb: IP_RPFILTER in ip_rcv_finish_core came 1000 times, which is too common \
                    to be joined to our packets";
        assert_eq!(freed.unread().unwrap().error, said);
        freed.missed = true;
        let said = "tracepoint skb:kfree_skb: some records were lost";
        assert_eq!(freed.unread().unwrap().error, said);
    }
}
