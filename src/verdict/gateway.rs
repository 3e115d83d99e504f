//! The hop between the real server and its gateway: ARP (HOWTO Q4).

use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::Proof;
use crate::evidence::What;
use crate::exchange::Direction;
use crate::exchange::Link;
use crate::exchange::Wall;
use crate::matching::Arp;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::Severity;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::case::sysctl;

/// How many of our own ARP requests must stay unanswered.
const ARP_TRIES: usize = 3;

/// HOWTO Q4: the gateway must answer whichever sender address the kernel uses.
pub(super) fn judge(case: &mut Case<'_>) {
    let server = case.realserver();
    if case.evidence.host(server).is_none() || case.evidence.hears(server).is_err() {
        return;
    }
    vip_advertised(case);
    let (vip, gateway) = (case.path.vip, case.evidence.asked_gateway(case.number));
    let Some(gateway) = gateway else { return };
    let requests = |sender_is_vip: bool, ours: bool| {
        arps(case, |arp| {
            arp.operation == Arp::REQUEST
                && arp.target == gateway
                && (arp.sender == vip) == sender_is_vip
                && arp.is_ours() == ours
        })
    };
    let replies = |to_vip: bool| {
        arps(case, |arp| {
            arp.operation == Arp::REPLY && arp.sender == gateway && (arp.target == vip) == to_vip
        })
    };
    let (kernel_vip, kernel_own) = (requests(true, false), requests(false, false));
    let (ours_vip, ours_own) = (requests(true, true), requests(false, true));
    let (to_vip, to_own) = (replies(true), replies(false));
    let kernel_uses_vip = !kernel_vip.is_empty();
    if kernel_uses_vip && to_vip.is_empty() && ours_vip.len() >= ARP_TRIES && !to_own.is_empty() {
        let device = arp_device(case, kernel_vip[0]);
        let evidence = vec![kernel_vip[0], ours_vip[0], to_own[0]];
        imply_answer(case, kernel_vip[0]);
        case.broken(Break {
            code: Code::GatewayDropsVipArp,
            hop: Hop::GatewayArp,
            between: None,
            summary: format!("the gateway {gateway} does not answer `who-has {gateway} tell {vip}`"),
            detail: format!(
                "It answers the same question told to the real server's own address. The kernel asks with \
                 the VIP as the sender whenever a packet from the VIP finds no neighbour entry \
                 (arp_announce 0 on {device}). Of its requests {}, of ours {} were not answered. Where \
                 the kernel has the patch, `hidden` does the same.",
                kernel_vip.len(),
                ours_vip.len()
            ),
            fix: vec![
                case.on(server, format!("sysctl -w {}=2", sysctl(&device, "arp_announce"))),
            ],
            evidence,
        });
        return;
    }
    let nothing = to_vip.is_empty() && to_own.is_empty();
    // What answers the director, or comes from another address, may take another way.
    let cip = case.path.cip;
    let time = |id: EvidenceId| case.evidence.item(id).map(|item| item.time);
    let left: Vec<Wall> = case
        .evidence
        .passages(case.number)
        .filter(|p| {
            let ends = [p.probe.flow.source, p.probe.flow.destination];
            ends == [vip, cip] || ends == [cip, vip]
        })
        .flat_map(|p| p.waypoints.iter().zip(p.seen))
        .filter(|(waypoint, _)| waypoint.station == Station::RealserverOut)
        .filter_map(|(_, seen)| time((*seen)?))
        .collect();
    // The entry that the kernel had is forgotten for the proof: what left before it first asked, left by that.
    let all_requests = [&kernel_vip, &kernel_own, &ours_vip, &ours_own];
    let first_request = all_requests
        .into_iter()
        .flatten()
        .filter_map(|id| time(*id))
        .min();
    let emitted = left.iter().any(|time| Some(*time) >= first_request);
    let asked = kernel_uses_vip || !kernel_own.is_empty();
    if asked && nothing && emitted && !case.is_proven(Hop::GatewayArp) {
        let reason = format!(
            "packets left by way of {gateway}, whose hardware address the kernel had learnt otherwise: it answers no ARP \
             request, and whether that lasts is not decided"
        );
        case.unproven(Hop::GatewayArp, reason);
        return;
    }
    if nothing && !emitted && ours_own.len() >= ARP_TRIES {
        let device = arp_device(case, ours_own[0]);
        if let Some(first) = kernel_vip.first() {
            imply_answer(case, *first);
        }
        let evidence = ours_own
            .iter()
            .take(1)
            .chain(kernel_own.iter().take(1))
            .copied()
            .collect();
        case.broken(Break {
            code: Code::GatewayUnreachable,
            hop: Hop::GatewayArp,
            between: None,
            summary: format!("the gateway {gateway} answers no ARP request"),
            detail: format!(
                "{} requests on {device} were not answered.{}",
                ours_own.len(),
                if left.is_empty() {
                    ""
                } else {
                    " What left before the first of them, left by the neighbour entry that the kernel still had: \
                     it is put back, and works until the kernel asks again."
                }
            ),
            fix: vec![
                case.on(server, format!("arping -c 3 -I {device} {gateway}")),
                case.on(server, format!("ip link show {device}; ip route")),
            ],
            evidence,
        });
    }
}

