//! The real server's hops: out of the tunnel, to the service, back out of the host.

use crate::evidence::Proof;
use crate::evidence::Silence;
use crate::exchange::HostFacts;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::matching::Arp;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::case::sysctl;
use crate::verdict::forwarded;
use crate::verdict::gateway;
use crate::verdict::service;
use crate::verdict::tunnel;

/// Judges `decapsulation` to `gateway-arp`.
pub(super) fn judge(case: &mut Case<'_>) {
    tunnel::judge(case);
    gateway::judge(case);
    rewritten(case);
    accept(case);
    service::judge(case);
}

/// The probes came out of the tunnel, and nothing left.
fn unanswered(case: &Case<'_>) -> Option<Silence> {
    case.silence(Some(Station::RealserverTunnel), Station::RealserverOut, &[])
}

fn accept(case: &mut Case<'_>) {
    if case.is_proven(Hop::RealserverAccept) && !service::asks_in_vain(case) {
        if !case.is_proven(Hop::Service) && service::asks(case) {
            case.proofs.remove(&Hop::RealserverAccept);
            let reason = "packets to a closed port are delivered, and those to the service's port were not answered, \
                          too few of them to count";
            case.unproven(Hop::RealserverAccept, reason);
        }
        return;
    }
    if forwarded::judge(case) {
        return;
    }
    let server = case.realserver();
    let Some(facts) = case.facts(server).cloned() else {
        return;
    };
    let alone = case.evidence.host(Host::Director).is_none();
    let silence = unanswered(case);
    if silence.is_none() && !alone {
        return;
    }
    let mut found = routing_faults(case, &facts);
    if !found.is_empty() {
        found.extend(second_fault(case));
    } else {
        if case.is_broken(Hop::GatewayArp) || case.is_broken(Hop::RealserverEgress) {
            return;
        }
        match (&silence, no_route_to_client(case)) {
            // A mark or a socket's device may lead where a question to the routing does not.
            (None, Some(_)) if case.is_proven(Hop::RealserverEgress) => return,
            (_, Some(fault)) => found.push(fault),
            (Some(_), None) if !case.is_proven(Hop::RealserverAccept) => match firewall(case) {
                Some(fault) => found.push(fault),
                None => return,
            },
            _ => return,
        }
    }
    let cited = silence.as_ref().map(|silence| case.cite_silence(silence));
    for (mut fault, facts) in found {
        fault.between = silence
            .as_ref()
            .map(|_| (Station::RealserverTunnel, Station::RealserverOut));
        fault.evidence.extend(cited);
        for (summary, command) in facts {
            let id = case.cite_fact(server, summary, command);
            fault.evidence.push(id);
        }
        case.broken(fault);
    }
}

/// Facts to cite: what and the command that shows it.
type Facts = Vec<(String, String)>;

