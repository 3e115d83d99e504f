//! What all results of a sweep come to.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::SCHEMA;
use crate::evidence::FleetHeard;
use crate::evidence::NoAnswer;
use crate::evidence::Swept;
use crate::matching::About;
use crate::matching::FleetAnswer;
use crate::matching::FleetError;
use crate::matching::Whom;
use crate::plan::Fleet;
use crate::plan::Pair;
use crate::report::wording::icmp_error;
use crate::verdict::Outcome;
use crate::verdict::PairJudgement;

/// How many kinds of answers are kept apart, how many pairs of each are named, and how many real servers.
const MOST_GROUPS: usize = 256;
const MOST_EXAMPLES: usize = 3;
const MOST_REALSERVERS: usize = 20;

/// What all results of a sweep come to, in memory that their number does not make larger.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FleetSummary {
    proven: u64,
    broken: u64,
    unproven: u64,
    unheard: u64,
    groups: Vec<Group>,
    /// Pairs that are in none of the groups, which are full.
    others: u64,
    vague: Vec<Vague>,
    vague_others: u64,
    fastest: Option<Duration>,
    slowest: Duration,
    sum: Duration,
    measured: u64,
}

/// Pairs that are not proven for the same reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Group {
    is_broken: bool,
    what: String,
    pairs: u64,
    examples: Vec<String>,
}

/// Errors about nobody knows which pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Vague {
    what: String,
    errors: u64,
    example: Ipv4Addr,
}

