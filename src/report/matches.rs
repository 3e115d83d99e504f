//! What `tunproof match` found in a capture file, as text and as JSON.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;

use crate::exchange::Wall;
use crate::matching::Alteration;
use crate::matching::Certainty;
use crate::matching::Outer;
use crate::matching::Sighting;
use crate::plan::Flow;
use crate::plan::Form;
use crate::plan::Probe;
use crate::plan::ProbeId;
use crate::plan::ProbeKind;
use crate::plan::Quoting;
use crate::report::escape::escape;
use crate::report::wording::icmp_error;
use crate::report::wording::seen;
use crate::wire::Bound;
use crate::wire::RecordedInterface;
use crate::wire::SavefileFormat;

/// What was found in a capture file. As JSON, schema `tunproof.match/1`.
#[derive(Clone, Debug)]
pub struct Matches {
    /// The file as it was named.
    pub file: String,
    /// Its format; `None` if it ended before that was known.
    pub format: Option<SavefileFormat>,
    /// The interfaces that it describes.
    pub interfaces: Vec<RecordedInterface>,
    /// How many packets were read.
    pub packets: u64,
    /// Packets that the capturing program says it lost, if it says.
    pub dropped: Option<u64>,
    /// Packets that could not be looked into: why, and how many.
    pub unread: BTreeMap<String, u64>,
    /// Packets that are cut off before all that could tell whether they are the session's, and so do not.
    pub cut: u64,
    /// Why reading ended before the file did, if so.
    pub problem: Option<String>,
    /// The session's packets, in the file's order.
    pub found: Vec<Match>,
}

/// A packet of the session.
#[derive(Clone, Debug)]
pub struct Match {
    /// Its number in the file, from 1.
    pub packet: u64,
    /// Where its record begins.
    pub offset: u64,
    /// When it was captured, if the file says.
    pub time: Option<Wall>,
    /// The interface's name, where a pcapng tells it.
    pub interface: Option<String>,
    /// The device's index, where a cooked capture tells it.
    pub interface_index: Option<u32>,
    /// Which way it went, if the file says.
    pub bound: Option<Bound>,
    /// Its VLAN tags, outermost first.
    pub vlans: Vec<u16>,
    /// Octets that were captured, from the network header on.
    pub captured: usize,
    /// Octets that it had.
    pub length: usize,
    /// What it says.
    pub sighting: Sighting,
    /// The probe as it was sent, as far as that can be known.
    pub sent: Option<Probe>,
    /// Fields that differ from what was sent.
    pub altered: Vec<Alteration>,
}

impl Matches {
    /// For programs: one object and a newline.
    ///
    /// # Panics
    ///
    /// Never: nothing in it can fail to be written as JSON.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.model()).expect("it is plain data");
        text.push('\n');
        text
    }

    /// For people: a line a packet, then what they add up to.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let width = self.found.iter().map(|found| found.place().chars().count());
        let width = width.max().unwrap_or(0);
        for found in &self.found {
            text.push_str(&found.line(width));
        }
        text.push_str(&self.sum());
        text
    }

    /// What the packets add up to, in a few lines for people.
    pub fn sum(&self) -> String {
        let mut text = String::new();
        if !self.found.is_empty() {
            text.push('\n');
        }
        let count = match self.found.len() {
            0 => "none".to_owned(),
            count => count.to_string(),
        };
        let file = escape(&self.file);
        let _ = writeln!(
            text,
            "{file}: {} packets, {count} of this session",
            self.packets
        );
        for (kind, forms) in self.tally() {
            let forms: Vec<_> = forms
                .into_iter()
                .map(|(form, probes)| format!("{form} {}", probes.len()))
                .collect();
            let _ = writeln!(text, "  {kind:<15} {}", forms.join(", "));
        }
        for (why, count) in &self.unread {
            let _ = writeln!(text, "  {count} not looked into: {}", escape(why));
        }
        if self.cut > 0 {
            let _ = writeln!(
                text,
                "  {} cut off too early to tell whose they are: `tcpdump -s 0` keeps packets whole",
                self.cut
            );
        }
        if let Some(dropped) = self.dropped.filter(|dropped| *dropped > 0) {
            let _ = writeln!(text, "  {dropped} packets were lost when it was captured");
        }
        text
    }

    /// For each kind and form, the probes that were found.
    fn tally(&self) -> BTreeMap<ProbeKind, BTreeMap<String, BTreeSet<ProbeId>>> {
        let mut tally = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
        for found in &self.found {
            let (probe, form) = (found.sighting.probe, form_name(found.sighting.form));
            let forms = tally.entry(probe.kind).or_default();
            forms.entry(form).or_default().insert(probe);
        }
        tally
    }

    fn model(&self) -> MatchesModel<'_> {
        let interfaces = self.interfaces.iter().map(|interface| InterfaceModel {
            name: interface.name.as_deref(),
            link_type: interface.link_type.0,
            snap_length: interface.snap_length,
            filter: interface.filter.as_deref(),
        });
        MatchesModel {
            schema: "tunproof.match/1",
            file: &self.file,
            format: self.format.map(|format| format.to_string()),
            complete: self.problem.is_none(),
            problem: self.problem.as_deref(),
            packets: self.packets,
            dropped: self.dropped,
            interfaces: interfaces.collect(),
            unread: &self.unread,
            cut: self.cut,
            sightings: self.found.iter().map(Match::model).collect(),
        }
    }
}

