//! The janitor: a child of the agent that has the keys, and outlives it.
//!
//! The agent, which reads what others wrote, has no right but the sockets that it opened at first. What takes more it
//! has the janitor do, whose few errands are these, and who does nothing else. The janitor is told of every deed before
//! it is done; when the socket ends before everything is settled, the agent was killed or lost its controller, and the
//! janitor settles what is open. It has a session of its own, so neither Ctrl-C nor a closing terminal ends it together
//! with the agent.

mod errand;
mod keeper;

use std::error::Error;
use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::exchange::Ipvs;
use crate::exchange::Neighbour;
use crate::exchange::Transmit;
use crate::live::janitor::errand::Answer;
pub(crate) use crate::live::janitor::errand::Errand;
pub(crate) use crate::live::janitor::errand::Lister;
use crate::live::send::Sender;
use crate::live::successor;
use crate::live::tracepoint::Source;

/// A janitor that has not answered by then is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two cleanups: the pace is that of the probes or slower.
pub(crate) const PACE: Duration = Duration::from_millis(1);

/// The agent's side. Clones speak to the same janitor.
#[derive(Clone, Debug)]
pub struct Janitor {
    socket: Arc<Mutex<UnixStream>>,
    process: Option<Pid>,
}

/// A program that the janitor runs.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Its number.
    pub(crate) process: u32,
    /// What it prints.
    pub(crate) stdout: OwnedFd,
    /// What it says of itself.
    pub(crate) stderr: OwnedFd,
}

/// How the kernel tells of drops.
pub(crate) enum Watch {
    /// By the drop monitor: its family, and the socket that hears it.
    Monitor(u16, OwnedFd),
    /// By the tracepoint; why not by the drop monitor.
    Tracepoint(Source, String),
}

/// A janitor that was called and does not stand by yet.
#[derive(Debug)]
pub struct Called {
    socket: UnixStream,
    process: Pid,
}

impl Called {
    /// Waits until it stands by.
    ///
    /// # Errors
    ///
    /// If it cannot give up what it does not need, or does not answer.
    pub(crate) fn stand_by(self) -> io::Result<Janitor> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        match errand::read_answer(&self.socket) {
            Ok((Answer::Ready, _)) => Ok(Janitor {
                socket: Arc::new(Mutex::new(self.socket)),
                process: Some(self.process),
            }),
            Ok((Answer::Failed(why), _)) => Err(io::Error::other(why)),
            Ok((other, _)) => Err(out_of_turn(&other)),
            Err(error) => {
                drop(self.socket);
                let status = waitpid(self.process, None)?;
                Err(io::Error::other(format!("{error} ({status:?})")))
            }
        }
    }
}

