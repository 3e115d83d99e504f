//! Captures that others make, as vantages: `verify --add client.in=FILE`.
//!
//! A file is followed while it is written. What stands in it before anything is sent does not count: a key
//! that is used twice gives the same probes twice.

use std::fs;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::failure::Failure;
use crate::cli::match_capture::CHUNK;
use crate::cli::match_capture::open;
use crate::evidence::Evidence;
use crate::evidence::elsewhere;
use crate::exchange::Capture;
use crate::live::privileges;
use crate::matching::Matcher;
use crate::matching::Recorder;
use crate::matching::station;
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::SessionKey;
use crate::plan::Station;
use crate::report::escape;
use crate::run;
use crate::wire::EtherType;
use crate::wire::Recorded;
use crate::wire::Savefile;
use crate::wire::link_frame;

/// How often a file is looked at.
const PERIOD: Duration = Duration::from_millis(20);
/// How long after the end packets are waited for: tcpdump's kernel buffer empties once a second.
const SETTLING: Duration = Duration::from_millis(1500);
/// How long a file that is copied must not grow before it is taken for whole.
const COPYING: Duration = Duration::from_secs(2);
/// How long a file that is not there yet is waited for.
const WAITING: Duration = Duration::from_secs(600);

/// `STATION=FILE`, or of several real servers `STATION@NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addition {
    station: Station,
    realserver: Option<String>,
    file: PathBuf,
}

impl Addition {
    /// The capture.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The file's name, if it cannot be read a second time.
    pub(super) fn read_once(&self) -> Option<String> {
        let is_file = fs::metadata(&self.file).is_ok_and(|metadata| metadata.is_file());
        (!is_file).then(|| self.file.display().to_string())
    }
}

const STATIONS: [Station; 7] = [
    Station::ClientIn,
    Station::ClientOut,
    Station::DirectorIn,
    Station::DirectorOut,
    Station::RealserverIn,
    Station::RealserverTunnel,
    Station::RealserverOut,
];

impl FromStr for Addition {
    type Err = String;

    fn from_str(text: &str) -> Result<Addition, String> {
        let (place, file) = text
            .split_once('=')
            .filter(|(_, file)| !file.is_empty())
            .ok_or("expected STATION=FILE, such as `client.in=client.pcap`")?;
        let (name, realserver) = match place.split_once('@') {
            Some((name, realserver)) => (name, Some(realserver.to_owned())),
            None => (place, None),
        };
        let station = STATIONS.into_iter().find(|station| station.id() == name);
        let station = station.ok_or_else(|| {
            let ids = STATIONS.map(Station::id).join("`, `");
            format!("`{name}` is no station: expected one of `{ids}`")
        })?;
        if realserver.is_some() && !matches!(Host::of(station, 0), Host::Realserver(_)) {
            return Err(format!(
                "`{name}` is no real server's station: `@` is too much"
            ));
        }
        Ok(Addition {
            station,
            realserver,
            file: PathBuf::from(file),
        })
    }
}

/// The captures of a run.
#[derive(Default)]
pub(super) struct Recordings {
    all: Vec<Recording>,
    /// Whether the first probe was sent.
    counting: bool,
}

struct Recording {
    addition: Addition,
    host: Host,
    recorder: Recorder,
    key: SessionKey,
    shared: Arc<Mutex<Shared>>,
    /// Whether it is not there yet, to be copied when everything was sent.
    is_awaited: bool,
}

/// What the thread that reads a file has found.
#[derive(Default)]
struct Shared {
    /// Whether the capturing program has begun to write.
    begun: bool,
    /// Whether packets count by now.
    counts: bool,
    packets: u64,
    found: Vec<Capture>,
    /// Why packets could not be looked into.
    unread: Option<String>,
    ended: Option<Result<(), Failure>>,
    /// When it was last seen to grow.
    grown: Option<Instant>,
    /// Whether what is there ends in the middle of a packet.
    is_cut: bool,
}

