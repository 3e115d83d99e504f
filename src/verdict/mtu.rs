//! The sizes that pass the tunnel: `director-to-realserver` for long packets.
//!
//! What decides is what clients may send: the segment size that the real server's SYN-ACK announces, and two
//! headers, and the tunnel's. A path on which only longer packets die is not broken.

use crate::evidence::EvidenceId;
use crate::evidence::Silence;
use crate::evidence::SizedProbe;
use crate::evidence::Sizes;
use crate::exchange::RouteAnswer;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::Severity;
use crate::verdict::case::Break;
use crate::verdict::case::Case;

const DIRECTOR: Host = Host::Director;
/// Octets of a tunnel header, of an inner IPv4 header, and of its TCP header.
const TUNNEL: u16 = 20;
const IP_AND_TCP: u16 = 40;
/// What IPVS must find in an error to know whose packet it was: both IPv4 headers and 8 octets
/// (`net/netfilter/ipvs/ip_vs_core.c`, `ip_vs_in_icmp`).
const RELAYED: u16 = 48;
/// The segment size of a SYN-ACK that announces none (RFC 9293 §3.7.1).
const DEFAULT_MSS: u16 = 536;

/// Judges the sizes, where small packets pass.
pub(super) fn judge(case: &mut Case<'_>) {
    let hop = Hop::DirectorToRealserver;
    let sizes = case.evidence.sizes(case.number);
    if !case.is_proven(hop) || case.is_broken(hop) || case.evidence.hears(DIRECTOR).is_err() {
        return;
    }
    too_long(case, &sizes);
    let server = case.realserver();
    let deaf = case.evidence.host(server).is_some() && case.evidence.hears(server).is_err();
    if !deaf {
        black_hole(case, &sizes);
    }
}

/// What the clients may send, as far as it is known.
struct Clients {
    /// Octets of their longest packet in the tunnel; `None` if unknown.
    longest: Option<u16>,
    /// In words.
    why: String,
    evidence: Option<EvidenceId>,
}

impl Clients {
    /// Their packets of more than `limit` octets the director itself refuses, and says so to them.
    fn of(case: &Case<'_>, limit: u16) -> Clients {
        let kinds = [
            ProbeKind::TunnelSyn,
            ProbeKind::IpvsLoop,
            ProbeKind::Service,
        ];
        let at = |station| {
            case.sightings(&kinds, |item, sighting| {
                item.station == Some(station) && sighting.form == Form::SynAck
            })
        };
        let announced = |seen: &Sighting| seen.maximum_segment_size.unwrap_or(DEFAULT_MSS);
        // A router on the way back may lower it: what the client gets counts.
        let best = [Station::ClientIn, Station::RealserverOut]
            .into_iter()
            .find_map(|station| {
                let seen = at(station).into_iter();
                let seen = seen.filter_map(|id| Some((announced(case.sighting(id)?), id)));
                seen.max().map(|(mss, id)| (mss, id, station))
            });
        match (case.path.protocol, best) {
            (Protocol::Tcp, Some((mss, id, station))) => {
                let longest = mss.saturating_add(IP_AND_TCP + TUNNEL);
                let said = format!(
                    "The SYN-ACK announces a segment size of {mss} (at {station}), so a client sends up to \
                     {longest} octets in the tunnel"
                );
                Clients {
                    longest: Some(longest.min(limit)),
                    why: match longest > limit {
                        true => format!("{said}, of which the director's own route allows {limit}"),
                        false => said,
                    },
                    evidence: Some(id),
                }
            }
            (Protocol::Tcp, None) => Clients {
                longest: None,
                why: "No SYN-ACK was seen, so the segment size that clients are told is not known; a vantage \
                      at `realserver` or `client` would decide"
                    .to_owned(),
                evidence: None,
            },
            (Protocol::Udp, _) => Clients {
                longest: None,
                why: "How long the clients' datagrams are is theirs to say".to_owned(),
                evidence: None,
            },
        }
    }
}

