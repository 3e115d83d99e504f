//! What would be sent, decoded and in hex.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::report::escape::escape;
use crate::wire::EtherType;
use crate::wire::dissect;
use crate::wire::dissect_frame;
use crate::wire::hexdump;

/// Something that would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    host: String,
    what: Sending,
    forced: Vec<ForcedField>,
}

/// A field that a suite forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedField {
    /// In which header, counted from 0.
    pub layer: usize,
    /// Which, in the RFC's words.
    pub name: &'static str,
    /// What it is.
    pub value: u32,
    /// What it would have been.
    pub derived: u32,
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
            forced: Vec::new(),
        }
    }

    /// The same with what of it was forced.
    pub fn with_forced(mut self, forced: Vec<ForcedField>) -> Planned {
        self.forced = forced;
        self
    }

    /// A packet that `host` would send afterwards, to close what the packet before opened.
    pub fn cleanup(host: &str, transmit: Transmit) -> Planned {
        Planned {
            host: escape(host),
            what: Sending::Cleanup(transmit),
            forced: Vec::new(),
        }
    }

    /// A connection that `host`'s kernel would be asked for.
    pub fn connection(host: &str, to: (Ipv4Addr, u16)) -> Planned {
        Planned {
            host: escape(host),
            what: Sending::Connection(to),
            forced: Vec::new(),
        }
    }
}

/// Everything that would be sent, in the order of sending, and how much it is.
pub fn dry_run(planned: &[Planned]) -> String {
    let mut text = String::new();
    for (number, planned) in planned.iter().enumerate() {
        let begin = format!("{}. {}", number + 1, planned.host);
        match &planned.what {
            Sending::Packet(transmit) => packet(&mut text, &begin, transmit, &planned.forced),
            Sending::Cleanup(transmit) => {
                let begin = format!("{begin} afterwards, to close it,");
                packet(&mut text, &begin, transmit, &planned.forced);
            }
            Sending::Connection((address, port)) => {
                let _ = writeln!(
                    text,
                    "{begin} connects to {address}:{port} and closes at once"
                );
            }
        }
        text.push('\n');
    }
    let packets = match planned.len() {
        1 => "1 packet".to_owned(),
        number => format!("{number} packets"),
    };
    let _ = writeln!(text, "{packets} if nothing is answered; nothing was sent");
    text
}

/// A packet: what it is in one line, every field, those that are forced marked, every octet.
fn packet(text: &mut String, begin: &str, transmit: &Transmit, forced: &[ForcedField]) {
    let (way, mut dissection) = match &transmit.way {
        Way::Stack => (
            "by a raw socket".to_owned(),
            dissect(&transmit.bytes, EtherType::IPV4),
        ),
        Way::Frame { device } => (
            format!("on {}", escape(device)),
            dissect_frame(&transmit.bytes),
        ),
    };
    let _ = writeln!(text, "{begin} sends {way}: {}", dissection.summary);
    let mut unread = Vec::new();
    for field in forced {
        let headers = dissection.headers.get_mut(field.layer).into_iter();
        let mut fields = headers.flat_map(|header| &mut header.fields);
        let is_hex = field.name.ends_with("checksum") || field.name == "EtherType";
        let number = |number| match is_hex {
            true => format!("{number:#06x}"),
            false => format!("{number}"),
        };
        let derived = number(field.derived);
        match fields.find(|shown| shown.name == field.name) {
            Some(shown) => {
                let _ = write!(shown.value, ", forced; derived it is {derived}");
            }
            None => unread.push(format!(
                "forced in layer {}: {} {}; derived it is {derived}",
                field.layer + 1,
                field.name,
                number(field.value)
            )),
        }
    }
    for line in dissection.to_string().lines() {
        let _ = writeln!(text, "    {line}");
    }
    for line in unread {
        let _ = writeln!(text, "    {line}");
    }
    for line in hexdump(&transmit.bytes).lines() {
        let _ = writeln!(text, "    {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn every_packet_is_shown_decoded_and_in_hex() {
        let frame = Transmit {
            way: Way::Frame {
                device: "eth0".to_owned(),
            },
            bytes: fixture::arp_frame(),
        };
        let evidence = fixture::evidence();
        let syn = Transmit {
            way: Way::Stack,
            bytes: fixture::syn(&evidence.probes()[0]),
        };
        let text = dry_run(&[
            Planned::packet("rs\u{7}1", frame),
            Planned::cleanup("director", syn),
            Planned::connection("client", ([192, 0, 2, 10].into(), 80)),
        ]);
        for words in [
            "1. rs\\u{7}1 sends on eth0: ",
            "    0010  0800 0604 0001 0200 0000 0005 cb00 7105",
            "203.0.113.1",
            "\n2. director afterwards, to close it, sends by a raw socket: ",
            "identification",
            "\n3. client connects to 192.0.2.10:80 and closes at once\n",
            "\n3 packets if nothing is answered; nothing was sent\n",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }

    #[test]
    fn forced_fields_are_marked() {
        let evidence = fixture::evidence();
        let packet = Transmit {
            way: Way::Stack,
            bytes: fixture::syn(&evidence.probes()[0]),
        };
        let field = |layer, name, value, derived| ForcedField {
            layer,
            name,
            value,
            derived,
        };
        let text = dry_run(&[Planned::packet("director", packet).with_forced(vec![
            field(0, "header checksum", 0xbeef, 0x1234),
            field(7, "length", 9, 8),
        ])]);
        for words in [
            ", forced; derived it is 0x1234\n",
            "    forced in layer 8: length 9; derived it is 8\n",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
    }
}
