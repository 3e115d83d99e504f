//! Why a command could not run, and what to do.

use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::evidence::Elsewhere;
use crate::evidence::LoadError;
use crate::live::burst::BurstError;
use crate::live::privileges;
use crate::live::tap::TapError;
use crate::plan::Station;
use crate::report::escape;
use crate::run::ResumeError;
use crate::suite::Diagnostics;
use crate::wire::SavefileError;

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("cannot read the path file `{}`", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{0}")]
    PathFile(Diagnostics),
    #[error("cannot read `{}`", .path.display())]
    ReadSuite { path: PathBuf, source: io::Error },
    #[error("{wrong} of {all} {}", if *.all == 1 { "file is wrong" } else { "files are wrong" })]
    WrongFiles { wrong: usize, all: usize },
    #[error("`{}` names no host to run on: none has a `via`", .path.display())]
    NoVantage { path: PathBuf },
    #[error("`{}` gives no real server a `via`: what leaves it must be sent there", .path.display())]
    NoRealserver { path: PathBuf },
    #[error("the path file has no real server `{name}`, but `{}`", .names.join("`, `"))]
    UnknownRealserver { name: String, names: Vec<String> },
    #[error("{one} and {other} are the same address {address}")]
    SameAddress {
        one: &'static str,
        other: &'static str,
        address: Ipv4Addr,
    },
    #[error("this host has no route to {to}: {error}")]
    NoRoute { to: Ipv4Addr, error: String },
    #[error("this host's route to {to} names no source address")]
    NoSource { to: Ipv4Addr },
    #[error("unknown code `{code}`")]
    UnknownCode {
        code: String,
        nearest: Option<&'static str>,
    },
    #[error("cannot open the capture `{file}`")]
    OpenCapture { file: String, source: io::Error },
    #[error("cannot read the capture `{file}` on")]
    ReadCapture { file: String, source: io::Error },
    #[error("cannot read the capture `{file}`")]
    Capture { file: String, source: SavefileError },
    #[error("cannot read the case `{file}`")]
    ReadCase { file: String, source: io::Error },
    #[error("cannot judge the case `{file}`")]
    Case { file: String, source: LoadError },
    #[error("no packet of the capture `{file}` can be looked into: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("no capture began in `{file}` within {}", humantime::format_duration(*.limit))]
    NoCapture { file: String, limit: Duration },
    #[error("a capture for {station} says nothing new: {host} has a `via`, and a tap of its own")]
    AlreadyThere { station: Station, host: String },
    #[error("{name} was captured elsewhere, and does not count: {contradiction}")]
    Elsewhere {
        name: String,
        contradiction: Elsewhere,
    },
    #[error("two captures for {station}")]
    AddedTwice { station: Station },
    #[error("a capture for {station} of which real server?")]
    WhichRealserver {
        station: Station,
        names: Vec<String>,
    },
    #[error("the capture `{file}` can be read once, and the case has {rounds} rounds")]
    ReadOnce { file: String, rounds: usize },
    #[error("no suite `{name}` comes with tunproof, and there is no such file")]
    UnknownSuite {
        name: String,
        nearest: Option<&'static str>,
    },
    #[error("there is no command `{name}`")]
    UnknownCommand { name: String },
    #[error("the suite has no step `{name}`")]
    UnknownStep {
        name: String,
        nearest: Option<String>,
        known: Vec<String>,
    },
    #[error("a dry run has nothing to `--save`: nothing is sent, and nothing seen")]
    NothingToSave,
    #[error("cannot read the fleet file `{}`", .path.display())]
    ReadFleet { path: PathBuf, source: io::Error },
    #[error("`{}` names no client, whose answers close the loop", .path.display())]
    NoClient { path: PathBuf },
    #[error(
        "a closed loop cannot ask the service {vip}:{port}/udp: no client answers its datagrams"
    )]
    LoopOfUdp { vip: Ipv4Addr, port: u16 },
    #[error("cannot read the state `{}`", .path.display())]
    ReadState { path: PathBuf, source: io::Error },
    #[error("the sweep cannot go on from `{}`", .path.display())]
    Resume { path: PathBuf, source: ResumeError },
    #[error("the sweep cannot go on from `{}`: its results so far are `--format {format}`", .path.display())]
    OtherFormat { path: PathBuf, format: String },
    #[error("the sweep cannot go on from `{}`: its results so far are {}", .path.display(), place(.output.as_deref()))]
    OtherOutput {
        path: PathBuf,
        output: Option<PathBuf>,
    },
    #[error("another process still goes on with the sweep of `{}`", .path.display())]
    StillSwept { path: PathBuf },
    #[error("`--output` and `--resume` are the same file `{}`", .path.display())]
    SameFile { path: PathBuf },
    #[error("cannot send")]
    Burst(#[source] BurstError),
    #[error("cannot start the process that closes what is open, should this one be killed")]
    Keeper(#[source] io::Error),
    #[error("cannot listen")]
    Ring(#[source] TapError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    #[error(
        "the process that starts agents was killed, and no other can have its rights; start the monitor again"
    )]
    NoStarter,
    #[error("stopped before anything was sent")]
    Stopped,
    #[error("cannot give up the rights that are not needed")]
    Confine(#[source] io::Error),
    #[error("cannot write to {what}")]
    Write { what: String, source: io::Error },
}

impl Failure {
    /// What can be typed to get further.
    fn hints(&self) -> Vec<String> {
        match self {
            Failure::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                vec!["write one that says who the hosts are: `tunproof verify --help` shows it".to_owned()]
            }
            Failure::NoVantage { .. } | Failure::NoRealserver { .. } => vec![
                "add `via = \"local\"` to the host that this is, or `via = \"ssh root@HOST\"`"
                    .to_owned(),
            ],
            Failure::NoRoute { to, .. } | Failure::NoSource { to } => {
                vec![format!("check with `ip route get {to}`")]
            }
            Failure::Capture {
                file,
                source: SavefileError::Magic(magic),
            } => match magic >> 16 {
                0x1f8b => unpack("zcat", file),
                0x28b5 => unpack("zstdcat", file),
                0xfd37 => unpack("xzcat", file),
                0x425a => unpack("bzcat", file),
                _ => vec![
                    "a capture file is what `tcpdump -w FILE` writes; of another program's file, Wireshark's \
                     `editcap -F pcap FILE NEW` makes one"
                        .to_owned(),
                ],
            },
            Failure::Case { file, source } => case_hints(file, source),
            Failure::Capture {
                source: SavefileError::Cut { .. },
                ..
            } => vec![
                "stop tcpdump with Ctrl-C before the file is copied, or run it with `-U`"
                    .to_owned(),
            ],
            Failure::NoCapture { .. } => vec![
                "run tcpdump with `-U`, which writes the file's header at once, and start it first"
                    .to_owned(),
            ],
            Failure::AlreadyThere { .. } => {
                vec!["take the `via` out of the path file, or leave the capture away".to_owned()]
            }
            Failure::Elsewhere { .. } => vec![
                "add it for the host that it is of, or none; a capture on a LAN that floods needs `tcpdump -p`"
                    .to_owned(),
            ],
            Failure::AddedTwice { .. } => vec![
                "join them first: `mergecap -w both.pcapng ONE OTHER` (wireshark-common)"
                    .to_owned(),
            ],
            Failure::WhichRealserver { station, names } => names
                .iter()
                .map(|name| format!("`--add {station}@{name}=FILE`"))
                .collect(),
            Failure::ReadOnce { .. } => vec!["write it to a file first".to_owned()],
            Failure::Unreadable { .. } => {
                vec!["capture on an Ethernet device, or with `tcpdump -i any`".to_owned()]
            }
            Failure::NoClient { .. } => vec![
                "add `[client]` with its `ip`, or ask with `--probe reflect`".to_owned(),
            ],
            Failure::LoopOfUdp { .. } => vec![
                "`--probe both` asks UDP services directly, and TCP services by the closed loop first"
                    .to_owned(),
            ],
            Failure::Resume { path, .. }
            | Failure::OtherFormat { path, .. }
            | Failure::OtherOutput { path, .. } => vec![format!(
                "use the fleet file and options that it was begun with; or begin anew: `rm {}`",
                path.display()
            )],
            Failure::StillSwept { .. } => vec![
                "`ps -C tunproof` shows it; wait for it, or end it by Ctrl-C, and then type this again"
                    .to_owned(),
            ],
            Failure::Burst(BurstError::NotDirector(dip)) => vec![format!(
                "run it on the director; `ip address show to {dip}` shows whether this is it"
            )],
            Failure::Burst(BurstError::OwnAddress(own)) => vec![format!(
                "take {own} out of `realservers`: a sweep asks other hosts"
            )],
            Failure::Burst(BurstError::Xdp { .. }) => vec![
                "leave out `--xdp`; it takes root, a kernel with CONFIG_XDP_SOCKETS, and a queue 0 that nobody else uses by AF_XDP"
                    .to_owned(),
            ],
            Failure::Burst(BurstError::NothingByXdp) => vec!["leave out `--xdp`".to_owned()],
            Failure::Burst(_) | Failure::Ring(_) => match privileges::missing() {
                Some(missing) => vec![missing.to_owned(), privileges::remedy()],
                None => Vec::new(),
            },
            Failure::UnknownCode { nearest, .. } => {
                let list = "`tunproof explain` lists all codes".to_owned();
                let meant = nearest.map(|code| format!("did you mean `tunproof explain {code}`?"));
                meant.into_iter().chain([list]).collect()
            }
            Failure::UnknownSuite { nearest, .. } => {
                let list = "`tunproof suite list` names those that come with it".to_owned();
                let meant = nearest.map(|name| format!("did you mean `{name}`?"));
                meant.into_iter().chain([list]).collect()
            }
            Failure::UnknownStep { nearest, known, .. } => {
                let meant = nearest.iter();
                let list = format!("its steps are `{}`", known.join("`, `"));
                meant
                    .map(|name| format!("did you mean `{name}`?"))
                    .chain([list])
                    .collect()
            }
            Failure::UnknownCommand { .. } => vec!["`tunproof --help` lists them".to_owned()],
            Failure::NothingToSave => {
                vec!["`--pcap FILE` writes the packets that would be sent".to_owned()]
            }
            Failure::Write { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                vec!["make room there, or name a file on another file system".to_owned()]
            }
            _ => Vec::new(),
        }
    }

    /// Prints it to stderr, with its causes and hints.
    pub(super) fn print(&self) {
        if let Failure::PathFile(problems) = self {
            anstream::eprintln!("{}", problems.styled());
            return;
        }
        const BAD: anstyle::Style = anstyle::AnsiColor::Red
            .on_default()
            .effects(anstyle::Effects::BOLD);
        anstream::eprintln!("{BAD}error{BAD:#}: {}", escape(&self.to_string()));
        let mut cause = self.source();
        while let Some(error) = cause {
            anstream::eprintln!("  caused by: {}", escape(&error.to_string()));
            cause = error.source();
        }
        for hint in self.hints() {
            anstream::eprintln!("hint: {}", escape(&hint));
        }
    }
}

