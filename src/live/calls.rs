//! Which system calls a process may still make: seccomp.
//!
//! An agent has a list of those that it makes by glibc, statically linked or not; what is not on it fails with ENOSYS, as
//! on an older kernel, where glibc tries another way. musl does not: it opens files by `open`, and asks for a device's
//! number by a socket of AF_UNIX. For other processes there is a list of what none of them has a use for; it fails with EPERM.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;

/// What is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// What an agent does that has its sockets.
    AgentsOnly,
    /// All but what changes the machine or looks into other processes.
    WithPrograms,
    /// The same, and no program is run.
    WithoutPrograms,
}

/// Refuses all other calls from now on, of all threads; best effort, as the kernel may have no seccomp.
pub(super) fn restrict(allowed: Allowed) {
    for program in programs(allowed).unwrap_or_default() {
        if seccompiler::apply_filter_all_threads(&program).is_err() {
            // A thread that has another filter: this one at least.
            let _ = seccompiler::apply_filter(&program);
        }
    }
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// `None` where seccompiler does not know the processor.
fn programs(allowed: Allowed) -> Option<Vec<BpfProgram>> {
    let rules = match allowed {
        Allowed::AgentsOnly => {
            return Some(vec![program(agents()?, libc::ENOSYS, true)?]);
        }
        Allowed::WithPrograms => refused(&[])?,
        Allowed::WithoutPrograms => refused(REFUSED_WITHOUT_PROGRAMS)?,
    };
    // Its flags lie in memory, where no filter sees them; as on an older kernel, libc takes `clone`.
    let clone3 = program(all(&[libc::SYS_clone3]), libc::ENOSYS, false)?;
    Some(vec![program(rules, libc::EPERM, false)?, clone3])
}

/// Refuses what `rules` name with an error, or, if `are_allowed`, all else.
fn program(rules: Rules, errno: i32, are_allowed: bool) -> Option<BpfProgram> {
    let refused = SeccompAction::Errno(errno as u32);
    let (otherwise, then) = match are_allowed {
        true => (refused, SeccompAction::Allow),
        false => (SeccompAction::Allow, refused),
    };
    let processor = std::env::consts::ARCH.try_into().ok()?;
    SeccompFilter::new(rules, otherwise, then, processor)
        .ok()?
        .try_into()
        .ok()
}

fn all(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// A call with one of these values of an argument.
fn one_of(argument: u8, values: &[(SeccompCmpOp, libc::c_int)]) -> Option<Vec<SeccompRule>> {
    let rule = |(how, value): &(SeccompCmpOp, libc::c_int)| {
        let length = SeccompCmpArgLen::Dword;
        let condition = SeccompCondition::new(argument, length, how.clone(), *value as u32 as u64);
        SeccompRule::new(vec![condition.ok()?]).ok()
    };
    values.iter().map(rule).collect()
}

/// A call with any other value of an argument.
fn none_of(argument: u8, values: &[libc::c_int]) -> Option<Vec<SeccompRule>> {
    let length = SeccompCmpArgLen::Dword;
    let condition = |value: &libc::c_int| {
        let value = u64::from(*value as u32);
        SeccompCondition::new(argument, length.clone(), SeccompCmpOp::Ne, value).ok()
    };
    let conditions = values.iter().map(condition).collect::<Option<_>>()?;
    Some(vec![SeccompRule::new(conditions).ok()?])
}

fn bits(mask: libc::c_int) -> SeccompCmpOp {
    SeccompCmpOp::MaskedEq(mask as u32 as u64)
}

/// Those of [`REFUSED`], these, typing into a terminal, and namespaces of one's own, in which one has every capability.
fn refused(more: &[c_long]) -> Option<Rules> {
    let namespaces = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    let mut rules = all(REFUSED);
    rules.extend(all(more));
    rules.insert(
        libc::SYS_clone,
        one_of(0, &namespaces.map(|flag| (bits(flag), flag)))?,
    );
    let typing = TYPING.map(|request| (SeccompCmpOp::Eq, request));
    rules.insert(libc::SYS_ioctl, one_of(1, &typing)?);
    Some(rules)
}

/// Those of [`AGENTS`], and some with certain arguments only.
fn agents() -> Option<Rules> {
    let mut rules = all(AGENTS);
    // A thread, and no process.
    let thread = [(bits(libc::CLONE_THREAD), libc::CLONE_THREAD)];
    rules.insert(libc::SYS_clone, one_of(0, &thread)?);
    // To read, and nothing else.
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    let reading = [(bits(writing), libc::O_RDONLY)];
    rules.insert(libc::SYS_openat, one_of(2, &reading)?);
    // Memory that is no code.
    let data = [(bits(libc::PROT_EXEC), 0)];
    rules.insert(libc::SYS_mmap, one_of(2, &data)?);
    rules.insert(libc::SYS_mprotect, one_of(2, &data)?);
    // No AF_UNIX: whoever listens there sees root.
    let families = [libc::AF_INET, libc::AF_NETLINK];
    let families = families.map(|family| (SeccompCmpOp::Eq, family));
    rules.insert(libc::SYS_socket, one_of(0, &families)?);
    rules.insert(libc::SYS_ioctl, none_of(1, &TYPING)?);
    let name = [(SeccompCmpOp::Eq, libc::PR_SET_NAME)];
    rules.insert(libc::SYS_prctl, one_of(0, &name)?);
    // Panics and aborts signal the thread itself.
    let own = [(SeccompCmpOp::Eq, i32::try_from(std::process::id()).ok()?)];
    rules.insert(libc::SYS_tgkill, one_of(0, &own)?);
    Some(rules)
}

/// The requests that type into a terminal what its user's shell then runs.
const TYPING: [libc::c_int; 2] = [libc::TIOCSTI as libc::c_int, libc::TIOCLINUX as libc::c_int];

const AGENTS: &[c_long] = &[
    // Streams, sockets and files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fcntl,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Threads, signals to oneself, the end.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

const REFUSED: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

const REFUSED_WITHOUT_PROGRAMS: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fsconfig,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_perf_event_open,
];
