//! The fleet file: what a director sweeps.

use std::net::Ipv4Addr;

use toml::de::DeTable;

use crate::plan::Fleet;
use crate::plan::Protocol;
use crate::plan::Range;
use crate::plan::Service;
use crate::suite::Diagnostic;
use crate::suite::Diagnostics;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;
use crate::suite::source::Source;
use crate::suite::values::address;

/// The shortest prefix that a fleet file may have: 1,048,576 addresses. A wider one is nobody's real servers, and
/// tunproof scans nothing.
const WIDEST: u8 = 12;

/// The highest rate, in packets a second.
const FASTEST: u64 = 10_000_000;

/// A valid fleet file: unicast addresses that do not contradict one another, at most [`Fleet::MOST_PAIRS`] pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetFile {
    /// What is swept.
    pub fleet: Fleet,
    /// Packets a second in all.
    pub rate: Option<u32>,
    /// Packets a second to each real server.
    pub each: Option<u32>,
}

impl FleetFile {
    /// Reads a fleet file's text; `file` is the name that errors show.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it. A text that is no TOML is not examined further.
    pub fn parse(file: &str, text: &str) -> Result<FleetFile, Diagnostics> {
        Ok(Source::parse(file, text, read)?.0)
    }
}

/// Whether a text is rather a fleet file than a suite or a path file.
pub fn is_fleet_file(text: &str) -> bool {
    let (file, _) = DeTable::parse_recoverable(text);
    file.get_ref().contains_key("service")
}

/// The fleet file.
pub(crate) const FILE: Shape = Shape {
    name: "the fleet file",
    about: "A fleet: one director, services, and the real servers of each.",
    keys: &[
        key(
            "director",
            "The load balancer, on which the sweep runs.",
            Need::Expected,
            Kind::Table(&DIRECTOR),
        ),
        key(
            "client",
            "A client that answers what it never asked for; closed-loop probes need one.",
            Need::Optional,
            Kind::Table(&CLIENT),
        ),
        key(
            "service",
            "Services, and the real servers that each of them has.",
            Need::Expected,
            Kind::List(&Kind::Table(&SERVICE)),
        ),
        key(
            "limits",
            "How fast the sweep may be.",
            Need::Optional,
            Kind::Table(&LIMITS),
        ),
    ],
    one_of: &[],
};

const DIRECTOR: Shape = Shape {
    name: "`[director]`",
    about: "The load balancer, on which the sweep runs.",
    keys: &[key(
        "ip",
        "Its own address, the DIP.",
        Need::Required("\"192.0.2.2\""),
        Kind::Address,
    )],
    one_of: &[],
};

const CLIENT: Shape = Shape {
    name: "`[client]`",
    about: "A client that answers what it never asked for; closed-loop probes need one.",
    keys: &[key(
        "ip",
        "Its address, the CIP.",
        Need::Required("\"198.51.100.7\""),
        Kind::Address,
    )],
    one_of: &[],
};

const SERVICE: Shape = Shape {
    name: "`[[service]]`",
    about: "Services, and the real servers that each of them has.",
    keys: &[
        key(
            "vip",
            "The virtual IP, or a list of them.",
            Need::Required("\"192.0.2.10\""),
            Kind::Either(&[Kind::Address, Kind::List(&Kind::Address)]),
        ),
        key(
            "port",
            "The port, or a list of them; each VIP has them all.",
            Need::Required("80"),
            Kind::Either(&[PORT, Kind::List(&PORT)]),
        ),
        key(
            "protocol",
            "The protocol; TCP, unless it is said.",
            Need::Optional,
            Kind::Word(|| PROTOCOLS.map(Protocol::name).to_vec()),
        ),
        key(
            "realservers",
            "The real servers: addresses and prefixes.",
            Need::Required("[\"203.0.113.5\", \"203.0.113.64/26\"]"),
            Kind::List(&REALSERVER),
        ),
    ],
    one_of: &[],
};

const LIMITS: Shape = Shape {
    name: "`[limits]`",
    about: "How fast the sweep may be.",
    keys: &[
        key(
            "rate",
            "Packets a second in all; 100, unless it is said.",
            Need::Optional,
            Kind::Number(1, FASTEST),
        ),
        key(
            "each",
            "Packets a second to each real server; 10, unless it is said.",
            Need::Optional,
            Kind::Number(1, FASTEST),
        ),
    ],
    one_of: &[],
};

const PORT: Kind = Kind::Number(1, 65535);

