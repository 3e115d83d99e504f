//! Every `unsafe` line of the crate: what neither socket2 nor nix nor tokio offers safely.

#![expect(unsafe_code, reason = "this file is where the crate keeps it")]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recvmsg;
use socket2::SockAddr;
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Hands a socket to the runtime, to be awaited for reading.
pub(crate) fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the `AsyncFd` owns the socket, and nothing in this crate closes or replaces a socket's file
    // descriptor behind its back; `Socket::as_raw_fd` is a plain getter.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

/// A `sockaddr_ll` of a device (0: every device) and an EtherType.
pub(crate) fn link_address(index: u32, protocol: u16) -> SockAddr {
    // SAFETY: the storage is larger than a `sockaddr_ll`, suitably aligned and zeroed; all-zero is a valid
    // `sockaddr_ll`; the length returned is that of what was written.
    unsafe {
        SockAddr::try_init(|storage, length| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol.to_be();
            address.sll_ifindex = index as i32;
            *length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }
    .expect("the closure cannot fail")
    .1
}

/// What the kernel counted on an AF_PACKET socket since the last call (`PACKET_STATISTICS`): packets that
/// passed the filter, lost ones included; and those lost.
pub(crate) fn packet_statistics(socket: &impl AsFd) -> io::Result<(u32, u32)> {
    let mut counted = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = mem::size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets to `counted`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counted).cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok((counted.tp_packets, counted.tp_drops)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives from a stream socket, and adds the files that go along to `files`; `Ok(0)` at the end.
pub(crate) fn receive_files(
    socket: &impl AsFd,
    buffer: &mut [u8],
    files: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    // SCM_MAX_FD: no message has more.
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 253]);
    let mut buffers = [io::IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut buffers,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just put these into this process's table, and nobody else knows of them.
            files.extend(
                received
                    .into_iter()
                    .map(|file| unsafe { OwnedFd::from_raw_fd(file) }),
            );
        }
    }
    Ok(message.bytes)
}

