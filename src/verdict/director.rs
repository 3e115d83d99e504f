//! The director's hops: from the client's packet to the tunnel's far end.

use crate::evidence::EvidenceId;
use crate::evidence::Silence;
use crate::exchange::Ipvs;
use crate::exchange::IpvsKey;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::alone;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::duplicate;
use crate::verdict::duplicate::Claim;
use crate::verdict::foreign;
use crate::verdict::gateway;
use crate::verdict::ipvs;
use crate::verdict::mtu;
use crate::verdict::transit;

/// Probes that the director's own IPVS encapsulates.
pub(super) const SCHEDULED: [ProbeKind; 2] = [ProbeKind::IpvsLoop, ProbeKind::Service];
/// Probes that tunproof encapsulates.
pub(super) const CRAFTED: [ProbeKind; 3] = [
    ProbeKind::TunnelUdp,
    ProbeKind::TunnelSyn,
    ProbeKind::Reflect,
];
const DIRECTOR: Host = Host::Director;

/// Judges `client-to-director` to `director-to-realserver`.
pub(super) fn judge(case: &mut Case<'_>) {
    client_to_director(case);
    source(case);
    forward(case);
    if !foreign::dip(case) {
        transit::judge(case);
        mtu::judge(case);
    }
}

fn client_to_director(case: &mut Case<'_>) {
    if case.is_proven(Hop::ClientToDirector) {
        return;
    }
    if let Some(thief) = gateway::who_gets_past_the_director(case) {
        case.unproven(Hop::ClientToDirector, thief);
        return;
    }
    let silence = case.silence(
        Some(Station::ClientOut),
        Station::DirectorIn,
        &[ProbeKind::Service],
    );
    if let Some(silence) = silence {
        let evidence = vec![case.cite_silence(&silence), silence.evidence[0]];
        let (vip, cip) = (case.path.vip, case.path.cip);
        let between = Some((Station::ClientOut, Station::DirectorIn));
        if let Some(claim) = duplicate::culprit(case) {
            stolen(case, Hop::ClientToDirector, between, &claim, evidence);
            return;
        }
        case.broken(Break {
            code: Code::ClientPacketsLost,
            hop: Hop::ClientToDirector,
            between,
            summary: format!("what {cip} sends to {vip} does not reach the director"),
            detail: format!(
                "{} packets left the client for the VIP and none was seen at the director. The network \
                 between routes {vip} elsewhere, or drops it.",
                silence.probes.len()
            ),
            fix: vec![
                case.on(Host::Client, format!("traceroute -n {vip}")),
                case.on(DIRECTOR, format!("tcpdump -ln -i any host {cip}")),
            ],
            evidence,
        });
    }
}

/// What is for the VIP is lost before the director, and another host claims the VIP on its link.
pub(super) fn stolen(
    case: &mut Case<'_>,
    hop: Hop,
    between: Option<(Station, Station)>,
    claim: &Claim,
    mut evidence: Vec<EvidenceId>,
) {
    evidence.push(claim.evidence);
    let (vip, mac) = (case.path.vip, duplicate::hardware(claim.mac));
    case.broken(Break {
        code: Code::DuplicateVip,
        hop,
        between,
        summary: format!("what is for {vip} does not reach the director, and another host, {mac}, claims it on its link"),
        detail: "That host says by ARP that the VIP is its own: a backup director that kept it, a real server that does not hide it, an address given \
                 twice."
            .to_owned(),
        fix: duplicate::fix(case, claim),
        evidence,
    });
}

