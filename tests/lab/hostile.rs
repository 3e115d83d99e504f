//! What hosts may say of themselves, in every report: nothing that a terminal obeys, a browser runs, or XML cannot say.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;

/// A title, a newline, another direction, what nobody sees, what is no letter, and the ends of much.
const HOSTILE: &str =
    "=<script>'\"&\u{1b}]0;x\u{7}\u{202e}\u{61c}\u{200b}\u{fffe}]]></style>--><b>\n\r\u{9b}|`";

/// The strings in a value, as JSON pointers, those of one kind together.
fn strings(value: &Value, at: &str, kind: &str, found: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::String(_) => found
            .entry(kind.to_owned())
            .or_default()
            .push(at.to_owned()),
        Value::Array(values) => {
            for (number, value) in values.iter().enumerate() {
                strings(
                    value,
                    &format!("{at}/{number}"),
                    &format!("{kind}[]"),
                    found,
                );
            }
        }
        Value::Object(members) => {
            for (name, value) in members {
                strings(
                    value,
                    &format!("{at}/{name}"),
                    &format!("{kind}.{name}"),
                    found,
                );
            }
        }
        _ => {}
    }
}

fn judge(case: &str, arguments: &[&str]) -> Output {
    let mut judge = Command::new(TUNPROOF);
    judge.args(["judge", "-"]).args(arguments);
    judge.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut judge = judge.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = judge.stdin.take().unwrap();
    stdin.write_all(case.as_bytes()).unwrap();
    drop(stdin);
    judge.wait_with_output().unwrap()
}

fn is_hostile(c: char) -> bool {
    c.is_control() && c != '\n' || "\u{202e}\u{61c}\u{200b}\u{fffe}".contains(c)
}

#[test]
fn no_report_has_what_a_host_put_into_its_words() {
    let lab = TestLab::up("hostile");
    let broken = lab.run(&["break", "rp-filter-drops"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let file = std::env::temp_dir().join(format!("{}.json", lab.name));
    let mut verify = Command::new(TUNPROOF);
    verify.arg("verify").arg(lab.directory().join("path.toml"));
    let verify = verify.arg("--save").arg(&file).output().unwrap();
    assert_eq!(verify.status.code(), Some(1), "{}", text(&verify));
    let case = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    drop(lab);

    let whole: Value = serde_json::from_str(&case).unwrap();
    let mut found = BTreeMap::new();
    strings(&whole, "", "", &mut found);
    let mut taken = 0;
    for (kind, places) in found {
        let mut case = whole.clone();
        for place in places {
            *case.pointer_mut(&place).unwrap() = Value::from(HOSTILE);
        }
        let case = case.to_string();
        let mut is_taken = false;
        for format in ["text", "json", "junit", "tap", "html"] {
            let output = judge(&case, &["--format", format, "--verbose"]);
            let said = text(&output);
            assert!(!said.contains(is_hostile), "{kind} as {format}: {said:?}");
            assert!(!said.contains("panicked"), "{kind} as {format}: {said}");
            is_taken = output.status.code() == Some(1);
            if format == "html" {
                let page = String::from_utf8_lossy(&output.stdout);
                for markup in ["<script", "<b>\n", "]]>"] {
                    assert!(!page.contains(markup), "{kind}: {markup}");
                }
            }
        }
        taken += usize::from(is_taken);
    }
    assert!(taken >= 10, "only {taken} are free text");
}