/// A router said that it cannot pass on a packet that the director's own route allows.
fn too_long(case: &mut Case<'_>, sizes: &Sizes) {
    let told = |one: &SizedProbe| {
        let sighting = case.sighting(one.evidence)?;
        let quoted = sighting.quoted.unwrap_or(0);
        let foreign = Some(sighting.source) != case.path.dip;
        foreign.then_some((sighting.source, sighting.next_hop_mtu, quoted, one.evidence))
    };
    let errors: Vec<_> = sizes.too_long.iter().filter_map(told).collect();
    let Some((router, mtu, quoted, error)) = errors.iter().min_by_key(|error| error.1).copied()
    else {
        return;
    };
    let limit = sizes.too_long.iter().map(|one| one.size).max().unwrap_or(0);
    let passing = mtu.unwrap_or(sizes.passing());
    let clients = Clients::of(case, limit);
    let fits = clients.longest.is_some_and(|longest| longest <= passing);
    let short = errors.iter().all(|error| error.2 < RELAYED);
    let rip = case.path.rip;
    let says = match (mtu, passing) {
        (None, 0) => format!("{router} passes no packets to {rip} of {limit} octets"),
        _ => format!("{router} passes packets to {rip} of {passing} octets at most"),
    };
    let mut evidence = vec![error];
    evidence.extend(clients.evidence);
    let fix = mend(case, passing);
    if !short || learns(case) || !dont_fragment(case) {
        let severity = match fits || !dont_fragment(case) {
            true => Severity::Note,
            false => Severity::Warning,
        };
        let found = Break {
            code: Code::TunnelMtuLow,
            hop: Hop::DirectorToRealserver,
            between: None,
            summary: format!("{says}, the director's route {limit}"),
            detail: format!(
                "It answered one of {limit} octets with \"fragmentation needed\". {}. IPVS learns from such \
                 an error and tells the client, but every ten minutes anew, and at the price of the \
                 packets that were too long; it need not, if the route says it.",
                clients.why
            ),
            fix,
            evidence,
        };
        case.tell(severity, found);
        return;
    }
    let summary = format!(
        "{says}, and its \"fragmentation needed\" quotes {quoted} octets, too few for IPVS to tell the client"
    );
    let detail = format!(
        "IPVS tells a client to send less if the error quotes both IP headers and 8 octets more, \
         {RELAYED} in all. {}. Longer ones are dropped, and their sender never learns why: requests of \
         a few octets work, long ones hang.",
        clients.why
    );
    let found = Break {
        code: Code::QuotesTooShort,
        hop: Hop::DirectorToRealserver,
        between: None,
        summary,
        detail,
        fix,
        evidence,
    };
    let dies = clients.longest.is_some_and(|longest| longest > passing);
    report(case, found, fits, dies);
}

