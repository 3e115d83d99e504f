//! HOWTO Q1's third mistake: an outer source that is no address of the director.
//!
//! An address that is not the director's own may be right all the same (1:1 network address translation), so
//! that only packets that died of it count.

use std::net::Ipv4Addr;

use crate::evidence::EvidenceId;
use crate::evidence::Silence;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Break;
use crate::verdict::case::Case;
use crate::verdict::director::CRAFTED;
use crate::verdict::director::SCHEDULED;
use crate::verdict::director::unforwarded;

const DIRECTOR: Host = Host::Director;

/// Breaks `director-source` if packets with the outer source that the kernel chose die where others from the
/// director pass, and it is no address of the director; says whether it did.
pub(super) fn judge(case: &mut Case<'_>, observed: Option<(EvidenceId, Ipv4Addr)>) -> bool {
    let (Some((seen, source)), Some(dip)) = (observed, case.path.dip) else {
        return false;
    };
    if source == dip || !is_foreign(case, source) {
        return false;
    }
    let Some(silence) = died(case) else {
        return false;
    };
    let rip = case.path.rip;
    let via = case.via(DIRECTOR, rip);
    let evidence = vec![
        seen,
        case.cite_silence(&silence),
        case.cite_fact(
            DIRECTOR,
            format!("{source} is on no device of the director"),
            format!("ip addr show to {source}"),
        ),
    ];
    case.broken(Break {
        code: Code::SourceNotOwned,
        hop: Hop::DirectorSource,
        between: silence.after.map(|after| (after, silence.at)),
        summary: format!("the outer source {source} of the IPIP packets to {rip} is no address of the director"),
        detail: format!(
            "Those that carry {dip} pass where those from {source} are lost. A route that still prefers an address \
             the director no longer has, or a source NAT rule in POSTROUTING, chooses it."
        ),
        fix: vec![
            case.on(DIRECTOR, format!("ip route get {rip}")),
            case.on(DIRECTOR, format!("ip route replace {rip} {via} src {dip}")),
            case.on(
                DIRECTOR,
                "nft -a list ruleset | grep -nE 'snat|masquerade|saddr set'; iptables-save -t nat -c",
            ),
        ],
        evidence,
    });
    true
}

/// The same where nothing left: IPVS sends no packet from an address that the director does not have, and the
/// route prefers one (`__ip_vs_get_out_rt` of `net/netfilter/ipvs/ip_vs_xmit.c`).
pub(super) fn preferred(case: &mut Case<'_>, chosen: Option<Ipv4Addr>) -> bool {
    let Some(source) = chosen.filter(|source| is_foreign(case, *source)) else {
        return false;
    };
    let crafted = case.sightings(&CRAFTED, |item, sighting| {
        item.station == Some(Station::DirectorOut) && sighting.form == Form::Tunnelled
    });
    let silence = unforwarded(case);
    let (Some(left), Some(silence)) = (crafted.first().copied(), silence) else {
        return false;
    };
    let (rip, command) = (case.path.rip, format!("ip route get {}", case.path.rip));
    let via = case.via(DIRECTOR, rip);
    let own = case
        .path
        .dip
        .map_or_else(|| "DIP".to_owned(), |dip| dip.to_string());
    let evidence = vec![
        case.cite_fact(DIRECTOR, format!("{command}: src {source}"), &command),
        case.cite_fact(
            DIRECTOR,
            format!("{source} is on no device of the director"),
            format!("ip addr show to {source}"),
        ),
        case.cite_silence(&silence),
        left,
    ];
    case.broken(Break {
        code: Code::SourceNotOwned,
        hop: Hop::DirectorSource,
        between: silence.after.map(|after| (after, silence.at)),
        summary: format!(
            "the director's route to {rip} prefers the source {source}, which is no address of the director"
        ),
        detail: "A route that still prefers an address which is gone: IPVS sends nothing from it. What tunproof \
                 encapsulates itself leaves."
            .to_owned(),
        fix: vec![
            case.on(DIRECTOR, format!("ip route replace {rip} {via} src {own}")),
            case.on(DIRECTOR, &command),
        ],
        evidence,
    });
    true
}

/// Where what the kernel encapsulated was lost, if what tunproof encapsulated, from the DIP, got further.
fn died(case: &Case<'_>) -> Option<Silence> {
    let lost = |after, at| case.silence(Some(after), at, &SCHEDULED);
    let arrives = case.is_proven(Hop::DirectorToRealserver);
    let opens = case.is_proven(Hop::Decapsulation);
    let returns = case
        .evidence
        .passages(case.number)
        .any(|passage| passage.probe.id.kind == ProbeKind::TunnelSyn && passage.is_complete());
    lost(Station::DirectorOut, Station::RealserverIn)
        .filter(|_| arrives)
        .or_else(|| lost(Station::RealserverIn, Station::RealserverTunnel).filter(|_| opens))
        .or_else(|| lost(Station::DirectorOut, Station::DirectorIn).filter(|_| returns))
}

/// Says that the path file's DIP is none of the director's addresses, unless packets that carry it pass;
/// and whether the loss of tunproof's own tunnelled probes says nothing of those that the director sends.
pub(super) fn dip(case: &mut Case<'_>) -> bool {
    let Some(dip) = case.path.dip.filter(|dip| is_foreign(case, *dip)) else {
        return false;
    };
    let rip = case.path.rip;
    let passes = case.evidence.passages(case.number).any(|passage| {
        CRAFTED.contains(&passage.probe.id.kind) && passage.proves(Hop::Decapsulation).is_some()
    });
    if passes {
        return false;
    }
    let cited = case.cite_fact(
        DIRECTOR,
        format!("{dip} is on no device of the director"),
        format!("ip addr show to {dip}"),
    );
    case.note(
        Code::SourceNotOwned,
        Hop::DirectorSource,
        format!("the path file's DIP {dip} is no address of the director"),
        format!(
            "tunproof's own tunnelled probes carry it, and none of them was seen to pass: a typing error, an address \
             that moved, or a translation behind the director that knows only what IPVS sends \
             (`ip route get {rip}` says which address that has)."
        ),
        vec![cited],
    );
    let mine = case.silence(Some(Station::DirectorOut), Station::RealserverIn, &CRAFTED);
    let kernels = case.silence(
        Some(Station::DirectorOut),
        Station::RealserverIn,
        &SCHEDULED,
    );
    let hides = !case.is_proven(Hop::DirectorToRealserver) && mine.is_some() && kernels.is_none();
    if hides {
        case.unproven(
            Hop::DirectorToRealserver,
            format!(
                "only probes from {dip}, which is no address of the director, were lost on the way to {rip}: correct \
                 `ip` of [director] in the path file"
            ),
        );
    }
    hides
}

/// Whether `address` is known to be none of the director's own.
fn is_foreign(case: &Case<'_>, address: Ipv4Addr) -> bool {
    let Some(facts) = case.facts(DIRECTOR).filter(|facts| !facts.links.is_empty()) else {
        return false;
    };
    let routed = matches!(
        case.route(DIRECTOR, address, None, None),
        Some(RouteAnswer::Route(route)) if route.kind == RouteKind::Local
    );
    !routed && !facts.is_local(address)
}