/// Sets an option of an AF_PACKET socket.
fn set_packet_option<T>(socket: &impl AsFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets from `value` as it has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has what an AF_PACKET socket sends go to the device's driver at once, past its queueing discipline
/// (`PACKET_QDISC_BYPASS`).
pub(crate) fn bypass_queueing(socket: &impl AsFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    set_packet_option(socket, libc::PACKET_QDISC_BYPASS, &yes)
}

/// The most packets of one [`send_many`].
pub(crate) const MOST_AT_ONCE: usize = 64;

/// Hands packets to the kernel in one call (`sendmmsg`), each to its address if there are addresses; says how many of
/// the first it took. An error is the first packet's.
pub(crate) fn send_many(
    socket: &impl AsFd,
    packets: &[impl AsRef<[u8]>],
    addresses: Option<&[SockAddr]>,
) -> io::Result<usize> {
    let count = packets.len().min(MOST_AT_ONCE);
    let count = addresses.map_or(count, |addresses| count.min(addresses.len()));
    // SAFETY: all-zero is a valid `iovec` and a valid `mmsghdr`.
    let (mut vectors, mut messages): ([libc::iovec; MOST_AT_ONCE], [libc::mmsghdr; MOST_AT_ONCE]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    for at in 0..count {
        let packet = packets[at].as_ref();
        vectors[at].iov_base = packet.as_ptr().cast_mut().cast();
        vectors[at].iov_len = packet.len();
        let header = &mut messages[at].msg_hdr;
        header.msg_iov = &raw mut vectors[at];
        header.msg_iovlen = 1;
        if let Some(addresses) = addresses {
            header.msg_name = addresses[at].as_ptr().cast_mut().cast();
            header.msg_namelen = addresses[at].len();
        }
    }
    // SAFETY: each of `count` headers points to one vector, that to a packet, and perhaps to an address, all of which
    // live until the call returns; the kernel writes to none but the headers.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_fd().as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT,
        )
    };
    match sent {
        0.. => Ok(sent as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The receive ring of an AF_PACKET socket, TPACKET_V3: blocks that the kernel fills and this process gives back.
pub(crate) struct PacketRing {
    base: NonNull<u8>,
    block: usize,
    blocks: usize,
    next: usize,
}

// SAFETY: the mapping belongs to the `PacketRing` alone, and no thread has a claim to it.
unsafe impl Send for PacketRing {}

impl PacketRing {
    /// Gives `socket` a ring of so many blocks of so many octets, a multiple of the page; a block that is not full is
    /// handed over after `patience` milliseconds.
    pub(crate) fn new(
        socket: &impl AsFd,
        (blocks, block): (usize, usize),
        patience: u32,
    ) -> io::Result<PacketRing> {
        const FRAME: usize = 2048;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set_packet_option(socket, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req3 {
            tp_block_size: block as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: FRAME as u32,
            tp_frame_nr: (blocks * block / FRAME) as u32,
            tp_retire_blk_tov: patience,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_packet_option(socket, libc::PACKET_RX_RING, &request)?;
        // SAFETY: the kernel chooses where, so nothing of ours is mapped over.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                blocks * block,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketRing {
            base: NonNull::new(base.cast()).expect("the first page is never mapped"),
            block,
            blocks,
            next: 0,
        })
    }

    /// Reads the next block, if the kernel has handed it over, and gives it back: each packet as far as the filter
    /// left it, and when it arrived, in nanoseconds of the wall clock.
    pub(crate) fn read(&mut self, mut packet: impl FnMut(&[u8], u64)) -> bool {
        // SAFETY: `next` is below `blocks`, so the block lies within the mapping.
        let block = unsafe { self.base.as_ptr().add(self.next * self.block) };
        // SAFETY: `mmap` aligns to the page and blocks are pages, so the descriptor and its 32-bit status are aligned;
        // kernel and process exchange the status as an atomic word.
        let (header, status) = unsafe {
            let descriptor = block.cast::<libc::tpacket_block_desc>();
            let header = &raw mut (*descriptor).hdr.bh1;
            let status = AtomicU32::from_ptr(&raw mut (*header).block_status);
            (header, status)
        };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: the block is this process's until the status is given back, so the kernel writes nothing to it.
        let (count, first) = unsafe { ((*header).num_pkts, (*header).offset_to_first_pkt) };
        let mut at = first as usize;
        for _ in 0..count {
            if at + mem::size_of::<libc::tpacket3_hdr>() > self.block {
                break;
            }
            // SAFETY: the header lies within the block, and all-bits are a valid one.
            let told = unsafe { block.add(at).cast::<libc::tpacket3_hdr>().read_unaligned() };
            let (net, length) = (usize::from(told.tp_net), told.tp_snaplen as usize);
            if at + net + length > self.block {
                break;
            }
            // SAFETY: the octets lie within the block, as was just compared, which the kernel does not write to.
            let octets = unsafe { std::slice::from_raw_parts(block.add(at + net), length) };
            let time = u64::from(told.tp_sec) * 1_000_000_000 + u64::from(told.tp_nsec);
            packet(octets, time);
            at += told.tp_next_offset as usize;
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % self.blocks;
        true
    }
}

impl Drop for PacketRing {
    fn drop(&mut self) {
        // SAFETY: it is what `new` mapped, and nobody has a pointer into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.block * self.blocks) };
    }
}

/// An AF_XDP socket that only transmits, in copy mode: the kernel copies frames from memory that it shares with this
/// process, without a system call for each, nor a lookup, queueing discipline or tap on the way to the driver.
pub(crate) struct XdpSender {
    socket: OwnedFd,
    memory: Mapping,
    transmit: XdpRing,
    completed: XdpRing,
    /// Frames that the kernel does not have: where they begin in `memory`.
    free: Vec<u64>,
}

/// Memory that belongs to one value alone, until it is dropped.
struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: nobody but its owner has a pointer to it.
unsafe impl Send for Mapping {}

/// A ring that the kernel and this process share: of them one writes entries and one reads them.
struct XdpRing {
    mapping: Mapping,
    offsets: libc::xdp_ring_offset,
}

impl Mapping {
    /// Anonymous memory, or what `file` has at an offset.
    fn new(length: usize, file: Option<(&OwnedFd, u64)>) -> io::Result<Mapping> {
        let (flags, fd, offset) = match file {
            Some((fd, offset)) => (libc::MAP_SHARED, fd.as_raw_fd(), offset),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses where, so nothing of ours is mapped over.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags | libc::MAP_POPULATE,
                fd,
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).expect("the first page is never mapped");
        Ok(Mapping { base, length })
    }

    /// Where so many octets begin at `offset`.
    ///
    /// # Panics
    ///
    /// If they do not lie within.
    fn at(&self, offset: usize, octets: usize) -> *mut u8 {
        let end = offset.checked_add(octets);
        assert!(
            end.is_some_and(|end| end <= self.length),
            "{offset} + {octets}"
        );
        // SAFETY: it was just compared.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is what `new` mapped, and nobody has a pointer into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

impl XdpRing {
    fn counter(&self, offset: u64) -> &AtomicU32 {
        let at = self.mapping.at(offset as usize, mem::size_of::<u32>());
        // SAFETY: it lies within the mapping, which lives as long as `self`; the kernel aligns it, and uses it as an
        // atomic word, too.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.counter(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.counter(self.offsets.consumer)
    }

    fn entry<T>(&self, number: u32) -> *mut T {
        let number = number as usize % XdpSender::FRAMES;
        let offset = self.offsets.desc as usize + number * mem::size_of::<T>();
        self.mapping.at(offset, mem::size_of::<T>()).cast()
    }
}

impl XdpSender {
    /// A power of two: as many entries as each ring has.
    const FRAMES: usize = 2048;
    /// The least that the kernel takes.
    const FRAME: usize = 2048;

    /// Opens one for the first queue of a device.
    pub(crate) fn new(device: u32) -> io::Result<XdpSender> {
        // SAFETY: the arguments are numbers, and the descriptor is owned by nobody else.
        let socket = unsafe {
            match libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
                -1 => return Err(io::Error::last_os_error()),
                fd => OwnedFd::from_raw_fd(fd),
            }
        };
        let memory = Mapping::new(XdpSender::FRAMES * XdpSender::FRAME, None)?;
        // SAFETY: all-zero is a valid `xdp_umem_reg`.
        let mut register: libc::xdp_umem_reg = unsafe { mem::zeroed() };
        register.addr = memory.base.as_ptr() as u64;
        register.len = memory.length as u64;
        register.chunk_size = XdpSender::FRAME as u32;
        set_xdp_option(&socket, libc::XDP_UMEM_REG, &register)?;
        let entries = XdpSender::FRAMES as u32;
        // Nothing is received, yet no socket is bound without a ring of frames for that.
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_TX_RING,
        ] {
            set_xdp_option(&socket, ring, &entries)?;
        }
        let offsets = xdp_offsets(&socket)?;
        let ring = |offsets: libc::xdp_ring_offset, entry: usize, page: u64| {
            let length = offsets.desc as usize + XdpSender::FRAMES * entry;
            let mapping = Mapping::new(length, Some((&socket, page)))?;
            io::Result::Ok(XdpRing { mapping, offsets })
        };
        let transmit = ring(
            offsets.tx,
            mem::size_of::<libc::xdp_desc>(),
            libc::XDP_PGOFF_TX_RING as u64,
        )?;
        let completed = ring(
            offsets.cr,
            mem::size_of::<u64>(),
            libc::XDP_UMEM_PGOFF_COMPLETION_RING,
        )?;
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: libc::XDP_COPY,
            sxdp_ifindex: device,
            sxdp_queue_id: 0,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the kernel reads as many octets as the address has.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        let frames = (0..XdpSender::FRAMES).map(|number| (number * XdpSender::FRAME) as u64);
        Ok(XdpSender {
            socket,
            memory,
            transmit,
            completed,
            free: frames.collect(),
        })
    }

    /// Sends frames, [`MOST_AT_ONCE`] at most, and says how many of the first the kernel took. An error is the first
    /// frame's; `ENOBUFS` and `EAGAIN` pass.
    pub(crate) fn send(&mut self, frames: &[impl AsRef<[u8]>]) -> io::Result<usize> {
        self.reclaim();
        let count = frames.len().min(MOST_AT_ONCE).min(self.free.len());
        let first = self.transmit.producer().load(Ordering::Relaxed);
        for (number, frame) in frames[..count].iter().enumerate() {
            let frame = frame.as_ref();
            assert!(frame.len() <= XdpSender::FRAME, "{} octets", frame.len());
            let addr = self.free.pop().expect("there are as many");
            let to = self.memory.at(addr as usize, frame.len());
            let entry = self
                .transmit
                .entry::<libc::xdp_desc>(first.wrapping_add(number as u32));
            let descriptor = libc::xdp_desc {
                addr,
                len: frame.len() as u32,
                options: 0,
            };
            // SAFETY: the kernel has given this frame back, and does not look at this entry before the counter says
            // so; both lie within their mappings.
            unsafe {
                std::ptr::copy_nonoverlapping(frame.as_ptr(), to, frame.len());
                entry.write(descriptor);
            }
        }
        let producer = self.transmit.producer();
        producer.store(first.wrapping_add(count as u32), Ordering::Release);
        let (taken, refused) = self.kick(first, count);
        // The kernel reads the ring only while it is asked to: what it left can be taken back.
        producer.store(first.wrapping_add(taken as u32), Ordering::Release);
        for number in taken..count {
            let entry = self
                .transmit
                .entry::<libc::xdp_desc>(first.wrapping_add(number as u32));
            // SAFETY: it was written above.
            self.free.push(unsafe { entry.read() }.addr);
        }
        match refused {
            // The driver dropped the last of those that were taken.
            Some(error) if error.raw_os_error() == Some(libc::EBUSY) => match taken {
                ..=1 => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => Ok(taken - 1),
            },
            Some(error) if taken == 0 => Err(error),
            None if taken == 0 => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            _ => Ok(taken),
        }
    }

    /// Has the kernel send what stands in the ring, of which it takes some at each call; says how many it took, and why
    /// no more.
    fn kick(&self, first: u32, count: usize) -> (usize, Option<io::Error>) {
        let taken = || {
            let consumer = self.transmit.consumer().load(Ordering::Acquire);
            consumer.wrapping_sub(first) as usize
        };
        let mut before = taken();
        while before < count {
            // SAFETY: without data and address there is nothing to read.
            let sent = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            let error = (sent < 0).then(io::Error::last_os_error);
            let now = taken();
            let goes_on = match error.as_ref().and_then(io::Error::raw_os_error) {
                None | Some(libc::EAGAIN | libc::ENOBUFS) => now > before,
                Some(libc::EINTR) => true,
                Some(_) => false,
            };
            before = now;
            if !goes_on {
                return (now, error);
            }
        }
        (before, None)
    }

    /// Takes back the frames that are sent.
    fn reclaim(&mut self) {
        let ring = &self.completed;
        let end = ring.producer().load(Ordering::Acquire);
        let mut next = ring.consumer().load(Ordering::Relaxed);
        while next != end {
            // SAFETY: the kernel wrote this entry before it said so, and leaves it until it is given back.
            self.free.push(unsafe { ring.entry::<u64>(next).read() });
            next = next.wrapping_add(1);
        }
        ring.consumer().store(next, Ordering::Release);
    }
}

fn set_xdp_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets from `value` as it has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Where the counters and entries of an AF_XDP socket's rings are.
fn xdp_offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: all-zero is a valid `xdp_mmap_offsets`.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&offsets) as libc::socklen_t;
    // SAFETY: the kernel writes as many octets as `length` says, and there are as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            libc::XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut length,
        )
    };
    match result {
        0 if length as usize == mem::size_of_val(&offsets) => Ok(offsets),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps the host's connection tracking from collecting the fragments that a raw socket sends (`IP_NODEFRAG`).
pub(crate) fn send_fragments_as_they_are(socket: &Socket) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the kernel reads one `int` from `yes`, which is one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_NODEFRAG,
            (&raw const yes).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts a process that goes on from here with a copy of this one's memory; its number, or `None` in itself.
/// It must not have other threads: what they hold would be held for ever.
pub(crate) fn fork() -> io::Result<Option<libc::pid_t>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        let why = format!(
            "there are {threads} threads, of a preloaded library, it seems, and only one may be"
        );
        return Err(io::Error::other(why));
    }
    // SAFETY: there are no other threads whose locks or memory the copy could find half done.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        process => Ok(Some(process)),
    }
}

