//! What stands on a terminal while a path is proven, and after: played on a pseudo-terminal (`script`, util-linux),
//! its output drawn by a small terminal of our own.

use std::io::Read;
use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;

/// As much of an xterm as is needed here; panics on everything else.
struct Terminal {
    columns: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    wraps: bool,
}

impl Terminal {
    fn new(columns: usize) -> Terminal {
        Terminal {
            columns,
            lines: vec![Vec::new()],
            row: 0,
            column: 0,
            wraps: true,
        }
    }

    fn feed(&mut self, output: &str) {
        let mut rest = output.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => self.down(),
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "{output:?}");
                    let sequence = rest.as_str();
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    self.obey(&sequence[..end], &sequence[end..=end]);
                    rest = sequence[end + 1..].chars();
                }
                c => self.put(c),
            }
        }
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.lines.len() {
            self.lines.push(Vec::new());
        }
    }

    fn put(&mut self, c: char) {
        if self.column == self.columns {
            match self.wraps {
                true => {
                    self.column = 0;
                    self.down();
                }
                false => self.column -= 1,
            }
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = c;
        self.column += 1;
    }

    fn obey(&mut self, numbers: &str, what: &str) {
        match (numbers, what) {
            (_, "m") | ("?2026", "h" | "l") => {}
            ("?7", "h") => self.wraps = true,
            ("?7", "l") => self.wraps = false,
            (up, "A") => self.row = self.row.checked_sub(up.parse().unwrap()).unwrap(),
            ("", "K") => self.lines[self.row].truncate(self.column),
            ("", "J") => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            other => panic!("{other:?}"),
        }
    }

    fn text(&self) -> String {
        let lines = self.lines.iter();
        let lines = lines.map(|line| line.iter().collect::<String>().trim_end().to_owned() + "\n");
        lines.collect()
    }
}

/// Runs `tunproof` on a terminal of this size; types Ctrl-C once `stop` stands there. What was written.
fn on_terminal(
    (columns, rows): (usize, usize),
    environment: &[(&str, &str)],
    arguments: &str,
    stop: Option<&str>,
) -> String {
    let line = format!("stty columns {columns} rows {rows}; exec {TUNPROOF} {arguments}");
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]);
    script
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("CI")
        .envs(environment.iter().copied());
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut stdin = child.stdin.take();
    let mut written = Vec::new();
    let mut output = child.stdout.take().unwrap();
    let mut some = [0; 4096];
    while let Ok(length @ 1..) = output.read(&mut some) {
        written.extend(&some[..length]);
        if stop.is_some_and(|stop| String::from_utf8_lossy(&written).contains(stop)) {
            // Once is enough.
            if let Some(mut stdin) = stdin.take() {
                stdin.write_all(b"\x03").unwrap();
            }
        }
    }
    child.wait().unwrap();
    String::from_utf8(written).unwrap()
}

/// The last state of a terminal, and whether `shown` stood on it before.
fn screen(columns: usize, written: &str, shown: &str) -> (String, bool) {
    let mut terminal = Terminal::new(columns);
    let mut was_shown = false;
    for frame in written.split_inclusive("\x1b[?2026l") {
        terminal.feed(frame);
        was_shown |= terminal.text().contains(shown);
    }
    assert!(terminal.wraps, "lines are not wrapped any more");
    assert_eq!(terminal.column, 0, "{}", terminal.text());
    (terminal.text(), was_shown)
}

fn path(lab: &TestLab) -> String {
    lab.directory().join("path.toml").display().to_string()
}

#[test]
fn the_report_replaces_the_picture_whatever_the_width() {
    let lab = TestLab::up("terminal");
    let verify = format!("verify {}", path(&lab));
    for (columns, rows) in [(80, 30), (40, 30), (200, 50), (80, 12), (20, 5)] {
        let written = on_terminal((columns, rows), &[], &verify, None);
        let (last, was_shown) = screen(columns, &written, "hops proven, ");
        assert!(was_shown || columns < 60, "{columns} x {rows}: {written:?}");
        assert!(
            last.starts_with("s: 198.51.100.7"),
            "{columns} x {rows}:\n{last}"
        );
        let sum = last.replace('\n', "");
        assert!(
            sum.contains("proven: 12 of 12 hops"),
            "{columns} x {rows}:\n{last}"
        );
        for gone in ["○", "▸", "probing", "starting"] {
            assert!(
                !last.contains(gone),
                "{columns} x {rows}: {gone} in\n{last}"
            );
        }
        assert!(written.contains("\x1b[32m✔"), "{written:?}");
    }
}

#[test]
fn colour_and_drawing_are_left_out_where_they_are_not_wanted() {
    let lab = TestLab::up("plain");
    let verify = format!("verify {}", path(&lab));
    let written = on_terminal((80, 30), &[("NO_COLOR", "1")], &verify, None);
    let (last, was_shown) = screen(80, &written, "○ client-to-director");
    assert!(
        was_shown && last.contains("✔ client-to-director     proven by"),
        "{last}"
    );
    for colour in ["\x1b[32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"] {
        assert!(!written.contains(colour), "{written:?}");
    }
    for more in [("X", ""), ("CI", "true")] {
        let written = on_terminal((80, 30), &[("TERM", "dumb"), more], &verify, None);
        assert!(!written.contains('\x1b'), "{more:?}: {written:?}");
        assert!(written.starts_with("s: 198.51.100.7"), "{written}");
    }
}

#[test]
fn where_the_report_goes_elsewhere_the_verdicts_stay() {
    let lab = TestLab::up("elsewhere");
    assert!(lab.run(&["break", "rp-filter-drops"]).status.success());
    let verify = format!("verify {} --format json >/dev/null", path(&lab));
    let (last, _) = screen(80, &on_terminal((80, 30), &[], &verify, None), "");
    assert!(
        last.contains("┊ ✘ realserver-accept      broken: rp-filter-drops\n"),
        "{last}"
    );
    assert!(
        last.ends_with("s\n\n") && last.contains("\nbroken: 10 of 12 hops proven"),
        "{last}"
    );
}

#[test]
fn ctrl_c_leaves_a_clean_terminal() {
    let lab = TestLab::up("ctrl-c");
    assert!(lab.run(&["break", "rp-filter-drops"]).status.success());
    let verify = format!("verify {}", path(&lab));
    let written = on_terminal((80, 40), &[], &verify, Some("probing"));
    let (last, was_shown) = screen(80, &written, "probing");
    assert!(was_shown, "{written:?}");
    assert!(
        last.starts_with("interrupted: the report says what was known by then\n"),
        "{last}"
    );
    assert!(!last.contains("probing") && !last.contains("^C"), "{last}");

    let watch = format!("watch {} --interval 5s", path(&lab));
    let written = on_terminal((80, 40), &[], &watch, Some("next round in "));
    let (last, was_shown) = screen(80, &written, "✘ realserver-accept");
    assert!(was_shown && last.contains("✘ realserver-accept"), "{last}");
    assert!(
        !last.contains("next round") && !last.contains("^C"),
        "{last}"
    );
    assert!(
        last.contains("\n1 round in ") && last.contains(": 1 broken\n"),
        "{last}"
    );
}
