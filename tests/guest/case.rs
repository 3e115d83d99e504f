//! The table of cases, and what is wrong with what came of one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tunproof::plan::Hop;

use crate::boot::only;
use crate::table::Expected;
use crate::table::Outcome;
use crate::table::Row;

/// One line of the table, for one choice of vantages.
pub(crate) struct Case {
    pub(crate) topology: &'static str,
    pub(crate) name: String,
    /// How far the kernel's own connection gets, by the routers' counters.
    pub(crate) connection: &'static str,
    pub(crate) exits: Vec<i64>,
    /// First broken hop, or `-`; empty where it is not asked.
    pub(crate) hops: Vec<&'static str>,
    /// All of these must be among the findings, `a/b` either, `a@b` of that real server; empty where it is not asked.
    pub(crate) codes: Vec<&'static str>,
}

/// The topologies: name, and what it is.
pub(crate) fn topologies() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("cases.txt").lines();
    lines.filter_map(topology).collect()
}

fn topology(line: &'static str) -> Option<(&'static str, &'static str)> {
    let cells: Vec<_> = line
        .strip_prefix("topology ")?
        .split(" | ")
        .map(str::trim)
        .collect();
    let [name, _, _, about] = cells[..] else {
        panic!("{} cells instead of 4: {line}", cells.len());
    };
    Some((name, about))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut now = "";
    for line in include_str!("cases.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((name, _)) = topology(line) {
            now = name;
            continue;
        }
        let cells: Vec<_> = line.split(" | ").map(str::trim).collect();
        let [name, _, _, vantage, connection, exit, hop, code] = cells[..] else {
            panic!("{} cells instead of 8: {line}", cells.len());
        };
        let vantages: &[_] = match vantage {
            "both" => &["with", "without"],
            "with" => &["with"],
            "without" => &["without"],
            "alone" => &["alone"],
            other => panic!("`{other}` is no choice of vantages: {line}"),
        };
        for vantage in vantages {
            cases.push(Case {
                topology: now,
                name: format!("{name}.{vantage}"),
                connection,
                exits: exit.split('/').map(|e| e.parse().unwrap()).collect(),
                hops: several(hop, '/'),
                codes: several(code, '+'),
            });
        }
    }
    cases
}

fn several(cell: &str, by: char) -> Vec<&str> {
    match cell {
        "-" => Vec::new(),
        cell => cell.split(by).collect(),
    }
}

/// The line of the table for the case's result.
pub(crate) fn row(results: &Path, case: &Case) -> Row {
    let (fault, vantages) = case.name.split_once('.').unwrap();
    let code = |code: &&str| match case.exits == [0] {
        true => format!("warning {code}"),
        false => (*code).to_owned(),
    };
    let report: Value =
        serde_json::from_str(&read(results, &format!("{}.json", case.name))).unwrap_or_default();
    Row {
        topology: case.topology.to_owned(),
        fault: fault.to_owned(),
        vantages: match vantages {
            "with" => "all".to_owned(),
            "alone" => "director".to_owned(),
            _ => "no-client".to_owned(),
        },
        expected: Expected {
            exits: case.exits.clone(),
            hops: case.hops.iter().map(|&hop| hop.to_owned()).collect(),
            codes: case.codes.iter().map(code).collect(),
        },
        as_expected: judge(results, case).is_none(),
        outcome: Outcome::of(fact(results, &case.name, "exit"), &report),
    }
}

