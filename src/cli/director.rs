//! `tunproof director`: what the director can prove alone.

use std::net::Ipv4Addr;

use clap::ValueEnum;

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
  tunproof director --vip 192.0.2.10 --rip 203.0.113.5 --cip 198.51.100.7
  tunproof director --vip 192.0.2.10 --port 53 --protocol udp \\
      --rip 203.0.113.5 --rip 203.0.113.6 --cip 198.51.100.7 --dip 192.0.2.2

The client need not be yours to log in to, but it must be yours to send a few packets to: the real
server's answers go to it, and what it answers comes back here. What one host cannot decide is
`unproven`, with the vantage that could.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The virtual IP
    #[arg(long, value_name = "ADDR", value_parser = address)]
    vip: Ipv4Addr,
    /// The service's port
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// A real server's own address; repeat it for more real servers
    #[arg(long, value_name = "ADDR", required = true, value_parser = address)]
    rip: Vec<Ipv4Addr>,
    /// The client's address
    #[arg(long, value_name = "ADDR", value_parser = address)]
    cip: Ipv4Addr,
    /// This director's own address; else the source that its route to each real server prefers
    #[arg(long, value_name = "ADDR", value_parser = address)]
    dip: Option<Ipv4Addr>,
    /// The service's protocol
    #[arg(long, value_enum, default_value_t = TypedProtocol::Tcp)]
    protocol: TypedProtocol,
    #[command(flatten)]
    options: Options,
}

#[derive(Clone, Copy, ValueEnum)]
enum TypedProtocol {
    Tcp,
    Udp,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let mut named = vec![("--vip", arguments.vip), ("--cip", arguments.cip)];
    named.extend(arguments.rip.iter().map(|rip| ("--rip", *rip)));
    named.extend(arguments.dip.map(|dip| ("--dip", dip)));
    distinct(&named)?;
    let dips = match arguments.dip {
        Some(dip) => vec![Some(dip); arguments.rip.len()],
        // A director without a route, or whose route prefers the VIP, is what the proof shall find.
        None => sources(&arguments.rip)?
            .0
            .into_iter()
            .map(|source| source.ok().filter(|source| *source != arguments.vip))
            .collect(),
    };
    let paths = arguments.rip.iter().zip(dips);
    let paths = paths.map(|(rip, dip)| Path {
        realserver: rip.to_string(),
        vip: arguments.vip,
        port: arguments.port,
        protocol: match arguments.protocol {
            TypedProtocol::Tcp => Protocol::Tcp,
            TypedProtocol::Udp => Protocol::Udp,
        },
        rip: *rip,
        dip,
        cip: arguments.cip,
        gateway: None,
        tunnel: None,
    });
    let paths: Vec<_> = paths.collect();
    let plan = Plan {
        session: SessionKey::new(rand::random()),
        vantages: vec![Host::Director],
        ingress: None,
        egress: None,
        suites: Embedded::DIRECTOR_ALONE.suites(&paths),
        paths,
    };
    let vias = [(Host::Director, prove::local())].into();
    prove::prove(plan, vias, &Settings::from(arguments.options))
}
