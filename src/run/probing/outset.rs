//! What there is to try, to sweep and to ask, from what the hosts said of themselves.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::exchange::Mono;
use crate::plan::Host;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::run::aside::Aside;
use crate::run::mtu;
use crate::run::mtu::Search;
use crate::run::probing::Probing;
use crate::run::probing::is_there;
use crate::run::probing::task::Aim;
use crate::run::probing::task::Task;
use crate::run::queries;
use crate::run::sweep::Sweep;

/// When the sweeps start, if the VIP's packets have not been seen to reach the client by then.
const SWEEP_AFTER: Duration = Duration::from_millis(700);

/// When the director asks the service in its own name, if the path is not proven by then.
const REFLECT_SYN_AFTER: Duration = Duration::from_millis(400);

impl Probing {
    /// First the gateway's neighbour entry goes, so that ARP is exercised as the HOWTO does with
    /// `arp -d GW`; then the spoofed probes, whose source the kernel may use for its ARP requests; the
    /// control and our own ARP probes only after them.
    pub(super) fn plan_realserver(&mut self, evidence: &Evidence, path: usize, now: Mono) {
        let host = Host::Realserver(path);
        if !is_there(evidence, host) {
            return;
        }
        let declared = &evidence.plan().paths[path];
        let egress = evidence
            .facts(host)
            .and_then(|facts| queries::egress(facts, declared));
        if let Some(egress) = &egress {
            let announces = egress.vip_on_link && egress.tells_vip;
            if !announces {
                let aim = Aim::Resolution {
                    next_hop: egress.next_hop,
                    device: egress.device.clone(),
                };
                self.add(aim, path, host, now, 1);
            }
        }
        let director = is_there(evidence, Host::Director);
        // A listener in another terminal has no other way to see repeats.
        let at_least = if director { 1 } else { 3 };
        for kind in [ProbeKind::SpoofSynack, ProbeKind::SpoofTrace] {
            self.add(Aim::Probe(kind), path, host, now, at_least);
        }
        let later = now + Duration::from_millis(60);
        for kind in [ProbeKind::ControlSynack, ProbeKind::ControlTrace] {
            self.add(Aim::Probe(kind), path, host, later, 1);
        }
        if let Some(egress) = egress {
            let arp = |sender, target| Aim::Arp {
                mac: egress.mac,
                device: egress.device.clone(),
                sender,
                target,
            };
            let after = |ms| now + Duration::from_millis(ms);
            let own = arp(egress.address, egress.next_hop);
            self.add(own, path, host, after(100), 1);
            if egress.tells_vip && !egress.vip_on_link {
                let vip = arp(declared.vip, egress.next_hop);
                self.add(vip, path, host, after(150), 1);
            }
        }
        self.ask_neighbours(evidence, path, host, now + Duration::from_millis(20));
        let begin = match director {
            true => now + SWEEP_AFTER,
            false => now + Duration::from_millis(200),
        };
        self.sweeps.push(Sweep::spoofed(path, begin));
    }

    /// What the director tries for a path.
    pub(super) fn plan_director(&mut self, evidence: &Evidence, path: usize, now: Mono) {
        if !is_there(evidence, Host::Director) {
            return;
        }
        let mut kinds = vec![
            ProbeKind::IpvsLoop,
            ProbeKind::TunnelUdp,
            ProbeKind::Reflect,
        ];
        if evidence.plan().paths[path].protocol == Protocol::Tcp {
            kinds.push(ProbeKind::TunnelSyn);
        }
        if path == 0 {
            kinds.push(ProbeKind::ReturnControl);
        }
        for kind in kinds {
            self.add(Aim::Probe(kind), path, Host::Director, now, 1);
        }
        let declared = &evidence.plan().paths[path];
        if declared.dip.is_some() {
            self.sweeps.push(Sweep::tunnel(path, now + SWEEP_AFTER));
            let limit = evidence
                .facts(Host::Director)
                .and_then(|facts| mtu::limit(facts, declared));
            self.searches.extend(Search::new(path, limit, now));
        }
        let is_tcp = declared.protocol == Protocol::Tcp;
        if is_tcp && !is_there(evidence, Host::Realserver(path)) {
            let aim = Aim::Probe(ProbeKind::ReflectSyn);
            self.add(aim, path, Host::Director, now + REFLECT_SYN_AFTER, 1);
        }
        if path == 0 {
            self.ask_neighbours(evidence, path, Host::Director, now);
        }
    }

    /// What the client tries for a path.
    pub(super) fn plan_client(&mut self, evidence: &Evidence, path: usize, now: Mono) {
        if !is_there(evidence, Host::Client) || evidence.misplaced(Host::Client).is_some() {
            return;
        }
        self.add(Aim::Probe(ProbeKind::Service), path, Host::Client, now, 1);
        self.asides.extend(Aside::of_client(path, now));
    }

    fn ask_neighbours(&mut self, evidence: &Evidence, path: usize, host: Host, now: Mono) {
        let plan = evidence.plan();
        let aside = evidence.facts(host).and_then(|facts| {
            let declared = (path, &plan.paths[path]);
            Aside::of_neighbour(declared, (host, facts), plan.ingress.as_deref(), now)
        });
        self.asides.extend(aside);
    }

    /// Adds a task that begins at `begin` and is tried `at_least` so often.
    pub(super) fn add(&mut self, aim: Aim, path: usize, host: Host, begin: Mono, at_least: usize) {
        self.tasks.push(Task {
            aim,
            path,
            host,
            begin,
            tries: 0,
            at_least,
            done: false,
        });
    }
}
