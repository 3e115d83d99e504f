//! The engine, the evidence and the verdict against a network in memory: the path
//! c–r1–core–rd–d and core–isp–gw–s, with kernels as Linux's and faults as found in the field.
//!
//! Each file of `tests/scenarios` is a network and the verdicts expected there. `SCENARIO=name` plays one of
//! them and shows what was judged; `SEEDS=n` sets how many random networks the properties are held against, and `FIRST=n` where they begin.

mod adversary;
mod agent;
mod draw;
mod facts;
mod kernel;
mod packet;
mod play;
mod property;
mod saved;
mod scenario;
mod spoofing;
mod suites;
mod toward_director;
mod world;
mod written;

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use tunproof::plan::Host;
use tunproof::verdict::HopVerdict;
use tunproof::verdict::Outcome;
use tunproof::verdict::Severity;

use crate::play::Played;
use crate::play::play;
use crate::scenario::Run;
use crate::scenario::Scenario;
use crate::scenario::Server;

pub(crate) const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const PORT: u16 = 80;

/// The address of real server `n`.
pub(crate) fn rip(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 5 + 128 * n as u8)
}

/// The address of its gateway.
pub(crate) fn gateway(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 1 + 128 * n as u8)
}

/// The node of a host.
pub(crate) fn node_of(host: Host) -> String {
    match host {
        Host::Director => "d".to_owned(),
        Host::Client => "c".to_owned(),
        Host::Realserver(0) => "s".to_owned(),
        Host::Realserver(n) => format!("s{}", n + 1),
    }
}

/// The host at a node; routers are none.
pub(crate) fn host_at(node: &str) -> Option<Host> {
    Some(match node {
        "d" => Host::Director,
        "c" => Host::Client,
        "s" => Host::Realserver(0),
        "s2" => Host::Realserver(1),
        _ => return None,
    })
}

/// The host of this node.
pub(crate) fn host_named(node: &str) -> Host {
    host_at(node).unwrap_or_else(|| panic!("no host `{node}`"))
}

/// The address that a router's ICMP errors come from.
pub(crate) fn router_address(node: &str) -> Ipv4Addr {
    match node {
        "r1" => Ipv4Addr::new(10, 0, 1, 1),
        "core" => Ipv4Addr::new(10, 0, 0, 1),
        "rd" => Ipv4Addr::new(10, 0, 2, 1),
        "isp" => Ipv4Addr::new(10, 0, 3, 1),
        "isp2" => Ipv4Addr::new(10, 0, 4, 1),
        "r1b" => Ipv4Addr::new(10, 0, 1, 2),
        "rdb" => Ipv4Addr::new(10, 0, 2, 2),
        "ispb" => Ipv4Addr::new(10, 0, 3, 2),
        "gw" => gateway(0),
        "gw2" => gateway(1),
        other => panic!("no router `{other}`"),
    }
}

/// The node that packets to an address end at.
pub(crate) fn owner(scenario: &Scenario, address: Ipv4Addr) -> Option<String> {
    if address == CIP {
        return Some("c".to_owned());
    }
    if address.octets()[..3] == [192, 0, 2] {
        return Some("d".to_owned());
    }
    (0..scenario.server.len())
        .find(|n| rip(*n) == address)
        .map(|n| node_of(Host::Realserver(n)))
}

/// Every scenario, by name.
fn scenarios() -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("a file").path())
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy();
            let text = fs::read_to_string(&path).expect("a readable file");
            (
                name.into_owned(),
                read(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())),
            )
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn read(text: &str) -> Result<Scenario, toml::de::Error> {
    let mut scenario: Scenario = toml::from_str(text)?;
    if scenario.server.is_empty() {
        scenario.server.push(Server::default());
    }
    Ok(scenario)
}

