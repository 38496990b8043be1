//! `[log]`.

use serde::{Deserialize, Serialize};

/// The program's own log, on stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Lowest level that is logged: error, warn, info, debug or trace; or a filter such as "info,fanfare=debug".
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into() }
    }
}
