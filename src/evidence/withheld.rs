//! Whether a limit of ICMP errors may be why packets were not answered.
//!
//! Linux sends six to one address at once, and then one a second (`icmp_ratelimit`); others send one a second, or
//! two, and none at once. What was withheld was so because another had been answered within the second before.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::matching::Sighting;
use crate::plan::Expectation;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::Quoting;
use crate::plan::See;
use crate::plan::Station;
use crate::wire::Fields;

/// ICMP errors that a host may have withheld.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// How many packets they would have answered.
    pub packets: usize,
    /// Who.
    pub by: Ipv4Addr,
    /// How many it withheld in all, where it counts them.
    pub counted: Option<u64>,
}

/// A packet that was sent, and the ICMP error that answered it.
struct Asked<'a> {
    probe: ProbeId,
    item: &'a Item,
    headers: Vec<Header>,
    answer: Option<&'a Sighting>,
}

/// An IPv4 header's ends and its time to live.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
    source: u64,
    destination: u64,
    ttl: u64,
}

/// Between two that no limit could confound: a second, and a tenth for what the network adds.
const PACE: Duration = Duration::from_millis(1100);

/// The types that hosts limit: destination unreachable, source quench, time exceeded, parameter problem
/// (`icmp_ratemask`).
const LIMITED: [u8; 4] = [3, 4, 11, 12];

/// Since Linux 6.3.
const COUNTERS: [&str; 2] = ["IcmpOutRateLimitGlobal", "IcmpOutRateLimitHost"];

impl Evidence {
    /// By how much a counter rose from before the first probe to behind the last; `None` if it was not read.
    pub fn rise(&self, host: Host, counter: &str) -> Option<u64> {
        let record = self.host(host)?;
        let before = record.before.as_ref()?.counter(counter)?;
        let after = record.after.as_ref()?.counter(counter)?;
        Some(after.saturating_sub(before))
    }

    /// How many ICMP errors a host withheld by each of its limits, where it counts them.
    pub fn withheld_by(&self, host: Host) -> [(&'static str, u64); 2] {
        COUNTERS.map(|counter| (counter, self.rise(host, counter).unwrap_or(0)))
    }

    /// Of packets whose ICMP error was not seen, those that may have had none because of a limit: others were
    /// answered shortly before, or the host says so; and no tap shows that they never came there, or that they
    /// were answered.
    pub fn withheld(&self, expected: &Expectation, unseen: &[EvidenceId]) -> Option<Withheld> {
        match expected.see {
            See::IcmpError {
                icmp_type: Some(icmp_type),
                ..
            } if !LIMITED.contains(&icmp_type) => return None,
            See::IcmpError { .. } => {}
            _ => return None,
        }
        let asked: Vec<_> = self
            .probes()
            .iter()
            .filter_map(|p| self.asked(p.id))
            .collect();
        let silent = asked.iter().filter(|asked| unseen.contains(&asked.item.id));
        let mut withheld: Option<Withheld> = None;
        for silent in silent.filter(|silent| !self.is_answered(silent.probe)) {
            let found = self
                .by_pace(silent, &asked)
                .or_else(|| self.by_counter(silent));
            if let Some((by, counted)) = found {
                let first = Withheld {
                    packets: 0,
                    by,
                    counted,
                };
                withheld.get_or_insert(first).packets += 1;
            }
        }
        withheld
    }

    /// Who answered another packet so shortly before that a limit may be why it did not answer this one.
    fn by_pace(&self, silent: &Asked<'_>, asked: &[Asked<'_>]) -> Option<(Ipv4Addr, Option<u64>)> {
        let answered = asked
            .iter()
            .filter_map(|asked| Some((asked, asked.answer?)));
        let mut likely = answered.filter(|(answered, answer)| {
            silent.has_the_answerer_of(answered, answer)
                && (answered.item.host != silent.item.host
                    || is_shortly_before(answered, answer, silent, asked))
        });
        likely.find_map(|(answered, answer)| {
            let counted = match self.answerer(answered.probe, answer) {
                Some(host) => self.admits(host, silent.probe)?,
                None => None,
            };
            Some((answer.source, counted))
        })
    }

    /// The host for which a packet is, if it came there and the host withheld ICMP errors.
    fn by_counter(&self, silent: &Asked<'_>) -> Option<(Ipv4Addr, Option<u64>)> {
        let to = Ipv4Addr::from(silent.headers.last()?.destination as u32);
        self.sightings(silent.probe).find_map(|(item, sighting)| {
            let is_there = is_arrival(item, sighting) && self.facts(item.host)?.is_local(to);
            let counted = self.counted(item.host).filter(|counted| *counted > 0)?;
            is_there.then_some((to, Some(counted)))
        })
    }

