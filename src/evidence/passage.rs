//! How far a probe came on its itinerary, and which hops that proves.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::RouteAnswer;
use crate::exchange::SendOutcome;
use crate::matching::Arp;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::Station;
use crate::plan::Waypoint;
use crate::plan::itinerary;

/// How far one probe came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage<'a> {
    /// The probe.
    pub probe: &'a Probe,
    /// The path that it took.
    pub path: usize,
    /// Its itinerary.
    pub waypoints: &'static [Waypoint],
    /// For each waypoint, the evidence that it was passed, if it was seen there.
    pub seen: &'a [Option<EvidenceId>],
    /// That it was sent, if the kernel took it.
    pub sent: Option<EvidenceId>,
    /// That the kernel refused to send it.
    pub unsendable: Option<EvidenceId>,
    /// Whether the answer on the way was the RST/ACK of a closed port.
    pub refused: bool,
}

/// What a passage came to so far: it is asked for much more often than a packet is seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    path: usize,
    waypoints: &'static [Waypoint],
    seen: Vec<Option<EvidenceId>>,
    sent: Option<EvidenceId>,
    unsendable: Option<EvidenceId>,
    refused: bool,
}

impl Progress {
    pub(super) fn of<'a>(&'a self, probe: &'a Probe) -> Passage<'a> {
        Passage {
            probe,
            path: self.path,
            waypoints: self.waypoints,
            seen: &self.seen,
            sent: self.sent,
            unsendable: self.unsendable,
            refused: self.refused,
        }
    }

    /// What was seen from waypoint number `from` on was not the probe's.
    fn take_back(&mut self, from: usize) {
        self.seen[from..].fill(None);
        self.refused = false;
    }
}

/// That a hop works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whether a probe was seen on both sides of it, not only beyond it.
    pub seen: bool,
    /// The evidence, most telling first.
    pub evidence: Vec<EvidenceId>,
}

impl Passage<'_> {
    /// The last waypoint at which it was seen.
    pub fn furthest(&self) -> Option<usize> {
        self.seen.iter().rposition(Option::is_some)
    }

    /// Whether it was seen at its last waypoint.
    pub fn is_complete(&self) -> bool {
        self.seen.last().is_some_and(Option::is_some)
    }

    /// Whether a real server must have got it, if anything answered: tunproof encapsulated it itself, or it
    /// was seen in the tunnel or at the real server. What the director's own stack answers is no proof of
    /// anything behind the director.
    pub fn is_tunnelled(&self) -> bool {
        let behind = |waypoint: &Waypoint| {
            matches!(Host::of(waypoint.station, self.path), Host::Realserver(_))
                || waypoint.form == Form::Tunnelled
        };
        self.probe.tunnel.is_some()
            || self
                .waypoints
                .iter()
                .zip(self.seen)
                .any(|(waypoint, seen)| seen.is_some() && behind(waypoint))
    }

    /// Whether `hop` lies behind it: it was seen at or beyond the last waypoint that carries the hop.
    pub fn proves(&self, hop: Hop) -> Option<Proof> {
        if self.refused && hop == Hop::Service {
            return None;
        }
        let last = self.waypoints.iter().rposition(|w| w.hops.contains(&hop))?;
        let furthest = self.furthest().filter(|furthest| *furthest >= last)?;
        let before = match last {
            0 => self.sent,
            n => self.seen[n - 1],
        };
        Some(match (self.seen[last], before) {
            (Some(here), Some(before)) => Proof {
                seen: true,
                evidence: vec![here, before],
            },
            (Some(here), None) => Proof {
                seen: false,
                evidence: vec![here],
            },
            (None, _) => Proof {
                seen: false,
                evidence: self.seen[furthest].into_iter().collect(),
            },
        })
    }
}

impl Evidence {
    /// How far a probe came.
    ///
    /// # Panics
    ///
    /// If no probe of its name was to be sent.
    pub fn passage<'a>(&'a self, probe: &'a Probe) -> Passage<'a> {
        self.progress(probe.id).of(probe)
    }

