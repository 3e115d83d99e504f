//! The search for the size at which the tunnel's packets die.
//!
//! One packet of the size that the director's own route allows is all there is on a path that passes it. Only
//! if nothing is heard of that one, though tunnelled packets arrive, is it repeated, in turn with small ones,
//! until chance is no explanation; then the sizes between are tried.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::Sizes;
use crate::exchange::HostFacts;
use crate::exchange::Mono;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::plan::Hop;
use crate::plan::Path;
use crate::plan::ProbeKind;

/// Octets of the shortest tunnelled UDP probe: two IPv4 headers, UDP, 16 octets.
const SMALL: u16 = 64;
/// The longest packet tried: jumbo frames are no longer.
const LONGEST: u16 = 9216;
/// What every host must be able to forward (RFC 791 §3.2): a next hop's MTU below it is none.
const LEAST_MTU: u16 = 68;
/// How often a size is tried before the search turns to shorter ones.
const TRIES: usize = 3;
/// How often at most a size is tried that chance may explain.
const MOST: usize = 20;
/// Between tries of a size for which no answer is waited.
const PACE: Duration = Duration::from_millis(100);
/// How long an answer takes while none was seen.
const UNKNOWN: Duration = Duration::from_millis(500);
/// What an answer may take beyond the slowest.
const SLACK: Duration = Duration::from_millis(100);
/// No wait is shorter.
const SHORTEST: Duration = Duration::from_millis(1);
/// How many answers the real server gives at once, at least; then one a second (`icmp_ratelimit`).
const BURST: f64 = 4.0;

/// The search of one path.
#[derive(Clone, Debug)]
pub(super) struct Search {
    path: usize,
    /// The longest packet that need pass.
    limit: u16,
    /// The size sent last; 0 is none.
    asked: u16,
    begun: Mono,
    awaited: Awaited,
    /// How often the size asked last was asked.
    tries: usize,
    /// Whether it was waited for late answers to all.
    settled: bool,
    /// Whether tunnelled packets are known to arrive, in a way in which its own would show.
    shows: bool,
    done: bool,
}

impl Search {
    /// The search for `path`, if the director knows what its route allows.
    pub(super) fn new(path: usize, limit: Option<u16>, now: Mono) -> Option<Search> {
        Some(Search {
            path,
            limit: limit.filter(|limit| *limit > SMALL)?,
            asked: 0,
            begun: now,
            awaited: Awaited::Nothing(now),
            tries: 0,
            settled: false,
            shows: false,
            done: false,
        })
    }

    /// The path that it is for.
    pub(super) fn path(&self) -> usize {
        self.path
    }

    /// It cannot go on.
    pub(super) fn cancel(&mut self) {
        self.done = true;
    }

    /// When it wants to be asked again. `trip` is what the slowest answer took.
    pub(super) fn due(&self, trip: Duration) -> Option<Mono> {
        if self.done || self.asked != 0 && !self.is_pending() {
            return None;
        }
        let trip = if trip.is_zero() { UNKNOWN } else { trip };
        Some(match self.awaited {
            Awaited::Nothing(begin) => begin,
            // Of a healthy path, nothing more is sent before the answer is long due.
            Awaited::First(sent) => sent + trip * 2 + SLACK,
            // Late ones count all the same.
            Awaited::Answers(sent) => sent + trip + SLACK,
        })
    }

    /// Whether an answer is still worth waiting for: tunnelled packets arrive, and that they do shows.
    pub(super) fn is_pending(&self) -> bool {
        !self.done && self.asked != 0 && self.shows
    }

    /// Something was learnt of its path.
    pub(super) fn look(&mut self, evidence: &Evidence) {
        if !self.done {
            self.shows = arrivals_show(evidence, self.path);
        }
    }

    /// A probe of the search was seen.
    pub(super) fn handle_sighting(&mut self, evidence: &Evidence, now: Mono) {
        let sizes = evidence.sizes(self.path);
        let told = told(evidence, &sizes).is_some_and(|mtu| mtu < self.limit);
        self.done |= sizes.passing() >= self.limit;
        if sizes.passing() >= self.asked || told {
            self.awaited = Awaited::Nothing(now);
        }
    }

    /// Which sizes to send now; `last_wait` is what the last packets of all are given.
    pub(super) fn poll(
        &mut self,
        evidence: &Evidence,
        now: Mono,
        trip: Duration,
        last_wait: Duration,
    ) -> Vec<u16> {
        if self.due(trip).is_none_or(|due| now < due) {
            return Vec::new();
        }
        if self.asked == 0 {
            self.begun = now;
            return self.ask(&[self.limit], 1, now);
        }
        let sizes = evidence.sizes(self.path);
        if let Some(mtu) = told(evidence, &sizes).filter(|mtu| *mtu < self.limit) {
            self.limit = mtu;
            if sizes.passing() < mtu {
                return self.ask(&[mtu], 1, now);
            }
        }
        let passing = sizes.passing();
        if passing >= self.limit {
            self.done = true;
            return Vec::new();
        }
        let answerable = sizes.died.iter().filter(|one| one.size <= passing);
        let spent = (sizes.arrived.len() + answerable.count()) as f64;
        let answers = BURST + now.since(self.begun).as_secs_f64() - spent;
        if !sizes.is_seen && answers < 1.0 {
            // A fraction of a nanosecond would be no time at all.
            let wait = Duration::from_secs_f64(1.0 - answers).max(SHORTEST);
            self.awaited = Awaited::Nothing(now + wait);
            return Vec::new();
        }
        let too_long = sizes.too_long.iter().map(|one| one.size).min();
        if too_long.is_none_or(|size| size > self.limit) && !sizes.are_dead(self.limit) {
            // Those that are not seen to leave are not dead, either.
            let left = sizes.dead_up_to(self.limit).count() < MOST && self.tries < MOST * 2;
            return match left {
                true => self.ask(&[self.limit, SMALL], sizes.least(), now),
                false => self.end(now, last_wait),
            };
        }
        let failing = failing(&sizes).unwrap_or(self.limit).min(self.limit);
        if failing - passing > 1 {
            return self.ask(&[passing.midpoint(failing)], TRIES, now);
        }
        let is_told = too_long.is_some_and(|size| size <= failing);
        match is_told || sizes.are_dead(failing) || sizes.dead_up_to(failing).count() >= MOST {
            true => self.end(now, last_wait),
            false => self.ask(&[failing], sizes.least(), now),
        }
    }

