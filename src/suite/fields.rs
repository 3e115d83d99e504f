//! The fields of one layer as they are written, and what of it carries the identity.

use std::net::Ipv4Addr;

use crate::plan::Carrier;
use crate::plan::Hardware;
use crate::suite::environment::Scope;
use crate::suite::layer;
use crate::suite::layer::WITH_FIELDS;
use crate::suite::layer::allowed;
use crate::suite::options;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::source::At;
use crate::wire::Mac;
use crate::wire::TcpFlags;
use crate::wire::layers::Arp;
use crate::wire::layers::Ethernet;
use crate::wire::layers::Field;
use crate::wire::layers::Icmpv4;
use crate::wire::layers::Ipv4;
use crate::wire::layers::Layer;
use crate::wire::layers::Tcp;
use crate::wire::layers::Udp;

/// What of ports and numbers carries the identity.
const SPORT: (&str, Carrier) = ("sport", Carrier::SourcePort);
const SEQ: (&str, Carrier) = ("seq", Carrier::SequenceNumber);

/// Of octets 4 to 7 of ICMP, what says the same ones.
const ICMP_REST: [&[&str]; 5] = [&["rest"], &["id", "seq"], &["mtu"], &["gateway"], &["ptr"]];

/// Reads one layer; `quoted` is what an ICMP error quotes, which is data, and may say anything.
pub(crate) fn read(table: &Table<'_>, scope: &Scope<'_>, quoted: bool) -> Option<Read> {
    let kind = WITH_FIELDS.iter().find(|(name, _)| table.has(name));
    let Some((name, _)) = kind else {
        return read_raw(table);
    };
    let fields = Fields {
        table: &table.table(name)?,
        scope,
        quoted,
    };
    match *name {
        "ethernet" => fields.ethernet(),
        "arp" => fields.arp(),
        "ipv4" => fields.ipv4(),
        "udp" => fields.udp(),
        "tcp" => fields.tcp(),
        _ => fields.icmp(),
    }
}

/// A layer, and what of it carries the identity.
pub(crate) struct Read {
    pub(crate) layer: Layer,
    pub(crate) carriers: Vec<Carrier>,
    pub(crate) hardware: Vec<Hardware>,
}

impl Read {
    fn plain(layer: Layer) -> Option<Read> {
        Read::carrying(layer, Vec::new())
    }

    fn carrying(layer: Layer, carriers: Vec<Carrier>) -> Option<Read> {
        let hardware = Vec::new();
        Some(Read {
            layer,
            carriers,
            hardware,
        })
    }
}

fn read_raw(table: &Table<'_>) -> Option<Read> {
    let zeros = |at: At<u64>| vec![0; at.value as usize];
    if let Some(at) = table.number("payload") {
        return Read::carrying(Layer::Raw(zeros(at)), vec![Carrier::Payload]);
    }
    let octets = match () {
        () if table.has("raw") => table.hex("raw")?.value,
        () if table.has("text") => table.string("text")?.value.into_bytes(),
        () => zeros(table.number("zeros")?),
    };
    Read::plain(Layer::Raw(octets))
}

/// The fields of one layer.
struct Fields<'a> {
    table: &'a Table<'a>,
    scope: &'a Scope<'a>,
    quoted: bool,
}

