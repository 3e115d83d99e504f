//! What each host is to send next, no faster than the limit; what was handed to it; what must be closed.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::craft;
use crate::evidence::Evidence;
use crate::evidence::What;
use crate::exchange::ConnectOutcome;
use crate::exchange::Mono;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Wall;
use crate::exchange::Way;
use crate::plan::Host;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::run::Command;
use crate::run::Limits;

/// What fires by a clock is not called more often than this.
const TICK: Duration = Duration::from_millis(1);

/// How long a real connection may take, in milliseconds.
const CONNECT_MS: u64 = 3000;

/// Something for a host to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// Send a probe.
    Probe(Probe),
    /// Send a packet that a suite wrote out.
    Script(Probe, Transmit),
    /// Send a frame that belongs to this step of this path.
    Frame((usize, usize), Transmit),
    /// Open a real connection.
    Connect((Ipv4Addr, u16)),
    /// Delete a neighbour entry.
    Forget(Ipv4Addr, String),
}

/// The queues of all hosts.
#[derive(Debug)]
pub(super) struct Pacer {
    limits: Limits,
    realservers: usize,
    queues: BTreeMap<Host, Queue>,
    handed: HashMap<u32, Handed>,
    next_token: u32,
    unsettled: BTreeMap<ProbeId, (Host, u32)>,
    departed: HashMap<ProbeId, Mono>,
    last: Mono,
    /// When the last packet of a step of a path was handed out.
    last_of: HashMap<(usize, usize), Mono>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Outgoing>,
    free: Mono,
}

#[derive(Debug)]
enum Handed {
    Packet {
        host: Host,
        subject: Subject,
        transmit: Transmit,
    },
    Connect((Ipv4Addr, u16)),
}

/// What a packet is about.
#[derive(Clone, Copy, Debug)]
enum Subject {
    Probe(ProbeId),
    /// A step of a path.
    Frame((usize, usize)),
}

impl Pacer {
    /// Nothing to send yet; with so many real servers, each host sends as fast as the limits say.
    pub(super) fn new(limits: Limits, realservers: usize, now: Mono) -> Pacer {
        Pacer {
            limits,
            realservers,
            queues: BTreeMap::new(),
            handed: HashMap::new(),
            next_token: 1,
            unsettled: BTreeMap::new(),
            departed: HashMap::new(),
            last: now,
            last_of: HashMap::new(),
        }
    }

    /// Puts `outgoing` behind what `host` is already to do.
    pub(super) fn push(&mut self, host: Host, outgoing: Outgoing) {
        self.queues
            .entry(host)
            .or_default()
            .waiting
            .push_back(outgoing);
    }

    /// Forgets what a host that is gone was to do.
    pub(super) fn drop_host(&mut self, host: Host) {
        self.queues.remove(&host);
        self.unsettled.retain(|_, (owner, _)| *owner != host);
    }

    /// How long lies at least between two packets of `host`.
    pub(super) fn gap(&self, host: Host) -> Duration {
        let rate = self.limits.rate_of(host, self.realservers);
        Duration::from_secs(1) / rate.max(1)
    }

    /// How long lies between two packets that are about one real server, while all have their turn.
    pub(super) fn gap_of_one(&self) -> Duration {
        self.gap(Host::Realserver(0))
    }

