//! Packets that a suite writes out, and what is expected of them, in the network in memory.

use tunproof::suite::Environment;
use tunproof::suite::SuiteFile;
use tunproof::verdict::StepJudgement;
use tunproof::verdict::StepOutcome;
use tunproof::verdict::judge_steps;

use crate::play::Played;
use crate::play::plan;
use crate::play::play_plan;
use crate::scenario::Scenario;
use crate::suites::network;

/// What becomes of a suite where tunproof runs on these hosts.
fn played(scenario: &Scenario, vantages: &[&str], text: &str) -> Played {
    let vantages: Vec<_> = vantages.iter().map(|host| (*host).to_owned()).collect();
    let mut plan = plan(scenario, &vantages, 7);
    let parse = |path| SuiteFile::parse("own.toml", text, &Environment::of(path));
    let suites: Result<_, _> = plan.paths.iter().map(parse).collect();
    plan.suites = suites.unwrap_or_else(|problems| panic!("{problems}"));
    play_plan(scenario, plan, 7)
}

/// And of its steps.
fn judged(scenario: &Scenario, vantages: &[&str], text: &str) -> Vec<StepJudgement> {
    let played = played(scenario, vantages, text);
    judge_steps(&played.evidence, &played.judgement)
}

const EVERYWHERE: &[&str] = &["director", "realserver", "client"];

const TUNNELLED: &str = r#"
[[step]]
id = "own-tunnel"
from = "director"
send = [
  { ipv4 = { src = "$dip", dst = "$rip" } },
  { ipv4 = { src = "$cip", dst = "$vip", ttl = 9 } },
  { udp = { dport = 33434 } },
]
count = 3
[[step.expect]]
at = "director.out"
see = "tunnelled"
[[step.expect]]
at = "realserver.in"
see = "tunnelled"
where = { "ipv4.1.ttl" = 9 }
[[step.expect]]
at = "realserver.tunnel"
see = "decapsulated"
[[step.expect]]
at = "realserver.tunnel"
see = "tunnelled"
never = true
[[step.expect]]
at = "realserver.in"
see = "decapsulated"
never = true

[[step]]
id = "by-the-director"
from = "client"
send = [{ ipv4 = { src = "$cip", dst = "$vip" } }, { tcp = { dport = "$port" } }]
count = 3
[[step.expect]]
at = "realserver.in"
see = "tunnelled"
[[step.expect]]
at = "realserver.tunnel"
see = "decapsulated"
[[step.expect]]
at = "client.out"
see = "tunnelled"
never = true
"#;

#[test]
fn a_tunnel_is_seen_whoever_wrote_its_header() {
    for step in judged(&network("healthy"), EVERYWHERE, TUNNELLED) {
        assert_eq!(step.outcome, StepOutcome::Passed, "{step:#?}");
    }
}

/// Closed ports of the client, from the real server: `count` datagrams, one in every `interval`.
fn closed_ports(count: usize, interval: &str) -> String {
    format!(
        r#"
        [[step]]
        id = "closed"
        from = "realserver"
        send = [{{ ipv4 = {{ src = "$rip", dst = "$cip" }} }}, {{ udp = {{ dport = 33434 }} }}]
        count = {count}
        interval = "{interval}"
        [[step.expect]]
        at = "realserver.in"
        see = "port-unreachable"
        "#
    )
}

#[test]
fn a_limit_of_icmp_errors_fails_no_step() {
    let healthy = network("healthy");
    let strict = network("trap-client-limits-icmp");
    for (scenario, count, interval, outcome) in [
        (&healthy, 6, "100ms", StepOutcome::Passed),
        (&healthy, 12, "100ms", StepOutcome::Inconclusive),
        (&healthy, 12, "1200ms", StepOutcome::Passed),
        (&strict, 3, "100ms", StepOutcome::Inconclusive),
        (&strict, 3, "1200ms", StepOutcome::Passed),
    ] {
        for vantages in [EVERYWHERE, &["realserver"]] {
            let suite = closed_ports(count, interval);
            let [step] = &judged(scenario, vantages, &suite)[..] else {
                panic!("not one step");
            };
            assert_eq!(step.outcome, outcome, "{count}, {interval}: {step:#?}");
            let reason = step.reason.as_deref().unwrap_or_default();
            let says = reason.contains("198.51.100.7 answered others shortly before");
            assert_eq!(says, outcome != StepOutcome::Passed, "{reason}");
        }
    }
}

