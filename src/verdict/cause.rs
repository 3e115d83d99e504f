//! The cause on a host: of packets that died there, the rule that stopped them.
//!
//! A rule is the one only if its counter rose by as many packets as died, or if the kernel says that a rule it was
//! and no other could be. What could be it without that is named
//! as a candidate. What the host's rules cannot have done, they are not blamed for.

use std::cmp::Reverse;

use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::exchange::Firewall;
use crate::exchange::FirewallRule;
use crate::exchange::FirewallTool;
use crate::exchange::Leg;
use crate::exchange::RulePlace;
use crate::exchange::Wall;
use crate::plan::Hop;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::verdict::Code;
use crate::verdict::HopJudgement;
use crate::verdict::HopVerdict;
use crate::verdict::Severity;
use crate::verdict::case::Case;
use crate::verdict::reason;
use crate::verdict::reason::Told;
use crate::verdict::scene::Death;
use crate::verdict::scene::Scene;
use crate::verdict::tunnel;

/// How many packets must have died while a rule's counter rose by as many, where several rules could be it.
const ENOUGH: u64 = 3;
/// How many candidates are named.
const NAMED: usize = 5;

/// Names the cause in every finding that blames a host's firewall.
pub(super) fn judge(case: &mut Case<'_>) {
    for number in 0..case.findings.len() {
        let code = case.findings[number].code;
        let Some(scene) = Scene::of(case, code) else {
            continue;
        };
        let deaths = scene.deaths(case);
        if !blames_firewall(code) {
            reason::corroborate(case, number, &scene, &deaths);
            continue;
        }
        match reason::judge(case, number, &scene, &deaths) {
            Told::Explained => {}
            Told::Rule(said) => blame_rule(case, number, &scene, &deaths, Some(said)),
            Told::Nothing => blame_rule(case, number, &scene, &deaths, None),
        }
    }
    if case.path.protocol == Protocol::Udp && !is_service_dropped(case) {
        doubt(case);
    }
}

/// Whether the real server's kernel says that it dropped what was for the service's own port.
fn is_service_dropped(case: &Case<'_>) -> bool {
    let server = case.realserver();
    case.evidence.items().iter().any(|item| {
        let kind = item.probe.map(|probe| probe.kind);
        let asks = matches!(kind, Some(ProbeKind::IpvsLoop | ProbeKind::Service));
        let dropped = matches!(&item.what, What::Drop { reason: Some(reason), .. }
            if reason::says_something(reason));
        item.host == server && asks && dropped
    })
}

/// A UDP service may answer nothing but questions of its own, so that only closed ports were seen to be silent.
/// A firewall that lets nothing but the service through, or no ICMP errors out, makes them so, and all is well.
fn doubt(case: &mut Case<'_>) {
    let (vip, port) = (case.path.vip, case.path.port);
    for finding in &mut case.findings {
        let blames = matches!(
            finding.code,
            Code::RealserverFirewallDecapsulated | Code::RealserverFirewallEgress
        );
        if !blames || finding.severity != Severity::Error {
            continue;
        }
        let summary =
            format!("what comes out of the tunnel for closed ports of {vip} is not answered");
        let old = std::mem::replace(&mut finding.summary, summary);
        finding.severity = Severity::Note;
        finding.detail = format!(
            "That need not be wrong: a firewall that lets nothing but {vip}:{port} through, or no ICMP errors out, does \
             that, and a UDP service may answer only questions of its own. Or the service's packets are dropped, too: \
             {old}. {}",
            finding.detail
        );
        let hop = finding.hop;
        let judged = case.hops.get(&hop);
        if judged.is_some_and(|judged| judged.reason.as_ref() == Some(&old)) {
            case.hops.remove(&hop);
            let reason = format!(
                "{}, and {vip}:{port} is asked nothing that it would have to answer; a real client would decide",
                finding.summary
            );
            case.hops.insert(
                hop,
                HopJudgement {
                    hop,
                    verdict: HopVerdict::Unproven,
                    how: None,
                    evidence: Vec::new(),
                    between: None,
                    reason: Some(reason),
                },
            );
        }
    }
}

/// Whether it is for want of a better reason that the finding has its code.
fn blames_firewall(code: Code) -> bool {
    !matches!(
        code,
        Code::RpFilterDrops | Code::VipNotLocal | Code::RouteRejects
    )
}

/// A rule that could be it, and by how much its counter rose while so many packets died that it could match.
struct Candidate {
    rule: FirewallRule,
    rose: Option<u64>,
    died: u64,
}

