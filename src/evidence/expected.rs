//! Whether what a step of a suite expects was seen: counts and conditions, no judgement.

use std::time::Duration;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::ConnectOutcome;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::matching::Arp;
use crate::matching::Sighting;
use crate::plan::Action;
use crate::plan::Condition;
use crate::plan::Expectation;
use crate::plan::Form;
use crate::plan::Host;
use crate::plan::Place;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::See;
use crate::plan::Station;
use crate::plan::Step;
use crate::plan::Task;
use crate::plan::Test;
use crate::plan::itinerary;
use crate::wire::Fields;

/// How an expectation, or all of a step's, stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It was met.
    Met,
    /// It may still be met, or violated.
    Open,
    /// It cannot be met any more.
    Violated,
}

/// Of how many packets something was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many of the step's packets a kernel took.
    pub sent: usize,
    /// Those that a kernel refused to send.
    pub refused: Vec<EvidenceId>,
    /// Those that an agent did not hand to its kernel.
    pub declined: Vec<EvidenceId>,
    /// What was seen: the first for each packet that counts.
    pub seen: Vec<EvidenceId>,
    /// That the packets were sent of which it was not seen.
    pub unseen: Vec<EvidenceId>,
    /// Of those, what was seen at that station otherwise than expected, and how.
    pub unlike: Vec<(EvidenceId, String)>,
    /// How many were handed over to be sent, and nothing is known of that yet.
    pub pending: usize,
}

impl Evidence {
    /// How many packets must be silent so that their silence may count.
    pub const SILENCE: usize = 3;

    /// How the expectations of a step stand; `is_sent` says that nothing more of it will be sent.
    pub fn standing(&self, at: (usize, usize), is_sent: bool) -> Standing {
        let Some(step) = self.plan().step(at.0, at.1) else {
            return Standing::Open;
        };
        let standing = |expected: &Expectation| {
            let tally = self.tally(at, expected);
            let seen = tally.seen.len();
            if expected
                .at_most
                .is_some_and(|most| seen > usize::from(most))
            {
                return Standing::Violated;
            }
            let finally = expected.is_limited() || expected.at_least.is_none() && !adapts(step);
            let enough = tally.sent > 0 && seen >= least(step, expected, &tally);
            let is_sent = is_sent && tally.pending == 0;
            match enough && (!finally || is_sent && !expected.is_limited()) {
                true => Standing::Met,
                false => Standing::Open,
            }
        };
        step.expect
            .iter()
            .map(standing)
            .max()
            .unwrap_or(Standing::Met)
    }

    /// The same when nothing more is waited for: what was not violated by then is met, if enough was seen.
    pub fn standing_at_end(&self, at: (usize, usize)) -> Standing {
        let Some(step) = self.plan().step(at.0, at.1) else {
            return Standing::Open;
        };
        let standing = |expected: &Expectation| {
            let tally = self.tally(at, expected);
            let seen = tally.seen.len();
            let few = expected
                .at_most
                .is_none_or(|most| seen <= usize::from(most));
            match tally.sent > 0 && few && seen >= least(step, expected, &tally) {
                true => Standing::Met,
                false => Standing::Violated,
            }
        };
        step.expect
            .iter()
            .map(standing)
            .max()
            .unwrap_or(Standing::Met)
    }

    /// Of how many of a step's packets something was seen.
    pub fn tally(&self, (path, step): (usize, usize), expected: &Expectation) -> Tally {
        let mut tally = Tally::default();
        for probe in self.probes_of(path, step) {
            let unsent = tally.refused.len() + tally.declined.len();
            let Some((sent, transmit)) = self.departure(probe.id, &mut tally) else {
                let is_known = tally.refused.len() + tally.declined.len() > unsent;
                tally.pending += usize::from(!is_known);
                continue;
            };
            tally.sent += 1;
            let there = self.sightings(probe.id).filter(|(item, sighting)| {
                is_at(item, expected, path) && is_form(probe, item, sighting, expected)
            });
            let mut unlike = None;
            let seen = there.into_iter().find(|(item, sighting)| {
                let how = unlikeness((sent, transmit), (item, sighting), expected);
                let is_like = how.is_none();
                unlike = unlike.take().or(how.map(|how| (item.id, how)));
                is_like
            });
            match seen {
                Some((item, _)) => tally.seen.push(item.id),
                None => {
                    tally.unseen.push(sent.id);
                    let is_station = matches!(expected.at, Place::Station(_));
                    tally.unlike.extend(unlike.filter(|_| is_station));
                }
            }
        }
        for request in self.requests((path, step)) {
            tally.sent += 1;
            match self.reply(request, path, expected) {
                Some(reply) => tally.seen.push(reply),
                None => tally.unseen.push(request.id),
            }
        }
        tally
    }

    /// How many packets something must be seen of.
    pub fn least(&self, (path, step): (usize, usize), expected: &Expectation) -> usize {
        let tally = self.tally((path, step), expected);
        let step = self.plan().step(path, step);
        step.map_or(0, |step| least(step, expected, &tally))
    }

