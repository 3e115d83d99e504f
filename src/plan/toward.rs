//! To whom the spoof check's passes go.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Host;
use crate::plan::Path;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;

/// To whom the spoof check's passes go: each host is reached by a way of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Toward {
    /// To the client, as the service's answers do.
    #[default]
    Client,
    /// To the director, where no client is at hand: it shows what the networks do that both ways have in common, and
    /// nothing of the others.
    Director,
}

impl Toward {
    /// Both.
    pub const ALL: [Toward; 2] = [Toward::Client, Toward::Director];

    /// Its name in suites and reports.
    pub fn id(self) -> &'static str {
        match self {
            Toward::Client => "client",
            Toward::Director => "director",
        }
    }

    /// The host.
    pub fn host(self) -> Host {
        match self {
            Toward::Client => Host::Client,
            Toward::Director => Host::Director,
        }
    }

    /// Its address, if it is known.
    pub fn address(self, path: &Path) -> Option<Ipv4Addr> {
        match self {
            Toward::Client => Some(path.cip),
            Toward::Director => path.dip,
        }
    }

    /// Where the host sees what arrives, and what leaves.
    pub fn stations(self) -> (Station, Station) {
        match self {
            Toward::Client => (Station::ClientIn, Station::ClientOut),
            Toward::Director => (Station::DirectorIn, Station::DirectorOut),
        }
    }

    /// The kind of probe that goes there from the VIP, and its control: datagrams, or SYN-ACKs.
    pub fn pair(self, protocol: Protocol) -> (ProbeKind, ProbeKind) {
        match (self, protocol) {
            (Toward::Client, Protocol::Udp) => (ProbeKind::SpoofTrace, ProbeKind::ControlTrace),
            (Toward::Client, Protocol::Tcp) => (ProbeKind::SpoofSynack, ProbeKind::ControlSynack),
            (Toward::Director, Protocol::Udp) => (
                ProbeKind::SpoofTraceToDirector,
                ProbeKind::ControlTraceToDirector,
            ),
            (Toward::Director, Protocol::Tcp) => (
                ProbeKind::SpoofSynackToDirector,
                ProbeKind::ControlSynackToDirector,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_goes_where_it_should() {
        for toward in Toward::ALL {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let (spoofed, control) = toward.pair(protocol);
                assert_eq!((spoofed.toward(), control.toward()), (toward, toward));
                assert!(spoofed.is_spoofed() && !control.is_spoofed());
                for kind in [spoofed, control] {
                    assert!(kind.repeats_flows());
                    assert_eq!(kind.sends_syn_ack(), protocol == Protocol::Tcp);
                }
            }
        }
    }
}
