//! How fast: packets a second in all, and to each real server.

use std::time::Duration;

use crate::exchange::Mono;
use crate::plan::Fleet;
use crate::plan::Protocol;
use crate::run::fleet::order::Place;

/// A bucket of packets that may be sent at once: four milliseconds' worth, one at least.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    rate: f64,
    most: f64,
    content: f64,
    filled: Mono,
}

impl Bucket {
    pub(super) fn new(rate: u32, now: Mono) -> Bucket {
        let rate = f64::from(rate);
        Bucket {
            rate,
            most: (rate * 0.004).clamp(1.0, 4096.0),
            content: 1.0,
            filled: now,
        }
    }

    pub(super) fn fill(&mut self, now: Mono) {
        let elapsed = now.since(self.filled).as_secs_f64();
        self.content = (self.content + elapsed * self.rate).min(self.most);
        self.filled = now.max(self.filled);
    }

    pub(super) fn take(&mut self) -> bool {
        let has_one = self.content >= 1.0;
        if has_one {
            self.content -= 1.0;
        }
        has_one
    }

    /// When there will be one.
    pub(super) fn next(&self) -> Mono {
        let missing = (1.0 - self.content).max(0.0) / self.rate;
        // A microsecond more than it takes: rounding must not wake anybody too early.
        self.filled + Duration::from_secs_f64(missing) + Duration::from_micros(1)
    }
}

/// Keeps probes to the same real server apart, in memory that no fleet makes larger: the times at which the order
/// passed each of a thousand stretches of a group's real servers, and each group that shares some with others.
#[derive(Clone, Debug)]
pub(super) struct Spacing {
    each: u32,
    group: Option<usize>,
    /// Each walk over a group's real servers has another number.
    walk: u64,
    /// Of the walks before, and of this one, too.
    before: Vec<Option<Mono>>,
    passed: Vec<Option<Mono>>,
    /// When each group was asked last, and when those were that share a real server with the one in hand.
    left: Vec<Option<Mono>>,
    entered: Option<Mono>,
}

const STRETCHES: u32 = 1024;

/// A twentieth more than Linux's limit, for clocks that differ.
const ICMP_LIMIT: Duration = Duration::from_millis(1050);

impl Spacing {
    /// How far probes to one real server are apart. A SYN and the RST that closes what it opened are two packets. Of
    /// port unreachables Linux sends one a second to one host, after six (`icmp_ratelimit`).
    pub(super) fn apart(protocol: Protocol, each: u32) -> Duration {
        let apart = Duration::from_secs_f64(2.0 / f64::from(each));
        match protocol {
            Protocol::Tcp => apart,
            Protocol::Udp => apart.max(ICMP_LIMIT),
        }
    }

    pub(super) fn new(fleet: &Fleet, each: u32) -> Spacing {
        Spacing {
            each,
            group: None,
            walk: 0,
            before: Vec::new(),
            passed: Vec::new(),
            left: vec![None; fleet.groups().len()],
            entered: None,
        }
    }

    /// When the real server at this place may be asked by this protocol; a time that is past already, or `None`, is now.
    pub(super) fn when(
        &mut self,
        fleet: &Fleet,
        at: &Place,
        (protocol, walk): (Protocol, u64),
    ) -> Option<Mono> {
        let (group, position) = (at.group, at.position);
        if self.group != Some(group) {
            self.enter(fleet, group);
        }
        if self.walk != walk {
            self.walk = walk;
            self.before.clone_from(&self.passed);
        }
        let stretch = stretch(fleet, group, position);
        let since = self.before[stretch].max(self.entered);
        since.map(|since| since + Spacing::apart(protocol, self.each))
    }

    /// The real server at this place was asked.
    pub(super) fn asked(&mut self, fleet: &Fleet, at: &Place, now: Mono) {
        self.passed[stretch(fleet, at.group, at.position)] = Some(now);
        self.left[at.group] = Some(now);
    }

    fn enter(&mut self, fleet: &Fleet, group: usize) {
        let groups = fleet.groups();
        let stretches = groups[group].realservers().min(STRETCHES) as usize;
        let shared = self.left.iter().enumerate().filter_map(|(other, left)| {
            let left = (*left)?;
            (other == group || groups[other].overlaps(&groups[group])).then_some(left)
        });
        self.entered = shared.max();
        self.group = Some(group);
        self.before = vec![None; stretches];
        self.passed = vec![None; stretches];
    }
}

/// Of as many equal stretches as there are, or fewer.
fn stretch(fleet: &Fleet, group: usize, position: u32) -> usize {
    let realservers = fleet.groups()[group].realservers();
    (position / realservers.div_ceil(STRETCHES)) as usize
}
