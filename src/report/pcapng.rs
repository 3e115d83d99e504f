//! Every packet of the evidence as a pcapng file, each with a comment that says what it shows.
//!
//! Layout: draft-ietf-opsawg-pcapng. One section; an interface block for each host, link type
//! LINKTYPE_LINUX_SLL2 because one tap sees all devices of its host; times in nanoseconds. Never an
//! `epb_verdict`: editcap and mergecap of Wireshark 4.0 rewrite it into a corrupt file.

use std::fmt::Write;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Wall;
use crate::exchange::Way;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::report::escape::escape;
use crate::report::wording::wording;
use crate::verdict::Judgement;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINUX_SLL2: u16 = 276;
const ETHERNET: u16 = 1;

/// The option `opt_comment` of any block.
const COMMENT: u16 = 1;

/// The packets that taps saw, and those sent that no tap saw, in the order of their times.
///
/// Of several rounds, each comment tells which: pcapng files can be joined as they are, a section each.
pub fn pcapng(evidence: &Evidence, judgement: &Judgement, round: Option<usize>) -> Vec<u8> {
    let mut hosts = evidence.plan().vantages.clone();
    // A capture file that was added makes its host one.
    for item in evidence.items() {
        if !hosts.contains(&item.host) {
            hosts.push(item.host);
        }
    }
    let mut file = Vec::new();
    section_header(&mut file);
    for host in &hosts {
        interface(&mut file, &escape(&evidence.plan().host_name(*host)));
    }
    let mut packets: Vec<_> = evidence
        .items()
        .iter()
        .filter_map(|item| Some((item, Packet::of(evidence, item)?)))
        .collect();
    packets.sort_by_key(|(_, packet)| packet.time);
    for (item, packet) in packets {
        if let Some(number) = hosts.iter().position(|host| *host == item.host) {
            let mut comment = comment(evidence, judgement, item);
            if let Some(round) = round {
                comment.insert_str(0, &format!("round {round}: "));
            }
            packet.write(&mut file, number as u32, &comment);
        }
    }
    file
}

/// A packet from its network header on, and what stands in its SLL2 header.
struct Packet<'a> {
    time: Wall,
    protocol: u16,
    device: u32,
    hardware: u16,
    direction: Direction,
    link_source: Option<[u8; 6]>,
    bytes: &'a [u8],
    original_length: u32,
}

impl<'a> Packet<'a> {
    fn of(evidence: &Evidence, item: &'a Item) -> Option<Packet<'a>> {
        match &item.what {
            What::Seen { capture, .. } | What::Arp { capture, .. } => Some(Packet {
                time: capture.time,
                protocol: capture.protocol,
                device: index_of(evidence, item.host, &capture.device),
                hardware: capture.hardware,
                direction: capture.direction,
                link_source: capture.link_source,
                bytes: &capture.bytes,
                original_length: capture.original_length,
            }),
            What::Sent {
                transmit,
                outcome: SendOutcome::Sent { time },
            } if !was_seen_leaving(evidence, item, transmit) => {
                Packet::of_transmit(evidence, item.host, transmit, *time)
            }
            _ => None,
        }
    }

    fn of_transmit(
        evidence: &Evidence,
        host: Host,
        transmit: &'a Transmit,
        time: Wall,
    ) -> Option<Packet<'a>> {
        let (protocol, device, link_source) = match &transmit.way {
            Way::Stack => (Capture::IPV4, 0, None),
            Way::Frame { device } => {
                let header = transmit.bytes.get(..ETHERNET_HEADER)?;
                (
                    u16::from_be_bytes([header[12], header[13]]),
                    index_of(evidence, host, device),
                    header[6..12].try_into().ok(),
                )
            }
        };
        let bytes = network_part(transmit);
        Some(Packet {
            time,
            protocol,
            device,
            hardware: ETHERNET,
            direction: Direction::Out,
            link_source,
            bytes,
            original_length: bytes.len() as u32,
        })
    }

    fn write(&self, file: &mut Vec<u8>, interface: u32, comment: &str) {
        let mut data = Vec::with_capacity(20 + self.bytes.len());
        data.extend(self.protocol.to_be_bytes());
        data.extend([0; 2]);
        data.extend(self.device.to_be_bytes());
        data.extend(self.hardware.to_be_bytes());
        data.push(match self.direction {
            Direction::In => 0,
            Direction::Out => 4,
        });
        data.push(if self.link_source.is_some() { 6 } else { 0 });
        data.extend(self.link_source.unwrap_or_default());
        data.extend([0; 2]);
        let header = data.len() as u32;
        data.extend(self.bytes);

        let time = self.time.as_nanos();
        let mut body = Vec::new();
        body.extend(interface.to_le_bytes());
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        body.extend((data.len() as u32).to_le_bytes());
        let original = self.original_length.max(self.bytes.len() as u32);
        body.extend(header.saturating_add(original).to_le_bytes());
        padded(&mut body, &data);
        option(&mut body, COMMENT, comment.as_bytes());
        end_of_options(&mut body);
        block(file, ENHANCED_PACKET, &body);
    }
}

