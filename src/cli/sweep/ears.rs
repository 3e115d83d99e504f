//! What a sweep hears: the ring, read by a thread of its own, and Ctrl-C.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::cli::failure::Failure;
use crate::exchange::Mono;
use crate::live::burst::BurstError;
use crate::live::clock;
use crate::live::ring::Ring;
use crate::live::tap::TapError;
use crate::matching::FleetMatcher;
use crate::matching::FleetSighting;
use crate::run::FleetSend;

/// How long the thread waits for packets before it looks whether it is to end, and how often it asks for drops.
const PATIENCE: Duration = Duration::from_millis(100);

/// Counts Ctrl-C and SIGTERM.
pub(super) fn watch_interrupts() -> Result<Arc<AtomicU32>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let watched = signal(SignalKind::interrupt())
            .and_then(|one| Ok((one, signal(SignalKind::terminate())?)));
        watched.map_err(Failure::Runtime)?
    };
    let count = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&count);
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    Ok(count)
}

/// Packets that did not leave, with the error of each.
pub(super) type Refused = Vec<(FleetSend, i32)>;

/// What was heard, what the kernel dropped, and what it did not send.
pub(super) enum Heard {
    Sightings(Vec<(FleetSighting, Mono)>),
    Lost(u64),
    Failed(TapError),
    /// The kernel refused these, then.
    NotSent(Refused, Mono),
    /// These have left. It is noted by who hears it: the thread that sends has no time, and would fetch what is noted from
    /// the cache of the one that notes what is open.
    Closed(Vec<FleetSend>),
    /// These do not answer ARP.
    Mute(Vec<Ipv4Addr>),
    CannotSend(BurstError),
}

/// The thread that reads the ring.
pub(super) struct Ears {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ears {
    /// Tells `inbox` what it hears.
    pub(super) fn listen(
        mut ring: Ring,
        matcher: FleetMatcher,
        inbox: mpsc::Sender<Heard>,
    ) -> Result<Ears, Failure> {
        let ended = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ended);
        let listen = move || {
            let mut counted = clock::mono();
            while !is_over.load(Ordering::Relaxed) {
                let mut sightings = Vec::new();
                let read = ring.read(PATIENCE, |packet, time| {
                    sightings.extend(matcher.recognise(packet).map(|sighting| (sighting, time)));
                });
                let now = clock::mono();
                let lost = match now.since(counted) >= PATIENCE {
                    true => {
                        counted = now;
                        ring.lost()
                    }
                    false => Ok(0),
                };
                let messages = [
                    (!sightings.is_empty()).then_some(Heard::Sightings(sightings)),
                    match lost {
                        Ok(0) => None,
                        Ok(lost) => Some(Heard::Lost(lost)),
                        Err(error) => Some(Heard::Failed(error)),
                    },
                    read.err().map(Heard::Failed),
                ];
                for message in messages.into_iter().flatten() {
                    if inbox.send(message).is_err() {
                        return;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("ring".to_owned()).spawn(listen);
        Ok(Ears {
            ended,
            thread: Some(thread.map_err(Failure::Runtime)?),
        })
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
