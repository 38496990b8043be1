//! `[cluster]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::duration;

/// How the nodes know of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Time after which a node that writes nothing counts as gone. Each node writes to the log at least three times in this time.
    /// Outages of the broker do not count. Less than six times `broker.heartbeat` means six times that. It must be the same on all
    /// nodes. Raise it for nodes that may stand still for longer, such as virtual machines that are moved.
    #[serde(with = "duration")]
    pub lease: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15) }
    }
}
