//! What a sweep knows of a pair when it has asked it for the last time.

use std::time::Duration;

use crate::matching::FleetAnswer;
use crate::plan::FleetProbe;
use crate::plan::Pair;

/// A pair, and what came of its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The pair.
    pub pair: Pair,
    /// What came.
    pub heard: FleetHeard,
    /// What the closed loop came to that was asked before, if it left the pair undecided.
    pub closed_loop: Option<NoAnswer>,
    /// How often the last probe was sent, at most.
    pub tries: u8,
    /// From the hand-over of the probe's batch to the kernel to the arrival of its answer; `None` if the answer may
    /// be to one of several tries, or came when the time of the probe was forgotten.
    pub round_trip: Option<Duration>,
}

/// That nothing came, and what that is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// At least two tries were listened for without loss.
    Silent,
    /// Answers may have been lost here.
    Unheard,
}

/// What came of a pair's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetHeard {
    /// This answer to this probe.
    Answered(FleetProbe, FleetAnswer),
    /// This error of the host itself: a packet never left, and those that did were not answered.
    NotSent(i32),
    /// Nothing, and the silence counts: at least two tries were listened for without loss.
    Silence,
    /// Nothing, but answers may have been lost here.
    Unheard,
}
