//! Protocol 4 compared with UDP on its way from the director to the real server, outer time to live by outer
//! time to live.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::evidence::EvidenceId;
use crate::exchange::Ipvs;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::Severity;
use crate::verdict::case::Case;

/// How many unanswered probes, at times to live at which UDP is answered, are no accident.
const ENOUGH: usize = 6;
/// How many UDP probes with all their time to live must die before that is worth a word.
const SOME: usize = 3;
/// The port that is proposed for GUE, that of the kernel's own documentation.
const GUE_PORT: u16 = 6080;

/// Both sweeps.
pub(super) struct Comparison {
    /// For each time to live, which router said that protocol 4's was exceeded.
    tunnel: BTreeMap<u8, (Ipv4Addr, EvidenceId)>,
    /// The same of UDP.
    control: BTreeMap<u8, (Ipv4Addr, EvidenceId)>,
    /// That UDP got to the real server.
    arrived: Option<EvidenceId>,
    /// Protocol 4's unanswered probes, by time to live.
    unanswered: BTreeMap<u8, usize>,
    /// UDP probes with their full time to live.
    whole: usize,
}

impl Comparison {
    /// Both sweeps of the case's path, if they were sent.
    pub(super) fn of(case: &Case<'_>) -> Option<Comparison> {
        let evidence = &*case.evidence;
        let mut found = Comparison {
            tunnel: BTreeMap::new(),
            control: BTreeMap::new(),
            arrived: None,
            unanswered: BTreeMap::new(),
            whole: 0,
        };
        let kinds = [ProbeKind::TunnelTrace, ProbeKind::TunnelControl];
        let mut sent = false;
        for probe in evidence.probes() {
            let (id, ttl) = (probe.id, probe.outermost_ttl());
            if !kinds.contains(&id.kind) || probe.path != case.number {
                continue;
            }
            sent = true;
            let passage = evidence.passage(probe);
            let exceeded = evidence.sightings(id).find(|(item, sighting)| {
                item.station == Some(Station::DirectorIn)
                    && matches!(sighting.form, Form::IcmpError { icmp_type: 11, .. })
            });
            let exceeded = exceeded.map(|(item, sighting)| (sighting.source, item.id));
            match (id.kind, exceeded) {
                (ProbeKind::TunnelTrace, Some(router)) => {
                    found.tunnel.entry(ttl).or_insert(router);
                }
                (ProbeKind::TunnelTrace, None) => {
                    let left = passage.seen[0].is_some() && !evidence.is_excused(id);
                    *found.unanswered.entry(ttl).or_default() += usize::from(left);
                }
                (_, Some(router)) => {
                    found.control.entry(ttl).or_insert(router);
                }
                (_, None) => {
                    let arrival = passage.seen[1..].iter().copied().flatten().next();
                    found.arrived = found.arrived.or(arrival);
                    found.whole += usize::from(!probe.is_limited() && passage.seen[0].is_some());
                }
            }
        }
        sent.then_some(found)
    }

    /// Whether UDP got to the real server.
    pub(super) fn udp_arrives(&self) -> bool {
        self.arrived.is_some()
    }

    /// The last router that answers protocol 4.
    fn last(&self) -> Option<(u8, Ipv4Addr)> {
        self.tunnel
            .iter()
            .next_back()
            .map(|(ttl, (router, _))| (*ttl, *router))
    }

    /// The first router behind it that answers UDP.
    fn next(&self) -> Option<(u8, Ipv4Addr)> {
        let last = self.last().map_or(0, |(ttl, _)| ttl);
        self.control
            .range(last + 1..)
            .next()
            .map(|(ttl, (router, _))| (*ttl, *router))
    }

    /// Whether protocol 4 does not get where a router answers UDP; enough where another says that it refuses it.
    pub(super) fn stops_at_a_router(&self) -> bool {
        self.udp_arrives() && self.silent_where_udp_is_answered() >= SOME
    }

    /// Whether so many of protocol 4's probes were silent where UDP's are answered that it is no accident.
    fn is_different(&self) -> bool {
        self.silent_where_udp_is_answered() >= ENOUGH
    }

    /// How many of protocol 4's probes were silent behind the last router that answers it, where UDP's are answered.
    fn silent_where_udp_is_answered(&self) -> usize {
        let last = self.last().map_or(0, |(ttl, _)| ttl);
        let silent = |ttl: &u8| self.unanswered.get(ttl).copied().unwrap_or(0);
        let behind = self.control.range(last + 1..).map(|(ttl, _)| silent(ttl));
        behind.sum()
    }

