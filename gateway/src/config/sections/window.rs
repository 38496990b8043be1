//! `[window]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, duration};

/// Recent messages that the node keeps in memory, for clients that resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Window {
    /// How long messages are kept in memory. Older ones are read from the broker when a client needs them. Raise it where many
    /// clients are away for longer.
    #[serde(with = "duration")]
    pub age: Duration,
    /// Maximum memory for them, shared by all partitions; the oldest message is removed first. A message takes about 620 B and
    /// twice its size. Raise it to read less from the broker.
    pub bytes: ByteSize,
}

impl Default for Window {
    fn default() -> Self {
        Self { age: Duration::from_secs(300), bytes: ByteSize::mib(64) }
    }
}