/// HOWTO Q2: the routing that a decapsulated packet meets.
fn routing_faults(case: &Case<'_>, facts: &HostFacts) -> Vec<(Break, Facts)> {
    let server = case.realserver();
    let (vip, cip) = (case.path.vip, case.path.cip);
    let device = tunnel::incoming(case, facts);
    let Some(device) = device.filter(|link| link.up) else {
        return Vec::new();
    };
    let name = &device.name;
    let on = |command: String| case.on(server, command);
    let question = format!("ip route get from {cip} to {vip} iif {name}");
    let answer = case.route(server, vip, Some(cip), Some(name));
    let plain = case.route(server, vip, None, None);
    // A `local` route makes addresses the host's that no device has.
    let to_itself = |answer: &Option<RouteAnswer>| matches!(answer, Some(RouteAnswer::Route(route)) if route.kind == RouteKind::Local);
    let local = facts.is_local(vip) || to_itself(&plain) || to_itself(&answer);
    let mut found = Vec::new();
    if !local {
        found.push((
            Break {
                code: Code::VipNotLocal,
                hop: Hop::RealserverAccept,
                between: None,
                summary: format!("the VIP {vip} is not an address of the real server"),
                detail:
                    "What comes out of the tunnel is for the VIP, so the real server must have it, \
                         hidden from ARP, on the tunnel device or on lo."
                        .to_owned(),
                fix: case.add_vip(name),
                evidence: Vec::new(),
            },
            vec![(
                format!("{vip} is on no device"),
                format!("ip addr show to {vip}"),
            )],
        ));
    }
    if local && let Some(fault) = client_is_local(case, facts, &answer, &question) {
        found.push(fault);
        return found;
    }
    let Some(RouteAnswer::Error { error, .. }) = answer else {
        return found;
    };
    if !local {
        return found;
    }
    let force = facts.rp_filter_in_force(name).unwrap_or(0);
    if force == 0 {
        found.push((
            Break {
                code: Code::RouteRejects,
                hop: Hop::RealserverAccept,
                between: None,
                summary: format!("the real server's routing refuses packets from {cip} to {vip} on {name}"),
                detail: format!(
                    "`{question}` says: {error}, and rp_filter is 0 there: look for a policy rule or a \
                     blackhole, prohibit or unreachable route."
                ),
                fix: vec![on("ip rule; ip route show table all".to_owned()), on(question.clone())],
                evidence: Vec::new(),
            },
            vec![(format!("{question}: {error}"), question)],
        ));
        return found;
    }
    let of = |who: &str| {
        facts
            .sysctls
            .get(&format!("net.ipv4.conf.{who}.rp_filter"))
            .copied()
    };
    let (all, own) = (of("all").unwrap_or(0), of(name).unwrap_or(0));
    let mut fix = Vec::new();
    if all > 0 {
        fix.push(on("sysctl -w net.ipv4.conf.all.rp_filter=0".to_owned()));
    }
    if own > 0 {
        fix.push(on(format!("sysctl -w {}=0", sysctl(name, "rp_filter"))));
    }
    let mode = if force == 2 { "loose" } else { "strict" };
    let mut cited = vec![
        (
            format!(
                "rp_filter: all {all}, {name} {own}; the larger, {force} ({mode}), is in force"
            ),
            format!(
                "sysctl net.ipv4.conf.all.rp_filter {}",
                sysctl(name, "rp_filter")
            ),
        ),
        (format!("{question}: {error}"), question.clone()),
    ];
    let counter = "TcpExtIPReversePathFilter";
    let after = case
        .evidence
        .host(server)
        .and_then(|record| record.after.as_ref());
    if let (Some(before), Some(after)) = (
        facts.counter(counter),
        after.and_then(|a| a.counter(counter)),
    ) && after > before
    {
        cited.push((
            format!("{counter} rose by {} while we probed", after - before),
            format!("nstat -az {counter}"),
        ));
    }
    found.push((
        Break {
            code: Code::RpFilterDrops,
            hop: Hop::RealserverAccept,
            between: None,
            summary: format!("rp_filter {force} ({mode}) on {name} drops the decapsulated packets"),
            detail: format!(
                "The route back to {cip} does not go out by {name}, so reverse path filtering takes the \
                 client's packets for spoofed. It must be 0 on {name} and on `all`, whose larger value \
                 counts; without it the firewall must see to it that only the director's tunnel is taken."
            ),
            fix,
            evidence: Vec::new(),
        },
        cited,
    ));
    found
}

