//! The starter: a child of the controller that keeps its rights, and starts agents with them.
//!
//! A controller reads what agents say, and `monitor` what the network asks it, so it has no right but to write its
//! reports. What reaches a host (`ip netns exec`, `sudo`, `ssh` with its keys) may need every right of the user who
//! typed it. So a process of its own is given those commands before anything else is read; from then on it reads
//! numbers, starts the command of that number on pipes that go along, and tells how it ended. It can be had to do
//! nothing else, and a command runs once at a time. It ends when its controller and all that it started have.

use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pair;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::process::Command as Program;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recv;
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
use tokio::sync::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::live::sys;

/// How a request is written: the command's number. With it go the ends of stdin, stdout, stderr and the leash.
type Number = [u8; 4];

/// How long a command may go on that nobody holds any more: an `ssh` that asks for a password asks whoever types next.
const UNHELD: Duration = Duration::from_secs(10);

/// How long a controller waits for the end of its starter, which has nothing to do any more.
const PARTING: Duration = Duration::from_secs(1);

/// The controller's side. Dropping it ends the starter, which waits for what it has started.
#[derive(Debug)]
pub(crate) struct Starter {
    socket: Pair,
    commands: Vec<Vec<String>>,
    /// `None` for a thread.
    process: Option<Child>,
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
/// any more, the command goes on for a while: its stdin has ended then, too.
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
        let process = Program::new(program)
            .arg0("tunproof")
            .args(["agent", "--starter"])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let text = serde_json::to_vec(&commands)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        socket.write_all(&length.to_be_bytes())?;
        socket.write_all(&text)?;
        Ok(Starter {
            socket,
            commands,
            process: Some(process),
        })
    }

    /// A command, by its number.
    pub(crate) fn command(&self, number: usize) -> &[String] {
        &self.commands[number]
    }

    /// Starts a command.
    ///
    /// # Errors
    ///
    /// If it does not exist, or may not be run; if it runs already; or if the starter is gone.
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
            libc::EBUSY => {
                let before = "what it started before has not ended";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, before))
            }
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Whether it is there: it may have been killed.
    pub(crate) fn is_there(&self) -> bool {
        let how = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // It says nothing.
        recv(self.socket.as_raw_fd(), &mut [0], how) == Err(Errno::EAGAIN)
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

/// Waits for the starter, so that its processor time, and that of all that it started, count as its controller's.
impl Drop for Starter {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let Some(process) = &mut self.process else {
            return;
        };
        // It says nothing; that its side is closed is its end. A command that does not end is left to it.
        let limited = self.socket.set_read_timeout(Some(PARTING));
        if limited.is_ok() && matches!((&self.socket).read(&mut [0]), Ok(0)) {
            let _ = process.wait();
        }
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
    let commands: Vec<Vec<String>> = serde_json::from_slice(&text(&socket)?)?;
    socket.set_nonblocking(true)?;
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            // Who ends all processes at once (`timeout`, a service manager) has the controller clean up, which is to be
            // told how its agents ended. What is started inherits no handler.
            let _heard = signal(SignalKind::terminate())?;
            serve(UnixStream::from_std(socket)?, commands).await
        })
}

/// Reads a text whose length stands before it, and nothing behind it.
fn text(mut socket: &Pair) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    let mut text = Vec::new();
    match socket.take(length.into()).read_to_end(&mut text)? {
        read if read == length as usize => Ok(text),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn serve(socket: UnixStream, commands: Vec<Vec<String>>) -> io::Result<()> {
    let commands: Vec<_> = commands.into_iter().map(Mutex::new).map(Arc::new).collect();
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
        // Whose the word is, its command runs: never more than there are commands, whatever is asked.
        minded.spawn(mind(Arc::clone(command).try_lock_owned().ok(), files));
        while minded.try_join_next().is_some() {}
        // Others wait for their answer, which is soon given.
        while minded.len() > 2 * commands.len() {
            minded.join_next().await;
        }
    }
    minded.join_all().await;
    Ok(())
}

