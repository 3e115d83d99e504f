//! The path file.

use std::net::Ipv4Addr;

/// A valid path file: addresses are unicast and do not contradict one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathFile {
    /// The virtual IP.
    pub vip: Ipv4Addr,
    /// The service's port.
    pub port: u16,
    /// The service's protocol.
    pub protocol: ServiceProtocol,
    /// The director's own address.
    pub dip: Ipv4Addr,
    /// The command that runs an argv on the director; `["local"]` is this host.
    pub director_via: Option<Vec<String>>,
    /// The director's device toward the client.
    pub ingress: Option<String>,
    /// The director's device toward the real servers.
    pub egress: Option<String>,
    /// The real servers; never empty.
    pub realservers: Vec<RealServer>,
    /// The client's address.
    pub cip: Ipv4Addr,
    /// The command that runs an argv on the client.
    pub client_via: Option<Vec<String>>,
}

/// A `[[realserver]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Its name; unique.
    pub name: String,
    /// Its own address.
    pub rip: Ipv4Addr,
    /// The command that runs an argv there.
    pub via: Option<Vec<String>>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Its tunnel device.
    pub tunnel: Option<String>,
}

/// The service's transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocol {
    /// `tcp`, the default.
    Tcp,
    /// `udp`.
    Udp,
}
