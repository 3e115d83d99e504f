//! A packet that the kernel gave up.

use serde::Deserialize;
use serde::Serialize;

use crate::exchange::Capture;

/// A packet that a host's kernel freed without having used it: `dropwatch -l kas`, then `set alertmode packet`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The kernel's reason, such as `NETFILTER_DROP` (`include/net/dropreason-core.h`); kernels before 5.18 give
    /// none, and many places in later ones `NOT_SPECIFIED`.
    pub reason: Option<String>,
    /// Where in the kernel, the function, such as `nf_hook_slow`.
    pub place: String,
    /// The packet, as it was then. Of its direction nothing is known.
    pub capture: Capture,
}
