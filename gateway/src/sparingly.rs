//! Limits a log line to one per interval. Each line has the number of events since the last one.
//!
//! Pure except for its lock. Owns a time and a count. Loses the details of events between two lines, but never their number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Decides when the next line is due.
#[derive(Debug)]
pub(crate) struct Sparingly {
    interval: Duration,
    since: Mutex<Since>,
}

/// The last line, and the events since then.
#[derive(Debug, Default)]
struct Since {
    line: Option<Instant>,
    events: u64,
}

impl Sparingly {
    /// Allows one line per `interval`; the first event gets its line at once.
    pub(crate) const fn per(interval: Duration) -> Self {
        Self { interval, since: Mutex::new(Since { line: None, events: 0 }) }
    }

    /// Counts an event at `now`. If a line is due, returns the number of events since the last line, with this one.
    pub(crate) fn due(&self, now: Instant) -> Option<u64> {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.events += 1;
        if since.line.is_some_and(|line| now.saturating_duration_since(line) < self.interval) {
            return None;
        }
        let events = since.events;
        *since = Since { line: Some(now), events: 0 };
        Some(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_has_a_line_at_once_and_later_ones_share_one_per_interval() {
        let begin = Instant::now();
        let lines = Sparingly::per(Duration::from_secs(60));
        for (second, expected) in
            [(0, Some(1)), (0, None), (1, None), (59, None), (60, Some(4)), (61, None), (500, Some(2)), (560, Some(1))]
        {
            assert_eq!(lines.due(begin + Duration::from_secs(second)), expected, "after {second} s");
        }
    }

    #[test]
    fn every_event_is_counted() {
        let begin = Instant::now();
        let lines = Sparingly::per(Duration::from_millis(10));
        let counted: u64 = (0..1001).filter_map(|ms| lines.due(begin + Duration::from_millis(ms))).sum();
        assert_eq!(counted, 1001);
    }
}
