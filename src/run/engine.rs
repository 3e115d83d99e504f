//! The engine: every decision about what to do next, and when.

use std::time::Duration;

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

/// Proves a plan's paths. The caller feeds it events and asks, in this order and until each says `None`:
/// [`Engine::poll_command`], then [`Engine::poll_timeout`]; at that time it calls
/// [`Engine::handle_timeout`]. It is over when [`Engine::is_finished`].
#[derive(Debug)]
pub struct Engine {
    _plan: Plan,
}

impl Engine {
    /// An engine for `plan`, starting at `now`.
    pub fn new(plan: Plan, _limits: Limits, _now: Mono) -> Engine {
        Engine { _plan: plan }
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
