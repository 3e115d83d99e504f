//! The kernel's own word on packets that it gives up: generic netlink `NET_DM`, module `drop_monitor`.
//!
//! It exists in the initial network namespace only, and only once somebody has loaded the module; neither is
//! changed here. Monitoring is one switch for the whole machine: it is left alone where somebody else has turned
//! it on, and turned off again by the agent or, should that be killed, by its janitor. Numbers and layouts are
//! those of `include/uapi/linux/net_dropmon.h`.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_sys::Socket;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_GENERIC;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recv;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt;
use socket2::SockRef;
use tokio::io::unix::AsyncFd;

use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::Dropped;
use crate::exchange::TapPath;
use crate::exchange::TapSpec;
use crate::exchange::Wall;
use crate::live::clock;
use crate::live::sys;

/// The kernel answers at once; this long without an answer is a fault.
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Room for the drops that come while the agent is busy, in octets.
const BUFFER: usize = 4 << 20;
/// Room for one datagram.
const ROOM: usize = 128 << 10;

const CONTROLLER: u16 = 16; // GENL_ID_CTRL
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

const CMD_CONFIG: u8 = 2;
const CMD_START: u8 = 3;
const CMD_STOP: u8 = 4;
const CMD_PACKET_ALERT: u8 = 5;
const CMD_CONFIG_GET: u8 = 6;

const ATTR_ALERT_MODE: u16 = 1;
const ATTR_PC: u16 = 2;
const ATTR_SYMBOL: u16 = 3;
const ATTR_IN_PORT: u16 = 4;
const ATTR_TIMESTAMP: u16 = 5;
const ATTR_PROTO: u16 = 6;
const ATTR_PAYLOAD: u16 = 7;
const ATTR_ORIG_LEN: u16 = 10;
const ATTR_REASON: u16 = 23;
const ATTR_PORT_IFINDEX: u16 = 0;

/// Each drop with its packet; the other mode only counts places.
const MODE_PACKET: u8 = 1;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// The kernel's drop monitor.
pub(crate) struct Monitor {
    socket: Socket,
    family: u16,
    group: u32,
    sequence: u32,
}

/// Who has turned the monitor on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    /// Nobody; this is the mode it would have.
    ByNobody(u8),
    /// Somebody else, so that each packet is told of.
    ByOthers,
}