/// Bits that this process shares with those that it forks, all off at first.
#[derive(Debug)]
pub(crate) struct SharedBits {
    words: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: all access is by atomic operations on memory that stays mapped as long as the `SharedBits` is there.
unsafe impl Send for SharedBits {}
// SAFETY: as above.
unsafe impl Sync for SharedBits {}

impl SharedBits {
    /// So many, and at least one.
    pub(crate) fn new(bits: usize) -> io::Result<SharedBits> {
        let count = bits.div_ceil(64).max(1);
        // SAFETY: the kernel chooses where, so nothing of ours is mapped over.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<AtomicU64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(SharedBits {
            words: NonNull::new(base.cast()).expect("the first page is never mapped"),
            count,
        })
    }

    fn word(&self, bit: usize) -> (&AtomicU64, u64) {
        // SAFETY: the mapping has `count` words, is aligned to the page and zero at first, which an `AtomicU64` may be.
        let words = unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.count) };
        (&words[bit / 64], 1 << (bit % 64))
    }

    pub(crate) fn set(&self, bit: usize, to: bool) {
        let (word, mask) = self.word(bit);
        match to {
            true => word.fetch_or(mask, Ordering::Relaxed),
            false => word.fetch_and(!mask, Ordering::Relaxed),
        };
    }

    pub(crate) fn is_set(&self, bit: usize) -> bool {
        let (word, mask) = self.word(bit);
        word.load(Ordering::Relaxed) & mask != 0
    }
}

