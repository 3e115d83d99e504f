//! What arrives of the VIP's packets: all flows, some, or none.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::evidence::Count;
use crate::evidence::EvidenceId;
use crate::evidence::Fate;
use crate::evidence::SURE;
use crate::evidence::chance_of_loss;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::ProbeId;
use crate::plan::Toward;
use crate::verdict::spoofing::SpoofOutcome;
use crate::verdict::spoofing::check::Check;
use crate::verdict::spoofing::check::Claim;
use crate::verdict::spoofing::check::WITHOUT_RETURN;
use crate::verdict::spoofing::check::capital;
use crate::verdict::spoofing::check::first;
use crate::verdict::spoofing::sweep::fate_evidence;
use crate::verdict::spoofing::sweep::said;

impl Check<'_> {
    pub(super) fn some_arrive(&self) -> Claim {
        let (vip, there) = (self.path.vip, self.there);
        let silent = self.arrivals.silent_flows();
        let passing: Vec<_> = self
            .arrivals
            .spoofed
            .keys()
            .filter(|f| !silent.contains(f))
            .collect();
        let evidence = self.trials.iter().filter(|trial| trial.is_spoofed());
        let evidence: Vec<_> = evidence
            .filter_map(|t| Some(t.arrived()?.evidence))
            .collect();
        if silent.is_empty() {
            let flows = passing.len();
            let total = self.arrivals.spoofed_total();
            return Claim {
                outcome: SpoofOutcome::Passed,
                confidence: Some(1.0 - 0.5f64.powi(flows as i32)),
                summary: format!(
                    "{there} gets what comes from {vip}: no network on the way{} filters it",
                    match self.toward {
                        Toward::Client => "",
                        Toward::Director => " to the director",
                    }
                ),
                detail: format!(
                    "{} of {} probes in {flows} {} arrived; of the control {} of {}.",
                    total.arrived,
                    total.sent,
                    if flows == 1 { "flow" } else { "flows" },
                    self.arrivals.control_total().arrived,
                    self.arrivals.control_total().sent
                ),
                advice: Vec::new(),
                line: None,
                rewritten_to: Vec::new(),
                evidence: first(evidence, 6),
                drawn: Vec::new(),
            };
        }
        self.some_flows_are_silent(&silent, passing.len(), evidence)
    }

    fn some_flows_are_silent(
        &self,
        silent: &[u16],
        passing: usize,
        mut evidence: Vec<EvidenceId>,
    ) -> Claim {
        let (Path { vip, rip, .. }, there, whom) = (self.path, self.there, self.whom());
        let arrivals = &self.arrivals;
        let all = silent.len() + passing;
        let which = self.ports(silent);
        let again = vec!["run it again with more `--passes`".to_owned()];
        let dead = |flows: &BTreeMap<u16, Count>, flow: &u16| {
            flows
                .get(flow)
                .is_some_and(|count| count.sent > 0 && count.arrived == 0)
        };
        let controls: Vec<_> = arrivals
            .control
            .keys()
            .filter(|f| dead(&arrivals.control, f))
            .collect();
        if !controls.is_empty() {
            let reason = format!(
                "of {all} flows from {vip} {} never arrived (ports {which}), but so did {} flows from {rip}: one of \
                 several equal paths drops everything, or much is lost",
                silent.len(),
                controls.len()
            );
            return self.inconclusive(reason, again);
        }
        let least = silent
            .iter()
            .filter_map(|flow| arrivals.spoofed.get(flow))
            .map(|c| c.sent)
            .min();
        let chance = arrivals.chance(least.unwrap_or(0)) * f64::from(ProbeId::FLOWS);
        if chance > SURE {
            let reason = format!(
                "of {all} flows from {vip} {} never arrived (ports {which}), each asked {} times at least: loss, or \
                 one of several equal paths filters",
                silent.len(),
                least.unwrap_or(0)
            );
            return self.inconclusive(reason, again);
        }
        let back = |flow: &&u16| dead(&arrivals.back, flow);
        if !arrivals.seen_there && silent.iter().find(back).is_some() {
            let reason = format!(
                "of {all} flows from {vip} {} never arrived (ports {which}), nor did the client's answers to the \
                 director's own packets in them: one of several equal ways back may be dead",
                silent.len()
            );
            return self.inconclusive(reason, self.see_there());
        }
        let mut sure = (1.0 - chance).min(1.0 - 0.5f64.powi(arrivals.control.len() as i32));
        if !arrivals.seen_there && arrivals.back.is_empty() {
            sure = sure.min(WITHOUT_RETURN);
        }
        let line = self.line(silent);
        let server = Host::Realserver(self.number);
        let left = self
            .trials
            .iter()
            .filter(|t| t.is_spoofed() && silent.contains(&t.flow));
        evidence.truncate(3);
        evidence.extend(left.map(|trial| trial.left).take(3));
        let place = line
            .as_ref()
            .map_or_else(String::new, |line| format!(" ({})", said(line)));
        Claim {
            outcome: SpoofOutcome::PartlyFiltered,
            confidence: Some(sure),
            summary: format!(
                "{} of {all} flows from {vip} never reach {whom}, the others do: one of several equal paths \
                 filters it{place}",
                silent.len()
            ),
            detail: format!(
                "Silent are the flows to {there} ports {which}; the control from {rip} passes in all {}. {}",
                arrivals.control.len(),
                match self.toward {
                    Toward::Client =>
                        "Real clients see that some connections hang and others work.",
                    Toward::Director => "",
                }
            ),
            advice: self.ask_operator(line.as_ref(), server),
            line,
            rewritten_to: Vec::new(),
            evidence,
            drawn: silent.to_vec(),
        }
    }

    pub(super) fn none_arrives(&self) -> Claim {
        let arrivals = &self.arrivals;
        let (spoofed, control) = (arrivals.spoofed_total(), arrivals.control_total());
        let (Path { vip, rip, .. }, there, whom) = (self.path, self.there, self.whom());
        let line = self.line(&[]);
        let chance = arrivals.chance(spoofed.sent);
        if chance > SURE {
            let reason = format!(
                "none of {} probes from {vip} arrived, but of the controls only {} of {}: too much is lost to tell",
                spoofed.sent, control.arrived, control.sent
            );
            return self.inconclusive(reason, vec!["run it again with more `--passes`".to_owned()]);
        }
        let mut sure = 1.0 - chance;
        let mut condition = String::new();
        if arrivals.seen_there && self.evidence.is_recorded(self.toward.host()) {
            sure = sure.min(WITHOUT_RETURN);
            condition = format!(
                " This rests on the capture of {whom}, which has the control's packets: one that leaves the VIP's out \
                 would look the same."
            );
        }
        if !arrivals.seen_there && arrivals.back_total().arrived == 0 {
            let place = line
                .as_ref()
                .map_or_else(|| "no router answers the VIP".to_owned(), said);
            let routers = line
                .as_ref()
                .is_some_and(|line| line.passed.is_some() && line.stopped.end.is_none());
            if arrivals.back_total().sent > 0 || !routers {
                let reason = format!(
                    "nothing from {vip} is answered by the client, and the way back from it to {vip} is not proven \
                     either: a filter ({place}), or lost answers"
                );
                return Claim {
                    line,
                    ..self.inconclusive(reason, self.see_there())
                };
            }
            if self.silence_at_routers() > SURE.sqrt() {
                let reason =
                    format!("too few routers answer to tell a filter from lost answers ({place})");
                return self.inconclusive(reason, self.see_there());
            }
            sure = sure.min(WITHOUT_RETURN);
            condition = " This rests on the answers to the VIP coming back from beyond as they do from before it: where \
                         clients reach the VIP otherwise, they do."
                .to_owned();
        }
        let mut evidence: Vec<_> = self
            .trials
            .iter()
            .filter(|trial| trial.is_spoofed() && trial.fate.is_some())
            .max_by_key(|trial| trial.probe.ttl)
            .and_then(fate_evidence)
            .into_iter()
            .collect();
        let arrived = self.trials.iter().filter(|trial| !trial.is_spoofed());
        evidence.extend(arrived.filter_map(|t| Some(t.arrived()?.evidence)).take(2));
        let refusing = self.refusing();
        let place = match (&refusing, &line) {
            (Some((router, id)), _) => {
                evidence.insert(0, *id);
                format!("{router} refuses it")
            }
            (None, Some(line)) => said(line),
            (None, None) => "no router's answer shows where".to_owned(),
        };
        let drawn = line
            .as_ref()
            .map_or_else(String::new, |line| format!(" {}.", capital(&said(line))));
        let seen = match arrivals.seen_there {
            true => "",
            false => {
                " (Or a router sends them on from another source: a vantage at `client` would show it.)"
            }
        };
        let server = Host::Realserver(self.number);
        let mut advice = self.ask_operator(line.as_ref(), server);
        if !self.evidence.sees(Host::Director) {
            advice.push(
                "a vantage at `director`, or `tunproof listen` there, would show where".to_owned(),
            );
        }
        Claim {
            outcome: SpoofOutcome::Filtered,
            confidence: Some(sure),
            summary: format!("a network on the way to {whom} filters the source {vip}: {place}"),
            detail: format!(
                "None of {} probes from {vip} that could reach {there} arrived; of the controls from {rip} {} of {}.{drawn}{seen}{condition}",
                spoofed.sent, control.arrived, control.sent
            ),
            advice,
            line,
            rewritten_to: Vec::new(),
            evidence,
            drawn: Vec::new(),
        }
    }

    /// The chance that all probes from the VIP to the routers behind the last that answered it are lost by accident.
    fn silence_at_routers(&self) -> f64 {
        let last = self.last_passed(&[]);
        let rows = self.rows(&[]);
        let behind = rows
            .iter()
            .filter(|row| row.ttl > last && row.control.answered > row.control.arrived);
        let (mut silent, mut sent, mut answered) = (0, 0, 0);
        for row in behind {
            silent += row.spoofed.sent;
            sent += row.control.sent;
            answered += row.control.answered;
        }
        chance_of_loss(silent, sent, sent - answered)
    }

    /// The router that says that it does not pass the VIP's packets, and passes the control.
    pub(super) fn refusing(&self) -> Option<(Ipv4Addr, EvidenceId)> {
        let by = |spoofed: bool| {
            self.trials
                .iter()
                .filter(move |trial| trial.is_spoofed() == spoofed)
                .filter_map(|trial| match trial.fate {
                    Some(Fate::Refused(reply)) => Some((reply.from, reply.evidence)),
                    _ => None,
                })
        };
        let both: BTreeSet<_> = by(false).map(|(from, _)| from).collect();
        by(true).find(|(from, _)| !both.contains(from))
    }
}
