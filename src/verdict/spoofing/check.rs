//! One path under judgement: which claim its evidence allows.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::evidence::Arrivals;
use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Trial;
use crate::exchange::RouteAnswer;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Station;
use crate::verdict::spoofing::SpoofJudgement;
use crate::verdict::spoofing::SpoofOutcome;
use crate::verdict::spoofing::sweep::Line;

/// The greatest confidence.
pub(super) const MOST: f64 = 0.999;
/// The greatest without a control of the way back.
pub(super) const WITHOUT_RETURN: f64 = 0.9;
/// How many probes must be rewritten before that is said.
pub(super) const ENOUGH: usize = 3;
/// How many controls must have been sent before the client is called unreachable.
const CONTROLS: usize = 6;

/// One path under judgement.
pub(super) struct Check<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) number: usize,
    pub(super) path: &'a Path,
    pub(super) trials: Vec<Trial<'a>>,
    pub(super) arrivals: Arrivals,
    pub(super) distance: Option<u8>,
}

/// What is claimed, before it is drawn.
pub(super) struct Claim {
    pub(super) outcome: SpoofOutcome,
    pub(super) confidence: Option<f64>,
    pub(super) summary: String,
    pub(super) detail: String,
    pub(super) advice: Vec<String>,
    pub(super) line: Option<Line>,
    pub(super) rewritten_to: Vec<Ipv4Addr>,
    pub(super) evidence: Vec<EvidenceId>,
    /// The flows that the drawing is of; all, if none is named.
    pub(super) drawn: Vec<u16>,
}