impl Drop for SharedBits {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nobody has a reference to it any more. That it fails would be a
        // mapping that is not there.
        unsafe {
            libc::munmap(
                self.words.as_ptr().cast(),
                self.count * size_of::<AtomicU64>(),
            )
        };
    }
}

/// Ignores the signals by which a terminal, a session or an operator ends a process.
pub(crate) fn ignore_endings() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is a valid disposition for each of these, and no handler is replaced that
        // anything in this process relies on.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Ignores Ctrl-C, as what this process starts does from then on (ssh, too), so that it stays in the terminal's
/// foreground group, where ssh can ask for a password, and still lives on while the controller cleans up.
pub(crate) fn ignore_interrupt() {
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

/// Asks a file for something; what goes with it are zeros.
#[cfg(test)]
pub(crate) fn request(file: impl AsFd, request: libc::Ioctl) -> io::Result<()> {
    let mut octets = [0_u8; 256];
    // SAFETY: the kernel reads or writes less than what `octets` has, which outlives the call.
    match unsafe { libc::ioctl(file.as_fd().as_raw_fd(), request, octets.as_mut_ptr()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A terminal's columns and rows (`TIOCGWINSZ`).
pub(crate) fn window_size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel writes one `winsize` to `size`, which is one.
    let result = unsafe {
        libc::ioctl(
            terminal.as_fd().as_raw_fd(),
            libc::TIOCGWINSZ,
            &raw mut size,
        )
    };
    match result {
        0 => Ok((size.ws_col, size.ws_row)),
        _ => Err(io::Error::last_os_error()),
    }
}

static CONTINUED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_continued(_signal: libc::c_int) {
    CONTINUED.store(true, Ordering::Relaxed);
}

/// Notes from now on that the process was stopped and goes on (SIGCONT).
pub(crate) fn watch_continued() {
    let handler = note_continued as extern "C" fn(libc::c_int);
    // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and nothing else in this process
    // handles SIGCONT; `signal` restarts interrupted system calls.
    unsafe { libc::signal(libc::SIGCONT, handler as libc::sighandler_t) };
}

/// Whether it was since the last call.
pub(crate) fn was_continued() -> bool {
    CONTINUED.swap(false, Ordering::Relaxed)
}

/// `CLOCK_MONOTONIC`.
pub(crate) fn monotonic() -> std::time::Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one `timespec` to `time`, which is one; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    std::time::Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A mount of tracefs that no path leads to and that ends with its descriptor.
pub(crate) fn detached_tracefs() -> io::Result<OwnedFd> {
    const CLOEXEC: libc::c_uint = 1; // FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC
    const CREATE: libc::c_uint = 6; // FSCONFIG_CMD_CREATE
    // SAFETY: the name is a C string; a descriptor that is returned is new, and nobody else's.
    let context = unsafe {
        owned(libc::syscall(
            libc::SYS_fsopen,
            c"tracefs".as_ptr(),
            CLOEXEC,
        ))
    }?;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: this command takes neither key nor value, and both are null.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            CREATE,
            null,
            null,
            0,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it takes no pointer; a descriptor that is returned is new, and nobody else's.
    unsafe {
        owned(libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            CLOEXEC,
            0,
        ))
    }
}

/// # Safety
///
/// What is not negative must be a new descriptor that nobody else owns.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match result {
        ..0 => Err(io::Error::last_os_error()),
        // SAFETY: the caller says so.
        descriptor => Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }),
    }
}

