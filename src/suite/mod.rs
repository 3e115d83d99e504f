//! What the user wrote: strict TOML in, values or diagnostics with line and column out.
//!
//! Its words are the plan's: kinds of probes, stations, hops. It may not know how anything is done.

mod diagnostic;
mod path_file;
mod reader;

pub use diagnostic::Diagnostic;
pub use diagnostic::Diagnostics;
pub use diagnostic::nearest;
pub use path_file::PathFile;
pub use path_file::RealServer;
pub use reader::address;
