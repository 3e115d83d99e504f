use serde::Deserialize;

use super::*;
use crate::exchange::Timing;
use crate::plan::Hop;
use crate::report::fixture;
use crate::verdict::HopJudgement;
use crate::verdict::Judgement;

/// 2026-11-22T12:00:00Z, and so many seconds.
fn at(seconds: u64) -> Wall {
    Wall::from_nanos((1_795_348_800 + seconds) * 1_000_000_000)
}

/// The first path alone, with other verdicts: of these hops, else proven.
fn judged(others: &[(Hop, HopVerdict)]) -> Judgement {
    let mut judgement = fixture::judgement();
    judgement.paths.truncate(1);
    let path = &mut judgement.paths[0];
    for HopJudgement {
        hop,
        verdict,
        reason,
        ..
    } in &mut path.hops
    {
        let other = others.iter().find(|(other, _)| other == hop);
        *verdict = other.map_or(HopVerdict::Proven, |(_, verdict)| *verdict);
        if *verdict == HopVerdict::Proven {
            *reason = None;
        }
    }
    path.outcome = match others.iter().any(|(_, v)| *v == HopVerdict::Broken) {
        true => Outcome::Broken,
        false if others.is_empty() => Outcome::Proven,
        false => Outcome::Unproven,
    };
    if path.outcome != Outcome::Broken {
        path.findings.clear();
    }
    judgement
}

const BROKEN: &[(Hop, HopVerdict)] = &[
    (Hop::RealserverAccept, HopVerdict::Broken),
    (Hop::Service, HopVerdict::Skipped),
];
const UNDECIDED: &[(Hop, HopVerdict)] = &[(Hop::RealserverAccept, HopVerdict::Unproven)];

/// Rounds ten seconds apart; what changed in each.
fn watched(rounds: &[&[(Hop, HopVerdict)]]) -> (Watch, Vec<Vec<Change>>) {
    let evidence = fixture::evidence();
    let mut watch = Watch::default();
    let mut changes = Vec::new();
    for (number, others) in rounds.iter().enumerate() {
        let began = at(10 * number as u64);
        let timing = Timing {
            started: began,
            elapsed: Duration::from_millis(1_234),
        };
        let report = Report::new(&evidence, &judged(others), timing);
        changes.push(watch.add(&evidence, &report, began));
    }
    (watch, changes)
}

fn said(changes: &[Vec<Change>]) -> String {
    changes.iter().flatten().map(Change::to_text).collect()
}

#[test]
fn a_change_is_said_once_with_what_mends_it() {
    let (watch, changes) = watched(&[&[], &[], BROKEN, BROKEN, &[]]);
    let expected = "\
2026-11-22T12:00:20Z rs1 realserver-accept: proven -> broken [rp-filter-drops] rp_filter on tunl0 drops the \
decapsulated packets; type rs1# sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0
2026-11-22T12:00:20Z rs1 service: proven -> skipped realserver-accept is broken
2026-11-22T12:00:40Z rs1 realserver-accept: broken -> proven
2026-11-22T12:00:40Z rs1 service: skipped -> proven
";
    assert_eq!(said(&changes), expected);
    assert_eq!(watch.worst(), Some(Outcome::Broken));
    assert_eq!(
        watch.end_text(at(41)),
        "5 rounds in 41s: 3 proven, 2 broken; hops flapped 2 times\n"
    );
}

