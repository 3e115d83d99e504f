//! The hop `service`: does anything answer on VIP:port, and if not, what the real server says of it.

use crate::evidence::Passage;
use crate::exchange::HostFacts;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::tunnel;
use std::collections::BTreeSet;

/// Probes that ask for the service itself.
const ASKING: [ProbeKind; 3] = [
    ProbeKind::TunnelSyn,
    ProbeKind::IpvsLoop,
    ProbeKind::Service,
];

/// Judges `service`.
pub(super) fn judge(case: &mut Case<'_>) {
    answers(case);
    facts_alone(case);
}

fn answers(case: &mut Case<'_>) {
    if case.is_proven(Hop::Service) || case.is_broken(Hop::RealserverAccept) {
        return;
    }
    let server = case.realserver();
    let (vip, port) = (case.path.vip, case.path.port);
    let name = case.path.protocol.name();
    let listening = case.facts(server).map(|facts| listens(case, facts));
    // What the director's own stack refuses is another matter.
    let tunnelled: BTreeSet<ProbeId> = case
        .evidence
        .passages(case.number)
        .filter(Passage::is_tunnelled)
        .map(|passage| passage.probe.id)
        .collect();
    let mut asking = ASKING.to_vec();
    asking.push(ProbeKind::ReflectSyn);
    let refused = case.sightings(&asking, |item, sighting| {
        // The director asks in its own name.
        let here = match sighting.probe.kind {
            ProbeKind::ReflectSyn => item.station == Some(Station::DirectorIn),
            _ => matches!(
                item.station,
                Some(Station::RealserverOut | Station::ClientIn)
            ),
        };
        here && tunnelled.contains(&sighting.probe)
            && (sighting.form == Form::Refused
                || case.path.protocol == Protocol::Udp && sighting.form == Form::PORT_UNREACHABLE)
    });
    let command = format!("ss -Hln{} sport = :{port}", &name[..1]);
    let alone = case.evidence.host(Host::Director).is_none();
    if !refused.is_empty() || alone && listening == Some(false) {
        let seen_refused = !refused.is_empty();
        let mut evidence: Vec<_> = refused.into_iter().take(1).collect();
        let elsewhere = bound_elsewhere(case);
        if listening == Some(false) {
            let summary = match &elsewhere {
                Some(elsewhere) => {
                    format!("the {name} sockets on port {port} are bound to {elsewhere}")
                }
                None => format!("no {name} socket listens on {vip}:{port}"),
            };
            evidence.push(case.cite_fact(server, summary, &command));
        }
        let shown = match seen_refused {
            true => "The packet reaches the VIP and the kernel refuses it",
            false => "No packet was tunnelled, but the kernel would refuse it",
        };
        let (code, summary, detail) = match elsewhere {
            Some(elsewhere) => (
                Code::ServiceBoundElsewhere,
                format!("the service listens on {elsewhere}, not on the VIP {vip}"),
                format!(
                    "{shown}: the service's socket is bound to another address. It must be bound to the VIP \
                     or to any address."
                ),
            ),
            None => (
                Code::ServiceNotListening,
                format!("nothing listens on {vip}:{port} of the real server"),
                format!("{shown}. The service must be bound to the VIP or to any address."),
            ),
        };
        case.broken(Break {
            code,
            hop: Hop::Service,
            between: None,
            summary,
            detail,
            fix: vec![case.on(server, command)],
            evidence,
        });
        return;
    }
    if case.path.protocol == Protocol::Udp
        && listening == Some(true)
        && case.is_proven(Hop::RealserverAccept)
    {
        let summary =
            format!("a udp socket is bound to {vip}:{port}, and closed ports are refused");
        let cited = case.cite_fact(server, &summary, &command);
        case.proven_by_fact(Hop::Service, &summary, vec![cited]);
        return;
    }
    if !asks_in_vain(case)
        || case.is_broken(Hop::GatewayArp)
        || case.is_broken(Hop::RealserverEgress)
    {
        return;
    }
    let Some(silence) = case.silence(
        Some(Station::RealserverTunnel),
        Station::RealserverOut,
        &ASKING,
    ) else {
        return;
    };
    let forbidden = case.forbidden(&[ProbeKind::SpoofSynack]);
    if forbidden.len() >= 3 {
        let cited = case.cite_silence(&silence);
        case.broken(Break {
            code: Code::RealserverFirewallEgress,
            hop: Hop::RealserverEgress,
            between: Some((Station::RealserverTunnel, Station::RealserverOut)),
            summary: format!(
                "the real server's firewall drops {name} that leaves from {vip}:{port}"
            ),
            detail: "Its kernel refuses even our own segments from there: OUTPUT drops them."
                .to_owned(),
            fix: case.rules(server),
            evidence: vec![forbidden[0], cited],
        });
        return;
    }
    let drops = |facts: Option<&HostFacts>| facts.and_then(|f| f.counter("TcpExtListenDrops"));
    let record = case.evidence.host(server);
    let before = drops(record.and_then(|record| record.before.as_ref()));
    let overflows =
        drops(record.and_then(|record| record.after.as_ref())) > before && before.is_some();
    let cited = case.cite_silence(&silence);
    let between = Some((Station::RealserverTunnel, Station::RealserverOut));
    if overflows {
        let fact = case.cite_fact(
            server,
            "TcpExtListenDrops rose",
            "nstat -az TcpExtListenDrops",
        );
        case.broken(Break {
            code: Code::ServiceSilent,
            hop: Hop::Service,
            between,
            summary: format!("the service on {vip}:{port} takes no more connections"),
            detail: "Its accept queue is full: the kernel drops new connections.".to_owned(),
            fix: vec![case.on(server, command)],
            evidence: vec![cited, fact],
        });
    } else {
        case.broken(Break {
            code: Code::RealserverFirewallDecapsulated,
            hop: Hop::RealserverAccept,
            between,
            summary: format!("the real server's firewall drops {name} to {vip}:{port} after decapsulation"),
            detail: "Probes to a closed port of the VIP are answered; those to the service are not, not \
                     even refused."
                .to_owned(),
            fix: case.rules(server),
            evidence: vec![cited],
        });
    }
}