    /// Whether what a step did went all the way, as far as taps can see.
    pub fn went_all_the_way(&self, (path, step): (usize, usize)) -> bool {
        let task = match self.plan().step(path, step).map(|step| &step.action) {
            Some(Action::Builtin(builtin)) => builtin.task,
            _ => return true,
        };
        match task {
            Task::Probe(kind) => {
                let goal = self.goal(kind, path);
                let mut probes = self.probes_of(path, step);
                goal.is_some_and(|goal| {
                    probes.any(|probe| self.passage(probe).furthest() >= Some(goal))
                })
            }
            Task::ResolveGateway | Task::WhoHasGateway | Task::WhoHasGatewayTellVip => {
                let any = Expectation::answered();
                let requests = self.requests((path, step));
                let mut replies = requests.map(|request| self.reply(request, path, &any));
                replies.any(|reply| reply.is_some())
            }
            Task::Connect => self.items().iter().any(|item| {
                matches!(
                    item.what,
                    What::Connect {
                        outcome: ConnectOutcome::Connected { .. },
                        ..
                    }
                )
            }),
            Task::MoreFlows => {
                let goal = self.goal(ProbeKind::SpoofSynack, path);
                let mut probes = self.probes_of(path, step);
                goal.is_some_and(|goal| {
                    probes.all(|probe| self.passage(probe).furthest() >= Some(goal))
                })
            }
            _ => true,
        }
    }

    /// The last waypoint of a kind's itinerary at which a tap is open.
    pub fn goal(&self, kind: ProbeKind, path: usize) -> Option<usize> {
        itinerary(kind, self.plan().paths[path].protocol)
            .iter()
            .rposition(|waypoint| {
                self.host(Host::of(waypoint.station, path))
                    .is_some_and(|record| record.lost.is_none() && record.tap_open)
            })
    }

    /// That a probe was sent, and what; what was refused is noted.
    fn departure(&self, probe: ProbeId, tally: &mut Tally) -> Option<(&Item, &Transmit)> {
        self.about(probe).find_map(|item| match &item.what {
            What::Sent {
                transmit,
                outcome: SendOutcome::Sent { .. },
            } => Some((item, transmit)),
            What::Sent {
                outcome: SendOutcome::Declined { .. },
                ..
            } => {
                tally.declined.push(item.id);
                None
            }
            What::Sent { .. } => {
                tally.refused.push(item.id);
                None
            }
            _ => None,
        })
    }

    /// The ARP requests of a step: our own, or the kernel's for the next hop.
    fn requests(&self, (path, step): (usize, usize)) -> impl Iterator<Item = &Item> {
        let action = self.plan().step(path, step).map(|step| &step.action);
        let resolves = matches!(action, Some(Action::Builtin(builtin)) if builtin.task == Task::ResolveGateway);
        let arps = resolves.then(|| self.arps(Host::Realserver(path)));
        let kernels = arps.into_iter().flatten().filter(move |(_, arp)| {
            arp.operation == Arp::REQUEST
                && !arp.is_ours()
                && Some(arp.target) == self.asked_gateway(path)
        });
        let frames = self.course(path, step).map(|course| &course.frames[..]);
        let own = frames.unwrap_or_default().iter();
        let own = own.filter_map(|id| self.item(*id));
        own.chain(kernels.map(|(item, _)| item))
    }

    /// The first answer to an ARP request, seen on the host that asked, that meets the expectation.
    fn reply(&self, request: &Item, path: usize, expected: &Expectation) -> Option<EvidenceId> {
        let (question, sent) = match &request.what {
            What::Sent { transmit, .. } => {
                (Arp::read(transmit.bytes.get(FRAME..)?)?, Some(transmit))
            }
            What::Arp { arp, .. } => (*arp, None),
            _ => return None,
        };
        let replies = self.arps(request.host).filter(|(item, arp)| {
            arp.operation == Arp::REPLY
                && item.time.as_nanos() + SENDING >= request.time.as_nanos()
                && (arp.sender, arp.target) == (question.target, question.sender)
        });
        let mut met = replies.map(|(item, _)| item).filter(|item| {
            expected.see == See::Reply
                && expected.from.is_none_or(|from| from == question.target)
                && is_at(item, expected, path)
                && in_time(item, request, expected.within)
                && self.holds(item, sent, expected)
        });
        met.next().map(|item| item.id)
    }

    /// Whether every condition holds of a packet, against what was sent.
    fn holds(&self, item: &Item, sent: Option<&Transmit>, expected: &Expectation) -> bool {
        let (What::Seen { capture, .. } | What::Arp { capture, .. }) = &item.what else {
            return false;
        };
        let is_met = |condition: &Condition| meets(capture, sent, condition);
        expected.fields.iter().all(is_met)
    }
}

