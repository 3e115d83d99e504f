//! Where the time of a sweep goes: system calls counted by strace, and what perf sees, where it works.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::fleet::Asked;
use crate::peers;
use crate::process;
use crate::process::TUNPROOF;
use crate::process::words;
use crate::responder::Responder;
use crate::site;

const LIMIT: Duration = Duration::from_secs(30);
/// Lines that are shown of what a tool says.
const LINES: usize = 16;

pub(crate) fn run(folder: &Path) -> String {
    let file = folder.join("limits.toml");
    fs::write(&file, Asked::Reflect.file()).expect("the folder can be written to");
    let sweep = format!(
        "{TUNPROOF} sweep {} --tries 2 --format csv --output /dev/null",
        file.display()
    );
    let (calls, profile) = site::on_site(|| {
        let far = site::part();
        let _responder = Responder::start(&far);
        let said = (calls(folder, &sweep), profile(folder, &sweep));
        process::end(far);
        said
    });
    format!(
        "A sweep of 131,072 pairs that all answer, both threads, once under each tool (which make it slower; README.md \
         beside this file says what follows).\n\n`strace -f -c`:\n\n```text\n{calls}```\n\n`perf record -e cpu-clock` of the \
         same, kernel and program:\n\n```text\n{profile}```\n"
    )
}

fn calls(folder: &Path, sweep: &str) -> String {
    if !peers::has("strace") {
        return "strace is not installed\n".to_owned();
    }
    let said = folder.join("strace");
    process::run(
        &mut words(&format!("strace -f -c -o {} {sweep}", said.display())),
        LIMIT,
    );
    first_lines(&fs::read_to_string(said).unwrap_or_default())
}

fn profile(folder: &Path, sweep: &str) -> String {
    if !peers::has("perf") {
        return "perf is not installed\n".to_owned();
    }
    let data = folder.join("perf.data");
    let record = format!("perf record -q -e cpu-clock -o {} {sweep}", data.display());
    let recorded = process::run(&mut words(&record), LIMIT);
    let report = |by| {
        let mut report = Command::new("perf");
        report.args([
            "report",
            "-q",
            "--stdio",
            "--percent-limit",
            "1.5",
            "--sort",
            by,
            "-i",
        ]);
        let said = process::run(report.arg(&data), LIMIT).stdout;
        let lines = said.lines().filter(|line| !line.trim().is_empty());
        // Behind the names stand columns for what is of no use here.
        let lines = lines.map(|line| {
            line.split("   - ")
                .next()
                .unwrap_or(line)
                .trim_end()
                .to_owned()
        });
        first_lines(&lines.collect::<Vec<_>>().join("\n"))
    };
    let (by_file, by_symbol) = (report("dso"), report("dso,symbol"));
    match by_file.is_empty() {
        true => format!("perf does not work here: {}\n", recorded.stderr.trim()),
        false => format!("{by_file}\n{by_symbol}"),
    }
}

fn first_lines(text: &str) -> String {
    text.lines()
        .take(LINES)
        .map(|line| format!("{line}\n"))
        .collect()
}
