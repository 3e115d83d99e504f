//! A whole fleet, each pair asked once and each answering: 131,072 pairs, and what else asks as many hosts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::fleet::Asked;
use crate::fleet::PAIRS;
use crate::peers;
use crate::process;
use crate::process::Ended;
use crate::process::TUNPROOF;
use crate::process::role;
use crate::process::words;
use crate::responder::Answered;
use crate::responder::Responder;
use crate::site;
use crate::table::Table;
use crate::table::median;
use crate::table::thousands;

const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(15);
/// scamper sends no more than 10,000 packets a second, so it gets fewer targets.
const FEW: usize = 20_000;

struct Sweeper {
    name: &'static str,
    does: &'static str,
    command: Command,
    /// How many answers it found, and how many packets it says were dropped.
    found: fn(&Path, &Ended) -> (usize, Option<u64>),
    targets: usize,
    rounds: usize,
    swept: Vec<Swept>,
}

struct Swept {
    answered: Answered,
    ended: Ended,
    found: usize,
    dropped: Option<u64>,
}

pub(crate) fn run(folder: &Path) -> String {
    let mut sweepers = [reflecting(folder), looping(folder)];
    let memory = site::on_site(|| {
        let far = site::part();
        let mut responder = Responder::start(&far);
        for round in 0..ROUNDS {
            for sweeper in sweepers.iter_mut().flatten() {
                if round < sweeper.rounds {
                    sweep(folder, &mut responder, sweeper);
                }
            }
        }
        let memory = memory(folder, &mut responder);
        process::end(far);
        memory
    });
    let [reflecting, looping] = sweepers;
    format!(
        "{} pairs or hosts that all answer, by one responder at the far end of a veth pair, in a namespace of its own, whose \
         cost is in every figure alike; {ROUNDS} interleaved rounds, medians. Seconds are from the first probe to the last answer as the \
         responder saw them; CPU time is the sweeper's own, with the kernel's work for it.\n\n\
         Datagrams to closed ports, answered by port unreachable:\n\n{}\nSYNs, answered by the client's RST (tunproof \
         closes each by an RST of its own: twice the packets) or by the service's SYN-ACK:\n\n{}\n{memory}",
        thousands(PAIRS as f64),
        to_markdown(&reflecting),
        to_markdown(&looping),
    )
}

fn sweep(folder: &Path, responder: &mut Responder, sweeper: &mut Sweeper) {
    responder.ask();
    let ended = process::run(&mut sweeper.command, LIMIT);
    let answered = responder.ask();
    let (found, dropped) = (sweeper.found)(folder, &ended);
    println!(
        "sweep: {}: {:.3?} {:.3?} CPU {:.3?} in all, found {found}, dropped {dropped:?}, {answered:?}",
        sweeper.name,
        answered.took(),
        ended.cpu,
        ended.wall
    );
    if found == 0 {
        eprintln!("{} found nothing: {}", sweeper.name, ended.stderr);
    }
    sweeper.swept.push(Swept {
        answered,
        ended,
        found,
        dropped,
    });
}

fn to_markdown(sweepers: &[Sweeper]) -> String {
    let mut table = Table::new(&[
        "sweeper",
        "seconds",
        "ratio",
        "CPU s",
        "whole process s",
        "matched",
        "dropped",
        "what it does",
    ]);
    let seconds = |sweeper: &Sweeper| -> Vec<f64> {
        let each = sweeper.swept.iter();
        each.map(|swept| swept.answered.took().as_secs_f64())
            .collect()
    };
    let reference = seconds(&sweepers[0]);
    for sweeper in sweepers {
        let took = seconds(sweeper);
        let ratios = took.iter().zip(&reference).map(|(a, b)| a / b).collect();
        let ratio = match sweeper.targets == PAIRS {
            true => format!("{:.2}", median(ratios)),
            false => "-".to_owned(),
        };
        let of = |value: &dyn Fn(&Swept) -> f64| median(sweeper.swept.iter().map(value).collect());
        let lost = sweeper
            .swept
            .iter()
            .map(|swept| sweeper.targets.saturating_sub(swept.found));
        let matched = match lost.max() {
            Some(0) => format!("all {}", thousands(sweeper.targets as f64)),
            most => format!("all but {} at worst", most.unwrap_or(0)),
        };
        let dropped = sweeper
            .swept
            .iter()
            .map(|swept| swept.dropped)
            .max()
            .flatten();
        table.row(&[
            sweeper.name.to_owned(),
            format!("{:.2}", median(took)),
            ratio,
            format!("{:.2}", of(&|swept| swept.ended.cpu.as_secs_f64())),
            format!("{:.2}", of(&|swept| swept.ended.wall.as_secs_f64())),
            matched,
            dropped.map_or("does not say".to_owned(), |dropped| dropped.to_string()),
            sweeper.does.to_owned(),
        ]);
    }
    table.to_markdown()
}

