//! The sweep of a fleet: it is told the time and what was heard, and says what to send next and what is decided.
//!
//! A *round* is one kind of probe; in it every undecided pair is tried in as many *passes* as wanted, with a pause
//! after each. What is known of a pair are four bits, and nothing is kept for a probe.
//!
//! The order of calls: [`FleetSweep::handle_heard`] and the like for all that has arrived, then
//! [`FleetSweep::poll`], whose batch is handed to the kernel at once, then [`FleetSweep::poll_result`] until it
//! gives nothing more.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use crate::evidence::FleetHeard;
use crate::evidence::NoAnswer;
use crate::evidence::Swept;
use crate::exchange::Mono;
use crate::matching::About;
use crate::matching::FleetAnswer;
use crate::plan::Fleet;
use crate::plan::FleetProbe;
use crate::plan::Group;
use crate::plan::Pair;
use crate::plan::Protocol;
use crate::plan::SessionKey;

mod order;
mod pace;
mod recent;
mod saved;
mod states;
mod steps;

pub use saved::ResumeError;

use order::Order;
use pace::Bucket;
use pace::Spacing;
use recent::Recent;
use states::Kind;
use states::Kinds;
use states::State;
use states::States;
use steps::Step;

/// The most packets of a batch.
const BATCH: usize = 64;
/// How many slots without anything to send, or results, one call goes through at most.
const STEPS: usize = 1 << 14;
/// How many passes must have been heard without loss for a silence to count.
const LEAST_CLEAN: u8 = 2;
/// The pause after a pass is four times the longest round trip, within these limits, and doubles with each pass.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How fast, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetLimits {
    /// Packets a second in all.
    pub rate: u32,
    /// Packets a second to each real server.
    pub each: u32,
    /// How often a pair is tried at most.
    pub tries: u8,
}

/// Which probes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asking {
    /// Those that real servers answer to the director.
    Reflect,
    /// Those that real servers answer to the client, and it to the director.
    ClosedLoop,
    /// The closed loop, then the others for what it left undecided.
    Both,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetSend {
    /// To which pair.
    pub pair: Pair,
    /// Which probe.
    pub probe: FleetProbe,
    /// Whether it is the RST that closes what the probe opened.
    pub closes: bool,
}

/// What to do after [`FleetSweep::poll`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetPoll {
    /// There is nothing to send before this time, unless something is heard; the batch may have packets.
    Wait(Mono),
    /// The sweep is over.
    Done,
}

/// What was sent and heard so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetCounts {
    /// Probes.
    pub probes: u64,
    /// RSTs that close what probes opened.
    pub closings: u64,
    /// Pairs answered as hoped.
    pub answered: u64,
    /// Errors, of which a pair may have given several.
    pub errors: u64,
    /// Answers to what was answered before.
    pub repeated: u64,
    /// Answers to what was decided otherwise before.
    pub late: u64,
    /// Packets that the kernel dropped before they were read.
    pub lost: u64,
}

/// How far a sweep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetProgress {
    /// What was sent and heard.
    pub counts: FleetCounts,
    /// Pairs not decided yet.
    pub undecided: u32,
    /// The pass, from 1.
    pub pass: u8,
    /// How long it will take, if nothing changes.
    pub left: Duration,
}

/// The sweep of a fleet.
pub struct FleetSweep {
    fleet: Arc<Fleet>,
    key: SessionKey,
    limits: FleetLimits,
    asking: Asking,
    order: Order,
    states: States,
    kinds: Kinds,
    stage: Stage,
    undecided: Undecided,
    bucket: Bucket,
    spacing: Spacing,
    walk: u64,
    recent: Recent,
    closings: VecDeque<(u32, FleetProbe)>,
    results: VecDeque<Swept>,
    counts: FleetCounts,
    longest: Duration,
    /// Passes of this round that were heard without loss.
    clean: u8,
    /// Whether something was lost since this pass began.
    is_lossy: bool,
    /// Whether the silence of the closed loop, which was asked before, counts.
    was_loop_heard: bool,
    stopping: Option<Stopping>,
}

