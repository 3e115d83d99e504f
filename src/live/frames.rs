//! Whole packets in and out, for the lab's stand-ins: devices by AF_PACKET, IP by raw sockets.
//!
//! Every socket belongs to the network namespace of the thread that opened it and may be used from any.

use std::io;
use std::io::Read;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;

use crate::live::sys;

/// EtherType of IPv4.
const ETHERTYPE_IPV4: u16 = 0x0800;

/// Room for any IPv4 packet.
const ROOM: usize = 65_536;

/// A socket that sends and receives IPv4 packets.
pub struct Packets {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Packets {
    /// Sends Ethernet frames and receives none.
    ///
    /// # Errors
    ///
    /// EPERM without `CAP_NET_RAW`.
    pub fn frames() -> io::Result<Packets> {
        Packets::new(Socket::new(Domain::PACKET, Type::RAW, None)?)
    }

    /// Receives the IPv4 packets that arrive at the device with this index.
    ///
    /// # Errors
    ///
    /// EPERM without `CAP_NET_RAW`.
    pub fn of_device(index: u32) -> io::Result<Packets> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.bind(&sys::link_address(index, ETHERTYPE_IPV4))?;
        Packets::new(socket)
    }

    /// Receives the IPv4 packets of `protocol` that are for this host, after its INPUT rules, and sends whole
    /// IPv4 packets, before its OUTPUT rules; out of `device` alone, if there is one.
    ///
    /// # Errors
    ///
    /// EPERM without `CAP_NET_RAW`.
    pub fn of_protocol(protocol: u8, device: Option<&str>) -> io::Result<Packets> {
        let protocol = Protocol::from(i32::from(protocol));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
        socket.set_header_included_v4(true)?;
        socket.bind_device(device.map(str::as_bytes))?;
        Packets::new(socket)
    }

    fn new(socket: Socket) -> io::Result<Packets> {
        Ok(Packets {
            socket,
            buffer: vec![0; ROOM],
        })
    }

    /// Has so many octets of packets wait to be received, where that is allowed.
    ///
    /// # Errors
    ///
    /// EPERM without `CAP_NET_ADMIN`.
    pub fn set_room(&self, octets: usize) -> io::Result<()> {
        let option = nix::sys::socket::sockopt::RcvBufForce;
        nix::sys::socket::setsockopt(&self.socket, option, &octets).map_err(io::Error::from)
    }

    /// Waits for the next packet, from its IP header on.
    ///
    /// # Errors
    ///
    /// If the device is gone or down.
    pub fn receive(&mut self) -> io::Result<&[u8]> {
        let length = (&self.socket).read(&mut self.buffer)?;
        Ok(&self.buffer[..length])
    }

    /// Sends a whole IPv4 packet to `to`.
    ///
    /// # Errors
    ///
    /// If there is no route, or a rule forbids it, or it is too long.
    pub fn send(&self, packet: &[u8], to: Ipv4Addr) -> io::Result<()> {
        let to = SocketAddrV4::new(to, 0);
        self.socket.send_to(packet, &to.into()).map(drop)
    }

    /// Sends a whole IPv4 packet in an Ethernet frame out of a device.
    ///
    /// # Errors
    ///
    /// If the device is gone or down.
    pub fn send_frame(&self, packet: &[u8], index: u32, to: [u8; 6]) -> io::Result<()> {
        let from = [0x02, 0, 0, 0, 0, 1];
        let frame = [&to, &from, &ETHERTYPE_IPV4.to_be_bytes()[..], packet].concat();
        let device = sys::link_address(index, ETHERTYPE_IPV4);
        self.socket.send_to(&frame, &device).map(drop)
    }
}
