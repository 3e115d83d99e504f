//! What the user wrote: strict TOML in, values or diagnostics with line and column out.
//!
//! Its words are the plan's: kinds of probes, stations, hops. It may not know how anything is done.

mod ask;
mod builtin;
mod condition;
mod diagnostic;
mod embedded;
mod environment;
mod expectation;
mod fields;
mod fleet_file;
mod layer;
mod numbers;
mod options;
mod path_file;
mod policy_file;
mod reader;
mod schema;
mod script;
mod shape;
mod source;
mod step;
mod suite_file;
mod values;

pub use diagnostic::Diagnostic;
pub use diagnostic::Diagnostics;
pub use diagnostic::nearest;
pub use embedded::Embedded;
pub use environment::Environment;
pub use environment::Judge;
pub use environment::Override;
pub use fleet_file::FleetFile;
pub use fleet_file::is_fleet_file;
pub use path_file::PathFile;
pub use path_file::RealServer;
pub use path_file::is_path_file;
pub use policy_file::is_policy;
pub use policy_file::policy;
pub use schema::fleet_schema;
pub use schema::path_schema;
pub use schema::suite_schema;
pub use suite_file::SuiteFile;
pub use values::address;
