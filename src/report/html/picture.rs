//! The path as a picture: client, director, real server and gateway at the corners of a loop, each hop with its mark
//! where it lies.

use std::net::Ipv4Addr;

use crate::plan::Hop;
use crate::plan::Host;
use crate::report::HopReport;
use crate::report::PathReport;
use crate::report::html::mark;
use crate::report::html::mark::Mark;
use crate::report::html::markup::Html;
use crate::report::sweep::Sweep;
use crate::verdict::HopVerdict;

/// Width of the drawing, and of a host's box in it; heights of a line of words and of a hop in a box.
const WIDTH: i32 = 420;
const BOX: i32 = 144;
const LINE: i32 = 16;
const HOP: i32 = 21;
/// What lies between the top of a box and its first hop.
const HEAD: i32 = 14 + 2 * LINE;
/// The columns' middles, and the height of a router.
const LEFT: i32 = 2 + BOX / 2;
const RIGHT: i32 = WIDTH - 2 - BOX / 2;
const ROUTER: i32 = 24;

/// A router between two hosts: its address, and whether it answered what is asked of, not only the control.
struct Router {
    words: String,
    answered: bool,
}

/// Draws a path; of its hops those that are given.
pub(super) fn picture(html: &mut Html, path: &PathReport, hops: &[&HopReport]) {
    let hop = |hop: Hop| hops.iter().copied().find(|report| report.id == hop);
    let within =
        |inside: &[Hop]| -> Vec<&HopReport> { inside.iter().filter_map(|id| hop(*id)).collect() };
    let director_hops = within(&[Hop::DirectorForward, Hop::DirectorSource]);
    let server_hops = within(&[
        Hop::Decapsulation,
        Hop::RealserverAccept,
        Hop::Service,
        Hop::RealserverEgress,
    ]);
    let height = |hops: &[&HopReport]| HEAD + 6 + HOP * hops.len() as i32;
    let client_hops = within(&[Hop::ClientArrival]);
    let gateway_hops = within(&[Hop::GatewayArp]);

    let ends = [path.gateway, path.cip, path.rip, path.dip];
    let transit = routers(path, |sweep| sweep.end == "client", &ends);
    let tunnel = routers(path, |sweep| sweep.end == "server", &ends);
    let top = height(&director_hops)
        .max(height(&client_hops))
        .max(HEAD + 2 * HOP);
    let room = transit.len().max(tunnel.len()) as i32 * ROUTER + 2 * ROUTER + 20;
    let below = top + room;
    let bottom = height(&server_hops).max(height(&gateway_hops));
    let whole = below + bottom + 4;

    let view = format!("0 0 {WIDTH} {whole}");
    let title = told(path, hops);
    let attributes: [(_, &dyn std::fmt::Display); 4] = [
        ("class", &"path"),
        ("viewBox", &view),
        ("role", &"img"),
        ("aria-label", &title),
    ];
    html.element("svg", &attributes, |html| {
        // Client to director, and the client's answer to it.
        for (id, y) in [
            (Hop::ClientToDirector, 34),
            (Hop::ReturnToDirector, 34 + 2 * HOP),
        ] {
            if let Some(hop) = hop(id) {
                let (from, to) = (LEFT + BOX / 2, RIGHT - BOX / 2);
                arrow(html, class(hop), (from, y), (to, y));
                let word = id.id();
                Mark::from(hop.verdict).drawn(html, (from + 9, y - 11), 14);
                words(html, "hop", (from + 18, y - 7), word);
            }
        }
        // Director to real server, in the tunnel: outer and inner packet, so two lines.
        if let Some(hop) = hop(Hop::DirectorToRealserver) {
            let class = class(hop);
            line(html, class, (RIGHT - 3, top), (RIGHT - 3, below - 8));
            line(html, class, (RIGHT + 3, top), (RIGHT + 3, below - 8));
            head(html, class, (RIGHT, below), (0, 1));
            let y = top + ROUTER;
            Mark::from(hop.verdict).drawn(html, (RIGHT - 16, y), 14);
            words(html, "hop end", (RIGHT - 27, y + 4), hop.id.id());
            words(html, "dim", (RIGHT + 12, y + 4), "IPIP");
        }
        for (number, router) in tunnel.iter().enumerate() {
            let y = top + ROUTER * (number as i32 + 2);
            node(html, (RIGHT, y), router.answered);
            words(html, "end", (RIGHT - 12, y + 4), &router.words);
        }
        // Real server to gateway, from here on with the VIP as the source.
        if let Some(hop) = hop(Hop::GatewayArp) {
            let y = below + bottom - 26;
            arrow(html, class(hop), (RIGHT - BOX / 2, y), (LEFT + BOX / 2, y));
            let middle = WIDTH / 2;
            words(html, "dim middle", (middle, y - 21), "from the VIP");
            words(html, "dim middle", (middle, y - 7), &path.vip.to_string());
        }
        // Gateway to client.
        if let Some(hop) = hop(Hop::SpoofedSourceTransit) {
            arrow(html, class(hop), (LEFT, below), (LEFT, top));
            let y = below - ROUTER;
            Mark::from(hop.verdict).drawn(html, (LEFT + 16, y), 14);
            words(html, "hop", (LEFT + 27, y + 4), hop.id.id());
        }
        for (number, router) in transit.iter().enumerate() {
            let y = below - ROUTER * (number as i32 + 2);
            node(html, (LEFT, y), router.answered);
            words(html, "", (LEFT + 12, y + 4), &router.words);
        }
        let seen = |host: fn(&Host) -> bool| path.seen_from.iter().any(host);
        let host = |html: &mut Html,
                    at,
                    (kind, name): (&str, Option<Ipv4Addr>),
                    seen,
                    hops: &[&HopReport],
                    height| {
            let name = match (name, kind) {
                (Some(address), _) => address.to_string(),
                (None, "client") => "any".to_owned(),
                (None, _) => "address not known".to_owned(),
            };
            corner(html, at, (kind, &name), seen, hops, height);
        };
        let server = match path.rip {
            Some(rip) if path.realserver == rip.to_string() => "real server".to_owned(),
            _ => shortened(&path.realserver),
        };
        let is_client = seen(|host| *host == Host::Client);
        let is_director = seen(|host| *host == Host::Director);
        let is_server = seen(|host| matches!(host, Host::Realserver(_)));
        host(
            html,
            (2, 2),
            ("client", path.cip),
            is_client,
            &client_hops,
            top - 2,
        );
        let at = (WIDTH - 2 - BOX, 2);
        host(
            html,
            at,
            ("director", path.dip),
            is_director,
            &director_hops,
            top - 2,
        );
        let at = (WIDTH - 2 - BOX, below);
        host(
            html,
            at,
            (&server, path.rip),
            is_server,
            &server_hops,
            bottom,
        );
        let at = (2, below + bottom - height(&gateway_hops));
        host(
            html,
            at,
            ("gateway", path.gateway),
            true,
            &gateway_hops,
            height(&gateway_hops),
        );
        if at.1 > below && hop(Hop::SpoofedSourceTransit).is_some() {
            let class = hop(Hop::SpoofedSourceTransit).map_or("", class);
            line(html, class, (LEFT, below), (LEFT, at.1));
        }
    });
    if path.seen_from.len() < 3 || !transit.is_empty() || !tunnel.is_empty() {
        legend(html, path, !transit.is_empty() || !tunnel.is_empty());
    }
}

