//! One path under judgement: what is proven, what is silent, and what was concluded so far.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::Proof;
use crate::evidence::Silence;
use crate::evidence::SilenceSpan;
use crate::evidence::What;
use crate::exchange::HostFacts;
use crate::exchange::Link;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::exchange::SendOutcome;
use crate::exchange::Wall;
use crate::matching::Sighting;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::ProbeKind;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::HopJudgement;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Severity;

/// `EPERM`: what a firewall's DROP on OUTPUT looks like to a raw socket.
const EPERM: i32 = 1;

/// One path under judgement.
pub(super) struct Case<'a> {
    pub(super) evidence: &'a mut Evidence,
    pub(super) number: usize,
    pub(super) path: Path,
    pub(super) proofs: BTreeMap<Hop, Proof>,
    pub(super) silences: Vec<Silence>,
    pub(super) hops: BTreeMap<Hop, HopJudgement>,
    pub(super) findings: Vec<Finding>,
}

/// What a finding says; with [`Case::broken`] the hop breaks.
pub(super) struct Break {
    pub(super) code: Code,
    pub(super) hop: Hop,
    pub(super) between: Option<(Station, Station)>,
    pub(super) summary: String,
    pub(super) detail: String,
    pub(super) fix: Vec<String>,
    pub(super) evidence: Vec<EvidenceId>,
}

