//! What can be broken, and how it is broken and mended on a running lab.

use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::lab::LabError;
use crate::lab::Maker;
use crate::lab::Node;
use crate::lab::director;
use crate::lab::director::Broken;
use crate::lab::director::LOCAL;
use crate::lab::service;
use crate::lab::service::Manner;
use crate::lab::standin;
use crate::lab::standin::TUNNEL;
use crate::lab::state::State;
use crate::lab::topology::RIP;
use crate::lab::topology::VIP;
use crate::lab::topology::set;
use crate::live::netns::Namespace;
use crate::live::network::Network;
use crate::live::network::NextHop;
use crate::live::network::Route;
use crate::live::network::Rule;
use crate::plan::Hop;

/// A fault of the catalogue.
#[derive(Debug)]
pub struct Fault {
    /// Its name.
    pub name: &'static str,
    /// The finding it should lead to where the director is the kernel's; see [`Fault::finding_by`].
    pub finding: &'static str,
    /// The hop it breaks, or concerns: see [`Fault::breaks`].
    pub hop: Hop,
    /// What it does, in a line.
    pub about: &'static str,
    /// What it takes.
    pub needs: Needs,
    /// What is changed, in this order.
    pub(super) changes: &'static [Change],
}

/// What a fault takes of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing that a lab could lack.
    Nothing,
    /// The kernel's own `ipip`.
    KernelTunnel,
    /// The stand-in for `ipip`: the kernel's cannot be taken away.
    StandInTunnel,
}

impl Fault {
    /// The finding it should lead to. A stand-in has no tables in which destinations could be looked up, so that
    /// all there is to say of one that forwards wrongly is that IPVS has no such service.
    pub fn finding_by(&self, director: Maker) -> &'static str {
        let is_wrong = |change: &Change| match change {
            Change::Director(broken) => *broken != Broken::VipGone,
            _ => false,
        };
        match director {
            Maker::StandIn if self.changes.iter().any(is_wrong) => "ipvs-service-missing",
            _ => self.finding,
        }
    }

    /// Whether it breaks the hop; else the path works all the same, and the finding is a warning.
    pub fn breaks(&self) -> bool {
        let unprotected = |change: &Change| matches!(change, Change::Unprotected);
        self.finding != "tunnel-mtu-low" && !self.changes.iter().all(unprotected)
    }

    /// Whether it takes the program `nft`.
    pub fn needs_nft(&self) -> bool {
        self.changes
            .iter()
            .any(|change| matches!(change, Change::Filter { .. } | Change::Unprotected))
    }
}

