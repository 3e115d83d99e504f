//! The hop out of the tunnel: protocol 4 on the real server.

use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::exchange::HostFacts;
use crate::exchange::Link;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Quoting;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;

/// Probes that come out of the tunnel.
const TUNNELLED: [ProbeKind; 5] = [
    ProbeKind::TunnelUdp,
    ProbeKind::TunnelSyn,
    ProbeKind::IpvsLoop,
    ProbeKind::Reflect,
    ProbeKind::Service,
];

pub(super) fn judge(case: &mut Case<'_>) {
    if case.is_proven(Hop::Decapsulation) {
        return;
    }
    let silence = case.silence(Some(Station::RealserverIn), Station::RealserverTunnel, &[]);
    let refusals = refusals(case);
    let alone = case.evidence.host(Host::Director).is_none();
    let facts = case.facts(case.realserver()).cloned();
    let arrived = silence.is_some() || !refusals.is_empty();
    let told = arrived || alone && facts.is_some();
    if !told || case.is_broken(Hop::DirectorSource) {
        return;
    }
    let Some((code, summary, fix)) = decapsulation_fault(case, facts.as_ref(), &refusals, arrived)
    else {
        return;
    };
    let mut evidence: Vec<EvidenceId> = refusals.first().copied().into_iter().collect();
    if let Some(silence) = &silence {
        evidence.push(case.cite_silence(silence));
    }
    if facts.is_some() {
        let server = case.realserver();
        evidence.push(case.cite_fact(server, &summary, "ip -d addr show type ipip"));
    }
    let or_else = match (code, &facts) {
        (Code::TunnelMissing, None) => {
            " From the director alone a firewall's REJECT of protocol 4 would look the same: a vantage at `realserver` \
             tells them apart."
        }
        _ => "",
    };
    let between = silence.map(|_| (Station::RealserverIn, Station::RealserverTunnel));
    case.broken(Break {
        code,
        hop: Hop::Decapsulation,
        between,
        detail: match arrived {
            true => format!("IPIP packets arrive at the real server and nothing comes out of a tunnel: {summary}.{or_else}"),
            false => format!("No packet was tunnelled, but none could come out: {summary}."),
        },
        summary,
        fix,
        evidence,
    });
}

/// ICMP errors with which the real server itself refuses protocol 4.
fn refusals(case: &Case<'_>) -> Vec<EvidenceId> {
    let rip = case.path.rip;
    case.sightings(&TUNNELLED, |_, sighting| {
        sighting.source == rip
            && matches!(
                sighting.form,
                Form::IcmpError {
                    icmp_type: 3,
                    code: 2 | 3 | 9 | 10 | 13,
                    of: Quoting::Tunnelled
                }
            )
    })
}

