use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::proptest;
use proptest::sample::Index;

use super::*;
use crate::wire::EtherType;
use crate::wire::LinkError;
use crate::wire::link_frame;

macro_rules! captures {
    ($($name:literal),*) => {
        &[$(($name, include_bytes!(concat!("../../../tests/data/captures/", $name)))),*]
    };
}

/// What `tests/data/make_captures.sh` wrote.
const CAPTURES: &[(&str, &[u8])] = captures![
    "ethernet.pcap",
    "ethernet-ns.pcap",
    "ethernet-vlan.pcap",
    "ethernet-qinq.pcap",
    "ethernet-snap-60.pcap",
    "sll.pcap",
    "sll2.pcap",
    "sll2-out.pcap",
    "raw.pcap",
    "raw-12.pcap",
    "raw-14.pcap",
    "raw-big-endian.pcap",
    "raw-big-endian-ns.pcap",
    "ipv4.pcap",
    "null.pcap",
    "null-big-endian.pcap",
    "loop.pcap",
    "pppoe.pcap",
    "radiotap.pcap",
    "ethernet.pcapng",
    "two-interfaces.pcapng",
    "two-sections.pcapng"
];

fn capture(name: &str) -> &'static [u8] {
    let found = CAPTURES.iter().find(|(known, _)| *known == name);
    found.expect("a capture of that name").1
}

/// Number, offset, interface, time, octets.
type Row = (u64, u64, RecordedInterface, Option<u64>, Vec<u8>);

fn read(octets: &[u8], chunk: usize) -> (Vec<Row>, Result<(), SavefileError>) {
    let mut savefile = Savefile::default();
    let mut rows = Vec::new();
    for part in octets.chunks(chunk.max(1)) {
        savefile.feed(part);
        loop {
            match savefile.next_packet() {
                Ok(Some(p)) => {
                    let interface = p.interface.clone();
                    rows.push((p.number, p.offset, interface, p.time, p.bytes.to_vec()));
                    // Whatever it is, it panics nowhere.
                    let _ = link_frame(p.interface.link_type, p.bytes);
                }
                Ok(None) => break,
                Err(error) => return (rows, Err(error)),
            }
        }
    }
    (rows, savefile.end())
}

/// The three probes that every capture holds, as scapy crafted them.
fn probes() -> [Vec<u8>; 3] {
    let text = include_str!("../../../tests/data/scapy-probes.hex");
    let packets: BTreeMap<_, _> = text.lines().filter_map(|l| l.split_once(' ')).collect();
    ["spoof-trace.3", "spoof-synack.3", "tunnel-udp.3"]
        .map(|name| hex::decode(packets[name].trim()).unwrap())
}

#[test]
fn each_link_type_gives_the_packets_that_were_sent() {
    for (name, octets) in CAPTURES {
        let (rows, ended) = read(octets, usize::MAX);
        assert_eq!(ended, Ok(()), "{name}");
        let times = match *name {
            "two-interfaces.pcapng" => 2,
            "two-sections.pcapng" => 3,
            _ => 1,
        };
        assert_eq!(rows.len(), 3 * times, "{name}");
        for (number, _, interface, time, bytes) in rows {
            let nth = (number as usize - 1) % 3;
            let frame = match link_frame(interface.link_type, &bytes) {
                Ok(frame) => frame,
                Err(error) => {
                    assert_eq!(
                        (*name, error),
                        ("radiotap.pcap", LinkError::Unknown(LinkType(127)))
                    );
                    continue;
                }
            };
            assert_eq!(frame.ether_type, EtherType::IPV4, "{name} {number}");
            let sent = &probes()[nth];
            let whole = frame.network.starts_with(sent);
            let cut = *name == "ethernet-snap-60.pcap" && sent.starts_with(frame.network);
            assert!(whole || cut, "{name} {number}: {frame:?}");
            assert!(
                cut || frame.network.len() - sent.len() < 18,
                "{name} {number}"
            );
            let vlans: &[u16] = match *name {
                "ethernet-vlan.pcap" => &[7],
                "ethernet-qinq.pcap" => &[8, 7],
                _ => &[],
            };
            assert_eq!(frame.vlans, vlans, "{name}");
            // November 2026.
            let seconds = time.unwrap() / 1_000_000_000;
            assert!(
                (1_795_000_000..1_797_000_000).contains(&seconds),
                "{name}: {seconds}"
            );
        }
    }
}

#[test]
fn a_cooked_capture_tells_the_direction() {
    for (name, bound) in [
        ("sll.pcap", Some(Bound::In)),
        ("sll2.pcap", Some(Bound::In)),
        ("sll2-out.pcap", Some(Bound::Out)),
        ("ethernet.pcap", None),
    ] {
        for (_, _, interface, _, bytes) in read(capture(name), usize::MAX).0 {
            assert_eq!(
                link_frame(interface.link_type, &bytes).unwrap().bound,
                bound
            );
        }
    }
}

