//! Draining a node: the phases that all its parts follow, and the pace at which clients are closed, also by a shed.
//!
//! Pure. The pace is even over the available time, so that the other nodes take over the clients gradually. Few clients
//! are closed faster than that, since the cluster can take them at once.

use std::time::Duration;

/// The clients of one worker, per second, whose reconnects are no load for the cluster.
const GENTLE: f64 = 100.0;

/// The phase of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// It accepts clients. It may already report not ready.
    #[default]
    Serving,
    /// It accepts no more clients and closes the connected ones. HTTP is still served.
    Closing,
    /// All clients are closed, or the operator has cut the drain short. The remaining clients are closed at once.
    Over,
}

/// How many clients must be closed by when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    clients: usize,
    span: Duration,
}

impl Pace {
    /// The pace for `clients` clients within `most` time.
    pub(crate) fn new(clients: usize, most: Duration) -> Self {
        Self { clients, span: most.min(Duration::from_secs_f64(clients as f64 / GENTLE)) }
    }

    /// The pace for `clients` clients over a whole span.
    pub(crate) fn over(clients: usize, span: Duration) -> Self {
        Self { clients, span }
    }

    /// How many clients must be closed in all.
    pub(crate) fn clients(&self) -> usize {
        self.clients
    }

    /// How many clients must be closed at `elapsed` after the start.
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
    fn few_clients_are_closed_at_the_gentle_rate_and_many_over_the_whole_time() {
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
