//! One host, as an agent serves it: commands in order, events out, packets as they come.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use futures_util::SinkExt;
use futures_util::StreamExt;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::codec::FramedWrite;

use crate::agent::CodecError;
use crate::agent::Entry;
use crate::agent::FromAgent;
use crate::agent::Hello;
use crate::agent::Ledger;
use crate::agent::MessageCodec;
use crate::agent::OutOfScope;
use crate::agent::Scope;
use crate::agent::ToAgent;
use crate::exchange::ConnectOutcome;
use crate::exchange::Freed;
use crate::exchange::RouteAnswer;
use crate::exchange::SendOutcome;
use crate::exchange::TapSpec;
use crate::exchange::Transmit;
use crate::live::clock;
use crate::live::drops::Drops;
use crate::live::drops::Monitor;
use crate::live::drops::Watched;
use crate::live::facts;
use crate::live::firewall;
use crate::live::janitor;
use crate::live::janitor::Called;
use crate::live::janitor::Janitor;
use crate::live::janitor::with_causes;
use crate::live::neighbour;
use crate::live::send::Sender;
use crate::live::tap::Tap;
use crate::live::tracepoint;
use crate::live::tracepoint::Tracepoint;
use crate::run::Command;
use crate::run::Event;

/// Messages that wait for the pipe; beyond it the tap waits, and what the kernel drops then, it counts.
const BACKLOG: usize = 1024;

/// How long a controller may say nothing; it pings every other second. A pipe through a network that is
/// cut never ends by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

/// How long the far end of a real connection may take to close it, too.
const CLOSE: Duration = Duration::from_millis(500);

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

