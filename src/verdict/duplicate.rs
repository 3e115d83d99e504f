//! Who else claims the VIP by ARP, where it is on-link (HOWTO Q4).
//!
//! On the director's link nobody but the director may; on the real server's only the director, if it is on
//! that link, too. What the director has itself, and what routers answer for others (proxy ARP, EVPN), is no
//! other host's claim.

use std::net::Ipv4Addr;

use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::exchange::Direction;
use crate::exchange::HostFacts;
use crate::exchange::Link;
use crate::plan::Hop;
use crate::plan::Host;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::Severity;
use crate::verdict::case::Case;

const DIRECTOR: Host = Host::Director;

/// A host that claims the VIP and is none of those that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its packet.
    pub(super) evidence: EvidenceId,
    /// Its hardware address.
    pub(super) mac: [u8; 6],
    /// Who saw it.
    seen_by: Host,
}

/// Warns of other hosts that claim the VIP. That packets for it were lost is an error of the hop that lost them.
pub(super) fn judge(case: &mut Case<'_>) {
    let known: Vec<Code> = case.findings.iter().map(|finding| finding.code).collect();
    if known.contains(&Code::DuplicateVip) {
        return;
    }
    let Some(claim) = claims(case).into_iter().next() else {
        return;
    };
    let vip = case.path.vip;
    let (mac, seer) = (hardware(claim.mac), case.name(claim.seen_by));
    let rip = case.path.rip;
    let entry = |facts: &HostFacts, ip: Ipv4Addr| {
        facts
            .neighbours
            .iter()
            .any(|entry| entry.ip == ip && entry.mac == Some(claim.mac))
    };
    let record = case.evidence.host(claim.seen_by);
    let both = record.map(|record| [record.before.as_ref(), record.after.as_ref()]);
    let seen_by: Vec<&HostFacts> = both.into_iter().flatten().flatten().collect();
    let is_server = seen_by.iter().any(|facts| entry(facts, rip));
    let router = seen_by
        .iter()
        .flat_map(|facts| &facts.neighbours)
        .find(|entry| entry.mac == Some(claim.mac) && entry.ip != rip && entry.ip != vip)
        .map(|entry| entry.ip);
    let (code, severity, summary, detail) = match (is_server, router) {
        (true, _) => (
            Code::VipAdvertised,
            Severity::Warning,
            format!("the real server {rip} ({mac}) answers ARP for the VIP {vip}"),
            "The VIP is on-link there: whoever believes it sends the director's packets to the real server.".to_owned(),
        ),
        (false, Some(router)) => (
            Code::DuplicateVip,
            Severity::Note,
            format!("{router} ({mac}) answers ARP for the VIP {vip}"),
            "It is a router of that link: it may answer for others (proxy ARP), or have the VIP itself."
                .to_owned(),
        ),
        (false, None) => (
            Code::DuplicateVip,
            Severity::Warning,
            format!("another host, {mac}, claims the VIP {vip} by ARP on the link of {seer}"),
            "It is none of the director's hardware addresses. Routers and neighbours send the VIP's packets to \
             whoever answered last: a backup director that kept the VIP, a real server that does not hide it, an \
             address given twice."
                .to_owned(),
        ),
    };
    if known.contains(&code) {
        return;
    }
    let fix = match severity {
        Severity::Note => Vec::new(),
        _ => fix(case, &claim),
    };
    case.findings.push(Finding {
        code,
        severity,
        hop: Hop::GatewayArp,
        summary,
        detail,
        fix,
        evidence: vec![claim.evidence],
    });
}

/// Who else claims the VIP on the director's own link: one culprit where the VIP's packets were lost before it.
pub(super) fn culprit(case: &Case<'_>) -> Option<Claim> {
    claims(case)
        .into_iter()
        .find(|claim| claim.seen_by == DIRECTOR)
}

/// What to type to find and mend it.
pub(super) fn fix(case: &Case<'_>, claim: &Claim) -> Vec<String> {
    let vip = case.path.vip;
    let device = match case.evidence.item(claim.evidence).map(|item| &item.what) {
        Some(What::Arp { capture, .. }) => capture.device.clone(),
        _ => "DEV".to_owned(),
    };
    vec![
        case.on(
            claim.seen_by,
            format!("ip neigh | grep {}", hardware(claim.mac)),
        ),
        case.on(claim.seen_by, format!("arping -D -c 3 -I {device} {vip}")),
        format!("that host# ip addr show to {vip}"),
    ]
}

/// `02:00:00:00:00:01`.
pub(super) fn hardware(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn claims(case: &Case<'_>) -> Vec<Claim> {
    let Some(director) = case.facts(DIRECTOR).filter(|facts| !facts.links.is_empty()) else {
        return Vec::new();
    };
    let plan = case.evidence.plan();
    let is_ours = |mac| {
        let servers = (0..plan.paths.len()).filter_map(|n| case.facts(Host::Realserver(n)));
        let mut links = [director]
            .into_iter()
            .chain(servers)
            .flat_map(|facts| &facts.links);
        links.any(|link| link.mac == Some(mac))
    };
    // On the real server's link the director must have answered, too: an address translator between may show
    // another hardware address for its own.
    let answers_there = case.evidence.arps(case.realserver()).any(|(_, arp)| {
        let mut links = director.links.iter();
        arp.sender == case.path.vip && links.any(|link| link.mac == Some(arp.sender_mac))
    });
    let hosts = [DIRECTOR, case.realserver()].into_iter();
    let mut seen: Vec<_> = hosts.flat_map(|host| case.evidence.arps(host)).collect();
    seen.sort_by_key(|(item, _)| item.id);
    let mut claims: Vec<Claim> = Vec::new();
    for (item, _) in seen {
        let What::Arp { arp, capture } = &item.what else {
            continue;
        };
        let foreign = arp.sender == case.path.vip
            && capture.direction == Direction::In
            && !is_ours(arp.sender_mac);
        if !foreign || claims.iter().any(|known| known.mac == arp.sender_mac) {
            continue;
        }
        let shared = case
            .facts(item.host)
            .and_then(|facts| facts.link(&capture.device))
            .is_some_and(|link| {
                is_on(link, case.path.vip)
                    && (item.host == DIRECTOR || answers_there && is_shared(link, director))
            });
        if shared {
            claims.push(Claim {
                evidence: item.id,
                mac: arp.sender_mac,
                seen_by: item.host,
            });
        }
    }
    claims
}

/// Whether the VIP is on-link there.
fn is_on(link: &Link, vip: Ipv4Addr) -> bool {
    link.addresses
        .iter()
        .any(|address| (1..32).contains(&address.prefix) && address.contains(vip))
}

/// Whether the director has an address on that link, and answers there for the VIP.
fn is_shared(link: &Link, director: &HostFacts) -> bool {
    let addresses = director.links.iter().filter(|own| !own.loopback);
    addresses
        .flat_map(|own| &own.addresses)
        .any(|own| is_on(link, own.ip) && !link.addresses.iter().any(|here| here.ip == own.ip))
}
