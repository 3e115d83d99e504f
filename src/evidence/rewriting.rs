//! Packets that left the real server from the VIP and came to the client from another address.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Proof;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Station;

/// A translation of the source that packets show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewriting {
    /// The sources with which the client got them.
    pub to: BTreeSet<Ipv4Addr>,
    /// How many probes were rewritten.
    pub probes: usize,
    /// Arrivals at the client, and where the same packets left, as far as they were seen there.
    pub evidence: Vec<EvidenceId>,
    /// Whether they were seen to leave the real server from the VIP: it is not the one that rewrites.
    pub left_intact: bool,
    /// Whether what clients use is rewritten: packets of the service's own protocol, of which none came from
    /// the VIP.
    pub hits_service: bool,
}

impl Evidence {
    /// What the client got from another source than the VIP, of the probes of `path` and their answers.
    pub fn rewriting(&self, path: usize) -> Option<Rewriting> {
        if self.host(Host::Client).is_none() || self.misplaced(Host::Client).is_some() {
            return None;
        }
        let declared = &self.plan().paths[path];
        let (vip, cip) = (declared.vip, declared.cip);
        let server = self.host(Host::Realserver(path)).is_some();
        let mut found = Rewriting {
            to: BTreeSet::new(),
            probes: 0,
            evidence: Vec::new(),
            left_intact: server,
            hits_service: false,
        };
        let mut intact = false;
        for passage in self.passages(path) {
            let kind = passage.probe.id.kind;
            if !comes_from_the_vip(kind) || !passage.is_tunnelled() && !is_spoofed(kind) {
                continue;
            }
            let left = passage.left_realserver();
            if server && left.is_none() {
                continue;
            }
            let is_services = is_of(kind, declared.protocol);
            intact |= is_services && passage.arrived().is_some();
            let mut sightings = self.sightings(passage.probe.id);
            let changed = sightings.find(|(item, seen)| {
                // An ICMP error may have another source by the real server's own choice
                // (`icmp_errors_use_inbound_ifaddr`): only what was seen to leave tells.
                let answers = matches!(seen.form, Form::SynAck | Form::Refused)
                    || seen.form == Form::PORT_UNREACHABLE && server
                    || seen.form == Form::Plain && is_spoofed(kind);
                item.station == Some(Station::ClientIn)
                    && answers
                    && seen.destination == cip
                    && seen.source != vip
            });
            let Some((item, seen)) = changed else {
                continue;
            };
            found.to.insert(seen.source);
            found.probes += 1;
            found.hits_service |= is_services;
            found.evidence.push(item.id);
            found.evidence.extend(left);
        }
        found.hits_service &= !intact;
        (found.probes > 0).then_some(found)
    }

    /// Packets of another protocol that came from the VIP prove nothing of a service whose own come from
    /// somebody else: translation by a router is a matter of protocol and state.
    pub(super) fn withdraw_rewritten(&self, path: usize, proofs: &mut BTreeMap<Hop, Proof>) {
        let theirs = [Hop::SpoofedSourceTransit, Hop::RealserverEgress];
        if !theirs.iter().any(|hop| proofs.contains_key(hop)) {
            return;
        }
        if let Some(rewriting) = self.rewriting(path).filter(|found| found.hits_service) {
            proofs.remove(&Hop::SpoofedSourceTransit);
            if !rewriting.left_intact {
                proofs.remove(&Hop::RealserverEgress);
            }
        }
    }
}

fn is_spoofed(kind: ProbeKind) -> bool {
    matches!(kind, ProbeKind::SpoofTrace | ProbeKind::SpoofSynack)
}

/// Whether the probes, or what the real server answers to them, come from the VIP to the client.
fn comes_from_the_vip(kind: ProbeKind) -> bool {
    is_spoofed(kind)
        || matches!(
            kind,
            ProbeKind::TunnelUdp | ProbeKind::TunnelSyn | ProbeKind::IpvsLoop | ProbeKind::Service
        )
}

/// Whether what comes from the VIP is of the service's own protocol; an ICMP error is of none.
fn is_of(kind: ProbeKind, service: Protocol) -> bool {
    match service {
        Protocol::Tcp => !matches!(kind, ProbeKind::TunnelUdp | ProbeKind::SpoofTrace),
        Protocol::Udp => kind == ProbeKind::SpoofTrace,
    }
}