/// Serves one controller until it says `Finish`, or until `stdin` ends; then at once, whatever goes on, and
/// the janitor settles what is open.
///
/// # Errors
///
/// [`ServeError`], for every end but `Finish`.
pub async fn serve(
    stdin: impl AsyncRead + Unpin,
    mut stdout: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<(), ServeError> {
    // It comes while the controller reads the hello.
    let janitor = Janitor::call();
    let hello = Hello::ours().to_string();
    stdout
        .write_all(hello.as_bytes())
        .await
        .map_err(CodecError::from)?;
    stdout.flush().await.map_err(CodecError::from)?;
    let mut messages = FramedRead::new(stdin, MessageCodec::<ToAgent>::default());
    let scope = match messages.next().await {
        Some(Ok(ToAgent::Start { scope })) => scope,
        Some(Ok(_)) => return Err(ServeError::NotStarted),
        Some(Err(error)) => return Err(error.into()),
        None => return Err(ServeError::Abandoned),
    };
    let (out, outgoing) = mpsc::channel(BACKLOG);
    let mut writer = tokio::spawn(write(outgoing, stdout));
    let result = match Served::start(scope, janitor, out.clone()) {
        Ok(host) => {
            say(&out, FromAgent::Started).await;
            let (queue, commands) = mpsc::unbounded_channel();
            tokio::select! {
                biased;
                ended = read(messages, queue, PATIENCE) => Err(ended),
                Ok(Err(error)) = &mut writer => return Err(error.into()),
                finished = host.obey_all(commands) => finished,
            }
        }
        Err((operation, error)) => {
            let (operation, error) = (operation.to_owned(), error.to_string());
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

/// Fails only if `write` has failed, which `serve` learns by itself.
async fn say(out: &mpsc::Sender<FromAgent>, message: FromAgent) {
    let _ = out.send(message).await;
}

struct Served {
    out: mpsc::Sender<FromAgent>,
    scope: Scope,
    sender: Sender,
    janitor: Janitor,
    ledger: Ledger,
    /// Cleanups that were sent when they were asked for: once more at the end, for the first may be lost.
    settled: Vec<Transmit>,
    /// Asks the tap's task for statistics.
    tap: Option<mpsc::Sender<()>>,
}

impl Served {
    fn start(
        scope: Scope,
        janitor: io::Result<Called>,
        out: mpsc::Sender<FromAgent>,
    ) -> Result<Served, (&'static str, io::Error)> {
        let sender = Sender::open().map_err(|error| (error.operation, error.source))?;
        let janitor = janitor
            .and_then(Called::stand_by)
            .map_err(|error| ("start the janitor", error))?;
        Ok(Served {
            out,
            scope,
            sender,
            janitor,
            ledger: Ledger::default(),
            settled: Vec::new(),
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
                    for cleanup in &self.settled {
                        self.sender.send(cleanup);
                    }
                    let settled = janitor::settle(&self.ledger, &self.sender).await;
                    let dismissed = self.janitor.dismiss().map_err(|error| {
                        io::Error::other(format!("the janitor was gone before: {error}"))
                    });
                    return settled.and(dismissed).map_err(ServeError::Unsettled);
                }
                ToAgent::Do(command) => {
                    if let Some(event) = self.obey(command).await {
                        say(&self.out, FromAgent::Said(event)).await;
                    }
                }
                ToAgent::Start { .. } => return Err(ServeError::NotStarted),
            }
        }
        Err(ServeError::Abandoned)
    }

    /// Carries one command out; `None` if the answer comes later.
    async fn obey(&mut self, command: Command) -> Option<Event> {
        Some(match command {
            Command::Facts(query) => {
                let facts = facts::gather(&query).await;
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
                Event::Facts(Box::new(facts))
            }
            Command::Firewall(query) => {
                let out = self.out.clone();
                tokio::spawn(async move {
                    let found = Box::new(firewall::read(&query).await);
                    say(&out, FromAgent::Said(Event::Firewall(found))).await;
                });
                return None;
            }
            Command::WatchDrops(spec) => {
                if let Err(monitor) = self.watch_drops(&spec) {
                    let out = self.out.downgrade();
                    thread::spawn(move || watch_freed(&monitor, &out));
                    return None;
                }
                Event::DropsWatched(None)
            }
            Command::OpenTap(spec) => match self.open_tap(&spec) {
                Ok(tap) => {
                    // Before the first packet.
                    say(&self.out, FromAgent::Said(Event::TapOpen)).await;
                    let (ask, asked) = mpsc::channel(8);
                    self.tap = Some(ask);
                    tokio::spawn(watch(tap, asked, self.out.clone()));
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
                outcome: self.send(token, &transmit, cleanup),
            },
            Command::Settle { token } => {
                if let Some(cleanup) = self.ledger.cleanup(token).cloned() {
                    // The kernel's answer to a cleanup changes nothing.
                    self.sender.send(&cleanup);
                    self.settled.push(cleanup);
                    self.close(token);
                }
                Event::Settled { token }
            }
            Command::Connect {
                token,
                to,
                timeout_ms,
            } => {
                if let Err(error) = self.scope.check_destination(to.0) {
                    let (errno, error) = refusal(&error);
                    let outcome = ConnectOutcome::Failed { errno, error };
                    return Some(Event::Connected { token, outcome });
                }
                let limit = Duration::from_millis(timeout_ms);
                tokio::spawn(connect(token, to, limit, self.out.clone()));
                return None;
            }
            Command::ForgetNeighbour { address, device } => self.forget(address, &device),
            Command::TapStatistics => {
                let asked = match &self.tap {
                    Some(tap) => tap.send(()).await.is_ok(),
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

    fn open_tap(&self, spec: &TapSpec) -> Result<Tap, Event> {
        if self.tap.is_some() {
            return Err(failed("open the tap", "it is open already"));
        }
        Tap::open(spec).map_err(|error| failed(error.operation, error.source))
    }

    /// Turns the kernel's drop monitor on, unless it is on already.
    fn watch_drops(&mut self, spec: &TapSpec) -> io::Result<()> {
        let mut monitor = Monitor::find()?;
        let watched = monitor.watched()?;
        let drops = monitor.listen(spec)?;
        if let Watched::ByNobody(mode) = watched {
            let entry = Entry::Watching { mode };
            self.janitor
                .tell(&entry)
                .map_err(|error| io::Error::other(without_janitor(&error)))?;
            self.ledger.record(entry);
            if let Err(error) = monitor.start() {
                // Somebody was faster; the janitor may not turn it off.
                let _ = self.janitor.tell(&Entry::NotWatching);
                self.ledger.record(Entry::NotWatching);
                return Err(error);
            }
        }
        tokio::spawn(pass_on(drops, self.out.downgrade()));
        Ok(())
    }

    fn send(&mut self, token: u32, transmit: &Transmit, cleanup: Option<Transmit>) -> SendOutcome {
        let refused = |(errno, error)| SendOutcome::Refused {
            time: clock::wall(),
            errno,
            error,
        };
        for packet in [transmit].into_iter().chain(&cleanup) {
            if let Err(error) = self.scope.check(packet) {
                return refused(refusal(&error));
            }
        }
        let opens = cleanup.is_some();
        if let Some(cleanup) = cleanup {
            let entry = Entry::Opened { token, cleanup };
            if let Err(error) = self.janitor.tell(&entry) {
                return refused((libc::ECANCELED, without_janitor(&error)));
            }
            self.ledger.record(entry);
        }
        let outcome = self.sender.send(transmit);
        if opens && matches!(outcome, SendOutcome::Refused { .. }) {
            self.close(token);
        }
        outcome
    }

    fn close(&mut self, token: u32) {
        let entry = Entry::Closed { token };
        // A janitor that is gone closes nothing twice.
        let _ = self.janitor.tell(&entry);
        self.ledger.record(entry);
    }

    fn forget(&mut self, address: Ipv4Addr, device: &str) -> Event {
        let operation = "delete the neighbour entry";
        let old = match neighbour::find(address, device) {
            Ok(Some(old)) => old,
            Ok(None) => return Event::NeighbourForgotten { address, old: None },
            Err(error) => return failed(operation, with_causes(&error)),
        };
        let entry = Entry::Forgotten(old);
        if let Err(error) = self.janitor.tell(&entry) {
            return failed(operation, without_janitor(&error));
        }
        self.ledger.record(entry);
        // Where a person made the entry it is not deleted, and putting it back changes nothing.
        match neighbour::forget(address, device) {
            Ok(old) => Event::NeighbourForgotten { address, old },
            Err(error) => failed(operation, with_causes(&error)),
        }
    }
}

/// Passes packets on, and statistics when asked: after every packet that arrived before the question.
async fn watch(mut tap: Tap, mut asked: mpsc::Receiver<()>, out: mpsc::Sender<FromAgent>) {
    loop {
        let event = tokio::select! {
            biased;
            question = asked.recv() => match question {
                Some(()) => {
                    let now = clock::wall();
                    while let Ok(Some(capture)) = tap.try_receive() {
                        let is_later = capture.time > now;
                        say(&out, FromAgent::Said(Event::Captured(capture))).await;
                        if is_later {
                            break;
                        }
                    }
                    match tap.statistics() {
                        Ok(statistics) => Event::Statistics(statistics),
                        Err(error) => failed(error.operation, error.source),
                    }
                }
                None => return,
            },
            received = tap.receive() => match received {
                Ok(capture) => Event::Captured(capture),
                Err(error) => {
                    say(&out, FromAgent::Said(failed(error.operation, error.source))).await;
                    return;
                }
            },
        };
        say(&out, FromAgent::Said(event)).await;
    }
}

/// Passes on what the drop monitor tells, for as long as somebody else has something to say.
async fn pass_on(mut drops: Drops, out: mpsc::WeakSender<FromAgent>) {
    while let Ok(dropped) = drops.receive().await {
        let Some(out) = out.upgrade() else { return };
        say(&out, FromAgent::Said(Event::Dropped(dropped))).await;
    }
}

/// Passes on what the tracepoint tells, for as long as somebody else has something to say. To close a perf event
/// takes the kernel its time, in which nothing else is to wait: this is a thread of its own.
fn watch_freed(monitor: &io::Error, out: &mpsc::WeakSender<FromAgent>) {
    let tell = |event| {
        out.upgrade()
            .is_some_and(|out| out.blocking_send(FromAgent::Said(event)).is_ok())
    };
    let mut tracepoint = match Tracepoint::open() {
        Ok(tracepoint) => tracepoint,
        Err(error) => {
            let error = format!("{monitor}; tracepoint skb:kfree_skb: {error}");
            tell(Event::DropsWatched(Some(Freed::untold(error))));
            return;
        }
    };
    let mut is_heard = tell(Event::DropsWatched(None));
    while is_heard {
        thread::sleep(tracepoint::PERIOD);
        is_heard = match tracepoint.take() {
            Some(freed) => tell(Event::Freed(freed)),
            None => out.strong_count() > 0,
        };
    }
}

/// Opens a real connection, says what became of it, and closes it as a client does that has nothing to say.
async fn connect(token: u32, to: (Ipv4Addr, u16), limit: Duration, out: mpsc::Sender<FromAgent>) {
    let start = Instant::now();
    let result = timeout(limit, TcpStream::connect(SocketAddrV4::new(to.0, to.1))).await;
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    let (outcome, stream) = match result {
        Ok(Ok(stream)) => match stream.local_addr() {
            Ok(SocketAddr::V4(local)) => {
                let local = (*local.ip(), local.port());
                (ConnectOutcome::Connected { local, micros }, Some(stream))
            }
            Ok(SocketAddr::V6(_)) => unreachable!("the connection is one of IPv4"),
            Err(error) => (unconnected(&error), None),
        },
        Ok(Err(error)) => (unconnected(&error), None),
        Err(_) => (ConnectOutcome::TimedOut, None),
    };
    say(&out, FromAgent::Said(Event::Connected { token, outcome })).await;
    if let Some(mut stream) = stream {
        // Reading until the far end closes avoids the RST that unread data would cause.
        let _ = stream.shutdown().await;
        let mut unread = [0; 512];
        let _ = timeout(CLOSE, async {
            while matches!(stream.read(&mut unread).await, Ok(length) if length > 0) {}
        })
        .await;
    }
}

fn unconnected(error: &io::Error) -> ConnectOutcome {
    match error.raw_os_error() {
        Some(libc::ETIMEDOUT) => ConnectOutcome::TimedOut,
        errno => ConnectOutcome::Failed {
            errno: errno.unwrap_or(libc::EINVAL),
            error: error.to_string(),
        },
    }
}

/// ECANCELED, which no send and no connect gives: EPERM would look like a firewall.
fn refusal(error: &OutOfScope) -> (i32, String) {
    (libc::ECANCELED, format!("not sent: {error}"))
}

fn without_janitor(error: &io::Error) -> String {
    format!("not done, for the janitor that would clean up is gone: {error}")
}

fn failed(operation: impl Into<String>, error: impl ToString) -> Event {
    Event::Failed {
        operation: operation.into(),
        error: error.to_string(),
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
