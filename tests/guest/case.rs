//! The table of cases, and what is wrong with what came of one.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tunproof::plan::Hop;

use crate::boot::only;

/// One line of the table, for one choice of vantages.
pub(crate) struct Case {
    pub(crate) name: String,
    /// How far the kernel's own connection gets, by the routers' counters.
    pub(crate) connection: &'static str,
    pub(crate) exits: Vec<i64>,
    /// First broken hop, or `-`; empty where it is not asked.
    pub(crate) hops: Vec<&'static str>,
    /// One of these must be among the findings; empty where it is not asked.
    pub(crate) codes: Vec<&'static str>,
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for line in include_str!("cases.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
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
            other => panic!("`{other}` is no choice of vantages: {line}"),
        };
        for vantage in vantages {
            cases.push(Case {
                name: format!("{name}.{vantage}"),
                connection,
                exits: exit.split('/').map(|e| e.parse().unwrap()).collect(),
                hops: either(hop),
                codes: either(code),
            });
        }
    }
    cases
}

fn either(cell: &str) -> Vec<&str> {
    match cell {
        "-" => Vec::new(),
        cell => cell.split('/').collect(),
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
    if listed != Hop::ALL.map(Hop::id) {
        complaints.push(format!("the hops' order, {listed:?}"));
    }
    if exit == 0 && hops.iter().any(|hop| hop["verdict"] != "proven") {
        complaints.push("exit 0 with a hop that is not proven".to_owned());
    }
    if exit != 1 && has("error") {
        complaints.push("an error where nothing is broken".to_owned());
    }
    if case.exits == [0] && has("warning") {
        complaints.push("a warning on a healthy path".to_owned());
    }
    if !case.hops.is_empty() && !case.hops.contains(&broken) {
        complaints.push(format!("the first broken hop, {broken}"));
    }
    let found = |code: &&str| findings.iter().any(|finding| finding["code"] == **code);
    if !case.codes.is_empty() && !case.codes.iter().any(found) {
        complaints.push("the finding".to_owned());
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