/// Q1: the outer source of what the kernel itself encapsulates.
fn source(case: &mut Case<'_>) {
    if let Some(RouteAnswer::Error { error, .. }) = case.route(DIRECTOR, case.path.rip, None, None)
        && !case.is_proven(Hop::DirectorToRealserver)
    {
        let rip = case.path.rip;
        let command = format!("ip route get {rip}");
        let mut evidence = case.unsendable(&CRAFTED, |_| true);
        evidence.truncate(1);
        evidence.push(case.cite_fact(DIRECTOR, format!("{command}: {error}"), &command));
        case.broken(Break {
            code: Code::NoRouteToRealserver,
            hop: Hop::DirectorSource,
            between: None,
            summary: format!("the director has no route to the real server {rip}"),
            detail: format!("`{command}` says: {error}. Nothing can be tunnelled there."),
            fix: vec![
                case.on(DIRECTOR, format!("ip route add {rip} via GATEWAY")),
                case.on(DIRECTOR, &command),
            ],
            evidence,
        });
        return;
    }
    let encapsulated_at = |station| {
        case.sightings(&SCHEDULED, |item, sighting| {
            item.station == Some(station) && sighting.form == Form::Tunnelled
        })
    };
    let mut encapsulated = encapsulated_at(Station::DirectorOut);
    encapsulated.extend(encapsulated_at(Station::RealserverIn));
    let observed = encapsulated
        .first()
        .and_then(|id| Some((*id, case.sighting(*id)?.outer?.source)));
    if let Some((seen, source)) = observed
        && Some(source) == case.path.dip
    {
        alone::source_is_taken(case, seen);
    }
    if case.is_proven(Hop::DirectorSource) {
        return;
    }
    source_by_fact(case, observed.is_some());
    // Without a packet that the kernel encapsulated, the source that it would choose.
    let chosen = match case.route(DIRECTOR, case.path.rip, None, None) {
        Some(RouteAnswer::Route(route)) => route.source,
        _ => None,
    };
    if observed.is_none() && foreign::preferred(case, chosen) {
        return;
    }
    let Some(source) = observed.map(|(_, source)| source).or(chosen) else {
        return;
    };
    let on_realserver = case
        .facts(case.realserver())
        .and_then(|facts| facts.holds(source))
        .map(|link| link.name.clone());
    let (vip, rip, dip) = (case.path.vip, case.path.rip, case.path.dip);
    let own = dip.map_or_else(|| "DIP".to_owned(), |dip| dip.to_string());
    let command = format!("ip route get {rip}");
    let via = case.via(DIRECTOR, rip);
    let (code, summary, detail, fix) = if source == vip {
        (
            Code::SourceIsVip,
            format!(
                "the director's IPIP packets to {rip} have the VIP {vip} as their outer source"
            ),
            format!(
                "The real server has {vip} too, and drops packets that claim to come from an address \
                 of its own. The director must use an address that no real server has."
            ),
            vec![
                case.on(DIRECTOR, format!("ip route replace {rip} {via} src {own}")),
                case.on(DIRECTOR, &command),
            ],
        )
    } else if let Some(device) = &on_realserver {
        let server = case.realserver();
        (
            Code::SourceOnRealserver,
            format!("the outer source {source} is also an address of the real server ({device})"),
            format!(
                "The real server drops packets that claim to come from {source}, which it has itself \
                 on {device}."
            ),
            vec![
                case.on(server, format!("ip addr del {source} dev {device}")),
                case.on(
                    DIRECTOR,
                    format!("ip route replace {rip} {via} src ANOTHER_DIP"),
                ),
            ],
        )
    } else {
        if foreign::judge(case, observed) {
            return;
        }
        if let (Some((_, source)), Some(dip)) = (observed, dip.filter(|dip| *dip != source))
            && case.is_proven(Hop::Decapsulation)
        {
            let reason = format!(
                "the kernel's own IPIP packets to {rip} have the outer source {source}, and nothing shows that \
                 the real server takes them; those from {dip} it does take: does it have {source} itself \
                 (`ip addr show to {source}`), or a tunnel or firewall that takes {dip} only?"
            );
            case.unproven(Hop::DirectorSource, reason);
        }
        return;
    };
    let mut evidence: Vec<EvidenceId> = observed.into_iter().map(|(id, _)| id).collect();
    let said = chosen.map_or_else(String::new, |chosen| format!("{command}: src {chosen}"));
    if !said.is_empty() {
        evidence.push(case.cite_fact(DIRECTOR, said, &command));
    }
    if let Some(device) = on_realserver {
        let server = case.realserver();
        let summary = format!("{source} is an address of {device}");
        evidence.push(case.cite_fact(server, summary, format!("ip addr show to {source}")));
    }
    let silent = [Station::RealserverTunnel, Station::DirectorIn]
        .into_iter()
        .find_map(|at| {
            let parts = case
                .silences
                .iter()
                .find(|s| s.at == at && SCHEDULED.contains(&s.kind) && s.after.is_some())?;
            case.silence(parts.after, at, &[])
        });
    let between = silent.as_ref().and_then(|s| Some((s.after?, s.at)));
    if let Some(silence) = silent {
        evidence.push(case.cite_silence(&silence));
    }
    case.broken(Break {
        code,
        hop: Hop::DirectorSource,
        between,
        summary,
        detail,
        fix,
        evidence,
    });
}

