//! The hop `director-to-realserver`: does protocol 4 leave, and does it arrive?

use std::collections::HashSet;
use std::time::Duration;

use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::exchange::Direction;
use crate::exchange::Neighbour;
use crate::exchange::RouteAnswer;
use crate::exchange::Wall;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Quoting;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::director::CRAFTED;
use crate::verdict::protocol4;
use crate::verdict::protocol4::Comparison;

/// So long packets must be refused to be more than unlucky.
const LASTING: Duration = Duration::from_secs(1);

const DIRECTOR: Host = Host::Director;

/// Does protocol 4 leave, and does it arrive?
pub(super) fn judge(case: &mut Case<'_>) {
    if case.is_proven(Hop::DirectorToRealserver) || case.is_broken(Hop::DirectorSource) {
        return;
    }
    let rip = case.path.rip;
    let forbidden = case.forbidden(&CRAFTED);
    let silent = case.silence(None, Station::DirectorOut, &CRAFTED);
    if let (Some(silence), Some(next_hop)) = (&silent, dead_next_hop(case)) {
        let Neighbour { ip, device, .. } = next_hop;
        let command = format!("ip neigh show {ip} dev {device}");
        let summary = format!("{ip} on {device} does not answer ARP");
        let evidence = vec![
            case.cite_silence(silence),
            case.cite_fact(DIRECTOR, &summary, &command),
        ];
        case.broken(Break {
            code: Code::NextHopUnreachable,
            hop: Hop::DirectorToRealserver,
            between: None,
            summary: format!("the director's next hop to {rip} does not answer: {summary}"),
            detail: "The packets wait for a hardware address that never comes, and are dropped."
                .to_owned(),
            fix: vec![
                case.on(DIRECTOR, format!("arping -c 3 -I {device} {ip}")),
                case.on(DIRECTOR, format!("ip route get {rip}")),
            ],
            evidence,
        });
        return;
    }
    if forbidden.len() < 3 && silent.is_some() && !lets_others_leave(case) {
        let reason = "the tunnelled packets were handed to the kernel and none was seen to leave, nor any other of ours \
                      by the same device: whether its firewall drops them is not decided";
        case.unproven(Hop::DirectorToRealserver, reason.to_owned());
        return;
    }
    if forbidden.len() >= 3 || silent.is_some() {
        let mut evidence: Vec<_> = forbidden.into_iter().take(1).collect();
        if let Some(silence) = silent {
            evidence.push(case.cite_silence(&silence));
        }
        case.broken(Break {
            code: Code::DirectorFirewallEgress,
            hop: Hop::DirectorToRealserver,
            between: None,
            summary: format!("the director's own firewall drops IPIP packets to {rip}"),
            detail:
                "The packets were handed to the kernel and none left: something on the director's \
                     OUTPUT or POSTROUTING path drops protocol 4."
                    .to_owned(),
            fix: case.rules(DIRECTOR),
            evidence,
        });
        return;
    }
    let compared = Compared::of(case);
    let rejections = rejections(case);
    let lost = case.silence(Some(Station::DirectorOut), Station::RealserverIn, &[]);
    // Of a router that says so rarely one word is enough where all packets are lost, or none gets past it later.
    let rejected = rejections
        .first()
        .filter(|_| compared.stops || lasts(case, &rejections) || lost.is_some());
    if let Some(&id) = rejected {
        let Some(sighting) = case.sighting(id).cloned() else {
            return;
        };
        let Form::IcmpError {
            icmp_type, code, ..
        } = sighting.form
        else {
            return;
        };
        case.broken(Break {
            code: Code::TunnelRejected,
            hop: Hop::DirectorToRealserver,
            between: None,
            summary: format!("{} refuses the IPIP packets to {rip}", sighting.source),
            detail: format!(
                "It answered the director with ICMP type {icmp_type} code {code}, quoting the tunnel \
                 header: it is the router or host that drops them.{}",
                match compared.udp_arrives {
                    true => " UDP passes: IPIP in UDP (GUE) would, too.",
                    false => "",
                }
            ),
            fix: compared.fix,
            evidence: [id].into_iter().chain(compared.evidence).collect(),
        });
        return;
    }
    if let Some(silence) = lost {
        let mut evidence = vec![case.cite_silence(&silence), silence.evidence[0]];
        evidence.extend(compared.evidence);
        let place = compared
            .place
            .map_or_else(String::new, |p| format!(": {p}"));
        let mut fix = compared.fix;
        fix.push(case.on(case.realserver(), "tcpdump -ln -i any 'ip proto 4'"));
        case.broken(Break {
            code: Code::TunnelLostInTransit,
            hop: Hop::DirectorToRealserver,
            between: Some((Station::DirectorOut, Station::RealserverIn)),
            summary: format!("IPIP packets leave the director and do not reach {rip}{place}"),
            detail: format!(
                "{} of them left the director and none arrived.{}",
                silence.probes.len(),
                compared.words
            ),
            fix,
            evidence,
        });
        return;
    }
    if case.evidence.hears(case.realserver()).is_err() {
        protocol4::from_the_director(case);
    }
}

