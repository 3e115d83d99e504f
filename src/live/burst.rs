//! Sending many packets a second: in frames to a gateway, 64 in a system call, where the next hop is one for many real
//! servers; else through the host's own stack.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use socket2::Domain;
use socket2::Protocol;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

use crate::exchange::Link;
use crate::exchange::Mono;
use crate::live::clock;
use crate::live::links;
use crate::live::neighbour;
use crate::live::netlink::Netlink;
use crate::live::netlink::NetlinkError;
use crate::live::next_hop;
use crate::live::next_hop::NextHop;
use crate::live::next_hop::Pieces;
use crate::live::sys;
use crate::live::sys::XdpSender;
use crate::plan::Fleet;
use crate::plan::Range;

/// Room for packets that wait for ARP, in octets.
const BUFFER: usize = 16 << 20;

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];

/// How often a gateway's hardware address is looked up anew, and one packet goes through the host's stack, which
/// keeps the kernel's entry fresh.
const FRESH: Duration = Duration::from_secs(1);
/// How long a gateway may take to answer ARP before its real servers are left to the host's stack.
const ANSWER: Duration = Duration::from_millis(500);
/// How long a full queue is waited for; and for room in the host's stack, where it may be the neighbour table that has
/// none for a while.
const FULL: Duration = Duration::from_millis(200);
const SHORT_OF_ROOM: Duration = Duration::from_millis(1);

/// Where a fleet's packets leave.
pub struct Burst {
    stack: Socket,
    /// Which gateway a real server has, by its number; in rising order.
    pieces: Numbered,
    gateways: Vec<Gateway>,
    /// Real servers of which the kernel asked for a hardware address when it was looked last.
    asked: BTreeSet<Ipv4Addr>,
    /// What is sent by each gateway, and last what is left to the stack: numbers of packets.
    sorted: Vec<Vec<usize>>,
    /// Where packets are crafted.
    frames: Vec<Frame>,
}

/// Pieces of a fleet, each with its gateway's number.
type Numbered = Vec<(Range, usize)>;

struct Gateway {
    hop: NextHop,
    device: Device,
    /// What its frames begin with, if it answers ARP.
    header: Option<[u8; ETHERNET]>,
    checked: Option<Mono>,
    /// Whether it does not answer ARP.
    is_mute: bool,
}

struct Device {
    way: Way,
    mac: [u8; 6],
}

/// How frames are handed to a device.
enum Way {
    Packet(Socket),
    Xdp(XdpSender),
}

impl Way {
    fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        match self {
            Way::Packet(socket) => sys::send_many(socket, frames, None),
            Way::Xdp(sender) => sender.send(frames),
        }
    }
}

