//! Up, down, killed, used by an ordinary user: and that nothing of it is left.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tunproof::suite::PathFile;

use crate::bench::CIP;
use crate::bench::DIP;
use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::VIP;
use crate::bench::beside_others;
use crate::bench::copy;
use crate::bench::text;
use crate::bench::wait_until;

#[test]
fn up_prints_a_path_file_and_down_leaves_nothing() {
    let lab = TestLab::of(format!("test-up-{}", std::process::id()));
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
    let _room = beside_others();
    let mut demo = Command::new(TUNPROOF)
        .args(["lab", "demo"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lab = TestLab::of(format!("demo-{}", demo.id()));
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
    let _room = beside_others();
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
    let mended = lab
        .command(&["mend"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    assert!(mended.status.success(), "{}", text(&mended));
    assert_eq!(text(&mended), "nothing is broken\n");
}

#[test]
fn an_ordinary_user_has_a_lab() {
    let directory = env::temp_dir().join(format!("tunproof-test-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
    // Where the target directory is, another user may not be.
    let program = directory.join("program");
    copy(Path::new(TUNPROOF), &program);
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
        command.arg("--save").arg(lab.directory().join("case.json"));
        command.env("TUNPROOF_AGENT", TUNPROOF);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let hops = |output: &Output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["hops"].as_array().unwrap().len()
    };

    let is_judged_alike = |output: &Output| {
        let mut judge = Command::new(TUNPROOF);
        judge.args(["judge", "--format", "json"]);
        let again = judge.arg(lab.directory().join("case.json")).output();
        again.unwrap().stdout == output.stdout
    };

    let lost = verify(&dying).wait_with_output().unwrap();
    assert_eq!(lost.status.code(), Some(2), "{}", text(&lost));
    let words = String::from_utf8_lossy(&lost.stderr);
    assert!(words.contains("error: lost the agent on s: "), "{words}");
    assert_eq!(hops(&lost), 12);
    assert!(is_judged_alike(&lost));

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
    assert!(is_judged_alike(&stopped));
    assert_eq!(lab.on("s", "ss -Hnt state syn-recv"), "");
    fs::remove_file(lab.directory().join("test.toml")).unwrap();
}
