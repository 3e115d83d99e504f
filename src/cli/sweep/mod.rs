//! `tunproof sweep`: a fleet's pairs, many a second.

use std::fs;
use std::io;
use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::progress::ProgressLine;
use crate::cli::prove::Ended;
use crate::cli::whole;
use crate::cli::whole::Whole;
use crate::craft::FleetCraft;
use crate::craft::FleetPacket;
use crate::exchange::Mono;
use crate::live::burst::Burst;
use crate::live::clock;
use crate::live::ring::Ring;
use crate::matching::FleetMatcher;
use crate::matching::FleetSighting;
use crate::plan::Fleet;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::report;
use crate::report::FleetEnd;
use crate::report::FleetSummary;
use crate::report::Realservers;
use crate::run::Asking;
use crate::run::FleetLimits;
use crate::run::FleetPoll;
use crate::run::FleetSend;
use crate::run::FleetSweep;
use crate::suite::FleetFile;
use crate::verdict;

mod ears;
mod results;

use ears::Ears;
use ears::Heard;
use ears::watch_interrupts;
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
is said only if two passes at least were heard without loss. What a SYN opened is closed by an RST, through the
tunnel: at once if it was answered, else after the last try. --each counts both; datagrams to one real server are
a second apart, as Linux sends no more port unreachables. The client gets a SYN-ACK for each pair of a closed loop.

Frames go to the gateway past this host's own queues and firewall (AF_PACKET); to real servers that are on-link,
or where policy rules or several next hops choose the way, packets go through the host's stack.

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
    /// Write the results to FILE instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
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

/// How often progress is said where stderr is no terminal, and how often where it is.
const SAID: Duration = Duration::from_secs(10);
const SHOWN: Duration = Duration::from_millis(200);
/// How often results are flushed, and the state is kept.
const FLUSHED: Duration = Duration::from_millis(100);
const KEPT: Duration = Duration::from_secs(1);
/// Naps up to this are slept through; from longer ones, up to the second, what is heard wakes.
const NAP: Duration = Duration::from_micros(100);
const SLEEP: Duration = Duration::from_millis(100);

