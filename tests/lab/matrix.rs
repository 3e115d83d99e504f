//! The fault matrix: every case of `tests/matrix/*.toml` in a lab of its own, judged, and its table.

#[path = "../matrix/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;

use serde::Deserialize;
use serde_json::Value;
use tunproof::lab::FAULTS;
use tunproof::lab::Fault;
use tunproof::lab::Maker;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use table::Expected;
use table::Outcome;
use table::Row;

/// How many labs are up at a time: a run is mostly waiting.
const LABS: usize = 14;

/// Instead of an exit status: what `lab break` says of the fault is expected.
const BY_CATALOGUE: &str = "by the catalogue";

/// A file: the lab altered, and what is to be tried there. `tests/matrix/README.md` says how it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topology {
    #[serde(skip)]
    name: String,
    about: String,
    #[serde(default)]
    setup: String,
    cases: String,
    #[serde(default)]
    path: toml::Table,
    #[serde(default)]
    does: BTreeMap<String, String>,
}

/// What is done to a fresh lab, and from where it is looked at.
struct Case<'a> {
    topology: &'a Topology,
    fault: String,
    vantages: String,
    expected: Expected,
}

/// What a run gave.
struct Run {
    status: i64,
    report: Value,
    said: String,
}

fn topologies() -> Vec<Topology> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    // The lab as it is, first.
    files.sort_by_key(|path| (!path.ends_with("standard.toml"), path.clone()));
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let mut topology: Topology =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        topology.name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        topology
    };
    files.iter().map(read).collect()
}

/// The lines of `cases`: faults, vantages, exit status, first broken hop, errors. The first line for a fault and
/// vantages counts.
fn cases(topology: &Topology, director: Maker) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    let several = |cell: &str, by: &str| match cell {
        "-" => Vec::new(),
        cell => cell.split(by).map(|one| one.trim().to_owned()).collect(),
    };
    for line in topology.cases.lines() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [faults, vantages, exit, hop, codes] = cells[..] else {
            panic!("{}: not five cells: {line}", topology.name);
        };
        let faults: Vec<_> = match faults {
            "every" => FAULTS.iter().map(|fault| fault.name).collect(),
            faults => faults.split(',').map(str::trim).collect(),
        };
        let expected = |fault: &str| match exit {
            BY_CATALOGUE => {
                let fault = Fault::named(fault).unwrap_or_else(|| panic!("{fault} is no fault"));
                let finding = fault.finding_by(director).to_owned();
                match fault.breaks() {
                    true => Expected {
                        exits: vec![1],
                        hops: vec![fault.hop.id().to_owned()],
                        codes: vec![finding],
                    },
                    false => Expected {
                        exits: vec![0],
                        hops: vec!["-".to_owned()],
                        codes: vec![format!("warning {finding}")],
                    },
                }
            }
            exit => Expected {
                exits: exit.split('/').map(|one| one.parse().unwrap()).collect(),
                hops: hop.split('/').map(str::to_owned).collect(),
                codes: several(codes, ","),
            },
        };
        for fault in faults {
            for vantages in vantages.split_whitespace() {
                let is_same = |case: &Case<'_>| case.fault == fault && case.vantages == vantages;
                if !cases.iter().any(is_same) {
                    cases.push(Case {
                        topology,
                        fault: fault.to_owned(),
                        vantages: vantages.to_owned(),
                        expected: expected(fault),
                    });
                }
            }
        }
    }
    // By fault, in the order in which the faults first stand there.
    let faults: Vec<_> = cases.iter().map(|case| case.fault.clone()).collect();
    cases.sort_by_key(|case| faults.iter().position(|fault| *fault == case.fault));
    cases
}

/// Plays the case: its line, none where this kernel does not have what it takes, and what is wrong.
fn play(case: &Case<'_>, number: usize) -> (Option<Row>, Option<String>) {
    let topology = case.topology;
    let name = format!("{}: {}, {}", topology.name, case.fault, case.vantages);
    let lab = TestLab::up(&format!("matrix{number}"));
    match lab.prepare(case) {
        Ok(true) => {}
        Ok(false) => return (None, None),
        Err(said) => return (None, Some(format!("{name}\n{said}"))),
    }
    let run = lab.prove(&lab.path(&topology.path), &case.vantages);
    let outcome = Outcome::of(run.status, &run.report);
    let wrong = complaint(&case.expected, &outcome, &run);
    let row = Row {
        topology: topology.name.clone(),
        fault: case.fault.clone(),
        vantages: case.vantages.clone(),
        expected: case.expected.clone(),
        as_expected: wrong.is_none(),
        outcome,
    };
    (Some(row), wrong.map(|wrong| format!("{name}\n{wrong}")))
}

