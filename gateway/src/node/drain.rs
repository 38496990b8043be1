//! How a node goes away: the phases that all its parts see, and the pace at which clients are told.
//!
//! Pure. The pace is even over the time there is, so that the other nodes take the clients over one by one; where there
//! are few it is faster than it would have to be, since nobody feels those.

use std::time::Duration;

/// Clients a second of one worker that no cluster feels coming.
const GENTLE: f64 = 100.0;

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// It takes clients, though perhaps it says already that it should not be sent any.
    #[default]
    Serving,
    /// It takes no more, and sends those it has away; HTTP goes on.
    Closing,
    /// All are gone, or someone is impatient: whoever is left is told so at once.
    Over,
}

/// How many clients are to be told by when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    clients: usize,
    span: Duration,
}

impl Pace {
    /// For so many clients, in this time at most.
    pub(crate) fn new(clients: usize, most: Duration) -> Self {
        Self { clients, span: most.min(Duration::from_secs_f64(clients as f64 / GENTLE)) }
    }

    /// How many of them are to be told by now, so long after the first.
    pub(crate) fn due(&self, elapsed: Duration) -> usize {
        if elapsed >= self.span {
            return self.clients;
        }
        let part = elapsed.as_secs_f64() / self.span.as_secs_f64();
        (self.clients as f64 * part).ceil() as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_take_as_long_as_they_need_and_many_all_the_time_there_is() {
        for (clients, most, expected) in
            [(0, 10, 0.0), (1, 10, 0.01), (50, 10, 0.5), (1000, 10, 10.0), (100_000, 10, 10.0)]
        {
            let pace = Pace::new(clients, Duration::from_secs(most));
            assert_eq!(pace.span.as_secs_f64(), expected, "{clients}");
            assert_eq!(pace.due(pace.span), clients);
        }
    }

    proptest! {
        #[test]
        fn the_pace_is_even(clients in 0..200_000_usize, seconds in 1..60_u64, steps in 1..2_000_u32) {
            let pace = Pace::new(clients, Duration::from_secs(seconds));
            let step = pace.span / steps;
            let fair = clients as f64 / f64::from(steps);
            let mut before = 0;
            for number in 0..=steps {
                let due = pace.due(step * number);
                prop_assert!(due >= before && due <= clients);
                prop_assert!((due - before) as f64 <= fair * 1.01 + 2.0, "{} after {before} in one step", due);
                before = due;
            }
            prop_assert_eq!(pace.due(pace.span), clients);
        }
    }
}
