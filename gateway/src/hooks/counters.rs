//! What hooks count, in the text format of Prometheus. Labels are bounded: hooks and outcomes.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Hook;

/// What became of a client's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// The backend allowed it.
    Allowed,
    /// The backend refused it.
    Refused,
    /// As either of them, by an answer that was kept.
    Kept,
    /// There was no valid answer, and it was refused.
    FailedClosed,
    /// There was no valid answer, and it was allowed.
    FailedOpen,
    /// Too many questions were waiting.
    Overloaded,
}

impl Answered {
    const ALL: [(Self, &str); 6] = [
        (Self::Allowed, "allowed"),
        (Self::Refused, "refused"),
        (Self::Kept, "kept"),
        (Self::FailedClosed, "failed_closed"),
        (Self::FailedOpen, "failed_open"),
        (Self::Overloaded, "overloaded"),
    ];
}

/// What came back from a request to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// A valid answer.
    Answer,
    /// No connection, or one that broke.
    Unreachable,
    /// Nothing in time.
    Timeout,
    /// Another status than 200.
    Status,
    /// An answer that cannot be read.
    Invalid,
}

impl Came {
    const ALL: [(Self, &str); 5] = [
        (Self::Answer, "answer"),
        (Self::Unreachable, "unreachable"),
        (Self::Timeout, "timeout"),
        (Self::Status, "status"),
        (Self::Invalid, "invalid"),
    ];
}

/// The upper bounds of the histogram's buckets, in milliseconds.
const BOUNDS: [u64; 8] = [5, 10, 25, 50, 100, 250, 1000, 2500];

/// The counters of one hook.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Whether the hook has a URL.
    used: AtomicBool,
    questions: [AtomicU64; Answered::ALL.len()],
    requests: [AtomicU64; Came::ALL.len()],
    in_flight: AtomicU64,
    open: AtomicBool,
    /// Requests that took at most the bound, and those that took longer than all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Counters {
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, came: Came, took: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.requests[came as usize].fetch_add(1, Ordering::Relaxed);
        let bucket = BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound)).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn answered(&self, how: Answered) {
        self.questions[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    pub(super) fn set_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }
}

/// The counters of all hooks, in the order of [`Hook::ALL`].
#[derive(Debug, Default)]
pub(crate) struct AllCounters([Counters; Hook::ALL.len()]);

impl AllCounters {
    pub(super) fn of(&self, hook: Hook) -> &Counters {
        &self.0[hook as usize]
    }

    /// All metrics; nothing if no hook has a URL.
    pub(crate) fn text(&self) -> String {
        let hooks = Hook::ALL.into_iter().map(|hook| (hook.name(), self.of(hook)));
        let used: Vec<_> = hooks.filter(|(_, counters)| counters.used.load(Ordering::Relaxed)).collect();
        let mut out = String::new();
        if used.is_empty() {
            return out;
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "# HELP fanfare_hook_{name} {help}\n# TYPE fanfare_hook_{name} {kind}");
        };
        head(&mut out, "questions_total", "counter", "Clients' questions for a hook, by outcome.");
        for (hook, counters) in &used {
            for ((_, outcome), count) in Answered::ALL.iter().zip(&counters.questions) {
                let count = read(count);
                let _ = writeln!(out, "fanfare_hook_questions_total{{hook=\"{hook}\",outcome=\"{outcome}\"}} {count}");
            }
        }
        head(&mut out, "requests_total", "counter", "Requests to the backend, by what came back.");
        for (hook, counters) in &used {
            for ((_, came), count) in Came::ALL.iter().zip(&counters.requests) {
                let count = read(count);
                let _ = writeln!(out, "fanfare_hook_requests_total{{hook=\"{hook}\",came=\"{came}\"}} {count}");
            }
        }
        head(&mut out, "requests_in_flight", "gauge", "Requests that the backend has not answered yet.");
        for (hook, counters) in &used {
            let _ = writeln!(out, "fanfare_hook_requests_in_flight{{hook=\"{hook}\"}} {}", read(&counters.in_flight));
        }
        head(&mut out, "breaker_open", "gauge", "1 while the backend is left alone, because it gave no valid answers.");
        for (hook, counters) in &used {
            let open = u8::from(counters.open.load(Ordering::Relaxed));
            let _ = writeln!(out, "fanfare_hook_breaker_open{{hook=\"{hook}\"}} {open}");
        }
        head(&mut out, "request_seconds", "histogram", "Time of a request to the backend.");
        used.iter().for_each(|(hook, counters)| counters.histogram(&mut out, hook));
        out
    }
}

impl Counters {
    fn histogram(&self, out: &mut String, hook: &str) {
        const NAME: &str = "fanfare_hook_request_seconds";
        let counts: Vec<_> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let mut all = 0;
        for (bound, count) in BOUNDS.iter().zip(&counts) {
            all += count;
            let seconds = Duration::from_millis(*bound).as_secs_f64();
            let _ = writeln!(out, "{NAME}_bucket{{hook=\"{hook}\",le=\"{seconds}\"}} {all}");
        }
        all += counts[BOUNDS.len()];
        let sum = Duration::from_micros(self.microseconds.load(Ordering::Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{NAME}_bucket{{hook=\"{hook}\",le=\"+Inf\"}} {all}");
        let _ = writeln!(out, "{NAME}_sum{{hook=\"{hook}\"}} {sum}\n{NAME}_count{{hook=\"{hook}\"}} {all}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hooks_in_use_are_shown_and_buckets_add_up() {
        let all = AllCounters::default();
        assert_eq!(all.text(), "");
        let counters = all.of(Hook::Publish);
        counters.set_used();
        for milliseconds in [3, 30, 5000] {
            counters.begin();
            counters.end(Came::Answer, Duration::from_millis(milliseconds));
        }
        counters.answered(Answered::Kept);
        let text = all.text();
        for line in [
            "fanfare_hook_questions_total{hook=\"publish\",outcome=\"kept\"} 1\n",
            "fanfare_hook_requests_total{hook=\"publish\",came=\"answer\"} 3\n",
            "fanfare_hook_requests_in_flight{hook=\"publish\"} 0\n",
            "fanfare_hook_breaker_open{hook=\"publish\"} 0\n",
            "fanfare_hook_request_seconds_bucket{hook=\"publish\",le=\"0.005\"} 1\n",
            "fanfare_hook_request_seconds_bucket{hook=\"publish\",le=\"2.5\"} 2\n",
            "fanfare_hook_request_seconds_bucket{hook=\"publish\",le=\"+Inf\"} 3\n",
            "fanfare_hook_request_seconds_sum{hook=\"publish\"} 5.033\n",
            "fanfare_hook_request_seconds_count{hook=\"publish\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("connect"));
    }
}
