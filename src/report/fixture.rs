//! A small proof to report, for tests: rp_filter on the first of two real servers; the second proven by
//! facts alone.

use std::net::Ipv4Addr;
use std::time::Duration;

use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::PacketBuilder;

use crate::evidence::Count;
use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::evidence::SilenceSpan;
use crate::evidence::What;
use crate::exchange::Capture;
use crate::exchange::Direction;
use crate::exchange::SendOutcome;
use crate::exchange::Timing;
use crate::exchange::Transmit;
use crate::exchange::Wall;
use crate::exchange::Way;
use crate::matching::Certainty;
use crate::matching::Outer;
use crate::matching::Sighting;
use crate::plan::Form;
use crate::plan::Hop;
use crate::plan::Host;
use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::SessionKey;
use crate::plan::Station;
use crate::plan::Toward;
use crate::report::ExpectationReport;
use crate::report::Report;
use crate::report::RunReport;
use crate::report::SpoofReport;
use crate::report::StepReport;
use crate::verdict::Code;
use crate::verdict::Finding;
use crate::verdict::HopJudgement;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Judgement;
use crate::verdict::Outcome;
use crate::verdict::PathJudgement;
use crate::verdict::Router;
use crate::verdict::Severity;
use crate::verdict::SpoofCell;
use crate::verdict::SpoofFlow;
use crate::verdict::SpoofJudgement;
use crate::verdict::SpoofOutcome;
use crate::verdict::SpoofRow;
use crate::verdict::StepOutcome;

/// 2026-11-22T12:00:00Z.
const NOON: u64 = 1_795_348_800_000_000_000;

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn at(micros: u64) -> Wall {
    Wall::from_nanos(NOON + micros * 1000 + 7)
}

pub(crate) fn plan() -> Plan {
    let path = |name: &str, rip| Path {
        realserver: name.to_owned(),
        vip: ip("192.0.2.10"),
        port: 80,
        protocol: Protocol::Tcp,
        rip: ip(rip),
        dip: Some(ip("192.0.2.2")),
        cip: ip("198.51.100.7"),
        gateway: Some(ip("203.0.113.1")),
        tunnel: None,
    };
    Plan {
        session: SessionKey::new([7; 16]),
        paths: vec![path("rs1", "203.0.113.5"), path("rs\u{1b}2", "203.0.113.6")],
        vantages: vec![Host::Director, Host::Realserver(0)],
        ingress: None,
        egress: None,
        suites: Vec::new(),
    }
}

pub(crate) fn syn(probe: &Probe) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4(
        probe.flow.source.octets(),
        probe.flow.destination.octets(),
        64,
    )
    .tcp(
        probe.flow.source_port,
        probe.flow.destination_port,
        1,
        64240,
    )
    .syn()
    .write(&mut bytes, &[])
    .unwrap();
    bytes
}

fn tunnelled(probe: &Probe) -> Vec<u8> {
    let tunnel = probe.tunnel.unwrap();
    let inner = syn(probe);
    let header = Ipv4Header::new(
        inner.len() as u16,
        64,
        IpNumber::IPV4,
        tunnel.source.octets(),
        tunnel.destination.octets(),
    );
    let mut bytes = Vec::new();
    header.unwrap().write(&mut bytes).unwrap();
    bytes.extend(inner);
    bytes
}

fn seen(probe: &Probe, form: Form, device: &str, micros: u64, direction: Direction) -> What {
    let tunnel = probe.tunnel.unwrap();
    let outer = (form == Form::Tunnelled).then_some(Outer {
        source: tunnel.source,
        destination: tunnel.destination,
        ttl: 64,
        identification: 1,
    });
    let (bytes, source, destination) = match form {
        Form::Tunnelled => (tunnelled(probe), tunnel.source, tunnel.destination),
        _ => (syn(probe), probe.flow.source, probe.flow.destination),
    };
    What::Seen {
        sighting: Sighting {
            probe: probe.id,
            form,
            certainty: Certainty::Fields,
            source,
            destination,
            ttl: 64,
            outer,
            flow: Some(probe.flow),
            inner_ttl: Some(64),
            sent_ttl: None,
            quoted: None,
            next_hop_mtu: None,
            maximum_segment_size: None,
        },
        altered: Vec::new(),
        capture: Capture {
            time: at(micros),
            device: device.to_owned(),
            hardware: if device == "tunl0" { 768 } else { 1 },
            direction,
            protocol: Capture::IPV4,
            link_source: Some([2, 0, 0, 0, 0, 1]),
            original_length: bytes.len() as u32,
            bytes,
        },
    }
}