pub(super) fn arps(case: &Case<'_>, wanted: impl Fn(&Arp) -> bool) -> Vec<EvidenceId> {
    let server = case.realserver();
    case.evidence
        .arps(server)
        .filter(|(_, arp)| wanted(arp))
        .map(|(item, _)| item.id)
        .collect()
}

fn arp_device(case: &Case<'_>, id: EvidenceId) -> String {
    match case.evidence.item(id).map(|item| &item.what) {
        Some(What::Arp { capture, .. }) => capture.device.clone(),
        _ => "DEV".to_owned(),
    }
}

/// A kernel that asks for the gateway with the VIP as the sender has a packet from the VIP to send: if
/// packets came out of the tunnel, it accepted them.
fn imply_answer(case: &mut Case<'_>, request: EvidenceId) {
    if case.is_proven(Hop::Decapsulation) {
        let proof = Proof {
            seen: false,
            evidence: vec![request],
        };
        case.proofs.entry(Hop::RealserverAccept).or_insert(proof);
    }
}

/// The real server says by ARP that the VIP is its own, on a link where others believe it.
fn vip_advertised(case: &mut Case<'_>) {
    let (server, vip) = (case.realserver(), case.path.vip);
    let Some(facts) = case.facts(server) else {
        return;
    };
    let on_link = |link: &&Link| {
        !link.loopback
            && !link.noarp
            && link
                .addresses
                .iter()
                .any(|address| (1..32).contains(&address.prefix) && address.contains(vip))
    };
    let on_link = facts
        .links
        .iter()
        .find(on_link)
        .map(|link| link.name.clone());
    let stolen = past_the_director(case);
    // Who asks a host for the VIP has it on-link, and who believes its requests, whatever its own subnets are.
    let tells = |item: &&Item| {
        matches!(&item.what, What::Arp { arp, capture } if arp.sender == vip && !arp.is_ours()
            && capture.direction == Direction::Out
            && (arp.operation == Arp::REPLY || !stolen.is_empty()
                || on_link.as_ref() == Some(&capture.device)))
    };
    let told: Vec<EvidenceId> = case
        .evidence
        .arps(server)
        .map(|(item, _)| item)
        .filter(tells)
        .map(|item| item.id)
        .collect();
    let Some(first) = told.first().copied() else {
        return;
    };
    let device = arp_device(case, first);
    let summary = format!("the real server advertises the VIP {vip} by ARP on {device}");
    let fix = vec![
        case.on(
            server,
            format!("sysctl -w {}=2", sysctl(&device, "arp_announce")),
        ),
        case.on(
            server,
            format!("sysctl -w {}=1", sysctl(&device, "arp_ignore")),
        ),
    ];
    match stolen.first() {
        Some(packet) => {
            let evidence = vec![first, *packet];
            case.broken(Break {
                code: Code::VipAdvertised,
                hop: Hop::GatewayArp,
                between: None,
                summary,
                detail: "The network believes it: packets for the VIP come to the real server without a \
                         tunnel, past the director."
                    .to_owned(),
                fix,
                evidence,
            });
        }
        None => case.findings.push(Finding {
            code: Code::VipAdvertised,
            severity: Severity::Warning,
            hop: Hop::GatewayArp,
            summary,
            detail: "The VIP is on-link there: whoever believes it sends the director's packets to the real \
                     server."
                .to_owned(),
            fix,
            evidence: told,
        }),
    }
}

/// Packets for the VIP that came to the real server in no tunnel, and that the director never had.
fn past_the_director(case: &Case<'_>) -> Vec<EvidenceId> {
    let vip = case.path.vip;
    let arrived = case.sightings(&[], |item, sighting| {
        item.station == Some(Station::RealserverIn)
            && sighting.outer.is_none()
            && sighting.destination == vip
            && matches!(sighting.form, Form::Plain | Form::Rst)
    });
    let at_director = |id: &EvidenceId| {
        let Some(arrived) = case.sighting(*id) else {
            return false;
        };
        let form = arrived.form;
        let mut sightings = case.evidence.sightings(arrived.probe);
        sightings.any(|(item, seen)| item.host == Host::Director && seen.form == form)
    };
    arrived.into_iter().filter(|id| !at_director(id)).collect()
}

