//! What Prometheus reads: its text format, version 0.0.4, as both its server and node_exporter's textfile collector
//! take it.
//!
//! The verdict of the last run stands in gauges; what is counted, is so since the monitor began. Names and labels
//! are a contract with dashboards; `docs/monitoring` lists them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fmt::Write;
use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::Passage;
use crate::exchange::Timing;
use crate::plan::Form;
use crate::plan::Host;
use crate::report::escape;
use crate::verdict::HopVerdict;
use crate::verdict::Judgement;
use crate::verdict::Outcome;

/// The content type of [`Metrics::to_text`].
pub const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is known of all runs so far.
#[derive(Clone, Debug)]
pub struct Metrics {
    interval: Duration,
    runs: BTreeMap<u8, u64>,
    tallies: BTreeMap<(String, &'static str), Tally>,
    last: Option<Last>,
}

/// The last run.
#[derive(Clone, Debug)]
struct Last {
    ended: Duration,
    took: Duration,
    exit: u8,
    agents: Vec<(String, bool)>,
    /// Samples of the families that only the last run has, by family.
    verdicts: BTreeMap<&'static str, String>,
}

/// The probes of a kind on a path.
#[derive(Clone, Debug, Default)]
struct Tally {
    sent: u64,
    returned: u64,
    /// How many round trips were no longer than each of [`BOUNDS`].
    within: [u64; BOUNDS.len()],
    timed: u64,
    seconds: f64,
}

/// Round trips that are counted apart, in seconds: from one machine room to around the world.
const BOUNDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
];

/// Families of the last run's verdicts: name and help.
const VERDICTS: [(&str, &str); 4] = [
    (
        "tunproof_path_info",
        "Addresses of the path to a real server, always 1.",
    ),
    (
        "tunproof_path_proven",
        "Whether every hop of the path was proven by the last run.",
    ),
    (
        "tunproof_hop_state",
        "Whether this is the hop's verdict in the last run: 1 for one state of each hop.",
    ),
    (
        "tunproof_finding",
        "A finding of the last run, always 1; `tunproof explain CODE` says what it means.",
    ),
];

impl Metrics {
    /// Of no run so far; one begins every `interval`.
    pub fn new(interval: Duration) -> Metrics {
        Metrics {
            interval,
            runs: BTreeMap::new(),
            tallies: BTreeMap::new(),
            last: None,
        }
    }

    /// Adds a run, whose exit status would have been `exit`.
    pub fn add(&mut self, evidence: &Evidence, judgement: &Judgement, timing: Timing, exit: u8) {
        *self.runs.entry(exit).or_default() += 1;
        let plan = evidence.plan();
        let agents = plan.vantages.iter().map(|host| {
            let is_up = evidence.host(*host).is_some_and(|host| host.lost.is_none());
            (escape(&plan.host_name(*host)), is_up)
        });
        self.last = Some(Last {
            ended: Duration::from_nanos(timing.started.as_nanos()) + timing.elapsed,
            took: timing.elapsed,
            exit,
            agents: agents.collect(),
            verdicts: verdicts(evidence, judgement),
        });
        for (number, path) in plan.paths.iter().enumerate() {
            let realserver = escape(&path.realserver);
            for passage in evidence.passages(number) {
                if is_counted(evidence, &passage) {
                    let key = (realserver.clone(), passage.probe.id.kind.id());
                    self.tallies.entry(key).or_default().add(evidence, &passage);
                }
            }
        }
    }

    /// All of it, in Prometheus's text format.
    pub fn to_text(&self) -> String {
        let mut text = Text::default();
        text.family(
            "tunproof_build_info",
            "gauge",
            "The monitor's version, always 1.",
        );
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        text.sample("tunproof_build_info", &version, 1);
        text.family(
            "tunproof_interval_seconds",
            "gauge",
            "How often a run begins.",
        );
        let interval = self.interval.as_secs_f64();
        text.sample("tunproof_interval_seconds", &[], interval);
        text.family(
            "tunproof_runs_total",
            "counter",
            "Runs by exit status: 0 proven, 1 broken, 2 an agent was missing, 3 not all proven.",
        );
        for exit in 0..=3 {
            let runs = self.runs.get(&exit).copied().unwrap_or_default();
            text.sample("tunproof_runs_total", &[("exit", &exit.to_string())], runs);
        }
        if let Some(last) = &self.last {
            last.write(&mut text);
        }
        self.write_tallies(&mut text);
        self.write_round_trips(&mut text);
        text.0
    }

    fn write_tallies(&self, text: &mut Text) {
        if self.tallies.is_empty() {
            return;
        }
        let [sent, returned] = [
            (
                "tunproof_probes_sent_total",
                "Probes whose return a vantage could hear.",
            ),
            (
                "tunproof_probes_returned_total",
                "Those of them that passed every station of their way.",
            ),
        ];
        for (name, help) in [sent, returned] {
            text.family(name, "counter", help);
            for ((realserver, kind), tally) in &self.tallies {
                let labels = [("realserver", realserver.as_str()), ("probe", kind)];
                let is_sent = name == sent.0;
                let value = if is_sent { tally.sent } else { tally.returned };
                text.sample(name, &labels, value);
            }
        }
    }

