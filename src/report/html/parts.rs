//! What all three reports are made of: hops, findings, round trips, evidence.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::evidence::EvidenceId;
use crate::plan::ProbeKind;
use crate::report::EvidenceReport;
use crate::report::FindingReport;
use crate::report::HopReport;
use crate::report::Kind;
use crate::report::ProbeReport;
use crate::report::html::mark;
use crate::report::html::mark::Mark;
use crate::report::html::markup::Html;
use crate::report::html::packet::packet;
use crate::report::html::plot;
use crate::verdict::HopVerdict;
use crate::verdict::How;
use crate::verdict::Severity;

/// The pieces of evidence, and those that a verdict has named so far.
pub(super) struct Pieces<'a> {
    all: &'a [EvidenceReport],
    named: BTreeSet<EvidenceId>,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(all: &'a [EvidenceReport]) -> Pieces<'a> {
        Pieces {
            all,
            named: BTreeSet::new(),
        }
    }

    fn piece(&self, id: EvidenceId) -> Option<&'a EvidenceReport> {
        self.all.get(id.0.checked_sub(1)? as usize)
    }

    /// Links to these pieces, which are shown in full at the end.
    pub(super) fn links(&mut self, html: &mut Html, ids: &[EvidenceId]) {
        for (number, id) in ids.iter().enumerate() {
            if number > 0 {
                html.say(", ");
            }
            self.link(html, *id);
        }
    }

    fn link(&mut self, html: &mut Html, id: EvidenceId) {
        self.named.insert(id);
        let to = format!("#{id}");
        html.words("a", &[("href", &to)], id);
    }

    /// These pieces, a line each; of many the first.
    pub(super) fn lines(&mut self, html: &mut Html, ids: &[EvidenceId]) {
        const AT_MOST: usize = 12;
        html.element("ul", &[("class", &"shown")], |html| {
            for id in ids.iter().take(AT_MOST) {
                html.element("li", &[], |html| {
                    self.link(html, *id);
                    if let Some(piece) = self.piece(*id) {
                        html.say(" ");
                        html.words("b", &[], place(piece));
                        html.say(format!(" {}", piece.summary));
                    }
                });
            }
            if let Some(more) = ids.get(AT_MOST..).filter(|more| !more.is_empty()) {
                html.element("li", &[], |html| {
                    html.say("and ");
                    self.links(html, more);
                });
            }
        });
    }
}

/// Where a piece was seen, or whose word it is.
fn place(piece: &EvidenceReport) -> String {
    match piece.station {
        Some(station) => station.to_string(),
        None => piece.host.clone(),
    }
}

/// Hops as a table.
pub(super) fn hops(html: &mut Html, pieces: &mut Pieces<'_>, caption: &str, hops: &[&HopReport]) {
    html.element("table", &[("class", &"hops")], |html| {
        html.words("caption", &[], caption);
        html.columns(&["hop", "verdict", "by what, or why"]);
        let mut last = None;
        for hop in hops {
            html.element(
                "tr",
                &[("class", &Mark::from(hop.verdict).class())],
                |html| {
                    html.words("th", &[("scope", &"row")], hop.id);
                    html.element("td", &[], |html| {
                        Mark::from(hop.verdict).with_word(html, mark::verdict(hop.verdict));
                    });
                    html.element("td", &[], |html| why(html, pieces, hop, last));
                },
            );
            last = hop.reason.as_deref();
        }
    });
}

fn why(html: &mut Html, pieces: &mut Pieces<'_>, hop: &HopReport, last: Option<&str>) {
    if let Some((from, to)) = hop.between.filter(|_| hop.verdict == HopVerdict::Broken) {
        html.words("b", &[], format!("between {from} and {to}: "));
    }
    let reason = hop.reason.as_deref();
    match reason.filter(|_| hop.verdict != HopVerdict::Proven) {
        // A reason is given once to hops in a row.
        Some(reason) if last == Some(reason) => html.say("as above"),
        Some(reason) => html.say(reason.trim_start_matches("not tried: ")),
        None => {}
    }
    let Some(best) = hop.evidence.first().and_then(|id| pieces.piece(*id)) else {
        return;
    };
    if hop.verdict == HopVerdict::Proven {
        let what = match best.noun.is_empty() {
            true => &best.summary,
            false => &best.noun,
        };
        let words = match (hop.how, best.station) {
            (Some(How::Fact), _) => format!("{}'s own word: {what}", best.host),
            (Some(How::Implied), Some(at)) => format!("implied by {what} at {at}"),
            (_, Some(at)) => format!("{what} at {at}"),
            (_, None) => format!("{what} of {}", best.host),
        };
        html.say(words);
    }
    html.say(" (");
    pieces.links(html, &hop.evidence);
    html.say(")");
}

