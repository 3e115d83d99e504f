//! Network namespaces for tests: real ones, made by a test, gone with its thread.

use std::io::Write;
use std::process::Command;
use std::process::Stdio;
use std::thread;

use nix::sched::CloneFlags;
use nix::sched::unshare;
use nix::unistd::geteuid;

use crate::live::network::Network;

/// Runs `body` in a fresh network namespace. An ordinary user becomes root of a user namespace for it, which
/// takes a process of one thread: the test runs once more under `unshare`. `test` is the test's own name,
/// `concat!(module_path!(), "::name")`.
pub(super) fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if geteuid().is_root() {
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            body();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
        return;
    }
    let (_, name) = test.split_once("::").expect("a path within the crate");
    let run = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .output()
        .expect("unshare of util-linux");
    let output = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && output.contains("1 passed"),
        "{output}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
}

/// Carries out commands as `ip -batch` reads them, in the calling thread's namespace.
pub(super) fn ip(commands: &str) {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip of iproute2");
    let mut input = ip.stdin.take().unwrap();
    input.write_all(commands.as_bytes()).unwrap();
    drop(input);
    assert!(ip.wait().unwrap().success(), "{commands}");
}

/// Waits until both ends of a veth pair that were switched on pass packets.
pub(super) fn wait_until_passing(devices: [&str; 2]) {
    let mut network = Network::open().unwrap();
    for device in devices {
        network.wait_until_passing(device).unwrap();
    }
}

/// What `ip -j ARGUMENTS` says, in the calling thread's namespace.
pub(super) fn ip_says(arguments: &str) -> serde_json::Value {
    let ip = Command::new("ip")
        .arg("-j")
        .args(arguments.split_whitespace())
        .output()
        .expect("ip of iproute2");
    serde_json::from_slice(&ip.stdout).unwrap_or_else(|error| panic!("{arguments}: {error}"))
}

/// Sets `/proc/sys/net/ipv4/NAME`, in the calling thread's namespace.
pub(super) fn set(name: &str, value: u32) {
    let file = format!("/proc/sys/net/ipv4/{name}");
    std::fs::write(&file, value.to_string()).unwrap_or_else(|error| panic!("{file}: {error}"));
}
