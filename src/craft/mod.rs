//! Plan to bytes: every field derived or forced, forced ones listed.
//!
//! [`build()`] turns layers, outermost first, into the octets on the wire; [`probe()`] and [`cleanup`] are the
//! layers of tunproof's own probes, [`script()`] those that a suite writes out;
//! [`FleetCraft`] patches those of a sweep.

mod build;
mod fleet;
mod probe;
mod script;

pub use build::CraftError;
pub use build::Crafted;
pub use build::Forced;
pub use build::build;
pub use fleet::FleetCraft;
pub use fleet::FleetPacket;
pub use probe::arp_request;
pub use probe::cleanup;
pub use probe::probe;
pub use script::script;
