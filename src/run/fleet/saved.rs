//! A sweep that goes on later: what is written of it, and what is made of that.
//!
//! One line of text (the schema, a checksum, two lengths), a JSON object, and the states of all pairs, two an octet.

use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use siphasher::sip::SipHasher24;

use crate::exchange::Mono;
use crate::plan::Fleet;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::run::fleet::Asking;
use crate::run::fleet::FleetCounts;
use crate::run::fleet::FleetLimits;
use crate::run::fleet::FleetSweep;
use crate::run::fleet::Kinds;
use crate::run::fleet::Pass;
use crate::run::fleet::Stage;
use crate::run::fleet::State;
use crate::run::fleet::States;
use crate::run::fleet::Undecided;

const SCHEMA: &str = "tunproof.sweep-state/1";

/// Why a sweep cannot go on from what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// It is something else.
    #[error("it is no sweep's state: it does not begin with `{SCHEMA}`")]
    Schema,
    /// It was cut off or changed.
    #[error("it is not as it was written")]
    Damaged,
    /// Another fleet.
    #[error("it is of another fleet file")]
    OtherFleet,
    /// Other probes.
    #[error("it is of a sweep with other probes or tries")]
    OtherProbes,
}

#[derive(Serialize, Deserialize)]
struct Head<More> {
    fleet: String,
    session: SessionKey,
    asking: Asking,
    tries: u8,
    stage: Stage,
    undecided: Undecided,
    kinds: Kinds,
    counts: FleetCounts,
    longest: Duration,
    clean: u8,
    was_loop_heard: bool,
    more: More,
}

impl FleetSweep {
    /// What [`FleetSweep::resume`] goes on from. What was decided must have been taken by
    /// [`FleetSweep::poll_result`] and kept, for it is not told again; `more` is given back.
    pub fn save<More: Serialize>(&self, more: More) -> Vec<u8> {
        let head = Head {
            fleet: digest(&self.fleet),
            session: self.key,
            asking: self.asking,
            tries: self.limits.tries,
            stage: self.stage,
            undecided: self.undecided,
            kinds: self.kinds.clone(),
            counts: self.counts,
            longest: self.longest,
            clean: self.clean,
            was_loop_heard: self.was_loop_heard,
            more,
        };
        let head = serde_json::to_vec(&head).expect("keys are strings");
        let states = self.states.octets();
        let check = checksum(&[&head, states]);
        let line = format!("{SCHEMA} {check:016x} {} {}\n", head.len(), states.len());
        [line.as_bytes(), &head, states].concat()
    }

    /// The sweep that was written by [`FleetSweep::save`]. While nobody listened answers may have been lost, so the
    /// silence of the pass that was interrupted does not count.
    ///
    /// # Errors
    ///
    /// If it is of another fleet, or not as it was written.
    pub fn resume<More: DeserializeOwned>(
        fleet: Arc<Fleet>,
        asking: Asking,
        limits: FleetLimits,
        saved: &[u8],
        now: Mono,
    ) -> Result<(FleetSweep, More), ResumeError> {
        let (head, states) = parts(saved)?;
        let head: Head<More> = serde_json::from_slice(head).map_err(|_| ResumeError::Damaged)?;
        if head.fleet != digest(&fleet) {
            return Err(ResumeError::OtherFleet);
        }
        if (head.asking, head.tries) != (asking, limits.tries) {
            return Err(ResumeError::OtherProbes);
        }
        let states = States::from_octets(fleet.pairs(), states).ok_or(ResumeError::Damaged)?;
        let mut sweep = FleetSweep::new(fleet, head.session, asking, limits, now);
        let pairs = sweep.fleet.pairs();
        let is_known = |pair: u32| match states.of(pair) {
            State::Refused(refusal) => head.kinds.kind(refusal).is_some(),
            _ => true,
        };
        let (place, pass) = match head.stage {
            Stage::Asking {
                slot,
                pass: Pass::Try(pass),
                ..
            } => (slot, pass),
            Stage::Asking { slot, .. } => (slot, 1),
            Stage::Pausing { pass, .. } => (0, pass),
            Stage::Telling { next, .. } => (next, 1),
            Stage::Done => (0, 1),
        };
        let is_possible = head.kinds.is_possible()
            && (0..pairs).all(is_known)
            && place <= pairs
            && (1..=limits.tries).contains(&pass);
        if !is_possible {
            return Err(ResumeError::Damaged);
        }
        sweep.states = states;
        sweep.kinds = head.kinds;
        sweep.undecided = sweep.count_undecided();
        if sweep.undecided != head.undecided {
            return Err(ResumeError::Damaged);
        }
        sweep.counts = head.counts;
        sweep.longest = head.longest;
        sweep.clean = head.clean;
        sweep.was_loop_heard = head.was_loop_heard;
        sweep.is_lossy = true;
        sweep.stage = match head.stage {
            Stage::Pausing { round, pass, .. } => Stage::Pausing {
                round,
                pass,
                until: now + sweep.pause(pass),
            },
            stage => stage,
        };
        Ok((sweep, head.more))
    }

    fn count_undecided(&self) -> Undecided {
        let mut undecided = Undecided { tcp: 0, udp: 0 };
        for number in (0..self.fleet.pairs()).filter(|number| self.is_undecided(*number)) {
            match self.fleet.pair(number).map(|pair| pair.service.protocol) {
                Some(Protocol::Tcp) => undecided.tcp += 1,
                _ => undecided.udp += 1,
            }
        }
        undecided
    }
}

/// The JSON object and the states.
fn parts(saved: &[u8]) -> Result<(&[u8], &[u8]), ResumeError> {
    let after = saved
        .strip_prefix(SCHEMA.as_bytes())
        .ok_or(ResumeError::Schema)?;
    let damaged = ResumeError::Damaged;
    let end = after.iter().position(|octet| *octet == b'\n');
    let (line, rest) = after.split_at(end.ok_or(damaged.clone())?);
    let rest = &rest[1..];
    let line = std::str::from_utf8(line).map_err(|_| damaged.clone())?;
    let words: Vec<_> = line.split_whitespace().collect();
    let &[check, head, states] = words.as_slice() else {
        return Err(damaged);
    };
    let length = |word: &str| word.parse::<usize>().map_err(|_| ResumeError::Damaged);
    let (head, states) = (length(head)?, length(states)?);
    if head.checked_add(states) != Some(rest.len()) {
        return Err(damaged);
    }
    let (head, states) = rest.split_at(head);
    match u64::from_str_radix(check, 16) == Ok(checksum(&[head, states])) {
        true => Ok((head, states)),
        false => Err(damaged),
    }
}

fn checksum(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher24::new();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// What tells a fleet from others: of its numbering all that matters.
fn digest(fleet: &Fleet) -> String {
    let text = serde_json::to_vec(fleet).expect("keys are strings");
    format!("{:016x}", checksum(&[&text]))
}
