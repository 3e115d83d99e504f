//! The programs that tunproof stands beside: which are installed, and in which version.

use std::env;
use std::process::Command;

/// Program, and the Debian package that has it.
const PEERS: &[(&str, &str)] = &[
    ("zmap", "zmap"),
    ("trafgen", "netsniff-ng"),
    ("masscan", "masscan"),
    ("hping3", "hping3"),
    ("nping", "nmap"),
    ("scapy3", "python3-scapy"),
    ("scamper", "scamper"),
    ("traceroute", "traceroute"),
    ("mtr", "mtr-tiny"),
    ("tcpdump", "tcpdump"),
    ("arp", "net-tools"),
    ("strace", "strace"),
    ("perf", "linux-perf"),
];

/// Whether a program is installed.
pub(crate) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// The packages whose programs are not there.
pub(crate) fn missing() -> Vec<&'static str> {
    let missing = PEERS.iter().filter(|(program, _)| !has(program));
    missing.map(|(_, package)| *package).collect()
}

/// Packages and their versions, in one line.
pub(crate) fn versions() -> String {
    let version = |package: &str| {
        let asked = Command::new("dpkg-query")
            .args(["-W", "-f", "${Version}", package])
            .output();
        match asked {
            Ok(said) if said.status.success() => String::from_utf8_lossy(&said.stdout).into_owned(),
            _ => "?".to_owned(),
        }
    };
    let all = PEERS.iter().map(|(program, package)| match has(program) {
        true => format!("{package} {}", version(package)),
        false => format!("{package} (not installed)"),
    });
    all.collect::<Vec<_>>().join(", ")
}
