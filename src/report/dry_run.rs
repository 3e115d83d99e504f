//! What would be sent, decoded and in hex.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::report::escape::escape;

/// Something that would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    host: String,
    what: Sending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Sending {
    Packet(Transmit),
    Cleanup(Transmit),
    Connection((Ipv4Addr, u16)),
}

impl Planned {
    /// A packet that `host` would send.
    pub fn packet(host: &str, transmit: Transmit) -> Planned {
        Planned {
            host: escape(host),
            what: Sending::Packet(transmit),
        }
    }

    /// A packet that `host` would send afterwards, to close what the packet before opened.
    pub fn cleanup(host: &str, transmit: Transmit) -> Planned {
        Planned {
            host: escape(host),
            what: Sending::Cleanup(transmit),
        }
    }

    /// A connection that `host`'s kernel would be asked for.
    pub fn connection(host: &str, to: (Ipv4Addr, u16)) -> Planned {
        Planned {
            host: escape(host),
            what: Sending::Connection(to),
        }
    }
}

/// Everything that would be sent, in the order of sending, and how much it is.
pub fn dry_run(planned: &[Planned]) -> String {
    let mut text = String::new();
    for (number, planned) in planned.iter().enumerate() {
        let (number, host) = (number + 1, &planned.host);
        match &planned.what {
            Sending::Packet(transmit) => {
                let _ = writeln!(text, "{number}. {host} {}", way(transmit));
                packet(&mut text, transmit);
            }
            Sending::Cleanup(transmit) => {
                let _ = writeln!(
                    text,
                    "{number}. {host} {}, afterwards, to close it",
                    way(transmit)
                );
                packet(&mut text, transmit);
            }
            Sending::Connection((address, port)) => {
                let _ = writeln!(
                    text,
                    "{number}. {host} connects to {address}:{port} and closes at once"
                );
            }
        }
        text.push('\n');
    }
    let packets = match planned.len() {
        1 => "1 packet".to_owned(),
        number => format!("{number} packets"),
    };
    let _ = writeln!(text, "{packets} at most; nothing was sent");
    text
}

fn way(transmit: &Transmit) -> String {
    match &transmit.way {
        Way::Stack => "sends by a raw socket".to_owned(),
        Way::Frame { device } => format!("sends on {}", escape(device)),
    }
}

/// Octets, 16 a line, as tcpdump -X numbers them.
fn packet(text: &mut String, transmit: &Transmit) {
    for (number, line) in transmit.bytes.chunks(16).enumerate() {
        let groups: Vec<_> = line.chunks(2).map(hex::encode).collect();
        let _ = writeln!(text, "    0x{:04x}:  {}", number * 16, groups.join(" "));
    }
}
