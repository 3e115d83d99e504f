//! Both sweeps, time to live by time to live, and where they part.

use std::collections::BTreeSet;

use crate::evidence::EvidenceId;
use crate::evidence::Fate;
use crate::evidence::Trial;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteKind;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::verdict::spoofing::Router;
use crate::verdict::spoofing::SpoofCell;
use crate::verdict::spoofing::SpoofFlow;
use crate::verdict::spoofing::SpoofRow;
use crate::verdict::spoofing::check::Check;

/// Where two sweeps part.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) passed: Option<Router>,
    pub(super) stopped: Router,
}

impl Check<'_> {
    /// Where the sweeps of these flows (all, if none is named) part.
    pub(super) fn line(&self, flows: &[u16]) -> Option<Line> {
        if !self.evidence.sees(Host::Director) {
            return None;
        }
        // Another host may have the VIP, and get what routers say to it: such as the director's peer.
        if self.last_passed(&[]) == 0 && !self.director_has_vip() {
            return None;
        }
        let last = self.last_passed(flows);
        let rows = self.rows(&[]);
        let beyond = rows
            .iter()
            .find(|row| row.ttl > last && row.control.answered > 0)?;
        Some(self.line_at(last, beyond.ttl))
    }

    /// Whether the VIP is the director's own, as far as it says.
    fn director_has_vip(&self) -> bool {
        let vip = self.path.vip;
        let Some(facts) = self.evidence.facts(Host::Director) else {
            return true;
        };
        let is_local = |answer: &RouteAnswer| matches!(answer, RouteAnswer::Route(route) if route.kind == RouteKind::Local);
        let mut routes = facts.routes.iter();
        facts.is_local(vip) || routes.any(|(query, answer)| query.to == vip && is_local(answer))
    }

    pub(super) fn line_at(&self, passed: u8, stopped: u8) -> Line {
        Line {
            passed: self.router(passed),
            stopped: self.router(stopped).unwrap_or(Router {
                ttl: stopped,
                to_the_vip: Vec::new(),
                to_the_control: Vec::new(),
                end: None,
            }),
        }
    }

    /// The greatest time to live from the VIP at whose end a router answered, of these flows.
    pub(super) fn last_passed(&self, flows: &[u16]) -> u8 {
        let trials = self.trials.iter().filter(|trial| {
            trial.is_spoofed() && self.is_of(trial, flows) && trial.rewritten.is_none()
        });
        let answered = trials.filter(|trial| trial.expired().is_some());
        answered.map(|trial| trial.probe.ttl).max().unwrap_or(0)
    }

    /// Whether a trial is of one of these flows, if any is named; a datagram takes another way than a SYN-ACK.
    fn is_of(&self, trial: &Trial<'_>, flows: &[u16]) -> bool {
        let same = trial.probe.flow.protocol == self.arrivals.protocol;
        flows.is_empty() || same && flows.contains(&trial.flow)
    }

    pub(super) fn last_control(&self) -> u8 {
        let control = self
            .trials
            .iter()
            .filter(|t| is_control(t) && t.expired().is_some());
        control.map(|trial| trial.probe.ttl).max().unwrap_or(0)
    }

    /// How far away the host that everything goes to is, or may be.
    pub(super) fn end_ttl(&self) -> u8 {
        let beyond = self.last_control().max(self.last_passed(&[])) + 1;
        self.distance.unwrap_or(beyond)
    }

    pub(super) fn router(&self, ttl: u8) -> Option<Router> {
        let rows = self.rows(&[]);
        let row = rows.into_iter().find(|row| row.ttl == ttl)?;
        let router = Router {
            ttl,
            to_the_vip: row.spoofed.by,
            to_the_control: row.control.by,
            end: (self.distance == Some(ttl)).then_some(self.toward),
        };
        let known = !router.to_the_vip.is_empty() || !router.to_the_control.is_empty();
        known.then_some(router)
    }

    /// The rows up to the host that everything goes to, the last with all that could arrive there; spoofed ones of these flows only.
    pub(super) fn rows(&self, flows: &[u16]) -> Vec<SpoofRow> {
        let end = self.end_ttl();
        let mut rows: Vec<SpoofRow> = Vec::new();
        for trial in &self.trials {
            let spoofed = trial.is_spoofed();
            let kind = trial.probe.id.kind;
            if kind == ProbeKind::ReturnControl || spoofed && !self.is_of(trial, flows) {
                continue;
            }
            let full = !trial.probe.is_limited();
            let is_end = full || self.distance.is_some_and(|d| trial.probe.ttl >= d);
            let ttl = if is_end { end } else { trial.probe.ttl };
            if ttl > end {
                continue;
            }
            let place = match rows.binary_search_by_key(&ttl, |row| row.ttl) {
                Ok(place) => place,
                Err(place) => {
                    let row = SpoofRow {
                        ttl,
                        spoofed: SpoofCell::default(),
                        control: SpoofCell::default(),
                    };
                    rows.insert(place, row);
                    place
                }
            };
            let row = &mut rows[place];
            let cell = if spoofed {
                &mut row.spoofed
            } else {
                &mut row.control
            };
            cell.sent += 1;
            let (from, arrived, refused) = match trial.fate {
                Some(Fate::Arrived(reply)) => (reply.from, true, false),
                Some(Fate::Expired(reply)) => (reply.from, false, false),
                Some(Fate::Refused(reply)) => (reply.from, false, true),
                None => continue,
            };
            cell.answered += 1;
            cell.arrived += usize::from(arrived);
            cell.refused += usize::from(refused);
            // Who refuses is not where the time to live ends.
            if !refused && !cell.by.contains(&from) {
                cell.by.push(from);
            }
        }
        rows
    }

    pub(super) fn flows(&self) -> Vec<SpoofFlow> {
        let port = |flow: u16| {
            let of = self.trials.iter().filter(|trial| trial.flow == flow);
            of.map(|trial| port(trial.probe)).next().unwrap_or(0)
        };
        let flows = self
            .arrivals
            .spoofed
            .iter()
            .map(|(flow, spoofed)| SpoofFlow {
                port: port(*flow),
                spoofed: *spoofed,
                control: self.arrivals.control.get(flow).copied().unwrap_or_default(),
            });
        flows.collect()
    }

    pub(super) fn ports(&self, flows: &[u16]) -> String {
        let of = |flow: &u16| self.trials.iter().find(|trial| trial.flow == *flow);
        let ports = flows
            .iter()
            .filter_map(of)
            .map(|trial| port(trial.probe).to_string());
        ports.collect::<Vec<_>>().join(", ")
    }
}