    /// How far a probe came, by all that is known of it.
    pub(super) fn follow(&self, probe: &Probe) -> Progress {
        let path = self.path_of(probe);
        let waypoints = itinerary(probe.id.kind, self.plan().paths[path].protocol);
        let mut progress = Progress {
            path,
            waypoints,
            seen: vec![None; waypoints.len()],
            sent: None,
            unsendable: None,
            refused: false,
        };
        for item in self.about(probe.id) {
            match &item.what {
                What::Sent { outcome, .. } => match outcome {
                    SendOutcome::Sent { .. } => progress.sent = Some(item.id),
                    SendOutcome::Refused { .. } => progress.unsendable = Some(item.id),
                    // Nobody tried.
                    SendOutcome::Declined { .. } => {}
                },
                What::Seen { sighting, .. } => {
                    for (waypoint, seen) in waypoints.iter().zip(&mut progress.seen) {
                        let here = item.host == Host::of(waypoint.station, path);
                        if here && seen.is_none() && hits(waypoint, probe, item, sighting) {
                            *seen = Some(item.id);
                            progress.refused |= sighting.form == Form::Refused;
                        }
                    }
                }
                _ => {}
            }
        }
        let first = |hop| waypoints.iter().position(|w| w.hops.contains(&hop));
        if let Some(forwarded) = first(Hop::DirectorForward)
            && !progress.of(probe).is_tunnelled()
        {
            progress.take_back(forwarded);
        }
        if let Some(accepted) = first(Hop::RealserverAccept)
            && self.came_back(&progress.of(probe))
        {
            progress.take_back(accepted);
        }
        progress
    }

    /// Whether a real server forwarded the probe back to the director: whatever answers it then is the
    /// director's own stack, or another real server.
    pub(super) fn came_back(&self, passage: &Passage<'_>) -> bool {
        let kind = passage.probe.id.kind;
        let at_director = |station, form| {
            self.sightings(passage.probe.id)
                .filter(move |(item, seen)| item.station == Some(station) && seen.form == form)
                .filter_map(|(_, seen)| seen.inner_ttl)
                .min()
        };
        let Some(back) = at_director(Station::DirectorIn, Form::Plain) else {
            return false;
        };
        match kind {
            ProbeKind::Service => {
                at_director(Station::DirectorOut, Form::Tunnelled).is_some_and(|sent| back < sent)
            }
            _ => passage.is_tunnelled(),
        }
    }

