//! Starting an agent at a vantage, through the command that the path file names, as far as its hello.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::codec::FramedWrite;

use crate::agent::CodecError;
use crate::agent::FromAgent;
use crate::agent::Hello;
use crate::agent::HelloError;
use crate::agent::MessageCodec;
use crate::agent::PROTOCOL;
use crate::agent::ToAgent;
use crate::exchange::TapPath;
use crate::live::privileges;
use crate::live::push;
use crate::live::push::PushError;
use crate::live::starter::Leash;
use crate::live::starter::Started;
use crate::live::starter::Starter;
use crate::live::stderr;
use crate::live::stderr::Relay;
use crate::live::via;
pub use crate::live::via::AGENT_VARIABLE;
pub use crate::live::via::OWN;
use crate::plan::Host;

/// How long an agent whose stdout has ended may take to end itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A host to start an agent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vantage {
    /// Which host of the plan.
    pub host: Host,
    /// The command that runs an argv there; `["local"]` is this host.
    pub via: Vec<String>,
}

/// How to start agents and how long to wait for them.
#[derive(Clone, Copy, Debug)]
pub struct StartOptions {
    /// How long an agent may take to say hello, and to open its sockets: with ssh, also to log in.
    pub handshake: Duration,
    /// How long an agent may be silent while it owes an answer.
    pub silence: Duration,
    /// How a line of an agent's stderr is shown, if they are passed on as they come (`-v`).
    pub relay: Option<Relay>,
}

impl Default for StartOptions {
    fn default() -> StartOptions {
        StartOptions {
            handshake: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            relay: None,
        }
    }
}

/// An agent that could not be started, or did not stay to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFailure {
    /// Which host.
    pub host: Host,
    /// The command it was started through.
    pub via: Vec<String>,
    /// What went wrong, and what was there instead.
    pub reason: String,
    /// The last that it, or the command it was started through, wrote to stderr; may be empty.
    pub stderr: String,
    /// What can be done about it; empty if nothing is known.
    pub hint: String,
}

/// The host, the command, the reason, and what stood on stderr.
impl fmt::Display for AgentFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (via `{}`): ", self.host, self.via.join(" "))?;
        write!(f, "{}", self.reason)?;
        match self.stderr.is_empty() {
            true => Ok(()),
            false => write!(f, "; its stderr: {}", self.stderr),
        }
    }
}

