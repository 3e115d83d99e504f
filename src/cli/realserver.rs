//! `tunproof realserver`: what the real server can prove alone.

use std::net::Ipv4Addr;

use crate::cli::addresses::address;
use crate::cli::addresses::distinct;
use crate::cli::addresses::sources;
use crate::cli::common::Options;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::prove;
use crate::cli::prove::Ended;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::suite::Embedded;

const EXAMPLES: &str = "\
Examples:
  tunproof realserver --vip 192.0.2.10 --cip 198.51.100.7
      what it sends with the VIP as its source, the client answers to the director; the line that is
      printed first, typed there, shows those answers
  tunproof realserver --vip 192.0.2.10 --cip 198.51.100.7 --dip 192.0.2.2 --gateway 203.0.113.1

What the director does, and what arrives there, this host cannot know: of a path that works, those hops are
`unproven`, and the exit status is 3.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The virtual IP
    #[arg(long, value_name = "ADDR", value_parser = address)]
    vip: Ipv4Addr,
    /// The service's port
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The client's address
    #[arg(long, value_name = "ADDR", value_parser = address)]
    cip: Ipv4Addr,
    /// This real server's own address; else the source that its route to the client prefers
    #[arg(long, value_name = "ADDR", value_parser = address)]
    rip: Option<Ipv4Addr>,
    /// The director's own address
    #[arg(long, value_name = "ADDR", value_parser = address)]
    dip: Option<Ipv4Addr>,
    /// This real server's gateway; else the one that its route to the client has
    #[arg(long, value_name = "ADDR", value_parser = address)]
    gateway: Option<Ipv4Addr>,
    /// The session's key, 32 hex digits, where another terminal listens already
    #[arg(long, value_name = "KEY")]
    session: Option<SessionKey>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let (vip, cip) = (arguments.vip, arguments.cip);
    let rip = match arguments.rip {
        Some(rip) => rip,
        None => own_address(&arguments)?,
    };
    let mut named = vec![("--vip", vip), ("--cip", cip), ("--rip", rip)];
    named.extend(arguments.dip.map(|dip| ("--dip", dip)));
    named.extend(arguments.gateway.map(|gateway| ("--gateway", gateway)));
    distinct(&named)?;
    let session = arguments.session.unwrap_or_else(|| {
        let session = SessionKey::new(rand::random());
        let port = match arguments.port {
            80 => String::new(),
            port => format!(" --port {port}"),
        };
        eprintln!(
            "on the director, type: tunproof listen --session {session} --vip {vip} --cip {cip}{port}"
        );
        session
    });
    let path = Path {
        realserver: rip.to_string(),
        vip,
        port: arguments.port,
        protocol: Protocol::Tcp,
        rip,
        dip: arguments.dip,
        cip,
        gateway: arguments.gateway,
        tunnel: None,
    };
    let host = Host::Realserver(0);
    let paths = vec![path];
    let plan = Plan {
        session,
        vantages: vec![host],
        ingress: None,
        egress: None,
        suites: Embedded::REALSERVER_ALONE.suites(&paths),
        paths,
    };
    let vias = [(host, prove::local())].into();
    prove::prove(plan, vias, &Settings::from(arguments.options))
}

/// This real server's own address: the source that its route to the client prefers; where there is no such route,
/// which is for the proof to find, the source toward director or gateway, or the first address of a device.
fn own_address(arguments: &Arguments) -> Result<Ipv4Addr, Failure> {
    let Arguments {
        vip,
        cip,
        dip,
        gateway,
        ..
    } = *arguments;
    let asked: Vec<_> = [Some(cip), dip, gateway].into_iter().flatten().collect();
    let (found, facts) = sources(&asked)?;
    let sources = found.iter().flatten().copied();
    let devices = facts.links.iter().filter(|link| link.mac.is_some());
    let addresses = devices.flat_map(|link| link.addresses.iter().map(|address| address.ip));
    let own = sources.chain(addresses).find(|source| *source != vip);
    match (own, found.into_iter().next()) {
        (Some(own), _) => Ok(own),
        (None, Some(first)) => first,
        (None, None) => Err(Failure::NoSource { to: cip }),
    }
}
