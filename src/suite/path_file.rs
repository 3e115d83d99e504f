//! The path file.

use std::net::Ipv4Addr;

use toml::de::DeTable;
use toml::de::DeValue;

use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::suite::Diagnostic;
use crate::suite::Diagnostics;
use crate::suite::reader::At;
use crate::suite::reader::Table;
use crate::suite::reader::described;

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
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<_> = errors
            .iter()
            .map(|error| {
                let span = error.span().unwrap_or(0..0);
                Diagnostic::new(span, error.message().replace('\n', ", "), "")
            })
            .collect();
        if problems.is_empty() {
            match read(table.get_ref(), text, &mut problems) {
                Some(path) if problems.is_empty() => return Ok(path),
                _ => {}
            }
        }
        Err(Diagnostics::new(file, text, problems))
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
        }
    }
}

const TABLES: &[&str] = &["path", "director", "realserver", "client"];

/// The whole file; `None` only if there are problems.
fn read(file: &DeTable<'_>, text: &str, problems: &mut Vec<Diagnostic>) -> Option<PathFile> {
    problems.extend(Table::new("the path file", TABLES, file, 0..0, text).into_problems());
    let path = section(
        file,
        "path",
        &["vip", "port", "protocol", "encapsulation"],
        text,
        problems,
    )
    .map(|table| read_path(table, problems));
    let director = section(
        file,
        "director",
        &["ip", "via", "ingress", "egress"],
        text,
        problems,
    )
    .map(|table| read_director(table, problems));
    let client = section(file, "client", &["ip", "via"], text, problems)
        .map(|table| read_client(table, problems));
    let realservers = read_realservers(file, text, problems);

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
    check_distinct(&hosts, problems);
    check_names(&realservers, problems);
    check_gateways(&realservers, vip.as_ref(), problems);

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
fn section<'a>(
    file: &'a DeTable<'a>,
    name: &'static str,
    known: &[&'static str],
    text: &'a str,
    problems: &mut Vec<Diagnostic>,
) -> Option<Table<'a>> {
    let Some(value) = file.get(name) else {
        problems.push(missing_table(text, &format!("[{name}]")));
        return None;
    };
    let Some(entries) = value.get_ref().as_table() else {
        problems.push(Diagnostic::new(
            value.span(),
            format!("`{name}` is {}", described(value.get_ref())),
            format!("expected one table `[{name}]`"),
        ));
        return None;
    };
    Some(Table::new(name, known, entries, value.span(), text))
}

fn missing_table(text: &str, header: &str) -> Diagnostic {
    let end = text.trim_end().len();
    Diagnostic::new(
        end..end,
        format!("there is no `{header}`"),
        "expected before the end",
    )
}

type ReadPath = (Option<At<Ipv4Addr>>, Option<u16>, Protocol);

fn read_path(mut table: Table<'_>, problems: &mut Vec<Diagnostic>) -> ReadPath {
    let vip = table.address("vip");
    let vip = table.must("vip", "\"192.0.2.10\"", vip);
    let port = table.port("port");
    let port = table.must("port", "80", port);
    let protocol = table.word(
        "protocol",
        &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)],
    );
    if let Some(At { value, span }) = table.string("encapsulation") {
        match value.as_str() {
            "ipip" => {}
            "gue" | "gre" => table.problem(Diagnostic::new(
                span,
                format!("the encapsulation `{value}` is not supported yet"),
                "expected `\"ipip\"`",
            )),
            _ => table.problem(Diagnostic::new(
                span,
                format!("unknown encapsulation `{}`", value.escape_debug()),
                "expected `\"ipip\"`",
            )),
        }
    }
    problems.extend(table.into_problems());
    (
        vip,
        port.map(|port| port.value),
        protocol.map_or(Protocol::Tcp, |word| word.value),
    )
}

type ReadDirector = (
    Option<At<Ipv4Addr>>,
    Option<Vec<String>>,
    Option<String>,
    Option<String>,
);

fn read_director(mut table: Table<'_>, problems: &mut Vec<Diagnostic>) -> ReadDirector {
    let ip = table.address("ip");
    let ip = table.must("ip", "\"192.0.2.2\"", ip);
    let read = (
        ip,
        table.command("via"),
        table.device("ingress"),
        table.device("egress"),
    );
    problems.extend(table.into_problems());
    read
}