/// A packet, and room for an Ethernet header before it.
#[derive(Clone, Copy)]
struct Frame {
    octets: [u8; ETHERNET + Burst::LONGEST],
    length: usize,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum BurstError {
    /// A socket could not be set up: mostly EPERM, without `CAP_NET_RAW`.
    #[error("cannot {operation}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The director's address is not this host's.
    #[error("this host does not have the director's address {0}")]
    NotDirector(Ipv4Addr),
    /// A device does not take frames by AF_XDP: mostly EPERM, without `CAP_NET_RAW`, or a kernel without it.
    #[error("cannot open an AF_XDP socket on `{device}`")]
    Xdp {
        /// The device.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No real server has a gateway, to which frames could be sent.
    #[error("no real server has a gateway on an Ethernet device, and AF_XDP sends nothing else")]
    NothingByXdp,
    /// A real server's address is this host's: what answered would be this host.
    #[error("the real server {0} is an address of this host itself")]
    OwnAddress(Ipv4Addr),
    /// The kernel could not be asked for routes.
    #[error("cannot ask for routes")]
    Routes(#[from] NetlinkError),
}

impl Burst {
    /// No packet is longer.
    pub const LONGEST: usize = 64;

    /// The error of a packet to whom does not answer ARP: EHOSTUNREACH, as the kernel has it.
    pub const MUTE: i32 = libc::EHOSTUNREACH;

    /// Opens what it takes in the calling thread's network namespace; frames are sent by AF_XDP, if that is wanted, else
    /// by AF_PACKET.
    ///
    /// # Errors
    ///
    /// [`BurstError`].
    pub fn open(fleet: &Fleet, by_xdp: bool) -> Result<Burst, BurstError> {
        let failed = |operation| move |source| BurstError::Socket { operation, source };
        // IPPROTO_RAW implies IP_HDRINCL, and such a socket receives nothing.
        let raw = Some(Protocol::from(libc::IPPROTO_RAW));
        let stack = Socket::new(Domain::IPV4, Type::RAW.nonblocking(), raw)
            .map_err(failed("open a raw IPv4 socket"))?;
        // Bound, so that policy rules `from` the director's address hold.
        stack
            .bind(&SocketAddrV4::new(fleet.dip(), 0).into())
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrNotAvailable => BurstError::NotDirector(fleet.dip()),
                _ => failed("bind the raw IPv4 socket")(source),
            })?;
        let forced = nix::sys::socket::sockopt::SndBufForce;
        if nix::sys::socket::setsockopt(&stack, forced, &BUFFER).is_err() {
            // Without CAP_NET_ADMIN net.core.wmem_max is the limit.
            stack
                .set_send_buffer_size(BUFFER)
                .map_err(failed("set SO_SNDBUF"))?;
        }
        // Without it the kernel says nothing of packets for which its neighbour table or a device's queue has no room.
        let said = nix::sys::socket::sockopt::Ipv4RecvErr;
        nix::sys::socket::setsockopt(&stack, said, &true)
            .map_err(|errno| failed("set IP_RECVERR")(errno.into()))?;
        let mut netlink = Netlink::open(NETLINK_ROUTE)?;
        let links = links::list(&mut netlink)?.links;
        let mut own = links.iter().flat_map(|link| &link.addresses);
        if let Some(own) = own.find(|own| fleet.pairs_of(own.ip).next().is_some()) {
            return Err(BurstError::OwnAddress(own.ip));
        }
        let (gateways, pieces) = gateways(next_hop::find(fleet)?, &links, by_xdp)?;
        if by_xdp && gateways.is_empty() {
            return Err(BurstError::NothingByXdp);
        }
        Ok(Burst {
            stack,
            pieces,
            asked: BTreeSet::new(),
            sorted: vec![Vec::new(); gateways.len() + 1],
            frames: vec![Frame::EMPTY; sys::MOST_AT_ONCE],
            gateways,
        })
    }

    /// Sends a packet to each of these real servers. `craft` writes the packet of a number, from its IPv4 header on, where
    /// it leaves from, and says how long it is; `refused` is told the number of each that the kernel refused, and why.
    ///
    /// # Errors
    ///
    /// If no packet at all can be sent any more.
    pub fn send(
        &mut self,
        realservers: &[Ipv4Addr],
        craft: impl Fn(usize, &mut [u8; Burst::LONGEST]) -> usize,
        mut refused: impl FnMut(usize, i32),
    ) -> Result<(), BurstError> {
        let rest = self.gateways.len();
        for (number, rip) in realservers.iter().enumerate() {
            let gateway = self.gateway(*rip).unwrap_or(rest);
            self.sorted[gateway].push(number);
        }
        let mut sorted = std::mem::take(&mut self.sorted);
        let now = clock::mono();
        for (number, numbers) in sorted
            .iter()
            .enumerate()
            .filter(|(_, list)| !list.is_empty())
        {
            let mut numbers = &numbers[..];
            if number < rest {
                if let Some((first, others)) = self.gateways[number]
                    .due(now)
                    .then(|| numbers.split_first())
                    .flatten()
                {
                    self.by_stack(realservers, &[*first], &craft, &mut refused)?;
                    self.gateways[number].look_up(now);
                    if self.gateways[number].is_mute {
                        refused(*first, Burst::MUTE);
                    }
                    numbers = others;
                }
                numbers = self.gateways[number].send(numbers, &craft, &mut self.frames)?;
                if self.gateways[number].is_mute {
                    // The stack asks it again, but has nowhere to send these.
                    for number in numbers {
                        refused(*number, Burst::MUTE);
                    }
                }
            }
            self.by_stack(realservers, numbers, &craft, &mut refused)?;
        }
        sorted.iter_mut().for_each(Vec::clear);
        self.sorted = sorted;
        Ok(())
    }

    /// Real servers that are on-link and do not answer ARP, so that what was left to the stack for them never left. The
    /// kernel says so of a few only (`icmp_msgs_per_sec`). Those that were asked a moment ago may answer yet: they count
    /// when this is called again, a good while later, and they still did not.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub fn mute(&mut self) -> Result<Vec<Ipv4Addr>, NetlinkError> {
        let mut netlink = Netlink::open(NETLINK_ROUTE)?;
        let (asked, failed) = neighbour::unresolved(&mut netlink)?;
        let still = asked.intersection(&self.asked).copied();
        let mute = still.chain(failed).collect();
        self.asked = asked;
        Ok(mute)
    }

