//! The path on one machine: topology, faults, stand-ins for ipip and IPVS.
//!
//! One process, the *keeper*, has a thread in each network namespace; that is all that holds the lab together, so
//! that it is gone with the keeper, however that ends. Everybody else enters a namespace through the keeper's
//! threads. What the kernel lacks is done by the keeper itself: `standin` takes packets out of the tunnel,
//! `director` schedules and encapsulates them.

mod catalogue;
mod director;
mod error;
mod fault;
mod keeper;
mod packet;
mod run;
mod service;
mod standin;
mod state;
mod topology;

pub use catalogue::FAULTS;
pub use error::LabError;
pub use fault::Fault;
pub use fault::Needs;
pub use keeper::keep;
pub use run::Lab;
pub use state::Directory;
pub use state::Maker;
pub use topology::Node;
pub use topology::path_file;
