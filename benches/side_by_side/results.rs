//! `benches/RESULTS.md`: a head, and a section for each table that was run last.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::peers;

/// What a table has to say.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) text: String,
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/RESULTS.md")
}

/// Puts a section in place of that of the same title, in the order of `titles`; others stay as they are.
pub(crate) fn write(section: &Section, titles: &[&str]) {
    let old = fs::read_to_string(file()).unwrap_or_default();
    let parts: Vec<_> = old.split("\n## ").skip(1).collect();
    let of = |title: &str| match title == section.title {
        true => Some(format!(
            "{title}\n\n{}, {}.\n\n{}",
            date(),
            commit(),
            section.text
        )),
        false => {
            let part = parts.iter().find(|part| part.lines().next() == Some(title));
            part.map(|part| (*part).to_owned())
        }
    };
    let mut text = head();
    for part in titles.iter().filter_map(|title| of(title)) {
        text.push_str("\n## ");
        text.push_str(part.trim_end());
        text.push('\n');
    }
    fs::write(file(), text).expect("benches/RESULTS.md can be written");
}

fn head() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = said("uname", &["-sr"]);
    let linked = match cfg!(target_feature = "crt-static") {
        true => "statically, as in the package",
        false => "dynamically",
    };
    format!(
        "# Side by side, on one machine\n\n\
         Written by `cargo bench` (`cargo bench -- TABLE` for one; README.md beside this file says how each is\n\
         measured and where the limits are). Only ratios within a table mean anything on another machine.\n\n\
         Machine: {cores} cores, {model}; {kernel}.\n\n\
         tunproof: linked {linked}.\n\n\
         Peers: {}.\n",
        peers::versions()
    )
}

fn date() -> String {
    said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])
}

fn commit() -> String {
    let commit = said(
        "git",
        &["-C", env!("CARGO_MANIFEST_DIR"), "log", "-1", "--format=%h"],
    );
    format!("at commit {commit}")
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or("?".to_owned(), |output| {
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    })
}
