//! Bringing this program along to a host that lacks it, through the very command that agents are started by.
//!
//! The command is given `/bin/sh`, and the shell its script on stdin, so that no word needs quoting: ssh hands words
//! to whatever login shell is there, `docker exec` and `ip netns exec` to none. The script makes a private folder in
//! which programs may be run, says so, takes the program from stdin, and removes the folder before it starts it by its
//! open file. So nothing is overwritten, and from the agent's first word on nothing is left to be removed, whoever
//! is killed; if the connection is cut before, the script sees less than was announced and removes what came.

use std::fs;
use std::io;
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::time::timeout;

/// What is started in place of an agent.
pub(crate) const SHELL: &str = "/bin/sh";

/// How much is written at a time, in octets; each must get away in time.
const CHUNK: usize = 64 * 1024;

/// The longest answer of the script, in octets.
const LINE: u64 = 512;

/// Why the program could not be brought there.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// This program cannot be read.
    #[error("cannot read this program to push it: {0}")]
    Own(#[source] io::Error),
    /// The script did not get as far as its first line.
    #[error("expected a shell's answer to `--push`, got `{}`", .0.escape_debug())]
    Answer(String),
    /// It is for another machine.
    #[error("that host is {there}, and this tunproof is built for {here}", here = std::env::consts::ARCH)]
    Machine {
        /// What `uname -m` says there.
        there: String,
    },
    /// There is no folder for it.
    #[error(
        "no folder there takes a program that can be run: tried $TMPDIR, /tmp, /var/tmp and /run (mounted noexec, \
         full, or not writable)"
    )]
    Nowhere,
    /// It did not get through.
    #[error("the program did not get through")]
    Cut(#[source] io::Error),
    /// It does not get on.
    #[error("nothing moved for {}", humantime::format_duration(*.0))]
    Stalled(Duration),
}

/// Brings this program through a shell that was started there, which then starts it as an agent on the same pipes.
/// Each step may take `limit`.
pub(crate) async fn push(
    to: &mut pipe::Sender,
    from: &mut BufReader<pipe::Receiver>,
    limit: Duration,
) -> Result<(), PushError> {
    let program = fs::read("/proc/self/exe").map_err(PushError::Own)?;
    let stalled = |_| PushError::Stalled(limit);
    let script = script(program.len());
    let asked = timeout(limit, to.write_all(script.as_bytes())).await;
    asked.map_err(stalled)?.map_err(PushError::Cut)?;
    let mut line = Vec::new();
    let mut head = from.take(LINE);
    let read = timeout(limit, head.read_until(b'\n', &mut line)).await;
    read.map_err(stalled)?.map_err(PushError::Cut)?;
    ready(&String::from_utf8_lossy(&line))?;
    for chunk in program.chunks(CHUNK) {
        let sent = timeout(limit, to.write_all(chunk)).await;
        sent.map_err(stalled)?.map_err(PushError::Cut)?;
    }
    let sent = timeout(limit, to.flush()).await;
    sent.map_err(stalled)?.map_err(PushError::Cut)
}

/// Whether the script waits for this very program.
fn ready(line: &str) -> Result<(), PushError> {
    let words: Vec<_> = line.trim_end().split(' ').collect();
    match words[..] {
        ["tunproof", "push", machine, place] => {
            if machine != std::env::consts::ARCH {
                let there = machine.escape_debug().to_string();
                return Err(PushError::Machine { there });
            }
            match place {
                "ready" => Ok(()),
                _ => Err(PushError::Nowhere),
            }
        }
        _ => Err(PushError::Answer(line.trim_end().to_owned())),
    }
}

/// The script, for any POSIX shell with the usual programs beside it (coreutils, busybox, toybox). A shell may read
/// ahead of the command that it carries out: it is one command, and the program is not sent before it has answered.
fn script(size: usize) -> String {
    const SCRIPT: &str = r#"{
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; export PATH
umask 077
d=
trap 'test -z "$d" || rm -rf "$d"' EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 141' PIPE; trap 'exit 143' TERM
try() {
    d=$(mktemp -d "$1/tunproof.XXXXXXXXXX" 2>/dev/null) || { d=; return 1; }
    { printf '#!/bin/sh\nexit 7\n' >"$d/x" && chmod 700 "$d/x"; } 2>/dev/null
    "$d/x" </dev/null >/dev/null 2>&1
    test $? -eq 7 && rm -f "$d/x" && return 0
    rm -rf "$d"; d=; return 1
}
for t in "${TMPDIR:-/tmp}" /tmp /var/tmp /run; do try "$t" && break; done
if test -n "$d"; then r=ready; else r=nowhere; fi
echo "tunproof push $(uname -m) $r"
test -n "$d" || exit 73
head -c SIZE >"$d/tunproof" || exit 74
test "$(($(wc -c <"$d/tunproof")))" -eq SIZE || exit 74
chmod 500 "$d/tunproof" && exec 9<"$d/tunproof" && rm -rf "$d" || exit 74
d=
exec /proc/self/fd/9 agent
}
"#;
    SCRIPT.replace("SIZE", &size.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_shell_that_is_ready_gets_the_program() {
        let here = std::env::consts::ARCH;
        assert!(ready(&format!("tunproof push {here} ready\n")).is_ok());
        for (line, expected) in [
            (
                "tunproof push s390x ready\n".to_owned(),
                format!("that host is s390x, and this tunproof is built for {here}"),
            ),
            (
                format!("tunproof push {here} nowhere\n"),
                "no folder there takes a program that can be run".to_owned(),
            ),
            (
                "Welcome to lb1!\n".to_owned(),
                "expected a shell's answer to `--push`, got `Welcome to lb1!`".to_owned(),
            ),
            (
                String::new(),
                "expected a shell's answer to `--push`, got ``".to_owned(),
            ),
        ] {
            let error = ready(&line).unwrap_err().to_string();
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
