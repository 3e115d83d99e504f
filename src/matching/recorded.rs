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
        // A cooked capture is of many devices and tells them apart; one of a single device is what the user
        // says it is.
        let is_tunnel = self.station == Station::RealserverTunnel && frame.bound.is_none();
        let length = (packet.original_length as usize).saturating_sub(frame.header);
        Capture {
            time: Wall::from_nanos(packet.time.unwrap_or(0)),
            device: device.unwrap_or(&self.device).to_owned(),
            hardware: match is_tunnel {
                true => ARPHRD_TUNNEL,
                false => frame.hardware.unwrap_or(ARPHRD_NONE),
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::craft;
    use crate::matching::station;
    use crate::plan::Protocol;
    use crate::wire::LinkType;
    use crate::wire::RecordedInterface;
    use crate::wire::layers;
    use crate::wire::layers::Layer;
    use crate::wire::link_frame;

    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    const RAW: (LinkType, &[u8]) = (LinkType::RAW, &[]);

    /// The station at which a packet counts that is in a capture for `named`.
    fn placed(
        named: Station,
        bound: Option<Bound>,
        ends: (Ipv4Addr, Ipv4Addr),
        link: (LinkType, &[u8]),
    ) -> Option<Station> {
        let recorder = Recorder {
            station: named,
            path: Path {
                realserver: "rs1".to_owned(),
                vip: VIP,
                port: 80,
                protocol: Protocol::Tcp,
                rip: RIP,
                dip: Some(DIP),
                cip: CIP,
                gateway: None,
                tunnel: None,
            },
            device: "c.pcap".to_owned(),
        };
        let header = Layer::Ipv4(layers::Ipv4::new(ends.0, ends.1));
        let network = craft::build(&[header]).unwrap().bytes;
        let bytes = [link.1, &network].concat();
        let interface = RecordedInterface {
            link_type: link.0,
            snap_length: 0,
            name: None,
            filter: None,
        };
        let packet = Recorded {
            number: 1,
            offset: 24,
            interface: &interface,
            time: Some(1),
            bound,
            bytes: &bytes,
            original_length: bytes.len() as u32,
        };
        let frame = link_frame(link.0, &bytes).unwrap();
        let capture = recorder.capture(&packet, &frame, None);
        assert_eq!(
            (capture.device.as_str(), &capture.bytes),
            ("c.pcap", &network)
        );
        station(Host::of(named, 0), &capture, &recorder.path, None)
    }

    #[test]
    fn without_a_direction_the_addresses_tell_the_station() {
        for (named, from, to, expected) in [
            (Station::ClientIn, VIP, CIP, Station::ClientIn),
            (Station::ClientIn, CIP, VIP, Station::ClientOut),
            (Station::ClientOut, RIP, CIP, Station::ClientIn),
            // The client behind address translation: the user's word.
            (Station::ClientIn, VIP, ROUTER, Station::ClientIn),
            (Station::ClientOut, ROUTER, VIP, Station::ClientOut),
            (Station::DirectorIn, CIP, VIP, Station::DirectorIn),
            (Station::DirectorIn, DIP, RIP, Station::DirectorOut),
            (Station::DirectorIn, VIP, DIP, Station::DirectorIn),
            (Station::DirectorIn, VIP, CIP, Station::DirectorOut),
            (Station::DirectorOut, ROUTER, DIP, Station::DirectorIn),
            (Station::RealserverIn, DIP, RIP, Station::RealserverIn),
            (Station::RealserverIn, VIP, CIP, Station::RealserverOut),
            (Station::RealserverIn, RIP, CIP, Station::RealserverOut),
            (
                Station::RealserverTunnel,
                CIP,
                VIP,
                Station::RealserverTunnel,
            ),
        ] {
            let seen = placed(named, None, (from, to), RAW);
            assert_eq!(seen, Some(expected), "{named} {from} {to}");
        }
    }

    #[test]
    fn what_the_file_says_of_the_direction_goes_first() {
        let ends = (CIP, VIP);
        let station = Station::RealserverOut;
        assert_eq!(placed(station, Some(Bound::Out), ends, RAW), Some(station));
        let arrived = placed(station, Some(Bound::In), ends, RAW);
        assert_eq!(arrived, Some(Station::RealserverIn));
    }

    #[test]
    fn a_capture_of_the_tunnel_device_is_one_whatever_its_link_type() {
        let ends = (CIP, VIP);
        let tunnel = Station::RealserverTunnel;
        let cooked = |hardware: [u8; 2]| {
            let hardware = [&[0, 0][..], &hardware].concat();
            [&hardware, &[0; 10][..], &[8, 0]].concat()
        };
        let ethernet = [&[2; 12][..], &[8, 0]].concat();
        let placed = |link| placed(tunnel, None, ends, link);
        assert_eq!(placed((LinkType::ETHERNET, &ethernet)), Some(tunnel));
        // `-i any`: by the device's hardware type, `ipip` and Ethernet.
        let (ipip, other) = (cooked([3, 0]), cooked([0, 1]));
        assert_eq!(placed((LinkType::LINUX_SLL, &ipip)), Some(tunnel));
        let elsewhere = placed((LinkType::LINUX_SLL, &other));
        assert_eq!(elsewhere, Some(Station::RealserverIn));
    }
}
