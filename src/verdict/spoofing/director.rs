//! What the way to the director says, and what it does not.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::evidence::Trial;
use crate::plan::Path;
use crate::plan::Toward;
use crate::verdict::spoofing::Router;
use crate::verdict::spoofing::SpoofOutcome;
use crate::verdict::spoofing::check::Check;
use crate::verdict::spoofing::check::Claim;
use crate::verdict::spoofing::sweep::Line;
use crate::verdict::spoofing::sweep::said;

impl Check<'_> {
    /// A claim of the way to the director, with what it leaves open; no claim where the director's own network may be
    /// what filters.
    pub(super) fn only_toward_the_director(&self, claim: Claim) -> Claim {
        let shared = self.shared();
        let is_filter = matches!(
            claim.outcome,
            SpoofOutcome::Filtered | SpoofOutcome::PartlyFiltered
        );
        if is_filter && self.is_at_the_door(claim.line.as_ref(), &shared) {
            return self.at_the_door(claim, &shared);
        }
        let scope = match claim.outcome {
            SpoofOutcome::Passed => self.proven_there_only(&shared),
            SpoofOutcome::Filtered | SpoofOutcome::PartlyFiltered | SpoofOutcome::Rewritten => {
                self.found_there_only(claim.line.as_ref(), &shared)
            }
            SpoofOutcome::ControlDiesToo | SpoofOutcome::Inconclusive => return claim,
        };
        let mut advice = claim.advice;
        advice.push(self.ask_toward_the_client());
        Claim {
            detail: format!("{} {scope}", claim.detail.trim_end()),
            advice,
            ..claim
        }
    }

    /// The routers that the control meets on its way to the client and to the director, by the least time to live.
    pub(super) fn shared(&self) -> BTreeMap<u8, Ipv4Addr> {
        let mut shared = BTreeMap::new();
        if self.toward == Toward::Client {
            return shared;
        }
        let to_the_client = self.evidence.trials(self.number, Toward::Client);
        let control = |trial: &&Trial<'_>| !trial.is_spoofed();
        let met: Vec<_> = to_the_client
            .iter()
            .filter(control)
            .filter_map(|trial| Some(trial.expired()?.from))
            .collect();
        for trial in self.trials.iter().filter(control) {
            if let Some(reply) = trial.expired().filter(|reply| met.contains(&reply.from)) {
                shared.entry(trial.probe.ttl).or_insert(reply.from);
            }
        }
        shared
    }

    /// Whether the director's own network may be what stops the packets: the line is drawn right before the director,
    /// or nowhere, and not at a router of the client's way.
    fn is_at_the_door(&self, line: Option<&Line>, shared: &BTreeMap<u8, Ipv4Addr>) -> bool {
        let end = self.end_ttl();
        if end == 1 {
            return false;
        }
        let is_own = |router: &Router| router.ttl + 1 >= end && !is_shared(router, shared);
        // It may answer the VIP from another address than the control.
        let refusing = self.refusing().and_then(|(refusing, _)| {
            let routers = (1..end).filter_map(|ttl| self.router(ttl));
            let mut known = routers.filter(|router| {
                router.to_the_vip.contains(&refusing) || router.to_the_control.contains(&refusing)
            });
            known.next()
        });
        match (refusing, line) {
            (Some(router), _) => is_own(&router),
            (None, Some(line)) => is_own(&line.stopped),
            (None, None) => true,
        }
    }

    /// What dies at the door has passed everything before it.
    fn at_the_door(&self, claim: Claim, shared: &BTreeMap<u8, Ipv4Addr>) -> Claim {
        let Path { vip, cip, .. } = self.path;
        let last = self.last_passed(&claim.drawn);
        let passed = shared.range(..=last).map(|(ttl, router)| (*ttl, *router));
        let passed = listed(&passed.collect()).map_or_else(String::new, |routers| {
            format!("What lets it pass is on the way to {cip} as well: {routers}.")
        });
        let place = match (self.refusing(), &claim.line) {
            (Some((router, _)), _) => format!("{router} refuses it"),
            (None, Some(line)) => said(line),
            (None, None) => "no router's answer shows where".to_owned(),
        };
        let silent = match claim.drawn.len() {
            0 => "what comes".to_owned(),
            _ => format!("some of what comes ({} flows)", claim.drawn.len()),
        };
        let reason = format!(
            "{silent} from {vip} dies, or may die, right before the director: {place}. A network refuses its own addresses \
             from outside as a rule, and no client meets that"
        );
        let inconclusive = self.inconclusive(reason, vec![self.ask_toward_the_client()]);
        Claim {
            detail: [claim.detail.trim_end(), &passed, &inconclusive.detail]
                .join(" ")
                .trim_end()
                .to_owned(),
            line: claim.line,
            drawn: claim.drawn,
            evidence: claim.evidence,
            ..inconclusive
        }
    }

    fn proven_there_only(&self, shared: &BTreeMap<u8, Ipv4Addr>) -> String {
        let cip = self.path.cip;
        match listed(shared) {
            None => format!(
                "That is proven toward the director only. Clients are reached another way: nothing here shows what it \
                 does, and no router was seen on both the director's and that to {cip}."
            ),
            Some(routers) => format!(
                "That is proven toward the director only. Clients are reached another way, which has some routers in \
                 common with the director's (to {cip}: {routers}); what the others do, nothing here shows."
            ),
        }
    }

    fn found_there_only(&self, line: Option<&Line>, shared: &BTreeMap<u8, Ipv4Addr>) -> String {
        let cip = self.path.cip;
        let both = line.is_some_and(|line| {
            is_shared(&line.stopped, shared)
                && line
                    .passed
                    .as_ref()
                    .is_none_or(|passed| is_shared(passed, shared))
        });
        match listed(shared) {
            Some(_) if both => format!(
                "That is shown toward the director only. The way to {cip} leads by the same routers there: packets to \
                 clients will show whether they meet the same."
            ),
            Some(routers) => format!(
                "That is shown toward the director only. The way to {cip} has in common with it {routers}: what is \
                 behind them need not concern clients."
            ),
            None => format!(
                "That is shown toward the director only, and need not concern clients: no router was seen on both ways, \
                 the director's and that to {cip}."
            ),
        }
    }

    fn ask_toward_the_client(&self) -> String {
        "what clients get, only packets to a client show: tunproof spoofcheck PATH.toml".to_owned()
    }
}

fn is_shared(router: &Router, shared: &BTreeMap<u8, Ipv4Addr>) -> bool {
    let mut known = router.to_the_control.iter().chain(&router.to_the_vip);
    known.any(|address| shared.values().any(|other| other == address))
}

fn listed(shared: &BTreeMap<u8, Ipv4Addr>) -> Option<String> {
    let routers = shared
        .iter()
        .map(|(ttl, router)| format!("{router} (TTL {ttl})"));
    let routers: Vec<_> = routers.collect();
    (!routers.is_empty()).then(|| routers.join(", "))
}
