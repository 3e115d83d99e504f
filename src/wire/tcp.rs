//! TCP (RFC 9293).

use std::fmt;
use std::fmt::Write;
use std::net::Ipv4Addr;

use etherparse::TcpHeaderSlice;
use etherparse::TcpOptionElement;
use etherparse::TcpOptionReadError;
use etherparse::err::tcp::HeaderError;
use etherparse::err::tcp::HeaderSliceError;
use serde::Deserialize;
use serde::Serialize;

use crate::wire::Header;
use crate::wire::IpProtocol;
use crate::wire::Octets;
use crate::wire::WireError;
use crate::wire::transport_checksum;

/// The control bits, CWR to FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// FIN.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// SYN.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// RST.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// ACK.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// SYN and ACK.
    pub const SYN_ACK: TcpFlags = TcpFlags(0x12);
    /// RST and ACK.
    pub const RST_ACK: TcpFlags = TcpFlags(0x14);

    /// Those of SYN, RST, ACK and FIN that are set: what kind of segment it is, whatever ECN or PSH say.
    pub fn kind(self) -> TcpFlags {
        TcpFlags(self.0 & 0x17)
    }
}

/// As tcpdump writes them: `S`, `S.`, `R`, `R.`, `.`.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        for (bit, letter) in [
            (0x01, 'F'),
            (0x02, 'S'),
            (0x04, 'R'),
            (0x08, 'P'),
            (0x10, '.'),
            (0x20, 'U'),
            (0x40, 'E'),
            (0x80, 'W'),
        ] {
            if self.0 & bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A TCP header that is there whole, with what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    header: TcpHeaderSlice<'a>,
    segment: Octets<'a>,
}

impl<'a> Tcp<'a> {
    /// Octets of a header without options.
    pub const MIN_LENGTH: usize = 20;

    /// A segment whose header is there whole; TCP has no length of its own.
    ///
    /// # Errors
    /// The header is cut off, or the data offset is below 5.
    pub fn checked(segment: Octets<'a>) -> Result<Tcp<'a>, WireError> {
        match TcpHeaderSlice::from_slice(segment.bytes()) {
            Ok(header) => Ok(Tcp { header, segment }),
            Err(HeaderSliceError::Len(error)) => Err(segment.length_error(Header::Tcp, &error)),
            Err(HeaderSliceError::Content(HeaderError::DataOffsetTooSmall { data_offset })) => {
                Err(WireError::Value {
                    header: Header::Tcp,
                    offset: segment.offset(),
                    field: "data offset",
                    value: u32::from(data_offset),
                    expected: "at least 5 (32-bit words)",
                })
            }
        }
    }

    /// Source port.
    pub fn source_port(&self) -> u16 {
        self.header.source_port()
    }

    /// Destination port.
    pub fn destination_port(&self) -> u16 {
        self.header.destination_port()
    }

    /// Sequence number.
    pub fn sequence_number(&self) -> u32 {
        self.header.sequence_number()
    }

    /// Acknowledgment number.
    pub fn acknowledgment_number(&self) -> u32 {
        self.header.acknowledgment_number()
    }

    /// Header length in 32-bit words.
    pub fn data_offset(&self) -> u8 {
        self.header.data_offset()
    }

    /// The control bits.
    pub fn flags(&self) -> TcpFlags {
        flags(self.segment.bytes()).unwrap_or_default()
    }

    /// Window.
    pub fn window(&self) -> u16 {
        self.header.window_size()
    }

    /// Checksum.
    pub fn checksum(&self) -> u16 {
        self.header.checksum()
    }

    /// Urgent pointer.
    pub fn urgent_pointer(&self) -> u16 {
        self.header.urgent_pointer()
    }

    /// Options, with their padding.
    pub fn options(&self) -> &[u8] {
        self.header.options()
    }

    /// The maximum segment size that it announces (RFC 9293 §3.7.1), if its options can be read that far.
    pub fn maximum_segment_size(&self) -> Option<u16> {
        self.header
            .options_iterator()
            .map_while(Result::ok)
            .find_map(|option| match option {
                TcpOptionElement::MaximumSegmentSize(size) => Some(size),
                _ => None,
            })
    }

    /// What follows the header.
    pub fn payload(&self) -> Octets<'a> {
        self.segment.after(self.header.slice().len())
    }

    /// Whether the checksum is right between these addresses.
    pub fn is_checksum_right(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        transport_checksum(source, destination, IpProtocol::TCP, self.segment.bytes()) == 0
    }
}

