//! What a proof keeps, and what another machine makes of it.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::copy;
use crate::bench::text;

/// Judges a case as a user without rights, in a folder and with a network of their own.
fn judged_elsewhere(case: &Path, arguments: &[&str]) -> Output {
    let folder = env::temp_dir().join(format!("tunproof-elsewhere-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    for (from, name) in [(Path::new(TUNPROOF), "tunproof"), (case, "case.json")] {
        copy(from, &folder.join(name));
        fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net"]);
    if nix::unistd::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["--bounding-set=-all", "--no-new-privs"]);
    }
    let output = command
        .args(["./tunproof", "judge", "case.json"])
        .args(arguments)
        .current_dir(&folder)
        .output();
    fs::remove_dir_all(&folder).unwrap();
    output.unwrap()
}

#[test]
fn a_case_is_judged_elsewhere_as_it_was_here() {
    let lab = TestLab::up("saved");
    let broken = lab.run(&["break", "rp-filter-drops"]);
    assert!(broken.status.success(), "{}", text(&broken));
    let path = lab.directory().join("path.toml");
    let cases = ["verify", "run"].map(|command| {
        let name = format!("tunproof-case-{}-{command}.json", std::process::id());
        let case = env::temp_dir().join(name);
        let mut here = Command::new(TUNPROOF);
        match command {
            "verify" => here.arg("verify"),
            _ => here.args(["run", "q2-decapsulated-packets", "--path"]),
        };
        let here = here.arg(&path).args(["--format", "json", "--save"]);
        let here = here.arg(&case).output().unwrap();
        assert_eq!(here.status.code(), Some(1), "{}", text(&here));
        let mode = fs::metadata(&case).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        (case, here)
    });
    drop(lab);

    for (case, here) in cases {
        let elsewhere = judged_elsewhere(&case, &["--format", "json"]);
        fs::remove_file(&case).unwrap();
        assert_eq!(elsewhere.status.code(), Some(1), "{}", text(&elsewhere));
        assert!(elsewhere.stderr.is_empty(), "{}", text(&elsewhere));
        assert!(elsewhere.stdout == here.stdout, "another report");
    }
}
