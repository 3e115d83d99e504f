//! Sending: a raw IPv4 socket for what shall pass the host's own stack, AF_PACKET for what shall not.

use std::io;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;

use nix::sys::socket::ControlMessage;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::SockaddrIn;
use nix::sys::socket::sendmsg;
use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::live::clock;
use crate::live::sys;

/// Room for packets that wait for ARP, in octets.
const BUFFER: usize = 1 << 20;

/// The sockets that packets leave by; a process that is forked off has the same.
#[derive(Debug)]
pub struct Sender {
    raw: Socket,
    link: Socket,
}

/// Why the sockets cannot be opened: without `CAP_NET_RAW`, EPERM.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub struct SenderError {
    /// What was tried.
    pub operation: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl Sender {
    /// Opens the sockets in the calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// [`SenderError`].
    pub fn open() -> Result<Sender, SenderError> {
        let failed = |operation| move |source| SenderError { operation, source };
        // IPPROTO_RAW implies IP_HDRINCL, and such a socket receives nothing.
        let raw = Socket::new(
            Domain::IPV4,
            Type::RAW.nonblocking(),
            Some(Protocol::from(libc::IPPROTO_RAW)),
        )
        .map_err(failed("open a raw IPv4 socket"))?;
        raw.set_send_buffer_size(BUFFER)
            .map_err(failed("set SO_SNDBUF"))?;
        sys::send_fragments_as_they_are(&raw).map_err(failed("set IP_NODEFRAG"))?;
        // Protocol 0: it receives nothing, either.
        let link = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)
            .map_err(failed("open an AF_PACKET socket"))?;
        Ok(Sender { raw, link })
    }

    /// Hands one packet to the kernel.
    pub fn send(&self, transmit: &Transmit) -> SendOutcome {
        let result = match &transmit.way {
            Way::Stack => self.by_stack(&transmit.bytes),
            Way::Frame { device } => self.by_device(&transmit.bytes, device),
        };
        let time = clock::steady();
        match result {
            Ok(()) => SendOutcome::Sent { time },
            Err(error) => SendOutcome::Refused {
                time,
                errno: error.raw_os_error().unwrap_or(libc::EINVAL),
                error: error.to_string(),
            },
        }
    }

    fn by_stack(&self, packet: &[u8]) -> io::Result<()> {
        let (source, destination) = (address(packet, 12)?, address(packet, 16)?);
        // A raw socket's packet is routed as if it had no source, unless this names it: `ip rule … from VIP`
        // holds for the host's own answers, so it must hold for the probe.
        let origin = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr {
                s_addr: u32::from_ne_bytes(source.octets()),
            },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        sendmsg(
            self.raw.as_raw_fd(),
            &[IoSlice::new(packet)],
            &[ControlMessage::Ipv4PacketInfo(&origin)],
            MsgFlags::empty(),
            Some(&SockaddrIn::from(SocketAddrV4::new(destination, 0))),
        )?;
        Ok(())
    }

    fn by_device(&self, frame: &[u8], device: &str) -> io::Result<()> {
        let index = nix::net::if_::if_nametoindex(device)?;
        let ether_type = frame
            .get(12..14)
            .map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
        self.link
            .send_to(frame, &sys::link_address(index, ether_type))?;
        Ok(())
    }
}

