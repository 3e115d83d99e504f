//! `tunproof lab`: the whole path on one machine.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::process::Command;
use std::process::ExitCode;

use clap::Args;
use clap::Subcommand;
use clap::builder::PossibleValue;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;

use crate::lab::Directory;
use crate::lab::FAULTS;
use crate::lab::Fault;
use crate::lab::Lab;
use crate::lab::LabError;
use crate::lab::Maker;
use crate::lab::Needs;
use crate::lab::Node;

/// `tunproof lab …`.
#[derive(Args)]
pub(super) struct LabArgs {
    /// Which lab, where there are several
    #[arg(long, value_name = "NAME", default_value = Directory::DEFAULT)]
    name: String,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start the lab; it stays up, and its path file is printed
    Up,
    /// Run a command on a host: c, r1, core, rd, d, isp, gw or s
    Exec {
        /// The host
        #[arg(value_parser = node())]
        host: Node,
        /// The command; a shell if there is none
        #[arg(trailing_var_arg = true, allow_hyphen_values = true,
              value_hint = clap::ValueHint::CommandWithArguments)]
        command: Vec<OsString>,
    },
    /// Break the lab with a fault that `tunproof lab list` names
    Break {
        /// The fault
        #[arg(value_parser = fault())]
        fault: &'static Fault,
    },
    /// Mend every fault
    Mend,
    /// List the faults: name, hop, what is done, what it takes, and the finding, where it has another name
    List,
    /// End the lab
    Down,
    /// Prove a healthy path, break it, find the break, mend it, prove it again
    Demo {
        /// The fault
        #[arg(value_parser = fault(), default_value = "spoofed-source-filtered")]
        fault: &'static Fault,
    },
    /// Be the process that holds a lab together
    #[command(hide = true)]
    Keep {
        /// End when stdin does
        #[arg(long)]
        attached: bool,
    },
}

fn node() -> impl TypedValueParser<Value = Node> {
    PossibleValuesParser::new(Node::ALL.map(Node::name)).map(|name| {
        let is_meant = |node: &Node| node.name() == name;
        Node::ALL
            .into_iter()
            .find(is_meant)
            .expect("the parser knows them all")
    })
}

fn fault() -> impl TypedValueParser<Value = &'static Fault> {
    let names = FAULTS
        .iter()
        .map(|fault| PossibleValue::new(fault.name).help(fault.about));
    PossibleValuesParser::new(names)
        .map(|name| Fault::named(&name).expect("the parser knows them all"))
}