#[test]
fn octet_by_octet_is_the_same_as_at_once() {
    for (name, octets) in CAPTURES {
        assert_eq!(read(octets, 1), read(octets, usize::MAX), "{name}");
    }
}

#[test]
fn a_file_cut_off_anywhere_gives_what_was_whole_and_says_where() {
    for (name, octets) in CAPTURES {
        let (all, _) = read(octets, usize::MAX);
        let mut ends: Vec<_> = all.iter().skip(1).map(|row| row.1).collect();
        ends.push(octets.len() as u64);
        for length in 0..octets.len() {
            let (rows, ended) = read(&octets[..length], usize::MAX);
            let whole = rows.len();
            assert_eq!(rows[..], all[..whole], "{name} of {length}");
            assert!(
                all.len() == whole || ends[whole] > length as u64,
                "{name} of {length}"
            );
            match ended {
                // Between records nothing is missing.
                Ok(()) => assert!(length > 0),
                Err(SavefileError::Cut {
                    offset,
                    needed,
                    available,
                    ..
                }) => {
                    assert_eq!(offset + available as u64, length as u64, "{name}");
                    assert!(needed > available, "{name} of {length}");
                }
                Err(other) => panic!("{name} of {length}: {other}"),
            }
        }
    }
}

/// The error that a capture gives when octets in it are replaced.
fn damaged(name: &str, at: usize, octets: &[u8]) -> String {
    let mut file = capture(name).to_vec();
    file[at..at + octets.len()].copy_from_slice(octets);
    read(&file, usize::MAX).1.unwrap_err().to_string()
}

#[test]
fn damage_is_named_by_place_field_and_what_was_expected() {
    for (name, at, octets, expected) in [
        (
            "ethernet.pcap",
            0,
            &[0x1f, 0x8b, 8, 0][..],
            "no capture file: it begins with 1f8b0800 (gzip), and a pcap begins with a1b2c3d4 or a1b23c4d \
             in either byte order, a pcapng with 0a0d0d0a",
        ),
        (
            "ethernet.pcap",
            4,
            &[3],
            "the file header at offset 0: the major version is 3, not 2",
        ),
        (
            "raw.pcap",
            24 + 8,
            &[0xff; 4],
            "packet 1 at offset 24: the captured length is 4294967295, not at most 262144",
        ),
        (
            "ethernet.pcapng",
            8,
            &[1, 2, 3, 4],
            "the pcapng block of type 0x0a0d0d0a at offset 0: the byte-order magic is 16909060, not \
             439041101 (0x1a2b3c4d) in either byte order",
        ),
        (
            "ethernet.pcapng",
            4,
            &[0xff, 0, 0, 0],
            "the pcapng block of type 0x0a0d0d0a at offset 0: the block's total length is 255, not a \
             multiple of 4 from 12 to 16777216",
        ),
    ] {
        assert_eq!(damaged(name, at, octets), expected);
    }
}

#[test]
fn a_packet_block_must_fit_its_section() {
    let octets = capture("ethernet.pcapng");
    let first = read(octets, usize::MAX).0[0].1 as usize;
    let place = format!("packet 1 at offset {first}: ");
    for (at, value, expected) in [
        (
            8,
            1,
            "the interface is 1, not one of the 1 described before it",
        ),
        (20, 900, "the captured length is 900, not at most "),
        (
            0,
            0x0a0d_0d0a,
            "the pcapng block of type 0x0a0d0d0a at offset ",
        ),
    ] {
        let error = damaged("ethernet.pcapng", first + at, &u32::to_le_bytes(value));
        let error = error.strip_prefix(&place).unwrap_or(&error);
        assert!(error.starts_with(expected), "{error}");
    }
    let length = Order::Little.u32(octets, first + 4) as usize;
    let error = damaged("ethernet.pcapng", first + length - 4, &[0; 4]);
    let expected =
        format!("{place}the total length at its end is 0, not {length}, as at the block's start");
    assert_eq!(error, expected);
}

proptest! {
    #[test]
    fn no_octets_make_it_panic(octets in vec(any::<u8>(), 0..300), chunk in 1..64_usize) {
        let _ = read(&octets, chunk);
    }

    #[test]
    fn no_damage_makes_it_panic(
        which in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..6),
        chunk in 1..4096_usize,
    ) {
        let mut octets = which.get(CAPTURES).1.to_vec();
        for (at, value) in damage {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        let _ = read(&octets, chunk);
    }

    #[test]
    fn no_link_header_makes_it_panic(
        link_type in proptest::sample::select(vec![0, 1, 12, 14, 101, 108, 113, 228, 276, 9]),
        octets in vec(any::<u8>(), 0..64),
    ) {
        let _ = link_frame(LinkType(link_type), &octets);
    }
}
