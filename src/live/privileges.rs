//! Giving up what a process does not need any more: capabilities, files, programs, system calls.
//!
//! All of it is a thread's own and is inherited by what the thread starts, so it is done before there are other
//! threads. What the kernel does not have (Landlock before 5.13, seccomp where it was left out) is gone without;
//! capabilities always go.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use caps::CapSet;
use caps::Capability;
use caps::CapsHashSet;
use landlock::ABI;
use landlock::Access;
use landlock::AccessFs;
use landlock::AccessNet;
use landlock::Ruleset;
use landlock::RulesetAttr;
use landlock::RulesetCreatedAttr;
use landlock::RulesetError;
use landlock::Scope;
use landlock::path_beneath_rules;
use nix::fcntl::AT_FDCWD;
use nix::fcntl::AtFlags;
use nix::unistd::AccessFlags;
use nix::unistd::faccessat;

use crate::live::calls;

/// The newest Landlock whose rights are named here; an older kernel enforces those that it knows.
const LANDLOCK: ABI = ABI::V6;

/// What a process is from now on, and so what it still may.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    /// It has its sockets, and reads what others wrote: no capability; reads files below `/proc`, writes none, runs
    /// nothing, and makes no system calls but those that an agent makes.
    Agent,
    /// It does the agent's privileged deeds, keeps the capabilities for them, and writes no files.
    Janitor,
    /// It has all it needs: no capability but to reach these files, if they are somebody else's; runs nothing, and
    /// writes nothing but what stands in the folders of those to be written.
    Command {
        /// The files that it will read.
        reads: &'a [&'a Path],
        /// The files that it will write.
        writes: &'a [&'a Path],
    },
}

/// What the janitor needs to read the firewall's rules and IPVS, and to change neighbour entries.
const DEEDS: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// What the janitor keeps besides, for the kernel's reasons for drops, until it has been asked for them: to join the
/// drop monitor's group (Linux 6.7) and to read tracefs where it is not mounted, for perf events, and for the
/// addresses of the kernel's functions.
const WATCHING: [Capability; 3] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYSLOG,
];

/// Gives up, for good, what a process with this role does not need.
///
/// # Errors
///
/// If capabilities cannot be given up.
pub fn confine(role: Role<'_>) -> io::Result<()> {
    let kept: CapsHashSet = match role {
        Role::Janitor => DEEDS.into_iter().chain(WATCHING).collect(),
        Role::Agent => CapsHashSet::new(),
        Role::Command { reads, writes } => to_reach(reads, writes),
    };
    // What a program that is run may get: root's would get all of it. It takes CAP_SETPCAP; without it, a program gets
    // nothing all the same, for want of new privileges.
    let passed_on = match role {
        Role::Janitor => DEEDS.into_iter().collect(),
        Role::Agent | Role::Command { .. } => CapsHashSet::new(),
    };
    for capability in caps::all().difference(&passed_on) {
        let _ = caps::drop(None, CapSet::Bounding, *capability);
    }
    keep(&kept)?;
    nix::sys::prctl::set_no_new_privs()?;
    if let Role::Janitor = role {
        pass_on();
    }
    // The kernel may have none, or be told to have none.
    let _ = restrict_files(role);
    calls::restrict(match role {
        Role::Agent => calls::Allowed::AgentsOnly,
        Role::Janitor => calls::Allowed::WithPrograms,
        Role::Command { .. } => calls::Allowed::WithoutPrograms,
    });
    Ok(())
}

/// Gives up what the janitor needs but once.
///
/// # Errors
///
/// If capabilities cannot be given up.
pub fn watching_is_done() -> io::Result<()> {
    keep(&DEEDS.into_iter().collect())?;
    pass_on();
    Ok(())
}

/// Gives up the capabilities of the calling thread, but to read this file, if it is somebody else's.
pub fn lower(reads: &Path) {
    // It is what the process has, and no more.
    let _ = keep(&to_reach(&[reads], &[]));
}