/// Why a `lab` command could not run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error("cannot find this program")]
    Program(#[source] io::Error),
    #[error("cannot run `tunproof verify`")]
    Verify(#[source] io::Error),
}

/// Does it: 0 done, 2 could not; `demo` also 1, if its verdicts were not proven, broken, proven.
pub(super) fn run(arguments: LabArgs) -> ExitCode {
    let result = Directory::of(&arguments.name)
        .map_err(Failure::Lab)
        .and_then(|directory| act(directory, arguments.action));
    match result {
        Ok(code) => code,
        Err(failure) => {
            print(&failure);
            ExitCode::from(2)
        }
    }
}

fn act(directory: Directory, action: Action) -> Result<ExitCode, Failure> {
    match action {
        Action::Up => up(directory)?,
        Action::Exec { host, command } => {
            return Err(Lab::find(directory)?.exec(host, &command).into());
        }
        Action::Break { fault } => {
            let lab = Lab::find(directory)?;
            lab.break_with(fault)?;
            anstream::eprintln!("broken: {}", fault.about);
            anstream::eprintln!(
                "expect {} at {}; `tunproof lab {}mend` mends it",
                fault.finding_by(lab.director()),
                fault.hop,
                lab.directory().option()
            );
        }
        Action::Mend => {
            let mended = Lab::find(directory)?.mend()?;
            for fault in &mended {
                anstream::eprintln!("mended: {}", fault.name);
            }
            if mended.is_empty() {
                anstream::eprintln!("nothing is broken");
            }
        }
        Action::List => list(&directory)?,
        Action::Down => {
            Lab::find(directory)?.down()?;
            anstream::eprintln!("the lab is down, nothing of it is left");
        }
        Action::Demo { fault } => return demo(fault),
        Action::Keep { attached } => {
            // Whoever started it has its stdout, and takes silence for a failure.
            let kept = crate::lab::keep(&directory, attached);
            return Ok(ExitCode::from(if kept.is_ok() { 0 } else { 2 }));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn up(directory: Directory) -> Result<(), Failure> {
    let program = env::current_exe().map_err(Failure::Program)?;
    let lab = Lab::up(directory, &program, false)?;
    let path = lab.directory().path_file();
    let text = std::fs::read_to_string(&path).map_err(|source| LabError::File {
        operation: "read",
        path: path.clone(),
        source,
    })?;
    anstream::print!("{text}");
    let option = lab.directory().option();
    anstream::eprintln!("{}", makers(&lab));
    anstream::eprintln!(
        "the lab is up; its path file is `{}`. Now try:",
        path.display()
    );
    anstream::eprintln!("  tunproof verify {}", path.display());
    anstream::eprintln!("  tunproof lab {option}exec d ip route get 203.0.113.5");
    anstream::eprintln!("  tunproof lab {option}break rp-filter-drops");
    anstream::eprintln!("  tunproof lab {option}mend");
    anstream::eprintln!("  tunproof lab {option}down");
    Ok(())
}

/// Who does what a kernel may lack.
fn makers(lab: &Lab) -> String {
    let of = |maker, kernel, standin| match maker {
        Maker::Kernel => format!("the kernel's {kernel}"),
        Maker::StandIn => format!("a stand-in for {kernel} in user space, on {standin}"),
    };
    format!(
        "director: {}; tunnel endpoint: {}",
        of(lab.director(), "IPVS", "d"),
        of(lab.tunnel(), "ipip", "s")
    )
}

fn list(directory: &Directory) -> Result<(), Failure> {
    let broken = match Lab::find(directory.clone()) {
        Ok(lab) => lab.broken(),
        Err(LabError::NotUp { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    for fault in FAULTS {
        let nft = if fault.needs_nft() { " [nft]" } else { "" };
        let needs = match fault.needs {
            Needs::Nothing => "",
            Needs::KernelTunnel => " [the kernel's ipip]",
            Needs::StandInTunnel => " [the stand-in for ipip]",
        };
        let is_broken = broken.iter().any(|other| other.name == fault.name);
        let now = if is_broken { " [broken now]" } else { "" };
        anstream::println!(
            "{:<34} {:<23} {}{nft}{needs}{now}",
            fault.name,
            fault.hop,
            fault.about
        );
        if fault.finding != fault.name {
            anstream::println!("{:<34} finding: {}", "", fault.finding);
        }
    }
    anstream::println!(
        "\n`tunproof explain FINDING` says what it means; a finding that is not named has the fault's name\n\
         [nft]: takes a kernel with nftables; [the kernel's ipip], [the stand-in for ipip]: takes a lab with it"
    );
    Ok(())
}

/// Verdicts that `tunproof verify` ends with.
const PROVEN: i32 = 0;
const BROKEN: i32 = 1;

fn demo(fault: &'static Fault) -> Result<ExitCode, Failure> {
    let program = env::current_exe().map_err(Failure::Program)?;
    let directory = Directory::of(&format!("demo-{}", std::process::id()))?;
    say("a client, a director, a real server and five routers in network namespaces");
    let lab = Lab::up(directory, &program, true)?;
    anstream::eprintln!("{}", makers(&lab));

    // Breaking and mending may enter a user namespace, which would leave this process no way back.
    let own = |arguments: &[&str]| -> Result<i32, Failure> {
        let status = Command::new(&program)
            .args(arguments)
            .status()
            .map_err(Failure::Verify)?;
        Ok(status.code().unwrap_or(-1))
    };
    let name = lab.directory().name().to_owned();
    let path = lab.directory().path_file();
    let path = path.to_string_lossy();
    let verify = || own(&["verify", &path]);

    say("the path is healthy: `tunproof verify` proves every hop");
    let first = verify()?;
    say(&format!("now it is broken: {}", fault.about));
    let broke = own(&["lab", "--name", &name, "break", fault.name])?;
    say(&format!(
        "`tunproof verify` must find {} at {}",
        fault.finding_by(lab.director()),
        fault.hop
    ));
    let second = verify()?;
    say("mended");
    let mended = own(&["lab", "--name", &name, "mend"])?;
    say("`tunproof verify` proves every hop again");
    let third = verify()?;
    lab.down()?;
    say("the lab is down, nothing of it is left");

    let as_told = (first, second, third) == (PROVEN, BROKEN, PROVEN) && (broke, mended) == (0, 0);
    if !as_told {
        anstream::eprintln!(
            "the verdicts' exit statuses were {first}, {second} and {third}, not {PROVEN}, {BROKEN} and {PROVEN}"
        );
    }
    Ok(ExitCode::from(if as_told { 0 } else { 1 }))
}

fn say(text: &str) {
    const STEP: anstyle::Style = anstyle::Style::new().bold();
    anstream::eprintln!("{STEP}== {text}{STEP:#}");
}

fn print(failure: &Failure) {
    const BAD: anstyle::Style = anstyle::AnsiColor::Red
        .on_default()
        .effects(anstyle::Effects::BOLD);
    anstream::eprintln!("{BAD}error{BAD:#}: {failure}");
    let mut cause = failure.source();
    while let Some(error) = cause {
        anstream::eprintln!("  caused by: {error}");
        cause = error.source();
    }
    if let Failure::Lab(error) = failure {
        for hint in error.hints() {
            anstream::eprintln!("hint: {hint}");
        }
    }
}