fn sweeper(
    name: &'static str,
    does: &'static str,
    command: Command,
    found: fn(&Path, &Ended) -> (usize, Option<u64>),
) -> Sweeper {
    Sweeper {
        name,
        does,
        command,
        found,
        targets: PAIRS,
        rounds: ROUNDS,
        swept: Vec::new(),
    }
}

/// What a bare loop prints.
fn counted(_: &Path, ended: &Ended) -> (usize, Option<u64>) {
    let mut numbers = ended
        .stdout
        .split_whitespace()
        .map(|word| word.parse::<u64>().unwrap_or(0));
    (numbers.next().unwrap_or(0) as usize, numbers.next())
}

/// Pairs that tunproof calls proven in its CSV, and what its summary says was lost.
fn proven(folder: &Path, ended: &Ended) -> (usize, Option<u64>) {
    let results = fs::read_to_string(folder.join("swept.csv")).unwrap_or_default();
    let proven = results
        .lines()
        .filter(|line| line.contains(",proven,") || line.ends_with(",proven"));
    // "N packets were lost …" stands in the summary if there are any.
    let lost = ended
        .stderr
        .lines()
        .find_map(|line| line.split_once(" packets were lost"));
    let lost = lost.and_then(|(number, _)| number.trim().parse().ok());
    (proven.count(), Some(lost.unwrap_or(0)))
}

/// Lines of results, less the heading.
fn lines(folder: &Path, _: &Ended) -> (usize, Option<u64>) {
    let results = fs::read_to_string(folder.join("peer.csv")).unwrap_or_default();
    let lines = results
        .lines()
        .filter(|line| !line.starts_with(['#', 's']) && line.contains("10."));
    (lines.count(), None)
}

fn tunproof(folder: &Path, asked: Asked, options: &str) -> Command {
    let file = folder.join(format!("{}.toml", asked.name()));
    fs::write(&file, asked.file()).expect("the folder can be written to");
    let results = folder.join("swept.csv");
    words(&format!(
        "{TUNPROOF} sweep {} --probe {} --tries 2 --format csv --output {} {options}",
        file.display(),
        asked.name(),
        results.display()
    ))
}

fn reflecting(folder: &Path) -> Vec<Sweeper> {
    let (dip, gateway) = (site::DIP, site::GATEWAY);
    let results = folder.join("peer.csv").display().to_string();
    let mut sweepers = vec![
        sweeper(
            "bare sendmmsg + RX_RING v3",
            "the reference: prebuilt frames, a ring that only counts, one thread each",
            role("sweep-bare", &["reflect"]),
            counted,
        ),
        sweeper(
            "`tunproof sweep --probe reflect`",
            "through the tunnel, each probe keyed, each answer matched to its pair, a line of CSV each",
            tunproof(folder, Asked::Reflect, ""),
            proven,
        ),
        sweeper(
            "`tunproof sweep --probe reflect --xdp`",
            "the same, AF_XDP in copy mode",
            tunproof(folder, Asked::Reflect, "--xdp"),
            proven,
        ),
    ];
    if peers::has("zmap") {
        sweepers.push(sweeper(
            "zmap -M udp",
            "no tunnel; each answer validated by host, a line of CSV each",
            words(&format!(
                "zmap -C /dev/null -b /dev/null -i near -G {gateway} -S {dip} -r 0 -T 1 -c 1 -q -M udp -p 53 \
                 --probe-args=text:0123456789abcdef -O csv -f saddr,classification --output-filter=repeat=0 -o {results} \
                 10.64.0.0/15"
            )),
            lines,
        ));
    }
    if peers::has("scamper") {
        let list = folder.join("targets");
        let targets: String = (0..FEW)
            .map(|n| format!("10.64.{}.{}\n", n >> 8, n & 255))
            .collect();
        fs::write(&list, targets).expect("the folder can be written to");
        let mut command = Command::new("scamper");
        command
            .args(["-p", "10000", "-w", "10000", "-O", "text", "-o"])
            .arg(folder.join("peer.csv"));
        command
            .args(["-c", "ping -c 1 -o 1 -W 1 -P udp"])
            .arg("-f")
            .arg(list);
        sweepers.push(Sweeper {
            targets: FEW,
            rounds: 1,
            ..sweeper(
                "scamper ping -P udp",
                "no tunnel; 20,000 hosts at its own limit of 10,000 a second, round-trip times",
                command,
                replied,
            )
        });
    }
    sweepers
}

