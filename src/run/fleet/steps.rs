//! What a sweep does next: stage by stage, slot by slot.

use crate::evidence::FleetHeard;
use crate::exchange::Mono;
use crate::plan::FleetProbe;
use crate::plan::Protocol;
use crate::run::fleet::Asking;
use crate::run::fleet::FleetSend;
use crate::run::fleet::FleetSweep;
use crate::run::fleet::LEAST_CLEAN;
use crate::run::fleet::Pass;
use crate::run::fleet::Round;
use crate::run::fleet::Stage;
use crate::run::fleet::State;
use crate::run::fleet::Stopping;
use crate::run::fleet::heard;

/// What a step of the stage gave.
pub(super) enum Step {
    Send(FleetSend),
    Again,
    Wait(Mono),
    Done,
}

impl FleetSweep {
    pub(super) fn step(&mut self, now: Mono, is_first: bool) -> Step {
        match self.stage {
            Stage::Asking { round, pass, slot } => self.ask(round, pass, slot, (now, is_first)),
            Stage::Pausing { round, pass, until } => {
                let undecided = self.undecided.of(round);
                if undecided > 0 && now < until {
                    return Step::Wait(until);
                }
                self.clean += u8::from(!self.is_lossy);
                self.is_lossy = false;
                self.stage = match pass {
                    _ if undecided == 0 => Stage::Telling { round, next: 0 },
                    pass if pass < self.limits.tries => self.begin(round, Pass::Try(pass + 1)),
                    _ if self.undecided.tcp > 0 => self.begin(round, Pass::Closing),
                    _ => Stage::Telling { round, next: 0 },
                };
                Step::Again
            }
            Stage::Telling { round, next } => self.tell(round, next),
            Stage::Done => Step::Done,
        }
    }

    /// The next step of a sweep that is stopped. Its stage stays: from there it goes on, if it does.
    pub(super) fn wind_up(&mut self, stopping: Stopping, now: Mono) -> Step {
        match stopping {
            Stopping::Hearing { until } if now < until => Step::Wait(until),
            Stopping::Hearing { .. } => {
                let pairs = self.fleet.pairs();
                let (round, slot, end) = match self.stage {
                    Stage::Asking {
                        round,
                        pass: Pass::Try(1),
                        slot,
                    } => (round, 0, slot),
                    Stage::Asking {
                        round,
                        pass: Pass::Try(_),
                        ..
                    }
                    | Stage::Pausing { round, .. } => (round, 0, pairs),
                    Stage::Asking { round, slot, .. } => (round, slot, pairs),
                    Stage::Telling { round, .. } => (round, pairs, pairs),
                    Stage::Done => (Round::Reflect, pairs, pairs),
                };
                self.stopping = Some(Stopping::Closing { round, slot, end });
                Step::Again
            }
            Stopping::Closing { slot, end, .. } if slot == end => Step::Done,
            Stopping::Closing { round, slot, end } => {
                let step = self.turn(round, slot, (true, now));
                if !matches!(step, Step::Wait(_)) {
                    let slot = slot + 1;
                    self.stopping = Some(Stopping::Closing { round, slot, end });
                }
                step
            }
        }
    }

    fn begin(&mut self, round: Round, pass: Pass) -> Stage {
        self.recent.clear();
        Stage::Asking {
            round,
            pass,
            slot: 0,
        }
    }

    fn ask(&mut self, round: Round, pass: Pass, slot: u32, (now, is_first): (Mono, bool)) -> Step {
        if slot == self.fleet.pairs() {
            self.stage = match pass {
                Pass::Try(pass) => Stage::Pausing {
                    round,
                    pass,
                    until: now + self.pause(pass),
                },
                Pass::Closing => Stage::Telling { round, next: 0 },
            };
            return Step::Again;
        }
        let closes = pass == Pass::Closing;
        let step = self.turn(round, slot, (closes, now));
        if is_first && matches!(step, Step::Send(_)) {
            self.recent.sent(slot, now);
        }
        if !matches!(step, Step::Wait(_)) {
            let slot = slot + 1;
            self.stage = Stage::Asking { round, pass, slot };
        }
        step
    }

    /// What the pair at a slot is sent, if it is undecided: its probe, or what closes it.
    fn turn(&mut self, round: Round, slot: u32, (closes, now): (bool, Mono)) -> Step {
        let place = self.order.place(&self.fleet, slot);
        if place.position == 0 {
            self.walk += 1;
        }
        let pair = self.fleet.pair(place.pair).expect("a slot has a pair");
        let probe = match (round, pair.service.protocol) {
            (Round::Loop, Protocol::Tcp) => Some(FleetProbe::ClosedLoop),
            (Round::Loop, Protocol::Udp) => None,
            (Round::Reflect, Protocol::Tcp) => Some(FleetProbe::ReflectSyn),
            (Round::Reflect, Protocol::Udp) => Some(FleetProbe::ReflectUdp),
        };
        let wanted =
            |probe: &FleetProbe| self.is_undecided(pair.number) && (!closes || probe.opens());
        let Some(probe) = probe.filter(wanted) else {
            return Step::Again;
        };
        let when = self
            .spacing
            .when(&self.fleet, &place, (pair.service.protocol, self.walk));
        if let Some(when) = when.filter(|when| *when > now) {
            return Step::Wait(when);
        }
        if !self.bucket.take() {
            return Step::Wait(self.bucket.next());
        }
        self.spacing.asked(&self.fleet, &place, now);
        match closes {
            true => self.counts.closings += 1,
            false => self.counts.probes += 1,
        }
        Step::Send(FleetSend {
            pair,
            probe,
            closes,
        })
    }

    fn tell(&mut self, round: Round, next: u32) -> Step {
        let is_half_way = round == Round::Loop && self.asking == Asking::Both;
        if next == self.fleet.pairs() {
            self.stage = match is_half_way {
                true => {
                    self.was_loop_heard = self.clean >= LEAST_CLEAN;
                    self.clean = 0;
                    self.is_lossy = false;
                    self.begin(Round::Reflect, Pass::Try(1))
                }
                false => Stage::Done,
            };
            return Step::Again;
        }
        self.stage = Stage::Telling {
            round,
            next: next + 1,
        };
        let heard = match self.states.of(next) {
            State::Refused(refusal) => self.kinds.kind(refusal).map(heard),
            State::Open if is_half_way => None,
            State::Open if self.clean >= LEAST_CLEAN => Some(FleetHeard::Silence),
            State::Open => Some(FleetHeard::Unheard),
            State::Proven | State::Told | State::Half => None,
        };
        if let (Some(heard), Some(pair)) = (heard, self.fleet.pair(next)) {
            self.decide(pair, State::Told, heard, None);
        }
        Step::Again
    }
}
