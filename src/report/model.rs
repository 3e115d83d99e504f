//! The report, schema `tunproof.report/1`: what `--format json` prints and every other format is made of.
//!
//! Field names are a contract with scripts; `tests` below declares them a second time. No text in it has
//! a control character.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::RouteAnswer;
use crate::exchange::SendOutcome;
use crate::exchange::Timing;
use crate::exchange::Way;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;
use crate::report::Kind;
use crate::report::escape::escape;
use crate::report::sweep::Sweep;
use crate::report::sweep::sweeps;
use crate::report::wording::wording;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::HopJudgement;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Judgement;
use crate::verdict::Outcome;
use crate::verdict::Severity;
use crate::wire::EtherType;

/// The schema's name.
pub const SCHEMA: &str = "tunproof.report/1";

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Over all paths.
    pub verdict: Outcome,
    /// One for each real server, in the order of the path file.
    pub paths: Vec<PathReport>,
    /// The hops of all paths.
    pub hops: Vec<PathHop>,
    /// The findings of all paths.
    pub findings: Vec<FindingReport>,
    /// Everything that is known, in the order in which it became known.
    pub evidence: Vec<EvidenceReport>,
    /// Everything that was to be sent.
    pub probes: Vec<ProbeReport>,
    /// When and how long.
    pub timing: TimingReport,
}

/// One real server's path.
#[derive(Clone, Debug, Serialize)]
pub struct PathReport {
    /// The real server's name.
    pub realserver: String,
    /// The virtual IP.
    pub vip: Ipv4Addr,
    /// The service's port.
    pub port: u16,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The real server's own address; a listener knows none.
    pub rip: Option<Ipv4Addr>,
    /// The director's own address.
    pub dip: Option<Ipv4Addr>,
    /// The client's address; a listener may hear any client.
    pub cip: Option<Ipv4Addr>,
    /// The real server's gateway, as the user named it or its routes do.
    pub gateway: Option<Ipv4Addr>,
    /// Over its hops.
    pub verdict: Outcome,
    /// All twelve, in path order.
    pub hops: Vec<HopReport>,
    /// Worst first.
    pub findings: Vec<FindingReport>,
    /// The hosts of this path from which packets were seen.
    #[serde(skip)]
    pub(crate) seen_from: Vec<Host>,
    /// Who answered at each time to live, where that was asked.
    #[serde(skip)]
    pub(crate) sweeps: Vec<Sweep>,
}

/// A hop.
#[derive(Clone, Debug, Serialize)]
pub struct HopReport {
    /// Its name.
    pub id: Hop,
    /// Its verdict.
    pub verdict: HopVerdict,
    /// By what it is proven.
    pub how: Option<How>,
    /// Names of the evidence, most telling first.
    pub evidence: Vec<EvidenceId>,
    /// The last station that saw a probe, and the first that should have and did not.
    pub between: Option<(Station, Station)>,
    /// Why it is broken, unproven or skipped.
    pub reason: Option<String>,
}

/// A hop, with its path.
#[derive(Clone, Debug, Serialize)]
pub struct PathHop {
    /// The real server's name.
    pub realserver: String,
    /// The hop.
    #[serde(flatten)]
    pub hop: HopReport,
}

/// A finding.
#[derive(Clone, Debug, Serialize)]
pub struct FindingReport {
    /// Its code.
    pub code: Code,
    /// `error`: a hop is broken because of it; `warning`: it works, and should not stay so; `note`: worth knowing.
    pub severity: Severity,
    /// The hop it is about.
    pub hop: Hop,
    /// The real server whose path it is about.
    pub realserver: String,
    /// One line.
    pub summary: String,
    /// More, in sentences.
    pub detail: String,
    /// Commands to type.
    pub fix: Vec<String>,
    /// Names of the evidence.
    pub evidence: Vec<EvidenceId>,
}

/// A piece of evidence.
#[derive(Clone, Debug, Serialize)]
pub struct EvidenceReport {
    /// Its name.
    pub id: EvidenceId,
    /// What sort.
    pub kind: Kind,
    /// Where it was seen.
    pub station: Option<Station>,
    /// The name of the host that it comes from.
    pub host: String,
    /// When, by that host's wall clock, in RFC 3339.
    pub time: String,
    /// The probe it is about.
    pub probe: Option<ProbeId>,
    /// One line.
    pub summary: String,
    /// The packet in hex: from its network header on, what was sent as a frame from its Ethernet header on; null
    /// where there is none.
    #[serde(rename = "bytes")]
    pub(crate) packet: Option<PacketReport>,
    /// What it is, in a few words.
    #[serde(skip)]
    pub(crate) noun: String,
}