fn decapsulation_fault(
    case: &Case<'_>,
    facts: Option<&HostFacts>,
    refusals: &[EvidenceId],
    arrived: bool,
) -> Option<(Code, String, Vec<String>)> {
    let server = case.realserver();
    let (rip, dip) = (case.path.rip, case.path.dip);
    let on = |command: String| case.on(server, command);
    let set_up = || {
        let mut commands = vec![
            on("modprobe ipip".to_owned()),
            on("ip link set tunl0 up".to_owned()),
        ];
        commands.extend(case.add_vip("tunl0"));
        commands
    };
    let form = refusals
        .first()
        .and_then(|id| Some(case.sighting(*id)?.form));
    if let Some(Form::IcmpError { code: 2, .. }) = form {
        return Some((
            Code::IpipNotSupported,
            format!("{rip} answers protocol unreachable: its kernel does not take protocol 4"),
            set_up(),
        ));
    }
    let Some(facts) = facts else {
        if let Some(Form::IcmpError {
            code: code @ (9 | 10 | 13),
            ..
        }) = form
        {
            return Some((
                Code::RealserverFirewallIpip,
                format!(
                    "{rip} refuses the IPIP packets with ICMP type 3 code {code}, as a firewall does"
                ),
                case.rules(server),
            ));
        }
        return form.map(|_| {
            (
                Code::TunnelMissing,
                format!(
                    "{rip} has ipip, but no tunnel device that is up takes the director's packets"
                ),
                vec![
                    on("ip -d link show type ipip".to_owned()),
                    on("ip link set tunl0 up".to_owned()),
                ],
            )
        });
    };
    let devices: Vec<&Link> = facts
        .links
        .iter()
        .filter(|link| is_tunnel(case, link))
        .collect();
    let up: Vec<&Link> = devices.iter().copied().filter(|link| link.up).collect();
    let takes = |link: &&Link| takes(case, facts, link);
    if devices.is_empty() {
        return Some((
            Code::TunnelMissing,
            "the real server has no ipip tunnel device".to_owned(),
            set_up(),
        ));
    }
    if up.is_empty() {
        let name = &devices[0].name;
        return Some((
            Code::TunnelDown,
            format!("{name} is down"),
            vec![on(format!("ip link set {name} up"))],
        ));
    }
    if !up.iter().any(takes) {
        let link = up[0];
        let ends = link.tunnel.as_ref()?;
        let end = |end: Option<std::net::Ipv4Addr>| {
            end.map_or_else(|| "any".to_owned(), |address| address.to_string())
        };
        let wanted = dip.map_or_else(|| "any".to_owned(), |dip| dip.to_string());
        return Some((
            Code::TunnelEndpointMismatch,
            format!(
                "{} takes packets from {} to {} only, not from {wanted} to {rip}",
                link.name,
                end(ends.remote),
                end(ends.local)
            ),
            vec![on(format!(
                "ip link set {} type ipip local {rip} remote {wanted}",
                link.name
            ))],
        ));
    }
    if !arrived {
        return None;
    }
    let incoming = incoming(case, facts).unwrap_or(up[0]);
    Some((
        Code::RealserverFirewallIpip,
        format!(
            "{} is up and takes them, so the real server's firewall drops protocol 4",
            incoming.name
        ),
        case.rules(server),
    ))
}

/// Whether the ends of a tunnel device are those of the path. Behind an address translator the real server does not
/// have the RIP itself, and its tunnel has an address that it has.
fn takes(case: &Case<'_>, facts: &HostFacts, link: &Link) -> bool {
    let (rip, dip) = (case.path.rip, case.path.dip);
    let Some(ends) = &link.tunnel else {
        return true;
    };
    let translated = |local| !facts.is_local(rip) && facts.is_local(local);
    ends.local
        .is_none_or(|local| local == rip || translated(local))
        && (ends.remote.is_none() || dip.is_none() || ends.remote == dip)
}

/// The device by which the path's packets come out of the tunnel: where they were seen, else the one that the kernel
/// would choose, of those that fit the one with the most ends set (`net/ipv4/ip_tunnel.c`, `ip_tunnel_lookup`).
pub(super) fn incoming<'f>(case: &Case<'_>, facts: &'f HostFacts) -> Option<&'f Link> {
    let seen = case.sightings(&TUNNELLED, |item, _| {
        item.station == Some(Station::RealserverTunnel)
    });
    let seen = seen.first().and_then(|id| case.evidence.item(*id));
    if let Some(What::Seen { capture, .. }) = seen.map(|item| &item.what)
        && let Some(link) = facts.link(&capture.device)
    {
        return Some(link);
    }
    let rank = |link: &&Link| {
        let ends = link.tunnel.as_ref();
        let remote = ends.is_some_and(|ends| ends.remote.is_some());
        let local = ends.is_some_and(|ends| ends.local.is_some());
        let named = case.path.tunnel.as_ref() == Some(&link.name);
        (link.up, takes(case, facts, link), named, remote, local)
    };
    let links = facts.links.iter().filter(|link| is_tunnel(case, link));
    links.rev().max_by_key(rank)
}

pub(super) fn is_tunnel(case: &Case<'_>, link: &Link) -> bool {
    case.path.is_tunnel(&link.name, link.kind.as_deref())
}
