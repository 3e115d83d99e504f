use std::collections::BTreeSet;

use regex::Regex;

use super::*;
use crate::report::fixture;
use crate::report::sweep::SweepRow;

/// A page of each report.
fn pages() -> [String; 3] {
    [
        html(&fixture::report(), true),
        run_html(&fixture::run_report(), true),
        spoof_html(&fixture::spoof_report(), true),
    ]
}

/// A page without its style sheets.
fn body(page: &str) -> String {
    let style = Regex::new(r"(?s)<style>.*?</style>").unwrap();
    style.replace_all(page, "").into_owned()
}

#[test]
fn the_page_is_as_it_was_looked_at() {
    let version = concat!("tunproof ", env!("CARGO_PKG_VERSION"));
    let got = body(&html(&fixture::report(), true)).replace(version, "tunproof VERSION");
    let expected = include_str!("../../../tests/data/report.html");
    if got != expected {
        let file = std::env::temp_dir().join("tunproof-report.html");
        std::fs::write(&file, &got).unwrap();
        let other = got
            .lines()
            .zip(expected.lines())
            .find(|(one, other)| one != other);
        let (file, name) = (file.display(), "tests/data/report.html");
        panic!(
            "another page than {name}\ngot      {}\nexpected {}\nif it is right: cp {file} {name}",
            other.map_or("", |lines| lines.0),
            other.map_or("", |lines| lines.1)
        );
    }
}

