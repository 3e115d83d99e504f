//! Where a packet can be seen.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

/// A point at a vantage where a packet can be seen (the HOWTO's `tcpdump` points, the client's, and ARP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Station {
    /// What the client sends.
    #[serde(rename = "client.out")]
    ClientOut,
    /// What arrives at the client.
    #[serde(rename = "client.in")]
    ClientIn,
    /// `tcpdump -i INDEV host CIP` on the director, and whatever else arrives there.
    #[serde(rename = "director.in")]
    DirectorIn,
    /// `tcpdump -i OUTDEV host RIP` on the director.
    #[serde(rename = "director.out")]
    DirectorOut,
    /// `tcpdump -i IN_ETH host DIP` on the real server.
    #[serde(rename = "realserver.in")]
    RealserverIn,
    /// `tcpdump -i tunl0 host CIP` on the real server.
    #[serde(rename = "realserver.tunnel")]
    RealserverTunnel,
    /// `tcpdump -i OUT_DEV host CIP` on the real server.
    #[serde(rename = "realserver.out")]
    RealserverOut,
    /// ARP on the real server's links.
    #[serde(rename = "realserver.arp")]
    RealserverArp,
}

impl Station {
    /// The station's name in reports.
    pub fn id(self) -> &'static str {
        match self {
            Station::ClientOut => "client.out",
            Station::ClientIn => "client.in",
            Station::DirectorIn => "director.in",
            Station::DirectorOut => "director.out",
            Station::RealserverIn => "realserver.in",
            Station::RealserverTunnel => "realserver.tunnel",
            Station::RealserverOut => "realserver.out",
            Station::RealserverArp => "realserver.arp",
        }
    }
}

impl fmt::Display for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}
