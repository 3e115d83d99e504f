//! What the user wrote: strict TOML in, values or diagnostics with line and column out.
//!
//! Its words are the plan's: kinds of probes, stations, hops. It may not know how anything is done.

mod diagnostic;
mod environment;
mod path_file;
mod reader;
mod shape;
mod step;
mod suite_file;

pub use diagnostic::Diagnostic;
pub use diagnostic::Diagnostics;
pub use diagnostic::nearest;
pub use environment::Environment;
pub use environment::Override;
pub use path_file::PathFile;
pub use path_file::RealServer;
pub use reader::address;
pub use suite_file::SuiteFile;
