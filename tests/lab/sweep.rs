//! `sweep`: in the lab, and against a responder that stands for a fleet.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use etherparse::Icmpv4Header;
use etherparse::Icmpv4Type;
use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::PacketBuilder;
use serde_json::Value;
use tunproof::live::frames::Packets;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::alone;
use crate::bench::text;
use crate::bench::wait_until;

/// The lines of JSON on stdout.
fn lines(octets: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(octets);
    let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
    parsed.collect()
}

/// Real server and port → answer and verdict.
type Told = BTreeMap<(String, u64), (String, String)>;

/// The pairs, each told once, and the summary.
fn told(lines: &[Value]) -> (Told, Value) {
    let (summary, pairs) = lines.split_last().expect("a summary");
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["schema"], "tunproof.sweep/1");
    let mut told = BTreeMap::new();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    for pair in pairs {
        assert_eq!(pair["type"], "pair");
        let which = (word(&pair["realserver"]), pair["port"].as_u64().unwrap());
        let said = (word(&pair["answer"]), word(&pair["verdict"]));
        assert_eq!(told.insert(which.clone(), said), None, "{which:?} twice");
    }
    (told, summary.clone())
}

/// Sweeps from the lab's director.
fn swept(lab: &TestLab, file: &Path, arguments: &[&str]) -> Output {
    let mut command = lab.command(&["exec", "d", TUNPROOF, "sweep", "--format", "json"]);
    command.arg(file).args(arguments).output().unwrap()
}

