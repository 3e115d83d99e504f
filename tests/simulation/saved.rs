//! What a run has kept: judged again it gives the same report, and whatever became of the file, no panic.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tunproof::evidence::Evidence;
use tunproof::evidence::Loaded;
use tunproof::evidence::Purpose;
use tunproof::evidence::load;
use tunproof::evidence::save;
use tunproof::exchange::Timing;
use tunproof::exchange::Wall;
use tunproof::report;
use tunproof::report::Report;
use tunproof::report::RunReport;
use tunproof::verdict::Code;
use tunproof::verdict::Severity;
use tunproof::verdict::judge;
use tunproof::verdict::judge_steps;
use tunproof::verdict::suite_outcome;

use crate::draw::Dice;
use crate::play::Played;
use crate::play::play;
use crate::suites::network;

/// A time that is no round number of anything.
const TIMING: Timing = Timing {
    started: Wall::from_nanos(1_795_000_000_123_456_789),
    elapsed: Duration::from_micros(3_219_777),
};

/// Everything that is said of what is known, in each format.
#[derive(PartialEq, Eq)]
struct Said {
    json: String,
    text: String,
    packets: Vec<u8>,
    steps: String,
}

fn say(mut evidence: Evidence, timing: Timing) -> Said {
    let judgement = judge(&mut evidence);
    let steps = judge_steps(&evidence, &judgement);
    let outcome = suite_outcome(&evidence, &judgement, &steps);
    let report = Report::new(&evidence, &judgement, timing);
    Said {
        json: report.to_json(),
        text: report::text(&report, true, report::WIDTH),
        packets: report::pcapng(&evidence, &judgement, None),
        steps: RunReport::new(&evidence, report, &steps, outcome).to_json(),
    }
}

/// What is not the same once the run was saved, loaded and judged again; a line each, marked with `!`.
pub(crate) fn differences(played: &Played) -> String {
    let text = save(&played.known, TIMING, Purpose::Proof);
    let again = match load(text.as_bytes()) {
        Ok(mut again) => again.remove(0),
        Err(error) => return format!("! what was saved cannot be loaded: {error}\n"),
    };
    let mut different = String::new();
    if save(&again.evidence, again.timing, again.purpose) != text {
        different.push_str("! saved again it is another file\n");
    }
    let first = say(played.known.clone(), TIMING);
    if first != say(again.evidence, again.timing) {
        different.push_str("! judged again it gives another report\n");
    }
    different
}

/// Numbers that break sums, indices and lengths.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    4,
    19,
    63,
    64,
    255,
    256,
    2047,
    65_535,
    65_536,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX,
];

/// A number below `end`.
fn below(dice: &mut Dice, end: usize) -> usize {
    dice.below(end as f64) as usize
}

/// A value within a value that is of this sort: at each step down any of its children.
fn somewhere<'a>(
    value: &'a mut Value,
    dice: &mut Dice,
    is: fn(&Value) -> bool,
) -> Option<&'a mut Value> {
    if is(value) && below(dice, 4) == 0 {
        return Some(value);
    }
    let mut children: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => return None,
    };
    if children.is_empty() {
        return None;
    }
    let child = below(dice, children.len());
    somewhere(children.swap_remove(child), dice, is)
}

/// Every value that a field of this name has somewhere.
type Pool = BTreeMap<String, Vec<Value>>;

fn collect(value: &Value, pool: &mut Pool) {
    match value {
        Value::Array(list) => list.iter().for_each(|child| collect(child, pool)),
        Value::Object(fields) => {
            for (name, child) in fields {
                pool.entry(name.clone()).or_default().push(child.clone());
                collect(child, pool);
            }
        }
        _ => {}
    }
}

/// Changes one thing, so that most of the time it is still of its type.
fn change(whole: &mut Value, pool: &Pool, dice: &mut Dice) {
    if below(dice, 4) == 0 {
        let Some(Value::Array(list)) = somewhere(whole, dice, Value::is_array) else {
            return;
        };
        if list.is_empty() {
            return;
        }
        let (a, b) = (below(dice, list.len()), below(dice, list.len()));
        match below(dice, 8) {
            0 | 1 => drop(list.remove(a)),
            2 | 3 => list.swap(a, b),
            4 | 5 => list.insert(b, list[a].clone()),
            6 => list.truncate(a),
            _ => list[a] = Value::Null,
        }
        return;
    }
    let Some(Value::Object(fields)) = somewhere(whole, dice, Value::is_object) else {
        return;
    };
    let name = fields.keys().nth(below(dice, fields.len().max(1))).cloned();
    let Some(name) = name else {
        return;
    };
    let values = &pool[&name];
    let number = fields[&name].is_number() && below(dice, 2) == 0;
    match below(dice, 20) {
        0 => drop(fields.remove(&name)),
        1 => drop(fields.insert(name, Value::Null)),
        _ if number => drop(fields.insert(name, NUMBERS[below(dice, NUMBERS.len())].into())),
        _ => drop(fields.insert(name, values[below(dice, values.len())].clone())),
    }
}