/// What a summary says beside what it counted itself.
#[derive(Clone, Debug)]
pub struct FleetEnd {
    /// Whether the sweep was stopped before its end.
    pub is_partial: bool,
    /// Pairs that it did not decide.
    pub undecided: u32,
    /// Probes sent.
    pub probes: u64,
    /// RSTs sent that close what probes opened.
    pub closings: u64,
    /// Errors heard.
    pub errors: u64,
    /// Answers that came again.
    pub repeated: u64,
    /// Answers that came when the pair was decided.
    pub late: u64,
    /// Packets that the kernel dropped.
    pub lost: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl FleetSummary {
    /// Adds a pair.
    pub fn add(&mut self, swept: &Swept, judgement: &PairJudgement) {
        match judgement.outcome {
            Outcome::Proven => self.proven += 1,
            Outcome::Broken => self.broken += 1,
            Outcome::Unproven => self.unproven += 1,
        }
        self.unheard += u64::from(swept.heard == FleetHeard::Unheard);
        if let Some(time) = swept.round_trip {
            self.fastest = Some(self.fastest.map_or(time, |fastest| fastest.min(time)));
            self.slowest = self.slowest.max(time);
            self.sum += time;
            self.measured += 1;
        }
        if judgement.outcome == Outcome::Proven {
            return;
        }
        let what = what(swept, judgement);
        let is_broken = judgement.outcome == Outcome::Broken;
        let known = self.groups.iter().position(|group| group.what == what);
        let at = match known {
            Some(at) => at,
            None if self.groups.len() < MOST_GROUPS => {
                self.groups.push(Group {
                    is_broken,
                    what,
                    pairs: 0,
                    examples: Vec::new(),
                });
                self.groups.len() - 1
            }
            None => {
                self.others += 1;
                return;
            }
        };
        let group = &mut self.groups[at];
        group.pairs += 1;
        if group.examples.len() < MOST_EXAMPLES {
            let Pair { rip, service, .. } = swept.pair;
            let protocol = service.protocol.name();
            group
                .examples
                .push(format!("{rip} {}:{}/{protocol}", service.vip, service.port));
        }
    }

    /// Adds an error about one of a real server's pairs.
    pub fn add_vague(&mut self, rip: Ipv4Addr, error: &FleetError) {
        let from = match error.from {
            Whom::Vip => "the VIP".to_owned(),
            Whom::RealServer => "the real server".to_owned(),
            Whom::Other(address) => address.to_string(),
        };
        let what = format!("{} from {from}", icmp_error(error.icmp_type, error.code));
        if let Some(known) = self.vague.iter_mut().find(|vague| vague.what == what) {
            known.errors += 1;
        } else if self.vague.len() < MOST_GROUPS {
            self.vague.push(Vague {
                what,
                errors: 1,
                example: rip,
            });
        } else {
            self.vague_others += 1;
        }
    }

    /// What the sweep says in all: broken if a pair is, proven if all `pairs` are.
    pub fn outcome(&self, pairs: u32) -> Outcome {
        match (self.broken, self.proven == u64::from(pairs)) {
            (1.., _) => Outcome::Broken,
            (0, true) => Outcome::Proven,
            (0, false) => Outcome::Unproven,
        }
    }

    /// The last line of JSON.
    pub fn to_json(&self, fleet: &Fleet, end: &FleetEnd, servers: &Realservers) -> String {
        let vague: u64 = self.vague.iter().map(|vague| vague.errors).sum();
        let times = self.fastest.map(|fastest| {
            json!({
                "min": fastest.as_micros() as u64,
                "mean": self.mean().as_micros() as u64,
                "max": self.slowest.as_micros() as u64,
            })
        });
        let line: Value = json!({
            "type": "summary",
            "schema": SCHEMA,
            "partial": end.is_partial,
            "pairs": fleet.pairs(),
            "proven": self.proven,
            "broken": self.broken,
            "unproven": self.unproven,
            "unheard": self.unheard,
            "undecided": end.undecided,
            "realservers": { "all": servers.all, "some": servers.some, "none": servers.none },
            "sent": end.probes,
            "closed": end.closings,
            "errors": end.errors,
            "repeated": end.repeated,
            "late": end.late,
            "lost": end.lost,
            "vague": vague + self.vague_others,
            "rtt_us": times,
            "elapsed_ms": end.elapsed.as_millis() as u64,
        });
        format!("{line}\n")
    }

    /// The summary for people.
    pub fn to_text(&self, fleet: &Fleet, end: &FleetEnd, servers: &Realservers) -> String {
        let mut text = String::new();
        // What is written to a `String` is written.
        let _ = self.write(&mut text, fleet, end, servers);
        text
    }

    fn write(
        &self,
        text: &mut String,
        fleet: &Fleet,
        end: &FleetEnd,
        servers: &Realservers,
    ) -> std::fmt::Result {
        let pairs = fleet.pairs();
        if end.is_partial {
            writeln!(
                text,
                "partial: stopped before its end; {} of {pairs} pairs are not decided\n",
                end.undecided
            )?;
        }
        let share = |count: u64| count as f64 * 100.0 / f64::from(pairs.max(1));
        let client = match fleet.cip() {
            Some(_) => "",
            None => "; not that answers reach clients",
        };
        let silent = self.unproven - self.unheard;
        let rows = [
            (
                "proven",
                self.proven,
                format!("answered through the tunnel{client}"),
            ),
            (
                "broken",
                self.broken,
                "refused, and by no later try mended".to_owned(),
            ),
            (
                "unproven",
                silent,
                "no answer, or not of all that was asked".to_owned(),
            ),
            (
                "unheard",
                self.unheard,
                "no answer seen, but packets were lost here, or nobody listened".to_owned(),
            ),
            (
                "undecided",
                end.undecided.into(),
                "not asked to the end".to_owned(),
            ),
        ];
        for (name, count, meaning) in rows.iter().filter(|(_, count, _)| *count > 0) {
            writeln!(
                text,
                "{name:>10} {count:>9} {:>6.2} %  {meaning}",
                share(*count)
            )?;
        }
        writeln!(
            text,
            "{:>10} {pairs:>9}           pairs of a real server and a service\n",
            "in all"
        )?;
        for (is_broken, title) in [(true, "broken, by what came back"), (false, "unproven")] {
            let mut groups: Vec<_> = self
                .groups
                .iter()
                .filter(|group| group.is_broken == is_broken)
                .collect();
            if groups.is_empty() {
                continue;
            }
            groups.sort_by_key(|group| Reverse(group.pairs));
            writeln!(text, "{title}:")?;
            for group in groups {
                writeln!(text, "{:>10}  {}", group.pairs, group.what)?;
                let more = group.pairs > group.examples.len() as u64;
                let more = if more { ", …" } else { "" };
                writeln!(text, "            {}{more}", group.examples.join(", "))?;
            }
            text.push('\n');
        }
        if self.others > 0 {
            writeln!(text, "{} pairs for yet other reasons\n", self.others)?;
        }
        for Vague {
            what,
            errors,
            example,
        } in &self.vague
        {
            writeln!(
                text,
                "{errors} of {what}, about a pair of {example} or others: too little was quoted to say which"
            )?;
        }
        if self.vague_others > 0 {
            writeln!(
                text,
                "{} errors more that did not say about which pair",
                self.vague_others
            )?;
        }
        writeln!(
            text,
            "real servers: {} proven for all services, {} for some, {} for none",
            servers.all, servers.some, servers.none
        )?;
        for (rip, proven, all) in &servers.worst {
            writeln!(text, "{rip:>17}  {proven} of {all} services proven")?;
        }
        let listed = servers.worst.len() as u64;
        if servers.some + servers.none > listed {
            writeln!(
                text,
                "{:>17}  (and {} more)",
                "…",
                servers.some + servers.none - listed
            )?;
        }
        if let Some(fastest) = self.fastest {
            let times = [fastest, self.mean(), self.slowest]
                .map(|time| format!("{:.3}", time.as_secs_f64() * 1e3));
            writeln!(
                text,
                "round trips: {} ms (shortest/mean/longest)",
                times.join("/")
            )?;
        }
        for (count, what) in [
            (
                end.repeated,
                "answers came more than once, and are counted once",
            ),
            (end.late, "answers came after their pair was decided"),
            (
                end.lost,
                "packets were lost by this host before they were read: silences since then do not count",
            ),
        ] {
            if count > 0 {
                writeln!(text, "{count} {what}")?;
            }
        }
        writeln!(
            text,
            "{} probes and {} RSTs sent in {:.1} s",
            end.probes,
            end.closings,
            end.elapsed.as_secs_f64()
        )
    }

    fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.sum.as_secs_f64() / self.measured.max(1) as f64)
    }
}