/// Packets of some size die, and nobody says why.
fn black_hole(case: &mut Case<'_>, sizes: &Sizes) {
    let mut dead: Vec<u16> = sizes.died.iter().map(|one| one.size).collect();
    dead.sort_unstable();
    let told = sizes.too_long.iter().map(|one| one.size).min();
    let limit = sizes.arrived.iter().chain(&sizes.died).map(|one| one.size);
    let limit = limit
        .filter(|size| told.is_none_or(|told| *size < told))
        .max()
        .unwrap_or(0);
    let Some(least) = dead.into_iter().find(|size| sizes.are_dead(*size)) else {
        return;
    };
    if told.is_some_and(|told| told <= least) {
        return;
    }
    let passing = sizes.passing();
    let clients = Clients::of(case, limit);
    let rip = case.path.rip;
    let silence = silence(case, sizes, limit);
    let mut evidence = vec![case.cite_silence(&silence), silence.evidence[0]];
    let longest = sizes.arrived.iter().max_by_key(|one| one.size);
    evidence.extend(longest.map(|one| one.evidence));
    evidence.extend(clients.evidence);
    let found = Break {
        code: Code::TunnelMtuBlackHole,
        hop: Hop::DirectorToRealserver,
        between: Some((Station::DirectorOut, silence.at)),
        summary: format!(
            "IPIP packets of {least} octets and more die on the way to {rip}, and no router says why; \
             {passing} pass"
        ),
        detail: format!(
            "{} with DF set, of {least} to {limit} octets, left the director and none arrived, while those \
             of {passing} do; no \"fragmentation needed\" came back. {}. Requests of a few octets work, long \
             ones hang: no one tells the client to send less.",
            silence.probes.len(),
            clients.why
        ),
        fix: mend(case, passing),
        evidence,
    };
    let fits = clients.longest.is_some_and(|longest| longest <= passing) || !dont_fragment(case);
    let dies = dont_fragment(case)
        && clients
            .longest
            .is_some_and(|longest| sizes.are_dead(longest));
    report(case, found, fits, dies);
}

/// All dead of up to `limit` octets.
fn silence(case: &Case<'_>, sizes: &Sizes, limit: u16) -> Silence {
    let dead: Vec<&SizedProbe> = sizes.dead_up_to(limit).collect();
    let at = match case.evidence.hears(case.realserver()) {
        Ok(()) => Station::RealserverIn,
        Err(_) => Station::DirectorIn,
    };
    Silence {
        kind: ProbeKind::Mtu,
        after: Some(Station::DirectorOut),
        at,
        hops: vec![Hop::DirectorToRealserver],
        probes: dead.iter().map(|one| one.probe).collect(),
        evidence: dead.iter().map(|one| one.evidence).collect(),
    }
}

/// An error if what clients send `dies`, a note if it `fits`, else a warning.
fn report(case: &mut Case<'_>, found: Break, fits: bool, dies: bool) {
    match (dies, fits) {
        (true, _) => case.broken(found),
        (false, true) => case.tell(Severity::Note, found),
        (false, false) => case.tell(Severity::Warning, found),
    }
}

/// Whether IPVS sets DF on the tunnel header of a packet that has it, its default.
fn dont_fragment(case: &Case<'_>) -> bool {
    let facts = case.facts(DIRECTOR);
    facts.and_then(|facts| facts.sysctls.get("net.ipv4.vs.pmtu_disc")) != Some(&0)
}

/// Whether the director's own kernel learns from an error that IPVS cannot use: by an `ipip` device that is up
/// (`net/ipv4/ipip.c`, `ipip_err`).
fn learns(case: &Case<'_>) -> bool {
    case.facts(DIRECTOR).is_some_and(|facts| {
        facts
            .links
            .iter()
            .any(|link| link.up && link.kind.as_deref() == Some("ipip"))
    })
}

/// The route's own MTU lets IPVS tell clients by itself; a lower segment size lets them not even try.
fn mend(case: &Case<'_>, passing: u16) -> Vec<String> {
    let (vip, rip) = (case.path.vip, case.path.rip);
    let via = case.via(DIRECTOR, rip);
    // Without it the route would choose the source anew, and that may be the VIP.
    let source = match case.route(DIRECTOR, rip, None, None) {
        Some(RouteAnswer::Route(route)) => route.source,
        _ => None,
    };
    let source = source.map_or_else(String::new, |source| format!(" src {source}"));
    let route = format!("ip route replace {rip}/32 {via}{source} mtu {passing}");
    let mut fix = vec![case.on(DIRECTOR, route)];
    if case.path.protocol == Protocol::Tcp {
        let size = passing.saturating_sub(IP_AND_TCP + TUNNEL);
        let clamp = format!(
            "iptables -t mangle -A OUTPUT -s {vip} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {size}"
        );
        fix.push(case.on(case.realserver(), clamp));
    }
    fix
}
