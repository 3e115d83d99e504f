//! The hosts a proof can stand on.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Station;

/// A host of the path; real servers by their place in the path file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// The load balancer.
    Director,
    /// The real server of path number `.0`.
    Realserver(usize),
    /// The client.
    Client,
}

impl Host {
    /// Which host of path `path` has `station`.
    pub fn of(station: Station, path: usize) -> Host {
        match station {
            Station::ClientIn | Station::ClientOut => Host::Client,
            Station::DirectorIn | Station::DirectorOut => Host::Director,
            Station::RealserverIn
            | Station::RealserverTunnel
            | Station::RealserverOut
            | Station::RealserverArp => Host::Realserver(path),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Director => f.write_str("director"),
            Host::Realserver(n) => write!(f, "real server {}", n + 1),
            Host::Client => f.write_str("client"),
        }
    }
}