    fn write_round_trips(&self, text: &mut Text) {
        let tallies = self.tallies.iter();
        let mut timed = tallies.filter(|(_, tally)| tally.timed > 0).peekable();
        if timed.peek().is_none() {
            return;
        }
        let name = "tunproof_round_trip_seconds";
        let help =
            "From a probe's leaving a host until its answer came back there, by that host's clock.";
        text.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for ((realserver, kind), tally) in timed {
            let of = [("realserver", realserver.as_str()), ("probe", *kind)];
            let bounds = BOUNDS.map(|bound| bound.to_string());
            for (bound, within) in bounds.iter().zip(tally.within) {
                text.sample(&bucket, &[of[0], of[1], ("le", bound)], within);
            }
            text.sample(&bucket, &[of[0], of[1], ("le", "+Inf")], tally.timed);
            text.sample(&format!("{name}_sum"), &of, tally.seconds);
            text.sample(&format!("{name}_count"), &of, tally.timed);
        }
    }
}

impl Last {
    fn write(&self, text: &mut Text) {
        let values = [
            (
                "tunproof_last_run_timestamp_seconds",
                "When the last run ended, in seconds since 1970.",
                self.ended.as_secs_f64(),
            ),
            (
                "tunproof_last_run_duration_seconds",
                "How long the last run took.",
                self.took.as_secs_f64(),
            ),
            (
                "tunproof_last_run_exit_status",
                "The last run's exit status, as that of `tunproof verify`.",
                f64::from(self.exit),
            ),
        ];
        for (name, help, value) in values {
            text.family(name, "gauge", help);
            text.sample(name, &[], value);
        }
        text.family(
            "tunproof_agent_up",
            "gauge",
            "Whether the host's agent started and stayed to the end of the last run.",
        );
        for (host, is_up) in &self.agents {
            text.sample("tunproof_agent_up", &[("host", host)], u8::from(*is_up));
        }
        for (name, help) in VERDICTS {
            if let Some(samples) = self.verdicts.get(name) {
                text.family(name, "gauge", help);
                text.0.push_str(samples);
            }
        }
    }
}

impl Tally {
    fn add(&mut self, evidence: &Evidence, passage: &Passage<'_>) {
        self.sent += 1;
        if !passage.is_complete() {
            return;
        }
        self.returned += 1;
        if let Some(trip) = evidence.round_trip(passage.probe) {
            let seconds = trip.as_secs_f64();
            self.timed += 1;
            self.seconds += seconds;
            for (bound, within) in BOUNDS.iter().zip(&mut self.within) {
                *within += u64::from(seconds <= *bound);
            }
        }
    }
}

/// Whether it tells of loss that the probe did not return: somebody would have heard it, and it was due.
fn is_counted(evidence: &Evidence, passage: &Passage<'_>) -> bool {
    let Some(last) = passage.waypoints.last() else {
        return false;
    };
    let id = passage.probe.id;
    let left = passage.sent.is_some() || passage.seen[0].is_some();
    let is_heard = evidence.hears(Host::of(last.station, passage.path)).is_ok();
    let is_due = passage.is_complete() || !evidence.is_expected(id) && !evidence.is_excused(id);
    // How many ICMP errors a host sends is its own affair.
    let is_limited = matches!(last.form, Form::IcmpError { .. });
    left && is_heard && is_due && !is_limited && !id.kind.is_aside() && !passage.refused
}

fn verdicts(evidence: &Evidence, judgement: &Judgement) -> BTreeMap<&'static str, String> {
    let [info, proven, state, finding] = VERDICTS.map(|(name, _)| name);
    let mut families = BTreeMap::<_, Text>::new();
    for judged in &judgement.paths {
        let path = &evidence.plan().paths[judged.path];
        let realserver = escape(&path.realserver);
        let realserver = ("realserver", realserver.as_str());
        let dip = path.dip.map(|dip| dip.to_string()).unwrap_or_default();
        let labels = [
            realserver,
            ("vip", &path.vip.to_string()),
            ("port", &path.port.to_string()),
            ("protocol", path.protocol.name()),
            ("rip", &path.rip.to_string()),
            ("dip", &dip),
            ("cip", &path.cip.to_string()),
        ];
        families.entry(info).or_default().sample(info, &labels, 1);
        let is_proven = u8::from(judged.outcome == Outcome::Proven);
        let proofs = families.entry(proven).or_default();
        proofs.sample(proven, &[realserver], is_proven);
        let states = families.entry(state).or_default();
        for hop in &judged.hops {
            for (verdict, name) in STATES {
                let labels = [realserver, ("hop", hop.hop.id()), ("state", name)];
                states.sample(state, &labels, u8::from(hop.verdict == verdict));
            }
        }
        // A suite may find the same of a hop in more than one way.
        let mut findings: Vec<_> = judged
            .findings
            .iter()
            .map(|found| (found.severity, found.hop, found.code.id()))
            .collect();
        findings.sort_unstable();
        findings.dedup();
        for (severity, hop, code) in findings {
            let labels = [
                realserver,
                ("hop", hop.id()),
                ("code", code),
                ("severity", severity.id()),
            ];
            let samples = families.entry(finding).or_default();
            samples.sample(finding, &labels, 1);
        }
    }
    let text = families.into_iter();
    text.map(|(name, samples)| (name, samples.0)).collect()
}

const STATES: [(HopVerdict, &str); 4] = [
    (HopVerdict::Proven, "proven"),
    (HopVerdict::Broken, "broken"),
    (HopVerdict::Unproven, "unproven"),
    (HopVerdict::Skipped, "skipped"),
];

/// The format's lines.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = write!(self.0, "{before}{label}=\"{text}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{end} {value}");
    }
}

#[cfg(test)]
mod tests;
