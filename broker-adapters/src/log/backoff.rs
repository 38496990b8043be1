//! How long to wait before the next try: exponential with jitter, for ever.

use std::time::Duration;

/// The delays between tries. Each is drawn evenly from half to all of a limit that doubles up to a maximum.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    most: Duration,
}

impl Backoff {
    /// Starts at `first` and grows to at most `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, limit: first, most }
    }

    /// The time to wait before the next try.
    pub fn delay(&mut self) -> Duration {
        let delay = self.limit.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.limit = (self.limit * 2).min(self.most);
        delay
    }

    /// The last try worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.limit = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_maximum_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let delays: Vec<_> = (0..20).map(|_| backoff.delay()).collect();
        assert!(delays[0] <= Duration::from_millis(50) && delays[0] >= Duration::from_millis(25));
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(1)));
        assert!(delays[10] >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_millis(50));
    }
}
