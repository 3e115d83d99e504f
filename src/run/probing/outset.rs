//! What a step of a suite comes to, from what the hosts said of themselves: something to try, to sweep or to
//! search, or the reason why there is nothing.

use std::net::Ipv4Addr;

use crate::craft;
use crate::evidence::Evidence;
use crate::exchange::HostFacts;
use crate::exchange::Mono;
use crate::exchange::RouteAnswer;
use crate::exchange::RouteQuery;
use crate::exchange::Way;
use crate::plan;
use crate::plan::Action;
use crate::plan::Builtin;
use crate::plan::Expectation;
use crate::plan::Host;
use crate::plan::Packet;
use crate::plan::Path;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Role;
use crate::plan::Script;
use crate::plan::Step;
use crate::run::mtu;
use crate::run::mtu::Search;
use crate::run::passes::Passes;
use crate::run::probing::Probing;
use crate::run::probing::is_there;
use crate::run::probing::task::Aim;
use crate::run::probing::task::Counted;
use crate::run::probing::task::Task;
use crate::run::queries;
use crate::run::queries::Egress;
use crate::run::sweep::Sweep;

impl Probing {
    /// Begins a step at `begin`; else why it is not played.
    pub(super) fn begin(
        &mut self,
        evidence: &Evidence,
        (path, number): (usize, usize),
        begin: Mono,
    ) -> Result<(), String> {
        let plan = evidence.plan();
        let step = &plan.suites[path].steps[number];
        match &step.action {
            Action::Builtin(builtin) => {
                self.begin_builtin(evidence, (path, number), builtin, begin)
            }
            Action::Script(script) => self.begin_script(evidence, (path, number), script, begin),
            Action::Ask(question) => {
                there(evidence, question.host.host(path))?;
                Ok(())
            }
        }
    }

    fn begin_script(
        &mut self,
        evidence: &Evidence,
        (path, step): (usize, usize),
        script: &Script,
        begin: Mono,
    ) -> Result<(), String> {
        let host = script.from.host(path);
        there(evidence, host)?;
        let packets = script.packets.iter().map(|packet| {
            let id = ProbeId {
                kind: ProbeKind::Script,
                index: 0,
            };
            craft::script(packet, id, &evidence.plan().session)
                .map_err(|error| error.to_string())?;
            let way = way(evidence, host, script, packet)?;
            let packet = match &way {
                Way::Frame { device } => with_hardware(evidence, host, device, packet)?,
                Way::Stack => packet.clone(),
            };
            Ok((packet, way))
        });
        let packets: Vec<_> = packets.collect::<Result<_, String>>()?;
        self.tasks.push(Task {
            path,
            step,
            host,
            begin,
            tries: 0,
            counted: Some(Counted {
                count: packets.len(),
                interval: script.interval,
            }),
            at_least: packets.len(),
            aim: Aim::Script(packets),
            again: None,
            is_awaited: self.awaits(path, step),
            done: false,
        });
        Ok(())
    }