/// The hops that were not proven, and what would decide them; nothing if there are none.
pub(super) fn unproven(html: &mut Html, hops: &[&HopReport]) {
    let open = hops
        .iter()
        .filter(|hop| hop.verdict == HopVerdict::Unproven);
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for hop in open {
        let reason = hop.reason.as_deref().unwrap_or("no reason is known");
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, hops)) => hops.push(hop.id.to_string()),
            None => reasons.push((reason, vec![hop.id.to_string()])),
        }
    }
    if reasons.is_empty() {
        return;
    }
    html.words("h3", &[], "Not proven, and what would decide it");
    html.element("ul", &[], |html| {
        for (reason, hops) in reasons {
            html.element("li", &[], |html| {
                html.words("b", &[], hops.join(", "));
                html.say(format!(": {reason}"));
            });
        }
    });
}

/// A finding.
pub(super) fn finding(html: &mut Html, pieces: &mut Pieces<'_>, finding: &FindingReport, id: &str) {
    let word = severity(finding.severity);
    let mark = Mark::from(finding.severity);
    let class = format!("finding {}", mark.class());
    html.element("article", &[("class", &class), ("id", &id)], |html| {
        html.element("h4", &[], |html| {
            mark.with_word(html, word);
            html.say(format!(" {}", finding.summary));
        });
        html.element("p", &[("class", &"where")], |html| {
            html.words("code", &[], finding.code);
            html.say(format!(", {} of {}", finding.hop, finding.realserver));
        });
        if !finding.detail.is_empty() {
            html.words("p", &[], &finding.detail);
        }
        commands(html, &finding.fix);
        if !finding.evidence.is_empty() {
            html.words("p", &[("class", &"label")], "Shown by");
            pieces.lines(html, &finding.evidence);
        }
        html.element("p", &[("class", &"where")], |html| {
            html.say("More: ");
            html.words("code", &[], format!("tunproof explain {}", finding.code));
        });
    });
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// Commands to type, each selected whole by one click, without the prompt.
pub(super) fn commands(html: &mut Html, commands: &[String]) {
    if commands.is_empty() {
        return;
    }
    html.words("p", &[("class", &"label")], "Type");
    for command in commands {
        html.element("pre", &[("class", &"type"), ("tabindex", &0)], |html| {
            let (prompt, typed) = match command.split_once("# ") {
                Some((host, typed)) if !host.contains(' ') => (format!("{host}# "), typed),
                _ => (String::new(), command.as_str()),
            };
            html.words("span", &[("class", &"prompt")], prompt);
            html.words("code", &[], typed);
        });
    }
}

/// When, how long, and the round trips by kind of probe.
pub(super) fn times(html: &mut Html, probes: &[ProbeReport]) {
    #[derive(Default)]
    struct Row {
        sent: usize,
        trips: Vec<Duration>,
    }
    let mut rows: BTreeMap<(ProbeKind, &str), Row> = BTreeMap::new();
    for probe in probes.iter().filter(|probe| probe.sent.is_some()) {
        let row = rows.entry((probe.kind, &probe.from)).or_default();
        row.sent += 1;
        row.trips.extend(probe.round_trip);
    }
    if rows.is_empty() {
        return;
    }
    let greatest = rows.values().flat_map(|row| &row.trips).max().copied();
    html.element("section", &[("id", &"times")], |html| {
        html.words("h2", &[], "Times");
        html.element("table", &[("class", &"wide times")], |html| {
            html.words(
                "caption",
                &[],
                "Probes by kind: how many were sent, how many of them were answered to the host that sent them, and \
                 how long that took, by its own clock",
            );
            let scale = greatest.map_or_else(String::new, plot::scale);
            html.columns(&["probe", "from", "sent", "answered", "round trip", &scale]);
            for ((kind, from), row) in &rows {
                html.element("tr", &[], |html| {
                    html.words("th", &[("scope", &"row")], kind);
                    html.words("td", &[], from);
                    html.words("td", &[], row.sent);
                    html.words("td", &[], row.trips.len());
                    html.words("td", &[], plot::spread(&row.trips));
                    html.element("td", &[("class", &"strip")], |html| {
                        if let Some(greatest) = greatest.filter(|_| !row.trips.is_empty()) {
                            plot::strip(html, &row.trips, greatest);
                        }
                    });
                });
            }
        });
    });
}

/// The pieces that were named, in full; with `verbose` all of them, a line each, after that.
pub(super) fn evidence(html: &mut Html, pieces: &Pieces<'_>, verbose: bool) {
    let mut fields = 0;
    html.element(
        "section",
        &[("id", &"evidence"), ("class", &"evidence")],
        |html| {
            html.words("h2", &[], "Evidence");
            let (named, all) = (pieces.named.len(), pieces.all.len());
            html.element("p", &[], |html| {
                html.say(format!(
                    "The {named} pieces that this page names, of {all} in all. "
                ));
                if !verbose {
                    html.words("code", &[], "--verbose");
                    html.say(" lists all here, ");
                }
                html.words("code", &[], "--pcap FILE");
                html.say(" has every packet for Wireshark. Point at a field to find its octets.");
            });
            for piece in pieces.named.iter().filter_map(|id| pieces.piece(*id)) {
                fields = fields.max(full(html, piece));
            }
            if verbose {
                html.element("details", &[], |html| {
                    html.words("summary", &[], format!("All {all} pieces"));
                    html.element("table", &[("class", &"all")], |html| {
                        html.words(
                            "caption",
                            &[],
                            "All evidence, in the order in which it became known",
                        );
                        html.columns(&["id", "time", "where", "what"]);
                        for piece in pieces.all {
                            html.element("tr", &[], |html| {
                                html.words("th", &[("scope", &"row")], piece.id);
                                html.words("td", &[], clock(piece));
                                html.words("td", &[], place(piece));
                                html.words("td", &[], &piece.summary);
                            });
                        }
                    });
                });
            }
        },
    );
    if fields > 0 {
        // Where a field is pointed at in the table or in the octets, both are lit.
        html.element("style", &[], |html| {
            let selectors: Vec<_> = (0..fields)
                .map(|field| format!(".packet:has(.f{field}:hover) .f{field}"))
                .collect();
            html.say(selectors.join(","));
            html.say("{outline:2px solid var(--link)}");
        });
    }
}

/// A piece in full; how many fields its packet has.
fn full(html: &mut Html, piece: &EvidenceReport) -> usize {
    let mut fields = 0;
    html.element("details", &[], |html| {
        html.element("summary", &[], |html| {
            html.words("b", &[], piece.id);
            html.say(format!(" {}: {}", place(piece), piece.summary));
        });
        // Who follows a link to something in it has it opened.
        html.element("div", &[("id", &piece.id), ("class", &"piece")], |html| {
            html.element("p", &[("class", &"where")], |html| {
                html.say(format!("{}, {}, ", kind(piece.kind), piece.host));
                html.words("time", &[], &piece.time);
                if let Some(probe) = piece.probe {
                    html.say(", probe ");
                    html.words("code", &[], probe);
                }
            });
            if let Some(found) = &piece.packet {
                fields = packet(html, found);
            }
        });
    });
    fields
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Sent => "sent",
        Kind::Sighting => "sighting",
        Kind::Reply => "reply",
        Kind::IcmpError => "ICMP error",
        Kind::Arp => "ARP",
        Kind::Fact => "fact",
        Kind::Silence => "silence",
    }
}

/// The time of day, to the microsecond.
fn clock(piece: &EvidenceReport) -> &str {
    piece.time.get(11..26).unwrap_or(&piece.time)
}
