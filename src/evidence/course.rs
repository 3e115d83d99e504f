//! How far the steps of the paths' suites came.

use serde::Deserialize;
use serde::Serialize;

use crate::evidence::Evidence;
use crate::evidence::EvidenceId;
use crate::plan::Probe;

/// How far a step of a path's suite came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Whether it was begun.
    pub begun: bool,
    /// Whether nothing more was to be expected of it.
    pub over: bool,
    /// Why it was not played.
    pub skipped: Option<String>,
    /// Whether that was because it could not be, though it was to be: then nothing is known of what it asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barred: bool,
    /// What was sent for it that is no probe: ARP requests.
    pub frames: Vec<EvidenceId>,
}

impl Evidence {
    /// How far step number `step` of `path` came.
    pub fn course(&self, path: usize, step: usize) -> Option<&Course> {
        self.courses().get(path)?.get(step)
    }

    /// The probes that are part of a step, in the order of sending.
    pub fn probes_of(&self, path: usize, step: usize) -> impl Iterator<Item = &Probe> {
        self.probes()
            .iter()
            .filter(move |probe| (probe.path, probe.step) == (path, Some(step)))
    }
}
