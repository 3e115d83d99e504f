//! One host, as an agent serves it: commands in order, events out, packets as they come.
//!
//! Its sockets are opened first, by [`Opened::now`]; what it does from then on takes no capability, and the janitor does
//! the rest.

use std::collections::BTreeMap;
use std::io;
use std::io::Write;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use socket2::Socket;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::codec::FramedWrite;

use crate::agent::CodecError;
use crate::agent::FromAgent;
use crate::agent::Hello;
use crate::agent::MessageCodec;
use crate::agent::PROTOCOL;
use crate::agent::Scope;
use crate::agent::ToAgent;
use crate::exchange::ConnectOutcome;
use crate::exchange::Firewall;
use crate::exchange::Freed;
use crate::exchange::RouteAnswer;
use crate::exchange::SendOutcome;
use crate::exchange::TapPath;
use crate::exchange::TapSpec;
use crate::exchange::Transmit;
use crate::exchange::Unread;
use crate::live::clock;
use crate::live::drops::Drops;
use crate::live::facts;
use crate::live::firewall;
use crate::live::gate::Gate;
use crate::live::janitor::Called;
use crate::live::janitor::Janitor;
use crate::live::janitor::Watch;
use crate::live::log::Record;
use crate::live::privileges;
use crate::live::privileges::Role;
use crate::live::send::Sender;
use crate::live::send::SenderError;
use crate::live::streams;
use crate::live::streams::failed;
use crate::live::streams::say;
use crate::live::tap::Tap;
use crate::live::tracepoint::Tracepoint;
use crate::plan::Family;
use crate::plan::Policy;
use crate::run::Command;
use crate::run::Event;

/// Messages that wait for the pipe; beyond it the tap waits, and what the kernel drops then, it counts.
const BACKLOG: usize = 1024;

/// How long a controller may say nothing; it pings every other second. A pipe through a network that is
/// cut never ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

/// Why an agent ended without having been told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The pipe ended, or was silent for a minute: the controller is gone.
    #[error("the controller is gone")]
    Abandoned,
    /// The pipe failed, or brought something that is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The first message was not `Start`.
    #[error("the controller's first message is not `start`")]
    NotStarted,
    /// `Start` came once more.
    #[error("the controller says `start` twice")]
    StartedTwice,
    /// The controller is of another version.
    #[error(
        "the controller speaks protocol {controllers}; this is tunproof {} and speaks {PROTOCOL}",
        env!("CARGO_PKG_VERSION")
    )]
    Protocol {
        /// What it speaks.
        controllers: u32,
    },
    /// Nothing can be done on this host.
    #[error("cannot {operation}: {error}")]
    CannotStart {
        /// What was tried.
        operation: String,
        /// Why it failed.
        error: String,
    },
    /// Something was left that could not be settled.
    #[error("cannot settle everything: {0}")]
    Unsettled(io::Error),
}

/// What takes rights, opened.
#[derive(Debug)]
pub struct Opened {
    sender: Sender,
    tap: Socket,
    janitor: Janitor,
}

/// What could not be opened.
#[derive(Debug)]
pub struct NotOpened {
    operation: &'static str,
    error: String,
}

impl Opened {
    /// Opens the tap in the calling thread's network namespace, while the janitor gets ready, and gives all rights up: for
    /// the calling thread, so before there are others.
    ///
    /// # Errors
    ///
    /// [`NotOpened`], for [`serve`] to tell; the rights are given up all the same.
    pub fn now(
        sending: Result<(Sender, io::Result<Called>), SenderError>,
    ) -> Result<Opened, NotOpened> {
        let missing = privileges::missing();
        let not = |operation, error: &dyn ToString| NotOpened {
            operation,
            error: match missing {
                Some(missing) => format!("{}; {missing}", error.to_string()),
                None => error.to_string(),
            },
        };
        let open = || {
            let sending = sending.map_err(|error| not(error.operation, &error.source));
            let (sender, janitor) = sending?;
            let tap = Tap::socket().map_err(|error| not(error.operation, &error.source))?;
            let janitor = janitor
                .and_then(Called::stand_by)
                .map_err(|error| not("start the janitor", &error))?;
            Ok(Opened {
                sender,
                tap,
                janitor,
            })
        };
        let opened = open();
        privileges::confine(Role::Agent).map_err(|error| not("give up capabilities", &error))?;
        opened
    }
}

/// Says hello on stdout: first of all, as a controller waits for it.
///
/// # Errors
///
/// If nobody reads it.
pub fn greet() -> io::Result<()> {
    let mut stdout = io::stdout();
    write!(stdout, "{}", Hello::ours())?;
    stdout.flush()
}