/// What is wrong with the case's result, as blocks of expected and got.
pub(crate) fn judge(results: &Path, case: &Case) -> Option<String> {
    let name = &case.name;
    let exit = fact(results, name, "exit");
    let stderr = read(results, &format!("{name}.stderr"));
    let text = read(results, &format!("{name}.json"));
    let report: Value = match serde_json::from_str(&text) {
        Ok(report) => report,
        Err(error) => {
            return Some(format!(
                "{name}\nexpected a report and exit {:?}\ngot      exit {exit}, {error}: {text}\n{stderr}",
                case.exits
            ));
        }
    };
    let empty = Vec::new();
    let hops = report["hops"].as_array().unwrap_or(&empty);
    let findings = report["findings"].as_array().unwrap_or(&empty);
    let broken = hops
        .iter()
        .find(|hop| hop["verdict"] == "broken")
        .map_or("-", |hop| hop["id"].as_str().unwrap());
    let has = |severity: &str| {
        findings
            .iter()
            .any(|finding| finding["severity"] == severity)
    };

    let mut complaints = Vec::new();
    if report["schema"] != "tunproof.report/1" {
        complaints.push("the schema's name".to_owned());
    }
    if !case.exits.contains(&exit) {
        complaints.push(format!("the exit status, {exit}"));
    }
    let verdict = match exit {
        0 => "proven",
        1 => "broken",
        _ => "unproven",
    };
    if report["verdict"] != verdict {
        complaints.push(format!("exit {exit} with verdict {}", report["verdict"]));
    }
    let listed: Vec<_> = hops.iter().filter_map(|hop| hop["id"].as_str()).collect();
    let in_order = |path: &[&str]| path == Hop::ALL.map(Hop::id);
    if listed.is_empty() || !listed.chunks(Hop::ALL.len()).all(in_order) {
        complaints.push(format!("the hops' order, {listed:?}"));
    }
    if exit == 0 && hops.iter().any(|hop| hop["verdict"] != "proven") {
        complaints.push("exit 0 with a hop that is not proven".to_owned());
    }
    if exit != 1 && has("error") {
        complaints.push("an error where nothing is broken".to_owned());
    }
    let unexpected = |finding: &Value| {
        let code = finding["code"].as_str().unwrap_or_default();
        finding["severity"] == "warning" && !case.codes.contains(&code)
    };
    if case.exits == [0] && findings.iter().any(unexpected) {
        complaints.push("a warning on a healthy path".to_owned());
    }
    if !case.hops.is_empty() && !case.hops.contains(&broken) {
        complaints.push(format!("the first broken hop, {broken}"));
    }
    let found = |codes: &&str| {
        let (codes, server) = match codes.split_once('@') {
            Some((codes, server)) => (codes, Some(server)),
            None => (*codes, None),
        };
        codes.split('/').any(|code| {
            let is_it = |finding: &&Value| {
                finding["code"] == code && server.is_none_or(|name| finding["realserver"] == name)
            };
            findings.iter().any(|finding| is_it(&finding))
        })
    };
    if !case.codes.iter().all(found) {
        complaints.push("the finding".to_owned());
    }
    let paths = report["paths"].as_array().unwrap_or(&empty);
    for name in case.codes.iter().filter_map(|code| code.split_once('@')) {
        let is_other = |path: &&Value| path["realserver"] != name.1;
        if paths
            .iter()
            .filter(is_other)
            .any(|path| path["verdict"] != "proven")
        {
            complaints.push("the other real server's path".to_owned());
        }
    }
    if complaints.is_empty() {
        return None;
    }
    let mut block = format!(
        "{name}: {}\nexpected exit {:?}, first broken {:?}, finding {:?}\ngot      exit {exit}, first broken {broken}\n",
        complaints.join("; "),
        case.exits,
        case.hops,
        case.codes
    );
    for hop in hops.iter().filter(|hop| hop["verdict"] != "proven") {
        block += &format!(
            "  hop {} {}: {}\n",
            hop["id"], hop["verdict"], hop["reason"]
        );
    }
    for finding in findings {
        block += &format!(
            "  {} {} at {}: {} — {}\n",
            finding["severity"],
            finding["code"],
            finding["hop"],
            finding["summary"],
            finding["detail"]
        );
    }
    Some(block + &stderr)
}

/// What is wrong if this machine judges otherwise what the guest has kept. Only a case that was judged wrongly
/// stays.
pub(crate) fn judge_again(results: &Path, name: &str, is_right: bool) -> Option<String> {
    let kept = results.join(format!("{name}.case.json"));
    let judged = Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(["judge", "--format", "json"])
        .arg(&kept)
        .output()
        .unwrap();
    if judged.stdout != fs::read(results.join(format!("{name}.json"))).unwrap_or_default() {
        let said = String::from_utf8_lossy(&judged.stderr);
        return Some(format!("{name}: judged again it is another report\n{said}"));
    }
    if is_right {
        fs::remove_file(kept).unwrap();
    }
    None
}

/// The cases to judge: all, unless a person asked for some.
pub(crate) fn ran(results: &Path) -> Vec<Case> {
    cases()
        .into_iter()
        .filter(|case| wanted(results, &case.name))
        .collect()
}

pub(crate) fn wanted(results: &Path, name: &str) -> bool {
    only().is_empty() || results.join(format!("{name}.facts")).exists()
}

pub(crate) fn read(results: &Path, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(results.join(name)).unwrap_or_default()).into_owned()
}

pub(crate) fn fact(results: &Path, case: &str, key: &str) -> i64 {
    let facts = read(results, &format!("{case}.facts"));
    let value = facts
        .lines()
        .find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("{case}: no `{key}` in its facts:\n{facts}"))
}

pub(crate) fn blocks_unless_empty(results: &Path, name: &str, what: &str) -> Option<String> {
    let path = results.join(name);
    match fs::read_to_string(&path) {
        Ok(text) if text.is_empty() => None,
        Ok(text) => Some(format!("{name}: {what}\nexpected nothing\ngot\n{text}")),
        Err(error) => Some(format!("{}: {error}", path.display())),
    }
}

/// One line of `causes.txt`.
pub(crate) struct Cause {
    pub(crate) name: &'static str,
    code: &'static str,
    /// What the finding must say somewhere.
    says: Vec<&'static str>,
}

pub(crate) fn causes() -> Vec<Cause> {
    let lines = include_str!("causes.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let cells: Vec<_> = line.split(" | ").map(str::trim).collect();
            let [name, _, _, code, says] = cells[..] else {
                panic!("{} cells instead of 5: {line}", cells.len());
            };
            Cause {
                name,
                code,
                says: says.split(" && ").collect(),
            }
        })
        .collect()
}

