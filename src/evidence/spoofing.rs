//! Probes of flows that are asked again and again, spoofed and not, by time to live: who answered each, and how
//! likely it is that so many are lost by chance.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::Station;
use crate::plan::Toward;

/// What became of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial<'a> {
    /// The probe.
    pub probe: &'a Probe,
    /// The number of its flow.
    pub flow: u16,
    /// That it left its host, or was handed to the kernel where no tap can tell.
    pub left: EvidenceId,
    /// Who answered, if anybody did.
    pub fate: Option<Fate>,
    /// The source that it was given on the way, and the evidence.
    pub rewritten: Option<(Ipv4Addr, EvidenceId)>,
}

/// Who answered a probe, and where it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A router, at which its time to live ended.
    Expired(Reply),
    /// A router that does not pass it.
    Refused(Reply),
    /// The host that it goes to, or it was seen there.
    Arrived(Reply),
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whose; of an arrival that of the host that it goes to.
    pub from: Ipv4Addr,
    /// The time to live that it came with; `None` of what that host itself saw.
    pub ttl: Option<u8>,
    /// The evidence.
    pub evidence: EvidenceId,
}

impl Trial<'_> {
    /// Whether it came from the VIP.
    pub fn is_spoofed(&self) -> bool {
        self.probe.id.kind.is_spoofed()
    }

    /// Its arrival.
    pub fn arrived(&self) -> Option<Reply> {
        match self.fate {
            Some(Fate::Arrived(reply)) => Some(reply),
            _ => None,
        }
    }

    /// The router at which its time to live ended.
    pub fn expired(&self) -> Option<Reply> {
        match self.fate {
            Some(Fate::Expired(reply)) => Some(reply),
            _ => None,
        }
    }
}

/// The chance that `silent` probes are all lost where of `sent` others `lost` were: the posterior predictive of a
/// loss rate of which nothing was known before, ∏ (lost + 1 + i) / (sent + 2 + i) for i = 0 … silent − 1. Few
/// others make it large: what was measured badly excuses much.
pub fn chance_of_loss(silent: usize, sent: usize, lost: usize) -> f64 {
    (0..silent)
        .map(|i| (lost + 1 + i) as f64 / (sent + 2 + i) as f64)
        .product()
}

