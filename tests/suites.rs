//! The suite language from outside: what is wrong is shown at its place, what is right is what was meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use regex::Regex;
use serde_json::Value;
use tunproof::craft;
use tunproof::lab;
use tunproof::plan;
use tunproof::plan::Action;
use tunproof::plan::ProbeId;
use tunproof::plan::ProbeKind;
use tunproof::plan::SessionKey;
use tunproof::plan::Suite;
use tunproof::suite;
use tunproof::suite::Diagnostics;
use tunproof::suite::Environment;
use tunproof::suite::PathFile;
use tunproof::suite::SuiteFile;

/// Every TOML file in a folder of the repository.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// Every block of TOML in the language's README: each is a whole suite.
fn blocks() -> Vec<String> {
    let text = include_str!("../docs/suites.md");
    let blocks = text.split("```toml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.collect()
}

fn parse(file: &str, text: &str) -> Result<Option<Suite>, Diagnostics> {
    match suite::is_path_file(text) {
        true => PathFile::parse(file, text).map(|_| None),
        false => SuiteFile::parse(file, text, &Environment::example()).map(Some),
    }
}

fn suite(text: &str) -> Suite {
    SuiteFile::parse("own.toml", text, &Environment::example())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// The first lines of a wrong file say where it is wrong, and how: `# LINE:COLUMN MESSAGE | LABEL`, the start of
/// the message, or all of it, and words of the label.
struct Expected<'a> {
    place: (usize, usize),
    message: &'a str,
    label: &'a str,
}

fn expected(text: &str) -> Vec<Expected<'_>> {
    let first = text.lines().map_while(|line| line.strip_prefix("# "));
    let each = first.map(|line| {
        let (place, words) = line.split_once(' ').unwrap();
        let (row, column) = place.split_once(':').unwrap();
        let (message, label) = words.split_once(" | ").unwrap_or((words, ""));
        Expected {
            place: (row.parse().unwrap(), column.parse().unwrap()),
            message,
            label,
        }
    });
    each.collect()
}

