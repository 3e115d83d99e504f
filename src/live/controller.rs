//! The controller: drives the engine with real agents, real time and real signals.

use std::future::pending;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::sleep;

use crate::live::clock;
use crate::live::fleet::Fleet;
use crate::live::fleet::Report;
use crate::live::vantage::AgentFailure;
use crate::live::vantage::AgentHandle;
use crate::run::Engine;

/// How a run went, whose agents may not have ended yet.
#[derive(Debug)]
pub struct Driven {
    /// The agents that were lost on the way.
    pub failures: Vec<AgentFailure>,
    /// Whether the user stopped it: once, and the engine cleaned up; twice, and the janitors did.
    pub interrupted: bool,
    /// `None`, if nobody waits for them.
    fleet: Option<Fleet>,
    stop: Stop,
}

impl Driven {
    /// Waits until the agents have ended; a signal ends that at once. Those that do not end in order are returned.
    pub async fn end(self) -> Vec<AgentFailure> {
        let Driven {
            fleet: Some(fleet),
            mut stop,
            ..
        } = self
        else {
            return Vec::new();
        };
        tokio::select! {
            failures = fleet.finish() => failures,
            () = stop.called() => Vec::new(),
        }
    }
}

/// Ctrl-C and SIGTERM.
#[derive(Debug)]
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> io::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn called(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
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
    let mut stop = Stop::listen()?;
    Ok(tokio::select! {
        done = work => Some(done),
        () = stop.called() => None,
    })
}

/// Drives `engine` until it is through and all agents are told to end. Calls `progress` after everything that happened,
/// and after as long as it says.
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
    let mut stop = Stop::listen()?;
    let mut fleet = Fleet::new(agents);
    let (mut failures, mut interrupted) = (Vec::new(), false);
    loop {
        while let Some((host, command)) = engine.poll_command(clock::mono()) {
            fleet.send(host, command);
        }
        let again = progress(engine);
        if engine.is_finished() {
            // They end while this is given back and judged.
            fleet.flush().await;
            return Ok(Driven {
                failures,
                interrupted,
                fleet: Some(fleet),
                stop,
            });
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
                            failures.push(failure);
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
            () = stop.called() => {
                if interrupted {
                    return Ok(Driven { failures, interrupted, fleet: None, stop });
                }
                interrupted = true;
                engine.handle_interrupt(clock::mono());
            }
        }
    }
}