/// In words: which real server gets what is for the VIP, past the director.
pub(super) fn who_gets_past_the_director(case: &Case<'_>) -> Option<String> {
    let first = past_the_director(case).first().copied()?;
    let host = case.evidence.item(first)?.host;
    Some(format!(
        "packets for the VIP come to {}, past the director",
        case.name(host)
    ))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::evidence::Evidence;
    use crate::exchange::Address;
    use crate::exchange::Capture;
    use crate::exchange::HostFacts;
    use crate::exchange::TapStatistics;
    use crate::matching::Certainty;
    use crate::matching::Sighting;
    use crate::plan::Path;
    use crate::plan::Plan;
    use crate::plan::Probe;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;
    use crate::plan::Protocol;
    use crate::plan::SessionKey;

    const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

    fn capture(direction: Direction) -> Capture {
        Capture {
            time: Wall::default(),
            device: "eth0".to_owned(),
            hardware: 1,
            direction,
            protocol: Capture::ARP,
            link_source: None,
            bytes: Vec::new(),
            original_length: 0,
        }
    }

    /// A real server on the VIP's own link, whose kernel asked for somebody with the VIP as the sender.
    fn advertised() -> Evidence {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: VIP,
            port: 80,
            protocol: Protocol::Tcp,
            rip: RIP,
            dip: None,
            cip: CIP,
            gateway: None,
            tunnel: None,
        };
        let host = Host::Realserver(0);
        let mut evidence = Evidence::new(Plan {
            session: SessionKey::new([1; 16]),
            paths: vec![path],
            vantages: vec![host],
            ingress: None,
            egress: None,
            suites: Vec::new(),
        });
        let record = evidence.host_mut(host);
        record.tap_open = true;
        record.statistics = Some(TapStatistics::default());
        record.before = Some(HostFacts {
            links: vec![Link {
                mac: Some([2, 0, 0, 0, 0, 1]),
                ..Link::eth0(vec![Address {
                    ip: RIP,
                    prefix: 24,
                }])
            }],
            ..HostFacts::default()
        });
        let arp = Arp {
            operation: Arp::REQUEST,
            sender_mac: [2, 0, 0, 0, 0, 1],
            sender: VIP,
            target_mac: [0; 6],
            target: Ipv4Addr::new(203, 0, 113, 1),
        };
        let what = What::Arp {
            arp,
            capture: capture(Direction::Out),
        };
        let station = Some(Station::RealserverArp);
        evidence.append(host, station, Wall::default(), (None, Some(0)), what);
        evidence
    }

    #[test]
    fn a_vip_advertised_on_its_own_link_is_a_warning() {
        let mut evidence = advertised();
        let mut case = Case::new(&mut evidence, 0);
        judge(&mut case);
        let found: Vec<_> = case.findings.iter().map(|f| (f.code, f.severity)).collect();
        assert_eq!(found, [(Code::VipAdvertised, Severity::Warning)]);
        assert!(!case.is_broken(Hop::GatewayArp));
    }

    #[test]
    fn packets_that_come_past_the_director_make_it_the_break() {
        let mut evidence = advertised();
        let id = ProbeId {
            kind: ProbeKind::Service,
            index: 0,
        };
        let plan = evidence.plan().clone();
        let probe = Probe::new(id, 0, &plan.paths[0], &plan.session).unwrap();
        let sighting = Sighting {
            probe: id,
            form: Form::Plain,
            certainty: Certainty::Fields,
            source: CIP,
            destination: VIP,
            ttl: 60,
            outer: None,
            flow: Some(probe.flow),
            inner_ttl: Some(60),
            sent_ttl: None,
            quoted: None,
            next_hop_mtu: None,
            maximum_segment_size: None,
        };
        evidence.add_probe(probe);
        let what = What::Seen {
            sighting,
            altered: Vec::new(),
            capture: capture(Direction::In),
        };
        let station = Some(Station::RealserverIn);
        let host = Host::Realserver(0);
        evidence.append(host, station, Wall::default(), (Some(id), None), what);
        let mut case = Case::new(&mut evidence, 0);
        judge(&mut case);
        let found: Vec<_> = case.findings.iter().map(|f| (f.code, f.severity)).collect();
        assert_eq!(found, [(Code::VipAdvertised, Severity::Error)]);
        assert!(case.is_broken(Hop::GatewayArp));
    }
}