/// Where the scheduler never picked this real server: the kernel would choose the DIP, and packets from the
/// DIP came out of its tunnel.
fn source_by_fact(case: &mut Case<'_>, observed: bool) {
    let rip = case.path.rip;
    let Some(RouteAnswer::Route(route)) = case.route(DIRECTOR, rip, None, None) else {
        return;
    };
    let Some(dip) = case.path.dip.filter(|dip| route.source == Some(*dip)) else {
        return;
    };
    if observed || elsewhere(case).is_empty() || dip == case.path.vip {
        return;
    }
    let Some(taken) = case.proofs.get(&Hop::Decapsulation).cloned() else {
        return;
    };
    let command = format!("ip route get {rip}");
    let summary = format!("{command}: src {dip}, and packets from {dip} come out of the tunnel");
    let mut evidence = vec![case.cite_fact(DIRECTOR, &summary, &command)];
    evidence.extend(taken.evidence);
    case.proven_by_fact(Hop::DirectorSource, &summary, evidence);
}

/// The client's packets that the director took and did not forward; else its own.
pub(super) fn unforwarded(case: &Case<'_>) -> Option<Silence> {
    case.silence(
        Some(Station::DirectorIn),
        Station::DirectorOut,
        &[ProbeKind::Service],
    )
    .or_else(|| case.silence(None, Station::DirectorOut, &[ProbeKind::IpvsLoop]))
}

/// Packets for the service, sent for this path, that IPVS gave to another real server.
fn elsewhere(case: &Case<'_>) -> Vec<EvidenceId> {
    let evidence = &case.evidence;
    evidence
        .probes()
        .iter()
        .filter(|probe| SCHEDULED.contains(&probe.id.kind) && probe.path == case.number)
        .filter(|probe| evidence.path_of(probe) != case.number || evidence.has_strayed(probe))
        .filter_map(|probe| evidence.passage(probe).seen.iter().find_map(|seen| *seen))
        .collect()
}

/// The scheduler gave every packet to other real servers: IPVS's table must tell why.
fn forward_by_fact(
    case: &mut Case<'_>,
    elsewhere: &[EvidenceId],
    fault: Option<(Code, String, Vec<String>)>,
) {
    let (vip, port, rip) = (case.path.vip, case.path.port, case.path.rip);
    if let Some((code, summary, fix)) = fault {
        let cited = case.cite_fact(DIRECTOR, &summary, "ipvsadm -Ln");
        case.broken(Break {
            code,
            hop: Hop::DirectorForward,
            between: None,
            detail: format!(
                "IPVS tunnelled {} packets for {vip}:{port} to other real servers and none to {rip}, and says \
                 why: {summary}.",
                elsewhere.len()
            ),
            summary,
            fix,
            evidence: vec![cited, elsewhere[0]],
        });
    } else if matches!(
        case.facts(DIRECTOR).map(|f| &f.ipvs),
        Some(Ipvs::Services(_))
    ) {
        let summary = format!(
            "IPVS tunnels {vip}:{port}, and has {rip} by Tunnel with a weight; its scheduler chose others"
        );
        let cited = case.cite_fact(DIRECTOR, &summary, "ipvsadm -Ln");
        case.proven_by_fact(Hop::DirectorForward, &summary, vec![cited, elsewhere[0]]);
    }
}

