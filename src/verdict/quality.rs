//! Loss, duplication and reordering: notes, from what two hosts saw of the same packets.
//!
//! A leg lies between two stations of different hosts whose taps lost nothing, with no station between them
//! that hears. Only hops that work are spoken of, and only what packets show.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use crate::evidence::EvidenceId;
use crate::evidence::Passage;
use crate::evidence::What;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Case;

/// What left this much earlier and arrives later was overtaken; less may be one host's own disorder.
const OVERTAKEN: Duration = Duration::from_millis(1);
/// Within this a second arrival is a copy; later it may be what a kernel sends again by itself.
const COPY: Duration = Duration::from_millis(500);
/// How many packets a note cites.
const CITED: usize = 4;

/// The stations on both sides, and the hop that is between.
type Leg = (Hop, Station, Station);

/// One probe on a leg.
struct Crossing {
    kind: (ProbeKind, usize),
    left: EvidenceId,
    arrived: Option<EvidenceId>,
    passed: bool,
    copies: usize,
    /// Whether both stations see the very same packet.
    same: bool,
    /// Whether it may still be on its way.
    expected: bool,
}

/// Notes what the packets show of the network's quality.
pub(super) fn judge(case: &mut Case<'_>) {
    let legs = legs(case);
    note_loss(case, &legs);
    note_duplication(case, &legs);
    note_reordering(case, &legs);
}

fn legs(case: &Case<'_>) -> BTreeMap<Leg, Vec<Crossing>> {
    let mut legs = BTreeMap::<Leg, Vec<Crossing>>::new();
    for passage in case.evidence.passages(case.number) {
        if passage.probe.id.kind.is_aside() {
            continue;
        }
        let heard: Vec<usize> = (0..passage.waypoints.len())
            .filter(|n| case.evidence.hears(host(&passage, *n)).is_ok())
            .collect();
        for pair in heard.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            if let (Some(leg), Some(crossing)) =
                (leg(&passage, from, to), crossing(case, &passage, from, to))
                && !case.is_broken(leg.0)
            {
                legs.entry(leg).or_default().push(crossing);
            }
        }
    }
    legs
}

fn host(passage: &Passage<'_>, waypoint: usize) -> Host {
    Host::of(passage.waypoints[waypoint].station, passage.path)
}

fn leg(passage: &Passage<'_>, from: usize, to: usize) -> Option<Leg> {
    let (a, b) = (&passage.waypoints[from], &passage.waypoints[to]);
    // How many ICMP errors a host sends is its own affair.
    let limited = to > from + 1 && matches!(b.form, Form::IcmpError { .. });
    let ends = passage.refused && b.form == Form::Rst;
    // The controls' way is nobody's hop.
    let aside = b.hops.is_empty();
    if host(passage, from) == host(passage, to) || limited || ends || aside {
        return None;
    }
    let answer = a.station == Station::ClientOut && b.form != Form::Plain;
    let hop = match answer {
        true => Hop::ReturnToDirector,
        false => *passage.waypoints[from + 1..=to]
            .iter()
            .find_map(|waypoint| waypoint.hops.first())?,
    };
    Some((hop, a.station, b.station))
}

fn crossing(case: &Case<'_>, passage: &Passage<'_>, from: usize, to: usize) -> Option<Crossing> {
    let left = passage.seen[from]?;
    let same = to == from + 1;
    let own = matches!(passage.waypoints[to].form, Form::Plain | Form::Tunnelled);
    let came = copies(case, passage, to);
    let went = match same {
        true => copies(case, passage, from).max(1),
        // Nobody sends a probe twice.
        false if own => 1,
        false => came,
    };
    Some(Crossing {
        kind: (passage.probe.id.kind, to),
        left,
        arrived: passage.seen[to],
        passed: passage.seen[to..].iter().any(Option::is_some),
        copies: came.saturating_sub(went),
        same,
        expected: case.evidence.is_expected(passage.probe.id),
    })
}