impl Match {
    /// `eth0 vlan 7 in`
    fn place(&self) -> String {
        let mut place = match (&self.interface, self.interface_index) {
            (Some(name), Some(index)) => format!("{} if{index}", escape(name)),
            (Some(name), None) => escape(name),
            (None, Some(index)) => format!("if{index}"),
            (None, None) => "-".to_owned(),
        };
        for vlan in &self.vlans {
            let _ = write!(place, " vlan {vlan}");
        }
        match self.bound {
            Some(Bound::In) => place.push_str(" in"),
            Some(Bound::Out) => place.push_str(" out"),
            None => {}
        }
        place
    }

    fn summary(&self) -> String {
        let (_, _, mut summary) = seen(self.sent.as_ref(), &self.sighting);
        let _ = write!(summary, ", ttl {}", self.sighting.ttl);
        match (self.sighting.sent_ttl, self.sighting.form) {
            (None, _) => {}
            (Some(ttl), Form::IcmpError { .. }) => {
                let _ = write!(summary, ", the probe sent with ttl {ttl}");
            }
            (Some(ttl), _) => {
                let _ = write!(summary, ", sent with ttl {ttl}");
            }
        }
        for alteration in &self.altered {
            let Alteration { field, sent, seen } = alteration;
            let _ = write!(summary, "; {field} {seen}, sent as {sent}");
        }
        if self.sighting.certainty == Certainty::Minimal {
            summary.push_str("; by 16 bits only, which chance gives too");
        }
        escape(&summary)
    }

    /// The packet on one line with a newline, its interface padded to `width` characters.
    pub fn line(&self, width: usize) -> String {
        let time = match self.time {
            Some(time) => {
                let time = time.to_string();
                time.get(11..26).unwrap_or(&time).to_owned()
            }
            None => "-".to_owned(),
        };
        let (place, probe, summary) = (self.place(), self.sighting.probe, self.summary());
        let number = format!("#{}", self.packet);
        let width = width.max(10);
        format!("{time:<15} {number:<6} {place:<width$} {probe:<17} {summary}\n")
    }

    fn model(&self) -> SightingModel<'_> {
        let sighting = &self.sighting;
        SightingModel {
            packet: self.packet,
            offset: self.offset,
            time: self.time.map(|time| time.to_string()),
            interface: self.interface.as_deref(),
            interface_index: self.interface_index,
            direction: self.bound.map(|bound| match bound {
                Bound::In => "in",
                Bound::Out => "out",
            }),
            vlans: &self.vlans,
            captured: self.captured,
            length: self.length,
            probe: sighting.probe,
            form: match sighting.form {
                Form::Tunnelled => "tunnelled",
                Form::Plain => "plain",
                Form::Decapsulated => "decapsulated",
                Form::SynAck => "syn-ack",
                Form::Rst => "rst",
                Form::Refused => "refused",
                Form::Reply => "reply",
                Form::IcmpError { .. } => "icmp-error",
                Form::Cleanup => "cleanup",
            },
            icmp: match sighting.form {
                Form::IcmpError {
                    icmp_type,
                    code,
                    of,
                } => Some(IcmpModel {
                    icmp_type,
                    code,
                    of,
                    from: sighting.source.to_string(),
                    quoted: sighting.quoted,
                }),
                _ => None,
            },
            certainty: sighting.certainty,
            source: sighting.source.to_string(),
            destination: sighting.destination.to_string(),
            ttl: sighting.ttl,
            sent_ttl: sighting.sent_ttl,
            inner_ttl: sighting.inner_ttl,
            tunnel: sighting.outer,
            flow: sighting.flow,
            altered: self.sent.as_ref().map(|_| &self.altered[..]),
            summary: self.summary(),
        }
    }
}

