//! Which command starts an agent through a `via`.

use std::io;
use std::path::Path;
use std::path::PathBuf;

/// The environment variable that names tunproof's program on other hosts.
pub const AGENT_VARIABLE: &str = "TUNPROOF_AGENT";

/// This same program.
pub const OWN: &str = "/proc/self/exe";

/// The argv that starts an agent through `via`.
///
/// - `local`: this same program.
/// - A command that enters another namespace of this machine (`ip netns exec`, `nsenter`, `unshare`,
///   `tunproof lab exec`): that command, and the path of this same program, which need not be installed.
///   A `tunproof` that `PATH` does not have is this same program, too.
/// - Any other command (`ssh`, `docker exec`, `kubectl exec`): that command, and `tunproof`, which the other
///   host must have in its `PATH`; the environment variable `TUNPROOF_AGENT` names another program.
pub(crate) fn agent(via: &[String]) -> io::Result<Vec<String>> {
    let own = std::env::current_exe()?;
    let remote = std::env::var(AGENT_VARIABLE).unwrap_or_else(|_| "tunproof".to_owned());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_installed = std::env::split_paths(&path).any(|folder| folder.join("tunproof").is_file());
    Ok(argv(via, &own, &remote, is_installed))
}

fn argv(via: &[String], own: &Path, remote: &str, is_installed: bool) -> Vec<String> {
    let own_name = own.to_string_lossy().into_owned();
    let mut words = via.to_vec();
    match words.first_mut() {
        Some(first) if first == "tunproof" && !is_installed => first.clone_from(&own_name),
        Some(first) if first != "local" => {}
        // It is there even if the file was replaced meanwhile.
        _ => return [OWN, "agent"].map(str::to_owned).to_vec(),
    }
    words.push(match stays_on_this_machine(via, own) {
        true => own_name,
        false => remote.to_owned(),
    });
    words.push("agent".to_owned());
    words
}

/// Whether an agent is this program itself.
pub(crate) fn is_local(via: &[String]) -> bool {
    via.first().is_none_or(|first| first == "local")
}

fn stays_on_this_machine(via: &[String], own: &Path) -> bool {
    let mut words = via.iter().map(String::as_str).peekable();
    if words.next_if_eq(&"sudo").is_some() {
        while words.next_if(|word| word.starts_with('-')).is_some() {}
    }
    let Some(program) = words.next().map(PathBuf::from) else {
        return false;
    };
    let name = program.file_name().unwrap_or_default();
    let next = words.find(|word| !word.starts_with('-'));
    match name.to_str() {
        Some("nsenter" | "unshare") => true,
        Some("ip") => next == Some("netns"),
        Some("tunproof") => next == Some("lab"),
        _ => program == own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machines_program_is_used_where_it_can_be() {
        let own = Path::new("/build/tunproof");
        for (via, expected) in [
            ("local", "/proc/self/exe agent"),
            ("ssh -T root@lb1", "ssh -T root@lb1 tunproof agent"),
            ("docker exec -i d", "docker exec -i d tunproof agent"),
            ("ip netns exec d", "ip netns exec d /build/tunproof agent"),
            (
                "sudo -n ip netns exec d",
                "sudo -n ip netns exec d /build/tunproof agent",
            ),
            (
                "/usr/bin/nsenter --net=/run/x",
                "/usr/bin/nsenter --net=/run/x /build/tunproof agent",
            ),
            (
                "tunproof lab exec d",
                "/build/tunproof lab exec d /build/tunproof agent",
            ),
            (
                "/build/tunproof lab exec d",
                "/build/tunproof lab exec d /build/tunproof agent",
            ),
            (
                "/opt/tunproof lab exec d",
                "/opt/tunproof lab exec d /build/tunproof agent",
            ),
        ] {
            let via: Vec<_> = via.split(' ').map(str::to_owned).collect();
            assert_eq!(argv(&via, own, "tunproof", false).join(" "), expected);
        }
        let lab = ["tunproof", "lab", "exec", "d"].map(str::to_owned);
        assert_eq!(argv(&lab, own, "tunproof", true)[0], "tunproof");
        let ssh = ["ssh".to_owned(), "lb1".to_owned()];
        assert_eq!(argv(&ssh, own, "/opt/tp", true)[2..], ["/opt/tp", "agent"]);
    }
}
