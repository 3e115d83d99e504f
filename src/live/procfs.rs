//! What `/proc` says: sysctls, counters, listening sockets and IPVS's connections.
//!
//! Always of the calling thread's network namespace: `/proc/sys/net` follows its reader, and `/proc/net`
//! would be that of the process's first thread, hence `/proc/thread-self/net`.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::fcntl::openat;
use nix::sys::stat::Mode;

use crate::exchange::HostFacts;
use crate::exchange::IpvsConnection;
use crate::exchange::Listener;
use crate::exchange::ServiceQuery;
use crate::live::links::SETTINGS;

/// Where the files of the calling thread's network namespace are.
const NET: &str = "/proc/thread-self/net";

/// Where the settings of IPv4 are.
const IPV4: &str = "/proc/sys/net/ipv4";

/// A director may have millions of connections; no more time than this is spent on looking through them.
const CONNECTIONS_TIME_LIMIT: Duration = Duration::from_millis(300);

/// A file that could not be read, in words.
pub(super) struct Failure {
    /// The file.
    pub(super) what: String,
    /// Why.
    pub(super) error: String,
}

impl Failure {
    fn new(file: &str, error: &io::Error) -> Failure {
        Failure {
            what: file.to_owned(),
            error: error.to_string(),
        }
    }
}

/// The first line of `/proc/sys/kernel/NAME`.
pub(super) fn kernel(name: &str) -> Result<String, Failure> {
    let file = format!("/proc/sys/kernel/{name}");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) => Err(Failure::new(&file, &error)),
    }
}

/// What netlink does not tell: `net.ipv4.ip_forward`, `net.ipv4.vs.pmtu_disc`, and the settings of `all`, unless `hidden`
/// is the `only` one; that of `devices`, too. As far as they exist: a device's name stands in the key as it is, dots
/// included.
pub(super) fn sysctls(
    devices: &[&str],
    only: bool,
    failures: &mut Vec<Failure>,
) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    // The kernel looks for this namespace's folder among those of all that there are, by one name: once is enough.
    let folder = match File::open(IPV4) {
        Ok(folder) => folder,
        Err(error) => {
            failures.push(Failure::new(IPV4, &error));
            return found;
        }
    };
    let open = |name: &str| {
        let opened = openat(&folder, name, OFlag::O_CLOEXEC, Mode::empty());
        opened.map(File::from).map_err(io::Error::from)
    };
    let mut read = |name: &str, required: bool| {
        let file = format!("{IPV4}/{name}");
        match open(name).and_then(io::read_to_string) {
            Ok(text) => match text.trim().parse() {
                Ok(value) => {
                    found.insert(format!("net.ipv4.{}", name.replace('/', ".")), value);
                    return true;
                }
                Err(_) => failures.push(Failure {
                    what: file,
                    error: format!("`{}` is not a number", text.trim()),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {}
            Err(error) => failures.push(Failure::new(&file, &error)),
        }
        false
    };
    if !only {
        read("ip_forward", true);
        read("vs/pmtu_disc", false);
        for (setting, _) in SETTINGS {
            read(&format!("conf/all/{setting}"), setting == "rp_filter");
        }
    }
    // Of a patch, and netlink knows nothing of it.
    if read("conf/all/hidden", false) {
        for device in devices {
            read(&format!("conf/{device}/hidden"), false);
        }
    }
    found
}

/// The setting of the network that `sysctl` calls `name`, with one space between several values; in it a slash
/// stands for a dot of a device's name. Only what every user may read: others are secrets.
pub(super) fn setting(name: &str) -> Result<String, Failure> {
    let failed = |error: &io::Error| Failure::new(&format!("sysctl {name}"), error);
    let swapped = name.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    });
    let path: String = swapped.collect();
    let is_below = path.starts_with("net/")
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if !is_below {
        return Err(failed(&io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let file = Path::new("/proc/sys").join(path);
    let read = || match fs::metadata(&file)?.permissions().mode() & 0o004 {
        0 => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        _ => fs::read_to_string(&file),
    };
    let text = read().map_err(|error| failed(&error))?;
    let values: Vec<_> = text.split_whitespace().collect();
    Ok(values.join(" "))
}

/// Those of [`HostFacts::COUNTERS`] in `snmp` and `netstat`, by `nstat`'s names.
pub(super) fn counters(failures: &mut Vec<Failure>) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for name in ["snmp", "netstat"] {
        let file = format!("{NET}/{name}");
        match fs::read_to_string(&file) {
            Ok(text) => parse_counters(&text, &mut found),
            Err(error) => failures.push(Failure::new(&file, &error)),
        }
    }
    found
}

/// Lines come in pairs, names and values, both begun with the group. A value that is no counter
/// (`Tcp: MaxConn -1`) is left out.
fn parse_counters(text: &str, found: &mut BTreeMap<String, u64>) {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let Some((group, names)) = names.split_once(": ") else {
            continue;
        };
        let values = values.split_whitespace().skip(1);
        for (name, value) in names.split_whitespace().zip(values) {
            let wanted = HostFacts::COUNTERS
                .into_iter()
                .find(|wanted| wanted.strip_prefix(group) == Some(name));
            if let (Some(wanted), Ok(value)) = (wanted, value.parse()) {
                found.insert(wanted.to_owned(), value);
            }
        }
    }
}

/// The TCP sockets that listen on `port` and the UDP sockets bound to it, each once, of `/proc/net/tcp` and `udp`.
pub(super) fn listeners(port: u16, failures: &mut Vec<Failure>) -> Vec<Listener> {
    let mut found = Vec::new();
    for (name, protocol) in [("tcp", 6), ("tcp6", 6), ("udp", 17), ("udp6", 17)] {
        let file = format!("{NET}/{name}");
        let sockets = match File::open(&file) {
            Ok(file) => BufReader::new(file),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {
                continue;
            }
            Err(error) => {
                failures.push(Failure::new(&file, &error));
                continue;
            }
        };
        if let Err(error) = parse_sockets(sockets, protocol, port, &mut found) {
            failures.push(Failure::new(&file, &error));
        }
    }
    found
}

/// `sl local_address rem_address st …`, addresses in hexadecimal words of the host's own order, ports in hexadecimal.
///
/// An IPv6 socket bound to `::` takes IPv4 too, unless it was opened with `IPV6_V6ONLY`, which these files do
/// not show; it is listed as if it did.
fn parse_sockets(
    sockets: impl BufRead,
    protocol: u8,
    port: u16,
    found: &mut Vec<Listener>,
) -> io::Result<()> {
    const SYN_RECV: &str = "03";
    const CLOSE: &str = "07";
    const LISTEN: &str = "0A";
    for line in sockets.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(_), Some(state)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        match (protocol, state) {
            (6, LISTEN) | (17, CLOSE) => {}
            (6, SYN_RECV) | (17, _) => continue,
            // All that listen stand before all that are connected, of which there may be very many.
            _ => break,
        }
        let Some((address, listens_on)) = local.split_once(':') else {
            continue;
        };
        if u16::from_str_radix(listens_on, 16) != Ok(port) {
            continue;
        }
        if let Some(address) = bound_to(address) {
            add(found, protocol, address, port);
        }
    }
    Ok(())
}

