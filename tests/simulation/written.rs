//! Packets that a suite writes out, and what is expected of them, in the network in memory.

use tunproof::suite::Environment;
use tunproof::suite::SuiteFile;
use tunproof::verdict::StepJudgement;
use tunproof::verdict::StepOutcome;
use tunproof::verdict::judge_steps;

use crate::play::plan;
use crate::play::play_plan;
use crate::scenario::Scenario;
use crate::suites::network;

/// What becomes of a suite's steps where tunproof runs on these hosts.
fn judged(scenario: &Scenario, vantages: &[&str], text: &str) -> Vec<StepJudgement> {
    let vantages: Vec<_> = vantages.iter().map(|host| (*host).to_owned()).collect();
    let mut plan = plan(scenario, &vantages, 7);
    let parse = |path| SuiteFile::parse("own.toml", text, &Environment::of(path));
    let suites: Result<_, _> = plan.paths.iter().map(parse).collect();
    plan.suites = suites.unwrap_or_else(|problems| panic!("{problems}"));
    let played = play_plan(scenario, plan, 7);
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