/// IPVS: service, destination, method, weight.
fn forward(case: &mut Case<'_>) {
    let fault = ipvs::fault(case);
    let client_forwarded = case
        .evidence
        .passages(case.number)
        .any(|p| p.probe.id.kind == ProbeKind::Service && p.proves(Hop::DirectorForward).is_some());
    if !client_forwarded && !answers_forwarded(case) && vip_is_missing(case) {
        vip_not_on_director(case);
        return;
    }
    if case.is_proven(Hop::DirectorForward) {
        return;
    }
    let ignored = case.evidence.ignored_answers(case.number).len();
    if ignored > 0 && case.evidence.host(Host::Client).is_none() {
        let reason = format!(
            "the director tunnels its own packets for {}:{}, and not the client's answers to them ({ignored} came, \
             none was tunnelled on): its firewall drops what the client sends, or only what conntrack calls \
             invalid; a vantage at `client` would decide",
            case.path.vip, case.path.port
        );
        case.unproven(Hop::DirectorForward, reason);
        return;
    }
    let silence = unforwarded(case);
    let crafted_leave = !case
        .sightings(&CRAFTED, |item, sighting| {
            item.station == Some(Station::DirectorOut) && sighting.form == Form::Tunnelled
        })
        .is_empty();
    let own_forwarded = case
        .sightings(&[ProbeKind::IpvsLoop], |item, sighting| {
            item.station == Some(Station::DirectorOut) && sighting.form == Form::Tunnelled
        })
        .first()
        .copied();
    let absent = matches!(
        case.facts(DIRECTOR).map(|facts| &facts.ipvs),
        Some(Ipvs::Absent)
    );
    let tried = silence.is_some() || !case.forbidden(&[ProbeKind::IpvsLoop]).is_empty();
    if !tried {
        let elsewhere = elsewhere(case);
        if absent && !elsewhere.is_empty() {
            let reason = "the director tunnels to other real servers, and is no IPVS whose table would say \
                          whether it knows this one";
            case.unproven(Hop::DirectorForward, reason);
            return;
        }
        if !elsewhere.is_empty() {
            forward_by_fact(case, &elsewhere, fault);
        }
        return;
    }
    // A director that is not IPVS has no table to blame while nothing at all of protocol 4 leaves it, and none is to
    // blame that forwards the director's own packets.
    match fault.filter(|_| own_forwarded.is_none() && (crafted_leave || !absent)) {
        Some((code, summary, fix)) => {
            let mut evidence = Vec::new();
            if let Some(silence) = &silence {
                evidence.push(case.cite_silence(silence));
            }
            evidence.push(case.cite_fact(DIRECTOR, &summary, "ipvsadm -Ln"));
            let between = silence.as_ref().and_then(|s| Some((s.after?, s.at)));
            case.broken(Break {
                code,
                hop: Hop::DirectorForward,
                between,
                detail: format!(
                    "Packets for {}:{} are not tunnelled to {}, and IPVS says why: {summary}.",
                    case.path.vip, case.path.port, case.path.rip
                ),
                summary,
                fix,
                evidence,
            });
        }
        None if silence.as_ref().is_some_and(|s| s.after.is_some()) && own_forwarded.is_some() => {
            let (Some(silence), Some(own)) = (silence, own_forwarded) else {
                return;
            };
            let cited = case.cite_silence(&silence);
            let (vip, port, cip) = (case.path.vip, case.path.port, case.path.cip);
            case.broken(Break {
                code: Code::DirectorFirewallIngress,
                hop: Hop::DirectorForward,
                between: Some((Station::DirectorIn, Station::DirectorOut)),
                summary: format!("the director's firewall drops what arrives from {cip} for {vip}:{port}"),
                detail: "The same packets sent on the director itself are tunnelled; those that arrive from \
                         the client are not: PREROUTING or INPUT rules, or rp_filter there, drop them."
                    .to_owned(),
                fix: case.rules(DIRECTOR),
                evidence: vec![cited, silence.evidence[0], own],
            });
        }
        // They may have gone to one that gets them otherwise.
        None if let Some(other) = ipvs::untunnelled(case) => {
            let reason = format!(
                "none of the packets was tunnelled to {}; IPVS may have given them to {other}, which gets them \
                 without a tunnel",
                case.path.rip
            );
            case.unproven(Hop::DirectorForward, reason);
        }
        None if crafted_leave && !case.is_broken(Hop::DirectorSource) => {
            let Some(silence) = silence else { return };
            let evidence = vec![case.cite_silence(&silence), silence.evidence[0]];
            let between = silence.after.map(|after| (after, silence.at));
            case.broken(Break {
                code: Code::DirectorNotForwarding,
                hop: Hop::DirectorForward,
                between,
                summary: format!(
                    "the director does not tunnel packets for {}:{} to {}",
                    case.path.vip, case.path.port, case.path.rip
                ),
                detail: "IPVS has the service, the real server, method Tunnel and a weight, and packets \
                         that tunproof encapsulates itself do leave the director."
                    .to_owned(),
                fix: vec![
                    case.on(DIRECTOR, "ipvsadm -Ln --stats"),
                    case.on(DIRECTOR, "nft list ruleset; iptables-save -c"),
                ],
                evidence,
            });
        }
        // Nothing of protocol 4 leaves: `director-to-realserver` is to blame, if IPVS says that it is set up.
        None => {
            if matches!(
                case.facts(DIRECTOR).map(|f| &f.ipvs),
                Some(Ipvs::Services(_))
            ) {
                let summary = format!(
                    "IPVS has {}:{} with {} by Tunnel",
                    case.path.vip, case.path.port, case.path.rip
                );
                let cited = case.cite_fact(DIRECTOR, &summary, "ipvsadm -Ln");
                case.proven_by_fact(Hop::DirectorForward, &summary, vec![cited]);
            }
        }
    }
}

