//! A sweep's results: a line for each pair as it is decided (`json`, `csv`), and the summary of all.
//!
//! JSON lines, schema `tunproof.sweep/1`. Each has `type`:
//!
//! - `pair`: `realserver`, `vip`, `port`, `protocol`; `verdict` (`proven`, `broken`, `unproven`); `answer` (`client-rst`,
//!   `syn-ack`, `rst`, `port-unreachable`, `icmp-error`, `came-back` (the probe itself, which the real server forwarded),
//!   `not-sent`, `none`, or `unheard`, where answers may have been lost), `from`, `icmp` (null, or `type`, `code`, `about`: `tunnel`, `inner`, `return`), `errno` (null, or why the
//!   host itself did not send); `proven` (hops) and `broken` (a hop or null); `probe` (the one that was answered, or
//!   null), `loop` (null, or of a closed loop that was asked before in vain `silent`, or `unheard` as above), `tries`,
//!   `rtt_us` (or null).
//! - `summary`, the last line: `schema`, `partial`, `pairs`, `proven`, `broken`, `unproven` (a `none` and the `unheard`
//!   among them), `undecided` (of a partial sweep), `realservers` (`all`, `some`, `none` proven), `sent`, `closed`,
//!   `errors`, `repeated`, `late`, `lost`, `vague` (errors that did not say about which pair), `rtt_us` (`min`, `mean`,
//!   `max`, or null), `elapsed_ms`.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::evidence::FleetHeard;
use crate::evidence::NoAnswer;
use crate::evidence::Swept;
use crate::matching::About;
use crate::matching::FleetAnswer;
use crate::matching::Whom;
use crate::plan::Hop;
use crate::plan::Pair;
use crate::plan::Service;
use crate::verdict::Outcome;
use crate::verdict::PairJudgement;

mod summary;

pub use summary::FleetEnd;
pub use summary::FleetSummary;
pub use summary::Realservers;

/// The schema of the JSON lines.
const SCHEMA: &str = "tunproof.sweep/1";

/// The first line of the CSV format.
pub const FLEET_CSV_HEAD: &str = "realserver,vip,port,protocol,verdict,answer,from,icmp_type,icmp_code,about,errno,broken,probe,loop,tries,rtt_us\n";