/// Starts a command, unless it runs, and tells how it ended.
async fn mind(
    argv: Option<OwnedMutexGuard<Vec<String>>>,
    [stdin, stdout, stderr, leash]: [OwnedFd; 4],
) {
    let leash = Pair::from(leash);
    let asynchronous = leash.set_nonblocking(true);
    let Ok(mut leash) = asynchronous.and_then(|()| UnixStream::from_std(leash)) else {
        return;
    };
    let spawned = match &argv {
        Some(argv) => {
            let mut words = argv.iter();
            Command::new(words.next().map_or("", String::as_str))
                .args(words)
                .stdin(stdin)
                .stdout(stdout)
                .stderr(stderr)
                .spawn()
        }
        None => Err(io::Error::from_raw_os_error(libc::EBUSY)),
    };
    // A controller that is gone wants no answer, and for one that does not take it nobody waits.
    match spawned {
        Ok(mut child) => {
            say(&mut leash, 0).await;
            let status = tokio::select! {
                status = child.wait() => status,
                word = leash.read_u8() => {
                    if word.is_ok() || timeout(UNHELD, child.wait()).await.is_err() {
                        let _ = child.start_kill();
                    }
                    child.wait().await
                }
            };
            // Who hears of its end may start it at once.
            drop(argv);
            if let Ok(status) = status {
                say(&mut leash, status.into_raw()).await;
            }
        }
        Err(error) => {
            drop(argv);
            say(&mut leash, error.raw_os_error().unwrap_or(libc::EINVAL)).await;
        }
    }
}

async fn say(leash: &mut UnixStream, word: i32) {
    let _ = timeout(PARTING, leash.write_i32(word)).await;
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
            runtime.block_on(serve(socket, known)).unwrap();
        });
        Starter {
            socket,
            commands,
            process: None,
        }
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

    #[tokio::test]
    async fn a_command_runs_once_at_a_time_whatever_is_asked() {
        let starter = thread(&[&["sh", "-c", "echo here; exec cat"], &["true"]]);
        let first = starter.start(0).await.unwrap();
        for _ in 0..3 {
            let error = starter.start(0).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
            assert!(error.to_string().contains("has not ended"), "{error}");
        }
        // Who takes no answers, and keeps nothing, does not use it up.
        let null = || {
            OwnedFd::from(
                File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/null")
                    .unwrap(),
            )
        };
        for _ in 0..5_000 {
            let (_, leash) = Pair::pair().unwrap();
            let files = [null(), null(), null(), leash.into()];
            starter.ask(0, &files).unwrap();
        }
        starter.start(1).await.unwrap();
        assert!(starter.is_there());
        drop(first.stdin);
        let mut leash = first.leash;
        assert!(leash.ended().await.unwrap().success());
        starter.start(0).await.unwrap();
    }

    #[tokio::test]
    async fn answers_that_nobody_takes_keep_nobody_waiting() {
        let starter = thread(&[&["true"]]);
        for _ in 0..6 {
            let (ours, theirs) = Pair::pair().unwrap();
            let full = theirs.try_clone().unwrap();
            full.set_nonblocking(true).unwrap();
            while (&full).write(&[0; 4096]).is_ok() {}
            let null = || OwnedFd::from(File::open("/dev/null").unwrap());
            starter
                .ask(0, &[null(), null(), null(), theirs.into()])
                .unwrap();
            drop(full);
            // Kept open, and not read.
            std::mem::forget(ours);
        }
        let mut started = loop {
            match starter.start(0).await {
                Ok(started) => break started,
                Err(error) => assert!(error.to_string().contains("has not ended"), "{error}"),
            }
        };
        assert!(started.leash.ended().await.unwrap().success());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_holds_and_does_not_end_is_killed() {
        let command = Arc::new(Mutex::new(["sleep", "1000"].map(str::to_owned).to_vec()));
        let (mut stdout, theirs) = pipe::pipe().map(|(to, from)| (from, to)).unwrap();
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let (_, leash) = Pair::pair().unwrap();
        let files = [
            null(),
            theirs.into_blocking_fd().unwrap(),
            null(),
            leash.into(),
        ];
        mind(Arc::clone(&command).try_lock_owned().ok(), files).await;
        assert!(command.try_lock().is_ok());
        assert_eq!(stdout.read(&mut [0]).await.unwrap(), 0);
    }
}
