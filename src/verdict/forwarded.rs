//! A real server that forwards packets for the VIP instead of taking them: the inner packet leaves it again,
//! with a lower time to live.

use crate::evidence::EvidenceId;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;

/// Probes that, sent by the director, have no business coming to it again.
const SENT_HERE: [ProbeKind; 5] = [
    ProbeKind::TunnelUdp,
    ProbeKind::TunnelSyn,
    ProbeKind::Reflect,
    ProbeKind::ReflectSyn,
    ProbeKind::IpvsLoop,
];

/// Breaks `realserver-accept` if a packet that came out of the tunnel was forwarded; says whether one was.
pub(super) fn judge(case: &mut Case<'_>) -> bool {
    let vip = case.path.vip;
    let plain_at = |kinds: &[ProbeKind], at| {
        case.sightings(kinds, |item, sighting| {
            item.station == Some(at) && sighting.form == Form::Plain && sighting.destination == vip
        })
        .first()
        .copied()
    };
    let left = plain_at(&[], Station::RealserverOut);
    let back = plain_at(&SENT_HERE, Station::DirectorIn);
    let Some(first) = left.or(back) else {
        return false;
    };
    let server = case.realserver();
    let has_vip = case.facts(server).map(|facts| {
        let routed = matches!(
            case.route(server, vip, None, None),
            Some(RouteAnswer::Route(route)) if route.kind == RouteKind::Local
        );
        facts.is_local(vip) || routed
    });
    let name = case.name(server);
    let went = [
        left.and_then(|id| ttls(case, id)).map(|(before, after)| {
            format!("it left {name} again with TTL {after}, after TTL {before}")
        }),
        back.and_then(|id| ttls(case, id)).map(|(before, after)| {
            format!(
                "it came to the director, which had sent it with TTL {before}, with TTL {after}"
            )
        }),
    ];
    let went: Vec<String> = went.into_iter().flatten().collect();
    let to = match back {
        Some(_) => "forwards packets for the VIP back to the director, a loop,",
        None => "forwards packets for the VIP",
    };
    let why = match has_vip {
        Some(true) => "It has the VIP, so a policy rule or another routing table sends it on.",
        Some(false) => "It does not have the VIP, and forwards.",
        None => "It does not have the VIP, or a policy rule comes before it.",
    };
    let fix = match has_vip {
        Some(true) => vec![case.on(server, "ip rule; ip route show table all")],
        _ => case.add_vip(&device(case)),
    };
    let silence = case.silence(Some(Station::RealserverTunnel), Station::RealserverOut, &[]);
    let mut evidence = vec![first];
    evidence.extend(back.filter(|back| *back != first));
    evidence.extend(silence.as_ref().map(|silence| case.cite_silence(silence)));
    if has_vip == Some(false) {
        let command = format!("ip addr show to {vip}");
        evidence.push(case.cite_fact(server, format!("{vip} is on no device"), command));
    }
    case.broken(Break {
        code: Code::VipNotLocal,
        hop: Hop::RealserverAccept,
        between: silence.map(|_| (Station::RealserverTunnel, Station::RealserverOut)),
        summary: format!("the real server {to} instead of taking them"),
        detail: format!(
            "The inner packet came out of the tunnel, and {}. {why}",
            went.join("; ")
        ),
        fix,
        evidence,
    });
    true
}

/// The time to live before and after: as it came out of the tunnel, or else as it was sent.
fn ttls(case: &Case<'_>, id: EvidenceId) -> Option<(u8, u8)> {
    let sighting = case.sighting(id)?;
    let at = case.evidence.item(id)?.station?;
    let probe = case.evidence.probe(sighting.probe)?;
    let in_tunnel = case
        .evidence
        .sightings(sighting.probe)
        .filter(|(item, _)| item.station == Some(Station::RealserverTunnel))
        .find_map(|(_, seen)| seen.inner_ttl)
        .filter(|_| at == Station::RealserverOut);
    Some((in_tunnel.unwrap_or(probe.ttl), sighting.inner_ttl?))
}

/// The tunnel device, by the name that it mostly has where its own is not known.
fn device(case: &Case<'_>) -> String {
    let known = case.facts(case.realserver()).and_then(|facts| {
        let mut tunnels = facts
            .links
            .iter()
            .filter(|link| case.path.is_tunnel(&link.name, link.kind.as_deref()));
        tunnels.next().map(|link| link.name.clone())
    });
    known
        .or_else(|| case.path.tunnel.clone())
        .unwrap_or_else(|| "tunl0".to_owned())
}