/// A packet to take apart.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct PacketReport {
    /// Its octets.
    #[serde(serialize_with = "hex::serialize")]
    pub(crate) octets: Vec<u8>,
    /// The EtherType of what they begin with; of a frame none, as its own header says it.
    #[serde(skip)]
    pub(crate) ethertype: Option<u16>,
    /// Octets that it had on the wire beyond these.
    #[serde(skip)]
    pub(crate) cut_off: usize,
}

/// A probe.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Its name.
    pub id: ProbeId,
    /// Its kind.
    pub kind: ProbeKind,
    /// The name of the host that sends it.
    pub from: String,
    /// When it was sent, in RFC 3339; null if it was not.
    pub sent: Option<String>,
    /// The stations that saw it or what it caused, in the order of seeing.
    pub seen: Vec<Station>,
    /// How long the first answer took to come back to the host that sent it.
    #[serde(skip)]
    pub(crate) round_trip: Option<Duration>,
}

/// When and how long.
#[derive(Clone, Debug, Serialize)]
pub struct TimingReport {
    /// RFC 3339.
    pub started: String,
    /// Milliseconds.
    pub elapsed_ms: u64,
}

impl From<Timing> for TimingReport {
    fn from(timing: Timing) -> TimingReport {
        TimingReport {
            started: timing.started.to_string(),
            elapsed_ms: timing.elapsed.as_millis() as u64,
        }
    }
}

impl Report {
    /// The report of what was known and judged.
    pub fn new(evidence: &Evidence, judgement: &Judgement, timing: Timing) -> Report {
        let paths: Vec<_> = judgement
            .paths
            .iter()
            .map(|judged| {
                let path = &evidence.plan().paths[judged.path];
                let realserver = escape(&path.realserver);
                PathReport {
                    vip: path.vip,
                    port: path.port,
                    protocol: path.protocol,
                    rip: known(path.rip),
                    dip: path.dip,
                    cip: known(path.cip),
                    gateway: gateway(evidence, judged.path, path),
                    seen_from: [Host::Client, Host::Director, Host::Realserver(judged.path)]
                        .into_iter()
                        .filter(|host| evidence.sees(*host))
                        .collect(),
                    sweeps: sweeps(evidence, judged.path),
                    verdict: judged.outcome,
                    hops: judged.hops.iter().map(hop).collect(),
                    findings: judged
                        .findings
                        .iter()
                        .map(|judged| finding(judged, &realserver))
                        .collect(),
                    realserver,
                }
            })
            .collect();
        Report {
            schema: SCHEMA,
            verdict: judgement.outcome(),
            hops: paths.iter().flat_map(with_realserver).collect(),
            findings: paths
                .iter()
                .flat_map(|path| path.findings.clone())
                .collect(),
            paths,
            evidence: evidence
                .items()
                .iter()
                .map(|item| piece(evidence, item))
                .collect(),
            probes: evidence
                .probes()
                .iter()
                .map(|item| probe(evidence, item))
                .collect(),
            timing: timing.into(),
        }
    }

    /// One JSON object, with a newline at its end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report has string keys only");
        text.push('\n');
        text
    }

    /// How many probes were sent; the RSTs that close what some opened are none.
    pub fn probes_sent(&self) -> usize {
        self.evidence
            .iter()
            .filter(|piece| piece.kind == Kind::Sent)
            .count()
    }

    /// The piece of evidence of this name.
    pub(crate) fn piece(&self, id: EvidenceId) -> Option<&EvidenceReport> {
        self.evidence.get(id.0.checked_sub(1)? as usize)
    }
}

/// An address, if it is one.
fn known(address: Ipv4Addr) -> Option<Ipv4Addr> {
    (!address.is_unspecified()).then_some(address)
}

fn with_realserver(path: &PathReport) -> impl Iterator<Item = PathHop> {
    path.hops.iter().map(|hop| PathHop {
        realserver: path.realserver.clone(),
        hop: hop.clone(),
    })
}

/// The gateway that the user named, or that the real server's route to the client has.
pub(super) fn gateway(evidence: &Evidence, number: usize, path: &Path) -> Option<Ipv4Addr> {
    let discovered = || {
        let facts = evidence.facts(Host::Realserver(number))?;
        let mut routes: Vec<_> = facts
            .routes
            .iter()
            .filter(|(query, _)| query.to == path.cip && query.iif.is_none())
            .collect();
        routes.sort_by_key(|(query, _)| query.from != Some(path.vip));
        routes.into_iter().find_map(|(_, answer)| match answer {
            RouteAnswer::Route(route) => route.gateway,
            RouteAnswer::Error { .. } => None,
        })
    };
    path.gateway.or_else(discovered)
}

