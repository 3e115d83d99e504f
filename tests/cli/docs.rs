//! The documents under `docs`: what is made of the program is what the program says, and every link leads somewhere.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use regex::Regex;
use tunproof::verdict::Code;

use crate::Scratch;
use crate::stderr;
use crate::stdout;
use crate::tunproof;

/// Set to `write`, what is made of the program is written instead of compared, as the fault matrix is.
const SWITCH: &str = "TUNPROOF_TABLES";

const HEAD: &str = "# Findings\n\n\
    Written by `tests/cli/docs.rs` from what `tunproof explain` prints, not by hand: every finding, under the hop that \
    it is about, in path order.\nVIP, PORT, DIP, RIP, CIP and GW stand for the path's own; `rs#` is typed on the real \
    server, `director#` on the director.\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `tunproof explain CODE` prints: its paragraphs, without the code.
fn page(code: Code) -> String {
    let output = tunproof(&["explain", code.id()]);
    let text = stdout(&output);
    text.strip_prefix(&format!("{code}\n\n"))
        .unwrap_or_else(|| panic!("{text}"))
        .to_owned()
}

/// A page in Markdown, and the hop under which it stands.
fn section(code: Code) -> (String, String) {
    let mut hop = String::new();
    let mut text = format!("\n### `{code}`\n\n");
    let mut is_typed = false;
    for line in page(code).lines() {
        if let Some(name) = line.strip_prefix("Hop    ") {
            name.clone_into(&mut hop);
        } else if let Some(question) = line.strip_prefix("HOWTO  ") {
            text += &format!("HOWTO: {question}\n");
        } else if let Some(command) = line.strip_prefix("Lab    ") {
            text += &format!("· `{command}` shows it\n");
        } else if line == "How it is shown" {
            text += "**How it is shown.** ";
        } else if line == "How to mend it" {
            text += "**How to mend it**\n\n```text\n";
            is_typed = true;
        } else if is_typed && line.is_empty() {
            text += "```\n\n";
            is_typed = false;
        } else {
            text += &format!("{}\n", line.strip_prefix("  ").unwrap_or(line));
        }
    }
    (hop, text)
}

#[test]
fn the_findings_are_those_of_explain() {
    let mut page = HEAD.to_owned();
    let mut last = String::new();
    for code in Code::ALL {
        let (hop, text) = section(*code);
        if hop != last {
            page += &format!("\n## {hop}\n");
        }
        page += &text;
        last = hop;
    }
    let file = root().join("docs/findings.md");
    if env::var(SWITCH).is_ok_and(|value| value == "write") {
        fs::write(&file, &page).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == page,
        "{} is not what `tunproof explain` says; `{SWITCH}=write` writes it anew",
        file.display()
    );
}

/// Every page of prose in the repository, but for what is built.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = Regex::new(r"(?m)^#+ (.*)$").unwrap();
    let anchor = |title: &str| {
        let title = title.to_lowercase().replace(' ', "-");
        let kept = title.chars();
        kept.filter(|c| c.is_alphanumeric() || "-_".contains(*c))
            .collect()
    };
    heading
        .captures_iter(text)
        .map(|found| anchor(&found[1]))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let is_there = match anchor {
                "" => to.exists(),
                anchor => fs::read_to_string(&to).is_ok_and(|text| anchors(&text).contains(anchor)),
            };
            if !is_there {
                wrong.push(format!("{}: {target}", page.display()));
            }
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(checked > 20, "only {checked} links");
}

#[test]
fn every_path_fleet_and_policy_file_that_is_shown_is_right() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let blocks = text.split("```toml\n").skip(1);
        for block in blocks.map(|rest| rest.split("```").next().unwrap()) {
            // Suites are held by `tests/suites.rs`.
            let names = [
                "# path.toml\n",
                "# fleet.toml\n",
                "# /etc/tunproof/agent.toml",
            ];
            if !names.iter().any(|name| block.starts_with(name)) {
                continue;
            }
            let file = Scratch::new("shown.toml", block);
            let output = tunproof(&["suite", "check", file.path()]);
            assert!(
                output.status.success(),
                "{}: {}",
                page.display(),
                stderr(&output)
            );
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked}");
}

#[test]
fn the_readme_leads_to_every_page_of_docs() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            assert!(readme.contains(&format!("](docs/{name}")), "{name}");
        }
    }
}
