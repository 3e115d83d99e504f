//! The lab: a healthy path, what each fault does to it, and that nothing is left of it.
//!
//! Real traffic, seen by tcpdump. An ordinary user's lab needs user namespaces.

use std::env;
use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Output;
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
use tunproof::live::frames::Packets;
use tunproof::suite::PathFile;
use tunproof::verdict::Code;

const TUNPROOF: &str = env!("CARGO_BIN_EXE_tunproof");
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// A lab of the test's own, ended with the test.
struct TestLab {
    name: String,
}

impl TestLab {
    fn up(name: &str) -> TestLab {
        let lab = TestLab {
            name: format!("test-{name}-{}", std::process::id()),
        };
        let up = lab.run(&["up"]);
        assert!(up.status.success(), "{}", text(&up));
        lab
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TUNPROOF);
        command.args(["lab", "--name", &self.name]).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command on `host` printed.
    fn on(&self, host: &str, command: &str) -> String {
        text(&self.run(&["exec", host, "bash", "-c", command]))
    }

    /// What the client gets from the service: its greeting, or an error.
    fn get(&self) -> String {
        self.on(
            "c",
            "timeout 0.7 bash -c 'exec 3<>/dev/tcp/192.0.2.10/80 && echo GET / >&3 && cat <&3'",
        )
    }

    fn assert_serves(&self, when: &str) {
        let got = self.get();
        assert!(got.contains("hello from real server"), "{when}: {got}");
    }

    /// Has `helper_sends` send a packet on `host`.
    fn send(&self, host: &str, packet: &str) {
        let this = env::current_exe().unwrap();
        let sent = self
            .command(&["exec", host])
            .arg(this)
            .args(["--exact", "helper_sends", "--ignored"])
            .env("TUNPROOF_TEST_PACKET", packet)
            .output()
            .unwrap();
        assert!(text(&sent).contains("1 passed"), "{}", text(&sent));
    }

    fn keeper(&self) -> u32 {
        let state = fs::read_to_string(self.directory().join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        state["keeper"]["number"].as_u64().unwrap() as u32
    }

    fn directory(&self) -> PathBuf {
        let base = match env::var("XDG_RUNTIME_DIR") {
            Ok(directory) => PathBuf::from(directory).join("tunproof"),
            Err(_) if nix::unistd::geteuid().is_root() => PathBuf::from("/run/tunproof"),
            Err(_) => PathBuf::from(format!("/tmp/tunproof-{}", nix::unistd::geteuid())),
        };
        base.join(&self.name)
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        // A test may have ended it itself.
        let _ = self.run(&["down"]);
    }
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]]
        .map(String::from_utf8_lossy)
        .concat()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < until, "not within 10 seconds: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

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

