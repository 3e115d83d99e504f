//! What controller and agent say to each other.

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::TapPath;
use crate::run::Command;
use crate::run::Event;

/// What a controller says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToAgent {
    /// The first message. Answer: [`FromAgent::Started`] or [`FromAgent::CannotStart`].
    Start {
        /// The controller's [`PROTOCOL`](crate::agent::PROTOCOL).
        protocol: u32,
        /// What the agent may send from and to, and hear.
        paths: Vec<TapPath>,
    },
    /// A command of the engine; carried out in order.
    Do(Command),
    /// Are you alive, and through with every command so far? Answer: [`FromAgent::Pong`].
    Ping,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromAgent {
    /// The sockets are open, the janitor stands by.
    Started {
        /// Packets a second that the agent sends at most; it slows down what comes faster.
        rate: u32,
        /// The file on its host that lays this down; `None` where there is none, and so the usual holds.
        policy: Option<String>,
    },
    /// The agent cannot work here; it ends.
    CannotStart {
        /// What was tried, such as `open a raw IPv4 socket`.
        operation: String,
        /// Why it failed.
        error: String,
    },
    /// For the engine.
    Said(Event),
    /// Yes.
    Pong,
}