/// Every tag is one that these pages have, with the attributes that they have; every element ends where it must.
fn assert_well_formed(page: &str) {
    const TAGS: &[&str] = &[
        "a",
        "article",
        "b",
        "body",
        "caption",
        "circle",
        "code",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "footer",
        "h1",
        "h2",
        "h3",
        "h4",
        "head",
        "header",
        "html",
        "i",
        "li",
        "main",
        "p",
        "path",
        "pre",
        "rect",
        "section",
        "small",
        "span",
        "summary",
        "svg",
        "symbol",
        "table",
        "td",
        "text",
        "th",
        "thead",
        "time",
        "title",
        "tr",
        "ul",
        "use",
    ];
    const ATTRIBUTES: &[&str] = &[
        "aria-hidden",
        "aria-label",
        "class",
        "cx",
        "cy",
        "d",
        "datetime",
        "height",
        "href",
        "id",
        "lang",
        "r",
        "role",
        "rx",
        "scope",
        "tabindex",
        "title",
        "viewBox",
        "width",
        "x",
        "y",
    ];
    let page = body(page);
    let page = page.strip_prefix("<!DOCTYPE html>\n").unwrap();
    let meta = Regex::new("<meta [^<>]*>")
        .unwrap()
        .replace_all(page, "")
        .into_owned();
    let tag = Regex::new(r#"<(/?)([a-z0-9]+)((?: [a-zA-Z-]+="[^"<>']*")*)(/?)>"#).unwrap();
    let attribute = Regex::new(r#" ([a-zA-Z-]+)="([^"]*)""#).unwrap();
    let mut open = Vec::new();
    let (mut ids, mut links) = (BTreeSet::new(), BTreeSet::new());
    for found in tag.captures_iter(&meta) {
        let name = found.get(2).unwrap().as_str();
        assert!(TAGS.contains(&name), "{}", &found[0]);
        for attribute in attribute.captures_iter(&found[3]) {
            assert!(ATTRIBUTES.contains(&&attribute[1]), "{}", &found[0]);
            match &attribute[1] {
                "id" => assert!(ids.insert(attribute[2].to_owned()), "twice: {}", &found[0]),
                "href" => {
                    let to = attribute[2].strip_prefix('#');
                    links.insert(to.unwrap_or_else(|| panic!("{}", &found[0])).to_owned());
                }
                _ => {}
            }
        }
        match (&found[1], &found[4]) {
            ("/", _) => assert_eq!(open.pop(), Some(name), "{}", &found[0]),
            ("", "") => open.push(name),
            _ => {}
        }
    }
    assert_eq!(open, [""; 0]);
    let rest = tag.replace_all(&meta, "");
    assert!(!rest.contains(['<', '>']), "{rest}");
    let nowhere: Vec<_> = links.difference(&ids).collect();
    assert!(nowhere.is_empty(), "links to nothing: {nowhere:?}");
}

#[test]
fn pages_are_well_formed_and_every_link_leads_somewhere() {
    for page in pages() {
        assert_well_formed(&page);
    }
}

#[test]
fn pages_load_nothing_and_run_nothing() {
    let attributes = Regex::new("<[^>]*>").unwrap();
    for page in pages() {
        for word in [
            "http:",
            "https:",
            "url(",
            "@import",
            "src=",
            "<script",
            "<link",
            "javascript:",
            " on",
        ] {
            let style = page.split("<style>").nth(1).unwrap();
            let found = match word {
                " on" => attributes
                    .find_iter(&page)
                    .any(|tag| tag.as_str().contains(" on")),
                "url(" | "@import" => style.contains(word),
                _ => page.contains(word),
            };
            assert!(!found, "{word}");
        }
        let policy = "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\"";
        assert!(page.contains(policy));
    }
}

const HOSTILE: &str =
    "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&lt;</style></svg>]]>-->";

fn hostile(text: &mut String) {
    text.push_str(HOSTILE);
}

#[test]
fn nothing_that_hosts_or_suites_say_becomes_markup() {
    let mut report = fixture::report();
    let findings = report.paths.iter_mut().flat_map(|path| &mut path.findings);
    for finding in findings.chain(&mut report.findings) {
        hostile(&mut finding.realserver);
        hostile(&mut finding.summary);
        hostile(&mut finding.detail);
        finding.fix.iter_mut().for_each(hostile);
    }
    for path in &mut report.paths {
        hostile(&mut path.realserver);
        path.hops
            .iter_mut()
            .flat_map(|hop| &mut hop.reason)
            .for_each(hostile);
        for sweep in &mut path.sweeps {
            hostile(&mut sweep.ends.0);
        }
    }
    for piece in &mut report.evidence {
        for text in [
            &mut piece.host,
            &mut piece.time,
            &mut piece.summary,
            &mut piece.noun,
        ] {
            hostile(text);
        }
    }
    for probe in &mut report.probes {
        hostile(&mut probe.from);
    }
    hostile(&mut report.timing.started);
    let mut run = fixture::run_report();
    hostile(&mut run.suite);
    hostile(&mut run.about);
    for step in &mut run.steps {
        for text in [&mut step.realserver, &mut step.id, &mut step.about]
            .into_iter()
            .chain(&mut step.reason)
        {
            hostile(text);
        }
        for expected in &mut step.expectations {
            hostile(&mut expected.expected);
            expected.reason.iter_mut().for_each(hostile);
        }
    }
    run.paths.clone_from(&report.paths);
    run.findings.clone_from(&report.findings);
    run.evidence.clone_from(&report.evidence);
    let mut spoof = fixture::spoof_report();
    for path in &mut spoof.paths {
        for text in [
            &mut path.realserver,
            &mut path.summary,
            &mut path.detail,
            &mut path.plotted.ends.0,
        ] {
            hostile(text);
        }
        path.advice.iter_mut().for_each(hostile);
    }
    spoof.evidence.clone_from(&report.evidence);
    for page in [
        html(&report, true),
        run_html(&run, true),
        spoof_html(&spoof, true),
    ] {
        assert_well_formed(&page);
        assert!(!page.contains("<script") && !page.contains("<img"));
        let escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=&#39;alert(2)&#39;&gt;";
        assert!(page.contains(escaped));
    }
}

#[test]
fn a_sweep_that_goes_silent_is_cut_there_and_told_in_a_table() {
    let page = spoof_html(&fixture::spoof_report(), false);
    let expected = [
        "from the VIP 192.0.2.10</text>",
        "nothing passes</text>",
        "203.0.113.1</text>",
        "6 of 6</text>",
        "no answer</text>",
        "0 of 6</text>",
        "10.0.0.1 +1</text>",
    ];
    let mut rest = page.as_str();
    for words in expected {
        let at = rest
            .find(words)
            .unwrap_or_else(|| panic!("{words} is not in\n{rest}"));
        rest = &rest[at..];
    }
    let row =
        "<tr><th scope=\"row\">2</th><td>nobody, 0 of 6</td><td>10.0.0.1, 10.0.0.2, 6 of 6</td>";
    assert!(rest.contains(row), "{rest}");
}

#[test]
fn rows_that_nobody_answered_are_one() {
    let mut report = fixture::spoof_report();
    let rows = &mut report.paths[0].plotted.rows;
    for ttl in 3..=30 {
        let mut row = SweepRow {
            ttl,
            ..SweepRow::default()
        };
        (row.asked.sent, row.control.sent) = (3, 3);
        rows.push(row);
    }
    let page = spoof_html(&report, false);
    assert_eq!(page.matches(">3–30</text>").count(), 1, "{page}");
    assert!(!page.contains(">17</text>"));
}

#[test]
fn only_what_is_named_is_shown_unless_all_is_asked_for() {
    let (short, long) = (
        html(&fixture::report(), false),
        html(&fixture::report(), true),
    );
    assert!(short.contains("id=\"e8\"") && !short.contains("id=\"e1\""));
    assert!(!short.contains("All evidence") && long.contains("All evidence"));
}
