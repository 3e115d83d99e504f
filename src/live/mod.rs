//! Every system call: raw sockets, taps, netlink facts, namespaces, clocks.

pub mod facts;
pub mod ipvs;
pub mod neighbour;

mod links;
mod netlink;
mod procfs;
mod routes;
#[cfg(test)]
mod testbed;

pub use netlink::NetlinkError;
