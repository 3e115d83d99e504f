//! The lab: a healthy path, what each fault does to it, and that nothing is left of it; and what `verify` says of it.
//!
//! Real traffic, seen by tcpdump. An ordinary user's lab needs user namespaces.

#[path = "lab/bench.rs"]
mod bench;
#[path = "lab/capture.rs"]
mod capture;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/hostile.rs"]
mod hostile;
#[path = "lab/killed.rs"]
mod killed;
#[path = "lab/life.rs"]
mod life;
#[path = "lab/matrix.rs"]
mod matrix;
#[path = "lab/monitor.rs"]
mod monitor;
#[path = "lab/pace.rs"]
mod pace;
#[path = "lab/policy.rs"]
mod policy;
#[path = "lab/push.rs"]
mod push;
#[path = "lab/saved.rs"]
mod saved;
#[path = "lab/spoofing.rs"]
mod spoofing;
#[path = "lab/suites.rs"]
mod suites;
#[path = "lab/sweep.rs"]
mod sweep;
#[path = "lab/terminal.rs"]
mod terminal;
#[path = "lab/together.rs"]
mod together;
#[path = "lab/tutorial.rs"]
mod tutorial;
#[path = "lab/watch.rs"]
mod watch;

use std::cell::Cell;
use std::env;
use std::io::Read;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use etherparse::IpNumber;
use etherparse::Ipv4Header;
use etherparse::PacketBuilder;
use tunproof::lab::FAULTS;
use tunproof::lab::Fault;
use tunproof::lab::Needs;
use tunproof::live::frames::Packets;
use tunproof::verdict::Code;

use bench::CIP;
use bench::DIP;
use bench::RIP;
use bench::TUNPROOF;
use bench::TestLab;
use bench::VIP;
use bench::text;
use matrix::kernel_forbids;

/// tcpdump on all devices of a host.
struct Tap {
    tcpdump: Child,
    lines: Arc<Mutex<String>>,
}

impl Tap {
    fn open(lab: &TestLab, host: &str) -> Tap {
        let mut tcpdump = lab
            .command(&["exec", host, "tcpdump"])
            .args(["-nn", "-l", "--immediate-mode", "-i", "any", "ip"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = tcpdump.stdout.take().unwrap();
        let mut words = tcpdump.stderr.take().unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("listening on") {
            let mut some = [0; 256];
            let length = words.read(&mut some).unwrap();
            assert!(length > 0, "tcpdump: {}", String::from_utf8_lossy(&said));
            said.extend(&some[..length]);
        }
        let lines = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&lines);
        thread::spawn(move || {
            // Its end must not close the pipe under tcpdump.
            let _words = words;
            let mut some = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut some) {
                let some = String::from_utf8_lossy(&some[..length]);
                sink.lock().unwrap().push_str(&some);
            }
        });
        Tap { tcpdump, lines }
    }

    /// The lines since the last call.
    fn take(&self) -> String {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.tcpdump.kill().unwrap();
        self.tcpdump.wait().unwrap();
    }
}

/// Where a client's packet and its answer pass, in order: the tap it is seen at, and what a line must hold.
const STATIONS: [(&str, usize, &[&str]); 6] = [
    (
        "director.in",
        0,
        &["eth0  In  IP 198.51.100.7.", " > 192.0.2.10.80: "],
    ),
    (
        "director.out",
        0,
        &["eth0  Out IP ", " > 203.0.113.5: IP 198.51.100.7."],
    ),
    (
        "realserver.in",
        1,
        &["eth0  In  IP ", " > 203.0.113.5: IP 198.51.100.7."],
    ),
    (
        "realserver.tunnel",
        1,
        &["tunl0 In  IP 198.51.100.7.", " > 192.0.2.10.80: "],
    ),
    (
        "realserver.out",
        1,
        &["eth0  Out IP 192.0.2.10.80 > 198.51.100.7."],
    ),
    (
        "client.in",
        2,
        &["eth0  In  IP 192.0.2.10.80 > 198.51.100.7."],
    ),
];

/// The last station that sees the client's packet or its answer. Earlier connections may still repeat theirs.
fn last(taken: &[String; 3]) -> &'static str {
    let newest = taken[2]
        .lines()
        .rfind(|line| line.contains("eth0  Out IP 198.51.100.7.") && line.contains("Flags [S]"))
        .expect("the client's SYN leaves it");
    let client = newest.split_whitespace().nth(4).unwrap();
    assert!(client.starts_with("198.51.100.7."), "{newest}");
    STATIONS
        .iter()
        .rev()
        .find(|(_, tap, parts)| {
            taken[*tap]
                .lines()
                .any(|line| line.contains(client) && parts.iter().all(|part| line.contains(part)))
        })
        .map_or("none", |(name, ..)| name)
}

