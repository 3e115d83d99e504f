//! One piece of evidence in words.

use std::fmt::Write;
use std::net::Ipv4Addr;

use serde::Serialize;

use crate::evidence::Evidence;
use crate::evidence::Item;
use crate::evidence::What;
use crate::exchange::ConnectOutcome;
use crate::exchange::SendOutcome;
use crate::exchange::Transmit;
use crate::exchange::Way;
use crate::matching::Sighting;
use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::Probe;
use crate::plan::ProbeKind;
use crate::plan::Protocol;
use crate::plan::Quoting;
use crate::plan::Station;
use crate::report::escape::escape;
use crate::wire::EtherType;
use crate::wire::dissect;
use crate::wire::dissect_frame;

/// What sort of evidence it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A packet was handed to the kernel, which took it.
    Sent,
    /// The probe itself was seen.
    Sighting,
    /// An answer to it was seen.
    Reply,
    /// An ICMP error that quotes it was seen.
    IcmpError,
    /// An ARP packet was seen.
    Arp,
    /// A host says something of itself, or its kernel of a packet that it dropped.
    Fact,
    /// What should have been seen was not, and that counts.
    Silence,
}

/// A piece of evidence in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wording {
    pub(crate) kind: Kind,
    /// What it is, in a few words; empty if only the summary can say.
    pub(crate) noun: String,
    /// In one line.
    pub(crate) summary: String,
}

/// Says what an item is.
pub(crate) fn wording(evidence: &Evidence, item: &Item) -> Wording {
    let probe = item.probe.and_then(|id| evidence.probe(id));
    let (kind, noun, summary) = match &item.what {
        What::Sent { transmit, outcome } => sent(probe, transmit, outcome),
        What::Seen {
            sighting,
            altered,
            capture,
        } => {
            let (kind, noun, mut summary) = seen(probe, sighting);
            let _ = write!(summary, ", ttl {} on {}", sighting.ttl, capture.device);
            if let Some(ttl) = sighting.sent_ttl.filter(|_| probe.is_none()) {
                let _ = write!(summary, ", sent with ttl {ttl}");
            }
            for alteration in altered {
                let (field, sent, seen) = (&alteration.field, &alteration.sent, &alteration.seen);
                let _ = write!(summary, "; {field} {seen}, sent as {sent}");
            }
            (kind, noun, summary)
        }
        What::Arp { arp, capture } => {
            let (noun, what) = match arp.operation {
                1 => (
                    "ARP request",
                    format!("ARP who-has {} tell {}", arp.target, arp.sender),
                ),
                _ => (
                    "ARP reply",
                    format!(
                        "ARP {} is-at {}, told to {}",
                        arp.sender,
                        mac(&arp.sender_mac),
                        arp.target
                    ),
                ),
            };
            let summary = format!("{what} on {}", capture.device);
            (Kind::Arp, noun.to_owned(), summary)
        }
        What::Drop {
            reason,
            place,
            sighting,
            capture,
        } => {
            let (_, noun, packet) = seen(probe, sighting);
            let why = match reason {
                Some(reason) => format!("{reason} in {place}"),
                None => format!("in {place}"),
            };
            let device = match capture.device.as_str() {
                "" => String::new(),
                device => format!(" of {device}"),
            };
            (
                Kind::Fact,
                format!("{noun} dropped by the kernel: {why}"),
                format!("the kernel dropped {packet}{device}: {why}"),
            )
        }
        What::Connect { to, outcome } => connect(*to, outcome),
        What::Fact { summary, command } => (
            Kind::Fact,
            summary.clone(),
            // Some say the command themselves.
            match summary.starts_with(command) {
                true => summary.clone(),
                false => format!("{summary} (`{command}`)"),
            },
        ),
        What::Silence(span) => (Kind::Silence, String::new(), span.summary.clone()),
    };
    Wording {
        kind,
        noun: escape(&noun),
        summary: escape(&summary),
    }
}

/// A packet of ours that was seen, on one line with a newline; `None` if the item is none.
pub fn arrival(evidence: &Evidence, item: &Item) -> Option<String> {
    let What::Seen { sighting, .. } = &item.what else {
        return None;
    };
    let time = item.time.to_string();
    let clock = time.get(11..26).unwrap_or(&time);
    let station = item.station.map_or("", Station::id);
    let (probe, summary) = (sighting.probe, wording(evidence, item).summary);
    Some(format!("{clock} {station:<12} {probe:<15} {summary}\n"))
}

