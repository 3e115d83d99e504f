//! A director's link in a network namespace of its own, which ends with the thread and what it started.

use std::fs;
use std::io::Write;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sched::CloneFlags;
use nix::sched::unshare;

use crate::process::words;
use crate::sys;

pub(crate) const DIP: &str = "10.9.0.1";
pub(crate) const VIP: &str = "192.0.2.10";
pub(crate) const CIP: &str = "198.51.100.7";
pub(crate) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The gateway's, which is not that of `far`: the kernel there drops at once what arrives (PACKET_OTHERHOST).
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
pub(crate) const GATEWAY: &str = "02:00:00:00:00:99";

const LINK: &str = "link set lo up
link add near address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02
link set near up
link set far up
addr add 10.9.0.1/24 dev near
neigh add 10.9.0.2 lladdr 02:00:00:00:00:99 dev near
route add default via 10.9.0.2
";

/// Runs `body` on a thread whose namespace has `near`, the director's device, and `far`, at its gateway.
pub(crate) fn on_site<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root, for a network namespace");
            ip(LINK);
            let until = Instant::now() + Duration::from_secs(5);
            while !is_up("near") || !is_up("far") {
                assert!(Instant::now() < until, "the link stays down");
                thread::sleep(Duration::from_millis(10));
            }
            body()
        });
        run.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves `far` into a namespace that ends with the process given back, as on a wire it is another host's: a tap on all
/// devices of this one would see each packet arrive there, too.
pub(crate) fn part() -> Child {
    let mut sleep = words("unshare --net sleep 600");
    let child = sys::die_with_starter(&mut sleep).spawn();
    let child = child.expect("unshare of util-linux");
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let (own, number) = (namespace("thread-self"), child.id().to_string());
    let until = Instant::now() + Duration::from_secs(5);
    while namespace(&number) == own {
        assert!(Instant::now() < until, "unshare does nothing");
        thread::sleep(Duration::from_millis(5));
    }
    ip(&format!("link set far netns {number}\n"));
    let up = words(&format!(
        "nsenter --target {number} --net ip link set far up"
    ))
    .status();
    assert!(up.is_ok_and(|status| status.success()), "far stays down");
    while !is_up("near") {
        assert!(Instant::now() < until, "the link stays down");
        thread::sleep(Duration::from_millis(10));
    }
    child
}

fn ip(commands: &str) {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip of iproute2");
    let mut input = ip.stdin.take().expect("it is piped");
    input.write_all(commands.as_bytes()).expect("ip reads");
    drop(input);
    assert!(ip.wait().expect("ip runs").success(), "{commands}");
}

fn is_up(device: &str) -> bool {
    let said = Command::new("ip")
        .args(["-br", "link", "show", device])
        .output();
    said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("LOWER_UP"))
}

/// The index of a device of the calling thread's namespace.
pub(crate) fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).expect("the device is there")
}

/// How many packets have left by a device of the calling thread's namespace.
pub(crate) fn sent(device: &str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/dev").expect("proc is mounted");
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    number.expect("the device is listed")
}