    /// The number of the gateway that a real server is sent to by.
    fn gateway(&self, rip: Ipv4Addr) -> Option<usize> {
        let after = self.pieces.partition_point(|(piece, _)| piece.first <= rip);
        let (piece, gateway) = self.pieces.get(after.checked_sub(1)?)?;
        piece.contains(rip).then_some(*gateway)
    }

    fn by_stack(
        &mut self,
        realservers: &[Ipv4Addr],
        numbers: &[usize],
        craft: &impl Fn(usize, &mut [u8; Burst::LONGEST]) -> usize,
        refused: &mut impl FnMut(usize, i32),
    ) -> Result<(), BurstError> {
        for some in numbers.chunks(sys::MOST_AT_ONCE) {
            for (frame, number) in self.frames.iter_mut().zip(some) {
                frame.fill(&[0; ETHERNET], |room| craft(*number, room));
            }
            let octets: Vec<_> = self.frames[..some.len()]
                .iter()
                .map(Frame::packet)
                .collect();
            let address =
                |number: &usize| SockAddr::from(SocketAddrV4::new(realservers[*number], 0));
            let addresses: Vec<_> = some.iter().map(address).collect();
            let mut done = 0;
            while done < some.len() {
                let sent = patiently(SHORT_OF_ROOM, || {
                    sys::send_many(&self.stack, &octets[done..], Some(&addresses[done..]))
                });
                match sent {
                    Ok(sent) => done += sent,
                    Err(source) => match source.raw_os_error() {
                        Some(errno) => {
                            refused(some[done], errno);
                            done += 1;
                        }
                        None => {
                            return Err(BurstError::Socket {
                                operation: "send by the raw IPv4 socket",
                                source,
                            });
                        }
                    },
                }
            }
        }
        Ok(())
    }
}

impl Gateway {
    fn due(&self, now: Mono) -> bool {
        self.checked
            .is_none_or(|checked| now.since(checked) >= FRESH)
    }

    /// Asks the kernel for the hardware address, which a packet through the stack has it find out; at first that is
    /// waited for.
    fn look_up(&mut self, now: Mono) {
        let until = clock::mono() + ANSWER;
        let is_first = self.checked.replace(now).is_none();
        loop {
            // An entry that cannot be read is as good as none: the stack sends.
            let mac = next_hop::hardware_address(&self.hop).ok().flatten();
            self.header = mac.map(|to| self.device.header(&to));
            self.is_mute = mac.is_none();
            if !self.is_mute || !is_first || clock::mono() > until {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends in frames, and says which packets are left to the stack.
    fn send<'a>(
        &mut self,
        mut numbers: &'a [usize],
        craft: &impl Fn(usize, &mut [u8; Burst::LONGEST]) -> usize,
        frames: &mut [Frame],
    ) -> Result<&'a [usize], BurstError> {
        let Some(header) = self.header else {
            return Ok(numbers);
        };
        while !numbers.is_empty() {
            let count = numbers.len().min(frames.len());
            for (frame, number) in frames.iter_mut().zip(numbers) {
                frame.fill(&header, |room| craft(*number, room));
            }
            let mut done = 0;
            while done < count {
                match patiently(FULL, || self.device.way.send(&frames[done..count])) {
                    Ok(sent) => done += sent,
                    // The device is down or gone, or takes no such packet: the stack knows why.
                    Err(_) => {
                        self.header = None;
                        return Ok(&numbers[done..]);
                    }
                }
            }
            numbers = &numbers[count..];
        }
        Ok(numbers)
    }
}

impl Frame {
    const EMPTY: Frame = Frame {
        octets: [0; ETHERNET + Burst::LONGEST],
        length: ETHERNET,
    };

