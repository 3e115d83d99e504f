//! Which sizes pass the tunnel, and when the death of a size is no accident.
//!
//! Small packets are the control: if they arrive and those of a size never do, loss is no explanation.

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Quoting;

/// How many must die where a tap at the real server sees arrivals: one way, at most.
const ONE_WAY: usize = 6;
/// How many where only answers show them, which are lost as well.
const BOTH_WAYS: usize = 8;
/// How likely it may be that mere loss explains it.
const CHANCE: f64 = 1e-5;

/// What became of the `mtu` probes of one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Those that reached the real server, in the order of sending.
    pub arrived: Vec<SizedProbe>,
    /// Those that left the director and of which nothing was seen or heard again.
    pub died: Vec<SizedProbe>,
    /// Those to which a router answered that they are too long.
    pub too_long: Vec<SizedProbe>,
    /// Whether a tap at the real server sees arrivals.
    pub is_seen: bool,
}

/// One `mtu` probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizedProbe {
    /// Octets in all.
    pub size: u16,
    /// Which.
    pub probe: ProbeId,
    /// Its arrival or answer, the router's error, or that it left.
    pub evidence: EvidenceId,
}

impl Evidence {
    /// What became of the `mtu` probes of `path`.
    pub fn sizes(&self, path: usize) -> Sizes {
        let is_open = |host| {
            self.host(host)
                .is_some_and(|record| record.lost.is_none() && record.tap_open)
        };
        let mut sizes = Sizes {
            is_seen: is_open(Host::Realserver(path)),
            ..Sizes::default()
        };
        let passages = self.passages(path);
        for passage in passages.filter(|passage| passage.probe.id.kind == ProbeKind::Mtu) {
            let probe = passage.probe.id;
            let Some(size) = passage.probe.size else {
                continue;
            };
            let one = |evidence| SizedProbe {
                size,
                probe,
                evidence,
            };
            let too_long = self
                .sightings(probe)
                .find(|(_, sighting)| sighting.form == TOO_LONG);
            let arrival = passage.seen[1..].iter().copied().flatten().next();
            match (arrival, too_long, passage.seen[0]) {
                (Some(arrival), ..) => sizes.arrived.push(one(arrival)),
                (None, Some((error, _)), _) => sizes.too_long.push(one(error.id)),
                (None, None, Some(left)) if !self.is_excused(probe) => {
                    sizes.died.push(one(left));
                }
                _ => {}
            }
        }
        sizes
    }
}

/// "Fragmentation needed", quoting the tunnel.
const TOO_LONG: Form = Form::IcmpError {
    icmp_type: 3,
    code: 4,
    of: Quoting::Tunnelled,
};

impl Sizes {
    /// The largest that arrived; 0 if none did.
    pub fn passing(&self) -> u16 {
        self.arrived.iter().map(|one| one.size).max().unwrap_or(0)
    }

    /// Those that died although packets up to `size` octets should pass, if those that are known to pass are
    /// no shorter.
    pub fn dead_up_to(&self, size: u16) -> impl Iterator<Item = &SizedProbe> {
        let passing = self.passing();
        self.died
            .iter()
            .filter(move |one| one.size > passing && one.size <= size)
    }

    /// How many must die before that can be more than an accident.
    pub fn least(&self) -> usize {
        match self.is_seen {
            true => ONE_WAY,
            false => BOTH_WAYS,
        }
    }

    /// Whether packets of `size` octets die, and mere loss is no explanation: that of the sizes that pass,
    /// raised to the number of the dead, is no more than one in 100,000.
    pub fn are_dead(&self, size: u16) -> bool {
        let dead = self.dead_up_to(size).count();
        let passing = self.passing();
        let lost = self.died.iter().filter(|one| one.size <= passing).count();
        let arrived = self.arrived.len();
        // Laplace's rule of succession: no loss seen is not no loss.
        let loss = (lost + 1) as f64 / (lost + arrived + 2) as f64;
        arrived > 0 && dead >= self.least() && loss.powi(dead as i32) <= CHANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(arrived: &[u16], died: &[u16]) -> Sizes {
        let list = |sizes: &[u16]| {
            let one = |(n, size): (usize, &u16)| SizedProbe {
                size: *size,
                probe: ProbeId {
                    kind: ProbeKind::Mtu,
                    index: n as u16,
                },
                evidence: EvidenceId(n as u32 + 1),
            };
            sizes.iter().enumerate().map(one).collect()
        };
        Sizes {
            arrived: list(arrived),
            died: list(died),
            too_long: Vec::new(),
            is_seen: true,
        }
    }

    #[test]
    fn six_that_die_beside_six_that_arrive_are_no_accident() {
        assert!(sizes(&[64; 6], &[1500; 6]).are_dead(1500));
        assert!(!sizes(&[64; 6], &[1500; 5]).are_dead(1500));
        assert!(!sizes(&[], &[1500; 20]).are_dead(1500));
        // Of answers only, more is asked.
        let mut heard = sizes(&[64; 8], &[1500; 7]);
        heard.is_seen = false;
        assert!(!heard.are_dead(1500));
    }

    #[test]
    fn where_small_ones_are_lost_too_more_is_asked() {
        let half = |pairs: usize| {
            let mut died = vec![64; pairs / 2];
            died.extend(vec![1500; pairs]);
            sizes(&vec![64; pairs / 2], &died)
        };
        assert!(!half(8).are_dead(1500));
        assert!(half(20).are_dead(1500));
    }

    #[test]
    fn what_is_no_longer_than_what_passes_died_by_loss() {
        let mixed = sizes(&[64, 64, 64, 64, 1400], &[1300, 1400, 1500, 1500]);
        assert_eq!(mixed.passing(), 1400);
        assert_eq!(mixed.dead_up_to(1500).count(), 2);
        assert_eq!(mixed.dead_up_to(1450).count(), 0);
        // One that arrived settles it, however many died.
        let healthy = sizes(&[64, 1500], &[1500; 30]);
        assert!(!healthy.are_dead(1500));
    }
}
