//! The kernel's reasons for drops where there is no drop monitor: the tracepoint `skb:kfree_skb`.
//!
//! It tells of drops in every network namespace, and shows no packet. It is read by perf events, which end with
//! the process: nothing is turned on that could stay. Where tracefs is not mounted, it is mounted for the moment,
//! at no path.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Capture;
use crate::exchange::Freed;
use crate::exchange::FreedOne;
use crate::exchange::Wall;
use crate::live::clock;
use crate::live::sys;
use crate::live::sys::Ring;

/// How often the records are to be taken.
pub(crate) const PERIOD: Duration = Duration::from_millis(20);

/// The reasons that are given at once, by the network layer, and say what to do.
const TELLING: [&str; 20] = [
    "BPF_CGROUP_EGRESS",
    "ICMP_CSUM",
    "IP_CSUM",
    "IP_INADDRERRORS",
    "IP_INHDR",
    "IP_INNOROUTES",
    "IP_INVALID_DEST",
    "IP_INVALID_SOURCE",
    "IP_LOCALNET",
    "IP_LOCAL_SOURCE",
    "IP_NOPROTO",
    "IP_OUTNOROUTES",
    "IP_RPFILTER",
    "IP_TUNNEL_ECN",
    "NETFILTER_DROP",
    "SKB_CSUM",
    "TCP_CSUM",
    "UDP_CSUM",
    "XDP",
    "XFRM_POLICY",
];

/// The tracepoint, opened: what takes rights, and is read without.
pub(crate) struct Source {
    /// One perf event for each CPU.
    pub(crate) events: Vec<OwnedFd>,
    /// The kernel's list of symbols, whose addresses it hides from some.
    pub(crate) symbols: Option<File>,
    /// How to read the records.
    pub(crate) format: Format,
}

impl Source {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// If tracefs cannot be read, the kernel tells no reasons, or it refuses perf events.
    pub(crate) fn open(described: &io::Result<Description>) -> io::Result<Source> {
        let Description { id, text } = match described {
            Ok(description) => description,
            Err(error) => {
                return Err(io::Error::other(format!(
                    "its format in tracefs cannot be read: {error}"
                )));
            }
        };
        let format = Format::read(text).map_err(io::Error::other)?;
        let filter = CString::new(format.filter()).map_err(io::Error::other)?;
        let cpus = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let events: io::Result<Vec<OwnedFd>> = cpus_in(&cpus)
            .map(|cpu| sys::open_tracepoint(*id, cpu, &filter))
            .collect();
        let events = events.map_err(|error| {
            io::Error::other(format!(
                "perf_event_open: {error}; it takes CAP_PERFMON, or root in the initial user namespace"
            ))
        })?;
        Ok(Source {
            events,
            symbols: File::open("/proc/kallsyms").ok(),
            format,
        })
    }
}

/// The tracepoint, listened to on every CPU.
pub(crate) struct Tracepoint {
    rings: Vec<Ring>,
    format: Format,
    since: Wall,
    symbols: Option<File>,
    /// The kernel's functions that dropped something, by the locations in them.
    places: HashMap<u64, String>,
    told: HashMap<(u32, u64), usize>,
    said: bool,
}

impl Tracepoint {
    /// Reads what a source tells.
    ///
    /// # Errors
    ///
    /// If its events cannot be mapped.
    pub(crate) fn new(source: Source) -> io::Result<Tracepoint> {
        let rings: io::Result<Vec<Ring>> = source.events.into_iter().map(Ring::map).collect();
        Ok(Tracepoint {
            rings: rings?,
            format: source.format,
            since: clock::steady(),
            symbols: source.symbols,
            places: HashMap::new(),
            told: HashMap::new(),
            said: false,
        })
    }

    /// What was freed since the last call; `None` if nothing is new.
    pub(crate) fn take(&mut self) -> Option<Freed> {
        let ahead = clock::steady_ahead(sys::monotonic).as_nanos() as u64;
        let mut freed = Freed {
            since: self.since,
            ..Freed::default()
        };
        for ring in &mut self.rings {
            for record in records(&ring.take(), &self.format) {
                let Record::Freed(time, reason, location) = record else {
                    freed.missed = true;
                    continue;
                };
                let told = self.told.entry((reason, location)).or_default();
                let Some(name) = self.format.reasons.get(&reason) else {
                    continue;
                };
                if *told == Freed::LIMIT {
                    continue;
                }
                *told += 1;
                let place = self
                    .places
                    .entry(location)
                    .or_insert_with(|| place_now(self.symbols.as_ref(), location));
                freed.drops.push(FreedOne {
                    time: Wall::from_nanos(time.saturating_add(ahead)),
                    reason: name.clone(),
                    place: place.clone(),
                });
            }
        }
        let is_news = !self.said || freed.missed || !freed.drops.is_empty();
        self.said = true;
        is_news.then_some(freed)
    }
}