/// The client's address is the real server's own: what claims to come from it is a martian, and answers
/// would go nowhere but to the real server itself.
fn client_is_local(
    case: &Case<'_>,
    facts: &HostFacts,
    answer: &Option<RouteAnswer>,
    question: &str,
) -> Option<(Break, Facts)> {
    let server = case.realserver();
    let (vip, cip) = (case.path.vip, case.path.cip);
    let device = facts.holds(cip).map(|link| link.name.clone());
    let back = case.route(server, cip, Some(vip), None);
    let to_itself =
        matches!(&back, Some(RouteAnswer::Route(route)) if route.kind == RouteKind::Local);
    if device.is_none() && !to_itself {
        return None;
    }
    let mut cited = vec![match &device {
        Some(device) => (
            format!("{cip} is an address of {device}"),
            format!("ip addr show to {cip}"),
        ),
        None => (
            format!("{cip} is local by a route"),
            format!("ip route get {cip} from {vip}"),
        ),
    }];
    if let Some(RouteAnswer::Error { error, .. }) = answer {
        cited.push((format!("{question}: {error}"), question.to_owned()));
    }
    let fix = match &device {
        // The real server's own address stays: the client that was asked about is none.
        Some(device) if cip == case.path.rip => {
            vec![case.on(server, format!("ip addr show dev {device}"))]
        }
        Some(device) => vec![case.on(server, format!("ip addr del {cip} dev {device}"))],
        None => vec![case.on(server, "ip route show table local; ip rule")],
    };
    Some((
        Break {
            code: Code::ClientAddressIsLocal,
            hop: Hop::RealserverAccept,
            between: None,
            summary: format!("the client's address {cip} is one of the real server's own"),
            detail: format!(
                "Its kernel takes packets from {cip} that arrive from outside for forged (martians) and drops them, \
                 whatever rp_filter says; answers to {cip} would go to the real server itself."
            ),
            fix,
            evidence: Vec::new(),
        },
        cited,
    ))
}

/// Behind routing that refuses what comes out of the tunnel: that answers could not leave either, if the kernel
/// refuses to send our own packets from the VIP.
fn second_fault(case: &Case<'_>) -> Option<(Break, Facts)> {
    let kinds = [ProbeKind::SpoofSynack, ProbeKind::SpoofTrace];
    let refused = case.unsendable(&kinds, |errno| UNROUTABLE.contains(&errno));
    let (mut fault, facts) = no_route_to_client(case)?;
    fault.evidence.push(*refused.first()?);
    Some((fault, facts))
}

/// `ENETUNREACH`, `EHOSTUNREACH`, and `EINVAL` of a blackhole route.
const UNROUTABLE: [i32; 3] = [101, 113, 22];

fn no_route_to_client(case: &Case<'_>) -> Option<(Break, Facts)> {
    let server = case.realserver();
    let (vip, cip) = (case.path.vip, case.path.cip);
    // A kernel refuses to look up the route of an address that is not its own, whatever routes there are.
    let has_vip = case.facts(server).is_some_and(|facts| facts.is_local(vip))
        || matches!(case.route(server, vip, None, None),
            Some(RouteAnswer::Route(route)) if route.kind == RouteKind::Local);
    let from = has_vip.then_some(vip);
    let Some(RouteAnswer::Error { error, .. }) = case.route(server, cip, from, None) else {
        return None;
    };
    let command = match from {
        Some(vip) => format!("ip route get {cip} from {vip}"),
        None => format!("ip route get {cip}"),
    };
    Some((
        Break {
            code: Code::NoRouteToClient,
            hop: Hop::RealserverEgress,
            between: None,
            summary: format!("the real server has no route from {vip} to the client {cip}"),
            detail: format!("`{command}` says: {error}. Answers cannot leave."),
            fix: vec![
                case.on(server, "ip rule; ip route show table all"),
                case.on(server, &command),
            ],
            evidence: Vec::new(),
        },
        vec![(format!("{command}: {error}"), command)],
    ))
}

