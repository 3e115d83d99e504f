//! Killed at any moment, `verify`, `run` and `sweep` leave nothing behind on any host.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use crate::bench::wait_until;

/// How often; `KILLS=200` takes minutes.
fn kills() -> u32 {
    env::var("KILLS").map_or(12, |n| n.parse().expect("a number"))
}

/// The hosts on which tunproof runs.
const HOSTS: [&str; 3] = ["d", "s", "c"];

/// The processes of the three hosts.
fn inhabitants(lab: &TestLab) -> BTreeSet<(PathBuf, String)> {
    let namespace = |host| PathBuf::from(lab.on(host, "readlink /proc/self/ns/net").trim());
    let hosts = HOSTS.map(namespace);
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let line = fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let is_there = fs::read_link(process.join("ns/net")).is_ok_and(|at| hosts.contains(&at));
        // A zombie has no command line.
        if is_there && !line.is_empty() {
            found.insert((process, line.replace('\0', " ")));
        }
    }
    found
}

/// Connections that nobody completes, and the gateway's neighbour entry.
fn disturbed(lab: &TestLab) -> (String, bool) {
    let half_open = lab.on("s", "ss -Hnt state syn-recv");
    let gateway = lab.on("s", "ip neigh show 203.0.113.1");
    (half_open, gateway.contains("lladdr"))
}

#[test]
fn kill_9_at_any_moment_leaves_nothing() {
    let lab = TestLab::up("kills");
    lab.assert_serves("before");
    let file = |name: &str| lab.directory().join(name).display().to_string();
    let fleet = "[director]\nip = \"192.0.2.2\"\n[client]\nip = \"198.51.100.7\"\n[[service]]\nvip = \"192.0.2.10\"\n\
                 port = [80, 81]\nrealservers = [\"203.0.113.5\", \"203.0.113.6\"]\n";
    fs::write(file("fleet.toml"), fleet).unwrap();
    let (path, case, fleet) = (file("path.toml"), file("case.json"), file("fleet.toml"));
    let verify = ["verify", &path, "--save", &case];
    let run = ["run", "q4-arp-and-firewall", "--path", &path];
    let sweep = [
        "lab", "--name", &lab.name, "exec", "d", TUNPROOF, "sweep", &fleet,
    ];
    let commands: [(&[&str], u64); 3] = [(&verify, 600), (&run, 800), (&sweep, 1500)];
    let names = || -> BTreeSet<_> {
        let entries = fs::read_dir(lab.directory()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let before = (inhabitants(&lab), names());
    let start = |arguments: &[&str]| {
        let mut command = Command::new(TUNPROOF);
        let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
        silent.env("TUNPROOF_AGENT", TUNPROOF).args(arguments);
        command.spawn().unwrap()
    };
    // Moments behind the end would hit nothing.
    let commands = commands.map(|(arguments, most)| {
        let began = Instant::now();
        start(arguments).wait().unwrap();
        (arguments, most.min(began.elapsed().as_millis() as u64))
    });
    let (mut random, mut hit) = (1_u64, [0; 3]);
    for kill in 0..4 * kills() {
        let which = kill as usize % commands.len();
        if hit.iter().sum::<u32>() == kills() {
            break;
        }
        let (arguments, longest) = commands[which];
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis((random >> 33) % longest);
        let mut child = start(arguments);
        thread::sleep(moment);
        hit[which] += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let when = format!("{kill}: {} after {moment:?}", arguments.join(" "));
        wait_until(&format!("no process is left, {when}"), || {
            inhabitants(&lab).is_subset(&before.0)
        });
        wait_until(&format!("nothing is half open, {when}"), || {
            disturbed(&lab).0.is_empty()
        });
        assert!(disturbed(&lab).1, "the gateway's entry is gone, {when}");
    }
    println!(
        "killed in their midst: verify {}, run {}, sweep {}",
        hit[0], hit[1], hit[2]
    );
    assert_eq!(hit.iter().sum::<u32>(), kills(), "{hit:?}");
    assert!(hit.iter().all(|hit| *hit > 0), "{hit:?}");
    let mut left = names();
    left.remove(std::ffi::OsStr::new("case.json"));
    assert_eq!(left, before.1);
    let mut after = Command::new(TUNPROOF);
    let after = after
        .args(verify)
        .env("TUNPROOF_AGENT", TUNPROOF)
        .output()
        .unwrap();
    assert_eq!(after.status.code(), Some(0), "{}", text(&after));
    let _ = fs::remove_file(&case);
    fs::remove_file(&fleet).unwrap();
}
