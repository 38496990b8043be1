//! Detects clients that no longer answer pings, and clients that send too many.
//!
//! Pure. A ping is queued at every interval, and any byte received after it counts as the answer. The deadline for the
//! answer restarts with each progress in writing: a ping behind other frames has not left yet, and a client that reads
//! is alive.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::{self};

/// A client that sends more than this many times the allowed pings within one second is closed.
const FLOOD: u32 = 10;

/// The state of one connection's pings, in both directions.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// The start of the client's current deadline, to answer a ping or to read its last frames.
    since: Instant,
    /// Whether no byte has come since the last ping.
    unanswered: bool,
    /// Whether the client has sent a message since the idle timer last checked.
    pub(crate) used: bool,
    /// Whether a timer is set for an incomplete message.
    pub(crate) watched: bool,
    /// The client's pings, if it has sent any. Boxed, since few clients do.
    pings: Option<Box<Pings>>,
}

/// The pings of a client.
#[derive(Debug, Default)]
struct Pings {
    /// The second, from the worker's start, in which `count` pings were received.
    second: u32,
    count: u32,
    /// The one pong to send when pings come faster than the allowed rate.
    owed: Option<Bytes>,
}

/// How to answer a ping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send this pong at once.
    Now(Bytes),
    /// Send one pong, for the last ping, after all received bytes are handled.
    Later,
    /// Close the connection: the client floods the node with pings.
    Flood,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, unanswered: false, used: false, watched: false, pings: None }
    }

    /// Notes that bytes were received.
    pub(crate) fn heard(&mut self) {
        self.unanswered = false;
    }

    /// Notes that a ping was queued.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.unanswered = true;
        self.wait_from(now);
    }

    /// Moves the start of the client's deadline to `at`, unless it is later already: a frame was queued that the client
    /// must answer, or the client has read some bytes.
    pub(crate) fn wait_from(&mut self, at: Instant) {
        self.since = self.since.max(at);
    }

    /// The deadline of a client that has `time` to react.
    pub(crate) fn due(&self, time: Duration) -> Instant {
        self.since + time
    }

    /// Whether the last ping is unanswered.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// Notes a ping received in the given second. Up to `most` pings a second are answered one by one.
    pub(crate) fn pinged(&mut self, payload: &[u8], second: u32, most: u32) -> Answer {
        let pings = self.pings.get_or_insert_default();
        if pings.second != second {
            (pings.second, pings.count) = (second, 0);
        }
        pings.count += 1;
        if pings.count > most.saturating_mul(FLOOD) {
            return Answer::Flood;
        }
        // RFC 6455 §5.5.3: of several pings only the most recent needs an answer.
        if pings.count > most {
            pings.owed = Some(codec::pong(payload));
            return Answer::Later;
        }
        Answer::Now(codec::pong(payload))
    }

    /// Takes the pong that is still to be sent, if any.
    pub(crate) fn owed(&mut self) -> Option<Bytes> {
        self.pings.as_mut()?.owed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_answered_one_by_one_then_coalesced_then_refused() {
        let mut pulse = Pulse::new(Instant::now());
        for n in 0..3 {
            assert_eq!(pulse.pinged(&[n], 1, 3), Answer::Now(codec::pong(&[n])));
        }
        for n in 3..30 {
            assert_eq!(pulse.pinged(&[n], 1, 3), Answer::Later);
        }
        assert_eq!((pulse.owed(), pulse.owed()), (Some(codec::pong(&[29])), None));
        assert_eq!(pulse.pinged(&[30], 1, 3), Answer::Flood);
        assert_eq!(
            pulse.pinged(&[31], 2, 3),
            Answer::Now(codec::pong(&[31])),
            "the count starts again in the next second"
        );
    }

    #[test]
    fn any_byte_answers_a_ping() {
        let now = Instant::now();
        let mut pulse = Pulse::new(now);
        assert!(!pulse.is_unanswered());
        pulse.asked(now);
        assert!(pulse.is_unanswered());
        pulse.heard();
        assert!(!pulse.is_unanswered());
    }

    #[test]
    fn the_deadline_for_an_answer_counts_from_the_last_progress() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pulse = Pulse::new(start);
        pulse.asked(start + second);
        assert_eq!(pulse.due(second), start + second * 2);
        pulse.wait_from(start + second * 5);
        assert_eq!(pulse.due(second), start + second * 6);
        pulse.wait_from(start + second * 3);
        assert_eq!(pulse.due(second), start + second * 6, "the deadline never moves back");
    }
}
