//! Who closes what a sweep has opened that is killed.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::cli::failure::Failure;
use crate::cli::sweep::mouth::Speaker;
use crate::live::clock;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::live::successor::Claim;
use crate::live::successor::SharedBits;
use crate::live::successor::Successor;
use crate::plan::FleetProbe;
use crate::run::FleetPoll;
use crate::run::FleetSweep;

/// By then a Linux host has given up what is half open (`tcp_synack_retries` 5: 1 + 2 + 4 + … s).
const FORGOTTEN: Duration = Duration::from_secs(64);

/// How often it is tried whether somebody else is through.
const TRIED: Duration = Duration::from_millis(50);

/// Waits until the sweep that is kept in `state` has ended, and the process that closes what it opened: one at a time
/// keeps the rates. `None`, if that had to be waited for: the state is another one now.
pub(super) fn claim(sweep: &FleetSweep, state: &Path) -> Result<Option<Claim>, Failure> {
    let name = format!("tunproof-sweep-{:016x}", sweep.key().alias());
    let of_name = || Claim::of(&name).map_err(Failure::Keeper);
    if let Some(claim) = of_name()? {
        return Ok(Some(claim));
    }
    anstream::eprintln!(
        "waiting: the sweep of `{}` has not ended yet, or closes what it has opened",
        state.display()
    );
    let began = clock::mono();
    while of_name()?.is_none() {
        if clock::mono().since(began) > FORGOTTEN + TRIED {
            let path = state.to_owned();
            return Err(Failure::StillSwept { path });
        }
        thread::sleep(TRIED);
    }
    Ok(None)
}

/// What may be half open: two bits a pair, one for each probe that opens.
pub(super) struct Open(SharedBits);

impl Open {
    /// Nothing.
    pub(super) fn new(pairs: u32) -> Result<Arc<Open>, Failure> {
        let bits = SharedBits::new(2 * pairs as usize).map_err(Failure::Keeper)?;
        Ok(Arc::new(Open(bits)))
    }

    pub(super) fn set(&self, pair: u32, probe: FleetProbe, is_open: bool) {
        if probe.opens() {
            self.0.set(bit(pair, probe), is_open);
        }
    }
}

fn bit(pair: u32, probe: FleetProbe) -> usize {
    2 * pair as usize + usize::from(probe == FleetProbe::ClosedLoop)
}

/// A process that knows of this one what may be half open, and closes it when this one was killed.
pub(super) struct Keeper(Option<Successor>);

impl Keeper {
    /// Before there are threads, and only where something may come to be open.
    pub(super) fn stand_by(
        sweep: &mut FleetSweep,
        speaker: &mut Speaker,
    ) -> Result<Keeper, Failure> {
        if sweep.fleet().tcp_pairs() == 0 {
            return Ok(Keeper(None));
        }
        let role = Role::Command {
            reads: &[],
            writes: &[],
        };
        let successor = Successor::stand_by(|| privileges::confine(role), || close(sweep, speaker));
        Ok(Keeper(Some(successor.map_err(Failure::Keeper)?)))
    }

    /// Nothing is open any more.
    pub(super) fn dismiss(self) {
        if let Some(successor) = self.0 {
            successor.dismiss();
        }
    }
}

/// Closes what is open, as fast as the sweep was to send.
fn close(sweep: &mut FleetSweep, speaker: &mut Speaker) {
    let began = clock::mono();
    for probe in [FleetProbe::ReflectSyn, FleetProbe::ClosedLoop] {
        let open = Arc::clone(&speaker.open);
        sweep.only_close(probe, |pair| open.0.is_set(bit(pair, probe)));
        loop {
            let mut batch = Vec::new();
            let now = clock::mono();
            let poll = sweep.poll(now, &mut batch);
            // There is nobody to tell.
            if now.since(began) > FORGOTTEN || speaker.send(batch).is_err() {
                return;
            }
            match poll {
                FleetPoll::Done => break,
                FleetPoll::Wait(until) => thread::sleep(until.since(clock::mono())),
            }
        }
    }
}
