//! `tunproof verify`: the whole proof, from one place.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::common::Options;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::prove;
use crate::cli::prove::Ended;
use crate::cli::prove::Vias;
use crate::cli::recording::Addition;
use crate::cli::recording::Recordings;
use crate::plan::Host;
use crate::plan::SessionKey;
use crate::suite::Embedded;
use crate::suite::PathFile;

const EXAMPLE: &str = r#"A path file:
  [path]
  vip = "192.0.2.10"
  port = 80

  [director]
  ip = "192.0.2.2"                  # DIP
  via = "local"                     # or "ssh root@lb1", "ip netns exec d", …

  [[realserver]]
  name = "rs1"
  ip = "203.0.113.5"                # RIP
  via = "ssh root@203.0.113.5"      # a host without `via` is only talked to

  [client]
  ip = "198.51.100.7"               # CIP

Examples:
  tunproof verify path.toml
  tunproof verify path.toml --format json | jq '.hops[] | select(.verdict != "proven")'
  tunproof verify path.toml --pcap proof.pcapng && wireshark proof.pcapng
  tunproof verify path.toml --dry-run

A host on which nothing can be installed, but tcpdump runs, is a vantage by its capture (`--add`); most often
the client, whose `via` the path file then leaves out:
  tunproof verify path.toml --add client.in=<(ssh root@client tcpdump -U -i any -w - host 192.0.2.10)
      streamed while tunproof probes; it waits until tcpdump has begun
  ssh root@client tcpdump -U -i any -w - host 192.0.2.10 | tunproof verify path.toml --add client.in=-
  tunproof verify path.toml --add client.in=/mnt/client/c.pcap
      a file that `tcpdump -U -w` is writing: what is appended from now on counts
  tunproof verify path.toml --add client.in=c.pcap
      a file that is not there yet: start tcpdump on the client first, copy its capture to c.pcap when
      tunproof says that everything was sent; it waits 10 minutes for it, Ctrl-C goes on without it

STATION is `client.in`, `client.out`, `director.in`, `director.out`, `realserver.in`, `realserver.tunnel` or
`realserver.out`, of several real servers `realserver.in@NAME`. A packet counts at the station that it passed,
in or out, as the link header (`-i any`) or else its addresses tell, so one capture of a host serves for both.

Where a capture was made, tunproof takes your word for, unless its packets contradict: then it does not count,
and the exit status is 2. What is in it counts as if a tap had been there; what is not in it proves nothing: no
file shows that it was written all the time, lost nothing and left nothing out. Where a silence must count, run
tunproof there (`via`)."#;

#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The path file
    #[arg(value_name = "PATH.toml")]
    path: PathBuf,
    /// The session's key, 32 hex digits, for `tunproof match` afterwards; a new one for every run, as
    /// nothing else tells one run's probes from another's
    #[arg(long, value_name = "KEY")]
    session: Option<SessionKey>,
    /// A capture of a host without `via`, as a vantage; may be repeated (see below)
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
        session,
        additions,
        push,
        options,
    } = arguments;
    let file = path_file(&path)?;
    let session = session.unwrap_or_else(|| SessionKey::new(rand::random()));
    let mut plan = file.plan(session);
    plan.suites = Embedded::LVS_TUN.suites(&plan.paths);
    if plan.vantages.is_empty() {
        return Err(Failure::NoVantage { path });
    }
    let recordings = Recordings::new(additions, &plan)?;
    let mut settings = Settings::from(options);
    settings.push = push;
    prove::prove_with(plan, vias(file), recordings, &settings)
}

/// Reads a path file.
pub(super) fn path_file(path: &Path) -> Result<PathFile, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    PathFile::parse(&path.display().to_string(), &text).map_err(Failure::PathFile)
}

/// The commands through which the hosts of a path file are reached.
pub(super) fn vias(file: PathFile) -> Vias {
    let servers = file.realservers.into_iter().enumerate();
    [(Host::Director, file.director_via)]
        .into_iter()
        .chain(servers.map(|(number, server)| (Host::Realserver(number), server.via)))
        .chain([(Host::Client, file.client_via)])
        .filter_map(|(host, via)| Some((host, via?)))
        .collect()
}