#[test]
fn the_first_round_says_what_is_not_proven() {
    let (_, changes) = watched(&[BROKEN]);
    let said = said(&changes);
    assert!(
        said.starts_with("2026-11-22T12:00:00Z rs1 realserver-accept: broken [rp-filter-drops] "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn a_round_that_could_not_decide_is_no_break_and_no_flap() {
    let (watch, changes) = watched(&[&[], UNDECIDED, &[]]);
    let expected = "\
2026-11-22T12:00:10Z rs1 realserver-accept: proven -> unproven what leaves the tunnel is dropped before it reaches \
a socket
2026-11-22T12:00:20Z rs1 realserver-accept: unproven -> proven
";
    assert_eq!(said(&changes), expected);
    assert_eq!(watch.worst(), Some(Outcome::Unproven));
    assert_eq!(
        watch.end_text(at(21)),
        "3 rounds in 21s: 2 proven, 1 unproven\n"
    );
    // What was undecided in between has flapped once it is the other.
    let (watch, _) = watched(&[&[], UNDECIDED, BROKEN]);
    assert_eq!(watch.paths[0].hops[5].flaps, 1);
}

fn table(watch: &Watch, size: (usize, usize), seconds: u64) -> String {
    let lines = watch.lines(size, at(seconds), "round 3, every 10s: next round in 4s");
    let page = lines.join("\n") + "\n";
    for line in anstream::adapter::strip_str(&page).to_string().lines() {
        assert!(line.chars().count() <= size.0, "{size:?}: {line}");
    }
    assert!(lines.len() <= size.1, "{size:?}: {}\n{page}", lines.len());
    let plain = anstream::adapter::strip_str(&page).to_string();
    let lines = plain.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

#[test]
fn the_table_is_as_wide_as_the_terminal() {
    let (watch, _) = watched(&[&[], BROKEN]);
    let expected = "\
rs1: 198.51.100.7 > 192.0.2.10:80/tcp  broken
  hop                     since   loss last ms    avg   best  worst  stdev flaps
✔ client-to-director        16s      -                                         -
✔ director-forward          16s      -                                         -
✔ director-source           16s      -                                         -
✔ director-to-realserver    16s      -                                         -
✔ decapsulation             16s      -                                         -
✘ realserver-accept          6s      -                                         1
· service                    6s      -                                         -
✔ realserver-egress         16s      -                                         -
✔ gateway-arp               16s      -                                         -
✔ spoofed-source-transit    16s      -                                         -
✔ client-arrival            16s      -                                         -
✔ return-to-director        16s      -                                         -

error[rp-filter-drops]: rs1: rp_filter on tunl0 drops the decapsulated packets
  type rs1# sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filte
r=0

12:00:10 rs1 realserver-accept: proven -> broken [rp-filter-drops] rp_filter on…
12:00:10 rs1 service: proven -> skipped realserver-accept is broken
round 3, every 10s: next round in 4s
";
    let got = table(&watch, (80, 30), 16);
    assert_eq!(got, expected, "expected\n{expected}\ngot\n{got}");
    let expected = "\
rs1: 198.51.100.7 > 192.0.2.10:80/tcp  …
  hop                     since   loss
✔ client-to-director        16s      -
";
    let got = table(&watch, (40, 30), 16);
    assert!(
        got.starts_with(expected),
        "expected\n{expected}\ngot\n{got}"
    );
    let expected = "  hop                       state  since      seen   loss last ms    avg   best  worst  stdev flaps samples\n";
    let got = table(&watch, (200, 30), 16);
    assert!(got.contains(expected), "expected\n{expected}\ngot\n{got}");
}

#[test]
fn a_low_terminal_has_a_line_for_each_path() {
    let (watch, _) = watched(&[&[], BROKEN]);
    let expected = "     c d   s     g  c   since   loss loop ms flaps
rs1  ✔ ✔✔✔ ✔✘·✔✔ ✔✔ ✔      6s      -             1 realserver-accept

error[rp-filter-drops]: rs1: rp_filter on tunl0 drops the decapsulated packets
  type rs1# sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filte
r=0

12:00:10 rs1 service: proven -> skipped realserver-accept is broken
round 3, every 10s: next round in 4s
";
    let got = table(&watch, (80, 9), 16);
    assert_eq!(got, expected, "expected\n{expected}\ngot\n{got}");
    for rows in 1..30 {
        table(&watch, (80, rows), 16);
        table(&watch, (10, rows), 16);
    }
}

#[test]
fn trips_have_a_mean_and_a_deviation() {
    let mut trips = Trips::default();
    for ms in [2, 4, 4, 4, 5, 5, 7, 9] {
        trips.add(Duration::from_millis(ms));
    }
    assert_eq!(
        (trips.count, trips.last, trips.best, trips.worst),
        (8, 9.0, 2.0, 9.0)
    );
    // By hand: the mean is 5, the squares' sum 32, over 7.
    assert!((trips.mean - 5.0).abs() < 1e-9 && (trips.deviation() - 2.138_089_9).abs() < 1e-6);
}

#[test]
fn an_age_has_at_most_six_characters() {
    for (seconds, expected) in [
        (0, "0s"),
        (59, "59s"),
        (61, "1m01s"),
        (3_599, "59m59s"),
        (3_660, "1h01m"),
        (86_399, "23h59m"),
        (90_000, "1d01h"),
        (8_640_000, "100d"),
    ] {
        assert_eq!(super::table::age(Duration::from_secs(seconds)), expected);
    }
}

/// The contract, declared a second time, as a script would read it.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase", deny_unknown_fields)]
enum Contract {
    Round {
        schema: String,
        time: String,
        round: u32,
        verdict: String,
        elapsed_ms: u64,
        probes: u64,
        missing: Vec<String>,
        paths: Vec<ContractPath>,
    },
    Change {
        schema: String,
        time: String,
        round: u32,
        realserver: String,
        hop: String,
        from: Option<String>,
        to: String,
        code: Option<String>,
        reason: Option<String>,
        fix: Vec<String>,
    },
    End {
        schema: String,
        time: String,
        verdict: Option<String>,
        rounds: u32,
        proven: u32,
        unproven: u32,
        broken: u32,
        flaps: u32,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractPath {
    realserver: String,
    verdict: String,
    findings: Vec<String>,
    hops: Vec<ContractHop>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractHop {
    id: String,
    verdict: String,
    since: String,
    sent: u64,
    seen: u64,
    flaps: u32,
    round_trip_ms: Option<ContractTrip>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractTrip {
    samples: u32,
    last: f64,
    avg: f64,
    best: f64,
    worst: f64,
    stdev: f64,
}

#[test]
fn each_line_is_an_object_of_the_schema() {
    let (mut watch, changes) = watched(&[&[], BROKEN]);
    watch.paths[0].hops[6]
        .trips
        .add(Duration::from_micros(1_500));
    let missing = ["rs1".to_owned()];
    let lines = [
        changes[1][0].to_json(),
        watch.round_json(&missing),
        watch.end_json(at(20)),
    ];
    let read = lines.map(|line| {
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        serde_json::from_str::<Contract>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let [change, round, end] = read;
    let Contract::Change {
        schema,
        time,
        round: 2,
        realserver,
        hop,
        from,
        to,
        code,
        reason,
        fix,
    } = change
    else {
        panic!("no change");
    };
    assert_eq!(
        (schema.as_str(), time.as_str()),
        ("tunproof.watch/1", "2026-11-22T12:00:10.000000000Z")
    );
    assert_eq!(
        (realserver.as_str(), hop.as_str()),
        ("rs1", "realserver-accept")
    );
    assert_eq!((from.as_deref(), to.as_str()), (Some("proven"), "broken"));
    assert_eq!(code.as_deref(), Some("rp-filter-drops"));
    assert!(reason.is_some_and(|reason| reason.starts_with("rp_filter on tunl0")));
    assert_eq!(fix.len(), 1);
    let Contract::Round {
        schema,
        time,
        round: 2,
        verdict,
        elapsed_ms: 1_234,
        probes: 3,
        missing,
        paths,
    } = round
    else {
        panic!("no round");
    };
    assert_eq!(
        (schema.as_str(), time.as_str()),
        ("tunproof.watch/1", "2026-11-22T12:00:10.000000000Z")
    );
    assert_eq!(
        (verdict.as_str(), missing),
        ("broken", vec!["rs1".to_owned()])
    );
    assert_eq!(
        (paths[0].realserver.as_str(), paths[0].verdict.as_str()),
        ("rs1", "broken")
    );
    assert_eq!(paths[0].findings, ["rp-filter-drops", "loss"]);
    let service = &paths[0].hops[6];
    assert_eq!(
        (service.id.as_str(), service.verdict.as_str()),
        ("service", "skipped")
    );
    assert_eq!(service.since, "2026-11-22T12:00:10.000000000Z");
    assert_eq!((service.sent, service.seen, service.flaps), (0, 0, 0));
    let trip = service.round_trip_ms.as_ref().unwrap();
    assert_eq!(
        (
            trip.samples,
            trip.last,
            trip.avg,
            trip.best,
            trip.worst,
            trip.stdev
        ),
        (1, 1.5, 1.5, 1.5, 1.5, 0.0)
    );
    let Contract::End {
        schema,
        time,
        verdict,
        rounds: 2,
        proven: 1,
        unproven: 0,
        broken: 1,
        flaps: 1,
    } = end
    else {
        panic!("no end");
    };
    assert_eq!(
        (schema.as_str(), time.as_str()),
        ("tunproof.watch/1", "2026-11-22T12:00:20.000000000Z")
    );
    assert_eq!(verdict.as_deref(), Some("broken"));
}
