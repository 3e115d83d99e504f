//! Is it ours, and which? Plain, tunnelled, decapsulated, quoted, answered.
//!
//! [`Matcher::recognise`] answers from the packet and the session's key alone: first where in the packet a
//! probe could be, then whose it is, then what it says. [`Matcher::alterations`] compares what was seen
//! with what was sent. Packets that a suite wrote out may carry no identity at all: those the matcher has to
//! be told of ([`Matcher::add_script`]). A sweep's probes have an identity of their own ([`FleetMatcher`]).

mod anatomy;
mod arp;
mod difference;
mod fleet;
mod identify;
mod matcher;
mod presumed;
mod recorded;
mod reply;
mod scripted;
mod sighting;
mod station;

pub use arp::Arp;
pub use fleet::About;
pub use fleet::FleetAnswer;
pub use fleet::FleetError;
pub use fleet::FleetMatcher;
pub use fleet::FleetSighting;
pub use fleet::Whom;
pub use matcher::Matcher;
pub use recorded::Recorder;
pub use reply::reply;
pub use reply::talk;
pub use sighting::Alteration;
pub use sighting::Certainty;
pub use sighting::Outer;
pub use sighting::Sighting;
pub use station::station;
