//! What will be done and what must be true: path, hosts, hops, stations, probes, itineraries.
//!
//! Nothing here knows what was seen; `evidence` does.

mod hop;
mod host;
mod identity;
mod itinerary;
mod packet;
mod path;
mod probe;
mod station;
mod step;
mod toward;

pub use hop::Hop;
pub use host::Host;
pub use identity::SessionKey;
pub use identity::SessionKeyError;
pub use itinerary::Form;
pub use itinerary::Quoting;
pub use itinerary::Waypoint;
pub use itinerary::itinerary;
pub use packet::Carrier;
pub use packet::Hardware;
pub use packet::Packet;
pub use path::Path;
pub use path::Plan;
pub use path::Protocol;
pub use probe::Flow;
pub use probe::Probe;
pub use probe::ProbeId;
pub use probe::ProbeKind;
pub use probe::Tunnel;
pub use station::Station;
pub use step::Action;
pub use step::After;
pub use step::Builtin;
pub use step::Condition;
pub use step::Expectation;
pub use step::Place;
pub use step::Question;
pub use step::Role;
pub use step::Script;
pub use step::See;
pub use step::Step;
pub use step::Subject;
pub use step::Suite;
pub use step::Task;
pub use step::Test;
pub use toward::Toward;
