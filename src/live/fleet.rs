//! All agents of a run: commands to each, what they say, and which of them are lost.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use futures_util::SinkExt;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::task::yield_now;
use tokio::time::Interval;
use tokio::time::interval;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;
use tokio_util::codec::FramedWrite;

use crate::agent::CodecError;
use crate::agent::FromAgent;
use crate::agent::MessageCodec;
use crate::agent::ToAgent;
use crate::live::vantage::AgentError;
use crate::live::vantage::AgentFailure;
use crate::live::vantage::AgentHandle;
use crate::live::vantage::End;
use crate::live::vantage::Process;
use crate::live::vantage::Vantage;
use crate::plan::Host;
use crate::run::Command;
use crate::run::Event;

/// How often agents are asked whether they are alive, at the rarest.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long an agent may take to settle everything and end.
const ENDING: Duration = Duration::from_secs(10);

/// How long a pipe may take to have what is sent by it.
const FLUSH: Duration = Duration::from_millis(10);

/// What agents are told is never too much: what is sent to each is limited elsewhere.
const UNLIMITED: usize = Semaphore::MAX_PERMITS;

/// What agents said that waits to be handled.
const BACKLOG: usize = 1024;

/// What the fleet has to say.
#[derive(Debug)]
pub enum Report {
    /// A host said something.
    Said(Host, Event),
    /// A host is gone: its agent died, hangs, or speaks gibberish.
    Lost(AgentFailure),
}

/// Running agents. Dropping it kills them; their janitors settle what is open.
#[derive(Debug)]
pub struct Fleet {
    members: BTreeMap<Host, Member>,
    inbox: mpsc::Receiver<(Host, Result<FromAgent, AgentError>)>,
    /// Those that are lost, with their last words.
    buried: mpsc::UnboundedReceiver<AgentFailure>,
    bury: mpsc::UnboundedSender<AgentFailure>,
    heartbeat: Interval,
}

#[derive(Debug)]
struct Member {
    vantage: Vantage,
    process: Process,
    /// Reads what it says, until it has ended.
    reader: JoinHandle<()>,
    to: mpsc::Sender<ToAgent>,
    silence: Duration,
    heard: Instant,
    /// Pings that it has not answered yet.
    owed: u32,
    is_finishing: bool,
}

