//! What a captured packet adds to the evidence.

use crate::evidence::Evidence;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::Dropped;
use crate::matching::Arp;
use crate::matching::Certainty;
use crate::matching::Matcher;
use crate::matching::Sighting;
use crate::matching::reply;
use crate::matching::station;
use crate::matching::talk;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;
use crate::plan::Toward;

/// What a captured packet was.
pub(super) enum Noted {
    /// A probe, or what it caused.
    Probe(ProbeId),
    /// ARP of the real server of a path, or of who claims the VIP at the director.
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
        if let Some(sighting) = matcher.recognise_arp(&capture.bytes) {
            let form = sighting.form;
            let probe = note_scripted_arp(evidence, matcher, host, capture.clone(), sighting);
            // A reply may answer the kernel's own question just as well.
            if form == Form::Plain {
                return Noted::Probe(probe);
            }
        }
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
    let Some(probe) = evidence.probe(id) else {
        return;
    };
    let is_vague = is_vague(matcher, probe, &sighting, &capture.bytes);
    if is_vague || evidence.about(id).filter(known).count() >= NOTED {
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

/// Adds a packet of a capture file to what is known, if it is of the session; whether it is.
///
/// Only what is there counts: the host gets no tap by it, so its silence says nothing. A file cannot show
/// that it was written all the time, lost nothing and left nothing out.
pub fn add_recorded(evidence: &mut Evidence, host: Host, capture: Capture) -> bool {
    let matcher = matcher(evidence);
    !matches!(
        note(evidence, &matcher, host, capture, false),
        Noted::Nothing
    )
}

/// A matcher that knows what was sent.
pub fn matcher(evidence: &Evidence) -> Matcher {
    let mut matcher = Matcher::new(evidence.plan().session);
    let scripted = evidence
        .probes()
        .iter()
        .filter(|probe| probe.script.is_some());
    for probe in scripted {
        for item in evidence.about(probe.id) {
            if let What::Sent { transmit, .. } = &item.what {
                matcher.add_script(probe, &transmit.bytes);
            }
        }
    }
    matcher
}

/// Notes ARP that a suite wrote out, or the reply to it.
fn note_scripted_arp(
    evidence: &mut Evidence,
    matcher: &Matcher,
    host: Host,
    capture: Capture,
    mut sighting: Sighting,
) -> ProbeId {
    let place = match host {
        Host::Realserver(_) => Some(Station::RealserverArp),
        Host::Director | Host::Client => station(host, &capture, &evidence.plan().paths[0], None),
    };
    sighting.probe = twin(evidence, matcher, (host, place), &sighting);
    let id = sighting.probe;
    if evidence.probe(id).is_none() || is_flood(evidence, id, place, &sighting) {
        return id;
    }
    let time = capture.time;
    let what = What::Seen {
        sighting,
        altered: Vec::new(),
        capture,
    };
    evidence.append(host, place, time, (Some(id), None), what);
    id
}

/// Which of several equal packets that suites wrote out it is: they are seen in the order in which they were
/// sent.
fn twin(
    evidence: &Evidence,
    matcher: &Matcher,
    place: (Host, Option<Station>),
    seen: &Sighting,
) -> ProbeId {
    let is_unseen = |id: &ProbeId| {
        let mut sightings = evidence.sightings(*id);
        !sightings
            .any(|(item, known)| (item.host, item.station) == place && known.form == seen.form)
    };
    let twins: Vec<_> = matcher.twins(seen.probe).collect();
    let first = twins.iter().copied().find(is_unseen);
    first.or(twins.last().copied()).unwrap_or(seen.probe)
}

fn note_arp(evidence: &mut Evidence, host: Host, capture: Capture) -> Option<(Arp, usize)> {
    let arp = Arp::read(&capture.bytes)?;
    let (path, station) = match host {
        Host::Realserver(path) => (path, Some(Station::RealserverArp)),
        // Of the director's neighbours only who claims the VIP matters.
        Host::Director if capture.direction == Direction::In => {
            let plan = evidence.plan();
            let path = plan.paths.iter().position(|path| path.vip == arp.sender)?;
            (path, None)
        }
        Host::Director | Host::Client => return None,
    };
    let time = capture.time;
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
    let known = matcher.recognise(&capture.bytes);
    let Some(mut sighting) = known.or_else(|| reply_to(evidence, &capture)) else {
        note_talk(evidence, host, &capture);
        return None;
    };
    let plan = evidence.plan();
    let path = &plan.paths[number];
    let place = station(host, &capture, path, evidence.facts(host))
        .filter(|place| is_at_named_device(plan, *place, &sighting, &capture));
    sighting.probe = twin(evidence, matcher, (host, place), &sighting);
    let id = sighting.probe;
    if evidence.probe(id).is_none() {
        if !listening || sighting.certainty == Certainty::Minimal {
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
    let probe = evidence.probe(id)?;
    if is_vague(matcher, probe, &sighting, &capture.bytes) {
        return None;
    }
    let altered = matcher.alterations(probe, &capture.bytes);
    let time = capture.time;
    let what = What::Seen {
        sighting,
        altered,
        capture,
    };
    evidence.append(host, place, time, (Some(id), None), what);
    Some(id)
}

/// Whether a packet shows so little that one in thousands would pass for ours, by chance or by a forger's patience.
fn is_vague(matcher: &Matcher, probe: &Probe, sighting: &Sighting, packet: &[u8]) -> bool {
    sighting.certainty == Certainty::Minimal
        && sighting.form != Form::Reply
        && !matcher.is_translated(probe, packet)
}

/// What a UDP service answered to a probe that was sent.
fn reply_to(evidence: &Evidence, capture: &Capture) -> Option<Sighting> {
    let is_udp = |path: &Path| path.protocol == Protocol::Udp;
    match evidence.plan().paths.iter().any(is_udp) {
        true => reply(&capture.bytes, evidence.probes()),
        false => None,
    }
}

/// Notes what of a client's own talk with a UDP service tells forged answers from asked ones.
fn note_talk(evidence: &mut Evidence, host: Host, capture: &Capture) {
    let path = &evidence.plan().paths[0];
    if host != Host::Client || path.protocol != Protocol::Udp {
        return;
    }
    match (talk(&capture.bytes, path), capture.direction) {
        (Some((port, true)), Direction::Out) => evidence.note_question(port),
        (Some((port, false)), Direction::In) => evidence.note_answer(port),
        _ => {}
    }
}

/// Whether the director passed it at the device that the user named, where one was named: the client's
/// packets arrive at INDEV, the tunnelled ones leave by OUTDEV.
fn is_at_named_device(plan: &Plan, place: Station, sighting: &Sighting, capture: &Capture) -> bool {
    let named = match (place, sighting.form) {
        (Station::DirectorIn, Form::Plain | Form::Rst) => &plan.ingress,
        (Station::DirectorOut, Form::Tunnelled) => &plan.egress,
        _ => &None,
    };
    // What a suite writes out may be anything, and go anywhere; what goes to the director itself is no client's.
    let kind = sighting.probe.kind;
    let is_clients = kind != ProbeKind::Script && kind.toward() == Toward::Client;
    let named = named.as_ref().filter(|_| is_clients);
    named.is_none_or(|named| *named == capture.device)
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
