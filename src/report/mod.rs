//! Say it: one model, one file a format.
//!
//! It may not know how things became known, nor decide what they mean.

mod escape;
#[cfg(test)]
mod fixture;
mod model;
mod pcapng;
mod text;
mod wording;

pub use model::*;
pub use pcapng::pcapng;
pub use text::text;
pub use wording::Kind;