/// Some faults take the kernel's own ipip, and some the stand-in: refused with a reason is right then.
pub(crate) fn kernel_forbids(broke: &Output) -> bool {
    broke.status.code() == Some(2) && text(broke).contains("and this lab has")
}

impl TestLab {
    /// Alters and breaks it; false where this kernel does not have what the fault takes.
    fn prepare(&self, case: &Case<'_>) -> Result<bool, String> {
        self.all(&case.topology.setup)?;
        for fault in case.fault.split('+').map(str::trim) {
            if let Some(commands) = case.topology.does.get(fault) {
                self.all(commands)?;
            } else if fault != "healthy" {
                let broke = self.run(&["break", fault]);
                if kernel_forbids(&broke) {
                    return Ok(false);
                }
                if !broke.status.success() {
                    return Err(text(&broke));
                }
            }
        }
        Ok(true)
    }

    /// Runs each line: `HOST COMMAND`, `rule HOST FAMILY HOOK RULE`, or `link HOST:DEVICE HOST:DEVICE`.
    fn all(&self, lines: &str) -> Result<(), String> {
        let lines = lines.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let said = match first {
                "link" => self.link(rest),
                "rule" => {
                    let words: Vec<_> = rest.splitn(4, ' ').collect();
                    let [host, family, hook, rule] = words[..] else {
                        return Err(format!("{line}: not a host, a family, a hook and a rule"));
                    };
                    let chain = format!("type filter hook {hook} priority 0; {rule};");
                    let table = format!("table {family} case {{ chain {hook} {{ {chain} }}; }}");
                    self.on(host, &format!("nft '{table}'"))
                }
                host => self.on(host, rest),
            };
            if !said.is_empty() {
                return Err(format!("{line}: {said}"));
            }
        }
        Ok(())
    }

    /// A veth pair between two hosts, up.
    fn link(&self, ends: &str) -> String {
        let state = fs::read_to_string(self.directory().join("state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        let namespace = |host: &str| {
            let thread = &state["threads"][host];
            format!("/proc/{}/task/{thread}/ns/net", self.keeper())
        };
        let ends: Vec<_> = ends.split([' ', ':']).collect();
        let [here, one, there, other] = ends[..] else {
            panic!("{ends:?}");
        };
        let far = namespace(there);
        let pair = format!("ip link add {one} type veth peer name {other} netns {far}");
        let up = |device| format!("ip link set {device} up");
        self.on(here, &pair) + &self.on(here, &up(one)) + &self.on(there, &up(other))
    }

    /// The lab's path file, altered; a `via` that is a host's name becomes the command that runs there.
    fn path(&self, altered: &toml::Table) -> toml::Table {
        let text = fs::read_to_string(self.directory().join("path.toml")).unwrap();
        let mut path: toml::Table = text.parse().unwrap();
        merge(&mut path, altered);
        for server in path["realserver"].as_array_mut().unwrap() {
            let via = server.as_table_mut().unwrap().get_mut("via");
            if let Some(toml::Value::String(via)) = via
                && !via.contains(' ')
            {
                *via = format!("{TUNPROOF} lab --name {} exec {via}", self.name);
            }
        }
        path
    }

    /// Looks at the path from the vantages.
    fn prove(&self, path: &toml::Table, vantages: &str) -> Run {
        let of = |table: &str, key: &str| path[table][key].as_str().unwrap().to_owned();
        let servers = path["realserver"].as_array().unwrap();
        let ips = servers.iter().map(|server| server["ip"].as_str().unwrap());
        let (vip, cip) = (of("path", "vip"), of("client", "ip"));
        let output = match vantages {
            "all" | "no-client" => {
                let mut path = path.clone();
                if vantages == "no-client" {
                    path["client"].as_table_mut().unwrap().remove("via");
                }
                let file = self.directory().join(format!("{vantages}.toml"));
                fs::write(&file, path.to_string()).unwrap();
                let mut command = std::process::Command::new(TUNPROOF);
                command.args(["verify", "--format", "json"]).arg(&file);
                let output = command.output().unwrap();
                fs::remove_file(file).unwrap();
                output
            }
            "director" => {
                let mut command = self.command(&["exec", "d", TUNPROOF, "director"]);
                command.args(["--vip", &vip, "--cip", &cip]);
                for rip in ips {
                    command.args(["--rip", rip]);
                }
                command.args(["--format", "json"]).output().unwrap()
            }
            "realserver" => {
                let mut command = self.command(&["exec", "s", TUNPROOF, "realserver"]);
                command.args(["--vip", &vip, "--cip", &cip]);
                command.args(["--dip", &of("director", "ip")]);
                command.args(["--format", "json"]).output().unwrap()
            }
            other => panic!("`{other}` is no choice of vantages"),
        };
        Run {
            status: output.status.code().map_or(-1, i64::from),
            report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            said: text(&output),
        }
    }
}

