//! What it means: hop rules, findings, blame.
//!
//! It may not know bytes; `matching` has read them.

mod case;
mod cause;
mod code;
mod director;
mod gateway;
mod ipvs;
mod judge;
mod judgement;
mod network;
mod realserver;
mod reason;
mod scene;
mod service;
mod transit;
mod tunnel;

pub use code::Code;
pub use judge::judge;
pub use judgement::Finding;
pub use judgement::HopJudgement;
pub use judgement::HopVerdict;
pub use judgement::How;
pub use judgement::Judgement;
pub use judgement::Outcome;
pub use judgement::PathJudgement;
pub use judgement::Severity;