/// Fault, the last station that still sees something, and a line that the director, the real server or the
/// client (0, 1, 2) sees besides.
type Effect = (&'static str, &'static str, Option<(usize, &'static str)>);

const EFFECTS: &[Effect] = &[
    ("client-packets-lost", "none", None),
    // rd itself refuses the client.
    ("duplicate-vip", "client.in", None),
    ("director-firewall-ingress", "director.in", None),
    (
        "ipvs-tunnel-type-mismatch",
        "director.in",
        Some((0, "eth0  Out IP 192.0.2.2.6080 > 203.0.113.5.6080: UDP")),
    ),
    (
        "source-not-owned",
        "realserver.in",
        Some((1, "IP 10.64.9.9 > 203.0.113.5: IP")),
    ),
    (
        "tunnel-rejected",
        "director.out",
        Some((
            0,
            "IP 10.64.3.2 > 192.0.2.2: ICMP host 203.0.113.5 unreachable",
        )),
    ),
    ("client-address-is-local", "realserver.tunnel", None),
    ("route-rejects", "realserver.tunnel", None),
    ("service-bound-elsewhere", "client.in", None),
    ("service-silent", "realserver.tunnel", None),
    ("realserver-firewall-egress", "realserver.tunnel", None),
    (
        "vip-not-on-director",
        "director.in",
        Some((0, "eth0  Out IP 198.51.100.7.")),
    ),
    (
        "ipvs-service-missing",
        "director.in",
        Some((2, "IP 192.0.2.10.80 > 198.51.100.7.")),
    ),
    (
        "ipvs-destination-missing",
        "director.in",
        Some((2, "192.0.2.10 tcp port 80 unreachable")),
    ),
    (
        "ipvs-not-tunnel",
        "director.in",
        Some((0, "eth0  Out IP 198.51.100.7.")),
    ),
    (
        "ipvs-weight-zero",
        "director.in",
        Some((2, "192.0.2.10 tcp port 80 unreachable")),
    ),
    (
        "source-is-vip",
        "realserver.in",
        Some((1, "IP 192.0.2.10 > 203.0.113.5: IP")),
    ),
    ("source-on-realserver", "realserver.in", None),
    ("no-route-to-realserver", "director.in", None),
    ("director-firewall-egress", "director.in", None),
    ("tunnel-lost-in-transit", "director.out", None),
    (
        "tunnel-rejected",
        "director.out",
        Some((0, "ICMP host 203.0.113.5 unreachable - admin prohibited")),
    ),
    (
        "ipip-not-supported",
        "realserver.in",
        Some((0, "203.0.113.5 protocol 4 unreachable")),
    ),
    (
        "tunnel-missing",
        "realserver.in",
        Some((0, "203.0.113.5 protocol 4 port ")),
    ),
    (
        "tunnel-down",
        "realserver.in",
        Some((0, "203.0.113.5 protocol 4 port ")),
    ),
    ("realserver-firewall-ipip", "realserver.in", None),
    ("rp-filter-drops", "realserver.tunnel", None),
    ("rp-filter-all", "realserver.tunnel", None),
    ("vip-not-local", "realserver.tunnel", None),
    (
        "realserver-firewall-decapsulated",
        "realserver.tunnel",
        None,
    ),
    ("service-not-listening", "client.in", None),
    ("no-route-to-client", "realserver.tunnel", None),
    (
        "egress-source-rewritten",
        "realserver.tunnel",
        Some((1, "eth0  Out IP 203.0.113.5.80 > 198.51.100.7.")),
    ),
    ("gateway-unreachable", "realserver.tunnel", None),
    ("gateway-drops-vip-arp", "realserver.tunnel", None),
    ("spoofed-source-filtered-at-gateway", "realserver.out", None),
    ("spoofed-source-filtered", "realserver.out", None),
    ("client-unreachable", "realserver.out", None),
];

/// Faults that leave a connection whole; `what_the_client_answers` and `what_long_packets_meet` are about
/// them.
const WHOLE: [&str; 5] = [
    "client-silent",
    "return-path-broken",
    "tunnel-mtu-low",
    "tunnel-mtu-black-hole",
    "tunnel-open-to-anyone",
];

/// Faults that this machine's kernel makes possible or not.
const BY_KERNEL: [&str; 1] = ["tunnel-endpoint-mismatch"];

#[test]
fn each_fault_breaks_its_station_and_is_mended() {
    let lab = TestLab::up("faults");
    let taps = ["d", "s", "c"].map(|host| Tap::open(&lab, host));
    let look = || {
        thread::sleep(Duration::from_millis(150));
        [0, 1, 2].map(|tap| taps[tap].take())
    };
    lab.assert_serves("healthy");
    assert_eq!(last(&look()), "client.in");
    let mut wrong = Vec::new();
    for (fault, station, line) in EFFECTS {
        let broke = lab.run(&["break", fault]);
        if kernel_forbids(&broke) {
            continue;
        }
        assert!(broke.status.success(), "{fault}: {}", text(&broke));
        let got = lab.get();
        let mut seen = look();
        // Refused by the director itself, the client sees an answer that the real server never gave.
        if *fault == "ipvs-service-missing" {
            assert!(got.contains("refused"), "{fault}: {got}");
            let answers = seen[2].clone();
            assert!(answers.contains(line.unwrap().1), "{fault}: {answers}");
            seen[2] = answers
                .lines()
                .filter(|line| !line.contains(" In "))
                .collect::<Vec<_>>()
                .join("\n");
        } else if let Some((tap, line)) = line {
            assert!(seen[*tap].contains(line), "{fault}: {}", seen[*tap]);
        }
        if last(&seen) != *station || got.contains("hello") {
            wrong.push(format!("{fault}: {station}, got {}: {got}", last(&seen)));
        }
        let mended = lab.run(&["mend"]);
        assert!(mended.status.success(), "{fault}: {}", text(&mended));
        lab.assert_serves(fault);
        look();
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// `lab list` names every fault, its finding and what it takes; `explain` names every fault that shows a finding.
#[test]
fn list_and_explain_name_every_fault() {
    let run = |arguments: &[&str]| {
        let output = Command::new(TUNPROOF).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    };
    let list = run(&["lab", "--name", "nobody-has-it-up", "list"]);
    for fault in FAULTS {
        let mut lines = list
            .lines()
            .skip_while(|line| line.split_whitespace().next() != Some(fault.name));
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("{}: {list}", fault.name));
        assert!(line.contains(fault.hop.id()), "{line}");
        assert_eq!(
            line.contains("ipip]"),
            fault.needs != Needs::Nothing,
            "{line}"
        );
        assert_eq!(line.contains("[nft]"), fault.needs_nft(), "{line}");
        let finding = format!("finding: {}", fault.finding);
        let other = lines.next().is_some_and(|line| line.trim() == finding);
        assert_eq!(other, fault.finding != fault.name, "{list}");

        let page = run(&["explain", fault.finding]);
        let shown = format!("\nLab    tunproof lab break {}\n", fault.name);
        assert!(page.contains(&shown), "{page}");
    }
    let has_none = |code: &&Code| FAULTS.iter().all(|fault| fault.finding != code.id());
    for code in Code::ALL.iter().filter(has_none) {
        let page = run(&["explain", code.id()]);
        assert!(!page.contains("lab break"), "{page}");
    }
}

#[test]
fn the_catalogue_is_tested_and_leads_to_findings_that_exist() {
    for Fault { name, finding, .. } in FAULTS {
        let is_tested = EFFECTS.iter().any(|(fault, ..)| fault == name);
        assert!(
            is_tested || WHOLE.contains(name) || BY_KERNEL.contains(name),
            "{name}"
        );
        assert!(Code::ALL.iter().any(|code| code.id() == *finding), "{name}");
    }
    for (fault, ..) in EFFECTS {
        assert!(Fault::named(fault).is_some(), "{fault}");
    }
}

/// `verify` of a real server with this rule: the first finding's code, its text, its commands; and the handle that
/// nft gives the rule.
fn with_rule(lab: &TestLab, rule: &str) -> (String, String, Vec<String>, String) {
    let made = lab.on(
        "s",
        &format!(
            "nft -f - <<'END'
table inet causes {{
    chain input {{
        type filter hook input priority 0
        ip saddr 10.0.0.0/8 drop
        {rule}
    }}
}}
END
            nft -a list chain inet causes input | grep 'protocol 4\\|protocol ipencap'"
        ),
    );
    let (_, handle) = made.trim().rsplit_once("# handle ").expect(&made);
    let path = lab.directory().join("path.toml");
    let verified = Command::new(TUNPROOF)
        .arg("verify")
        .arg(path)
        .args(["--format", "json"])
        .output()
        .unwrap();
    lab.on("s", "nft delete table inet causes");
    let report: serde_json::Value = serde_json::from_slice(&verified.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&verified)));
    let finding = &report["findings"][0];
    let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let fix = finding["fix"].as_array().cloned().unwrap_or_default();
    let fix = fix.iter().filter_map(|command| command.as_str());
    (
        word("code"),
        format!("{} {}", word("summary"), word("detail")),
        fix.map(str::to_owned).collect(),
        handle.to_owned(),
    )
}

#[test]
fn the_rule_that_drops_is_named_if_its_counter_tells() {
    let lab = TestLab::up("causes");
    let (code, said, fix, handle) = with_rule(&lab, "ip protocol 4 counter drop");
    assert_eq!(code, "realserver-firewall-ipip", "{said}");
    let rule = format!("nft inet causes input handle {handle}: `ip protocol 4 counter drop`");
    assert!(
        said.contains(&format!("The counter of {rule} rose by ")),
        "{said}"
    );
    let delete = format!("s# nft delete rule inet causes input handle {handle}");
    assert_eq!(fix, [delete]);

    let (code, said, fix, handle) = with_rule(&lab, "ip protocol 4 drop");
    assert_eq!(code, "realserver-firewall-ipip", "{said}");
    let rule = format!("nft inet causes input handle {handle}: `ip protocol 4 drop`");
    assert!(!said.contains("rose by"), "{said}");
    // The kernel's own word makes it the one: of the packets, or by the tracepoint, unless other drops on this
    // machine hide it or the kernel does not tell.
    let told = ["joined by time", "The kernel says of "];
    if told.iter().any(|told| said.contains(told)) {
        assert!(said.contains("NETFILTER_DROP"), "{said}");
        let only = format!("No other rule than {rule} could.");
        assert!(said.contains(&only), "{said}");
        assert_eq!(
            fix,
            [format!(
                "s# nft delete rule inet causes input handle {handle}"
            )]
        );
    } else {
        let candidate = format!("One rule could be it, and no counter tells: {rule}.");
        assert!(said.contains(&candidate), "{said}");
        assert_eq!(fix[0], "s# nft -a list chain inet causes input");
    }
}

#[test]
fn what_the_client_answers() {
    let lab = TestLab::up("answers");
    let [director, client] = ["d", "c"].map(|host| Tap::open(&lab, host));
    let saw = [&director, &client].map(|tap| (tap, Cell::new(false)));
    // What is awaited may take its time on a busy machine; what is not has the same time to come. Each SYN is
    // from a port of its own: the real server repeats its answer to one that nobody has reset.
    let look = |port: u16, expected: [bool; 2]| {
        let reset = format!(".{port} > 192.0.2.10.80: Flags [R");
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            thread::sleep(Duration::from_millis(200));
            for (tap, saw) in &saw {
                let lines = tap.take();
                let mut lines = lines.lines();
                let resets = lines.any(|line| line.contains(&reset) && line.contains("eth0 "));
                saw.set(saw.get() || resets);
            }
            let so_far = [saw[0].1.get(), saw[1].1.get()];
            let missing = so_far
                .iter()
                .zip(expected)
                .any(|(saw, wanted)| wanted && !saw);
            if !missing || Instant::now() > until {
                saw.iter().for_each(|(_, saw)| saw.set(false));
                return so_far;
            }
        }
    };
    // The closed loop: a tunnelled SYN on behalf of a client that knows nothing of it.
    lab.send("d", "tunnelled-syn 40001");
    assert_eq!(look(40_001, [true, true]), [true, true], "healthy");
    // The director's own packets pass its IPVS, too.
    lab.send("d", "plain-syn 40002");
    let seen = look(40_002, [true, true]);
    assert_eq!(seen, [true, true], "through the director");
    for (port, fault, expected) in [
        (40_003, "client-silent", [false, false]),
        (40_004, "return-path-broken", [false, true]),
    ] {
        assert!(lab.run(&["break", fault]).status.success());
        lab.send("d", &format!("tunnelled-syn {port}"));
        assert_eq!(look(port, expected), expected, "{fault}");
        lab.assert_serves(fault);
        assert!(lab.run(&["mend"]).status.success());
        // The answer is repeated, and now the client's RST is seen.
        assert_eq!(look(port, [true, true]), [true, true], "{fault}, mended");
    }
}

