//! The hop between the real server and its gateway: ARP (HOWTO Q4).

use crate::evidence::EvidenceId;
use crate::evidence::Proof;
use crate::evidence::What;
use crate::exchange::Direction;
use crate::exchange::Link;
use crate::matching::Arp;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::Severity;
use crate::verdict::case::Break;
use crate::verdict::case::Case;

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
                 (arp_announce 0 on {device}); {} requests of the kernel and {} of ours were not answered. Where \
                 the kernel has the patch, `hidden` does the same.",
                kernel_vip.len(),
                ours_vip.len()
            ),
            fix: vec![
                case.on(server, format!("sysctl -w net.ipv4.conf.{device}.arp_announce=2")),
            ],
            evidence,
        });
        return;
    }
    let nothing = to_vip.is_empty() && to_own.is_empty();
    let emitted = case.evidence.passages(case.number).any(|p| {
        p.waypoints
            .iter()
            .zip(&p.seen)
            .any(|(w, s)| w.station == Station::RealserverOut && s.is_some())
    });
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
            detail: format!("{} requests on {device} were not answered.", ours_own.len()),
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
        .items()
        .iter()
        .filter(|item| {
            item.host == server && matches!(&item.what, What::Arp { arp, .. } if wanted(arp))
        })
        .map(|item| item.id)
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
    let bits = |ip: std::net::Ipv4Addr, prefix: u8| u32::from(ip) >> (32 - u32::from(prefix));
    let on_link = |link: &&Link| {
        !link.loopback
            && !link.noarp
            && link.addresses.iter().any(|address| {
                (1..32).contains(&address.prefix)
                    && bits(address.ip, address.prefix) == bits(vip, address.prefix)
            })
    };
    let Some(device) = facts
        .links
        .iter()
        .find(on_link)
        .map(|link| link.name.clone())
    else {
        return;
    };
    let told: Vec<EvidenceId> = case
        .evidence
        .items()
        .iter()
        .filter(|item| item.host == server)
        .filter(|item| {
            matches!(&item.what, What::Arp { arp, capture } if arp.sender == vip && !arp.is_ours()
                && capture.direction == Direction::Out)
        })
        .map(|item| item.id)
        .collect();
    let Some(first) = told.first().copied() else {
        return;
    };
    let stolen = case.sightings(&[], |item, sighting| {
        item.station == Some(Station::RealserverIn)
            && sighting.destination == vip
            && matches!(sighting.form, Form::Plain | Form::Rst)
    });
    let summary = format!("the real server advertises the VIP {vip} by ARP on {device}");
    let fix = vec![
        case.on(
            server,
            format!("sysctl -w net.ipv4.conf.{device}.arp_announce=2"),
        ),
        case.on(
            server,
            format!("sysctl -w net.ipv4.conf.{device}.arp_ignore=1"),
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