/// Adds a socket bound to this address, if one such is not listed yet.
pub(super) fn add(found: &mut Vec<Listener>, protocol: u8, address: Ipv4Addr, port: u16) {
    let listener = Listener {
        protocol,
        address: (!address.is_unspecified()).then_some(address),
        port,
    };
    if !found.contains(&listener) {
        found.push(listener);
    }
}

/// The IPv4 address a socket is bound to; `None` for one that takes no IPv4.
fn bound_to(hex: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 16];
    let words = hex.len() / 8;
    if !hex.is_ascii() || !matches!(hex.len(), 8 | 32) {
        return None;
    }
    for word in 0..words {
        let value = u32::from_str_radix(&hex[word * 8..word * 8 + 8], 16).ok()?;
        octets[word * 4..word * 4 + 4].copy_from_slice(&value.to_ne_bytes());
    }
    if words == 1 {
        return Some(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]));
    }
    let address = Ipv6Addr::from(octets);
    if address.is_unspecified() {
        return Some(Ipv4Addr::UNSPECIFIED);
    }
    address.to_ipv4_mapped()
}

/// IPVS's connections of the client with the service's VIP, on any port; none where there is no IPVS.
pub(super) fn connections(
    service: &ServiceQuery,
    failures: &mut Vec<Failure>,
) -> Vec<IpvsConnection> {
    let path = format!("{NET}/ip_vs_conn");
    let mut found = Vec::new();
    match File::open(&path) {
        Ok(file) => {
            let file = BufReader::with_capacity(64 * 1024, file);
            if let Err(error) = parse_connections(file, service, &mut found) {
                failures.push(Failure::new(&path, &error));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => failures.push(Failure::new(&path, &error)),
    }
    found
}

/// `Pro FromIP FPrt ToIP TPrt DestIP DPrt State …`, IPv4 addresses as eight hexadecimal digits in the order they
/// are written, ports in hexadecimal.
fn parse_connections(
    mut table: impl BufRead,
    service: &ServiceQuery,
    found: &mut Vec<IpvsConnection>,
) -> io::Result<()> {
    let client = format!("{:08X}", u32::from(service.cip));
    let vip = format!("{:08X}", u32::from(service.vip));
    let begun = Instant::now();
    let mut line = String::new();
    let mut count = 0u64;
    while {
        line.clear();
        table.read_line(&mut line)? > 0
    } {
        count += 1;
        if count.is_multiple_of(1024) && begun.elapsed() > CONNECTIONS_TIME_LIMIT {
            let error = format!(
                "stopped after {count} connections, looking through more would take too long"
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        let fields: [&str; 8] = {
            let mut fields = line.split_ascii_whitespace();
            std::array::from_fn(|_| fields.next().unwrap_or_default())
        };
        if fields[1] == client && fields[3] == vip {
            found.extend(connection(fields));
        }
    }
    Ok(())
}

fn connection(fields: [&str; 8]) -> Option<IpvsConnection> {
    let [protocol, cip, cport, vip, vport, rip, rport, state] = fields;
    let end = |ip: &str, port: &str| {
        let ip = (ip.len() == 8).then(|| u32::from_str_radix(ip, 16).ok())??;
        Some((Ipv4Addr::from(ip), u16::from_str_radix(port, 16).ok()?))
    };
    Some(IpvsConnection {
        protocol: match protocol {
            "TCP" => 6,
            "UDP" => 17,
            "SCTP" => 132,
            "ESP" => 50,
            "AH" => 51,
            other => other.strip_prefix("IP_")?.parse().ok()?,
        },
        client: end(cip, cport)?,
        virtual_service: end(vip, vport)?,
        destination: end(rip, rport)?,
        state: state.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_network_that_every_user_may_read() {
        let shown = |name| setting(name).map_err(|failure| failure.error);
        let own = fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
        let own: Vec<_> = own.split_whitespace().collect();
        assert_eq!(shown("net.ipv4.tcp_rmem"), Ok(own.join(" ")));
        assert!(
            shown("net.ipv4.nonesuch")
                .unwrap_err()
                .contains("No such file")
        );
        assert_eq!(
            shown("net.ipv4.tcp_fastopen_key"),
            Err("permission denied".to_owned())
        );
        for name in [
            "kernel.hostname",
            "net.//.kernel.hostname",
            "net..ipv4",
            "net",
        ] {
            assert!(shown(name).unwrap_err().contains("invalid"), "{name}");
        }
    }

    #[test]
    fn counters_have_the_names_nstat_gives_them() {
        let text = "\
Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors
Ip: 1 64 9 0 4
Tcp: RtoAlgorithm MaxConn InCsumErrors
Tcp: 1 -1 7
Udp: InCsumErrors
Udp: -1
TcpExt: IPReversePathFilter ListenDrops
TcpExt: 3 18446744073709551615
";
        let mut found = BTreeMap::new();
        parse_counters(text, &mut found);
        assert_eq!(found["TcpInCsumErrors"], 7);
        assert_eq!(found["TcpExtIPReversePathFilter"], 3);
        assert_eq!(found["TcpExtListenDrops"], u64::MAX);
        assert!(!found.contains_key("UdpInCsumErrors"), "-1 counts nothing");
        assert_eq!(found.len(), 3, "others tell nothing of the path: {found:?}");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn sockets_are_read_up_to_the_first_connected_one() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   3: 00000000:0051 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   4: 0A0200C0:0050 076433C6:8000 01 00000000:00000000 02:000A7214 00000000
   5: 0A0200C0:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000
";
        let mut found = Vec::new();
        parse_sockets(tcp.as_bytes(), 6, 80, &mut found).unwrap();
        let expected = [Some(Ipv4Addr::LOCALHOST), None].map(|address| Listener {
            protocol: 6,
            address,
            port: 80,
        });
        assert_eq!(found, expected);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_dual_stack_socket_is_one_of_ipv4() {
        let any = "00000000000000000000000000000000";
        let mapped = "0000000000000000FFFF00000A0200C0";
        let loopback = "00000000000000000000000001000000";
        assert_eq!(bound_to(any), Some(Ipv4Addr::UNSPECIFIED));
        assert_eq!(bound_to(mapped), Some(Ipv4Addr::new(192, 0, 2, 10)));
        assert_eq!(bound_to(loopback), None);
        assert_eq!(bound_to("0A0200C"), None);
        assert_eq!(bound_to("éééé"), None);
    }

    /// Lines in the kernel's format (`ip_vs_conn_seq_show`).
    #[test]
    fn connections_of_the_client_with_the_vip_are_found() {
        let table = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP C6336407 8001 C000020A 0050 CB007105 0050 SYN_RECV         59
UDP C6336407 0035 C000020A 01BB CB007106 01BB UDP             300
TCP C6336408 8001 C000020A 0050 CB007105 0050 ESTABLISHED     900
TCP C6336407 8001 C000020B 0050 CB007105 0050 ESTABLISHED     900
TCP 20010db8000000000000000000000001 8001 20010db8000000000000000000000002 0050 20010db8000000000000000000000003 0050 ESTABLISHED 900
";
        let service = ServiceQuery {
            vip: Ipv4Addr::new(192, 0, 2, 10),
            cip: Ipv4Addr::new(198, 51, 100, 7),
        };
        let mut found = Vec::new();
        parse_connections(table.as_bytes(), &service, &mut found).unwrap();
        let connection = |protocol, cport, vport, host, state: &str| IpvsConnection {
            protocol,
            client: (service.cip, cport),
            virtual_service: (service.vip, vport),
            destination: (Ipv4Addr::new(203, 0, 113, host), vport),
            state: state.to_owned(),
        };
        assert_eq!(
            found,
            [
                connection(6, 0x8001, 80, 5, "SYN_RECV"),
                connection(17, 53, 443, 6, "UDP"),
            ]
        );
    }
}