/// Serves one controller, which has been greeted, until it says `Finish`, or until `stdin` ends; then at once, whatever
/// goes on, and the janitor settles what is open.
///
/// # Errors
///
/// [`ServeError`], for every end but `Finish`.
pub async fn serve(
    opened: Result<Opened, NotOpened>,
    policy: Policy,
    record: &mut Record,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), ServeError> {
    let mut messages = FramedRead::new(stdin, MessageCodec::<ToAgent>::default());
    let paths = match messages.next().await {
        Some(Ok(ToAgent::Start { protocol, paths })) if protocol == PROTOCOL => paths,
        Some(Ok(ToAgent::Start { protocol, .. })) => {
            let controllers = protocol;
            return Err(ServeError::Protocol { controllers });
        }
        Some(Ok(_)) => return Err(ServeError::NotStarted),
        Some(Err(error)) => return Err(error.into()),
        None => return Err(ServeError::Abandoned),
    };
    record.paths.clone_from(&paths);
    let (out, outgoing) = mpsc::channel(BACKLOG);
    let mut writer = tokio::spawn(write(outgoing, stdout));
    let result = match Served::start(opened, policy, paths, (out.clone(), record)) {
        Ok(host) => {
            let policy = host.scope.policy();
            let started = FromAgent::Started {
                rate: host.rate,
                policy: policy.file.clone(),
            };
            say(&out, started).await;
            let (queue, commands) = mpsc::unbounded_channel();
            tokio::select! {
                biased;
                ended = read(messages, queue, PATIENCE) => Err(ended),
                Ok(Err(error)) = &mut writer => return Err(error.into()),
                finished = host.obey_all(commands) => finished,
            }
        }
        Err(NotOpened { operation, error }) => {
            let operation = operation.to_owned();
            let message = FromAgent::CannotStart {
                operation: operation.clone(),
                error: error.clone(),
            };
            say(&out, message).await;
            Err(ServeError::CannotStart { operation, error })
        }
    };
    drop(out);
    if !matches!(result, Err(ServeError::Abandoned)) {
        // A controller that does not read any more cannot keep the agent.
        let _ = timeout(FLUSH, writer).await;
    }
    result
}

/// Hands messages on until the pipe ends, or brings nothing for longer than `patience`.
async fn read(
    mut messages: FramedRead<impl AsyncRead + Unpin, MessageCodec<ToAgent>>,
    queue: mpsc::UnboundedSender<ToAgent>,
    patience: Duration,
) -> ServeError {
    loop {
        match timeout(patience, messages.next()).await {
            // The other end is dropped together with this future.
            Ok(Some(Ok(message))) => drop(queue.send(message)),
            Ok(Some(Err(error))) => return error.into(),
            Ok(None) | Err(_) => return ServeError::Abandoned,
        }
    }
}

/// Writes messages until nobody can send any more.
async fn write(
    mut outgoing: mpsc::Receiver<FromAgent>,
    stdout: impl AsyncWrite + Unpin,
) -> Result<(), CodecError> {
    let mut stdout = FramedWrite::new(stdout, MessageCodec::<FromAgent>::default());
    while let Some(message) = outgoing.recv().await {
        match outgoing.is_empty() {
            true => stdout.send(&message).await?,
            false => stdout.feed(&message).await?,
        }
    }
    Ok(())
}