/// What is wrong with what was found to be the cause.
pub(crate) fn judge_cause(results: &Path, cause: &Cause) -> Option<String> {
    let name = cause.name;
    let broken = blocks_unless_empty(results, &format!("{name}.break"), "breaking or mending");
    let text = read(results, &format!("{name}.json"));
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    let empty = Vec::new();
    let findings = report["findings"].as_array().unwrap_or(&empty);
    let said = |finding: &Value| {
        let fix = finding["fix"].as_array().cloned().unwrap_or_default();
        let fix: Vec<_> = fix.iter().filter_map(Value::as_str).collect();
        let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!(
            "{} | {} | {}",
            word("summary"),
            word("detail"),
            fix.join(" | ")
        )
    };
    let found = findings.iter().any(|finding| {
        let said = said(finding);
        finding["code"] == cause.code && cause.says.iter().all(|part| said.contains(part))
    });
    if found && broken.is_none() {
        return None;
    }
    let mut block = broken.unwrap_or_default();
    block += &format!(
        "{name}\nexpected {} that says {:?}\ngot\n",
        cause.code, cause.says
    );
    for finding in findings {
        block += &format!("  {}: {}\n", finding["code"], said(finding));
    }
    Some(block + &read(results, &format!("{name}.stderr")))
}

/// One line of `suites.txt`.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    exit: i64,
}

pub(crate) fn suites() -> Vec<Suite> {
    let lines = include_str!("suites.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let cells: Vec<_> = line.split(" | ").map(str::trim).collect();
            let [name, _, _, _, exit] = cells[..] else {
                panic!("{} cells instead of 5: {line}", cells.len());
            };
            let exit = exit.parse().unwrap();
            Suite { name, exit }
        })
        .collect()
}

/// What is wrong with a suite's run.
pub(crate) fn judge_suite(results: &Path, suite: &Suite) -> Option<String> {
    let Suite { name, exit } = suite;
    let got = fact(results, name, "exit");
    eprintln!(
        "{name:<36} {got:>4} {:>8}",
        fact(results, name, "elapsed_ms")
    );
    let broken = blocks_unless_empty(results, &format!("{name}.break"), "breaking or mending");
    if got == *exit && broken.is_none() {
        return None;
    }
    let mut block = broken.unwrap_or_default();
    let text = read(results, &format!("{name}.json"));
    block += &format!("{name}\nexpected exit {exit}\ngot      exit {got}\n");
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    block += &serde_json::to_string_pretty(&report["steps"]).unwrap_or_default();
    Some(block + &read(results, &format!("{name}.stderr")))
}

/// One line of `spoof.txt`.
pub(crate) struct Spoof {
    pub(crate) name: &'static str,
    /// With the client and without: exit status, outcome, last router that passed and first that did not.
    pub(crate) expected: [[&'static str; 4]; 2],
}

pub(crate) fn spoofs() -> Vec<Spoof> {
    let lines = include_str!("spoof.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let words = |cell: &'static str| -> [&'static str; 4] {
        let words: Vec<_> = cell.split_whitespace().collect();
        words
            .try_into()
            .unwrap_or_else(|_| panic!("not four words: {cell}"))
    };
    lines
        .map(|line| {
            let cells: Vec<_> = line.split(" | ").map(str::trim).collect();
            let [name, _, _, with, without] = cells[..] else {
                panic!("{} cells instead of 5: {line}", cells.len());
            };
            Spoof {
                name,
                expected: [words(with), words(without)],
            }
        })
        .collect()
}

/// What is wrong with a spoof check's report.
pub(crate) fn judge_spoof(results: &Path, name: &str, expected: &[&str; 4]) -> Option<String> {
    let exit = fact(results, name, "exit").to_string();
    eprintln!(
        "{name:<36} {exit:>4} {:>8}",
        fact(results, name, "elapsed_ms")
    );
    let text = read(results, &format!("{name}.json"));
    let report: Value = serde_json::from_str(&text).unwrap_or_default();
    let path = &report["paths"][0];
    let ttl = |key: &str| {
        path[key]["ttl"]
            .as_u64()
            .map_or("-".to_owned(), |n| n.to_string())
    };
    let outcome = path["outcome"].as_str().unwrap_or("none").to_owned();
    let got = [exit, outcome, ttl("last_passed"), ttl("first_stopped")];
    let sure = path["confidence"].as_f64();
    let is_sure = match expected[0] {
        "3" => sure.is_none(),
        _ => sure.is_some_and(|sure| sure > 0.99 && sure < 1.0),
    };
    if got == *expected && is_sure && report["schema"] == "tunproof.spoofcheck/1" {
        return None;
    }
    let said = read(results, &format!("{name}.stderr"));
    let (summary, detail, sweep) = (&path["summary"], &path["detail"], &path["sweep"]);
    let (flows, back) = (&path["flows"], &path["return"]);
    Some(format!(
        "{name}\nexpected {expected:?}\ngot      {got:?}, confidence {sure:?}\n{summary}\n{detail}\n{sweep}\n{flows}\n{back}\n{said}"
    ))
}
