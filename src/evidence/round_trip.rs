//! How long answers take, by one host's clock.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::SendOutcome;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Probe;
use crate::plan::Station;

impl Evidence {
    /// From a probe's leaving to the first answer that came back to the host that sent it; `None` where none did: two
    /// hosts' clocks tell no duration.
    pub fn round_trip(&self, probe: &Probe) -> Option<Duration> {
        let here = |item: &Item| item.host == probe.from;
        // Where both are to be had, a tap's time is the better: an answer can be there before the call that sends returns.
        let left = |(item, seen): (&Item, &Sighting)| {
            let own = matches!(seen.form, Form::Plain | Form::Tunnelled);
            let leaving = item.station.is_some_and(|at| LEAVING.contains(&at));
            (here(item) && own && leaving).then_some(item.time)
        };
        let sent = |item: &Item| match &item.what {
            What::Sent {
                outcome: SendOutcome::Sent { time },
                ..
            } => Some(*time),
            _ => None,
        };
        let left = self.sightings(probe.id).find_map(left);
        let left = left.or_else(|| self.about(probe.id).find_map(sent))?;
        let mut seen = self.sightings(probe.id);
        let (answer, _) = seen.find(|(item, seen)| here(item) && is_answer(item, seen))?;
        (answer.time >= left).then(|| answer.time.distance(left))
    }
}

const LEAVING: [Station; 3] = [
    Station::ClientOut,
    Station::DirectorOut,
    Station::RealserverOut,
];
const ARRIVING: [Station; 3] = [
    Station::ClientIn,
    Station::DirectorIn,
    Station::RealserverIn,
];

/// Whether it is something that the probe caused and that came back.
fn is_answer(item: &Item, seen: &Sighting) -> bool {
    let caused = match seen.form {
        Form::SynAck | Form::Rst | Form::Refused | Form::Reply | Form::IcmpError { .. } => true,
        Form::Plain | Form::Tunnelled | Form::Decapsulated | Form::Cleanup => false,
    };
    caused && item.station.is_some_and(|at| ARRIVING.contains(&at))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::exchange::Capture;
    use crate::exchange::Direction;
    use crate::exchange::Transmit;
    use crate::exchange::Wall;
    use crate::exchange::Way;
    use crate::matching::Certainty;
    use crate::plan::Host;
    use crate::plan::Path;
    use crate::plan::Plan;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;
    use crate::plan::Protocol;
    use crate::plan::SessionKey;

    fn at(micros: u64) -> Wall {
        Wall::from_nanos(1_000_000_000 + micros * 1000)
    }

    /// What `answers`, by host, station, form and microseconds, make of a control's probe that left at 10 µs.
    fn round_trip(answers: &[(Host, Station, Form, u64)]) -> Option<Duration> {
        let ip = Ipv4Addr::new;
        let path = Path {
            realserver: "s".to_owned(),
            vip: ip(192, 0, 2, 10),
            port: 80,
            protocol: Protocol::Tcp,
            rip: ip(203, 0, 113, 5),
            dip: Some(ip(192, 0, 2, 2)),
            cip: ip(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        };
        let key = SessionKey::new([7; 16]);
        let id = ProbeId {
            kind: ProbeKind::ControlTrace,
            index: 0,
        };
        let probe = Probe::new(id, 0, &path, &key).unwrap();
        let mut evidence = Evidence::new(Plan {
            session: key,
            paths: vec![path],
            vantages: vec![Host::Director, Host::Realserver(0)],
            ingress: None,
            egress: None,
            suites: Vec::new(),
        });
        evidence.add_probe(probe.clone());
        let sent = What::Sent {
            transmit: Transmit {
                way: Way::Stack,
                bytes: Vec::new(),
            },
            outcome: SendOutcome::Sent { time: at(10) },
        };
        evidence.append(probe.from, None, at(10), (Some(id), Some(0)), sent);
        for (host, station, form, micros) in answers {
            let seen = What::Seen {
                sighting: Sighting {
                    probe: id,
                    form: *form,
                    certainty: Certainty::Fields,
                    source: ip(203, 0, 113, 1),
                    destination: ip(203, 0, 113, 5),
                    ttl: 64,
                    outer: None,
                    flow: None,
                    inner_ttl: None,
                    sent_ttl: None,
                    quoted: None,
                    next_hop_mtu: None,
                    maximum_segment_size: None,
                },
                altered: Vec::new(),
                capture: Capture {
                    time: at(*micros),
                    device: "eth0".to_owned(),
                    hardware: 1,
                    direction: Direction::In,
                    protocol: Capture::IPV4,
                    link_source: None,
                    original_length: 0,
                    bytes: Vec::new(),
                },
            };
            evidence.append(
                *host,
                Some(*station),
                at(*micros),
                (Some(id), Some(0)),
                seen,
            );
        }
        evidence.round_trip(&probe)
    }

    #[test]
    fn only_what_comes_back_to_the_sender_is_timed() {
        let server = Host::Realserver(0);
        let expired = Form::IcmpError {
            icmp_type: 11,
            code: 0,
            of: crate::plan::Quoting::Plain,
        };
        let left = (server, Station::RealserverOut, Form::Plain, 12);
        let elsewhere = (Host::Director, Station::DirectorIn, expired, 20);
        let back = (server, Station::RealserverIn, expired, 310);
        let again = (server, Station::RealserverIn, expired, 900);
        assert_eq!(round_trip(&[left]), None);
        assert_eq!(round_trip(&[left, elsewhere]), None);
        let micros = |micros| Some(Duration::from_micros(micros));
        assert_eq!(
            round_trip(&[left, elsewhere, back, again]),
            micros(310 - 12)
        );
        assert_eq!(round_trip(&[elsewhere, back]), micros(310 - 10));
        // A clock that was set in the meantime tells nothing.
        assert_eq!(
            round_trip(&[(server, Station::RealserverIn, expired, 3)]),
            None
        );
    }
}