impl Tcp<'_> {
    /// The segment in tcpdump's words; `length` is that of the payload.
    pub(super) fn describe(&self, length: usize) -> String {
        let flags = self.flags();
        let mut text = format!("Flags [{flags}]");
        let sequence = self.sequence_number();
        if length > 0 {
            let end = sequence.wrapping_add(length as u32);
            write!(text, ", seq {sequence}:{end}").expect(STRING);
        } else if flags.0 & (TcpFlags::SYN.0 | TcpFlags::FIN.0 | TcpFlags::RST.0) != 0 {
            write!(text, ", seq {sequence}").expect(STRING);
        }
        if flags.0 & TcpFlags::ACK.0 != 0 {
            write!(text, ", ack {}", self.acknowledgment_number()).expect(STRING);
        }
        write!(text, ", win {}", self.window()).expect(STRING);
        let mut options = Vec::new();
        let mut iterator = self.header.options_iterator();
        while let Some(kind) = iterator.rest().first() {
            match (kind, iterator.next()) {
                (0, _) | (_, None) => {
                    options.push("eol".to_owned());
                    break;
                }
                (_, Some(option)) => options.push(describe_option(option)),
            }
        }
        if !options.is_empty() {
            write!(text, ", options [{}]", options.join(",")).expect(STRING);
        }
        write!(text, ", length {length}").expect(STRING);
        text
    }
}

/// Why writing never fails.
const STRING: &str = "a String takes everything";

fn describe_option(option: Result<TcpOptionElement, TcpOptionReadError>) -> String {
    match option {
        Ok(TcpOptionElement::Noop) => "nop".to_owned(),
        Ok(TcpOptionElement::MaximumSegmentSize(size)) => format!("mss {size}"),
        Ok(TcpOptionElement::WindowScale(scale)) => format!("wscale {scale}"),
        Ok(TcpOptionElement::SelectiveAcknowledgementPermitted) => "sackOK".to_owned(),
        Ok(TcpOptionElement::SelectiveAcknowledgement((from, to), more)) => {
            let blocks: Vec<_> = [Some((from, to))]
                .into_iter()
                .chain(more)
                .flatten()
                .map(|(from, to)| format!("{{{from}:{to}}}"))
                .collect();
            format!("sack {} {}", blocks.len(), blocks.concat())
        }
        Ok(TcpOptionElement::Timestamp(value, echo)) => format!("TS val {value} ecr {echo}"),
        Err(TcpOptionReadError::UnknownId(kind)) => format!("unknown-{kind}"),
        Err(_) => "bad opt".to_owned(),
    }
}

/// The start of a TCP header: at least the 8 octets that an ICMP error must quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpStart {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number.
    pub sequence_number: u32,
    /// Acknowledgment number and control bits, if they are there.
    pub rest: Option<(u32, TcpFlags)>,
}

impl TcpStart {
    /// A header that may be cut off behind its first 8 octets.
    ///
    /// # Errors
    /// There are fewer than 8 octets.
    pub fn quoted(octets: Octets<'_>) -> Result<TcpStart, WireError> {
        let bytes = octets.bytes();
        let Some([s1, s2, d1, d2, q1, q2, q3, q4]) = bytes.first_chunk() else {
            return Err(octets.too_short(Header::Tcp, 8));
        };
        let acknowledgment = bytes[8..].first_chunk().copied().map(u32::from_be_bytes);
        Ok(TcpStart {
            source_port: u16::from_be_bytes([*s1, *s2]),
            destination_port: u16::from_be_bytes([*d1, *d2]),
            sequence_number: u32::from_be_bytes([*q1, *q2, *q3, *q4]),
            rest: acknowledgment.zip(flags(bytes)),
        })
    }
}

fn flags(segment: &[u8]) -> Option<TcpFlags> {
    segment.get(13).copied().map(TcpFlags)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: [u8; 20] = [
        0xc3, 0x50, 0x00, 0x50, 0x01, 0x02, 0x03, 0x04, 0x00, 0x00, 0x00, 0x09, 0x50, 0x02, 0xfa,
        0xf0, 0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn as_much_is_read_as_there_is() {
        let start = |count: usize| TcpStart::quoted(Octets::new(&SYN[..count]));
        assert!(start(7).is_err());
        let minimal = start(8).unwrap();
        assert_eq!(minimal.sequence_number, 0x0102_0304);
        assert_eq!(minimal.rest, None);
        assert_eq!(start(13).unwrap().rest, None);
        assert_eq!(start(14).unwrap().rest, Some((9, TcpFlags::SYN)));
    }

    #[test]
    fn a_data_offset_beyond_the_segment_is_an_error() {
        let mut octets = SYN;
        octets[12] = 0xf0;
        assert_eq!(
            Tcp::checked(Octets::new(&octets)),
            Err(Octets::new(&octets).too_short(Header::Tcp, 60))
        );
        octets[12] = 0x40;
        assert!(matches!(
            Tcp::checked(Octets::new(&octets)),
            Err(WireError::Value { value: 4, .. })
        ));
    }

    #[test]
    fn flags_are_written_as_tcpdump_does() {
        assert_eq!(TcpFlags::SYN_ACK.to_string(), "S.");
        assert_eq!(TcpFlags(0xc2).to_string(), "SEW");
        assert_eq!(TcpFlags(0xc2).kind(), TcpFlags::SYN);
    }
}
