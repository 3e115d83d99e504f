//! `tunproof spoofcheck`: does a network between real server and client (or director) filter the VIP as a source?

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;

use crate::cli::common::Options;
use crate::cli::failure::Failure;
use crate::cli::prove;
use crate::cli::prove::Ended;
use crate::cli::recording::Addition;
use crate::cli::recording::Recordings;
use crate::cli::verify;
use crate::plan::Host;
use crate::plan::ProbeId;
use crate::plan::SessionKey;
use crate::plan::Toward;
use crate::run::Limits;
use crate::suite::Embedded;
use crate::suite::Override;

const EXAMPLE: &str = "\
A real server of LVS-TUN answers clients directly, with the VIP as its source. Networks that drop sources which
they do not route back (BCP 38, uRPF) then drop the answers: clients hang, and nothing says why. This asks every
router on the way: packets from the VIP, and the same from the real server's own address as their control, with
times to live 1, 2, 3 … as traceroute does, by UDP and by SYN-ACK, in eight flows (several equal paths may lead
there), in three passes seconds apart. Where the control gets through and the VIP does not, it is filtered, and the
routers that answer show where.

What is answered to the VIP comes to the director. So besides the real server (its `via` in the path file) one
witness is needed, and two say more:
  the director, by its `via`: names the routers, and shows by probes of its own that the way back works
  the client, by its `via`: needs no answers, tells a rewritten source, and a filter next to the client
  a capture of the client:
    client#     tcpdump -i any -U -w client.pcap 'host 192.0.2.10 or host 203.0.113.5'   (VIP, RIP)
    realserver# tunproof spoofcheck path.toml --add client.in=client.pcap
  `listen` on the director, with its packets (nothing else there, no connection between the two):
    director#   tunproof listen --session KEY --vip 192.0.2.10 --cip 198.51.100.7 --for 1m --pcap d.pcapng
    realserver# tunproof spoofcheck path.toml --session KEY --add director.in=d.pcapng
                (copy d.pcapng there when `listen` has ended: it is waited for)
A capture without packets from the VIP counts as silence here if it has the control's of the same passes.

No client at hand? `--toward director` asks the way to the director instead, with the director itself as the witness:
an agent, a capture (`--add director.in=FILE`), or `listen` there (with `--dip`). It sees packets from the VIP arrive
that its kernel then drops, as their source is its own address. It proves that way only, and no hop of the clients':
the report names the routers that both have in common. A filter right before the director is no finding, for networks
refuse their own addresses from outside.

Examples:
  tunproof spoofcheck path.toml
  tunproof spoofcheck path.toml --toward director
  tunproof spoofcheck path.toml --passes 10           where much is lost
  tunproof spoofcheck path.toml --format json | jq '.paths[] | {outcome, confidence, last_passed, first_stopped}'
  tunproof spoofcheck path.toml --dry-run

Exit status: 0 passed; 1 filtered, partly filtered or rewritten; 2 could not run; 3 inconclusive, or the control
dies too (the client is dead to everybody, which is no filter).";

/// Packets a second that one host sends at most, unless it is said.
const RATE: u32 = 50;
/// What a run takes besides its passes.
const BESIDES: Duration = Duration::from_secs(30);
/// What a pass takes at most at that rate, of a path.
const PASS: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The path file
    #[arg(value_name = "PATH.toml")]
    path: PathBuf,
    /// How many passes, seconds apart
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    passes: u16,
    /// How many flows
    #[arg(long, value_name = "N", default_value_t = ProbeId::FLOWS,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(ProbeId::FLOWS)))]
    flows: u16,
    /// Whose way is asked
    #[arg(long, value_name = "HOST", default_value = Toward::Client.id(),
          value_parser = PossibleValuesParser::new(Toward::ALL.map(Toward::id)))]
    toward: String,
    /// Only this real server of the path file
    #[arg(long, value_name = "NAME")]
    realserver: Option<String>,
    /// The session's key, 32 hex digits, where another terminal listens already
    #[arg(long, value_name = "KEY")]
    session: Option<SessionKey>,
    /// A capture of a host without `via`, as a witness; may be repeated
    #[arg(long = "add", value_name = "STATION=FILE")]
    additions: Vec<Addition>,
    /// Bring this program along, through `via`, to hosts that lack it or have another version: into a private
    /// folder that is gone before the agent starts, so that nothing is left there
    #[arg(long)]
    push: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let Arguments {
        path,
        passes,
        flows,
        toward,
        realserver,
        session,
        additions,
        push,
        options,
    } = arguments;
    let mut file = verify::path_file(&path)?;
    if let Some(name) = realserver {
        let names: Vec<_> = file
            .realservers
            .iter()
            .map(|server| server.name.clone())
            .collect();
        file.realservers.retain(|server| server.name == name);
        if file.realservers.is_empty() {
            return Err(Failure::UnknownRealserver { name, names });
        }
    }
    let session = session.unwrap_or_else(|| SessionKey::new(rand::random()));
    let mut plan = file.plan(session);
    let overrides = [
        ("passes", passes.to_string()),
        ("flows", flows.to_string()),
        ("toward", toward),
    ];
    let overrides = overrides.map(|(name, text)| Override {
        name: name.to_owned(),
        text,
    });
    plan.suites = Embedded::SPOOF_FILTER.suites_with(&plan.paths, &overrides);
    if !plan
        .vantages
        .iter()
        .any(|host| matches!(host, Host::Realserver(_)))
    {
        return Err(Failure::NoRealserver { path });
    }
    let paths = plan.paths.len() as u32;
    let mut settings = options.settings(Limits {
        rate: Some(RATE),
        timeout: BESIDES + PASS * u32::from(passes) * paths,
    });
    settings.push = push;
    let recordings = Recordings::new(additions, &plan)?;
    prove::prove_with(plan, verify::vias(file), recordings, &settings)
}