impl Janitor {
    /// Starts a janitor that sends by the same sockets: a copy of this process, which must have no other threads, and
    /// nothing open that is to end.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn call(sender: &Sender) -> io::Result<Called> {
        let live = |socket| keeper::run(&socket, sender);
        let (socket, process) = successor::beside("janitor", live)?;
        Ok(Called { socket, process })
    }

    /// One that is a thread of this process, with all its rights, in the calling thread's network namespace.
    #[cfg(test)]
    pub(crate) fn thread() -> Janitor {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sender = Sender::open().unwrap();
        std::thread::spawn(move || {
            let tracepoint = crate::live::tracepoint::Description::read();
            keeper::serve(
                &theirs,
                (&sender, tracepoint),
                &crate::live::log::Log::open(),
            )
        });
        Janitor {
            socket: Arc::new(Mutex::new(ours)),
            process: None,
        }
    }

    /// Tells of a packet that is about to go out, and what closes what it opens.
    ///
    /// # Errors
    ///
    /// If the janitor is gone: the packet must not go out then.
    pub(crate) fn opened(&self, token: u32, cleanup: Transmit) -> io::Result<()> {
        self.tell(&Errand::Opened { token, cleanup })
    }

    /// Tells that this is closed, or never went out. A janitor that is gone closes nothing twice.
    pub(crate) fn closed(&self, token: u32) {
        let _ = self.tell(&Errand::Closed { token });
    }

    /// Deletes a neighbour entry; what it was, `None` if there was none, or it is not the kernel's own to forget.
    ///
    /// # Errors
    ///
    /// If the janitor is gone, or the entry cannot be deleted.
    pub(crate) fn forget(&self, address: Ipv4Addr, device: &str) -> io::Result<Option<Neighbour>> {
        let device = device.to_owned();
        match self.ask(&Errand::Forget { address, device })?.0 {
            Answer::Forgotten(old) => Ok(old),
            other => Err(out_of_turn(&other)),
        }
    }

    /// Reads the kernel's IPVS.
    ///
    /// # Errors
    ///
    /// If the janitor is gone, or the kernel refused.
    pub(crate) fn ipvs(&self) -> io::Result<Ipvs> {
        match self.ask(&Errand::Ipvs)?.0 {
            Answer::Ipvs(ipvs) => Ok(ipvs),
            other => Err(out_of_turn(&other)),
        }
    }

    /// Runs a program that lists the firewall's rules.
    ///
    /// # Errors
    ///
    /// If the janitor is gone, or the program does not start; `NotFound`, if it is not there.
    pub(crate) fn list(&self, lister: Lister) -> io::Result<Listing> {
        let (answer, mut files) = self.ask(&Errand::List(lister))?;
        match (answer, files.pop(), files.pop()) {
            (Answer::Runs(process), Some(stderr), Some(stdout)) => Ok(Listing {
                process,
                stdout,
                stderr,
            }),
            (other, ..) => Err(out_of_turn(&other)),
        }
    }

    /// How such a program has ended; `kill`, if it is not to go on.
    ///
    /// # Errors
    ///
    /// If the janitor is gone.
    pub(crate) fn end(&self, process: u32, kill: bool) -> io::Result<ExitStatus> {
        match self.ask(&Errand::End { process, kill })?.0 {
            Answer::Ended(status) => Ok(ExitStatus::from_raw(status)),
            other => Err(out_of_turn(&other)),
        }
    }

    /// Has the kernel tell of the packets that it drops.
    ///
    /// # Errors
    ///
    /// If it does in no way, or the janitor is gone.
    pub(crate) fn watch(&self) -> io::Result<Watch> {
        match self.ask(&Errand::Watch)? {
            (Answer::Monitor(family), mut files) if files.len() == 1 => {
                Ok(Watch::Monitor(family, files.remove(0)))
            }
            (
                Answer::Tracepoint {
                    monitor,
                    format,
                    events,
                },
                mut files,
            ) if files.len() >= events => {
                let symbols = files.split_off(events).pop();
                let source = Source {
                    events: files,
                    symbols: symbols.map(Into::into),
                    format,
                };
                Ok(Watch::Tracepoint(source, monitor))
            }
            (other, _) => Err(out_of_turn(&other)),
        }
    }

    /// Has everything settled.
    ///
    /// # Errors
    ///
    /// What could not be settled, or that the janitor was gone before.
    pub fn settle(&self) -> io::Result<()> {
        match self.ask(&Errand::Settle)?.0 {
            Answer::Settled => Ok(()),
            other => Err(out_of_turn(&other)),
        }
    }

    /// Sends it home.
    pub(crate) fn dismiss(&self) {
        let socket = self.socket.lock().expect("no holder panics");
        // One that is gone wants no word.
        let _ = socket.shutdown(Shutdown::Both);
    }

    /// Waits until it is home.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for.
    pub(crate) fn farewell(self) -> io::Result<()> {
        if let Some(process) = self.process {
            waitpid(process, None)?;
        }
        Ok(())
    }

    fn tell(&self, errand: &Errand) -> io::Result<()> {
        let socket = self.socket.lock().expect("no holder panics");
        write(&socket, errand).map_err(gone)
    }

    fn ask(&self, errand: &Errand) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let socket = self.socket.lock().expect("no holder panics");
        write(&socket, errand).map_err(gone)?;
        let answer = errand::read_answer(&socket).inspect_err(|_| {
            // An answer that is late would pass for that to the next question.
            let _ = socket.shutdown(Shutdown::Both);
        });
        match answer.map_err(gone)? {
            (Answer::Failed(why), _) => Err(io::Error::other(why)),
            (Answer::NoProgram(why), _) => Err(io::Error::new(io::ErrorKind::NotFound, why)),
            answer => Ok(answer),
        }
    }
}

fn write(mut socket: &UnixStream, errand: &Errand) -> io::Result<()> {
    let mut line = serde_json::to_vec(errand)?;
    line.push(b'\n');
    socket.write_all(&line)
}

fn gone(error: io::Error) -> io::Error {
    io::Error::other(format!(
        "not done, for the janitor that would do it, or clean up, is gone: {error}"
    ))
}

fn out_of_turn(answer: &Answer) -> io::Error {
    io::Error::other(format!(
        "the janitor said something out of turn: {answer:?}"
    ))
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
