//! The suites that come with tunproof, the very files of `probes/`.

use crate::plan::Path;
use crate::plan::Suite;
use crate::suite::Environment;
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
    pub const ALL: [Embedded; 3] = embedded!["lvs-tun", "director-alone", "realserver-alone"];

    /// What `verify` plays.
    pub const LVS_TUN: Embedded = Embedded::ALL[0];
    /// What `director` plays.
    pub const DIRECTOR_ALONE: Embedded = Embedded::ALL[1];
    /// What `realserver` plays.
    pub const REALSERVER_ALONE: Embedded = Embedded::ALL[2];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Embedded> {
        Embedded::ALL.into_iter().find(|suite| suite.name == name)
    }

    /// The suite for every path, with nothing set.
    ///
    /// # Panics
    ///
    /// If the file needs something of a path that not every path has; a test reads each without.
    pub fn suites(self, paths: &[Path]) -> Vec<Suite> {
        let file = format!("probes/{}.toml", self.name);
        let parse = |path| SuiteFile::parse(&file, self.text, &Environment::of(path));
        let suites = paths.iter().map(|path| {
            parse(path).unwrap_or_else(|problems| panic!("an embedded suite is wrong:\n{problems}"))
        });
        suites.collect()
    }
}
