//! Logs refused requests: why they were refused, and what to change.
//!
//! Logs at most one line of a kind per interval, since anyone can send any number of requests; the metrics count each
//! one. Never logs a query, and never a header's value unfiltered.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::door::ingress::Client;
use crate::field::Shown;
use crate::node::metrics::{Metrics, Refused};
use crate::sparingly::Sparingly;

/// The shortest time between two lines of a kind: short enough for an operator who tries things out.
const INTERVAL: Duration = Duration::from_secs(10);

/// When the next line of each kind is due.
#[derive(Debug)]
pub(crate) struct Refusals {
    refused: [Sparingly; Refused::ALL.len()],
    unsupported: Sparingly,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            refused: [const { Sparingly::per(INTERVAL) }; Refused::ALL.len()],
            unsupported: Sparingly::per(INTERVAL),
        }
    }
}

impl Refusals {
    /// Counts a request that is refused for the reason `why`, and logs a line if one is due.
    pub(crate) fn note(&self, metrics: &Metrics, why: Refused, client: Client, path: &str, text: &dyn Display) {
        metrics.refused(why);
        let Some(times) = self.refused[why as usize].due(Instant::now()) else { return };
        let path = Shown::of(path.as_bytes());
        match why {
            // A mistake of a client or a scanner: the operator has nothing to change.
            Refused::Handshake => tracing::info!(peer = %client, %path, why = %text, times, "requests refused"),
            _ => tracing::warn!(peer = %client, %path, why = %text, times, "requests refused"),
        }
    }

    /// Logs that a client offered only subprotocols that the path does not support.
    pub(crate) fn unsupported(&self, client: Client, path: &str, offered: &str, supported: &[&str]) {
        if let Some(times) = self.unsupported.due(Instant::now()) {
            let path = Shown::of(path.as_bytes());
            let supported = if supported.is_empty() { "none".to_owned() } else { supported.join(", ") };
            tracing::warn!(
                peer = %client, %path, offered, supported, times,
                "no common subprotocol: browsers close such a connection with 1006; the page must offer none, or one that \
                 the path supports"
            );
        }
    }
}