impl Monitor {
    /// Finds the monitor.
    ///
    /// # Errors
    ///
    /// If this is not the initial network namespace, the module is not loaded, or the kernel cannot be asked.
    pub(crate) fn find() -> io::Result<Monitor> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        SockRef::from(&socket.as_fd()).set_read_timeout(Some(TIME_LIMIT))?;
        let mut monitor = Monitor {
            socket,
            family: 0,
            group: 0,
            sequence: 0,
        };
        // A look-up by name would make the kernel load the module.
        let dump = NLM_F_REQUEST | NLM_F_DUMP;
        for family in monitor.ask(CONTROLLER, dump, CTRL_CMD_GETFAMILY, &[])? {
            let name = attribute(&family, CTRL_ATTR_FAMILY_NAME).map(text);
            if name.as_deref() != Some("NET_DM") {
                continue;
            }
            let groups = attribute(&family, CTRL_ATTR_MCAST_GROUPS).unwrap_or_default();
            let group = attributes(groups)
                .find_map(|(_, group)| attribute(group, CTRL_ATTR_MCAST_GRP_ID).and_then(number));
            let id = attribute(&family, CTRL_ATTR_FAMILY_ID).and_then(number);
            if let (Some(id), Some(group)) = (id, group) {
                monitor.family = id as u16;
                monitor.group = group as u32;
                return Ok(monitor);
            }
        }
        Err(io::Error::other(
            "the module drop_monitor is not loaded, or this is not the initial network namespace",
        ))
    }

    /// Whether it is on already.
    ///
    /// # Errors
    ///
    /// If it is on and counts only, or the kernel refused.
    pub(crate) fn watched(&mut self) -> io::Result<Watched> {
        let answers = self.ask(self.family, NLM_F_REQUEST, CMD_CONFIG_GET, &[])?;
        let mode = answers
            .iter()
            .find_map(|answer| attribute(answer, ATTR_ALERT_MODE).and_then(number))
            .ok_or_else(|| io::Error::other("its alert mode is not told"))?
            as u8;
        // What it has already, it can be given again, unless it is on.
        match self.configure(mode) {
            Ok(()) => Ok(Watched::ByNobody(mode)),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && mode == MODE_PACKET => {
                Ok(Watched::ByOthers)
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Err(io::Error::other(
                "somebody else uses it, in the mode that only counts",
            )),
            Err(error) => Err(error),
        }
    }

    /// Turns it on, for each packet; the caller has seen to it that it will be turned off.
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        self.configure(MODE_PACKET)?;
        self.command(CMD_START, &[])
    }

    /// Turns it off, and gives it the mode back that it had.
    ///
    /// # Errors
    ///
    /// If the kernel refused; that it was off is none.
    pub(crate) fn stop(&mut self, mode: u8) -> io::Result<()> {
        match self.command(CMD_STOP, &[]) {
            Err(error) if error.raw_os_error() != Some(libc::EAGAIN) => return Err(error),
            _ => {}
        }
        self.configure(mode)
    }

    /// The number under which the kernel knows it.
    pub(crate) fn family(&self) -> u16 {
        self.family
    }

    /// A socket that hears of drops from now on, for [`Drops::new`].
    ///
    /// # Errors
    ///
    /// If the kernel refused.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.add_membership(self.group)?;
        // Without CAP_NET_ADMIN in the initial user namespace it is as large as it is.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let socket = socket.as_fd().try_clone_to_owned()?;
        Ok(socket)
    }

    fn configure(&mut self, mode: u8) -> io::Result<()> {
        self.command(CMD_CONFIG, &[5, 0, ATTR_ALERT_MODE as u8, 0, mode, 0, 0, 0])
    }

    fn command(&mut self, command: u8, attributes: &[u8]) -> io::Result<()> {
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        self.ask(self.family, flags, command, attributes).map(drop)
    }

    /// The attributes of each answer.
    fn ask(
        &mut self,
        family: u16,
        flags: u16,
        command: u8,
        attributes: &[u8],
    ) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let length = HEADER + GENERIC_HEADER + attributes.len();
        let mut message = (length as u32).to_ne_bytes().to_vec();
        message.extend(family.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        self.socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(ROOM);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            for (kind, sequence, body) in messages(&buffer) {
                if sequence != self.sequence {
                    continue;
                }
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let code = body
                            .first_chunk()
                            .map_or(0, |code| i32::from_ne_bytes(*code));
                        return match code {
                            0 => Ok(answers),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => answers.push(body.get(GENERIC_HEADER..).unwrap_or_default().to_vec()),
                }
            }
            // Without an acknowledgement, the answer is the end.
            if flags == NLM_F_REQUEST && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

/// The drops of the paths' packets, as they come.
pub(crate) struct Drops {
    socket: AsyncFd<socket2::Socket>,
    family: u16,
    paths: Vec<TapPath>,
    buffer: Vec<u8>,
    found: Vec<Dropped>,
}

impl Drops {
    /// The drops of the paths' packets, as a socket hears of them; the monitor is known as `family`.
    ///
    /// # Errors
    ///
    /// If the socket cannot be awaited.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn new(family: u16, socket: OwnedFd, spec: &TapSpec) -> io::Result<Drops> {
        let socket = socket2::Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Drops {
            socket: sys::register(socket)?,
            family,
            paths: spec.paths.clone(),
            buffer: vec![0; ROOM],
            found: Vec::new(),
        })
    }

    /// The next one; `None` if the kernel told of more than there was room for, so that some are lost.
    ///
    /// # Errors
    ///
    /// If the socket cannot be read.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<Dropped>> {
        loop {
            if let Some(dropped) = self.found.pop() {
                return Ok(Some(dropped));
            }
            let mut ready = self.socket.readable().await?;
            let descriptor = ready.get_inner().as_raw_fd();
            match recv(descriptor, &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let datagram = &self.buffer[..length];
                    for (kind, _, body) in messages(datagram) {
                        if kind == self.family
                            && let Some(mut dropped) = read(body)
                            && concerns(&self.paths, &dropped.capture.bytes)
                        {
                            dropped.capture.time = clock::steadied(dropped.capture.time);
                            self.found.insert(0, dropped);
                        }
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                // Those that come are as good.
                Err(nix::errno::Errno::ENOBUFS) => return Ok(None),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// A `NET_DM_CMD_PACKET_ALERT`, if it is about an IPv4 packet.
fn read(body: &[u8]) -> Option<Dropped> {
    if *body.first()? != CMD_PACKET_ALERT {
        return None;
    }
    let told = body.get(GENERIC_HEADER..)?;
    let protocol = attribute(told, ATTR_PROTO).and_then(number)? as u16;
    let bytes = network_packet(attribute(told, ATTR_PAYLOAD)?)?.to_vec();
    let port = attribute(told, ATTR_IN_PORT).unwrap_or_default();
    let index = attribute(port, ATTR_PORT_IFINDEX).and_then(number);
    let time = attribute(told, ATTR_TIMESTAMP).and_then(number);
    // The offset within the function is often cut off.
    let function = |symbol: &str| symbol.split('+').next().unwrap_or_default().to_owned();
    let symbol = attribute(told, ATTR_SYMBOL).map(text);
    let place = symbol.as_deref().map(function).or_else(|| {
        let counter = attribute(told, ATTR_PC).and_then(number)?;
        Some(format!("{counter:#x}"))
    });
    let length = attribute(told, ATTR_ORIG_LEN).and_then(number);
    Some(Dropped {
        reason: attribute(told, ATTR_REASON).map(text),
        place: place.unwrap_or_default(),
        capture: Capture {
            time: time.map_or_else(clock::wall, Wall::from_nanos),
            device: index.map_or_else(String::new, |index| device(index as u32)),
            hardware: libc::ARPHRD_NONE,
            direction: Direction::In,
            protocol,
            link_source: None,
            original_length: length.unwrap_or(bytes.len() as u64).max(bytes.len() as u64) as u32,
            bytes,
        },
    })
    .filter(|dropped| dropped.capture.protocol == Capture::IPV4)
}

/// The packet from its network header on: the kernel gives what is before it, too, if there was anything, and
/// does not say how much.
fn network_packet(payload: &[u8]) -> Option<&[u8]> {
    const ETHERNET: usize = 14;
    if payload.get(12..ETHERNET) == Some(&[0x08, 0x00])
        && let Some(packet) = payload.get(ETHERNET..).and_then(whole)
    {
        return Some(packet);
    }
    whole(payload)
}

/// An IPv4 packet without what may be behind it.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    const SHORTEST: usize = 20;
    let header = bytes.get(..SHORTEST)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[0] >> 4 == 4 && length >= SHORTEST).then(|| &bytes[..length.min(bytes.len())])
}

/// Whether the packet goes between addresses of a path, itself or what it has in its tunnel or quotes.
fn concerns(paths: &[TapPath], packet: &[u8]) -> bool {
    let ends = |packet: &[u8]| -> Option<(Ipv4Addr, Ipv4Addr)> {
        let at = |offset: usize| Some(Ipv4Addr::from(*packet.get(offset..)?.first_chunk::<4>()?));
        Some((at(12)?, at(16)?))
    };
    let ours = |(source, destination): (Ipv4Addr, Ipv4Addr)| {
        paths.iter().any(|path| {
            let known = [Some(path.vip), Some(path.cip), Some(path.rip), path.dip];
            known.contains(&Some(source)) && known.contains(&Some(destination))
        })
    };
    ends(packet).is_some_and(ours)
}

fn device(index: u32) -> String {
    // A device that is gone already has lost its name.
    nix::net::if_::if_indextoname(index).map_or_else(
        |_| format!("if{index}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// The messages of a datagram: type, sequence, body.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = rest.get(HEADER..length)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let sequence = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, sequence, body))
    })
}

/// The attributes in `octets`: type and content.
fn attributes(octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE: u16 = 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
    let mut rest = octets;
    std::iter::from_fn(move || {
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let content = rest.get(4..length)?;
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

fn attribute(octets: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = attributes(octets);
    all.find_map(|(known, content)| (known == kind).then_some(content))
}

/// A number of 1, 2, 4 or 8 octets.
fn number(octets: &[u8]) -> Option<u64> {
    Some(match *octets {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        _ => u64::from_ne_bytes(octets.try_into().ok()?),
    })
}

fn text(octets: &[u8]) -> String {
    let end = octets.iter().position(|octet| *octet == 0);
    String::from_utf8_lossy(&octets[..end.unwrap_or(octets.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn path(address: Ipv4Addr) -> TapPath {
        TapPath {
            vip: address,
            cip: address,
            dip: None,
            rip: address,
            gateway: None,
        }
    }

    /// An alert of Linux 6.1: a datagram on the loopback device for a closed port, as the kernel sent it.
    const ALERT: &str = "c00000002100000000000000000000000502000006000e00000000000c000200e2ca6bb9ffffffff0e0017004e4f5f\
                         534f434b45540000001f0003005f5f756470345f6c69625f7263762b30783961322f307863333000000c0004800800\
                         0000010000000c00050068046e521b8cea1808000a003900000006000600000800003d000700000000000000000000\
                         00000008004500002b39104000401103b07f0000017f000001b0e800090017fe2a6e6f626f64792069732074686572\
                         65000000";

    #[test]
    fn an_alert_says_which_packet_and_why() {
        let datagram = hex::decode(ALERT).unwrap();
        let (family, _, body) = messages(&datagram).next().unwrap();
        assert_eq!(family, 0x21);
        let dropped = read(body).unwrap();
        assert_eq!(dropped.reason.as_deref(), Some("NO_SOCKET"));
        assert_eq!(dropped.place, "__udp4_lib_rcv");
        assert_eq!(
            dropped.capture.time,
            Wall::from_nanos(0x18ea_8c1b_526e_0468)
        );
        assert_eq!(
            dropped.capture.original_length, 57,
            "with the Ethernet header"
        );
        let packet = &dropped.capture.bytes;
        assert_eq!(packet.len(), 43);
        assert_eq!(packet[..4], [0x45, 0, 0, 43]);
        assert!(packet.ends_with(b"nobody is there"));
        assert!(concerns(&[path(Ipv4Addr::LOCALHOST)], packet));
        assert!(!concerns(&[path(Ipv4Addr::new(192, 0, 2, 10))], packet));
    }

    #[test]
    fn an_alert_that_is_cut_off_is_no_drop_and_no_panic() {
        let datagram = hex::decode(ALERT).unwrap();
        for length in 0..datagram.len() {
            assert_eq!(messages(&datagram[..length]).count(), 0);
            let body = datagram.get(HEADER..length).unwrap_or_default();
            if let Some(dropped) = read(body) {
                assert!(length > datagram.len() - 4, "{length}: {dropped:?}");
            }
        }
    }

    #[test]
    fn a_packet_without_a_header_before_it_is_found_too() {
        let packet = [
            0x45, 0, 0, 20, 0, 0, 0, 0, 64, 4, 8, 0, 192, 0, 2, 2, 203, 0, 113, 5, 0, 0,
        ];
        assert_eq!(network_packet(&packet), Some(&packet[..20]));
        assert_eq!(network_packet(&packet[..19]), None);
        assert_eq!(network_packet(&[0; 64]), None);
    }

    #[test]
    #[ignore = "needs drop_monitor in the initial network namespace: the guest runs it"]
    fn the_kernel_tells_why_it_drops() {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let mut monitor = Monitor::find().unwrap();
                let Watched::ByNobody(mode) = monitor.watched().unwrap() else {
                    panic!("somebody watches");
                };
                let paths = vec![path(Ipv4Addr::LOCALHOST)];
                let spec = TapSpec {
                    paths,
                    rewritten: None,
                    scripted: None,
                };
                let socket = monitor.listen().unwrap();
                let mut drops = Drops::new(monitor.family(), socket, &spec).unwrap();
                monitor.start().unwrap();
                let begun = clock::wall();
                let other = Monitor::find().unwrap().watched().unwrap();
                assert_eq!(other, Watched::ByOthers);
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.send_to(b"nobody is there", "127.0.0.1:9").unwrap();
                let waiting = async {
                    loop {
                        let dropped = drops.receive().await.unwrap();
                        if let Some(dropped) = dropped
                            && dropped.capture.bytes.ends_with(b"nobody is there")
                        {
                            return dropped;
                        }
                    }
                };
                let dropped = tokio::time::timeout(Duration::from_secs(10), waiting);
                let dropped = dropped.await.expect("a drop");
                assert_eq!(dropped.reason.as_deref(), Some("NO_SOCKET"));
                assert_eq!(dropped.place, "__udp4_lib_rcv");
                assert_eq!(dropped.capture.device, "lo");
                assert_eq!(dropped.capture.bytes.len(), 20 + 8 + 15);
                assert!(begun <= dropped.capture.time && dropped.capture.time <= clock::wall());
                monitor.stop(mode).unwrap();
                assert_eq!(monitor.watched().unwrap(), Watched::ByNobody(mode));
                monitor.stop(mode).unwrap();
            });
    }
}