impl Candidate {
    /// Packets that it could match died, and it has counted none.
    fn is_innocent(&self) -> bool {
        self.died > 0 && self.rose == Some(0)
    }

    /// `enough` packets must have died meanwhile.
    fn is_guilty(&self, enough: u64) -> bool {
        self.died >= enough && self.rose.is_some_and(|rose| rose >= self.died)
    }
}

/// `kernel` is the kernel's word that it was a rule.
fn blame_rule(
    case: &mut Case<'_>,
    number: usize,
    scene: &Scene,
    deaths: &[Death],
    kernel: Option<String>,
) {
    let record = case.evidence.host(scene.host);
    let Some(before) = record.and_then(|record| record.firewall_before.clone()) else {
        if let Some(kernel) = kernel {
            append(&mut case.findings[number].detail, &kernel);
        }
        return;
    };
    let after = record.and_then(|record| record.firewall_after.clone());
    let candidates = candidates(scene, deaths, &before, after.as_ref());
    let known = after.as_ref().unwrap_or(&before);
    let unknown: Vec<String> = known.unread.iter().map(|u| u.what.clone()).collect();
    let complete = unknown.is_empty() && known.left_out == 0;
    let enough = if complete && candidates.len() == 1 {
        1
    } else {
        ENOUGH
    };
    let mut guilty: Vec<&Candidate> = candidates.iter().filter(|c| c.is_guilty(enough)).collect();
    if let (true, Some(_), [only]) = (complete, &kernel, &candidates[..]) {
        guilty = vec![only];
    }
    let shared = |a: &Candidate, b: &Candidate| {
        let mut both = a.rule.matches.iter();
        both.any(|packet| b.rule.matches.contains(packet))
    };
    let sure = guilty
        .iter()
        .all(|a| guilty.iter().filter(|b| shared(a, b)).count() == 1);
    let named: Vec<&Candidate> = match guilty.is_empty() {
        false => guilty.clone(),
        true => candidates.iter().take(NAMED).collect(),
    };
    let mut said = if guilty.is_empty() || !sure {
        suspicion(&named, candidates.len(), complete)
    } else {
        conviction(&named)
    };
    if let Some(kernel) = &kernel {
        said = format!("{kernel} {said}");
    }
    if !unknown.is_empty() {
        said += &format!(" Not read: {}.", unknown.join(", "));
    }
    if known.left_out > 0 {
        said += &format!(" {} more rules were left out.", known.left_out);
    }
    if named.iter().any(|candidate| candidate.rule.invalid) {
        said += " Connection tracking calls a packet invalid if it saw no beginning of its connection; of an LVS-TUN \
                 path a host sees one direction only, so nothing of it may be dropped for that: accept it before \
                 that rule, or have it not tracked (notrack).";
    }
    let mut fix = Vec::new();
    for candidate in from_the_end(&named) {
        if guilty.is_empty() || !sure {
            push(&mut fix, case.on(scene.host, candidate.rule.shown_by()));
        }
        if sure && !guilty.is_empty() || candidates.len() == 1 {
            push(
                &mut fix,
                case.on(scene.host, mended_by(case, scene, &candidate.rule)),
            );
        }
    }
    let convicted = sure && !guilty.is_empty();
    let outgoing = !candidates.is_empty()
        && named.iter().all(|candidate| candidate.rule.is_outgoing())
        && (convicted || complete);
    let evidence: Vec<EvidenceId> = named
        .iter()
        .map(|candidate| (fact(candidate), candidate.rule.shown_by()))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|(summary, command)| case.cite_fact(scene.host, summary, command))
        .collect();
    correct(case, number, outgoing, convicted);
    let rules: Vec<String> = named.iter().map(|c| c.rule.to_string()).collect();
    let finding = &mut case.findings[number];
    let old = finding.summary.clone();
    if convicted {
        finding.summary = format!("{old}: {}", rules.join(" and "));
    }
    append(&mut finding.detail, &said);
    if !fix.is_empty() {
        finding.fix = fix;
    }
    finding.evidence.extend(&evidence);
    let (hop, summary) = (finding.hop, finding.summary.clone());
    if let Some(judged) = case.hops.get_mut(&hop)
        && judged.reason.as_ref() == Some(&old)
    {
        judged.reason = Some(summary);
        judged.evidence.extend(&evidence);
    }
    if convicted && outgoing && hop == Hop::RealserverEgress {
        let reason = "answers were made, and counted by the rule that drops them";
        case.proven_by_fact(Hop::RealserverAccept, reason, evidence);
    }
}