#[test]
fn what_long_packets_meet() {
    let lab = TestLab::up("long");
    let [director, server] = ["d", "s"].map(|host| Tap::open(&lab, host));
    let look = || {
        thread::sleep(Duration::from_millis(200));
        [&director, &server].map(Tap::take)
    };
    let needed = "need to frag (mtu 1400)";
    // Of 1480 octets: what a client sends at most through the tunnel.
    for (fault, arrives, told) in [
        ("", true, false),
        ("tunnel-mtu-low", false, true),
        ("tunnel-mtu-black-hole", false, false),
    ] {
        if !fault.is_empty() {
            assert!(lab.run(&["break", fault]).status.success());
        }
        lab.send("d", "tunnelled-long");
        let [at_director, at_server] = look();
        let arrived = at_server.contains("tunl0 In  IP 198.51.100.7");
        assert_eq!(arrived, arrives, "{fault}: {at_server}");
        assert_eq!(at_director.contains(needed), told, "{fault}: {at_director}");
        lab.assert_serves(fault);
        assert!(lab.run(&["mend"]).status.success());
        look();
    }
}

#[test]
fn arp_alone_is_dropped_and_the_filter_lets_the_control_pass() {
    let lab = TestLab::up("control");
    assert!(
        lab.run(&["break", "spoofed-source-filtered"])
            .status
            .success()
    );
    let ping = "ping -c1 -W1 -I 203.0.113.5 198.51.100.7";
    assert!(lab.on("s", ping).contains(" 0% packet loss"));
    assert!(lab.run(&["mend"]).status.success());

    assert!(
        lab.run(&["break", "gateway-drops-vip-arp"])
            .status
            .success()
    );
    lab.get();
    let neighbours = lab.on("s", "ip neigh");
    assert!(
        neighbours.contains("203.0.113.1 dev eth0 INCOMPLETE")
            || neighbours.contains("203.0.113.1 dev eth0 FAILED"),
        "{neighbours}"
    );
    lab.on("s", "ip neigh flush dev eth0");
    // Asked with its own address, the gateway answers, and then passes the VIP's packets as well.
    assert!(lab.on("s", ping).contains(" 0% packet loss"));
    lab.assert_serves("with the gateway's address known");
}

