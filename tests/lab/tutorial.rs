//! `docs/tutorial.md`, typed line by line as a new user does: what it shows is what is printed.

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use regex::Regex;

use crate::bench::TUNPROOF;

/// A command of the tutorial, and what is shown beneath it.
struct Typed {
    command: String,
    shown: String,
}

/// The lines that begin with `$ ` in blocks that are a console, in order.
fn typed(tutorial: &str) -> Vec<Typed> {
    let mut typed: Vec<Typed> = Vec::new();
    let blocks = tutorial.split("```console\n").skip(1);
    for line in blocks.flat_map(|rest| rest.split("```").next().unwrap().lines()) {
        match (line.strip_prefix("$ "), typed.last_mut()) {
            (Some(command), _) => typed.push(Typed {
                command: command.to_owned(),
                shown: String::new(),
            }),
            // The shell asks for more of it.
            (None, Some(last)) if last.shown.is_empty() && line.starts_with("> ") => {
                last.command += &format!("\n{}", &line[2..]);
            }
            (None, Some(last)) => last.shown += &format!("{line}\n"),
            (None, None) => panic!("a block that begins with no command: {line}"),
        }
    }
    typed
}

/// Words, however they are wrapped and drawn; without what differs from run to run: numbers of evidence, ports, counts,
/// times, and by which of several packets that prove it a hop was proven.
fn words(text: &str) -> String {
    let replaced = [
        (r"[│┊║|]", " "),
        (r"\s+", " "),
        (r"\be\d+(, e\d+)*", "e#"),
        (r"\b(proven|implied) by [^(]+ \(e#\)", "$1 by #"),
        (r"\b[0-9a-f]{32}\b", "KEY"),
        (r"\b\d+(\.\d+)? (ms|s)\b", "# s"),
        (r":\d{5}\b", ":#"),
        (r"\d+ of \d+ probes \([^)]+\)", "# of # probes"),
        (r"rose by \d+", "rose by #"),
        (r"\d+ probes sent", "# probes sent"),
        (r"\b0/\d+", "0/#"),
        (r"\b[1-9]\d*/\d+", "#/#"),
    ];
    let start = text.to_owned();
    replaced.iter().fold(start, |text, (what, by)| {
        Regex::new(what)
            .unwrap()
            .replace_all(&text, *by)
            .into_owned()
    })
}

/// The first piece of what is shown that was not printed: `…` stands for anything, pieces come in their order.
fn missing(shown: &str, printed: &str) -> Option<String> {
    let shown = words(shown);
    let printed = words(printed);
    let mut rest = printed.as_str();
    for piece in shown.split('…').map(str::trim) {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return Some(piece.to_owned()),
        }
    }
    None
}

/// A folder of the test's own, in which its lab lives, too: by `XDG_RUNTIME_DIR` it is no other lab of that name.
struct Home(PathBuf);

impl Home {
    fn new() -> Home {
        let folder = format!("tunproof-tutorial-{}", std::process::id());
        let folder = env::temp_dir().join(folder);
        fs::create_dir(&folder).unwrap();
        Home(folder)
    }

    /// Types it in a shell in that folder; what a terminal would show, in its order.
    fn types(&self, command: &str) -> String {
        let programs = Path::new(TUNPROOF).parent().unwrap().display().to_string();
        let path = env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(&self.0)
            .env("PATH", format!("{programs}:{path}"))
            .env("XDG_RUNTIME_DIR", &self.0)
            .env("NO_COLOR", "1")
            .env_remove("CLICOLOR_FORCE")
            .env_remove("TUNPROOF_AGENT")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The tutorial may have ended it itself.
        self.types("tunproof lab down");
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_tutorial_shows_what_its_commands_print() {
    let typed = typed(include_str!("../../docs/tutorial.md"));
    assert!(typed.len() >= 20, "only {} commands", typed.len());
    let home = Home::new();
    for Typed { command, shown } in &typed {
        let printed = home.types(command);
        if let Some(piece) = missing(shown, &printed) {
            panic!("$ {command}\nnot printed: {piece}\n\nprinted:\n{printed}");
        }
    }
    assert!(!home.0.join("tunproof/lab").exists(), "the lab is not down");
}

#[test]
fn what_is_shown_must_be_printed() {
    let printed = "  │ ✔ service   proven by SYN-ACK at realserver.out (e16)\nproven: 12 of 12 hops in 258 ms\n";
    let shown = [
        "✔ service proven by RST at director.in (e1, e2)",
        "✔ service … 12 of 12 hops in 1.4 s",
    ];
    for shown in shown {
        assert_eq!(missing(shown, printed), None, "{shown}");
    }
    let not_shown = [
        "✘ service",
        "✔ service implied by SYN-ACK at realserver.out (e16)",
        "11 of 12 hops",
        "12 of 12 hops … ✔ service",
    ];
    for shown in not_shown {
        assert!(missing(shown, printed).is_some(), "{shown}");
    }
}