impl Evidence {
    /// The trials of `path` that go to a host, spoofed and control, and of those to the client the director's own of the
    /// way back, in the order of sending.
    ///
    /// Left out are those that were not seen to leave, and those whose answer may still be on its way.
    pub fn trials(&self, path: usize, toward: Toward) -> Vec<Trial<'_>> {
        let probes = self
            .probes()
            .iter()
            .filter(|probe| probe.path == path && probe.id.kind.toward() == toward);
        let trials = probes.filter_map(|probe| {
            let flow = probe.id.repeated_flow()?;
            let passage = self.passage(probe);
            let left = match self.hears(probe.from) {
                Ok(()) => passage.seen[0]?,
                Err(_) => passage.sent?,
            };
            let trial = self.trial(probe, flow, left);
            (trial.fate.is_some() || !self.is_excused(probe.id)).then_some(trial)
        });
        trials.collect()
    }

    /// Who answered a probe from the real server toward client or director, spoofed or control, if anybody did.
    pub fn fate(&self, probe: &Probe) -> Option<Fate> {
        self.trial(probe, 0, EvidenceId(0)).fate
    }

    fn trial<'a>(&self, probe: &'a Probe, flow: u16, left: EvidenceId) -> Trial<'a> {
        let mut trial = Trial {
            probe,
            flow,
            left,
            fate: None,
            rewritten: None,
        };
        let there = probe.flow.destination;
        let (arriving, leaving) = probe.id.kind.toward().stations();
        for (item, seen) in self.sightings(probe.id) {
            let reply = |from, ttl| Reply {
                from,
                ttl,
                evidence: item.id,
            };
            let own = seen.flow.filter(|_| shows_probe(seen));
            let is_there = seen.flow.is_none_or(|flow| flow.destination == there);
            let answer = match (item.station, seen.form) {
                (Some(station), Form::Plain) if station == arriving => {
                    Some(Fate::Arrived(reply(there, None)))
                }
                (Some(station), Form::Rst | Form::PORT_UNREACHABLE) if station == leaving => {
                    Some(Fate::Arrived(reply(there, None)))
                }
                (Some(Station::DirectorIn | Station::RealserverIn), Form::Rst)
                    if seen.source == there =>
                {
                    Some(Fate::Arrived(reply(there, Some(seen.ttl))))
                }
                (Some(Station::DirectorIn | Station::RealserverIn), form) => match form {
                    Form::PORT_UNREACHABLE if seen.source == there => {
                        Some(Fate::Arrived(reply(there, Some(seen.ttl))))
                    }
                    Form::IcmpError { icmp_type: 11, .. } => {
                        Some(Fate::Expired(reply(seen.source, Some(seen.ttl))))
                    }
                    Form::IcmpError {
                        icmp_type: 3, code, ..
                    } if code != 4 && is_there => {
                        Some(Fate::Refused(reply(seen.source, Some(seen.ttl))))
                    }
                    _ => None,
                },
                _ => None,
            };
            let given = own.map(|flow| flow.source);
            if let Some(source) = given.filter(|source| *source != probe.flow.source)
                && answer.is_some()
            {
                trial.rewritten.get_or_insert((source, item.id));
            }
            // What the host itself sees says more than what comes back.
            let seen_there = |fate| matches!(fate, Some(Fate::Arrived(Reply { ttl: None, .. })));
            let known = matches!(trial.fate, Some(Fate::Arrived(_))) && !seen_there(answer);
            if answer.is_some() && !known && !seen_there(trial.fate) {
                trial.fate = answer;
            }
        }
        trial
    }

    /// Whether what comes to a host is seen there: by a tap that loses nothing, or in a capture.
    pub fn sees(&self, host: Host) -> bool {
        self.hears(host).is_ok() || self.is_recorded(host)
    }

    /// Whether packets of the session are known of a host by a capture only.
    pub fn is_recorded(&self, host: Host) -> bool {
        self.host(host).is_none()
            && self
                .items()
                .iter()
                .any(|item| item.host == host && matches!(item.what, What::Seen { .. }))
    }

    /// The least time to live with which the control reached the host that it goes to.
    pub fn control_distance(&self, path: usize, toward: Toward) -> Option<u8> {
        least_distance(&self.trials(path, toward))
    }

    /// The flows whose spoofed probes never arrived although the control's do, by so few that it may be
    /// chance: more probes would decide.
    pub fn undecided_flows(&self, path: usize, toward: Toward) -> Vec<u16> {
        let arrivals = self.arrivals(path, toward);
        let silent = arrivals.silent_flows();
        let total = arrivals.spoofed_total();
        if arrivals.control_total().arrived == 0 || total.sent == 0 {
            return Vec::new();
        }
        if total.arrived == 0 {
            return match arrivals.chance(total.sent) > SURE {
                true => silent,
                false => Vec::new(),
            };
        }
        let open = |flow: &u16| {
            let sent = arrivals.spoofed[flow].sent;
            arrivals.chance(sent) * f64::from(ProbeId::FLOWS) > SURE
        };
        silent.into_iter().filter(open).collect()
    }

    /// Which flows arrived: SYN-ACKs, unless only datagrams do.
    pub fn arrivals(&self, path: usize, toward: Toward) -> Arrivals {
        let trials = self.trials(path, toward);
        let of = |protocol| Arrivals::of(&trials, (protocol, toward), self);
        let tcp = of(Protocol::Tcp);
        match tcp.control_total().arrived {
            0 => Some(of(Protocol::Udp))
                .filter(|udp| udp.control_total().arrived > 0)
                .unwrap_or(tcp),
            _ => tcp,
        }
    }
}

/// How unlikely chance must be before a silence is called a filter.
pub const SURE: f64 = 1e-5;

/// How many were sent, and how many arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How many were sent.
    pub sent: usize,
    /// How many arrived.
    pub arrived: usize,
}

impl Count {
    pub(super) fn add(&mut self, arrived: bool) {
        self.sent += 1;
        self.arrived += usize::from(arrived);
    }

    /// How many did not arrive.
    pub fn lost(self) -> usize {
        self.sent - self.arrived
    }
}

/// What of one protocol arrived with a time to live that suffices, by the number of its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// Of which protocol.
    pub protocol: Protocol,
    /// From the VIP.
    pub spoofed: BTreeMap<u16, Count>,
    /// From the real server's own address.
    pub control: BTreeMap<u16, Count>,
    /// From the VIP by the director, and back to it.
    pub back: BTreeMap<u16, Count>,
    /// Whether arrivals are seen where they go; else answers must do, which may be lost as well.
    pub seen_there: bool,
}

