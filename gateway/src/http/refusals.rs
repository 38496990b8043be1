//! Requests that are refused, in the log: why, and what to change.
//!
//! At most one line of a kind per interval, as anyone can send any number of them; the metrics count each. Never logs a
//! query or a header's value as it came.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::door::ingress::Client;
use crate::field::Shown;
use crate::node::metrics::{Metrics, Refused};
use crate::sparingly::Sparingly;

/// Time between two lines of a kind: short enough for an operator who tries things out.
const INTERVAL: Duration = Duration::from_secs(10);

/// When the lines are due.
#[derive(Debug)]
pub(crate) struct Refusals {
    refused: [Sparingly; Refused::ALL.len()],
    unspoken: Sparingly,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { refused: [const { Sparingly::per(INTERVAL) }; Refused::ALL.len()], unspoken: Sparingly::per(INTERVAL) }
    }
}

impl Refusals {
    /// Counts a request that is refused for `why`, and says so.
    pub(crate) fn note(&self, metrics: &Metrics, why: Refused, client: Client, path: &str, text: &dyn Display) {
        metrics.refused(why);
        let Some(times) = self.refused[why as usize].due(Instant::now()) else { return };
        let path = Shown::of(path.as_bytes());
        match why {
            // A client's mistake, or a scanner's: there is nothing to change here.
            Refused::Handshake => tracing::info!(peer = %client, %path, why = %text, times, "requests refused"),
            _ => tracing::warn!(peer = %client, %path, why = %text, times, "requests refused"),
        }
    }

    /// Says that a client offered subprotocols of which none is spoken at the path.
    pub(crate) fn unspoken(&self, client: Client, path: &str, offered: &str, spoken: &[&str]) {
        if let Some(times) = self.unspoken.due(Instant::now()) {
            let path = Shown::of(path.as_bytes());
            let spoken = if spoken.is_empty() { "none".to_owned() } else { spoken.join(", ") };
            tracing::warn!(
                peer = %client, %path, offered, spoken, times,
                "no common subprotocol: browsers end such a connection with 1006; let the page offer none, or one that is \
                 spoken here"
            );
        }
    }
}
