//! Sweeps and times as pictures, each beside a table that says the same.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::report::html::mark::Mark;
use crate::report::html::markup::Html;
use crate::report::sweep::Sweep;
use crate::report::sweep::SweepCell;
use crate::report::sweep::SweepRow;

/// Width of a drawing; the middle of each side's line; height of a time to live, and of what stands above the first.
const WIDTH: i32 = 420;
const ASKED: i32 = 64;
const CONTROL: i32 = 254;
const ROW: i32 = 38;
const HEAD: i32 = 56;
/// What a cut takes.
const CUT: i32 = 22;

/// A sweep: drawn, its round trips, and as a table.
pub(super) fn sweep(html: &mut Html, sweep: &Sweep) {
    let (from, to) = &sweep.ends;
    let rows = folded(&sweep.rows);
    html.element("figure", &[("class", &"sweep")], |html| {
        html.element("div", &[("class", &"plots")], |html| {
            lanes(html, sweep, &rows);
            round_trips(html, &sweep.rows);
        });
        html.element("figcaption", &[], |html| {
            let (asked, control) = &sweep.sides;
            html.say(format!(
                "What {from} sends to the {to}, {asked} and, as the control, {control}: who answered at each time to \
                 live (TTL), and of how many."
            ));
            let (who, is_seen) = sweep.heard;
            match is_seen {
                _ if sweep.end == "server" => {
                    html.say(" What arrives is known from the real server or from its answers.");
                }
                true => html.say(format!(
                    " What is sent {asked} is answered to the {who}: the clocks of two hosts tell no round trip."
                )),
                false => html.say(format!(
                    " What is sent {asked} is answered to the {who}, where nothing was seen: no answer says nothing \
                     here."
                )),
            }
        });
    });
    table(html, sweep, &rows);
}

/// A row to draw: how its time to live is called, and the sweep's row.
type Folded<'a> = (String, &'a SweepRow);

/// The rows, those in a row that nobody answered as one.
fn folded(rows: &[SweepRow]) -> Vec<Folded<'_>> {
    let is_silent = |row: &SweepRow| !row.is_end && row.asked.answered + row.control.answered == 0;
    let groups = rows.chunk_by(|one, next| is_silent(one) && is_silent(next));
    let named = groups.map(|group| {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let name = match first.ttl == last.ttl {
            true => first.ttl.to_string(),
            false => format!("{}–{}", first.ttl, last.ttl),
        };
        (name, first)
    });
    named.collect()
}

