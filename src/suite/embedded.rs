//! The suites that come with tunproof, the very files of `probes/`.

use crate::plan::Path;
use crate::plan::Plan;
use crate::plan::Suite;
use crate::suite::Environment;
use crate::suite::Override;
use crate::suite::SuiteFile;

/// A suite that comes with tunproof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Its name.
    pub name: &'static str,
    /// Its file's text.
    pub text: &'static str,
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        [$(Embedded {
            name: $name,
            text: include_str!(concat!("../../probes/", $name, ".toml")),
        }),*]
    };
}

impl Embedded {
    /// Every one.
    pub const ALL: [Embedded; 12] = embedded![
        "lvs-tun",
        "director-alone",
        "realserver-alone",
        "q1-unique-source",
        "q2-decapsulated-packets",
        "q3-spoofed-source",
        "q4-arp-and-firewall",
        "arp",
        "mtu",
        "tunnel-trace",
        "open-tunnel",
        "spoof-filter",
    ];

    /// What `verify` plays.
    pub const LVS_TUN: Embedded = Embedded::ALL[0];
    /// What `director` plays.
    pub const DIRECTOR_ALONE: Embedded = Embedded::ALL[1];
    /// What `realserver` plays.
    pub const REALSERVER_ALONE: Embedded = Embedded::ALL[2];

    /// What `spoofcheck` plays.
    pub const SPOOF_FILTER: Embedded = Embedded::ALL[11];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Embedded> {
        Embedded::ALL.into_iter().find(|suite| suite.name == name)
    }

    /// Whether this is what is played on every path of a plan.
    pub fn is_of(self, plan: &Plan) -> bool {
        let mut suites = plan.suites.iter();
        !plan.suites.is_empty() && suites.all(|suite| suite.name == self.name)
    }

    /// The suite for every path, with nothing set.
    ///
    /// # Panics
    ///
    /// If the file needs something of a path that not every path has; a test reads each without.
    pub fn suites(self, paths: &[Path]) -> Vec<Suite> {
        self.suites_with(paths, &[])
    }

    /// The same with values of its variables.
    ///
    /// # Panics
    ///
    /// As [`Embedded::suites`], and if a value does not fit.
    pub fn suites_with(self, paths: &[Path], overrides: &[Override]) -> Vec<Suite> {
        let file = format!("probes/{}.toml", self.name);
        let parse = |path| {
            let environment = Environment::of(path).with(overrides.to_vec());
            SuiteFile::parse(&file, self.text, &environment)
        };
        let read = |path| {
            parse(path).unwrap_or_else(|problems| panic!("an embedded suite is wrong:\n{problems}"))
        };
        // What names nothing of a path is the same for all of them.
        match (paths, self.text.contains('$')) {
            ([first, _, ..], false) => vec![read(first); paths.len()],
            _ => paths.iter().map(read).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::plan::Protocol;

    #[test]
    fn every_suite_is_right_and_named_as_its_file() {
        for suite in Embedded::ALL {
            let read = SuiteFile::parse(
                &format!("probes/{}.toml", suite.name),
                suite.text,
                &Environment::example(),
            );
            let read = read.unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(read.name, suite.name);
            assert!(
                !read.about.is_empty() && !read.steps.is_empty(),
                "{}",
                suite.name
            );
        }
    }

    #[test]
    fn what_the_commands_play_needs_nothing_that_a_path_may_lack() {
        let path = Path {
            realserver: "rs1".to_owned(),
            vip: Ipv4Addr::new(192, 0, 2, 10),
            port: 53,
            protocol: Protocol::Udp,
            rip: Ipv4Addr::new(203, 0, 113, 5),
            dip: None,
            cip: Ipv4Addr::new(198, 51, 100, 7),
            gateway: None,
            tunnel: None,
        };
        for suite in [
            Embedded::LVS_TUN,
            Embedded::DIRECTOR_ALONE,
            Embedded::REALSERVER_ALONE,
        ] {
            assert_eq!(suite.suites(std::slice::from_ref(&path)).len(), 1);
        }
    }
}