fn fleet_file(lab: &TestLab, name: &str, ports: &str, realservers: &str) -> PathBuf {
    let file = lab.directory().join(name);
    let text = format!(
        "[director]\nip = \"192.0.2.2\"\n[client]\nip = \"198.51.100.7\"\n[[service]]\nvip = \"192.0.2.10\"\n\
         port = {ports}\nrealservers = {realservers}\n"
    );
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_sweep_of_the_lab_says_what_answers_and_leaves_nothing_open() {
    let lab = TestLab::up("sweep");
    let one = fleet_file(&lab, "one.toml", "80", "\"203.0.113.5\"");
    let half_open = || lab.on("s", "ss -Hnt state syn-recv");
    // The RST may be on its way when the sweep ends; by itself nothing is forgotten in this time (tcp_synack_retries).
    let closed = || wait_until("what was opened is closed", || half_open().is_empty());
    for (probe, answer) in [
        ("reflect", "syn-ack"),
        ("closed-loop", "client-rst"),
        ("both", "client-rst"),
    ] {
        let output = swept(&lab, &one, &["--probe", probe]);
        assert_eq!(output.status.code(), Some(0), "{probe}: {}", text(&output));
        let (told, summary) = told(&lines(&output.stdout));
        let expected = (answer.to_owned(), "proven".to_owned());
        assert_eq!(told[&("203.0.113.5".to_owned(), 80)], expected);
        assert_eq!(
            (&summary["sent"], &summary["closed"]),
            (&1.into(), &1.into()),
            "{summary}"
        );
        closed();
    }

    // Addresses of nobody, the gateway, which has no tunnel, and a port where nothing listens.
    let some = fleet_file(&lab, "some.toml", "[80, 81]", "\"203.0.113.0/29\"");
    let output = swept(&lab, &some, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let (some, _) = told(&lines(&output.stdout));
    assert_eq!(some.len(), 12);
    for ((rip, port), (answer, verdict)) in &some {
        match (rip.as_str(), port) {
            ("203.0.113.5", 80) => {
                assert_eq!((&answer[..], &verdict[..]), ("client-rst", "proven"));
            }
            ("203.0.113.5", _) => assert_eq!((&answer[..], &verdict[..]), ("rst", "broken")),
            _ => assert!(
                ["none", "icmp-error"].contains(&&answer[..]) && verdict != "proven",
                "{rip} {answer}"
            ),
        }
    }

    // The client's way alone is broken: the service answers the director.
    let broken = lab.run(&["break", "client-silent"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let output = swept(&lab, &one, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let told_lines = lines(&output.stdout);
    assert_eq!(
        (&told_lines[0]["answer"], &told_lines[0]["loop"]),
        (&"syn-ack".into(), &"silent".into())
    );
    closed();

    // Stopped while its SYN is half open, it closes that, too.
    let mut command = lab.command(&["exec", "d", TUNPROOF, "sweep", "--format", "json"]);
    let stopped = command
        .arg(&one)
        .args(["--probe", "closed-loop", "--tries", "10"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while half_open().is_empty() {
        assert!(Instant::now() < until, "no SYN arrives");
    }
    let id = nix::unistd::Pid::from_raw(stopped.id() as i32);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let stopped = stopped.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", text(&stopped));
    closed();
    let summary = &lines(&stopped.stdout)[0];
    assert_eq!(
        (&summary["partial"], &summary["closed"]),
        (&true.into(), &1.into())
    );
    lab.run(&["mend"]);

    // What the real server forwards may be answered by another; it is no proof, whoever answers.
    let broken = lab.run(&["break", "vip-not-local"]);
    assert!(broken.status.success(), "{}", text(&broken));
    lab.on("s", "sysctl -qw net.ipv4.ip_forward=1");
    let output = swept(&lab, &one, &["--probe", "closed-loop"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let line = &lines(&output.stdout)[0];
    assert_eq!(
        (&line["answer"], &line["broken"]),
        (&"came-back".into(), &"realserver-accept".into()),
        "{line}"
    );
    lab.on("s", "sysctl -qw net.ipv4.ip_forward=0");
    lab.run(&["mend"]);

    // A packet that never left (the route says unreachable: EHOSTUNREACH) says nothing of the path.
    let broken = lab.run(&["break", "no-route-to-realserver"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let output = swept(&lab, &one, &["--probe", "reflect"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let line = &lines(&output.stdout)[0];
    assert_eq!(
        (&line["answer"], &line["errno"], &line["broken"]),
        (&"not-sent".into(), &113.into(), &Value::Null),
        "{line}"
    );
    lab.run(&["mend"]);

    let broken = lab.run(&["break", "rp-filter-drops"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let output = swept(&lab, &one, &["--probe", "reflect"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!(lines(&output.stdout)[0]["answer"], "none");

    lab.on("d", "ip address add 203.0.113.9/32 dev lo");
    let own = fleet_file(&lab, "own.toml", "80", "\"203.0.113.0/28\"");
    let results = lab.directory().join("before.jsonl");
    fs::write(&results, "before").unwrap();
    let kept = ["--output", results.to_str().unwrap()];
    let output = swept(&lab, &own, &kept);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&results).unwrap(), "before");
    fs::remove_file(results).unwrap();
    let said = "the real server 203.0.113.9 is an address of this host itself";
    assert!(text(&output).contains(said), "{}", text(&output));

    let elsewhere = lab
        .command(&["exec", "c", TUNPROOF, "sweep"])
        .arg(&one)
        .output()
        .unwrap();
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(
        text(&elsewhere).contains("does not have the director's address"),
        "{}",
        text(&elsewhere)
    );
}

/// Runs a test in a network namespace of its own.
pub(crate) fn in_namespace(helper: &str) {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--kill-child"]);
    if !nix::unistd::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let output = unshare
        .arg(env::current_exe().unwrap())
        .args(["--exact", helper, "--ignored", "--nocapture"])
        .output()
        .expect("unshare of util-linux");
    assert!(text(&output).contains("1 passed"), "{}", text(&output));
}

#[test]
fn of_a_hundred_thousand_pairs_every_answer_is_found_and_nothing_else() {
    in_namespace("sweep::helper_hundred_thousand");
}

#[test]
fn a_million_pairs_take_less_than_64_mib() {
    in_namespace("sweep::helper_million");
}

#[test]
fn what_a_killed_sweep_has_opened_is_closed() {
    let lab = TestLab::up("sweep-killed");
    // No answer reaches anybody: by itself the real server forgets the SYN after a minute.
    assert!(
        lab.run(&["break", "spoofed-source-filtered"])
            .status
            .success()
    );
    let one = fleet_file(&lab, "one.toml", "80", "\"203.0.113.5\"");
    let half_open = || lab.on("s", "ss -Hnt state syn-recv");
    for probe in ["reflect", "closed-loop"] {
        let mut command = lab.command(&["exec", "d", TUNPROOF, "sweep"]);
        command.arg(&one).args(["--probe", probe]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut sweep = command.spawn().unwrap();
        wait_until("a SYN has come", || !half_open().is_empty());
        assert_eq!(
            sweep.try_wait().unwrap(),
            None,
            "{probe}: it is in its midst"
        );
        sweep.kill().unwrap();
        sweep.wait().unwrap();
        wait_until("what was opened is closed", || half_open().is_empty());
    }
}

#[test]
fn a_sweep_goes_on_after_ctrl_c_and_kill() {
    in_namespace("sweep::helper_resume");
}

const DIP: [u8; 4] = [10, 9, 0, 1];
const ROUTER: [u8; 4] = [10, 9, 0, 2];
const NEAR: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A director's link, `near`, whose gateway is at `far`, and a folder of the test's own.
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
}

impl Site {
    pub(crate) fn new() -> Site {
        let commands = "link set lo up\nlink add near address 02:00:00:00:00:01 type veth peer name far address \
                        02:00:00:00:00:02\nlink set near up\nlink set far up\naddr add 10.9.0.1/24 dev near\n\
                        neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev near\nroute add default via 10.9.0.2\n";
        let folder = env::temp_dir().join(format!("tunproof-sweep-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("ip"), commands).unwrap();
        let ip = Command::new("ip")
            .arg("-batch")
            .arg(folder.join("ip"))
            .status();
        assert!(ip.unwrap().success());
        let until = Instant::now() + Duration::from_secs(10);
        while !fs::read_to_string("/sys/class/net/far/operstate").is_ok_and(|state| state == "up\n")
            && !carrier()
        {
            assert!(Instant::now() < until, "the link stays down");
            thread::sleep(Duration::from_millis(10));
        }
        Site { folder }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.join(name);
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `/sys` may be that of another namespace.
fn carrier() -> bool {
    let output = Command::new("ip")
        .args(["-br", "link", "show", "far"])
        .output();
    output.is_ok_and(|output| text(&output).contains("LOWER_UP"))
}

/// What becomes of a real server's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Answers,
    Refuses,
    NoTunnel,
    Unreachable,
    Silent,
}

fn way(rip: [u8; 4]) -> Way {
    match (u32::from_be_bytes(rip).wrapping_mul(0x9e37_79b1) >> 16) % 100 {
        0 => Way::Silent,
        1 => Way::NoTunnel,
        2 => Way::Refuses,
        3 => Way::Unreachable,
        _ => Way::Answers,
    }
}

fn icmp(from: [u8; 4], kind: Icmpv4Type, quote: &[u8]) -> Vec<u8> {
    let icmp = Icmpv4Header::with_checksum(kind, quote);
    let length = (icmp.header_len() + quote.len()) as u16;
    let ip = Ipv4Header::new(length, 62, IpNumber::ICMP, from, DIP).unwrap();
    [&ip.to_bytes()[..], &icmp.to_bytes(), quote].concat()
}

fn unreachable(code: u8) -> Icmpv4Type {
    Icmpv4Type::Unknown {
        type_u8: 3,
        code_u8: code,
        bytes5to8: [0; 4],
    }
}

/// What a Linux real server, or the router before it, answers to a packet in IPIP.
fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let four = |at: usize| -> [u8; 4] { packet[at..at + 4].try_into().unwrap() };
    let two = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet.len() < 60 || packet[9] != 4 {
        return None;
    }
    let (rip, vip) = (four(16), four(36));
    let is_udp = packet[29] == 17;
    if !is_udp && packet[53] != 2 {
        return None; // an RST is answered by nobody
    }
    let number = u32::from_be_bytes(four(44)).wrapping_add(1);
    let segment = |flags: u8| {
        let mut octets = Vec::new();
        let builder = PacketBuilder::ipv4(vip, four(32), 62).tcp(two(42), two(40), 7, 65_160);
        builder.ack(number).write(&mut octets, &[]).unwrap();
        octets[33] = flags;
        Some(octets)
    };
    match way(rip) {
        Way::Silent => None,
        Way::NoTunnel => Some(icmp(rip, unreachable(2), packet)),
        // A router that quotes no more than it must.
        Way::Unreachable => Some(icmp(ROUTER, unreachable(1), &packet[..28])),
        Way::Answers if is_udp => Some(icmp(vip, unreachable(3), &packet[20..])),
        Way::Refuses if is_udp => Some(icmp(rip, unreachable(13), &packet[20..])),
        Way::Answers => segment(0x12),
        Way::Refuses => segment(0x14),
    }
}

/// Answers all that arrives at `far`, as long as the process lives.
fn respond() {
    let far = nix::net::if_::if_nametoindex("far").unwrap();
    let mut socket = Packets::of_device(far).unwrap();
    socket.set_room(64 << 20).unwrap();
    let frames = Packets::frames().unwrap();
    thread::spawn(move || {
        loop {
            let Some(answer) = socket.receive().ok().and_then(answer) else {
                continue;
            };
            frames.send_frame(&answer, far, NEAR).unwrap();
        }
    });
}

pub(crate) fn sweep(file: &Path, arguments: &[&str]) -> Child {
    Command::new(TUNPROOF)
        .arg("sweep")
        .arg(file)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The most memory that a process had resident, in KiB, watched until it ends.
fn watch(child: &mut Child) -> u64 {
    let mut most = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = most.max(number.unwrap_or(0));
        if child.try_wait().unwrap().is_some() {
            return most;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "run by of_a_hundred_thousand_pairs_every_answer_is_found_and_nothing_else"]
fn helper_hundred_thousand() {
    let site = Site::new();
    respond();
    let file = site.file(
        "fleet.toml",
        "[director]\nip = \"10.9.0.1\"\n[[service]]\nvip = \"192.0.2.10\"\nport = [80, 443]\n\
         realservers = [\"10.64.0.0/17\"]\n[[service]]\nvip = \"192.0.2.11\"\nport = 53\nprotocol = \"udp\"\n\
         realservers = [\"10.64.0.0/17\", \"10.80.0.1\", \"10.80.1.0/25\"]\n[limits]\nrate = 25000\n",
    );
    let results = site.folder.join("pairs.jsonl");
    for by in [&[][..], &["--xdp"]] {
        hundred_thousand(&file, &results, by);
    }
}

fn hundred_thousand(file: &Path, results: &Path, by: &[&str]) {
    let child = sweep(
        file,
        &[
            &["--format", "json", "--output", results.to_str().unwrap()],
            by,
        ]
        .concat(),
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let lines = lines(&fs::read(results).unwrap());
    let (told, summary) = told(&lines);
    let pairs = 2 * 32_766 + 32_766 + 127;
    assert_eq!(
        (told.len(), &summary["pairs"]),
        (pairs, &pairs.into()),
        "{summary}"
    );
    assert_eq!(summary["lost"], 0, "{summary}");
    for ((rip, port), (answer, verdict)) in &told {
        let address: Ipv4Addr = rip.parse().unwrap();
        let expected = match (way(address.octets()), port) {
            (Way::Answers, 53) => ("port-unreachable", "proven"),
            (Way::Answers, _) => ("syn-ack", "proven"),
            (Way::Refuses, 80 | 443) => ("rst", "broken"),
            (Way::Silent, _) => ("none", "unproven"),
            _ => ("icmp-error", "broken"),
        };
        assert_eq!((&answer[..], &verdict[..]), expected, "{rip} {port}");
    }
    let errors = lines.iter().filter(|line| line["answer"] == "icmp-error");
    for line in errors {
        let rip: Ipv4Addr = line["realserver"].as_str().unwrap().parse().unwrap();
        let (code, from, about) = match way(rip.octets()) {
            Way::NoTunnel => (2, rip, "tunnel"),
            Way::Unreachable => (1, ROUTER.into(), "tunnel"),
            _ => (13, rip, "inner"),
        };
        let expected = serde_json::json!({ "type": 3, "code": code, "about": about });
        assert_eq!(
            (&line["icmp"], &line["from"]),
            (&expected, &from.to_string().into()),
            "{line}"
        );
    }
    println!("{summary}");
}

#[test]
fn what_nobody_takes_on_the_link_is_not_sent() {
    let _alone = alone();
    in_namespace("sweep::helper_mute");
}

#[test]
#[ignore = "run by what_nobody_takes_on_the_link_is_not_sent"]
fn helper_mute() {
    let site = Site::new();
    let text_of = |realservers| {
        format!(
            "[director]\nip = \"10.9.0.1\"\n[[service]]\nvip = \"192.0.2.11\"\nport = 80\nrealservers = \
             [\"{realservers}\"]\n[limits]\nrate = 5000\n"
        )
    };
    let ip = |arguments: &str| {
        let ip = Command::new("ip").args(arguments.split(' ')).status();
        assert!(ip.unwrap().success());
    };
    // More than the neighbour table, and the kernel's limit of ICMP errors, hold.
    let on_link = site.file("on-link.toml", &text_of("10.9.16.0/21"));
    ip("address add 10.9.0.1/16 dev near");
    // A gateway that nobody is.
    let behind = site.file("behind.toml", &text_of("10.64.0.0/21"));
    ip("route replace default via 10.9.0.3");
    for (file, arguments) in [(&on_link, &[][..]), (&behind, &[]), (&behind, &["--xdp"])] {
        let all = [&["--format", "json"], arguments].concat();
        let output = sweep(file, &all).wait_with_output().unwrap();
        let lines = lines(&output.stdout);
        let (told, summary) = told(&lines);
        assert_eq!(told.len(), 2046, "{}", text(&output));
        let silent = told.values().filter(|(answer, _)| answer == "none");
        assert_eq!(silent.count(), 0, "{file:?} {summary}");
        let proven = told.values().filter(|(_, verdict)| verdict == "proven");
        assert_eq!(proven.count(), 0, "{summary}");
    }
    // The namespace is gone some time later; its neighbours, at once.
    ip("link set near down");
}

#[test]
#[ignore = "run by a_million_pairs_take_less_than_64_mib"]
fn helper_million() {
    let site = Site::new();
    respond();
    let file = site.file(
        "fleet.toml",
        "[director]\nip = \"10.9.0.1\"\n[[service]]\nvip = \"192.0.2.11\"\nport = [53, 54, 55, 56]\nprotocol = \"udp\"\n\
         realservers = [\"10.64.0.0/14\"]\n[limits]\nrate = 100000\neach = 1000\n",
    );
    let results = site.folder.join("pairs.csv");
    let results = [
        "--format",
        "csv",
        "--tries",
        "2",
        "--output",
        results.to_str().unwrap(),
    ];
    let mut child = sweep(&file, &results);
    let most = watch(&mut child);
    let output = child.wait_with_output().unwrap();
    let told = fs::read_to_string(results[5]).unwrap();
    assert_eq!(told.lines().count(), 1 + 4 * 262_142, "{}", text(&output));
    assert!((1..64 << 10).contains(&most), "{most} KiB resident");
    println!("{most} KiB resident\n{}", text(&output));
}

#[test]
#[ignore = "run by a_sweep_goes_on_after_ctrl_c_and_kill"]
fn helper_resume() {
    let site = Site::new();
    respond();
    let text_of = |ports| {
        format!(
            "[director]\nip = \"10.9.0.1\"\n[[service]]\nvip = \"192.0.2.11\"\nport = {ports}\nprotocol = \"udp\"\n\
             realservers = [\"10.64.0.0/22\"]\n[limits]\nrate = 1000\neach = 100\n"
        )
    };
    let file = site.file("fleet.toml", &text_of("[53, 54, 55, 56]"));
    let other = site.file("other.toml", &text_of("[53, 54, 55, 57]"));
    let (results, state) = (site.folder.join("pairs.jsonl"), site.folder.join("state"));
    let arguments = [
        "--format",
        "json",
        "--output",
        results.to_str().unwrap(),
        "--resume",
        state.to_str().unwrap(),
    ];
    let wait_for_state = |before: Option<Vec<u8>>| {
        let until = Instant::now() + Duration::from_secs(20);
        while fs::read(&state).ok() == before {
            assert!(Instant::now() < until, "no state is kept");
            thread::sleep(Duration::from_millis(5));
        }
    };

    let mut killed = sweep(&file, &arguments);
    wait_for_state(None);
    thread::sleep(Duration::from_millis(300));
    killed.kill().unwrap();
    killed.wait().unwrap();
    let first = lines(&fs::read(&results).unwrap()).len();
    assert!(first > 300, "{first} lines");

    let stopped = sweep(&file, &arguments);
    wait_for_state(fs::read(&state).ok());
    let id = nix::unistd::Pid::from_raw(stopped.id() as i32);
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let stopped = stopped.wait_with_output().unwrap();
    // Of what gave an error nothing is decided before the last try.
    assert_eq!(stopped.status.code(), Some(3), "{}", text(&stopped));
    assert!(
        text(&stopped).contains("goes on from"),
        "{}",
        text(&stopped)
    );
    let (_, summary) = told(&lines(&fs::read(&results).unwrap()));
    assert_eq!(summary["partial"], true);
    let told_then = summary["proven"].as_u64().unwrap();
    assert!(told_then > 500 && told_then < 4000, "{summary}");

    let wrong = sweep(&other, &arguments).wait_with_output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        text(&wrong).contains("it is of another fleet file"),
        "{}",
        text(&wrong)
    );
    let wrong = sweep(&file, &[&arguments[..], &["--tries", "2"]].concat())
        .wait_with_output()
        .unwrap();
    assert!(
        text(&wrong).contains("other probes or tries"),
        "{}",
        text(&wrong)
    );

    let elsewhere = site.folder.join("elsewhere.jsonl");
    fs::write(&elsewhere, "precious\n".repeat(100_000)).unwrap();
    let mut others = arguments;
    others[3] = elsewhere.to_str().unwrap();
    let wrong = sweep(&file, &others).wait_with_output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong));
    assert!(text(&wrong).contains("its results so far are in `"));
    assert_eq!(fs::metadata(&elsewhere).unwrap().len(), 900_000);
    others[3] = state.to_str().unwrap();
    let wrong = sweep(&file, &others).wait_with_output().unwrap();
    assert!(
        text(&wrong).contains("are the same file"),
        "{}",
        text(&wrong)
    );

    let last = sweep(&file, &arguments).wait_with_output().unwrap();
    assert_eq!(last.status.code(), Some(1), "{}", text(&last));
    let (told, summary) = told(&lines(&fs::read(&results).unwrap()));
    assert_eq!(
        (told.len(), &summary["partial"]),
        (4 * 1022, &false.into()),
        "{summary}"
    );
    for ((rip, port), (answer, _)) in &told {
        let address: Ipv4Addr = rip.parse().unwrap();
        let expected = match way(address.octets()) {
            Way::Answers => "port-unreachable",
            // Of the pass that was cut, a silence does not count; of the others it does.
            Way::Silent => "none",
            _ => "icmp-error",
        };
        assert_eq!(answer, expected, "{rip} {port}");
    }
    assert!(!state.exists(), "nothing is left to go on from");

    let full = sweep(&file, &["--format", "json", "--output", "/dev/full"])
        .wait_with_output()
        .unwrap();
    assert_eq!(full.status.code(), Some(2), "{}", text(&full));
    assert!(
        text(&full).contains("cannot write to `/dev/full`"),
        "{}",
        text(&full)
    );
}
