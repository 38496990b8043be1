//! What the receivers have heard: each must hear every message once and in order.
//!
//! Pure: sequence numbers and times in, errors and latencies out. The first message sets a receiver's starting point;
//! from there on a gap, a repetition or a reordering is an error.

use std::fmt;

use crate::histogram::Histogram;

/// How many messages a receiver may lag behind the newest before its latency can no longer be measured.
const REMEMBERED: u64 = 1 << 16;
const NOTHING_YET: u64 = u64::MAX;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Disorder {
    Gap { receiver: usize, expected: u64, got: u64 },
    Repeated { receiver: usize, expected: u64, got: u64 },
    NeverPublished { receiver: usize, got: u64, published: u64 },
    FarBehind { receiver: usize, got: u64, published: u64 },
}

impl fmt::Display for Disorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { receiver, expected, got } => {
                write!(f, "gap at receiver {receiver}: expected {expected} got {got}")
            }
            Self::Repeated { receiver, expected, got } => {
                write!(f, "repetition or reordering at receiver {receiver}: expected {expected} got {got}")
            }
            Self::NeverPublished { receiver, got, published } => {
                write!(f, "receiver {receiver} got message {got}, but only {published} were published")
            }
            Self::FarBehind { receiver, got, published } => {
                write!(f, "receiver {receiver} is at message {got} of {published}: too far behind to be measured")
            }
        }
    }
}

impl std::error::Error for Disorder {}

/// All receivers of one process.
pub(crate) struct Audience {
    /// The number each receiver must hear next.
    next: Vec<u64>,
    /// When each of the last messages was published, in nanoseconds of the caller's clock.
    times: Box<[u64]>,
    published: u64,
    deliveries: u64,
    latency: Histogram,
}

impl Audience {
    pub(crate) fn new(receivers: usize) -> Self {
        Self {
            next: vec![NOTHING_YET; receivers],
            times: vec![0; REMEMBERED as usize].into(),
            published: 0,
            deliveries: 0,
            latency: Histogram::new(),
        }
    }

    /// Gives the next message its number.
    pub(crate) fn publish(&mut self, now: u64) -> u64 {
        let sequence = self.published;
        self.times[(sequence % REMEMBERED) as usize] = now;
        self.published += 1;
        sequence
    }

    /// Takes one delivery.
    ///
    /// # Errors
    /// When it is not the message that this receiver must hear next.
    pub(crate) fn hear(&mut self, receiver: usize, got: u64, now: u64) -> Result<(), Disorder> {
        self.follow(receiver, got)?;
        let published = self.published;
        if got >= published {
            return Err(Disorder::NeverPublished { receiver, got, published });
        }
        if published - got > REMEMBERED {
            return Err(Disorder::FarBehind { receiver, got, published });
        }
        self.latency.record(now.saturating_sub(self.times[(got % REMEMBERED) as usize]));
        Ok(())
    }

    /// Takes one delivery of a message that another process published, whose time is not known here.
    ///
    /// # Errors
    /// When it is not the message that this receiver must hear next.
    pub(crate) fn follow(&mut self, receiver: usize, got: u64) -> Result<(), Disorder> {
        let expected = self.next[receiver];
        if got != expected && expected != NOTHING_YET {
            return Err(match got > expected {
                true => Disorder::Gap { receiver, expected, got },
                false => Disorder::Repeated { receiver, expected, got },
            });
        }
        self.next[receiver] = got + 1;
        self.deliveries += 1;
        Ok(())
    }

    /// How many messages were published.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// How many of the messages the receiver has heard or need not hear.
    pub(crate) fn heard(&self, receiver: usize) -> u64 {
        match self.next[receiver] {
            NOTHING_YET => 0,
            next => next,
        }
    }

    /// The receiver that is furthest behind, and how many messages it has heard.
    pub(crate) fn slowest(&self) -> (usize, u64) {
        let heard = (0..self.next.len()).map(|receiver| (receiver, self.heard(receiver)));
        heard.min_by_key(|(_, heard)| *heard).unwrap_or((0, self.published))
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    pub(crate) fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Starts a new measurement; what each receiver must hear next stays as it is.
    pub(crate) fn reset(&mut self) {
        self.deliveries = 0;
        self.latency.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn audience(receivers: usize, published: u64) -> Audience {
        let mut audience = Audience::new(receivers);
        (0..published).for_each(|number| assert_eq!(audience.publish(number * 10), number));
        audience
    }

    #[test]
    fn dense_and_ordered_messages_are_counted_and_timed() {
        let mut audience = audience(2, 3);
        for receiver in 0..2 {
            (0..3).for_each(|number| audience.hear(receiver, number, number * 10 + 7).unwrap());
        }
        assert_eq!((audience.deliveries(), audience.slowest().1), (6, 3));
        assert_eq!(audience.latency().quantile(1.0), Duration::from_nanos(7));
        audience.reset();
        assert_eq!((audience.deliveries(), audience.heard(1)), (0, 3));
    }

    #[test]
    fn a_gap_a_repetition_and_a_reordering_are_errors_that_name_the_receiver() {
        for (history, error) in [
            (&[0, 2][..], Disorder::Gap { receiver: 1, expected: 1, got: 2 }),
            (&[0, 1, 1], Disorder::Repeated { receiver: 1, expected: 2, got: 1 }),
            (&[1, 0], Disorder::Repeated { receiver: 1, expected: 2, got: 0 }),
            (&[0, 1, 3, 2], Disorder::Gap { receiver: 1, expected: 2, got: 3 }),
            (&[9], Disorder::NeverPublished { receiver: 1, got: 9, published: 4 }),
        ] {
            let mut audience = audience(2, 4);
            let outcome = history.iter().try_for_each(|got| audience.hear(1, *got, 100));
            assert_eq!(outcome, Err(error), "{history:?}");
        }
        let gap = Disorder::Gap { receiver: 7, expected: 1, got: 3 };
        assert_eq!(gap.to_string(), "gap at receiver 7: expected 1 got 3");
    }

    #[test]
    fn the_slowest_receiver_is_found_so_that_a_lost_last_message_is_seen() {
        let mut audience = audience(3, 2);
        (0..2).for_each(|number| audience.hear(0, number, 50).unwrap());
        (0..2).for_each(|number| audience.hear(2, number, 50).unwrap());
        assert_eq!(audience.slowest(), (1, 0));
        audience.hear(1, 0, 50).unwrap();
        assert_eq!(audience.slowest(), (1, 1));
    }

    #[test]
    fn a_receiver_too_far_behind_is_an_error_and_never_a_wrong_latency() {
        let mut audience = audience(1, REMEMBERED + 1);
        let behind = Disorder::FarBehind { receiver: 0, got: 0, published: REMEMBERED + 1 };
        assert_eq!(audience.hear(0, 0, 0), Err(behind));
    }
}