/// A pair's line of JSON.
pub fn fleet_json(swept: &Swept, judgement: &PairJudgement) -> String {
    let words = Words::of(swept);
    let Pair { rip, service, .. } = swept.pair;
    let line = Line {
        r#type: "pair",
        realserver: rip,
        vip: service.vip,
        port: service.port,
        protocol: service.protocol.name(),
        verdict: verdict(judgement.outcome),
        answer: words.answer,
        from: words.from,
        icmp: words.icmp.map(|(r#type, code, about)| Icmp {
            r#type,
            code,
            about,
        }),
        errno: words.errno,
        proven: judgement.proven,
        broken: judgement.broken,
        probe: words.probe,
        r#loop: words.r#loop,
        tries: swept.tries,
        rtt_us: swept.round_trip.map(|time| time.as_micros() as u64),
    };
    let mut text = serde_json::to_string(&line).expect("keys are strings");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Line {
    r#type: &'static str,
    realserver: Ipv4Addr,
    vip: Ipv4Addr,
    port: u16,
    protocol: &'static str,
    verdict: &'static str,
    answer: &'static str,
    from: Option<Ipv4Addr>,
    icmp: Option<Icmp>,
    errno: Option<i32>,
    proven: &'static [Hop],
    broken: Option<Hop>,
    probe: Option<&'static str>,
    r#loop: Option<&'static str>,
    tries: u8,
    rtt_us: Option<u64>,
}

#[derive(Serialize)]
struct Icmp {
    r#type: u8,
    code: u8,
    about: &'static str,
}

/// Lines of CSV; see [`FLEET_CSV_HEAD`]. What is null in JSON is empty.
///
/// Most lines are the one before but for the real server and the round trip: what is between them is copied from there.
/// A line by `format!`, or even field by field, takes longer than all else that a pair takes in user space
/// (benches/README.md).
#[derive(Debug, Default)]
pub struct FleetCsv {
    of: Option<Between>,
    between: String,
}

/// All that a line tells between the real server and the round trip.
#[derive(Debug, PartialEq)]
struct Between {
    service: Service,
    heard: FleetHeard,
    /// An error's sender may be the real server.
    from: Option<Ipv4Addr>,
    closed_loop: Option<NoAnswer>,
    tries: u8,
    outcome: Outcome,
    broken: Option<Hop>,
}

impl FleetCsv {
    /// Appends a pair's line.
    pub fn line(&mut self, swept: &Swept, judgement: &PairJudgement, text: &mut String) {
        let words = Words::of(swept);
        let of = Between {
            service: swept.pair.service,
            heard: swept.heard,
            from: words.from,
            closed_loop: swept.closed_loop,
            tries: swept.tries,
            outcome: judgement.outcome,
            broken: judgement.broken,
        };
        if self.of.as_ref() != Some(&of) {
            self.between.clear();
            between(&of, &words, &mut self.between);
            self.of = Some(of);
        }
        Fields(text).address(Some(swept.pair.rip));
        text.push_str(&self.between);
        Fields(text).number(swept.round_trip.map(|time| time.as_micros() as u64));
        text.pop();
        text.push('\n');
    }
}

fn between(of: &Between, words: &Words, text: &mut String) {
    let (service, icmp) = (of.service, words.icmp);
    let mut line = Fields(text);
    line.address(Some(service.vip));
    line.number(Some(service.port));
    line.word(service.protocol.name());
    line.word(verdict(of.outcome));
    line.word(words.answer);
    line.address(words.from);
    line.number(icmp.map(|(icmp_type, ..)| icmp_type));
    line.number(icmp.map(|(_, code, _)| code));
    line.word(icmp.map_or("", |(.., about)| about));
    line.number(words.errno);
    line.word(of.broken.map_or("", Hop::id));
    line.word(words.probe.unwrap_or_default());
    line.word(words.r#loop.unwrap_or_default());
    line.number(Some(of.tries));
}

/// The fields of a line, a comma behind each.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn word(&mut self, word: &str) {
        self.0.push_str(word);
        self.0.push(',');
    }

    fn number(&mut self, number: Option<impl itoa::Integer>) {
        if let Some(number) = number {
            self.0.push_str(itoa::Buffer::new().format(number));
        }
        self.0.push(',');
    }

    fn address(&mut self, address: Option<Ipv4Addr>) {
        for octet in address.iter().flat_map(Ipv4Addr::octets) {
            self.0.push_str(itoa::Buffer::new().format(octet));
            self.0.push('.');
        }
        if address.is_some() {
            self.0.pop();
        }
        self.0.push(',');
    }
}

fn verdict(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Proven => "proven",
        Outcome::Broken => "broken",
        Outcome::Unproven => "unproven",
    }
}

