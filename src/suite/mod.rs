//! What the user wrote: strict TOML in, values or diagnostics with line and column out.
//!
//! It may not know what will be done with it.

mod path_file;

pub use path_file::PathFile;
pub use path_file::RealServer;
pub use path_file::ServiceProtocol;