/// How often the same octets were seen at a waypoint, on the device that saw them most, in a short time.
fn copies(case: &Case<'_>, passage: &Passage<'_>, waypoint: usize) -> usize {
    let Some(first) = passage.seen[waypoint].and_then(|id| case.evidence.item(id)) else {
        return 0;
    };
    let form = passage.waypoints[waypoint].form;
    let mut counts = HashMap::<(&str, &[u8]), usize>::new();
    for (item, sighting) in case.evidence.sightings(passage.probe.id) {
        let here = item.host == first.host && item.station == first.station;
        let form = sighting.form == form || form == Form::SynAck && sighting.form == Form::Refused;
        let soon = item.time.distance(first.time) < COPY;
        if let (What::Seen { capture, .. }, true) = (&item.what, here && form && soon) {
            *counts.entry((&capture.device, &capture.bytes)).or_default() += 1;
        }
    }
    counts.into_values().max().unwrap_or(0)
}

fn note_loss(case: &mut Case<'_>, legs: &BTreeMap<Leg, Vec<Crossing>>) {
    let mut said = BTreeMap::<Hop, (Vec<String>, Vec<EvidenceId>)>::new();
    for ((hop, from, to), crossings) in legs {
        // Kinds of which nothing passes meet a filter, whatever else it is.
        let passes = |kind| crossings.iter().any(|c| c.kind == kind && c.passed);
        let counted: Vec<_> = crossings
            .iter()
            .filter(|c| (c.passed || !c.expected) && passes(c.kind))
            .collect();
        let lost: Vec<_> = counted.iter().filter(|c| !c.passed).collect();
        if lost.is_empty() {
            continue;
        }
        let (texts, evidence) = said.entry(*hop).or_default();
        let numbers = format!("{} of {}", lost.len(), counted.len());
        texts.push(format!("{numbers} lost between {from} and {to}"));
        evidence.extend(lost.iter().take(CITED).map(|c| c.left));
    }
    for (hop, (texts, evidence)) in said {
        let summary = texts.join("; ");
        let detail = "They left the one station and were not seen at the other; others of the same kind were. \
                      The hop works: this is loss, and no filter."
            .to_owned();
        case.note(Code::Loss, hop, summary, detail, evidence);
    }
}

fn note_duplication(case: &mut Case<'_>, legs: &BTreeMap<Leg, Vec<Crossing>>) {
    let mut said = BTreeMap::<Hop, (Vec<String>, Vec<EvidenceId>)>::new();
    for ((hop, from, to), crossings) in legs {
        let came = crossings.iter().filter(|c| c.arrived.is_some()).count();
        let twice: Vec<_> = crossings.iter().filter(|c| c.copies > 0).collect();
        if twice.is_empty() {
            continue;
        }
        let (texts, evidence) = said.entry(*hop).or_default();
        let numbers = format!("{} of {came}", twice.len());
        texts.push(format!("{numbers} duplicated between {from} and {to}"));
        evidence.extend(twice.iter().take(CITED).filter_map(|c| c.arrived));
    }
    for (hop, (texts, evidence)) in said {
        let summary = texts.join("; ");
        let detail = "The same octets came more often to one device than they had left.".to_owned();
        case.note(Code::Duplication, hop, summary, detail, evidence);
    }
}

fn note_reordering(case: &mut Case<'_>, legs: &BTreeMap<Leg, Vec<Crossing>>) {
    let mut said = BTreeMap::<Hop, (Vec<String>, Vec<EvidenceId>)>::new();
    for ((hop, from, to), crossings) in legs {
        let time = |id: EvidenceId| case.evidence.item(id).map(|item| item.time);
        let seen: Vec<_> = crossings
            .iter()
            .filter(|c| c.same)
            .filter_map(|c| Some((c.left, time(c.left)?, c.arrived?)))
            .collect();
        // What is noted first was captured first: a host's clock may be set meanwhile, its tap's order not.
        let late: Vec<_> = seen
            .iter()
            .filter(|(left, at, arrived)| {
                seen.iter().any(|(later, after, before)| {
                    later > left && before < arrived && after.distance(*at) >= OVERTAKEN
                })
            })
            .map(|(_, _, arrived)| *arrived)
            .collect();
        if late.is_empty() {
            continue;
        }
        let (texts, evidence) = said.entry(*hop).or_default();
        let numbers = format!("{} of {}", late.len(), seen.len());
        texts.push(format!("{numbers} overtaken between {from} and {to}"));
        evidence.extend(late.iter().take(CITED));
    }
    for (hop, (texts, evidence)) in said {
        let summary = texts.join("; ");
        let detail = "They arrived after packets that had left the same station later.".to_owned();
        case.note(Code::Reordering, hop, summary, detail, evidence);
    }
}
