//! What arrives at a sweep: a receive ring that the kernel fills, behind a filter of its own.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use socket2::Domain;
use socket2::SockFilter;
use socket2::Socket;
use socket2::Type;

use crate::exchange::Mono;
use crate::exchange::Wall;
use crate::live::clock;
use crate::live::filter::fleet as filter;
use crate::live::sys;
use crate::live::sys::PacketRing;
use crate::live::tap::TapError;
use crate::plan::Fleet;

/// A block that is not full is handed over after so many milliseconds. Fewer cost more, more delay what is closed.
const PATIENCE: u32 = 8;
/// So many blocks fill in two seconds if each holds what arrives in [`PATIENCE`]; a scheduler's stall is shorter.
const BLOCKS: usize = 256;

/// The ring. It sees from the moment [`Ring::open`] returns.
pub struct Ring {
    ring: PacketRing,
    socket: Socket,
}

impl Ring {
    /// Opens a ring on every device of the calling thread's network namespace, for answers to this fleet's probes at
    /// `rate` a second. The socket gets its filter and its ring before it is bound, so nothing else is ever queued,
    /// and it is bound to IPv4 alone: it sees no packet that this host sends, and none twice where devices are stacked.
    ///
    /// # Errors
    ///
    /// [`TapError`]: mostly EPERM, without `CAP_NET_RAW`.
    pub fn open(fleet: &Fleet, rate: u32) -> Result<Ring, TapError> {
        let during = |operation| move |source| TapError { operation, source };
        let program: Vec<_> = filter::assemble(fleet)
            .into_iter()
            .map(|i| SockFilter::new(i.code, i.if_true, i.if_false, i.k))
            .collect();
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), None)
            .map_err(during("open an AF_PACKET socket"))?;
        socket
            .attach_filter(&program)
            .map_err(during("attach the packet filter"))?;
        // 200 octets an answer: 32 MiB are 1.7 s at 100,000 a second, 8 MiB 4 s at 10,000.
        let block = if rate > 10_000 { 128 << 10 } else { 32 << 10 };
        let ring = PacketRing::new(&socket, (BLOCKS, block), PATIENCE)
            .map_err(during("set up the AF_PACKET ring"))?;
        socket
            .bind(&sys::link_address(0, libc::ETH_P_IP as u16))
            .map_err(during("bind the AF_PACKET socket"))?;
        Ok(Ring { ring, socket })
    }

    /// Reads what has arrived, or waits for it for so long at most: each packet from its IPv4 header on, as far as the
    /// filter keeps it, and when it arrived.
    ///
    /// # Errors
    ///
    /// [`TapError`], if the socket cannot be watched.
    pub fn read(
        &mut self,
        wait: Duration,
        mut packet: impl FnMut(&[u8], Mono),
    ) -> Result<(), TapError> {
        let (mut mono, mut wall) = clock::at_once(clock::mono, clock::wall);
        let mut each = |octets: &[u8], time: u64| {
            let time = Wall::from_nanos(time);
            if time > wall {
                (mono, wall) = clock::at_once(clock::mono, clock::wall);
            }
            let age = if time < wall {
                wall.distance(time)
            } else {
                Duration::ZERO
            };
            packet(octets, mono.before(age));
        };
        if self.ring.read(&mut each) {
            while self.ring.read(&mut each) {}
            return Ok(());
        }
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => {
                return Err(TapError {
                    operation: "wait for the AF_PACKET socket",
                    source: errno.into(),
                });
            }
        }
        // A device that went down leaves an error on the socket (ENETDOWN), which `poll` would report for ever.
        let _: io::Result<_> = self.socket.take_error();
        while self.ring.read(&mut each) {}
        Ok(())
    }

    /// How many packets the kernel has dropped since the last call, for want of room.
    ///
    /// # Errors
    ///
    /// [`TapError`], if the kernel does not say.
    pub fn lost(&self) -> Result<u64, TapError> {
        let (_, dropped) = sys::packet_statistics(&self.socket).map_err(|source| TapError {
            operation: "read PACKET_STATISTICS",
            source,
        })?;
        Ok(dropped.into())
    }
}