const REALSERVER: Kind = Kind::Special(
    "an address such as `\"203.0.113.5\"`, or a prefix such as `\"203.0.113.64/26\"`",
    "^[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?$",
);

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The whole file; `None` only if there are problems.
fn read(file: &DeTable<'_>, source: &Source<'_>) -> Option<FleetFile> {
    let file = Table::new(&FILE, file, 0..0, source, None);
    for name in ["director", "service"] {
        if !file.has(name) {
            let header = match name {
                "service" => "[[service]]",
                _ => "[director]",
            };
            source.missing(header);
        }
    }
    let dip = file.table("director").and_then(|table| table.address("ip"));
    let cip = file.table("client").and_then(|table| table.address("ip"));
    let tables = file.tables("service");
    if let Some(at) = file.given("service")
        && matches!(&at.value, Given::List(list) if list.is_empty())
    {
        source.problem(at.wrong(
            "`service` is empty",
            "expected one or more tables `[[service]]`",
        ));
    }
    let groups: Vec<_> = tables.iter().map(read_service).collect();
    let limits = file.table("limits");
    let limit = |name| {
        let number = limits.as_ref()?.number(name)?;
        Some(number.value as u32)
    };
    let (rate, each) = (limit("rate"), limit("each"));

    check_hosts(dip.as_ref(), cip.as_ref(), &groups, source);
    check_services(&groups, source);
    let groups = groups.into_iter().map(ReadService::finish);
    let groups = groups.collect::<Option<Vec<_>>>()?;
    let Some(fleet) = Fleet::new(dip?.value, cip.map(|at| at.value), groups) else {
        let most = Fleet::MOST_PAIRS;
        let span = file.key("service");
        source.problem(
            Diagnostic::new(
                span,
                "the fleet has too many pairs of a real server and a service",
                format!("expected {most} at most"),
            )
            .hint("an answer carries back 24 bits of a pair's number: split the fleet into several files"),
        );
        return None;
    };
    Some(FleetFile { fleet, rate, each })
}

/// A `[[service]]` as far as it could be read.
struct ReadService {
    vips: Vec<At<Ipv4Addr>>,
    ports: Vec<At<u16>>,
    protocol: Protocol,
    realservers: Vec<At<Range>>,
}

impl ReadService {
    fn services(&self) -> impl Iterator<Item = (Service, &At<Ipv4Addr>, &At<u16>)> {
        self.vips.iter().flat_map(move |vip| {
            self.ports.iter().map(move |port| {
                let service = Service {
                    vip: vip.value,
                    port: port.value,
                    protocol: self.protocol,
                };
                (service, vip, port)
            })
        })
    }

    fn finish(self) -> Option<(Vec<Service>, Vec<Range>)> {
        let services: Vec<_> = self.services().map(|(service, ..)| service).collect();
        let ranges: Vec<_> = self.realservers.iter().map(|at| at.value).collect();
        (!services.is_empty() && !ranges.is_empty()).then_some((services, ranges))
    }
}

fn read_service(table: &Table<'_>) -> ReadService {
    let vips = each(table, "vip", |at| match &at.value {
        Given::Text(text) => told(table, at, address(text)),
        _ => table.wrong_type("vip", at),
    });
    let ports = each(table, "port", |at| {
        table.number_of("port", &PORT, at).map(|port| port as u16)
    });
    let realservers = each(table, "realservers", |at| match &at.value {
        Given::Text(text) => told(table, at, range(text)),
        _ => {
            let message = format!("a real server is {}", at.value.described());
            let expected = format!("expected {}", REALSERVER.expected());
            table.source.problem(at.wrong(message, expected));
            None
        }
    });
    check_once(&realservers, table.source);
    let protocol = table.word("protocol", &PROTOCOLS, Protocol::name);
    ReadService {
        vips,
        ports,
        protocol: protocol.map_or(Protocol::Tcp, |word| word.value),
        realservers,
    }
}

/// The elements of a list, or a single one; an empty list is noted.
fn each<T>(table: &Table<'_>, key: &str, read: impl Fn(&At<Given<'_>>) -> Option<T>) -> Vec<At<T>> {
    if let Some(at) = table.given(key)
        && matches!(&at.value, Given::List(list) if list.is_empty())
    {
        let problem = at.wrong(format!("`{key}` is empty"), "expected one at least");
        table.source.problem(problem);
    }
    let list = table.list(key);
    list.iter()
        .filter_map(|at| Some(at.with(read(at)?)))
        .collect()
}

fn told<T>(table: &Table<'_>, at: &At<Given<'_>>, read: Result<T, (String, String)>) -> Option<T> {
    match read {
        Ok(value) => Some(value),
        Err((message, label)) => {
            table.source.problem(at.wrong(message, label));
            None
        }
    }
}