impl Fleet {
    /// Takes the agents over.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(agents: Vec<AgentHandle>) -> Fleet {
        let (inward, inbox) = mpsc::channel(BACKLOG);
        let mut period = HEARTBEAT;
        let mut members = BTreeMap::new();
        for agent in agents {
            let host = agent.host();
            let (to, outbox) = mpsc::channel(UNLIMITED);
            tokio::spawn(write(outbox, agent.to));
            let reader = tokio::spawn(read(host, agent.from, inward.clone()));
            period = period.min(agent.silence / 3);
            let member = Member {
                vantage: agent.vantage,
                process: agent.process,
                reader,
                to,
                silence: agent.silence,
                heard: Instant::now(),
                owed: 0,
                is_finishing: false,
            };
            members.insert(host, member);
        }
        let (bury, buried) = mpsc::unbounded_channel();
        Fleet {
            members,
            inbox,
            buried,
            bury,
            heartbeat: interval(period),
        }
    }

    /// Whether no agent is left.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Sends a command; to a host that is lost, to nobody.
    pub fn send(&mut self, host: Host, command: Command) {
        if let Some(member) = self.members.get_mut(&host) {
            member.is_finishing |= command == Command::Finish;
            // If the pipe is broken, the reading side says so.
            let _ = member.to.try_send(ToAgent::Do(command));
        }
    }

    /// Waits until the agents' pipes have what was sent to them; not for long, where one takes no more.
    pub(crate) async fn flush(&self) {
        let until = Instant::now() + FLUSH;
        let waits = |member: &Member| member.to.capacity() < UNLIMITED;
        while self.members.values().any(waits) && Instant::now() < until {
            yield_now().await;
        }
    }

    /// The next report; waits for ever if no agent is left. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Report {
        loop {
            tokio::select! {
                Some((host, said)) = self.inbox.recv() => {
                    let Some(member) = self.members.get_mut(&host) else {
                        continue;
                    };
                    member.heard = Instant::now();
                    match said {
                        Ok(FromAgent::Said(event)) => return Report::Said(host, event),
                        Ok(FromAgent::Pong) => member.owed = member.owed.saturating_sub(1),
                        Ok(other) => {
                            self.lose(host, AgentError::OutOfTurn(format!("{other:?}")));
                        }
                        // `finish` waits for those that were told to end.
                        Err(AgentError::Ended(_)) if member.is_finishing => {}
                        Err(error) => self.lose(host, error),
                    }
                }
                Some(failure) = self.buried.recv() => return Report::Lost(failure),
                _ = self.heartbeat.tick() => {
                    if let Some((host, limit)) = self.ping() {
                        let what = "answer";
                        self.lose(host, AgentError::Silent { what, limit });
                    }
                }
            }
        }
    }

    /// Tells every agent to finish that was not told yet, and waits until they have ended; events that still
    /// come are dropped. Agents that do not end in order are returned.
    pub async fn finish(mut self) -> Vec<AgentFailure> {
        let hosts: Vec<_> = self.members.keys().copied().collect();
        for host in hosts {
            if !self.members[&host].is_finishing {
                self.send(host, Command::Finish);
            }
        }
        let Fleet {
            mut members,
            mut inbox,
            mut buried,
            bury,
            ..
        } = self;
        // An agent that cannot get rid of its last packets does not end.
        let drain = tokio::spawn(async move { while inbox.recv().await.is_some() {} });
        let ended = join_all(members.values_mut().map(Member::end)).await;
        drain.abort();
        let mut failures: Vec<_> = ended.into_iter().flatten().collect();
        drop(bury);
        while let Some(failure) = buried.recv().await {
            failures.push(failure);
        }
        failures
    }

    /// Asks every agent whether it is alive; one that owes an answer for too long is returned.
    fn ping(&mut self) -> Option<(Host, Duration)> {
        for (host, member) in &mut self.members {
            if member.owed > 0 && member.heard.elapsed() > member.silence {
                return Some((*host, member.silence));
            }
            if !member.is_finishing {
                if member.owed == 0 {
                    member.heard = Instant::now();
                }
                member.owed += 1;
                let _ = member.to.try_send(ToAgent::Ping);
            }
        }
        None
    }

    /// Ends an agent; when its last words are in, `next` reports them.
    fn lose(&mut self, host: Host, error: AgentError) {
        let mut member = self.members.remove(&host).expect("the host is a member");
        let bury = self.bury.clone();
        tokio::spawn(async move {
            let error = member.process.ended(error).await;
            let failure = member.process.failure(&member.vantage, &error);
            // A fleet that is gone wants no report.
            let _ = bury.send(failure);
        });
    }
}

impl Member {
    async fn end(&mut self) -> Option<AgentFailure> {
        let silent = AgentError::Silent {
            what: "end",
            limit: ENDING,
        };
        let error = match self.process.end(ENDING).await {
            End::With(status) if status.success() => return None,
            End::With(status) => AgentError::Ended(Some(status)),
            // It was told to finish, and what it says ends with it.
            End::Untold => match timeout(ENDING, &mut self.reader).await {
                Ok(_) => return None,
                Err(_) => silent,
            },
            End::Killed => silent,
        };
        Some(self.process.failure(&self.vantage, &error))
    }
}

async fn write(
    mut outbox: mpsc::Receiver<ToAgent>,
    mut to: FramedWrite<pipe::Sender, MessageCodec<ToAgent>>,
) {
    while let Some(message) = outbox.recv().await {
        // What was said meanwhile goes with it.
        let written = match outbox.is_empty() {
            true => to.send(&message).await,
            false => to.feed(&message).await,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn read(
    host: Host,
    mut from: FramedRead<BufReader<pipe::Receiver>, MessageCodec<FromAgent>>,
    inward: mpsc::Sender<(Host, Result<FromAgent, AgentError>)>,
) {
    loop {
        let said = match from.next().await {
            Some(Ok(message)) => Ok(message),
            // An agent that is killed in the middle of a message has ended, no more.
            Some(Err(CodecError::Truncated)) | None => Err(AgentError::Ended(None)),
            Some(Err(error)) => Err(AgentError::from(error)),
        };
        let is_last = said.is_err();
        if inward.send((host, said)).await.is_err() || is_last {
            return;
        }
    }
}