    /// The packet is crafted behind the header.
    fn fill(
        &mut self,
        header: &[u8; ETHERNET],
        craft: impl FnOnce(&mut [u8; Burst::LONGEST]) -> usize,
    ) {
        self.octets[..ETHERNET].copy_from_slice(header);
        let room = self.octets.last_chunk_mut().expect("there is room for one");
        self.length = ETHERNET + craft(room);
    }

    fn packet(&self) -> &[u8] {
        &self.octets[ETHERNET..self.length]
    }
}

/// Sends once there is room, if there is any for a while.
fn patiently(patience: Duration, mut send: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let begin = clock::mono();
    loop {
        match send() {
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) if clock::mono().since(begin) < FULL => {
                    thread::sleep(Duration::from_micros(50));
                }
                Some(libc::ENOBUFS) if clock::mono().since(begin) < patience => {
                    thread::sleep(Duration::from_micros(50));
                }
                _ => return Err(error),
            },
            sent => return sent,
        }
    }
}

/// Sockets for the gateways on Ethernet devices, and the pieces that leave by them.
fn gateways(
    pieces: Pieces,
    devices: &[Link],
    by_xdp: bool,
) -> Result<(Vec<Gateway>, Numbered), BurstError> {
    let mut gateways: Vec<Gateway> = Vec::new();
    let mut found = Vec::new();
    for (piece, hop) in pieces {
        let known = gateways.iter().position(|gateway| gateway.hop == hop);
        let at = match known {
            Some(at) => at,
            None => {
                let device = devices.iter().find(|link| link.name == hop.device);
                let Some(device) =
                    device.and_then(|link| Some((link, link.mac.filter(|_| is_ethernet(link))?)))
                else {
                    continue;
                };
                gateways.push(Gateway {
                    device: Device::open(device, by_xdp)?,
                    hop,
                    header: None,
                    checked: None,
                    is_mute: false,
                });
                gateways.len() - 1
            }
        };
        found.push((piece, at));
    }
    Ok((gateways, found))
}

/// Whether frames with hardware addresses leave by it. Tunnels, which have none of 6 octets, and devices without ARP
/// are left to the stack.
fn is_ethernet(link: &Link) -> bool {
    link.up && !link.loopback && !link.noarp
}

impl Device {
    fn open((link, mac): (&Link, [u8; 6]), by_xdp: bool) -> Result<Device, BurstError> {
        if by_xdp {
            let sender = XdpSender::new(link.index).map_err(|source| BurstError::Xdp {
                device: link.name.clone(),
                source,
            })?;
            let way = Way::Xdp(sender);
            return Ok(Device { way, mac });
        }
        let failed = |operation| move |source| BurstError::Socket { operation, source };
        // Protocol 0: it receives nothing.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), None)
            .map_err(failed("open an AF_PACKET socket"))?;
        sys::bypass_queueing(&socket).map_err(failed("set PACKET_QDISC_BYPASS"))?;
        socket
            .bind(&sys::link_address(link.index, 0))
            .map_err(failed("bind the AF_PACKET socket"))?;
        let way = Way::Packet(socket);
        Ok(Device { way, mac })
    }

    /// What a frame to this hardware address begins with.
    fn header(&self, to: &[u8; 6]) -> [u8; ETHERNET] {
        let mut header = [0; ETHERNET];
        header[..6].copy_from_slice(to);
        header[6..12].copy_from_slice(&self.mac);
        header[12..].copy_from_slice(&ETHERTYPE_IPV4);
        header
    }
}