/// How a sweep ends that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopping {
    /// What was asked last may be answered yet, and is closed.
    Hearing { until: Mono },
    /// SYNs that were not answered are closed, slot by slot up to `end`.
    Closing { round: Round, slot: u32, end: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Round {
    Loop,
    Reflect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pass {
    Try(u8),
    /// RSTs for what was never answered, and may be half open.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    Asking { round: Round, pass: Pass, slot: u32 },
    Pausing { round: Round, pass: u8, until: Mono },
    Telling { round: Round, next: u32 },
    Done,
}

/// How many pairs are open or refused so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Undecided {
    tcp: u32,
    udp: u32,
}

impl FleetSweep {
    /// A sweep that begins now. `asking` for a closed loop takes a fleet with a client, and that alone a fleet
    /// without UDP services.
    pub fn new(
        fleet: Arc<Fleet>,
        key: SessionKey,
        asking: Asking,
        limits: FleetLimits,
        now: Mono,
    ) -> FleetSweep {
        let tcp = fleet.tcp_pairs();
        let round = match asking {
            Asking::Reflect => Round::Reflect,
            Asking::Both if tcp == 0 => Round::Reflect,
            Asking::ClosedLoop | Asking::Both => Round::Loop,
        };
        FleetSweep {
            order: Order::new(&fleet),
            states: States::new(fleet.pairs()),
            kinds: Kinds::default(),
            stage: Stage::Asking {
                round,
                pass: Pass::Try(1),
                slot: 0,
            },
            undecided: Undecided {
                tcp,
                udp: fleet.pairs() - tcp,
            },
            bucket: Bucket::new(limits.rate, now),
            spacing: Spacing::new(&fleet, limits.each),
            walk: 0,
            recent: Recent::default(),
            closings: VecDeque::new(),
            results: VecDeque::new(),
            counts: FleetCounts::default(),
            longest: Duration::ZERO,
            clean: 0,
            is_lossy: false,
            was_loop_heard: true,
            stopping: None,
            fleet,
            key,
            limits,
            asking,
        }
    }

    /// The fleet.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.fleet
    }

    /// The session's key.
    pub fn key(&self) -> SessionKey {
        self.key
    }

    /// The answer to the probe of a pair arrived at `at`.
    pub fn handle_heard(&mut self, pair: u32, probe: FleetProbe, answer: FleetAnswer, at: Mono) {
        let Some(pair) = self.fleet.pair(pair) else {
            return;
        };
        let has_opened = match answer {
            FleetAnswer::SynAck | FleetAnswer::ClientReset => true,
            FleetAnswer::Error(error) => error.about == About::Return,
            FleetAnswer::Reset | FleetAnswer::PortUnreachable | FleetAnswer::CameBack => false,
        };
        if has_opened {
            // Again, too, if it came before: then the RST was lost, and the real server asks once more.
            self.closings.push_back((pair.number, probe));
        }
        let is_hoped = answer.completes(probe);
        match self.states.of(pair.number) {
            State::Proven => self.counts.repeated += 1,
            State::Half if probe != FleetProbe::ClosedLoop => self.counts.repeated += 1,
            State::Told | State::Half => self.counts.late += 1,
            State::Open | State::Refused(_) if is_hoped => {
                let round_trip = self.round_trip(&pair, probe, at);
                self.longest = self.longest.max(round_trip.unwrap_or_default());
                let is_half = self.asking == Asking::Both && probe == FleetProbe::ReflectSyn;
                let state = if is_half { State::Half } else { State::Proven };
                self.counts.answered += 1;
                self.decide(pair, state, FleetHeard::Answered(probe, answer), round_trip);
            }
            // At once: whatever is answered after this, it may be another host that answers.
            State::Open | State::Refused(_) if answer == FleetAnswer::CameBack => {
                self.counts.errors += 1;
                let round_trip = self.round_trip(&pair, probe, at);
                let heard = FleetHeard::Answered(probe, answer);
                self.decide(pair, State::Told, heard, round_trip);
            }
            State::Open | State::Refused(_) => {
                self.refused(pair, Kind::Answer(probe, answer), at);
            }
        }
    }

    /// The host itself did not send a packet.
    pub fn handle_not_sent(&mut self, sent: &FleetSend, errno: i32, now: Mono) {
        let undecided = matches!(
            self.states.of(sent.pair.number),
            State::Open | State::Refused(_)
        );
        if undecided && !sent.closes {
            self.refused(sent.pair, Kind::NotSent(errno), now);
        }
    }

    /// A real server does not answer ARP: what was sent to it never left this host. An answer still mends that.
    pub fn handle_mute(&mut self, realserver: Ipv4Addr, errno: i32) {
        let Some(refusal) = self.kinds.number(Kind::NotSent(errno)) else {
            return;
        };
        for number in self.fleet.pairs_of(realserver) {
            if self.states.of(number) == State::Open {
                self.counts.errors += 1;
                self.states.set(number, State::Refused(refusal));
            }
        }
    }

    /// The kernel dropped packets before they were read, or nobody listened for a while.
    pub fn handle_lost(&mut self, packets: u64) {
        self.counts.lost += packets;
        self.is_lossy = true;
    }

    /// Ends the sweep early: nothing more is asked, and what was opened is closed, answered or not.
    pub fn stop(&mut self, now: Mono) {
        if self.stopping.is_none() && self.stage != Stage::Done {
            let until = now + self.pause(1).min(FIRST_PAUSE);
            self.stopping = Some(Stopping::Hearing { until });
        }
    }

    /// Asks nothing more, and closes what a probe opened at these pairs.
    pub fn only_close(&mut self, probe: FleetProbe, is_open: impl Fn(u32) -> bool) {
        let pairs = self.fleet.pairs();
        for pair in 0..pairs {
            let state = if is_open(pair) {
                State::Open
            } else {
                State::Told
            };
            self.states.set(pair, state);
        }
        self.closings.clear();
        self.stopping = Some(Stopping::Closing {
            round: match probe {
                FleetProbe::ClosedLoop => Round::Loop,
                FleetProbe::ReflectSyn | FleetProbe::ReflectUdp => Round::Reflect,
            },
            slot: 0,
            end: pairs,
        });
    }

    /// Whether it was stopped before its end.
    pub fn is_partial(&self) -> bool {
        self.stopping.is_some()
    }

    /// How far probes of a protocol to one real server are apart.
    pub fn apart(&self, protocol: Protocol) -> Duration {
        Spacing::apart(protocol, self.limits.each)
    }

    /// What to send now, at most 64 packets, and when to ask again.
    pub fn poll(&mut self, now: Mono, batch: &mut Vec<FleetSend>) -> FleetPoll {
        self.bucket.fill(now);
        batch.reserve(BATCH);
        let mut steps = 0;
        while batch.len() < BATCH {
            if let Some((pair, probe)) = self.closings.front().copied() {
                if !self.bucket.take() {
                    return FleetPoll::Wait(self.bucket.next());
                }
                self.closings.pop_front();
                self.counts.closings += 1;
                batch.extend(self.fleet.pair(pair).map(|pair| FleetSend {
                    pair,
                    probe,
                    closes: true,
                }));
                continue;
            }
            steps += 1;
            if steps > STEPS || self.results.len() > STEPS {
                return FleetPoll::Wait(now);
            }
            let step = match self.stopping {
                Some(stopping) => self.wind_up(stopping, now),
                None => self.step(now, batch.is_empty()),
            };
            match step {
                Step::Send(send) => batch.push(send),
                Step::Again => {}
                Step::Wait(until) => return FleetPoll::Wait(until),
                Step::Done => return FleetPoll::Done,
            }
        }
        FleetPoll::Wait(now)
    }

    /// What was decided, in the order in which it was.
    pub fn poll_result(&mut self) -> Option<Swept> {
        self.results.pop_front()
    }

    /// What was sent and heard so far.
    pub fn counts(&self) -> FleetCounts {
        self.counts
    }

    /// Whether a pair is not decided.
    pub fn is_undecided(&self, pair: u32) -> bool {
        matches!(self.states.of(pair), State::Open | State::Refused(_))
    }

    /// Whether a pair was answered as hoped, by the closed loop if that was asked.
    pub fn is_proven(&self, pair: u32) -> bool {
        self.states.of(pair) == State::Proven
    }

    /// How far it is.
    pub fn progress(&self) -> FleetProgress {
        let (round, pass, slot) = match self.stage {
            Stage::Asking { round, pass, slot } => match pass {
                Pass::Try(pass) => (round, pass, slot),
                Pass::Closing => (round, self.limits.tries, slot),
            },
            Stage::Pausing { round, pass, .. } => (round, pass, self.fleet.pairs()),
            Stage::Telling { round, .. } => (round, self.limits.tries, self.fleet.pairs()),
            Stage::Done => (Round::Reflect, self.limits.tries, self.fleet.pairs()),
        };
        let all = self.fleet.pairs();
        let undecided = self.undecided.of(round);
        let share = f64::from(all - slot.min(all)) / f64::from(all.max(1));
        let now_left = match pass {
            1 => share * f64::from(all),
            _ => share * f64::from(undecided),
        };
        // Those that were asked and kept silent so far are asked again.
        let silent = f64::from(undecided) * (1.0 - share);
        let packets = now_left + silent * f64::from(self.limits.tries.saturating_sub(pass));
        let realservers = self.fleet.groups().iter().map(Group::realservers);
        let each =
            f64::from(realservers.max().unwrap_or(1)) / self.apart(Protocol::Tcp).as_secs_f64();
        let rate = f64::from(self.limits.rate).min(each);
        FleetProgress {
            counts: self.counts,
            undecided: self.undecided.tcp + self.undecided.udp,
            pass,
            left: Duration::try_from_secs_f64(packets / rate).unwrap_or_default(),
        }
    }

    fn refused(&mut self, pair: Pair, kind: Kind, at: Mono) {
        self.counts.errors += 1;
        let number = self.kinds.number(kind).filter(|_| !self.is_last(&pair));
        match number {
            Some(refusal) => self.states.set(pair.number, State::Refused(refusal)),
            None => {
                let round_trip = match kind {
                    Kind::Answer(probe, _) => self.round_trip(&pair, probe, at),
                    Kind::NotSent(_) => None,
                };
                self.decide(pair, State::Told, heard(kind), round_trip);
            }
        }
    }

    /// Whether the pair is asked no more in this round.
    fn is_last(&self, pair: &Pair) -> bool {
        match self.stage {
            Stage::Asking {
                pass: Pass::Try(pass),
                slot,
                ..
            } => pass == self.limits.tries && self.order.slot(&self.fleet, pair.number) < slot,
            Stage::Pausing { pass, .. } => pass == self.limits.tries,
            Stage::Asking {
                pass: Pass::Closing,
                ..
            }
            | Stage::Telling { .. }
            | Stage::Done => true,
        }
    }

    fn decide(
        &mut self,
        pair: Pair,
        state: State,
        heard: FleetHeard,
        round_trip: Option<Duration>,
    ) {
        self.states.set(pair.number, state);
        match pair.service.protocol {
            Protocol::Tcp => self.undecided.tcp -= 1,
            Protocol::Udp => self.undecided.udp -= 1,
        }
        let (round, pass) = match self.stage {
            Stage::Asking {
                round,
                pass: Pass::Try(pass),
                ..
            } => (round, pass),
            Stage::Pausing { round, pass, .. } => (round, pass),
            Stage::Asking { round, .. } | Stage::Telling { round, .. } => {
                (round, self.limits.tries)
            }
            Stage::Done => (Round::Reflect, self.limits.tries),
        };
        let is_loop = matches!(heard, FleetHeard::Answered(FleetProbe::ClosedLoop, _));
        let was_asked = self.asking == Asking::Both
            && round == Round::Reflect
            && pair.service.protocol == Protocol::Tcp;
        let no_answer = match self.was_loop_heard {
            true => NoAnswer::Silent,
            false => NoAnswer::Unheard,
        };
        self.results.push_back(Swept {
            pair,
            heard,
            closed_loop: (was_asked && !is_loop).then_some(no_answer),
            tries: pass,
            round_trip,
        });
    }

    /// How long ago the probe was sent, if it was sent once and that is remembered.
    fn round_trip(&mut self, pair: &Pair, probe: FleetProbe, at: Mono) -> Option<Duration> {
        let (round, end) = match self.stage {
            Stage::Asking {
                round,
                pass: Pass::Try(1),
                slot,
            } => (round, slot),
            Stage::Pausing { round, pass: 1, .. } => (round, self.fleet.pairs()),
            _ => return None,
        };
        let slot = self.order.slot(&self.fleet, pair.number);
        let is_of_round = (round == Round::Loop) == (probe == FleetProbe::ClosedLoop);
        let sent = self
            .recent
            .when(slot)
            .filter(|_| is_of_round && slot < end)?;
        Some(at.since(sent))
    }

    fn pause(&self, pass: u8) -> Duration {
        let base = match self.longest {
            Duration::ZERO => FIRST_PAUSE,
            longest => (4 * longest).max(LEAST_PAUSE),
        };
        (base * (1 << (pass - 1).min(4))).min(LONGEST_PAUSE)
    }
}

impl Undecided {
    fn of(&self, round: Round) -> u32 {
        match round {
            Round::Loop => self.tcp,
            Round::Reflect => self.tcp + self.udp,
        }
    }
}

fn heard(kind: Kind) -> FleetHeard {
    match kind {
        Kind::Answer(probe, answer) => FleetHeard::Answered(probe, answer),
        Kind::NotSent(errno) => FleetHeard::NotSent(errno),
    }
}

#[cfg(test)]
mod tests;