fn candidates(
    scene: &Scene,
    deaths: &[Death],
    before: &Firewall,
    after: Option<&Firewall>,
) -> Vec<Candidate> {
    let rules = after.map_or(&before.rules, |after| &after.rules);
    let could = |rule: &FirewallRule, death: &Death| {
        let mut shapes = death.shapes.iter();
        shapes.any(|shape| scene.legs.contains(&shape.0) && rule.matches.contains(shape))
    };
    rules
        .iter()
        .filter(|rule| deaths.iter().any(|death| could(rule, death)))
        .map(|rule| {
            let known = before.rules.iter().find(|known| known.is(rule));
            let rose = after.and_then(|_| rule.counter?.checked_sub(known?.counter?));
            let died = deaths
                .iter()
                .filter(|death| is_between(before, after, rule.tool, death.time))
                .filter(|death| could(rule, death))
                .count();
            Candidate {
                rule: rule.clone(),
                rose,
                died: died as u64,
            }
        })
        .filter(|candidate| !candidate.is_innocent())
        .collect()
}

/// Whether something happened between the two listings that a rule's counter is from: each program's has a time of its
/// own, and on a slow host they take seconds.
fn is_between(before: &Firewall, after: Option<&Firewall>, tool: FirewallTool, time: Wall) -> bool {
    let after = after.and_then(|after| after.listing(tool));
    match (before.listing(tool), after) {
        (Some(before), Some(after)) => before.ended < time && time < after.begun,
        _ => false,
    }
}

/// In the order in which they can be deleted: behind a rule that goes by its number, all others get other ones.
fn from_the_end<'c>(named: &[&'c Candidate]) -> Vec<&'c Candidate> {
    let mut named = named.to_vec();
    named.sort_by_key(|candidate| match candidate.rule.place {
        RulePlace::Number(number) => Reverse(number),
        RulePlace::Handle(_) | RulePlace::Policy => Reverse(0),
    });
    named
}

fn conviction(guilty: &[&Candidate]) -> String {
    let told: Vec<String> = guilty
        .iter()
        .map(|c| match c.rose {
            Some(rose) if c.is_guilty(1) => format!(
                "The counter of {} rose by {rose} while {} of our packets died here.",
                c.rule, c.died
            ),
            _ => format!("No other rule than {} could.", c.rule),
        })
        .collect();
    told.join(" ")
}

fn suspicion(named: &[&Candidate], count: usize, complete: bool) -> String {
    let rules: Vec<String> = named.iter().map(|c| c.rule.to_string()).collect();
    let rules = rules.join("; ");
    match (count, complete) {
        (0, true) => "No rule of nftables or iptables on this host could drop these packets: look at tc filters and \
                      eBPF programs, too, and whether its neighbour table is full (`dmesg | grep 'table overflow'`)."
            .to_owned(),
        (0, false) => "No rule that could be read would drop these packets.".to_owned(),
        (1, _) => format!("One rule could be it, and no counter tells: {rules}."),
        _ => format!("{count} rules could be it, and no counter tells which: {rules}."),
    }
}

fn fact(candidate: &Candidate) -> String {
    match candidate.rose {
        Some(rose) => format!("{}, counted {rose} packets while we probed", candidate.rule),
        None => format!("{}, without a counter", candidate.rule),
    }
}

/// The command that mends just this: the rule goes, unless it is for all sorts of packets.
fn mended_by(case: &Case<'_>, scene: &Scene, rule: &FirewallRule) -> String {
    if !rule.general && !rule.invalid {
        return rule.removed_by();
    }
    let (vip, rip, port) = (case.path.vip, case.path.rip, case.path.port);
    let name = case.path.protocol.name();
    let mut legs = rule.matches.iter().map(|(leg, _)| *leg);
    let leg = legs.find(|leg| scene.legs.contains(leg));
    let device = || {
        let facts = case.facts(case.realserver());
        let mut links = facts.iter().flat_map(|facts| &facts.links);
        links
            .find(|link| link.up && tunnel::is_tunnel(case, link))
            .map_or("tunl0".to_owned(), |link| link.name.clone())
    };
    let (nft, iptables) = match (leg, case.path.dip) {
        (Some(Leg::Tunnel), Some(dip)) => (
            format!("ip saddr {dip} ip daddr {rip} ip protocol 4"),
            format!("-s {dip} -d {rip} -p 4"),
        ),
        (Some(Leg::Decapsulated), _) => (
            format!("iifname {} ip daddr {vip}", device()),
            format!("-i {} -d {vip}", device()),
        ),
        (Some(Leg::Request), _) => (
            format!("ip daddr {vip} {name} dport {port}"),
            format!("-d {vip} -p {name} --dport {port}"),
        ),
        _ => (format!("ip saddr {vip}"), format!("-s {vip}")),
    };
    rule.preceded_by(&nft, &iptables)
}

