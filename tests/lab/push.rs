//! `--push`: hosts that lack tunproof have it for as long as a proof takes.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use crate::bench::TUNPROOF;
use crate::bench::TestLab;
use crate::bench::text;
use crate::bench::wait_until;

/// A folder for what is pushed, and a path file whose hosts have no program but by it.
struct Bare {
    folder: PathBuf,
    path: PathBuf,
}

impl Bare {
    fn of(lab: &TestLab) -> Bare {
        let folder = std::env::temp_dir().join(format!("tunproof-push-{}", lab.name));
        let path = folder.with_extension("toml");
        fs::create_dir(&folder).unwrap();
        let text = fs::read_to_string(lab.directory().join("path.toml")).unwrap();
        let bare = format!("via = \"env PATH=/nowhere TMPDIR={} ", folder.display());
        let text = text.replace("via = \"", &bare);
        assert_eq!(text.matches(&bare).count(), 3, "{text}");
        fs::write(&path, text).unwrap();
        Bare { folder, path }
    }

    fn verify(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TUNPROOF);
        command.arg("verify").arg(&self.path).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).unwrap().next().is_none()
    }

    /// How many processes run a program that was in the folder.
    fn running(&self) -> usize {
        let entries = fs::read_dir("/proc").unwrap();
        let exe = |entry: fs::DirEntry| fs::read_link(entry.path().join("exe")).ok();
        let programs = entries.filter_map(|entry| exe(entry.unwrap()));
        let folder: &Path = &self.folder;
        programs.filter(|exe| exe.starts_with(folder)).count()
    }

    /// A proof, once agents are there.
    fn begun(&self) -> Child {
        let verify = self.verify(&["--push"]).spawn().unwrap();
        wait_until("agents are there, and what brought them is not", || {
            self.running() >= 3 && self.is_empty()
        });
        verify
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn hosts_without_it_prove_a_path_and_have_nothing_of_it_afterwards() {
    let lab = TestLab::up("push");
    let bare = Bare::of(&lab);
    let without = bare.verify(&[]).output().unwrap();
    assert_eq!(without.status.code(), Some(2), "{}", text(&without));
    let said = text(&without);
    assert_eq!(said.matches("or add `--push`").count(), 3, "{said}");

    let verify = bare.begun().wait_with_output().unwrap();
    assert_eq!(verify.status.code(), Some(0), "{}", text(&verify));
    wait_until("nothing is left", || bare.is_empty() && bare.running() == 0);

    let mut killed = bare.begun();
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_until("nothing is left", || bare.is_empty() && bare.running() == 0);
}
