//! Several hosts: versioned messages, framing, session.
//!
//! An agent writes one [`Hello`] line, then both sides speak messages, each a 32-bit length and JSON. The
//! controller's first message is [`ToAgent::Start`]. The conversation ends with `Command::Finish` or with
//! the pipe, and the agent with it.

mod codec;
mod hello;
mod ledger;
mod message;
mod scope;

pub use codec::CodecError;
pub use codec::MAX_FRAME_LENGTH;
pub use codec::MessageCodec;
pub use hello::Hello;
pub use hello::HelloError;
pub use hello::PROTOCOL;
pub use ledger::Ledger;
pub use message::FromAgent;
pub use message::ToAgent;
pub use scope::OutOfScope;
pub use scope::Scope;