/// Kind, noun and summary of a [`Wording`].
pub(super) type Parts = (Kind, String, String);

fn sent(probe: Option<&Probe>, transmit: &Transmit, outcome: &SendOutcome) -> Parts {
    let what = match probe.filter(|probe| probe.script.is_none()) {
        Some(probe) => described(probe),
        None => match &transmit.way {
            Way::Stack => dissect(&transmit.bytes, EtherType::IPV4).summary,
            Way::Frame { .. } => dissect_frame(&transmit.bytes).summary,
        },
    };
    match outcome {
        SendOutcome::Sent { .. } => {
            let noun = probe.map_or("packet", |probe| payload(probe));
            (Kind::Sent, format!("{noun} sent"), format!("sent {what}"))
        }
        SendOutcome::Refused { errno, error, .. } => (
            Kind::Fact,
            "refusal to send".to_owned(),
            format!(
                "the kernel refused to send {what}: {}",
                numbered(error, *errno)
            ),
        ),
        SendOutcome::Declined { reason, .. } => (
            Kind::Fact,
            "packet not sent".to_owned(),
            format!("the agent did not send {what}: {reason}"),
        ),
    }
}

/// A probe as it was meant to leave.
pub(crate) fn described(probe: &Probe) -> String {
    let mut text = format!("{} {}", ends(&probe.flow), payload(probe));
    if probe.is_limited() {
        let _ = write!(text, " ttl {}", probe.ttl);
    }
    match probe.tunnel {
        None => text,
        Some(tunnel) => format!(
            "IPIP {} > {} {{ {text} }}",
            tunnel.source, tunnel.destination
        ),
    }
}

/// A packet of ours as it was seen.
pub(super) fn seen(probe: Option<&Probe>, sighting: &Sighting) -> Parts {
    let flow = match &sighting.flow {
        Some(flow) => ends(flow),
        None => format!("{} > {}", sighting.source, sighting.destination),
    };
    let name = match probe {
        Some(probe) if probe.is_limited() => format!("{} (TTL {})", probe.id, probe.ttl),
        _ => sighting.probe.to_string(),
    };
    let what = match probe {
        Some(probe) => payload(probe),
        None if sighting.probe.kind == ProbeKind::Script => "packet",
        None => "probe",
    };
    match sighting.form {
        Form::Tunnelled => {
            let (source, destination) = match sighting.outer {
                Some(outer) => (outer.source, outer.destination),
                None => (sighting.source, sighting.destination),
            };
            // What was cut off may have no ports, and then no ends of its own.
            let inner = sighting.flow.map(|_| format!("{flow} {what}"));
            let inner = inner.unwrap_or_else(|| what.to_owned());
            (
                Kind::Sighting,
                format!("{what} in IPIP"),
                format!("IPIP {source} > {destination} {{ {inner} }}"),
            )
        }
        Form::Plain | Form::Decapsulated => {
            (Kind::Sighting, what.to_owned(), format!("{flow} {what}"))
        }
        Form::Cleanup => (
            Kind::Sighting,
            "closing RST".to_owned(),
            format!("{flow} RST that closes {name}"),
        ),
        Form::SynAck => answer("SYN-ACK", &flow, name),
        Form::Rst => answer("RST", &flow, name),
        Form::Refused => answer("RST/ACK", &flow, name),
        Form::Reply => {
            // What has no ports is an echo reply, or the like.
            let noun = sighting.flow.map_or("reply", |_| "UDP datagram");
            answer(noun, &flow, name)
        }
        Form::IcmpError {
            icmp_type,
            code,
            of,
        } => {
            let error = icmp_error(icmp_type, code);
            let (from, to) = (sighting.source, sighting.destination);
            let quoting = match of {
                Quoting::Plain => name,
                Quoting::Tunnelled => format!("{name} in its tunnel"),
                Quoting::Answer => format!("an answer to {name}"),
            };
            (
                Kind::IcmpError,
                format!("ICMP {error}"),
                format!("{from} > {to} ICMP {error}, quoting {quoting}"),
            )
        }
    }
}