type ReadClient = (Option<At<Ipv4Addr>>, Option<Vec<String>>);

fn read_client(mut table: Table<'_>, problems: &mut Vec<Diagnostic>) -> ReadClient {
    let ip = table.address("ip");
    let ip = table.must("ip", "\"198.51.100.7\"", ip);
    let via = table.command("via");
    problems.extend(table.into_problems());
    (ip, via)
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

fn read_realservers(
    file: &DeTable<'_>,
    text: &str,
    problems: &mut Vec<Diagnostic>,
) -> Vec<ReadServer> {
    let Some(value) = file.get("realserver") else {
        problems.push(missing_table(text, "[[realserver]]"));
        return Vec::new();
    };
    let array = match value.get_ref() {
        DeValue::Array(array) if !array.is_empty() => array,
        other => {
            let what = match other {
                DeValue::Array(_) => "empty".to_owned(),
                other => described(other),
            };
            problems.push(Diagnostic::new(
                value.span(),
                format!("`realserver` is {what}"),
                "expected one or more tables `[[realserver]]`",
            ));
            return Vec::new();
        }
    };
    let mut servers = Vec::new();
    for element in array {
        let Some(entries) = element.get_ref().as_table() else {
            problems.push(Diagnostic::new(
                element.span(),
                format!("a real server is {}", described(element.get_ref())),
                "expected a table",
            ));
            continue;
        };
        let known = &["name", "ip", "via", "gateway", "tunnel"];
        let table = Table::new("realserver", known, entries, element.span(), text);
        servers.push(read_realserver(table, problems));
    }
    servers
}

fn read_realserver(mut table: Table<'_>, problems: &mut Vec<Diagnostic>) -> ReadServer {
    let rip = table.address("ip");
    let rip = table.must("ip", "\"203.0.113.5\"", rip);
    let name = table.string("name");
    if let Some(At { value, span }) = &name {
        let wrong = match value.as_str() {
            "director" | "client" => Some("another host of the path is called so"),
            name if name.trim().is_empty() => Some("expected a name"),
            name if name.contains(char::is_control) => Some("a name has no control characters"),
            _ => None,
        };
        if let Some(label) = wrong {
            table.problem(Diagnostic::new(
                span.clone(),
                format!("`{}` is no name for a real server", value.escape_debug()),
                label,
            ));
        }
    }
    let server = ReadServer {
        name,
        rip,
        via: table.command("via"),
        gateway: table.address("gateway"),
        tunnel: table.device("tunnel"),
    };
    problems.extend(table.into_problems());
    server
}

/// VIP, director, client and real servers are all different addresses.
fn check_distinct(hosts: &[(String, &At<Ipv4Addr>)], problems: &mut Vec<Diagnostic>) {
    for (number, (name, address)) in hosts.iter().enumerate() {
        let earlier = hosts[..number]
            .iter()
            .find(|(_, earlier)| earlier.value == address.value);
        if let Some((other, earlier)) = earlier {
            problems.push(
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

fn check_names(servers: &[ReadServer], problems: &mut Vec<Diagnostic>) {
    let names: Vec<_> = servers
        .iter()
        .filter_map(|server| server.name.as_ref())
        .collect();
    for (number, name) in names.iter().enumerate() {
        if let Some(earlier) = names[..number].iter().find(|e| e.value == name.value) {
            problems.push(
                Diagnostic::new(
                    name.span.clone(),
                    format!("two real servers are called `{}`", name.value),
                    "expected another name",
                )
                .context(earlier.span.clone(), "the first"),
            );
        }
    }
}

fn check_gateways(
    servers: &[ReadServer],
    vip: Option<&At<Ipv4Addr>>,
    problems: &mut Vec<Diagnostic>,
) {
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
            problems.push(
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
mod tests {
    use super::*;

    const GOOD: &str = r#"[path]
vip = "192.0.2.10"
port = 80
protocol = "udp"
encapsulation = "ipip"

[director]
ip = "192.0.2.2"
via = "local"
ingress = "eth0"

[[realserver]]
name = "rs1"
ip = "203.0.113.5"
via = "ssh -o 'ProxyCommand=nc %h' root@rs1"
gateway = "203.0.113.1"
tunnel = "tunl0"

[[realserver]]
ip = "203.0.113.6"

[client]
ip = "198.51.100.7"
"#;

    fn parse(text: &str) -> Result<PathFile, Diagnostics> {
        PathFile::parse("path.toml", text)
    }

    #[test]
    fn reads_every_key() {
        let path = parse(GOOD).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(path.vip, Ipv4Addr::new(192, 0, 2, 10));
        assert_eq!((path.port, path.protocol), (80, Protocol::Udp));
        assert_eq!(path.director_via, Some(vec!["local".to_owned()]));
        assert_eq!((path.ingress.as_deref(), path.egress), (Some("eth0"), None));
        assert_eq!(path.realservers.len(), 2);
        let rs1 = &path.realservers[0];
        assert_eq!(
            rs1.via.as_deref(),
            Some(&["ssh", "-o", "ProxyCommand=nc %h", "root@rs1"].map(str::to_owned)[..])
        );
        assert_eq!(rs1.gateway, Some(Ipv4Addr::new(203, 0, 113, 1)));
        assert_eq!(rs1.tunnel.as_deref(), Some("tunl0"));
        assert_eq!(path.realservers[1].name, "203.0.113.6");
        assert_eq!(path.realservers[1].via, None);
        assert_eq!(path.client_via, None);
    }

    #[test]
    fn protocol_and_encapsulation_have_defaults() {
        let text = GOOD
            .replace("protocol = \"udp\"\n", "")
            .replace("encapsulation = \"ipip\"\n", "");
        assert_eq!(parse(&text).unwrap().protocol, Protocol::Tcp);
    }

    /// What to replace in `GOOD`, by what; line and column of the error; words in it.
    const WRONG: &[(&str, &str, (usize, usize), &str)] = &[
        (
            "vip = \"192.0.2.10\"",
            "vip = \"2001:db8::1\"",
            (2, 7),
            "IPv4 only",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"192.0.2\"",
            (2, 7),
            "no IPv4 address",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"192.0.2.10/32\"",
            (2, 7),
            "the address alone: `192.0.2.10`",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"www.example.org\"",
            (2, 7),
            "names are not looked up",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"0.0.0.0\"",
            (2, 7),
            "no host's address",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"127.0.0.1\"",
            (2, 7),
            "loopback",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"224.0.0.5\"",
            (2, 7),
            "multicast",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"255.255.255.255\"",
            (2, 7),
            "broadcast",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = \"240.1.2.3\"",
            (2, 7),
            "reserved",
        ),
        (
            "vip = \"192.0.2.10\"",
            "vip = 3221225994",
            (2, 7),
            "`vip` is an integer",
        ),
        ("vip = \"192.0.2.10\"\n", "", (1, 1), "`path` has no `vip`"),
        ("vip =", "vpi =", (2, 1), "unknown key `vpi`"),
        ("port = 80", "prot = 80", (3, 1), "did you mean `port`?"),
        ("port = 80", "port = 0", (3, 8), "`0` is no port"),
        ("port = 80", "port = 65536", (3, 8), "1 to 65535"),
        ("port = 80", "port = -1", (3, 8), "`-1` is no port"),
        ("port = 80", "port = \"80\"", (3, 8), "`port` is a string"),
        (
            "protocol = \"udp\"",
            "protocol = \"sctp\"",
            (4, 12),
            "`\"tcp\"` or `\"udp\"`",
        ),
        ("\"ipip\"", "\"gue\"", (5, 17), "`gue` is not supported yet"),
        ("\"ipip\"", "\"ipsec\"", (5, 17), "unknown encapsulation"),
        (
            "[director]",
            "[directer]",
            (7, 2),
            "did you mean `director`?",
        ),
        (
            "ip = \"192.0.2.2\"",
            "ip = \"192.0.2.10\"",
            (8, 6),
            "the director and the VIP have the same address",
        ),
        (
            "via = \"local\"",
            "via = \"ssh 'lb1\"",
            (9, 12),
            "never closed",
        ),
        ("via = \"local\"", "via = \"\"", (9, 7), "`via` is empty"),
        (
            "via = \"local\"",
            "via = [\"ssh\"]",
            (9, 7),
            "`via` is an array",
        ),
        (
            "ingress = \"eth0\"",
            "ingres = \"eth0\"",
            (10, 1),
            "did you mean `ingress`?",
        ),
        (
            "ingress = \"eth0\"",
            "ingress = \"a-much-too-long-name\"",
            (10, 11),
            "at most 15",
        ),
        (
            "ingress = \"eth0\"",
            "ingress = \"et/h\"",
            (10, 11),
            "no device name",
        ),
        (
            "ingress = \"eth0\"",
            "via = \"x\"",
            (10, 1),
            "duplicate key",
        ),
        (
            "name = \"rs1\"",
            "name = \"client\"",
            (13, 8),
            "no name for a real server",
        ),
        (
            "ip = \"203.0.113.5\"",
            "ip = \"192.0.2.10\"",
            (14, 6),
            "`rs1` and the VIP",
        ),
        (
            "ip = \"203.0.113.5\"",
            "ip = \"192.0.2.2\"",
            (14, 6),
            "`rs1` and the director",
        ),
        (
            "gateway = \"203.0.113.1\"",
            "gateway = \"203.0.113.5\"",
            (16, 11),
            "itself",
        ),
        (
            "ip = \"203.0.113.6\"",
            "ip = \"203.0.113.5\"",
            (20, 6),
            "the same address 203.0.113.5",
        ),
        (
            "ip = \"203.0.113.6\"",
            "ip = \"203.0.113.6\"\nname = \"rs1\"",
            (21, 8),
            "two real servers are called `rs1`",
        ),
        ("ip = \"203.0.113.6\"", "", (19, 1), "has no `ip`"),
        (
            "ip = \"198.51.100.7\"",
            "ip = \"192.0.2.10\"",
            (23, 6),
            "the client and the VIP",
        ),
        (
            "[client]\nip = \"198.51.100.7\"\n",
            "",
            (20, 19),
            "no `[client]`",
        ),
        ("port = 80", "port = ", (3, 8), ""),
        ("[client]", "[client", (22, 8), ""),
    ];

    #[test]
    fn every_error_stands_at_its_place() {
        let mut failures = Vec::new();
        for (from, to, place, words) in WRONG {
            assert!(GOOD.contains(from), "{from} is not in the good file");
            let text = GOOD.replacen(from, to, 1);
            let Err(problems) = parse(&text) else {
                failures.push(format!("`{to}` was taken"));
                continue;
            };
            let shown = problems.to_string();
            let places: Vec<_> = problems.iter().map(|p| problems.place(p)).collect();
            let arrow = format!("path.toml:{}:{}", place.0, place.1);
            if !places.contains(place) || !shown.contains(words) || !shown.contains(&arrow) {
                failures.push(format!("`{to}`: expected {place:?} {words}\n{shown}"));
            }
        }
        assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
    }

    #[test]
    fn several_errors_are_shown_at_once_in_the_order_of_the_file() {
        let text = GOOD
            .replace("port = 80", "port = 0")
            .replace("203.0.113.6", "fe80::1")
            .replace("[client]", "[clinet]");
        let problems = parse(&text).unwrap_err();
        let lines: Vec<_> = problems.iter().map(|p| problems.place(p).0).collect();
        assert_eq!(lines, [3, 20, 22, 23]);
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        let text = GOOD.replace("eth0", "e\\u001b[31m");
        let shown = parse(&text).unwrap_err().to_string();
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn no_text_makes_it_panic() {
        for end in 0..GOOD.len() {
            let _ = parse(&GOOD[..end]).map_err(|problems| problems.to_string());
            let _ = parse(&GOOD[end..]).map_err(|problems| problems.to_string());
        }
    }

    #[test]
    fn vantages_are_the_hosts_that_have_a_via() {
        let file = PathFile::parse(
            "p",
            r#"
            path = { vip = "192.0.2.10", port = 53, protocol = "udp" }
            director = { ip = "192.0.2.2", via = "local" }
            client = { ip = "198.51.100.7" }
            realserver = [
                { name = "a", ip = "203.0.113.5" },
                { name = "b", ip = "203.0.113.6", via = "ssh b", tunnel = "t" },
            ]"#,
        );
        let plan = file.unwrap().plan(SessionKey::new([1; 16]));
        assert_eq!(plan.vantages, [Host::Director, Host::Realserver(1)]);
        assert_eq!(plan.paths.len(), 2);
        assert_eq!(plan.paths[0].dip, Some(Ipv4Addr::new(192, 0, 2, 2)));
        assert_eq!(plan.paths[1].protocol, Protocol::Udp);
        assert_eq!(plan.paths[1].tunnel.as_deref(), Some("t"));
    }
}