fn hop(judged: &HopJudgement) -> HopReport {
    HopReport {
        id: judged.hop,
        verdict: judged.verdict,
        how: judged.how,
        evidence: judged.evidence.clone(),
        between: judged.between,
        reason: judged.reason.as_deref().map(escape),
    }
}

fn finding(judged: &Finding, realserver: &str) -> FindingReport {
    FindingReport {
        code: judged.code,
        severity: judged.severity,
        hop: judged.hop,
        realserver: realserver.to_owned(),
        summary: escape(&judged.summary),
        detail: escape(&judged.detail),
        fix: judged.fix.iter().map(|command| escape(command)).collect(),
        evidence: judged.evidence.clone(),
    }
}

pub(super) fn piece(evidence: &Evidence, item: &Item) -> EvidenceReport {
    let wording = wording(evidence, item);
    let packet = match &item.what {
        What::Sent { transmit, .. } => Some(PacketReport {
            octets: transmit.bytes.clone(),
            ethertype: match transmit.way {
                Way::Stack => Some(EtherType::IPV4),
                Way::Frame { .. } => None,
            },
            cut_off: 0,
        }),
        What::Seen { capture, .. } | What::Arp { capture, .. } | What::Drop { capture, .. } => {
            Some(PacketReport {
                octets: capture.bytes.clone(),
                ethertype: Some(capture.protocol),
                cut_off: (capture.original_length as usize).saturating_sub(capture.bytes.len()),
            })
        }
        What::Connect { .. } | What::Fact { .. } | What::Silence(_) => None,
    };
    EvidenceReport {
        id: item.id,
        kind: wording.kind,
        station: item.station,
        host: escape(&evidence.plan().host_name(item.host)),
        time: item.time.to_string(),
        probe: item.probe,
        summary: wording.summary,
        noun: wording.noun,
        packet,
    }
}

