//! Every system call: raw sockets, taps, netlink facts, namespaces, clocks.

pub mod burst;
pub mod clock;
pub mod controller;
pub mod facts;
pub mod fleet;
pub mod frames;
pub mod host;
pub mod http;
pub mod ipvs;
pub mod janitor;
pub mod log;
pub mod neighbour;
pub mod netns;
pub mod network;
pub mod privileges;
pub mod ring;
pub mod send;
pub mod starter;
pub mod stderr;
pub mod successor;
pub mod tap;
pub mod terminal;
pub mod vantage;

mod calls;
mod drops;
mod filter;
mod firewall;
mod gate;
mod links;
mod listeners;
mod netlink;
mod next_hop;
mod procfs;
mod push;
mod routes;
mod streams;
mod sys;
#[cfg(test)]
mod testbed;
mod tracepoint;
mod via;

pub use netlink::NetlinkError;
pub use push::PushError;
