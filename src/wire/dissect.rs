//! Any packet for people: one line in tcpdump's manner, and every field under the RFC's name.
//!
//! It never fails: it shows the headers so far and says why it stopped. It reads an IPIP packet, and what
//! an ICMP error quotes, to the end.

mod header;

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;

use crate::wire::Arp;
use crate::wire::EtherType;
use crate::wire::Ethernet;
use crate::wire::Header;
use crate::wire::Icmpv4;
use crate::wire::InnerStart;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Mac;
use crate::wire::Octets;
use crate::wire::Tcp;
use crate::wire::TcpStart;
use crate::wire::Udp;
use crate::wire::UdpStart;
use crate::wire::WireError;
use crate::wire::dissect::header::CUT;
use crate::wire::dissect::header::RIGHT;
use crate::wire::dissect::header::WRONG;
use crate::wire::dissect::header::field;
use crate::wire::dissect::header::inner_start_fields;
use crate::wire::dissect::header::ipv4_fields;
use crate::wire::dissect::header::tcp_fields;
use crate::wire::dissect::header::tcp_start_fields;
use crate::wire::dissect::header::verdict;
use crate::wire::dissect::header::wrong_or_left;

/// A packet taken apart for people. `Display` is the view of several lines, each ended by a line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dissection {
    /// One line, in tcpdump's manner.
    pub summary: String,
    /// The headers, outermost first.
    pub headers: Vec<DissectedHeader>,
    /// What follows the last header.
    pub payload: Vec<u8>,
    /// What is wrong with the lengths or the first header that could not be read.
    pub stopped: Option<WireError>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DissectedHeader {
    /// Which.
    pub header: Header,
    /// Where it starts.
    pub offset: usize,
    /// How many octets of it are there.
    pub length: usize,
    /// Whether it lies in what an ICMP error quotes.
    pub is_quoted: bool,
    /// Its fields, in order.
    pub fields: Vec<DissectedField>,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DissectedField {
    /// Its name in the RFC.
    pub name: &'static str,
    /// Its value; of a checksum with the verdict.
    pub value: String,
    /// The octets of the packet that it stands in; two fields may share one, or a part of it.
    pub octets: Range<usize>,
}

impl Dissection {
    /// Whether a checksum is there and wrong.
    pub fn has_wrong_checksum(&self) -> bool {
        self.headers
            .iter()
            .flat_map(|header| &header.fields)
            .any(|field| field.value.ends_with(WRONG))
    }
}

impl fmt::Display for Dissection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for header in &self.headers {
            let quoted = if header.is_quoted { ", quoted" } else { "" };
            writeln!(f, "{} at offset {}{quoted}", header.header, header.offset)?;
            for field in &header.fields {
                writeln!(f, "  {:<24} {}", field.name, field.value)?;
            }
        }
        if !self.payload.is_empty() {
            let octets = self.payload.len();
            writeln!(
                f,
                "payload, {octets} octets\n  {}",
                hex::encode(&self.payload)
            )?;
        }
        if let Some(error) = &self.stopped {
            writeln!(f, "incomplete: {error}")?;
        }
        Ok(())
    }
}

/// Takes a packet apart that starts at its network header.
pub fn dissect(packet: &[u8], ethertype: u16) -> Dissection {
    Dissector::default().run(Next::of_ethertype(ethertype, Octets::new(packet)))
}

/// Takes a packet apart that starts at its Ethernet header.
pub fn dissect_frame(frame: &[u8]) -> Dissection {
    Dissector::default().run(Next::Ethernet(Octets::new(frame)))
}

