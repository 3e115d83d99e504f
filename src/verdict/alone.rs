//! From one vantage: what its packets leave open, in words, and what else would decide it.

use crate::evidence::EvidenceId;
use crate::evidence::Proof;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::HopVerdict;
use crate::verdict::case::Break;
use crate::verdict::case::Case;

const DIRECTOR: Host = Host::Director;
/// The hops that only packets which reach the client decide.
const BEYOND: [Hop; 3] = [
    Hop::SpoofedSourceTransit,
    Hop::ClientArrival,
    Hop::ReturnToDirector,
];

/// Says what could not be decided without the director, or without the real server.
pub(super) fn judge(case: &mut Case<'_>) {
    let server = case.evidence.host(case.realserver()).is_some();
    match case.evidence.hears(DIRECTOR).is_ok() {
        true if !server => without_realserver(case),
        false if server && case.evidence.host(DIRECTOR).is_none() => without_director(case),
        _ => {}
    }
}

/// The reason of a hop that is neither decided nor behind a broken one.
fn say(case: &mut Case<'_>, hop: Hop, reason: &str) {
    let behind = case
        .hops
        .range(..=hop)
        .any(|(_, judged)| judged.verdict == HopVerdict::Broken);
    if !behind && !case.is_proven(hop) {
        case.unproven(hop, reason);
    }
}

/// The same for several hops: the whole reason once.
fn say_all(case: &mut Case<'_>, hops: &[Hop], reason: &str, decides: &str) {
    let mut first = None;
    for hop in hops
        .iter()
        .filter(|hop| !case.is_proven(**hop))
        .copied()
        .collect::<Vec<_>>()
    {
        match first {
            None => say(case, hop, reason),
            Some(first) => say(
                case,
                hop,
                &format!("open for the same reason as {first}; {decides}"),
            ),
        }
        first.get_or_insert(hop);
    }
}

fn without_realserver(case: &mut Case<'_>) {
    let (vip, port, cip, rip) = (case.path.vip, case.path.port, case.path.cip, case.path.rip);
    let Some(dip) = case.path.dip else { return };
    let decides = format!(
        "`tunproof realserver` there, or a vantage at `realserver` ({}), would decide",
        case.name(case.realserver())
    );
    if rewritten(case, &decides) {
        return;
    }
    let lost = |kinds: &[ProbeKind]| {
        case.silence(Some(Station::DirectorOut), Station::DirectorIn, kinds)
            .map(|silence| silence.probes.len())
    };
    let answered = |kind| {
        !case
            .sightings(&[kind], |item, sighting| {
                item.station == Some(Station::DirectorIn)
                    && sighting.source == vip
                    && matches!(
                        sighting.form,
                        Form::SynAck | Form::Refused | Form::PORT_UNREACHABLE
                    )
            })
            .is_empty()
    };
    let knocked = answered(ProbeKind::ReflectSyn);
    let reflected = answered(ProbeKind::Reflect) || knocked;
    let (mute, shut) = (lost(&[ProbeKind::Reflect]), lost(&[ProbeKind::ReflectSyn]));
    let looped = lost(&[ProbeKind::TunnelSyn]).is_some();
    let alive = case.is_proven(Hop::ReturnToDirector);
    let client = case.evidence.hears(Host::Client).is_ok();
    if let (false, Some(count)) = (reflected, mute) {
        let reason = format!(
            "{count} packets from {dip} went into the tunnel, and nothing came back, not from {vip} and no ICMP \
             error: protocol 4 is lost on the way to {rip}, or dropped there (firewall, tunnel device, rp_filter, no \
             VIP), or the way back filters the source {vip}; {decides}"
        );
        let hops = [
            Hop::DirectorToRealserver,
            Hop::Decapsulation,
            Hop::RealserverAccept,
        ];
        say_all(case, &hops, &reason, &decides);
    }
    if !reflected {
        return;
    }
    if let (false, Some(count)) = (knocked, shut) {
        let reason = format!(
            "a closed port of {vip} refuses what {dip} sends, and {vip}:{port} neither answers nor refuses it ({count} \
             SYNs): a firewall on the real server, a full accept queue, or a stateful firewall on the way back that \
             drops SYN-ACKs whose SYN it has not seen; {decides}"
        );
        say_all(
            case,
            &[Hop::Service, Hop::RealserverAccept],
            &reason,
            &decides,
        );
        return;
    }
    if case.is_broken(Hop::Service) {
        let reason = format!(
            "packets from {dip} are delivered to {vip}; whether those of {cip} are, no answer shows while nothing \
             listens on {vip}:{port}"
        );
        say(case, Hop::RealserverAccept, &reason);
        return;
    }
    if looped && alive {
        let reason = format!(
            "packets from {dip} come out of the tunnel and {vip} answers them; those from {cip}, which answers the \
             director, do not come round: the real server drops the client's packets (rp_filter, firewall, {cip} an \
             address of its own), has no way back to {cip}, or its network filters {vip} towards it; {decides}"
        );
        let hops = [
            Hop::RealserverAccept,
            Hop::RealserverEgress,
            Hop::GatewayArp,
        ];
        say_all(case, &hops, &reason, &decides);
    }
    if looped && !alive && !client {
        let reason = format!(
            "{cip} answers nothing that comes from {vip}, not even what the director itself sends: it answers \
             nobody, cannot be reached, or its answers do not come to the director; a vantage at `client`, or a \
             client that answers, would decide"
        );
        let hops = [
            Hop::RealserverAccept,
            Hop::RealserverEgress,
            Hop::SpoofedSourceTransit,
            Hop::ClientArrival,
            Hop::ReturnToDirector,
        ];
        say_all(case, &hops, &reason, "a vantage at `client` would decide");
    }
}

