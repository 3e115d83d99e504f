//! `tunproof suite`: checks suites, and tells editors what a suite is.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use clap::Subcommand;
use clap::ValueEnum;

use crate::cli::failure::Failure;
use crate::cli::offered::offered;
use crate::cli::output;
use crate::cli::prove::Ended;
use crate::cli::sendable;
use crate::cli::verify;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::plan::Action;
use crate::plan::Builtin;
use crate::plan::Fleet;
use crate::plan::Path as Way;
use crate::plan::Policy;
use crate::plan::SessionKey;
use crate::plan::Step;
use crate::plan::Subject;
use crate::plan::Suite;
use crate::suite;
use crate::suite::Diagnostics;
use crate::suite::Embedded;
use crate::suite::Environment;
use crate::suite::FleetFile;
use crate::suite::Override;
use crate::suite::PathFile;
use crate::suite::SuiteFile;

const EXAMPLES: &str = r#"Examples:
  tunproof suite check probes/*.toml
  tunproof suite check own.toml --path path.toml --set burst=5
  tunproof suite schema > suite.schema.json
      and on the first line of a suite, for editors: #:schema ./suite.schema.json"#;

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what suites, path files, fleet files and policies hold, or what is wrong with them; send nothing
    Check(Check),
    /// List the suites that come with tunproof
    List {
        /// Print the file of this one instead, to be changed
        #[arg(value_name = "SUITE", value_parser = offered(Embedded::ALL.iter().map(|suite| suite.name)), hide_possible_values = true)]
        name: Option<String>,
    },
    /// Print the JSON Schema of a kind of file
    Schema {
        /// Which kind
        #[arg(value_enum, default_value_t = Kind::Suite)]
        kind: Kind,
    },
}

#[derive(clap::Args)]
struct Check {
    /// Suites, path files, which have a `[path]`, fleet files, which have a `[[service]]`, and policies of agents
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The path that `$vip`, `$rip` and so on are of; without it they are documentation addresses
    #[arg(long, value_name = "PATH.toml")]
    path: Option<PathBuf>,
    /// Give a variable of the suite another value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    overrides: Vec<Override>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Suites
    Suite,
    /// Path files
    Path,
    /// Fleet files
    Fleet,
}

pub(super) fn main(arguments: Arguments) -> Result<Ended, Failure> {
    match arguments.command {
        Command::Check(check) => {
            let reads = check.files.iter().chain(&check.path);
            let reads: Vec<_> = reads.map(PathBuf::as_path).collect();
            let writes = &[];
            privileges::confine(Role::Command {
                reads: &reads,
                writes,
            })
            .map_err(Failure::Confine)?;
            self::check(check)
        }
        Command::List { name } => list(name),
        Command::Schema { kind } => {
            let schema = match kind {
                Kind::Suite => suite::suite_schema(),
                Kind::Path => suite::path_schema(),
                Kind::Fleet => suite::fleet_schema(),
            };
            output::print(&format!("{schema:#}\n"))?;
            Ok(Ended::Said)
        }
    }
}

fn list(name: Option<String>) -> Result<Ended, Failure> {
    if let Some(name) = name {
        let Some(suite) = Embedded::named(&name) else {
            let known = Embedded::ALL.iter().map(|suite| suite.name);
            let nearest = suite::nearest(&name, known);
            return Err(Failure::UnknownSuite { name, nearest });
        };
        output::print(suite.text)?;
        return Ok(Ended::Said);
    }
    for suite in Embedded::ALL {
        let file = format!("probes/{}.toml", suite.name);
        let parsed = SuiteFile::parse(&file, suite.text, &Environment::example());
        let about = parsed.map_err(Failure::PathFile)?.about;
        output::print(&format!("{:24} {about}\n", suite.name))?;
    }
    Ok(Ended::Said)
}

fn check(check: Check) -> Result<Ended, Failure> {
    let environments = environments(check.path.as_deref(), &check.overrides)?;
    let mut wrong = 0;
    for path in &check.files {
        let text = fs::read_to_string(path).map_err(|source| Failure::ReadSuite {
            path: path.clone(),
            source,
        })?;
        match described(&path.display().to_string(), &text, &environments) {
            Ok((described, notes)) => {
                output::print(&described)?;
                if let Some(notes) = notes {
                    anstream::eprintln!("{}\n", notes.styled());
                }
            }
            Err(problems) => {
                wrong += 1;
                anstream::eprintln!("{}\n", problems.styled());
            }
        }
    }
    match wrong {
        0 => Ok(Ended::Said),
        _ => Err(Failure::WrongFiles {
            wrong,
            all: check.files.len(),
        }),
    }
}

/// One for each path.
fn environments(path: Option<&Path>, overrides: &[Override]) -> Result<Vec<Environment>, Failure> {
    let ways = match path {
        None => vec![Environment::example()],
        Some(path) => {
            // The key gives no value that a suite could name.
            let plan = verify::path_file(path)?.plan(SessionKey::new([0; 16]));
            plan.paths.iter().map(Environment::of).collect()
        }
    };
    let overridden = ways.into_iter().map(|environment: Environment| {
        let environment = environment.with(overrides.iter().cloned());
        environment.judged_by(sendable::judge)
    });
    Ok(overridden.collect())
}

/// What a file holds, and what is to be noted.
fn described(
    file: &str,
    text: &str,
    environments: &[Environment],
) -> Result<(String, Option<Diagnostics>), Diagnostics> {
    if suite::is_path_file(text) {
        let path = PathFile::parse(file, text)?;
        let ways = path.plan(SessionKey::new([0; 16])).paths;
        let each: String = ways.iter().map(of_way).collect();
        let ways = counted(ways.len(), "path");
        return Ok((format!("{file}: path file, {ways}\n{each}"), None));
    }
    if suite::is_fleet_file(text) {
        let fleet = FleetFile::parse(file, text)?.fleet;
        let each = of_fleet(&fleet);
        return Ok((format!("{file}: fleet file\n{each}"), None));
    }
    if suite::is_policy(text) {
        let policy = suite::policy(file, text)?;
        let rate = match policy.rate {
            Some(rate) => format!("{rate} packets a second"),
            None => format!("{} packets a second for each real server", Policy::RATE),
        };
        return Ok((format!("{file}: policy, {rate}\n"), None));
    }
    let mut suites = environments
        .iter()
        .map(|environment| SuiteFile::check(file, text, environment))
        .collect::<Result<Vec<_>, _>>()?;
    // What differs from path to path are addresses; the steps are the same.
    let Some((suite, notes)) = suites.drain(..).next() else {
        return Ok((String::new(), None));
    };
    Ok((format!("{file}: {}", of_suite(&suite)), notes))
}

fn of_way(way: &Way) -> String {
    let dip = way.dip.map(|dip| format!(" → {dip}")).unwrap_or_default();
    format!(
        "  {}: {}{dip} ⇒ {}, {}:{}/{}\n",
        way.realserver,
        way.cip,
        way.rip,
        way.vip,
        way.port,
        way.protocol.name()
    )
}

fn of_fleet(fleet: &Fleet) -> String {
    let each = fleet.groups().iter().map(|group| {
        let services = counted(group.services().len(), "service");
        let servers = counted(group.realservers() as usize, "real server");
        format!("  {services} × {servers}\n")
    });
    let each: String = each.collect();
    format!(
        "{each}  {} from {}\n",
        counted(fleet.pairs() as usize, "pair"),
        fleet.dip()
    )
}

fn of_suite(suite: &Suite) -> String {
    let steps = counted(suite.steps.len(), "step");
    let mut text = format!("suite `{}`, {steps}\n", suite.name);
    let width = suite.steps.iter().map(|step| step.id.len()).max();
    for step in &suite.steps {
        let id = &step.id;
        let width = width.unwrap_or_default();
        text.push_str(&format!("  {id:width$}  {}\n", of_step(step)));
    }
    text
}

fn of_step(step: &Step) -> String {
    let what = match &step.action {
        Action::Builtin(builtin) => of_builtin(builtin),
        Action::Script(script) => format!(
            "{} written out, from the {}",
            counted(script.packets.len(), "packet"),
            script.from.id()
        ),
        Action::Ask(question) => {
            let what = match question.about {
                Subject::Route { to, .. } => format!("route to {to}"),
                Subject::Sysctl { ref name, .. } => name.clone(),
                Subject::Address { address, .. } => format!("address {address}"),
            };
            format!("{what}, asked of the {}", question.host.id())
        }
    };
    match step.expect.len() {
        0 => what,
        number => format!("{what}; {}", counted(number, "expectation")),
    }
}

fn of_builtin(builtin: &Builtin) -> String {
    let values = builtin.ttls.len().max(1) * builtin.sizes.len().max(1);
    let packets = match builtin.count {
        _ if !builtin.task.is_counted() => "as many packets as it takes".to_owned(),
        Some(count) => counted(values * usize::from(count), "packet"),
        None => format!(
            "{} to {} packets",
            values * usize::from(builtin.at_least),
            values * usize::from(Builtin::MOST_TRIES)
        ),
    };
    format!("{}, {packets}", builtin.task.id())
}

/// `1 step`, `2 steps`.
fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}
