//! From evidence to a judgement: what packets prove is proven; what is silent is blamed by the rules of
//! each part of the path; the rest says what would decide it.

use crate::evidence::Evidence;
use crate::plan::Hop;
use crate::plan::Host;
use crate::verdict::HopJudgement;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Judgement;
use crate::verdict::Outcome;
use crate::verdict::PathJudgement;
use crate::verdict::alone;
use crate::verdict::case::Case;
use crate::verdict::cause;
use crate::verdict::director;
use crate::verdict::duplicate;
use crate::verdict::network;
use crate::verdict::open;
use crate::verdict::quality;
use crate::verdict::realserver;

/// Judges what is known. The facts and silences that a judgement rests on become evidence of their own.
pub fn judge(evidence: &mut Evidence) -> Judgement {
    let paths = (0..evidence.plan().paths.len())
        .map(|number| judge_path(evidence, number))
        .collect();
    Judgement { paths }
}

fn judge_path(evidence: &mut Evidence, number: usize) -> PathJudgement {
    let mut case = Case::new(evidence, number);
    director::judge(&mut case);
    realserver::judge(&mut case);
    network::judge(&mut case);
    duplicate::judge(&mut case);
    open::judge(&mut case);
    alone::judge(&mut case);
    quality::judge(&mut case);
    cause::judge(&mut case);
    take_proofs(&mut case);
    explain_rest(&mut case);
    let mut findings = case.findings;
    findings.sort_by_key(|finding| (finding.severity, finding.hop));
    let hops: Vec<HopJudgement> = case.hops.into_values().collect();
    let outcome = hops
        .iter()
        .map(|judged| match judged.verdict {
            HopVerdict::Proven => Outcome::Proven,
            HopVerdict::Unproven | HopVerdict::Skipped => Outcome::Unproven,
            HopVerdict::Broken => Outcome::Broken,
        })
        .max()
        .unwrap_or(Outcome::Unproven);
    PathJudgement {
        path: number,
        outcome,
        hops,
        findings,
    }
}

/// Packets prove what no rule found broken.
fn take_proofs(case: &mut Case<'_>) {
    for (hop, proof) in std::mem::take(&mut case.proofs) {
        let judged = HopJudgement {
            hop,
            verdict: HopVerdict::Proven,
            how: Some(if proof.seen { How::Seen } else { How::Implied }),
            evidence: proof.evidence,
            between: None,
            reason: None,
        };
        match case.hops.get(&hop).map(|known| known.verdict) {
            Some(HopVerdict::Broken) => {}
            _ => {
                case.hops.insert(hop, judged);
            }
        }
    }
}

/// What is neither proven nor broken was skipped behind a broken hop, or needs another vantage.
fn explain_rest(case: &mut Case<'_>) {
    let mut broken = None;
    for hop in Hop::ALL {
        match case.hops.get(&hop).map(|judged| judged.verdict) {
            Some(HopVerdict::Broken) => broken = broken.or(Some(hop)),
            Some(_) => {}
            None => {
                let (verdict, reason) = match broken {
                    Some(before) => (
                        HopVerdict::Skipped,
                        format!("not tried: {before} is broken before it"),
                    ),
                    None => (HopVerdict::Unproven, what_would_decide(case, hop)),
                };
                let judged = HopJudgement {
                    hop,
                    verdict,
                    how: None,
                    evidence: Vec::new(),
                    between: None,
                    reason: Some(reason),
                };
                case.hops.insert(hop, judged);
            }
        }
    }
}

/// The vantages that see a hop's two sides.
fn deciders(case: &Case<'_>, hop: Hop) -> Vec<Host> {
    let realserver = case.realserver();
    match hop {
        Hop::ClientToDirector => vec![Host::Client, Host::Director],
        Hop::DirectorForward => vec![Host::Director],
        Hop::DirectorSource | Hop::DirectorToRealserver => vec![Host::Director, realserver],
        Hop::Decapsulation | Hop::RealserverAccept | Hop::Service | Hop::RealserverEgress => {
            vec![Host::Director, realserver]
        }
        Hop::GatewayArp => vec![realserver],
        Hop::SpoofedSourceTransit | Hop::ClientArrival => vec![realserver, Host::Client],
        Hop::ReturnToDirector => vec![Host::Client, Host::Director],
    }
}

fn what_would_decide(case: &Case<'_>, hop: Hop) -> String {
    if let Some(why) = case.evidence.why_disturbed(case.number) {
        return why;
    }
    if let Some(why) = case.evidence.is_cut_short() {
        return format!("{why} before it was decided");
    }
    let deciders = deciders(case, hop);
    let items = case.evidence.items().iter();
    let theirs: Vec<_> = items
        .filter(|item| deciders.contains(&item.host))
        .map(|item| item.id)
        .collect();
    if let Some(why) = case.evidence.why_declined(&theirs) {
        return why;
    }
    if let Some(why) = case
        .evidence
        .why_replies_are_doubted(case.number)
        .filter(|_| hop >= Hop::SpoofedSourceTransit)
    {
        return why;
    }
    let deaf: Vec<String> = deciders
        .iter()
        .filter(|host| case.evidence.host(**host).is_some())
        .filter_map(|host| case.evidence.hears(*host).err())
        .collect();
    if !deaf.is_empty() {
        return deaf.join("; ");
    }
    let missing: Vec<String> = deciders
        .iter()
        .filter(|host| case.evidence.host(**host).is_none())
        .map(|host| match host {
            Host::Director => "`director`".to_owned(),
            Host::Realserver(_) => format!("`realserver` ({})", case.name(*host)),
            Host::Client => "`client`".to_owned(),
        })
        .collect();
    let beyond = hop >= Hop::SpoofedSourceTransit;
    let listens = beyond && case.evidence.host(Host::Director).is_none();
    match missing.is_empty() {
        true => match [Hop::RealserverEgress, Hop::GatewayArp]
            .iter()
            .find(|hop| case.is_broken(**hop))
        {
            Some(broken) => format!("no answer leaves the real server: {broken} is broken"),
            None => {
                "no probe got far enough to decide, and too few were silent to count".to_owned()
            }
        },
        false if listens => {
            format!(
                "`tunproof listen` at the director, or a vantage at {}, would decide",
                missing.join(" and ")
            )
        }
        false => format!("a vantage at {} would decide", missing.join(" and ")),
    }
}