impl Arrivals {
    fn of(
        trials: &[Trial<'_>],
        (protocol, toward): (Protocol, Toward),
        evidence: &Evidence,
    ) -> Arrivals {
        let host = toward.host();
        let recorded = evidence.is_recorded(host)
            && trials.iter().any(|trial| {
                let seen = trial.arrived().is_some_and(|reply| reply.ttl.is_none());
                seen && !trial.is_spoofed()
            });
        let mut arrivals = Arrivals {
            protocol,
            spoofed: BTreeMap::new(),
            control: BTreeMap::new(),
            back: BTreeMap::new(),
            seen_there: recorded || evidence.hears(host).is_ok(),
        };
        let distance = least_distance(trials);
        for trial in trials {
            let kind = trial.probe.id.kind;
            let enough = distance.map_or(!trial.probe.is_limited(), |d| trial.probe.ttl >= d);
            if !enough || trial.probe.flow.protocol != protocol && kind != ProbeKind::ReturnControl
            {
                continue;
            }
            let tally = match kind {
                ProbeKind::ReturnControl => arrivals.back.entry(trial.flow).or_default(),
                kind if kind.is_spoofed() => arrivals.spoofed.entry(trial.flow).or_default(),
                _ => arrivals.control.entry(trial.flow).or_default(),
            };
            let seen = trial
                .arrived()
                .filter(|reply| !recorded || reply.ttl.is_none());
            tally.add(seen.is_some() && trial.rewritten.is_none());
        }
        arrivals
    }

    /// All flows from the VIP.
    pub fn spoofed_total(&self) -> Count {
        total(&self.spoofed)
    }

    /// All flows of the control.
    pub fn control_total(&self) -> Count {
        total(&self.control)
    }

    /// The director's own, over all flows.
    pub fn back_total(&self) -> Count {
        total(&self.back)
    }

    /// The flows from the VIP of which nothing arrived.
    pub fn silent_flows(&self) -> Vec<u16> {
        let silent = |(flow, tally): (&u16, &Count)| (tally.arrived == 0).then_some(*flow);
        self.spoofed.iter().filter_map(silent).collect()
    }

    /// The chance that so many probes from the VIP are lost by accident, as the control is. Where answers must
    /// show the arrival, those to the VIP go another way than those to the control: the loss of the director's
    /// own probes is added to the control's, unless all of those are lost, which is no loss.
    pub fn chance(&self, silent: usize) -> f64 {
        let control = self.control_total();
        let back = total(&self.back);
        let sent = back.sent;
        if self.seen_there || back.arrived == 0 {
            return chance_of_loss(silent, control.sent, control.lost());
        }
        let least = control.sent.min(sent);
        let share = |tally: Count| tally.arrived as f64 / tally.sent.max(1) as f64;
        let arrive = (least as f64 * share(control) * share(back)).floor() as usize;
        chance_of_loss(silent, least, least - arrive)
    }
}

fn total(flows: &BTreeMap<u16, Count>) -> Count {
    let add = |a: Count, b: &Count| Count {
        sent: a.sent + b.sent,
        arrived: a.arrived + b.arrived,
    };
    flows.values().fold(Count::default(), add)
}

fn least_distance(trials: &[Trial<'_>]) -> Option<u8> {
    let control = trials.iter().filter(|trial| {
        let kind = trial.probe.id.kind;
        !kind.is_spoofed() && kind != ProbeKind::ReturnControl
    });
    let arrived = control.filter(|trial| trial.probe.is_limited() && trial.arrived().is_some());
    arrived.map(|trial| trial.probe.ttl).min()
}

/// Whether the flow of a sighting is the probe's own header, in whole or quoted, and not that of an answer.
fn shows_probe(seen: &Sighting) -> bool {
    match seen.form {
        Form::Plain => true,
        Form::IcmpError { of, .. } => of == Quoting::Plain,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_of_loss_counts_what_is_not_known_of_it() {
        // Nothing known: each further loss makes the next more likely; n + 1 cases are equally likely.
        assert!((chance_of_loss(1, 0, 0) - 0.5).abs() < 1e-12);
        assert!((chance_of_loss(5, 0, 0) - 1.0 / 6.0).abs() < 1e-12);
        // Well measured, it is the rate's power.
        let measured = chance_of_loss(6, 10_000, 3_000);
        assert!((measured / 0.3f64.powi(6) - 1.0).abs() < 0.01, "{measured}");
        // Six silent tries against 48 controls that all arrived: one in 30 million.
        assert!(chance_of_loss(6, 48, 0) < 4e-8);
        assert!((chance_of_loss(0, 3, 1) - 1.0).abs() < 1e-12);
    }
}
