//! Every `unsafe` line of the crate: what neither socket2 nor nix nor tokio offers safely.

#![expect(unsafe_code, reason = "this file is where the crate keeps it")]

use std::io;
use std::mem;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;

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

/// Ignores the signals by which a terminal, a session or an operator ends a process.
pub(crate) fn ignore_endings() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: SIG_IGN is a valid disposition for each of these, and no handler is replaced that
        // anything in this process relies on.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Lets a child ignore Ctrl-C, as what it becomes by `execve` does from then on (ssh, too), so that it
/// stays in the terminal's foreground group, where ssh can ask for a password, and still lives on while
/// the controller cleans up.
pub(crate) fn without_interrupt(command: &mut tokio::process::Command) {
    // SAFETY: between fork and execve the closure calls only `signal`, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            Ok(())
        });
    }
}
