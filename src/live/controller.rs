//! The controller: drives the engine with real agents, real time and real signals.

use std::future::pending;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::sleep;

use crate::live::clock;
use crate::live::fleet::Fleet;
use crate::live::fleet::Report;
use crate::live::vantage::AgentFailure;
use crate::live::vantage::AgentHandle;
use crate::run::Engine;

/// How a run went.
#[derive(Debug, Default)]
pub struct Driven {
    /// The agents that were lost on the way, or did not end in order.
    pub failures: Vec<AgentFailure>,
    /// Whether the user stopped it: once, and the engine cleaned up; twice, and the janitors did.
    pub interrupted: bool,
}

/// Waits so long; whether the user ended that by Ctrl-C or SIGTERM.
///
/// # Errors
///
/// If signals cannot be watched.
pub async fn pause(length: Duration) -> io::Result<bool> {
    Ok(unless_stopped(sleep(length)).await?.is_none())
}

/// Waits for `work`; `None` if the user stopped it by Ctrl-C or SIGTERM before its end.
///
/// # Errors
///
/// If signals cannot be watched.
pub async fn unless_stopped<T>(work: impl Future<Output = T>) -> io::Result<Option<T>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        done = work => Some(done),
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
    })
}

/// Drives `engine` to its end, and calls `progress` after everything that happened, and after as long as it says.
///
/// Ctrl-C or SIGTERM tells the engine to clean up; the second one ends the run at once.
///
/// # Errors
///
/// If signals cannot be watched.
pub async fn drive(
    engine: &mut Engine,
    agents: Vec<AgentHandle>,
    progress: &mut dyn FnMut(&Engine) -> Option<Duration>,
) -> io::Result<Driven> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut fleet = Fleet::new(agents);
    let mut driven = Driven::default();
    loop {
        while let Some((host, command)) = engine.poll_command(clock::mono()) {
            fleet.send(host, command);
        }
        let again = progress(engine);
        if engine.is_finished() {
            break;
        }
        let due = engine.poll_timeout();
        tokio::select! {
            report = fleet.next() => {
                // What is to be done next is thought over once for all that was said.
                let mut reports = Some(report);
                while let Some(report) = reports {
                    match report {
                        Report::Said(host, event) => {
                            engine.handle_event(host, event, clock::mono());
                        }
                        Report::Lost(failure) => {
                            engine.handle_lost(failure.host, failure.to_string(), clock::mono());
                            driven.failures.push(failure);
                        }
                    }
                    reports = fleet.next().now_or_never();
                }
            }
            () = async {
                match due {
                    Some(due) => sleep(due.since(clock::mono())).await,
                    None => pending().await,
                }
            } => engine.handle_timeout(clock::mono()),
            () = async {
                match again {
                    Some(again) => sleep(again).await,
                    None => pending().await,
                }
            } => {}
            _ = async { tokio::select! { s = interrupt.recv() => s, s = terminate.recv() => s } } => {
                if driven.interrupted {
                    return Ok(driven);
                }
                driven.interrupted = true;
                engine.handle_interrupt(clock::mono());
            }
        }
    }
    tokio::select! {
        failures = fleet.finish() => driven.failures.extend(failures),
        _ = async { tokio::select! { s = interrupt.recv() => s, s = terminate.recv() => s } } => {
            driven.interrupted = true;
        }
    }
    Ok(driven)
}
