//! Hardware addresses: what a host knows, and what it was told while we listened.

use std::net::Ipv4Addr;

use crate::evidence::Evidence;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::matching::Arp;
use crate::plan::Host;

impl Evidence {
    /// The hardware address of a neighbour of a host on one of its devices: of its last ARP reply there, or as the
    /// host knew it before.
    pub fn neighbour(&self, host: Host, device: &str, ip: Ipv4Addr) -> Option<[u8; 6]> {
        let captures = self.items().iter().rev().filter(|item| item.host == host);
        let captures = captures.filter_map(|item| match &item.what {
            What::Arp { capture, .. } | What::Seen { capture, .. } => Some(capture),
            _ => None,
        });
        let mut replies = captures
            .filter(|capture| capture.protocol == Capture::ARP && capture.device == device)
            .filter(|capture| capture.direction == Direction::In)
            .filter_map(|capture| Arp::read(&capture.bytes))
            .filter(|arp| (arp.operation, arp.sender) == (Arp::REPLY, ip));
        let told = replies.next().map(|arp| arp.sender_mac);
        told.or_else(|| {
            let mut known = self.facts(host)?.neighbours.iter();
            known
                .find(|neighbour| neighbour.ip == ip && neighbour.device == device)
                .and_then(|neighbour| neighbour.mac)
        })
    }
}
