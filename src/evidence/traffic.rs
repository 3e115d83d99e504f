//! How packets fared on each hop: how many set out on it and were seen beyond it, and how long answers took.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::evidence::Count;
use crate::evidence::Evidence;
use crate::evidence::Passage;
use crate::exchange::Wall;
use crate::matching::Arp;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Station;

/// Where a packet was seen, and in which form.
type Place = (Station, Form);

/// A packet that left a host, by its station and form, and what came back to the same host: the hop at whose end
/// the answer shows how long it took.
const ROUND_TRIPS: [(Hop, Place, Place); 4] = [
    // From the real server, which answers the director directly.
    (
        Hop::DirectorToRealserver,
        (Station::DirectorOut, Form::Tunnelled),
        (Station::DirectorIn, Form::PORT_UNREACHABLE),
    ),
    // Within the real server: out of the tunnel, and answered.
    (
        Hop::Service,
        (Station::RealserverTunnel, Form::Plain),
        (Station::RealserverOut, Form::SynAck),
    ),
    // As the client feels it.
    (
        Hop::ClientArrival,
        (Station::ClientOut, Form::Plain),
        (Station::ClientIn, Form::SynAck),
    ),
    // The closed loop: director, real server, client, director.
    (
        Hop::ReturnToDirector,
        (Station::DirectorOut, Form::Tunnelled),
        (Station::DirectorIn, Form::Rst),
    ),
];

/// A probe on one hop.
struct Crossing {
    hop: Hop,
    /// The first waypoint that tells, and the one at which the hop begins.
    told: (usize, usize),
    /// Whether it was seen beyond the hop.
    crossed: bool,
}

impl Evidence {
    /// Of the probes that set out on each hop of `path`, how many were seen beyond it; `broken` are its hops that were
    /// judged to be.
    ///
    /// Only what lies between taps that lost nothing is counted; a hop without a tap beyond it is left out. Where several
    /// hops lie between two taps, what is lost there is counted for the first of them that is broken, else for the
    /// first. Not counted are ICMP errors, of which hosts send as many as they like, and what was on its way when
    /// probing ended.
    pub fn traffic(&self, path: usize, broken: &[Hop]) -> BTreeMap<Hop, Count> {
        let mut traffic = BTreeMap::<Hop, Count>::new();
        for passage in self.passages(path) {
            let id = passage.probe.id;
            if id.kind.is_aside() || passage.sent.is_none() {
                continue;
            }
            let hops = Hop::ALL.into_iter();
            let crossings = hops.filter_map(|hop| self.crossing(&passage, hop));
            let mut crossings: Vec<_> = crossings.collect();
            crossings.sort_by_key(|crossing| crossing.told);
            for leg in crossings.chunk_by(|one, next| one.told.0 == next.told.0) {
                if leg[0].crossed {
                    for Crossing { hop, .. } in leg {
                        traffic.entry(*hop).or_default().add(true);
                    }
                } else if !self.is_expected(id) && !self.is_excused(id) {
                    let blamed = leg.iter().find(|crossing| broken.contains(&crossing.hop));
                    let Crossing { hop, .. } = blamed.unwrap_or(&leg[0]);
                    traffic.entry(*hop).or_default().add(false);
                }
            }
        }
        traffic
    }

    /// How a probe that set out on `hop` fared; `None` if it did not, or nobody could tell.
    fn crossing(&self, passage: &Passage<'_>, hop: Hop) -> Option<Crossing> {
        let points = passage.waypoints;
        let first = points.iter().position(|point| point.hops.contains(&hop))?;
        let last = points.iter().rposition(|point| point.hops.contains(&hop))?;
        // Nobody answers the RST/ACK of a closed port.
        if passage.refused && points[last].form == Form::Rst {
            return None;
        }
        let tells = |number: &usize| {
            let point = &points[*number];
            let is_limited = matches!(point.form, Form::IcmpError { .. });
            !is_limited && self.hears(Host::of(point.station, passage.path)).is_ok()
        };
        let seen_from = |number: usize| passage.seen[number..].iter().any(Option::is_some);
        let before = (0..first).rev().find(tells);
        let beyond = (last..points.len()).find(tells)?;
        before.is_none_or(seen_from).then(|| Crossing {
            hop,
            told: (beyond, first),
            crossed: seen_from(last),
        })
    }

