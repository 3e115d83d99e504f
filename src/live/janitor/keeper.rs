//! The janitor's own process.

use std::collections::BTreeMap;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::agent::Ledger;
use crate::exchange::Neighbour;
use crate::exchange::SendOutcome;
use crate::live::drops::Monitor;
use crate::live::drops::Watched;
use crate::live::ipvs;
use crate::live::janitor::PACE;
use crate::live::janitor::errand;
use crate::live::janitor::errand::Answer;
use crate::live::janitor::errand::Errand;
use crate::live::janitor::errand::Lister;
use crate::live::janitor::with_causes;
use crate::live::log::Log;
use crate::live::neighbour;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::live::send::Sender;
use crate::live::tracepoint::Description;
use crate::live::tracepoint::Source;

/// A packet can get lost, so each cleanup is sent twice, this far apart.
const REPEAT: Duration = Duration::from_millis(200);

/// How long a program that has closed its stdout may take to end.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// How many programs run at once.
const MOST_PROGRAMS: usize = 4;

/// Does errands that come by `socket` until it ends, then settles what is open.
///
/// # Errors
///
/// What could not be settled.
pub(super) fn run(socket: &UnixStream, sender: &Sender) -> io::Result<()> {
    let log = Log::open();
    let tracepoint = Description::read();
    if let Err(error) = privileges::confine(Role::Janitor) {
        let said = Answer::Failed(error.to_string());
        return errand::answer(socket, &said, &[]).and(Err(error));
    }
    errand::answer(socket, &Answer::Ready, &[])?;
    serve(socket, (sender, tracepoint), &log)
}

/// Does errands until the socket ends, then settles what is open.
pub(super) fn serve(
    socket: &UnixStream,
    (sender, tracepoint): (&Sender, io::Result<Description>),
    log: &Log,
) -> io::Result<()> {
    let mut keeper = Keeper {
        ledger: Ledger::default(),
        sender,
        tracepoint,
        programs: BTreeMap::new(),
        is_settled: false,
    };
    for line in BufReader::new(socket).lines() {
        // A line that was cut off is a deed that was not done.
        let Ok(errand) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else {
            break;
        };
        if let Some((answer, files)) = keeper.obey(errand) {
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            // An agent that is gone wants no answer, and what it left is settled below.
            let _ = errand::answer(socket, &answer, &files);
        }
    }
    if keeper.is_settled {
        return Ok(());
    }
    let left = keeper.ledger.cleanups().count() + keeper.ledger.forgotten().count();
    let settled = keeper.settle();
    let how = match &settled {
        Ok(()) => "put right".to_owned(),
        Err(error) => format!("not put right: {error}"),
    };
    log.say(&format!(
        "the agent ended early; left behind: {left}, {how}"
    ));
    settled
}

struct Keeper<'a> {
    is_settled: bool,
    ledger: Ledger,
    sender: &'a Sender,
    tracepoint: io::Result<Description>,
    programs: BTreeMap<u32, Child>,
}

type Said = (Answer, Vec<OwnedFd>);