/// What [`FleetSweep::save`] keeps for this command.
#[derive(Serialize, Deserialize)]
struct Kept {
    summary: FleetSummary,
    /// The octets of the results so far.
    written: u64,
    elapsed: Duration,
    format: String,
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
    let now = clock::mono();
    let (sweep, kept) = match arguments
        .resume
        .as_deref()
        .map(saved)
        .transpose()?
        .flatten()
    {
        Some((path, saved)) => {
            resumed(&path, &saved, &fleet, asking, limits, now, arguments.format)?
        }
        None => {
            let key = SessionKey::new(rand::random());
            (
                FleetSweep::new(Arc::clone(&fleet), key, asking, limits, now),
                None,
            )
        }
    };
    let written = kept.as_ref().map_or(0, |kept| kept.written);
    let mut results = Results::open(arguments.output.as_deref(), written)?;
    if arguments.format == Format::Csv && written == 0 {
        results.write(report::FLEET_CSV_HEAD)?;
    }
    if let Some(path) = &arguments.resume {
        whole::check(path).map_err(|source| cannot_write(path, source))?;
    }
    let burst = Burst::open(&fleet).map_err(Failure::Burst)?;
    let ring = Ring::open(&fleet, limits.rate).map_err(Failure::Ring)?;
    let interrupts = watch_interrupts()?;
    let ears = Ears::listen(ring, FleetMatcher::new(Arc::clone(&fleet), sweep.key()))?;
    Run {
        craft: FleetCraft::new(&fleet, sweep.key()),
        burst,
        ears,
        interrupts,
        results,
        format: arguments.format,
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

fn resumed(
    path: &Path,
    saved: &[u8],
    fleet: &Arc<Fleet>,
    asking: Asking,
    limits: FleetLimits,
    now: Mono,
    format: Format,
) -> Result<(FleetSweep, Option<Kept>), Failure> {
    let fleet = Arc::clone(fleet);
    let (sweep, kept) =
        FleetSweep::resume::<Kept>(fleet, asking, limits, saved, now).map_err(|source| {
            Failure::Resume {
                path: path.to_owned(),
                source,
            }
        })?;
    if kept.format != name(format) {
        return Err(Failure::OtherFormat {
            path: path.to_owned(),
            format: kept.format,
        });
    }
    Ok((sweep, Some(kept)))
}

fn name(format: Format) -> String {
    let value = format.to_possible_value().expect("none is hidden");
    value.get_name().to_owned()
}

/// A sweep in its course.
struct Run {
    sweep: FleetSweep,
    craft: FleetCraft,
    burst: Burst,
    ears: Ears,
    interrupts: Arc<AtomicU32>,
    results: Results,
    format: Format,
    summary: FleetSummary,
    /// How long it took before it went on.
    earlier: Duration,
    began: Mono,
    state: Option<PathBuf>,
}

/// When something is to be done next.
struct Every {
    period: Duration,
    last: Mono,
}

impl Every {
    fn is_due(&mut self, now: Mono) -> bool {
        let is_due = now.since(self.last) >= self.period;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

impl Run {
    fn play(mut self) -> Result<Ended, Failure> {
        let every = |period| Every {
            period,
            last: self.began,
        };
        let is_terminal = io::stderr().is_terminal();
        let mut shown = every(if is_terminal { SHOWN } else { SAID });
        let (mut flushed, mut kept) = (every(FLUSHED), every(KEPT));
        let mut line = ProgressLine::new(true);
        let mut batch: Vec<FleetSend> = Vec::new();
        loop {
            self.hear_all()?;
            let interrupts = self.interrupts.load(Ordering::Relaxed);
            let now = clock::mono();
            if interrupts > 0 || self.results.is_closed() {
                self.sweep.stop(now);
            }
            batch.clear();
            let poll = self.sweep.poll(now, &mut batch);
            self.send(&batch)?;
            self.tell()?;
            let now = clock::mono();
            if flushed.is_due(now) {
                self.results.flush()?;
            }
            if kept.is_due(now) {
                self.keep(now)?;
                // A twentieth of the time, at most.
                let cost = clock::mono().since(now);
                kept.period = KEPT.max(20 * cost);
            }
            if shown.is_due(now) {
                let words = self.progress(now);
                match is_terminal {
                    true => line.say(&words),
                    false => anstream::eprintln!("{words}"),
                }
            }
            match poll {
                FleetPoll::Done => break,
                _ if interrupts > 1 => break,
                FleetPoll::Wait(until) => self.nap(until)?,
            }
        }
        line.clear();
        self.end()
    }

    /// Takes what was heard meanwhile.
    fn hear_all(&mut self) -> Result<(), Failure> {
        while let Ok(heard) = self.ears.heard.try_recv() {
            self.take(heard)?;
        }
        Ok(())
    }

    fn take(&mut self, heard: Heard) -> Result<(), Failure> {
        match heard {
            Heard::Lost(packets) => self.sweep.handle_lost(packets),
            Heard::Failed(error) => return Err(Failure::Ring(error)),
            Heard::Sightings(sightings) => {
                for (sighting, time) in sightings {
                    match sighting {
                        FleetSighting::Of {
                            pair,
                            probe,
                            answer,
                        } => {
                            self.sweep.handle_heard(pair, probe, answer, time);
                        }
                        FleetSighting::OneOf { rip, error } => self.summary.add_vague(rip, &error),
                    }
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, batch: &[FleetSend]) -> Result<(), Failure> {
        let packets = batch.iter().filter_map(|send| {
            let packet = match send.closes {
                false => self.craft.probe(send.probe, &send.pair),
                true => self.craft.closing(send.probe, &send.pair)?,
            };
            Some((send.pair.rip, packet))
        });
        let packets: Vec<(Ipv4Addr, FleetPacket)> = packets.collect();
        let (sweep, now) = (&mut self.sweep, clock::mono());
        self.burst
            .send(&packets, |number, errno| {
                sweep.handle_not_sent(&batch[number], errno, now);
            })
            .map_err(Failure::Burst)
    }

    /// Writes what was decided.
    fn tell(&mut self) -> Result<(), Failure> {
        while let Some(swept) = self.sweep.poll_result() {
            let judgement = verdict::judge_pair(&swept);
            self.summary.add(&swept, &judgement);
            match self.format {
                Format::Text => {}
                Format::Json => self
                    .results
                    .write(&report::fleet_json(&swept, &judgement))?,
                Format::Csv => self.results.write(&report::fleet_csv(&swept, &judgement))?,
            }
        }
        Ok(())
    }

    /// Sleeps until then, or until something is heard.
    fn nap(&mut self, until: Mono) -> Result<(), Failure> {
        let left = until.since(clock::mono());
        if left.is_zero() {
            return Ok(());
        }
        // While much is sent, what was heard is taken between two batches anyhow.
        if left <= NAP {
            thread::sleep(left);
            return Ok(());
        }
        match self.ears.heard.recv_timeout(left.min(SLEEP)) {
            Ok(heard) => self.take(heard),
            Err(_) => Ok(()),
        }
    }

    /// Writes the state, once all that it counts as told is written.
    fn keep(&mut self, now: Mono) -> Result<(), Failure> {
        let Some(path) = self.state.clone() else {
            return Ok(());
        };
        self.results.flush()?;
        let saved = self.sweep.save(Kept {
            summary: self.summary.clone(),
            written: self.results.written,
            elapsed: self.elapsed(now),
            format: name(self.format),
        });
        let write = || {
            let mut file = Whole::begin(&path)?;
            file.add(&saved)?;
            file.end()
        };
        write().map_err(|source| cannot_write(&path, source))
    }

    fn elapsed(&self, now: Mono) -> Duration {
        self.earlier + now.since(self.began)
    }

    fn progress(&self, now: Mono) -> String {
        let progress = self.sweep.progress();
        let counts = progress.counts;
        let sent = counts.probes + counts.closings;
        let rate = sent as f64 / self.elapsed(now).as_secs_f64().max(0.001);
        let left = Duration::from_secs(progress.left.as_secs());
        format!(
            "pass {}: {sent} sent, {rate:.0}/s, {} answered, {} errors, {} undecided, {} lost, {} left",
            progress.pass,
            counts.answered,
            counts.errors,
            progress.undecided,
            counts.lost,
            humantime::format_duration(left)
        )
    }

    fn end(mut self) -> Result<Ended, Failure> {
        let now = clock::mono();
        let is_partial = self.sweep.is_partial();
        match (&self.state, is_partial) {
            (Some(_), true) => self.keep(now)?,
            (Some(path), false) => {
                if let Err(source) = fs::remove_file(path)
                    && source.kind() != io::ErrorKind::NotFound
                {
                    return Err(cannot_write(path, source));
                }
            }
            (None, _) => {}
        }
        let fleet = Arc::clone(self.sweep.fleet());
        let counts = self.sweep.counts();
        let undecided = self.sweep.progress().undecided;
        let end = FleetEnd {
            is_partial,
            undecided,
            probes: counts.probes,
            closings: counts.closings,
            errors: counts.errors,
            repeated: counts.repeated,
            late: counts.late,
            lost: counts.lost,
            elapsed: self.elapsed(now),
        };
        let servers = Realservers::count(&fleet, |pair| self.sweep.is_proven(pair));
        match self.format {
            Format::Json => {
                let line = self.summary.to_json(&fleet, &end, &servers);
                self.results.write(&line)?;
            }
            Format::Text => {
                let text = self.summary.to_text(&fleet, &end, &servers);
                match self.results.is_stdout() {
                    true => output::print(&text)?,
                    false => self.results.write(&text)?,
                }
            }
            Format::Csv => anstream::eprint!("{}", self.summary.to_text(&fleet, &end, &servers)),
        }
        self.results.flush()?;
        if let (Some(path), true) = (&self.state, is_partial) {
            anstream::eprintln!(
                "stopped; the same command goes on from `{}`",
                path.display()
            );
        }
        Ok(Ended::Judged(self.summary.outcome(fleet.pairs())))
    }
}
