//! A lab of a test's own.

use std::env;
use std::fs;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::thread;
use std::time::Duration;
use std::time::Instant;

pub(crate) const TUNPROOF: &str = env!("CARGO_BIN_EXE_tunproof");
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(crate) const CIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const DIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const RIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// A lab of the test's own, ended with the test.
pub(crate) struct TestLab {
    pub(crate) name: String,
    _room: File,
}

/// The kernel has one neighbour table, for all network namespaces of all tests (`net.ipv4.neigh.default.gc_thresh3`):
/// each lab holds this lock with others, and who fills the table holds it alone. `/tmp`, as everybody can open it.
fn room() -> File {
    File::open(env::temp_dir()).unwrap()
}

/// Waits until no lab is up, and lets none come up.
pub(crate) fn alone() -> File {
    let room = room();
    room.lock().unwrap();
    room
}

/// Waits until nobody is [`alone`].
pub(crate) fn beside_others() -> File {
    let room = room();
    room.lock_shared().unwrap();
    room
}

impl TestLab {
    /// A lab of this name, which is brought up elsewhere.
    pub(crate) fn of(name: String) -> TestLab {
        TestLab {
            name,
            _room: beside_others(),
        }
    }

    pub(crate) fn up(name: &str) -> TestLab {
        let lab = TestLab::of(format!("test-{name}-{}", std::process::id()));
        let up = lab.run(&["up"]);
        assert!(up.status.success(), "{}", text(&up));
        lab
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TUNPROOF);
        command.args(["lab", "--name", &self.name]).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command on `host` printed.
    pub(crate) fn on(&self, host: &str, command: &str) -> String {
        text(&self.run(&["exec", host, "bash", "-c", command]))
    }

    /// What the client gets from the service: its greeting, or an error.
    pub(crate) fn get(&self) -> String {
        self.on(
            "c",
            "timeout 0.7 bash -c 'exec 3<>/dev/tcp/192.0.2.10/80 && echo GET / >&3 && cat <&3'",
        )
    }

    pub(crate) fn assert_serves(&self, when: &str) {
        let got = self.get();
        assert!(got.contains("hello from real server"), "{when}: {got}");
    }

    /// Has `helper_sends` send a packet on `host`; `NAME PORT` has it come from that port.
    pub(crate) fn send(&self, host: &str, packet: &str) {
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

    pub(crate) fn keeper(&self) -> u32 {
        let state = fs::read_to_string(self.directory().join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        state["keeper"]["number"].as_u64().unwrap() as u32
    }

    pub(crate) fn directory(&self) -> PathBuf {
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

pub(crate) fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]]
        .map(String::from_utf8_lossy)
        .concat()
}

/// Copies a program by another process: what this one has open to write, a child of another test holds a moment longer,
/// and nobody may run it then (ETXTBSY).
pub(crate) fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().unwrap();
    assert!(status.success(), "cp: {status}");
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < until, "not within 10 seconds: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the tap of a host's agent hears: SOCK_DGRAM, ETH_P_ALL, running.
pub(crate) fn wait_for_tap(lab: &TestLab, host: &str) {
    wait_until("a tap", || {
        let sockets = lab.on(host, "cat /proc/net/packet");
        sockets.lines().any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            matches!(fields[..], [_, _, "2", "0003", _, "1", ..])
        })
    });
}