/// Why there is no agent, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The command does not exist, or may not be run.
    #[error("cannot run `{program}`: {source}")]
    Spawn {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Something else answered.
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// It ended before it said hello, or without having been told to.
    #[error("the agent ended{}", .0.map(|status| format!(" ({status})")).unwrap_or_default())]
    Ended(Option<ExitStatus>),
    /// No hello, or no answer, in time.
    #[error("no {what} within {}", humantime::format_duration(*.limit))]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// It is there, and cannot work.
    #[error("the agent there cannot {operation}: {error}")]
    CannotStart {
        /// What it tried.
        operation: String,
        /// Why that failed.
        error: String,
    },
    /// It said something out of turn.
    #[error("the agent said something out of turn: {0}")]
    OutOfTurn(String),
    /// It is not there, and could not be brought there.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The pipe failed, or brought something that is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// A shell's exit status where the program does not exist, or may not be run; ssh and docker pass it on.
const NO_PROGRAM: [i32; 2] = [126, 127];

impl AgentError {
    /// Whether the host may lack the program, as far as this and what the command wrote to stderr tells: sudo,
    /// docker and kubectl have exit statuses of their own.
    fn is_lack(&self, stderr: &str) -> bool {
        match self {
            AgentError::Hello(HelloError::Protocol(_)) => true,
            AgentError::Ended(status) => {
                let code = status.and_then(|status| status.code());
                code.is_some_and(|code| NO_PROGRAM.contains(&code))
                    || ["not found", "No such file or directory"]
                        .iter()
                        .any(|said| stderr.contains(said))
            }
            _ => false,
        }
    }

    /// What to do about an agent that was to be started by `argv`, and wrote this to stderr.
    fn hint(&self, argv: &[String], stderr: &str) -> String {
        let by_hand = || {
            let words = argv.iter().map(String::as_str);
            let line = shlex::try_join(words).unwrap_or_else(|_| argv.join(" "));
            let ours = Hello::ours().to_string();
            format!("`{line}` must print `{}` and wait", ours.trim_end())
        };
        let elsewhere = format!(
            "install tunproof {} on that host; or say where it is there: `export \
             {AGENT_VARIABLE}=/path/to/tunproof`; or add `--push`, which brings it along and leaves nothing",
            env!("CARGO_PKG_VERSION")
        );
        let is_pushed = argv.last().is_some_and(|word| word == push::SHELL);
        match self {
            AgentError::Spawn { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                "it hangs: end it by hand, or begin this command anew".to_owned()
            }
            // What the kernel did not refuse, nobody asked it for.
            AgentError::Spawn { source, .. } if source.raw_os_error().is_none() => {
                "it was killed, as by the kernel for want of memory: begin this command anew".to_owned()
            }
            AgentError::Spawn { program, .. } => {
                format!("`via` begins with `{program}`, which this host must have in its PATH")
            }
            AgentError::Hello(HelloError::Garbage(_)) if !is_pushed => {
                format!("{}; a login script there must print nothing", by_hand())
            }
            AgentError::Push(PushError::Nowhere | PushError::Machine { .. }) => format!(
                "install tunproof {} on that host",
                env!("CARGO_PKG_VERSION")
            ),
            AgentError::Push(PushError::Answer(_)) => {
                let words = argv.iter().map(String::as_str);
                let line = shlex::try_join(words).unwrap_or_else(|_| argv.join(" "));
                format!("`{line}` must be a shell that prints nothing by itself")
            }
            AgentError::Push(_) => String::new(),
            AgentError::Ended(_) | AgentError::Hello(_) | AgentError::Silent { .. } if is_pushed => {
                "it was brought there and did not start: a tunproof that is linked statically runs on every \
                 Linux (README, Install)"
                    .to_owned()
            }
            error if error.is_lack(stderr) => elsewhere,
            AgentError::Hello(_) => String::new(),
            AgentError::Ended(_) | AgentError::Silent { .. } => by_hand(),
            AgentError::CannotStart { error, .. } if error.contains("is missing") => {
                match argv.first().is_some_and(|first| first == OWN) {
                    true => privileges::remedy(),
                    false => "it needs root there, or once `sudo setcap cap_net_raw,cap_net_admin+ep \
                              \"$(command -v tunproof)\"`"
                        .to_owned(),
                }
            }
            AgentError::CannotStart { operation, .. } if operation == "serve this path" => {
                "who administers that host may add the address to its policy; or take it out of the path file"
                    .to_owned()
            }
            AgentError::CannotStart { .. } | AgentError::OutOfTurn(_) | AgentError::Codec(_) => {
                String::new()
            }
        }
    }
}

/// A running agent that has opened its sockets.
#[derive(Debug)]
pub struct AgentHandle {
    pub(crate) vantage: Vantage,
    allowance: Allowance,
    pub(crate) silence: Duration,
    pub(crate) process: Process,
    pub(crate) to: FramedWrite<pipe::Sender, MessageCodec<ToAgent>>,
    pub(crate) from: FramedRead<BufReader<pipe::Receiver>, MessageCodec<FromAgent>>,
}

/// How fast an agent sends, by its host's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Packets a second, at most.
    pub rate: u32,
    /// The file on its host that lays this down; `None` where there is none.
    pub policy: Option<String>,
}

impl AgentHandle {
    /// How fast it sends.
    pub fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// Which host it serves.
    pub fn host(&self) -> Host {
        self.vantage.host
    }
}

/// Hosts, and a process that starts agents on them, as often as it is asked to, with the rights that this one had.
#[derive(Debug)]
pub struct Vantages {
    starter: Starter,
    ways: Vec<Way>,
}

/// How a host is reached.
#[derive(Debug)]
struct Way {
    vantage: Vantage,
    /// The number of the command that starts an agent there.
    agent: usize,
    /// That of one that starts a shell there, for the program to be brought along, if it may be.
    shell: Option<usize>,
}

