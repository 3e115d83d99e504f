//! The binary on a real kernel: one QEMU guest with real `tunl0` and real IPVS runs every case of `cases.txt`.
//!
//! `init.sh` is the guest's first process, `topology.sh` builds the path by plain tools, `run.sh`
//! drives; what came of each case lies in `target/guest/results` and is judged here. One boot serves all tests.
//! A case that was judged wrongly stays there as `NAME.case.json`, for `tunproof judge`. `GUEST_ONLY=PATTERN` runs only the cases whose names match; `single-host`, `kill`,
//! `own-lab` and `unit` are names too. A full run gives the table `../matrix/guest.md`.

mod boot;
mod case;
#[path = "../matrix/table.rs"]
mod table;

use std::collections::BTreeSet;

use serde_json::Value;
use tunproof::plan::Hop;

use boot::results;
use boot::unit_tests;
use case::Case;
use case::blocks_unless_empty;
use case::cases;
use case::causes;
use case::fact;
use case::judge;
use case::judge_again;
use case::judge_cause;
use case::judge_spoof;
use case::judge_suite;
use case::ran;
use case::read;
use case::row;
use case::spoofs;
use case::suites;
use case::topologies;
use case::wanted;

#[test]
fn the_table_is_well_formed() {
    let cases = cases();
    let hops: Vec<_> = Hop::ALL.iter().map(|hop| hop.id()).collect();
    for case in &cases {
        for hop in &case.hops {
            assert!(
                *hop == "-" || hops.contains(hop),
                "{}: `{hop}` is no hop",
                case.name
            );
        }
        let may_break = case.exits.contains(&1);
        assert_eq!(may_break, !case.hops.is_empty(), "{}", case.name);
        assert!(!may_break || !case.codes.is_empty(), "{}", case.name);
    }
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "a name stands twice");
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn each_fault_and_trap_is_what_it_is_meant_to_be() {
    let results = results();
    let mut wrong = Vec::new();
    for lane in 0..2 {
        wrong.extend(blocks_unless_empty(
            results,
            &format!("build.{lane}"),
            "building the path",
        ));
        wrong.extend(blocks_unless_empty(
            results,
            &format!("topologies.{lane}"),
            "setting the topologies up or taking them down",
        ));
        wrong.extend(blocks_unless_empty(
            results,
            &format!("state.{lane}"),
            "the state before and after all cases",
        ));
    }
    for case in ran(results) {
        let name = case.name.split('.').next().unwrap();
        wrong.extend(blocks_unless_empty(
            results,
            &format!("{name}.break"),
            "breaking or mending",
        ));
        let got = read(results, &format!("{name}.connection"));
        if case.connection != "-" && got.trim() != case.connection {
            wrong.push(format!(
                "{name}: how far the kernel's own connection gets\nexpected {}\ngot      {}",
                case.connection,
                got.trim()
            ));
        }
    }
    none(wrong);
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn every_case_gets_its_verdict() {
    let results = results();
    let cases = ran(results);
    eprintln!("{:<36} {:>4} {:>8}", "case", "exit", "ms");
    for case in &cases {
        let (exit, elapsed) = (
            fact(results, &case.name, "exit"),
            fact(results, &case.name, "elapsed_ms"),
        );
        eprintln!("{:<36} {exit:>4} {elapsed:>8}", case.name);
    }
    none(
        cases
            .iter()
            .filter_map(|case| judge(results, case))
            .collect(),
    );
}

/// Of what was judged wrongly the case stays in `target/guest/results`, to be judged again by what mends it.
#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn every_case_is_judged_here_as_it_was_there() {
    let results = results();
    let cases = ran(results).into_iter().map(|case| {
        let is_right = judge(results, &case).is_none();
        (case.name, is_right)
    });
    let causes = causes().into_iter();
    let causes = causes.filter(|cause| wanted(results, cause.name));
    let causes = causes.map(|cause| {
        let is_right = judge_cause(results, &cause).is_none();
        (cause.name.to_owned(), is_right)
    });
    let suites = suites().into_iter();
    let suites = suites.filter(|suite| wanted(results, suite.name));
    let suites = suites.map(|suite| {
        let is_right = judge_suite(results, &suite).is_none();
        (suite.name.to_owned(), is_right)
    });
    let judged = cases.chain(causes).chain(suites);
    none(
        judged
            .filter_map(|(name, is_right)| judge_again(results, &name, is_right))
            .collect(),
    );
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn every_suite_passes_where_it_should_and_fails_where_it_should() {
    let results = results();
    let suites = suites().into_iter();
    let suites = suites.filter(|suite| wanted(results, suite.name));
    none(
        suites
            .filter_map(|suite| judge_suite(results, &suite))
            .collect(),
    );
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn no_run_leaves_anything_behind() {
    let results = results();
    let mut names: Vec<_> = ran(results).into_iter().map(|case| case.name).collect();
    let causes = causes().into_iter().map(|cause| cause.name);
    let suites = suites().into_iter().map(|suite| suite.name);
    names.extend(
        causes
            .chain(suites)
            .filter(|name| wanted(results, name))
            .map(str::to_owned),
    );
    if wanted(results, "director") {
        names.extend(["director".to_owned(), "realserver".to_owned()]);
    }
    if wanted(results, "kill.none") {
        for victim in ["controller", "d", "s"] {
            let moments = [10, 30, 55].map(|share| format!("kill.{victim}.{share}"));
            let hit = moments
                .iter()
                .filter(|name| read(results, &format!("{name}.kill")).is_empty());
            assert!(hit.count() >= 1, "nothing was killed on {victim}");
            names.extend(moments);
        }
    }
    let left = names.iter().flat_map(|name| {
        blocks_unless_empty(results, &format!("{name}.left"), "left after three seconds")
    });
    none(left.collect());
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn a_killed_agent_is_no_broken_hop() {
    let results = results();
    if !wanted(results, "kill.none") {
        return;
    }
    let mut wrong = Vec::new();
    for name in ["d", "s"]
        .iter()
        .flat_map(|v| [10, 30, 55].map(|s| format!("kill.{v}.{s}")))
    {
        let exit = fact(results, &name, "exit");
        if ![0, 2, 3].contains(&exit) {
            let stderr = read(results, &format!("{name}.stderr"));
            wrong.push(format!(
                "{name}\nexpected exit 0, 2 or 3\ngot      exit {exit}\n{stderr}"
            ));
        }
    }
    none(wrong);
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn the_director_alone_proves_the_whole_path() {
    let results = results();
    if wanted(results, "director") {
        let case = Case {
            topology: "standard",
            name: "director".to_owned(),
            connection: "-",
            exits: vec![0],
            hops: Vec::new(),
            codes: Vec::new(),
        };
        none(judge(results, &case).into_iter().collect());
    }
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn two_terminals_find_each_others_probes() {
    let results = results();
    if !wanted(results, "director") {
        return;
    }
    // Alone, the real server sees no answer to the VIP: nothing broken, not everything proven.
    let case = Case {
        topology: "standard",
        name: "realserver".to_owned(),
        connection: "-",
        exits: vec![3],
        hops: Vec::new(),
        codes: Vec::new(),
    };
    let mut wrong: Vec<_> = judge(results, &case).into_iter().collect();
    let heard = read(results, "listen.json");
    let report: Value = serde_json::from_str(&heard).unwrap_or_default();
    let sightings = report["evidence"].as_array().map_or(0, |evidence| {
        evidence
            .iter()
            .filter(|e| e["station"] == "director.in")
            .count()
    });
    if sightings == 0 {
        wrong.push(format!(
            "listen\nexpected sightings at director.in\ngot      {heard}\n{}",
            read(results, "listen.stderr")
        ));
    }
    none(wrong);
}

/// Not of a run of some cases only.
#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn the_table_is_what_the_run_gave() {
    let results = results();
    let mut head = HEAD.to_owned();
    for (name, about) in topologies() {
        head += &format!("| {name} | {about} |\n");
    }
    let rows: Vec<_> = ran(results).iter().map(|case| row(results, case)).collect();
    let page = table::page(&head, &rows);
    if boot::only().is_empty() {
        none(
            table::compare("guest.md", &page)
                .err()
                .into_iter()
                .collect(),
        );
    } else {
        eprintln!("{page}");
    }
}

const HEAD: &str = "# The fault matrix, QEMU guest\n\n\
    Written by `tests/guest/main.rs` from a run, not by hand; `README.md` beside it says how.\n\n\
    | topology | what it is |\n| --- | --- |\n";

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn the_lab_takes_the_kernels_own_ipip_and_ipvs() {
    let results = results();
    if !wanted(results, "own-lab") {
        return;
    }
    let said = read(results, "own-lab.stderr");
    let left = read(results, "own-lab.left");
    assert_eq!(
        (fact(results, "own-lab", "exit"), left.as_str()),
        (0, ""),
        "{said}"
    );
    assert!(
        said.contains("mended") && !said.contains("stand-in"),
        "{said}"
    );
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn what_stopped_the_packets_is_named() {
    let results = results();
    let mut wrong = Vec::new();
    if wanted(results, "drop-killed")
        && !read(results, "drop-killed.json").contains("the kernel dropped")
    {
        let said = read(results, "drop-killed.stderr");
        wrong.push(format!(
            "drop-killed: the drop monitor was not on when its agent was killed\n{said}"
        ));
    }
    for cause in causes() {
        if wanted(results, cause.name) {
            wrong.extend(judge_cause(results, &cause));
        }
    }
    none(wrong);
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn spoofcheck_names_each_filter() {
    let results = results();
    let mut wrong = Vec::new();
    for spoof in spoofs() {
        for (vantage, expected) in ["with", "without"].iter().zip(&spoof.expected) {
            let name = format!("{}.{vantage}", spoof.name);
            if wanted(results, &name) {
                wrong.extend(judge_spoof(results, &name, expected));
                wrong.extend(blocks_unless_empty(
                    results,
                    &format!("{name}.left"),
                    "left after three seconds",
                ));
            }
        }
        if wanted(results, &format!("{}.with", spoof.name)) {
            let broken = format!("{}.break", spoof.name);
            wrong.extend(blocks_unless_empty(results, &broken, "breaking or mending"));
        }
    }
    none(wrong);
}

fn none(mut wrong: Vec<String>) {
    wrong.dedup();
    assert!(
        wrong.is_empty(),
        "{} wrong\n\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
}

#[test]
#[ignore = "needs qemu and a Debian kernel: .ci/run installs them"]
fn unit_tests_that_need_this_kernel_pass() {
    if !wanted(results(), "unit") {
        return;
    }
    unit_tests().expect("GUEST_UNIT_TESTS names the unit tests' binary, as `.ci/run` does");
    let said = read(results(), "unit");
    assert!(said.contains("2 passed; 0 failed"), "{said}");
    let said = read(results(), "unit-drops");
    assert!(said.contains("1 passed; 0 failed"), "{said}");
}
