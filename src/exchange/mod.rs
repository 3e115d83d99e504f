//! The only nouns that cross to the kernel, and to other hosts: time, transmit, tap, capture, fact.
//!
//! Every type here is a value that can be sent to an agent and kept with the evidence.

mod capture;
mod dropped;
mod fact;
mod firewall;
mod hexadecimal;
mod tap;
mod time;
mod transmit;

pub use capture::Capture;
pub use capture::Direction;
pub use dropped::Dropped;
pub use dropped::Freed;
pub use dropped::FreedOne;
pub use fact::*;
pub use firewall::*;
pub use tap::TapPath;
pub use tap::TapSpec;
pub use tap::TapStatistics;
pub use time::Mono;
pub use time::Timing;
pub use time::Wall;
pub use transmit::ConnectOutcome;
pub use transmit::SendOutcome;
pub use transmit::Transmit;
pub use transmit::Way;
