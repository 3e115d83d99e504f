//! Why the lab could not do what it was told, and what to do.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::live::NetlinkError;
use crate::live::netns::NamespaceError;
use crate::live::network::NetworkError;

/// Why the lab could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// There is a lab of that name.
    #[error("the lab is up already")]
    AlreadyUp {
        /// The option that names it, empty or with a space at its end.
        option: String,
    },
    /// There is no lab of that name.
    #[error("the lab is not up")]
    NotUp {
        /// The option that names it, empty or with a space at its end.
        option: String,
    },
    /// Its name cannot be one.
    #[error("`{0}` cannot be a lab's name: it takes letters, digits and `-`")]
    Name(String),
    /// A file or directory of the lab's state.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The directory of states belongs to somebody else, or others may write to it.
    #[error("`{}` is not yours alone", .0.display())]
    NotYours(PathBuf),
    /// The keeper did not start, or ended.
    #[error("cannot {operation} the lab's keeper")]
    Keeper {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The keeper could not build the lab; these are its words.
    #[error("the lab cannot be built: {0}")]
    NotBuilt(String),
    /// A namespace could not be made or entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A network could not be set up.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The kernel could not be asked.
    #[error("cannot ask the kernel")]
    Netlink(#[from] NetlinkError),
    /// IPVS could not be set up.
    #[error("cannot {operation} IPVS")]
    Ipvs {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: NetlinkError,
    },
    /// A setting under `/proc/sys`.
    #[error("cannot set `{name}` to {value} on {host}")]
    Setting {
        /// The setting.
        name: String,
        /// The value.
        value: String,
        /// Where.
        host: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A socket of a stand-in.
    #[error("cannot open a socket for {what}")]
    Socket {
        /// What it is for.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// `nft` could not be run.
    #[error("cannot run `nft`")]
    NoNft(#[source] io::Error),
    /// `nft` refused the rules; these are its words.
    #[error("`nft` refused the rules: {0}")]
    Nft(String),
    /// The fault is there already.
    #[error("`{0}` is broken already")]
    BrokenAlready(&'static str),
    /// The fault takes what this lab has not.
    #[error("`{fault}` takes {needs}, and this lab has {has}")]
    Needs {
        /// The fault.
        fault: &'static str,
        /// What it takes.
        needs: &'static str,
        /// What there is.
        has: &'static str,
    },
    /// The service did not start or stop in time.
    #[error("the service on s did not {0} within 5 seconds")]
    Service(&'static str),
    /// A command could not be run in the lab.
    #[error("cannot run `{command}`")]
    Exec {
        /// The command.
        command: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl LabError {
    /// What can be typed to get further.
    pub fn hints(&self) -> Vec<String> {
        match self {
            LabError::AlreadyUp { option } => vec![
                format!("`tunproof lab {option}down` ends it"),
                "`tunproof lab --name NAME up` starts another".to_owned(),
            ],
            LabError::NotUp { option } => vec![format!("`tunproof lab {option}up` starts it")],
            LabError::NoNft(_) => {
                vec!["install `nftables`, or choose a fault that `tunproof lab list` does not mark with it".to_owned()]
            }
            LabError::NotBuilt(_) | LabError::Namespace(_) => user_namespace_hints(),
            LabError::BrokenAlready(_) => vec!["`tunproof lab mend` mends it".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// What keeps an ordinary user from having namespaces on this machine, and the command against it.
fn user_namespace_hints() -> Vec<String> {
    if nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    // (setting, the value that forbids user namespaces, the value that allows them)
    let settings = [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
    ];
    let forbidding = settings.into_iter().filter(|(name, forbids, _)| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        fs::read_to_string(path).is_ok_and(|value| value.trim() == *forbids)
    });
    forbidding
        .map(|(name, forbids, allows)| {
            format!(
                "{name} is {forbids}: `sudo sysctl {name}={allows}` lets ordinary users have a lab"
            )
        })
        .chain(["or run it as root: `sudo tunproof lab …`".to_owned()])
        .collect()
}
