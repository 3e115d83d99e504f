//! A packet of a capture file as if a tap on the host had seen it.
//!
//! A file says less than a tap: a pcap of one Ethernet device does not tell which way its packets went. Then
//! the addresses do: what is for the host arrived, what is from it left.

use std::net::Ipv4Addr;

use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::Wall;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Station;
use crate::wire::Bound;
use crate::wire::Ipv4;
use crate::wire::LinkFrame;
use crate::wire::Octets;
use crate::wire::Recorded;

/// `ARPHRD_TUNNEL`, `ARPHRD_NONE`.
const ARPHRD_TUNNEL: u16 = 768;
const ARPHRD_NONE: u16 = 65534;

/// Where a capture file was made, by the user's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// The station that the user named.
    pub station: Station,
    /// The path whose host it is.
    pub path: Path,
    /// What stands for a device that the file does not name.
    pub device: String,
}

impl Recorder {
    /// The packet as a tap would have seen it, of the interface named `device`.
    pub fn capture(
        &self,
        packet: &Recorded<'_>,
        frame: &LinkFrame<'_>,
        device: Option<&str>,
    ) -> Capture {
        let said = packet.bound.or(frame.bound);
        let is_tunnel = self.station == Station::RealserverTunnel;
        let unknown = if is_tunnel {
            ARPHRD_TUNNEL
        } else {
            ARPHRD_NONE
        };
        let length = (packet.original_length as usize).saturating_sub(frame.header);
        Capture {
            time: Wall::from_nanos(packet.time.unwrap_or(0)),
            device: device.unwrap_or(&self.device).to_owned(),
            hardware: frame.hardware.unwrap_or(unknown),
            direction: match said {
                Some(Bound::In) => Direction::In,
                Some(Bound::Out) => Direction::Out,
                None => self.direction(frame),
            },
            protocol: frame.ether_type,
            link_source: frame.link_source,
            bytes: frame.network.to_vec(),
            original_length: u32::try_from(length).unwrap_or(u32::MAX),
        }
    }

    /// Which way a packet went, by its addresses.
    fn direction(&self, frame: &LinkFrame<'_>) -> Direction {
        let named = match self.station {
            Station::ClientIn
            | Station::DirectorIn
            | Station::RealserverIn
            | Station::RealserverTunnel
            | Station::RealserverArp => Direction::In,
            Station::ClientOut | Station::DirectorOut | Station::RealserverOut => Direction::Out,
        };
        // What comes out of a tunnel device has no other way.
        if self.station == Station::RealserverTunnel {
            return Direction::In;
        }
        let Some((source, destination)) = ends(frame) else {
            return named;
        };
        let path = &self.path;
        let own = match Host::of(self.station, 0) {
            Host::Client => Some(path.cip),
            Host::Director => path.dip,
            Host::Realserver(_) => Some(path.rip),
        };
        let shared = Some(path.vip).filter(|_| Host::of(self.station, 0) != Host::Client);
        for own in [own, shared].into_iter().flatten() {
            match (source == own, destination == own) {
                (false, true) => return Direction::In,
                (true, false) => return Direction::Out,
                _ => {}
            }
        }
        named
    }
}

/// Source and destination of an IPv4 header.
fn ends(frame: &LinkFrame<'_>) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header = Ipv4::quoted(Octets::new(frame.network)).ok()?;
    Some((header.source(), header.destination()))
}