/// What root needs to read and write files that are somebody else's: no root without capabilities may.
fn to_reach(reads: &[&Path], writes: &[&Path]) -> CapsHashSet {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    if effective.is_empty() || caps::clear(None, CapSet::Effective).is_err() {
        return CapsHashSet::new();
    }
    let may = |path: &Path, how| faccessat(AT_FDCWD, path, how, AtFlags::AT_EACCESS).is_ok();
    let mut needed = CapsHashSet::new();
    if !reads.iter().all(|file| may(file, AccessFlags::R_OK)) {
        needed.insert(Capability::CAP_DAC_READ_SEARCH);
    }
    let mut places = folders(writes);
    places.extend(devices(writes));
    if !places.iter().all(|place| may(place, AccessFlags::W_OK)) {
        needed.insert(Capability::CAP_DAC_OVERRIDE);
    }
    // A file that is replaced stays whose it is, and may lie where only its owner may replace it (`/tmp`).
    let own = nix::unistd::geteuid().as_raw();
    let is_others = |file: &&&Path| {
        std::fs::metadata(file).is_ok_and(|known| known.is_file() && known.uid() != own)
    };
    if writes.iter().any(|file| is_others(&file)) {
        needed.extend([Capability::CAP_CHOWN, Capability::CAP_FOWNER]);
    }
    // Until what is not needed is given up. It was there a moment ago.
    let _ = caps::set(None, CapSet::Effective, &effective);
    needed
}

/// Which capability that tunproof needs the process lacks, and for what, such as `CAP_NET_RAW is missing, …`.
pub fn missing() -> Option<&'static str> {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(true);
    match (has(Capability::CAP_NET_RAW), has(Capability::CAP_NET_ADMIN)) {
        (true, true) => None,
        (false, true) => Some("CAP_NET_RAW is missing, by which probes are sent and heard"),
        (true, false) => Some(
            "CAP_NET_ADMIN is missing, by which neighbour entries are forgotten and put back, and IPVS and the \
             firewall's rules are read",
        ),
        (false, false) => Some(
            "CAP_NET_RAW is missing, by which probes are sent and heard, and CAP_NET_ADMIN, by which neighbour \
             entries are forgotten and put back, and IPVS and the firewall's rules are read",
        ),
    }
}

/// What gives a program the rights that [`missing`] names.
pub fn remedy() -> String {
    let own = std::env::current_exe();
    let own = own.map_or_else(|_| "tunproof".to_owned(), |path| path.display().to_string());
    format!("run it as root, or type once `sudo setcap cap_net_raw,cap_net_admin+ep {own}`")
}

/// Leaves the capabilities `wanted`, as far as they are there.
fn keep(wanted: &CapsHashSet) -> io::Result<()> {
    let failed = |error: caps::errors::CapsError| io::Error::other(error.to_string());
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let left: CapsHashSet = permitted.intersection(wanted).copied().collect();
    let set =
        |which, capabilities: &CapsHashSet| caps::set(None, which, capabilities).map_err(failed);
    // The kernel before 4.3 has none to clear; the others follow what is inheritable.
    let _ = caps::clear(None, CapSet::Ambient);
    set(CapSet::Inheritable, &CapsHashSet::new())?;
    set(CapSet::Effective, &left)?;
    set(CapSet::Permitted, &left)
}

/// Has the programs that are run get the capabilities to read firewalls and no others, also those of an ordinary user.
fn pass_on() {
    for capability in DEEDS {
        // It is not there: then they get by without.
        if caps::raise(None, CapSet::Inheritable, capability).is_ok() {
            let _ = caps::raise(None, CapSet::Ambient, capability);
        }
    }
}

fn restrict_files(role: Role<'_>) -> Result<(), RulesetError> {
    let writing = AccessFs::from_write(LANDLOCK);
    let ruleset = Ruleset::default();
    let restricted = match role {
        Role::Agent => ruleset
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(
                ["/proc"],
                AccessFs::ReadFile | AccessFs::ReadDir,
            ))?,
        Role::Janitor => ruleset
            .handle_access(writing)?
            .create()?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::WriteFile))?,
        Role::Command { writes, .. } => ruleset
            .handle_access(writing | AccessFs::Execute)?
            .create()?
            .add_rules(path_beneath_rules(folders(writes), writing))?
            .add_rules(path_beneath_rules(devices(writes), AccessFs::WriteFile))?,
    };
    restricted.restrict_self()?;
    Ok(())
}

/// The folders of files that may not be there yet, and of those that they are links to.
fn folders(files: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !is_device(file)) {
        let whole = std::path::absolute(file).ok();
        let real = std::fs::canonicalize(file).ok();
        let folders = [whole, real].into_iter().flatten();
        found.extend(folders.filter_map(|path| Some(path.parent()?.to_owned())));
    }
    found
}

/// Those that are pipes and devices, such as `/dev/stdout`; what has no name in the file system is not restricted there.
fn devices(files: &[&Path]) -> Vec<PathBuf> {
    let found = files.iter().filter(|file| is_device(file));
    found
        .filter_map(|file| std::fs::canonicalize(file).ok())
        .collect()
}

