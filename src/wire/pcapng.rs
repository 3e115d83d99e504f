//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng).

use std::ops::Range;

use crate::wire::Bound;
use crate::wire::LinkType;
use crate::wire::Part;
use crate::wire::RecordedInterface;
use crate::wire::SavefileError;
use crate::wire::savefile::Found;
use crate::wire::savefile::MOST_CAPTURED;
use crate::wire::savefile::Order;
use crate::wire::savefile::check_captured;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Type, total length, and the total length again at the end.
const FRAME: usize = 12;
const BODY: usize = 8;
/// The longest block that is read, as in libpcap (`MAX_BLOCKSIZE_FOR_SNAPLEN_DEFAULT` allows no more).
const LONGEST: u32 = 16 << 20;

const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Where the reader is: the next block's offset in the file, and the next packet's number.
type Place = (u64, u64);

/// The sections of a file: byte order and interfaces are a section's own.
#[derive(Debug, Default)]
pub(super) struct Sections {
    order: Option<Order>,
    /// The place of the section's first interface among all.
    first: usize,
    clocks: Vec<Clock>,
    dropped: Option<u64>,
}

/// What an interface's time stamps mean.
#[derive(Clone, Copy, Debug)]
struct Clock {
    units_per_second: u128,
    /// Seconds to be added.
    offset: i64,
}

impl Clock {
    const MICROSECONDS: Clock = Clock {
        units_per_second: 1_000_000,
        offset: 0,
    };

    fn nanoseconds(self, high: u32, low: u32) -> Option<u64> {
        let units = u128::from(high) << 32 | u128::from(low);
        let (seconds, rest) = (units / self.units_per_second, units % self.units_per_second);
        let seconds = i128::try_from(seconds).ok()? + i128::from(self.offset);
        // Fewer than 2^80 units in a second times 2^30 fits.
        let nanoseconds = rest * 1_000_000_000 / self.units_per_second;
        let whole = u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?;
        whole.checked_add(u64::try_from(nanoseconds).ok()?)
    }
}

impl Sections {
    /// Whether a file that begins so is a pcapng.
    pub(super) fn begin(magic: &[u8]) -> bool {
        magic == SECTION_HEADER.to_be_bytes()
    }

    /// Packets that the capturing program says it lost.
    pub(super) fn dropped(&self) -> Option<u64> {
        self.dropped
    }

    /// What a block is, by its first octets.
    pub(super) fn part(&self, block: &[u8], packet: u64) -> Part {
        let order = self.order.unwrap_or(Order::Big);
        match block.get(..4).map(|octets| order.u32(octets, 0)) {
            Some(ENHANCED_PACKET | SIMPLE_PACKET | PACKET) => Part::Packet(packet),
            Some(other) => Part::Block(other),
            None => Part::Packet(packet),
        }
    }

    /// Octets of the block that begins here, or of what must be known before that can be told.
    pub(super) fn length(&self, rest: &[u8], place: Place) -> Result<usize, SavefileError> {
        if rest.len() < FRAME {
            return Ok(FRAME);
        }
        let order = match Self::begin(&rest[..4]) {
            true => byte_order(rest, place)?,
            false => self.order.unwrap_or(Order::Big),
        };
        let length = order.u32(rest, 4);
        if length < FRAME as u32 || length % 4 != 0 || length > LONGEST {
            return Err(SavefileError::Value {
                part: self.part(rest, place.1),
                offset: place.0,
                field: "the block's total length",
                value: u64::from(length),
                expected: format!("a multiple of 4 from {FRAME} to {LONGEST}"),
            });
        }
        Ok(length as usize)
    }

