//! How many packets a process takes that arrive faster than most can take them.

use std::path::Path;
use std::time::Duration;

use crate::process;
use crate::process::role;
use crate::site;
use crate::table::Table;
use crate::table::median;
use crate::table::thousands;

const ROUNDS: usize = 3;

const WAYS: &[(&str, &str, &str)] = &[
    (
        "ring",
        "bare RX_RING v3",
        "the reference: 1,024 blocks of 64 KiB, 8 ms, no filter, counts",
    ),
    (
        "tunproof",
        "tunproof's ring",
        "256 blocks of 128 KiB, 8 ms, the sweep's filter, its clock for each packet",
    ),
    (
        "recv",
        "recv",
        "8 MiB of buffer, a filter of two instructions, one packet a call",
    ),
    (
        "recvmmsg",
        "recvmmsg",
        "8 MiB of buffer, the same filter, 64 packets a call at most",
    ),
];

/// What a way received and lost, and nanoseconds of CPU time for each packet received.
type Received = (f64, f64, f64);

pub(crate) fn run(_: &Path) -> String {
    let mut received: Vec<Vec<Received>> = vec![Vec::new(); WAYS.len()];
    site::on_site(|| {
        for round in 0..ROUNDS {
            for (at, (role, ..)) in WAYS.iter().enumerate() {
                let one = receive(role);
                println!("receive {round}: {role} {one:?}");
                received[at].push(one);
            }
        }
    });
    let head = [
        "receiver",
        "packets/s",
        "ratio",
        "dropped",
        "CPU ns a packet",
        "what it does",
    ];
    let mut table = Table::new(&head);
    let of = |way: usize, value: fn(&Received) -> f64| -> Vec<f64> {
        received[way].iter().map(value).collect()
    };
    for (at, (_, name, does)) in WAYS.iter().enumerate() {
        let rates = of(at, |one| one.0);
        let ratios = rates.iter().zip(of(0, |one| one.0)).map(|(a, b)| a / b);
        let share = of(at, |one| 100.0 * one.1 / (one.0 + one.1).max(1.0));
        table.row(&[
            (*name).to_owned(),
            thousands(median(rates.clone())),
            format!("{:.2}", median(ratios.collect())),
            format!("{:.1} %", median(share)),
            format!("{:.0}", median(of(at, |one| one.2))),
            (*does).to_owned(),
        ]);
    }
    format!(
        "One thread that receives for a second what another process sends as fast as it can by a veth pair (the client's \
         RSTs, 54 octets); {ROUNDS} interleaved rounds, medians. CPU time is that of the receiving process, its start \
         included.\n\n{}",
        table.to_markdown()
    )
}

fn receive(way: &str) -> Received {
    let flood = process::start(&role("flood", &[]));
    std::thread::sleep(Duration::from_millis(200));
    let ended = process::run(&mut role("receive", &[way]), Duration::from_secs(10));
    process::end(flood);
    let numbers = ended.stdout.split_whitespace().map(str::parse::<f64>);
    let numbers: Vec<_> = numbers.map(|number| number.unwrap_or(0.0)).collect();
    let [received, dropped] = numbers[..] else {
        panic!("{way} said {:?}: {}", ended.stdout, ended.stderr);
    };
    (
        received,
        dropped,
        ended.cpu.as_nanos() as f64 / received.max(1.0),
    )
}
