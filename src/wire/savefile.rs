//! What `tcpdump -w` and its kin write, pcap or pcapng, read octet for octet as it comes.
//!
//! [`Savefile`] does no I/O: it is fed octets and gives packets, so that it can follow a file that is still
//! being written. pcap: draft-ietf-opsawg-pcap. pcapng: draft-ietf-opsawg-pcapng, in `pcapng.rs`.

use std::fmt;
use std::ops::Range;

use crate::wire::LinkType;
use crate::wire::pcapng::Sections;

/// The most octets of one packet that libpcap takes from a file (`MAXIMUM_SNAPLEN`).
pub(super) const MOST_CAPTURED: u32 = 262_144;

/// Which way a packet went, seen from the host that captured it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// It arrived.
    In,
    /// It left.
    Out,
}

/// Which of the two formats a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SavefileFormat {
    /// What tcpdump writes.
    Pcap,
    /// What dumpcap, tshark and Wireshark write.
    Pcapng,
}

impl fmt::Display for SavefileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SavefileFormat::Pcap => "pcap",
            SavefileFormat::Pcapng => "pcapng",
        })
    }
}

/// An interface as the file describes it; a pcap has exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedInterface {
    /// What its packets begin with.
    pub link_type: LinkType,
    /// Octets of a packet that are kept at most; 0 is no limit.
    pub snap_length: u32,
    /// Its name, which only a pcapng can tell.
    pub name: Option<String>,
    /// The capture filter, which only a pcapng can tell.
    pub filter: Option<String>,
}

/// A packet as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// Its number, from 1, as Wireshark and `tcpdump -#` count.
    pub number: u64,
    /// Where its record begins in the file.
    pub offset: u64,
    /// The interface, one of [`Savefile::interfaces`].
    pub interface: &'a RecordedInterface,
    /// Nanoseconds since 1970-01-01T00:00:00Z; `None` where the file does not say.
    pub time: Option<u64>,
    /// Which way it went, where the file (not the link header) says.
    pub bound: Option<Bound>,
    /// Its octets from the link header on, perhaps cut off.
    pub bytes: &'a [u8],
    /// Its length before it was cut off.
    pub original_length: u32,
}

/// A reader of capture files.
///
/// Call [`Savefile::feed`] with octets, then [`Savefile::next_packet`] until it says `None`, and at the file's
/// end [`Savefile::end`]. After an error nothing more can be read.
#[derive(Debug, Default)]
pub struct Savefile {
    buffer: Vec<u8>,
    /// Where in the buffer the next record begins.
    start: usize,
    /// Where in the file the next record begins.
    offset: u64,
    /// Octets that the next record needs, as far as is known.
    needed: usize,
    packets: u64,
    format: Format,
    interfaces: Vec<RecordedInterface>,
}

#[derive(Debug, Default)]
enum Format {
    /// Not enough was read.
    #[default]
    Unknown,
    Pcap {
        order: Order,
        /// Nanoseconds in a unit of the time stamps' second half.
        unit: u64,
    },
    Pcapng(Sections),
}

/// A packet's place in its record, and what the record says of it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) interface: usize,
    pub(super) time: Option<u64>,
    pub(super) bound: Option<Bound>,
    pub(super) data: Range<usize>,
    pub(super) original_length: u32,
}

/// Part of a capture file, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first octets of a pcap.
    FileHeader,
    /// The packet of this number.
    Packet(u64),
    /// A block of a pcapng, of this type.
    Block(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::FileHeader => f.write_str("the file header"),
            Part::Packet(number) => write!(f, "packet {number}"),
            Part::Block(block) => write!(f, "the pcapng block of type {block:#010x}"),
        }
    }
}

