//! `--push` where it cannot work: why, and that nothing is left.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::PATH;
use crate::Scratch;
use crate::code;
use crate::stderr;
use crate::tunproof;

/// A folder that must be empty at the test's end, but for a program of the test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = env::temp_dir().join(format!("tunproof-no-push-{}-{name}", process::id()));
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    /// What `verify --push` says of a director that is reached so, `FOLDER` being this one.
    fn push(&self, via: &str) -> String {
        let folder = self.0.to_str().unwrap();
        let via = via.replace("FOLDER", folder);
        let text = PATH.replace(
            "ip = \"192.0.2.2\"",
            &format!("ip = \"192.0.2.2\"\nvia = '''{via}'''"),
        );
        let file = Scratch::new(self.0.file_name().unwrap().to_str().unwrap(), &text);
        let output = tunproof(&["verify", file.path(), "--push"]);
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        stderr(&output).to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        entries.map(|entry| name(entry.unwrap())).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_connection_that_is_cut_leaves_nothing() {
    let folder = Folder::new("cut");
    let said = folder.push(
        "env sh -c 'case \"$1\" in /bin/sh) dd bs=1 count=100000 | TMPDIR=FOLDER \"$@\";; *) exit 127;; esac' x",
    );
    let expected = "error: no agent on director: the program did not get through";
    assert!(said.contains(expected), "{said}");
    let until = Instant::now() + Duration::from_secs(10);
    while !folder.names().is_empty() {
        assert!(Instant::now() < until, "left: {:?}", folder.names());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn another_machine_gets_no_program() {
    let folder = Folder::new("machine");
    let uname = folder.0.join("uname");
    fs::write(&uname, "#!/bin/sh\necho s390x\n").unwrap();
    fs::set_permissions(&uname, PermissionsExt::from_mode(0o755)).unwrap();
    let said = folder.push("env PATH=FOLDER TMPDIR=FOLDER");
    let expected = "that host is s390x, and this tunproof is built for ";
    assert!(said.contains(expected), "{said}");
    assert_eq!(folder.names(), ["uname"]);
}

#[test]
fn folders_in_which_nothing_can_be_run_are_named() {
    let folder = Folder::new("noexec");
    let said = folder.push(
        "env unshare --user --map-root-user --mount sh -c 'for d in FOLDER /tmp /var/tmp /run; do \
         mount -t tmpfs -o noexec none \"$d\" || exit 9; done; exec env PATH=/nowhere TMPDIR=FOLDER \"$@\"' x",
    );
    let expected =
        "no folder there takes a program that can be run: tried $TMPDIR, /tmp, /var/tmp and /run";
    assert!(said.contains(expected), "{said}");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn what_is_no_shell_is_shown() {
    let folder = Folder::new("shell");
    let said = folder.push(
        "env sh -c 'case \"$1\" in /bin/sh) echo Welcome to lb1!; exec cat >/dev/null;; *) exit 127;; esac' x",
    );
    let expected = "expected a shell's answer to `--push`, got `Welcome to lb1!`";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn who_has_it_is_brought_nothing() {
    let folder = Folder::new("has");
    // It is there, and fails otherwise.
    let said = folder.push(
        "env sh -c 'case \"$1\" in /bin/sh) touch FOLDER/asked;; *) echo no rights >&2; exit 2;; esac' x",
    );
    assert!(said.contains("its stderr: no rights"), "{said}");
    assert_eq!(folder.names(), [""; 0]);
}
