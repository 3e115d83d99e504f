//! `tunproof sweep`: a fleet's pairs, many a second.

use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove::Ended;
use crate::cli::whole;
use crate::cli::whole::Readers;
use crate::craft::FleetCraft;
use crate::exchange::Mono;
use crate::live::burst::Burst;
use crate::live::clock;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::live::ring::Ring;
use crate::matching::FleetMatcher;
use crate::plan::Fleet;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::report;
use crate::report::FleetCsv;
use crate::report::FleetSummary;
use crate::run::Asking;
use crate::run::FleetLimits;
use crate::run::FleetSweep;
use crate::suite::FleetFile;

mod dry_run;
mod ears;
mod keeper;
mod mouth;
mod play;
mod results;

use ears::Ears;
use ears::watch_interrupts;
use keeper::Keeper;
use keeper::Open;
use mouth::Mouth;
use mouth::Speaker;
use play::Run;
use results::Results;
use results::cannot_write;

const EXAMPLES: &str = r#"A fleet file:
  [director]
  ip = "192.0.2.2"                  # DIP; the sweep runs on the director

  [client]                          # optional: a host that answers what it never asked for
  ip = "198.51.100.7"               # CIP

  [[service]]                       # one or more
  vip = "192.0.2.10"                # or a list
  port = [80, 443]                  # or one; of UDP it is a label, the datagrams go to a closed port
  protocol = "tcp"                  # or "udp"
  realservers = ["203.0.113.5", "203.0.113.64/26"]    # every one of them is asked for every VIP:port

  [limits]                          # optional
  rate = 5000                       # packets a second in all; 100, unless it is said
  each = 10                         # packets a second to each real server; 10, unless it is said

A prefix stands for its hosts: of /30 and shorter ones the first and last address are left out. None may be
wider than /12, nor contain the director, the client or a VIP, and all pairs are 16,777,216 at most.

Examples:
  tunproof sweep fleet.toml
      the summary; broken pairs by what came back and from whom
  tunproof sweep fleet.toml --dry-run
      what would be asked, and how long it takes at least; sends nothing, and needs no rights
  tunproof sweep fleet.toml --rate 20000 --format json --output pairs.jsonl --resume sweep.state
      a line for each pair as soon as it is decided; after Ctrl-C, a crash or a reboot the same command goes on
  tunproof sweep fleet.toml --format csv | grep -v ,proven,
      all that is not proven

What is sent, through a tunnel of tunproof's own making, DIP → real server:
  reflect      DIP → VIP:port SYN, which the service answers to the director, or for UDP a datagram to a closed
               port. Proves tunnel, decapsulation, acceptance, of TCP also the service; not the way to clients
  closed-loop  CIP → VIP:port SYN: the SYN-ACK goes to the client, whose RST comes to the director. Proves the
               whole path from the tunnel on. TCP only, and a client that answers
  both         the closed loop, then reflect for what that left open
Each pair is tried up to --tries times, in passes over the whole fleet with a growing pause in between. No answer
is said only if two passes at least were heard without loss, and never of what this host did not send. What a SYN
opened is closed by an RST, through the tunnel: at once if it was answered, else after the last try, or when the sweep
is stopped. --each counts both; datagrams to one real server are a second apart, as Linux sends no more port
unreachables. The client gets a SYN-ACK for each pair of a closed loop. A probe that comes out of the tunnel and back
to the director was forwarded instead of taken: the pair is broken, whoever answers it then.

Frames go to the gateway past this host's own queues and firewall (AF_PACKET, or AF_XDP); to real servers that are
on-link, or where policy rules or several next hops choose the way, packets go through the host's stack.