/// A `who-has 203.0.113.1 tell 203.0.113.5`, in a frame.
pub(crate) fn arp_frame() -> Vec<u8> {
    let text = "ffffffffffff0200000000050806\
                00010800060400010200000000 05cb007105ffffffffffffcb007101";
    hex::decode(text.replace(' ', "")).unwrap()
}

pub(crate) fn evidence() -> Evidence {
    let plan = plan();
    let path = plan.paths[0].clone();
    let key = plan.session;
    let mut evidence = Evidence::new(plan);
    let id = |index| ProbeId {
        kind: ProbeKind::TunnelSyn,
        index,
    };
    let probe = Probe::new(id(0), 0, &path, &key).unwrap();
    let unseen = Probe::new(id(1), 0, &path, &key).unwrap();
    let subject = (Some(probe.id), Some(0));
    for sent in [&probe, &unseen] {
        evidence.add_probe(sent.clone());
        let what = What::Sent {
            transmit: Transmit {
                way: Way::Stack,
                bytes: tunnelled(sent),
            },
            outcome: SendOutcome::Sent { time: at(1) },
        };
        evidence.append(Host::Director, None, at(1), (Some(sent.id), Some(0)), what);
    }
    let (director, server) = (Host::Director, Host::Realserver(0));
    let sightings = [
        (
            director,
            Station::DirectorOut,
            Form::Tunnelled,
            "eth1",
            Direction::Out,
        ),
        (
            server,
            Station::RealserverIn,
            Form::Tunnelled,
            "eth0",
            Direction::In,
        ),
        (
            server,
            Station::RealserverTunnel,
            Form::Plain,
            "tunl0",
            Direction::In,
        ),
    ];
    for (number, (host, station, form, device, direction)) in sightings.into_iter().enumerate() {
        let micros = 1000 * (number as u64 + 1);
        let what = seen(&probe, form, device, micros, direction);
        evidence.append(host, Some(station), at(micros), subject, what);
    }
    let frame = What::Sent {
        transmit: Transmit {
            way: Way::Frame {
                device: "eth0".to_owned(),
            },
            bytes: arp_frame(),
        },
        outcome: SendOutcome::Sent { time: at(3500) },
    };
    evidence.append(server, None, at(3500), (None, Some(0)), frame);
    let silence = What::Silence(SilenceSpan {
        after: Some(Station::RealserverTunnel),
        at: Station::RealserverOut,
        probes: 3,
        summary: "3 probes were taken out of the tunnel and none was answered".to_owned(),
    });
    evidence.append(server, None, at(4000), (None, Some(0)), silence);
    let fact = What::Fact {
        summary: "rp_filter in force on tunl0\u{1b}[31m is 1".to_owned(),
        command: "sysctl net.ipv4.conf.tunl0.rp_filter".to_owned(),
    };
    evidence.append(server, None, at(5000), (None, Some(0)), fact);
    evidence
}

pub(crate) fn judgement() -> Judgement {
    let e = |number| vec![EvidenceId(number)];
    let hop = |hop, verdict, how, evidence, reason: Option<&str>| HopJudgement {
        hop,
        verdict,
        how,
        evidence,
        between: None,
        reason: reason.map(str::to_owned),
    };
    let first = Hop::ALL.into_iter().map(|h| match h {
        Hop::ClientToDirector => hop(
            h,
            HopVerdict::Unproven,
            None,
            vec![],
            Some("tunproof does not run on the client, where a service probe would decide"),
        ),
        Hop::DirectorForward | Hop::DirectorSource => {
            hop(h, HopVerdict::Proven, Some(How::Fact), e(8), None)
        }
        Hop::DirectorToRealserver => hop(
            h,
            HopVerdict::Proven,
            Some(How::Seen),
            vec![EvidenceId(4), EvidenceId(3)],
            None,
        ),
        Hop::Decapsulation => hop(h, HopVerdict::Proven, Some(How::Implied), e(5), None),
        Hop::RealserverAccept => HopJudgement {
            between: Some((Station::RealserverTunnel, Station::RealserverOut)),
            ..hop(
                h,
                HopVerdict::Broken,
                None,
                vec![EvidenceId(7), EvidenceId(5)],
                Some("what leaves the tunnel is dropped before it reaches a socket"),
            )
        },
        _ => hop(
            h,
            HopVerdict::Skipped,
            None,
            vec![],
            Some("realserver-accept is broken"),
        ),
    });
    let error = Finding {
        code: Code::RpFilterDrops,
        severity: Severity::Error,
        hop: Hop::RealserverAccept,
        summary: "rp_filter on tunl0 drops the decapsulated packets".to_owned(),
        detail:
            "The route back to 198.51.100.7 leaves by eth0, not by tunl0, so a strict reverse path \
                 filter takes every packet out of the tunnel for a forgery."
                .to_owned(),
        fix: vec![
            "rs1# sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0"
                .to_owned(),
        ],
        evidence: e(8),
    };
    let note = Finding {
        code: Code::Loss,
        severity: Severity::Note,
        hop: Hop::DirectorToRealserver,
        summary: "1 of 2 probes was lost".to_owned(),
        detail: String::new(),
        fix: vec!["director# mtr 203.0.113.5".to_owned()],
        evidence: vec![],
    };
    let proven = Hop::ALL
        .into_iter()
        .map(|h| hop(h, HopVerdict::Proven, Some(How::Fact), e(8), None));
    Judgement {
        paths: vec![
            PathJudgement {
                path: 0,
                outcome: Outcome::Broken,
                hops: first.collect(),
                findings: vec![error, note],
            },
            PathJudgement {
                path: 1,
                outcome: Outcome::Proven,
                hops: proven.collect(),
                findings: vec![],
            },
        ],
    }
}