/// A form in a few words.
fn form_name(form: Form) -> String {
    match form {
        Form::Tunnelled => "in IPIP".to_owned(),
        Form::Plain => "itself".to_owned(),
        Form::Decapsulated => "decapsulated".to_owned(),
        Form::SynAck => "SYN-ACK".to_owned(),
        Form::Rst => "RST".to_owned(),
        Form::Refused => "RST/ACK".to_owned(),
        Form::Reply => "answer".to_owned(),
        Form::Cleanup => "closing RST".to_owned(),
        Form::IcmpError {
            icmp_type,
            code,
            of,
        } => {
            let error = icmp_error(icmp_type, code);
            match of {
                Quoting::Plain => format!("ICMP {error}"),
                Quoting::Tunnelled => format!("ICMP {error} for the tunnel"),
                Quoting::Answer => format!("ICMP {error} for an answer"),
            }
        }
    }
}

/// Schema `tunproof.match/1`: fields may be added under this name, none is renamed or removed.
#[derive(Serialize)]
struct MatchesModel<'a> {
    schema: &'static str,
    file: &'a str,
    /// `pcap`, `pcapng`, or null.
    format: Option<String>,
    /// Whether all of the file was read.
    complete: bool,
    /// Why not.
    problem: Option<&'a str>,
    packets: u64,
    /// Lost at capturing; null where the file does not say.
    dropped: Option<u64>,
    interfaces: Vec<InterfaceModel<'a>>,
    /// Reason → packets.
    unread: &'a BTreeMap<String, u64>,
    /// Packets cut off too early to tell whose they are.
    cut: u64,
    sightings: Vec<SightingModel<'a>>,
}

#[derive(Serialize)]
struct InterfaceModel<'a> {
    name: Option<&'a str>,
    /// A `LINKTYPE_` number.
    link_type: u16,
    snap_length: u32,
    filter: Option<&'a str>,
}

#[derive(Serialize)]
struct SightingModel<'a> {
    packet: u64,
    offset: u64,
    /// RFC 3339 in UTC, with nanoseconds.
    time: Option<String>,
    /// Its name, where a pcapng tells it.
    interface: Option<&'a str>,
    /// The device's index, where a cooked capture (`tcpdump -i any`) tells it.
    interface_index: Option<u32>,
    /// `in`, `out`, or null.
    direction: Option<&'static str>,
    vlans: &'a [u16],
    /// Octets from the network header on: those there, and those that there were.
    captured: usize,
    length: usize,
    probe: ProbeId,
    /// `plain`, `tunnelled`, `syn-ack`, `rst`, `refused`, `cleanup`, `icmp-error`.
    form: &'static str,
    icmp: Option<IcmpModel>,
    /// `tag` (64 bits), `fields` (30 or more), `minimal` (16).
    certainty: Certainty,
    /// Of the outermost header.
    source: String,
    destination: String,
    ttl: u8,
    /// The time to live that the probe's payload says it was sent with.
    sent_ttl: Option<u8>,
    /// The probe's own, as seen or quoted.
    inner_ttl: Option<u8>,
    tunnel: Option<Outer>,
    flow: Option<Flow>,
    /// Null where it cannot be known.
    altered: Option<&'a [Alteration]>,
    summary: String,
}

#[derive(Serialize)]
struct IcmpModel {
    #[serde(rename = "type")]
    icmp_type: u8,
    code: u8,
    /// What it quotes: `plain`, `tunnelled`, `answer`.
    of: Quoting,
    from: String,
    /// Octets of the probe that it quotes.
    quoted: Option<u16>,
}