/// Hosts that scamper says have replied.
fn replied(folder: &Path, _: &Ended) -> (usize, Option<u64>) {
    let results = fs::read_to_string(folder.join("peer.csv")).unwrap_or_default();
    let replied = results
        .lines()
        .filter(|line| line.contains("1 packets received"));
    (replied.count(), None)
}

fn looping(folder: &Path) -> Vec<Sweeper> {
    let (dip, gateway) = (site::DIP, site::GATEWAY);
    let results = folder.join("peer.csv").display().to_string();
    let mut sweepers = vec![
        sweeper(
            "bare sendmmsg + RX_RING v3",
            "the reference: prebuilt frames, each SYN closed by a prebuilt RST, a ring that only counts",
            role("sweep-bare", &["closed-loop", "closing"]),
            counted,
        ),
        sweeper(
            "the same, closing nothing",
            "half the packets",
            role("sweep-bare", &["closed-loop"]),
            counted,
        ),
        sweeper(
            "`tunproof sweep --probe closed-loop`",
            "through the tunnel as the client, each probe keyed, each RST of the client matched, each SYN closed",
            tunproof(folder, Asked::ClosedLoop, ""),
            proven,
        ),
    ];
    if peers::has("zmap") {
        sweepers.push(sweeper(
            "zmap",
            "no tunnel; the host's kernel closes what it opens, a line of CSV each",
            words(&format!(
                "zmap -C /dev/null -b /dev/null -i near -G {gateway} -S {dip} -r 0 -T 1 -c 1 -q -p 80 -O csv -f saddr \
                 -o {results} 10.64.0.0/15"
            )),
            lines,
        ));
    }
    if peers::has("masscan") {
        let masscan = sweeper(
            "masscan",
            "no tunnel; an address of its own, so nothing closes; a line each; may not end by itself",
            words(&format!(
                "masscan 10.64.0.0/15 -p80 --rate 10000000 -e near --adapter-ip 10.9.0.77 --adapter-mac \
                 02:00:00:00:00:01 --router-mac {gateway} --wait 1 -oL {results}"
            )),
            lines,
        );
        sweepers.push(Sweeper {
            rounds: 2,
            ..masscan
        });
    }
    sweepers
}

/// The most memory that a sweep of a million pairs has.
fn memory(folder: &Path, responder: &mut Responder) -> String {
    let file = folder.join("million.toml");
    let million = Asked::Reflect.file_of("[80, 81, 82, 83]", "[\"10.64.0.0/14\"]");
    fs::write(&file, million).expect("the folder can be written to");
    let mut command = words(&format!(
        "{TUNPROOF} sweep {} --tries 2 --format csv --output /dev/null",
        file.display()
    ));
    responder.ask();
    let ended = process::run(&mut command, LIMIT);
    let answered = responder.ask();
    format!(
        "A sweep of 1,048,568 pairs: {:.1} MiB resident at most, {:.2} s from the first probe to the last answer, {:.2} s \
         of CPU time; its ring of 32 MiB included.\n\n```text\n{}```\n",
        ended.memory as f64 / f64::from(1 << 20),
        answered.took().as_secs_f64(),
        ended.cpu.as_secs_f64(),
        ended.stderr
    )
}
