//! Saved cases, and dry runs.

use super::*;

/// A path file whose only agent does not start, so that a run of it needs no rights and ends at once.
pub(crate) fn agentless() -> Scratch {
    let text = PATH.replace("[client]", "[client]\nvia = \"sh -c 'exit 7' --\"");
    Scratch::new(&format!("{:08x}.toml", rand::random::<u32>()), &text)
}

/// What `--save` keeps of such a run, and its report.
pub(crate) fn case() -> (String, String) {
    let (path, file) = (agentless(), Scratch::new("kept.json", ""));
    let output = tunproof(&[
        "verify",
        path.path(),
        "--save",
        file.path(),
        "--format",
        "json",
    ]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    (
        fs::read_to_string(file.path()).unwrap(),
        stdout(&output).to_owned(),
    )
}

#[test]
fn a_case_is_judged_from_a_file_or_stdin_as_it_was() {
    let (case, report) = case();
    let file = Scratch::new("case.json", &case);
    let judged = tunproof(&["judge", file.path(), "--format", "json"]);
    assert_eq!(stdout(&judged), report);
    assert_eq!((code(&judged), stderr(&judged)), (3, ""));
    let judged = tunproof_reading(case.as_bytes(), &["judge", "-", "--format", "json"]);
    assert_eq!(stdout(&judged), report);
    // One that reformats it harms nothing.
    let value: serde_json::Value = serde_json::from_str(&case).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let judged = tunproof_reading(pretty.as_bytes(), &["judge", "-", "--format", "json"]);
    assert_eq!(stdout(&judged), report);
}

#[test]
fn what_is_no_case_says_where_and_what_to_do() {
    let (case, report) = case();
    let replaced = |from: &str, to: &str| {
        assert!(case.contains(from), "{from}: {case}");
        case.replacen(from, to, 1)
    };
    let version = format!("\"tunproof\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let later = "\"tunproof\": \"9.9.9\"";
    let ours = "\"tunproof.evidence/1\"";
    let future = replaced(ours, "\"tunproof.evidence/2\"").replacen(&version, later, 1);
    let grown = replaced(&version, &format!("{later}, \"weather\": \"fair\""));
    for (text, words) in [
        (
            String::new(),
            &["it ends too soon: EOF", "line 1 column 0"][..],
        ),
        (
            case[..case.len() / 2].to_owned(),
            &["it ends too soon: EOF", "hint: copy it again"],
        ),
        (
            "GIF89a".to_owned(),
            &[
                "expected value at line 1 column 1",
                "hint: a case is what `tunproof verify PATH.toml --save FILE`",
            ],
        ),
        (
            "{}".to_owned(),
            &[
                "its schema is not named, and tunproof ",
                " reads `tunproof.evidence/1`",
            ],
        ),
        (
            report,
            &[
                "its schema is `tunproof.report/1`",
                "hint: this is a report",
            ],
        ),
        (
            future,
            &[
                "its schema is `tunproof.evidence/2`, made by tunproof 9.9.9, and tunproof ",
                "hint: judge it with tunproof 9.9.9, which made it, or a later version",
            ],
        ),
        (
            grown,
            &[
                "unknown field `weather`, expected",
                "at line 3 column ",
                "tunproof 9.9.9",
            ],
        ),
        (
            replaced("\"vip\":\"192.0.2.10\"", "\"vip\":\"192.0.2\""),
            &["invalid IPv4 address syntax at line 8 column "],
        ),
        (
            replaced(
                "\"vantages\":[\"client\"]",
                "\"vantages\":[{\"realserver\":1}]",
            ),
            &[
                "plan: vantages: there is no path 1: the plan has 1, from 0",
                "hint: somebody has changed",
            ],
        ),
        (
            replaced("\"excused\": [", "\"excused\": [\"tunnel-syn.4\""),
            &["excused: tunnel-syn.4 is none of the probes"],
        ),
    ] {
        let judged = tunproof_reading(text.as_bytes(), &["judge", "-"]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{words:?}");
        for words in words {
            let said = stderr(&judged);
            assert!(said.contains(words), "{words}\n{said}");
        }
    }
    for (file, words) in [
        ("/nonexistent/case.json", "No such file or directory"),
        ("/", "Is a directory"),
    ] {
        let judged = tunproof(&["judge", file]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{file}");
        let said = format!("error: cannot read the case `{file}`\n  caused by: {words}");
        assert!(stderr(&judged).starts_with(&said), "{}", stderr(&judged));
    }
    // A capture that is no capture is an error, too.
    let file = Scratch::new("captureless.json", &case);
    for (added, words) in [
        ("director.in=/nonexistent/c.pcap", "cannot open the capture"),
        ("director.in=/dev/null", "cannot read the capture"),
        ("client.in=/dev/null", "client has a `via`"),
    ] {
        let judged = tunproof(&["judge", file.path(), "--add", added]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{added}");
        assert!(stderr(&judged).contains(words), "{}", stderr(&judged));
    }
}

/// The case of a suite that was played once, from a host without an agent.
fn suite_case() -> String {
    let path = agentless();
    let kept = Scratch::new(&format!("{:08x}.json", rand::random::<u32>()), "");
    let suite = ["run", "q2-decapsulated-packets", "--path", path.path()];
    let output = tunproof(&[&suite[..], &["--save", kept.path()]].concat());
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    fs::read_to_string(kept.path()).unwrap()
}

#[test]
fn the_rounds_of_a_suite_are_judged_together() {
    let (one, proof) = (suite_case(), {
        let path = agentless();
        let kept = Scratch::new("proof.json", "");
        tunproof(&["verify", path.path(), "--save", kept.path()]);
        fs::read_to_string(kept.path()).unwrap()
    });
    let judge = |text: &str| {
        let arguments = ["judge", "-", "--format", "json"];
        tunproof_reading(text.as_bytes(), &arguments)
    };
    let both = format!("[\n{one},\n{one}]\n");
    let judged = judge(&both);
    assert_eq!(code(&judged), 3, "{}", stderr(&judged));
    let report: serde_json::Value = serde_json::from_str(stdout(&judged)).unwrap();
    assert_eq!(
        (&report["rounds"], &report["round"]),
        (&2.into(), &1.into())
    );

    // Wherever the file ends too soon, even between two rounds, that is told.
    let end = both.trim_end().len();
    for length in (0..end).step_by(997).chain([one.len() + 2, end - 1]) {
        let judged = judge(&both[..length]);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{length}");
        let said = stderr(&judged);
        assert!(said.contains("it ends too soon"), "{length}: {said}");
    }
    for (text, words) in [
        ("[]".to_owned(), "rounds: there is none"),
        (
            format!("[{one},{proof}]"),
            "round 2: plan: it plays another suite than the first, another path, or none",
        ),
        (
            format!(
                "[{one},{}]",
                one.replace("\"excused\": [", "\"excused\": [\"tunnel-syn.4\"")
            ),
            "round 2: excused: tunnel-syn.4 is none of the probes",
        ),
        (
            format!("[{one},{}]", one.replace("evidence/1", "evidence/2")),
            "its schema is `tunproof.evidence/2`",
        ),
    ] {
        let judged = judge(&text);
        assert_eq!((code(&judged), stdout(&judged)), (2, ""), "{words}");
        assert!(stderr(&judged).contains(words), "{}", stderr(&judged));
    }
    let kept = Scratch::new("rounds.json", &both);
    let judged = tunproof(&["judge", kept.path(), "--add", "director.in=-"]);
    assert_eq!((code(&judged), stdout(&judged)), (2, ""));
    let said = "error: the capture `-` can be read once, and the case has 2 rounds\nhint: ";
    assert!(stderr(&judged).starts_with(said), "{}", stderr(&judged));
}

#[test]
fn a_dry_run_shows_every_round_and_writes_it() {
    let text = PATH.replace("[[realserver]]", "via = \"ssh d\"\n\n[[realserver]]");
    let path = Scratch::new("dry.toml", &text);
    let packets = Scratch::new("dry.pcapng", "");
    let output = tunproof(&[
        "run",
        "lvs-tun",
        "--path",
        path.path(),
        "--dry-run",
        "--repeat",
        "2",
        "--session",
        KEY,
        "--pcap",
        packets.path(),
    ]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let suite = ["run", "lvs-tun", "--path", path.path()];
    let saves = tunproof(&[&suite[..], &["--dry-run", "--save", "/nonexistent/c"]].concat());
    assert_eq!((code(&saves), stdout(&saves)), (2, ""));
    assert_eq!(
        stderr(&saves),
        "error: a dry run has nothing to `--save`: nothing is sent, and nothing seen\n\
         hint: `--pcap FILE` writes the packets that would be sent\n"
    );
    let step = tunproof(&[&suite[..], &["--dry-run", "--only", "ipvs-lop"]].concat());
    assert_eq!((code(&step), stdout(&step)), (2, ""));
    let hints = "hint: did you mean `ipvs-loop`?\nhint: its steps are `";
    assert!(stderr(&step).contains(hints), "{}", stderr(&step));
    let next = "00112233445566778899aabbccddef00";
    let said = stdout(&output);
    for (round, key) in [(1, KEY), (2, next)] {
        let begins = format!("round {round} of 2, session {key}:\n\n1. ");
        assert!(said.contains(&begins), "{begins}\n{said}");
        let matched = tunproof(&[
            "match",
            packets.path(),
            "--session",
            key,
            "--format",
            "json",
        ]);
        let matched: crate::matching::match_schema::Matches =
            serde_json::from_str(stdout(&matched)).unwrap();
        let closing = |seen: &&crate::matching::match_schema::Sighting| seen.form == "cleanup";
        let shown = said.split("round 2").nth(round - 1).unwrap();
        let listed = shown.matches(" sends by a raw socket: ").count();
        assert_eq!(matched.sightings.len(), listed);
        assert!(matched.sightings.iter().filter(closing).count() > 0);
    }
}

/// A reader of a pipe takes the first end for the last.
#[test]
fn packets_are_written_to_a_pipe_once() {
    let path = agentless();
    let pipe = env::temp_dir().join(format!("tunproof-cli-{}-pipe", process::id()));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reading = pipe.clone();
    let reader = thread::spawn(move || fs::read(reading).unwrap());
    let pcap = ["--pcap", pipe.to_str().unwrap()];
    let output = tunproof(&[&["verify", path.path()][..], &pcap].concat());
    let read = reader.join();
    fs::remove_file(&pipe).unwrap();
    assert!(stdout(&output).contains("client-to-director"));
    assert_eq!(read.unwrap()[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
}

#[test]
fn a_case_that_cannot_be_kept_costs_no_report_and_no_older_case() {
    let path = agentless();
    let output = tunproof(&["verify", path.path(), "--save", "/nonexistent/case.json"]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert!(
        stderr(&output).starts_with("error: cannot write to `/nonexistent/case.json`\n"),
        "{}",
        stderr(&output)
    );

    let output = tunproof(&["verify", path.path(), "--save", "/dev/full"]);
    assert_eq!(code(&output), 2);
    assert!(stdout(&output).contains("client-to-director"));
    let said = "error: cannot write to `/dev/full`\n  caused by: No space left on device";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));

    const SCRIPT: &str = r#"
        mount -t tmpfs -o size=4k small "$0" || exit 99
        echo older > "$0/case.json"
        "$1" verify "$2" --save "$0/case.json" > /dev/null
        echo "status $?"
        cat "$0/case.json"
        ls -A "$0"
    "#;
    let folder = env::temp_dir().join(format!("tunproof-cli-{}-small", process::id()));
    fs::create_dir(&folder).unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", SCRIPT])
        .arg(&folder)
        .args([env!("CARGO_BIN_EXE_tunproof"), path.path()])
        .output();
    fs::remove_dir(&folder).unwrap();
    let output = output.unwrap();
    assert_eq!(
        stdout(&output),
        "status 2\nolder\ncase.json\n",
        "{}",
        stderr(&output)
    );
    assert!(stderr(&output).contains("No space left on device"));
}
