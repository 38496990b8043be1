//! Limits the connections per second: a token bucket that fills evenly and holds the tokens of one second. Pure.

use std::time::{Duration, Instant};

/// The token bucket, stored as a point in time.
#[derive(Debug)]
pub(super) struct Rate {
    /// The time that one connection costs.
    each: Duration,
    /// The bucket is full if this is a second or more ago, and empty if it is now.
    used: Instant,
}

impl Rate {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { each, used: now.checked_sub(Duration::from_secs(1)).unwrap_or(now) }
    }

    /// Takes a token; false if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        // Tokens older than a second are lost.
        let used = now.checked_sub(Duration::from_secs(1)).map_or(self.used, |begin| self.used.max(begin));
        let taken = used + self.each;
        if taken > now {
            return false;
        }
        self.used = taken;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_connections_of_one_second_may_come_at_once_and_then_at_the_rate() {
        let begin = Instant::now() + SECOND * 10;
        let mut rate = Rate::new(100, begin);
        let mut at = |now: Instant| (0..1000).filter(|_| rate.take(now)).count();
        assert_eq!(at(begin), 100);
        assert_eq!(at(begin + SECOND / 2), 50);
        assert_eq!(at(begin + SECOND * 60), 100, "a quiet minute saves the tokens of only one second");
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_twice_the_rate(per_second in 1..500_u32, gaps in prop::collection::vec(0..50_u64, 1..500)) {
            let mut now = Instant::now() + SECOND * 10;
            let mut rate = Rate::new(per_second, now);
            let mut taken = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                taken.extend((0..20).filter(|_| rate.take(now)).map(|_| now));
            }
            for (place, begin) in taken.iter().enumerate() {
                let within = taken[place..].iter().filter(|at| **at < *begin + SECOND).count();
                prop_assert!(within <= 2 * per_second as usize, "{within} in a second");
            }
        }
    }
}