/// What to read next.
enum Next<'a> {
    Ethernet(Octets<'a>),
    Arp(Octets<'a>),
    Ipv4(Octets<'a>),
    Udp(Ipv4<'a>),
    Tcp(Ipv4<'a>),
    Icmpv4(Ipv4<'a>),
    Payload(Octets<'a>),
}

impl<'a> Next<'a> {
    fn of_ethertype(ethertype: u16, octets: Octets<'a>) -> Next<'a> {
        match ethertype {
            EtherType::IPV4 => Next::Ipv4(octets),
            EtherType::ARP => Next::Arp(octets),
            _ => Next::Payload(octets),
        }
    }
}

#[derive(Default)]
struct Dissector {
    summary: String,
    headers: Vec<DissectedHeader>,
    stopped: Option<WireError>,
    is_quoted: bool,
}

impl Dissector {
    fn run(mut self, mut next: Next<'_>) -> Dissection {
        loop {
            let read = match next {
                Next::Ethernet(octets) => self.ethernet(octets),
                Next::Arp(octets) => self.arp(octets),
                Next::Ipv4(octets) => self.ipv4(octets),
                Next::Udp(ip) => self.udp(ip),
                Next::Tcp(ip) => self.tcp(ip),
                Next::Icmpv4(ip) => self.icmpv4(ip),
                Next::Payload(octets) => return self.finish(octets),
            };
            next = read.unwrap_or_else(|(octets, error)| {
                self.say(&format!("[|{}]", error.header()));
                self.stopped.get_or_insert(error);
                Next::Payload(octets)
            });
        }
    }

    fn finish(self, payload: Octets<'_>) -> Dissection {
        let summary = match self.headers.is_empty() && self.stopped.is_none() {
            true => format!("{} octets of an unknown protocol", payload.len()),
            false => self.summary,
        };
        Dissection {
            summary,
            headers: self.headers,
            payload: payload.bytes().to_vec(),
            stopped: self.stopped,
        }
    }

    fn ethernet<'a>(&mut self, octets: Octets<'a>) -> Read<'a> {
        let ethernet = Ethernet::checked(octets).map_err(|error| (octets, error))?;
        self.header(
            Header::Ethernet,
            octets,
            vec![
                field("destination", 0..6, ethernet.destination),
                field("source", 6..12, ethernet.source),
                field("EtherType", 12..14, format!("{:#06x}", ethernet.ethertype)),
            ],
        );
        Ok(Next::of_ethertype(ethernet.ethertype, ethernet.payload))
    }

    fn arp<'a>(&mut self, octets: Octets<'a>) -> Read<'a> {
        let arp = Arp::checked(octets).map_err(|error| (octets, error))?;
        let operation = match arp.operation {
            Arp::REQUEST => "1 (request)".to_owned(),
            Arp::REPLY => "2 (reply)".to_owned(),
            other => other.to_string(),
        };
        self.header(
            Header::Arp,
            octets,
            vec![
                field("operation", 6..8, operation),
                field("sender hardware address", 8..14, arp.sender_mac),
                field("sender protocol address", 14..18, arp.sender_ip),
                field("target hardware address", 18..24, arp.target_mac),
                field("target protocol address", 24..28, arp.target_ip),
            ],
        );
        let (sender, target) = (arp.sender_ip, arp.target_ip);
        self.say(&match arp.operation {
            Arp::REQUEST if arp.target_mac == Mac([0; 6]) => {
                format!("ARP, Request who-has {target} tell {sender}")
            }
            Arp::REQUEST => {
                let mac = arp.target_mac;
                format!("ARP, Request who-has {target} ({mac}) tell {sender}")
            }
            Arp::REPLY => format!("ARP, Reply {sender} is-at {}", arp.sender_mac),
            other => format!("ARP, operation {other}, {sender} to {target}"),
        });
        self.say(&format!(", length {}", octets.len()));
        Ok(Next::Payload(octets.after(Arp::LENGTH)))
    }

    fn ipv4<'a>(&mut self, octets: Octets<'a>) -> Read<'a> {
        let ip = match Ipv4::checked(octets) {
            Ok(ip) => ip,
            Err(error) => match Ipv4::quoted(octets) {
                Ok(ip) => {
                    self.stopped.get_or_insert(error);
                    ip
                }
                Err(error) => {
                    if let Ok(start) = InnerStart::read(octets) {
                        self.header(Header::Ipv4, octets, inner_start_fields(start));
                    }
                    self.say("IP ");
                    return Err((octets, error));
                }
            },
        };
        self.header(Header::Ipv4, octets, ipv4_fields(&ip));
        let (source, destination) = (ip.source(), ip.destination());
        self.say("IP ");
        if ip.fragment_offset() != 0 {
            let (octet, length) = (usize::from(ip.fragment_offset()) * 8, ip.payload().len());
            self.say(&format!(
                "{source} > {destination}: fragment of protocol {} at octet {octet}, length {length}",
                ip.protocol()
            ));
            return Ok(Next::Payload(ip.payload()));
        }
        match ip.protocol() {
            IpProtocol::UDP => return Ok(Next::Udp(ip)),
            IpProtocol::TCP => return Ok(Next::Tcp(ip)),
            _ => self.say(&format!("{source} > {destination}: ")),
        }
        match ip.protocol() {
            IpProtocol::ICMP => Ok(Next::Icmpv4(ip)),
            IpProtocol::IPIP => Ok(Next::Ipv4(ip.payload())),
            other => {
                self.say(&format!("ip-proto-{other} {}", ip.payload().len()));
                Ok(Next::Payload(ip.payload()))
            }
        }
    }

    fn udp<'a>(&mut self, ip: Ipv4<'a>) -> Read<'a> {
        let octets = ip.payload();
        let (source, destination) = (ip.source(), ip.destination());
        let (start, whole) = match (UdpStart::quoted(octets), Udp::checked(octets)) {
            (Err(error), _) => {
                self.say(&format!("{source} > {destination}: "));
                return Err((octets, error));
            }
            (Ok(start), whole) => (start, whole),
        };
        let verdict = match &whole {
            Ok(udp) => match udp.is_checksum_right(source, destination) {
                Some(true) => RIGHT,
                Some(false) => wrong_or_left(&ip, start.checksum),
                None => "(none)",
            },
            Err(_) => CUT,
        };
        if let Err(error) = whole {
            self.stopped.get_or_insert(error);
        }
        self.header(
            Header::Udp,
            octets,
            vec![
                field("source port", 0..2, start.source_port),
                field("destination port", 2..4, start.destination_port),
                field("length", 4..6, start.length),
                field(
                    "checksum",
                    6..8,
                    format!("{:#06x} {verdict}", start.checksum),
                ),
            ],
        );
        self.ends(
            source,
            start.source_port,
            destination,
            start.destination_port,
        );
        let length = usize::from(start.length).saturating_sub(Udp::LENGTH);
        self.say(&format!("UDP, length {length}"));
        Ok(Next::Payload(start.payload))
    }

    fn tcp<'a>(&mut self, ip: Ipv4<'a>) -> Read<'a> {
        let octets = ip.payload();
        let (source, destination) = (ip.source(), ip.destination());
        match (TcpStart::quoted(octets), Tcp::checked(octets)) {
            (Err(error), _) => {
                self.say(&format!("{source} > {destination}: "));
                Err((octets, error))
            }
            (Ok(start), Err(error)) => {
                self.header(Header::Tcp, octets, tcp_start_fields(&start));
                self.ends(
                    source,
                    start.source_port,
                    destination,
                    start.destination_port,
                );
                if let Some((_, flags)) = start.rest {
                    self.say(&format!("Flags [{flags}], "));
                }
                self.say(&format!("seq {} ", start.sequence_number));
                Err((octets, error))
            }
            (Ok(_), Ok(tcp)) => {
                let is_whole = ip.available() >= usize::from(ip.total_length());
                let verdict = match (is_whole, tcp.is_checksum_right(source, destination)) {
                    (false, _) => CUT,
                    (true, true) => RIGHT,
                    (true, false) => wrong_or_left(&ip, tcp.checksum()),
                };
                self.header(Header::Tcp, octets, tcp_fields(&tcp, verdict));
                self.ends(
                    source,
                    tcp.source_port(),
                    destination,
                    tcp.destination_port(),
                );
                let length = usize::from(ip.total_length())
                    .saturating_sub(ip.header().len() + usize::from(tcp.data_offset()) * 4);
                self.say(&tcp.describe(length));
                Ok(Next::Payload(tcp.payload()))
            }
        }
    }

    fn icmpv4<'a>(&mut self, ip: Ipv4<'a>) -> Read<'a> {
        let octets = ip.payload();
        let icmp = Icmpv4::checked(octets).map_err(|error| (octets, error))?;
        let is_whole = ip.available() >= usize::from(ip.total_length());
        let verdict = match is_whole {
            true => verdict(icmp.is_checksum_right()),
            false => CUT,
        };
        let mut fields = vec![
            field("type", 0..1, icmp.icmp_type()),
            field("code", 1..2, icmp.code()),
            field(
                "checksum",
                2..4,
                format!("{:#06x} {verdict}", icmp.checksum()),
            ),
            field("rest of header", 4..8, hex::encode(icmp.rest())),
        ];
        if let Some(mtu) = icmp.next_hop_mtu() {
            fields.push(field("next-hop MTU", 6..8, mtu));
        }
        self.header(Header::Icmpv4, octets, fields);
        let length = usize::from(ip.total_length()).saturating_sub(ip.header().len());
        self.say(&format!("ICMP {}, length {length}", icmp.describe()));
        match icmp.quotation() {
            Some(quotation) if !quotation.is_empty() => {
                self.say(", quoting ");
                self.is_quoted = true;
                Ok(Next::Ipv4(quotation))
            }
            _ => Ok(Next::Payload(icmp.payload())),
        }
    }

    fn header(&mut self, header: Header, octets: Octets<'_>, mut fields: Vec<DissectedField>) {
        let offset = octets.offset();
        let ends = fields.iter().map(|field| field.octets.end);
        let length = ends.max().unwrap_or(0).min(octets.len());
        for field in &mut fields {
            field.octets = offset + field.octets.start..offset + field.octets.end;
        }
        self.headers.push(DissectedHeader {
            header,
            offset,
            length,
            is_quoted: self.is_quoted,
            fields,
        });
    }

    fn say(&mut self, words: &str) {
        self.summary.push_str(words);
    }

    fn ends(&mut self, source: Ipv4Addr, from: u16, destination: Ipv4Addr, to: u16) {
        self.say(&format!("{source}.{from} > {destination}.{to}: "));
    }
}