    /// Asks with these sizes, of which the first matters. Before `least` tries of it no answer is waited for,
    /// but one that comes ends them.
    fn ask(&mut self, sizes: &[u16], least: usize, now: Mono) -> Vec<u16> {
        if self.asked != sizes[0] {
            self.tries = 0;
        }
        self.tries += 1;
        self.awaited = match self.asked {
            0 => Awaited::First(now),
            _ if self.tries < least => Awaited::Nothing(now + PACE),
            _ => Awaited::Answers(now),
        };
        self.asked = sizes[0];
        self.settled = false;
        sizes.to_vec()
    }

    /// Late answers to what was sent last may still change it.
    fn end(&mut self, now: Mono, last_wait: Duration) -> Vec<u16> {
        self.done = self.settled;
        self.settled = true;
        self.awaited = Awaited::Nothing(now + last_wait);
        Vec::new()
    }
}

/// What a search waits for.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// No answer, but this time.
    Nothing(Mono),
    /// The answer to the first packet, sent then.
    First(Mono),
    /// The answers to others, the last sent then.
    Answers(Mono),
}

/// The longest packet that the director's own route to the real server allows.
pub(super) fn limit(facts: &HostFacts, path: &Path) -> Option<u16> {
    let query = RouteQuery {
        to: path.rip,
        from: None,
        iif: None,
    };
    let Some(RouteAnswer::Route(route)) = facts.route(&query) else {
        return None;
    };
    let link = facts.link(route.device.as_deref()?)?;
    let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
    Some(u16::try_from(mtu).unwrap_or(LONGEST).min(LONGEST))
}

/// The least next hop's MTU that a router told.
fn told(evidence: &Evidence, sizes: &Sizes) -> Option<u16> {
    sizes
        .too_long
        .iter()
        .filter_map(|one| {
            let told = |mtu: u16| (LEAST_MTU..one.size).contains(&mtu);
            evidence
                .sightings(one.probe)
                .filter_map(|(_, sighting)| sighting.next_hop_mtu.filter(|mtu| told(*mtu)))
                .min()
        })
        .min()
}

/// The shortest that did not pass: a router said so, or three did not arrive.
fn failing(sizes: &Sizes) -> Option<u16> {
    let passing = sizes.passing();
    let told = sizes.too_long.iter().map(|one| one.size);
    let mut dead: Vec<u16> = sizes.dead_up_to(u16::MAX).map(|one| one.size).collect();
    dead.sort_unstable();
    told.chain(dead.get(TRIES - 1).copied())
        .filter(|size| *size > passing)
        .min()
}

/// Whether tunnelled packets are known to arrive in a way in which the search's own would show: at the real
/// server's tap, or by answers to the director.
fn arrivals_show(evidence: &Evidence, path: usize) -> bool {
    let sizes = evidence.sizes(path);
    if !sizes.arrived.is_empty() {
        return true;
    }
    evidence.passages(path).any(|passage| match sizes.is_seen {
        true => passage.proves(Hop::DirectorToRealserver).is_some(),
        false => passage.probe.id.kind == ProbeKind::Reflect && passage.is_complete(),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::exchange::Link;
    use crate::exchange::Route;
    use crate::exchange::RouteKind;
    use crate::plan::Protocol;

    #[test]
    fn the_routes_mtu_is_the_limit_or_else_the_devices() {
        let rip = Ipv4Addr::new(203, 0, 113, 5);
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 80,
            protocol: Protocol::Tcp,
            rip,
            dip: None,
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        };
        for (device, route, expected) in [
            (1500, None, 1500),
            (1500, Some(1400), 1400),
            (1500, Some(9000), 1500),
            (9000, None, 9000),
            (65_536, None, LONGEST),
        ] {
            let link = Link {
                mtu: device,
                ..Link::eth0(Vec::new())
            };
            let answer = RouteAnswer::Route(Route {
                kind: RouteKind::Unicast,
                device: Some("eth0".to_owned()),
                gateway: None,
                source: None,
                table: 254,
                mtu: route,
            });
            let query = RouteQuery {
                to: rip,
                from: None,
                iif: None,
            };
            let mut facts = HostFacts {
                links: vec![link],
                ..HostFacts::default()
            };
            assert_eq!(limit(&facts, &path), None);
            facts.routes.push((query, answer));
            assert_eq!(limit(&facts, &path), Some(expected));
        }
    }
}
