//! Copies of this process; and a successor, one that does what is left to do if the process is killed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::live::sys;
pub(crate) use crate::live::sys::SharedBits;

/// A successor that is not ready by then is none.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it says when it is ready, and what it is told when nothing is left to do.
const READY: &[u8] = b"ready";
const NOTHING: &[u8] = b"nothing";

/// That something goes on in this network namespace: from the claim on until this process has ended, and the successor
/// that it has meanwhile.
#[derive(Debug)]
pub(crate) struct Claim(#[expect(dead_code, reason = "its being open is the claim")] UnixListener);

impl Claim {
    /// Claims a name; `None` while somebody else has it.
    ///
    /// # Errors
    ///
    /// If there can be no such socket.
    pub(crate) fn of(name: &str) -> io::Result<Option<Claim>> {
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?) {
            Ok(listener) => Ok(Some(Claim(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A process that stands by.
#[derive(Debug)]
pub(crate) struct Successor {
    socket: UnixStream,
    process: Pid,
}

impl Successor {
    /// Has a copy of this process `prepare`, and `inherit` once this one has ended without [`Successor::dismiss`]. The
    /// copy is one that lives [`beside`] this process.
    ///
    /// # Errors
    ///
    /// If there can be no copy, or it could not prepare.
    pub(crate) fn stand_by(
        prepare: impl FnOnce() -> io::Result<()>,
        inherit: impl FnOnce(),
    ) -> io::Result<Successor> {
        let live = |socket: UnixStream| {
            if wait(&socket, prepare)? {
                inherit();
            }
            Ok(())
        };
        let (socket, process) = beside("successor", live)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut said = Vec::new();
        (&socket).read_to_end(&mut said)?;
        if said == READY {
            return Ok(Successor { socket, process });
        }
        drop(socket);
        waitpid(process, None)?;
        let why = String::from_utf8_lossy(&said).into_owned();
        Err(io::Error::other(why))
    }

    /// Nothing is left to do.
    pub(crate) fn dismiss(self) {
        // One that was killed wants no word.
        let _ = (&self.socket).write_all(NOTHING);
        drop(self.socket);
        let _ = waitpid(self.process, None);
    }
}

/// A copy of this process, which must have no other threads, that does this and ends. It is called `name`, has a session
/// of its own, so that nothing ends both, and no stdin, stdout and stderr: what it has to say goes by a socket, whose other
/// end is given back.
pub(super) fn beside(
    name: &str,
    live: impl FnOnce(UnixStream) -> io::Result<()>,
) -> io::Result<(UnixStream, Pid)> {
    let (ours, theirs) = UnixStream::pair()?;
    if let Some(process) = sys::fork()? {
        return Ok((ours, Pid::from_raw(process)));
    }
    drop(ours);
    // What it says goes nowhere any more; that it cannot be said is said by the status.
    let status = match detach(name).and_then(|()| live(theirs)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    std::process::exit(status)
}

fn detach(name: &str) -> io::Result<()> {
    sys::ignore_endings();
    // It fails only if this is a session of its own already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_name(&CString::new(name)?)?;
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nowhere)?;
    nix::unistd::dup2_stdout(&nowhere)?;
    nix::unistd::dup2_stderr(&nowhere)?;
    Ok(())
}

/// Prepares, and waits for the end of the first process; whether there is something to do then.
fn wait(mut socket: &UnixStream, prepare: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
    let prepared = prepare();
    match &prepared {
        Ok(()) => socket.write_all(READY)?,
        Err(error) => socket.write_all(error.to_string().as_bytes())?,
    }
    socket.shutdown(Shutdown::Write)?;
    let mut told = Vec::new();
    socket.read_to_end(&mut told)?;
    Ok(prepared.is_ok() && told != NOTHING)
}
