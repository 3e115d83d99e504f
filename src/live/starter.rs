//! The starter: a child of the controller that keeps its rights, and starts agents with them.
//!
//! A controller reads what agents say, and `monitor` what the network asks it, so it has no right but to write its
//! reports. What reaches a host (`ip netns exec`, `sudo`, `ssh` with its keys) may need every right of the user who
//! typed it. So a process of its own is given those commands before anything else is read; from then on it reads
//! numbers, starts the command of that number on pipes that go along, and tells how it ended. It can be had to do
//! nothing else. It ends when its controller and all that it started have.

use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process;
use std::process::ExitStatus;
use std::process::Stdio;

use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::sendmsg;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::runtime;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::JoinSet;

use crate::live::sys;

/// How a request is written: the command's number. With it go the ends of stdin, stdout, stderr and the leash.
type Number = [u8; 4];

/// The controller's side.
#[derive(Debug)]
pub(crate) struct Starter {
    socket: Pair,
    commands: Vec<Vec<String>>,
}

/// A command that was started. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) stdin: pipe::Sender,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
    pub(crate) leash: Leash,
}

/// By which a command that was started is held: it tells of its end, and a word into it is that end. If nobody holds it
/// any more, the command goes on: its stdin has ended then, too.
#[derive(Debug)]
pub(crate) struct Leash(UnixStream);