    /// Reads a whole block; the packet in it, if it is one.
    pub(super) fn block(
        &mut self,
        block: &[u8],
        interfaces: &mut Vec<RecordedInterface>,
        place: Place,
    ) -> Result<Option<Found>, SavefileError> {
        if Self::begin(&block[..4]) {
            self.order = Some(byte_order(block, place)?);
            self.first = interfaces.len();
        }
        let order = self.order.unwrap_or(Order::Big);
        let reader = Block {
            order,
            part: self.part(block, place.1),
            offset: place.0,
            block,
        };
        let (length, again) = (order.u32(block, 4), order.u32(block, block.len() - 4));
        if again != length {
            let expected = format!("{length}, as at the block's start");
            return Err(reader.value("the total length at its end", again, expected));
        }
        match order.u32(block, 0) {
            SECTION_HEADER => {
                reader.needs(16)?;
                match order.u16(block, BODY + 4) {
                    1 => Ok(None),
                    major => Err(reader.value("the major version", major, "1".to_owned())),
                }
            }
            INTERFACE_DESCRIPTION => {
                let (interface, clock) = reader.interface()?;
                interfaces.push(interface);
                self.clocks.push(clock);
                Ok(None)
            }
            INTERFACE_STATISTICS => {
                if let Some(dropped) = reader.dropped()? {
                    let before = self.dropped.unwrap_or(0);
                    self.dropped = Some(before.saturating_add(dropped));
                }
                Ok(None)
            }
            ENHANCED_PACKET => self.enhanced(&reader, interfaces).map(Some),
            PACKET => self.old(&reader, interfaces).map(Some),
            SIMPLE_PACKET => self.simple(&reader, interfaces).map(Some),
            // Names, secrets, journals: not ours. Unknown types must be skipped.
            _ => Ok(None),
        }
    }

    fn enhanced(
        &self,
        reader: &Block<'_>,
        interfaces: &[RecordedInterface],
    ) -> Result<Found, SavefileError> {
        reader.needs(20)?;
        let interface = self.interface(reader, reader.u32(0), interfaces)?;
        let data = reader.data(20, reader.u32(12))?;
        let options = data.end.next_multiple_of(4);
        let mut bound = None;
        const FLAGS: u16 = 2;
        reader.options(options, |code, value| {
            if let (FLAGS, 4) = (code, value.len()) {
                bound = match reader.order.u32(value, 0) & 3 {
                    1 => Some(Bound::In),
                    2 => Some(Bound::Out),
                    _ => None,
                };
            }
        })?;
        Ok(Found {
            interface,
            time: self.clocks[interface].nanoseconds(reader.u32(4), reader.u32(8)),
            bound,
            data,
            original_length: reader.u32(16),
        })
    }

    /// The block that enhanced packets replaced: a 16-bit interface, and a count of drops.
    fn old(
        &self,
        reader: &Block<'_>,
        interfaces: &[RecordedInterface],
    ) -> Result<Found, SavefileError> {
        reader.needs(20)?;
        let number = u32::from(reader.order.u16(reader.block, BODY));
        let interface = self.interface(reader, number, interfaces)?;
        Ok(Found {
            interface,
            time: self.clocks[interface].nanoseconds(reader.u32(4), reader.u32(8)),
            bound: None,
            data: reader.data(20, reader.u32(12))?,
            original_length: reader.u32(16),
        })
    }

    fn simple(
        &self,
        reader: &Block<'_>,
        interfaces: &[RecordedInterface],
    ) -> Result<Found, SavefileError> {
        reader.needs(4)?;
        let interface = self.interface(reader, 0, interfaces)?;
        let original_length = reader.u32(0);
        let limit = match interfaces[interface].snap_length {
            0 => MOST_CAPTURED,
            limit => limit,
        };
        Ok(Found {
            interface,
            time: None,
            bound: None,
            data: reader.data(4, original_length.min(limit))?,
            original_length,
        })
    }

    /// The place among all interfaces of the section's number `number`.
    fn interface(
        &self,
        reader: &Block<'_>,
        number: u32,
        interfaces: &[RecordedInterface],
    ) -> Result<usize, SavefileError> {
        let described = interfaces.len() - self.first;
        if (number as usize) < described {
            return Ok(self.first + number as usize);
        }
        let expected = match described {
            0 => "described before it: its section describes none".to_owned(),
            _ => format!("one of the {described} described before it"),
        };
        Err(reader.value("the interface", number, expected))
    }
}

/// One whole block.
struct Block<'a> {
    order: Order,
    part: Part,
    offset: u64,
    block: &'a [u8],
}

impl<'a> Block<'a> {
    /// A number of the body.
    fn u32(&self, at: usize) -> u32 {
        self.order.u32(self.block, BODY + at)
    }

    fn value(&self, field: &'static str, value: impl Into<u64>, expected: String) -> SavefileError {
        SavefileError::Value {
            part: self.part,
            offset: self.offset,
            field,
            value: value.into(),
            expected,
        }
    }