/// Faults that leave a connection whole; `what_the_client_answers` is about them.
const WHOLE: [&str; 3] = [
    "client-silent",
    "return-path-broken",
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

/// Some faults take the kernel's own ipip, and some the stand-in: refused with a reason is right then.
fn kernel_forbids(broke: &Output) -> bool {
    broke.status.code() == Some(2) && text(broke).contains("and this lab has")
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
    for code in Code::ALL {
        let said = tunproof::report::page(*code).contains("tunproof lab break");
        assert_eq!(said, Fault::named(code.id()).is_some(), "{code}");
    }
}

#[test]
fn what_the_client_answers() {
    let lab = TestLab::up("answers");
    let [director, client] = ["d", "c"].map(|host| Tap::open(&lab, host));
    let reset = " > 192.0.2.10.80: Flags [R";
    let look = || {
        thread::sleep(Duration::from_millis(200));
        [&director, &client].map(|tap| {
            let lines = tap.take();
            lines
                .lines()
                .any(|line| line.contains(reset) && line.contains("eth0 "))
        })
    };
    // The closed loop: a tunnelled SYN on behalf of a client that knows nothing of it.
    lab.send("d", "tunnelled-syn");
    assert_eq!(look(), [true, true], "healthy");
    // The director's own packets pass its IPVS, too.
    lab.send("d", "plain-syn");
    assert_eq!(look(), [true, true], "through the director");
    for (fault, expected) in [
        ("client-silent", [false, false]),
        ("return-path-broken", [false, true]),
    ] {
        assert!(lab.run(&["break", fault]).status.success());
        lab.send("d", "tunnelled-syn");
        assert_eq!(look(), expected, "{fault}");
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
fn up_prints_a_path_file_and_down_leaves_nothing() {
    let lab = TestLab {
        name: format!("test-up-{}", std::process::id()),
    };
    let before = lab.run(&["exec", "c", "true"]);
    assert_eq!(before.status.code(), Some(2));
    assert!(text(&before).contains("up` starts it"), "{}", text(&before));

    let up = lab.run(&["up"]);
    assert!(up.status.success(), "{}", text(&up));
    let printed = String::from_utf8(up.stdout).unwrap();
    assert_eq!(
        fs::read_to_string(lab.directory().join("path.toml")).unwrap(),
        printed
    );
    let path = PathFile::parse("path.toml", &printed).expect("a valid path file");
    assert_eq!((path.vip, path.cip, path.dip), (VIP, CIP, DIP));
    // Its `via` is a command that runs an argv on the host.
    let via = path.director_via.unwrap();
    let addresses = Command::new(&via[0])
        .args(&via[1..])
        .args(["ip", "-br", "address"])
        .output()
        .unwrap();
    assert!(
        text(&addresses).contains("192.0.2.2/29"),
        "{}",
        text(&addresses)
    );

    let again = lab.run(&["up"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again).contains("up already"), "{}", text(&again));
    let unknown = lab.run(&["exec", "nobody", "true"]);
    assert_eq!(unknown.status.code(), Some(2));
    let unknown = lab.run(&["break", "rp-filter-drop"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("rp-filter-drops"));
    let absent = lab.run(&["exec", "c", "no-such-program"]);
    assert_eq!(absent.status.code(), Some(2));
    assert!(text(&absent).contains("cannot run `no-such-program`"));

    let keeper = PathBuf::from(format!("/proc/{}", lab.keeper()));
    assert!(keeper.exists());
    assert!(lab.run(&["down"]).status.success());
    wait_until("the keeper is gone", || !keeper.exists());
    assert!(!lab.directory().exists());
}

#[test]
fn a_killed_keeper_leaves_nothing() {
    let lab = TestLab::up("killed");
    let keeper = lab.keeper();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(keeper as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_until("the lab is not up", || {
        text(&lab.run(&["exec", "c", "true"])).contains("not up")
    });
    assert!(lab.run(&["up"]).status.success());
    assert_ne!(lab.keeper(), keeper);
    lab.assert_serves("anew");
}

#[test]
fn a_killed_demo_takes_its_lab_with_it() {
    let mut demo = Command::new(TUNPROOF)
        .args(["lab", "demo"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lab = TestLab {
        name: format!("demo-{}", demo.id()),
    };
    let state = lab.directory().join("state.json");
    wait_until("the demo's lab is up", || state.exists());
    let keeper = PathBuf::from(format!("/proc/{}", lab.keeper()));
    assert!(demo.try_wait().unwrap().is_none(), "it ended too early");
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_until("its keeper is gone", || !keeper.exists());
    assert!(!lab.directory().exists());
}

#[test]
fn the_demo_ends_as_it_says() {
    let demo = Command::new(TUNPROOF)
        .args(["lab", "demo"])
        .output()
        .unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", text(&demo));
    let reports = String::from_utf8(demo.stdout).unwrap();
    assert_eq!(
        reports.matches("error[spoofed-source-filtered]").count(),
        1,
        "{reports}"
    );
    assert_eq!(
        reports.matches("proven: 12 of 12 hops").count(),
        2,
        "{reports}"
    );
}

#[test]
fn without_nft_the_lab_stays_whole_and_says_so() {
    let lab = TestLab::up("no-nft");
    let broke = lab
        .command(&["break", "client-silent"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(broke.status.code(), Some(2));
    let said = text(&broke);
    assert!(
        said.contains("nft") && said.contains("hint: install"),
        "{said}"
    );
    lab.assert_serves("after it");
}

#[test]
fn an_ordinary_user_has_a_lab() {
    let directory = env::temp_dir().join(format!("tunproof-test-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    // Where the target directory is, another user may not be.
    let program = directory.join("program");
    fs::copy(TUNPROOF, &program).unwrap();
    let result = ordinary_user(&directory, &program);
    fs::remove_dir_all(&directory).unwrap();
    let (output, left) = result;
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("hello from real server"), "{said}");
    assert!(said.contains("uid=0(root)"), "{said}");
    assert!(said.contains("refused-by-rp-filter"), "{said}");
    assert!(said.contains("served-again"), "{said}");
    assert!(!left, "the lab's directory is left");
}

fn ordinary_user(directory: &Path, program: &Path) -> (Output, bool) {
    const SCRIPT: &str = r#"
        set -e
        lab() { "$PROGRAM" lab --name user "$@"; }
        get() { lab exec c timeout 1 bash -c 'exec 3<>/dev/tcp/192.0.2.10/80 && echo GET / >&3 && cat <&3'; }
        lab up
        trap 'lab down' EXIT
        lab exec d id
        get
        lab break rp-filter-drops
        get || echo refused-by-rp-filter
        lab mend
        get && echo served-again
    "#;
    let mut command = match nix::unistd::geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash"]);
            command
        }
        false => Command::new("bash"),
    };
    let output = command
        .args(["-c", SCRIPT])
        .current_dir(directory)
        .env("PROGRAM", program)
        .env("XDG_RUNTIME_DIR", directory)
        .output()
        .unwrap();
    (output, directory.join("tunproof/user").exists())
}

#[test]
#[ignore = "sends packets: other tests run it in the lab"]
fn helper_sends() {
    let packet = env::var("TUNPROOF_TEST_PACKET").expect("which packet");
    let mut syn = Vec::new();
    PacketBuilder::ipv4(CIP.octets(), VIP.octets(), 64)
        .tcp(40_000 + std::process::id() as u16 % 20_000, 80, 4711, 1024)
        .syn()
        .write(&mut syn, &[])
        .unwrap();
    let socket = Packets::of_protocol(255, None).unwrap();
    match packet.as_str() {
        "plain-syn" => socket.send(&syn, VIP).unwrap(),
        "tunnelled-syn" => {
            let length = syn.len() as u16;
            let outer =
                Ipv4Header::new(length, 64, IpNumber::IPV4, DIP.octets(), RIP.octets()).unwrap();
            let packet = [&outer.to_bytes()[..], &syn].concat();
            socket.send(&packet, RIP).unwrap();
        }
        other => panic!("no packet is called `{other}`"),
    }
}

#[test]
fn a_proof_that_loses_an_agent_or_is_stopped_says_so() {
    let lab = TestLab::up("lost");
    // What is broken is probed for seconds.
    assert!(
        lab.run(&["break", "service-not-listening"])
            .status
            .success()
    );
    let whole = fs::read_to_string(lab.directory().join("path.toml")).unwrap();
    let dying = whole.replacen(
        &format!("via = \"{TUNPROOF} lab --name {} exec s", lab.name),
        &format!(
            "via = \"timeout -s KILL 0.5 {TUNPROOF} lab --name {} exec s",
            lab.name
        ),
        1,
    );
    assert_ne!(whole, dying);
    let verify = |path_file: &str| {
        let path = lab.directory().join("test.toml");
        fs::write(&path, path_file).unwrap();
        let mut command = Command::new(TUNPROOF);
        command.args(["verify", "--format", "json"]).arg(path);
        command.env("TUNPROOF_AGENT", TUNPROOF);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let hops = |output: &Output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["hops"].as_array().unwrap().len()
    };

    let lost = verify(&dying).wait_with_output().unwrap();
    assert_eq!(lost.status.code(), Some(2), "{}", text(&lost));
    let words = String::from_utf8_lossy(&lost.stderr);
    assert!(words.contains("error: lost the agent on s: "), "{words}");
    assert_eq!(hops(&lost), 12);

    let child = verify(&whole);
    thread::sleep(Duration::from_millis(700));
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let began = Instant::now();
    let stopped = child.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_ne!(stopped.status.code(), Some(0), "{}", text(&stopped));
    let words = String::from_utf8_lossy(&stopped.stderr);
    assert_eq!(
        words,
        "interrupted: the report says what was known by then\n"
    );
    assert_eq!(hops(&stopped), 12);
    assert_eq!(lab.on("s", "ss -Hnt state syn-recv"), "");
    fs::remove_file(lab.directory().join("test.toml")).unwrap();
}

/// What `verify` says of the lab: exit status, the first broken hop, the codes of errors and warnings.
fn verified(lab: &TestLab) -> (Option<i32>, String, Vec<String>) {
    let path = lab.directory().join("path.toml");
    let output = Command::new(TUNPROOF)
        .args(["verify", "--format", "json"])
        .arg(path)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
    let all = |list: &str| report[list].as_array().unwrap().clone();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let broken = all("hops")
        .into_iter()
        .find(|hop| hop["verdict"] == "broken")
        .map_or_else(String::new, |hop| word(&hop["id"]));
    let codes = all("findings")
        .into_iter()
        .filter(|finding| finding["severity"] != "note")
        .map(|finding| word(&finding["code"]))
        .collect();
    (output.status.code(), broken, codes)
}

fn unless_proven(lab: &TestLab, when: &str) -> Option<String> {
    let got = verified(lab);
    let proven = (Some(0), String::new(), Vec::new());
    (got != proven).then(|| format!("{when}\nexpected a proof\ngot      {got:?}"))
}

/// `lab break` says which finding to expect at which hop, and `verify` finds it; nothing on a healthy lab.
#[test]
fn verify_names_each_fault_and_nothing_on_a_healthy_lab() {
    const LABS: usize = 6;
    let examine = |number: usize| {
        let lab = TestLab::up(&format!("verify{number}"));
        let mut wrong = Vec::new();
        wrong.extend(unless_proven(&lab, "healthy"));
        let mut tried = 0;
        for fault in FAULTS.iter().skip(number).step_by(LABS) {
            let broke = lab.run(&["break", fault.name]);
            if kernel_forbids(&broke) {
                continue;
            }
            let said = text(&broke);
            let expected = said
                .lines()
                .find_map(|line| line.strip_prefix("expect ")?.split(';').next())
                .unwrap_or_else(|| panic!("{}: {said}", fault.name));
            let (code, hop) = expected.split_once(" at ").unwrap();
            let (status, broken, codes) = verified(&lab);
            let outcome = match fault.breaks() {
                true => (Some(1), hop),
                false => (Some(0), ""),
            };
            if (status, broken.as_str()) != outcome || !codes.iter().any(|c| c == code) {
                let got = format!("exit {status:?}, {broken} first, {codes:?}");
                wrong.push(format!(
                    "{}\nexpected {expected}\ngot      {got}",
                    fault.name
                ));
            }
            lab.run(&["mend"]);
            tried += 1;
        }
        wrong.extend(unless_proven(&lab, "mended"));
        (tried, wrong)
    };
    let found: Vec<_> = thread::scope(|scope| {
        let labs: Vec<_> = (0..LABS)
            .map(|number| scope.spawn(move || examine(number)))
            .collect();
        labs.into_iter().map(|lab| lab.join().unwrap()).collect()
    });
    let tried: usize = found.iter().map(|(tried, _)| tried).sum();
    assert!(tried >= 39, "only {tried} faults were tried");
    let wrong: Vec<_> = found.into_iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}
