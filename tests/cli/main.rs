//! The command from outside: what it prints where, and its exit status.

use std::env;
use std::fs;
use std::io::Read;
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

mod cases;
mod docs;
mod full;
mod matching;
mod push;

fn tunproof(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(arguments)
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal ended it")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A file that is removed at the test's end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = env::temp_dir().join(format!("tunproof-cli-{}-{name}", process::id()));
        fs::write(&path, text).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const PATH: &str = r#"[path]
vip = "192.0.2.10"
port = 80

[director]
ip = "192.0.2.2"

[[realserver]]
name = "rs1"
ip = "203.0.113.5"

[client]
ip = "198.51.100.7"
"#;

#[test]
fn help_goes_to_stdout_and_shows_how_it_is_used() {
    for arguments in [
        &["--help"][..],
        &["verify", "--help"],
        &["director", "--help"],
        &["realserver", "--help"],
        &["listen", "--help"],
        &["match", "--help"],
        &["judge", "--help"],
        &["run", "--help"],
        &["spoofcheck", "--help"],
        &["suite", "--help"],
        &["monitor", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
    ] {
        let output = tunproof(arguments);
        assert_eq!((code(&output), stderr(&output)), (0, ""), "{arguments:?}");
        assert!(
            stdout(&output).contains("Examples:\n  tunproof "),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_terminal_obeys_no_host() {
    // Some terminals can be asked to type a title.
    let script = "printf '\\033]0;title\\007-1\\n-2\\r' >&2; exit 3";
    let script = Scratch::new("title.sh", script);
    let via = format!("ip = \"192.0.2.2\"\nvia = \"sh {}\"", script.path());
    let file = Scratch::new("title.toml", &PATH.replace("ip = \"192.0.2.2\"", &via));
    for verbose in [&[][..], &["--verbose"]] {
        let output = tunproof(&[&["verify", file.path()], verbose].concat());
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        for text in [stdout(&output), stderr(&output)] {
            let obeyed = |letter: char| letter.is_control() && letter != '\n';
            assert!(!text.contains(obeyed), "{text:?}");
        }
        let said = stderr(&output);
        assert!(
            said.contains("its stderr: \\u{1b}]0;title\\u{7}-1\n"),
            "{said}"
        );
        let mut lines = said.lines();
        let is_relayed = lines.any(|line| line == "\\u{1b}]0;title\\u{7}-1");
        assert_eq!(is_relayed, !verbose.is_empty(), "{said}");
    }
}

#[test]
fn wrong_usage_is_status_2() {
    for arguments in [
        &[][..],
        &["prove"],
        &["verify"],
        &["verify", "path.toml", "--format", "yaml"],
        &["verify", "path.toml", "--timeout", "0s"],
        &["verify", "path.toml", "--rate", "0"],
        &["director", "--vip", "192.0.2.10", "--cip", "198.51.100.7"],
        &["listen", "--session", "12", "--vip", "192.0.2.10"],
        &["match", "c.pcap"],
        &["spoofcheck", "path.toml", "--toward", "realserver"],
        &["judge"],
        &["monitor", "path.toml", "--interval", "9s"],
        &["monitor", "path.toml", "--textfile", "tunproof.txt"],
        &["monitor", "path.toml", "--listen", "localhost"],
        &["completions"],
        &["man", "mock"],
    ] {
        let output = tunproof(arguments);
        assert_eq!((code(&output), stdout(&output)), (2, ""), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_sample_files_are_what_they_say() {
    let output = tunproof(&["suite", "check", "docs/path.toml"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    let output = tunproof(&["suite", "check", "docs/agent.toml"]);
    let said = "docs/agent.toml: policy, 20 packets a second\n";
    assert_eq!((code(&output), stdout(&output)), (0, said));
}

#[test]
fn an_address_says_what_was_expected() {
    for (vip, words) in [
        ("2001:db8::1", "tunproof knows IPv4 only"),
        ("224.0.0.1", "expected a unicast address"),
        ("lb.example.org", "names are not looked up"),
    ] {
        let output = tunproof(&[
            "director",
            "--rip",
            "203.0.113.5",
            "--cip",
            "198.51.100.7",
            "--vip",
            vip,
        ]);
        assert_eq!(code(&output), 2);
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let output = tunproof(&[
        "director",
        "--vip",
        "192.0.2.10",
        "--rip",
        "192.0.2.10",
        "--cip",
        "198.51.100.7",
    ]);
    assert_eq!(code(&output), 2);
    assert_eq!(
        stderr(&output),
        "error: --vip and --rip are the same address 192.0.2.10\n"
    );
}

#[test]
fn a_wrong_path_file_is_shown_at_its_place() {
    let file = Scratch::new("wrong.toml", &PATH.replace("port = 80", "prot = 80"));
    let output = tunproof(&["verify", file.path()]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    let place = format!("--> {}:3:1", file.path());
    for words in [
        place.as_str(),
        "unknown key `prot`",
        "did you mean `port`?",
        "`[path]` has no `port`",
    ] {
        assert!(
            stderr(&output).contains(words),
            "{words}\n{}",
            stderr(&output)
        );
    }
    assert!(!stderr(&output).contains('\u{1b}'), "{}", stderr(&output));
}

#[test]
fn a_missing_path_file_and_one_without_vantages_are_status_2() {
    let output = tunproof(&["verify", "/nonexistent/path.toml"]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert_eq!(
        stderr(&output),
        "error: cannot read the path file `/nonexistent/path.toml`\n  \
         caused by: No such file or directory (os error 2)\n\
         hint: write one that says who the hosts are: `tunproof verify --help` shows it\n"
    );

    let file = Scratch::new("nowhere.toml", PATH);
    let output = tunproof(&["verify", file.path()]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert!(
        stderr(&output).contains("none has a `via`\nhint: add `via = "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_vantage_without_an_agent_is_status_2_and_the_report_is_printed_all_the_same() {
    let text = PATH.replace(
        "[client]",
        "[client]\nvia = \"sh -c 'echo ouch >&2; exit 7' --\"",
    );
    let file = Scratch::new("agentless.toml", &text);
    let output = tunproof(&["verify", file.path(), "--format", "json"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    for words in ["no agent on client", "its stderr: ouch", "hint: "] {
        assert!(
            stderr(&output).contains(words),
            "{words}\n{}",
            stderr(&output)
        );
    }
    let report: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report["schema"], "tunproof.report/1");
    assert_eq!(report["hops"].as_array().unwrap().len(), 12);
}

#[test]
fn a_missing_agent_says_what_to_do() {
    for (via, reason, hint) in [
        (
            "no-such-program lb1",
            "cannot run `no-such-program`",
            "hint: `via` begins with `no-such-program`",
        ),
        (
            "sh -c \"echo it\\'s Ubuntu; cat\"",
            "expected an agent's hello, got `it's Ubuntu`",
            "tunproof agent` must print `tunproof agent 2 ",
        ),
        (
            "sh -c 'exec no-such-tunproof' --",
            "the agent ended (exit status: 127)",
            "TUNPROOF_AGENT=/path/to/tunproof`",
        ),
        (
            "sh -c 'echo tunproof agent 7 9.9.9; cat'",
            "the agent there is tunproof 9.9.9 and speaks protocol 7",
            "hint: install tunproof ",
        ),
    ] {
        let via = format!("[client]\nvia = {}", toml_string(via));
        let file = Scratch::new("wrong-via.toml", &PATH.replace("[client]", &via));
        let output = tunproof(&["verify", file.path()]);
        assert_eq!(code(&output), 2, "{via}\n{}", stderr(&output));
        for words in [&format!("error: no agent on client: {reason}"), hint] {
            assert!(
                stderr(&output).contains(words),
                "{words}\n{}",
                stderr(&output)
            );
        }
    }
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[test]
fn a_file_that_cannot_be_written_is_known_before_anything_is_started() {
    let text = PATH.replace(
        "[client]",
        "[client]\nvia = \"sh -c 'echo started >&2' --\"",
    );
    let file = Scratch::new("unwritable.toml", &text);
    for option in ["--output", "--pcap"] {
        let output = tunproof(&["verify", file.path(), option, "/nonexistent/file"]);
        assert_eq!((code(&output), stdout(&output)), (2, ""), "{option}");
        assert_eq!(
            stderr(&output),
            "error: cannot write to `/nonexistent/file`\n  \
             caused by: No such file or directory (os error 2)\n",
            "{option}"
        );
    }
}

#[test]
fn explain_lists_explains_and_guesses() {
    let output = tunproof(&["explain"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    assert!(stdout(&output).contains("\n  rp-filter-drops\n"));

    let output = tunproof(&["explain", "rp-filter-drops"]);
    assert_eq!((code(&output), stderr(&output)), (0, ""));
    assert!(
        stdout(&output).contains("HOWTO  Q.2"),
        "{}",
        stdout(&output)
    );

    let output = tunproof(&["explain", "rp-filter-drop"]);
    assert_eq!((code(&output), stdout(&output)), (2, ""));
    assert_eq!(
        stderr(&output),
        "error: unknown code `rp-filter-drop`\n\
         hint: did you mean `tunproof explain rp-filter-drops`?\n\
         hint: `tunproof explain` lists all codes\n"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .arg("explain")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, ""));
}

const KEY: &str = "00112233445566778899aabbccddeeff";

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// `tunproof` with something on its stdin.
fn tunproof_reading(input: &[u8], arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tunproof"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that has seen enough reads no further.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}