const ETHERNET_HEADER: usize = 14;

/// What was handed to the kernel, from its network header on.
fn network_part(transmit: &Transmit) -> &[u8] {
    match transmit.way {
        Way::Stack => &transmit.bytes,
        Way::Frame { .. } => transmit.bytes.get(ETHERNET_HEADER..).unwrap_or_default(),
    }
}

/// Whether a tap on the sender saw the packet leave: the same probe, or the same octets.
fn was_seen_leaving(evidence: &Evidence, sent: &Item, transmit: &Transmit) -> bool {
    let octets = network_part(transmit);
    let same_octets = |capture: &Capture| capture.bytes.starts_with(octets);
    evidence
        .items()
        .iter()
        .filter(|item| item.host == sent.host)
        .any(|item| match &item.what {
            What::Seen {
                sighting, capture, ..
            } => {
                let itself = matches!(sighting.form, Form::Plain | Form::Tunnelled);
                let same_probe = itself && item.probe == sent.probe;
                capture.direction == Direction::Out && (same_probe || same_octets(capture))
            }
            What::Arp { capture, .. } => {
                capture.direction == Direction::Out && same_octets(capture)
            }
            _ => false,
        })
}

/// The interface index that a host's facts give a device; 0 if they do not.
fn index_of(evidence: &Evidence, host: Host, device: &str) -> u32 {
    evidence
        .facts(host)
        .and_then(|facts| facts.links.iter().find(|link| link.name == device))
        .map_or(0, |link| link.index)
}

/// `e4 tunnel-syn.0 at realserver.in: IPIP … (director-to-realserver of rs1)`
fn comment(evidence: &Evidence, judgement: &Judgement, item: &Item) -> String {
    let mut text = item.id.to_string();
    if let Some(probe) = item.probe {
        let _ = write!(text, " {probe}");
    }
    if let Some(station) = item.station {
        let _ = write!(text, " at {station}");
    }
    let _ = write!(text, ": {}", wording(evidence, item).summary);
    for path in &judgement.paths {
        let hops = hops_shown_by(judgement, path.path, item.id);
        if !hops.is_empty() {
            let names: Vec<_> = hops.iter().map(ToString::to_string).collect();
            let realserver = &evidence.plan().paths[path.path].realserver;
            let _ = write!(text, " ({} of {})", names.join(", "), escape(realserver));
        }
    }
    text
}

/// The hops of a path whose verdict rests on a piece of evidence.
fn hops_shown_by(judgement: &Judgement, path: usize, id: EvidenceId) -> Vec<Hop> {
    judgement
        .paths
        .iter()
        .filter(|judged| judged.path == path)
        .flat_map(|judged| &judged.hops)
        .filter(|hop| hop.evidence.contains(&id))
        .map(|hop| hop.hop)
        .collect()
}

fn section_header(file: &mut Vec<u8>) {
    let mut body = Vec::new();
    body.extend(0x1a2b_3c4d_u32.to_le_bytes());
    body.extend(1_u16.to_le_bytes());
    body.extend(0_u16.to_le_bytes());
    body.extend(u64::MAX.to_le_bytes());
    let program = concat!("tunproof ", env!("CARGO_PKG_VERSION"));
    const USER_APPLICATION: u16 = 4;
    option(&mut body, USER_APPLICATION, program.as_bytes());
    end_of_options(&mut body);
    block(file, SECTION_HEADER, &body);
}

fn interface(file: &mut Vec<u8>, name: &str) {
    const NAME: u16 = 2;
    const TIME_RESOLUTION: u16 = 9;
    let mut body = Vec::new();
    body.extend(LINUX_SLL2.to_le_bytes());
    body.extend([0; 2]);
    body.extend(0_u32.to_le_bytes());
    option(&mut body, NAME, name.as_bytes());
    option(&mut body, TIME_RESOLUTION, &[9]);
    end_of_options(&mut body);
    block(file, INTERFACE_DESCRIPTION, &body);
}

fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let length = body.len() as u32 + 12;
    file.extend(kind.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend(body);
    file.extend(length.to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// `data`, filled up to a multiple of 4 octets.
fn padded(body: &mut Vec<u8>, data: &[u8]) {
    body.extend(data);
    body.extend(std::iter::repeat_n(
        0,
        data.len().next_multiple_of(4) - data.len(),
    ));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::process;
    use std::process::Command;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use pcap_file::pcapng::Block;
    use pcap_file::pcapng::PcapNgReader;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
    use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
    use pcap_file::pcapng::blocks::opt_common::CommonOption;

    use super::*;
    use crate::report::fixture;

    /// What the fixture's file must say of each packet.
    const COMMENTS: [&str; 5] = [
        "e2 tunnel-syn.1: sent IPIP 192.0.2.2 > 203.0.113.5 { 198.51.100.7:56108 > 192.0.2.10:80 SYN }",
        "e3 tunnel-syn.0 at director.out: IPIP 192.0.2.2 > 203.0.113.5 { 198.51.100.7:63284 > 192.0.2.10:80 SYN }, \
         ttl 64 on eth1 (director-to-realserver of rs1)",
        "e4 tunnel-syn.0 at realserver.in: IPIP 192.0.2.2 > 203.0.113.5 { 198.51.100.7:63284 > 192.0.2.10:80 SYN }, \
         ttl 64 on eth0 (director-to-realserver of rs1)",
        "e5 tunnel-syn.0 at realserver.tunnel: 198.51.100.7:63284 > 192.0.2.10:80 SYN, ttl 64 on tunl0 \
         (decapsulation, realserver-accept of rs1)",
        "e6: sent ARP, Request who-has 203.0.113.1 (ff:ff:ff:ff:ff:ff) tell 203.0.113.5, length 28",
    ];

    fn file() -> Vec<u8> {
        pcapng(&fixture::evidence(), &fixture::judgement(), None)
    }

    #[test]
    fn another_reader_finds_hosts_times_packets_and_comments() {
        let file = file();
        let mut reader = PcapNgReader::new(&file[..]).unwrap();
        let mut packets: Vec<EnhancedPacketBlock<'static>> = Vec::new();
        while let Some(block) = reader.next_block() {
            if let (Block::EnhancedPacket(packet), _) = block.unwrap() {
                packets.push(packet.into_owned());
            }
        }
        let names = reader.interfaces().iter().map(|interface| {
            assert_eq!(u32::from(interface.linktype), u32::from(LINUX_SLL2));
            let name = interface.options.iter().find_map(|option| match option {
                InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                _ => None,
            });
            name.unwrap()
        });
        assert_eq!(names.collect::<Vec<_>>(), ["director", "rs1"]);

        let comments = packets.iter().map(|packet| match &packet.options[..] {
            [EnhancedPacketOption::Common(CommonOption::Comment(text))] => text.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(comments.collect::<Vec<_>>(), COMMENTS);
        let hosts: Vec<_> = packets.iter().map(|packet| packet.interface_id).collect();
        assert_eq!(hosts, [0, 0, 1, 1, 1]);

        let arrived = &packets[2];
        let noon = Duration::from_secs(1_795_348_800);
        assert_eq!(arrived.timestamp, noon + Duration::from_nanos(2_000_007));
        assert_eq!(
            arrived.data[..20],
            *b"\x08\0\0\0\0\0\0\0\0\x01\0\x06\x02\0\0\0\0\x01\0\0"
        );
        assert_eq!(arrived.data[20], 0x45);
        let arp = &packets[4];
        assert_eq!(arp.data[..2], [8, 6]);
        assert_eq!(arp.data[10], 4);
        assert_eq!(arp.data[20..], fixture::arp_frame()[14..]);
    }

    /// What tshark shows of a file, a line each packet.
    fn shown(file: &[u8]) -> Vec<String> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tunproof-report-{}-{number}.pcapng", process::id());
        let path = env::temp_dir().join(name);
        fs::write(&path, file).unwrap();
        let output = Command::new("tshark")
            .args(["-T", "fields", "-E", "separator=;", "-e", "frame.comment"])
            .args(["-e", "frame.protocols", "-e", "frame.interface_name"])
            .args(["-e", "frame.time_epoch", "-e", "arp.dst.proto_ipv4", "-r"])
            .arg(&path)
            .output();
        fs::remove_file(&path).unwrap();
        let output = output.expect("this test needs `tshark` (apt-get install tshark)");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.lines().map(str::to_owned).collect()
    }

    #[test]
    fn rounds_are_joined_and_told_apart() {
        let round = |round| pcapng(&fixture::evidence(), &fixture::judgement(), Some(round));
        let shown = shown(&[round(1), round(2)].concat());
        let expected = [1, 2].map(|round| COMMENTS.map(|text| format!("round {round}: {text};")));
        assert_eq!(shown.len(), 2 * COMMENTS.len());
        for (line, expected) in shown.iter().zip(expected.iter().flatten()) {
            assert!(line.starts_with(expected), "{expected}\n{line}");
        }
        // Each section has its own interfaces.
        assert_eq!(shown[0].split(';').nth(2), shown[5].split(';').nth(2));
    }

    #[test]
    fn wireshark_decodes_every_packet_and_shows_every_comment() {
        let ipip = "sll:ethertype:ip:ip:tcp";
        let expected = [
            (ipip, "director;1795348800.000001007;"),
            (ipip, "director;1795348800.001000007;"),
            (ipip, "rs1;1795348800.002000007;"),
            ("sll:ethertype:ip:tcp", "rs1;1795348800.003000007;"),
            ("sll:ethertype:arp", "rs1;1795348800.003500007;203.0.113.1"),
        ];
        let expected: Vec<_> = COMMENTS
            .iter()
            .zip(expected)
            .map(|(comment, (protocols, rest))| format!("{comment};{protocols};{rest}"))
            .collect();
        assert_eq!(shown(&file()), expected);
    }
}
