//! At which station was it seen?

use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::HostFacts;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Station;

/// `ARPHRD_TUNNEL`, the hardware type of `ipip` devices (`include/uapi/linux/if_arp.h`).
const ARPHRD_TUNNEL: u16 = 768;
/// `ARPHRD_LOOPBACK`.
const ARPHRD_LOOPBACK: u16 = 772;

/// The station of `host` at which `capture` was taken; `None` for what a host says to itself.
///
/// Devices are told apart by what they are, not by routes: a packet that takes an unexpected device is
/// still seen.
pub fn station(
    host: Host,
    capture: &Capture,
    path: &Path,
    facts: Option<&HostFacts>,
) -> Option<Station> {
    if capture.hardware == ARPHRD_LOOPBACK {
        return None;
    }
    let arrived = capture.direction == Direction::In;
    match host {
        Host::Client if arrived => Some(Station::ClientIn),
        Host::Client => Some(Station::ClientOut),
        Host::Director if arrived => Some(Station::DirectorIn),
        Host::Director => Some(Station::DirectorOut),
        Host::Realserver(_) if is_tunnel(capture, path, facts) => {
            arrived.then_some(Station::RealserverTunnel)
        }
        Host::Realserver(_) if arrived => Some(Station::RealserverIn),
        Host::Realserver(_) => Some(Station::RealserverOut),
    }
}

fn is_tunnel(capture: &Capture, path: &Path, facts: Option<&HostFacts>) -> bool {
    let kind = facts
        .and_then(|facts| facts.links.iter().find(|link| link.name == capture.device))
        .and_then(|link| link.kind.as_deref());
    capture.hardware == ARPHRD_TUNNEL || path.is_tunnel(&capture.device, kind)
}
