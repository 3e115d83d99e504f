//! What an agent and its janitor say to each other: lines of JSON over a socket, with open files where they go along.

use std::io;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::sendmsg;
use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Ipvs;
use crate::exchange::Neighbour;
use crate::exchange::Transmit;
use crate::live::sys;
use crate::live::tracepoint::Format;

/// What the janitor is told, or asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Errand {
    /// A packet goes out that opens something. Not answered.
    Opened {
        /// Its token.
        token: u32,
        /// What closes it.
        cleanup: Transmit,
    },
    /// It is closed, or never went out. Not answered.
    Closed {
        /// Its token.
        token: u32,
    },
    /// Delete a neighbour entry, and put it back at the end. Answer: [`Answer::Forgotten`].
    Forget {
        /// The neighbour.
        address: Ipv4Addr,
        /// Its device.
        device: String,
    },
    /// Read the kernel's IPVS. Answer: [`Answer::Ipvs`].
    Ipvs,
    /// Run a program that lists rules. Answer: [`Answer::Runs`], with its stdout and stderr.
    List(Lister),
    /// Wait for such a program's end, or kill it. Answer: [`Answer::Ended`].
    End {
        /// Its number.
        process: u32,
        /// Whether it has had its time.
        kill: bool,
    },
    /// Have the kernel tell of drops, until the end. Answer: [`Answer::Monitor`] or [`Answer::Tracepoint`].
    Watch,
    /// Put everything right. Answer: [`Answer::Settled`].
    Settle,
}

/// What the janitor answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It stands by. Unasked, at the beginning.
    Ready,
    /// What the entry was; `None` if there was none, or it is not the kernel's own to forget.
    Forgotten(Option<Neighbour>),
    /// What is there.
    Ipvs(Ipvs),
    /// The program's number.
    Runs(u32),
    /// Its exit status, as `wait` gives it.
    Ended(i32),
    /// The drop monitor's family; the socket that hears it goes along.
    Monitor(u16),
    /// Why there is no drop monitor, and how to read the tracepoint's events, which go along, one a CPU; behind them
    /// the kernel's list of symbols, if it can be read.
    Tracepoint {
        /// Why.
        monitor: String,
        /// How.
        format: Format,
        /// How many events go along.
        events: usize,
    },
    /// All is as it was.
    Settled,
    /// There is no such program.
    NoProgram(String),
    /// It could not be done.
    Failed(String),
}

/// A program that lists the firewall's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Lister {
    /// nftables, for programs.
    NftJson,
    /// nftables, for people.
    NftText,
    /// iptables, of whatever kind.
    Iptables,
    /// iptables of the older kind.
    IptablesLegacy,
}

/// Where the programs are. They get capabilities that whoever started the agent may not have, so neither that one's
/// PATH decides what is run nor the rest of the environment how.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";

impl Lister {
    /// The program's name.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Lister::NftJson | Lister::NftText => "nft",
            Lister::Iptables => "iptables-save",
            Lister::IptablesLegacy => "iptables-legacy-save",
        }
    }

    /// What runs it.
    pub(crate) fn command(self) -> Command {
        let arguments: &[&str] = match self {
            Lister::NftJson => &["-j", "-t", "-p", "list", "ruleset"],
            Lister::NftText => &["-a", "-t", "-p", "list", "ruleset"],
            Lister::Iptables | Lister::IptablesLegacy => &["-c"],
        };
        let mut command = Command::new(self.program());
        command.args(arguments).env_clear();
        command.env("PATH", PATH).env("LC_ALL", "C");
        command
    }
}

/// How many files the kernel takes along with one piece of a stream (`SCM_MAX_FD` is 253).
const AT_ONCE: usize = 200;

/// Writes an answer. Files go before it, with spaces, which JSON does not mind.
pub(super) fn answer(
    socket: &UnixStream,
    answer: &Answer,
    files: &[BorrowedFd<'_>],
) -> io::Result<()> {
    for some in files.chunks(AT_ONCE) {
        let files: Vec<_> = some.iter().map(AsRawFd::as_raw_fd).collect();
        sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(b" ")],
            &[ControlMessage::ScmRights(&files)],
            MsgFlags::empty(),
            None,
        )?;
    }
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    io::Write::write_all(&mut &*socket, &line)
}

/// Reads an answer, and the files that go along. Nothing comes behind it that was not asked for.
pub(super) fn read_answer(socket: &UnixStream) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    while !line.ends_with(b"\n") {
        match sys::receive_files(&socket.as_fd(), &mut buffer, &mut files) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => line.extend(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((serde_json::from_slice(&line)?, files))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::io::Write;

    use super::*;

    #[test]
    fn files_go_along_however_many() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut reading, mut writing) = io::pipe().unwrap();
        writing.write_all(b"through it").unwrap();
        drop(writing);
        let files: Vec<_> = (0..450).map(|_| reading.try_clone().unwrap()).collect();
        let borrowed: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let said = Answer::Failed("x".repeat(10_000));
        let writer = std::thread::spawn({
            let said = said.clone();
            let near = near.try_clone().unwrap();
            let own: Vec<OwnedFd> = borrowed
                .iter()
                .map(|file| file.try_clone_to_owned().unwrap())
                .collect();
            move || {
                let own: Vec<_> = own.iter().map(AsFd::as_fd).collect();
                answer(&near, &said, &own).unwrap();
            }
        });
        let (heard, received) = read_answer(&far).unwrap();
        writer.join().unwrap();
        assert_eq!((heard, received.len()), (said, 450));
        drop(files);
        let mut text = String::new();
        let last = received.into_iter().next_back().unwrap();
        File::from(last).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through it");
        assert_eq!(reading.read(&mut [0; 1]).unwrap(), 0);
        drop(near);
        let ended = read_answer(&far).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }
}