/// Why a capture file cannot be read (on).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavefileError {
    /// It is no capture file.
    #[error(
        "no capture file: it begins with {0:08x}{what}, and a pcap begins with a1b2c3d4 or a1b23c4d in either \
         byte order, a pcapng with 0a0d0d0a", what = compressed(*.0)
    )]
    Magic(u32),
    /// It ends in the middle.
    #[error("{part} at offset {offset} is cut off: {needed} octets needed, {available} there")]
    Cut {
        /// In the middle of what.
        part: Part,
        /// Where that begins.
        offset: u64,
        /// Octets that it has, as far as is known.
        needed: usize,
        /// Octets that are there.
        available: usize,
    },
    /// A field cannot be what it is.
    #[error("{part} at offset {offset}: {field} is {value}, not {expected}")]
    Value {
        /// Of what.
        part: Part,
        /// Where that begins.
        offset: u64,
        /// Which field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// What it must be.
        expected: String,
    },
}

/// The byte order of a file's own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

impl Order {
    pub(super) fn u16(self, octets: &[u8], at: usize) -> u16 {
        let number = [octets[at], octets[at + 1]];
        match self {
            Order::Little => u16::from_le_bytes(number),
            Order::Big => u16::from_be_bytes(number),
        }
    }

    pub(super) fn u32(self, octets: &[u8], at: usize) -> u32 {
        let (a, b) = (self.u16(octets, at), self.u16(octets, at + 2));
        match self {
            Order::Little => u32::from(b) << 16 | u32::from(a),
            Order::Big => u32::from(a) << 16 | u32::from(b),
        }
    }

    pub(super) fn u64(self, octets: &[u8], at: usize) -> u64 {
        let (a, b) = (self.u32(octets, at), self.u32(octets, at + 4));
        match self {
            Order::Little => u64::from(b) << 32 | u64::from(a),
            Order::Big => u64::from(a) << 32 | u64::from(b),
        }
    }
}

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

impl Savefile {
    /// Takes octets, as they follow those before.
    pub fn feed(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend(octets);
    }

    /// The format, once it is known.
    pub fn format(&self) -> Option<SavefileFormat> {
        match self.format {
            Format::Unknown => None,
            Format::Pcap { .. } => Some(SavefileFormat::Pcap),
            Format::Pcapng(_) => Some(SavefileFormat::Pcapng),
        }
    }

    /// The interfaces that the file has described so far.
    pub fn interfaces(&self) -> &[RecordedInterface] {
        &self.interfaces
    }

    /// How many packets were read.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets that the capturing program says it lost; `None` where the file does not say, as no pcap does.
    pub fn dropped(&self) -> Option<u64> {
        match &self.format {
            Format::Pcapng(sections) => sections.dropped(),
            _ => None,
        }
    }

