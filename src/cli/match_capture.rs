//! `tunproof match`: a session's probes in a capture file.

use std::collections::BTreeMap;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use tokio::runtime;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::timeout;

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove::Ended;
use crate::cli::verify;
use crate::exchange::Wall;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::matching::Matcher;
use crate::plan::Path;
use crate::plan::SessionKey;
use crate::report::Match;
use crate::report::Matches;
use crate::report::escape;
use crate::wire::EtherType;
use crate::wire::IpProtocol;
use crate::wire::Ipv4;
use crate::wire::Octets;
use crate::wire::Recorded;
use crate::wire::Savefile;
use crate::wire::SavefileError;
use crate::wire::link_frame;

const EXAMPLES: &str = "\
Examples:
  tunproof match client.pcap --session 0123456789abcdef0123456789abcdef
  tunproof match client.pcap --session 0123456789abcdef0123456789abcdef --path path.toml
      compares the packets' addresses, too, with what was sent
  zcat client.pcap.gz | tunproof match - --session 0123456789abcdef0123456789abcdef
  tcpdump -U -i any -w - host 192.0.2.10 | tunproof match - --session 0123456789abcdef0123456789abcdef

A client needs no more than tcpdump:
  client#   tcpdump -i any -w client.pcap host 192.0.2.10
      before anything is sent; Ctrl-C ends it
  director# tunproof verify path.toml --session 0123456789abcdef0123456789abcdef
  anywhere$ tunproof match client.pcap --session 0123456789abcdef0123456789abcdef

Ctrl-C ends tcpdump; what it had is read, and summed up. A line is a packet: time (UTC), number, interface and direction as far as the file says, probe, what it is.
With `-i any` a capture says which way its packets went; `host VIP` keeps the routers' ICMP errors to the
client, and the control probes from the real server, out of it: add `or icmp or host RIP` for them.

To have a capture judged together with everything else, see `tunproof verify --help`, `--add`.

Exit status: 0 packets of the session found; 3 all of the file read and none found; 2 it could not be read. Of
a file that is cut off in its last packet, as a copy of a running capture is, what was read counts.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A pcap or pcapng file, or `-` for stdin
    #[arg(value_name = "CAPTURE")]
    capture: PathBuf,
    /// The session's key, 32 hex digits
    #[arg(long, value_name = "KEY")]
    session: SessionKey,
    /// The path file that was proven: altered addresses show only with it
    #[arg(long, value_name = "PATH.toml")]
    path: Option<PathBuf>,
    /// How the report is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the report to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How the report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs: one object, schema `tunproof.match/1`
    Json,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let name = arguments.capture.display().to_string();
    let reads = [Some(&arguments.capture), arguments.path.as_ref()];
    let reads: Vec<_> = reads.into_iter().flatten().map(PathBuf::as_path).collect();
    let writes: Vec<_> = arguments.output.iter().map(PathBuf::as_path).collect();
    privileges::confine(Role::Command {
        reads: &reads,
        writes: &writes,
    })
    .map_err(Failure::Confine)?;
    let mut search = Search {
        key: arguments.session,
        matcher: Matcher::without_suite(arguments.session),
        paths: match &arguments.path {
            Some(path) => verify::path_file(path)?.plan(arguments.session).paths,
            None => Vec::new(),
        },
        found: Vec::new(),
        unread: BTreeMap::new(),
        cut: 0,
    };
    if !fs::metadata(&arguments.capture).is_ok_and(|metadata| metadata.is_file()) {
        outlive_interrupt().map_err(Failure::Runtime)?;
    }
    let is_live = arguments.format == Format::Text && arguments.output.is_none();
    let mut savefile = Savefile::default();
    let ended = search.read(&arguments, &mut savefile, is_live);
    let matches = Matches {
        file: name.clone(),
        format: savefile.format(),
        interfaces: savefile.interfaces().to_vec(),
        packets: savefile.packets(),
        dropped: savefile.dropped(),
        unread: search.unread,
        cut: search.cut,
        problem: match &ended {
            Ok(()) => None,
            Err(Failure::Capture { source, .. }) => Some(source.to_string()),
            Err(Failure::ReadCapture { source, .. }) => Some(source.to_string()),
            // Whoever reads our stdout, or the file to open, is gone.
            Err(_) => return ended.map(|()| Ended::Said),
        },
        found: search.found,
    };
    if matches.format.is_some() {
        let text = match arguments.format {
            Format::Json => matches.to_json(),
            Format::Text if is_live => matches.sum(),
            Format::Text => matches.to_text(),
        };
        output::write(&text, arguments.output.as_deref())?;
    }
    let is_found = !matches.found.is_empty();
    match ended {
        Err(Failure::Capture { source, .. })
            if is_found && matches!(source, SavefileError::Cut { .. }) =>
        {
            anstream::eprintln!("warning: {}: {source}; what was read counts", escape(&name));
            Ok(Ended::Said)
        }
        Err(failure) => Err(failure),
        Ok(()) if is_found => Ok(Ended::Said),
        Ok(()) => match matches.unread.into_iter().next() {
            Some((reason, count)) if count == matches.packets => {
                Err(Failure::Unreadable { file: name, reason })
            }
            _ => Ok(Ended::Nothing),
        },
    }
}