impl Fields<'_> {
    fn ethernet(&self) -> Option<Read> {
        let (source, source_left_out) = self.hardware("src", Hardware::Own)?;
        let (destination, destination_left_out) = self.hardware("dst", Hardware::NextHop)?;
        let ethernet = Ethernet {
            destination,
            source,
            ethertype: self.forced("type"),
        };
        let left_out = source_left_out.into_iter().chain(destination_left_out);
        Some(Read {
            layer: Layer::Ethernet(ethernet),
            carriers: Vec::new(),
            hardware: left_out.collect(),
        })
    }

    fn arp(&self) -> Option<Read> {
        let (sender_mac, left_out) = self.hardware("hwsrc", Hardware::Own)?;
        let hwdst = self.table.mac("hwdst");
        let psrc = self.address("psrc", true);
        let pdst = self.address("pdst", false);
        let operation = self.number("op");
        let arp = Arp {
            operation: operation.unwrap_or(1),
            sender_mac,
            sender_ip: psrc?,
            target_mac: hwdst.map_or(Mac([0; 6]), |at| at.value),
            target_ip: pdst?,
        };
        Some(Read {
            layer: Layer::Arp(arp),
            carriers: Vec::new(),
            hardware: left_out.into_iter().collect(),
        })
    }

    fn ipv4(&self) -> Option<Read> {
        let (source, destination) = (self.address("src", false), self.address("dst", false));
        let flags: u8 = self.number("flags").unwrap_or(0);
        let options = self.table.given("options");
        let options = options.map(|at| options::ipv4(self.table, &at, self.scope));
        let layer = Ipv4 {
            version: self.forced("version"),
            header_length: self.forced("ihl"),
            type_of_service: self.number("tos").unwrap_or(0),
            total_length: self.forced("len"),
            identification: self.number("id").unwrap_or(0),
            reserved_flag: flags & 4 != 0,
            dont_fragment: flags & 2 != 0,
            more_fragments: flags & 1 != 0,
            fragment_offset: self.number("frag").unwrap_or(0),
            time_to_live: self.number("ttl").unwrap_or(64),
            protocol: self.forced("proto"),
            header_checksum: self.forced("chksum"),
            options: options.unwrap_or_else(|| Some(Vec::new()))?,
            ..Ipv4::new(source?, destination?)
        };
        let carriers = self.left_out(&[("id", Carrier::Identification)]);
        Read::carrying(Layer::Ipv4(layer), carriers)
    }

    fn udp(&self) -> Option<Read> {
        let dport = self.number("dport");
        let layer = Udp {
            length: self.forced("len"),
            checksum: self.forced("chksum"),
            ..Udp::new(self.number("sport").unwrap_or(0), dport?)
        };
        Read::carrying(Layer::Udp(layer), self.left_out(&[SPORT]))
    }

    fn tcp(&self) -> Option<Read> {
        let dport = self.number("dport");
        let flags: u16 = self.number("flags").unwrap_or(TcpFlags::SYN.0.into());
        let reserved: u8 = self.number("reserved").unwrap_or(0);
        let options = self.table.given("options");
        let options = options.map(|at| options::tcp(self.table, &at));
        let layer = Tcp {
            sequence_number: self.number("seq").unwrap_or(0),
            acknowledgment_number: self.number("ack").unwrap_or(0),
            data_offset: self.forced("dataofs"),
            // The lowest of the four is NS, which scapy counts among the flags.
            reserved: reserved << 1 | (flags >> 8) as u8,
            window: self.number("window").unwrap_or(8192),
            checksum: self.forced("chksum"),
            urgent_pointer: self.number("urgptr").unwrap_or(0),
            options: options.unwrap_or_else(|| Some(Vec::new()))?,
            ..Tcp::new(
                self.number("sport").unwrap_or(0),
                dport?,
                TcpFlags(flags as u8),
            )
        };
        let carriers = match flags as u8 & TcpFlags::ACK.0 {
            0 => self.left_out(&[SPORT, SEQ]),
            _ => self.left_out(&[SPORT, SEQ, ("ack", Carrier::AcknowledgmentNumber)]),
        };
        Read::carrying(Layer::Tcp(layer), carriers)
    }

    fn icmp(&self) -> Option<Read> {
        const ECHO: u8 = crate::wire::Icmpv4::ECHO;
        let icmp_type = self.number("type").unwrap_or(ECHO);
        let layer = Icmpv4 {
            checksum: self.forced("chksum"),
            rest: self.icmp_rest()?,
            ..Icmpv4::error(icmp_type, self.number("code").unwrap_or(0))
        };
        let is_left_out = !ICMP_REST.concat().iter().any(|key| self.table.has(key));
        let is_echo = matches!(icmp_type, ECHO | crate::wire::Icmpv4::ECHO_REPLY);
        let carriers = match is_echo && is_left_out && !self.quoted {
            true => vec![Carrier::Echo],
            false => Vec::new(),
        };
        Read::carrying(Layer::Icmpv4(layer), carriers)
    }

    fn icmp_rest(&self) -> Option<[u8; 4]> {
        let mut said = ICMP_REST.iter().flat_map(|keys| {
            let first = keys.iter().find(|key| self.table.has(key));
            first.map(|key| (*keys, *key))
        });
        let Some((keys, first)) = said.next() else {
            return Some([0; 4]);
        };
        if let Some((_, second)) = said.next() {
            let problem = At::new((), self.table.key(second)).wrong(
                format!("`{second}` beside `{first}`"),
                "both say octets 4 to 7",
            );
            let problem = problem.context(self.table.key(first), "the other");
            self.table.source.problem(problem);
            return None;
        }
        Some(match keys[0] {
            "rest" => {
                let at = self.table.hex("rest")?;
                let Ok(octets) = at.value.as_slice().try_into() else {
                    let message = format!("`rest` has {} octets", at.value.len());
                    let problem = at.wrong(message, "expected four, such as `00 00 05 dc`");
                    self.table.source.problem(problem);
                    return None;
                };
                octets
            }
            "mtu" => u32::from(self.number::<u16>("mtu")?).to_be_bytes(),
            "gateway" => {
                let at = self.table.given("gateway")?;
                let number = self.table.number_of("gateway", &Kind::AnyAddress, &at)?;
                let address = Ipv4Addr::from(number as u32);
                layer::declared(self.table, &at, self.scope, self.quoted, address)?.octets()
            }
            "ptr" => [self.number("ptr")?, 0, 0, 0],
            _ => {
                let id: u16 = self.number("id").unwrap_or(0);
                let seq: u16 = self.number("seq").unwrap_or(0);
                (u32::from(id) << 16 | u32::from(seq)).to_be_bytes()
            }
        })
    }

    /// A field's number; its shape says the limits, so that it fits.
    fn number<T: TryFrom<u64>>(&self, key: &str) -> Option<T> {
        T::try_from(self.table.number(key)?.value).ok()
    }

    /// What is written is forced, even if it would have been derived.
    fn forced<T: TryFrom<u64>>(&self, key: &str) -> Field<T> {
        self.number(key).map_or(Field::Derived, Field::Forced)
    }

    /// What carries the identity because it was left out.
    fn left_out(&self, carriers: &[(&str, Carrier)]) -> Vec<Carrier> {
        let left_out = carriers
            .iter()
            .filter(|(key, _)| !self.table.has(key) && !self.quoted);
        left_out.map(|(_, carrier)| *carrier).collect()
    }

    /// A hardware address, and whose it is if it was left out.
    fn hardware(&self, key: &str, whose: Hardware) -> Option<(Mac, Option<Hardware>)> {
        match self.table.has(key) {
            true => Some((self.table.mac(key)?.value, None)),
            false => Some((Mac([0; 6]), Some(whose))),
        }
    }

    /// An address that a packet may bear.
    fn address(&self, key: &str, or_none: bool) -> Option<Ipv4Addr> {
        let at = self.table.string(key)?;
        allowed(self.table, &at, self.scope, self.quoted, or_none)
    }
}