    /// That the body has as many octets.
    fn needs(&self, octets: usize) -> Result<(), SavefileError> {
        if self.block.len() >= FRAME + octets {
            return Ok(());
        }
        let length = self.block.len() as u64;
        let expected = format!("at least {}", FRAME + octets);
        Err(self.value("the block's total length", length, expected))
    }

    /// Where in the block `captured` octets lie that begin at octet `at` of the body.
    fn data(&self, at: usize, captured: u32) -> Result<Range<usize>, SavefileError> {
        check_captured(captured, self.part, self.offset)?;
        let available = self.block.len() - FRAME - at;
        if captured as usize > available {
            let expected = format!("at most {available}, which the block has");
            return Err(self.value("the captured length", captured, expected));
        }
        Ok(BODY + at..BODY + at + captured as usize)
    }

    /// Calls `take` with the code and value of each option from octet `at` of the block on.
    fn options(&self, at: usize, mut take: impl FnMut(u16, &'a [u8])) -> Result<(), SavefileError> {
        let mut rest = &self.block[at.min(self.block.len() - 4)..self.block.len() - 4];
        while rest.len() >= 4 {
            let (code, length) = (self.order.u16(rest, 0), self.order.u16(rest, 2));
            const END: u16 = 0;
            if code == END {
                return Ok(());
            }
            let Some(value) = rest[4..].get(..usize::from(length)) else {
                let expected = format!("at most {}, which the block has", rest.len() - 4);
                return Err(self.value("an option's length", length, expected));
            };
            take(code, value);
            let whole = 4 + usize::from(length).next_multiple_of(4);
            rest = rest.get(whole..).unwrap_or_default();
        }
        Ok(())
    }

    fn interface(&self) -> Result<(RecordedInterface, Clock), SavefileError> {
        self.needs(8)?;
        let mut interface = RecordedInterface {
            link_type: LinkType(self.order.u16(self.block, BODY)),
            snap_length: self.u32(4),
            name: None,
            filter: None,
        };
        let mut clock = Clock::MICROSECONDS;
        let mut resolution = None;
        const NAME: u16 = 2;
        const TIME_RESOLUTION: u16 = 9;
        const FILTER: u16 = 11;
        const TIME_OFFSET: u16 = 14;
        self.options(BODY + 8, |code, value| match (code, value.len()) {
            (NAME, 1..) => interface.name = Some(text(value)),
            (TIME_RESOLUTION, 1) => resolution = Some(value[0]),
            // The first octet says that it is a filter's text.
            (FILTER, 2..) if value[0] == 0 => interface.filter = Some(text(&value[1..])),
            (TIME_OFFSET, 8) => clock.offset = self.order.u64(value, 0) as i64,
            _ => {}
        })?;
        if let Some(resolution) = resolution {
            let exponent = u32::from(resolution & 0x7f);
            let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
            let units = base.checked_pow(exponent).filter(|units| *units < 1 << 80);
            let Some(units) = units else {
                let expected = "fewer than 2^80 units in a second".to_owned();
                return Err(self.value("the time stamps' resolution", resolution, expected));
            };
            clock.units_per_second = units;
        }
        Ok((interface, clock))
    }

    /// What the capturing program lost: `isb_ifdrop` and `isb_osdrop`.
    fn dropped(&self) -> Result<Option<u64>, SavefileError> {
        self.needs(12)?;
        let mut dropped: Option<u64> = None;
        const BY_THE_INTERFACE: u16 = 5;
        const BY_THE_SYSTEM: u16 = 7;
        self.options(BODY + 12, |code, value| {
            if let (BY_THE_INTERFACE | BY_THE_SYSTEM, 8) = (code, value.len()) {
                let count = self.order.u64(value, 0);
                dropped = Some(dropped.unwrap_or(0).saturating_add(count));
            }
        })?;
        Ok(dropped)
    }
}

/// The byte order of a section, whose header begins here with at least 12 octets.
fn byte_order(block: &[u8], place: Place) -> Result<Order, SavefileError> {
    match (Order::Big.u32(block, BODY), Order::Little.u32(block, BODY)) {
        (BYTE_ORDER, _) => Ok(Order::Big),
        (_, BYTE_ORDER) => Ok(Order::Little),
        (other, _) => Err(SavefileError::Value {
            part: Part::Block(SECTION_HEADER),
            offset: place.0,
            field: "the byte-order magic",
            value: u64::from(other),
            expected: format!("{BYTE_ORDER} ({BYTE_ORDER:#010x}) in either byte order"),
        }),
    }
}

fn text(octets: &[u8]) -> String {
    // dumpcap ends none with a zero, others do.
    let text = String::from_utf8_lossy(octets);
    text.trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use pcap_file::DataLink;
    use pcap_file::Endianness;
    use pcap_file::pcapng::PcapNgBlock;
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
    use pcap_file::pcapng::blocks::interface_description::InterfaceTsResolution;
    use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsBlock;
    use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
    use pcap_file::pcapng::blocks::simple_packet::SimplePacketBlock;

    use super::*;
    use crate::wire::Savefile;

    /// A file of every block that is read, by another's hand.
    fn written(endianness: Endianness) -> Vec<u8> {
        let mut writer = PcapNgWriter::with_endianness(Vec::new(), endianness).unwrap();
        let interface = |linktype, options| InterfaceDescriptionBlock {
            linktype,
            snaplen: 3,
            options,
        };
        let mut write = |block| writer.write_block(&block).map(|_| ()).unwrap();
        let resolution = |binary, exponent| {
            let resolution = InterfaceTsResolution::new(binary, exponent).unwrap();
            InterfaceDescriptionOption::IfTsResol(resolution)
        };
        let name = InterfaceDescriptionOption::IfName(Cow::Borrowed("eth0"));
        let filter = InterfaceDescriptionOption::IfFilter(Cow::Borrowed(b"\0host 192.0.2.10"));
        write(interface(DataLink::ETHERNET, vec![name, filter]).into_block());
        let options = vec![
            resolution(true, 10),
            InterfaceDescriptionOption::IfTsOffset(-5),
        ];
        write(interface(DataLink::RAW, options).into_block());
        write(interface(DataLink::LINUX_SLL, vec![resolution(false, 9)]).into_block());
        for (interface_id, nanoseconds, flags) in [
            (0, 1_000_000_123_000, 0b01),
            (1, 1_000_500_000_000, 0b10),
            (2, 1_000_000_000_123, 0b00),
        ] {
            let packet = EnhancedPacketBlock {
                interface_id,
                timestamp: Duration::from_nanos(nanoseconds),
                original_len: 9,
                data: Cow::Borrowed(b"abc"),
                options: vec![EnhancedPacketOption::Flags(flags)],
            };
            write(packet.into_block());
        }
        let packet = SimplePacketBlock {
            original_len: 9,
            data: Cow::Borrowed(b"abc"),
        };
        write(packet.into_block());
        let statistics = InterfaceStatisticsBlock {
            interface_id: 0,
            timestamp: Duration::from_secs(1001),
            options: vec![
                InterfaceStatisticsOption::IsbIfDrop(2),
                InterfaceStatisticsOption::IsbOsDrop(5),
            ],
        };
        write(statistics.into_block());
        writer.into_inner()
    }

    #[test]
    fn every_block_is_read_as_another_program_wrote_it() {
        for endianness in [Endianness::Little, Endianness::Big] {
            let mut savefile = Savefile::default();
            savefile.feed(&written(endianness));
            let mut rows = Vec::new();
            while let Some(packet) = savefile.next_packet().unwrap() {
                assert_eq!((packet.bytes, packet.original_length), (&b"abc"[..], 9));
                let link_type = packet.interface.link_type.0;
                rows.push((link_type, packet.time, packet.bound));
            }
            assert_eq!(savefile.end(), Ok(()));
            let expected = [
                (1, Some(1_000_000_123_000), Some(Bound::In)),
                (101, Some(1_000_500_000_000), Some(Bound::Out)),
                (113, Some(1_000_000_000_123), None),
                (1, None, None),
            ];
            assert_eq!(rows, expected);
            assert_eq!(savefile.dropped(), Some(7));
            let first = &savefile.interfaces()[0];
            assert_eq!(first.name.as_deref(), Some("eth0"));
            assert_eq!(first.filter.as_deref(), Some("host 192.0.2.10"));
        }
    }
}
