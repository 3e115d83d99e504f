//! What the user wrote: strict TOML in, values or diagnostics with line and column out.
//!
//! It may not know what will be done with it.

mod diagnostic;
mod path_file;
mod reader;

pub use diagnostic::Diagnostic;
pub use diagnostic::Diagnostics;
pub use diagnostic::nearest;
pub use path_file::PathFile;
pub use path_file::RealServer;
pub use path_file::ServiceProtocol;
pub use reader::address;
