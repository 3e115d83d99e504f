//! `tunproof listen`: what arrives here of another terminal's probes.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::cli::addresses::address;
use crate::cli::addresses::distinct;
use crate::cli::addresses::sources;
use crate::cli::common::Format;
use crate::cli::common::Options;
use crate::cli::common::Settings;
use crate::cli::common::duration;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::prove;
use crate::cli::prove::Ended;
use crate::exchange::HostFacts;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::report;
use crate::run::Task;

const EXAMPLES: &str = "\
Examples:
  tunproof listen --session 0123456789abcdef0123456789abcdef --vip 192.0.2.10 --cip 198.51.100.7
      typed on the director or on the client; `tunproof realserver` prints it with its key
  tunproof listen --session KEY --vip 192.0.2.10 --dip 192.0.2.2 --for 1m --pcap director.pcapng
      on the director, for `tunproof spoofcheck --toward director` on the real server

It sends nothing. It ends on Ctrl-C, or after `--for`, with the report of what the arrivals prove: of the
HOWTO's Q3 everything, of the rest nothing, so that its exit status is 3 where all is well.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The session's key, 32 hex digits
    #[arg(long, value_name = "KEY")]
    session: SessionKey,
    /// The virtual IP
    #[arg(long, value_name = "ADDR", value_parser = address)]
    vip: Ipv4Addr,
    /// The client's address; else, on the director, any client's, and on the client, its own
    #[arg(long, value_name = "ADDR", value_parser = address)]
    cip: Option<Ipv4Addr>,
    /// The director's own address, on the director: what real servers send there is reported, too
    #[arg(long, value_name = "ADDR", value_parser = address)]
    dip: Option<Ipv4Addr>,
    /// The service's port
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// How long to listen, such as `30s`
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    options: Options,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let Arguments {
        session, vip, dip, ..
    } = arguments;
    let (mut found, facts) = sources(&[vip])?;
    let cip = match arguments.cip {
        Some(cip) => cip,
        // A director hears any client.
        None if has(&facts, vip) => Ipv4Addr::UNSPECIFIED,
        None => found.remove(0)?,
    };
    let mut named = vec![("--vip", vip), ("--cip", cip)];
    named.extend(dip.map(|dip| ("--dip", dip)));
    distinct(&named)?;
    let host = match has(&facts, cip) {
        true => Host::Client,
        false => Host::Director,
    };
    let plan = Plan {
        session,
        paths: vec![Path {
            realserver: "any real server".to_owned(),
            vip,
            port: arguments.port,
            protocol: Protocol::Tcp,
            rip: Ipv4Addr::UNSPECIFIED,
            dip,
            cip,
            gateway: None,
            tunnel: None,
        }],
        vantages: vec![host],
        ingress: None,
        egress: None,
        suites: Vec::new(),
    };
    let settings = Settings::from(arguments.options);
    if settings.dry_run {
        output::say("nothing would be sent\n", &settings)?;
        return Ok(Ended::Said);
    }

    output::check(&settings)?;
    let is_live = settings.format == Format::Text && settings.output.is_none();
    let mut told = 0;
    let mut failure = None;
    let vias = [(host, prove::local())].into();
    let task = Task::Listen(arguments.duration);
    let vantages = prove::reach(vias, &[], &settings)?;
    let (known, ending) = prove::run(plan, &vantages, task, &settings, &mut |evidence| {
        for item in &evidence.items()[told..] {
            if let Some(line) = report::arrival(evidence, item).filter(|_| is_live) {
                failure = output::print(&line).err().or(failure.take());
            }
        }
        told = evidence.items().len();
    })?;
    ending.after(|| match failure {
        Some(failure) => Err(failure),
        None => prove::report(known, &settings),
    })
}

/// Whether an address is this host's own.
fn has(facts: &HostFacts, address: Ipv4Addr) -> bool {
    let mut addresses = facts.links.iter().flat_map(|link| &link.addresses);
    addresses.any(|own| own.ip == address)
}
