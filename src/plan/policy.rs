//! What the administrator of a host lets tunproof do there, whoever asks.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use crate::plan::Range;

/// A family of packets, by whom they go between: what kinds of probes have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Client to VIP: `service` and `ipvs-loop`, and real connections.
    Service,
    /// In a tunnel from the director to the real server, client to VIP: `tunnel-syn`, `tunnel-udp`, `tunnel-trace`.
    Tunnel,
    /// In the same tunnel, director to VIP: `reflect`, `reflect-syn`, `mtu`.
    Reflect,
    /// In a tunnel from the client to the real server: `open-tunnel`, `spoof-tunnel`.
    OpenTunnel,
    /// VIP to client or director: `spoof-trace`, `spoof-synack`, `return-control`.
    Spoof,
    /// Real server to client or director, director to real server: `control-trace`, `control-synack`,
    /// `tunnel-control`.
    Control,
    /// ARP requests.
    Arp,
    /// What else a suite writes out.
    Script,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 8] = [
        Family::Service,
        Family::Tunnel,
        Family::Reflect,
        Family::OpenTunnel,
        Family::Spoof,
        Family::Control,
        Family::Arp,
        Family::Script,
    ];

    /// Its name, as in a policy.
    pub fn name(self) -> &'static str {
        match self {
            Family::Service => "service",
            Family::Tunnel => "tunnel",
            Family::Reflect => "reflect",
            Family::OpenTunnel => "open-tunnel",
            Family::Spoof => "spoof",
            Family::Control => "control",
            Family::Arp => "arp",
            Family::Script => "script",
        }
    }
}

/// Its name.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A host's policy. What it does not name, every request may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The file that it stands in; `None` where there is none.
    pub file: Option<String>,
    /// The VIPs that may be probed.
    pub vips: Option<Vec<Range>>,
    /// The real servers' own addresses.
    pub realservers: Option<Vec<Range>>,
    /// The clients.
    pub clients: Option<Vec<Range>>,
    /// The directors' own addresses.
    pub directors: Option<Vec<Range>>,
    /// The packets that may be sent.
    pub probes: Option<BTreeSet<Family>>,
    /// Packets a second, at most; what closes what they opened is not counted. `None`: [`Policy::usual_rate`].
    pub rate: Option<u32>,
    /// Whether neighbour entries may be deleted, which are put back.
    pub forget_neighbours: bool,
}

/// What holds where there is no file.
impl Default for Policy {
    fn default() -> Policy {
        Policy {
            file: None,
            vips: None,
            realservers: None,
            clients: None,
            directors: None,
            probes: None,
            rate: None,
            forget_neighbours: true,
        }
    }
}

impl Policy {
    /// Where an agent looks for it.
    pub const FILE: &str = "/etc/tunproof/agent.toml";

    /// Packets a second for each real server that a host has to do with, where nobody says another rate.
    pub const RATE: u32 = 100;

    /// The same in all at most, however many they are.
    const MOST: u32 = 10_000;

    /// Packets a second that a host sends at most that has to do with so many real servers, where nobody says another
    /// rate: so what each of them, and its network, gets and sends does not grow with the others, and neither does
    /// the time that it takes.
    pub fn usual_rate(realservers: usize) -> u32 {
        let realservers = u32::try_from(realservers).unwrap_or(u32::MAX).max(1);
        Policy::RATE.saturating_mul(realservers).min(Policy::MOST)
    }

    /// Where it stands, for messages.
    pub fn place(&self) -> &str {
        self.file.as_deref().unwrap_or(Policy::FILE)
    }

    /// Whether a list has an address; none has all.
    pub fn names(list: &Option<Vec<Range>>, address: Ipv4Addr) -> bool {
        let has = |list: &Vec<Range>| list.iter().any(|range| range.contains(address));
        list.as_ref().is_none_or(has)
    }

    /// Whether packets of a family may be sent.
    pub fn allows(&self, family: Family) -> bool {
        let has = |probes: &BTreeSet<Family>| probes.contains(&family);
        self.probes.as_ref().is_none_or(has)
    }
}