/// The next thing to read, or the octets at which reading stopped, and why.
type Read<'a> = Result<Next<'a>, (Octets<'a>, WireError)>;

#[cfg(test)]
mod tests {
    use super::*;

    /// `tunnel-udp.3` of tests/data/scapy-probes.hex.
    const TUNNELLED: &str = "45000040a6d000004004d5e1c0000202cb0071054500002ce19e00004011acddc6336407c00002\
        0add3b82f10018692ab16c0e79d3caf2b510034000000073b7";

    #[test]
    fn a_cut_packet_shows_what_is_there_and_why_it_stops() {
        let packet = hex::decode(TUNNELLED).unwrap();
        let seen = dissect(&packet[..46], EtherType::IPV4);
        assert_eq!(
            seen.summary,
            "IP 192.0.2.2 > 203.0.113.5: IP 198.51.100.7 > 192.0.2.10: [|UDP]"
        );
        assert_eq!(
            seen.stopped.as_ref().unwrap().to_string(),
            "IPv4 at offset 0: 64 octets needed, 46 available up to the end of the buffer"
        );
        assert_eq!(seen.headers.len(), 2);
        assert!(!seen.has_wrong_checksum());
        let view = seen.to_string();
        for line in [
            "IPv4 at offset 20\n",
            "  identification           0xa6d0\n",
            "  header checksum          0xd5e1 (right)\n",
            "payload, 6 octets\n  dd3b82f10018\n",
        ] {
            assert!(view.contains(line), "{line} is not in\n{view}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_told() {
        let mut packet = hex::decode(TUNNELLED).unwrap();
        assert!(!dissect(&packet, EtherType::IPV4).has_wrong_checksum());
        packet[63] ^= 1;
        let seen = dissect(&packet, EtherType::IPV4);
        assert!(seen.has_wrong_checksum());
        assert_eq!(seen.headers[2].fields[3].value, "0x692a (wrong)");
    }

    #[test]
    fn every_cut_is_shown() {
        let packet = hex::decode(TUNNELLED).unwrap();
        for length in 0..packet.len() {
            let seen = dissect(&packet[..length], EtherType::IPV4);
            assert!(seen.stopped.is_some(), "{length}: {seen:?}");
            assert!(!seen.summary.is_empty());
        }
        let start = dissect(&packet[..28], EtherType::IPV4);
        assert_eq!(start.headers[1].fields[4].value, "0xe19e");
    }

    #[test]
    fn a_field_knows_its_octets() {
        let packet = hex::decode(TUNNELLED).unwrap();
        for length in 0..=packet.len() {
            let seen = dissect(&packet[..length], EtherType::IPV4);
            let mut end = 0;
            for header in &seen.headers {
                assert_eq!(header.offset, end, "{length}: {header:?}");
                for field in &header.fields {
                    assert!(field.octets.start <= end, "{length}: {field:?}");
                    end = end.max(field.octets.end);
                    let octets = &packet[..length][field.octets.clone()];
                    if field.name.ends_with("address") {
                        let octets: [u8; 4] = octets.try_into().unwrap();
                        assert_eq!(field.value, Ipv4Addr::from(octets).to_string());
                    }
                    if field.name.ends_with("port") {
                        let octets: [u8; 2] = octets.try_into().unwrap();
                        assert_eq!(field.value, u16::from_be_bytes(octets).to_string());
                    }
                }
                assert_eq!(header.offset + header.length, end, "{length}: {header:?}");
            }
        }
        let whole = dissect(&packet, EtherType::IPV4);
        let lengths: Vec<_> = whole.headers.iter().map(|header| header.length).collect();
        assert_eq!(lengths, [20, 20, 8]);
    }

    #[test]
    fn an_unknown_protocol_is_payload() {
        let seen = dissect(&[0xa5; 4], 0x86dd);
        assert_eq!(seen.summary, "4 octets of an unknown protocol");
        assert_eq!(seen.payload, [0xa5; 4]);
    }

    #[test]
    fn tunnels_in_tunnels_end() {
        let mut header = hex::decode(&TUNNELLED[..40]).unwrap();
        header[2..4].copy_from_slice(&[0xff, 0xff]);
        let packet = header.repeat(3000);
        assert_eq!(dissect(&packet, EtherType::IPV4).headers.len(), 3000);
    }
}