/// No routing fault: a firewall, unless the answers may be waiting for the gateway's hardware address.
fn firewall(case: &Case<'_>) -> Option<(Break, Facts)> {
    let server = case.realserver();
    let (vip, cip) = (case.path.vip, case.path.cip);
    let forbidden = case.forbidden(&[ProbeKind::SpoofSynack, ProbeKind::SpoofTrace]);
    let gateway = case.evidence.asked_gateway(case.number);
    let waiting = gateway::arps(case, |arp| {
        arp.operation == Arp::REQUEST && !arp.is_ours() && Some(arp.target) == gateway
    });
    let answered = gateway::arps(case, |arp| {
        arp.operation == Arp::REPLY && Some(arp.sender) == gateway
    });
    let unresolved = !waiting.is_empty() && answered.is_empty();
    if unresolved || (1..3).contains(&forbidden.len()) {
        return None;
    }
    if forbidden.len() >= 3 {
        return Some((
            Break {
                code: Code::RealserverFirewallEgress,
                hop: Hop::RealserverEgress,
                between: None,
                summary: format!("the real server's firewall drops what leaves from {vip}"),
                detail: "Its kernel refuses even our own packets from the VIP: OUTPUT drops them."
                    .to_owned(),
                fix: case.rules(server),
                evidence: forbidden[..1].to_vec(),
            },
            Vec::new(),
        ));
    }
    Some((
        Break {
            code: Code::RealserverFirewallDecapsulated,
            hop: Hop::RealserverAccept,
            between: None,
            summary: format!("the real server's firewall drops packets from {cip} to {vip} after decapsulation"),
            detail: "They come out of the tunnel, routing would deliver them to the VIP, and no answer of \
                     any kind leaves."
                .to_owned(),
            fix: case.rules(server),
            evidence: Vec::new(),
        },
        Vec::new(),
    ))
}

/// Answers that leave with another source than the VIP.
fn rewritten(case: &mut Case<'_>) {
    let (vip, cip) = (case.path.vip, case.path.cip);
    let other = |answers: bool| {
        case.sightings(&[], |item, sighting| {
            let spoofed = matches!(
                sighting.probe.kind,
                ProbeKind::SpoofTrace | ProbeKind::SpoofSynack
            );
            let answer = matches!(
                sighting.form,
                Form::SynAck | Form::Refused | Form::PORT_UNREACHABLE
            ) && !spoofed;
            let probe = spoofed && sighting.form == Form::Plain;
            item.station == Some(Station::RealserverOut)
                && sighting.source != vip
                && sighting.destination == cip
                && if answers { answer } else { probe }
        })
    };
    let (answers, probes) = (other(true), other(false));
    let server = case.realserver();
    if let (Some(first), false) = (
        answers.first().copied(),
        case.is_proven(Hop::RealserverEgress),
    ) {
        let source = case.sighting(first).map_or(vip, |sighting| sighting.source);
        // What refuses a packet has accepted it, and is no service.
        let served = answers.iter().copied().find(|id| {
            let form = case.sighting(*id).map(|sighting| sighting.form);
            form == Some(Form::SynAck)
        });
        for (hop, shown) in [(Hop::RealserverAccept, Some(first)), (Hop::Service, served)] {
            let proof = |shown| Proof {
                seen: false,
                evidence: vec![shown],
            };
            if let Some(shown) = shown {
                case.proofs.entry(hop).or_insert_with(|| proof(shown));
            }
        }
        case.broken(Break {
            code: Code::EgressSourceRewritten,
            hop: Hop::RealserverEgress,
            between: Some((Station::RealserverTunnel, Station::RealserverOut)),
            summary: format!(
                "answers leave the real server from {source} instead of the VIP {vip}"
            ),
            detail:
                "The client asked the VIP and takes answers from no other address. A source NAT or \
                     masquerade rule on the real server rewrites them."
                    .to_owned(),
            fix: vec![case.on(
                server,
                "nft -a list ruleset | grep -nE 'snat|masquerade|saddr set'; iptables-save -t nat -c",
            )],
            evidence: vec![first],
        });
    } else if let Some(first) = probes.first().copied() {
        let source = case.sighting(first).map_or(vip, |sighting| sighting.source);
        case.note(
            Code::OwnFlowsRewritten,
            Hop::RealserverEgress,
            format!("packets that the real server itself starts from {vip} leave from {source}"),
            match case.evidence.host(Host::Director) {
                Some(_) => "A source NAT rewrites flows that the real server starts, but not its answers to \
                            tunnelled packets, which are what matters.",
                None => "A source NAT rewrites flows that the real server starts. Whether it rewrites answers to \
                         tunnelled packets, which are what matters, only a packet of the director shows.",
            }
            .to_owned(),
            vec![first],
        );
    }
}
