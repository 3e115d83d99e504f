//! The host's log: syslog, or journald, which listens at the same place.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;

use crate::exchange::TapPath;
use crate::plan::Family;

/// `LOG_DAEMON | LOG_INFO`.
const PRIORITY: u8 = 3 << 3 | 6;

/// The longest line, in octets, or nearly.
const LONGEST: usize = 800;

/// The log, where there is one.
#[derive(Debug)]
pub struct Log {
    socket: Option<UnixDatagram>,
    who: String,
}

impl Log {
    /// Opens the log, and learns who has started this process: by ssh, whoever sshd says.
    pub fn open() -> Log {
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect("/dev/log")?;
            // A log that is full or hangs keeps nobody.
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let user = nix::unistd::getuid();
        let from = std::env::var("SSH_CONNECTION").ok();
        let from = from.as_deref().and_then(|all| all.split(' ').next());
        let who = match from {
            Some(address) => format!("{} by ssh, uid {user}", printable(address)),
            None => format!("this host, uid {user}"),
        };
        Log {
            socket: open().ok(),
            who,
        }
    }

    /// Writes a line, behind who it is about.
    pub fn say(&self, text: &str) {
        if let Some(socket) = &self.socket {
            let line = format!(
                "<{PRIORITY}>tunproof[{}]: {}: {}",
                std::process::id(),
                self.who,
                printable(text)
            );
            // There is nobody else to tell.
            let _ = socket.send(line.as_bytes());
        }
    }
}

/// What was done for a controller, for the log.
#[derive(Debug, Default)]
pub struct Record {
    /// The paths that it named.
    pub paths: Vec<TapPath>,
    /// How many packets were sent of each family.
    pub sent: BTreeMap<Family, u64>,
    /// How many were not sent, because the scope or the policy forbids it.
    pub declined: u64,
}

impl Record {
    /// In one line, with how it ended.
    pub fn line(&self, ended: &str) -> String {
        let path = |path: &TapPath| {
            let dip = path
                .dip
                .map(|dip| format!(" from director {dip}"))
                .unwrap_or_default();
            format!("VIP {} at {} for {}{dip}", path.vip, path.rip, path.cip)
        };
        let more = match self.paths.len() {
            0 => "no path".to_owned(),
            1 => path(&self.paths[0]),
            all => format!("{} and {} more", path(&self.paths[0]), all - 1),
        };
        let sent: Vec<_> = self
            .sent
            .iter()
            .map(|(family, count)| format!("{family} {count}"))
            .collect();
        let sent = match sent.is_empty() {
            true => "nothing".to_owned(),
            false => sent.join(", "),
        };
        format!("{more}; sent {sent}; declined {}; {ended}", self.declined)
    }
}

/// One line, that no terminal takes for anything else.
fn printable(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars() {
        match letter {
            ' '..='~' => line.push(letter),
            other => line.extend(other.escape_default()),
        }
        if line.len() > LONGEST {
            line.push_str("...");
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(printable("a\nb\x1b[1m é"), "a\\nb\\u{1b}[1m \\u{e9}");
        assert!(printable(&"x".repeat(5000)).len() < 1000);
    }
}
