//! What a sweep sends: batches, crafted and handed to the kernel by a thread of their own.
//!
//! It gets what is to be sent, not the packets: these are several times as long, and would go from one processor's
//! cache to another's.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::TrySendError;
use std::thread;
use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::sweep::ears::Heard;
use crate::cli::sweep::ears::Refused;
use crate::cli::sweep::keeper::Open;
use crate::craft::FleetCraft;
use crate::live::burst::Burst;
use crate::live::burst::BurstError;
use crate::live::clock;
use crate::run::FleetSend;

/// How many batches may wait: at the highest rate three milliseconds'.
const AHEAD: usize = 32;
/// How long room for one more is waited for, by sleeping: being woken for each would cost the thread that sends.
const ROOM: Duration = Duration::from_millis(1);
/// How often the kernel is asked who does not answer ARP.
const LOOKED: Duration = Duration::from_millis(250);

/// The thread that sends.
pub(super) struct Mouth {
    open: Arc<Open>,
    batches: Option<mpsc::SyncSender<Vec<FleetSend>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Mouth {
    /// Sends what it is given, and tells `inbox` what did not leave.
    pub(super) fn open(speaker: Speaker, inbox: mpsc::Sender<Heard>) -> Result<Mouth, Failure> {
        let (sender, batches) = mpsc::sync_channel(AHEAD);
        let open = Arc::clone(&speaker.open);
        let speak = move || {
            if let Err(error) = speaker.speak(&batches, &inbox) {
                // Nobody hears it who is at an end.
                let _ = inbox.send(Heard::CannotSend(error));
            }
        };
        let thread = thread::Builder::new().name("burst".to_owned()).spawn(speak);
        Ok(Mouth {
            open,
            batches: Some(sender),
            thread: Some(thread.map_err(Failure::Runtime)?),
        })
    }

    /// Sends a batch once those before it are gone; if none can be sent any more, the inbox is told why.
    pub(super) fn say(&self, mut batch: Vec<FleetSend>) {
        // Here, not where it is sent: that thread has no time to spare, and what is written down too early is closed
        // in vain.
        for send in batch.iter().filter(|send| !send.closes) {
            self.open.set(send.pair.number, send.probe, true);
        }
        let batches = self.batches.as_ref().expect("they end when it is dropped");
        while let Err(TrySendError::Full(back)) = batches.try_send(batch) {
            batch = back;
            thread::sleep(ROOM);
        }
    }
}

impl Drop for Mouth {
    /// What was given to it is sent first.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How batches become packets, and leave.
pub(super) struct Speaker {
    craft: FleetCraft,
    pub(super) burst: Burst,
    /// Where it is written down what may be half open.
    pub(super) open: Arc<Open>,
    /// Those of a batch.
    realservers: Vec<Ipv4Addr>,
}

impl Speaker {
    pub(super) fn new(craft: FleetCraft, burst: Burst, open: Arc<Open>) -> Speaker {
        Speaker {
            craft,
            burst,
            open,
            realservers: Vec::new(),
        }
    }

    fn speak(
        mut self,
        batches: &mpsc::Receiver<Vec<FleetSend>>,
        inbox: &mpsc::Sender<Heard>,
    ) -> Result<(), BurstError> {
        let mut looked = clock::mono();
        loop {
            match batches.recv_timeout(LOOKED) {
                Ok(batch) => {
                    let (closings, refused) = self.send(batch)?;
                    if !closings.is_empty() {
                        let _ = inbox.send(Heard::Closed(closings));
                    }
                    if !refused.is_empty() {
                        let _ = inbox.send(Heard::NotSent(refused, clock::mono()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            let now = clock::mono();
            if now.since(looked) >= LOOKED {
                looked = now;
                // A table that changes while it is read is read the next time.
                let mute = self.burst.mute().unwrap_or_default();
                if !mute.is_empty() {
                    let _ = inbox.send(Heard::Mute(mute));
                }
            }
        }
    }

    /// What has closed something, and which packets the kernel refused, and why.
    pub(super) fn send(
        &mut self,
        mut batch: Vec<FleetSend>,
    ) -> Result<(Vec<FleetSend>, Refused), BurstError> {
        batch.retain(|send| !send.closes || send.probe.opens());
        self.realservers.clear();
        self.realservers
            .extend(batch.iter().map(|send| send.pair.rip));
        let mut refused = Vec::new();
        self.burst.send(
            &self.realservers,
            |number, room| {
                let send = &batch[number];
                match send.closes {
                    false => self.craft.probe_into(room, send.probe, &send.pair),
                    true => self.craft.closing_into(room, send.probe, &send.pair),
                }
            },
            |number, errno| refused.push((batch[number], errno)),
        )?;
        batch.retain(|send| send.closes && !refused.iter().any(|(other, _)| other == send));
        Ok((batch, refused))
    }
}