/// What an answer is called.
struct Words {
    answer: &'static str,
    from: Option<Ipv4Addr>,
    icmp: Option<(u8, u8, &'static str)>,
    errno: Option<i32>,
    probe: Option<&'static str>,
    r#loop: Option<&'static str>,
}

impl Words {
    fn of(swept: &Swept) -> Words {
        let nothing = |answer| Words {
            answer,
            from: None,
            icmp: None,
            errno: None,
            probe: None,
            r#loop: swept.closed_loop.map(|no_answer| match no_answer {
                NoAnswer::Silent => "silent",
                NoAnswer::Unheard => "unheard",
            }),
        };
        let vip = Some(swept.pair.service.vip);
        match swept.heard {
            FleetHeard::Silence => nothing("none"),
            FleetHeard::Unheard => nothing("unheard"),
            FleetHeard::NotSent(errno) => Words {
                errno: Some(errno),
                ..nothing("not-sent")
            },
            FleetHeard::Answered(probe, answer) => {
                let (answer, from, icmp) = match answer {
                    FleetAnswer::SynAck => ("syn-ack", vip, None),
                    FleetAnswer::Reset => ("rst", vip, None),
                    FleetAnswer::PortUnreachable => {
                        ("port-unreachable", vip, Some((3, 3, "inner")))
                    }
                    FleetAnswer::ClientReset => ("client-rst", None, None),
                    FleetAnswer::CameBack => ("came-back", None, None),
                    FleetAnswer::Error(error) => {
                        let from = match error.from {
                            Whom::Vip => swept.pair.service.vip,
                            Whom::RealServer => swept.pair.rip,
                            Whom::Other(address) => address,
                        };
                        let about = match error.about {
                            About::Tunnel => "tunnel",
                            About::Inner => "inner",
                            About::Return => "return",
                        };
                        (
                            "icmp-error",
                            Some(from),
                            Some((error.icmp_type, error.code, about)),
                        )
                    }
                };
                Words {
                    from,
                    icmp,
                    probe: Some(probe.kind().id()),
                    ..nothing(answer)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::matching::FleetError;
    use crate::plan::Fleet;
    use crate::plan::FleetProbe;
    use crate::plan::Protocol;
    use crate::plan::Range;
    use crate::verdict::judge_pair;

    /// A pair's line as users read it: every field is there, and no other.
    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        r#type: String,
        realserver: Ipv4Addr,
        vip: Ipv4Addr,
        port: u16,
        protocol: String,
        verdict: String,
        answer: String,
        from: Option<Ipv4Addr>,
        icmp: Option<ReadIcmp>,
        errno: Option<i32>,
        proven: Vec<String>,
        broken: Option<String>,
        probe: Option<String>,
        r#loop: Option<String>,
        tries: u8,
        rtt_us: Option<u64>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ReadIcmp {
        r#type: u8,
        code: u8,
        about: String,
    }

    fn swept(heard: FleetHeard, closed_loop: Option<NoAnswer>) -> Swept {
        let range = Range {
            first: [203, 0, 113, 5].into(),
            last: [203, 0, 113, 6].into(),
        };
        let service = Service {
            vip: [192, 0, 2, 10].into(),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let groups = vec![(vec![service], vec![range])];
        let fleet = Fleet::new([192, 0, 2, 2].into(), None, groups).unwrap();
        Swept {
            pair: fleet.pair(1).unwrap(),
            heard,
            closed_loop,
            tries: 2,
            round_trip: Some(Duration::from_micros(1234)),
        }
    }

    #[test]
    fn no_line_has_anything_of_the_one_before() {
        let error = |from| {
            let (icmp_type, code, about) = (3, 1, About::Tunnel);
            FleetHeard::Answered(
                FleetProbe::ClosedLoop,
                FleetAnswer::Error(FleetError {
                    icmp_type,
                    code,
                    about,
                    from,
                }),
            )
        };
        let of = |heard| swept(heard, None);
        let first = of(error(Whom::RealServer));
        let but = |change: &dyn Fn(&mut Swept)| {
            let mut other = first;
            change(&mut other);
            other
        };
        let all = [
            first,
            but(&|other| other.pair.rip = [203, 0, 113, 5].into()),
            but(&|other| other.pair.service.vip = [192, 0, 2, 11].into()),
            but(&|other| other.pair.service.port = 443),
            but(&|other| other.pair.service.protocol = Protocol::Udp),
            but(&|other| other.closed_loop = Some(NoAnswer::Silent)),
            but(&|other| other.closed_loop = Some(NoAnswer::Unheard)),
            but(&|other| other.tries = 3),
            but(&|other| other.round_trip = None),
            of(error(Whom::Vip)),
            of(error(Whom::Other([10, 0, 0, 1].into()))),
            of(FleetHeard::NotSent(101)),
            of(FleetHeard::NotSent(113)),
            of(FleetHeard::Silence),
        ];
        let line = |csv: &mut FleetCsv, swept| {
            let mut text = String::new();
            csv.line(swept, &judge_pair(swept), &mut text);
            text
        };
        for before in &all {
            for swept in &all {
                let mut csv = FleetCsv::default();
                line(&mut csv, before);
                assert_eq!(
                    line(&mut csv, swept),
                    line(&mut FleetCsv::default(), swept),
                    "after {before:?}"
                );
            }
        }
        // A judgement, too.
        let mut csv = FleetCsv::default();
        line(&mut csv, &first);
        let mut text = String::new();
        csv.line(&first, &judge_pair(&all[13]), &mut text);
        assert!(text.contains(",unproven,icmp-error,"), "{text}");
    }

    #[test]
    fn json_and_csv_say_the_same_in_fields_that_stay() {
        let error = |icmp_type, code, about, from| {
            let from = Whom::Other(Ipv4Addr::from(from));
            let error = FleetError {
                icmp_type,
                code,
                about,
                from,
            };
            FleetHeard::Answered(FleetProbe::ReflectSyn, FleetAnswer::Error(error))
        };
        let reflect = |answer| FleetHeard::Answered(FleetProbe::ReflectSyn, answer);
        let came_back = FleetHeard::Answered(FleetProbe::ClosedLoop, FleetAnswer::CameBack);
        for (heard, closed_loop, line) in [
            (
                reflect(FleetAnswer::SynAck),
                Some(NoAnswer::Silent),
                "unproven,syn-ack,192.0.2.10,,,,,,reflect-syn,silent,2,1234",
            ),
            (
                reflect(FleetAnswer::SynAck),
                Some(NoAnswer::Unheard),
                "unproven,syn-ack,192.0.2.10,,,,,,reflect-syn,unheard,2,1234",
            ),
            (
                reflect(FleetAnswer::Reset),
                None,
                "broken,rst,192.0.2.10,,,,,service,reflect-syn,,2,1234",
            ),
            (
                error(3, 1, About::Tunnel, [10, 0, 0, 1]),
                None,
                "broken,icmp-error,10.0.0.1,3,1,tunnel,,director-to-realserver,reflect-syn,,2,1234",
            ),
            (
                came_back,
                None,
                "broken,came-back,,,,,,realserver-accept,tunnel-syn,,2,1234",
            ),
            (
                FleetHeard::NotSent(101),
                None,
                "unproven,not-sent,,,,,101,,,,2,1234",
            ),
            (FleetHeard::Silence, None, "unproven,none,,,,,,,,,2,1234"),
            (FleetHeard::Unheard, None, "unproven,unheard,,,,,,,,,2,1234"),
        ] {
            let swept = swept(heard, closed_loop);
            let judgement = judge_pair(&swept);
            let mut csv = String::new();
            FleetCsv::default().line(&swept, &judgement, &mut csv);
            assert_eq!(csv, format!("203.0.113.6,192.0.2.10,80,tcp,{line}\n"));
            assert_eq!(
                csv.matches(',').count(),
                FLEET_CSV_HEAD.matches(',').count()
            );
            let json = fleet_json(&swept, &judgement);
            let read: Read = serde_json::from_str(&json).unwrap();
            let or_empty = |value: Option<String>| value.unwrap_or_default();
            let icmp = read.icmp.as_ref();
            let again = [
                read.verdict,
                read.answer,
                or_empty(read.from.map(|from| from.to_string())),
                or_empty(icmp.map(|icmp| icmp.r#type.to_string())),
                or_empty(icmp.map(|icmp| icmp.code.to_string())),
                or_empty(icmp.map(|icmp| icmp.about.clone())),
                or_empty(read.errno.map(|errno| errno.to_string())),
                or_empty(read.broken),
                or_empty(read.probe),
                or_empty(read.r#loop),
                read.tries.to_string(),
                or_empty(read.rtt_us.map(|time| time.to_string())),
            ];
            assert_eq!(again.join(","), line);
            assert_eq!(
                (read.realserver, read.vip, read.port),
                ([203, 0, 113, 6].into(), [192, 0, 2, 10].into(), 80)
            );
            assert_eq!(read.proven.len(), judgement.proven.len());
        }
    }

    #[test]
    fn a_summary_counts_each_pair_once_and_says_why() {
        let mut summary = FleetSummary::default();
        let reflect = |answer| FleetHeard::Answered(FleetProbe::ReflectSyn, answer);
        for (heard, closed_loop) in [
            (reflect(FleetAnswer::SynAck), None),
            (reflect(FleetAnswer::SynAck), Some(NoAnswer::Unheard)),
            (reflect(FleetAnswer::Reset), None),
            (FleetHeard::NotSent(101), None),
            (FleetHeard::Silence, None),
            (FleetHeard::Unheard, None),
        ] {
            let swept = swept(heard, closed_loop);
            summary.add(&swept, &judge_pair(&swept));
        }
        let fleet = Fleet::new([192, 0, 2, 2].into(), None, Vec::new()).unwrap();
        let end = FleetEnd {
            is_partial: false,
            undecided: 0,
            probes: 6,
            closings: 2,
            errors: 1,
            repeated: 0,
            late: 0,
            lost: 1,
            elapsed: Duration::from_secs(1),
        };
        let servers = Realservers::default();
        let line: Value = serde_json::from_str(&summary.to_json(&fleet, &end, &servers)).unwrap();
        for (field, count) in [
            ("proven", 1),
            ("broken", 1),
            ("unproven", 4),
            ("unheard", 1),
        ] {
            assert_eq!(line[field], count, "{field}");
        }
        let text = summary.to_text(&fleet, &end, &servers);
        for part in [
            "RST from the VIP: nothing listens there, or a firewall says so (service)",
            "not sent by this host: Network is unreachable",
            "the client's answers may have been lost here",
            "1 packets were lost by this host",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert_eq!(summary.outcome(6), Outcome::Broken);
    }
}