fn lanes(html: &mut Html, sweep: &Sweep, rows: &[Folded<'_>]) {
    let cut_at = sweep
        .cut
        .and_then(|(ttl, _)| rows.iter().position(|(_, row)| row.ttl > ttl));
    let middle = |number: usize| {
        let below = cut_at.is_some_and(|cut| number >= cut);
        HEAD + ROW * number as i32 + 10 + if below { CUT } else { 0 }
    };
    let height = middle(rows.len()) - 4;
    let view = format!("0 0 {WIDTH} {height}");
    let (from, to) = &sweep.ends;
    let title = format!("Two sweeps from {from} to the {to}; the table below says the same");
    let attributes: [(_, &dyn Display); 4] = [
        ("class", &"lanes"),
        ("viewBox", &view),
        ("role", &"img"),
        ("aria-label", &title),
    ];
    html.element("svg", &attributes, |html| {
        text(html, "dim", (2, 18), "TTL");
        text(html, "name", (ASKED - 8, 18), &sweep.sides.0);
        text(html, "name", (CONTROL - 8, 18), &sweep.sides.1);
        let start = HEAD - 16;
        for (x, side) in [(ASKED, true), (CONTROL, false)] {
            html.shape(
                "circle",
                &[
                    ("class", &"start"),
                    ("cx", &x),
                    ("cy", &(start - 8)),
                    ("r", &3),
                ],
            );
            let mut above = start - 8;
            for number in 0..rows.len() {
                let y = middle(number);
                let class = match side && cut_at.is_some_and(|cut| number >= cut) {
                    true => "way bad",
                    false => "way plain",
                };
                let d = format!("M{x} {above}L{x} {y}");
                html.shape("path", &[("class", &class), ("d", &d)]);
                above = y;
            }
        }
        if let (Some((_, word)), Some(number)) = (sweep.cut, cut_at) {
            cut(html, middle(number) - 18, word);
        }
        for (number, (name, row)) in rows.iter().enumerate() {
            let y = middle(number);
            text(html, "ttl", (2, y + 4), name);
            if row.is_end {
                text(html, "dim", (2, y + 17), sweep.end);
            }
            cell(html, (ASKED, y), &row.asked);
            cell(html, (CONTROL, y), &row.control);
        }
    });
}

/// A line across the side that is asked of.
fn cut(html: &mut Html, y: i32, word: &str) {
    let d = format!("M{} {y}L{} {y}", ASKED - 14, CONTROL - 34);
    html.shape("path", &[("class", &"cut"), ("d", &d)]);
    text(html, "cut", (ASKED + 14, y - 5), word);
}

fn cell(html: &mut Html, (x, y): (i32, i32), cell: &SweepCell) {
    if cell.sent == 0 {
        return;
    }
    let mark = mark(cell);
    mark.drawn(html, (x, y), 16);
    let first = match addresses(&cell.by, 1) {
        names if names.is_empty() => "no answer".to_owned(),
        names => names,
    };
    text(html, "", (x + 14, y + 1), &first);
    let mut second = counted(cell);
    if let Some(median) = median(&cell.round_trips) {
        second = format!("{second}, {}", milliseconds(median));
    }
    text(html, "dim", (x + 14, y + 15), &second);
}

/// All, some or none of them answered.
fn mark(cell: &SweepCell) -> Mark {
    match cell.answered - cell.refused {
        0 if cell.refused > 0 => Mark::Bad,
        0 => Mark::None,
        answered if answered < cell.sent => Mark::Open,
        _ => Mark::Good,
    }
}

fn counted(cell: &SweepCell) -> String {
    let answered = cell.answered - cell.refused;
    match cell.refused {
        0 => format!("{answered} of {}", cell.sent),
        refused => format!("{answered} of {}, {refused} refused", cell.sent),
    }
}

fn addresses(by: &[Ipv4Addr], at_most: usize) -> String {
    let named: Vec<_> = by.iter().take(at_most).map(ToString::to_string).collect();
    match by.len() > at_most {
        true => format!("{} +{}", named.join(", "), by.len() - at_most),
        false => named.join(", "),
    }
}

fn table(html: &mut Html, sweep: &Sweep, rows: &[Folded<'_>]) {
    html.element("details", &[], |html| {
        html.words("summary", &[], "The same as a table");
        html.element("table", &[("class", &"wide")], |html| {
            let (asked, control) = &sweep.sides;
            html.words(
                "caption",
                &[],
                format!(
                    "From {} to the {}, by time to live",
                    sweep.ends.0, sweep.ends.1
                ),
            );
            html.columns(&["TTL", asked, control, "round trip of the control"]);
            for (name, row) in rows {
                html.element("tr", &[], |html| {
                    let ttl = match row.is_end {
                        true => format!("{name}, the {}", sweep.end),
                        false => name.clone(),
                    };
                    html.words("th", &[("scope", &"row")], ttl);
                    for cell in [&row.asked, &row.control] {
                        let who = match (cell.sent, addresses(&cell.by, 8)) {
                            (0, _) => "not sent".to_owned(),
                            (_, who) if who.is_empty() => "nobody".to_owned(),
                            (_, who) => who,
                        };
                        html.words("td", &[], format!("{who}, {}", counted(cell)));
                    }
                    html.words("td", &[], spread(&row.control.round_trips));
                });
            }
        });
    });
}

/// The round trips of the control by time to live, every one a dot.
fn round_trips(html: &mut Html, rows: &[SweepRow]) {
    const HEIGHT: i32 = 170;
    const FLOOR: i32 = HEIGHT - 26;
    const CEILING: i32 = 26;
    const MARGIN: i32 = 56;
    let trips = rows.iter().flat_map(|row| &row.control.round_trips);
    let Some(greatest) = trips.max() else {
        return;
    };
    let top = ceiling(*greatest);
    let view = format!("0 0 {WIDTH} {HEIGHT}");
    let attributes: [(_, &dyn Display); 4] = [
        ("class", &"trips"),
        ("viewBox", &view),
        ("role", &"img"),
        ("aria-label", &"Round trips of the control, by time to live"),
    ];
    html.element("svg", &attributes, |html| {
        text(html, "name", (2, 12), "round trip of the control, by TTL");
        for (y, value) in [
            (FLOOR, Duration::ZERO),
            ((FLOOR + CEILING) / 2, top / 2),
            (CEILING, top),
        ] {
            let d = format!("M{MARGIN} {y}L{} {y}", WIDTH - 4);
            html.shape("path", &[("class", &"grid"), ("d", &d)]);
            text(html, "dim end", (MARGIN - 6, y + 4), &milliseconds(value));
        }
        let shown: Vec<_> = rows
            .iter()
            .filter(|row| !row.control.round_trips.is_empty())
            .collect();
        let step = (WIDTH - MARGIN - 24) / shown.len().max(1) as i32;
        for (number, row) in shown.iter().enumerate() {
            let x = MARGIN + 12 + step * number as i32 + step / 2;
            text(html, "dim middle", (x, HEIGHT - 10), &row.ttl.to_string());
            for trip in &row.control.round_trips {
                let share = trip.as_secs_f64() / top.as_secs_f64();
                let y = f64::from(FLOOR) - share * f64::from(FLOOR - CEILING);
                let y = format!("{y:.1}");
                html.shape(
                    "circle",
                    &[("class", &"dot"), ("cx", &x), ("cy", &y), ("r", &4)],
                );
            }
        }
    });
}

/// The end of a scale: 1, 2 or 5 times a power of ten of microseconds, not below.
fn ceiling(greatest: Duration) -> Duration {
    let greatest = greatest.as_micros().max(1);
    let mut power = 1;
    loop {
        if let Some(end) = [1, 2, 5]
            .into_iter()
            .map(|digit| digit * power)
            .find(|end| *end >= greatest)
        {
            return Duration::from_micros(u64::try_from(end).unwrap_or(u64::MAX));
        }
        power *= 10;
    }
}

/// How many of so many, as a bar and in figures.
pub(super) fn bar(html: &mut Html, (part, whole): (usize, usize)) {
    let mark = match part {
        0 => Mark::None,
        part if part < whole => Mark::Open,
        _ => Mark::Good,
    };
    html.element("span", &[("class", &"bar")], |html| {
        let attributes: [(_, &dyn Display); 3] = [
            ("class", &"bar"),
            ("viewBox", &"0 0 80 12"),
            ("aria-hidden", &"true"),
        ];
        html.element("svg", &attributes, |html| {
            html.shape(
                "rect",
                &[
                    ("class", &"frame"),
                    ("x", &0.5),
                    ("y", &0.5),
                    ("width", &79),
                    ("height", &11),
                ],
            );
            let width = 79 * part / whole.max(1);
            let class = format!("full {}", mark.class());
            html.shape(
                "rect",
                &[
                    ("class", &class),
                    ("x", &0.5),
                    ("y", &0.5),
                    ("width", &width),
                    ("height", &11),
                ],
            );
        });
        html.say(format!("{part} of {whole}"));
    });
}

/// Durations on a line from 0 to `greatest`.
pub(super) fn strip(html: &mut Html, trips: &[Duration], greatest: Duration) {
    let top = ceiling(greatest);
    let attributes: [(_, &dyn Display); 3] = [
        ("class", &"strip"),
        ("viewBox", &"0 0 160 14"),
        ("aria-hidden", &"true"),
    ];
    html.element("svg", &attributes, |html| {
        html.shape(
            "path",
            &[("class", &"grid"), ("d", &"M4 1V13M4 7H156M156 1V13")],
        );
        for trip in trips {
            let x = 4.0 + trip.as_secs_f64() / top.as_secs_f64() * 152.0;
            let x = format!("{x:.1}");
            html.shape(
                "circle",
                &[("class", &"dot"), ("cx", &x), ("cy", &7), ("r", &3.5)],
            );
        }
    });
}

/// What the line of [`strip`] is long.
pub(super) fn scale(greatest: Duration) -> String {
    format!("0 to {}", milliseconds(ceiling(greatest)))
}

/// Least, median and greatest, as far as there are so many.
pub(super) fn spread(trips: &[Duration]) -> String {
    match (trips.iter().min(), median(trips), trips.iter().max()) {
        (Some(least), Some(median), Some(greatest)) if least < greatest => format!(
            "{}, median {}, up to {}",
            milliseconds(*least),
            milliseconds(median),
            milliseconds(*greatest)
        ),
        (Some(only), ..) => milliseconds(*only),
        _ => "–".to_owned(),
    }
}

fn median(trips: &[Duration]) -> Option<Duration> {
    let mut sorted = trips.to_vec();
    sorted.sort();
    sorted.get(sorted.len() / 2).copied()
}

pub(super) fn milliseconds(time: Duration) -> String {
    let micros = time.as_micros();
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..100_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{} ms", micros / 1000),
    }
}

fn text(html: &mut Html, class: &'static str, (x, y): (i32, i32), words: &str) {
    html.words("text", &[("class", &class), ("x", &x), ("y", &y)], words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_at_a_round_number() {
        for (micros, end) in [
            (0, 1),
            (3, 5),
            (5, 5),
            (51, 100),
            (1_200, 2_000),
            (70_000, 100_000),
        ] {
            let (micros, end) = (Duration::from_micros(micros), Duration::from_micros(end));
            assert_eq!(ceiling(micros), end);
        }
    }

    #[test]
    fn times_are_written_in_the_digits_that_count() {
        let trips = [9_876, 250, 120_400].map(Duration::from_micros);
        assert_eq!(spread(&trips), "250 µs, median 9.8 ms, up to 120 ms");
        assert_eq!(spread(&trips[..1]), "9.8 ms");
        assert_eq!(spread(&[]), "–");
    }
}