impl Recordings {
    /// The captures.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self.all.iter().map(|recording| recording.addition.file());
        files.map(Path::to_owned).collect()
    }

    /// Finds out what the additions are to a plan, without a look at their files.
    pub(super) fn new(additions: Vec<Addition>, plan: &Plan) -> Result<Recordings, Failure> {
        let mut recordings: Vec<Recording> = Vec::new();
        for addition in additions {
            let path = path_of(&addition, plan)?;
            let host = Host::of(addition.station, path);
            if plan.has(host) {
                return Err(Failure::AlreadyThere {
                    station: addition.station,
                    host: plan.host_name(host),
                });
            }
            let again = |known: &&Recording| {
                known.host == host && known.addition.station == addition.station
            };
            if recordings.iter().find(again).is_some() {
                return Err(Failure::AddedTwice {
                    station: addition.station,
                });
            }
            let named = match addition.station {
                Station::DirectorIn => plan.ingress.clone(),
                Station::DirectorOut => plan.egress.clone(),
                _ => None,
            };
            let file = addition.file.display().to_string();
            recordings.push(Recording {
                host,
                recorder: Recorder {
                    station: addition.station,
                    path: plan.paths[path].clone(),
                    device: named.unwrap_or(file),
                },
                key: plan.session,
                shared: Arc::default(),
                is_awaited: false,
                addition,
            });
        }
        Ok(Recordings {
            all: recordings,
            counting: false,
        })
    }

    /// Begins to read every file, and waits until each has its first octets: then its program captures.
    pub(super) fn begin(&mut self, limit: Duration) -> Result<(), Failure> {
        for recording in &mut self.all {
            let file = &recording.addition.file;
            let folder = file.parent().filter(|folder| *folder != Path::new(""));
            let is_stdin = file.as_os_str() == "-";
            let is_there = is_stdin || file.exists();
            if !is_there && folder.is_none_or(Path::is_dir) {
                recording.is_awaited = true;
                let name = recording.name();
                anstream::eprintln!("{name} is not there yet: it is waited for after the probes");
                continue;
            }
            recording.follow();
        }
        let until = Instant::now() + limit;
        let mut told = false;
        for recording in self.all.iter().filter(|recording| !recording.is_awaited) {
            loop {
                let mut shared = recording.shared();
                if let Some(Err(_)) = shared.ended {
                    return shared.ended.take().unwrap_or(Ok(()));
                }
                if shared.begun {
                    break;
                }
                drop(shared);
                let now = Instant::now();
                if now >= until {
                    return Err(Failure::NoCapture {
                        file: recording.addition.file.display().to_string(),
                        limit,
                    });
                }
                if !told && now + limit >= until + Duration::from_secs(1) {
                    told = true;
                    anstream::eprintln!("waiting for {} to begin", recording.name());
                }
                thread::sleep(PERIOD);
            }
        }
        Ok(())
    }

    /// Has packets count from the first probe on: the same key in an earlier run made the same ones.
    pub(super) fn watch(&mut self, evidence: &Evidence) {
        if self.counting || evidence.probes().is_empty() {
            return;
        }
        self.counting = true;
        for recording in self.all.iter().filter(|recording| !recording.is_awaited) {
            recording.shared().counts = true;
        }
    }

    /// Reads captures that are whole, and adds what is in them to what is known.
    pub(super) fn read(self, evidence: &mut Evidence) -> Result<(), Failure> {
        // What suites wrote out is known by now.
        let matcher = run::matcher(evidence);
        for recording in &self.all {
            recording.shared().counts = true;
            Follower {
                file: &recording.addition.file,
                recorder: &recording.recorder,
                matcher: &matcher,
                shared: &recording.shared,
                is_whole: true,
            }
            .read()?;
            recording.check(evidence)?;
        }
        self.add(evidence);
        Ok(())
    }

    /// Adds what was captured to what is known; whether every capture could be read.
    pub(super) fn collect(self, evidence: &mut Evidence) -> Result<bool, Failure> {
        if self.all.is_empty() {
            return Ok(true);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::Runtime)?;
        runtime.block_on(self.settle()).map_err(Failure::Runtime)?;
        Ok(self.add(evidence))
    }

    fn add(&self, evidence: &mut Evidence) -> bool {
        let mut had_all = true;
        for recording in &self.all {
            let others = self.all.iter().filter(|other| other.host == recording.host);
            let others: Vec<_> = others.map(|other| other.addition.station).collect();
            had_all &= recording.add(&others, evidence);
        }
        had_all
    }

    /// Waits until the last packets are in, or the user has enough.
    async fn settle(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let began = Instant::now();
        let mut told = false;
        loop {
            for recording in self.all.iter().filter(|recording| recording.is_awaited) {
                let is_new = !recording.shared().counts;
                if is_new && recording.addition.file.exists() {
                    recording.shared().counts = true;
                    recording.follow();
                }
            }
            let open = self
                .all
                .iter()
                .filter(|recording| !recording.is_settled(began));
            let open: Vec<_> = open.collect();
            if open.is_empty() || began.elapsed() >= WAITING {
                return Ok(());
            }
            for recording in open.iter().filter(|open| open.is_awaited && !told) {
                anstream::eprintln!(
                    "everything was sent: end the capture for {} and copy it there (Ctrl-C: go on without it)",
                    recording.name()
                );
            }
            told = true;
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }
}

