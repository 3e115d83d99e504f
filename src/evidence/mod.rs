//! What is known: append-only, ordered, serialisable, so that it can be judged again.
//!
//! It may not know what is good or bad; `verdict` does.

mod answer;
mod course;
mod elsewhere;
mod expected;
mod fleet;
mod flows;
mod item;
mod ledger;
mod neighbour;
mod passage;
mod reply;
mod rewriting;
mod saved;
mod silence;
mod size;
mod spoofing;
mod withheld;

pub use answer::Answer;
pub use course::Course;
pub use elsewhere::Elsewhere;
pub use elsewhere::elsewhere;
pub use expected::Standing;
pub use expected::Tally;
pub use fleet::FleetHeard;
pub use fleet::Swept;
pub use flows::FlowTally;
pub use flows::SplitFlows;
pub use item::EvidenceId;
pub use item::Item;
pub use item::SilenceSpan;
pub use item::What;
pub use ledger::Evidence;
pub use ledger::HostRecord;
pub use passage::Passage;
pub use passage::Proof;
pub use rewriting::Rewriting;
pub use saved::LoadError;
pub use saved::Loaded;
pub use saved::Purpose;
pub use saved::ROUNDS;
pub use saved::SCHEMA;
pub use saved::load;
pub use saved::save;
pub use silence::Silence;
pub use size::SizedProbe;
pub use size::Sizes;
pub use spoofing::Arrivals;
pub use spoofing::Count;
pub use spoofing::Fate;
pub use spoofing::Reply;
pub use spoofing::SURE;
pub use spoofing::Trial;
pub use spoofing::chance_of_loss;
pub use withheld::Withheld;
