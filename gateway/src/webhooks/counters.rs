//! What webhooks count, in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The counters of this node's deliveries.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Whether there are webhooks.
    used: AtomicBool,
    delivered: AtomicU64,
    failed: AtomicU64,
    retries: AtomicU64,
    waiting: AtomicU64,
    /// The age of the oldest event that waits, in seconds.
    oldest: AtomicU64,
}

impl Counters {
    pub(super) fn set_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, events: u64) {
        self.delivered.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, events: u64) {
        self.failed.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how many events wait for this node, and the age of the oldest in seconds.
    pub(super) fn wait(&self, events: u64, oldest: u64) {
        self.waiting.store(events, Ordering::Relaxed);
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// All metrics; nothing without webhooks.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        if !self.used.load(Ordering::Relaxed) {
            return out;
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (delivered, failed) = (read(&self.delivered), read(&self.failed));
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(&str, u64)]| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP fanfare_webhook_{name} {help}\n# TYPE fanfare_webhook_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(out, "fanfare_webhook_{name}{labels} {value}");
            }
        };
        let outcomes = [("{outcome=\"delivered\"}", delivered), ("{outcome=\"failed\"}", failed)];
        family("events_total", "counter", "Events of webhooks that are settled, by outcome.", &outcomes);
        let help = "Requests that were not answered well and are repeated.";
        family("retries_total", "counter", help, &[("", read(&self.retries))]);
        family("waiting", "gauge", "Events that this node has yet to deliver.", &[("", read(&self.waiting))]);
        let help = "Age of the oldest event that this node has yet to deliver.";
        family("oldest_seconds", "gauge", help, &[("", read(&self.oldest))]);
        out
    }
}