impl Router {
    /// An address of it, the control's first.
    pub fn any(&self) -> String {
        let mut known = self.to_the_control.iter().chain(&self.to_the_vip);
        known.next().map_or_else(
            || "a router that never answers".to_owned(),
            ToString::to_string,
        )
    }

    /// Its addresses and its place.
    fn said(&self) -> String {
        let mut names = self.any();
        let others: BTreeSet<_> = self
            .to_the_vip
            .iter()
            .filter(|a| !self.to_the_control.contains(a))
            .collect();
        if !others.is_empty() && !self.to_the_control.is_empty() {
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            names += &format!(", to the VIP as {}", others.join(", "));
        }
        match self.end {
            Some(toward) => format!("the {} {names} (TTL {})", toward.id(), self.ttl),
            None => format!("{names} (TTL {})", self.ttl),
        }
    }
}

/// In words: the last router that passed it and the first that did not.
pub(super) fn said(line: &Line) -> String {
    let stopped = line.stopped.said();
    match &line.passed {
        Some(passed) => format!(
            "the last router that passed it is {}, the first that did not is {stopped}",
            passed.said()
        ),
        None => format!("no router passed it, the first that the control shows is {stopped}"),
    }
}

fn is_control(trial: &Trial<'_>) -> bool {
    !trial.is_spoofed() && trial.probe.id.kind != ProbeKind::ReturnControl
}

pub(super) fn fate_evidence(trial: &Trial<'_>) -> Option<EvidenceId> {
    match trial.fate? {
        Fate::Arrived(reply) | Fate::Expired(reply) | Fate::Refused(reply) => Some(reply.evidence),
    }
}

/// The far port of a probe, by which flows are told apart; of a datagram it is the real server's.
fn port(probe: &Probe) -> u16 {
    match probe.flow.protocol {
        Protocol::Tcp => probe.flow.destination_port,
        Protocol::Udp => probe.flow.source_port,
    }
}
