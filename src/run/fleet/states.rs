//! Four bits a pair: undecided, decided how, or which error it gave so far.

use serde::Deserialize;
use serde::Serialize;

use crate::matching::FleetAnswer;
use crate::plan::FleetProbe;

/// What is known of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing yet.
    Open,
    /// Answered as hoped, and told.
    Proven,
    /// Decided otherwise, and told.
    Told,
    /// Answered by the service but not by the closed loop, and told.
    Half,
    /// Only an error so far.
    Refused(Refusal),
}

/// The number of a kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal(u8);

/// A kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// This answer to this probe.
    Answer(FleetProbe, FleetAnswer),
    /// This error of the host itself.
    NotSent(i32),
}

/// The states of all pairs.
pub(super) struct States {
    pairs: Vec<u8>,
}

/// The kinds of errors that pairs may be in while they are tried again. There is room for a dozen; with more of them a
/// pair is decided by its first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Kinds(Vec<Kind>);

const FIRST_REFUSAL: u8 = 4;

impl States {
    /// All open.
    pub(super) fn new(pairs: u32) -> States {
        States {
            pairs: vec![0; pairs.div_ceil(2) as usize],
        }
    }

    /// From [`States::octets`], if they are as many as it takes.
    pub(super) fn from_octets(pairs: u32, octets: &[u8]) -> Option<States> {
        let is_right = octets.len() == pairs.div_ceil(2) as usize;
        is_right.then(|| States {
            pairs: octets.to_vec(),
        })
    }

    /// Two pairs an octet, the lower half first.
    pub(super) fn octets(&self) -> &[u8] {
        &self.pairs
    }

    pub(super) fn of(&self, pair: u32) -> State {
        match self.pairs[pair as usize / 2] >> (pair % 2 * 4) & 15 {
            0 => State::Open,
            1 => State::Proven,
            2 => State::Told,
            3 => State::Half,
            number => State::Refused(Refusal(number - FIRST_REFUSAL)),
        }
    }

    pub(super) fn set(&mut self, pair: u32, state: State) {
        let number = match state {
            State::Open => 0,
            State::Proven => 1,
            State::Told => 2,
            State::Half => 3,
            State::Refused(refusal) => FIRST_REFUSAL + refusal.0,
        };
        let shift = pair % 2 * 4;
        let octet = &mut self.pairs[pair as usize / 2];
        *octet = *octet & !(15 << shift) | number << shift;
    }
}

impl Kinds {
    const MOST: usize = (16 - FIRST_REFUSAL) as usize;

    /// The number of a kind, if there is room for it.
    pub(super) fn number(&mut self, kind: Kind) -> Option<Refusal> {
        let at = self.0.iter().position(|known| *known == kind);
        let at = at.or_else(|| {
            (self.0.len() < Kinds::MOST).then(|| {
                self.0.push(kind);
                self.0.len() - 1
            })
        })?;
        Some(Refusal(at as u8))
    }

    /// The kind of this number, if there is one.
    pub(super) fn kind(&self, refusal: Refusal) -> Option<Kind> {
        self.0.get(usize::from(refusal.0)).copied()
    }

    /// Whether there are no more than fit.
    pub(super) fn is_possible(&self) -> bool {
        self.0.len() <= Kinds::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_do_not_touch_one_another() {
        let mut states = States::new(5);
        let mut kinds = Kinds::default();
        let refusals: Vec<_> = (0..12)
            .map(|n| kinds.number(Kind::NotSent(n)).unwrap())
            .collect();
        assert_eq!(kinds.number(Kind::NotSent(12)), None);
        assert_eq!(kinds.number(Kind::NotSent(3)), Some(refusals[3]));
        assert_eq!(kinds.kind(refusals[11]), Some(Kind::NotSent(11)));
        for state in [
            State::Proven,
            State::Told,
            State::Half,
            State::Refused(refusals[11]),
        ] {
            states.set(2, state);
            states.set(3, State::Refused(refusals[0]));
            assert_eq!(states.of(2), state);
            assert_eq!([1, 4].map(|pair| states.of(pair)), [State::Open; 2]);
            states.set(3, State::Open);
            assert_eq!([2, 3].map(|pair| states.of(pair)), [state, State::Open]);
        }
        assert_eq!(states.octets().len(), 3);
    }
}