/// Where results are.
fn place(output: Option<&Path>) -> String {
    match output {
        Some(path) => format!("in `{}`", path.display()),
        None => "on stdout".to_owned(),
    }
}

/// What to type for a compressed capture.
fn unpack(program: &str, file: &str) -> Vec<String> {
    let file = shlex::try_quote(file).unwrap_or(file.into());
    vec![
        format!("`{program} {file} | tunproof match - …`"),
        format!("`--add STATION=<({program} {file})`"),
    ]
}

/// What to do with a case that cannot be judged.
fn case_hints(file: &str, error: &LoadError) -> Vec<String> {
    let with = |version: &str| {
        let version = escape(version);
        format!("judge it with tunproof {version}, which made it, or a later version")
    };
    let hint = match error {
        LoadError::Cut(_) => "copy it again; what `--save` writes is whole".to_owned(),
        LoadError::Schema { found: Some(schema), .. } if schema.starts_with("tunproof.report/") => {
            "this is a report: it comes from what `--save FILE` keeps, not the other way".to_owned()
        }
        LoadError::Schema { by: Some(version), .. } | LoadError::Syntax { by: Some(version), .. } => {
            with(version)
        }
        LoadError::Schema { .. } | LoadError::Syntax { .. } => {
            "a case is what `tunproof verify PATH.toml --save FILE` and the like write; a capture is for \
             `tunproof match`"
                .to_owned()
        }
        LoadError::Inconsistent { .. } => {
            format!("somebody has changed `{file}` since it was written: use it as it was")
        }
    };
    vec![hint]
}
