//! The spoof check, as a page.

use crate::plan::Toward;
use crate::report::SpoofReport;
use crate::report::html::begun;
use crate::report::html::mark::Mark;
use crate::report::html::markup::Html;
use crate::report::html::page;
use crate::report::html::parts;
use crate::report::html::parts::Pieces;
use crate::report::html::plot;
use crate::report::spoofcheck::Place;
use crate::report::spoofcheck::SpoofPath;

/// The spoof check's report as a page; `verbose` adds every piece of evidence.
pub fn spoof_html(report: &SpoofReport, verbose: bool) -> String {
    let word = report.outcome.id();
    let vip = report
        .paths
        .first()
        .map_or_else(String::new, |path| path.vip.to_string());
    let what = format!("the VIP {vip} as a source");
    page(&format!("{word}: {what}"), |html| {
        html.element("header", &[], |html| {
            Mark::from(report.outcome).with_word(html, word);
            html.words("h1", &[], what);
            html.element("ul", &[("class", &"errors")], |html| {
                for (number, path) in report.paths.iter().enumerate() {
                    html.element("li", &[], |html| {
                        let to = format!("#p{}", number + 1);
                        html.words("a", &[("href", &to)], &path.realserver);
                        html.say(format!(": {}", path.summary));
                    });
                }
            });
            begun(html, &report.timing);
        });
        let mut pieces = Pieces::new(&report.evidence);
        for (number, path) in report.paths.iter().enumerate() {
            of_path(html, &mut pieces, (number, path));
        }
        parts::times(html, &report.probes);
        parts::evidence(html, &pieces, verbose);
    })
}

fn of_path(html: &mut Html, pieces: &mut Pieces<'_>, (number, path): (usize, &SpoofPath)) {
    let id = format!("p{}", number + 1);
    html.element("section", &[("class", &"of-path"), ("id", &id)], |html| {
        let (whom, there) = match path.toward {
            Toward::Client => ("client", Some(path.cip)),
            Toward::Director => ("director", path.dip),
        };
        let there = there.map_or_else(String::new, |address| format!(" {address}"));
        html.element("h2", &[], |html| {
            html.say(format!("{} to the {whom}{there} ", path.realserver));
            Mark::from(path.outcome).with_word(html, path.outcome.id());
        });
        html.element("p", &[("class", &"lead")], |html| {
            html.say(&path.summary);
            if let Some(sure) = path.confidence {
                html.words(
                    "b",
                    &[],
                    format!(" (confidence {:.1} %)", (sure * 1000.0).floor() / 10.0),
                );
            }
        });
        html.words("p", &[], &path.detail);
        places(html, path);
        if !path.advice.is_empty() {
            let (typed, told): (Vec<_>, Vec<_>) = path
                .advice
                .iter()
                .cloned()
                .partition(|line| is_command(line));
            html.element("ul", &[], |html| {
                for line in &told {
                    html.words("li", &[], line);
                }
            });
            parts::commands(html, &typed);
        }
        html.words("h3", &[], "Both sweeps");
        plot::sweep(html, &path.plotted);
        flows(html, path);
        if !path.shared.is_empty() {
            html.words("h3", &[], "Routers on the client's way as well");
            html.element("ul", &[], |html| {
                for shared in &path.shared {
                    html.words(
                        "li",
                        &[],
                        format!("{} (TTL {})", shared.address, shared.ttl),
                    );
                }
            });
        }
        if !path.evidence.is_empty() {
            html.words("h3", &[], "Shown by");
            pieces.lines(html, &path.evidence);
        }
    });
}

/// Whether a line of advice is something to type, after the host's prompt.
fn is_command(line: &str) -> bool {
    line.split_once("# ")
        .is_some_and(|(host, _)| !host.contains(' '))
}

/// The routers between which it is stopped, where a line can be drawn.
fn places(html: &mut Html, path: &SpoofPath) {
    let places = [
        ("last that passed it", &path.last_passed),
        ("first that did not", &path.first_stopped),
    ];
    if places.iter().all(|(_, place)| place.is_none()) && path.rewritten_to.is_empty() {
        return;
    }
    html.element("dl", &[], |html| {
        for (name, place) in places {
            if let Some(place) = place {
                html.words("dt", &[], name);
                html.words("dd", &[], said(place));
            }
        }
        if !path.rewritten_to.is_empty() {
            html.words("dt", &[], "rewritten to");
            html.words("dd", &[], list(&path.rewritten_to));
        }
    });
}

fn said(place: &Place) -> String {
    let mut words = format!("TTL {}", place.ttl);
    if place.client {
        words += ", the client";
    }
    if place.director {
        words += ", the director";
    }
    for (whom, by) in [("control", &place.control), ("VIP", &place.spoofed)] {
        if !by.is_empty() {
            words += &format!("; to the {whom} as {}", list(by));
        }
    }
    words
}

fn list(addresses: &[std::net::Ipv4Addr]) -> String {
    let names: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn flows(html: &mut Html, path: &SpoofPath) {
    if path.flows.is_empty() {
        return;
    }
    html.words("h3", &[], "Flows");
    html.element("table", &[("class", &"wide")], |html| {
        html.words(
            "caption",
            &[],
            "Of what could arrive, how much did, by flow: equal paths may take them apart",
        );
        let (vip, rip) = (
            format!("from the VIP {}", path.vip),
            format!("from {}", path.rip),
        );
        html.columns(&["port", &vip, &rip]);
        for flow in &path.flows {
            html.element("tr", &[], |html| {
                html.words("th", &[("scope", &"row")], flow.port);
                for tally in [flow.spoofed, flow.control] {
                    html.element("td", &[], |html| {
                        plot::bar(html, (tally.arrived, tally.sent));
                    });
                }
            });
        }
    });
    if path.back.sent > 0 {
        let (arrived, sent) = (path.back.arrived, path.back.sent);
        html.words(
            "p",
            &[],
            format!("The way back to the VIP, by the director's own probes: {arrived} of {sent}."),
        );
    }
}
