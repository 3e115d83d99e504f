//! What a person waits for: `verify` in the lab, healthy and with a hop that says nothing, beside the LVS-TUN HOWTO's
//! steps in a script and the tools that those are made of.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::many::Site;
use crate::peers;
use crate::process;
use crate::process::TUNPROOF;
use crate::process::words;
use crate::sys;
use crate::table::Table;
use crate::table::median;

const ROUNDS: usize = 5;
/// How often the first packet is waited for.
const FIRSTS: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// The fault under which tunproof's peers are measured, too: the second router drops what comes from the VIP.
const FILTERED: &str = "spoofed-source-filtered";

/// Faults that say nothing, one for each hop that can be silent.
const SILENT: &[&str] = &[
    "client-packets-lost",
    "tunnel-lost-in-transit",
    "realserver-firewall-ipip",
    "rp-filter-drops",
    "service-silent",
    "realserver-firewall-egress",
    "gateway-drops-vip-arp",
    "spoofed-source-filtered-at-gateway",
    "client-silent",
    "return-path-broken",
];

/// The HOWTO's questions in order; what tcpdump wrote is left to a person. $1: the lab's `exec`, $2: a folder.
const HOWTO: &str = "$1 d tcpdump -ln -i eth0 host 198.51.100.7 >$2/d.txt 2>&1 & d=$!
$1 c tcpdump -ln -i eth0 host 192.0.2.10 >$2/c.txt 2>&1 & c=$!
$1 d ip route get 203.0.113.5
$1 s ip route get from 198.51.100.7 to 192.0.2.10 iif tunl0
$1 s arp -d 203.0.113.1
$1 s traceroute -n -s 192.0.2.10 198.51.100.7
kill $d $c
wait
";

struct Prover {
    name: &'static str,
    does: &'static str,
    command: Command,
    /// How often it is run healthy, and broken.
    rounds: (usize, usize),
    healthy: Vec<f64>,
    broken: Vec<f64>,
}

/// The lab's name: another one for each run.
pub(crate) fn lab_name() -> String {
    format!("be-{}", std::process::id())
}

/// Whether the lab is to be ended.
pub(crate) static IS_UP: AtomicBool = AtomicBool::new(false);

struct Lab;

impl Lab {
    fn up() -> Lab {
        IS_UP.store(true, Ordering::SeqCst);
        let lab = Lab;
        lab.does("up");
        lab
    }

