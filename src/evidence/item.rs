//! One piece of evidence.

use std::fmt;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::exchange::Capture;
use crate::exchange::ConnectOutcome;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Wall;
use crate::matching::Alteration;
use crate::matching::Arp;
use crate::matching::Sighting;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::Station;

/// A piece of evidence's name, written `e12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EvidenceId(pub u32);

impl fmt::Display for EvidenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("e{}", self.0))
    }
}

impl Serialize for EvidenceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EvidenceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EvidenceId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_prefix('e').and_then(|n| n.parse().ok());
        number.map(EvidenceId).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no evidence's name such as `e12`"))
        })
    }
}

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Its name; items are numbered in the order in which they became known.
    pub id: EvidenceId,
    /// The host that it comes from.
    pub host: Host,
    /// The station, if it was seen at one.
    pub station: Option<Station>,
    /// When, by that host's wall clock.
    pub time: Wall,
    /// The probe that it is about, if any.
    pub probe: Option<ProbeId>,
    /// The path that it is about, if only one.
    pub path: Option<usize>,
    /// What it is.
    pub what: What,
}

/// What a piece of evidence is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum What {
    /// A packet was handed to the kernel.
    Sent {
        /// The packet.
        transmit: Transmit,
        /// What the kernel said.
        outcome: SendOutcome,
    },
    /// A probe, or what it caused, was seen.
    Seen {
        /// What it says.
        sighting: Sighting,
        /// Fields that differ from what was sent.
        altered: Vec<Alteration>,
        /// The packet.
        capture: Capture,
    },
    /// An ARP packet about the path was seen.
    Arp {
        /// What it says.
        arp: Arp,
        /// The packet.
        capture: Capture,
    },
    /// The kernel gave a probe up, or what it caused.
    Drop {
        /// The kernel's reason, if it gave one.
        reason: Option<String>,
        /// Where in the kernel.
        place: String,
        /// What the packet says.
        sighting: Sighting,
        /// The packet.
        capture: Capture,
    },
    /// A real connection was tried.
    Connect {
        /// To where.
        to: (Ipv4Addr, u16),
        /// What became of it.
        outcome: ConnectOutcome,
    },
    /// A host says something of itself.
    Fact {
        /// What, in one line.
        summary: String,
        /// The command by which a person checks it.
        command: String,
    },
    /// Something that should have been seen was not, and that counts.
    Silence(SilenceSpan),
}

/// A silence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilenceSpan {
    /// The last station that saw the probes; `None` if no station saw them leave.
    pub after: Option<Station>,
    /// The station that should have seen them.
    pub at: Station,
    /// How many probes were seen at `after` and not at `at`.
    pub probes: u32,
    /// In one line.
    pub summary: String,
}