impl Recording {
    fn name(&self) -> String {
        let file = escape(&self.addition.file.display().to_string());
        format!("`{file}` ({})", self.addition.station)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A thread that panicked has told so; what it found is whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file in a thread of its own, until nobody wants its packets any more.
    fn follow(&self) {
        let (file, recorder) = (self.addition.file.clone(), self.recorder.clone());
        let (matcher, shared) = (Matcher::new(self.key), Arc::clone(&self.shared));
        thread::spawn(move || {
            privileges::lower(&file);
            let ended = Follower {
                file: &file,
                recorder: &recorder,
                matcher: &matcher,
                shared: &shared,
                is_whole: false,
            }
            .read();
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.ended = Some(ended);
        });
    }

    /// Whether nothing more is to be expected, `began` being when everything had been sent.
    fn is_settled(&self, began: Instant) -> bool {
        let shared = self.shared();
        if shared.ended.is_some() {
            return true;
        }
        // A copy may stall, most likely in the middle of a packet.
        let quiet = if shared.is_cut { 5 * COPYING } else { COPYING };
        match self.is_awaited {
            false => began.elapsed() >= SETTLING,
            true => shared.grown.is_some_and(|at| at.elapsed() >= quiet),
        }
    }

    /// Whether it can have been captured where the user says.
    fn check(&self, evidence: &Evidence) -> Result<(), Failure> {
        let matcher = Matcher::new(self.key);
        let contradiction = self.shared().found.iter().find_map(|capture| {
            let sighting = matcher.recognise(&capture.bytes)?;
            elsewhere(evidence, self.host, capture, &sighting)
        });
        match contradiction {
            None => Ok(()),
            Some(contradiction) => Err(Failure::Elsewhere {
                name: self.name(),
                contradiction,
            }),
        }
    }

    /// Adds what was captured, but for what another capture of the host is named for; whether it could be
    /// read.
    fn add(&self, named: &[Station], evidence: &mut Evidence) -> bool {
        if let Err(failure) = self.check(evidence) {
            failure.print();
            return false;
        }
        let mut shared = self.shared();
        let mut count = 0;
        for capture in std::mem::take(&mut shared.found) {
            let place = station(self.host, &capture, &self.recorder.path, None);
            let is_anothers =
                place.is_some_and(|at| at != self.addition.station && named.contains(&at));
            if !is_anothers && run::add_recorded(evidence, self.host, capture) {
                count += 1;
            }
        }
        let (name, packets) = (self.name(), shared.packets);
        if self.is_awaited && shared.grown.is_none() {
            anstream::eprintln!("error: {name} did not come");
            return false;
        }
        match count {
            0 => anstream::eprintln!(
                "{name}: {packets} packets, none of this session; that proves nothing, as a capture may have \
                 left them out"
            ),
            _ => anstream::eprintln!("{name}: {packets} packets, {count} of this session"),
        }
        if let Some(reason) = &shared.unread {
            anstream::eprintln!("warning: {name}: {}", escape(reason));
        }
        match shared.ended.take() {
            Some(Err(failure)) => {
                failure.print();
                false
            }
            _ => true,
        }
    }
}

/// The thread that reads one file.
struct Follower<'a> {
    file: &'a Path,
    recorder: &'a Recorder,
    matcher: &'a Matcher,
    shared: &'a Arc<Mutex<Shared>>,
    /// Whether nobody writes to it any more.
    is_whole: bool,
}