pub(crate) fn report() -> Report {
    let timing = Timing {
        started: at(0),
        elapsed: Duration::from_millis(3_219),
    };
    Report::new(&evidence(), &judgement(), timing)
}

fn spoof_cell(sent: usize, arrived: usize, by: &[[u8; 4]]) -> SpoofCell {
    SpoofCell {
        sent,
        answered: if by.is_empty() { 0 } else { sent },
        arrived,
        refused: 0,
        by: by.iter().map(|octets| Ipv4Addr::from(*octets)).collect(),
    }
}

pub(crate) fn spoof_report() -> SpoofReport {
    let gateway = [203, 0, 113, 1];
    let core = [10, 0, 0, 1];
    let router = |ttl, address: [u8; 4], passed: bool| Router {
        ttl,
        to_the_vip: passed.then_some(address.into()).into_iter().collect(),
        to_the_control: vec![address.into()],
        end: None,
    };
    let count = Count {
        sent: 6,
        arrived: 0,
    };
    let judged = SpoofJudgement {
        path: 0,
        toward: Toward::Client,
        outcome: SpoofOutcome::Filtered,
        confidence: Some(0.999),
        summary: "a network filters it".to_owned(),
        detail: "None arrived.".to_owned(),
        advice: vec!["rs1# traceroute\u{7}".to_owned()],
        passed: Some(router(1, gateway, true)),
        stopped: Some(router(2, core, false)),
        rewritten_to: Vec::new(),
        rows: vec![
            SpoofRow {
                ttl: 1,
                spoofed: spoof_cell(6, 0, &[gateway]),
                control: spoof_cell(6, 0, &[gateway]),
            },
            SpoofRow {
                ttl: 2,
                spoofed: spoof_cell(6, 0, &[]),
                control: spoof_cell(6, 0, &[core, [10, 0, 0, 2]]),
            },
        ],
        flows: vec![SpoofFlow {
            port: 50_000,
            spoofed: count,
            control: Count {
                sent: 6,
                arrived: 6,
            },
        }],
        back: Count::default(),
        shared: Vec::new(),
        evidence: vec![EvidenceId(1)],
    };
    let timing = Timing {
        started: Wall::default(),
        elapsed: Duration::from_millis(7100),
    };
    SpoofReport::new(&evidence(), &[judged], timing)
}

/// A suite of two steps, of which one failed.
pub(crate) fn run_report() -> RunReport {
    let mut run = RunReport::new(&evidence(), report(), &[], Outcome::Broken);
    run.suite = "own".to_owned();
    run.about = "Does it?".to_owned();
    run.hops = report().hops.into_iter().take(6).collect();
    for (id, outcome) in [
        ("asks", StepOutcome::Passed),
        ("sends", StepOutcome::Failed),
    ] {
        run.steps.push(StepReport {
            realserver: "rs1".to_owned(),
            id: id.to_owned(),
            about: "is it there?".to_owned(),
            outcome,
            reason: Some("it was not seen".to_owned()),
            evidence: vec![EvidenceId(1)],
            worst: outcome,
            passed: 1,
            expectations: vec![ExpectationReport {
                expected: "a reply at realserver.out".to_owned(),
                outcome,
                seen: 1,
                sent: 2,
                reason: None,
                evidence: vec![EvidenceId(3)],
            }],
        });
    }
    run
}
