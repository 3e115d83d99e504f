//! The layers of a packet written out, under scapy's names.

use std::net::Ipv4Addr;

use crate::suite::Environment;
use crate::suite::environment::Scope;
use crate::suite::options;
use crate::suite::reader::Table;
use crate::suite::shape::Key;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;
use crate::suite::values::address;

/// An element of `send`.
pub(crate) const LAYER: Shape = Shape {
    name: "a layer",
    about: "One layer of a packet; the names of its fields are scapy's.",
    keys: &[
        layer("ethernet", "An Ethernet header.", &ETHERNET),
        layer("arp", "An ARP packet, behind `ethernet`.", &ARP),
        layer("ipv4", "An IPv4 header; one behind another is IPIP.", &IPV4),
        layer("udp", "A UDP header.", &UDP),
        layer("tcp", "A TCP header.", &TCP),
        layer(
            "icmp",
            "An ICMP header; what an error quotes follows as layers.",
            &ICMP,
        ),
        key("raw", "Octets in hex.", Need::Optional, Kind::Hex),
        key("text", "Octets as UTF-8 text.", Need::Optional, Kind::Text),
        key(
            "zeros",
            "So many octets that are 0.",
            Need::Optional,
            Kind::Number(0, 65535),
        ),
        key(
            "payload",
            "So many octets that begin with the packet's identity, as behind a `udp` that ends the list.",
            Need::Optional,
            Kind::Number(0, 65535),
        ),
    ],
    one_of: &[
        "ethernet", "arp", "ipv4", "udp", "tcp", "icmp", "raw", "text", "zeros", "payload",
    ],
};

/// The layers that have fields, by their names.
pub(crate) const WITH_FIELDS: [(&str, &Shape); 6] = [
    ("ethernet", &ETHERNET),
    ("arp", &ARP),
    ("ipv4", &IPV4),
    ("udp", &UDP),
    ("tcp", &TCP),
    ("icmp", &ICMP),
];

const fn layer(name: &'static str, about: &'static str, shape: &'static Shape) -> Key {
    key(name, about, Need::Optional, Kind::Table(shape))
}

const fn field(name: &'static str, about: &'static str, kind: Kind) -> Key {
    key(name, about, Need::Optional, kind)
}

const BYTE: Kind = Kind::Number(0, 0xff);
const SHORT: Kind = Kind::Number(0, 0xffff);
const LONG: Kind = Kind::Number(0, 0xffff_ffff);
const NIBBLE: Kind = Kind::Number(0, 0xf);
const A_PORT: Need = Need::Required("33434");

const ETHERNET: Shape = Shape {
    name: "`ethernet`",
    about: "An Ethernet header.",
    keys: &[
        field(
            "src",
            "Source; left out, that of the device by which the frame leaves.",
            Kind::Mac,
        ),
        field(
            "dst",
            "Destination; left out, that of the next hop, or of everybody where ARP asks or announces.",
            Kind::Mac,
        ),
        field("type", "EtherType; derived from the next layer.", SHORT),
    ],
    one_of: &[],
};

const ARP: Shape = Shape {
    name: "`arp`",
    about: "An ARP packet for IPv4 on Ethernet.",
    keys: &[
        field(
            "op",
            "Operation; `who-has`, unless it is said.",
            Kind::Named(0xffff, &[("who-has", 1), ("is-at", 2)]),
        ),
        field(
            "hwsrc",
            "Sender hardware address; left out, that of the device by which it leaves.",
            Kind::Mac,
        ),
        key(
            "psrc",
            "Sender protocol address; the path's, or 0.0.0.0.",
            Need::Required("\"$rip\""),
            Kind::AnyAddress,
        ),
        field(
            "hwdst",
            "Target hardware address; all zero, unless it is said.",
            Kind::Mac,
        ),
        key(
            "pdst",
            "Target protocol address.",
            Need::Required("\"$gateway\""),
            Kind::AnyAddress,
        ),
    ],
    one_of: &[],
};

const IPV4: Shape = Shape {
    name: "`ipv4`",
    about: "An IPv4 header.",
    keys: &[
        key(
            "src",
            "Source address.",
            Need::Required("\"$cip\""),
            Kind::AnyAddress,
        ),
        key(
            "dst",
            "Destination address.",
            Need::Required("\"$vip\""),
            Kind::AnyAddress,
        ),
        field("ttl", "Time to live; 64, unless it is said.", BYTE),
        field(
            "id",
            "Identification; left out, it carries the identity.",
            SHORT,
        ),
        field("proto", "Protocol; derived from the next layer.", BYTE),
        field("tos", "Type of service.", BYTE),
        field(
            "flags",
            "Fragmentation flags.",
            Kind::Flags(&["MF", "DF", "evil"]),
        ),
        field(
            "frag",
            "Fragment offset in units of 8 octets.",
            Kind::Number(0, 0x1fff),
        ),
        field("len", "Total length; derived.", SHORT),
        field("ihl", "Header length in 32-bit words; derived.", NIBBLE),
        field("chksum", "Header checksum; derived.", SHORT),
        field("version", "Version; derived.", NIBBLE),
        field("options", "Options.", options::IPV4),
    ],
    one_of: &[],
};

