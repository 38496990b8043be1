//! Output that waits for room in the outbox, for apps and for resumes: a full outbox delays the sender and does not
//! close the client.

use std::rc::Rc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Connection, State};
use crate::message::Message;
use crate::worker::Worker;

/// The outbox has room again once its weight, in bytes, is at most this, or a quarter of its limit if that is less.
const LOW: usize = 16 << 10;

/// The outcome of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It will be written when the worker next flushes.
    Yes,
    /// The outbox has no room until the client has read more.
    Full,
    /// The connection is ending and sends nothing more.
    Ending,
}

impl Connection {
    /// Queues a frame for the next flush, unless the outbox would then weigh more than `most` bytes. Never closes the
    /// client. A nearly empty outbox accepts a frame of any size.
    pub(crate) fn offer(&self, worker: &Worker, frame: &Bytes, most: usize) -> Offered {
        self.offer_as(worker, frame.len(), most, |_| frame.clone())
    }

    /// The same for a message, in the connection's format.
    pub(in crate::worker) fn offer_message(&self, worker: &Worker, message: &Message, most: usize) -> Offered {
        let format = self.format;
        let shared = message.frame(format.shared());
        self.offer_as(worker, shared.len(), most, |state| match format.has_own_ids() {
            false => shared.clone(),
            true => {
                let mut own = Vec::with_capacity(shared.len() + 64);
                state.write_own_message(&mut own, format, message);
                own.into()
            }
        })
    }

    fn offer_as(
        &self,
        worker: &Worker,
        length: usize,
        most: usize,
        frame: impl FnOnce(&mut State) -> Bytes,
    ) -> Offered {
        let mut state = self.state.borrow_mut();
        if !state.takes_output() {
            return Offered::Ending;
        }
        let weight = state.outbox.weight();
        if weight > low(worker) && (weight + length > most || worker.backlog.is_over()) {
            return Offered::Full;
        }
        let frame = frame(&mut state);
        state.push(worker, worker.backlog.frame(frame));
        if !std::mem::replace(&mut state.marked, true) {
            worker.mark(self.member);
        }
        Offered::Yes
    }

    /// Whether the outbox is nearly empty. False also while the connection is ending.
    pub(crate) fn has_room(&self, worker: &Worker) -> bool {
        let state = self.state.borrow();
        state.takes_output() && state.outbox.weight() <= low(worker)
    }

    /// Waits until the outbox has room again or the connection ends. Cancel safe.
    pub(crate) async fn room(&self, worker: &Worker) {
        let next = || self.state.borrow_mut().next_room(worker);
        while let Some(room) = next() {
            room.notified().await;
        }
    }
}

impl State {
    /// The notification to await, or `None` if there is room or the connection is ending.
    fn next_room(&mut self, worker: &Worker) -> Option<Rc<Notify>> {
        let done = self.gone || self.ending.is_some() || self.outbox.weight() <= low(worker);
        (!done).then(|| Rc::clone(self.room.get_or_insert_default()))
    }

    /// Notifies waiting tasks if the outbox has room again. Called after each write that made progress.
    pub(super) fn notify_room_if_low(&mut self, worker: &Worker) {
        if self.room.is_some() && self.outbox.weight() <= low(worker) {
            self.notify_room();
        }
    }

    /// Wakes all tasks that wait for room.
    pub(super) fn notify_room(&mut self) {
        if let Some(room) = self.room.take() {
            room.notify_waiters();
        }
    }
}

fn low(worker: &Worker) -> usize {
    LOW.min(worker.shared.config.limits.outbox.bytes() / 4)
}