/// One change to the lab. What it says is done; undone is what a healthy lab has.
#[derive(Debug)]
pub(super) enum Change {
    /// A route is added, in place of `healthy` if there is one.
    Route {
        on: Node,
        route: Route,
        healthy: Option<Route>,
    },
    /// A policy rule is added.
    Rule { on: Node, rule: Rule },
    /// The rule for the host's own addresses comes behind others.
    LocalBehind { on: Node },
    /// A setting under `/proc/sys` changes.
    Setting {
        on: Node,
        name: &'static str,
        value: &'static str,
        healthy: &'static str,
    },
    /// An address is added.
    Address {
        on: Node,
        device: &'static str,
        ip: Ipv4Addr,
        prefix: u8,
    },
    /// A route's preferred source is an address that the host had when the route was made, and has no more.
    StaleSource { on: Node, route: Route },
    /// An address of prefix length 32 is deleted.
    AddressGone {
        on: Node,
        device: &'static str,
        ip: Ipv4Addr,
    },
    /// The tunnel's device is switched off.
    TunnelDown,
    /// The tunnel's device is deleted.
    TunnelGone,
    /// The VIP moves to an `ipip` device with these ends.
    Ends {
        device: &'static str,
        local: Ipv4Addr,
        remote: Ipv4Addr,
    },
    /// A chain of nftables is added.
    Filter { on: Node, chain: &'static str },
    /// The gateway never asks for the real server's hardware address, which a request would tell its own.
    ServerKnown,
    /// A neighbour entry is deleted, so that ARP is asked again.
    Forgotten {
        on: Node,
        device: &'static str,
        ip: Ipv4Addr,
    },
    /// The director forwards otherwise.
    Director(Broken),
    /// The service is otherwise.
    Service(Manner),
    /// The rules that let only the director use the tunnel are deleted.
    Unprotected,
    /// The stand-in for `ipip` acts otherwise, by the fault's name.
    ByName,
}

impl Change {
    /// Does it.
    pub(super) fn apply(&self, state: &State) -> Result<(), LabError> {
        match *self {
            Change::Route { on, ref route, .. } => Ok(network(state, on)?.add_route(route)?),
            Change::Rule { on, ref rule } => Ok(network(state, on)?.add_rule(rule)?),
            Change::LocalBehind { on } => director::move_local(&mut network(state, on)?, true),
            Change::Setting {
                on, name, value, ..
            } => set(&enter(state, on)?, on, name, value),
            Change::Address {
                on,
                device,
                ip,
                prefix,
            } => Ok(network(state, on)?.add_address(device, ip, prefix)?),
            Change::StaleSource { on, ref route } => {
                let mut network = network(state, on)?;
                let own = route.source.map(|source| Route {
                    table: LOCAL,
                    ..Route::new(source, 32, NextHop::Local)
                });
                own.iter().try_for_each(|own| network.add_route(own))?;
                network.add_route(route)?;
                Ok(own.iter().try_for_each(|own| network.delete_route(own))?)
            }
            Change::AddressGone { on, device, ip } => {
                Ok(network(state, on)?.delete_address(device, ip, 32)?)
            }
            Change::TunnelDown => Ok(network(state, Node::S)?.set_up(TUNNEL, false)?),
            Change::TunnelGone => Ok(network(state, Node::S)?.delete_link(TUNNEL)?),
            Change::Ends {
                device,
                local,
                remote,
            } => {
                let mut network = network(state, Node::S)?;
                network.set_up(TUNNEL, false)?;
                network.add_ipip(device, Some((local, remote)))?;
                network.add_address(device, VIP, 32)?;
                Ok(network.set_up(device, true)?)
            }
            Change::Filter { on, chain } => nft(
                &enter(state, on)?,
                format!("table ip {TABLE} {{\n{chain}\n}}\n"),
            ),
            Change::ServerKnown => {
                let link = network(state, Node::S)?.link("eth0")?;
                let mac = link.and_then(|link| link.mac).unwrap_or_default();
                Ok(network(state, Node::Gw)?.add_neighbour("eth1", RIP, mac)?)
            }
            Change::Forgotten { on, device, ip } => {
                Ok(network(state, on)?.delete_neighbour(device, ip)?)
            }
            Change::Director(broken) => broken.apply(state.director, &enter(state, Node::D)?),
            Change::Service(manner) => service_is(state, manner),
            Change::Unprotected => nft(
                &enter(state, Node::S)?,
                format!("add table ip {PROTECTION}\ndelete table ip {PROTECTION}\n"),
            ),
            Change::ByName => Ok(()),
        }
    }

