//! Output that can wait: for apps and for clients that come back, who are given what there is room for and never ended.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Connection, State};
use crate::worker::Worker;

/// The most that may be queued when there is room again, in bytes; at most a quarter of an outbox.
const LOW: usize = 16 << 10;

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It will be written when the worker next flushes.
    Yes,
    /// The client must take what is queued first.
    Full,
    /// It is ending: nothing more is sent.
    Ending,
}

impl Connection {
    /// Adds a frame for the next flush if there is room for it among `most` bytes; never ends a client. One that has little
    /// queued takes any frame.
    pub(crate) fn offer(&self, worker: &Worker, frame: &Bytes, most: usize) -> Offered {
        let mut state = self.state.borrow_mut();
        if !state.takes_output() {
            return Offered::Ending;
        }
        let weight = state.outbox.weight();
        if weight > low(worker) && (weight + frame.len() > most || worker.backlog.is_over()) {
            return Offered::Full;
        }
        state.push(worker, worker.backlog.frame(frame.clone()));
        if !std::mem::replace(&mut state.marked, true) {
            worker.mark(self.member);
        }
        Offered::Yes
    }

    /// Waits until there is room for an offer, or the connection ends.
    pub(crate) async fn room(&self, worker: &Worker) {
        let next = || self.state.borrow_mut().next_room(worker);
        while let Some(room) = next() {
            room.notified().await;
        }
    }
}

impl State {
    /// What to wait for, unless there is room or the connection ends.
    fn next_room(&mut self, worker: &Worker) -> Option<Rc<Notify>> {
        let done = self.gone || self.ending.is_some() || self.outbox.weight() <= low(worker);
        (!done).then(|| Rc::clone(self.room.get_or_insert_default()))
    }

    /// The socket has taken something.
    pub(super) fn look_for_room(&mut self, worker: &Worker) {
        if self.room.is_some() && self.outbox.weight() <= low(worker) {
            self.tell_of_room();
        }
    }

    /// Those who wait for room look again.
    pub(super) fn tell_of_room(&mut self) {
        if let Some(room) = self.room.take() {
            room.notify_waiters();
        }
    }
}

fn low(worker: &Worker) -> usize {
    LOW.min(worker.shared.config.limits.outbox.bytes() / 4)
}
