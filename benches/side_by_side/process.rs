//! What is measured runs in processes of its own, which end with this one.

use std::env;
use std::fs;
use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::sys;

/// The program itself.
pub(crate) const TUNPROOF: &str = env!("CARGO_BIN_EXE_tunproof");

/// A process that was waited for.
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Octets of memory resident at most.
    pub(crate) memory: u64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// One of this program's own roles (`roles.rs`).
pub(crate) fn role(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().expect("the kernel knows it"));
    command.arg("role").arg(name).args(arguments);
    command
}

/// A command of words without spaces.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a command"));
    command.args(words);
    command
}

/// Starts a process, in a PID namespace that ends with it, with nothing to read, and nobody who reads it.
pub(crate) fn start(command: &Command) -> Child {
    let name = format!("{:?}", command.get_program());
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--pid", "--fork", "--kill-child", "--"])
        // zmap, which gives up its rights, would no longer be told of its starter's end; the shell is.
        .args(["sh", "-c", "\"$@\" & wait", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    sys::die_with_starter(&mut unshare)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
}

/// Ends what [`start`] started.
pub(crate) fn end(mut child: Child) {
    // It may have ended itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs a process to its end; after `limit` it is killed.
#[expect(
    clippy::zombie_processes,
    reason = "`sys::wait` waits for it, for its CPU time"
)]
pub(crate) fn run(command: &mut Command, limit: Duration) -> Ended {
    let name = format!("{:?}", command.get_program());
    let begin = Instant::now();
    let mut child = sys::die_with_starter(command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let number = child.id();
    thread::scope(|scope| {
        let stdout = scope.spawn(|| text(stdout));
        let stderr = scope.spawn(|| text(stderr));
        let waited = scope.spawn(move || (sys::wait(number), Instant::now()));
        let mut memory = 0;
        while !waited.is_finished() {
            memory = memory.max(resident(number));
            if begin.elapsed() > limit {
                // Not yet waited for, so its number is nobody else's.
                let _ = child.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let (waited, end) = waited.join().expect("it does not panic");
        let (status, cpu) = waited.expect("it is a child");
        Ended {
            status,
            wall: end - begin,
            cpu,
            memory,
            stdout: stdout.join().expect("it does not panic"),
            stderr: stderr.join().expect("it does not panic"),
        }
    })
}

fn text(from: Option<impl Read>) -> String {
    let mut octets = Vec::new();
    if let Some(mut from) = from {
        // What a process that was killed wrote last may be lost.
        let _ = from.read_to_end(&mut octets);
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// The most octets of memory that a process had resident so far; 0 if it is gone.
pub(crate) fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) << 10
}
