//! The paths to prove.

use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::Serialize;

use crate::plan::Action;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::SessionKey;
use crate::plan::Step;
use crate::plan::Suite;
use crate::plan::Task;
use crate::plan::Toward;

/// The service's transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, protocol 6; a path file's default.
    #[default]
    Tcp,
    /// UDP, protocol 17.
    Udp,
}

impl Protocol {
    /// Its number in an IPv4 header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// Its name, as in a path file.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// One path: client, director, one real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The real server's name in the path file.
    pub realserver: String,
    /// The virtual IP.
    pub vip: Ipv4Addr,
    /// The service's port.
    pub port: u16,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The real server's own address.
    pub rip: Ipv4Addr,
    /// The director's own address; only `realserver` and `listen` may lack it.
    pub dip: Option<Ipv4Addr>,
    /// The client's address.
    pub cip: Ipv4Addr,
    /// The real server's gateway, where the user named it; else it is discovered.
    pub gateway: Option<Ipv4Addr>,
    /// The real server's tunnel device, where the user named it; else it is discovered.
    pub tunnel: Option<String>,
}

impl Path {
    /// Whether a device of the real server may take the path's packets out of the tunnel: any of the kind
    /// `ipip`, and the one that the user named, whatever its kind; without a name `tunl0`.
    pub fn is_tunnel(&self, device: &str, kind: Option<&str>) -> bool {
        kind == Some("ipip") || device == self.tunnel.as_deref().unwrap_or("tunl0")
    }
}

/// Everything that one command sets out to prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The session's key.
    pub session: SessionKey,
    /// The paths, in the order of the path file; never empty, all with the same client, VIP and director.
    pub paths: Vec<Path>,
    /// The hosts that tunproof runs on.
    pub vantages: Vec<Host>,
    /// The director's device toward the client, where the user named it.
    pub ingress: Option<String>,
    /// The director's device toward the real servers, where the user named it.
    pub egress: Option<String>,
    /// What is played on each path, in the order of `paths`; empty where nothing is sent.
    pub suites: Vec<Suite>,
}

impl Plan {
    /// Whether tunproof runs on `host`.
    pub fn has(&self, host: Host) -> bool {
        self.vantages.contains(&host)
    }

    /// Step number `step` of what is played on `path`.
    pub fn step(&self, path: usize, step: usize) -> Option<&Step> {
        self.suites.get(path)?.steps.get(step)
    }

    /// To whom the spoof check's passes on `path` go.
    pub fn toward(&self, path: usize) -> Toward {
        let steps = self.suites.get(path).into_iter().flat_map(|s| &s.steps);
        let mut passes = steps.filter_map(|step| match &step.action {
            Action::Builtin(builtin) if builtin.task == Task::SpoofPasses => Some(builtin.toward),
            _ => None,
        });
        passes.next().unwrap_or_default()
    }

    /// Whether real servers send probes to the director itself; where nothing is sent, another terminal may.
    pub fn sends_to_director(&self) -> bool {
        let mut steps = self.suites.iter().flat_map(|suite| &suite.steps);
        let to_director = |step: &Step| match &step.action {
            Action::Builtin(builtin) => match builtin.task {
                Task::SpoofPasses => builtin.toward == Toward::Director,
                Task::Probe(kind) => kind.toward() == Toward::Director,
                _ => false,
            },
            _ => false,
        };
        self.suites.is_empty() || steps.any(to_director)
    }

    /// The packets that the suites write out, path by path and step by step: as many as there are numbers for.
    pub fn scripts(&self) -> Vec<Probe> {
        let mut scripts = Vec::new();
        for (path, suite) in self.suites.iter().enumerate() {
            for (number, step) in suite.steps.iter().enumerate() {
                let Action::Script(script) = &step.action else {
                    continue;
                };
                for packet in &script.packets {
                    let index = scripts.len() as u16;
                    let from = script.from.host(path);
                    let probe = Probe::script(index, path, from, packet.clone(), &self.session);
                    scripts.push(probe.of_step(number));
                    if scripts.len() == usize::from(ProbeId::PER_KIND) {
                        return scripts;
                    }
                }
            }
        }
        scripts
    }

    /// The name people gave `host`.
    pub fn host_name(&self, host: Host) -> String {
        match host {
            Host::Realserver(path) => self.paths[path].realserver.clone(),
            other => other.to_string(),
        }
    }
}
