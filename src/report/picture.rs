//! The path as it is proven: what a terminal shows meanwhile.
//!
//! Green is what packets have proven so far. Nothing is called broken here before the judge has: what is not proven
//! is open, and dim.

use std::net::Ipv4Addr;
use std::time::Duration;

use anstyle::Style;

use crate::evidence::Evidence;
use crate::plan::Hop;
use crate::plan::Path;
use crate::plan::Probe;
use crate::report::PathReport;
use crate::report::Report;
use crate::report::escape::escape;
use crate::report::model::gateway;
use crate::report::style::BOLD;
use crate::report::style::DIM;
use crate::report::style::Line;
use crate::report::style::PLAIN;
use crate::report::style::TYPE;
use crate::report::style::sign;
use crate::report::text;
use crate::verdict::HopVerdict;
use crate::verdict::Severity;

/// Every path with what is known of its hops.
#[derive(Clone, Debug)]
pub struct Picture {
    paths: Vec<Road>,
    status: Status,
}

#[derive(Clone, Debug)]
struct Road {
    realserver: String,
    title: String,
    ends: Ends,
    hops: Vec<Stretch>,
}

/// The addresses of the hosts of a path.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) realserver: String,
    pub(super) cip: Option<Ipv4Addr>,
    pub(super) dip: Option<Ipv4Addr>,
    pub(super) rip: Option<Ipv4Addr>,
    pub(super) gateway: Option<Ipv4Addr>,
}

/// A hop as it is drawn.
#[derive(Clone, Debug)]
struct Stretch {
    hop: Hop,
    /// `None`: open.
    verdict: Option<HopVerdict>,
    /// The kinds of the packets that are on their way here, one for each packet.
    flying: Vec<String>,
    /// What else is said of it.
    said: String,
}

#[derive(Clone, Debug)]
enum Status {
    /// It goes on.
    Going {
        phase: String,
        sent: usize,
        elapsed: Duration,
        /// What is said of the time that it still takes; may be empty.
        left: String,
    },
    /// It was judged: the verdict's colour, the verdict, and what it is made of.
    Judged(Style, &'static str, String),
}

impl Picture {
    /// What is known now; the last `young` probes were sent just now, and may be on their way.
    pub fn new(evidence: &Evidence, young: usize, phase: &str, elapsed: Duration) -> Picture {
        let plan = evidence.plan();
        let paths = plan.paths.iter().enumerate().map(|(number, path)| {
            let proofs = evidence.proofs(number);
            let hops = Hop::ALL.into_iter().map(|hop| Stretch {
                hop,
                verdict: proofs.contains_key(&hop).then_some(HopVerdict::Proven),
                flying: Vec::new(),
                said: String::new(),
            });
            Road::new(path, gateway(evidence, number, path), hops.collect())
        });
        let mut paths: Vec<_> = paths.collect();
        let probes = evidence.probes();
        for probe in &probes[probes.len().saturating_sub(young)..] {
            if let Some((path, hop)) = whereabouts(evidence, probe) {
                let stretch = paths[path].hops.iter_mut().find(|s| s.hop == hop);
                let kind = probe.id.kind.to_string();
                stretch.expect("a road has every hop").flying.push(kind);
            }
        }
        Picture {
            paths,
            status: Status::Going {
                phase: phase.to_owned(),
                sent: probes.len(),
                elapsed,
                left: String::new(),
            },
        }
    }

    /// The same, and how long it still takes about, and may take.
    pub fn with_time_left(mut self, needed: Duration, allowed: Duration) -> Picture {
        let seconds = |time: Duration| {
            let whole = Duration::from_secs(time.as_secs() + 1);
            humantime::format_duration(whole)
        };
        if let Status::Going { left, .. } = &mut self.status {
            *left = match needed <= allowed {
                true => format!(", about {} left", seconds(needed)),
                // Those that are not asked by then are unproven.
                false => format!(
                    ", about {} left, --timeout in {}",
                    seconds(needed),
                    seconds(allowed)
                ),
            };
        }
        self
    }

    /// What was judged in the end.
    pub fn judged(report: &Report) -> Picture {
        Picture {
            paths: report.paths.iter().map(Road::judged).collect(),
            status: {
                let (style, word, words) = text::sum(report);
                Status::Judged(style, word, words)
            },
        }
    }

    /// The picture in lines, with escape sequences for colour: at most so many characters wide, and at most so many
    /// lines. As much is drawn as fits: hosts and hops, hops, or one line for each path.
    pub fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        let full = |nodes| {
            let roads = self.paths.iter();
            let mut lines: Vec<_> = roads.flat_map(|road| road.lines(columns, nodes)).collect();
            lines.push(self.status(columns));
            (lines.len() <= rows).then_some(lines)
        };
        full(true)
            .or_else(|| full(false))
            .unwrap_or_else(|| self.compact(columns, rows))
    }