/// Opens the tracepoint of this number; records have `TIME` (of `CLOCK_MONOTONIC`) and `RAW`.
pub(crate) fn open_tracepoint(tracepoint: u64, cpu: i32, filter: &CStr) -> io::Result<OwnedFd> {
    const TYPE_TRACEPOINT: u32 = 2;
    const TIME_AND_RAW: u64 = 1 << 2 | 1 << 10;
    const SET_FILTER: libc::Ioctl = libc::_IOW::<*const libc::c_char>(b'$' as u32, 6);
    const SIZE: usize = 112; // PERF_ATTR_SIZE_VER5
    // `use_clockid`, the 26th of a bit field.
    let flags: u64 = 1 << if cfg!(target_endian = "big") { 38 } else { 25 };
    let half = |low: u32, high: u32| {
        let [a, b, c, d] = low.to_ne_bytes();
        let [e, f, g, h] = high.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    };
    let mut attribute = [0_u64; SIZE / 8];
    attribute[0] = half(TYPE_TRACEPOINT, SIZE as u32);
    attribute[1] = tracepoint;
    attribute[2] = 1; // sample_period
    attribute[3] = TIME_AND_RAW;
    attribute[5] = flags;
    attribute[11] = half(0, libc::CLOCK_MONOTONIC as u32);
    let cloexec: libc::c_ulong = 8; // PERF_FLAG_FD_CLOEXEC
    // SAFETY: the kernel reads as many octets as the attribute's second word says, which is its size; a
    // descriptor that is returned is new, and nobody else's.
    let event = unsafe {
        owned(libc::syscall(
            libc::SYS_perf_event_open,
            attribute.as_ptr(),
            -1,
            cpu,
            -1,
            cloexec,
        ))
    }?;
    // SAFETY: the kernel reads a C string, and `filter` is one.
    if unsafe { libc::ioctl(event.as_raw_fd(), SET_FILTER, filter.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(event)
}

/// The records of a tracepoint on one CPU, all processes: `perf_event_open(2)`.
pub(crate) struct Ring {
    /// The mapping lives on without it, and the event with it.
    _event: OwnedFd,
    base: NonNull<u8>,
    page: usize,
}

// SAFETY: the mapping belongs to the `Ring` alone, and no thread has a claim to it.
unsafe impl Send for Ring {}

impl Ring {
    /// Pages for records, a power of two.
    const PAGES: usize = 16;
    /// `data_head` and `data_tail` in `perf_event_mmap_page`.
    const HEAD: usize = 1024;
    const TAIL: usize = 1032;

    /// Maps the records of an event that [`open_tracepoint`] opened.
    pub(crate) fn map(event: OwnedFd) -> io::Result<Ring> {
        // SAFETY: it takes no pointer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        // SAFETY: the kernel chooses where, so nothing of ours is mapped over.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page * (1 + Ring::PAGES),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Ring {
            _event: event,
            base: NonNull::new(base.cast()).expect("the first page is never mapped"),
            page,
        })
    }

    /// The records since the last call.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let size = self.page * Ring::PAGES;
        // SAFETY: both lie within the first page of the mapping, are aligned, and are read and written by the
        // kernel as 64-bit words.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(self.base.as_ptr().add(Ring::HEAD).cast()),
                AtomicU64::from_ptr(self.base.as_ptr().add(Ring::TAIL).cast()),
            )
        };
        let (from, to) = (tail.load(Ordering::Relaxed), head.load(Ordering::Acquire));
        let length = (to.wrapping_sub(from) as usize).min(size);
        let start = from as usize % size;
        let first = length.min(size - start);
        let mut records = vec![0; length];
        // SAFETY: both pieces lie within the pages behind the first; the kernel does not write between tail and
        // head; `records` is as long as both.
        unsafe {
            let data = self.base.as_ptr().add(self.page);
            std::ptr::copy_nonoverlapping(data.add(start), records.as_mut_ptr(), first);
            let rest = records.as_mut_ptr().add(first);
            std::ptr::copy_nonoverlapping(data, rest, length - first);
        }
        tail.store(to, Ordering::Release);
        records
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: it is what `open` mapped, and nobody has a pointer into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.page * (1 + Ring::PAGES)) };
    }
}
