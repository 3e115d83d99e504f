//! Say it: one model, one file a format.
//!
//! It may not know how things became known, nor decide what they mean.

mod continuous;
mod dry_run;
mod escape;
mod explain;
#[cfg(test)]
mod fixture;
mod fleet;
mod html;
mod matches;
mod metrics;
mod model;
mod pcapng;
mod picture;
mod played;
mod spoofcheck;
mod style;
mod sweep;
mod text;
mod watch;
mod wording;

pub use continuous::junit;
pub use continuous::run_junit;
pub use continuous::run_tap;
pub use continuous::spoof_junit;
pub use continuous::spoof_tap;
pub use continuous::tap;
pub use dry_run::ForcedField;
pub use dry_run::Planned;
pub use dry_run::dry_run;
pub(crate) use escape::escape;
pub use explain::contents;
pub use explain::page;
pub use fleet::FLEET_CSV_HEAD;
pub use fleet::FleetCsv;
pub use fleet::FleetEnd;
pub use fleet::FleetSummary;
pub use fleet::Realservers;
pub use fleet::fleet_json;
pub use html::html;
pub use html::run_html;
pub use html::spoof_html;
pub use matches::Match;
pub use matches::Matches;
pub use metrics::METRICS_TYPE;
pub use metrics::Metrics;
pub use model::*;
pub use pcapng::pcapng;
pub use picture::Picture;
pub use played::*;
pub use spoofcheck::SpoofReport;
pub use text::WIDTH;
pub use text::run_text;
pub use text::text;
pub use watch::Change;
pub use watch::Watch;
pub use wording::Kind;
pub use wording::arrival;