    /// How many ICMP errors a host withheld, if it says so and the packet came there; `None` if it withheld none,
    /// or the packet did not come.
    fn admits(&self, host: Host, probe: ProbeId) -> Option<Option<u64>> {
        let mut sightings = self.sightings(probe);
        let came = sightings.any(|(item, seen)| item.host == host && is_arrival(item, seen));
        let counted = self.counted(host);
        match self.hears(host).is_err() || came {
            true => (counted != Some(0)).then_some(counted),
            false => None,
        }
    }

    /// How many ICMP errors a host withheld, if it counts them.
    fn counted(&self, host: Host) -> Option<u64> {
        let rises = COUNTERS.map(|counter| self.rise(host, counter));
        let [Some(all), Some(one)] = rises else {
            return rises.into_iter().flatten().find(|rose| *rose > 0);
        };
        Some(all + one)
    }

    /// The vantage that gave an answer, if a tap saw it leave there.
    fn answerer(&self, probe: ProbeId, answer: &Sighting) -> Option<Host> {
        let mut sightings = self.sightings(probe);
        let left = sightings.find(|(item, seen)| {
            let facts = self.facts(item.host);
            is_error(seen)
                && seen.source == answer.source
                && item.station.is_some_and(leaves)
                && facts.is_none_or(|facts| facts.is_local(answer.source))
        });
        left.map(|(item, _)| item.host)
    }

    fn is_answered(&self, probe: ProbeId) -> bool {
        self.sightings(probe).any(|(_, seen)| is_error(seen))
    }

    fn asked(&self, probe: ProbeId) -> Option<Asked<'_>> {
        let (item, transmit) = self.about(probe).find_map(|item| match &item.what {
            What::Sent {
                transmit,
                outcome: SendOutcome::Sent { .. },
            } => Some((item, transmit)),
            _ => None,
        })?;
        let mut answers = self.sightings(probe).map(|(_, seen)| seen);
        Some(Asked {
            probe,
            item,
            headers: headers(transmit),
            answer: answers.find(|seen| is_error(seen)),
        })
    }
}

impl Asked<'_> {
    /// Whether the one who answered another packet would answer this one, too, and to the same address: it is
    /// for the same end, or goes the same way as far.
    fn has_the_answerer_of(&self, other: &Asked<'_>, answer: &Sighting) -> bool {
        let between = |header: &Header| {
            let ends = (answer.destination.to_bits(), answer.source.to_bits());
            (header.source, header.destination) == (ends.0.into(), ends.1.into())
        };
        let is_end = other.headers.iter().any(between);
        match is_end {
            true => self.headers.iter().any(between),
            false => self.headers == other.headers,
        }
    }
}

/// Whether no more than the pace lies between an answered packet and a later one, or each of those between them
/// that have the same ends.
fn is_shortly_before(
    answered: &Asked<'_>,
    answer: &Sighting,
    silent: &Asked<'_>,
    asked: &[Asked<'_>],
) -> bool {
    let (first, last) = (answered.item.time, silent.item.time);
    let between = asked.iter().filter(|asked| {
        let time = asked.item.time;
        asked.item.host == silent.item.host
            && (first..=last).contains(&time)
            && (asked.headers == silent.headers || asked.has_the_answerer_of(answered, answer))
    });
    let mut times: Vec<_> = between.map(|asked| asked.item.time).collect();
    times.sort();
    first < last
        && times
            .windows(2)
            .all(|pair| pair[1].distance(pair[0]) <= PACE)
}

/// Whether a sighting is an ICMP error of a limited type about the packet itself.
fn is_error(seen: &Sighting) -> bool {
    match seen.form {
        Form::IcmpError { icmp_type, of, .. } => {
            of != Quoting::Answer && LIMITED.contains(&icmp_type)
        }
        _ => false,
    }
}

/// Whether the packet itself came in there.
fn is_arrival(item: &Item, seen: &Sighting) -> bool {
    let itself = matches!(
        seen.form,
        Form::Plain | Form::Tunnelled | Form::Decapsulated
    );
    itself && item.station.is_some_and(|station| !leaves(station))
}

fn leaves(station: Station) -> bool {
    matches!(
        station,
        Station::ClientOut | Station::DirectorOut | Station::RealserverOut
    )
}

/// The IPv4 headers of what was sent, outermost first.
fn headers(transmit: &Transmit) -> Vec<Header> {
    let fields = match transmit.way {
        Way::Stack => Fields::of(&transmit.bytes, Capture::IPV4),
        Way::Frame { .. } => Fields::of_frame(&transmit.bytes),
    };
    let header = |number| {
        let value = |field| fields.value("ipv4", number, field);
        Some(Header {
            source: value("src")?,
            destination: value("dst")?,
            ttl: value("ttl")?,
        })
    };
    (0..fields.count("ipv4")).map_while(header).collect()
}