/// What tracefs says of the tracepoint.
pub(crate) struct Description {
    /// Its number.
    id: u64,
    /// Its format.
    text: String,
}

impl Description {
    /// Reads it; before Landlock, under which Linux 6.1 mounts no tracefs.
    ///
    /// # Errors
    ///
    /// If there is no such tracepoint, or it may not be read.
    pub(crate) fn read() -> io::Result<Description> {
        let read = |root: &str| {
            let at = |file: &str| fs::read_to_string(format!("{root}/events/skb/kfree_skb/{file}"));
            let id = at("id")?.trim().parse().map_err(io::Error::other)?;
            let text = at("format")?;
            Ok(Description { id, text })
        };
        let mounted = read("/sys/kernel/tracing");
        // Linux before 5.2 has no mounts without a path; debugfs's own would stay.
        mounted.or_else(|_: io::Error| match sys::detached_tracefs() {
            Ok(mount) => read(&format!("/proc/self/fd/{}", mount.as_raw_fd())),
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                read("/sys/kernel/debug/tracing")
            }
            Err(error) => Err(error),
        })
    }
}

/// `0-3,6`.
fn cpus_in(list: &str) -> impl Iterator<Item = i32> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten()
}

/// Where in a record what is, and the names of the reasons that tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    protocol: usize,
    location: usize,
    reason: usize,
    reasons: BTreeMap<u32, String>,
}

impl Format {
    fn read(text: &str) -> Result<Format, &'static str> {
        let offset = |name: &str, size: &str| {
            let line = text.lines().find(|line| {
                let declaration = line.trim().split(';').next().unwrap_or_default();
                declaration.starts_with("field:") && declaration.ends_with(name)
            })?;
            let mut parts = line.split(';').map(str::trim);
            let offset = parts.find_map(|part| part.strip_prefix("offset:"))?;
            (parts.next()?.strip_prefix("size:")? == size).then_some(())?;
            offset.parse().ok()
        };
        let reason = offset(" reason", "4");
        let reason =
            reason.ok_or("this kernel gives no reasons there; Linux 5.17 was the first")?;
        let names = text
            .split_once("__print_symbolic(REC->reason,")
            .map_or("", |(_, names)| names);
        let reasons: BTreeMap<u32, String> = names
            .split('{')
            .filter_map(|pair| {
                let (number, rest) = pair.split_once(',')?;
                let name = rest.split('"').nth(1)?;
                let number = number.trim().parse().ok()?;
                TELLING.contains(&name).then(|| (number, name.to_owned()))
            })
            .collect();
        if reasons.is_empty() {
            return Err("its reasons have no names that are known");
        }
        let pointer = size_of::<usize>().to_string();
        Ok(Format {
            protocol: offset(" protocol", "2").ok_or("it has no protocol")?,
            location: offset(" location", &pointer).ok_or("it has no location")?,
            reason,
            reasons,
        })
    }

    /// Which of them the kernel is to tell of.
    fn filter(&self) -> String {
        let reasons: Vec<String> = self
            .reasons
            .keys()
            .map(|number| format!("reason == {number}"))
            .collect();
        let (protocol, reasons) = (Capture::IPV4, reasons.join(" || "));
        format!("protocol == {protocol} && ({reasons})")
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Record {
    /// Time, reason, location.
    Freed(u64, u32, u64),
    /// The kernel had no room, or held back.
    Missed,
}

/// The records in `octets`, as far as they are whole.
fn records(octets: &[u8], format: &Format) -> Vec<Record> {
    const LOST: u32 = 2;
    const THROTTLE: u32 = 5;
    const SAMPLE: u32 = 9;
    const HEADER: usize = 8;
    let mut found = Vec::new();
    let mut rest = octets;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        let length = usize::from(u16::from_ne_bytes([header[6], header[7]]));
        let Some(body) = rest.get(HEADER..length) else {
            break;
        };
        match u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) {
            SAMPLE => found.extend(sample(body, format)),
            LOST | THROTTLE => found.push(Record::Missed),
            _ => {}
        }
        rest = &rest[length..];
    }
    found
}

fn sample(body: &[u8], format: &Format) -> Option<Record> {
    const RAW: usize = 12; // behind the time and the raw data's length
    let time = u64::from_ne_bytes(*body.first_chunk()?);
    let raw = body.get(RAW..)?;
    let protocol = u16::from_ne_bytes(*raw.get(format.protocol..)?.first_chunk()?);
    let location = usize::from_ne_bytes(*raw.get(format.location..)?.first_chunk()?);
    let reason = u32::from_ne_bytes(*raw.get(format.reason..)?.first_chunk()?);
    (protocol == Capture::IPV4).then_some(Record::Freed(time, reason, location as u64))
}