const UDP: Shape = Shape {
    name: "`udp`",
    about: "A UDP header.",
    keys: &[
        field(
            "sport",
            "Source port; left out, it carries the identity.",
            SHORT,
        ),
        key("dport", "Destination port.", A_PORT, SHORT),
        field("len", "Length; derived.", SHORT),
        field("chksum", "Checksum; derived.", SHORT),
    ],
    one_of: &[],
};

const TCP: Shape = Shape {
    name: "`tcp`",
    about: "A TCP header.",
    keys: &[
        field(
            "sport",
            "Source port; left out, it carries the identity.",
            SHORT,
        ),
        key("dport", "Destination port.", A_PORT, SHORT),
        field(
            "seq",
            "Sequence number; left out, it carries the identity.",
            LONG,
        ),
        field(
            "ack",
            "Acknowledgment number; left out where ACK is set, it carries the identity.",
            LONG,
        ),
        field("dataofs", "Header length in 32-bit words; derived.", NIBBLE),
        field("reserved", "The three reserved bits.", Kind::Number(0, 7)),
        field(
            "flags",
            "Control bits; `S`, unless it is said.",
            Kind::Flags(&["F", "S", "R", "P", "A", "U", "E", "C", "N"]),
        ),
        field("window", "Window; 8192, unless it is said.", SHORT),
        field("chksum", "Checksum; derived.", SHORT),
        field("urgptr", "Urgent pointer.", SHORT),
        field("options", "Options.", options::TCP),
    ],
    one_of: &[],
};

const ICMP: Shape = Shape {
    name: "`icmp`",
    about: "An ICMP header.",
    keys: &[
        field(
            "type",
            "Type; `echo-request`, unless it is said.",
            Kind::Named(
                0xff,
                &[
                    ("echo-reply", 0),
                    ("dest-unreach", 3),
                    ("source-quench", 4),
                    ("redirect", 5),
                    ("echo-request", 8),
                    ("time-exceeded", 11),
                    ("parameter-problem", 12),
                    ("timestamp-request", 13),
                    ("timestamp-reply", 14),
                ],
            ),
        ),
        field("code", "Code; 0, unless it is said.", BYTE),
        field("chksum", "Checksum; derived.", SHORT),
        field(
            "id",
            "Identifier; of an echo without `id` and `seq` they carry the identity.",
            SHORT,
        ),
        field("seq", "Sequence number.", SHORT),
        field("mtu", "The next hop's MTU, in fragmentation needed.", SHORT),
        field(
            "gateway",
            "The better gateway, in a redirect.",
            Kind::AnyAddress,
        ),
        field("ptr", "Where the problem is, in a parameter problem.", BYTE),
        field("rest", "Octets 4 to 7 in hex.", Kind::Hex),
    ],
    one_of: &[],
};

/// The address that `at` says, if a packet may bear it: only the path's, also in what an ICMP error quotes.
pub(crate) fn allowed(
    table: &Table<'_>,
    at: &At<String>,
    scope: &Scope<'_>,
    quoted: bool,
    or_none: bool,
) -> Option<Ipv4Addr> {
    let literal = at.value.parse::<Ipv4Addr>().ok();
    if let Some(address) = literal.filter(|address| or_none && address.is_unspecified()) {
        return Some(address);
    }
    let address = match literal
        .filter(|_| quoted)
        .map_or_else(|| address(&at.value), Ok)
    {
        Ok(address) => address,
        Err((message, label)) => {
            table.source.problem(at.wrong(message, label));
            return None;
        }
    };
    declared(table, at, scope, quoted, address)
}

/// An address, if the path declares it; without a path, that it is not judged is noted.
pub(crate) fn declared<T>(
    table: &Table<'_>,
    at: &At<T>,
    scope: &Scope<'_>,
    quoted: bool,
    address: Ipv4Addr,
) -> Option<Ipv4Addr> {
    let Some(is_declared) = scope.environment.declares(address) else {
        let is_the_paths = at
            .variable
            .as_ref()
            .is_some_and(|variable| Environment::NAMES.contains(&variable.name.as_str()));
        if !is_the_paths {
            let message = format!("literal address {address}: judged only with `--path`");
            let label = "a packet may bear only addresses that the path file declares";
            table.source.note(at.wrong(message, label));
        }
        return Some(address);
    };
    if !is_declared {
        let label = match quoted {
            true => "tunproof sends nothing that names another, not even quoted in an ICMP error",
            false => "tunproof sends only between the addresses that the path file declares",
        };
        let problem = at.wrong(format!("{address} is no address of this path"), label);
        let problem = match problem.hint {
            Some(_) => problem,
            None => problem.hint("write `$vip`, `$cip`, `$dip`, `$rip` or `$gateway`"),
        };
        table.source.problem(problem);
        return None;
    }
    Some(address)
}