impl<'a> Check<'a> {
    pub(super) fn new(evidence: &'a Evidence, number: usize) -> Check<'a> {
        Check {
            evidence,
            number,
            path: &evidence.plan().paths[number],
            trials: evidence.trials(number),
            arrivals: evidence.arrivals(number),
            distance: evidence.control_distance(number),
        }
    }

    pub(super) fn judge(&self) -> SpoofJudgement {
        let claim = self.claim();
        let (passed, stopped) = match claim.line {
            Some(line) => (line.passed, Some(line.stopped)),
            None => (None, None),
        };
        SpoofJudgement {
            path: self.number,
            outcome: claim.outcome,
            confidence: claim.confidence.map(|sure| sure.clamp(0.0, MOST)),
            summary: claim.summary,
            detail: claim.detail,
            advice: claim.advice,
            passed,
            stopped,
            rewritten_to: claim.rewritten_to,
            rows: self.rows(&claim.drawn),
            flows: self.flows(),
            back: self.arrivals.back_total(),
            evidence: claim.evidence,
        }
    }

    fn claim(&self) -> Claim {
        let spoofed = self.trials.iter().filter(|trial| trial.is_spoofed());
        if spoofed.count() == 0 {
            return self.nothing_left();
        }
        if let Some(claim) = self.rewritten() {
            return claim;
        }
        let arrived = self.arrivals.spoofed_total().arrived > 0;
        let control = self.arrivals.control_total();
        let sees = self.arrivals.seen_there || self.evidence.sees(Host::Director);
        match (arrived, control.arrived) {
            (true, _) => self.some_arrive(),
            (false, 0) if control.sent >= CONTROLS => self.control_dies(),
            (false, 0) => {
                let few = format!("only {} controls were sent", control.sent);
                self.inconclusive(few, vec!["run it again, and let it end".to_owned()])
            }
            (false, _) if !sees => self.nobody_sees(),
            (false, _) => self.none_arrives(),
        }
    }

    /// Nothing was seen to leave the real server from the VIP.
    fn nothing_left(&self) -> Claim {
        let Path { vip, cip, .. } = self.path;
        let server = Host::Realserver(self.number);
        let own = self.evidence.probes().iter().filter(|probe| {
            probe.path == self.number
                && probe.id.kind.is_spoofed()
                && probe.id.repeated_flow().is_some()
        });
        let mut changed = BTreeSet::new();
        let mut shown = Vec::new();
        for probe in own {
            for (item, seen) in self.evidence.sightings(probe.id) {
                let left = item.station == Some(Station::RealserverOut) && seen.form == Form::Plain;
                if left && seen.source != *vip {
                    changed.insert(seen.source);
                    shown.push(item.id);
                }
            }
        }
        if shown.len() >= ENOUGH {
            let to = names(&changed);
            return Claim {
                outcome: SpoofOutcome::Rewritten,
                confidence: Some(MOST),
                summary: format!("the real server itself rewrites the source {vip} to {to}"),
                detail: "The probes leave it with another source: its own address translation takes what it sends \
                         from the VIP for new connections. No network is to blame."
                    .to_owned(),
                advice: vec![self.on(server, "nft list ruleset | grep -nE 'masquerade|snat'")],
                line: None,
                rewritten_to: changed.into_iter().collect(),
                evidence: first(shown, 6),
                drawn: Vec::new(),
            };
        }
        let why = match self.evidence.host(server) {
            None => format!("tunproof does not run on {}", self.name(server)),
            Some(record) => match (&record.lost, self.no_route()) {
                (Some(lost), _) => format!("{} was lost: {lost}", self.name(server)),
                (None, Some(error)) => {
                    format!("{} has no route to {cip}: {error}", self.name(server))
                }
                (None, None) => format!("nothing left {} from {vip}", self.name(server)),
            },
        };
        let advice = vec![
            self.on(server, format!("ip route get {cip} from {vip}")),
            "tunproof verify PATH.toml: what stops packets on a host, it names".to_owned(),
        ];
        self.inconclusive(why, advice)
    }

    fn no_route(&self) -> Option<String> {
        let facts = self.evidence.facts(Host::Realserver(self.number))?;
        let mut routes = facts.routes.iter();
        routes.find_map(|(query, answer)| match answer {
            RouteAnswer::Error { error, .. } if query.to == self.path.cip => Some(error.clone()),
            _ => None,
        })
    }

    fn control_dies(&self) -> Claim {
        let Path { vip, cip, rip, .. } = self.path;
        let control = self.arrivals.control_total();
        let (last, last_control) = (self.last_passed(&[]), self.last_control());
        let far = |ttl: u8| match self.router(ttl) {
            Some(router) => format!("{} (TTL {ttl})", router.any()),
            None => "no router".to_owned(),
        };
        let mut detail = format!(
            "None of {} controls from {rip} arrived or was answered; the last router that answers them is {}, and of \
             those from {vip} {}.",
            control.sent,
            far(last_control),
            far(last)
        );
        detail += match last >= last_control {
            true => " The VIP's packets get as far as the control's.",
            false => {
                " Whether the VIP's packets are filtered besides shows only where the client can be reached."
            }
        };
        Claim {
            outcome: SpoofOutcome::ControlDiesToo,
            confidence: None,
            summary: format!("{cip} is dead to {rip} as well: unreachable, or it answers nothing"),
            detail,
            advice: vec![
                self.on(
                    Host::Realserver(self.number),
                    format!("traceroute -n {cip}"),
                ),
                match self.evidence.sees(Host::Client) {
                    true => "take a client that can be reached".to_owned(),
                    false => {
                        "a client that answers, a vantage at `client`, or a capture of it (`--add \
                              client.in=FILE`) would decide"
                            .to_owned()
                    }
                },
            ],
            line: None,
            rewritten_to: Vec::new(),
            evidence: self
                .trials
                .iter()
                .rev()
                .map(|trial| trial.left)
                .take(3)
                .collect(),
            drawn: Vec::new(),
        }
    }

    fn nobody_sees(&self) -> Claim {
        let vip = self.path.vip;
        let reason = format!(
            "nobody sees what becomes of the packets from {vip}: their answers go to the director"
        );
        let mut advice = vec![format!(
            "director# tunproof listen --session {} --vip {vip} --cip {} --for 1m --pcap director.pcapng",
            "KEY", self.path.cip
        )];
        advice.push(
            "and here, with the same `--session KEY`: --add director.in=director.pcapng".to_owned(),
        );
        advice.extend(self.see_client());
        self.inconclusive(reason, advice)
    }

    pub(super) fn inconclusive(&self, reason: String, advice: Vec<String>) -> Claim {
        let cut = self.evidence.is_cut_short();
        Claim {
            outcome: SpoofOutcome::Inconclusive,
            confidence: None,
            summary: reason,
            detail: cut.map_or_else(String::new, |why| {
                format!("{} before it was over.", capital(why))
            }),
            advice,
            line: None,
            rewritten_to: Vec::new(),
            evidence: self.trials.iter().map(|trial| trial.left).take(2).collect(),
            drawn: Vec::new(),
        }
    }

    pub(super) fn ask_operator(&self, line: Option<&Line>, server: Host) -> Vec<String> {
        let Path { vip, cip, rip, .. } = self.path;
        let whose = match line {
            Some(Line {
                passed: Some(router),
                stopped,
            }) => {
                format!("{} or {}", router.any(), stopped.any())
            }
            Some(Line {
                passed: None,
                stopped,
            }) => format!("{} or of what is before it", stopped.any()),
            None => "each network on the way".to_owned(),
        };
        vec![
            format!(
                "ask the operator of {whose} to allow the source {vip} from {rip} (an exception from BCP 38)"
            ),
            self.on(server, format!("traceroute -n -s {vip} {cip}")),
        ]
    }

    pub(super) fn see_client(&self) -> Vec<String> {
        let Path { vip, rip, .. } = self.path;
        vec![
            "a vantage at `client`, or a capture of it, would decide:".to_owned(),
            format!("client# tcpdump -i any -U -w client.pcap 'host {vip} or host {rip}'"),
            "and then: tunproof spoofcheck PATH.toml --add client.in=client.pcap".to_owned(),
        ]
    }

    fn name(&self, host: Host) -> String {
        self.evidence.plan().host_name(host)
    }

    pub(super) fn on(&self, host: Host, command: impl AsRef<str>) -> String {
        format!("{}# {}", self.name(host), command.as_ref())
    }
}

pub(super) fn names(addresses: &BTreeSet<Ipv4Addr>) -> String {
    let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    names.join(", ")
}

pub(super) fn first(mut ids: Vec<EvidenceId>, most: usize) -> Vec<EvidenceId> {
    ids.truncate(most);
    ids
}

pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