fn merge(into: &mut toml::Table, altered: &toml::Table) {
    for (key, value) in altered {
        match (into.get_mut(key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(altered)) => merge(into, altered),
            _ => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What is wrong, as blocks of expected and got.
fn complaint(expected: &Expected, outcome: &Outcome, run: &Run) -> Option<String> {
    let warnings = outcome
        .warnings
        .iter()
        .map(|code| format!("warning {code}"));
    let warnings: Vec<_> = warnings.collect();
    let found = || outcome.errors.iter().chain(&warnings);
    let one_of = |codes: &String| codes.split('/').any(|code| found().any(|one| one == code));
    let named = |code: &String| {
        let mut all = expected.codes.iter().flat_map(|codes| codes.split('/'));
        all.any(|one| one == code)
    };
    let healthy = expected.exits == [0];
    let right = expected.exits.contains(&outcome.exit)
        && expected.hops.contains(&outcome.hop)
        && expected.codes.iter().all(one_of)
        && outcome.errors.iter().all(named)
        && (!healthy || warnings.iter().all(named));
    if right {
        return None;
    }
    let mut block = format!(
        "expected exit {:?}, {:?} first, findings {:?}\ngot      exit {}, {} first, errors {:?}, warnings {:?}\n",
        expected.exits,
        expected.hops,
        expected.codes,
        outcome.exit,
        outcome.hop,
        outcome.errors,
        outcome.warnings
    );
    let Some(hops) = run.report["hops"].as_array() else {
        return Some(block + &run.said);
    };
    for hop in hops.iter().filter(|hop| hop["verdict"] != "proven") {
        block += &format!("  {} {}: {}\n", hop["id"], hop["verdict"], hop["reason"]);
    }
    for finding in run.report["findings"].as_array().into_iter().flatten() {
        block += &format!(
            "  {} {} at {}: {} - {}\n",
            finding["severity"],
            finding["code"],
            finding["hop"],
            finding["summary"],
            finding["detail"]
        );
    }
    Some(block)
}

const HEAD: &str = "# The fault matrix, namespaces lab\n\n\
    Written by `tests/lab/matrix.rs` from a run, not by hand; `README.md` beside it says how.\n";

/// Each case gets its verdict; a full run gives the committed table. `MATRIX=PATTERN` plays those cases alone whose
/// topology or fault holds the pattern.
#[test]
fn every_case_of_the_matrix_gets_its_verdict() {
    let topologies = topologies();
    let makers = makers();
    let only = env::var("MATRIX").unwrap_or_default();
    let cases: Vec<_> = topologies
        .iter()
        .flat_map(|topology| cases(topology, makers.0))
        .filter(|case| format!("{}: {}", case.topology.name, case.fault).contains(&only))
        .collect();
    let results = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..LABS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else {
                        return;
                    };
                    let played = play(case, number);
                    results.lock().unwrap().insert(number, played);
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let (rows, wrong): (Vec<_>, Vec<_>) = results.into_values().unzip();
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    let mut head = HEAD.to_owned() + "\n| topology | what it is |\n| --- | --- |\n";
    for topology in &topologies {
        head += &format!("| {} | {} |\n", topology.name, topology.about);
    }
    let page = table::page(&head, &rows);
    let mut wrong: Vec<_> = wrong.into_iter().flatten().collect();
    if !only.is_empty() {
        println!("{page}");
    } else if makers == (Maker::StandIn, Maker::StandIn) {
        wrong.extend(table::compare("namespaces.md", &page).err());
    } else {
        // Another kernel has other faults than the table; those of `every` are judged all the same.
        println!("the table is of labs with stand-ins: not compared");
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

/// Who schedules and who takes packets out of the tunnel, on this kernel.
fn makers() -> (Maker, Maker) {
    let lab = TestLab::up("makers");
    let state = fs::read_to_string(lab.directory().join("state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let maker = |key: &str| serde_json::from_value(state[key].clone()).unwrap();
    (maker("director"), maker("tunnel"))
}

#[test]
fn the_cases_name_faults_that_there_are() {
    for topology in &topologies() {
        for case in cases(topology, Maker::StandIn) {
            for fault in case.fault.split('+').map(str::trim) {
                assert!(
                    fault == "healthy"
                        || topology.does.contains_key(fault)
                        || Fault::named(fault).is_some(),
                    "{}: {fault}",
                    topology.name
                );
            }
        }
        for name in topology.does.keys() {
            let used = cases(topology, Maker::StandIn)
                .iter()
                .any(|case| case.fault.split('+').any(|fault| fault.trim() == name));
            assert!(used, "{}: {name} is in no case", topology.name);
        }
    }
}