/// Gives the evidence its numbers again, as somebody would who knows.
fn number_again(whole: &mut Value) {
    let Some(items) = whole["evidence"].as_array_mut() else {
        return;
    };
    for (index, item) in items.iter_mut().enumerate() {
        if let Some(fields) = item.as_object_mut() {
            fields.insert("id".to_owned(), format!("e{}", index + 1).into());
        }
    }
}

/// Changes a few octets of the text.
fn scribble(text: &mut Vec<u8>, dice: &mut Dice) {
    let at = below(dice, text.len());
    match below(dice, 4) {
        0 => text.truncate(at),
        1 => drop(text.drain(at..(at + 1 + below(dice, 40)).min(text.len()))),
        2 => text[at] = below(dice, 256) as u8,
        _ => text[at] = b"0123456789e.-\"{}[],:"[below(dice, 20)],
    }
}

const SCENARIOS: [&str; 10] = [
    "healthy",
    "ipvs-service-missing",
    "rp-filter-tunnel",
    "spoof-filter-at-isp",
    "spoof-partly-filtered",
    "trap-loss-30",
    "tunnel-mtu-low",
    "tunnel-open-to-anyone",
    "two-servers-rr",
    "udp-spoof-filter",
];

#[test]
fn a_changed_file_is_refused_or_judged_and_never_panics() {
    let count = crate::property::seeds(150);
    let mut panics = Vec::new();
    let (mut loaded, mut refused) = (0, 0);
    for (name, scenario) in crate::scenarios() {
        if !SCENARIOS.contains(&name.as_str()) {
            continue;
        }
        let run = &scenario.run[0];
        let text = save(
            &play(&scenario, &run.vantages, run.seeds[0]).known,
            TIMING,
            Purpose::Suite,
        );
        let whole: Value = serde_json::from_str(&text).expect("JSON");
        let mut pool = Pool::new();
        collect(&whole, &mut pool);
        for seed in 0..count {
            let dice = &mut Dice::new(seed);
            let mut changed = match seed % 4 {
                0 => text.clone().into_bytes(),
                _ => {
                    let mut whole = whole.clone();
                    for _ in 0..=below(dice, 4) {
                        change(&mut whole, &pool, dice);
                    }
                    if below(dice, 4) > 0 {
                        number_again(&mut whole);
                    }
                    whole.to_string().into_bytes()
                }
            };
            if seed % 4 == 0 {
                scribble(&mut changed, dice);
            }
            let judged = AssertUnwindSafe(|| {
                let Loaded {
                    evidence, timing, ..
                } = load(&changed).ok()?.remove(0);
                Some(say(evidence, timing))
            });
            match catch_unwind(judged) {
                Ok(Some(_)) => loaded += 1,
                Ok(None) => refused += 1,
                Err(_) => panics.push(format!("{name} seed {seed}")),
            }
        }
    }
    println!("{loaded} judged, {refused} refused");
    assert!(panics.is_empty(), "{}", panics.join("\n"));
    assert!(loaded > 2 * refused && refused > 10, "{loaded} {refused}");
}

/// The code and the summary of the only error.
fn error(evidence: &mut Evidence) -> (Code, String) {
    let findings = judge(evidence).paths.remove(0).findings;
    let mut errors = findings.iter().filter(|it| it.severity == Severity::Error);
    let first = errors.next().expect("an error");
    assert!(errors.next().is_none(), "{findings:#?}");
    (first.code, first.summary.clone())
}

/// Nobody tells a raw socket that there was no room for its packet's next hop (`ip_finish_output2`), only who asks for
/// the reasons of drops.
#[test]
fn a_full_neighbour_table_is_no_firewall() {
    let hosts = ["director", "realserver", "client"].map(str::to_owned);
    let mut known = play(&network("director-drops-ipip"), &hosts, 1).known;
    let text = save(&known, TIMING, Purpose::Proof);
    let (code, _) = error(&mut known);
    assert_eq!(code, Code::DirectorFirewallEgress);
    let mut kept: Value = serde_json::from_str(&text).unwrap();
    let evidence = kept["evidence"].as_array().unwrap();
    // What goes to the client has another next hop.
    let tunnelled = evidence.iter().filter(|item| {
        let by_director = item["host"] == "director" && !item["what"]["sent"].is_null();
        by_director
            && !item["probe"]
                .as_str()
                .unwrap()
                .starts_with("return-control")
    });
    let drops: Vec<_> = tunnelled
        .map(|item| item["time"].as_u64().unwrap() + 20_000)
        .map(|time| json!({"time": time, "reason": "NEIGH_CREATEFAIL", "place": "ip_finish_output2"}))
        .collect();
    assert!(drops.len() >= 3, "{drops:?}");
    let mut hosts = kept["hosts"].as_array_mut().unwrap().iter_mut();
    let director = hosts.find(|known| known["host"] == "director").unwrap();
    director["known"]["freed"] = json!({"since": 0, "missed": false, "drops": drops});
    let mut again = load(kept.to_string().as_bytes()).unwrap();
    let (code, summary) = error(&mut again.remove(0).evidence);
    assert_eq!(code, Code::NextHopUnreachable, "{summary}");
    assert!(
        summary.ends_with("its neighbour table is full"),
        "{summary}"
    );
}
