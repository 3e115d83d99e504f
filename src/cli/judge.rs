//! `tunproof judge`: what a run has kept, judged again.

use std::path::Path;
use std::path::PathBuf;

use crate::cli::common::Reporting;
use crate::cli::common::Settings;
use crate::cli::failure::Failure;
use crate::cli::match_capture::open;
use crate::cli::output;
use crate::cli::prove;
use crate::cli::prove::Ended;
use crate::cli::prove::Known;
use crate::cli::recording::Addition;
use crate::cli::recording::Recordings;
use crate::cli::run;
use crate::evidence;
use crate::evidence::Loaded;
use crate::evidence::Purpose;
use crate::report::escape;

const EXAMPLES: &str = "\
Examples:
  tunproof verify path.toml --save case.json
      keeps plan, evidence and packets; so do `run` (of `--repeat` all rounds), `spoofcheck`, `director`,
      `realserver` and `listen`
  tunproof judge case.json
      the same report, on any machine and without rights
  tunproof judge case.json --format json | diff - report.json
      to the bit the report of the run, its times included
  tunproof judge case.json --pcap case.pcapng
  tunproof judge case.json --add client.in=client.pcap
      with what the client's tcpdump saw meanwhile, which counts as it does in `tunproof verify --add`
  ssh root@lb1 cat case.json | tunproof judge -

Another version of tunproof may judge otherwise: that is what a case is kept for. The file names the session's
key, the addresses, devices, routes, IPVS services and firewall rules of the hosts, as far as they are about the
path, and has the packets that were sent and seen. The key is of that run only.

Exit status: that of the verdict, 0, 1 or 3, also where a host was lost; 2 the file cannot be read or judged.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// What `--save` has written, or `-` for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A capture of a host on which tunproof did not run, as a vantage; may be repeated
    #[arg(long = "add", value_name = "STATION=FILE")]
    additions: Vec<Addition>,
    #[command(flatten)]
    reporting: Reporting,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    let settings = Settings::from(arguments.reporting);
    let added = arguments.additions.iter().map(Addition::file);
    let reads: Vec<_> = [&*arguments.file].into_iter().chain(added).collect();
    prove::confine(&reads, &settings).map_err(Failure::Confine)?;
    let loaded = load(&arguments.file)?;
    output::check(&settings)?;
    if let Some(version) = loaded.iter().find_map(|loaded| loaded.by.as_deref()) {
        let (version, own) = (escape(version), env!("CARGO_PKG_VERSION"));
        anstream::eprintln!("made by tunproof {version}, judged by {own}: the verdict may differ");
    }
    if loaded.len() > 1
        && let Some(file) = arguments.additions.iter().find_map(Addition::read_once)
    {
        return Err(Failure::ReadOnce {
            file,
            rounds: loaded.len(),
        });
    }
    let mut proofs = Vec::new();
    let mut rounds = Vec::new();
    for Loaded {
        mut evidence,
        timing,
        purpose,
        ..
    } in loaded
    {
        let additions = arguments.additions.clone();
        Recordings::new(additions, evidence.plan())?.read(&mut evidence)?;
        let known = Known { evidence, timing };
        match purpose {
            Purpose::Proof => proofs.push(known),
            Purpose::Suite => rounds.push(known),
        }
    }
    match proofs.pop() {
        Some(known) => Ok(Ended::Judged(prove::report(known, &settings)?)),
        None => run::again(rounds, &settings),
    }
}

/// What was kept: one case, or of a suite those of all its rounds.
fn load(path: &Path) -> Result<Vec<Loaded>, Failure> {
    let file = || path.display().to_string();
    let mut content = Vec::new();
    open(path)
        .and_then(|mut input| input.read_to_end(&mut content))
        .map_err(|source| Failure::ReadCase {
            file: file(),
            source,
        })?;
    evidence::load(&content).map_err(|source| Failure::Case {
        file: file(),
        source,
    })
}
