//! Who answered at each time to live: what a report plots. It says what was seen, and judges nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::Fate;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::report::escape::escape;

/// Two sweeps of the same way: what is asked of, and its control.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    /// The host that sends, and the one that everything goes to.
    pub(crate) ends: (String, String),
    /// What the latter is, in a word.
    pub(crate) end: &'static str,
    /// What is asked of, in a few words, and its control.
    pub(crate) sides: (String, String),
    /// Who hears the answers to what is asked of, and whether tunproof was there to see them.
    pub(crate) heard: (&'static str, bool),
    /// By time to live, the last with all that was to arrive.
    pub(crate) rows: Vec<SweepRow>,
    /// After which time to live it goes silent, or is stopped, and in which words.
    pub(crate) cut: Option<(u8, &'static str)>,
}

/// A time to live.
#[derive(Clone, Debug, Default)]
pub(crate) struct SweepRow {
    /// The time to live.
    pub(crate) ttl: u8,
    /// Whether what is sent with it is to arrive.
    pub(crate) is_end: bool,
    /// What is asked of.
    pub(crate) asked: SweepCell,
    /// Its control.
    pub(crate) control: SweepCell,
}

/// One side of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct SweepCell {
    /// How many were sent.
    pub(crate) sent: usize,
    /// How many were answered by a router, or arrived.
    pub(crate) answered: usize,
    /// How many of those a router refused.
    pub(crate) refused: usize,
    /// Who answered.
    pub(crate) by: Vec<Ipv4Addr>,
    /// How long it took, by the sender's clock, where the answers come back to it.
    pub(crate) round_trips: Vec<Duration>,
}

/// The sweeps of path number `number`: from the VIP to the client, and through the tunnel.
pub(super) fn sweeps(evidence: &Evidence, number: usize) -> Vec<Sweep> {
    let path = &evidence.plan().paths[number];
    let name = escape(&path.realserver);
    let spoofed = (
        (ProbeKind::SpoofTrace, ProbeKind::ControlTrace),
        Sweep {
            ends: (name.clone(), "client".to_owned()),
            end: "client",
            sides: (
                format!("from the VIP {}", path.vip),
                format!("from {}", path.rip),
            ),
            heard: ("director", evidence.sees(Host::Director)),
            rows: Vec::new(),
            cut: None,
        },
    );
    let tunnelled = (
        (ProbeKind::TunnelTrace, ProbeKind::TunnelControl),
        Sweep {
            ends: ("director".to_owned(), format!("real server {name}")),
            end: "server",
            sides: ("in IPIP".to_owned(), "plain UDP".to_owned()),
            heard: ("director", evidence.sees(Host::Director)),
            rows: Vec::new(),
            cut: None,
        },
    );
    let mut sweeps = Vec::new();
    for ((asked, control), mut sweep) in [tunnelled, spoofed] {
        sweep.rows = rows(evidence, number, (asked, control));
        if sweep.rows.len() > 1 {
            sweep.cut = silent_after(&sweep).map(|ttl| (ttl, "no answer from here on"));
            sweeps.push(sweep);
        }
    }
    sweeps
}

/// The last time to live at which somebody answered what is asked of, where further ones answered the control.
fn silent_after(sweep: &Sweep) -> Option<u8> {
    let last = |side: fn(&SweepRow) -> &SweepCell| {
        let answered = sweep.rows.iter().filter(|row| side(row).answered > 0);
        answered.map(|row| row.ttl).max().unwrap_or(0)
    };
    let asked = last(|row| &row.asked);
    (sweep.heard.1 && asked < last(|row| &row.control)).then_some(asked)
}

fn rows(
    evidence: &Evidence,
    path: usize,
    (asked, control): (ProbeKind, ProbeKind),
) -> Vec<SweepRow> {
    let of_path = |probe: &&Probe| probe.path == path && [asked, control].contains(&probe.id.kind);
    let probes: Vec<_> = evidence.probes().iter().filter(of_path).collect();
    let fates: Vec<_> = probes.iter().map(|probe| fate(evidence, probe)).collect();
    let arrived = probes
        .iter()
        .zip(&fates)
        .filter(|(probe, fate)| probe.id.kind == control && matches!(fate, Some((_, true, _))));
    let distance = arrived.map(|(probe, _)| probe.outermost_ttl()).min();
    let mut rows: BTreeMap<u8, SweepRow> = BTreeMap::new();
    for (probe, fate) in probes.iter().zip(fates) {
        let own = probe.outermost_ttl();
        let is_end = !probe.is_limited() || distance.is_some_and(|distance| own >= distance);
        let ttl = match is_end {
            true => distance.unwrap_or(Probe::FULL_TTL).min(own),
            false => own,
        };
        let row = rows.entry(ttl).or_insert(SweepRow {
            ttl,
            is_end,
            ..SweepRow::default()
        });
        let cell = match probe.id.kind == asked {
            true => &mut row.asked,
            false => &mut row.control,
        };
        cell.sent += 1;
        if let Some((from, _, is_refused)) = fate {
            cell.answered += 1;
            cell.refused += usize::from(is_refused);
            if !cell.by.contains(&from) {
                cell.by.push(from);
            }
        }
        cell.round_trips.extend(evidence.round_trip(probe));
    }
    rows.into_values().collect()
}

/// Who answered a probe, whether that is where it goes, and whether that refused it.
fn fate(evidence: &Evidence, probe: &Probe) -> Option<(Ipv4Addr, bool, bool)> {
    if let Some(tunnel) = probe.tunnel {
        // What is taken out of the tunnel is answered to the client: that it arrived, the real server sees.
        let mut seen = evidence.sightings(probe.id);
        let arrived = seen.any(|(item, seen)| {
            item.station == Some(Station::RealserverIn) && seen.form == Form::Tunnelled
        });
        if arrived {
            return Some((tunnel.destination, true, false));
        }
    }
    Some(match evidence.fate(probe)? {
        Fate::Arrived(reply) => (reply.from, true, false),
        Fate::Expired(reply) => (reply.from, false, false),
        Fate::Refused(reply) => (reply.from, false, true),
    })
}

/// The round trips of what is sent again and again, spoofed or not, by time to live: what a judged sweep lacks.
pub(super) fn round_trips(
    evidence: &Evidence,
    path: usize,
    kinds: &[ProbeKind],
) -> BTreeMap<u8, Vec<Duration>> {
    let mut trips: BTreeMap<u8, Vec<Duration>> = BTreeMap::new();
    for probe in evidence.probes() {
        if probe.path == path && kinds.contains(&probe.id.kind) {
            let trip = evidence.round_trip(probe);
            trips.entry(probe.ttl).or_default().extend(trip);
        }
    }
    trips
}