/// The kernel's function at a location, by its list of symbols, which hides their addresses from some; that has some
/// megabytes, of which nothing is kept.
fn place(symbols: impl BufRead, location: u64) -> String {
    let lines = symbols.lines().map_while(Result::ok);
    let functions = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let is_code = matches!(words.next()?, "t" | "T" | "w" | "W");
        let is_before = (1..=location).contains(&address);
        (is_code && is_before).then(|| Some((address, words.next()?.to_owned())))?
    });
    match functions.max_by_key(|(address, _)| *address) {
        Some((_, name)) => name,
        None => format!("{location:#x}"),
    }
}

fn place_now(symbols: Option<&File>, location: u64) -> String {
    let from_the_start = symbols.and_then(|mut file| {
        file.rewind().ok()?;
        Some(BufReader::new(file))
    });
    match from_the_start {
        Some(symbols) => place(symbols, location),
        None => format!("{location:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Of Linux 6.18, with fewer reasons.
    const FORMAT: &str = r#"name: kfree_skb
ID: 2310
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:void * skbaddr;	offset:8;	size:8;	signed:0;
	field:void * location;	offset:16;	size:8;	signed:0;
	field:void * rx_sk;	offset:24;	size:8;	signed:0;
	field:unsigned short protocol;	offset:32;	size:2;	signed:0;
	field:enum skb_drop_reason reason;	offset:36;	size:4;	signed:0;

print fmt: "skbaddr=%p reason: %s", REC->skbaddr, __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 12, "NETFILTER_DROP" }, { 16, "IP_RPFILTER" })
"#;

    fn record(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut octets = kind.to_ne_bytes().to_vec();
        octets.extend([0, 0]);
        octets.extend((8 + body.len() as u16).to_ne_bytes());
        octets.extend(body);
        octets
    }

    fn freed(time: u64, protocol: u16, reason: u32) -> Vec<u8> {
        let mut body = time.to_ne_bytes().to_vec();
        body.extend(44_u32.to_ne_bytes());
        let mut raw = [0; 44];
        raw[16..24].copy_from_slice(&0x1234_usize.to_ne_bytes());
        raw[32..34].copy_from_slice(&protocol.to_ne_bytes());
        raw[36..40].copy_from_slice(&reason.to_ne_bytes());
        body.extend(raw);
        record(9, &body)
    }

    #[test]
    fn the_format_says_where_what_is() {
        let format = Format::read(FORMAT).unwrap();
        assert_eq!(
            (format.protocol, format.location, format.reason),
            (32, 16, 36)
        );
        let expected = "protocol == 2048 && (reason == 12 || reason == 16)";
        assert_eq!(format.filter(), expected);
        let old = FORMAT.replace("skb_drop_reason reason;", "skb_drop_other;");
        let refused = Format::read(&old).err().unwrap();
        assert!(refused.contains("5.17"), "{refused}");
    }

    #[test]
    fn records_are_read_as_far_as_they_are_whole() {
        let format = Format::read(FORMAT).unwrap();
        let mut octets = freed(7, Capture::IPV4, 12);
        octets.extend(record(2, &[0; 16]));
        octets.extend(freed(8, Capture::ARP, 12));
        octets.extend(freed(9, Capture::IPV4, 16));
        let expected = [
            Record::Freed(7, 12, 0x1234),
            Record::Missed,
            Record::Freed(9, 16, 0x1234),
        ];
        assert_eq!(records(&octets, &format), expected);
        for length in 0..octets.len() {
            let found = records(&octets[..length], &format);
            assert_eq!(found, expected[..found.len()], "{length}");
        }
        assert_eq!(records(&[0; 64], &format), []);
    }

    /// As root of a user namespace, which is what an ordinary user is in the lab.
    #[test]
    fn the_initial_user_namespace_alone_may_listen() {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap();
        if map.split_whitespace().last() == Some("4294967295") {
            let this = concat!(
                module_path!(),
                "::the_initial_user_namespace_alone_may_listen"
            );
            let run = Command::new("unshare")
                .args(["--user", "--map-root-user", "--"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", this.split_once("::").unwrap().1, "--nocapture"])
                .output()
                .expect("unshare of util-linux");
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(said.contains("1 passed"), "{said}");
            return;
        }
        let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
        let is_open_to_all = paranoid.trim() == "-1";
        let refused = Source::open(&Description::read())
            .err()
            .map(|error| error.to_string());
        let is_explained = refused.as_deref().is_some_and(|error| {
            error.contains("it takes CAP_PERFMON") || error.contains("tracefs")
        });
        assert!(is_explained || is_open_to_all, "{refused:?}");
    }

    #[test]
    fn cpus_and_functions_are_found() {
        assert_eq!(cpus_in("0-2,6\n").collect::<Vec<_>>(), [0, 1, 2, 6]);
        let symbols = "0000000000000020 T ip_forward\n0000000000000010 t ip_rcv\n0000000000000018 d table\n\
                       0000000000000000 T hidden\n";
        let place = |location| place(symbols.as_bytes(), location);
        assert_eq!(place(31), "ip_rcv");
        assert_eq!(place(33), "ip_forward");
        assert_eq!(place(15), "0xf");
    }
}