impl Starter {
    /// Has `program`, which is tunproof, start these commands with the rights that this process has now.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub(crate) fn call(program: &Path, commands: Vec<Vec<String>>) -> io::Result<Starter> {
        let (mut socket, theirs) = Pair::pair()?;
        // It is not waited for: it may have to wait longer than its controller.
        process::Command::new(program)
            .arg0("tunproof")
            .args(["agent", "--starter"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = serde_json::to_vec(&commands)?;
        line.push(b'\n');
        socket.write_all(&line)?;
        Ok(Starter { socket, commands })
    }

    /// A command, by its number.
    pub(crate) fn command(&self, number: usize) -> &[String] {
        &self.commands[number]
    }

    /// Starts a command.
    ///
    /// # Errors
    ///
    /// If it does not exist, or may not be run; or if the starter is gone.
    pub(crate) async fn start(&self, number: usize) -> io::Result<Started> {
        let (stdin, theirs) = pipe::pipe()?;
        let mut files = vec![theirs.into_blocking_fd()?];
        let (theirs, stdout) = pipe::pipe()?;
        files.push(theirs.into_blocking_fd()?);
        let (theirs, stderr) = pipe::pipe()?;
        files.push(theirs.into_blocking_fd()?);
        let (leash, theirs) = Pair::pair()?;
        files.push(theirs.into());
        self.ask(number, &files)?;
        drop(files);
        leash.set_nonblocking(true)?;
        let mut leash = Leash(UnixStream::from_std(leash)?);
        match leash.0.read_i32().await.map_err(gone)? {
            0 => Ok(Started {
                stdin,
                stdout,
                stderr,
                leash,
            }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn ask(&self, number: usize, files: &[OwnedFd]) -> io::Result<()> {
        let number: Number = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        let files: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[io::IoSlice::new(&number)],
            &[ControlMessage::ScmRights(&files)],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .map_err(|errno| gone(errno.into()))?;
        Ok(())
    }
}

impl Leash {
    /// Waits for the command's end; `None` if nobody can tell of it any more.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        self.0.read_i32().await.ok().map(ExitStatus::from_raw)
    }

    /// Kills the command.
    pub(crate) fn kill(&self) {
        // It can have ended meanwhile, which is as good.
        let _ = self.0.try_write(b"k");
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.kill();
    }
}

fn gone(error: io::Error) -> io::Error {
    io::Error::other(format!("the process that starts it is gone: {error}"))
}

/// From `agent --starter` on: starts what is asked for on stdin until that ends, and all that was started has.
///
/// # Errors
///
/// If its stdin is none of a controller's.
pub fn run() -> io::Result<()> {
    // What it starts inherits that.
    sys::ignore_interrupt();
    let socket = Pair::from(io::stdin().as_fd().try_clone_to_owned()?);
    let commands: Vec<Vec<String>> = serde_json::from_slice(&line(&socket)?)?;
    socket.set_nonblocking(true)?;
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            // Who ends all processes at once (`timeout`, a service manager) has the controller clean up, which is to be
            // told how its agents ended. What is started inherits no handler.
            let _heard = signal(SignalKind::terminate())?;
            serve(UnixStream::from_std(socket)?, &commands).await
        })
}

/// Reads a line and nothing behind it.
fn line(mut socket: &Pair) -> io::Result<Vec<u8>> {
    let (mut line, mut octet) = (Vec::new(), [0]);
    while !line.ends_with(b"\n") {
        socket.read_exact(&mut octet)?;
        line.extend(octet);
    }
    Ok(line)
}

async fn serve(socket: UnixStream, commands: &[Vec<String>]) -> io::Result<()> {
    let mut minded = JoinSet::new();
    loop {
        let (mut number, mut files) = (Number::default(), Vec::new());
        let received = socket.async_io(Interest::READABLE, || {
            sys::receive_files(&socket.as_fd(), &mut number, &mut files)
        });
        let is_whole = matches!(received.await, Ok(length) if length == number.len());
        let command = commands.get(u32::from_be_bytes(number) as usize);
        let (true, Some(command), Ok(files)) = (is_whole, command, files.try_into()) else {
            break;
        };
        minded.spawn(mind(command.clone(), files));
        while minded.try_join_next().is_some() {}
    }
    minded.join_all().await;
    Ok(())
}

/// Starts a command, and tells how it ended.
async fn mind(argv: Vec<String>, [stdin, stdout, stderr, leash]: [OwnedFd; 4]) {
    let leash = Pair::from(leash);
    let asynchronous = leash.set_nonblocking(true);
    let Ok(mut leash) = asynchronous.and_then(|()| UnixStream::from_std(leash)) else {
        return;
    };
    let mut words = argv.iter();
    let spawned = Command::new(words.next().map_or("", String::as_str))
        .args(words)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn();
    // A controller that is gone wants no answer.
    match spawned {
        Ok(mut child) => {
            let _ = leash.write_i32(0).await;
            let status = tokio::select! {
                status = child.wait() => status,
                word = leash.read_u8() => {
                    if word.is_ok() {
                        let _ = child.start_kill();
                    }
                    child.wait().await
                }
            };
            if let Ok(status) = status {
                let _ = leash.write_i32(status.into_raw()).await;
            }
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            let _ = leash.write_i32(errno).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has a starter that is a thread of this process start these commands.
    fn thread(commands: &[&[&str]]) -> Starter {
        let (socket, theirs) = Pair::pair().unwrap();
        let commands: Vec<Vec<String>> = commands
            .iter()
            .map(|words| words.iter().map(ToString::to_string).collect())
            .collect();
        let known = commands.clone();
        std::thread::spawn(move || {
            theirs.set_nonblocking(true).unwrap();
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            let _within = runtime.enter();
            let socket = UnixStream::from_std(theirs).unwrap();
            runtime.block_on(serve(socket, &known)).unwrap();
        });
        Starter { socket, commands }
    }

    #[tokio::test]
    async fn commands_are_started_by_their_number_as_often_as_asked() {
        let starter = thread(&[
            &["/nonesuch/program"],
            &["sh", "-c", "cat; echo end >&2; exit 7"],
        ]);
        let error = starter.start(0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        for _ in 0..2 {
            let mut started = starter.start(1).await.unwrap();
            started.stdin.write_all(b"through it").await.unwrap();
            drop(started.stdin);
            let (mut said, mut complained) = (String::new(), String::new());
            started.stdout.read_to_string(&mut said).await.unwrap();
            let stderr = started.stderr.read_to_string(&mut complained);
            stderr.await.unwrap();
            assert_eq!((&*said, &*complained), ("through it", "end\n"));
            let status = started.leash.ended().await.unwrap();
            assert_eq!(status.code(), Some(7));
            started.leash.kill();
        }
        let error = starter.start(2).await.unwrap_err();
        assert!(error.to_string().contains("is gone"), "{error}");
    }

    #[tokio::test]
    async fn what_is_let_go_of_is_killed() {
        let starter = thread(&[&["sh", "-c", "echo $$; exec sleep 1000"]]);
        let mut started = starter.start(0).await.unwrap();
        started.stdout.read_u8().await.unwrap();
        started.leash.kill();
        let status = started.leash.ended().await.unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        let mut started = starter.start(0).await.unwrap();
        drop(started.leash);
        // Nobody writes to it any more.
        started.stdout.read_to_end(&mut Vec::new()).await.unwrap();
        // Without a controller it goes on until its stdin ends.
        let starter = thread(&[&["sh", "-c", "echo here; cat; echo gone"]]);
        let Started {
            stdin,
            mut stdout,
            leash,
            ..
        } = starter.start(0).await.unwrap();
        drop(starter);
        let Leash(ref unheld) = leash;
        nix::sys::socket::shutdown(unheld.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        drop(stdin);
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "here\ngone\n");
    }
}