/// Octets of an IPv4 packet, without options, in which everything stands that can tell a probe.
fn telling(network: &[u8]) -> usize {
    const HEADER: usize = 20;
    /// What tells in a UDP payload.
    const TAG: usize = 16;
    const DATAGRAM: usize = HEADER + 8 + TAG;
    match Ipv4::quoted(Octets::new(network)).map(|header| header.protocol()) {
        Ok(IpProtocol::TCP) => HEADER + 20,
        // It may quote a tunnelled one.
        Ok(IpProtocol::ICMP) => HEADER + 8 + HEADER + DATAGRAM,
        Ok(IpProtocol::IPIP) => HEADER + DATAGRAM,
        _ => DATAGRAM,
    }
}

/// Has Ctrl-C end what feeds this process, and only the second one this process: what tcpdump still has when it
/// ends is read, and summed up.
fn outlive_interrupt() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let interrupt = {
        let _within = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    thread::spawn(move || runtime.block_on(end_at_the_second(interrupt)));
    Ok(())
}

async fn end_at_the_second(mut interrupt: Signal) {
    interrupt.recv().await;
    if timeout(PATIENCE, interrupt.recv()).await.is_err() {
        anstream::eprintln!("its end is waited for: Ctrl-C again goes without");
        interrupt.recv().await;
    }
    process::exit(INTERRUPTED)
}

/// How long a writer may take to end after Ctrl-C before something is said.
const PATIENCE: Duration = Duration::from_secs(1);
/// The exit status of a process that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Opens a file, or stdin as `-`.
pub(super) fn open(path: &std::path::Path) -> io::Result<Box<dyn Read + Send>> {
    Ok(match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path)?),
    })
}

/// Octets that are read at once.
pub(super) const CHUNK: usize = 1 << 16;

/// What is looked for, and what was found so far.
struct Search {
    key: SessionKey,
    matcher: Matcher,
    paths: Vec<Path>,
    found: Vec<Match>,
    unread: BTreeMap<String, u64>,
    cut: u64,
}

impl Search {
    fn read(
        &mut self,
        arguments: &Arguments,
        savefile: &mut Savefile,
        is_live: bool,
    ) -> Result<(), Failure> {
        let file = || arguments.capture.display().to_string();
        let unreadable = |source| Failure::ReadCapture {
            file: file(),
            source,
        };
        let damaged = |source| Failure::Capture {
            file: file(),
            source,
        };
        let mut input = open(&arguments.capture).map_err(|source| Failure::OpenCapture {
            file: file(),
            source,
        })?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match input.read(&mut chunk) {
                Ok(0) => return savefile.end().map_err(damaged),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            savefile.feed(&chunk[..count]);
            loop {
                let before = self.found.len();
                match savefile.next_packet().map_err(damaged)? {
                    Some(packet) => self.look_into(&packet),
                    None => break,
                }
                if let Some(found) = self.found.get(before).filter(|_| is_live) {
                    output::print(&found.line(0))?;
                }
            }
        }
    }

    fn look_into(&mut self, packet: &Recorded<'_>) {
        let interface = packet.interface;
        let frame = match link_frame(interface.link_type, packet.bytes) {
            Ok(frame) => frame,
            Err(error) => {
                *self.unread.entry(error.to_string()).or_default() += 1;
                return;
            }
        };
        if frame.ether_type != EtherType::IPV4 {
            return;
        }
        let length = (packet.original_length as usize).saturating_sub(frame.header);
        let Some(sighting) = self.matcher.recognise(frame.network) else {
            let is_cut = frame.network.len() < length.min(telling(frame.network));
            self.cut += u64::from(is_cut);
            return;
        };
        let sent = match self.paths.is_empty() {
            true => sighting.presumed(&self.key),
            false => sighting.sent_for(&self.paths, &self.key),
        };
        let ttl = sighting.sent_ttl;
        let sent = sent.map(|probe| match ttl {
            Some(ttl) => probe.with_ttl(ttl),
            None => probe,
        });
        let altered = sent
            .as_ref()
            .map(|probe| self.matcher.alterations(probe, frame.network));
        self.found.push(Match {
            packet: packet.number,
            offset: packet.offset,
            time: packet.time.map(Wall::from_nanos),
            interface: interface.name.clone(),
            interface_index: frame.interface_index,
            bound: packet.bound.or(frame.bound),
            captured: frame.network.len(),
            length,
            vlans: frame.vlans,
            sighting,
            sent,
            altered: altered.unwrap_or_default(),
        });
    }
}
