//! The path file.

use std::net::Ipv4Addr;

use toml::de::DeTable;

use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::suite::Diagnostic;
use crate::suite::Diagnostics;
use crate::suite::reader::Given;
use crate::suite::reader::Table;
use crate::suite::shape::Key;
use crate::suite::shape::Kind;
use crate::suite::shape::Need;
use crate::suite::shape::Shape;
use crate::suite::shape::key;
use crate::suite::source::At;
use crate::suite::source::Source;

/// A valid path file: addresses are unicast and do not contradict one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFile {
    /// The virtual IP.
    pub vip: Ipv4Addr,
    /// The service's port.
    pub port: u16,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The director's own address.
    pub dip: Ipv4Addr,
    /// The command that runs an argv on the director; `["local"]` is this host.
    pub director_via: Option<Vec<String>>,
    /// The director's device toward the client.
    pub ingress: Option<String>,
    /// The director's device toward the real servers.
    pub egress: Option<String>,
    /// The real servers; never empty.
    pub realservers: Vec<RealServer>,
    /// The client's address.
    pub cip: Ipv4Addr,
    /// The command that runs an argv on the client.
    pub client_via: Option<Vec<String>>,
}

/// A `[[realserver]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Its name; unique.
    pub name: String,
    /// Its own address.
    pub rip: Ipv4Addr,
    /// The command that runs an argv there.
    pub via: Option<Vec<String>>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Its tunnel device.
    pub tunnel: Option<String>,
}

impl PathFile {
    /// Reads a path file's text; `file` is the name that errors show.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it. A text that is no TOML is not examined further.
    pub fn parse(file: &str, text: &str) -> Result<PathFile, Diagnostics> {
        Ok(Source::parse(file, text, read)?.0)
    }

    /// The plan to prove every path; its vantages are the hosts that have a `via`.
    pub fn plan(&self, session: SessionKey) -> Plan {
        let paths = self.realservers.iter().map(|server| Path {
            realserver: server.name.clone(),
            vip: self.vip,
            port: self.port,
            protocol: self.protocol,
            rip: server.rip,
            dip: Some(self.dip),
            cip: self.cip,
            gateway: server.gateway,
            tunnel: server.tunnel.clone(),
        });
        let servers = self.realservers.iter().enumerate();
        let hosts = [(Host::Director, &self.director_via)]
            .into_iter()
            .chain(servers.map(|(number, server)| (Host::Realserver(number), &server.via)))
            .chain([(Host::Client, &self.client_via)]);
        Plan {
            session,
            paths: paths.collect(),
            vantages: hosts
                .filter(|(_, via)| via.is_some())
                .map(|(host, _)| host)
                .collect(),
            ingress: self.ingress.clone(),
            egress: self.egress.clone(),
            suites: Vec::new(),
        }
    }
}

/// Whether a text is rather a path file than a suite.
pub fn is_path_file(text: &str) -> bool {
    let (file, _) = DeTable::parse_recoverable(text);
    file.get_ref().contains_key("path")
}

/// The path file.
pub(crate) const FILE: Shape = Shape {
    name: "the path file",
    about: "A path: the client sends to the VIP, the director tunnels to a real server, which answers.",
    keys: &[
        key("path", "The service.", Need::Expected, Kind::Table(&PATH)),
        key(
            "director",
            "The load balancer.",
            Need::Expected,
            Kind::Table(&DIRECTOR),
        ),
        key(
            "realserver",
            "The real servers; each is a path of its own.",
            Need::Expected,
            Kind::List(&Kind::Table(&REALSERVER)),
        ),
        key(
            "client",
            "The client.",
            Need::Expected,
            Kind::Table(&CLIENT),
        ),
    ],
    one_of: &[],
};

const PATH: Shape = Shape {
    name: "`[path]`",
    about: "The service.",
    keys: &[
        key(
            "vip",
            "The virtual IP.",
            Need::Required("\"192.0.2.10\""),
            Kind::Address,
        ),
        key(
            "port",
            "The service's port.",
            Need::Required("80"),
            Kind::Number(1, 65535),
        ),
        key(
            "protocol",
            "The service's protocol; TCP, unless it is said.",
            Need::Optional,
            Kind::Word(|| PROTOCOLS.map(Protocol::name).to_vec()),
        ),
        key(
            "encapsulation",
            "How the director tunnels.",
            Need::Optional,
            Kind::Word(|| vec!["ipip"]),
        ),
    ],
    one_of: &[],
};