    fn begin_builtin(
        &mut self,
        evidence: &Evidence,
        (path, step): (usize, usize),
        builtin: &Builtin,
        begin: Mono,
    ) -> Result<(), String> {
        let declared = &evidence.plan().paths[path];
        let host = host(builtin.task, path, evidence)?;
        there(evidence, host)?;
        let aim = match builtin.task {
            plan::Task::Probe(kind) => {
                let asks_service = matches!(kind, ProbeKind::TunnelSyn | ProbeKind::ReflectSyn);
                if asks_service && declared.protocol == Protocol::Udp {
                    return Err("the service is no TCP service".to_owned());
                }
                if kind == ProbeKind::ReturnControl {
                    self.once(&Aim::Probe(kind), path, evidence)?;
                }
                Aim::Probe(kind)
            }
            plan::Task::ResolveGateway => {
                let egress = egress(evidence, host, declared)?;
                if egress.vip_on_link && egress.tells_vip {
                    return Err("its kernel would announce the VIP".to_owned());
                }
                Aim::Resolution {
                    next_hop: egress.next_hop,
                    device: egress.device,
                }
            }
            plan::Task::WhoHasGateway => {
                let egress = egress(evidence, host, declared)?;
                let sender = egress.address;
                ask(egress, sender)
            }
            plan::Task::WhoHasGatewayTellVip => {
                let egress = egress(evidence, host, declared)?;
                if egress.vip_on_link {
                    return Err("it would announce the VIP".to_owned());
                }
                if !egress.tells_vip {
                    return Err("its kernel never tells the VIP".to_owned());
                }
                ask(egress, declared.vip)
            }
            plan::Task::WhoHasVip | plan::Task::WhoHasVipOnDirector => {
                let ingress = evidence.plan().ingress.as_deref();
                let link = facts(evidence, host)
                    .ok()
                    .and_then(|facts| queries::on_link(facts, host, declared, ingress))
                    .ok_or("the VIP is on none of its links")?;
                let aim = Aim::Arp {
                    mac: link.mac,
                    device: link.device,
                    sender: link.sender,
                    target: declared.vip,
                };
                if host == Host::Director {
                    self.once(&aim, path, evidence)?;
                }
                aim
            }
            plan::Task::MoreFlows => Aim::MoreFlows,
            plan::Task::SpoofSweep => {
                self.sweeps.push(Sweep::spoofed(path, begin));
                return Ok(());
            }
            plan::Task::SpoofPasses => {
                builtin.toward.address(declared).ok_or(NO_DIP)?;
                self.passes.push(Passes::new((path, step), builtin, begin));
                return Ok(());
            }
            plan::Task::TunnelSweep => {
                declared.dip.ok_or(NO_DIP)?;
                self.sweeps.push(Sweep::tunnel(path, begin));
                return Ok(());
            }
            plan::Task::MtuSearch => {
                declared.dip.ok_or(NO_DIP)?;
                let limit = mtu::limit(facts(evidence, host)?, declared);
                let search = Search::new(path, limit, begin)
                    .ok_or("the director's route to the real server tells no MTU")?;
                self.searches.push(search);
                return Ok(());
            }
            plan::Task::Connect => {
                return match declared.protocol {
                    Protocol::Tcp => Ok(()),
                    Protocol::Udp => Err("the service is no TCP service".to_owned()),
                };
            }
        };
        self.tasks.push(Task {
            aim,
            path,
            step,
            host,
            begin,
            tries: 0,
            counted: counted(builtin),
            at_least: at_least(builtin, evidence, (path, step)),
            again: None,
            is_awaited: self.awaits(path, step),
            done: false,
        });
        Ok(())
    }

    /// Why something that is the same for every path is not played for this one.
    fn once(&self, aim: &Aim, path: usize, evidence: &Evidence) -> Result<(), String> {
        let mut known = self.tasks.iter();
        match known.find(|task| task.path != path && task.aim == *aim) {
            Some(task) => {
                let other = &evidence.plan().paths[task.path].realserver;
                Err(format!("it is the same for every real server: see {other}"))
            }
            None => Ok(()),
        }
    }

    /// Begins a real connection for a path whose suite has one.
    pub(super) fn begin_connection(&mut self, path: usize, now: Mono) {
        let Some(step) = self.step_of(path, plan::Task::Connect) else {
            return;
        };
        if self.tasks.iter().any(|task| task.aim == Aim::Connect) {
            return;
        }
        self.tasks.push(Task {
            aim: Aim::Connect,
            path,
            step,
            host: Host::Client,
            begin: now,
            tries: 0,
            counted: None,
            at_least: 1,
            again: None,
            is_awaited: self.awaits(path, step),
            done: false,
        });
    }
}

const NO_DIP: &str = "the director's address is not known";

/// Why a step is not wanted, seen from the hosts that tunproof runs on.
pub(super) fn wanted(step: &Step, path: usize, evidence: &Evidence) -> Result<(), String> {
    let there = |role: &&Role| is_there(evidence, role.host(path));
    let name = |role: &Role| evidence.plan().host_name(role.host(path));
    if let Some(role) = step.with.iter().find(|role| !there(role)) {
        return Err(format!("tunproof does not run on {}", name(role)));
    }
    match step.without.iter().find(there) {
        Some(role) => Err(format!("tunproof runs on {}", name(role))),
        None => Ok(()),
    }
}

/// Why a host can play nothing.
fn there(evidence: &Evidence, host: Host) -> Result<(), String> {
    if !is_there(evidence, host) {
        let name = evidence.plan().host_name(host);
        return Err(format!("tunproof does not run on {name}"));
    }
    match evidence.misplaced(host) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}

