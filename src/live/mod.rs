//! Every system call: raw sockets, taps, netlink facts, namespaces, clocks.

pub mod clock;
pub mod controller;
pub mod facts;
mod filter;
pub mod fleet;
pub mod host;
pub mod janitor;
pub mod neighbour;
pub mod send;
mod sys;
pub mod tap;
#[cfg(test)]
mod testbed;
pub mod vantage;
