//! The engine without I/O: it is told the time and what happened, and says what to do next.
//!
//! It may not know what anything means: good and bad are `verdict`'s words.

mod arrival;
mod command;
mod engine;
mod fleet;
mod flows;
mod mtu;
mod pacer;
mod passes;
mod probing;
mod queries;
mod sweep;

pub use arrival::add_recorded;
pub use arrival::matcher;
pub use command::Command;
pub use command::Event;
pub use engine::Engine;
pub use engine::Limits;
pub use engine::Task;
pub use fleet::Asking;
pub use fleet::FleetCounts;
pub use fleet::FleetLimits;
pub use fleet::FleetPoll;
pub use fleet::FleetProgress;
pub use fleet::FleetSend;
pub use fleet::FleetSweep;
pub use fleet::ResumeError;