Exit status: 0 all pairs proven; 1 a pair broken: refused or rejected, and by no later try mended; 2 could not
run; 3 nothing broken, not all proven, or stopped"#;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The fleet file
    #[arg(value_name = "FLEET.toml")]
    fleet: PathBuf,
    /// What is asked; `both` if the file names a client, else `reflect`
    #[arg(long, value_enum)]
    probe: Option<Probe>,
    /// Packets a second in all, in place of the file's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Packets a second to each real server, in place of the file's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    each: Option<u32>,
    /// How often a silent pair is tried
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=10))]
    tries: u8,
    /// How results are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the results to FILE instead of stdout, as they come; what was in FILE is gone once the first is asked,
    /// unless --resume goes on with it. On a full disk the sweep stops and closes what it opened
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Hand frames to the device by AF_XDP (copy mode, its first queue) instead of AF_PACKET: more a second
    #[arg(long)]
    xdp: bool,
    /// Say what would be asked, how often and how fast, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep in FILE, every second, how far the sweep is, and go on from there if FILE is there already; it is removed
    /// at the end. Each pair is told once in --output's file; on stdout those of the last second may be told again
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Probe {
    /// What real servers answer to the director
    Reflect,
    /// What the client answers to the director
    ClosedLoop,
    /// The closed loop, then reflect for what that left open
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people: a summary
    Text,
    /// For programs: a line for each pair and one for the summary, schema `tunproof.sweep/1`
    Json,
    /// For spreadsheets: a line for each pair
    Csv,
}

/// What [`FleetSweep::save`] keeps for this command.
#[derive(Serialize, Deserialize)]
struct Kept {
    summary: FleetSummary,
    /// The octets of the results so far.
    written: u64,
    elapsed: Duration,
    format: String,
    output: Option<PathBuf>,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let file = fleet_file(&arguments.fleet)?;
    let asking = asking(&arguments, &file.fleet)?;
    let limits = FleetLimits {
        rate: arguments.rate.or(file.rate).unwrap_or(100),
        each: arguments.each.or(file.each).unwrap_or(10),
        tries: arguments.tries,
    };
    let fleet = Arc::new(file.fleet);
    if arguments.dry_run {
        output::print(&dry_run::text(&fleet, asking, limits))?;
        return Ok(Ended::Said);
    }
    let output = arguments.output.as_deref().map(whole_path);
    if let (Some(output), Some(state)) = (&output, arguments.resume.as_deref())
        && *output == whole_path(state)
    {
        let path = state.to_owned();
        return Err(Failure::SameFile { path });
    }
    let (mut sweep, kept, now, _claim) = loop {
        let now = clock::mono();
        let (sweep, kept) = begin(&arguments, &fleet, asking, limits, now)?;
        let Some(state) = &arguments.resume else {
            break (sweep, kept, now, None);
        };
        if let Some(claim) = keeper::claim(&sweep, state)? {
            break (sweep, kept, now, Some(claim));
        }
    };
    let written = kept.as_ref().map_or(0, |kept| kept.written);
    let mut results = Results::open(arguments.output.as_deref(), written)?;
    if let Some(path) = &arguments.resume {
        whole::check(path, Readers::Owner).map_err(|source| cannot_write(path, source))?;
    }
    // A file that is not there yet has no other names; now it is.
    let output = arguments.output.as_deref().map(whole_path);
    let mut speaker = Speaker::new(
        FleetCraft::new(&fleet, sweep.key()),
        Burst::open(&fleet, false).map_err(Failure::Burst)?,
        Open::new(fleet.pairs())?,
    );
    let keeper = Keeper::stand_by(&mut sweep, &mut speaker)?;
    if arguments.xdp {
        speaker.burst = Burst::open(&fleet, true).map_err(Failure::Burst)?;
    }
    let ring = Ring::open(&fleet, limits.rate).map_err(Failure::Ring)?;
    let writes: Vec<_> = arguments.resume.iter().map(PathBuf::as_path).collect();
    privileges::confine(Role::Command {
        reads: &[],
        writes: &writes,
    })
    .map_err(Failure::Confine)?;
    let interrupts = watch_interrupts()?;
    let (inbox, heard) = mpsc::channel();
    let matcher = FleetMatcher::new(Arc::clone(&fleet), sweep.key());
    let ears = Ears::listen(ring, matcher, inbox.clone())?;
    results.begin()?;
    if arguments.format == Format::Csv && written == 0 {
        results.write(report::FLEET_CSV_HEAD)?;
    }
    Run {
        open: Arc::clone(&speaker.open),
        mouth: Mouth::open(speaker, inbox)?,
        keeper,
        heard,
        _ears: ears,
        interrupts,
        results,
        unwritten: None,
        format: arguments.format,
        csv: FleetCsv::default(),
        output,
        summary: kept
            .as_ref()
            .map(|kept| kept.summary.clone())
            .unwrap_or_default(),
        earlier: kept.map(|kept| kept.elapsed).unwrap_or_default(),
        began: now,
        state: arguments.resume,
        sweep,
    }
    .play()
}

