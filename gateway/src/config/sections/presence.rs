//! `[presence]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::duration;

/// Who is subscribed to the channels whose rules have `presence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Presence {
    /// Time that a member without connections is still there. One that reconnects within it, to whichever node, does not leave. A
    /// node that stops waits this long for its members, so supervisors must allow for it.
    #[serde(with = "duration")]
    pub linger: Duration,
}

impl Default for Presence {
    fn default() -> Self {
        Self { linger: Duration::from_secs(5) }
    }
}
