//! What it means: hop rules, findings, blame.
//!
//! It may not know bytes; `matching` has read them.

mod alone;
mod case;
mod cause;
mod code;
mod director;
mod duplicate;
mod expectation;
mod fleet;
mod foreign;
mod forwarded;
mod freed;
mod gateway;
mod ipvs;
mod judge;
mod judgement;
mod mtu;
mod network;
mod open;
mod partly;
mod protocol4;
mod quality;
mod realserver;
mod reason;
mod rewriting;
mod scene;
mod service;
mod spoofing;
mod steps;
mod transit;
mod tunnel;

pub use code::Code;
pub use fleet::PairJudgement;
pub use fleet::judge_pair;
pub use judge::judge;
pub use judgement::Finding;
pub use judgement::HopJudgement;
pub use judgement::HopVerdict;
pub use judgement::How;
pub use judgement::Judgement;
pub use judgement::Outcome;
pub use judgement::PathJudgement;
pub use judgement::Severity;
pub use spoofing::Router;
pub use spoofing::SpoofCell;
pub use spoofing::SpoofFlow;
pub use spoofing::SpoofJudgement;
pub use spoofing::SpoofOutcome;
pub use spoofing::SpoofRow;
pub use spoofing::judge_spoofing;
pub use steps::ExpectationJudgement;
pub use steps::StepJudgement;
pub use steps::StepOutcome;
pub use steps::judge_steps;
pub use steps::suite_outcome;
