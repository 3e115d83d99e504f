use std::process::Command;
use std::process::Stdio;

use super::*;
use crate::evidence::What;
use crate::exchange::TapStatistics;
use crate::exchange::Wall;
use crate::plan::Station;
use crate::report::fixture;

/// The fixture's proof; its first probe is answered after 10 ms, its second not.
fn answered() -> Evidence {
    let mut evidence = fixture::evidence();
    let (probe, flow) = (evidence.probes()[0].id, evidence.probes()[0].flow);
    let (item, _) = evidence.sightings(probe).next().unwrap();
    let (left, mut what) = (item.time, item.what.clone());
    if let What::Seen { sighting, .. } = &mut what {
        sighting.form = Form::Rst;
        (sighting.source, sighting.destination) = (flow.source, flow.destination);
    }
    let time = Wall::from_nanos(left.as_nanos() + 10_000_000);
    let about = (Some(probe), Some(0));
    evidence.append(Host::Director, Some(Station::DirectorIn), time, about, what);
    let director = evidence.host_mut(Host::Director);
    director.tap_open = true;
    director.statistics = Some(TapStatistics {
        received: 9,
        dropped: 0,
    });
    evidence.host_mut(Host::Realserver(0)).lost = Some("it went away".to_owned());
    evidence
}

fn metrics(evidence: &Evidence) -> Metrics {
    let mut metrics = Metrics::new(Duration::from_secs(60));
    let timing = Timing {
        started: Wall::from_nanos(1_795_348_800_500_000_000),
        elapsed: Duration::from_millis(3_250),
    };
    metrics.add(evidence, &fixture::judgement(), timing, 2);
    metrics
}

#[test]
fn before_the_first_run_nothing_is_said_of_any_path() {
    let text = Metrics::new(Duration::from_secs(60)).to_text();
    assert!(text.contains("\ntunproof_interval_seconds 60\n"), "{text}");
    assert!(!text.contains("realserver"), "{text}");
}

#[test]
fn verdicts_findings_and_agents_are_those_of_the_last_run() {
    let text = metrics(&answered()).to_text();
    for line in [
        "tunproof_runs_total{exit=\"2\"} 1",
        "tunproof_last_run_timestamp_seconds 1795348803.75",
        "tunproof_last_run_duration_seconds 3.25",
        "tunproof_last_run_exit_status 2",
        "tunproof_agent_up{host=\"director\"} 1",
        "tunproof_agent_up{host=\"rs1\"} 0",
        "tunproof_path_proven{realserver=\"rs1\"} 0",
        "tunproof_path_proven{realserver=\"rs\\\\u{1b}2\"} 1",
        "tunproof_hop_state{realserver=\"rs1\",hop=\"realserver-accept\",state=\"broken\"} 1",
        "tunproof_hop_state{realserver=\"rs1\",hop=\"realserver-accept\",state=\"proven\"} 0",
        "tunproof_hop_state{realserver=\"rs1\",hop=\"service\",state=\"skipped\"} 1",
        "tunproof_finding{realserver=\"rs1\",hop=\"realserver-accept\",code=\"rp-filter-drops\",severity=\"error\"} 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let states = text
        .lines()
        .filter(|l| l.starts_with("tunproof_hop_state{"));
    let (set, all): (Vec<_>, Vec<_>) = states.partition(|line| line.ends_with(" 1"));
    assert_eq!((set.len(), all.len()), (24, 72));
}

#[test]
fn probes_and_round_trips_are_counted_over_all_runs() {
    let mut metrics = metrics(&answered());
    let timing = Timing {
        started: Wall::from_nanos(0),
        elapsed: Duration::ZERO,
    };
    metrics.add(&answered(), &fixture::judgement(), timing, 1);
    let text = metrics.to_text();
    let of = "{realserver=\"rs1\",probe=\"tunnel-syn\"}";
    let le = |bound| format!("{{realserver=\"rs1\",probe=\"tunnel-syn\",le=\"{bound}\"}}");
    for line in [
        format!("tunproof_probes_sent_total{of} 4"),
        format!("tunproof_probes_returned_total{of} 2"),
        format!("tunproof_round_trip_seconds_bucket{} 0", le("0.005")),
        format!("tunproof_round_trip_seconds_bucket{} 2", le("0.01")),
        format!("tunproof_round_trip_seconds_bucket{} 2", le("+Inf")),
        format!("tunproof_round_trip_seconds_sum{of} 0.02"),
        format!("tunproof_round_trip_seconds_count{of} 2"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn what_nobody_could_hear_or_was_on_its_way_is_no_loss() {
    let mut deaf = answered();
    deaf.host_mut(Host::Director).statistics = Some(TapStatistics {
        received: 9,
        dropped: 1,
    });
    assert!(!metrics(&deaf).to_text().contains("tunproof_probes"));
    let mut cut = answered();
    let unanswered = cut.probes()[1].id;
    cut.expect(unanswered);
    let text = metrics(&cut).to_text();
    let sent = "tunproof_probes_sent_total{realserver=\"rs1\",probe=\"tunnel-syn\"} 1\n";
    assert!(text.contains(sent), "{text}");
}

/// What Prometheus's own client for Python reads from it.
fn read(text: &str) -> String {
    const READ: &str = "import sys\n\
        from prometheus_client.parser import text_string_to_metric_families as read\n\
        for family in read(sys.stdin.read()):\n\
        \x20   labels = {tuple(sorted(s.labels)) for s in family.samples}\n\
        \x20   print(family.name, family.type, bool(family.documentation), len(family.samples), len(labels))\n\
        \x20   assert len({(s.name, tuple(sorted(s.labels.items()))) for s in family.samples}) == len(family.samples)\n";
    let mut python = Command::new("/usr/bin/python3");
    let child = python
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("this test needs /usr/bin/python3");
    let stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut &stdin, text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "this test needs python3-prometheus-client: {said}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn prometheus_reads_it() {
    let expected = "\
tunproof_build_info gauge True 1 1
tunproof_interval_seconds gauge True 1 1
tunproof_runs counter True 4 1
tunproof_last_run_timestamp_seconds gauge True 1 1
tunproof_last_run_duration_seconds gauge True 1 1
tunproof_last_run_exit_status gauge True 1 1
tunproof_agent_up gauge True 2 1
tunproof_path_info gauge True 2 1
tunproof_path_proven gauge True 2 1
tunproof_hop_state gauge True 96 1
tunproof_finding gauge True 2 1
tunproof_probes_sent counter True 1 1
tunproof_probes_returned counter True 1 1
tunproof_round_trip_seconds histogram True 15 2
";
    assert_eq!(read(&metrics(&answered()).to_text()), expected);
}

/// Names of metrics in a text.
fn names(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("tunproof_"));
    words.map(str::to_owned).collect()
}

#[test]
fn the_samples_in_the_docs_ask_for_what_there_is() {
    let known = names(&metrics(&answered()).to_text());
    let dashboard = include_str!("../../../docs/monitoring/dashboard.json");
    let alerts = include_str!("../../../docs/monitoring/alerts.yml");
    serde_json::from_str::<serde_json::Value>(dashboard).expect("the dashboard is JSON");
    for (text, least) in [(dashboard, 8), (alerts, 5)] {
        let asked = names(text);
        assert!(asked.len() >= least, "{asked:?}");
        for name in asked {
            assert!(known.contains(&name), "there is no {name}");
        }
    }
}
