//! The line with which an agent introduces itself.

use std::fmt;

/// The version of the messages; both sides must have the same.
pub const PROTOCOL: u32 = 2;

/// `tunproof agent PROTOCOL VERSION`, the first line that an agent writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the messages.
    pub protocol: u32,
    /// The version of tunproof, for people.
    pub version: String,
}

/// Why a line is no greeting of an agent that this controller understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Something else came: a shell's message, an SSH banner, a login script's greeting.
    #[error("expected an agent's hello, got {}", shown(.0))]
    Garbage(Vec<u8>),
    /// It is an agent of another version.
    #[error(
        "the agent there is tunproof {} and speaks protocol {}; this is tunproof {} and speaks {PROTOCOL}",
        .0.version, .0.protocol, env!("CARGO_PKG_VERSION")
    )]
    Protocol(Hello),
}

impl Hello {
    /// The longest line that can be one, with its line feed.
    pub const MAX_LENGTH: usize = 128;

    /// This program's own.
    pub fn ours() -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Reads a line, with or without its line feed.
    ///
    /// # Errors
    ///
    /// [`HelloError`], if it is anything but the hello of an agent with this [`PROTOCOL`].
    pub fn read(line: &[u8]) -> Result<Hello, HelloError> {
        let garbage = || HelloError::Garbage(line.to_vec());
        let text = std::str::from_utf8(line).map_err(|_| garbage())?;
        let words: Vec<_> = text.trim_end_matches(['\n', '\r']).split(' ').collect();
        let ["tunproof", "agent", protocol, version] = words[..] else {
            return Err(garbage());
        };
        let hello = Hello {
            protocol: protocol.parse().map_err(|_| garbage())?,
            version: version.to_owned(),
        };
        match hello.protocol {
            PROTOCOL => Ok(hello),
            _ => Err(HelloError::Protocol(hello)),
        }
    }
}

/// The line, with its line feed.
impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tunproof agent {} {}", self.protocol, self.version)
    }
}

fn shown(line: &[u8]) -> String {
    match line.trim_ascii_end() {
        [] => "nothing".to_owned(),
        text => format!("`{}`", text.iter().map(printable).collect::<String>()),
    }
}

fn printable(octet: &u8) -> String {
    match octet {
        b' '..=b'~' => char::from(*octet).to_string(),
        other => other.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_line_is_read_back() {
        let line = Hello::ours().to_string();
        assert!(line.len() <= Hello::MAX_LENGTH);
        assert_eq!(Hello::read(line.as_bytes()), Ok(Hello::ours()));
    }

    #[test]
    fn anything_else_is_shown() {
        for (line, expected) in [
            (&b""[..], "expected an agent's hello, got nothing"),
            (
                b"SSH-2.0-OpenSSH_9.2p1\r\n",
                "expected an agent's hello, got `SSH-2.0-OpenSSH_9.2p1`",
            ),
            (
                b"\x1b[1mLast login\xff",
                r"expected an agent's hello, got `\x1b[1mLast login\xff`",
            ),
            (
                b"it's \"here\"\n",
                r#"expected an agent's hello, got `it's "here"`"#,
            ),
            (
                b"tunproof agent one 0.1.0\n",
                "expected an agent's hello, got `tunproof agent one 0.1.0`",
            ),
        ] {
            assert_eq!(Hello::read(line).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn another_protocol_is_named() {
        let error = Hello::read(b"tunproof agent 7 9.9.9\n").unwrap_err();
        let expected = format!(
            "the agent there is tunproof 9.9.9 and speaks protocol 7; this is tunproof {} and speaks 2",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(error.to_string(), expected);
    }
}