fn address(packet: &[u8], offset: usize) -> io::Result<Ipv4Addr> {
    packet
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map(|octets| Ipv4Addr::from(*octets))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;
    use std::time::Duration;

    use super::*;
    use crate::craft;
    use crate::live::testbed;
    use crate::plan::Packet;
    use crate::plan::ProbeId;
    use crate::plan::ProbeKind;
    use crate::plan::SessionKey;
    use crate::wire::layers;
    use crate::wire::layers::Field;
    use crate::wire::layers::Layer;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

    fn from(source: Ipv4Addr, destination: Ipv4Addr, payload: usize) -> Transmit {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0];
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        bytes.extend(vec![0; payload]);
        Transmit {
            way: Way::Stack,
            bytes,
        }
    }

    /// The error number, 0 if the kernel took the packet.
    fn errno(sender: &Sender, transmit: &Transmit) -> i32 {
        match sender.send(transmit) {
            SendOutcome::Sent { .. } => 0,
            SendOutcome::Declined { .. } => unreachable!("an agent's word"),
            SendOutcome::Refused { errno, error, .. } => {
                assert!(!error.is_empty());
                errno
            }
        }
    }

    #[test]
    fn the_kernels_refusals_are_told_apart() {
        testbed::in_namespace(
            concat!(module_path!(), "::the_kernels_refusals_are_told_apart"),
            || {
                let sender = Sender::open().unwrap();
                assert_eq!(errno(&sender, &from(VIP, CIP, 8)), libc::ENETUNREACH);
                testbed::ip(
                    "link add near type veth peer name far\nlink set near up\nlink set far up\n\
                     addr add 203.0.113.5/24 dev near\nroute add default via 203.0.113.1 dev near\n",
                );
                assert_eq!(errno(&sender, &from(VIP, CIP, 8)), 0);
                assert_eq!(errno(&sender, &from(VIP, CIP, 1490)), libc::EMSGSIZE);
                assert_eq!(errno(&sender, &from(VIP, CIP, 0)), 0);
                // To an address of this host, from one that is not: what a director sends through its IPVS.
                assert_eq!(errno(&sender, &from(CIP, RIP, 8)), 0);
                let short = Transmit {
                    way: Way::Stack,
                    bytes: vec![0x45; 12],
                };
                assert_eq!(errno(&sender, &short), libc::EINVAL);
                let nowhere = Transmit {
                    way: Way::Frame {
                        device: "nonesuch".to_owned(),
                    },
                    bytes: vec![0; 60],
                };
                assert_eq!(errno(&sender, &nowhere), libc::ENODEV);
                // Rules for the VIP hold for what is sent from the VIP, and for nothing else.
                testbed::ip("rule add from 192.0.2.10 prohibit\n");
                assert_eq!(errno(&sender, &from(VIP, CIP, 8)), libc::EACCES);
                assert_eq!(errno(&sender, &from(RIP, CIP, 8)), 0);
                let rules = "add table ip t; add chain ip t o { type filter hook output priority 0; }; \
                             add rule ip t o ip daddr 198.51.100.7 drop";
                assert!(Command::new("nft").arg(rules).status().unwrap().success());
                assert_eq!(errno(&sender, &from(RIP, CIP, 8)), libc::EPERM);
            },
        );
    }

    /// What leaves by `near` toward `far`'s hardware address, within the time that a veth takes.
    fn seen(tap: &Socket, toward: [u8; 6]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        while let Ok(length) = (&mut &*tap).read(&mut buffer) {
            if buffer[..6] == toward {
                frames.push(buffer[14..length].to_vec());
            }
        }
        frames
    }

    #[test]
    fn odd_packets_leave_as_they_are() {
        testbed::in_namespace(
            concat!(module_path!(), "::odd_packets_leave_as_they_are"),
            || {
                testbed::ip(
                    "link add near type veth peer name far\nlink set near up\nlink set far up\n\
                     addr add 203.0.113.5/24 dev near\n\
                     neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev near\n",
                );
                testbed::wait_until_passing(["near", "far"]);
                // Connection tracking, which would keep a fragment until the others come.
                let rules = "add table ip t; add chain ip t o { type filter hook output priority 0; }; \
                             add rule ip t o ct state invalid counter";
                assert!(Command::new("nft").arg(rules).status().unwrap().success());
                let tap = Socket::new(Domain::PACKET, Type::RAW, None).unwrap();
                let index = nix::net::if_::if_nametoindex("far").unwrap();
                tap.bind(&sys::link_address(index, 0x0800)).unwrap();
                tap.set_read_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                let header = |change: fn(&mut layers::Ipv4)| {
                    let mut header = layers::Ipv4 {
                        identification: 7,
                        ..layers::Ipv4::new(VIP, Ipv4Addr::new(203, 0, 113, 9))
                    };
                    change(&mut header);
                    Layer::Ipv4(header)
                };
                let udp = [
                    Layer::Udp(layers::Udp::new(1000, 2000)),
                    Layer::Raw(vec![1; 24]),
                ];
                let rest = [Layer::Raw(vec![2; 24])];
                let odd: [(Layer, &[Layer]); 7] = [
                    (header(|ip| ip.more_fragments = true), &udp),
                    (header(|ip| ip.fragment_offset = 9), &rest),
                    (header(|ip| ip.time_to_live = 0), &udp),
                    (header(|ip| ip.version = Field::Forced(5)), &udp),
                    (header(|ip| ip.options = vec![7, 7, 4, 0, 0, 0, 0]), &udp),
                    (header(|ip| ip.type_of_service = 0xff), &udp),
                    (header(|ip| ip.protocol = Field::Forced(253)), &rest),
                ];
                let sender = Sender::open().unwrap();
                let id = ProbeId {
                    kind: ProbeKind::Script,
                    index: 0,
                };
                for (header, behind) in odd {
                    let layers = [&[header], behind].concat();
                    let packet = Packet {
                        layers,
                        carriers: Vec::new(),
                        hardware: Vec::new(),
                    };
                    let key = SessionKey::new([1; 16]);
                    let bytes = craft::script(&packet, id, &key).unwrap().bytes;
                    let transmit = Transmit {
                        way: Way::Stack,
                        bytes: bytes.clone(),
                    };
                    assert_eq!(errno(&sender, &transmit), 0, "{packet:?}");
                    let left = seen(&tap, [2, 0, 0, 0, 0, 9]);
                    assert_eq!(left, [bytes], "{packet:?}");
                }
            },
        );
    }
}
