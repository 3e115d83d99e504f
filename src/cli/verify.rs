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
use crate::plan::Host;
use crate::plan::Plan;
use crate::plan::SessionKey;
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
  tunproof verify path.toml --dry-run"#;

#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Arguments {
    /// The path file
    #[arg(value_name = "PATH.toml")]
    path: PathBuf,
    #[command(flatten)]
    options: Options,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let Arguments { path, options } = arguments;
    let file = path_file(&path)?;
    let plan = Plan::from_path_file(&file, SessionKey::new(rand::random()));
    if plan.vantages.is_empty() {
        return Err(Failure::NoVantage { path });
    }
    prove::prove(plan, vias(file), &Settings::from(options))
}

/// Reads a path file.
pub(super) fn path_file(path: &Path) -> Result<PathFile, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::Read {
        path: path.to_owned(),
        source,
    })?;
    PathFile::parse(&path.display().to_string(), &text).map_err(Failure::PathFile)
}

fn vias(file: PathFile) -> Vias {
    let servers = file.realservers.into_iter().enumerate();
    [(Host::Director, file.director_via)]
        .into_iter()
        .chain(servers.map(|(number, server)| (Host::Realserver(number), server.via)))
        .chain([(Host::Client, file.client_via)])
        .filter_map(|(host, via)| Some((host, via?)))
        .collect()
}
