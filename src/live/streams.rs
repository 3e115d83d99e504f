//! What an agent passes on while it obeys: packets, drops, connections that are being opened.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::SocketAddrV4;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::agent::FromAgent;
use crate::exchange::ConnectOutcome;
use crate::exchange::Freed;
use crate::live::drops::Drops;
use crate::live::tap::Tap;
use crate::live::tracepoint::PERIOD;
use crate::live::tracepoint::Tracepoint;
use crate::run::Event;

/// How long the far end of a real connection may take to close it, too.
const CLOSE: Duration = Duration::from_millis(500);

/// Fails only if `write` has failed, which `serve` learns by itself.
pub(super) async fn say(out: &mpsc::Sender<FromAgent>, message: FromAgent) {
    let _ = out.send(message).await;
}

/// Passes packets on, and statistics when asked: after every packet that arrived before the question.
pub(super) async fn watch(
    mut tap: Tap,
    mut asked: mpsc::Receiver<()>,
    out: mpsc::Sender<FromAgent>,
) {
    loop {
        let event = tokio::select! {
            biased;
            question = asked.recv() => match question {
                Some(()) => match tap.statistics() {
                    Ok(statistics) => {
                        while tap.owes(statistics)
                            && let Ok(Some(capture)) = tap.try_receive()
                        {
                            say(&out, FromAgent::Said(Event::Captured(capture))).await;
                        }
                        Event::Statistics(statistics)
                    }
                    Err(error) => failed(error.operation, error.source),
                },
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
pub(super) async fn pass_on(mut drops: Drops, out: mpsc::WeakSender<FromAgent>) {
    while let Ok(dropped) = drops.receive().await {
        let Some(out) = out.upgrade() else { return };
        let event = match dropped {
            Some(dropped) => Event::Dropped(dropped),
            None => {
                let error = "drop monitor: it told of more than there was room for";
                Event::DropsWatched(Some(Freed::untold(error.to_owned())))
            }
        };
        say(&out, FromAgent::Said(event)).await;
    }
}

/// Passes on what the tracepoint tells, for as long as somebody else has something to say. To close a perf event
/// takes the kernel its time, in which nothing else is to wait: this is for a thread of its own.
pub(super) fn pass_on_freed(mut tracepoint: Tracepoint, out: &mpsc::WeakSender<FromAgent>) {
    let mut is_heard = true;
    while is_heard {
        thread::sleep(PERIOD);
        is_heard = match (tracepoint.take(), out.upgrade()) {
            (_, None) => false,
            (Some(freed), Some(out)) => {
                let message = FromAgent::Said(Event::Freed(freed));
                out.blocking_send(message).is_ok()
            }
            (None, Some(_)) => true,
        };
    }
}

/// Opens a real connection, says what became of it, and closes it as a client does that has nothing to say.
pub(super) async fn connect(
    token: u32,
    to: (Ipv4Addr, u16),
    limit: Duration,
    out: mpsc::Sender<FromAgent>,
) {
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

pub(super) fn failed(operation: impl Into<String>, error: impl ToString) -> Event {
    Event::Failed {
        operation: operation.into(),
        error: error.to_string(),
    }
}