/// The addresses of hosts in an address or a prefix. A prefix of 30 bits or less has a network's and a broadcast
/// address, which no host has; who uses them all the same lists them as addresses.
fn range(text: &str) -> Result<Range, (String, String)> {
    let Some((network, length)) = text.split_once('/') else {
        let one = address(text)?;
        return Ok(Range {
            first: one,
            last: one,
        });
    };
    let shown = text.escape_debug();
    let (Ok(network), Ok(length @ 0..=32)) = (network.parse::<Ipv4Addr>(), length.parse::<u8>())
    else {
        let message = format!("`{shown}` is no IPv4 prefix");
        return Err((message, format!("expected {}", REALSERVER.expected())));
    };
    if length < WIDEST {
        let message = format!("`{shown}` is too wide: {} addresses", 1u64 << (32 - length));
        return Err((
            message,
            format!("expected /{WIDEST} to /32: name the real servers that there are"),
        ));
    }
    let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
    let first = network.to_bits() & !hosts;
    if first != network.to_bits() {
        let right = Ipv4Addr::from_bits(first);
        let message = format!("`{shown}` has bits behind its length");
        return Err((
            message,
            format!("expected `{right}/{length}`, or `{network}` alone"),
        ));
    }
    // No prefix as long as this has addresses of two kinds.
    address(&network.to_string())
        .map_err(|(message, label)| (format!("{message} (`{shown}`)"), label))?;
    let edge = u32::from(length <= 30);
    Ok(Range {
        first: Ipv4Addr::from_bits(first + edge),
        last: Ipv4Addr::from_bits((first | hosts) - edge),
    })
}

/// No real server stands twice in one list.
fn check_once(realservers: &[At<Range>], source: &Source<'_>) {
    let mut sorted: Vec<_> = realservers.iter().collect();
    sorted.sort_by_key(|at| (at.value, at.span.start));
    // The one that reaches farthest of those before.
    let mut reaching: Option<&At<Range>> = None;
    for at in sorted {
        if let Some(other) = reaching.filter(|other| other.value.overlaps(&at.value)) {
            let (first, second) = match other.span.start < at.span.start {
                true => (other, at),
                false => (at, other),
            };
            let twice = at.value.first;
            let message = format!("the real server {twice} stands twice");
            let problem = second.wrong(message, "expected each address once");
            source.problem(problem.context(first.span.clone(), "the first"));
        }
        if reaching.is_none_or(|other| other.value.last <= at.value.last) {
            reaching = Some(at);
        }
    }
}

/// VIPs, director, client and real servers are all different addresses.
fn check_hosts(
    dip: Option<&At<Ipv4Addr>>,
    cip: Option<&At<Ipv4Addr>>,
    groups: &[ReadService],
    source: &Source<'_>,
) {
    let vips = groups.iter().flat_map(|group| &group.vips);
    let mut hosts: Vec<(&str, &At<Ipv4Addr>)> = Vec::new();
    hosts.extend(dip.map(|at| ("the director", at)));
    hosts.extend(cip.map(|at| ("the client", at)));
    let own = hosts.clone();
    hosts.extend(vips.map(|at| ("a VIP", at)));
    for (number, (name, host)) in hosts.iter().enumerate() {
        let earlier = own.iter().take(number);
        for (other, earlier) in earlier.filter(|(_, earlier)| earlier.value == host.value) {
            let message = format!("{name} and {other} have the same address {}", host.value);
            let problem = host.wrong(message, "expected another address");
            source.problem(problem.context(earlier.span.clone(), *other));
        }
    }
    let mut addresses: Vec<_> = hosts
        .iter()
        .map(|(name, at)| (at.value, *name, *at))
        .collect();
    addresses.sort_by_key(|(address, ..)| *address);
    for server in groups.iter().flat_map(|group| &group.realservers) {
        let from = addresses.partition_point(|(address, ..)| *address < server.value.first);
        let Some((address, name, host)) = addresses.get(from) else {
            continue;
        };
        if server.value.contains(*address) {
            let is_one = server.value.first == server.value.last;
            let (message, label) = match is_one {
                true => (
                    format!("a real server and {name} have the same address {address}"),
                    "expected another address".to_owned(),
                ),
                false => (
                    format!("{name} {address} is among the real servers"),
                    "expected prefixes without it".to_owned(),
                ),
            };
            let problem = server.wrong(message, label);
            source.problem(problem.context(host.span.clone(), *name));
        }
    }
}

