//! What a sweep sends: batches, handed to the kernel by a thread of their own, while the next are crafted.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::sweep::ears::Heard;
use crate::craft::FleetPacket;
use crate::live::burst::Burst;
use crate::live::burst::BurstError;
use crate::live::clock;
use crate::run::FleetSend;

/// How many batches may wait: at the highest rate half a millisecond's.
const AHEAD: usize = 4;
/// How often the kernel is asked who does not answer ARP.
const LOOKED: Duration = Duration::from_millis(250);

/// Packets that are sent together.
pub(super) struct Batch {
    pub(super) sends: Vec<FleetSend>,
    /// Each with its real server's address.
    pub(super) packets: Vec<(Ipv4Addr, FleetPacket)>,
}

/// The thread that sends.
pub(super) struct Mouth {
    batches: Option<mpsc::SyncSender<Batch>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Mouth {
    /// Sends what it is given by `burst`, and tells `inbox` what did not leave.
    pub(super) fn open(burst: Burst, inbox: mpsc::Sender<Heard>) -> Result<Mouth, Failure> {
        let (sender, batches) = mpsc::sync_channel(AHEAD);
        let speak = move || {
            if let Err(error) = speak(burst, &batches, &inbox) {
                // Nobody hears it who is at an end.
                let _ = inbox.send(Heard::CannotSend(error));
            }
        };
        let thread = thread::Builder::new()
            .name("burst".to_owned())
            .spawn(speak);
        Ok(Mouth {
            batches: Some(sender),
            thread: Some(thread.map_err(Failure::Runtime)?),
        })
    }

    /// Sends a batch once those before it are gone; if none can be sent any more, the inbox is told why.
    pub(super) fn say(&self, batch: Batch) {
        let batches = self.batches.as_ref().expect("they end when it is dropped");
        let _ = batches.send(batch);
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

fn speak(
    mut burst: Burst,
    batches: &mpsc::Receiver<Batch>,
    inbox: &mpsc::Sender<Heard>,
) -> Result<(), BurstError> {
    let mut looked = clock::mono();
    loop {
        match batches.recv_timeout(LOOKED) {
            Ok(batch) => {
                let refused = send(&mut burst, &batch)?;
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
            let mute = burst.mute().unwrap_or_default();
            if !mute.is_empty() {
                let _ = inbox.send(Heard::Mute(mute));
            }
        }
    }
}

/// Which packets the kernel refused, and why.
fn send(burst: &mut Burst, batch: &Batch) -> Result<Vec<(FleetSend, i32)>, BurstError> {
    let mut refused = Vec::new();
    burst.send(&batch.packets, |number, errno| {
        refused.push((batch.sends[number], errno));
    })?;
    Ok(refused)
}
