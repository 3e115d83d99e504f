//! The janitor: a child of the agent that outlives it, if need be, to put right what the agent disturbed.
//!
//! The agent writes every deed into a pipe before it does it. When the pipe ends without
//! [`Entry::Done`], the agent was killed or lost its controller, and the janitor settles what is open. It
//! has a session of its own, so neither Ctrl-C nor a closing terminal ends it together with the agent.

use std::error::Error;
use std::io;
use std::io::BufRead;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use crate::agent::Entry;
use crate::agent::Ledger;
use crate::exchange::SendOutcome;
use crate::live::drops::Monitor;
use crate::live::neighbour;
use crate::live::send::Sender;
use crate::live::sys;

/// A packet can get lost, so each cleanup is sent twice, this far apart.
const REPEAT: Duration = Duration::from_millis(200);

/// Between two cleanups: the pace is that of the probes or slower.
const PACE: Duration = Duration::from_millis(1);

/// The line with which the janitor says that it stands by.
const READY: &str = "ready";

/// The agent's end of the pipe.
#[derive(Debug)]
pub struct Janitor {
    child: Child,
    pipe: ChildStdin,
}

/// A janitor that was called and does not stand by yet.
#[derive(Debug)]
pub struct Called(Child);

impl Called {
    /// Waits until it stands by.
    ///
    /// # Errors
    ///
    /// If it cannot open its sockets.
    pub fn stand_by(self) -> io::Result<Janitor> {
        let mut child = self.0;
        let pipe = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        io::BufReader::new(stdout).read_line(&mut line)?;
        match line.trim_end() {
            READY => Ok(Janitor { child, pipe }),
            other => {
                let status = child.wait()?;
                Err(io::Error::other(format!("{other} ({status})")))
            }
        }
    }
}

impl Janitor {
    /// Starts a janitor, this same program.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn call() -> io::Result<Called> {
        Command::new("/proc/self/exe")
            .arg0("tunproof")
            .args(["agent", "--janitor"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Called)
    }

    /// Tells of a deed that is about to be done.
    ///
    /// # Errors
    ///
    /// If the janitor is gone: the deed must not be done then.
    pub fn tell(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.pipe.write_all(&line)
    }

    /// Sends the janitor home, everything being settled.
    ///
    /// # Errors
    ///
    /// If it was gone before.
    pub fn dismiss(mut self) -> io::Result<()> {
        self.tell(&Entry::Done)?;
        drop(self.pipe);
        self.child.wait()?;
        Ok(())
    }
}

/// The janitor's own process, from `agent --janitor` on: reads deeds from stdin until it ends, then settles
/// what is open.
///
/// # Errors
///
/// What could not be settled.
pub fn run() -> io::Result<()> {
    sys::ignore_endings();
    // It fails only if this is a session of its own already.
    let _ = nix::unistd::setsid();
    let mut stdout = io::stdout();
    let sender = match Sender::open() {
        Ok(sender) => sender,
        Err(error) => {
            writeln!(stdout, "{error}")?;
            return Err(io::Error::other(error));
        }
    };
    writeln!(stdout, "{READY}")?;
    let mut ledger = Ledger::default();
    for line in io::stdin().lock().lines() {
        // A line that was cut off is a deed that was not done.
        let Ok(entry) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else {
            break;
        };
        ledger.record(entry);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?
        .block_on(settle(&ledger, &sender))
}

/// Closes what is open, puts back what was forgotten, and turns off what was turned on.
///
/// # Errors
///
/// The first thing that failed; the rest is tried all the same.
pub async fn settle(ledger: &Ledger, sender: &Sender) -> io::Result<()> {
    let mut result = Ok(());
    for old in ledger.forgotten() {
        let restored = neighbour::restore(old);
        result = result.and(restored.map_err(|error| io::Error::other(with_causes(&error))));
    }
    if let Some(mode) = ledger.watching() {
        result = result.and(Monitor::find().and_then(|mut monitor| monitor.stop(mode)));
    }
    if ledger.cleanups().next().is_none() {
        return result;
    }
    let first = close(ledger, sender).await;
    tokio::time::sleep(REPEAT).await;
    let second = close(ledger, sender).await;
    result.and(first.or(second))
}

async fn close(ledger: &Ledger, sender: &Sender) -> io::Result<()> {
    let mut result = Ok(());
    for cleanup in ledger.cleanups() {
        if let SendOutcome::Refused { error, .. } = sender.send(cleanup) {
            result = result.and(Err(io::Error::other(format!("send a cleanup: {error}"))));
        }
        tokio::time::sleep(PACE).await;
    }
    result
}

/// An error and its causes, in one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
