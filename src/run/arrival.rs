//! What a captured packet adds to the evidence.

use crate::evidence::Evidence;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::Dropped;
use crate::matching::Arp;
use crate::matching::Certainty;
use crate::matching::Matcher;
use crate::matching::Sighting;
use crate::matching::station;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::Station;

/// What a captured packet was.
pub(super) enum Noted {
    /// A probe, or what it caused.
    Probe(ProbeId),
    /// ARP of the real server of a path.
    Arp(Arp, usize),
    /// Nothing of ours.
    Nothing,
}

/// Notes a packet that `host` saw, if it is ours.
///
/// A packet counts only if its probe was sent in the session; a listener, which cannot know, takes every
/// number of the session's key.
pub(super) fn note(
    evidence: &mut Evidence,
    matcher: &Matcher,
    host: Host,
    capture: Capture,
    listening: bool,
) -> Noted {
    if capture.protocol == Capture::ARP {
        return note_arp(evidence, host, capture)
            .map_or(Noted::Nothing, |(arp, path)| Noted::Arp(arp, path));
    }
    note_probe(evidence, matcher, host, capture, listening).map_or(Noted::Nothing, Noted::Probe)
}

/// Notes a packet that the kernel of `host` gave up, if it is ours.
pub(super) fn note_drop(evidence: &mut Evidence, matcher: &Matcher, host: Host, dropped: Dropped) {
    let Dropped {
        reason,
        place,
        capture,
    } = dropped;
    let Some(sighting) = matcher.recognise(&capture.bytes) else {
        return;
    };
    let id = sighting.probe;
    let known = |item: &&Item| matches!(item.what, What::Drop { .. }) && item.host == host;
    if evidence.probe(id).is_none() || evidence.about(id).filter(known).count() >= NOTED {
        return;
    }
    let time = capture.time;
    let what = What::Drop {
        reason,
        place,
        sighting,
        capture,
    };
    evidence.append(host, None, time, (Some(id), None), what);
}

fn note_arp(evidence: &mut Evidence, host: Host, capture: Capture) -> Option<(Arp, usize)> {
    let arp = Arp::read(&capture.bytes)?;
    let Host::Realserver(path) = host else {
        return None;
    };
    let (time, station) = (capture.time, Some(Station::RealserverArp));
    evidence.append(
        host,
        station,
        time,
        (None, Some(path)),
        What::Arp { arp, capture },
    );
    Some((arp, path))
}

fn note_probe(
    evidence: &mut Evidence,
    matcher: &Matcher,
    host: Host,
    capture: Capture,
    listening: bool,
) -> Option<ProbeId> {
    let number = match host {
        Host::Realserver(path) => path,
        Host::Director | Host::Client => 0,
    };
    let sighting = matcher.recognise(&capture.bytes)?;
    let plan = evidence.plan();
    if sighting.certainty == Certainty::Minimal && !is_to_a_realserver(plan, &sighting) {
        return None;
    }
    let path = &plan.paths[number];
    let place = station(host, &capture, path, evidence.facts(host))
        .filter(|place| is_at_named_device(plan, *place, &sighting, &capture));
    let id = sighting.probe;
    if evidence.probe(id).is_none() {
        if !listening {
            return None;
        }
        let plan = evidence.plan();
        let probe = Probe::new(id, 0, &plan.paths[0], &plan.session)?;
        let ttl = sighting.sent_ttl.unwrap_or(Probe::FULL_TTL);
        evidence.add_probe(probe.with_ttl(ttl));
    }
    if is_flood(evidence, id, place, &sighting) {
        return None;
    }
    let altered = matcher.alterations(evidence.probe(id)?, &capture.bytes);
    let time = capture.time;
    let what = What::Seen {
        sighting,
        altered,
        capture,
    };
    evidence.append(host, place, time, (Some(id), None), what);
    Some(id)
}

/// Whether the tunnel header of a sighting goes to one of the plan's real servers.
fn is_to_a_realserver(plan: &Plan, sighting: &Sighting) -> bool {
    let to = sighting.outer.map(|outer| outer.destination);
    plan.paths.iter().any(|path| Some(path.rip) == to)
}

/// Whether the director passed it at the device that the user named, where one was named: the client's
/// packets arrive at INDEV, the tunnelled ones leave by OUTDEV.
fn is_at_named_device(plan: &Plan, place: Station, sighting: &Sighting, capture: &Capture) -> bool {
    let named = match (place, sighting.form) {
        (Station::DirectorIn, Form::Plain | Form::Rst) => &plan.ingress,
        (Station::DirectorOut, Form::Tunnelled) => &plan.egress,
        _ => &None,
    };
    named.as_ref().is_none_or(|named| *named == capture.device)
}

/// How often the same sighting of one probe is noted: a routing loop shows it dozens of times.
const NOTED: usize = 4;

fn is_flood(evidence: &Evidence, id: ProbeId, place: Option<Station>, seen: &Sighting) -> bool {
    let same = |item: &Item, sighting: &Sighting| {
        item.station == place && sighting.form == seen.form && sighting.source == seen.source
    };
    evidence
        .sightings(id)
        .filter(|(item, sighting)| same(item, sighting))
        .count()
        >= NOTED
}