    /// One line for each path.
    pub(super) fn overview(&self, columns: usize) -> Vec<String> {
        let mut lines = self.compact(columns, usize::MAX);
        lines.pop();
        lines
    }

    fn compact(&self, columns: usize, rows: usize) -> Vec<String> {
        let names = self
            .paths
            .iter()
            .map(|road| road.realserver.chars().count());
        let width = names
            .max()
            .unwrap_or_default()
            .clamp(4, columns.max(20) / 4);
        // Header, a line for what does not fit, and the status.
        let room = rows.saturating_sub(3).max(1);
        let (mut shown, mut hidden): (Vec<_>, _) = (self.paths.iter().collect(), 0);
        if shown.len() > room {
            let mut open: Vec<_> = shown.iter().filter(|road| !road.is_proven()).collect();
            open.truncate(room);
            hidden = shown.len() - open.len();
            shown = open.into_iter().copied().collect();
        }
        let mut lines = vec![heading(width, columns)];
        lines.extend(shown.into_iter().map(|road| road.compact(width, columns)));
        if hidden > 0 {
            let more = format!("… and {hidden} more");
            lines.push(Line::new(columns).with(DIM, &more).end());
        }
        lines.push(self.status(columns));
        lines.drain(..lines.len().saturating_sub(rows));
        lines
    }

    fn status(&self, columns: usize) -> String {
        let (phase, sent, elapsed, left) = match &self.status {
            Status::Judged(style, word, words) => {
                let line = Line::new(columns).with(*style, word);
                return line.with(PLAIN, &format!(": {words}")).end();
            }
            Status::Going {
                phase,
                sent,
                elapsed,
                left,
            } => (phase, sent, elapsed.as_secs_f64(), left),
        };
        let hops = || self.paths.iter().flat_map(|road| &road.hops);
        let proven = hops().filter(|s| s.verdict == Some(HopVerdict::Proven));
        let (proven, all) = (proven.count(), hops().count());
        let flying: usize = hops().map(|stretch| stretch.flying.len()).sum();
        let probes = if *sent == 1 { "probe" } else { "probes" };
        let begin = format!("{phase} {elapsed:.1} s: ");
        let long = format!("{proven} of {all} hops proven, {sent} {probes} sent");
        let awaited = match flying {
            0 => String::new(),
            number => format!(", {number} awaited"),
        };
        let width = |words: &str| begin.chars().count() + words.chars().count();
        let words = [
            format!("{long}{awaited}{left}"),
            format!("{long}{left}"),
            format!("{proven}/{all} proven, {sent} sent{left}"),
            format!("{proven}/{all} proven{left}"),
            format!("{proven}/{all} proven, {sent} sent"),
        ];
        let words = words.iter().find(|words| width(words) <= columns);
        let short = format!("{proven}/{all}");
        let words = words.unwrap_or(&short);
        Line::new(columns)
            .with(BOLD, &begin)
            .with(PLAIN, words)
            .end()
    }
}

/// The path and the hop that a packet is on, if it is on its way: the hop after the point that it was seen at last.
fn whereabouts(evidence: &Evidence, probe: &Probe) -> Option<(usize, Hop)> {
    let passage = evidence.passage(probe);
    if passage.sent.is_none() || passage.is_complete() || probe.is_limited() {
        return None;
    }
    let next = passage.furthest().map_or(0, |furthest| furthest + 1);
    let mut ahead = passage.waypoints[next..].iter();
    let hop = ahead.find_map(|waypoint| waypoint.hops.first())?;
    Some((passage.path, *hop))
}

impl Road {
    fn new(path: &Path, gateway: Option<Ipv4Addr>, hops: Vec<Stretch>) -> Road {
        let known = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
        let realserver = escape(&path.realserver);
        let protocol = path.protocol.name();
        Road {
            title: text::title(
                &realserver,
                known(path.cip),
                (path.vip, path.port, protocol),
            ),
            ends: Ends {
                realserver: realserver.clone(),
                cip: known(path.cip),
                dip: path.dip,
                rip: known(path.rip),
                gateway,
            },
            realserver,
            hops,
        }
    }

    fn judged(path: &PathReport) -> Road {
        let hops = path.hops.iter().map(|hop| {
            let mut causes = path.findings.iter();
            let cause = causes.find(|f| f.severity == Severity::Error && f.hop == hop.id);
            Stretch {
                hop: hop.id,
                verdict: Some(hop.verdict),
                flying: Vec::new(),
                said: match (hop.verdict, cause) {
                    (HopVerdict::Broken, Some(cause)) => format!("broken: {}", cause.code),
                    (HopVerdict::Proven, _) => String::new(),
                    (verdict, _) => sign(verdict).2.to_owned(),
                },
            }
        });
        let protocol = path.protocol.name();
        Road {
            realserver: path.realserver.clone(),
            title: text::title(&path.realserver, path.cip, (path.vip, path.port, protocol)),
            ends: Ends::of(path),
            hops: hops.collect(),
        }
    }

