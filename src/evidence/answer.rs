//! What a host says to the question of a step.

use crate::evidence::Evidence;
use crate::exchange::HostFacts;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::plan::Question;
use crate::plan::Subject;

/// A host's answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The command by which a person asks it.
    pub command: String,
    /// What the host says.
    pub says: String,
    /// What it says otherwise than expected.
    pub differs: Vec<String>,
}

impl Answer {
    /// Whether it is what was expected.
    pub fn is_expected(&self) -> bool {
        self.differs.is_empty()
    }
}

impl Evidence {
    /// What a host says to a question; `None` if it did not say.
    pub fn answer(&self, path: usize, question: &Question) -> Option<Answer> {
        let facts = self.facts(question.host.host(path))?;
        answer(facts, &question.about)
    }
}

fn answer(facts: &HostFacts, subject: &Subject) -> Option<Answer> {
    let mut differs = Vec::new();
    let mut differ = |what: &str, is: &str, expected: Option<String>| {
        if let Some(expected) = expected.filter(|expected| expected != is) {
            differs.push(format!("{what} is {is}, expected {expected}"));
        }
    };
    let (command, says) = match subject {
        Subject::Route {
            to,
            from,
            iif,
            source,
            device,
            gateway,
        } => {
            let query = RouteQuery {
                to: *to,
                from: *from,
                iif: iif.clone(),
            };
            let mut command = format!("ip route get {to}");
            command.extend(from.map(|from| format!(" from {from}")));
            command.extend(iif.iter().map(|iif| format!(" iif {iif}")));
            let says = match facts.route(&query)? {
                RouteAnswer::Error { error, .. } => {
                    differs.push(format!("there is no route: {error}"));
                    error.clone()
                }
                RouteAnswer::Route(route) => {
                    let none = || "none".to_owned();
                    let via = route
                        .gateway
                        .map_or_else(none, |gateway| gateway.to_string());
                    let dev = route.device.clone().unwrap_or_else(none);
                    let src = route.source.map_or_else(none, |source| source.to_string());
                    differ("the source", &src, source.map(|source| source.to_string()));
                    differ("the device", &dev, device.clone());
                    differ(
                        "the gateway",
                        &via,
                        gateway.map(|gateway| gateway.to_string()),
                    );
                    format!("via {via} dev {dev} src {src}")
                }
            };
            (command, says)
        }
        Subject::Sysctl { name, value } => {
            let known = facts.sysctls.get(name).map(i64::to_string);
            let is = facts.settings.get(name).cloned().or(known)?;
            let expected: Vec<_> = value.split_whitespace().collect();
            differ(name, &is, Some(expected.join(" ")));
            (format!("sysctl {name}"), is)
        }
        Subject::Address { address, present } => {
            let holder = facts.holds(*address).map(|link| link.name.clone());
            match (&holder, present) {
                (None, true) => differs.push(format!("no device has {address}")),
                (Some(device), false) => differs.push(format!("{device} has {address}")),
                _ => {}
            }
            let says = holder.unwrap_or_else(|| "no device has it".to_owned());
            (format!("ip address show to {address}"), says)
        }
    };
    Some(Answer {
        command,
        says,
        differs,
    })
}