/// Why a pair is not proven.
fn what(swept: &Swept, judgement: &PairJudgement) -> String {
    let hop = judgement
        .broken
        .map(|hop| format!(" ({})", hop.id()))
        .unwrap_or_default();
    let from = |error: &FleetError| match error.from {
        Whom::Vip => "the VIP".to_owned(),
        Whom::RealServer => "the real server".to_owned(),
        Whom::Other(address) => address.to_string(),
    };
    let what = match swept.heard {
        FleetHeard::Silence => {
            let what = match swept.closed_loop {
                None => "no answer",
                Some(NoAnswer::Silent) => "no answer, neither by the client nor to the director",
                Some(NoAnswer::Unheard) => {
                    "no answer to the director; the client's may have been lost here"
                }
            };
            return what.to_owned();
        }
        FleetHeard::Unheard => return "no answer seen, but some may have been lost here".to_owned(),
        FleetHeard::NotSent(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            format!("not sent by this host: {error}")
        }
        FleetHeard::Answered(_, answer) => match answer {
            FleetAnswer::Reset => {
                "RST from the VIP: nothing listens there, or a firewall says so".to_owned()
            }
            FleetAnswer::CameBack => {
                "came out of the tunnel and back to the director: the real server forwards what is for the VIP"
                    .to_owned()
            }
            FleetAnswer::Error(error) => {
                let name = icmp_error(error.icmp_type, error.code);
                let about = match error.about {
                    About::Tunnel => "the tunnelled packet",
                    About::Inner => "what came out of the tunnel",
                    About::Return => "the service's answer",
                };
                format!("{name} from {}, about {about}", from(&error))
            }
            FleetAnswer::SynAck | FleetAnswer::PortUnreachable | FleetAnswer::ClientReset => {
                let what = match swept.closed_loop {
                    Some(NoAnswer::Unheard) => {
                        "the service answers the director; the client's answers may have been lost here"
                    }
                    _ => {
                        "the service answers the director, but the closed loop stays silent: the way to the client, \
                         the client, or its way back"
                    }
                };
                what.to_owned()
            }
        },
    };
    what + &hop
}

/// How many real servers are proven for how many of their services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Realservers {
    all: u64,
    some: u64,
    none: u64,
    /// Address, services proven, services asked; the worst first.
    worst: Vec<(Ipv4Addr, u32, u32)>,
}

impl Realservers {
    /// Counts them; one that is in two groups of the fleet is counted in each.
    pub fn count(fleet: &Fleet, is_proven: impl Fn(u32) -> bool) -> Realservers {
        let mut servers = Realservers::default();
        // The best of the worst is on top, and the first to go.
        let mut worst = BinaryHeap::new();
        for group in fleet.groups() {
            let services = group.services().len() as u32;
            for index in 0..group.realservers() {
                let numbers = (0..services).map(|service| group.number(service, index));
                let proven = numbers.filter(|number| is_proven(*number)).count() as u32;
                match proven {
                    _ if proven == services => servers.all += 1,
                    0 => servers.none += 1,
                    _ => servers.some += 1,
                }
                if proven < services {
                    let missing = Reverse(services - proven);
                    worst.push((missing, group.realserver(index), services));
                    if worst.len() > MOST_REALSERVERS {
                        worst.pop();
                    }
                }
            }
        }
        let sorted = worst.into_sorted_vec();
        let entry = |(Reverse(missing), rip, services): (Reverse<u32>, _, u32)| {
            (rip, services - missing, services)
        };
        servers.worst = sorted.into_iter().map(entry).collect();
        servers
    }
}