    /// Whether `host` still has something to send.
    pub(super) fn is_busy(&self, host: Host) -> bool {
        let queue = self.queues.get(&host);
        queue.is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.waiting.is_empty())
    }

    /// When the last packet was handed out.
    pub(super) fn last(&self) -> Mono {
        self.last
    }

    /// When the last packet of a step of a path was handed out.
    pub(super) fn last_of(&self, step: (usize, usize)) -> Option<Mono> {
        self.last_of.get(&step).copied()
    }

    /// Whether packets of a step of a path wait to be sent.
    pub(super) fn awaits(&self, step: (usize, usize)) -> bool {
        let mut waiting = self.queues.values().flat_map(|queue| &queue.waiting);
        waiting.any(|outgoing| match outgoing {
            Outgoing::Probe(probe) | Outgoing::Script(probe, _) => {
                (probe.path, probe.step) == (step.0, Some(step.1))
            }
            Outgoing::Frame(of, _) => *of == step,
            Outgoing::Connect(_) | Outgoing::Forget(..) => false,
        })
    }

    /// The probes that were handed out less than `age` ago.
    pub(super) fn younger_than(&self, age: Duration, now: Mono) -> impl Iterator<Item = ProbeId> {
        self.departed
            .iter()
            .filter(move |(_, departed)| now.since(**departed) < age)
            .map(|(probe, _)| *probe)
    }

    /// When a probe was handed out.
    pub(super) fn departed(&self, probe: ProbeId) -> Option<Mono> {
        self.departed.get(&probe).copied()
    }

    /// When the next packet may go, if one waits.
    pub(super) fn due(&self) -> Option<Mono> {
        self.queues
            .values()
            .filter(|queue| !queue.waiting.is_empty())
            .map(|queue| queue.free)
            .min()
    }

    /// The next command whose time has come.
    pub(super) fn poll_command(
        &mut self,
        evidence: &mut Evidence,
        now: Mono,
    ) -> Option<(Host, Command)> {
        let waits = |queue: &Queue| !queue.waiting.is_empty() && queue.free <= now;
        let (&host, _) = self.queues.iter().find(|(_, queue)| waits(queue))?;
        let gap = self.gap(host);
        let queue = self.queues.get_mut(&host)?;
        let outgoing = queue.waiting.pop_front()?;
        // Who is woken sends what was to go in the meantime, too.
        let slack = TICK.saturating_sub(gap);
        queue.free = queue.free.max(now.before(slack)) + gap;
        self.last = now;
        let token = self.next_token;
        self.next_token += 1;
        let command = match outgoing {
            Outgoing::Probe(probe) => {
                let transmit = Transmit {
                    way: Way::Stack,
                    bytes: craft::probe(&probe, &evidence.plan().session),
                };
                self.send(host, token, (probe, transmit), evidence, now)
            }
            Outgoing::Script(probe, transmit) => {
                self.send(host, token, (probe, transmit), evidence, now)
            }
            Outgoing::Frame(step, transmit) => {
                self.last_of.insert(step, now);
                self.handed.insert(
                    token,
                    Handed::Packet {
                        host,
                        subject: Subject::Frame(step),
                        transmit: transmit.clone(),
                    },
                );
                Command::Send {
                    token,
                    transmit,
                    cleanup: None,
                }
            }
            Outgoing::Connect(to) => {
                self.handed.insert(token, Handed::Connect(to));
                Command::Connect {
                    token,
                    to,
                    timeout_ms: CONNECT_MS,
                }
            }
            Outgoing::Forget(address, device) => Command::ForgetNeighbour { address, device },
        };
        Some((host, command))
    }

    fn send(
        &mut self,
        host: Host,
        token: u32,
        (probe, transmit): (Probe, Transmit),
        evidence: &mut Evidence,
        now: Mono,
    ) -> Command {
        let cleanup = craft::cleanup(&probe, &evidence.plan().session).map(|bytes| Transmit {
            way: transmit.way.clone(),
            bytes,
        });
        if cleanup.is_some() {
            self.unsettled.insert(probe.id, (host, token));
        }
        self.departed.insert(probe.id, now);
        if let Some(step) = probe.step {
            self.last_of.insert((probe.path, step), now);
        }
        self.handed.insert(
            token,
            Handed::Packet {
                host,
                subject: Subject::Probe(probe.id),
                transmit: transmit.clone(),
            },
        );
        evidence.add_probe(probe);
        Command::Send {
            token,
            transmit,
            cleanup,
        }
    }

    /// What became of a packet.
    pub(super) fn handle_sent(
        &mut self,
        token: u32,
        outcome: SendOutcome,
        evidence: &mut Evidence,
    ) {
        let Some(Handed::Packet {
            host,
            subject,
            transmit,
        }) = self.handed.remove(&token)
        else {
            return;
        };
        let time = match &outcome {
            SendOutcome::Sent { time }
            | SendOutcome::Refused { time, .. }
            | SendOutcome::Declined { time, .. } => *time,
        };
        let is_declined = matches!(outcome, SendOutcome::Declined { .. });
        let is_refused = is_declined || matches!(outcome, SendOutcome::Refused { .. });
        if let (true, Subject::Probe(probe)) = (is_refused, subject) {
            self.unsettled.remove(&probe);
        }
        let what = What::Sent { transmit, outcome };
        match subject {
            Subject::Probe(probe) => {
                evidence.append(host, None, time, (Some(probe), None), what);
            }
            Subject::Frame((path, step)) => {
                let id = evidence.append(host, None, time, (None, Some(path)), what);
                if !is_declined {
                    evidence.course_mut(path, step).frames.push(id);
                }
            }
        }
    }

    /// What became of a connection.
    pub(super) fn handle_connected(
        &mut self,
        token: u32,
        outcome: ConnectOutcome,
        evidence: &mut Evidence,
    ) {
        let Some(Handed::Connect(to)) = self.handed.remove(&token) else {
            return;
        };
        let time = evidence
            .items()
            .last()
            .map_or(Wall::default(), |item| item.time);
        let what = What::Connect { to, outcome };
        evidence.append(Host::Client, None, time, (None, None), what);
    }

    /// Closes what `probe` opened.
    pub(super) fn settle(&mut self, probe: ProbeId) -> Option<(Host, Command)> {
        let (host, token) = self.unsettled.remove(&probe)?;
        Some((host, Command::Settle { token }))
    }

    /// Closes everything that is still open.
    pub(super) fn settle_all(&mut self) -> Vec<(Host, Command)> {
        std::mem::take(&mut self.unsettled)
            .into_values()
            .map(|(host, token)| (host, Command::Settle { token }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_do_with_many_sends_for_each_unless_a_rate_is_said() {
        let hosts = [Host::Director, Host::Client, Host::Realserver(2)];
        let usual = Limits::default();
        let said = Limits {
            rate: Some(50),
            ..usual
        };
        let of_one = Duration::from_millis(10);
        for (limits, realservers, gaps) in [
            (usual, 1, [of_one; 3]),
            (usual, 5, [of_one / 5, of_one / 5, of_one]),
            (usual, 100, [of_one / 100, of_one / 100, of_one]),
            (usual, 1000, [of_one / 100, of_one / 100, of_one]),
            (said, 5, [of_one * 2; 3]),
        ] {
            let pacer = Pacer::new(limits, realservers, Mono::default());
            assert_eq!(hosts.map(|host| pacer.gap(host)), gaps);
        }
    }
}