impl Vantages {
    /// Gets ready to start agents there, by `program`, which is tunproof; where `push`, also on hosts that lack it.
    ///
    /// # Errors
    ///
    /// If this process can start no other.
    pub fn reach(program: &Path, vantages: Vec<Vantage>, push: bool) -> io::Result<Vantages> {
        let (mut commands, mut ways) = (Vec::new(), Vec::new());
        for vantage in vantages {
            let mut argv = via::agent(&vantage.via)?;
            let agent = commands.len();
            commands.push(argv.clone());
            let shell = (push && !via::is_local(&vantage.via)).then(|| {
                argv.truncate(argv.len() - 2);
                argv.push(push::SHELL.to_owned());
                commands.push(argv);
                agent + 1
            });
            ways.push(Way {
                vantage,
                agent,
                shell,
            });
        }
        let starter = Starter::call(program, commands)?;
        Ok(Vantages { starter, ways })
    }

    /// Whether agents can be started: the process that does it may have been killed.
    pub fn can_start(&self) -> bool {
        self.starter.is_there()
    }

    /// Starts an agent for `paths` at every vantage, a real server's for its own alone, side by side; those that come, and
    /// why the others do not.
    pub async fn start(
        &self,
        paths: &[TapPath],
        options: StartOptions,
    ) -> (Vec<AgentHandle>, Vec<AgentFailure>) {
        let mut agents = Vec::new();
        let mut failures = Vec::new();
        let started = self
            .ways
            .iter()
            .map(|way| self.start_one(way, paths_of(way.vantage.host, paths), options));
        for result in join_all(started).await {
            match result {
                Ok(agent) => agents.push(agent),
                Err(failure) => failures.push(failure),
            }
        }
        (agents, failures)
    }

    async fn start_one(
        &self,
        way: &Way,
        paths: &[TapPath],
        options: StartOptions,
    ) -> Result<AgentHandle, AgentFailure> {
        let tried = self.try_start(&way.vantage, way.agent, paths, options);
        let (error, failure) = match tried.await {
            Ok(agent) => return Ok(agent),
            Err(failed) => failed,
        };
        match way.shell {
            Some(shell) if error.is_lack(&failure.stderr) => {
                let pushed = self.try_start(&way.vantage, shell, paths, options);
                pushed.await.map_err(|(_, failure)| failure)
            }
            _ => Err(failure),
        }
    }

    /// Starts an agent by a command; where that is a shell, this program is brought to it first.
    async fn try_start(
        &self,
        vantage: &Vantage,
        command: usize,
        paths: &[TapPath],
        options: StartOptions,
    ) -> Result<AgentHandle, (AgentError, AgentFailure)> {
        let argv = self.starter.command(command);
        let started = match self.starter.start(command).await {
            Ok(started) => started,
            Err(source) => {
                let program = argv[0].clone();
                let error = AgentError::Spawn { program, source };
                let failure = unstarted(vantage, &error);
                return Err((error, failure));
            }
        };
        let (mut process, mut stdin, stdout) = held(started, options.relay);
        let mut stdout = BufReader::new(stdout);
        let is_shell = argv.last().is_some_and(|word| word == push::SHELL);
        let pushed = match is_shell {
            true => push::push(&mut stdin, &mut stdout, options.handshake).await,
            false => Ok(()),
        };
        let mut to = FramedWrite::new(stdin, MessageCodec::default());
        let greeted = match pushed {
            Ok(()) => timeout(options.handshake, hello(&mut stdout)).await,
            Err(error) => Ok(Err(error.into())),
        };
        let mut from = FramedRead::new(stdout, MessageCodec::default());
        let result = match greeted {
            Ok(Ok(())) => timeout(options.handshake, open(&mut to, &mut from, paths))
                .await
                .unwrap_or(Err(AgentError::Silent {
                    what: "answer to the first message",
                    limit: options.handshake,
                })),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(AgentError::Silent {
                what: "hello of an agent",
                limit: options.handshake,
            }),
        };
        match result {
            Ok(allowance) => Ok(AgentHandle {
                vantage: vantage.clone(),
                allowance,
                silence: options.silence,
                process,
                to,
                from,
            }),
            Err(error) => {
                drop((to, from));
                let error = process.ended(error).await;
                let failure = process.failure(vantage, &error);
                let hint = error.hint(argv, &failure.stderr);
                Err((error, AgentFailure { hint, ..failure }))
            }
        }
    }
}

/// The paths that an agent of `host` has to do with.
fn paths_of(host: Host, paths: &[TapPath]) -> &[TapPath] {
    match host {
        Host::Realserver(number) => &paths[number..=number],
        Host::Director | Host::Client => paths,
    }
}