    /// The next packet; `None` if more octets are needed first.
    ///
    /// # Errors
    ///
    /// [`SavefileError::Magic`] or [`SavefileError::Value`].
    pub fn next_packet(&mut self) -> Result<Option<Recorded<'_>>, SavefileError> {
        loop {
            let start = self.start;
            let offset = self.offset;
            let Some((length, found)) = self.step()? else {
                return Ok(None);
            };
            self.start += length;
            self.offset += length as u64;
            self.needed = 0;
            if let Some(found) = found {
                self.packets += 1;
                let data = start + found.data.start..start + found.data.end;
                return Ok(Some(Recorded {
                    number: self.packets,
                    offset,
                    interface: &self.interfaces[found.interface],
                    time: found.time,
                    bound: found.bound,
                    bytes: &self.buffer[data],
                    original_length: found.original_length,
                }));
            }
        }
    }

    /// That the file has ended: not in the middle of anything.
    ///
    /// # Errors
    ///
    /// [`SavefileError::Cut`].
    pub fn end(&self) -> Result<(), SavefileError> {
        let rest = &self.buffer[self.start..];
        let mut needed = self.needed.max(rest.len() + 1);
        let part = match &self.format {
            Format::Unknown => {
                needed = FILE_HEADER;
                Part::FileHeader
            }
            _ if rest.is_empty() => return Ok(()),
            Format::Pcap { .. } => Part::Packet(self.packets + 1),
            Format::Pcapng(sections) => sections.part(rest, self.packets + 1),
        };
        Err(SavefileError::Cut {
            part,
            offset: self.offset,
            needed,
            available: rest.len(),
        })
    }

    /// The next record's length, and the packet in it, if it has one.
    fn step(&mut self) -> Result<Option<(usize, Option<Found>)>, SavefileError> {
        let rest = &self.buffer[self.start..];
        match &mut self.format {
            Format::Unknown => {
                let Some(magic) = rest.get(..4) else {
                    return Ok(None);
                };
                if Sections::begin(magic) {
                    self.format = Format::Pcapng(Sections::default());
                    return Ok(Some((0, None)));
                }
                let (order, unit) = pcap_magic(Order::Big.u32(magic, 0))?;
                if rest.len() < FILE_HEADER {
                    return Ok(None);
                }
                self.interfaces.push(file_header(order, rest)?);
                self.format = Format::Pcap { order, unit };
                Ok(Some((FILE_HEADER, None)))
            }
            Format::Pcap { order, unit } => {
                self.needed = RECORD_HEADER;
                if rest.len() < RECORD_HEADER {
                    return Ok(None);
                }
                let captured = order.u32(rest, 8);
                let part = Part::Packet(self.packets + 1);
                check_captured(captured, part, self.offset)?;
                self.needed = RECORD_HEADER + captured as usize;
                if rest.len() < self.needed {
                    return Ok(None);
                }
                let seconds = u64::from(order.u32(rest, 0));
                let found = Found {
                    interface: 0,
                    time: Some(seconds * 1_000_000_000 + u64::from(order.u32(rest, 4)) * *unit),
                    bound: None,
                    data: RECORD_HEADER..self.needed,
                    original_length: order.u32(rest, 12),
                };
                Ok(Some((self.needed, Some(found))))
            }
            Format::Pcapng(sections) => {
                let place = (self.offset, self.packets + 1);
                self.needed = sections.length(rest, place)?;
                let Some(block) = rest.get(..self.needed) else {
                    return Ok(None);
                };
                let found = sections.block(block, &mut self.interfaces, place)?;
                Ok(Some((self.needed, found)))
            }
        }
    }
}

/// Byte order and nanoseconds in a unit, by the first four octets of a pcap.
fn pcap_magic(magic: u32) -> Result<(Order, u64), SavefileError> {
    match magic {
        0xa1b2_c3d4 => Ok((Order::Big, 1000)),
        0xd4c3_b2a1 => Ok((Order::Little, 1000)),
        0xa1b2_3c4d => Ok((Order::Big, 1)),
        0x4d3c_b2a1 => Ok((Order::Little, 1)),
        other => Err(SavefileError::Magic(other)),
    }
}

fn file_header(order: Order, header: &[u8]) -> Result<RecordedInterface, SavefileError> {
    let major = order.u16(header, 4);
    if major != 2 {
        return Err(SavefileError::Value {
            part: Part::FileHeader,
            offset: 0,
            field: "the major version",
            value: u64::from(major),
            expected: "2".to_owned(),
        });
    }
    Ok(RecordedInterface {
        // The upper half tells of frame check sequences.
        link_type: LinkType(order.u32(header, 20) as u16),
        snap_length: order.u32(header, 16),
        name: None,
        filter: None,
    })
}

/// What compressed files begin with.
fn compressed(magic: u32) -> &'static str {
    match magic {
        0x1f8b_0000..=0x1f8b_ffff => " (gzip)",
        0x28b5_2ffd => " (zstd)",
        0xfd37_7a58 => " (xz)",
        0x425a_6800..=0x425a_68ff => " (bzip2)",
        _ => "",
    }
}

pub(super) fn check_captured(captured: u32, part: Part, offset: u64) -> Result<(), SavefileError> {
    if captured <= MOST_CAPTURED {
        return Ok(());
    }
    Err(SavefileError::Value {
        part,
        offset,
        field: "the captured length",
        value: u64::from(captured),
        expected: format!("at most {MOST_CAPTURED}"),
    })
}

#[cfg(test)]
mod tests;
