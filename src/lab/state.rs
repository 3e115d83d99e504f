//! What stands of a lab on disk: a directory of its own with `state.json`, `path.toml` and `faults`.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use nix::unistd::geteuid;
use serde::Deserialize;
use serde::Serialize;

use crate::lab::LabError;
use crate::lab::Node;

/// A running lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The keeper.
    pub(super) keeper: Process,
    /// The number of the keeper's thread in each host's namespace.
    pub(super) threads: BTreeMap<Node, u32>,
    /// The same for the namespace of the stand-ins' far ends.
    pub(super) backstage: u32,
    /// Who takes packets out of the tunnel.
    pub(super) tunnel: Maker,
    /// Who schedules and encapsulates.
    pub(super) director: Maker,
}

/// Who does what a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Maker {
    /// The kernel.
    Kernel,
    /// The keeper.
    StandIn,
}

/// A process, told from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its number.
    pub(super) number: u32,
    /// When it started, in clock ticks since the machine did (`/proc/PID/stat`, field 22).
    started: u64,
}

impl Process {
    /// This process.
    pub(super) fn this() -> io::Result<Process> {
        Process::numbered(std::process::id())
    }

    fn numbered(number: u32) -> io::Result<Process> {
        let text = fs::read_to_string(format!("/proc/{number}/stat"))?;
        let (state, started) = stat(&text).ok_or(io::ErrorKind::InvalidData)?;
        match state {
            "Z" | "X" => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(Process { number, started }),
        }
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        Process::numbered(self.number).is_ok_and(|process| process == *self)
    }
}

/// State and start time of a `/proc/PID/stat`; the name, in parentheses, may hold anything.
fn stat(text: &str) -> Option<(&str, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?, fields.nth(18)?.parse().ok()?))
}

/// The directory of one lab.
#[derive(Clone, Debug)]
pub struct Directory {
    base: PathBuf,
    name: String,
}

impl Directory {
    /// The name of the lab that has no other.
    pub const DEFAULT: &'static str = "lab";

    /// The directory of the lab `name`: under `$XDG_RUNTIME_DIR/tunproof`, or else `/run/tunproof` for root, or
    /// else `/tmp/tunproof-UID`.
    ///
    /// # Errors
    ///
    /// If it can be no name, or the directory of all labs cannot be made or is somebody else's.
    pub fn of(name: &str) -> Result<Directory, LabError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.starts_with('-') || !name.chars().all(is_plain) {
            return Err(LabError::Name(name.to_owned()));
        }
        let user = geteuid();
        let base = match env::var_os("XDG_RUNTIME_DIR") {
            Some(directory) if Path::new(&directory).is_absolute() => {
                Path::new(&directory).join("tunproof")
            }
            _ if user.is_root() => PathBuf::from("/run/tunproof"),
            _ => PathBuf::from(format!("/tmp/tunproof-{user}")),
        };
        match DirBuilder::new().mode(0o700).create(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(file("make", &base)(error));
            }
            _ => {}
        }
        let metadata = fs::symlink_metadata(&base).map_err(file("look at", &base))?;
        if !metadata.is_dir() || metadata.uid() != user.as_raw() || metadata.mode() & 0o022 != 0 {
            return Err(LabError::NotYours(base));
        }
        Ok(Directory {
            base,
            name: name.to_owned(),
        })
    }

    /// The option by which commands name this lab, with a space at its end; empty for the default.
    pub fn option(&self) -> String {
        match self.name.as_str() {
            Directory::DEFAULT => String::new(),
            name => format!("--name {name} "),
        }
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's path file.
    pub fn path_file(&self) -> PathBuf {
        self.path().join("path.toml")
    }

    fn path(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    fn state_file(&self) -> PathBuf {
        self.path().join("state.json")
    }

    /// The faults in force, by name.
    pub(super) fn faults(&self) -> Faults {
        Faults {
            path: self.path().join("faults"),
        }
    }

    /// Waits for, and takes, the lock that whoever starts, ends or changes a lab holds.
    pub(super) fn lock(&self) -> Result<File, LabError> {
        let path = self.base.join(".lock");
        let lock = File::create(&path).map_err(file("make", &path))?;
        lock.lock().map_err(file("lock", &path))?;
        Ok(lock)
    }

    /// Makes the directory, empty.
    pub(super) fn make(&self) -> Result<(), LabError> {
        self.remove()?;
        DirBuilder::new()
            .mode(0o700)
            .create(self.path())
            .map_err(file("make", &self.path()))
    }

    /// Removes the directory.
    pub(super) fn remove(&self) -> Result<(), LabError> {
        match fs::remove_dir_all(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &self.path())(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directories of labs whose keepers are gone. The caller holds the lock.
    pub(super) fn sweep(&self) -> Result<(), LabError> {
        let entries = fs::read_dir(&self.base).map_err(file("list", &self.base))?;
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            let lab = Directory {
                base: self.base.clone(),
                name: entry.file_name().to_string_lossy().into_owned(),
            };
            if lab.running()?.is_none() {
                lab.remove()?;
            }
        }
        Ok(())
    }

    /// The running lab, if it runs.
    pub(super) fn running(&self) -> Result<Option<State>, LabError> {
        let path = self.state_file();
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text)
                .ok()
                .filter(|state: &State| state.keeper.is_alive())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file("read", &path)(error)),
        }
    }

    /// Writes down that the lab runs.
    pub(super) fn write(&self, state: &State) -> Result<(), LabError> {
        let path = self.state_file();
        let text = serde_json::to_vec(state).expect("a state has plain keys");
        fs::write(&path, text).map_err(file("write", &path))
    }

    /// Writes the path file.
    pub(super) fn write_path_file(&self, text: &str) -> Result<(), LabError> {
        let path = self.path_file();
        fs::write(&path, text).map_err(file("write", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(file("write", &path))
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

/// The list of faults in force. The stand-ins read it for each packet, so that it holds at once.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    path: PathBuf,
}

impl Faults {
    /// Their names, the oldest first.
    pub(super) fn names(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether this one is in force.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names().iter().any(|other| other == name)
    }

    /// Replaces the list.
    pub(super) fn write(&self, names: &[String]) -> Result<(), LabError> {
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        // A reader sees the old list or the new one, never half of it.
        let new = self.path.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &self.path))
            .map_err(file("write", &self.path))
    }
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LabError {
    let path = path.to_owned();
    move |source| LabError::File {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_a_later_one_with_its_number() {
        let this = Process::this().unwrap();
        assert!(this.is_alive());
        let earlier = Process {
            started: this.started - 1,
            ..this
        };
        assert!(!earlier.is_alive());
    }

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let text = "7 (a) Z 1) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(stat(text), Some(("S", 4711)));
    }

    #[test]
    fn a_name_stays_in_its_directory() {
        for name in ["", "..", "a/b", "-x", "a b"] {
            assert!(Directory::of(name).is_err(), "{name}");
        }
    }
}