/// How a packet that a suite wrote out leaves a host: a frame by the device that the suite names, or by which the
/// host reaches the packet's destination.
fn way(evidence: &Evidence, host: Host, script: &Script, packet: &Packet) -> Result<Way, String> {
    if !packet.is_frame() {
        return Ok(Way::Stack);
    }
    if let Some(device) = script.device.clone() {
        return Ok(Way::Frame { device });
    }
    let destination = packet.destination();
    let facts = facts(evidence, host)?;
    let routed = facts
        .routes
        .iter()
        .find_map(|(query, answer)| match answer {
            RouteAnswer::Route(route) if query.to == destination && query.iif.is_none() => {
                route.device.clone()
            }
            _ => None,
        });
    let on_link = || {
        let mut links = facts.links.iter().filter(|link| !link.loopback);
        let link = links.find(|link| {
            let mut addresses = link.addresses.iter();
            addresses.any(|address| address.prefix < 32 && address.contains(destination))
        });
        link.map(|link| link.name.clone())
    };
    let device = routed.or_else(on_link);
    let device = device.ok_or_else(|| {
        format!("no route tells by which device {destination} is reached; name one (`device`)")
    })?;
    Ok(Way::Frame { device })
}

/// A frame with the hardware addresses that the suite left out, as they are on the device by which it leaves.
fn with_hardware(
    evidence: &Evidence,
    host: Host,
    device: &str,
    packet: &Packet,
) -> Result<Packet, String> {
    if packet.hardware.is_empty() {
        return Ok(packet.clone());
    }
    let (facts, name) = (facts(evidence, host)?, evidence.plan().host_name(host));
    let link = facts.link(device);
    let link = link.ok_or_else(|| format!("{name} has no device `{device}`"))?;
    let own = link.mac.ok_or_else(|| {
        format!("{device} of {name} has no hardware address; write `src` of `ethernet`")
    })?;
    let mut next_hop = None;
    if packet.asks_next_hop() {
        let destination = packet.destination();
        let query = RouteQuery {
            to: destination,
            from: None,
            iif: None,
        };
        let hop = match facts.route(&query) {
            Some(RouteAnswer::Route(route)) => route.gateway.unwrap_or(destination),
            _ => destination,
        };
        next_hop = evidence.neighbour(host, device, hop);
        if next_hop.is_none() {
            return Err(format!(
                "{name} does not know the hardware address of {hop} on {device} (`ip neigh show {hop}`); write \
                 `dst` of `ethernet`, or let a step before ask for it by `arp`"
            ));
        }
    }
    Ok(packet.clone().with_hardware(own, next_hop.unwrap_or(own)))
}

/// Which host plays a built-in task.
fn host(task: plan::Task, path: usize, evidence: &Evidence) -> Result<Host, String> {
    Ok(match task {
        plan::Task::Probe(kind) => {
            let plan = evidence.plan();
            let id = ProbeId { kind, index: 0 };
            let probe = Probe::new(id, path, &plan.paths[path], &plan.session);
            probe.ok_or(NO_DIP)?.from
        }
        plan::Task::ResolveGateway
        | plan::Task::WhoHasGateway
        | plan::Task::WhoHasGatewayTellVip
        | plan::Task::WhoHasVip
        | plan::Task::SpoofSweep
        | plan::Task::SpoofPasses
        | plan::Task::MoreFlows => Host::Realserver(path),
        plan::Task::WhoHasVipOnDirector | plan::Task::TunnelSweep | plan::Task::MtuSearch => {
            Host::Director
        }
        plan::Task::Connect => Host::Client,
    })
}

/// So often and no more, where the step says so.
fn counted(builtin: &Builtin) -> Option<Counted> {
    let count = match builtin.task {
        plan::Task::MoreFlows => Some(1),
        _ => builtin.count,
    }?;
    Some(Counted {
        count: usize::from(count),
        interval: builtin.interval,
    })
}

/// How often it is tried at least: often enough for a silence that the step asks for.
fn at_least(builtin: &Builtin, evidence: &Evidence, (path, step): (usize, usize)) -> usize {
    let step = &evidence.plan().suites[path].steps[step];
    let silences = step.expect.iter().any(Expectation::is_limited);
    let least = if silences { Evidence::SILENCE } else { 1 };
    match builtin.count {
        Some(count) => usize::from(count),
        None => usize::from(builtin.at_least).max(least),
    }
}

fn facts(evidence: &Evidence, host: Host) -> Result<&HostFacts, String> {
    let name = || evidence.plan().host_name(host);
    let facts = evidence.facts(host);
    facts.ok_or_else(|| format!("{} said nothing of itself", name()))
}

fn egress(evidence: &Evidence, host: Host, declared: &Path) -> Result<Egress, String> {
    queries::egress(facts(evidence, host)?, declared)
        .ok_or_else(|| "it has no route to the client over a device with ARP".to_owned())
}

fn ask(egress: Egress, sender: Ipv4Addr) -> Aim {
    Aim::Arp {
        mac: egress.mac,
        device: egress.device,
        sender,
        target: egress.next_hop,
    }
}