impl Keeper<'_> {
    fn obey(&mut self, errand: Errand) -> Option<Said> {
        let said = match errand {
            Errand::Opened { token, cleanup } => {
                self.ledger.open(token, cleanup);
                return None;
            }
            Errand::Closed { token } => {
                self.ledger.close(token);
                return None;
            }
            Errand::Forget { address, device } => self
                .forget(address, &device)
                .map(|old| (Answer::Forgotten(old), Vec::new())),
            Errand::Ipvs => ipvs::read()
                .map(|ipvs| (Answer::Ipvs(ipvs), Vec::new()))
                .map_err(|error| io::Error::other(with_causes(&error))),
            Errand::List(lister) => self.list(lister),
            Errand::End { process, kill } => self
                .end(process, kill)
                .map(|status| (Answer::Ended(status), Vec::new())),
            Errand::Watch => self.watch(),
            Errand::Settle => {
                self.is_settled = true;
                self.settle().map(|()| (Answer::Settled, Vec::new()))
            }
        };
        Some(said.unwrap_or_else(|error| {
            let text = error.to_string();
            let answer = match error.kind() {
                io::ErrorKind::NotFound => Answer::NoProgram(text),
                _ => Answer::Failed(text),
            };
            (answer, Vec::new())
        }))
    }

    fn forget(&mut self, address: Ipv4Addr, device: &str) -> io::Result<Option<Neighbour>> {
        let in_words = |error: neighbour::NeighbourError| io::Error::other(with_causes(&error));
        let Some((old, index)) = neighbour::find(address, device).map_err(in_words)? else {
            return Ok(None);
        };
        // Where a person made the entry it is not deleted, and putting it back changes nothing.
        self.ledger.forget(old, index);
        neighbour::forget(address, device).map_err(in_words)
    }

    fn list(&mut self, lister: Lister) -> io::Result<Said> {
        if self.programs.len() == MOST_PROGRAMS {
            let all = format!("{MOST_PROGRAMS} programs run already");
            return Err(io::Error::other(all));
        }
        let program = lister.program();
        let mut child = lister
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("run `{program}`: {error}")))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let process = child.id();
        self.programs.insert(process, child);
        let files = vec![OwnedFd::from(stdout), OwnedFd::from(stderr)];
        Ok((Answer::Runs(process), files))
    }

    fn end(&mut self, process: u32, kill: bool) -> io::Result<i32> {
        let Some(mut child) = self.programs.remove(&process) else {
            return Err(io::Error::other("no such program runs"));
        };
        let step = LAST_BREATH / 100;
        for _ in 0..100 {
            if kill {
                break;
            }
            if let Some(status) = child.try_wait()? {
                return Ok(status.into_raw());
            }
            sleep(step);
        }
        child.kill()?;
        Ok(child.wait()?.into_raw())
    }

    /// By the drop monitor, else by the tracepoint.
    fn watch(&mut self) -> io::Result<Said> {
        let watched = match self.monitor() {
            Ok((family, socket)) => Ok((Answer::Monitor(family), vec![socket])),
            Err(monitor) => match Source::open(&self.tracepoint) {
                Ok(source) => {
                    let answer = Answer::Tracepoint {
                        monitor: monitor.to_string(),
                        format: source.format,
                        events: source.events.len(),
                    };
                    let symbols = source.symbols.map(OwnedFd::from);
                    Ok((answer, source.events.into_iter().chain(symbols).collect()))
                }
                Err(error) => Err(io::Error::other(format!(
                    "{monitor}; tracepoint skb:kfree_skb: {error}"
                ))),
            },
        };
        privileges::watching_is_done()?;
        watched
    }

    /// Turns the kernel's drop monitor on, unless it is on already.
    fn monitor(&mut self) -> io::Result<(u16, OwnedFd)> {
        let mut monitor = Monitor::find()?;
        let watched = monitor.watched()?;
        let heard = monitor.listen()?;
        if let Watched::ByNobody(mode) = watched {
            self.ledger.watch(Some(mode));
            if let Err(error) = monitor.start() {
                // Somebody was faster; it may not be turned off.
                self.ledger.watch(None);
                return Err(error);
            }
        }
        Ok((monitor.family(), heard))
    }

    /// Closes what is open, puts back what was forgotten, and turns off what was turned on. The first thing that
    /// failed is returned; the rest is tried all the same.
    fn settle(&mut self) -> io::Result<()> {
        for mut child in std::mem::take(&mut self.programs).into_values() {
            // It can have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        let ledger = std::mem::take(&mut self.ledger);
        let mut result = Ok(());
        for (old, index) in ledger.forgotten() {
            let restored = neighbour::restore(old, *index);
            result = result.and(restored.map_err(|error| io::Error::other(with_causes(&error))));
        }
        if let Some(mode) = ledger.watching() {
            result = result.and(Monitor::find().and_then(|mut monitor| monitor.stop(mode)));
        }
        if ledger.cleanups().next().is_none() {
            return result;
        }
        let first = self.close(&ledger);
        sleep(REPEAT);
        let second = self.close(&ledger);
        result.and(first.or(second))
    }

    fn close(&self, ledger: &Ledger) -> io::Result<()> {
        let mut result = Ok(());
        for cleanup in ledger.cleanups() {
            if let SendOutcome::Refused { error, .. } = self.sender.send(cleanup) {
                result = result.and(Err(io::Error::other(format!("send a cleanup: {error}"))));
            }
            sleep(PACE);
        }
        result
    }
}
