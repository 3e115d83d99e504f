//! Is it ours, and which? Plain, tunnelled, decapsulated, quoted, answered.
//!
//! [`recognise`] answers from the packet and the session's key alone; [`alterations`] compares what was
//! seen with what was sent.

mod sighting;

pub use sighting::Alteration;
pub use sighting::Certainty;
pub use sighting::Outer;
pub use sighting::Sighting;