/// Where nothing is answered at all, or a tap shows that nothing came, no limit is why.
#[test]
fn a_limit_of_icmp_errors_excuses_nothing_else() {
    let suite = closed_ports(12, "100ms");
    for name in ["client-unreachable", "client-silent"] {
        for vantages in [EVERYWHERE, &["realserver"]] {
            let [step] = &judged(&network(name), vantages, &suite)[..] else {
                panic!("not one step");
            };
            assert_eq!(step.outcome, StepOutcome::Failed, "{name}: {step:#?}");
        }
    }
    // The first are answered, the others go elsewhere: they are no concern of the client's limit.
    let elsewhere = r#"
        [[step]]
        id = "answered"
        from = "realserver"
        send = [{ ipv4 = { src = "$rip", dst = "$cip" } }, { udp = { dport = 33434 } }]
        count = 3
        [[step]]
        id = "short-lived"
        from = "realserver"
        send = [{ ipv4 = { src = "$rip", dst = "$cip", ttl = 2 } }, { udp = { dport = 33434 } }]
        count = 3
        [[step.expect]]
        at = "client.out"
        see = "port-unreachable"
        "#;
    let steps = judged(&network("healthy"), EVERYWHERE, elsewhere);
    assert_eq!(steps[1].outcome, StepOutcome::Failed, "{:#?}", steps[1]);
}

/// It counts what it withholds.
#[test]
fn a_host_that_counts_what_it_withholds_is_believed() {
    let suite = r#"
        [[step]]
        id = "closed"
        from = "director"
        send = [
          { ipv4 = { src = "$dip", dst = "$rip" } },
          { ipv4 = { src = "$cip", dst = "$vip" } },
          { udp = { dport = 33434 } },
        ]
        count = 3
        [[step.expect]]
        at = "realserver.out"
        see = "port-unreachable"
        "#;
    let [step] = &judged(&network("udp-icmp-limited"), EVERYWHERE, suite)[..] else {
        panic!("not one step");
    };
    assert_eq!(step.outcome, StepOutcome::Inconclusive, "{step:#?}");
    let reason = step.reason.as_deref().unwrap();
    assert!(reason.contains("withheld 3 ICMP errors"), "{reason}");
}

/// What a suite writes out may be odd, and so what answers it: nobody is to blame for that.
#[test]
fn what_a_suite_writes_out_finds_no_fault() {
    let suite = r#"
        [[step]]
        id = "refused-by-the-real-server-itself"
        from = "client"
        send = [{ ipv4 = { src = "$cip", dst = "$rip" } }, { tcp = { dport = 9 } }]
        count = 3
        [[step.expect]]
        at = "client.in"
        see = "refused"
        from = "$rip"
        [[step]]
        id = "a-closed-port-of-the-real-server"
        from = "client"
        send = [{ ipv4 = { src = "$cip", dst = "$rip" } }, { udp = { dport = 33434 } }]
        count = 3
        [[step.expect]]
        at = "client.in"
        see = "port-unreachable"
        from = "$rip"
        "#;
    let played = played(&network("healthy"), EVERYWHERE, suite);
    for step in judge_steps(&played.evidence, &played.judgement) {
        assert_eq!(step.outcome, StepOutcome::Passed, "{step:#?}");
    }
    for path in &played.judgement.paths {
        assert_eq!(path.findings, [], "{:#?}", path.findings);
    }
}