#[test]
fn every_scenario_ends_as_written() {
    let chosen = std::env::var("SCENARIO").ok();
    let mut wrong = String::new();
    let mut played = 0;
    for (name, scenario) in scenarios() {
        if chosen.as_ref().is_some_and(|chosen| *chosen != name) {
            continue;
        }
        for run in &scenario.run {
            for seed in &run.seeds {
                played += 1;
                let outcome = play(&scenario, &run.vantages, *seed);
                let differences = differences(run, &outcome) + &saved::differences(&outcome);
                if chosen.is_some() || !differences.is_empty() {
                    let which = format!("{name} {:?} seed {seed}", run.vantages);
                    let shown = show(&outcome);
                    let _ = writeln!(wrong, "== {which}\n{differences}{shown}");
                }
            }
        }
    }
    assert!(played > 0, "no scenario `{chosen:?}`");
    if chosen.is_some() {
        println!("{wrong}");
        wrong = wrong.lines().filter(|line| line.starts_with('!')).collect();
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// What is not as the run expects, a line each, marked with `!`.
fn differences(run: &Run, played: &Played) -> String {
    let mut text = String::new();
    let mut differ = |what: String| {
        let _ = writeln!(text, "! {what}");
    };
    let paths: Vec<_> = played
        .judgement
        .paths
        .iter()
        .filter(|path| run.path.is_none_or(|number| number == path.path))
        .collect();
    let outcome = paths.iter().map(|path| path.outcome).max();
    let outcome = match outcome {
        Some(Outcome::Proven) => "proven",
        Some(Outcome::Broken) => "broken",
        _ => "unproven",
    };
    if outcome != run.outcome {
        differ(format!("expected {}, got {outcome}", run.outcome));
    }
    let hops: Vec<_> = paths.iter().flat_map(|path| &path.hops).collect();
    let broken = hops
        .iter()
        .find(|hop| hop.verdict == HopVerdict::Broken)
        .map(|hop| hop.hop.id().to_owned());
    if broken != run.broken {
        differ(format!(
            "expected {:?} broken first, got {broken:?}",
            run.broken
        ));
    }
    for id in &run.proven {
        if !hops
            .iter()
            .any(|h| h.hop.id() == id && h.verdict == HopVerdict::Proven)
        {
            differ(format!("{id} is not proven"));
        }
    }
    for id in &run.not_proven {
        if hops
            .iter()
            .any(|h| h.hop.id() == id && h.verdict == HopVerdict::Proven)
        {
            differ(format!("{id} is proven"));
        }
    }
    let findings: Vec<_> = paths.iter().flat_map(|path| &path.findings).collect();
    for code in &run.codes {
        if !findings.iter().any(|f| f.code.id() == code) {
            differ(format!("no {code}"));
        }
    }
    for finding in &findings {
        let known = run.codes.iter().any(|code| code == finding.code.id());
        let error = finding.severity == Severity::Error;
        let warning = finding.severity == Severity::Warning && run.outcome == "proven";
        let forbidden = run.forbidden.iter().any(|code| code == finding.code.id());
        if forbidden || run.only && (error || warning) && !known {
            differ(format!("unexpected {}", finding.code));
        }
    }
    let said: Vec<String> = findings
        .iter()
        .map(|f| format!("{}\n{}\n{}", f.summary, f.detail, f.fix.join("\n")))
        .chain(hops.iter().filter_map(|hop| hop.reason.clone()))
        .collect();
    for words in &run.says {
        if !said.iter().any(|text| text.contains(words)) {
            differ(format!("nothing says `{words}`"));
        }
    }
    let took = played.elapsed.as_millis();
    if took > u128::from(run.within_ms) {
        differ(format!("took {took} ms, and may take {}", run.within_ms));
    }
    text
}

/// The judgement, for people.
fn show(played: &Played) -> String {
    let mut text = String::new();
    let sent = played.evidence.probes().len();
    let _ = writeln!(text, "  {} ms, {sent} probes", played.elapsed.as_millis());
    for path in &played.judgement.paths {
        for (number, flow) in played.evidence.flows(path.path) {
            let (left, arrived) = (flow.left.len(), flow.arrived.len());
            let _ = writeln!(
                text,
                "  flow {number} (port {}): {arrived} of {left}",
                flow.port
            );
        }
    }
    for path in &played.judgement.paths {
        for hop in &path.hops {
            let how = hop
                .how
                .map_or(String::new(), |how| format!("{how:?}").to_lowercase());
            let between = hop
                .between
                .map_or(String::new(), |(a, b)| format!("[{a} … {b}] "));
            let reason = hop.reason.as_deref().unwrap_or("");
            let verdict = format!("{:?}", hop.verdict).to_lowercase();
            let _ = writeln!(
                text,
                "  {:24} {verdict:9} {how:8}{between}{reason}",
                hop.hop
            );
        }
        for finding in &path.findings {
            let severity = format!("{:?}", finding.severity).to_lowercase();
            let _ = writeln!(
                text,
                "  {severity} {} ({}): {}",
                finding.code, finding.hop, finding.summary
            );
            let _ = writeln!(text, "    {}", finding.detail);
            for line in &finding.fix {
                let _ = writeln!(text, "    $ {line}");
            }
            for id in &finding.evidence {
                let item = played.evidence.item(*id).expect("cited evidence");
                let what = format!("{:?}", item.what);
                let what: String = what.chars().take(140).collect();
                let _ = writeln!(text, "    {id} {:?} {what}", item.station);
            }
        }
    }
    text
}
