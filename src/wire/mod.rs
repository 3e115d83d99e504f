//! What bytes mean: one header a file, checked views, the quote reader, dissection.
//!
//! The contract of all of it: nothing here panics, whatever the bytes are. A header can be read in three
//! ways.
//!
//! - *Checked* (`checked`): everything the header claims is there; what lies beyond its length is not its
//!   own. For packets that came whole.
//! - *Quoted* (`quoted`): the first octets are there, the lengths may promise more. For what an ICMP error
//!   quotes, and for captures that were cut off.
//! - *Dissected* ([`dissect()`]): never fails; the layers so far, and why it stopped.
//!
//! A reader takes [`Octets`], which know where they lie and who set their end, so that a [`WireError`] can
//! say what was needed, what was available, who set the limit, in which header and at which offset.

mod arp;
mod checksum;
mod closes;
mod dissect;
mod ethernet;
mod fields;
mod hexdump;
mod icmpv4;
mod ipv4;
pub mod layers;
mod link;
mod named;
mod octets;
mod pcapng;
mod quote;
mod savefile;
mod tcp;
mod udp;

pub use arp::Arp;
pub use checksum::Checksum;
pub use checksum::is_left_to_the_device;
pub use checksum::transport_checksum;
pub use closes::closes;
pub use dissect::DissectedField;
pub use dissect::DissectedHeader;
pub use dissect::Dissection;
pub use dissect::dissect;
pub use dissect::dissect_frame;
pub use ethernet::EtherType;
pub use ethernet::Ethernet;
pub use ethernet::Mac;
pub use fields::Fields;
pub use hexdump::hexdump;
pub use icmpv4::Icmpv4;
pub use ipv4::IpProtocol;
pub use ipv4::Ipv4;
pub use link::LinkError;
pub use link::LinkFrame;
pub use link::LinkType;
pub use link::link_frame;
pub use named::Hidden;
pub use named::Named;
pub use named::named;
pub use octets::Header;
pub use octets::Limit;
pub use octets::Octets;
pub use octets::WireError;
pub use quote::InnerStart;
pub use quote::Quote;
pub use quote::Quoted;
pub use savefile::Bound;
pub use savefile::Part;
pub use savefile::Recorded;
pub use savefile::RecordedInterface;
pub use savefile::Savefile;
pub use savefile::SavefileError;
pub use savefile::SavefileFormat;
pub use tcp::Tcp;
pub use tcp::TcpFlags;
pub use tcp::TcpStart;
pub use udp::Udp;
pub use udp::UdpStart;
