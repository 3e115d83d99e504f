//! The paths to prove.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Host;
use crate::plan::SessionKey;

/// The service's transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
}

/// One path: client, director, one real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The real server's name in the path file.
    pub realserver: String,
    /// The virtual IP.
    pub vip: Ipv4Addr,
    /// The service's port.
    pub port: u16,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The real server's own address.
    pub rip: Ipv4Addr,
    /// The director's own address; only `realserver` and `listen` may lack it.
    pub dip: Option<Ipv4Addr>,
    /// The client's address.
    pub cip: Ipv4Addr,
    /// The real server's gateway, where the user named it; else it is discovered.
    pub gateway: Option<Ipv4Addr>,
    /// The real server's tunnel device, where the user named it; else it is discovered.
    pub tunnel: Option<String>,
}

/// Everything that one command sets out to prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The session's key.
    pub session: SessionKey,
    /// The paths, in the order of the path file; never empty, all with the same client, VIP and director.
    pub paths: Vec<Path>,
    /// The hosts that tunproof runs on.
    pub vantages: Vec<Host>,
    /// The director's device toward the client, where the user named it.
    pub ingress: Option<String>,
    /// The director's device toward the real servers, where the user named it.
    pub egress: Option<String>,
}

impl Plan {
    /// Whether tunproof runs on `host`.
    pub fn has(&self, host: Host) -> bool {
        self.vantages.contains(&host)
    }

    /// The name people gave `host`.
    pub fn host_name(&self, host: Host) -> String {
        match host {
            Host::Realserver(path) => self.paths[path].realserver.clone(),
            other => other.to_string(),
        }
    }
}
