//! The fleets that are swept, and their probes as frames.

use std::sync::Arc;

use tunproof::craft::FleetCraft;
use tunproof::plan::Fleet;
use tunproof::plan::FleetProbe;
use tunproof::plan::SessionKey;
use tunproof::suite::FleetFile;

use crate::site;

/// Pairs of a whole sweep.
pub(crate) const PAIRS: usize = 131_072;

/// What the real servers of the sweep are: 131,070 of a prefix, and two.
const REALSERVERS: &str = r#"["10.64.0.0/15", "10.80.0.1", "10.80.0.2"]"#;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A datagram through the tunnel, to a closed port of the VIP.
    Reflect,
    /// A SYN through the tunnel, from the client.
    ClosedLoop,
}

impl Asked {
    pub(crate) fn probe(self) -> FleetProbe {
        match self {
            Asked::Reflect => FleetProbe::ReflectUdp,
            Asked::ClosedLoop => FleetProbe::ClosedLoop,
        }
    }

    /// As `sweep --probe` and the roles call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Asked::Reflect => "reflect",
            Asked::ClosedLoop => "closed-loop",
        }
    }

    pub(crate) fn from_name(name: &str) -> Asked {
        match name {
            "reflect" => Asked::Reflect,
            _ => Asked::ClosedLoop,
        }
    }

    /// The fleet file, for 131,072 pairs.
    pub(crate) fn file(self) -> String {
        self.file_of("[80]", REALSERVERS)
    }

    /// The fleet file for these ports and real servers.
    pub(crate) fn file_of(self, ports: &str, realservers: &str) -> String {
        let (dip, vip, cip) = (site::DIP, site::VIP, site::CIP);
        let (protocol, client) = match self {
            Asked::Reflect => ("udp", String::new()),
            Asked::ClosedLoop => ("tcp", format!("[client]\nip = \"{cip}\"\n")),
        };
        format!(
            "[director]\nip = \"{dip}\"\n{client}[[service]]\nvip = \"{vip}\"\nport = {ports}\n\
             protocol = \"{protocol}\"\nrealservers = {realservers}\n\
             [limits]\nrate = 10_000_000\neach = 10_000_000\n"
        )
    }

    pub(crate) fn fleet(self) -> Arc<Fleet> {
        let file = FleetFile::parse("fleet.toml", &self.file());
        Arc::new(file.unwrap_or_else(|_| panic!("{}", self.file())).fleet)
    }
}

pub(crate) fn key() -> SessionKey {
    SessionKey::new([7; 16])
}

/// The first probes of a fleet, in frames from `near` to the gateway.
pub(crate) fn frames(asked: Asked, count: usize) -> Vec<Vec<u8>> {
    let fleet = asked.fleet();
    let craft = FleetCraft::new(&fleet, key());
    let pairs = (0..count as u32).map(|number| fleet.pair(number).expect("there are as many"));
    let frame = |packet: &[u8]| frame(site::GATEWAY_MAC, site::NEAR_MAC, packet);
    pairs
        .map(|pair| frame(craft.probe(asked.probe(), &pair).octets()))
        .collect()
}

/// The RSTs that close what the first probes of the closed loop open, in such frames.
pub(crate) fn closings(count: usize) -> Vec<Vec<u8>> {
    let fleet = Asked::ClosedLoop.fleet();
    let craft = FleetCraft::new(&fleet, key());
    let pairs = (0..count as u32).map(|number| fleet.pair(number).expect("there are as many"));
    let closing = pairs.map(|pair| craft.closing(Asked::ClosedLoop.probe(), &pair));
    closing
        .map(|packet| packet.expect("a SYN opens something"))
        .map(|packet| frame(site::GATEWAY_MAC, site::NEAR_MAC, packet.octets()))
        .collect()
}

/// An Ethernet frame of an IPv4 packet.
pub(crate) fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &[8, 0], packet].concat()
}