#[test]
fn the_real_servers_routing_is_the_kernels_own() {
    let lab = TestLab::up("routing");
    let ask = "ip route get from 198.51.100.7 to 192.0.2.10 iif tunl0";
    assert!(lab.on("s", ask).starts_with("local 192.0.2.10"));
    assert!(lab.run(&["break", "rp-filter-drops"]).status.success());
    assert!(lab.on("s", ask).contains("RTNETLINK answers"));
    let again = lab.run(&["break", "rp-filter-drops"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again).contains("broken already"), "{}", text(&again));
    assert!(text(&lab.run(&["list"])).contains("[broken now]"));
    assert!(lab.run(&["break", "vip-not-local"]).status.success());
    let mended = text(&lab.run(&["mend"]));
    assert!(mended.contains("rp-filter-drops") && mended.contains("vip-not-local"));
    assert!(lab.on("s", ask).starts_with("local 192.0.2.10"));
    assert!(!text(&lab.run(&["list"])).contains("[broken now]"));
}

#[test]
#[ignore = "sends packets: other tests run it in the lab"]
fn helper_sends() {
    let packet = env::var("TUNPROOF_TEST_PACKET").expect("which packet");
    let (packet, port) = packet.split_once(' ').unwrap_or((&packet, "40000"));
    let mut syn = Vec::new();
    PacketBuilder::ipv4(CIP.octets(), VIP.octets(), 64)
        .tcp(port.parse().unwrap(), 80, 4711, 1024)
        .syn()
        .write(&mut syn, &[])
        .unwrap();
    let socket = Packets::of_protocol(255, None).unwrap();
    match packet {
        "plain-syn" => socket.send(&syn, VIP).unwrap(),
        "tunnelled-syn" | "tunnelled-long" => {
            let mut inner = syn;
            if packet == "tunnelled-long" {
                inner.clear();
                PacketBuilder::ipv4(CIP.octets(), VIP.octets(), 64)
                    .udp(40_000, 33_434)
                    .write(&mut inner, &[0; 1480 - 28])
                    .unwrap();
            }
            let length = inner.len() as u16;
            let mut outer =
                Ipv4Header::new(length, 64, IpNumber::IPV4, DIP.octets(), RIP.octets()).unwrap();
            outer.dont_fragment = true;
            let packet = [&outer.to_bytes()[..], &inner].concat();
            socket.send(&packet, RIP).unwrap();
        }
        other => panic!("no packet is called `{other}`"),
    }
}