/// The sweep as it was kept, or a new one.
fn begin(
    arguments: &Arguments,
    fleet: &Arc<Fleet>,
    asking: Asking,
    limits: FleetLimits,
    now: Mono,
) -> Result<(FleetSweep, Option<Kept>), Failure> {
    let fleet = Arc::clone(fleet);
    let saved = arguments.resume.as_deref().map(saved).transpose()?;
    let Some((path, saved)) = saved.flatten() else {
        let key = SessionKey::new(rand::random());
        return Ok((FleetSweep::new(fleet, key, asking, limits, now), None));
    };
    let (sweep, kept) =
        FleetSweep::resume::<Kept>(fleet, asking, limits, &saved, now).map_err(|source| {
            Failure::Resume {
                path: path.clone(),
                source,
            }
        })?;
    let output = arguments.output.as_deref().map(whole_path);
    check_kept(&path, &kept, arguments.format, output.as_deref())?;
    Ok((sweep, Some(kept)))
}

fn fleet_file(path: &Path) -> Result<FleetFile, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::ReadFleet {
        path: path.to_owned(),
        source,
    })?;
    FleetFile::parse(&path.display().to_string(), &text).map_err(Failure::PathFile)
}

fn asking(arguments: &Arguments, fleet: &Fleet) -> Result<Asking, Failure> {
    let path = || arguments.fleet.clone();
    let udp = || {
        fleet
            .services()
            .find(|service| service.protocol == Protocol::Udp)
    };
    match (arguments.probe, fleet.cip()) {
        (None, None) | (Some(Probe::Reflect), _) => Ok(Asking::Reflect),
        (Some(Probe::ClosedLoop | Probe::Both), None) => Err(Failure::NoClient { path: path() }),
        (None | Some(Probe::Both), Some(_)) => Ok(Asking::Both),
        (Some(Probe::ClosedLoop), Some(_)) => match udp() {
            Some(service) => Err(Failure::LoopOfUdp {
                vip: service.vip,
                port: service.port,
            }),
            None => Ok(Asking::ClosedLoop),
        },
    }
}

/// The state file's content, if there is one.
fn saved(path: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, Failure> {
    let read = || match fs::metadata(path)?.is_file() {
        true => fs::read(path),
        false => Err(io::Error::other("it is no regular file")),
    };
    match read() {
        Ok(saved) => Ok(Some((path.to_owned(), saved))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Failure::ReadState {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Results go on where they are: in another format or file they would be half of them.
fn check_kept(
    path: &Path,
    kept: &Kept,
    format: Format,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let path = path.to_owned();
    if kept.format != name(format) {
        let format = kept.format.clone();
        return Err(Failure::OtherFormat { path, format });
    }
    if kept.output.as_deref() != output {
        let output = kept.output.clone();
        return Err(Failure::OtherOutput { path, output });
    }
    Ok(())
}

/// The path from the root on, so that it is the same from everywhere.
fn whole_path(path: &Path) -> PathBuf {
    fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

fn name(format: Format) -> String {
    let value = format.to_possible_value().expect("none is hidden");
    value.get_name().to_owned()
}