impl<'a> Case<'a> {
    /// Path number `number`, nothing concluded yet.
    pub(super) fn new(evidence: &'a mut Evidence, number: usize) -> Case<'a> {
        let path = evidence.plan().paths[number].clone();
        let proofs = evidence.proofs(number);
        let silences = evidence.silences(number);
        Case {
            evidence,
            number,
            path,
            proofs,
            silences,
            hops: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    /// The real server of the path.
    pub(super) fn realserver(&self) -> Host {
        Host::Realserver(self.number)
    }

    /// A host's facts.
    pub(super) fn facts(&self, host: Host) -> Option<&HostFacts> {
        self.evidence.facts(host)
    }

    /// Whether packets prove `hop`.
    pub(super) fn is_proven(&self, hop: Hop) -> bool {
        self.proofs.contains_key(&hop)
    }

    /// Whether `hop` was found broken.
    pub(super) fn is_broken(&self, hop: Hop) -> bool {
        self.hops
            .get(&hop)
            .is_some_and(|judged| judged.verdict == HopVerdict::Broken)
    }

    /// The silence between `after` and `at`, if it counts, over these kinds (all, if none is named).
    pub(super) fn silence(
        &self,
        after: Option<Station>,
        at: Station,
        kinds: &[ProbeKind],
    ) -> Option<Silence> {
        let mut parts = self.silences.iter().filter(|s| {
            (s.after, s.at) == (after, at) && (kinds.is_empty() || kinds.contains(&s.kind))
        });
        let mut whole = parts.next()?.clone();
        for part in parts {
            whole.probes.extend(&part.probes);
            whole.evidence.extend(&part.evidence);
            whole.hops.extend(&part.hops);
        }
        let local = whole.is_local(self.number);
        self.evidence
            .counts(whole.probes.len(), local)
            .then_some(whole)
    }

    /// Makes a silence a piece of evidence.
    pub(super) fn cite_silence(&mut self, silence: &Silence) -> EvidenceId {
        let kinds: std::collections::BTreeSet<_> =
            silence.probes.iter().map(|probe| probe.kind.id()).collect();
        let kinds: Vec<_> = kinds.into_iter().collect();
        let count = silence.probes.len();
        let seen = match silence.after {
            Some(after) => format!("seen at {after}"),
            None => "sent".to_owned(),
        };
        let summary = format!(
            "{count} of {count} probes ({}) {seen}, none at {}",
            kinds.join(", "),
            silence.at
        );
        let what = What::Silence(SilenceSpan {
            after: silence.after,
            at: silence.at,
            probes: count as u32,
            summary,
        });
        let host = Host::of(silence.at, self.number);
        let probe = silence.probes.first().copied();
        let time = self.last_time(host);
        self.evidence.append(
            host,
            Some(silence.at),
            time,
            (probe, Some(self.number)),
            what,
        )
    }

    /// Makes a fact a piece of evidence.
    pub(super) fn cite_fact(
        &mut self,
        host: Host,
        summary: impl Into<String>,
        command: impl Into<String>,
    ) -> EvidenceId {
        let time = self.facts(host).map_or(Wall::default(), |facts| facts.time);
        let what = What::Fact {
            summary: summary.into(),
            command: command.into(),
        };
        self.evidence
            .append(host, None, time, (None, Some(self.number)), what)
    }

    fn last_time(&self, host: Host) -> Wall {
        let latest = |item: &&Item| item.host == host;
        self.evidence
            .items()
            .iter()
            .rev()
            .find(latest)
            .or(self.evidence.items().last())
            .map_or(Wall::default(), |item| item.time)
    }

    /// A hop is broken, and why.
    pub(super) fn broken(&mut self, found: Break) {
        let hop = found.hop;
        if !self.is_broken(hop) {
            let judged = HopJudgement {
                hop,
                verdict: HopVerdict::Broken,
                how: None,
                evidence: found.evidence.clone(),
                between: found.between,
                reason: Some(found.summary.clone()),
            };
            self.hops.insert(hop, judged);
        }
        self.tell(Severity::Error, found);
    }

    /// A finding of this severity, which alone breaks no hop.
    pub(super) fn tell(&mut self, severity: Severity, found: Break) {
        let Break {
            code,
            hop,
            between: _,
            summary,
            detail,
            fix,
            evidence,
        } = found;
        self.findings.push(Finding {
            code,
            severity,
            hop,
            summary,
            detail,
            fix,
            evidence,
        });
    }

    /// Something worth knowing that breaks nothing.
    pub(super) fn note(
        &mut self,
        code: Code,
        hop: Hop,
        summary: String,
        detail: String,
        evidence: Vec<EvidenceId>,
    ) {
        let found = Break {
            code,
            hop,
            between: None,
            summary,
            detail,
            fix: Vec::new(),
            evidence,
        };
        self.tell(Severity::Note, found);
    }

    /// A hop is proven by what the host says, because no packet could decide.
    pub(super) fn proven_by_fact(&mut self, hop: Hop, reason: &str, evidence: Vec<EvidenceId>) {
        self.hops.entry(hop).or_insert_with(|| HopJudgement {
            hop,
            verdict: HopVerdict::Proven,
            how: Some(How::Fact),
            evidence,
            between: None,
            reason: Some(reason.to_owned()),
        });
    }

    /// A hop could not be decided, and why.
    pub(super) fn unproven(&mut self, hop: Hop, reason: impl Into<String>) {
        let reason = reason.into();
        self.hops.entry(hop).or_insert_with(|| HopJudgement {
            hop,
            verdict: HopVerdict::Unproven,
            how: None,
            evidence: Vec::new(),
            between: None,
            reason: Some(reason),
        });
    }

    /// The sightings of the path's probes of full time to live, of these kinds, that satisfy `wanted`.
    pub(super) fn sightings(
        &self,
        kinds: &[ProbeKind],
        wanted: impl Fn(&Item, &Sighting) -> bool,
    ) -> Vec<EvidenceId> {
        self.evidence
            .passages(self.number)
            .filter(|passage| kinds.is_empty() || kinds.contains(&passage.probe.id.kind))
            .flat_map(|passage| {
                self.evidence
                    .sightings(passage.probe.id)
                    .filter(|(item, sighting)| wanted(item, sighting))
                    .map(|(item, _)| item.id)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// The sighting with this name.
    pub(super) fn sighting(&self, id: EvidenceId) -> Option<&Sighting> {
        match &self.evidence.item(id)?.what {
            What::Seen { sighting, .. } => Some(sighting),
            _ => None,
        }
    }

    /// The probes of these kinds that the kernel refused to send with EPERM.
    pub(super) fn forbidden(&self, kinds: &[ProbeKind]) -> Vec<EvidenceId> {
        self.unsendable(kinds, |errno| errno == EPERM)
    }

    /// The probes of these kinds that the kernel refused to send.
    pub(super) fn unsendable(
        &self,
        kinds: &[ProbeKind],
        wanted: impl Fn(i32) -> bool,
    ) -> Vec<EvidenceId> {
        self.evidence
            .passages(self.number)
            .filter(|passage| kinds.contains(&passage.probe.id.kind))
            .filter_map(|passage| passage.unsendable)
            .filter(|id| {
                let outcome = self.evidence.item(*id).map(|item| &item.what);
                matches!(outcome, Some(What::Sent { outcome: SendOutcome::Refused { errno, .. }, .. })
                    if wanted(*errno))
            })
            .collect()
    }

    /// A host's answer to a route lookup.
    pub(super) fn route(
        &self,
        host: Host,
        to: Ipv4Addr,
        from: Option<Ipv4Addr>,
        iif: Option<&str>,
    ) -> Option<RouteAnswer> {
        let query = RouteQuery {
            to,
            from,
            iif: iif.map(str::to_owned),
        };
        self.facts(host)?.route(&query).cloned()
    }

    /// The name people gave `host`.
    pub(super) fn name(&self, host: Host) -> String {
        self.evidence.plan().host_name(host)
    }

    /// How to find the rule of a host's firewall that drops what must pass; only its owner knows which may go.
    pub(super) fn rules(&self, host: Host) -> Vec<String> {
        vec![
            self.on(
                host,
                "nft -a list ruleset | grep -nE 'table|chain|drop|reject'",
            ),
            self.on(host, "iptables-save -c | grep -nE 'DROP|REJECT'"),
        ]
    }

    /// `via GATEWAY dev DEVICE` of a host's route, as far as it has one.
    pub(super) fn via(&self, host: Host, to: Ipv4Addr) -> String {
        let Some(RouteAnswer::Route(route)) = self.route(host, to, None, None) else {
            return "via GATEWAY".to_owned();
        };
        let gateway = route.gateway.map(|gateway| format!("via {gateway}"));
        let device = route.device.map(|device| format!("dev {device}"));
        let words: Vec<_> = gateway.into_iter().chain(device).collect();
        words.join(" ")
    }

    /// How to give the real server the VIP, without its saying so by ARP where others would believe it.
    pub(super) fn add_vip(&self, device: &str) -> Vec<String> {
        let (server, vip) = (self.realserver(), self.path.vip);
        let hidden = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";
        let near = |link: &Link| {
            let mut on = link.addresses.iter();
            !link.loopback && !link.noarp && on.any(|a| a.prefix < 32 && a.contains(vip))
        };
        let near = self
            .facts(server)
            .is_none_or(|facts| facts.links.iter().any(near));
        let hide = near.then(|| self.on(server, hidden));
        let add = self.on(server, format!("ip addr add {vip}/32 dev {device}"));
        hide.into_iter().chain([add]).collect()
    }

    /// A command to type on `host`.
    pub(super) fn on(&self, host: Host, command: impl AsRef<str>) -> String {
        format!("{}# {}", self.name(host), command.as_ref())
    }
}

/// A device's setting as `sysctl` takes it, which reads a dot in a VLAN device's name as a separator otherwise.
pub(super) fn sysctl(device: &str, setting: &str) -> String {
    match device.contains('.') {
        true => format!("net/ipv4/conf/{device}/{setting}"),
        false => format!("net.ipv4.conf.{device}.{setting}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_a_dot_in_its_name_has_settings_that_can_be_typed() {
        assert_eq!(
            sysctl("tunl0", "rp_filter"),
            "net.ipv4.conf.tunl0.rp_filter"
        );
        assert_eq!(
            sysctl("eth0.5", "rp_filter"),
            "net/ipv4/conf/eth0.5/rp_filter"
        );
    }
}