#[test]
fn every_wrong_file_is_shown_at_its_place() {
    let files = files("tests/wrong");
    assert!(files.len() >= 100, "only {} wrong files", files.len());
    let mut failures = Vec::new();
    for (path, text) in &files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Err(problems) = parse(name, text) else {
            failures.push(format!("{name} was taken"));
            continue;
        };
        let expected = expected(text);
        assert!(
            !expected.is_empty(),
            "{name} does not say where it is wrong"
        );
        let is_right = problems.iter().count() == expected.len()
            && problems.iter().zip(&expected).all(|(problem, expected)| {
                problems.place(problem) == expected.place
                    && problem.message.contains(expected.message)
                    && problem.label.contains(expected.label)
            });
        if !is_right {
            failures.push(format!("{name}:\n{problems}"));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

#[test]
fn every_block_of_the_readme_is_a_suite_whose_packets_can_be_crafted() {
    let blocks = blocks();
    assert!(blocks.len() >= 7, "only {} blocks", blocks.len());
    let key = SessionKey::new([7; 16]);
    for block in &blocks {
        let suite = suite(block);
        assert!(!suite.steps.is_empty());
        for step in &suite.steps {
            if let Action::Script(script) = &step.action {
                for (index, packet) in (0..).zip(&script.packets) {
                    let kind = ProbeKind::Script;
                    let crafted = craft::script(packet, ProbeId { kind, index }, &key);
                    assert!(crafted.is_ok(), "{}: {crafted:?}", step.id);
                }
            }
        }
    }
}

#[test]
fn every_block_of_the_readme_can_be_played() {
    let folder = Folder::new("blocks");
    let path = lab::path_file(|node| format!("ssh {node}"));
    let path = path.replace("name = \"s\"", "name = \"s\"\ngateway = \"203.0.113.254\"");
    let path = folder.file("path.toml", &path);
    let mut sent = 0;
    for (number, block) in blocks().iter().enumerate() {
        let file = folder.file(&format!("block-{number}.toml"), block);
        let played = tunproof(&["run", &file, "--path", &path, "--dry-run"]);
        assert_eq!(
            played.status.code(),
            Some(0),
            "{block}\n{}",
            text(&played.stderr)
        );
        sent += usize::from(text(&played.stdout).contains("IPv4"));
    }
    assert!(sent >= 5, "only {sent} blocks send something");
}

#[test]
fn the_readme_names_every_key_and_every_word() {
    let readme = include_str!("../docs/suites.md");
    let mut names = BTreeSet::new();
    names_in(&suite::suite_schema(), &mut names);
    let tasks = plan::Task::all();
    names.extend(tasks.iter().map(|task| task.id().to_owned()));
    assert!(names.len() > 100, "{names:?}");
    let is_missing = |name: &&String| {
        let word = format!("(^|[^a-z-]){}([^a-z-]|$)", regex::escape(name));
        !Regex::new(&word).unwrap().is_match(readme)
    };
    let missing: Vec<_> = names.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The keys and words of a schema, but for those of ICMP types, for which numbers serve as well.
fn names_in(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Object(properties)) = object.get("properties") {
                names.extend(properties.keys().cloned());
            }
            if let Some(Value::Array(words)) = object.get("enum") {
                let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
                if !words.contains(&"dest-unreach") {
                    names.extend(words.into_iter().map(str::to_owned));
                }
            }
            object.values().for_each(|value| names_in(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| names_in(value, names)),
        _ => {}
    }
}

#[test]
fn what_is_right_fits_the_schema() {
    let suites = suite::suite_schema();
    let built_in = files("probes");
    assert!(built_in.len() >= 3);
    let mut texts: Vec<_> = built_in.into_iter().map(|(_, text)| text).collect();
    texts.extend(blocks());
    texts.push(include_str!("data/scapy-suite.toml").to_owned());
    for text in texts {
        if let Err(why) = fits(&suites, &json(&text)) {
            panic!("{why}\n{text}");
        }
    }
    let path = lab::path_file(|node| format!("tunproof lab exec {node}"));
    fits(&suite::path_schema(), &json(&path)).unwrap();
    assert!(fits(&suites, &json(&path)).is_err());
    let fleet = include_str!("data/fleet.toml");
    fits(&suite::fleet_schema(), &json(fleet)).unwrap();
    assert!(suite::FleetFile::parse("fleet.toml", fleet).is_ok() && suite::is_fleet_file(fleet));
    for wrong in ["", "[director]\nip = 7\n", &fleet.replace("vip", "vips")] {
        assert!(
            fits(&suite::fleet_schema(), &json(wrong)).is_err(),
            "{wrong}"
        );
    }
}

/// An editor need not know everything; but what it can know, it must.
#[test]
fn what_is_wrong_by_its_shape_does_not_fit_the_schema() {
    let shapes = Regex::new("^unknown (key|probe|hops|with|see|at|if-failed|host|from) ").unwrap();
    let mut refused = 0;
    for (path, text) in files("tests/wrong") {
        let expected = expected(&text);
        let Ok(table) = text.parse::<toml::Table>() else {
            continue;
        };
        let schema = match table.contains_key("path") {
            true => suite::path_schema(),
            false => suite::suite_schema(),
        };
        let is_refused = fits(&schema, &json(&text)).is_err();
        let message = expected[0].message;
        if shapes.is_match(message) {
            assert!(is_refused, "{}: {message}", path.display());
        }
        refused += usize::from(is_refused);
    }
    assert!(refused >= 50, "only {refused} are refused by the schema");
}

fn json(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap();
    serde_json::to_value(table).unwrap()
}

/// Whether a value fits a schema: the keywords that ours have, and no other.
fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = schema.as_object().ok_or("a schema is no object")?;
    for (keyword, rule) in schema {
        let is_fulfilled = match keyword.as_str() {
            "$schema" | "title" | "description" | "properties" | "patternProperties" => true,
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                "boolean" => value.is_boolean(),
                other => panic!("unknown type {other}"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_i64().is_none_or(|n| n >= rule.as_i64().unwrap()),
            "maximum" => value.as_i64().is_none_or(|n| n <= rule.as_i64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(rule, item)?;
                }
                true
            }
            "required" => value.as_object().is_none_or(|object| {
                let mut keys = rule.as_array().unwrap().iter();
                keys.all(|key| object.contains_key(key.as_str().unwrap()))
            }),
            "dependentRequired" => value.as_object().is_none_or(|object| {
                let mut rules = rule.as_object().unwrap().iter();
                rules.all(|(key, others)| {
                    let mut others = others.as_array().unwrap().iter();
                    !object.contains_key(key)
                        || others.all(|other| object.contains_key(other.as_str().unwrap()))
                })
            }),
            "additionalProperties" => {
                let of = |name: &str| schema.get(name).and_then(Value::as_object);
                for (key, value) in value.as_object().into_iter().flatten() {
                    let named = of("properties").and_then(|known| known.get(key));
                    let mut patterns = of("patternProperties").into_iter().flatten();
                    let known = named.or_else(|| {
                        let found = patterns.find(|(p, _)| Regex::new(p).unwrap().is_match(key));
                        found.map(|(_, schema)| schema)
                    });
                    match (known, rule) {
                        (Some(schema), _) => {
                            fits(schema, value).map_err(|why| format!("{key}: {why}"))?;
                        }
                        (None, Value::Bool(false)) => return Err(format!("unknown key {key}")),
                        (None, rule) => fits(rule, value)?,
                    }
                }
                true
            }
            "anyOf" => {
                let mut each = rule.as_array().unwrap().iter();
                let mut reasons = Vec::new();
                let fits_one =
                    each.any(|one| fits(one, value).map_err(|e| reasons.push(e)).is_ok());
                if !fits_one {
                    return Err(reasons.join("; "));
                }
                true
            }
            "oneOf" => {
                let each = rule.as_array().unwrap().iter();
                each.filter(|one| fits(one, value).is_ok()).count() == 1
            }
            other => panic!("the schema has a keyword that this test does not know: {other}"),
        };
        if !is_fulfilled {
            return Err(format!("{value} is not {keyword} {rule}"));
        }
    }
    Ok(())
}

#[test]
fn a_packet_of_one_line_of_scapy_is_as_few_lines_of_a_suite() {
    let suite = suite(include_str!("data/scapy-suite.toml"));
    let goldens: Vec<_> = include_str!("data/scapy-suite.hex")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert!(goldens.len() >= 25);
    assert_eq!(goldens.len(), suite.steps.len());
    let mut wrong = Vec::new();
    for (step, (id, hex)) in suite.steps.iter().zip(goldens) {
        assert_eq!(step.id, id);
        let Action::Script(script) = &step.action else {
            panic!("{id} is not written out");
        };
        let [packet] = &script.packets[..] else {
            panic!("{id} is {} packets", script.packets.len());
        };
        // Everything is written: nothing is left to carry an identity.
        assert_eq!(packet.carriers, [], "{id}");
        let crafted = craft::build(&packet.layers).unwrap();
        let crafted = hex::encode(crafted.bytes);
        if crafted != hex {
            wrong.push(format!("{id}\n  crafted {crafted}\n  scapy's {hex}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// One octet is missing, or another: whatever comes of it, it is said and not a panic.
#[test]
fn no_mutated_suite_makes_the_parser_panic() {
    let mut texts: Vec<_> = files("probes").into_iter().map(|(_, text)| text).collect();
    texts.extend(blocks());
    texts.push(lab::path_file(|node| node.to_string()));
    let others = b"\"'[]{}=.,$#\\\n0-9a\xc3\x00";
    let (mut taken, mut refused) = (0, 0);
    for text in texts {
        for place in 0..text.len() {
            let mut shorter = text.clone().into_bytes();
            shorter.remove(place);
            let mut changed = text.clone().into_bytes();
            changed[place] = others[place % others.len()];
            for octets in [shorter, changed] {
                let mutated = String::from_utf8_lossy(&octets);
                match parse("mutated.toml", &mutated) {
                    Ok(_) => taken += 1,
                    Err(problems) => {
                        refused += 1;
                        assert!(problems.iter().count() > 0);
                        // Its places must be inside the text.
                        let _ = problems.to_string();
                    }
                }
            }
        }
    }
    assert!(
        taken > 1000 && refused > 1000,
        "{taken} taken, {refused} refused"
    );
}

#[test]
fn a_packet_bears_only_the_addresses_of_its_path() {
    let path = PathFile::parse("path.toml", &lab::path_file(|_| "local".to_owned())).unwrap();
    let path = path.plan(SessionKey::new([0; 16])).paths.remove(0);
    let parse = |packet: &str| {
        let text = format!("[[step]]\nid = \"a\"\nfrom = \"client\"\nsend = [{packet}]\n");
        SuiteFile::parse("own.toml", &text, &Environment::of(&path))
    };
    let vip = path.vip;
    let refused = [
        "{ ipv4 = { src = \"8.8.8.8\", dst = \"$vip\" } }",
        "{ ipv4 = { src = \"$vip\", dst = \"8.8.8.8\" } }",
        "{ ipv4 = { src = \"$cip\", dst = \"$rip\" } }, { ipv4 = { src = \"8.8.8.8\", dst = \"$vip\" } }",
        "{ ipv4 = { src = \"$cip\", dst = \"$rip\", options = [[\"lsrr\", \"8.8.8.8\"]] } }",
        "{ ipv4 = { src = \"$cip\", dst = \"$vip\" } }, { icmp = { type = 11 } }, { ipv4 = { src = \"$vip\", dst = \"8.8.8.8\" } }",
        "{ ipv4 = { src = \"$cip\", dst = \"$vip\" } }, { icmp = { type = \"redirect\", gateway = \"8.8.8.8\" } }, { ipv4 = { src = \"$vip\", dst = \"$cip\" } }",
        "{ ethernet = { src = \"02:00:00:00:00:01\", dst = \"ff:ff:ff:ff:ff:ff\" } }, { arp = { hwsrc = \"02:00:00:00:00:01\", psrc = \"8.8.8.8\", pdst = \"$vip\" } }",
    ];
    for packet in refused {
        let shown = parse(packet).unwrap_err().to_string();
        assert!(
            shown.contains("8.8.8.8 is no address of this path"),
            "{shown}"
        );
    }
    let quoted = "{ ipv4 = { src = \"$cip\", dst = \"$vip\" } }, { icmp = { type = 11 } }, { ipv4 = { src = \"$vip\", dst = \"$cip\" } }";
    let literal = format!("{{ ipv4 = {{ src = \"$cip\", dst = \"{vip}\" }} }}");
    for packet in [quoted, literal.as_str()] {
        let taken = parse(packet);
        assert!(taken.is_ok(), "{}", taken.unwrap_err());
    }
}

#[test]
fn what_a_path_does_not_have_is_said_where_it_is_used() {
    let path = PathFile::parse("path.toml", &lab::path_file(|_| "local".to_owned())).unwrap();
    let path = path.plan(SessionKey::new([0; 16])).paths.remove(0);
    let text = "[[step]]\nid = \"a\"\nask = { host = \"client\", address = \"$gateway\" }\n";
    let problems = SuiteFile::parse("own.toml", text, &Environment::of(&path)).unwrap_err();
    let shown = problems.to_string();
    assert!(shown.contains("own.toml:3:36"), "{shown}");
    assert!(shown.contains("names no `gateway`"), "{shown}");
}

#[test]
fn loops_are_unrolled_the_last_variable_fastest_and_count_is_passes() {
    let suite = suite(
        r#"
        [[step]]
        id = "looped"
        from = "director"
        loop = { ttl = "1..2", sport = [1000, 2000] }
        count = 2
        send = [
          { ipv4 = { src = "$dip", dst = "$rip", ttl = "$ttl" } },
          { udp = { sport = "$sport", dport = 9 } },
        ]
        "#,
    );
    let Action::Script(script) = &suite.steps[0].action else {
        panic!("{suite:?}");
    };
    let sent: Vec<_> = script
        .packets
        .iter()
        .map(|packet| {
            let bytes = craft::build(&packet.layers).unwrap().bytes;
            (bytes[8], u16::from_be_bytes([bytes[20], bytes[21]]))
        })
        .collect();
    let pass = [(1, 1000), (1, 2000), (2, 1000), (2, 2000)];
    assert_eq!(sent, [pass, pass].concat());
}

#[test]
fn what_is_left_out_carries_the_identity() {
    use tunproof::plan::Carrier::*;
    let suite = suite(
        r#"
        [[step]]
        id = "datagram"
        from = "director"
        send = [{ ipv4 = { src = "$dip", dst = "$rip" } }, { ipv4 = { src = "$dip", dst = "$rip" } }, { udp = { dport = 9 } }]
        [[step]]
        id = "segment"
        from = "director"
        send = [{ ipv4 = { src = "$dip", dst = "$rip", id = 1 } }, { tcp = { dport = 9 } }]
        [[step]]
        id = "answer"
        from = "director"
        send = [{ ipv4 = { src = "$dip", dst = "$rip", id = 1 } }, { tcp = { dport = 9, flags = "SA" } }]
        [[step]]
        id = "echo"
        from = "director"
        send = [{ ipv4 = { src = "$dip", dst = "$rip", id = 1 } }, { icmp = {} }]
        [[step]]
        id = "error"
        from = "director"
        send = [{ ipv4 = { src = "$dip", dst = "$rip", id = 1 } }, { icmp = { type = 3 } }, { ipv4 = { src = "$dip", dst = "$rip" } }, { udp = { dport = 9 } }]
        [[step]]
        id = "so-many-octets"
        from = "director"
        send = [{ ipv4 = { src = "$dip", dst = "$rip", id = 1 } }, { udp = { sport = 9, dport = 9 } }, { payload = 100 }]
        "#,
    );
    let carriers: Vec<_> = suite
        .steps
        .iter()
        .map(|step| match &step.action {
            Action::Script(script) => script.packets[0].carriers.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        vec![
            (0, Identification),
            (1, Identification),
            (2, SourcePort),
            (3, Payload),
        ],
        vec![(1, SourcePort), (1, SequenceNumber)],
        vec![
            (1, SourcePort),
            (1, SequenceNumber),
            (1, AcknowledgmentNumber),
        ],
        vec![(1, Echo)],
        vec![],
        vec![(2, Payload)],
    ];
    assert_eq!(carriers, expected);
}

fn tunproof(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

/// A folder that is removed at the test's end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("tunproof-suites-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

#[test]
fn check_says_what_a_suite_holds_on_stdout_and_what_is_wrong_on_stderr() {
    let right = tunproof(&[
        "suite",
        "check",
        "probes/lvs-tun.toml",
        "tests/data/scapy-suite.toml",
    ]);
    assert_eq!(right.status.code(), Some(0), "{}", text(&right.stderr));
    let noted = text(&right.stderr);
    assert_eq!(noted.matches("note: ").count(), 1, "{noted}");
    assert!(noted.contains("literal address 10.1.2.3"), "{noted}");
    let said = text(&right.stdout);
    assert!(
        said.starts_with("probes/lvs-tun.toml: suite `lvs-tun`, "),
        "{said}"
    );
    assert!(
        said.contains("1 packet written out, from the realserver"),
        "{said}"
    );

    let wrong = "tests/wrong/probe-unknown.toml";
    let mixed = tunproof(&["suite", "check", wrong, "probes/director-alone.toml"]);
    assert_eq!(mixed.status.code(), Some(2));
    assert!(text(&mixed.stdout).contains("suite `director-alone`"));
    let shown = text(&mixed.stderr);
    assert!(
        shown.contains("tests/wrong/probe-unknown.toml:4:9"),
        "{shown}"
    );
    assert!(shown.contains("error: 1 of 2 files are wrong"), "{shown}");
}

#[test]
fn check_takes_a_path_and_variables() {
    let folder = Folder::new("check");
    let path = folder.file("path.toml", &lab::path_file(|_| "local".to_owned()));
    let own = folder.file(
        "own.toml",
        "[vars]\nburst = 3\n[[step]]\nid = \"a\"\nprobe = \"mtu\"\ncount = \"$burst\"\n",
    );
    let stranger = folder.file(
        "stranger.toml",
        "[[step]]\nid = \"a\"\nfrom = \"client\"\nsend = [{ ipv4 = { src = \"8.8.8.8\", dst = \"$vip\" } }]\n",
    );
    let set = tunproof(&[
        "suite", "check", &own, &path, "--path", &path, "--set", "burst=7",
    ]);
    let without = tunproof(&["suite", "check", &stranger]);
    let with = tunproof(&["suite", "check", &stranger, "--path", &path]);
    let misset = tunproof(&["suite", "check", &own, "--set", "brust=7"]);

    assert_eq!(set.status.code(), Some(0), "{}", text(&set.stderr));
    assert!(
        text(&set.stdout).contains("mtu, 7 packets"),
        "{}",
        text(&set.stdout)
    );
    assert!(text(&set.stdout).contains("path.toml: path file, 1 path"));
    assert_eq!(without.status.code(), Some(0));
    let noted = text(&without.stderr);
    assert!(
        noted.starts_with("note: literal address 8.8.8.8: judged only with `--path`"),
        "{noted}"
    );
    assert!(noted.contains("stranger.toml:4:26"), "{noted}");
    assert_eq!(with.status.code(), Some(2));
    assert!(
        text(&with.stderr).contains("stranger.toml:4:26"),
        "{}",
        text(&with.stderr)
    );
    assert_eq!(misset.status.code(), Some(2));
    assert!(text(&misset.stderr).contains("did you mean `burst`?"));
}

/// What an agent would refuse, or a raw socket changes, is said at its place by `check` and by `run`, before anything
/// is sent.
#[test]
fn what_no_agent_sends_is_said_at_its_place() {
    let folder = Folder::new("unsendable");
    let path = folder.file("path.toml", &lab::path_file(|_| "local".to_owned()));
    for (packet, place, says) in [
        (
            r#"{ ipv4 = { src = "$cip", dst = "$vip" } }, { icmp = { type = 3 } }, { ipv4 = { src = "$vip", dst = "8.8.8.8" } }"#,
            ":4:108",
            "8.8.8.8 is no address of this path",
        ),
        (
            r#"{ ipv4 = { src = "$cip", dst = "$vip", proto = 4 } }, { raw = "45000014000000004000000008080808 08080808" }"#,
            ":4:1",
            "8.8.8.8, the inner source, is not an address of the path file",
        ),
        (
            r#"{ ipv4 = { src = "$cip", dst = "$vip", proto = 47 } }, { zeros = 24 }"#,
            ":4:1",
            "of a protocol that can hold another packet",
        ),
    ] {
        let written = format!("[[step]]\nid = \"a\"\nfrom = \"client\"\nsend = [{packet}]\n");
        let own = folder.file("own.toml", &written);
        for arguments in [&["suite", "check"][..], &["run"]] {
            let mut arguments = arguments.to_vec();
            arguments.extend([&*own, "--path", &*path]);
            let said = tunproof(&arguments);
            let shown = text(&said.stderr);
            assert_eq!(said.status.code(), Some(2), "{shown}");
            assert!(shown.contains(says), "{shown}");
            assert!(shown.contains(&format!("own.toml{place}")), "{shown}");
        }
    }
}

#[test]
fn values_of_the_command_line_are_as_in_toml() {
    let own = r#"
        [vars]
        hops = "1..3"
        octets = "00 01"
        whom = "$cip"
        more = "$hops"
        [[step]]
        id = "a"
        from = "director"
        loop = { ttl = "$hops", again = "$more" }
        send = [
          { ipv4 = { src = "$dip", dst = "$whom", ttl = "$ttl" } },
          { udp = { dport = 9 } },
          { raw = "$octets" },
        ]
        "#;
    let with = |given: &[&str]| {
        let overrides = given.iter().map(|given| given.parse().unwrap());
        let environment = Environment::example().with(overrides);
        SuiteFile::parse("own.toml", own, &environment)
    };
    let packets = |given: &[&str]| {
        let suite = with(given).unwrap_or_else(|problems| panic!("{problems}"));
        match &suite.steps[0].action {
            Action::Script(script) => script.packets.len(),
            other => panic!("{other:?}"),
        }
    };
    for (given, expected) in [
        (&[][..], 9),
        (&["hops=1"], 1),
        (&["hops=1..5"], 25),
        (&["hops=[1,2]"], 4),
        (&["hops=\"1..2\""], 4),
        (&["hops=[1, 2]", "more=7"], 2),
        (&["octets=10"], 9),
        (&["whom=$rip", "hops=2"], 1),
    ] {
        assert_eq!(packets(given), expected, "{given:?}");
    }
    for (given, place, says) in [
        ("hops=[1,2", "--set:1:6", "`[1,2` is no list"),
        ("hops=1..", "own.toml:10:24", "`1..` is no range"),
        ("hops=0x1000", "own.toml:12:57", "`ttl` cannot be 4096"),
        ("whom=$rpi", "--set:1:6", "unknown variable `$rpi`"),
        (
            "octets=1",
            "own.toml:14:19",
            "`raw` has an odd number of hex digits, 1",
        ),
        ("whom=7", "own.toml:12:42", "`7` is no IPv4 address"),
    ] {
        let shown = with(&[given]).unwrap_err().to_string();
        assert!(
            shown.contains(place) && shown.contains(says),
            "{given}: {shown}"
        );
    }
}

#[test]
fn the_schema_is_printed_for_each_kind_of_file() {
    for (arguments, schema) in [
        (&["suite", "schema"][..], suite::suite_schema()),
        (&["suite", "schema", "path"], suite::path_schema()),
        (&["suite", "schema", "fleet"], suite::fleet_schema()),
    ] {
        let printed = tunproof(arguments);
        assert_eq!(printed.status.code(), Some(0));
        let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
        assert_eq!(printed, schema);
    }
}