    fn is_proven(&self) -> bool {
        let mut hops = self.hops.iter();
        hops.all(|stretch| stretch.verdict == Some(HopVerdict::Proven))
    }

    fn lines(&self, columns: usize, nodes: bool) -> Vec<String> {
        let mut lines = vec![Line::new(columns).with(BOLD, &self.title).end()];
        let node = |(name, address): (String, String)| {
            let line = Line::new(columns).with(BOLD, &format!("  {name}"));
            line.with(PLAIN, &address).end()
        };
        for stretch in &self.hops {
            let begins = text::node_before(stretch.hop, &self.ends).filter(|_| nodes);
            lines.extend(begins.map(node));
            lines.push(stretch.line(columns));
        }
        if nodes {
            lines.push(node(("director".to_owned(), text::shown(self.ends.dip))));
        }
        lines
    }

    fn compact(&self, width: usize, columns: usize) -> String {
        let line = Line::new(columns).with(BOLD, &fitted(&self.realserver, width));
        let cells = self
            .hops
            .iter()
            .map(|stretch| (stretch.hop, stretch.cell()));
        let line = with_cells(line, &self.ends, cells);
        let proven = |stretch: &&Stretch| stretch.verdict == Some(HopVerdict::Proven);
        let count = self.hops.iter().filter(proven).count();
        let line = line.with(PLAIN, &format!(" {count}/{}", self.hops.len()));
        let broken = |stretch: &&Stretch| stretch.verdict == Some(HopVerdict::Broken);
        let first = self.hops.iter().find(broken);
        let first = first.or_else(|| self.hops.iter().find(|stretch| !proven(stretch)));
        match first {
            Some(stretch) if !stretch.said.is_empty() => {
                let style = stretch.cell().1;
                line.with(style, &format!(" {} {}", stretch.hop, stretch.said))
            }
            Some(stretch) => line.with(DIM, &format!(" {}", stretch.hop)),
            None => line,
        }
        .end()
    }
}

impl Ends {
    pub(super) fn of(path: &PathReport) -> Ends {
        Ends {
            realserver: path.realserver.clone(),
            cip: path.cip,
            dip: path.dip,
            rip: path.rip,
            gateway: path.gateway,
        }
    }
}

/// The line with a sign for each hop, those that begin at one host together.
pub(super) fn with_cells(
    mut line: Line,
    ends: &Ends,
    hops: impl Iterator<Item = (Hop, (char, Style))>,
) -> Line {
    for (hop, (sign, style)) in hops {
        if text::node_before(hop, ends).is_some() {
            line = line.with(PLAIN, " ");
        }
        line = line.with(style, &sign.to_string());
    }
    line
}

/// Which host each hop of the lines below begins at.
fn heading(width: usize, columns: usize) -> String {
    let words = format!("{:width$} c d   s     g  c", "");
    let words = match columns >= width + 60 {
        true => format!("{words}    from client, director, real server, gateway"),
        false => words,
    };
    Line::new(columns).with(DIM, &words).end()
}

impl Stretch {
    fn cell(&self) -> (char, Style) {
        match self.verdict {
            Some(verdict) => {
                let (sign, style, _) = sign(verdict);
                (sign, style)
            }
            None if !self.flying.is_empty() => ('▸', TYPE),
            None => ('○', DIM),
        }
    }

    fn line(&self, columns: usize) -> String {
        let (sign, style) = match self.verdict {
            None => ('○', DIM),
            Some(_) => self.cell(),
        };
        let road = text::road(self.hop, self.verdict == Some(HopVerdict::Proven));
        let line = Line::new(columns)
            .with(DIM, &format!("  {road} "))
            .with(style, &format!("{sign} {:22}", self.hop.id()));
        if !self.said.is_empty() {
            return line.with(style, &format!(" {}", self.said)).end();
        }
        if self.flying.is_empty() {
            return line.end();
        }
        let mut kinds: Vec<&str> = Vec::new();
        for kind in &self.flying {
            if !kinds.contains(&kind.as_str()) {
                kinds.push(kind);
            }
        }
        let number = self.flying.len();
        let line = line.with(TYPE, &format!(" {}", "▸".repeat(number.min(3))));
        let line = match number > 3 {
            true => line.with(TYPE, &number.to_string()),
            false => line,
        };
        line.with(DIM, &format!(" {}", kinds.join(", "))).end()
    }
}