/// In what a packet that was seen there is not as expected.
fn unlikeness(
    (sent, transmit): (&Item, &Transmit),
    (item, sighting): (&Item, &Sighting),
    expected: &Expectation,
) -> Option<String> {
    if expected.from.is_some_and(|from| sighting.source != from) {
        return Some(format!("from {}", sighting.source));
    }
    let What::Seen { capture, .. } = &item.what else {
        return Some("unread".to_owned());
    };
    let mut fields = expected.fields.iter();
    if let Some(condition) = fields.find(|condition| !meets(capture, Some(transmit), condition)) {
        let (layer, number) = counted(&condition.layer);
        let fields = Fields::of(&capture.bytes, capture.protocol);
        let name = format!("{}.{}", condition.layer, condition.field);
        return Some(match fields.value(layer, number, &condition.field) {
            Some(value) => format!("with {name} {}", condition.shown(value)),
            None => format!("without {name}"),
        });
    }
    let after = item.time.distance(sent.time).as_millis();
    (!in_time(item, sent, expected.within)).then(|| format!("after {after} ms"))
}

/// A neighbour on the same machine answers before the kernel says that it has sent, in nanoseconds.
const SENDING: u64 = 50_000_000;

/// Octets of an Ethernet header.
const FRAME: usize = 14;

/// Whether how many packets a step sends depends on what is answered.
fn adapts(step: &Step) -> bool {
    match &step.action {
        Action::Builtin(builtin) => builtin.count.is_none(),
        Action::Script(_) | Action::Ask(_) => false,
    }
}

/// How many packets something must be seen of: all, unless it is said; one, where it depends on the answers how
/// many are sent.
fn least(step: &Step, expected: &Expectation, tally: &Tally) -> usize {
    match expected.at_least {
        Some(least) => usize::from(least),
        None if adapts(step) => 1,
        None => tally.sent + tally.refused.len() + tally.declined.len(),
    }
}

fn is_at(item: &Item, expected: &Expectation, path: usize) -> bool {
    match expected.at {
        Place::Station(station) => {
            item.station == Some(station) && item.host == Host::of(station, path)
        }
        Place::Host(role) => item.host == role.host(path),
    }
}

/// Whether a packet came soon enough, where the same host sent and saw it: other hosts' clocks are others.
fn in_time(item: &Item, sent: &Item, within: Duration) -> bool {
    item.host != sent.host || item.time.distance(sent.time) <= within
}

/// Whether a sighting is what an expectation asks to see.
fn is_form(probe: &Probe, item: &Item, sighting: &Sighting, expected: &Expectation) -> bool {
    let built_in = probe.id.kind != ProbeKind::Script;
    let own = match (built_in, probe.tunnel.is_some()) {
        (true, true) => Form::Tunnelled,
        _ => Form::Plain,
    };
    let itself = matches!(
        sighting.form,
        Form::Plain | Form::Tunnelled | Form::Decapsulated
    );
    match expected.see {
        See::Probe => sighting.form == own,
        See::Tunnelled => itself && sighting.outer.is_some(),
        // What a director tunnels that was sent plain comes out of the tunnel as it was.
        See::Decapsulated => match sighting.form {
            Form::Decapsulated => true,
            Form::Plain => {
                let comes_out = item.station == Some(Station::RealserverTunnel);
                sighting.outer.is_none() && (own == Form::Tunnelled || comes_out)
            }
            _ => false,
        },
        See::SynAck => sighting.form == Form::SynAck,
        See::Rst => sighting.form == Form::Rst,
        See::Refused => sighting.form == Form::Refused,
        See::Reply => sighting.form == Form::Reply,
        See::IcmpError { icmp_type, code } => match sighting.form {
            Form::IcmpError {
                icmp_type: seen,
                code: with,
                ..
            } => {
                icmp_type.is_none_or(|asked| asked == seen)
                    && code.is_none_or(|asked| asked == with)
            }
            _ => false,
        },
    }
}

/// Whether a field of a packet is as it must be.
fn meets(capture: &Capture, sent: Option<&Transmit>, condition: &Condition) -> bool {
    let fields = Fields::of(&capture.bytes, capture.protocol);
    let (layer, number) = counted(&condition.layer);
    let Some(value) = fields.value(layer, number, &condition.field) else {
        return false;
    };
    let then = sent.map(|sent| match sent.way {
        Way::Stack => Fields::of(&sent.bytes, Capture::IPV4),
        Way::Frame { .. } => Fields::of_frame(&sent.bytes),
    });
    let before = || {
        let then = then.as_ref()?;
        // Headers come and go on the outside.
        let number = (number + then.count(layer)).checked_sub(fields.count(layer))?;
        then.value(layer, number, &condition.field)
    };
    match &condition.test {
        Test::Equals(expected) => value == *expected,
        Test::Between(least, most) => (least..=most).contains(&&value),
        Test::Unchanged => before() == Some(value),
        Test::DecrementedBy(by) => {
            before().and_then(|before| before.checked_sub(value)) == Some(*by)
        }
        Test::Sent { layer, field } => {
            let (layer, number) = counted(layer);
            let other = then.and_then(|then| then.value(layer, number, field));
            other == Some(value)
        }
    }
}

/// A layer's name, and which of them it is, from outside.
fn counted(layer: &str) -> (&str, usize) {
    match layer.split_once('.') {
        Some((layer, number)) => (layer, number.parse().unwrap_or(usize::MAX)),
        None => (layer, 0),
    }
}
