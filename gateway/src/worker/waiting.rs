//! What catch-ups and `history` commands wait for: this node, older records, room in the outbox, or their turn.
//!
//! Each wait ends with the connection. The wait for room takes as long as the client does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_adapters::Position;
use tokio::time::timeout;

use super::Worker;
use super::catch_up::Wait;
use super::connection::Connection;
use crate::clock;
use crate::window::{Page, Toward};

/// The longest time to wait until this node has read as far as the client's position, which may come from another node.
pub(crate) const BEHIND: Duration = Duration::from_secs(2);

/// How much of [`BEHIND`] passes before the node asks the broker whether its log reaches the client's position.
pub(crate) const ASK_AFTER: Duration = Duration::from_millis(200);

/// The most positions of one connection for which the broker is asked without result. After that it is asked for one more
/// after each [`FORGIVEN`]: a client that goes through positions that were trimmed away means no harm.
const UNFOUNDED: u8 = 16;
const FORGIVEN: Duration = Duration::from_secs(1);

/// The positions of one connection for which the broker was asked without result.
#[derive(Debug, Default)]
pub(super) struct Unfounded {
    count: u8,
    last: Option<Instant>,
}

impl Unfounded {
    /// How many count at this time.
    pub(super) fn count(&self, now: Instant) -> u8 {
        let since = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let forgiven = since.as_millis() / FORGIVEN.as_millis();
        self.count.saturating_sub(u8::try_from(forgiven).unwrap_or(u8::MAX))
    }

    fn add(&mut self, now: Instant) {
        *self = Self { count: self.count(now).saturating_add(1), last: Some(now) };
    }
}

/// The outcome of waiting.
pub(super) enum Waited {
    /// The catch-up can go on, with a page if one was read.
    Ready(Option<Arc<Page>>),
    /// The log does not hold the client's position, or no longer holds it.
    NotHeld,
    /// The broker or this node did not answer in time.
    Unavailable,
}

impl Worker {
    /// Waits for something. Cancel safe.
    pub(super) async fn wait_for(&self, connection: &Connection, channel: &str, wait: Wait) -> Waited {
        let shared = &self.shared;
        match wait {
            Wait::Room => {
                connection.room(self).await;
                Waited::Ready(None)
            }
            Wait::Turn => {
                // One at a time: however many clients come back at once, live messages wait for one piece.
                let _turn = self.turns.acquire().await;
                tokio::task::yield_now().await;
                self.caught_up.set(0);
                Waited::Ready(None)
            }
            Wait::Page(at) => self.page(channel, at, Toward::Later).await,
            Wait::Earlier(at) => self.page(channel, at, Toward::Earlier).await,
            Wait::Node(at) => {
                if timeout(ASK_AFTER, self.until_past(at)).await.is_ok() {
                    return Waited::Ready(None);
                }
                let rest = async {
                    match shared.window.head(&shared.log, at.partition).await {
                        // The log ends before this position, so the position comes from another log.
                        Ok(head) if head < at.offset => return Waited::NotHeld,
                        Ok(_) => self.until_past(at).await,
                        Err(_) => return Waited::Unavailable,
                    }
                    Waited::Ready(None)
                };
                timeout(BEHIND, rest).await.unwrap_or(Waited::Unavailable)
            }
        }
    }

    async fn page(&self, channel: &str, at: Position, toward: Toward) -> Waited {
        match self.shared.window.page(&self.shared.log, channel, at, toward).await {
            Ok(Some(page)) => Waited::Ready(Some(page)),
            Ok(None) => Waited::NotHeld,
            Err(_) => Waited::Unavailable,
        }
    }

    /// Whether the broker may still be asked for positions that this client names.
    pub(super) fn may_ask_broker(&self, connection: &Connection) -> bool {
        let state = connection.state.borrow();
        state.returning.as_ref().is_none_or(|returning| returning.unfounded.count(clock::now()) < UNFOUNDED)
    }

    /// Notes that the broker was asked in vain for a position that this client named.
    pub(super) fn note_unfounded(&self, connection: &Connection) {
        let mut state = connection.state.borrow_mut();
        let returning = state.returning.get_or_insert_default();
        returning.unfounded.add(clock::now());
    }

    /// Waits until this worker has reached a position and seen all breaks that the window has counted.
    async fn until_past(&self, position: Position) {
        loop {
            let moved = self.moved.notified();
            let Position { partition, offset, .. } = position;
            let seen = self.breaks.borrow()[usize::from(partition.0)];
            let there = self.position(partition).is_ok_and(|at| at.offset >= offset);
            if there && seen == self.shared.window.breaks(partition) {
                return;
            }
            moved.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_position_is_forgiven_after_each_second() {
        let (begin, mut unfounded) = (Instant::now(), Unfounded::default());
        (0..UNFOUNDED).for_each(|_| unfounded.add(begin));
        for (milliseconds, count) in [(0, UNFOUNDED), (999, UNFOUNDED), (1000, UNFOUNDED - 1), (5000, UNFOUNDED - 5)] {
            assert_eq!(unfounded.count(begin + Duration::from_millis(milliseconds)), count);
        }
        unfounded.add(begin + FORGIVEN);
        assert_eq!(unfounded.count(begin + FORGIVEN), UNFOUNDED);
        assert_eq!(unfounded.count(begin + 1000 * FORGIVEN), 0);
    }
}