/// Whether a packet for the service came out of the tunnel and was not answered.
pub(super) fn asks(case: &Case<'_>) -> bool {
    case.silences.iter().any(|s| {
        ASKING.contains(&s.kind)
            && case.path.protocol == Protocol::Tcp
            && (s.after, s.at) == (Some(Station::RealserverTunnel), Station::RealserverOut)
    })
}

/// Whether the real server answers closed ports, but the service's port not at all.
pub(super) fn asks_in_vain(case: &Case<'_>) -> bool {
    !case.is_proven(Hop::Service)
        && case
            .silence(
                Some(Station::RealserverTunnel),
                Station::RealserverOut,
                &ASKING,
            )
            .is_some()
}

/// Where the sockets on the service's port are bound, if none of them takes what is for the VIP.
fn bound_elsewhere(case: &Case<'_>) -> Option<String> {
    let facts = case.facts(case.realserver())?;
    if listens(case, facts) {
        return None;
    }
    let port = case.path.port;
    let ends: Vec<String> = facts
        .listeners
        .iter()
        .filter(|listener| {
            listener.protocol == case.path.protocol.number() && listener.port == port
        })
        .filter_map(|listener| Some(format!("{}:{port}", listener.address?)))
        .collect();
    (!ends.is_empty()).then(|| ends.join(", "))
}

/// Whether a socket takes what is for the service.
fn listens(case: &Case<'_>, facts: &HostFacts) -> bool {
    facts.listeners.iter().any(|listener| {
        listener.protocol == case.path.protocol.number()
            && listener.port == case.path.port
            && listener
                .address
                .is_none_or(|address| address == case.path.vip)
    })
}

/// Without a director nothing comes out of the tunnel: what the real server says of itself then goes into
/// the reason, and proves nothing.
fn facts_alone(case: &mut Case<'_>) {
    let server = case.realserver();
    let alone = case.evidence.host(Host::Director).is_none();
    let Some(facts) = case.facts(server).cloned().filter(|_| alone) else {
        return;
    };
    let (vip, cip, port) = (case.path.vip, case.path.cip, case.path.port);
    let device = tunnel::incoming(case, &facts).map(|link| link.name.clone());
    let Some(device) = device else { return };
    let decides = "only a packet of the director decides: a vantage at `director`";
    let question = format!("ip route get from {cip} to {vip} iif {device}");
    let routed = match case.route(server, vip, Some(cip), Some(&device)) {
        Some(RouteAnswer::Route(route)) if route.kind == RouteKind::Local => "local".to_owned(),
        Some(RouteAnswer::Route(_)) => "not local".to_owned(),
        Some(RouteAnswer::Error { error, .. }) => error,
        None => "not answered".to_owned(),
    };
    let said = [
        (Hop::Decapsulation, format!("{device} is up")),
        (Hop::RealserverAccept, format!("`{question}` says {routed}")),
        (
            Hop::Service,
            match listens(case, &facts) {
                true => format!("a socket listens on port {port}"),
                false => format!("no socket listens on {vip}:{port}"),
            },
        ),
    ];
    for (hop, fact) in said {
        if !case.is_proven(hop) && !case.is_broken(hop) {
            case.unproven(hop, format!("{fact}; {decides}"));
        }
    }
}