/// Whether what the client answers was tunnelled on: it was delivered to the director, whatever its addresses are.
fn answers_forwarded(case: &Case<'_>) -> bool {
    let tunnelled_on = case.sightings(&SCHEDULED, |item, sighting| {
        item.station == Some(Station::DirectorOut)
            && sighting.form == Form::Rst
            && sighting.outer.is_some()
    });
    !tunnelled_on.is_empty()
}

fn vip_is_missing(case: &Case<'_>) -> bool {
    let Some(facts) = case.facts(DIRECTOR) else {
        return false;
    };
    // A service by firewall mark needs no local VIP, only a route of the marked packets that delivers them.
    if let Ipvs::Services(services) = &facts.ipvs
        && services
            .iter()
            .any(|service| matches!(service.key, IpvsKey::Fwmark(_)))
    {
        return false;
    }
    // A policy rule may deliver what arrives from the client, and nothing else.
    let routed = facts.routes.iter().any(|(query, answer)| {
        query.to == case.path.vip
            && matches!(answer, RouteAnswer::Route(route) if route.kind == RouteKind::Local)
    });
    !routed && !facts.is_local(case.path.vip)
}

fn vip_not_on_director(case: &mut Case<'_>) {
    let vip = case.path.vip;
    let command = format!("ip route get {vip}");
    let summary = format!("{vip} is not a local address of the director");
    let mut evidence = vec![case.cite_fact(DIRECTOR, &summary, &command)];
    let silence = case.silence(
        Some(Station::DirectorIn),
        Station::DirectorOut,
        &[ProbeKind::Service],
    );
    let between = silence
        .as_ref()
        .map(|_| (Station::DirectorIn, Station::DirectorOut));
    if let Some(silence) = silence {
        evidence.push(case.cite_silence(&silence));
    }
    case.broken(Break {
        code: Code::VipNotOnDirector,
        hop: Hop::DirectorForward,
        between,
        summary: format!("the VIP {vip} is not an address of the director"),
        detail: "IPVS takes packets that are delivered to the director itself; without the VIP they are \
                 routed on or dropped. If VRRP moves the VIP between directors, this one is not the master now: \
                 ask the one that is, and add nothing here."
            .to_owned(),
        fix: vec![
            case.on(DIRECTOR, format!("ip addr add {vip}/32 dev lo")),
            case.on(DIRECTOR, &command),
        ],
        evidence,
    });
}
