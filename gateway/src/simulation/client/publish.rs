//! How a client publishes: with retries under a key, until the outcome is known.

use std::time::Duration;

use law::Outcome;
use serde_json::json;
use tokio::time::Instant;

use super::{Asked, Client};

/// Attempts to publish one message under one key.
const TRIES: u32 = 4;
/// How late the reply to a publish may be: workers are busy for 200 ms at most.
const LATE: Duration = Duration::from_millis(500);

/// A publish under way.
pub(super) struct Publishing {
    intent: usize,
    channel: String,
    payload: String,
    key: Option<String>,
    tries: u32,
    /// An earlier attempt may have been stored.
    maybe_stored: bool,
}

impl Client {
    pub(super) fn publish(&mut self) {
        self.published += 1;
        let channel = self.rng.choice(&self.world.channels).cloned().unwrap_or_default();
        let mut payload = format!("{}.{}", self.number, self.published);
        if self.rng.u8(0..8) == 0 {
            payload = format!("{payload} {}", "x".repeat(self.rng.usize(0..2_000)));
        }
        let key = (self.rng.u8(0..3) > 0).then(|| format!("key {}.{}", self.number, self.published));
        self.begin(channel, payload, key);
    }

    pub(super) fn publish_final(&mut self) {
        self.published += 1;
        let channel = self.world.channels[self.published as usize % self.world.channels.len()].clone();
        self.begin(channel, format!("final {}", self.published), None);
    }

    fn begin(&mut self, channel: String, payload: String, key: Option<String>) {
        let intent = self.world.chronicle.intent(&channel, &payload);
        self.send(Publishing { intent, channel, payload, key, tries: 0, maybe_stored: false });
    }

    fn send(&mut self, mut publishing: Publishing) {
        publishing.tries += 1;
        let mut command = json!({ "channel": publishing.channel, "data": publishing.payload });
        if let Some(key) = &publishing.key {
            command["key"] = key.as_str().into();
        }
        let due = Instant::now() + self.world.config.broker.publish_timeout + LATE;
        self.ask("publish", &command, Asked::Publish { publishing, due });
    }

    pub(super) fn retry(&mut self) {
        if self.connection.is_some() && !self.retries.is_empty() {
            let publishing = self.retries.swap_remove(self.rng.usize(0..self.retries.len()));
            self.send(publishing);
        }
    }

    /// Handles the outcome of an attempt to publish.
    pub(super) fn tried(&mut self, mut publishing: Publishing, outcome: Outcome) {
        if publishing.tries > TRIES {
            return;
        }
        let chronicle = &self.world.chronicle;
        publishing.maybe_stored |= outcome == Outcome::Unknown;
        match outcome {
            Outcome::Acknowledged => {
                // Retry an acknowledged publish. Only if the broker loses nothing: after a roll-back it would be stored again.
                let again = publishing.tries == 1 && self.world.expected.nothing_lost && self.rng.u8(0..8) == 0;
                chronicle.end(publishing.intent, Outcome::Acknowledged);
                if again && publishing.key.is_some() {
                    publishing.tries = TRIES;
                    self.retries.push(publishing);
                }
            }
            _ if publishing.key.is_some() && publishing.tries < TRIES => self.retries.push(publishing),
            _ if publishing.maybe_stored => chronicle.end(publishing.intent, Outcome::Unknown),
            outcome => chronicle.end(publishing.intent, outcome),
        }
    }

    /// Checks that each publish is answered in time while the client reads.
    pub(super) fn overdue(&mut self) {
        let (now, Some(connection)) = (Instant::now(), &self.connection) else { return };
        // A node that stands still answers when it goes on.
        let runs_since = self.world.runs_since(connection.node);
        let answers = runs_since + self.world.config.broker.publish_timeout + LATE;
        let late = |asked: &Asked| matches!(asked, Asked::Publish { due, .. } if (*due).max(answers) < now);
        let listened = connection.paused_until + LATE < now;
        if listened && let Some((id, _)) = self.asked.iter().find(|(_, asked)| late(asked)) {
            self.breach(format!("no reply to publish {id} in time"));
            self.drop_connection("gives up");
        }
    }
}