    /// The passages of every probe with a full time to live that took `path`, in the order of sending; what a suite
    /// writes out is none: it may be as odd as it likes, and says nothing of the path but to its own step.
    pub fn passages(&self, path: usize) -> impl Iterator<Item = Passage<'_>> {
        self.probes_on(path)
            .filter(|(probe, _)| {
                probe.id.kind != ProbeKind::Script
                    && !probe.is_limited()
                    && !self.has_strayed(probe)
            })
            .map(|(probe, progress)| progress.of(probe))
    }

    /// The hops of `path` that packets prove, with the best proof of each.
    pub fn proofs(&self, path: usize) -> BTreeMap<Hop, Proof> {
        let mut proofs: BTreeMap<Hop, Proof> = BTreeMap::new();
        for passage in self.passages(path) {
            for hop in Hop::ALL {
                // Nothing is better than a proof that was seen on both sides.
                if proofs.get(&hop).is_some_and(|known| known.seen) {
                    continue;
                }
                let Some(proof) = passage.proves(hop) else {
                    continue;
                };
                if hop == Hop::DirectorSource && !self.source_is_sound(&passage) {
                    continue;
                }
                match proofs.get(&hop) {
                    Some(known) if known.seen >= proof.seen => {}
                    _ => {
                        proofs.insert(hop, proof);
                    }
                }
            }
        }
        self.prove_by_return_control(&mut proofs);
        self.prove_transit_by_refusal(path, &mut proofs);
        self.prove_by_reply(path, &mut proofs);
        self.prove_egress_by_emission(path, &mut proofs);
        self.prove_arp(path, &mut proofs);
        if self.is_client_ignored(path) || !self.ignored_answers(path).is_empty() {
            proofs.remove(&Hop::DirectorForward);
        }
        self.withdraw_rewritten(path, &mut proofs);
        if !self.silent_flows(path).is_empty() {
            proofs.remove(&Hop::SpoofedSourceTransit);
        }
        proofs
    }

    /// What the client and the director do with the VIP is the same for every real server.
    fn prove_by_return_control(&self, proofs: &mut BTreeMap<Hop, Proof>) {
        for hop in [Hop::ClientToDirector, Hop::ReturnToDirector] {
            if proofs.contains_key(&hop) {
                continue;
            }
            let proof = self
                .probes_of_kind(ProbeKind::ReturnControl)
                .find_map(|probe| self.passage(probe).proves(hop));
            proofs.extend(proof.map(|proof| (hop, proof)));
        }
    }

    /// A real server that refuses a tunnelled probe by ICMP has got it.
    fn prove_transit_by_refusal(&self, path: usize, proofs: &mut BTreeMap<Hop, Proof>) {
        if proofs.contains_key(&Hop::DirectorToRealserver) {
            return;
        }
        let rip = self.plan().paths[path].rip;
        let own = |passage: &Passage<'_>| {
            passage.probe.from != Host::Client || passage.probe.tunnel.is_none()
        };
        let refusal = self.passages(path).filter(own).find_map(|passage| {
            let mut sightings = self.sightings(passage.probe.id);
            sightings.find_map(|(item, sighting)| {
                let tunnelled = matches!(
                    sighting.form,
                    Form::IcmpError {
                        icmp_type: 3,
                        code: 2 | 3,
                        of: Quoting::Tunnelled
                    }
                );
                (tunnelled && sighting.source == rip).then_some(item.id)
            })
        });
        let proof = refusal.map(|refusal| Proof {
            seen: false,
            evidence: vec![refusal],
        });
        proofs.extend(proof.map(|proof| (Hop::DirectorToRealserver, proof)));
    }

    /// Whether packets of the client itself reached the director and none was forwarded: those that the
    /// director sends itself pass neither its INPUT rules nor its routing of what arrives.
    fn is_client_ignored(&self, path: usize) -> bool {
        let arrived = |passage: &Passage<'_>| {
            let mut points = passage.waypoints.iter().zip(passage.seen);
            points.any(|(w, seen)| {
                w.station == Station::DirectorIn && w.form == Form::Plain && seen.is_some()
            })
        };
        let mut clients = self
            .passages(path)
            .filter(|passage| passage.probe.id.kind == ProbeKind::Service && arrived(passage))
            .peekable();
        clients.peek().is_some()
            && clients.all(|passage| passage.proves(Hop::DirectorForward).is_none())
    }

    /// The client's RSTs to connections that IPVS opened for the director's own packets, if they reached the
    /// director and none was tunnelled on; empty once any packet of the client was forwarded. They are the
    /// only packets of the client's own where tunproof does not run there.
    pub fn ignored_answers(&self, path: usize) -> Vec<EvidenceId> {
        let mut ignored = Vec::new();
        for passage in self.passages(path) {
            let forwarded = match passage.probe.id.kind {
                ProbeKind::Service => passage.proves(Hop::DirectorForward).is_some(),
                ProbeKind::IpvsLoop => self.sightings(passage.probe.id).any(|(item, seen)| {
                    item.station == Some(Station::DirectorOut)
                        && seen.form == Form::Rst
                        && seen.outer.is_some()
                }),
                _ => continue,
            };
            if forwarded {
                return Vec::new();
            }
            if passage.probe.id.kind == ProbeKind::IpvsLoop && passage.is_tunnelled() {
                let points = passage.waypoints.iter().zip(passage.seen);
                let returned = points
                    .filter(|(w, _)| w.station == Station::DirectorIn && w.form == Form::Rst)
                    .filter_map(|(_, seen)| *seen);
                ignored.extend(returned);
            }
        }
        ignored
    }

    /// Whether the outer source that the kernel chose is the director's own: the real server took such a
    /// packet out of the tunnel, or the address is the DIP and the real server is known not to have it.
    fn source_is_sound(&self, passage: &Passage<'_>) -> bool {
        let decapsulated = passage
            .waypoints
            .iter()
            .rposition(|w| w.hops.contains(&Hop::Decapsulation));
        if passage.furthest() >= decapsulated {
            return true;
        }
        let path = &self.plan().paths[passage.path];
        let source = self
            .sightings(passage.probe.id)
            .filter(|(_, sighting)| sighting.form == Form::Tunnelled)
            .find_map(|(_, sighting)| sighting.outer)
            .map(|outer| outer.source);
        let elsewhere = self
            .facts(Host::Realserver(passage.path))
            .is_some_and(|facts| source.is_some_and(|source| !facts.is_local(source)));
        source.is_some() && source == path.dip && elsewhere
    }

    /// A probe of the real server's own that left with the VIP as its source shows that its routing and
    /// firewall let such packets go, where no answer was there to show it.
    fn prove_egress_by_emission(&self, path: usize, proofs: &mut BTreeMap<Hop, Proof>) {
        if proofs.contains_key(&Hop::RealserverEgress) {
            return;
        }
        let emitted = self
            .passages(path)
            .filter(|passage| passage.probe.id.kind == ProbeKind::SpoofSynack)
            .find_map(|passage| passage.seen[0]);
        if let Some(evidence) = emitted {
            proofs.insert(
                Hop::RealserverEgress,
                Proof {
                    seen: false,
                    evidence: vec![evidence],
                },
            );
        }
    }

    /// The gateway's answer to the kernel's own request is the best proof, and a sender address that the
    /// kernel used and that nothing answered forbids any other: packets that left all the same had found
    /// an entry that was made otherwise, and the next one will not.
    fn prove_arp(&self, path: usize, proofs: &mut BTreeMap<Hop, Proof>) {
        let host = Host::Realserver(path);
        let arps = || self.arps(host).map(|(item, arp)| (item.id, arp));
        let Some(gateway) = self.asked_gateway(path) else {
            return;
        };
        let mut best = None;
        for (request, question) in arps() {
            let kernels = question.operation == Arp::REQUEST && !question.is_ours();
            if !kernels || question.target != gateway {
                continue;
            }
            let answer = arps().find(|(id, arp)| {
                *id > request
                    && arp.operation == Arp::REPLY
                    && arp.sender == question.target
                    && arp.target == question.sender
            });
            match answer {
                Some((answer, _)) => {
                    best.get_or_insert((answer, request));
                }
                None => {
                    proofs.remove(&Hop::GatewayArp);
                    return;
                }
            }
        }
        if let Some((answer, request)) = best {
            let evidence = vec![answer, request];
            let proof = Proof {
                seen: true,
                evidence,
            };
            proofs.insert(Hop::GatewayArp, proof);
        }
    }

    /// The next hop of the real server's answers: the one whose entry was deleted, else the declared one,
    /// else that of its route to the client.
    pub fn asked_gateway(&self, path: usize) -> Option<Ipv4Addr> {
        let host = Host::Realserver(path);
        let Path { cip, gateway, .. } = self.plan().paths[path];
        let forgotten = self.host(host)?.forgotten.first().map(|entry| entry.ip);
        forgotten.or(gateway).or_else(|| {
            let mut routes = self.facts(host)?.routes.iter();
            routes.find_map(|(query, answer)| match answer {
                RouteAnswer::Route(route) if query.to == cip && query.iif.is_none() => {
                    Some(route.gateway.unwrap_or(cip))
                }
                _ => None,
            })
        })
    }
}

/// Whether the sighting is what the waypoint asks for: the station, the form, and unaltered addresses.
fn hits(waypoint: &Waypoint, probe: &Probe, item: &Item, sighting: &Sighting) -> bool {
    let form = sighting.form == waypoint.form
        || waypoint.form == Form::SynAck && sighting.form == Form::Refused;
    if item.station != Some(waypoint.station) || !form {
        return false;
    }
    let there = (probe.flow.source, probe.flow.destination);
    let back = (probe.flow.destination, probe.flow.source);
    let seen = (sighting.source, sighting.destination);
    match sighting.form {
        Form::Tunnelled => sighting
            .flow
            .is_some_and(|flow| (flow.source, flow.destination) == there),
        Form::Plain | Form::Decapsulated | Form::Cleanup => seen == there,
        Form::SynAck | Form::Refused | Form::Reply | Form::IcmpError { .. } => seen == back,
        Form::Rst if probe.id.kind.opens(Protocol::Tcp) => seen == there,
        Form::Rst => seen == back,
    }
}