    /// Undoes it, also where it is done in part or not at all.
    pub(super) fn undo(&self, state: &State) -> Result<(), LabError> {
        match *self {
            Change::Route {
                on,
                healthy: Some(ref route),
                ..
            } => Ok(network(state, on)?.add_route(route)?),
            Change::Route { on, ref route, .. } => Ok(network(state, on)?.delete_route(route)?),
            Change::Rule { on, ref rule } => Ok(network(state, on)?.delete_rule(rule)?),
            Change::LocalBehind { on } => director::move_local(&mut network(state, on)?, false),
            Change::Setting {
                on, name, healthy, ..
            } => set(&enter(state, on)?, on, name, healthy),
            Change::Address {
                on,
                device,
                ip,
                prefix,
            } => Ok(network(state, on)?.delete_address(device, ip, prefix)?),
            Change::AddressGone { on, device, ip } => {
                Ok(network(state, on)?.add_address(device, ip, 32)?)
            }
            Change::TunnelDown => {
                let mut server = network(state, Node::S)?;
                match state.tunnel {
                    Maker::Kernel => Ok(server.set_up(TUNNEL, true)?),
                    Maker::StandIn => {
                        let mut far_end = backstage(state)?.run(Network::open)?;
                        standin::set_device_up(&mut server, &mut far_end)
                    }
                }
            }
            Change::TunnelGone => {
                let mut server = network(state, Node::S)?;
                if server.link(TUNNEL)?.is_some() {
                    return Ok(());
                }
                let backstage = backstage(state)?;
                let mut far_end = backstage.run(Network::open)?;
                standin::add_device(
                    (&enter(state, Node::S)?, &mut server),
                    (&backstage, &mut far_end),
                )
            }
            Change::Ends { device, .. } => {
                let mut network = network(state, Node::S)?;
                network.delete_link(device)?;
                Ok(network.set_up(TUNNEL, true)?)
            }
            Change::Filter { on, .. } => undone(nft(
                &enter(state, on)?,
                format!("add table ip {TABLE}\ndelete table ip {TABLE}\n"),
            )),
            Change::ServerKnown => Ok(network(state, Node::Gw)?.delete_neighbour("eth1", RIP)?),
            Change::Forgotten { on, device, ip } => {
                Ok(network(state, on)?.delete_neighbour(device, ip)?)
            }
            Change::Director(broken) => broken.undo(state.director, &enter(state, Node::D)?),
            Change::Service(_) => service_is(state, Manner::Serving),
            Change::Unprotected => undone(protect(&enter(state, Node::S)?)),
            Change::StaleSource { on, ref route } => Ok(network(state, on)?.delete_route(route)?),
            Change::ByName => Ok(()),
        }
    }
}

/// Why `fault` cannot be had in this lab.
pub(super) fn check(fault: &Fault, state: &State) -> Result<(), LabError> {
    let (needs, has) = match (fault.needs, state.tunnel) {
        (Needs::KernelTunnel, Maker::StandIn) => ("the kernel's own ipip", "the stand-in for it"),
        (Needs::StandInTunnel, Maker::Kernel) => ("the stand-in for ipip", "the kernel's own"),
        _ => return Ok(()),
    };
    Err(LabError::Needs {
        fault: fault.name,
        needs,
        has,
    })
}

/// The table of nftables that protects the tunnel.
const PROTECTION: &str = "tunnel_protection";

/// Lets only the director's network and the real server's own use the tunnel on `server`, as LVS-TUN needs it
/// where rp_filter is 0 (HOWTO Q2). It takes `nft`; without it the tunnel is open to anyone.
pub(super) fn protect(server: &Namespace) -> Result<(), LabError> {
    nft(
        server,
        format!(
            "add table ip {PROTECTION}\ndelete table ip {PROTECTION}\ntable ip {PROTECTION} {{\n\
             chain input {{ type filter hook input priority 0; \
             ip protocol 4 ip saddr != {{ 192.0.2.0/29, 203.0.113.0/24 }} drop; }}\n}}\n"
        ),
    )
}

/// The table of nftables that all faults' chains are in.
const TABLE: &str = "tunproof_lab";

fn enter(state: &State, node: Node) -> Result<Namespace, LabError> {
    Ok(Namespace::enter(state.keeper.number, state.threads[&node])?)
}

fn backstage(state: &State) -> Result<Namespace, LabError> {
    Ok(Namespace::enter(state.keeper.number, state.backstage)?)
}

fn network(state: &State, node: Node) -> Result<Network, LabError> {
    Ok(enter(state, node)?.run(Network::open)?)
}

fn nft(namespace: &Namespace, text: String) -> Result<(), LabError> {
    let run = move || -> io::Result<_> {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = nft.stdin.take().expect("it is piped");
        // If it ends early, its own words say why.
        let _ = input.write_all(text.as_bytes());
        drop(input);
        nft.wait_with_output()
    };
    let output = namespace.run(run).map_err(LabError::NoNft)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(LabError::Nft(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}

/// Where there is no `nft`, it has done nothing that is to be undone.
fn undone(result: Result<(), LabError>) -> Result<(), LabError> {
    match result {
        Err(LabError::NoNft(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Waits until the service on the real server is so.
fn service_is(state: &State, manner: Manner) -> Result<(), LabError> {
    let until = Instant::now() + Duration::from_secs(5);
    while service::manner(state.keeper.number, state.threads[&Node::S]) != Some(manner) {
        if Instant::now() > until {
            let serves = manner == Manner::Serving;
            return Err(LabError::Service(if serves { "start" } else { "stop" }));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