impl Follower<'_> {
    fn read(&self) -> Result<(), Failure> {
        let file = || self.file.display().to_string();
        let mut input = open(self.file).map_err(|source| Failure::OpenCapture {
            file: file(),
            source,
        })?;
        // A regular file may grow, anything else ends when its writer does.
        let is_file = fs::metadata(self.file).is_ok_and(|metadata| metadata.is_file());
        let grows = is_file && !self.is_whole;
        let mut savefile = Savefile::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match input.read(&mut chunk) {
                Ok(0) if grows => {
                    self.note(&savefile, |shared| {
                        shared.begun |= savefile.format().is_some();
                    });
                    if Arc::strong_count(self.shared) == 1 {
                        return Ok(());
                    }
                    thread::sleep(PERIOD);
                    continue;
                }
                Ok(0) => {
                    return match savefile.end() {
                        // The writer was killed in the middle of a packet: what came before it counts.
                        Err(_) if savefile.format().is_some() => Ok(()),
                        ended => ended.map_err(|source| Failure::Capture {
                            file: file(),
                            source,
                        }),
                    };
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Failure::ReadCapture {
                        file: file(),
                        source,
                    });
                }
            };
            savefile.feed(&chunk[..count]);
            let mut found = Vec::new();
            let mut unread = None;
            let damage = loop {
                match savefile.next_packet() {
                    Ok(Some(packet)) => match self.look_into(&packet) {
                        Ok(capture) => found.extend(capture),
                        Err(reason) => unread = Some(reason),
                    },
                    Ok(None) => break None,
                    Err(source) => break Some(source),
                }
            };
            self.note(&savefile, |shared| {
                shared.grown = Some(Instant::now());
                if shared.counts {
                    shared.found.append(&mut found);
                }
                shared.unread = unread.or(shared.unread.take());
                // A stream begins with its header; of a file, what is there already must be read first.
                shared.begun |= !grows && savefile.format().is_some();
            });
            if let Some(source) = damage {
                return Err(Failure::Capture {
                    file: file(),
                    source,
                });
            }
        }
    }

    fn note(&self, savefile: &Savefile, change: impl FnOnce(&mut Shared)) {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.packets = savefile.packets();
        shared.is_cut = savefile.end().is_err();
        change(&mut shared);
    }

    /// The packet, if it is of the session.
    fn look_into(&self, packet: &Recorded<'_>) -> Result<Option<Capture>, String> {
        let frame =
            link_frame(packet.interface.link_type, packet.bytes).map_err(|e| e.to_string())?;
        let is_ours = match frame.ether_type {
            EtherType::IPV4 => self.matcher.recognise(frame.network).is_some(),
            EtherType::ARP => matches!(Host::of(self.recorder.station, 0), Host::Realserver(_)),
            _ => false,
        };
        let index = frame.interface_index.map(|index| format!("if{index}"));
        let device = packet.interface.name.clone().or(index);
        Ok(is_ours.then(|| self.recorder.capture(packet, &frame, device.as_deref())))
    }
}

/// Which path's host an addition is of.
fn path_of(addition: &Addition, plan: &Plan) -> Result<usize, Failure> {
    let names = || plan.paths.iter().map(|path| path.realserver.clone());
    let is_realservers = matches!(Host::of(addition.station, 0), Host::Realserver(_));
    match &addition.realserver {
        Some(name) => {
            names()
                .position(|known| known == *name)
                .ok_or_else(|| Failure::WhichRealserver {
                    station: addition.station,
                    names: names().collect(),
                })
        }
        None if is_realservers && plan.paths.len() > 1 => Err(Failure::WhichRealserver {
            station: addition.station,
            names: names().collect(),
        }),
        None => Ok(0),
    }
}