    fn does(&self, what: &str) {
        let mut command = words(&format!("{TUNPROOF} lab --name {} {what}", lab_name()));
        let output = command
            .stdin(Stdio::null())
            .output()
            .expect("tunproof runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "lab {what}: {said}");
    }

    fn exec() -> String {
        format!("{TUNPROOF} lab --name {} exec", lab_name())
    }

    fn path_file(&self) -> String {
        let run = std::env::var("XDG_RUNTIME_DIR").unwrap_or("/run".to_owned());
        format!("{run}/tunproof/{}/path.toml", lab_name())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        end_lab();
    }
}

/// Ends the lab if it is up.
pub(crate) fn end_lab() {
    if IS_UP.swap(false, Ordering::SeqCst) {
        // It may never have come up.
        let _ = words(&format!("{TUNPROOF} lab --name {} down", lab_name())).output();
    }
}

pub(crate) fn run(folder: &Path) -> String {
    let lab = Lab::up();
    let mut provers = provers(&lab, folder);
    for round in 0..ROUNDS {
        for prover in provers.iter_mut().filter(|prover| round < prover.rounds.0) {
            prover.healthy.push(wall(&mut prover.command, prover.name));
        }
    }
    let agent = agent_memory(&lab);
    let firsts: Vec<_> = (0..FIRSTS).filter_map(|_| first_packet()).collect();
    lab.does(&format!("break {FILTERED}"));
    for round in 0..ROUNDS {
        for prover in provers.iter_mut().filter(|prover| round < prover.rounds.1) {
            prover.broken.push(wall(&mut prover.command, prover.name));
        }
    }
    let silent = silent(&lab);
    drop(lab);
    to_markdown(&provers, &firsts, agent, &silent) + &many_servers(folder)
}

fn wall(command: &mut Command, name: &str) -> f64 {
    let ended = process::run(command, LIMIT);
    let seconds = ended.wall.as_secs_f64();
    println!(
        "verify: {name}: {seconds:.3} s, exit status {}",
        ended.status
    );
    seconds
}

fn provers(lab: &Lab, folder: &Path) -> Vec<Prover> {
    let mut provers = Vec::new();
    let mut add = |program: &str, name, does, command, rounds| {
        if program.is_empty() || peers::has(program) {
            let (healthy, broken) = (Vec::new(), Vec::new());
            provers.push(Prover {
                name,
                does,
                command,
                rounds,
                healthy,
                broken,
            });
        }
    };
    let verify = words(&format!("{TUNPROOF} verify {}", lab.path_file()));
    add(
        "",
        "`tunproof verify`",
        "all 12 hops, with evidence, blame and remedy",
        verify,
        (ROUNDS, 3),
    );
    let mut howto = Command::new("bash");
    howto.args(["-c", HOWTO, "bash", &Lab::exec()]).arg(folder);
    add(
        "traceroute",
        "the HOWTO in a script",
        "`ip route get` twice, `arp -d`, `traceroute -n -s VIP CIP`, two tcpdumps; a person judges",
        howto,
        (1, 1),
    );
    let on_s = |line: &str| words(&format!("{} s {line}", Lab::exec()));
    let (vip, cip) = ("192.0.2.10", "198.51.100.7");
    add(
        "traceroute",
        "traceroute",
        "the way from the real server to the client; all answers go to the director, so it waits for each in vain",
        on_s(&format!("traceroute -n -s {vip} {cip}")),
        (0, 1),
    );
    add(
        "traceroute",
        "traceroute -q1 -w1 -N30",
        "one probe a hop, a second; a lost packet is a hop lost",
        on_s(&format!("traceroute -n -q1 -w1 -N30 -s {vip} {cip}")),
        (2, 2),
    );
    add(
        "mtr",
        "mtr --report -c1",
        "the same way by ICMP",
        on_s(&format!("mtr -n --report -c1 -a {vip} {cip}")),
        (1, 1),
    );
    let mut scamper = on_s("scamper -I");
    scamper.arg(format!("trace -q 1 -w 1 -S {vip} {cip}"));
    add(
        "scamper",
        "scamper trace -q1 -w1",
        "the same way by UDP-Paris, one try a hop",
        scamper,
        (1, 1),
    );
    provers
}

/// Seconds of `verify` for each silent fault, and its exit status.
fn silent(lab: &Lab) -> String {
    let mut table = Table::new(&["silent fault", "seconds", "exit status"]);
    for fault in SILENT {
        lab.does("mend");
        lab.does(&format!("break {fault}"));
        let ended = process::run(
            &mut words(&format!("{TUNPROOF} verify {}", lab.path_file())),
            LIMIT,
        );
        println!("verify: {fault}: {:.3?}, {}", ended.wall, ended.status);
        table.row(&[
            format!("`{fault}`"),
            format!("{:.2}", ended.wall.as_secs_f64()),
            ended.status.to_string(),
        ]);
    }
    table.to_markdown()
}

/// Seconds of `verify` with one real server and with many, each in a namespace of its own.
fn many_servers(folder: &Path) -> String {
    const SERVERS: [u8; 2] = [1, 100];
    let sites = SERVERS.map(|servers| (servers, Site::up(servers, folder)));
    let mut rounds = SERVERS.map(|_| (Vec::new(), Vec::new()));
    for _ in 0..ROUNDS {
        for ((servers, site), (walls, cpus)) in sites.iter().zip(&mut rounds) {
            let mut verify = words(&format!("{TUNPROOF} verify {}", site.path_file()));
            let ended = process::run(verify.env("TUNPROOF_AGENT", TUNPROOF), LIMIT);
            let (wall, status) = (ended.wall, ended.status);
            println!("verify: {servers} real servers: {wall:.3?}, exit status {status}");
            walls.push(wall.as_secs_f64());
            cpus.push(ended.cpu.as_secs_f64());
        }
    }
    let mut table = Table::new(&["real servers", "seconds", "ratio", "CPU s"]);
    let one = median(rounds[0].0.clone());
    for (servers, (walls, cpus)) in SERVERS.iter().zip(rounds) {
        let wall = median(walls);
        table.row(&[
            servers.to_string(),
            format!("{wall:.2}"),
            format!("{:.1}", wall / one),
            format!("{:.2}", median(cpus)),
        ]);
    }
    format!(
        "\n`tunproof verify` with many real servers, all healthy and all on this machine: as many namespaces, agents and \
         janitors share its cores. Medians of {ROUNDS} interleaved rounds; the ratio is to one real server. CPU time is \
         that of the controller and of its agents.\n\n{}",
        table.to_markdown()
    )
}

/// The most memory that an agent has resident during `verify`, in octets.
fn agent_memory(lab: &Lab) -> u64 {
    let mut command = words(&format!("{TUNPROOF} verify {}", lab.path_file()));
    let mut verify = sys::die_with_starter(&mut command)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tunproof runs");
    let mut most = 0;
    while verify.try_wait().expect("it is a child").is_none() {
        let folders = fs::read_dir("/proc").expect("proc is mounted").flatten();
        for number in folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()) {
            let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            if line.starts_with(format!("{TUNPROOF}\0agent\0").as_bytes()) {
                most = most.max(process::resident(number));
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
    most
}

/// Milliseconds from `director`'s start to its first packet, as tcpdump saw it.
fn first_packet() -> Option<f64> {
    let mut dump = words(&format!(
        "{} d tcpdump -ln -tt --immediate-mode -c 1 -i eth0",
        Lab::exec()
    ));
    dump.arg("dst host 203.0.113.5 and proto 4");
    let mut dump = sys::die_with_starter(&mut dump)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut said = BufReader::new(dump.stderr.take()?).lines();
    said.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.contains("listening on"))
    })?
    .ok()?;
    let script = format!(
        "echo $EPOCHREALTIME; exec {TUNPROOF} director --vip 192.0.2.10 --port 80 --rip 203.0.113.5 --cip 198.51.100.7 \
         >/dev/null"
    );
    let mut director = words(&format!("{} d bash -c", Lab::exec()));
    let started = process::run(director.arg(script), LIMIT)
        .stdout
        .trim()
        .parse::<f64>()
        .ok()?;
    let seen = dump.wait_with_output().ok()?.stdout;
    let seen = String::from_utf8_lossy(&seen)
        .split_whitespace()
        .next()?
        .parse::<f64>()
        .ok()?;
    Some((seen - started) * 1000.0)
}