/// The real server answered a packet for the VIP in its own name: out of the tunnel it came.
fn rewritten(case: &mut Case<'_>, decides: &str) -> bool {
    let (vip, rip) = (case.path.vip, case.path.rip);
    let answer = case
        .sightings(&[ProbeKind::Reflect], |item, sighting| {
            item.station == Some(Station::DirectorIn)
                && sighting.form == Form::PORT_UNREACHABLE
                && sighting.source == rip
        })
        .first()
        .copied();
    let Some(answer) = answer else {
        return false;
    };
    for hop in [Hop::DirectorToRealserver, Hop::Decapsulation] {
        let proof = Proof {
            seen: false,
            evidence: vec![answer],
        };
        case.proofs.entry(hop).or_insert(proof);
    }
    let reason = format!(
        "what came out of the tunnel for {vip} was answered from {rip}: a source NAT or masquerade rule on the real \
         server rewrites its answers, or its ICMP errors only (`icmp_errors_use_inbound_ifaddr`); {decides}"
    );
    let hops = [
        Hop::RealserverEgress,
        Hop::RealserverAccept,
        Hop::Service,
        Hop::GatewayArp,
    ];
    say_all(case, &hops, &reason, decides);
    true
}

/// The director's packets have the DIP as their outer source, and packets from the DIP come out of the tunnel.
pub(super) fn source_is_taken(case: &mut Case<'_>, observed: EvidenceId) {
    let Some(taken) = case.proofs.get(&Hop::Decapsulation).cloned() else {
        return;
    };
    let mut evidence = vec![observed];
    evidence.extend(taken.evidence);
    let proof = Proof {
        seen: false,
        evidence,
    };
    case.proofs.entry(Hop::DirectorSource).or_insert(proof);
}

/// The real server has the DIP itself: whatever the director sends from there dies (HOWTO Q1).
fn has_dip(case: &mut Case<'_>) {
    let server = case.realserver();
    let Some(dip) = case.path.dip else { return };
    let device = case
        .facts(server)
        .and_then(|facts| facts.holds(dip))
        .map(|link| link.name.clone());
    let Some(device) = device else { return };
    let cited = case.cite_fact(
        server,
        format!("{dip} is an address of {device}"),
        format!("ip addr show to {dip}"),
    );
    case.broken(Break {
        code: Code::SourceOnRealserver,
        hop: Hop::DirectorSource,
        between: None,
        summary: format!(
            "the director's address {dip} is also an address of the real server ({device})"
        ),
        detail: format!(
            "No packet was tunnelled, but the real server would drop any that claims to come from {dip}, which it has \
             itself on {device}."
        ),
        fix: vec![case.on(server, format!("ip addr del {dip} dev {device}"))],
        evidence: vec![cited],
    });
}

fn without_director(case: &mut Case<'_>) {
    has_dip(case);
    let (vip, cip, rip) = (case.path.vip, case.path.cip, case.path.rip);
    let left = |kinds: &[ProbeKind]| {
        case.sightings(kinds, |item, sighting| {
            item.station == Some(Station::RealserverOut) && sighting.form == Form::Plain
        })
    };
    let sent = left(&[ProbeKind::ControlTrace, ProbeKind::ControlSynack]).len();
    let spoofed = left(&[ProbeKind::SpoofTrace, ProbeKind::SpoofSynack]);
    let own: Vec<_> = spoofed
        .iter()
        .filter(|id| case.sighting(**id).is_some_and(|seen| seen.source != vip))
        .copied()
        .collect();
    if let Some(source) = own.first().and_then(|id| Some(case.sighting(*id)?.source)) {
        let reason = format!(
            "what the real server itself sends from {vip} leaves from {source}: a stateful NAT leaves answers to \
             tunnelled packets alone, any other rewrites them, too; a vantage at `director` would decide"
        );
        say(case, Hop::RealserverEgress, &reason);
    }
    let forbidden = case.forbidden(&[ProbeKind::SpoofTrace, ProbeKind::SpoofSynack]);
    if forbidden.len() >= 3 {
        let reason = format!(
            "the real server's OUTPUT rules drop what it starts itself from {vip} (EPERM, {} times): they drop answers, \
             too, unless they spare established connections; a vantage at `director` would decide",
            forbidden.len()
        );
        say(case, Hop::RealserverEgress, &reason);
    }
    let control = [ProbeKind::ControlTrace, ProbeKind::ControlSynack];
    let answered = case.sightings(&control, |item, sighting| {
        item.station == Some(Station::RealserverIn)
            && matches!(sighting.form, Form::Rst | Form::PORT_UNREACHABLE)
    });
    if spoofed.len() == own.len() || sent == 0 {
        return;
    }
    let control = match answered.is_empty() {
        false => format!("{cip} answers those from {rip}, so that it can be reached"),
        true => format!(
            "{cip} answers none of those from {rip} either ({sent}): it cannot be reached, or answers nobody"
        ),
    };
    let reason = format!(
        "{} packets left from {vip}, and {control}; what becomes of the VIP's only the director hears: `tunproof \
         listen` there, or a vantage at `client`, would decide",
        spoofed.len() - own.len()
    );
    let decides = "`tunproof listen` at the director, or a vantage at `client`, would decide";
    say_all(case, &BEYOND, &reason, decides);
}