fn answer(noun: &str, flow: &str, probe: String) -> Parts {
    (
        Kind::Reply,
        noun.to_owned(),
        format!("{flow} {noun}, answering {probe}"),
    )
}

fn connect((address, port): (Ipv4Addr, u16), outcome: &ConnectOutcome) -> Parts {
    let to = format!("a connection to {address}:{port}");
    match outcome {
        ConnectOutcome::Connected { local, micros } => (
            Kind::Reply,
            "connection".to_owned(),
            format!(
                "{to} from {}:{} was made in {}.{:03} ms",
                local.0,
                local.1,
                micros / 1000,
                micros % 1000
            ),
        ),
        ConnectOutcome::Failed { errno, error } => (
            Kind::Reply,
            "refused connection".to_owned(),
            format!("{to} failed: {}", numbered(error, *errno)),
        ),
        ConnectOutcome::TimedOut => (
            Kind::Silence,
            "connection timeout".to_owned(),
            format!("{to} got no answer"),
        ),
        ConnectOutcome::Declined { reason } => (
            Kind::Fact,
            "connection not opened".to_owned(),
            format!("the agent did not open {to}: {reason}"),
        ),
    }
}

/// A system error with its number, once.
fn numbered(error: &str, errno: i32) -> String {
    let words = error.trim_end_matches(&format!(" (os error {errno})"));
    format!("{words} (errno {errno})")
}

fn ends(flow: &Flow) -> String {
    format!(
        "{}:{} > {}:{}",
        flow.source, flow.source_port, flow.destination, flow.destination_port
    )
}

/// What a probe is to a person who reads a capture.
pub(crate) fn payload(probe: &Probe) -> &'static str {
    if probe.script.is_some() {
        return "packet";
    }
    match (probe.flow.protocol, probe.id.kind) {
        (Protocol::Udp, _) => "UDP",
        (Protocol::Tcp, kind) if kind.sends_syn_ack() => "SYN-ACK",
        (Protocol::Tcp, _) => "SYN",
    }
}

/// An ICMP error's name, as tcpdump and the RFCs call it (RFC 792, RFC 1812 §5.2.7.1).
pub(super) fn icmp_error(icmp_type: u8, code: u8) -> String {
    let name = match (icmp_type, code) {
        (3, 0) => "net unreachable",
        (3, 1) => "host unreachable",
        (3, 2) => "protocol unreachable",
        (3, 3) => "port unreachable",
        (3, 4) => "fragmentation needed",
        (3, 5) => "source route failed",
        (3, 9 | 10 | 13) => "administratively prohibited",
        (4, _) => "source quench",
        (5, _) => "redirect",
        (11, 0) => "time exceeded",
        (11, 1) => "reassembly time exceeded",
        (12, _) => "parameter problem",
        _ => return format!("type {icmp_type} code {code}"),
    };
    name.to_owned()
}

fn mac(octets: &[u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::Certainty;
    use crate::plan::ProbeId;
    use crate::plan::Protocol;

    #[test]
    fn a_reply_without_ports_is_no_datagram() {
        let (source, destination) = ([192, 0, 2, 10].into(), [198, 51, 100, 7].into());
        let mut sighting = Sighting {
            probe: ProbeId {
                kind: ProbeKind::Script,
                index: 3,
            },
            form: Form::Reply,
            certainty: Certainty::Fields,
            source,
            destination,
            ttl: 64,
            outer: None,
            flow: None,
            inner_ttl: None,
            sent_ttl: None,
            quoted: None,
            next_hop_mtu: None,
            maximum_segment_size: None,
        };
        let summary = |sighting: &Sighting| seen(None, sighting).2;
        let expected = "192.0.2.10 > 198.51.100.7 reply, answering script.3";
        assert_eq!(summary(&sighting), expected);
        sighting.form = Form::Plain;
        assert_eq!(summary(&sighting), "192.0.2.10 > 198.51.100.7 packet");
        sighting.form = Form::Reply;
        sighting.flow = Some(Flow {
            protocol: Protocol::Udp,
            source,
            source_port: 53,
            destination,
            destination_port: 5000,
        });
        let expected = "192.0.2.10:53 > 198.51.100.7:5000 UDP datagram, answering script.3";
        assert_eq!(summary(&sighting), expected);
    }
}
