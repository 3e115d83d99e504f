//! Network namespaces without names: each lives as long as a thread that is in it.
//!
//! Nothing is mounted and nothing stands under `/run/netns`: a namespace is found through
//! `/proc/PID/task/TID/ns/net`, and is gone with its thread, however that ends.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use nix::sched::CloneFlags;
use nix::sched::setns;
use nix::sched::unshare;
use nix::unistd::getegid;
use nix::unistd::geteuid;
use nix::unistd::gettid;

/// Why a namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct NamespaceError {
    /// What was tried, such as `make a network namespace`.
    pub operation: &'static str,
    /// Why it failed.
    pub source: io::Error,
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that is in a network namespace, and does there what it is told. Dropped, it ends.
pub struct Namespace {
    thread: u32,
    jobs: mpsc::Sender<Job>,
}

impl Namespace {
    /// A fresh network namespace.
    ///
    /// # Errors
    ///
    /// EPERM without `CAP_SYS_ADMIN`; see [`become_root`].
    pub fn new() -> Result<Namespace, NamespaceError> {
        Namespace::start("make a network namespace", || {
            Ok(unshare(CloneFlags::CLONE_NEWNET)?)
        })
    }

    /// The network namespace that thread `thread` of process `process` is in.
    ///
    /// # Errors
    ///
    /// If there is no such thread any more, or no right to enter its namespace.
    pub fn enter(process: u32, thread: u32) -> Result<Namespace, NamespaceError> {
        Namespace::start("enter a network namespace", move || {
            enter_network(process, thread)
        })
    }

    fn start(
        operation: &'static str,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Namespace, NamespaceError> {
        let failed = move |source| NamespaceError { operation, source };
        let (jobs, work) = mpsc::channel::<Job>();
        let (ready, begun) = mpsc::channel();
        thread::Builder::new()
            .name("namespace".to_owned())
            .spawn(move || {
                let result = begin().map(|()| gettid().as_raw() as u32);
                let is_in = result.is_ok();
                // Who started the thread waits for this.
                let _ = ready.send(result);
                if is_in {
                    work.into_iter().for_each(|job| job());
                }
            })
            .map_err(failed)?;
        let thread = begun
            .recv()
            .expect("the thread answers before it ends")
            .map_err(failed)?;
        Ok(Namespace { thread, jobs })
    }

    /// The number of its thread.
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// Does `job` in the namespace and waits for it. Sockets belong to the namespace they were opened in,
    /// wherever they are used afterwards.
    ///
    /// # Panics
    ///
    /// If this or an earlier job panicked.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || {
            // Who asked waits for this.
            let _ = done.send(job());
        });
        self.jobs
            .send(job)
            .ok()
            .and_then(|()| result.recv().ok())
            .expect("the namespace's thread is alive")
    }

    /// Writes `/proc/sys/NAME` there, which a thread sees as its namespace has it.
    ///
    /// # Errors
    ///
    /// If there is no such setting, or it refuses the value.
    pub fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let path = Path::new("/proc/sys").join(name);
        let value = value.to_owned();
        self.run(move || fs::write(path, value))
    }

    /// A handle to the namespace.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read.
    pub fn file(&self) -> io::Result<File> {
        File::open(path(std::process::id(), self.thread, "net"))
    }
}

/// Makes this process root of a user namespace of its own, as far as it is not root already, and in any case
/// takes its main thread into a network namespace of its own. The process must have one thread.
///
/// # Errors
///
/// EPERM where ordinary users may make no user namespaces, or those have no power.
pub fn become_root() -> Result<(), NamespaceError> {
    let failed = |operation| move |source| NamespaceError { operation, source };
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => return Ok(()),
        Err(nix::Error::EPERM) => {}
        Err(errno) => return Err(failed("make a network namespace")(errno.into())),
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(io::Error::from)
        .map_err(failed("make a user namespace"))?;
    let map = |name: &str, text: String| fs::write(Path::new("/proc/self").join(name), text);
    map("setgroups", "deny".to_owned())
        .and_then(|()| map("uid_map", format!("0 {user} 1")))
        .and_then(|()| map("gid_map", format!("0 {group} 1")))
        .map_err(failed("become root of a user namespace"))?;
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(failed("make a network namespace in a user namespace"))
}

/// Takes this process into the user namespace of `process`, if that is another one. This process must have
/// one thread.
///
/// # Errors
///
/// If the process is gone, or is not ours.
pub fn enter_user(process: u32) -> Result<(), NamespaceError> {
    let enter = || {
        let theirs = File::open(path(process, process, "user"))?;
        let ours = fs::metadata("/proc/self/ns/user")?;
        if theirs.metadata()?.ino() == ours.ino() {
            return Ok(());
        }
        Ok(setns(theirs, CloneFlags::CLONE_NEWUSER)?)
    };
    enter().map_err(|source| NamespaceError {
        operation: "enter a user namespace",
        source,
    })
}

/// Takes the calling thread into the network namespace of thread `thread` of process `process`.
///
/// # Errors
///
/// If there is no such thread any more, or no right to enter its namespace.
pub fn enter_network(process: u32, thread: u32) -> io::Result<()> {
    let theirs = File::open(path(process, thread, "net"))?;
    Ok(setns(theirs, CloneFlags::CLONE_NEWNET)?)
}

fn path(process: u32, thread: u32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/task/{thread}/ns/{kind}"))
}