/// Each service stands once, with all its real servers.
fn check_services(groups: &[ReadService], source: &Source<'_>) {
    let mut known = std::collections::HashMap::new();
    for (service, vip, port) in groups.iter().flat_map(ReadService::services) {
        let Some(earlier) = known.insert(service, vip.span.clone()) else {
            continue;
        };
        let Service {
            vip: address,
            port: number,
            protocol,
        } = service;
        let place = match earlier == vip.span {
            true => port.span.clone(),
            false => vip.span.clone(),
        };
        let problem = Diagnostic::new(
            place,
            format!(
                "the service {address}:{number}/{} stands twice",
                protocol.name()
            ),
            "expected each service once, with all its real servers",
        );
        source.problem(problem.context(earlier, "the first"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(realservers: &str) -> Result<FleetFile, String> {
        let text = format!(
            "[director]\nip = \"192.0.2.2\"\n[client]\nip = \"198.51.100.7\"\n[[service]]\nvip = [\"192.0.2.10\", \
             \"192.0.2.11\"]\nport = [80, 443]\nrealservers = {realservers}\n[limits]\nrate = 5000\n"
        );
        FleetFile::parse("fleet.toml", &text).map_err(|problems| problems.to_string())
    }

    fn count(realservers: &str) -> u32 {
        parse(realservers).unwrap().fleet.groups()[0].realservers()
    }

    #[test]
    fn addresses_and_prefixes_become_ranges_of_hosts() {
        let file =
            parse("[\"203.0.113.5\", \"10.0.0.0/24\", \"10.0.1.0/31\", \"10.0.2.0/32\"]").unwrap();
        assert_eq!((file.rate, file.each), (Some(5000), None));
        assert_eq!(file.fleet.pairs(), 4 * (1 + 254 + 2 + 1));
        let group = &file.fleet.groups()[0];
        let ip = |last: [u8; 4]| Some(Ipv4Addr::from(last)).and_then(|ip| group.index_of(ip));
        assert_eq!(ip([10, 0, 0, 1]), Some(0));
        for nobody in [[10, 0, 0, 0], [10, 0, 0, 255], [10, 0, 1, 2]] {
            assert_eq!(ip(nobody), None);
        }
        assert_eq!(count("\"203.0.113.5\""), 1);
        assert_eq!(count("[\"10.0.0.0/12\"]"), (1 << 20) - 2);
        // A network's address, by itself beside its prefix.
        assert_eq!(count("[\"10.0.0.0/24\", \"10.0.0.0\"]"), 255);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (realservers, message) in [
            ("[\"10.0.0.0/11\"]", "too wide: 2097152 addresses"),
            ("[\"10.0.0.0/33\"]", "is no IPv4 prefix"),
            (
                "[\"10.0.0.1/24\"]",
                "expected `10.0.0.0/24`, or `10.0.0.1` alone",
            ),
            ("[\"224.0.0.0/24\"]", "is a multicast address"),
            ("[\"0.0.0.0/12\"]", "is no host's address"),
            ("[]", "`realservers` is empty"),
            ("[7]", "a real server is an integer"),
            ("7", "a real server is an integer"),
            (
                "[\"10.0.0.0/24\", \"10.0.0.7\"]",
                "the real server 10.0.0.7 stands twice",
            ),
            (
                "[\"10.0.0.7\", \"10.0.0.7\"]",
                "the real server 10.0.0.7 stands twice",
            ),
            (
                "[\"192.0.2.0/24\"]",
                "the director 192.0.2.2 is among the real servers",
            ),
            (
                "[\"192.0.2.10\"]",
                "a real server and a VIP have the same address",
            ),
            (
                "[\"198.51.100.7\"]",
                "a real server and the client have the same address",
            ),
            (
                "[\"10.0.0.0/12\", \"10.16.0.0/12\", \"10.32.0.0/12\", \"10.48.0.0/12\", \"10.64.0.0/12\"]",
                "too many pairs",
            ),
        ] {
            let problem = parse(realservers).unwrap_err();
            assert!(problem.contains(message), "{realservers}: {problem}");
        }
    }

    #[test]
    fn a_service_stands_once() {
        let text = "[director]\nip = \"192.0.2.2\"\n[[service]]\nvip = \"192.0.2.10\"\nport = 80\n\
                    realservers = [\"10.0.0.1\"]\n[[service]]\nvip = \"192.0.2.10\"\nport = [443, 80]\n\
                    realservers = [\"10.0.0.2\"]\n";
        let problem = FleetFile::parse("f", text).unwrap_err().to_string();
        assert!(
            problem.contains("192.0.2.10:80/tcp stands twice"),
            "{problem}"
        );
        assert!(FleetFile::parse("f", &text.replace("443, 80", "443")).is_ok());
        let missing = FleetFile::parse("f", "").unwrap_err().to_string();
        assert!(missing.contains("there is no `[director]`") && missing.contains("[[service]]"));
    }
}
