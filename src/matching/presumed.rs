//! What a packet must have been when it was sent, by the key alone.

use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Path;
use crate::plan::Probe;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::SessionKey;

impl Sighting {
    /// The probe as it must have been sent, as far as the session's key and the sighting tell.
    ///
    /// Compared with it, [`Matcher::alterations`] shows changes of every keyed field (identification, UDP
    /// checksum, TCP numbers, the client's port and closed ports); addresses and the service's port are
    /// taken from the sighting and never differ. [`Sighting::sent_for`] knows them.
    ///
    /// [`Matcher::alterations`]: crate::matching::Matcher::alterations
    pub fn presumed(&self, key: &SessionKey) -> Option<Probe> {
        let quotes_an_answer = matches!(
            self.form,
            Form::IcmpError {
                of: Quoting::Answer,
                ..
            }
        );
        // Which way that went, nobody knows.
        let seen = self.flow.filter(|_| !quotes_an_answer)?;
        // Only the shape counts: every address is replaced below.
        let shape = Path {
            realserver: String::new(),
            vip: seen.destination,
            port: 0,
            protocol: seen.protocol,
            rip: seen.destination,
            dip: Some(seen.source),
            cip: seen.source,
            gateway: None,
            tunnel: None,
        };
        let mut probe = Probe::new(self.probe, 0, &shape, key)?;
        let sent = &mut probe.flow;
        let is_turned = self.is_turned();
        (sent.source, sent.destination) = match is_turned {
            true => (seen.destination, seen.source),
            false => (seen.source, seen.destination),
        };
        let (source_port, destination_port) = match is_turned {
            true => (seen.destination_port, seen.source_port),
            false => (seen.source_port, seen.destination_port),
        };
        if sent.source_port == 0 {
            sent.source_port = source_port;
        }
        if sent.destination_port == 0 {
            sent.destination_port = destination_port;
        }
        if let (Some(tunnel), Some(outer)) = (&mut probe.tunnel, self.outer) {
            tunnel.source = outer.source;
            tunnel.destination = outer.destination;
        }
        Some(probe)
    }

    /// The probe as it was sent for one of `paths`: the one from which the sighting differs least.
    pub fn sent_for(&self, paths: &[Path], key: &SessionKey) -> Option<Probe> {
        let probes = paths
            .iter()
            .enumerate()
            .filter_map(|(number, path)| Probe::new(self.probe, number, path, key));
        probes.min_by_key(|probe| {
            let tunnel = match (probe.tunnel, self.outer) {
                (Some(sent), Some(seen)) => sent.destination != seen.destination,
                _ => false,
            };
            let ends = self.flow.is_some_and(|seen| {
                let ends = [probe.flow.source, probe.flow.destination];
                !ends.contains(&seen.source) || !ends.contains(&seen.destination)
            });
            usize::from(tunnel) + usize::from(ends)
        })
    }

    /// Whether its flow is an answer's, with the ends exchanged.
    fn is_turned(&self) -> bool {
        let answers_a_syn = self.probe.kind.opens(Protocol::Tcp);
        match self.form {
            Form::SynAck | Form::Refused | Form::Reply => true,
            // A SYN's RST comes from the client's end, as the SYN did; a SYN-ACK's from where it went.
            Form::Rst => !answers_a_syn,
            Form::IcmpError { .. }
            | Form::Plain
            | Form::Decapsulated
            | Form::Tunnelled
            | Form::Cleanup => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::craft;
    use crate::matching::Alteration;
    use crate::matching::Matcher;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;

    fn path(rip: u8) -> Path {
        Path {
            realserver: format!("rs{rip}"),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 80,
            protocol: Protocol::Tcp,
            rip: Ipv4Addr::new(203, 0, 113, rip),
            dip: Some(Ipv4Addr::new(192, 0, 2, 2)),
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        }
    }

    fn key() -> SessionKey {
        SessionKey::new([9; 16])
    }

    fn alterations(presumed: Option<Probe>, packet: &[u8]) -> Vec<Alteration> {
        Matcher::new(key()).alterations(&presumed.expect("a probe"), packet)
    }

    #[test]
    fn what_arrives_as_sent_is_presumed_so() {
        let paths = [path(5), path(6)];
        for kind in ProbeKind::ALL {
            for (number, path) in paths.iter().enumerate() {
                let id = ProbeId { kind, index: 7 };
                let Some(probe) = Probe::new(id, number, path, &key()) else {
                    assert_eq!(kind, ProbeKind::Script);
                    continue;
                };
                let packet = craft::probe(&probe, &key());
                let seen = Matcher::new(key()).recognise(&packet).unwrap();
                let presumed = seen.presumed(&key()).unwrap();
                assert_eq!((presumed.flow, presumed.tunnel), (probe.flow, probe.tunnel));
                assert_eq!(alterations(Some(presumed), &packet), [], "{kind}");
                let sent_for = seen.sent_for(&paths, &key());
                if probe.tunnel.is_some() || probe.flow.source == path.rip {
                    assert_eq!(sent_for.as_ref().map(|probe| probe.path), Some(number));
                }
                assert_eq!(alterations(sent_for, &packet), [], "{kind}");
            }
        }
    }

    #[test]
    fn a_translated_port_shows_without_and_an_address_with_the_path() {
        let id = ProbeId {
            kind: ProbeKind::SpoofTrace,
            index: 3,
        };
        let mut sent = Probe::new(id, 0, &path(5), &key()).unwrap();
        let port = sent.flow.source_port;
        sent.flow.source = Ipv4Addr::new(100, 64, 0, 9);
        sent.flow.source_port = 4711;
        let packet = craft::probe(&sent, &key());
        let seen = Matcher::new(key()).recognise(&packet).unwrap();
        let fields = |found: Vec<Alteration>| -> Vec<_> {
            let shown = found.into_iter();
            shown.map(|a| (a.field, a.sent, a.seen)).collect()
        };
        let owned = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        let changed = owned("source port", &port.to_string(), "4711");
        let by_key = fields(alterations(seen.presumed(&key()), &packet));
        assert_eq!(by_key, std::slice::from_ref(&changed));
        let by_path = fields(alterations(seen.sent_for(&[path(5)], &key()), &packet));
        let address = owned("source address", "192.0.2.10", "100.64.0.9");
        assert_eq!(by_path, [address, changed]);
    }
}
