//! The lab as its user has it: up, down, in it, broken, mended.

use std::ffi::OsString;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::lab::Directory;
use crate::lab::FAULTS;
use crate::lab::Fault;
use crate::lab::LabError;
use crate::lab::Maker;
use crate::lab::Node;
use crate::lab::fault::Change;
use crate::lab::fault::check;
use crate::lab::keeper::READY;
use crate::lab::state::State;
use crate::lab::topology::path_file;
use crate::live::netns::NamespaceError;
use crate::live::netns::enter_network;
use crate::live::netns::enter_user;

/// How long a keeper may take to end before it is killed.
const ENDING: Duration = Duration::from_secs(5);

/// A running lab.
pub struct Lab {
    directory: Directory,
    state: State,
    /// The keeper, if it lives no longer than this process: it ends when its stdin does.
    attached: Option<Child>,
}

impl Lab {
    /// Starts a lab. `attached`, it lives no longer than this process, however that ends. `program` is this
    /// program, which the keeper is another process of.
    ///
    /// # Errors
    ///
    /// If there is one of that name, or it cannot be built.
    pub fn up(directory: Directory, program: &Path, attached: bool) -> Result<Lab, LabError> {
        let _lock = directory.lock()?;
        directory.sweep()?;
        if directory.running()?.is_some() {
            return Err(LabError::AlreadyUp {
                option: directory.option(),
            });
        }
        directory.make()?;
        match Lab::start(&directory, program, attached) {
            Ok(lab) => Ok(lab),
            Err(error) => {
                // The first error is the one to tell.
                let _ = directory.remove();
                Err(error)
            }
        }
    }

    fn start(directory: &Directory, program: &Path, attached: bool) -> Result<Lab, LabError> {
        let failed = |operation| move |source| LabError::Keeper { operation, source };
        let mut command = Command::new(program);
        command.args(["lab", "--name", directory.name(), "keep"]);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        if attached {
            command.arg("--attached").stdin(Stdio::piped());
        }
        let mut keeper = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("start"))?;
        let mut said = String::new();
        let output = keeper.stdout.take().expect("it is piped");
        BufReader::new(output)
            .read_line(&mut said)
            .map_err(failed("hear"))?;
        let state = match said.trim() {
            READY => directory.running()?,
            _ => None,
        };
        let Some(state) = state else {
            // It has ended, or is about to.
            let _ = keeper.wait();
            let words = match said.trim() {
                "" | READY => "its keeper ended without a word".to_owned(),
                words => words.to_owned(),
            };
            return Err(LabError::NotBuilt(words));
        };
        let option = directory.option();
        let program = program.to_string_lossy();
        let program = shlex::try_quote(&program).unwrap_or_else(|_| program.clone());
        directory.write_path_file(&path_file(|node| {
            format!("{program} lab {option}exec {node}")
        }))?;
        Ok(Lab {
            directory: directory.clone(),
            state,
            attached: attached.then_some(keeper),
        })
    }

    /// The lab of that name.
    ///
    /// # Errors
    ///
    /// If it is not up.
    pub fn find(directory: Directory) -> Result<Lab, LabError> {
        match directory.running()? {
            Some(state) => Ok(Lab {
                directory,
                state,
                attached: None,
            }),
            None => Err(LabError::NotUp {
                option: directory.option(),
            }),
        }
    }

    /// Where it has its files.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Who takes packets out of the tunnel.
    pub fn tunnel(&self) -> Maker {
        self.state.tunnel
    }

    /// Who schedules and encapsulates.
    pub fn director(&self) -> Maker {
        self.state.director
    }

    /// Ends the lab; its namespaces go with it.
    ///
    /// # Errors
    ///
    /// If its keeper does not end.
    pub fn down(mut self) -> Result<(), LabError> {
        let _lock = self.directory.lock()?;
        let keeper = self.state.keeper;
        let until = Instant::now() + ENDING;
        let mut signal = Signal::SIGTERM;
        while keeper.is_alive() {
            match kill(Pid::from_raw(keeper.number as i32), signal) {
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(errno) => {
                    return Err(LabError::Keeper {
                        operation: "end",
                        source: errno.into(),
                    });
                }
            }
            if Instant::now() > until {
                signal = Signal::SIGKILL;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(child) = &mut self.attached {
            // It has ended.
            let _ = child.wait();
        }
        self.directory.remove()
    }

    /// Becomes a command on `node`; it returns only if it cannot. The process must have one thread.
    pub fn exec(&self, node: Node, command: &[OsString]) -> LabError {
        let keeper = self.state.keeper.number;
        let enter = || -> Result<(), NamespaceError> {
            enter_user(keeper)?;
            enter_network(keeper, self.state.threads[&node]).map_err(|source| NamespaceError {
                operation: "enter a network namespace",
                source,
            })
        };
        if let Err(error) = enter() {
            return error.into();
        }
        let (program, arguments) = match command {
            [program, arguments @ ..] => (program.clone(), arguments),
            [] => (OsString::from("sh"), &[][..]),
        };
        let source: io::Error = Command::new(&program).args(arguments).exec();
        LabError::Exec {
            command: program.to_string_lossy().into_owned(),
            source,
        }
    }

    /// The faults in force, the oldest first.
    pub fn broken(&self) -> Vec<&'static Fault> {
        let names = self.directory.faults().names();
        names.iter().filter_map(|name| Fault::named(name)).collect()
    }

    /// Breaks it. The process must have one thread.
    ///
    /// # Errors
    ///
    /// If it has this fault already, or it could not be made; then the lab is as it was.
    pub fn break_with(&self, fault: &'static Fault) -> Result<(), LabError> {
        let _lock = self.directory.lock()?;
        check(fault, &self.state)?;
        let faults = self.directory.faults();
        let before = faults.names();
        if faults.has(fault.name) {
            return Err(LabError::BrokenAlready(fault.name));
        }
        enter_user(self.state.keeper.number)?;
        // Written first: broken off halfway, it can be mended.
        let after = [&before[..], &[fault.name.to_owned()]].concat();
        faults.write(&after)?;
        let apply = |change: &Change| change.apply(&self.state);
        fault.changes.iter().try_for_each(apply).inspect_err(|_| {
            let undone = faults.write(&before).and_then(|()| self.undo(fault));
            if undone.is_err() {
                // `mend` comes after what is left; the first error is the one to tell.
                let _ = faults.write(&after);
            }
        })
    }

    /// Mends every fault, and says which there were. The process must have one thread.
    ///
    /// # Errors
    ///
    /// If one could not be mended.
    pub fn mend(&self) -> Result<Vec<&'static Fault>, LabError> {
        let _lock = self.directory.lock()?;
        let broken = self.broken();
        if broken.is_empty() {
            return Ok(broken);
        }
        enter_user(self.state.keeper.number)?;
        // First those that stand-ins and service act out by name: the others may wait for them.
        let file = self.directory.faults();
        let names = file.names();
        file.write(&[])?;
        let mut result = Ok(());
        for fault in broken.iter().rev() {
            if let Err(error) = self.undo(fault) {
                result = result.and(Err(error));
            }
        }
        if result.is_err() {
            file.write(&names)?;
        }
        result.map(|()| broken)
    }

    fn undo(&self, fault: &Fault) -> Result<(), LabError> {
        let mut result = Ok(());
        for change in fault.changes.iter().rev() {
            result = result.and(change.undo(&self.state));
        }
        result
    }
}

impl Fault {
    /// The fault of that name.
    pub fn named(name: &str) -> Option<&'static Fault> {
        FAULTS.iter().find(|fault| fault.name == name)
    }
}
