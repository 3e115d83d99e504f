//! What the engine asks of a host, and what a host tells the engine.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Capture;
use crate::exchange::ConnectOutcome;
use crate::exchange::Dropped;
use crate::exchange::FactQuery;
use crate::exchange::Firewall;
use crate::exchange::FirewallQuery;
use crate::exchange::Freed;
use crate::exchange::HostFacts;
use crate::exchange::Neighbour;
use crate::exchange::SendOutcome;
use crate::exchange::TapSpec;
use crate::exchange::TapStatistics;
use crate::exchange::Transmit;
use crate::exchange::Unread;

/// What the engine asks of a host. A host carries commands out in order and answers each with one event,
/// except `Settle` and `Finish`, which are answered by `Settled` and by the end of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Read facts. Answer: [`Event::Facts`].
    Facts(FactQuery),
    /// Read what of the host's firewall could stop these packets. Answer: [`Event::Firewall`], later.
    Firewall(FirewallQuery),
    /// Have the kernel tell of the paths' packets that it gives up, until the end. Answer:
    /// [`Event::DropsWatched`]; then [`Event::Dropped`] for each, or [`Event::Freed`] where the kernel
    /// does not show them.
    WatchDrops(TapSpec),
    /// Open the host's tap (one a host). Answer: [`Event::TapOpen`] or [`Event::Failed`]; then
    /// [`Event::Captured`] for each packet.
    OpenTap(TapSpec),
    /// Send a packet. Answer: [`Event::Sent`].
    Send {
        /// Returned in the answer.
        token: u32,
        /// The packet.
        transmit: Transmit,
        /// What closes again what the packet opens: sent by `Settle`, by `Finish`, or, should this host's
        /// agent or the controller die, by the agent's janitor.
        cleanup: Option<Transmit>,
    },
    /// Send the cleanup of an earlier `Send` now, and once more at the end. Answer: [`Event::Settled`].
    Settle {
        /// The `Send`'s token.
        token: u32,
    },
    /// Open a real TCP connection and close it at once. Answer: [`Event::Connected`], later.
    Connect {
        /// Returned in the answer.
        token: u32,
        /// To where.
        to: (Ipv4Addr, u16),
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
    },
    /// Delete a neighbour entry, unless a person made it (PERMANENT, NOARP). It is put back when the
    /// conversation ends or the agent dies, unless the kernel has resolved it anew by then. Answer:
    /// [`Event::NeighbourForgotten`].
    ForgetNeighbour {
        /// The neighbour.
        address: Ipv4Addr,
        /// Its device.
        device: String,
    },
    /// How well did the tap see? Answer: [`Event::Statistics`].
    TapStatistics,
    /// Settle everything that is not settled, restore everything, and end.
    Finish,
}

/// What a host tells the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Facts.
    Facts(Box<HostFacts>),
    /// What could stop the packets asked about.
    Firewall(Box<Firewall>),
    /// The kernel tells of drops from now on, or why it does not.
    DropsWatched(Option<Unread>),
    /// The kernel gave a packet up.
    Dropped(Dropped),
    /// The kernel gave packets up that it does not show.
    Freed(Freed),
    /// The tap sees from now on.
    TapOpen,
    /// A packet.
    Captured(Capture),
    /// What became of a `Send`.
    Sent {
        /// The `Send`'s token.
        token: u32,
        /// What the kernel said.
        outcome: SendOutcome,
    },
    /// The cleanup of a `Send` was sent, or there was none.
    Settled {
        /// The `Send`'s token.
        token: u32,
    },
    /// What became of a `Connect`.
    Connected {
        /// The `Connect`'s token.
        token: u32,
        /// The outcome.
        outcome: ConnectOutcome,
    },
    /// What became of a `ForgetNeighbour`.
    NeighbourForgotten {
        /// The neighbour.
        address: Ipv4Addr,
        /// The entry that was deleted; `None` if there was none, or a person made it.
        old: Option<Neighbour>,
    },
    /// How well the tap saw, up to now.
    Statistics(TapStatistics),
    /// A command could not be carried out.
    Failed {
        /// What was tried, such as `open AF_PACKET socket`.
        operation: String,
        /// Why it failed.
        error: String,
    },
}