const DIRECTOR: Shape = Shape {
    name: "`[director]`",
    about: "The load balancer.",
    keys: &[
        key(
            "ip",
            "Its own address, the DIP.",
            Need::Required("\"192.0.2.2\""),
            Kind::Address,
        ),
        VIA,
        key(
            "ingress",
            "Its device toward the client; discovered, unless it is said.",
            Need::Optional,
            Kind::Device,
        ),
        key(
            "egress",
            "Its device toward the real servers; discovered, unless it is said.",
            Need::Optional,
            Kind::Device,
        ),
    ],
    one_of: &[],
};

const REALSERVER: Shape = Shape {
    name: "`[[realserver]]`",
    about: "A real server.",
    keys: &[
        key(
            "name",
            "Its name; its address, unless it is said.",
            Need::Optional,
            Kind::Line,
        ),
        key(
            "ip",
            "Its own address, the RIP.",
            Need::Required("\"203.0.113.5\""),
            Kind::Address,
        ),
        VIA,
        key(
            "gateway",
            "Its gateway; discovered, unless it is said.",
            Need::Optional,
            Kind::Address,
        ),
        key(
            "tunnel",
            "Its tunnel device; discovered, unless it is said.",
            Need::Optional,
            Kind::Device,
        ),
    ],
    one_of: &[],
};

const CLIENT: Shape = Shape {
    name: "`[client]`",
    about: "The client.",
    keys: &[
        key(
            "ip",
            "Its address, the CIP.",
            Need::Required("\"198.51.100.7\""),
            Kind::Address,
        ),
        VIA,
    ],
    one_of: &[],
};

const VIA: Key = key(
    "via",
    "The command that runs an argv there, such as `ssh root@lb1`; `local` is this host; without it tunproof does not run there.",
    Need::Optional,
    Kind::Command,
);

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// The whole file; `None` only if there are problems.
fn read(file: &DeTable<'_>, source: &Source<'_>) -> Option<PathFile> {
    let file = Table::new(&FILE, file, 0..0, source, None);
    let path = section(&file, "path").map(|table| read_path(&table));
    let director = section(&file, "director").map(|table| read_director(&table));
    let client = section(&file, "client").map(|table| read_client(&table));
    let realservers = read_realservers(&file);

    let (vip, port, protocol) = path.unwrap_or_default();
    let (dip, director_via, ingress, egress) = director.unwrap_or_default();
    let (cip, client_via) = client.unwrap_or_default();
    let mut hosts: Vec<(String, &At<Ipv4Addr>)> = Vec::new();
    let named = [
        ("the VIP", &vip),
        ("the director", &dip),
        ("the client", &cip),
    ];
    for (name, address) in named {
        hosts.extend(address.iter().map(|address| (name.to_owned(), address)));
    }
    for server in &realservers {
        hosts.extend(server.rip.iter().map(|rip| (server.called(), rip)));
    }
    check_distinct(&hosts, source);
    check_names(&realservers, source);
    check_gateways(&realservers, vip.as_ref(), source);

    Some(PathFile {
        vip: vip?.value,
        port: port?,
        protocol,
        dip: dip?.value,
        director_via,
        ingress,
        egress,
        realservers: realservers
            .into_iter()
            .map(ReadServer::finish)
            .collect::<Option<_>>()?,
        cip: cip?.value,
        client_via,
    })
}

/// A table that must be there once.
fn section<'a>(file: &Table<'a>, name: &'static str) -> Option<Table<'a>> {
    if !file.has(name) {
        file.source.missing(&format!("[{name}]"));
        return None;
    }
    file.table(name)
}

type ReadPath = (Option<At<Ipv4Addr>>, Option<u16>, Protocol);

fn read_path(table: &Table<'_>) -> ReadPath {
    if let Some(at) = table.string("encapsulation") {
        let shown = at.value.escape_debug();
        let message = match at.value.as_str() {
            "ipip" => None,
            "gue" | "gre" => Some(format!("the encapsulation `{shown}` is not supported yet")),
            _ => Some(format!("unknown encapsulation `{shown}`")),
        };
        if let Some(message) = message {
            let problem = at.wrong(message, "expected `\"ipip\"`");
            table.source.problem(problem);
        }
    }
    (
        table.address("vip"),
        table.number("port").map(|port| port.value as u16),
        table
            .word("protocol", &PROTOCOLS, Protocol::name)
            .map_or(Protocol::Tcp, |word| word.value),
    )
}

type ReadDirector = (
    Option<At<Ipv4Addr>>,
    Option<Vec<String>>,
    Option<String>,
    Option<String>,
);

fn read_director(table: &Table<'_>) -> ReadDirector {
    (
        table.address("ip"),
        table.command("via"),
        table.device("ingress"),
        table.device("egress"),
    )
}