fn to_markdown(provers: &[Prover], firsts: &[f64], agent: u64, silent: &str) -> String {
    let head = [
        "prover",
        "healthy s",
        "ratio",
        "silent after hop 2, s",
        "ratio",
        "what it does",
    ];
    let mut table = Table::new(&head);
    let first = |of: fn(&Prover) -> &Vec<f64>| median(of(&provers[0]).clone());
    let (healthy, broken) = (first(|p| &p.healthy), first(|p| &p.broken));
    for prover in provers {
        let (well, ill) = (
            median(prover.healthy.clone()),
            median(prover.broken.clone()),
        );
        let cell = |rounds: &Vec<f64>, text: String| match rounds.is_empty() {
            true => "-".to_owned(),
            false => text,
        };
        table.row(&[
            prover.name.to_owned(),
            cell(&prover.healthy, format!("{well:.3}")),
            cell(&prover.healthy, format!("{:.2}", well / healthy)),
            cell(&prover.broken, format!("{ill:.2}")),
            cell(&prover.broken, format!("{:.2}", ill / broken)),
            prover.does.to_owned(),
        ]);
    }
    format!(
        "In the lab of 8 namespaces (`tunproof lab`), wall time of the whole command, `tunproof lab exec` included; medians \
         of {ROUNDS} interleaved rounds, of fewer where a round takes long. The ratio is to tunproof: above 1 is slower. \
         Broken by `{FILTERED}`: the second router drops what comes from the VIP. Nothing that is sent from the VIP on the \
         real server is answered to the real server, healthy or not: the answers go to the director, so the tools that \
         send it wait in vain, and only tcpdump on the director shows what came.\n\n{}\n\
         `tunproof director` on the director: first packet {:.1} ms after its start (median of {}). An agent: {:.1} MiB \
         resident at most.\n\n`tunproof verify` of each silent fault, once:\n\n{silent}",
        table.to_markdown(),
        median(firsts.to_vec()),
        firsts.len(),
        agent as f64 / f64::from(1 << 20),
    )
}
