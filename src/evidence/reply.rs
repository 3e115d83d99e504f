//! What the answer of a UDP service proves.
//!
//! It stands in no itinerary: a service may answer only questions of its own, so its silence says nothing.

use std::collections::BTreeMap;

use crate::evidence::Evidence;
use crate::evidence::Passage;
use crate::evidence::Proof;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Protocol;
use crate::plan::Station;

/// What lies before the real server's network device, on the way out.
const TO_THE_LINK: [Hop; 7] = [
    Hop::DirectorForward,
    Hop::DirectorToRealserver,
    Hop::Decapsulation,
    Hop::RealserverAccept,
    Hop::Service,
    Hop::RealserverEgress,
    Hop::GatewayArp,
];
/// What lies behind it.
const TO_THE_CLIENT: [Hop; 2] = [Hop::SpoofedSourceTransit, Hop::ClientArrival];

/// At how many ports a client may get answers to nobody's question, if answers are to prove anything: a question asked
/// before the tap was open is answered late, and other sessions ask in its name. A forger who does not see the probes'
/// ports needs thousands to hit one.
const MOST_UNASKED: usize = 16;

impl Evidence {
    /// An answer from VIP:port proves all that lies before it, if its question went through the tunnel: what
    /// the director's own stack answers does not.
    pub(super) fn prove_by_reply(&self, path: usize, proofs: &mut BTreeMap<Hop, Proof>) {
        if self.plan().paths[path].protocol != Protocol::Udp {
            return;
        }
        for passage in self.passages(path) {
            if !passage.is_tunnelled() || self.came_back(&passage) {
                continue;
            }
            for (station, hops) in [
                (Station::RealserverOut, &[][..]),
                (Station::ClientIn, &TO_THE_CLIENT),
            ] {
                if station == Station::ClientIn && self.doubts_replies() {
                    continue;
                }
                self.prove_by_reply_at(station, hops, &passage, proofs);
            }
        }
    }

    /// Whether the client gets so many answers to nobody's question that those to ours may be chance.
    fn doubts_replies(&self) -> bool {
        self.unasked().len() > MOST_UNASKED
    }

    /// Why an answer that reached the client proves nothing, if that is so.
    pub fn why_replies_are_doubted(&self, path: usize) -> Option<String> {
        if self.plan().paths[path].protocol != Protocol::Udp || !self.doubts_replies() {
            return None;
        }
        let mut passages = self.passages(path);
        let came = passages.any(|passage| {
            let mut sightings = self.sightings(passage.probe.id);
            sightings.any(|(item, seen)| {
                seen.form == Form::Reply && item.station == Some(Station::ClientIn)
            })
        });
        let (count, name) = (self.unasked().len(), self.plan().host_name(Host::Client));
        came.then(|| {
            format!(
                "{name} got answers of the service at {count} ports from which nobody had asked it: so many may be \
                 forged, and those to our probes prove nothing; once whoever sends them is stopped, this is decided"
            )
        })
    }

    fn prove_by_reply_at(
        &self,
        station: Station,
        beyond: &[Hop],
        passage: &Passage<'_>,
        proofs: &mut BTreeMap<Hop, Proof>,
    ) {
        let mut sightings = self.sightings(passage.probe.id);
        let Some((reply, _)) = sightings
            .find(|(item, seen)| seen.form == Form::Reply && item.station == Some(station))
        else {
            return;
        };
        for hop in TO_THE_LINK.iter().chain(beyond) {
            proofs.entry(*hop).or_insert_with(|| Proof {
                seen: false,
                evidence: [
                    Some(reply.id),
                    passage.seen.iter().rev().find_map(|seen| *seen),
                ]
                .into_iter()
                .flatten()
                .collect(),
            });
        }
        if passage.probe.tunnel.is_none() {
            proofs.entry(Hop::DirectorSource).or_insert_with(|| Proof {
                seen: false,
                evidence: vec![reply.id],
            });
        }
    }
}