struct Served<'a> {
    out: mpsc::Sender<FromAgent>,
    scope: Scope,
    /// Packets a second that it sends at most.
    rate: u32,
    gate: Gate,
    record: &'a mut Record,
    sender: Sender,
    janitor: Janitor,
    /// What closes what is open, by the token.
    open: BTreeMap<u32, Transmit>,
    /// Cleanups that were sent when they were asked for: once more at the end, for the first may be lost.
    settled: Vec<Transmit>,
    /// Until the tap is opened.
    tap_socket: Option<Socket>,
    /// Asks the tap's task for statistics; and that task.
    tap: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl<'a> Served<'a> {
    fn start(
        opened: Result<Opened, NotOpened>,
        policy: Policy,
        paths: Vec<TapPath>,
        (out, record): (mpsc::Sender<FromAgent>, &'a mut Record),
    ) -> Result<Served<'a>, NotOpened> {
        let usual = Policy::usual_rate(paths.len());
        let rate = policy.rate.unwrap_or(usual);
        let scope = Scope::under(policy, paths).map_err(|error| NotOpened {
            operation: "serve this path",
            error: error.to_string(),
        })?;
        let opened = opened?;
        Ok(Served {
            out,
            scope,
            rate,
            gate: Gate::new(rate),
            record,
            sender: opened.sender,
            janitor: opened.janitor,
            open: BTreeMap::new(),
            settled: Vec::new(),
            tap_socket: Some(opened.tap),
            tap: None,
        })
    }

    async fn obey_all(
        mut self,
        mut commands: mpsc::UnboundedReceiver<ToAgent>,
    ) -> Result<(), ServeError> {
        while let Some(message) = commands.recv().await {
            match message {
                ToAgent::Ping => say(&self.out, FromAgent::Pong).await,
                ToAgent::Do(Command::Finish) => {
                    for cleanup in std::mem::take(&mut self.settled) {
                        self.close(&cleanup).await;
                    }
                    let settled = self.janitor.settle();
                    // Packet sockets take the kernel some milliseconds each to close: this one is the janitor's, too, which
                    // closes it as the last, while the tap is closed here.
                    drop(self.sender);
                    self.janitor.dismiss();
                    if let Some((_, task)) = self.tap {
                        // It may wait for a controller that does not read.
                        task.abort();
                        let _ = task.await;
                    }
                    let gone = self.janitor.farewell();
                    return settled.and(gone).map_err(ServeError::Unsettled);
                }
                ToAgent::Do(command) => {
                    if let Some(event) = self.obey(command).await {
                        say(&self.out, FromAgent::Said(event)).await;
                    }
                }
                ToAgent::Start { .. } => return Err(ServeError::StartedTwice),
            }
        }
        Err(ServeError::Abandoned)
    }

    /// Carries one command out; `None` if the answer comes later.
    async fn obey(&mut self, command: Command) -> Option<Event> {
        Some(match command {
            Command::Facts(query) => {
                let facts = facts::gather(&query, || self.janitor.ipvs()).await;
                for (_, answer) in &facts.routes {
                    if let RouteAnswer::Route(route) = answer
                        && let Some(next_hop) = route.gateway
                    {
                        self.scope.allow_gateway(next_hop);
                    }
                }
                for address in facts.links.iter().flat_map(|link| &link.addresses) {
                    self.scope.allow_own(address.ip);
                }
                for mac in facts.links.iter().filter_map(|link| link.mac) {
                    self.scope.allow_mac(mac);
                }
                Event::Facts(Box::new(facts))
            }
            Command::Firewall(query) => {
                if let Err(error) = self.scope.check_firewall(&query) {
                    self.record.declined += 1;
                    let unread = Unread {
                        what: "firewall rules".to_owned(),
                        error: error.to_string(),
                    };
                    return Some(Event::Firewall(Box::new(Firewall {
                        unread: vec![unread],
                        ..Firewall::default()
                    })));
                }
                let (out, janitor) = (self.out.clone(), self.janitor.clone());
                tokio::spawn(async move {
                    let found = Box::new(firewall::read(&query, &janitor).await);
                    say(&out, FromAgent::Said(Event::Firewall(found))).await;
                });
                return None;
            }
            Command::WatchDrops(spec) => {
                let watched = self.watch_drops(&spec);
                Event::DropsWatched(watched.err().map(|error| Freed::untold(error.to_string())))
            }
            Command::OpenTap(spec) => match self.open_tap(&spec) {
                Ok(tap) => {
                    // Before the first packet.
                    say(&self.out, FromAgent::Said(Event::TapOpen)).await;
                    let (ask, asked) = mpsc::channel(8);
                    let watch = streams::watch(tap, asked, self.out.clone());
                    self.tap = Some((ask, tokio::spawn(watch)));
                    return None;
                }
                Err(event) => event,
            },
            Command::Send {
                token,
                transmit,
                cleanup,
            } => Event::Sent {
                token,
                outcome: self.send(token, &transmit, cleanup).await,
            },
            Command::Settle { token } => {
                if let Some(cleanup) = self.open.remove(&token) {
                    self.close(&cleanup).await;
                    self.settled.push(cleanup);
                    self.janitor.closed(token);
                }
                Event::Settled { token }
            }
            Command::Connect {
                token,
                to,
                timeout_ms,
            } => {
                match self.scope.check_destination(to.0) {
                    Ok(family) => self.count(family).await,
                    Err(error) => {
                        self.record.declined += 1;
                        let reason = error.to_string();
                        let outcome = ConnectOutcome::Declined { reason };
                        return Some(Event::Connected { token, outcome });
                    }
                }
                let limit = Duration::from_millis(timeout_ms);
                tokio::spawn(streams::connect(token, to, limit, self.out.clone()));
                return None;
            }
            Command::ForgetNeighbour { address, device } => self.forget(address, &device),
            Command::TapStatistics => {
                let asked = match &self.tap {
                    Some((tap, _)) => tap.send(()).await.is_ok(),
                    None => false,
                };
                if asked {
                    return None;
                }
                failed("read the tap's statistics", "no tap is open")
            }
            Command::Finish => unreachable!("`obey_all` keeps it"),
        })
    }

    fn open_tap(&mut self, spec: &TapSpec) -> Result<Tap, Event> {
        let operation = "open the tap";
        let checked = self.scope.check_tap(spec);
        checked.map_err(|error| failed(operation, error))?;
        let socket = self.tap_socket.take();
        let socket = socket.ok_or_else(|| failed(operation, "it is open already"))?;
        Tap::listen(socket, spec).map_err(|error| failed(error.operation, error.source))
    }

    /// Passes on what the kernel tells of drops.
    fn watch_drops(&mut self, spec: &TapSpec) -> io::Result<()> {
        self.scope.check_tap(spec).map_err(io::Error::other)?;
        let out = self.out.downgrade();
        match self.janitor.watch()? {
            Watch::Monitor(family, socket) => {
                let drops = Drops::new(family, socket, spec)?;
                tokio::spawn(streams::pass_on(drops, out));
            }
            Watch::Tracepoint(source, monitor) => {
                let tracepoint = Tracepoint::new(source).map_err(|error| {
                    io::Error::other(format!("{monitor}; tracepoint skb:kfree_skb: {error}"))
                })?;
                thread::spawn(move || streams::pass_on_freed(tracepoint, &out));
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        token: u32,
        transmit: &Transmit,
        cleanup: Option<Transmit>,
    ) -> SendOutcome {
        let declined = |reason: &dyn ToString| SendOutcome::Declined {
            time: clock::steady(),
            reason: reason.to_string(),
        };
        let checked = self.scope.check(transmit).and_then(|family| {
            let mut cleanups = cleanup.iter();
            cleanups.try_for_each(|cleanup| self.scope.check_cleanup(transmit, cleanup))?;
            Ok(family)
        });
        match checked {
            Ok(family) => self.count(family).await,
            Err(error) => {
                self.record.declined += 1;
                return declined(&error);
            }
        }
        let opens = cleanup.is_some();
        if let Some(cleanup) = cleanup {
            if let Err(error) = self.janitor.opened(token, cleanup.clone()) {
                return declined(&error);
            }
            self.open.insert(token, cleanup);
        }
        let outcome = self.sender.send(transmit);
        if opens && matches!(outcome, SendOutcome::Refused { .. }) {
            self.open.remove(&token);
            self.janitor.closed(token);
        }
        outcome
    }

    /// Closes what is open, at a pace of its own. The kernel's answer to a cleanup changes nothing.
    async fn close(&mut self, cleanup: &Transmit) {
        self.gate.close().await;
        self.sender.send(cleanup);
    }

    /// Waits until a packet may go, and counts it.
    async fn count(&mut self, family: Family) {
        self.gate.pass().await;
        *self.record.sent.entry(family).or_default() += 1;
    }

    fn forget(&mut self, address: Ipv4Addr, device: &str) -> Event {
        let operation = "delete the neighbour entry";
        if let Err(error) = self.scope.check_neighbour(address) {
            return failed(operation, error);
        }
        match self.janitor.forget(address, device) {
            Ok(old) => Event::NeighbourForgotten { address, old },
            Err(error) => failed(operation, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_is_cut_off_is_not_waited_for() {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let (near, far) = tokio::io::duplex(1024);
                let (queue, mut commands) = mpsc::unbounded_channel();
                let messages = FramedRead::new(near, MessageCodec::default());
                let patience = Duration::from_millis(100);
                let reading = tokio::spawn(read(messages, queue, patience));
                let mut far = FramedWrite::new(far, MessageCodec::default());
                for _ in 0..4 {
                    far.send(&ToAgent::Ping).await.unwrap();
                    tokio::time::sleep(patience / 2).await;
                }
                let ended = timeout(Duration::from_secs(5), reading).await.unwrap();
                assert!(matches!(ended.unwrap(), ServeError::Abandoned));
                let mut heard = 0;
                while commands.recv().await.is_some() {
                    heard += 1;
                }
                assert_eq!(heard, 4);
                drop(far);
            });
    }
}
