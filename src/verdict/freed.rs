//! Drops without packets, joined to the packets that died by time.
//!
//! One drop at the right moment is nothing: other packets die, too. The kernel's reason counts only if it was given,
//! at one place, shortly after most of the packets were last seen, and so rarely at other times that this is no
//! chance.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::exchange::Freed;
use crate::exchange::Wall;

/// So soon after it was last seen on the host, a packet is dropped there.
const WINDOW: u64 = 2_000_000; // ns
/// How many must have been dropped for one reason.
const ENOUGH: usize = 3;
/// How probable it may be that they were others.
const CHANCE: f64 = 1e-4;

/// A reason for which packets died.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) reason: String,
    place: String,
    /// Of how many packets.
    count: usize,
    /// Of how many that died.
    deaths: usize,
    /// Within what time after the last that was seen of each.
    within: Duration,
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Joined {
            reason,
            place,
            count,
            deaths,
            ..
        } = self;
        let tenths = self.within.as_micros().div_ceil(100);
        let (whole, rest) = (tenths / 10, tenths % 10);
        let each = match count == deaths {
            true => format!("each of {count}"),
            false => format!("{count} of {deaths}"),
        };
        write!(
            f,
            "the kernel dropped a packet with reason {reason} in {place} within {whole}.{rest} ms of {each} of our \
             packets (tracepoint skb:kfree_skb, joined by time)"
        )
    }
}

/// The reason for most of the deaths, of which the times are given, if one stands out.
pub(super) fn joined(freed: &Freed, deaths: Vec<Wall>) -> Option<Joined> {
    let since = freed.since.as_nanos();
    let mut deaths: Vec<u64> = deaths.into_iter().map(Wall::as_nanos).collect();
    deaths.retain(|time| *time >= since);
    deaths.sort_unstable();
    if freed.missed || deaths.len() < ENOUGH {
        return None;
    }
    let mut kinds: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for drop in &freed.drops {
        let kind = (drop.reason.as_str(), drop.place.as_str());
        kinds.entry(kind).or_default().push(drop.time.as_nanos());
    }
    let number = kinds.len();
    let whole = kinds
        .into_iter()
        .filter(|(_, drops)| drops.len() < Freed::LIMIT);
    whole
        .filter_map(|((reason, place), mut drops)| {
            drops.sort_unstable();
            let delays = delays(&deaths, &drops);
            let (count, others) = (delays.len(), drops.len() - delays.len());
            let first = deaths[0].min(drops[0]);
            let last = deaths[deaths.len() - 1].max(drops[drops.len() - 1]);
            let span = last.saturating_add(WINDOW) - first;
            let elsewhere = span.saturating_sub(WINDOW * deaths.len() as u64);
            let chance = number as f64 * chance(count, deaths.len(), others, elsewhere.max(WINDOW));
            (count >= ENOUGH && count * 5 >= deaths.len() * 4 && chance < CHANCE).then(|| Joined {
                reason: reason.to_owned(),
                place: place.to_owned(),
                count,
                deaths: deaths.len(),
                within: Duration::from_nanos(delays.into_iter().max().unwrap_or_default()),
            })
        })
        .max_by_key(|joined| joined.count)
}

/// How long after each death a drop followed, where one did; no drop follows two. Both are in order.
fn delays(deaths: &[u64], drops: &[u64]) -> Vec<u64> {
    let mut rest = drops.iter().peekable();
    let mut delays = Vec::new();
    for death in deaths {
        while rest.next_if(|drop| *drop < death).is_some() {}
        if let Some(drop) = rest.next_if(|drop| **drop - death <= WINDOW) {
            delays.push(drop - death);
        }
    }
    delays
}

/// The probability that so many windows of so many have a drop by chance (no less than that), where `others` were
/// outside of them in so long a time; one more, since none seen is not none.
fn chance(count: usize, windows: usize, others: usize, elsewhere: u64) -> f64 {
    let expected = (others + 1) as f64 * WINDOW as f64 / elsewhere as f64;
    let each = -(-expected).exp_m1();
    // C(windows, count) · each^count
    (0..count)
        .map(|taken| (windows - taken) as f64 / (count - taken) as f64 * each)
        .product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::FreedOne;

    const MS: u64 = 1_000_000;

    fn freed(times: impl IntoIterator<Item = u64>) -> Freed {
        let one = |time| FreedOne {
            time: Wall::from_nanos(time),
            reason: "NETFILTER_DROP".to_owned(),
            place: "nf_hook_slow".to_owned(),
        };
        Freed {
            since: Wall::from_nanos(MS),
            missed: false,
            drops: times.into_iter().map(one).collect(),
        }
    }

    fn deaths(times: impl IntoIterator<Item = u64>) -> Vec<Wall> {
        times.into_iter().map(Wall::from_nanos).collect()
    }

    /// Every 50 ms.
    fn probes(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|number| number * 50 * MS)
    }

    #[test]
    fn a_reason_soon_after_each_packet_is_theirs() {
        let drops = freed(probes(6).map(|time| time + 280_000));
        let joined = joined(&drops, deaths(probes(6))).unwrap();
        let said = "the kernel dropped a packet with reason NETFILTER_DROP in nf_hook_slow within 0.3 ms of each of \
                    6 of our packets (tracepoint skb:kfree_skb, joined by time)";
        assert_eq!(joined.to_string(), said);
    }

    #[test]
    fn what_may_be_chance_is_not_said() {
        let soon = |count| probes(count).map(|time| time + 280_000);
        let all = || deaths(probes(6));
        assert_eq!(joined(&freed([]), all()), None);
        assert_eq!(joined(&freed(soon(2)), deaths(probes(2))), None, "few");
        assert_eq!(joined(&freed(soon(4)), all()), None, "not most");
        let before = probes(6).map(|time| time - 280_000);
        assert_eq!(joined(&freed(before), all()), None, "before they were seen");
        let late = probes(6).map(|time| time + 3 * MS);
        assert_eq!(joined(&freed(late), all()), None, "too late");
        let flood = (0..900).map(|number| number * 400_000);
        assert_eq!(joined(&freed(flood), all()), None, "in every window");
        let missed = Freed {
            missed: true,
            ..freed(soon(6))
        };
        assert_eq!(joined(&missed, all()), None, "not all were told");
        let common = soon(6).chain((0..1000).map(|number| 10_000 * MS + number));
        assert_eq!(joined(&freed(common), all()), None, "too many");
    }

    #[test]
    fn packets_that_died_before_the_kernel_was_asked_do_not_count() {
        let drops = Freed {
            since: Wall::from_nanos(120 * MS),
            ..freed(probes(6).skip(2).map(|time| time + 280_000))
        };
        let joined = joined(&drops, deaths(probes(6))).unwrap();
        assert_eq!((joined.count, joined.deaths), (4, 4));
    }

    #[test]
    fn a_few_other_drops_do_not_hide_it() {
        let others = (0..5).map(|number| 20 * MS + number * 50 * MS);
        let drops = freed(probes(10).map(|time| time + 100_000).chain(others));
        assert!(joined(&drops, deaths(probes(10))).is_some());
    }
}