pub(super) fn probe(evidence: &Evidence, probe: &Probe) -> ProbeReport {
    let mut seen = Vec::new();
    for (item, _) in evidence.sightings(probe.id) {
        seen.extend(item.station.filter(|station| !seen.contains(station)));
    }
    let sent = evidence.about(probe.id).find_map(|item| match &item.what {
        What::Sent {
            outcome: SendOutcome::Sent { time },
            ..
        } => Some(time.to_string()),
        _ => None,
    });
    ProbeReport {
        id: probe.id,
        kind: probe.id.kind,
        from: escape(&evidence.plan().host_name(probe.from)),
        sent,
        seen,
        round_trip: evidence.round_trip(probe),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use crate::report::fixture;

    /// The contract, declared a second time, as a script would read it.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Contract {
        schema: String,
        verdict: String,
        paths: Vec<ContractPath>,
        hops: Vec<ContractHop>,
        findings: Vec<ContractFinding>,
        evidence: Vec<ContractEvidence>,
        probes: Vec<ContractProbe>,
        timing: ContractTiming,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ContractPath {
        realserver: String,
        vip: String,
        port: u16,
        protocol: String,
        rip: String,
        dip: Option<String>,
        cip: String,
        gateway: Option<String>,
        verdict: String,
        hops: Vec<ContractHop>,
        findings: Vec<ContractFinding>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ContractHop {
        realserver: Option<String>,
        id: String,
        verdict: String,
        how: Option<String>,
        evidence: Vec<String>,
        between: Option<[String; 2]>,
        reason: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ContractFinding {
        code: String,
        severity: String,
        hop: String,
        realserver: String,
        summary: String,
        #[serde(rename = "detail")]
        _detail: String,
        fix: Vec<String>,
        evidence: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ContractEvidence {
        id: String,
        kind: String,
        station: Option<String>,
        host: String,
        time: String,
        probe: Option<String>,
        summary: String,
        bytes: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ContractProbe {
        id: String,
        kind: String,
        from: String,
        sent: Option<String>,
        seen: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ContractTiming {
        started: String,
        elapsed_ms: u64,
    }

    #[test]
    fn json_keeps_the_contract() {
        let report: Contract = serde_json::from_str(&fixture::report().to_json()).unwrap();
        assert_eq!(report.schema, "tunproof.report/1");
        assert_eq!(report.verdict, "broken");
        assert_eq!(report.timing.started, "2026-11-22T12:00:00.000000007Z");
        assert_eq!(report.timing.elapsed_ms, 3219);

        let [first, second] = &report.paths[..] else {
            panic!("{} paths", report.paths.len());
        };
        assert_eq!(
            (first.realserver.as_str(), first.verdict.as_str()),
            ("rs1", "broken")
        );
        assert_eq!((first.port, first.protocol.as_str()), (80, "tcp"));
        assert_eq!(
            (first.vip.as_str(), first.rip.as_str()),
            ("192.0.2.10", "203.0.113.5")
        );
        assert_eq!(
            (first.dip.as_deref(), first.cip.as_str()),
            (Some("192.0.2.2"), "198.51.100.7")
        );
        assert_eq!(first.gateway.as_deref(), Some("203.0.113.1"));
        assert_eq!(
            (first.hops.len(), second.hops.len(), report.hops.len()),
            (12, 12, 24)
        );
        assert_eq!((first.findings.len(), second.findings.len()), (2, 0));
        assert!(first.hops.iter().all(|hop| hop.realserver.is_none()));
        assert!(
            report.hops[..12]
                .iter()
                .all(|hop| hop.realserver.as_deref() == Some("rs1"))
        );

        let accept = &report.hops[5];
        assert_eq!(
            (accept.id.as_str(), accept.verdict.as_str()),
            ("realserver-accept", "broken")
        );
        assert_eq!(
            accept.between.as_ref().unwrap(),
            &["realserver.tunnel".to_owned(), "realserver.out".to_owned()]
        );
        assert_eq!(accept.evidence, ["e7", "e5"]);
        assert!(accept.reason.is_some() && accept.how.is_none());
        assert_eq!(report.hops[3].how.as_deref(), Some("seen"));

        let finding = &report.findings[0];
        assert_eq!(
            (finding.code.as_str(), finding.severity.as_str()),
            ("rp-filter-drops", "error")
        );
        assert_eq!(
            (finding.hop.as_str(), finding.realserver.as_str()),
            ("realserver-accept", "rs1")
        );
        assert_eq!(
            (finding.fix.len(), finding.evidence.as_slice()),
            (1, &["e8".to_owned()][..])
        );
        assert!(finding.summary.starts_with("rp_filter on tunl0"));
    }

    #[test]
    fn json_lists_evidence_and_probes() {
        let report: Contract = serde_json::from_str(&fixture::report().to_json()).unwrap();
        let kinds: Vec<_> = report.evidence.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "sent", "sent", "sighting", "sighting", "sighting", "sent", "silence", "fact"
            ]
        );
        let arrival = &report.evidence[3];
        assert_eq!((arrival.id.as_str(), arrival.host.as_str()), ("e4", "rs1"));
        assert_eq!(arrival.station.as_deref(), Some("realserver.in"));
        assert_eq!(arrival.time, "2026-11-22T12:00:00.002000007Z");
        assert_eq!(arrival.probe.as_deref(), Some("tunnel-syn.0"));
        assert!(
            arrival
                .summary
                .starts_with("IPIP 192.0.2.2 > 203.0.113.5 { 198.51.100.7:")
        );
        assert!(arrival.bytes.as_ref().unwrap().starts_with("45"));
        assert_eq!(report.evidence[6].bytes, None);

        let [seen, unseen] = &report.probes[..] else {
            panic!("{} probes", report.probes.len());
        };
        assert_eq!(
            (seen.id.as_str(), seen.kind.as_str()),
            ("tunnel-syn.0", "tunnel-syn")
        );
        assert_eq!(seen.from, "director");
        assert_eq!(seen.sent.as_deref(), Some("2026-11-22T12:00:00.000001007Z"));
        assert_eq!(
            seen.seen,
            ["director.out", "realserver.in", "realserver.tunnel"]
        );
        assert_eq!(unseen.seen, [""; 0]);
    }

    #[test]
    fn no_text_has_a_control_character() {
        fn walk(value: &Value) {
            match value {
                Value::String(text) => assert!(!text.contains(char::is_control), "{text:?}"),
                Value::Array(values) => values.iter().for_each(walk),
                Value::Object(fields) => fields.values().for_each(walk),
                _ => {}
            }
        }
        let json = fixture::report().to_json();
        assert!(json.contains("rs\\\\u{1b}2"), "{json}");
        walk(&serde_json::from_str(&json).unwrap());
    }
}