    /// Where protocol 4 dies and how far UDP gets, in words.
    pub(super) fn place(&self, rip: Ipv4Addr) -> Option<String> {
        let at = |(ttl, router): (u8, Ipv4Addr)| format!("{router} (TTL {ttl})");
        let furthest = self.control.iter().next_back();
        let furthest = furthest.map(|(ttl, (router, _))| at((*ttl, *router)));
        if self.udp_arrives() {
            return Some(match (self.last(), self.next()) {
                (Some(last), Some(next)) => format!(
                    "UDP passes to {rip}, protocol 4 dies after {}: {} never answers it",
                    at(last),
                    at(next)
                ),
                (None, Some(next)) => format!(
                    "UDP passes to {rip}, protocol 4 does not get to {}, the first router that answers UDP",
                    at(next)
                ),
                (Some(last), None) => format!(
                    "UDP passes to {rip}, and protocol 4 as far as {}, the last router that answers",
                    at(last)
                ),
                (None, None) => {
                    format!(
                        "UDP passes to {rip}, and no router's answer shows how far protocol 4 gets"
                    )
                }
            });
        }
        if self.whole < SOME {
            return None;
        }
        Some(match (self.last().map(at), furthest) {
            (Some(last), Some(furthest)) if last == furthest => {
                format!("UDP dies, too: both get as far as {last}")
            }
            (Some(last), Some(furthest)) => {
                format!("UDP dies, too: it gets as far as {furthest}, protocol 4 as far as {last}")
            }
            (None, Some(furthest)) => format!(
                "UDP dies, too: it gets as far as {furthest}, and no router answers protocol 4"
            ),
            (Some(last), None) => {
                format!("UDP dies, too, and no router answers it; protocol 4 gets as far as {last}")
            }
            (None, None) => "UDP dies, too, and no router answers either".to_owned(),
        })
    }

    /// What the comparison rests on.
    pub(super) fn evidence(&self) -> Vec<EvidenceId> {
        let last = self.tunnel.values().next_back().map(|(_, id)| *id);
        let passed = self.last().map_or(0, |(ttl, _)| ttl);
        let next = self.control.range(passed + 1..).next();
        last.into_iter()
            .chain(next.map(|(_, (_, id))| *id))
            .chain(self.arrived)
            .collect()
    }
}

/// What the director alone can say of packets that leave it and of which nothing is heard again.
pub(super) fn from_the_director(case: &mut Case<'_>) {
    let Some(found) = Comparison::of(case) else {
        return;
    };
    let rip = case.path.rip;
    let Some(place) = found.place(rip) else {
        return;
    };
    let would = format!(
        "a vantage at `realserver` ({}) would decide",
        case.name(case.realserver())
    );
    let filtered = found.udp_arrives() && found.next().is_some() && found.is_different();
    let reason = match (found.udp_arrives(), filtered) {
        (true, true) => format!(
            "{place}. A filter of protocol 4, or one of the routers' answers about it; {would}"
        ),
        (true, false) => format!(
            "{place}. The real server, what stands before it, or the way back of its answers; {would}"
        ),
        (false, _) => {
            format!("nothing that {rip} answers reaches the director: {place}; {would}")
        }
    };
    case.unproven(Hop::DirectorToRealserver, reason.clone());
    if filtered {
        let fix = gue(case);
        case.findings.push(Finding {
            code: Code::TunnelLostInTransit,
            severity: Severity::Note,
            hop: Hop::DirectorToRealserver,
            summary: place,
            detail: format!("{reason}. IPIP in UDP (GUE) would pass."),
            fix,
            evidence: found.evidence(),
        });
    }
}

/// What to type for GUE, which is UDP to the network between.
pub(super) fn gue(case: &Case<'_>) -> Vec<String> {
    let (vip, rip, port) = (case.path.vip, case.path.rip, case.path.port);
    let flag = match case.path.protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
    };
    // An edit without a weight sets it to 1.
    let weight = match case.facts(Host::Director).map(|facts| &facts.ipvs) {
        Some(Ipvs::Services(services)) => services
            .iter()
            .flat_map(|service| &service.destinations)
            .find(|destination| destination.address == rip)
            .map_or(1, |destination| destination.weight),
        _ => 1,
    };
    let edit = format!(
        "ipvsadm -e {flag} {vip}:{port} -r {rip} -i --tun-type gue --tun-port {GUE_PORT} -w {weight}"
    );
    vec![
        case.on(
            case.realserver(),
            format!("modprobe fou && ip fou add port {GUE_PORT} gue"),
        ),
        case.on(Host::Director, edit),
    ]
}
