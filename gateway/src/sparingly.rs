//! A log line that many events share: at most one per interval, with how many there were since the last one.
//!
//! Pure but for its lock. Owns a time and a count. Loses the details of the events between two lines, never their number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Decides when the next line of its kind is due.
#[derive(Debug)]
pub(crate) struct Sparingly {
    interval: Duration,
    since: Mutex<Since>,
}

/// Since the last line.
#[derive(Debug, Default)]
struct Since {
    line: Option<Instant>,
    events: u64,
}

impl Sparingly {
    /// At most one line per `interval`; the first event gets its line at once.
    pub(crate) const fn per(interval: Duration) -> Self {
        Self { interval, since: Mutex::new(Since { line: None, events: 0 }) }
    }

    /// Counts an event at `now`. If a line is due: how many events it stands for, this one included.
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
    fn no_event_is_left_out_of_the_counts() {
        let begin = Instant::now();
        let lines = Sparingly::per(Duration::from_millis(10));
        let told: u64 = (0..1001).filter_map(|ms| lines.due(begin + Duration::from_millis(ms))).sum();
        assert_eq!(told, 1001);
    }
}
