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
use crate::plan::Toward;
use crate::verdict::spoofing::SpoofJudgement;
use crate::verdict::spoofing::SpoofOutcome;
use crate::verdict::spoofing::sweep::Line;

/// The greatest confidence.
pub(super) const MOST: f64 = 0.999;
/// The greatest without a control of the way back.
pub(super) const WITHOUT_RETURN: f64 = 0.9;
/// How many probes must be rewritten before that is said.
pub(super) const ENOUGH: usize = 3;
/// How many controls must have been sent before a host is called unreachable.
const CONTROLS: usize = 6;

/// One path under judgement.
pub(super) struct Check<'a> {
    pub(super) evidence: &'a Evidence,
    pub(super) number: usize,
    pub(super) path: &'a Path,
    pub(super) toward: Toward,
    /// The address that everything goes to; unspecified where it is not known and so nothing does.
    pub(super) there: Ipv4Addr,
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
    pub(super) fn new(evidence: &'a Evidence, number: usize, toward: Toward) -> Check<'a> {
        let path = &evidence.plan().paths[number];
        Check {
            evidence,
            number,
            path,
            toward,
            there: toward.address(path).unwrap_or(Ipv4Addr::UNSPECIFIED),
            trials: evidence.trials(number, toward),
            arrivals: evidence.arrivals(number, toward),
            distance: evidence.control_distance(number, toward),
        }
    }

    pub(super) fn judge(&self) -> SpoofJudgement {
        let claim = match self.toward {
            Toward::Client => self.claim(),
            Toward::Director => self.only_toward_the_director(self.claim()),
        };
        let (passed, stopped) = match claim.line {
            Some(line) => (line.passed, Some(line.stopped)),
            None => (None, None),
        };
        SpoofJudgement {
            path: self.number,
            toward: self.toward,
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
            shared: self.shared().into_iter().collect(),
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
        // What comes to the director from its own address, it answers to nobody.
        let answers = self.toward == Toward::Client && self.evidence.sees(Host::Director);
        let sees = self.arrivals.seen_there || answers;
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
        let (vip, there) = (self.path.vip, self.there);
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
                if left && seen.source != vip {
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
        let theirs = self.evidence.items().iter();
        let theirs: Vec<_> = theirs
            .filter(|item| item.host == server)
            .map(|item| item.id)
            .collect();
        if let Some(why) = self.evidence.why_declined(&theirs) {
            return self.inconclusive(why, Vec::new());
        }
        let why = match self.evidence.host(server) {
            None => format!("tunproof does not run on {}", self.name(server)),
            Some(record) => match (&record.lost, self.no_route()) {
                (Some(lost), _) => format!("{} was lost: {lost}", self.name(server)),
                (None, Some(error)) => {
                    format!("{} has no route to {there}: {error}", self.name(server))
                }
                (None, None) => format!("nothing left {} from {vip}", self.name(server)),
            },
        };
        let advice = vec![
            self.on(server, format!("ip route get {there} from {vip}")),
            "tunproof verify PATH.toml: what stops packets on a host, it names".to_owned(),
        ];
        self.inconclusive(why, advice)
    }

    fn no_route(&self) -> Option<String> {
        let facts = self.evidence.facts(Host::Realserver(self.number))?;
        let mut routes = facts.routes.iter();
        routes.find_map(|(query, answer)| match answer {
            RouteAnswer::Error { error, .. } if query.to == self.there => Some(error.clone()),
            _ => None,
        })
    }

    fn control_dies(&self) -> Claim {
        let (Path { vip, rip, .. }, there) = (self.path, self.there);
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
        detail += &match last >= last_control {
            true => " The VIP's packets get as far as the control's.".to_owned(),
            false => format!(
                " Whether the VIP's packets are filtered besides shows only where {} can be reached.",
                self.whom()
            ),
        };
        Claim {
            outcome: SpoofOutcome::ControlDiesToo,
            confidence: None,
            summary: match self.arrivals.seen_there {
                true => format!("{there} is dead to {rip} as well: nothing comes there"),
                false => {
                    format!("{there} is dead to {rip} as well: unreachable, or it answers nothing")
                }
            },
            detail,
            advice: vec![
                self.on(
                    Host::Realserver(self.number),
                    format!("traceroute -n {there}"),
                ),
                match (self.toward, self.evidence.sees(self.toward.host())) {
                    (Toward::Client, true) => "take a client that can be reached".to_owned(),
                    (Toward::Director, true) => {
                        "ask toward the client: the way to the director takes nothing at all".to_owned()
                    }
                    (Toward::Client, false) => {
                        "a client that answers, a vantage at `client`, or a capture of it (`--add \
                              client.in=FILE`) would decide"
                            .to_owned()
                    }
                    (Toward::Director, false) => {
                        "a vantage at `director`, or a capture of it (`--add director.in=FILE`), would decide: what \
                         its firewall drops is seen there"
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
        if self.toward == Toward::Director {
            let control = self.arrivals.control_total();
            let reason = format!(
                "nobody sees whether the director gets what comes from {vip}: it answers nothing from its own address. \
                 Of the controls from {}, which it answers, {} of {} arrived",
                self.path.rip, control.arrived, control.sent
            );
            return self.inconclusive(reason, self.see_there());
        }
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
        advice.extend(self.see_there());
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
        let (Path { vip, rip, .. }, there) = (self.path, self.there);
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
            self.on(server, format!("traceroute -n -s {vip} {there}")),
        ]
    }

    /// What would show what arrives.
    pub(super) fn see_there(&self) -> Vec<String> {
        let Path { vip, rip, cip, .. } = self.path;
        match self.toward {
            Toward::Client => vec![
                "a vantage at `client`, or a capture of it, would decide:".to_owned(),
                format!("client# tcpdump -i any -U -w client.pcap 'host {vip} or host {rip}'"),
                "and then: tunproof spoofcheck PATH.toml --add client.in=client.pcap".to_owned(),
            ],
            Toward::Director => vec![
                "a vantage at `director`, or `tunproof listen` there, or a capture, would decide:"
                    .to_owned(),
                format!(
                    "director# tunproof listen --session KEY --vip {vip} --cip {cip} --dip {} --for 1m --pcap \
                     director.pcapng",
                    self.there
                ),
                format!(
                    "or director# tcpdump -i any -U -w director.pcapng 'host {vip} or host {rip}'"
                ),
                "and then: tunproof spoofcheck PATH.toml --toward director --session KEY --add \
                 director.in=director.pcapng"
                    .to_owned(),
            ],
        }
    }

    /// The host that everything goes to.
    pub(super) fn whom(&self) -> &'static str {
        match self.toward {
            Toward::Client => "the client",
            Toward::Director => "the director",
        }
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