/// What is said of an agent whose command could not be run.
fn unstarted(vantage: &Vantage, error: &AgentError) -> AgentFailure {
    AgentFailure {
        host: vantage.host,
        via: vantage.via.clone(),
        reason: error.to_string(),
        stderr: String::new(),
        hint: error.hint(&vantage.via, ""),
    }
}

/// Reads and checks the hello line.
async fn hello(stdout: &mut BufReader<pipe::Receiver>) -> Result<(), AgentError> {
    let mut line = Vec::new();
    stdout
        .take(Hello::MAX_LENGTH as u64)
        .read_until(b'\n', &mut line)
        .await
        .map_err(CodecError::from)?;
    match line.is_empty() {
        true => Err(AgentError::Ended(None)),
        false => Ok(Hello::read(&line).map(drop)?),
    }
}

/// Says `Start`, and waits for `Started`.
async fn open(
    to: &mut FramedWrite<pipe::Sender, MessageCodec<ToAgent>>,
    from: &mut FramedRead<BufReader<pipe::Receiver>, MessageCodec<FromAgent>>,
    paths: &[TapPath],
) -> Result<Allowance, AgentError> {
    let start = ToAgent::Start {
        protocol: PROTOCOL,
        paths: paths.to_vec(),
    };
    to.send(&start).await?;
    match from.next().await {
        Some(Ok(FromAgent::Started { rate, policy })) => Ok(Allowance { rate, policy }),
        Some(Ok(FromAgent::CannotStart { operation, error })) => {
            Err(AgentError::CannotStart { operation, error })
        }
        Some(Ok(other)) => Err(AgentError::OutOfTurn(format!("{other:?}"))),
        Some(Err(error)) => Err(error.into()),
        None => Err(AgentError::Ended(None)),
    }
}

/// A started command, whatever it is.
#[derive(Debug)]
pub(crate) struct Process {
    leash: Leash,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    listener: JoinHandle<()>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    With(ExitStatus),
    /// It did not, and was killed.
    Killed,
    /// Nobody can tell, for the starter is gone.
    Untold,
}

impl Process {
    /// Waits for its end, `limit` at most; then kills it.
    pub(crate) async fn end(&mut self, limit: Duration) -> End {
        if let Ok(status) = timeout(limit, self.leash.ended()).await {
            // The janitor, or a program that the agent started, may keep stderr open.
            if !self.listener.is_finished() {
                let _ = timeout(LAST_WORDS / 4, &mut self.listener).await;
            }
            return status.map_or(End::Untold, End::With);
        }
        self.leash.kill();
        let _ = timeout(LAST_WORDS, self.leash.ended()).await;
        End::Killed
    }

    /// Ends it; the error, with its exit status if that is what it is about.
    pub(crate) async fn ended(&mut self, error: AgentError) -> AgentError {
        match (self.end(LAST_WORDS).await, error) {
            (End::With(status), AgentError::Ended(None)) => AgentError::Ended(Some(status)),
            (_, error) => error,
        }
    }

    /// What went wrong with it, now that it has ended.
    pub(crate) fn failure(&self, vantage: &Vantage, error: &AgentError) -> AgentFailure {
        let kept = self.stderr.lock().expect("no holder panics");
        AgentFailure {
            host: vantage.host,
            via: vantage.via.clone(),
            reason: error.to_string(),
            stderr: String::from_utf8_lossy(&kept.iter().copied().collect::<Vec<_>>())
                .trim()
                .to_owned(),
            hint: String::new(),
        }
    }
}

fn held(started: Started, relay: Option<Relay>) -> (Process, pipe::Sender, pipe::Receiver) {
    let stderr = Arc::default();
    let listener = tokio::spawn(stderr::listen(started.stderr, Arc::clone(&stderr), relay));
    let process = Process {
        leash: started.leash,
        stderr,
        listener,
    };
    (process, started.stdin, started.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_about_a_program_that_was_brought_there_is_not_to_start_a_shell() {
        let limit = Duration::from_secs(10);
        let silent = || AgentError::Silent {
            what: "hello of an agent",
            limit,
        };
        let argv = |last: &str| ["ssh", "lb1", last].map(str::to_owned);
        let hint = silent().hint(&argv(push::SHELL), "");
        assert!(
            hint.starts_with("it was brought there and did not start"),
            "{hint}"
        );
        let hint = silent().hint(&argv("agent"), "");
        assert!(hint.starts_with("`ssh lb1 agent` must print"), "{hint}");
    }
}
