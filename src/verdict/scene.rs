//! Where on a host packets died, and which.

use crate::evidence::EvidenceId;
use crate::evidence::What;
use crate::exchange::Leg;
use crate::exchange::SendOutcome;
use crate::exchange::Wall;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;
use crate::verdict::Code;
use crate::verdict::case::Case;

/// Where packets died.
pub(super) struct Scene {
    pub(super) host: Host,
    /// What they were there.
    pub(super) legs: &'static [Leg],
    after: Option<Station>,
    at: Station,
}

/// A packet that died.
pub(super) struct Death {
    /// When it was last seen, or sent.
    pub(super) time: Wall,
    pub(super) probe: ProbeId,
    pub(super) protocol: Protocol,
    /// What it may have been when it died: itself, or what it caused.
    pub(super) shapes: Vec<(Leg, u8)>,
    /// The last that is known of it.
    pub(super) evidence: EvidenceId,
}

impl Scene {
    /// Where the packets died that a finding of this code is about, if a host's firewall or routing stopped them.
    pub(super) fn of(case: &Case<'_>, code: Code) -> Option<Scene> {
        let scene = |host, legs, after, at| Scene {
            host,
            legs,
            after,
            at,
        };
        let server = case.realserver();
        Some(match code {
            Code::DirectorFirewallIngress | Code::DirectorNotForwarding => scene(
                Host::Director,
                &[Leg::Request],
                Some(Station::DirectorIn),
                Station::DirectorOut,
            ),
            Code::DirectorFirewallEgress => {
                scene(Host::Director, &[Leg::Tunnel], None, Station::DirectorOut)
            }
            Code::RealserverFirewallIpip => scene(
                server,
                &[Leg::Tunnel],
                Some(Station::RealserverIn),
                Station::RealserverTunnel,
            ),
            Code::RealserverFirewallDecapsulated
            | Code::RealserverFirewallEgress
            | Code::RpFilterDrops
            | Code::VipNotLocal
            | Code::RouteRejects => scene(
                server,
                &[Leg::Decapsulated, Leg::Answer],
                Some(Station::RealserverTunnel),
                Station::RealserverOut,
            ),
            Code::ClientSilent => scene(
                Host::Client,
                &[Leg::Answer],
                Some(Station::ClientIn),
                Station::ClientOut,
            ),
            _ => return None,
        })
    }

    /// The probes that died there.
    pub(super) fn deaths(&self, case: &Case<'_>) -> Vec<Death> {
        let silent = case
            .silences
            .iter()
            .filter(|silence| (silence.after, silence.at) == (self.after, self.at))
            .flat_map(|silence| &silence.evidence)
            .copied();
        let forbidden = case
            .evidence
            .passages(case.number)
            .filter_map(|passage| passage.unsendable);
        let mut deaths = Vec::new();
        for id in silent.chain(forbidden) {
            let Some(item) = case.evidence.item(id).filter(|item| item.host == self.host) else {
                continue;
            };
            let time = match &item.what {
                What::Sent {
                    outcome: SendOutcome::Refused { time, .. } | SendOutcome::Sent { time },
                    ..
                } => *time,
                _ => item.time,
            };
            let probe = item.probe.and_then(|id| case.evidence.probe(id));
            let Some(probe) = probe else { continue };
            deaths.push(Death {
                time,
                probe: probe.id,
                protocol: probe.flow.protocol,
                shapes: self.shapes(probe.id.kind, probe.flow.protocol),
                evidence: id,
            });
        }
        deaths
    }

    /// What a probe may have been when it died: itself, or what it caused.
    fn shapes(&self, kind: ProbeKind, protocol: Protocol) -> Vec<(Leg, u8)> {
        // Between other addresses than the path's own.
        let aside = matches!(
            kind,
            ProbeKind::Reflect | ProbeKind::ReflectSyn | ProbeKind::Mtu
        );
        let answer = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 1,
        };
        let spoofed = matches!(kind, ProbeKind::SpoofSynack | ProbeKind::SpoofTrace);
        self.legs
            .iter()
            .filter_map(|leg| match leg {
                Leg::Tunnel => Some((Leg::Tunnel, 4)),
                _ if aside => None,
                Leg::Answer if self.host == Host::Client || spoofed => {
                    Some((Leg::Answer, protocol.number()))
                }
                Leg::Answer => Some((Leg::Answer, answer)),
                _ if spoofed => None,
                leg => Some((*leg, protocol.number())),
            })
            .collect()
    }
}
