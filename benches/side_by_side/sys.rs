//! Every `unsafe` line of the benchmarks: the bare system calls that everything else is measured against.

#![expect(
    unsafe_code,
    reason = "the references use the kernel's interface as it is"
)]

use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

/// Packets of one system call.
pub(crate) const BATCH: usize = 64;

/// Has a command's process end with the thread that starts it.
pub(crate) fn die_with_starter(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec there is one system call and nothing else.
    unsafe {
        command.pre_exec(|| {
            match libc::prctl(
                libc::PR_SET_PDEATHSIG,
                libc::SIGKILL as libc::c_ulong,
                0,
                0,
                0,
            ) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }
}

/// Waits for a child: whether its exit status was 0, 1 or 3, and the CPU time that it took.
pub(crate) fn wait(child: u32) -> io::Result<(i32, Duration)> {
    let mut status = 0;
    // SAFETY: all-zero is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one status and one `rusage`.
    let waited = unsafe { libc::wait4(child as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    if waited < 0 {
        return Err(io::Error::last_os_error());
    }
    let duration = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let code = match libc::WIFEXITED(status) {
        true => libc::WEXITSTATUS(status),
        false => -libc::WTERMSIG(status),
    };
    Ok((code, duration(usage.ru_utime) + duration(usage.ru_stime)))
}

/// An AF_PACKET socket for whole frames, on one device. With `ethertype` 0 it receives nothing.
pub(crate) fn packet_socket(device: u32, ethertype: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    if ethertype != 0 {
        set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
    } else {
        set_packet_option(&socket, libc::PACKET_QDISC_BYPASS, &1)?;
    }
    Ok(socket).and_then(|socket| bind(socket, device, ethertype))
}

fn bind(socket: Socket, device: u32, ethertype: u16) -> io::Result<Socket> {
    // SAFETY: the storage is larger than a `sockaddr_ll`, aligned and zeroed; the length is that of what is written.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = &mut *storage.cast::<libc::sockaddr_ll>();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = ethertype.to_be();
            address.sll_ifindex = device as i32;
            *length = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok(socket)
}

fn set_packet_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads as many octets as the value has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
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

/// Sends at most [`BATCH`] frames with one `sendmmsg`; says how many went.
pub(crate) fn send_many<F: AsRef<[u8]>>(socket: &Socket, frames: &[F]) -> io::Result<usize> {
    let count = frames.len().min(BATCH);
    // SAFETY: all-zero is a valid `iovec` and a valid `mmsghdr`.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    for (at, frame) in frames.iter().take(count).enumerate() {
        vectors[at].iov_base = frame.as_ref().as_ptr().cast_mut().cast();
        vectors[at].iov_len = frame.as_ref().len();
        messages[at].msg_hdr.msg_iov = &raw mut vectors[at];
        messages[at].msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: `count` headers point to a vector each, and those to frames that live until the call returns.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            0,
        )
    };
    match sent {
        0.. => Ok(sent as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Receives at most [`BATCH`] frames of up to 256 octets with one `recvmmsg`; says how many came.
pub(crate) fn receive_many(socket: &Socket, frames: &mut [[u8; 256]; BATCH]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid `iovec` and a valid `mmsghdr`.
    let (mut vectors, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    for (at, frame) in frames.iter_mut().enumerate() {
        vectors[at].iov_base = frame.as_mut_ptr().cast();
        vectors[at].iov_len = frame.len();
        messages[at].msg_hdr.msg_iov = &raw mut vectors[at];
        messages[at].msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: each header points to a vector, and that to 256 octets that the kernel may write to.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            BATCH as libc::c_uint,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    match received {
        0.. => Ok(received as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many packets an AF_PACKET socket dropped since the last call.
pub(crate) fn dropped(socket: &Socket) -> io::Result<u64> {
    // `tpacket_stats_v3`: packets, drops, freezes; of a socket without a ring the first two.
    let mut counted = [0u32; 3];
    let mut length = mem::size_of_val(&counted) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` octets.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            counted.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(counted[1].into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A receive ring, TPACKET_V3. Its blocks are small: each is handed over after its time, however little it holds, so
/// that their number times that is the stall that it outlives.
pub(crate) struct Ring {
    pub(crate) socket: Socket,
    base: NonNull<u8>,
    next: usize,
}

// SAFETY: the mapping belongs to the `Ring` alone.
unsafe impl Send for Ring {}

impl Ring {
    pub(crate) const BLOCKS: usize = 1024;
    pub(crate) const BLOCK: usize = 64 << 10;

    /// A block that is not full is handed over after `patience` milliseconds.
    pub(crate) fn open(device: u32, patience: u32) -> io::Result<Ring> {
        const FRAME: usize = 2048;
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        set_packet_option(&socket, libc::PACKET_IGNORE_OUTGOING, &1)?;
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set_packet_option(&socket, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req3 {
            tp_block_size: Ring::BLOCK as u32,
            tp_block_nr: Ring::BLOCKS as u32,
            tp_frame_size: FRAME as u32,
            tp_frame_nr: (Ring::BLOCKS * Ring::BLOCK / FRAME) as u32,
            tp_retire_blk_tov: patience,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_packet_option(&socket, libc::PACKET_RX_RING, &request)?;
        // SAFETY: the kernel chooses where.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Ring::BLOCKS * Ring::BLOCK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Ring {
            socket: bind(socket, device, libc::ETH_P_IP as u16)?,
            base: NonNull::new(base.cast()).expect("never the first page"),
            next: 0,
        })
    }

    /// Reads the next block if it is full or old enough: each frame, and when it arrived, in nanoseconds of the wall
    /// clock. Waits up to `wait` milliseconds for it.
    pub(crate) fn read(&mut self, wait: i32, mut frame: impl FnMut(&[u8], u64)) -> bool {
        // SAFETY: the block lies within the mapping, is aligned to the page and begins with its descriptor, whose
        // status kernel and process exchange as an atomic word.
        let (block, header, status) = unsafe {
            let block = self.base.as_ptr().add(self.next * Ring::BLOCK);
            let header = &raw mut (*block.cast::<libc::tpacket_block_desc>()).hdr.bh1;
            (
                block,
                header,
                AtomicU32::from_ptr(&raw mut (*header).block_status),
            )
        };
        let is_ready = || status.load(Ordering::Acquire) & libc::TP_STATUS_USER != 0;
        if !is_ready() {
            let mut watched = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one `pollfd`.
            unsafe { libc::poll(&raw mut watched, 1, wait) };
            if !is_ready() {
                return false;
            }
        }
        // SAFETY: the block is this process's until its status is given back.
        let (count, first) = unsafe { ((*header).num_pkts, (*header).offset_to_first_pkt) };
        let mut at = first as usize;
        for _ in 0..count {
            // SAFETY: the kernel laid a header here, and the frame behind it, within the block.
            let (told, octets) = unsafe {
                let told = block.add(at).cast::<libc::tpacket3_hdr>().read_unaligned();
                let start = block.add(at + usize::from(told.tp_mac));
                let octets = std::slice::from_raw_parts(start, told.tp_snaplen as usize);
                (told, octets)
            };
            frame(
                octets,
                u64::from(told.tp_sec) * 1_000_000_000 + u64::from(told.tp_nsec),
            );
            at += told.tp_next_offset as usize;
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % Ring::BLOCKS;
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: it is what `open` mapped.
        unsafe { libc::munmap(self.base.as_ptr().cast(), Ring::BLOCKS * Ring::BLOCK) };
    }
}