/// Text in so many characters, cut off or filled up.
pub(super) fn fitted(text: &str, width: usize) -> String {
    match text.chars().count() <= width {
        true => format!("{text:width$}"),
        false => {
            let kept = text.chars().take(width.saturating_sub(1));
            kept.chain(['…']).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn plain(picture: &Picture, size: (usize, usize)) -> String {
        let lines = picture.lines(size.0, size.1);
        assert!(lines.len() <= size.1, "{size:?}: {lines:?}");
        let lines = lines.iter().map(|line| {
            let plain = anstream::adapter::strip_str(line).to_string();
            assert!(plain.chars().count() <= size.0, "{size:?}: {plain}");
            format!("{}\n", plain.trim_end())
        });
        lines.collect()
    }

    /// Of two closed loops to the first of two real servers one came out of the tunnel; the other was sent just now.
    fn now() -> Picture {
        let evidence = fixture::evidence();
        Picture::new(&evidence, 1, "probing", Duration::from_millis(2_345))
    }

    #[test]
    fn the_time_that_is_left_is_said_as_long_as_there_is_room() {
        let ms = Duration::from_millis;
        let status = |columns, needed, allowed| {
            let picture = now().with_time_left(ms(needed), ms(allowed));
            plain(&picture, (columns, 3))
                .lines()
                .last()
                .unwrap()
                .to_owned()
        };
        let said = |words| format!("probing 2.3 s: {words}");
        let left = "2 of 24 hops proven, 2 probes sent, 1 awaited, about 1m 10s left";
        assert_eq!(status(100, 69_500, 100_000), said(left));
        let short = "2/24 proven, 2 sent, about 1m 10s left";
        assert_eq!(status(54, 69_500, 100_000), said(short));
        let over = "2/24 proven, about 1m 10s left, --timeout in 24s";
        assert_eq!(status(64, 69_500, 23_000), said(over));
        assert_eq!(status(42, 69_500, 23_000), said("2/24 proven, 2 sent"));
    }

    #[test]
    fn packets_are_drawn_where_they_are_and_proven_hops_are_green() {
        let expected = "\
rs1: 198.51.100.7 > 192.0.2.10:80/tcp
  client 198.51.100.7
  ┊ ○ client-to-director
  director 192.0.2.2
  ┊ ○ director-forward
  ┊ ○ director-source
  ║ ✔ director-to-realserver ▸ tunnel-syn
  real server rs1 203.0.113.5
  ║ ✔ decapsulation
  ┊ ○ realserver-accept
  ┊ ○ service
  ┊ ○ realserver-egress
  ┊ ○ gateway-arp
  gateway 203.0.113.1
  ┊ ○ spoofed-source-transit
  ┊ ○ client-arrival
  client 198.51.100.7
  ┊ ○ return-to-director
  director 192.0.2.2
";
        let got = plain(&now(), (80, 50));
        assert!(
            got.starts_with(expected),
            "expected\n{expected}\ngot\n{got}"
        );
        let status = "probing 2.3 s: 2 of 24 hops proven, 2 probes sent, 1 awaited\n";
        assert!(got.ends_with(status), "{got}");
        let styled = now().lines(80, 50);
        assert!(
            styled[6].contains("\x1b[32m✔ director-to-realserver"),
            "{:?}",
            styled[6]
        );
        assert!(styled[10].contains("\x1b[2m○ service"), "{:?}", styled[10]);
        // Nothing is red before the judge has spoken.
        assert!(
            !styled.iter().any(|line| line.contains("\x1b[31m")),
            "{styled:?}"
        );
    }

    #[test]
    fn where_there_is_less_room_less_is_drawn() {
        let got = plain(&now(), (40, 10));
        assert_eq!(got.lines().count(), 4, "{got}");
        assert!(got.contains(" ○ ○○✔ ✔○○○○ ○○ ○ 2/12 "), "{got}");
        assert!(
            got.ends_with("probing 2.3 s: 2/24 proven, 2 sent\n"),
            "{got}"
        );
        // Without the hosts, but with every hop.
        let got = plain(&now(), (80, 28));
        assert!(
            got.contains("○ return-to-director") && !got.contains("gateway 203"),
            "{got}"
        );
        for rows in 1..60 {
            for columns in [1, 5, 10, 20, 40, 200] {
                plain(&now(), (columns, rows));
            }
        }
    }

    #[test]
    fn in_the_end_each_hop_has_its_verdict() {
        let got = plain(&Picture::judged(&fixture::report()), (80, 60));
        for line in [
            "  ┊ ? client-to-director     unproven\n",
            "  ║ ✔ decapsulation\n",
            "  ┊ ✘ realserver-accept      broken: rp-filter-drops\n",
            "  ┊ · service                skipped\n",
            "\nbroken: 16 of 24 hops proven, 1 broken, 1 unproven, 6 skipped; 3 probes sent in…\n",
        ] {
            assert!(got.contains(line), "expected\n{line}\ngot\n{got}");
        }
    }
}