fn legend(html: &mut Html, path: &PathReport, has_routers: bool) {
    html.element("p", &[("class", &"legend")], |html| {
        if path.seen_from.len() < 3 {
            html.say("A dashed box: nothing was seen from there. ");
        }
        if has_routers {
            html.say(
                "Routers are those that answered the sweeps below: a full dot what was asked of, an empty one only \
                 its control.",
            );
        }
    });
}

/// What the picture shows, for who does not see it.
fn told(path: &PathReport, hops: &[&HopReport]) -> String {
    let hops: Vec<_> = hops
        .iter()
        .map(|hop| format!("{} {}", hop.id, mark::verdict(hop.verdict)))
        .collect();
    format!("The path of {}: {}", path.realserver, hops.join(", "))
}

/// The routers between two hosts, as the sweep between them shows them, in the order of travel.
fn routers(
    path: &PathReport,
    is_it: impl Fn(&Sweep) -> bool,
    ends: &[Option<Ipv4Addr>],
) -> Vec<Router> {
    let Some(sweep) = path.sweeps.iter().find(|sweep| is_it(sweep)) else {
        return Vec::new();
    };
    let rows = sweep.rows.iter().filter(|row| !row.is_end);
    let routers = rows.filter_map(|row| {
        // To the VIP a router may answer by another address: the control's names it.
        let known = match row.control.by.is_empty() {
            true => &row.asked.by,
            false => &row.control.by,
        };
        let first = known.first()?;
        if ends.contains(&Some(*first)) {
            return None;
        }
        let more = match known.len() {
            1 => String::new(),
            number => format!(" +{}", number - 1),
        };
        Some(Router {
            words: format!("{first}{more}"),
            answered: row.asked.answered > row.asked.refused,
        })
    });
    routers.collect()
}