fn append(detail: &mut String, said: &str) {
    detail.push(' ');
    detail.push_str(said);
}

fn push(fix: &mut Vec<String>, command: String) {
    if !fix.contains(&command) {
        fix.push(command);
    }
}

/// Corrects the blame where the rules tell more than the packets did.
fn correct(case: &mut Case<'_>, number: usize, outgoing: bool, convicted: bool) {
    let finding = &mut case.findings[number];
    match finding.code {
        Code::DirectorNotForwarding if convicted => {
            finding.code = Code::DirectorFirewallIngress;
        }
        Code::RealserverFirewallDecapsulated if outgoing => {
            finding.code = Code::RealserverFirewallEgress;
            finding.hop = Hop::RealserverEgress;
            let vip = case.path.vip;
            let old = std::mem::replace(
                &mut finding.summary,
                format!("the real server's firewall drops what leaves from {vip}"),
            );
            "Packets come out of the tunnel, and no answer leaves. No rule could stop what comes in."
                .clone_into(&mut finding.detail);
            let blamed = case.hops.get(&Hop::RealserverAccept);
            if blamed.is_some_and(|judged| judged.reason.as_ref() == Some(&old))
                && let Some(mut judged) = case.hops.remove(&Hop::RealserverAccept)
            {
                judged.hop = Hop::RealserverEgress;
                judged.verdict = HopVerdict::Broken;
                judged.reason = Some(finding.summary.clone());
                case.hops.entry(Hop::RealserverEgress).or_insert(judged);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Listing;
    use crate::exchange::RuleVerdict;

    fn candidate(number: u32, rose: Option<u64>, died: u64) -> Candidate {
        Candidate {
            rule: FirewallRule {
                tool: FirewallTool::Iptables,
                family: "ip".to_owned(),
                table: "filter".to_owned(),
                chain: "INPUT".to_owned(),
                hook: "input".to_owned(),
                priority: 0,
                place: RulePlace::Number(number),
                text: "-A INPUT -p tcp -j DROP".to_owned(),
                verdict: RuleVerdict::Drop,
                counter: None,
                invalid: false,
                general: false,
                matches: Vec::new(),
            },
            rose,
            died,
        }
    }

    #[test]
    fn a_rule_that_counted_nothing_while_packets_died_is_innocent() {
        assert!(candidate(1, Some(0), 3).is_innocent());
        assert!(!candidate(1, Some(1), 3).is_innocent());
        assert!(!candidate(1, None, 3).is_innocent());
        assert!(!candidate(1, Some(0), 0).is_innocent());
    }

    #[test]
    fn of_rules_with_numbers_the_last_is_deleted_first() {
        let rules = [2, 7, 5].map(|number| candidate(number, Some(3), 3));
        let named: Vec<_> = rules.iter().collect();
        let places: Vec<_> = from_the_end(&named)
            .iter()
            .map(|candidate| candidate.rule.removed_by())
            .collect();
        let expected = [7, 5, 2].map(|number| format!("iptables -D INPUT {number}"));
        assert_eq!(places, expected);
    }

    #[test]
    fn a_counter_is_as_old_as_its_own_listing() {
        let at = |seconds: u64| Wall::from_nanos(seconds * 1_000_000_000);
        let firewall = |nft: [u64; 2], iptables: [u64; 2]| {
            let listing = |tool, [begun, ended]: [u64; 2]| Listing {
                tool,
                begun: at(begun),
                ended: at(ended),
            };
            Firewall {
                listings: vec![
                    listing(FirewallTool::Nft, nft),
                    listing(FirewallTool::Iptables, iptables),
                ],
                ..Firewall::default()
            }
        };
        let (before, after) = (firewall([10, 11], [11, 15]), firewall([20, 21], [21, 25]));
        let between = |tool| {
            let is = |time: &u64| is_between(&before, Some(&after), tool, at(*time));
            (10..=25).filter(is).collect::<Vec<_>>()
        };
        assert_eq!(between(FirewallTool::Nft), (12..20).collect::<Vec<_>>());
        assert_eq!(
            between(FirewallTool::Iptables),
            (16..21).collect::<Vec<_>>()
        );
        assert!(between(FirewallTool::IptablesLegacy).is_empty());
        assert!(!is_between(&before, None, FirewallTool::Nft, at(12)));
    }
}
