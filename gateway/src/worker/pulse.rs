//! Whether a client is alive, and whether it asks too often if we are.
//!
//! Pure. A ping is queued at every interval; any byte that comes after it is an answer. The time for the answer begins
//! anew with each progress in writing: a ping behind other frames has not left yet, and a client that takes bytes is alive.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::{self};

/// So many times the allowed rate of pings, within one second, ends the connection.
const FLOOD: u32 = 10;

/// The state of one connection's pings, in both directions.
#[derive(Debug)]
pub(crate) struct Pulse {
    /// From here on counts the time that the client has to answer, or to take its last frames.
    since: Instant,
    /// A ping is out and nothing has come since.
    unanswered: bool,
    /// The connection has sent a message or subscribed since the last look.
    pub(crate) used: bool,
    /// A timer watches over a message under way.
    pub(crate) watched: bool,
    /// The second that `pings` counts in, from the worker's start.
    second: u32,
    pings: u32,
    /// The only pong still owed, once pings come faster than they are answered one by one; boxed, since few clients do that.
    owed: Option<Box<Bytes>>,
}

/// What to do about a ping.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send this at once.
    Now(Bytes),
    /// The last of them is answered when all that came is handled.
    Later,
    /// That is no honest client.
    Flood,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, unanswered: false, used: false, watched: false, second: 0, pings: 0, owed: None }
    }

    /// Bytes came.
    pub(crate) fn heard(&mut self) {
        self.unanswered = false;
    }

    /// A ping is queued.
    pub(crate) fn asked(&mut self, now: Instant) {
        self.unanswered = true;
        self.wait_from(now);
    }

    /// The client is not waited for before this: it was asked something, or it takes what it was sent.
    pub(crate) fn wait_from(&mut self, at: Instant) {
        self.since = self.since.max(at);
    }

    /// When a client that may take so long has taken too long.
    pub(crate) fn due(&self, time: Duration) -> Instant {
        self.since + time
    }

    /// Whether the last ping had no answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.unanswered
    }

    /// A ping came in the given second; `most` of them are answered one by one.
    pub(crate) fn pinged(&mut self, payload: &[u8], second: u32, most: u32) -> Answer {
        if self.second != second {
            (self.second, self.pings) = (second, 0);
        }
        self.pings += 1;
        if self.pings > most.saturating_mul(FLOOD) {
            return Answer::Flood;
        }
        // RFC 6455 §5.5.3: of several pings only the most recent needs an answer.
        if self.pings > most {
            self.owed = Some(Box::new(codec::pong(payload)));
            return Answer::Later;
        }
        Answer::Now(codec::pong(payload))
    }

    /// The pong that is still owed.
    pub(crate) fn owed(&mut self) -> Option<Bytes> {
        self.owed.take().map(|pong| *pong)
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
        assert_eq!(pulse.pinged(&[31], 2, 3), Answer::Now(codec::pong(&[31])), "another second");
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
    fn the_time_for_an_answer_counts_from_the_last_progress() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pulse = Pulse::new(start);
        pulse.asked(start + second);
        assert_eq!(pulse.due(second), start + second * 2);
        pulse.wait_from(start + second * 5);
        assert_eq!(pulse.due(second), start + second * 6);
        pulse.wait_from(start + second * 3);
        assert_eq!(pulse.due(second), start + second * 6, "never back");
    }
}
