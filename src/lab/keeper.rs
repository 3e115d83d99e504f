//! The process that holds the lab together.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::io;
use std::io::Read;
use std::io::Write;
use std::thread;

use nix::unistd::setsid;

use crate::lab::Directory;
use crate::lab::LabError;
use crate::lab::Maker;
use crate::lab::Node;
use crate::lab::director;
use crate::lab::director::Director;
use crate::lab::fault;
use crate::lab::service;
use crate::lab::standin;
use crate::lab::standin::TUNNEL;
use crate::lab::standin::Tunnel;
use crate::lab::state::Process;
use crate::lab::state::State;
use crate::lab::topology::Hosts;
use crate::lab::topology::VIP;
use crate::lab::topology::set;
use crate::live::netns::Namespace;
use crate::live::netns::become_root;
use crate::live::network::Network;

/// What the keeper says when the lab is up.
pub(super) const READY: &str = "ready";

/// Builds the lab in `directory` and keeps it until the process ends, or, if `attached`, until its stdin does. Says
/// `ready` on stdout, or why not. The process must have one thread.
pub fn keep(directory: &Directory, attached: bool) -> io::Result<()> {
    // Ctrl-C is for whoever started the keeper; already leading a session is as good.
    let _ = setsid();
    env::set_current_dir("/")?;
    let lab = match build(directory) {
        Ok(lab) => lab,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            return writeln!(io::stdout(), "{text}");
        }
    };
    let told = writeln!(io::stdout(), "{READY}");
    if told.is_ok() && !attached {
        lab.stay();
    }
    // Nothing is ever written to it: it ends when whoever holds its other end does.
    io::stdin().read_to_end(&mut Vec::new())?;
    // The lab goes with the process anyway.
    let _ = directory.remove();
    Ok(())
}

/// What holds the namespaces.
struct Kept {
    /// The hosts.
    _hosts: Hosts,
    /// The far ends of the stand-ins' devices.
    _backstage: Namespace,
}

impl Kept {
    fn stay(self) -> Infallible {
        loop {
            thread::park();
        }
    }
}

fn build(directory: &Directory) -> Result<Kept, LabError> {
    become_root()?;
    let mut hosts = Hosts::build()?;
    let backstage = Namespace::new()?;
    let faults = directory.faults();
    faults.write(&[])?;

    let tunnel = build_tunnel(&mut hosts, &backstage)?;
    if tunnel == Maker::StandIn {
        let standin = Tunnel::open(&hosts, &backstage, faults.clone())?;
        start("tunnel", move || standin.run())?;
    }
    let director = match hosts.namespace(Node::D).run(director::configure_kernel)? {
        true => Maker::Kernel,
        false => {
            let standin = Director::open(&mut hosts, &backstage, faults.clone())?;
            start("director", move || standin.run())?;
            Maker::StandIn
        }
    };
    // Without `nft` it works all the same, and is open to anyone.
    let _ = fault::protect(hosts.namespace(Node::S));
    let listener = service::open(hosts.namespace(Node::S))?;
    let thread = hosts.namespace(Node::S).thread();
    let server = Namespace::enter(std::process::id(), thread)?;
    start("service", move || service::run(&server, listener, &faults))?;

    directory.write(&State {
        keeper: Process::this().map_err(|source| LabError::Keeper {
            operation: "look at",
            source,
        })?,
        threads: hosts.threads(),
        backstage: backstage.thread(),
        tunnel,
        director,
    })?;
    Ok(Kept {
        _hosts: hosts,
        _backstage: backstage,
    })
}

fn build_tunnel(hosts: &mut Hosts, backstage: &Namespace) -> Result<Maker, LabError> {
    let mut far_end = backstage.run(Network::open)?;
    let network = hosts.network(Node::S);
    // Any refusal means: no `ipip` for us.
    if network.add_ipip(TUNNEL, None).is_ok() {
        network.add_address(TUNNEL, VIP, 32)?;
        network.set_up(TUNNEL, true)?;
        set(
            hosts.namespace(Node::S),
            Node::S,
            "net/ipv4/conf/tunl0/rp_filter",
            "0",
        )?;
        return Ok(Maker::Kernel);
    }
    let mut network = hosts.namespace(Node::S).run(Network::open)?;
    standin::add_device(
        (hosts.namespace(Node::S), &mut network),
        (backstage, &mut far_end),
    )?;
    Ok(Maker::StandIn)
}

fn start(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), LabError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|source| LabError::Keeper {
            operation: "start a thread of",
            source,
        })
}
