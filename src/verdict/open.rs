//! What the real server's tunnel takes that it should not: packets of strangers, and forged sources (HOWTO Q2).
//!
//! Only an answer shows it. What came out of the tunnel may have been dropped behind it, by a mark or a rule on
//! the tunnel device; and that nothing came says nothing, which is as it should be.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::evidence::EvidenceId;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::Severity;
use crate::verdict::case::Case;
use crate::verdict::case::sysctl;
use crate::verdict::director::CRAFTED;
use crate::verdict::director::SCHEDULED;

/// Warns of a tunnel that is open to anyone.
pub(super) fn judge(case: &mut Case<'_>) {
    if !client_is_stranger(case) {
        return;
    }
    let strangers = answered(case, ProbeKind::OpenTunnel);
    let forged = answered(case, ProbeKind::SpoofTunnel);
    let (vip, rip, cip) = (case.path.vip, case.path.rip, case.path.cip);
    if !strangers.is_empty() {
        let summary = format!(
            "the real server {rip} takes tunnelled packets from {cip}, which is not its director"
        );
        let detail = format!(
            "{cip} put a packet for {vip} into the tunnel, past every firewall between, as anyone could who knows {rip}. \
             Only directors should be able to."
        );
        warn(case, Code::TunnelOpenToAnyone, summary, detail, strangers);
    }
    let Some(dip) = case.path.dip.filter(|_| !forged.is_empty()) else {
        return;
    };
    let summary = format!("the real server {rip} believes any source that comes out of its tunnel");
    let mut detail = format!(
        "{cip} sent it a tunnelled packet that claims to come from {dip}, and it answered {dip}."
    );
    let server = case.realserver();
    let mut evidence = forged;
    let device = case.facts(server).and_then(|facts| {
        let mut links = facts.links.iter().filter(|link| link.up);
        let link = links.find(|link| case.path.is_tunnel(&link.name, link.kind.as_deref()))?;
        Some((link.name.clone(), facts.rp_filter_in_force(&link.name)?))
    });
    if let Some((name, filter)) = device {
        detail += &format!(
            " LVS-TUN needs rp_filter 0 on {name} (it is {filter}), so that firewall rules must do what it cannot."
        );
        evidence.push(case.cite_fact(
            server,
            format!("rp_filter in force on {name}: {filter}"),
            format!(
                "sysctl net.ipv4.conf.all.rp_filter {}",
                sysctl(&name, "rp_filter")
            ),
        ));
    }
    warn(
        case,
        Code::SpoofProtectionMissing,
        summary,
        detail,
        evidence,
    );
}

/// Whether the client is neither a director nor the real server, by what is known of them.
fn client_is_stranger(case: &Case<'_>) -> bool {
    let cip = case.path.cip;
    let holds = |host| case.facts(host).is_some_and(|facts| facts.is_local(cip));
    case.path.dip != Some(cip) && !holds(Host::Director) && !holds(case.realserver())
}

/// The answers to probes of `kind`, as the real server, the client or the director saw them.
fn answered(case: &Case<'_>, kind: ProbeKind) -> Vec<EvidenceId> {
    let vip = case.path.vip;
    let seen = case.sightings(&[kind], |item, sighting| {
        let here = matches!(
            item.station,
            Some(Station::RealserverOut | Station::ClientIn | Station::DirectorIn)
        );
        here && sighting.form == Form::PORT_UNREACHABLE && sighting.source == vip
    });
    seen.into_iter().take(1).collect()
}

/// The sources with which the directors' tunnelled packets come to the real server, which a translator on the way may
/// have changed.
fn directors(case: &Case<'_>) -> BTreeSet<Ipv4Addr> {
    let kinds: Vec<_> = SCHEDULED.into_iter().chain(CRAFTED).collect();
    let arrived = case.sightings(&kinds, |item, sighting| {
        item.station == Some(Station::RealserverIn) && sighting.form == Form::Tunnelled
    });
    let outer = |id| case.sighting(id)?.outer.map(|outer| outer.source);
    let seen: BTreeSet<_> = arrived.into_iter().filter_map(outer).collect();
    match seen.is_empty() {
        true => case.path.dip.into_iter().collect(),
        false => seen,
    }
}

fn warn(
    case: &mut Case<'_>,
    code: Code,
    summary: String,
    detail: String,
    evidence: Vec<EvidenceId>,
) {
    let server = case.realserver();
    let directors = directors(case);
    let names: Vec<_> = directors.iter().map(ToString::to_string).collect();
    let directors = match &names[..] {
        [] => "DIP".to_owned(),
        [one] => one.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    };
    let detail = format!(
        "{detail} A rule that lets only directors in must name all of them, a backup, too, as the real server sees \
         them, and whoever else has a tunnel to it."
    );
    let fix = [
        "nft add table ip tunnel".to_owned(),
        "nft 'add chain ip tunnel input { type filter hook input priority 0; }'".to_owned(),
        format!("nft add rule ip tunnel input 'ip protocol 4 ip saddr != {directors} drop'"),
    ];
    let fix = fix.iter().map(|line| case.on(server, line)).collect();
    case.findings.push(Finding {
        code,
        severity: Severity::Warning,
        hop: Hop::Decapsulation,
        summary,
        detail,
        fix,
        evidence,
    });
}
