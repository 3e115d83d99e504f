//! The house's rules: which module may use which, and what no pure module may touch.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Module, and the modules it may use, in the order of `src/lib.rs`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("plan", &["wire"]),
    ("suite", &["wire", "plan"]),
    ("craft", &["wire", "plan"]),
    ("exchange", &[]),
    ("matching", &["wire", "plan", "exchange"]),
    ("evidence", &["wire", "plan", "exchange", "matching"]),
    (
        "run",
        &["plan", "craft", "exchange", "matching", "evidence"],
    ),
    ("verdict", &["plan", "exchange", "evidence", "matching"]),
    (
        "report",
        &[
            "wire", "plan", "exchange", "evidence", "matching", "verdict",
        ],
    ),
    ("agent", &["wire", "plan", "exchange", "run"]),
    ("live", &["plan", "exchange", "run", "agent"]),
    ("lab", &["plan", "exchange", "live"]),
    (
        "cli",
        &[
            "wire", "suite", "plan", "craft", "exchange", "matching", "evidence", "run", "verdict",
            "report", "agent", "live", "lab",
        ],
    ),
];

/// What must not stand in any module before `live`: clocks, sockets, files, printing, randomness.
const FORBIDDEN: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "std::fs",
    "File::",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "socket2",
    "libc::",
    "nix::",
    "tokio::",
    "println!",
    "eprintln!",
    "print!(",
    "eprint!(",
    "dbg!",
    "rand::",
    "std::env",
    "std::process",
    "thread::sleep",
];

/// Modules that may use what `FORBIDDEN` lists.
const MAY_TOUCH: &[&str] = &["live", "lab", "cli"];

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && path.parent() != Some(&root) {
                let module = path.strip_prefix(&root).unwrap().iter().next().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                found.push((module.to_str().unwrap().to_owned(), path, text));
            }
        }
    }
    assert!(found.len() > 20, "only {} source files found", found.len());
    found
}

/// The part of a file above its tests; nothing of a file that is all tests, for whose module the one above says so.
fn without_tests<'t>(path: &Path, text: &'t str) -> &'t str {
    if path.file_name().is_some_and(|name| name == "tests.rs") {
        let folder = path.parent().unwrap();
        let above = [folder.with_extension("rs"), folder.join("mod.rs")];
        let above = above.iter().find_map(|file| fs::read_to_string(file).ok());
        let declared = above.is_some_and(|text| text.ends_with("\n#[cfg(test)]\nmod tests;\n"));
        assert!(declared, "{}: whose tests are these?", path.display());
        return "";
    }
    text.split("\n#[cfg(test)]").next().unwrap()
}

#[test]
fn a_module_uses_only_what_it_may() {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        let allowed = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("module `{module}` is not in the table"))
            .1;
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            let mut rest = line;
            while let Some(at) = rest.find("crate::") {
                rest = &rest[at + "crate::".len()..];
                let used: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let place = format!("{}:{}", path.display(), number + 1);
                if used.is_empty() {
                    wrong.push(format!("{place}: write one `use crate::module::…` a line"));
                } else if used != module && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{place}: `{module}` must not use `{used}`"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_map_lists_the_modules_in_the_tables_order() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let listed: Vec<_> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.split(';').next())
        .collect();
    let expected: Vec<_> = MAY_USE.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, expected);
}

#[test]
fn pure_modules_touch_no_clock_socket_file_or_terminal() {
    let mut wrong = Vec::new();
    for (module, path, text) in sources() {
        if MAY_TOUCH.contains(&module.as_str()) {
            continue;
        }
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in FORBIDDEN {
                // `SuiteFile::` is no `File::`.
                let is_it = |(at, _): (usize, &str)| !code[..at].ends_with(char::is_alphanumeric);
                if code.match_indices(word).any(is_it) {
                    wrong.push(format!("{}:{}: `{word}`", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_in_one_file() {
    for (_, path, text) in sources() {
        if path.ends_with("live/sys.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            // `unsafe-inline` is a word of Content-Security-Policy.
            assert!(
                !code
                    .split(|c: char| !c.is_alphanumeric() && !"_-".contains(c))
                    .any(|w| w == "unsafe"),
                "{}:{}: `unsafe` belongs in live/sys.rs",
                path.display(),
                number + 1
            );
        }
    }
}