    /// How long answers took on `path`, each by the clock of one host, which saw both packets pass.
    pub fn round_trips(&self, path: usize) -> Vec<(Hop, Duration)> {
        let mut trips = Vec::new();
        for passage in self.passages(path) {
            for (hop, left, came_back) in ROUND_TRIPS {
                let time = |place| self.passed_at(&passage, place);
                if let (Some(left), Some(back)) = (time(left), time(came_back))
                    && left < back
                {
                    trips.push((hop, back.distance(left)));
                }
            }
        }
        trips.extend(
            self.gateway_answered(path)
                .map(|took| (Hop::GatewayArp, took)),
        );
        trips
    }

    fn passed_at(&self, passage: &Passage<'_>, place: Place) -> Option<Wall> {
        let mut points = passage.waypoints.iter().zip(passage.seen);
        let seen = points.find(|(point, _)| (point.station, point.form) == place)?;
        Some(self.item((*seen.1)?)?.time)
    }

    /// How long the gateway took to answer the real server's kernel.
    fn gateway_answered(&self, path: usize) -> Option<Duration> {
        let gateway = self.asked_gateway(path)?;
        let mut asked: Option<(&Arp, Wall)> = None;
        for (item, arp) in self.arps(Host::Realserver(path)) {
            match asked {
                None => {
                    let is_it = arp.operation == Arp::REQUEST && arp.target == gateway;
                    asked = (is_it && !arp.is_ours()).then_some((arp, item.time));
                }
                Some((question, at)) => {
                    let answers = arp.operation == Arp::REPLY && arp.sender == gateway;
                    if answers && arp.target == question.sender {
                        return (at < item.time).then(|| item.time.distance(at));
                    }
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::What;
    use crate::exchange::Capture;
    use crate::exchange::Direction;
    use crate::exchange::SendOutcome;
    use crate::exchange::TapStatistics;
    use crate::exchange::Transmit;
    use crate::exchange::Way;
    use crate::matching::Certainty;
    use crate::matching::Outer;
    use crate::matching::Sighting;
    use crate::plan::Path;
    use crate::plan::Plan;
    use crate::plan::Probe;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;
    use crate::plan::Protocol;
    use crate::plan::SessionKey;
    use crate::plan::itinerary;

    /// Closed loops, of which each was seen at so many points of its itinerary, a millisecond apart; tunproof runs on
    /// the director and on the real server.
    fn evidence(seen: &[usize]) -> Evidence {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: [192, 0, 2, 10].into(),
            port: 80,
            protocol: Protocol::Tcp,
            rip: [203, 0, 113, 5].into(),
            dip: Some([192, 0, 2, 2].into()),
            cip: [198, 51, 100, 7].into(),
            gateway: None,
            tunnel: None,
        };
        let session = SessionKey::new([1; 16]);
        let mut evidence = Evidence::new(Plan {
            session,
            paths: vec![path.clone()],
            vantages: vec![Host::Director, Host::Realserver(0)],
            ingress: None,
            egress: None,
            suites: Vec::new(),
        });
        for host in [Host::Director, Host::Realserver(0)] {
            let record = evidence.host_mut(host);
            record.tap_open = true;
            record.statistics = Some(TapStatistics::default());
        }
        for (number, points) in seen.iter().enumerate() {
            let id = ProbeId {
                kind: ProbeKind::TunnelSyn,
                index: number as u16,
            };
            let probe = Probe::new(id, 0, &path, &session).unwrap();
            evidence.add_probe(probe.clone());
            let subject = (Some(id), Some(0));
            let at = |ms: usize| Wall::from_nanos(1_000_000 * ms as u64);
            let sent = What::Sent {
                transmit: Transmit {
                    way: Way::Stack,
                    bytes: Vec::new(),
                },
                outcome: SendOutcome::Sent { time: at(0) },
            };
            evidence.append(Host::Director, None, at(0), subject, sent);
            for (point, waypoint) in itinerary(id.kind, Protocol::Tcp).iter().enumerate() {
                let host = Host::of(waypoint.station, 0);
                if point < *points && evidence.hears(host).is_ok() {
                    let seen = sighting(&probe, waypoint.form, at(point));
                    evidence.append(host, Some(waypoint.station), at(point), subject, seen);
                }
            }
        }
        evidence
    }

    fn sighting(probe: &Probe, form: Form, time: Wall) -> What {
        let tunnel = probe.tunnel.unwrap();
        let flow = match form {
            Form::SynAck => probe.flow.reversed(),
            _ => probe.flow,
        };
        let is_tunnelled = form == Form::Tunnelled;
        What::Seen {
            sighting: Sighting {
                probe: probe.id,
                form,
                certainty: Certainty::Fields,
                source: if is_tunnelled {
                    tunnel.source
                } else {
                    flow.source
                },
                destination: match is_tunnelled {
                    true => tunnel.destination,
                    false => flow.destination,
                },
                ttl: 64,
                outer: is_tunnelled.then_some(Outer {
                    source: tunnel.source,
                    destination: tunnel.destination,
                    ttl: 64,
                    identification: 1,
                }),
                flow: Some(flow),
                inner_ttl: Some(64),
                sent_ttl: None,
                quoted: None,
                next_hop_mtu: None,
                maximum_segment_size: None,
            },
            altered: Vec::new(),
            capture: Capture {
                time,
                device: "eth0".to_owned(),
                hardware: 1,
                direction: Direction::In,
                protocol: Capture::IPV4,
                link_source: None,
                bytes: Vec::new(),
                original_length: 0,
            },
        }
    }

    fn counts(evidence: &Evidence, broken: &[Hop]) -> Vec<(Hop, usize, usize)> {
        let traffic = evidence.traffic(0, broken);
        let count = |(hop, count): (Hop, Count)| (hop, count.arrived, count.sent);
        traffic.into_iter().map(count).collect()
    }

    #[test]
    fn what_is_lost_is_counted_where_it_set_out_and_was_not_seen() {
        // One got back, one died within the real server, one on its way there.
        let known = evidence(&[7, 3, 1]);
        let whole = [
            (Hop::ClientToDirector, 1, 1),
            (Hop::DirectorToRealserver, 2, 3),
            (Hop::Decapsulation, 2, 2),
            (Hop::RealserverAccept, 1, 2),
            (Hop::Service, 1, 1),
            (Hop::RealserverEgress, 1, 1),
            (Hop::GatewayArp, 1, 1),
            (Hop::SpoofedSourceTransit, 1, 1),
            (Hop::ClientArrival, 1, 1),
            (Hop::ReturnToDirector, 1, 1),
        ];
        assert_eq!(counts(&known, &[]), whole);
        let blamed = counts(&known, &[Hop::Service]);
        assert_eq!(
            blamed[3..5],
            [(Hop::RealserverAccept, 1, 1), (Hop::Service, 1, 2)]
        );
    }

    #[test]
    fn what_was_on_its_way_at_the_end_is_not_lost() {
        let mut known = evidence(&[7, 4]);
        let last = known.probes()[1].id;
        known.expect(last);
        assert!(
            counts(&known, &[])
                .iter()
                .all(|(_, seen, sent)| seen == sent)
        );
    }

    #[test]
    fn a_tap_that_lost_packets_counts_nothing() {
        let mut known = evidence(&[7, 1]);
        known.host_mut(Host::Realserver(0)).statistics = Some(TapStatistics {
            received: 9,
            dropped: 1,
        });
        // Between the director and itself it is lost somewhere, which counts once.
        let counts = counts(&known, &[]);
        let (lost, whole): (Vec<_>, Vec<_>) =
            counts.into_iter().partition(|(_, seen, sent)| seen < sent);
        assert_eq!(lost, [(Hop::DirectorToRealserver, 1, 2)]);
        assert_eq!(whole.len(), 9);
    }

    #[test]
    fn a_round_trip_is_told_by_one_hosts_clock() {
        let trips = evidence(&[7, 3]).round_trips(0);
        let ms = Duration::from_millis;
        assert_eq!(
            trips,
            [(Hop::Service, ms(1)), (Hop::ReturnToDirector, ms(6))]
        );
    }
}