/// What the sweeps of protocol 4 and of UDP add to a break.
struct Compared {
    udp_arrives: bool,
    stops: bool,
    place: Option<String>,
    words: String,
    fix: Vec<String>,
    evidence: Vec<EvidenceId>,
}

impl Compared {
    fn of(case: &Case<'_>) -> Compared {
        let rip = case.path.rip;
        let found = Comparison::of(case);
        let place = found.as_ref().and_then(|found| found.place(rip));
        let passes = found.as_ref().is_some_and(Comparison::udp_arrives);
        let mut fix = match passes {
            true => protocol4::gue(case),
            false => Vec::new(),
        };
        fix.insert(0, case.on(DIRECTOR, format!("traceroute -n {rip}")));
        Compared {
            words: match (&place, passes) {
                (Some(place), true) => format!(
                    " {place}. A router or firewall there filters IP protocol 4: its operator can let it \
                     pass; IPIP in UDP (GUE) passes as it is."
                ),
                (Some(place), false) => {
                    format!(" {place}. It is no matter of protocol 4 alone.")
                }
                (None, _) => format!(
                    " A router or firewall between drops IP protocol 4 (or everything) on the way to {rip}."
                ),
            },
            udp_arrives: passes,
            stops: found.as_ref().is_some_and(Comparison::stops_at_a_router),
            place,
            fix,
            evidence: found.map(|found| found.evidence()).unwrap_or_default(),
        }
    }
}

/// ICMP errors from anyone but the real server that quote the tunnel, one for each probe.
fn rejections(case: &Case<'_>) -> Vec<EvidenceId> {
    let rip = case.path.rip;
    let mut errors = case.sightings(&[], |item, sighting| {
        item.station == Some(Station::DirectorIn)
            && sighting.source != rip
            && matches!(sighting.form, Form::IcmpError { of: Quoting::Tunnelled, icmp_type: 3, code }
                if code != 4)
    });
    let mut probes = HashSet::new();
    errors.retain(|id| {
        let probe = case.sighting(*id).map(|sighting| sighting.probe);
        probes.insert(probe)
    });
    errors
}

/// Whether they go on, and are not those of a router that lacks a route for a moment. Routers limit what they send
/// of them, so not every packet has its own.
fn lasts(case: &Case<'_>, rejections: &[EvidenceId]) -> bool {
    let items = rejections.iter().filter_map(|id| case.evidence.item(*id));
    let times: Vec<Wall> = items.map(|item| item.time).collect();
    let (first, last) = (times.iter().min(), times.iter().max());
    first
        .zip(last)
        .is_some_and(|(first, last)| last.distance(*first) >= LASTING)
}

/// Whether the device that leads to the real server is known to let packets leave, or the kernel says that it drops
/// ours: one that was not set going yet drops everything, too.
fn lets_others_leave(case: &Case<'_>) -> bool {
    let device = match case.route(DIRECTOR, case.path.rip, None, None) {
        Some(RouteAnswer::Route(route)) => route.device.clone(),
        _ => None,
    };
    case.evidence.items().iter().any(|item| {
        item.host == DIRECTOR
            && match &item.what {
                What::Seen { capture, .. } => {
                    capture.direction == Direction::Out && Some(&capture.device) == device.as_ref()
                }
                What::Drop { .. } => true,
                _ => false,
            }
    })
}

/// The director's next hop to the real server, if the kernel could not resolve it.
fn dead_next_hop(case: &Case<'_>) -> Option<Neighbour> {
    let route = match case.route(DIRECTOR, case.path.rip, None, None)? {
        RouteAnswer::Route(route) => route,
        RouteAnswer::Error { .. } => return None,
    };
    let next_hop = route.gateway.unwrap_or(case.path.rip);
    let after = case.evidence.host(DIRECTOR)?.after.as_ref()?;
    after
        .neighbours
        .iter()
        .find(|entry| entry.ip == next_hop && Some(&entry.device) == route.device.as_ref())
        .filter(|entry| entry.state & (Neighbour::FAILED | Neighbour::INCOMPLETE) != 0)
        .cloned()
}
