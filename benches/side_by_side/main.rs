//! Everything that is said to be fast, beside what else does the job, in one run: `cargo bench`, or `cargo bench --
//! TABLE …`. Writes `benches/RESULTS.md`. Needs root: packets go through network namespaces of its own.

mod craft;
mod fleet;
mod limits;
mod many;
mod peers;
mod process;
mod receive;
mod responder;
mod results;
mod roles;
mod site;
mod sweep;
mod sys;
mod table;
mod transmit;
mod verify;

use std::env;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use results::Section;

/// Name on the command line, title in the results, and what measures; it gets a folder for its files.
type Measured = (&'static str, &'static str, fn(&Path) -> String);

const TABLES: &[Measured] = &[
    ("craft", "Craft and parse", craft::run),
    ("transmit", "Transmit", transmit::run),
    ("receive", "Receive", receive::run),
    ("sweep", "A whole sweep", sweep::run),
    ("verify", "Verify", verify::run),
    ("limits", "Where the time goes", limits::run),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "role") {
        return roles::main(&arguments[1..]);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("nothing is measured but by `cargo bench`");
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("network namespaces take root\nhint: sudo -E cargo bench");
        std::process::exit(2);
    }
    let wanted: Vec<_> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let names: Vec<_> = TABLES.iter().map(|(name, ..)| *name).collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        eprintln!("no table `{unknown}`; there are {}", names.join(", "));
        std::process::exit(2);
    }
    let missing = peers::missing();
    if !missing.is_empty() {
        let missing = missing.join(" ");
        eprintln!("not every peer is here\nhint: apt-get install {missing}");
    }
    let folder = env::temp_dir().join(format!("tunproof-bench-{}", std::process::id()));
    let folder = Folder::new(folder);
    end_on_signals(folder.0.clone());
    let titles: Vec<_> = TABLES.iter().map(|(_, title, _)| *title).collect();
    for (name, title, measure) in TABLES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let begin = Instant::now();
            let text = measure(&folder.0);
            println!("\n## {title}\n\n{text}\n{name}: {:.0?}\n", begin.elapsed());
            results::write(&Section { title, text }, &titles);
        }
    }
}

/// On Ctrl-C and SIGTERM ends the lab and this process, with which go its namespaces and whatever it started.
fn end_on_signals(folder: PathBuf) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let watch = |kind| signal(kind).expect("a signal that can be watched");
        (
            watch(SignalKind::interrupt()),
            watch(SignalKind::terminate()),
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        verify::end_lab();
        drop(Folder(folder));
        std::process::exit(130);
    });
}

/// A folder of the run's own.
struct Folder(PathBuf);

impl Folder {
    fn new(path: PathBuf) -> Folder {
        fs::create_dir(&path).expect("a new folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own sweeping of its temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
