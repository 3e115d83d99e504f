//! What is handed to the kernel to send, and what became of it.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Wall;
use crate::exchange::hexadecimal;

/// How a packet enters the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A raw `IP_HDRINCL` socket: the packet starts at its IPv4 header and passes the host's own OUTPUT
    /// hook, routing and ARP, as the host's own traffic does.
    Stack,
    /// An AF_PACKET socket on this device: the packet starts at its Ethernet header and bypasses all that.
    Frame {
        /// The device's name.
        device: String,
    },
}

/// One packet to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transmit {
    /// How.
    pub way: Way,
    /// The packet.
    #[serde(with = "hexadecimal")]
    pub bytes: Vec<u8>,
}

/// What the kernel said to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendOutcome {
    /// It took it.
    Sent {
        /// When.
        time: Wall,
    },
    /// It refused; EPERM from a raw socket is what a firewall's DROP on OUTPUT looks like.
    Refused {
        /// When.
        time: Wall,
        /// The error number, such as 1 (EPERM), 101 (ENETUNREACH).
        errno: i32,
        /// The kernel's words for it.
        error: String,
    },
    /// The agent did not hand it to the kernel: its host's policy forbids it, or nobody is there to clean up.
    Declined {
        /// When.
        time: Wall,
        /// Why.
        reason: String,
    },
}

/// What became of a real TCP connection attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectOutcome {
    /// The three-way handshake completed.
    Connected {
        /// The local end.
        local: (Ipv4Addr, u16),
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// An RST or ICMP error came back.
    Failed {
        /// The error number.
        errno: i32,
        /// The kernel's words for it.
        error: String,
    },
    /// Nothing came back in time.
    TimedOut,
    /// The agent did not open it: its host's policy forbids it.
    Declined {
        /// Why.
        reason: String,
    },
}
