//! Stand-in with the engine's signatures, until the engine is merged: take the engine's file.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::plan::Host;
use crate::plan::Plan;
use crate::run::Command;
use crate::run::Event;

/// How fast and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets a second that one host sends at most.
    pub rate: u32,
    /// When to give up, however much is unproven.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            rate: 100,
            timeout: Duration::from_secs(20),
        }
    }
}

/// What the engine does once its taps are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Prove the plan's paths.
    Prove,
    /// Send nothing; report another terminal's probes, for so long (or until interrupted).
    Listen(Option<Duration>),
}

/// How far it is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub phase: &'static str,
    /// Hops proven so far, over all paths.
    pub proven: usize,
    /// Hops in all.
    pub hops: usize,
    /// Packets sent.
    pub sent: usize,
    /// Since the start.
    pub elapsed: Duration,
}

/// Proves a plan's paths.
#[derive(Debug)]
pub struct Engine {
    evidence: Evidence,
}

impl Engine {
    /// An engine that carries out `task` for `plan`, starting at `now`.
    pub fn new(plan: Plan, _task: Task, _limits: Limits, _now: Mono) -> Engine {
        Engine {
            evidence: Evidence::new(plan),
        }
    }

    /// What is known so far.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What is known.
    pub fn into_evidence(self) -> Evidence {
        self.evidence
    }

    /// How far it is.
    pub fn progress(&self, _now: Mono) -> Progress {
        Progress {
            phase: "preparing",
            proven: 0,
            hops: 12,
            sent: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// A host said something.
    pub fn handle_event(&mut self, _host: Host, _event: Event, _now: Mono) {}

    /// A host is gone, or never came: the proof goes on without it.
    pub fn handle_lost(&mut self, _host: Host, _reason: String, _now: Mono) {}

    /// The time that [`Engine::poll_timeout`] named has come.
    pub fn handle_timeout(&mut self, _now: Mono) {}

    /// The user wants to stop: clean up and finish.
    pub fn handle_interrupt(&mut self, _now: Mono) {}

    /// The next command for a host.
    pub fn poll_command(&mut self, _now: Mono) -> Option<(Host, Command)> {
        None
    }

    /// When to call [`Engine::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Mono> {
        None
    }

    /// Whether every host has been told to finish.
    pub fn is_finished(&self) -> bool {
        true
    }
}