fn is_device(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|known| !known.is_file() && !known.is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::File;
    use std::net::UdpSocket;
    use std::process::Command;

    use socket2::Domain;
    use socket2::Socket;
    use socket2::Type;

    use super::*;
    use crate::live::sys;

    /// Runs a test once more, in a process that may give everything up, with a folder of its own; `None` afterwards.
    fn alone(test: &str) -> Option<PathBuf> {
        const FOLDER: &str = "TUNPROOF_TEST_FOLDER";
        if let Some(folder) = std::env::var_os(FOLDER) {
            return Some(folder.into());
        }
        let folder = format!("tunproof-{}-{test}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(folder.join("in")).unwrap();
        let name = format!("live::privileges::tests::{test}");
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(FOLDER, &folder)
            .output()
            .unwrap();
        fs::remove_dir_all(&folder).unwrap();
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && output.contains("1 passed"),
            "{output}\n{}",
            String::from_utf8_lossy(&run.stderr)
        );
        None
    }

    fn status(field: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(field));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    }

    fn refused<T>(result: io::Result<T>) -> i32 {
        result.err().expect("refused").raw_os_error().unwrap_or(0)
    }

    /// Nothing can be typed into a terminal; where that is not refused, `/dev/null` is said to be none.
    fn nobody_types(null: &File, errno: i32) {
        for request in [libc::TIOCSTI, libc::TIOCLINUX] {
            assert_eq!(refused(sys::request(null, request)), errno);
        }
    }

    fn no_capability() {
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(status(set), "0000000000000000", "{set}");
        }
        assert_eq!(
            (status("NoNewPrivs:"), status("Seccomp:")),
            ("1".into(), "2".into())
        );
    }

    #[test]
    fn an_agent_may_read_proc_and_use_plain_sockets_and_nothing_else() {
        let Some(folder) = alone("an_agent_may_read_proc_and_use_plain_sockets_and_nothing_else")
        else {
            return;
        };
        let early = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let null = File::open("/dev/null").unwrap();
        nobody_types(&null, libc::ENOTTY);
        let is_landlocked = has_landlock();
        confine(Role::Agent).unwrap();
        no_capability();
        nobody_types(&null, libc::ENOSYS);
        assert_eq!(refused(sys::request(&null, libc::TCGETS)), libc::ENOTTY);
        assert_eq!(refused(File::create(folder.join("it"))), libc::ENOSYS);
        assert_eq!(refused(fs::remove_dir("/nonesuch")), libc::ENOSYS);
        assert_eq!(refused(Command::new("true").status()), libc::ENOSYS);
        let raw = Socket::new(Domain::PACKET, Type::RAW, None);
        assert_eq!(refused(raw.map(drop)), libc::ENOSYS);
        let unix = Socket::new(Domain::UNIX, Type::STREAM, None);
        assert_eq!(refused(unix.map(drop)), libc::ENOSYS);
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(socket2::Protocol::UDP));
        assert_eq!(refused(raw.map(drop)), libc::EPERM);
        let signalled = nix::sys::signal::kill(nix::unistd::Pid::this(), None);
        assert_eq!(signalled, Err(nix::errno::Errno::ENOSYS));
        let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        assert_eq!(unshared, Err(nix::errno::Errno::ENOSYS));
        fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        assert_eq!(File::open("/etc/passwd").is_err(), is_landlocked);
        UdpSocket::bind("127.0.0.1:0").unwrap();
        early.set_nonblocking(true).unwrap();
        std::thread::spawn(no_capability).join().unwrap();
    }

    #[test]
    fn a_janitor_runs_programs_and_writes_nothing() {
        let Some(folder) = alone("a_janitor_runs_programs_and_writes_nothing") else {
            return;
        };
        let is_landlocked = has_landlock();
        let had = u64::from_str_radix(&status("CapPrm:"), 16).unwrap();
        confine(Role::Janitor).unwrap();
        nobody_types(&File::open("/dev/null").unwrap(), libc::EPERM);
        let bits = |capabilities: &[Capability]| -> u64 {
            capabilities.iter().map(Capability::bitmask).sum()
        };
        let left = || u64::from_str_radix(&status("CapEff:"), 16).unwrap();
        let all = bits(&[&DEEDS[..], &WATCHING[..]].concat());
        assert_eq!(left(), had & all);
        let shown = Command::new("grep")
            .args(["CapEff", "/proc/self/status"])
            .output()
            .unwrap();
        assert!(shown.status.success());
        let passed_on = String::from_utf8_lossy(&shown.stdout);
        let passed_on = u64::from_str_radix(passed_on.split_whitespace().nth(1).unwrap(), 16);
        assert_eq!(passed_on.unwrap(), had & bits(&DEEDS));
        watching_is_done().unwrap();
        assert_eq!(left(), had & bits(&DEEDS));
        let written = Command::new("touch")
            .arg(folder.join("it"))
            .status()
            .unwrap();
        assert_ne!(written.success(), is_landlocked);
        let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        assert_eq!(unshared, Err(nix::errno::Errno::EPERM));
        // What it runs may not either.
        let calls = format!(
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n\
             for call in ({}, {} | {}), ({}, 0):\n  print(libc.syscall(*call, 0, 0, 0, 0), ctypes.get_errno())",
            libc::SYS_clone,
            libc::CLONE_NEWUSER,
            libc::SIGCHLD,
            libc::SYS_clone3
        );
        let shown = Command::new("python3")
            .args(["-c", &calls])
            .output()
            .unwrap();
        let expected = format!("-1 {}\n-1 {}\n", libc::EPERM, libc::ENOSYS);
        assert_eq!(String::from_utf8_lossy(&shown.stdout), expected);
        assert_eq!(status("NoNewPrivs:"), "1");
    }

    #[test]
    fn a_command_writes_where_it_was_told_and_runs_nothing() {
        let Some(folder) = alone("a_command_writes_where_it_was_told_and_runs_nothing") else {
            return;
        };
        let is_landlocked = has_landlock();
        let (report, other) = (folder.join("in/report"), folder.join("other"));
        confine(Role::Command {
            reads: &[Path::new("/etc/passwd")],
            writes: &[&report, Path::new("/dev/null")],
        })
        .unwrap();
        no_capability();
        nobody_types(&File::open("/dev/null").unwrap(), libc::EPERM);
        fs::write(folder.join("in/draft"), "it").unwrap();
        fs::rename(folder.join("in/draft"), &report).unwrap();
        fs::write("/dev/null", "it").unwrap();
        assert_eq!(fs::write(&other, "it").is_err(), is_landlocked);
        fs::read("/etc/passwd").unwrap();
        assert_eq!(refused(Command::new("true").status()), libc::EPERM);
    }

    #[test]
    fn root_keeps_what_it_takes_to_write_into_somebody_elses_folder() {
        let test = "root_keeps_what_it_takes_to_write_into_somebody_elses_folder";
        let Some(folder) = alone(test).map(|folder| folder.join("in")) else {
            return;
        };
        let nobody = Some(nix::unistd::Uid::from_raw(65534));
        // An ordinary user cannot give it away, and keeps nothing.
        let expected = match nix::unistd::chown(&folder, nobody, None) {
            Ok(()) => Capability::CAP_DAC_OVERRIDE.bitmask(),
            Err(_) => 0,
        };
        confine(Role::Command {
            reads: &[],
            writes: &[&folder.join("report")],
        })
        .unwrap();
        let left = u64::from_str_radix(&status("CapEff:"), 16).unwrap();
        assert_eq!(left, expected);
        fs::write(folder.join("report"), "it").unwrap();
    }

    #[test]
    fn root_keeps_what_it_takes_to_replace_somebody_elses_file() {
        let test = "root_keeps_what_it_takes_to_replace_somebody_elses_file";
        let Some(folder) = alone(test) else {
            return;
        };
        let (report, pipe) = (folder.join("report"), folder.join("pipe"));
        fs::write(&report, "old").unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let nobody = Some(nix::unistd::Uid::from_raw(65534));
        let is_root = nix::unistd::chown(&report, nobody, None).is_ok();
        let set = |capabilities: &[Capability]| -> CapsHashSet {
            let kept = capabilities.iter().filter(|_| is_root);
            kept.copied().collect()
        };
        let (chown, fowner) = (Capability::CAP_CHOWN, Capability::CAP_FOWNER);
        assert_eq!(to_reach(&[], &[&report]), set(&[chown, fowner]));
        let _ = nix::unistd::chown(&pipe, nobody, None);
        assert_eq!(
            to_reach(&[], &[&pipe]),
            set(&[Capability::CAP_DAC_OVERRIDE])
        );
    }

    /// Whether the running kernel has it: none before Linux 5.13.
    fn has_landlock() -> bool {
        use landlock::Compatible;
        let strict = Ruleset::default().set_compatibility(landlock::CompatLevel::HardRequirement);
        let handled = strict.handle_access(AccessFs::from_write(ABI::V1));
        handled.and_then(Ruleset::create).is_ok()
    }
}