/// A host, and the hops that lie within it.
fn corner(
    html: &mut Html,
    (x, y): (i32, i32),
    (kind, name): (&str, &str),
    is_seen: bool,
    hops: &[&HopReport],
    height: i32,
) {
    let class = match is_seen {
        true => "host",
        false => "host unseen",
    };
    html.shape(
        "rect",
        &[
            ("class", &class),
            ("x", &x),
            ("y", &y),
            ("width", &BOX),
            ("height", &height),
            ("rx", &6),
        ],
    );
    words(html, "name", (x + 9, y + 4 + LINE), kind);
    words(html, "dim", (x + 9, y + 4 + 2 * LINE), name);
    for (number, hop) in hops.iter().enumerate() {
        let y = y + HEAD + HOP * number as i32 + HOP / 2;
        Mark::from(hop.verdict).drawn(html, (x + 16, y - 2), 14);
        words(html, "hop", (x + 27, y + 2), hop.id.id());
    }
}

/// A name that fits a box.
fn shortened(name: &str) -> String {
    const FITS: usize = 15;
    match name.chars().count() <= FITS {
        true => name.to_owned(),
        false => name.chars().take(FITS - 1).chain(['…']).collect(),
    }
}

fn class(hop: &HopReport) -> &'static str {
    match hop.verdict {
        HopVerdict::Proven => "way good",
        HopVerdict::Broken => "way bad",
        HopVerdict::Unproven => "way open",
        HopVerdict::Skipped => "way none",
    }
}

fn arrow(html: &mut Html, class: &'static str, from: (i32, i32), to: (i32, i32)) {
    let way = ((to.0 - from.0).signum(), (to.1 - from.1).signum());
    line(html, class, from, (to.0 - 8 * way.0, to.1 - 8 * way.1));
    head(html, class, to, way);
}

fn line(html: &mut Html, class: &'static str, from: (i32, i32), to: (i32, i32)) {
    let path = format!("M{} {}L{} {}", from.0, from.1, to.0, to.1);
    html.shape("path", &[("class", &class), ("d", &path)]);
}

/// An arrow's head, with its point there.
fn head(html: &mut Html, class: &'static str, (x, y): (i32, i32), way: (i32, i32)) {
    let (back, side) = ((x - 9 * way.0, y - 9 * way.1), (5 * way.1, 5 * way.0));
    let path = format!(
        "M{x} {y}L{} {}L{} {}z",
        back.0 + side.0,
        back.1 + side.1,
        back.0 - side.0,
        back.1 - side.1
    );
    let class = format!("head {}", class.trim_start_matches("way "));
    html.shape("path", &[("class", &class), ("d", &path)]);
}

fn node(html: &mut Html, (x, y): (i32, i32), answered: bool) {
    let class = match answered {
        true => "router full",
        false => "router",
    };
    html.shape(
        "circle",
        &[("class", &class), ("cx", &x), ("cy", &y), ("r", &5)],
    );
}

fn words(html: &mut Html, class: &'static str, (x, y): (i32, i32), text: &str) {
    html.words("text", &[("class", &class), ("x", &x), ("y", &y)], text);
}
