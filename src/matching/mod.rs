//! Is it ours, and which? Plain, tunnelled, decapsulated, quoted, answered.
//!
//! [`Matcher::recognise`] answers from the packet and the session's key alone: first where in the packet a
//! probe could be, then whose it is, then what it says. [`Matcher::alterations`] compares what was seen
//! with what was sent.

mod anatomy;
mod identify;
mod matcher;
mod sighting;

pub use matcher::Matcher;
pub use sighting::Alteration;
pub use sighting::Certainty;
pub use sighting::Outer;
pub use sighting::Sighting;
