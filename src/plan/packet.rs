//! A packet that a suite writes out.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Flow;
use crate::plan::Protocol;
use crate::wire::IpProtocol;
use crate::wire::Mac;
use crate::wire::layers::Field;
use crate::wire::layers::Ipv4;
use crate::wire::layers::Layer;

/// A packet written out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Its layers, outermost first.
    pub layers: Vec<Layer>,
    /// What the suite left out, and carries the packet's identity: which field of which layer.
    pub carriers: Vec<(usize, Carrier)>,
    /// Hardware addresses that the suite left out, too: of which layer, and whose it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hardware: Vec<(usize, Hardware)>,
}

/// Whose hardware address a frame bears, where a suite leaves that to tunproof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hardware {
    /// The source of an Ethernet header, or the sender of ARP: the device's by which it leaves.
    Own,
    /// The destination of an Ethernet header: that of the next hop.
    NextHop,
}

/// A field that carries the identity of a packet written out, where its value is left to tunproof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The identification of an IPv4 header.
    Identification,
    /// The source port of a UDP or TCP header.
    SourcePort,
    /// The sequence number of a TCP segment.
    SequenceNumber,
    /// The acknowledgment number of a TCP segment with ACK: what an RST that answers it gives back.
    AcknowledgmentNumber,
    /// Identifier and sequence number of an ICMP echo.
    Echo,
    /// The octets behind a UDP header: the layer is the `Raw` one.
    Payload,
}

impl Packet {
    /// Its IPv4 headers, outermost first: those that lie directly in one another, so none that an ICMP error
    /// quotes.
    pub fn headers(&self) -> Vec<&Ipv4> {
        let behind_ethernet = match self.layers.first() {
            Some(Layer::Ethernet(_)) => &self.layers[1..],
            _ => &self.layers[..],
        };
        let headers = behind_ethernet.iter().map_while(|layer| match layer {
            Layer::Ipv4(ip) => Some(ip),
            _ => None,
        });
        headers.collect()
    }

    /// Whether it is sent without a tunnel header, be it one in raw octets.
    pub fn is_plain(&self) -> bool {
        let headers = self.headers();
        let holds_another = |ip: &Ipv4| ip.protocol == Field::Forced(IpProtocol::IPIP);
        headers.len() < 2 && !headers.iter().any(|ip| holds_another(ip))
    }

    /// Whether what a suite left out is the hardware address of the next hop.
    pub fn asks_next_hop(&self) -> bool {
        self.hardware
            .iter()
            .any(|(_, whose)| *whose == Hardware::NextHop)
    }

    /// The same with the hardware addresses that the suite left out.
    pub fn with_hardware(mut self, own: [u8; 6], next_hop: [u8; 6]) -> Packet {
        let (own, next_hop) = (Mac(own), Mac(next_hop));
        for (layer, whose) in std::mem::take(&mut self.hardware) {
            match (self.layers.get_mut(layer), whose) {
                (Some(Layer::Ethernet(ethernet)), Hardware::Own) => ethernet.source = own,
                (Some(Layer::Ethernet(ethernet)), Hardware::NextHop) => {
                    ethernet.destination = next_hop;
                }
                (Some(Layer::Arp(arp)), _) => arp.sender_mac = own,
                _ => {}
            }
        }
        self
    }

    /// Whether it starts at an Ethernet header.
    pub fn is_frame(&self) -> bool {
        matches!(self.layers.first(), Some(Layer::Ethernet(_)))
    }

    /// Where it goes: the destination of the outermost IPv4 header, or the target of ARP.
    pub fn destination(&self) -> Ipv4Addr {
        match self.headers().first() {
            Some(outermost) => outermost.destination,
            None => self.flow(0).destination,
        }
    }

    /// Addresses and ports of the innermost datagram, as far as it has them: the ends of ARP are its sender and
    /// target. `own_port` is the source port, where that is left to tunproof.
    pub fn flow(&self, own_port: u16) -> Flow {
        let headers = self.headers();
        let behind = usize::from(self.is_frame()) + headers.len();
        let next = self.layers.get(behind);
        let (source, destination) = match (headers.last(), next) {
            (Some(ip), _) => (ip.source, ip.destination),
            (None, Some(Layer::Arp(arp))) => (arp.sender_ip, arp.target_ip),
            (None, _) => (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED),
        };
        let (protocol, source_port, destination_port) = match next {
            Some(Layer::Udp(udp)) => (Protocol::Udp, udp.source_port, udp.destination_port),
            Some(Layer::Tcp(tcp)) => (Protocol::Tcp, tcp.source_port, tcp.destination_port),
            _ => (Protocol::Udp, 0, 0),
        };
        let is_left_out = self.carriers.contains(&(behind, Carrier::SourcePort));
        Flow {
            protocol,
            source,
            source_port: if is_left_out { own_port } else { source_port },
            destination,
            destination_port,
        }
    }
}
