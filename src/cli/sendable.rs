//! Whether a packet that a suite writes out can be sent, before anything is.

use std::net::Ipv4Addr;

use crate::agent::Scope;
use crate::craft;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::plan::Packet;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::SessionKey;

/// What keeps a packet from being sent: no header can hold it, a raw socket sends something else, or an agent
/// refuses what it names, where only these addresses are declared; without any nothing is known of that.
pub(super) fn judge(packet: &Packet, addresses: &[Ipv4Addr]) -> Result<(), String> {
    let id = ProbeId {
        kind: ProbeKind::Script,
        index: 0,
    };
    // Which identity it carries makes no difference.
    let crafted = craft::script(packet, id, &SessionKey::new([7; 16]));
    let bytes = crafted.map_err(|error| error.to_string())?.bytes;
    if addresses.is_empty() {
        return Ok(());
    }
    let way = match packet.is_frame() {
        true => Way::Frame {
            device: String::new(),
        },
        false => Way::Stack,
    };
    let scope = Scope::new(addresses.iter().copied());
    let judged = scope.check(&Transmit { way, bytes });
    judged
        .map(drop)
        .map_err(|refused| format!("no agent sends it: {refused}"))
}