type ReadClient = (Option<At<Ipv4Addr>>, Option<Vec<String>>);

fn read_client(table: &Table<'_>) -> ReadClient {
    (table.address("ip"), table.command("via"))
}

/// A `[[realserver]]` as far as it could be read.
struct ReadServer {
    name: Option<At<String>>,
    rip: Option<At<Ipv4Addr>>,
    via: Option<Vec<String>>,
    gateway: Option<At<Ipv4Addr>>,
    tunnel: Option<String>,
}

impl ReadServer {
    fn called(&self) -> String {
        match &self.name {
            Some(name) => format!("the real server `{}`", name.value),
            None => "a real server".to_owned(),
        }
    }

    fn finish(self) -> Option<RealServer> {
        let rip = self.rip?.value;
        Some(RealServer {
            name: self.name.map_or_else(|| rip.to_string(), |name| name.value),
            rip,
            via: self.via,
            gateway: self.gateway.map(|gateway| gateway.value),
            tunnel: self.tunnel,
        })
    }
}

fn read_realservers(file: &Table<'_>) -> Vec<ReadServer> {
    if !file.has("realserver") {
        file.source.missing("[[realserver]]");
    }
    if let Some(at) = file.given("realserver")
        && let Given::List(list) = &at.value
        && list.is_empty()
    {
        let problem = at.wrong(
            "`realserver` is empty",
            "expected one or more tables `[[realserver]]`",
        );
        file.source.problem(problem);
    }
    let servers = file.tables("realserver");
    servers.iter().map(read_realserver).collect()
}

fn read_realserver(table: &Table<'_>) -> ReadServer {
    let name = table.line("name");
    if let Some(at) = &name {
        let wrong = match at.value.as_str() {
            "director" | "client" => Some("another host of the path is called so"),
            name if name.trim().is_empty() => Some("expected a name"),
            _ => None,
        };
        if let Some(label) = wrong {
            let shown = at.value.escape_debug();
            let message = format!("`{shown}` is no name for a real server");
            table.source.problem(at.wrong(message, label));
        }
    }
    ReadServer {
        name,
        rip: table.address("ip"),
        via: table.command("via"),
        gateway: table.address("gateway"),
        tunnel: table.device("tunnel"),
    }
}

/// VIP, director, client and real servers are all different addresses.
fn check_distinct(hosts: &[(String, &At<Ipv4Addr>)], source: &Source<'_>) {
    for (number, (name, address)) in hosts.iter().enumerate() {
        let earlier = hosts[..number]
            .iter()
            .find(|(_, earlier)| earlier.value == address.value);
        if let Some((other, earlier)) = earlier {
            source.problem(
                Diagnostic::new(
                    address.span.clone(),
                    format!("{name} and {other} have the same address {}", address.value),
                    "expected another address",
                )
                .context(earlier.span.clone(), other.clone()),
            );
        }
    }
}

/// Every real server has a name of its own; one that is given none is called as its address is.
fn check_names(servers: &[ReadServer], source: &Source<'_>) {
    let names: Vec<_> = servers
        .iter()
        .filter_map(|server| match (&server.name, &server.rip) {
            (Some(name), _) => Some((name.value.clone(), &name.span, true)),
            (None, Some(rip)) => Some((rip.value.to_string(), &rip.span, false)),
            (None, None) => None,
        })
        .collect();
    for (number, (name, span, is_given)) in names.iter().enumerate() {
        // Two of one address are another problem.
        let mut before = names[..number].iter();
        let earlier = before.find(|(other, _, given)| other == name && (*given || *is_given));
        if let Some((_, earlier, _)) = earlier {
            source.problem(
                Diagnostic::new(
                    (*span).clone(),
                    format!("two real servers are called `{}`", name.escape_debug()),
                    "expected another name",
                )
                .context((*earlier).clone(), "the first"),
            );
        }
    }
}

fn check_gateways(servers: &[ReadServer], vip: Option<&At<Ipv4Addr>>, source: &Source<'_>) {
    for server in servers {
        let Some(gateway) = &server.gateway else {
            continue;
        };
        let own = [
            ("the VIP".to_owned(), vip),
            (server.called(), server.rip.as_ref()),
        ];
        for (name, address) in own {
            let Some(address) = address.filter(|address| address.value == gateway.value) else {
                continue;
            };
            source.problem(
                Diagnostic::new(
                    gateway.span.clone(),
                    format!("the gateway {} is {name} itself", gateway.value),
                    "expected the router's address on the real server's link",
                )
                .context(address.span.clone(), name),
            );
        }
    }
}

#[cfg(test)]
mod tests;
