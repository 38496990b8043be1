//! How long a client waits before it reconnects: full jitter, so that clients that were cut together do not come back together.

use std::time::Duration;

/// The bound of the first wait. It doubles with each failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// The waits of one client.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    hint: Option<Duration>,
}

impl Backoff {
    /// The connection works: the next wait is short again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The server asks for this wait. It counts once.
    pub(crate) fn obey(&mut self, wait: Duration) {
        self.hint = Some(wait.min(LONGEST));
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        if let Some(hint) = self.hint.take() {
            return hint;
        }
        let bound = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures += 1;
        bound.mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_obey_a_hint_once() {
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for failure in 0..40_u32 {
            let wait = backoff.next();
            assert!(wait <= FIRST * (1 << failure.min(6)) && wait <= LONGEST, "{failure}: {wait:?}");
            longest = longest.max(wait);
        }
        assert!(longest > FIRST * 4, "{longest:?}");
        backoff.obey(Duration::from_millis(420));
        assert_eq!(backoff.next(), Duration::from_millis(420));
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
