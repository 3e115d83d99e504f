//! In which order pairs are asked: group by group, service by service, and in each the real servers in an order that
//! puts neighbours far apart, the same for every service of a group.

use crate::plan::Fleet;
use crate::plan::Group;

/// The order of a fleet's pairs. A *slot* is a place in it; group by group and service by service, slots have the same
/// numbers as pairs.
pub(super) struct Order {
    strides: Vec<Stride>,
}

/// A place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) group: usize,
    /// Of the real servers in the group's order.
    pub(super) position: u32,
    /// The pair that stands there.
    pub(super) pair: u32,
}

/// A walk around the real servers with steps of about 0.618 of the way.
struct Stride {
    count: u64,
    step: u64,
    back: u64,
}

impl Order {
    pub(super) fn new(fleet: &Fleet) -> Order {
        let strides = fleet
            .groups()
            .iter()
            .map(|group| Stride::new(group.realservers()));
        Order {
            strides: strides.collect(),
        }
    }

    /// What stands at a slot.
    pub(super) fn place(&self, fleet: &Fleet, slot: u32) -> Place {
        let group = fleet
            .groups()
            .partition_point(|group| group.first_pair() <= slot)
            - 1;
        let (service, position) = split(&fleet.groups()[group], slot);
        let realserver = self.strides[group].realserver(position);
        Place {
            group,
            position,
            pair: fleet.groups()[group].number(service, realserver),
        }
    }

    /// The slot at which a pair stands.
    pub(super) fn slot(&self, fleet: &Fleet, pair: u32) -> u32 {
        let group = fleet
            .groups()
            .partition_point(|group| group.first_pair() <= pair)
            - 1;
        let (service, realserver) = split(&fleet.groups()[group], pair);
        fleet.groups()[group].number(service, self.strides[group].position(realserver))
    }
}

fn split(group: &Group, number: u32) -> (u32, u32) {
    let within = number - group.first_pair();
    (within / group.realservers(), within % group.realservers())
}

impl Stride {
    fn new(count: u32) -> Stride {
        let count = u64::from(count);
        let golden = (count as f64 * 0.618_034) as u64;
        let step = (golden.max(1)..)
            .find(|step| gcd(*step, count) == 1)
            .unwrap_or(1);
        // count is at most 2^24: what is searched for is below it, and found by Euclid.
        Stride {
            count,
            step: step % count.max(1),
            back: inverse(step % count.max(1), count),
        }
    }

    fn realserver(&self, position: u32) -> u32 {
        (u64::from(position) * self.step % self.count) as u32
    }

    fn position(&self, realserver: u32) -> u32 {
        (u64::from(realserver) * self.back % self.count) as u32
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        b => gcd(b, a % b),
    }
}

/// The number that times `step` is 1 modulo `count`.
fn inverse(step: u64, count: u64) -> u64 {
    let (mut r, mut next_r) = (count as i64, step as i64);
    let (mut t, mut next_t) = (0i64, 1i64);
    while next_r != 0 {
        let quotient = r / next_r;
        (r, next_r) = (next_r, r - quotient * next_r);
        (t, next_t) = (next_t, t - quotient * next_t);
    }
    t.rem_euclid(count.max(1) as i64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Protocol;
    use crate::plan::Range;
    use crate::plan::Service;

    #[test]
    fn every_pair_has_one_slot_and_neighbours_are_apart() {
        for count in [1u32, 2, 3, 4, 5, 8, 13, 100, 256, 65_534] {
            let services = [80, 443].map(|port| Service {
                vip: [192, 0, 2, 10].into(),
                port,
                protocol: Protocol::Tcp,
            });
            let range = |first: u32| Range {
                first: first.into(),
                last: (first + count - 1).into(),
            };
            let one = (services.to_vec(), vec![range(0x0a00_0001)]);
            let two = (services[..1].to_vec(), vec![range(0x0b00_0001)]);
            let fleet = Fleet::new([192, 0, 2, 2].into(), None, vec![one, two]).unwrap();
            let order = Order::new(&fleet);
            let mut seen = vec![false; fleet.pairs() as usize];
            let mut previous = None;
            for slot in 0..fleet.pairs() {
                let place = order.place(&fleet, slot);
                assert!(!std::mem::replace(&mut seen[place.pair as usize], true));
                assert_eq!(order.slot(&fleet, place.pair), slot);
                let rip = fleet.pair(place.pair).unwrap().rip.to_bits();
                if count >= 100 && slot % count != 0 {
                    assert!(
                        previous.unwrap_or(0u32).abs_diff(rip) > count / 3,
                        "{count}"
                    );
                }
                previous = Some(rip);
            }
        }
    }
}
