//! Writes a connection's outbox to its socket.
//!
//! A connection whose socket is full counts as *blocked*, and its progress is measured until the outbox is empty again.
//! Connections that are never blocked pay nothing for this.

use std::io::{ErrorKind, IoSlice};

use broker_adapters::Position;

use super::{Connection, Stage, State};
use crate::clock;
use crate::close::CloseReason;
use crate::door::stream::Stream;
use crate::protocol::{Format, Notice, Output};
use crate::worker::Worker;
use crate::worker::backlog::Frame;
use crate::worker::hub::ChannelId;
use crate::worker::latest::Newest;
use crate::worker::outbox::SLICES;
use crate::worker::progress::Progress;

/// The outcome of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    All,
    Blocked,
    Broken,
}

/// The outcome of queueing a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    /// It will be written when the worker next flushes.
    Yes,
    /// The outbox is over its limit: the caller must end the connection with [`CloseReason::TooSlow`].
    Overflow,
    /// The connection is ending and sends nothing more.
    Ending,
}

impl Connection {
    /// Queues a frame for the next flush.
    pub(crate) fn queue(&self, worker: &Worker, frame: Frame) -> Queued {
        let mut state = self.state.borrow_mut();
        if !state.takes_output() {
            return Queued::Ending;
        }
        state.push(worker, frame);
        if state.is_over_share(worker) {
            drop(state);
            // A burst alone does not make a client slow: only bytes that the socket does not accept count.
            self.write(worker);
            state = self.state.borrow_mut();
            if state.is_over_share(worker) {
                return Queued::Overflow;
            }
        }
        if !state.marked {
            state.marked = true;
            worker.mark(self.member);
        }
        Queued::Yes
    }

    /// Writes as much of the outbox as the socket accepts. The connection's task writes the rest later.
    pub(crate) fn flush(&self, worker: &Worker) {
        self.state.borrow_mut().marked = false;
        if self.write(worker) != Written::All {
            self.wake();
        }
    }

    pub(super) fn write(&self, worker: &Worker) -> Written {
        let mut state = self.state.borrow_mut();
        loop {
            let (written, bytes) = state.write(&mut self.stream.borrow_mut(), worker);
            // Most sockets accept everything, so this is rarely needed.
            if written == Written::Blocked || state.blocked.is_some() {
                state.note(self, worker, written, bytes);
            }
            if bytes > 0 {
                state.notify_room_if_low(worker);
            }
            if written != Written::All || !state.queue_waiting(worker, self.format) {
                return written;
            }
        }
    }

    /// Queues a run of messages, of which the frame of the last one is `newest`. While the socket is full, only that one
    /// waits, in place of the channel's earlier one.
    pub(crate) fn queue_latest(
        &self,
        worker: &Worker,
        channel: ChannelId,
        run: Frame,
        newest: (Frame, Position),
        count: usize,
    ) -> Queued {
        let mut state = self.state.borrow_mut();
        if state.blocked.is_none() {
            drop(state);
            return self.queue(worker, run);
        }
        if !state.takes_output() {
            return Queued::Ending;
        }
        let latest = state.latest.get_or_insert_default();
        latest.put(channel, newest, count);
        match worker.backlog.is_over_share(state.weight()) {
            true => Queued::Overflow,
            false => Queued::Yes,
        }
    }

    /// Queues the message of a channel that waits, whether the socket is full or not.
    pub(in crate::worker) fn queue_newest(&self, worker: &Worker, channel: ChannelId) {
        let mut state = self.state.borrow_mut();
        if let Some(newest) = state.latest.as_mut().and_then(|latest| latest.take(channel)) {
            state.push_newest(worker, self.format, channel, newest);
        }
    }

    /// Drops the message of a channel that waits.
    pub(in crate::worker) fn forget_latest(&self, channel: ChannelId) {
        if let Some(latest) = &mut self.state.borrow_mut().latest {
            latest.take(channel);
        }
    }

    /// Closes the client to free memory for others: with [`CloseReason::TooSlow`], or by a reset if it is already
    /// ending. Returns whether the client is cut off for this reason alone.
    pub(in crate::worker) fn make_room(&self, worker: &Worker) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(ending) = &mut state.ending else {
            drop(state);
            worker.end(self, CloseReason::TooSlow);
            return true;
        };
        ending.stage = Stage::Over;
        let first = ending.reason != CloseReason::TooSlow;
        state.drop_output(worker);
        drop(state);
        self.reset();
        self.wake();
        first
    }
}

impl State {
    pub(super) fn push(&mut self, worker: &Worker, frame: Frame) {
        self.outbox.push(frame);
        worker.backlog.queued(1);
    }

    /// Queues all messages that wait for a socket with room. Returns whether there were any.
    fn queue_waiting(&mut self, worker: &Worker, format: Format) -> bool {
        let Some(mut latest) = self.latest.take() else { return false };
        if !self.takes_output() {
            return false;
        }
        latest.take_all().into_iter().for_each(|(channel, newest)| self.push_newest(worker, format, channel, newest));
        true
    }

    /// Whether the newest message of a channel waits for a socket with room.
    pub(in crate::worker) fn has_waiting(&self, channel: ChannelId) -> bool {
        self.latest.as_ref().is_some_and(|latest| latest.holds(channel))
    }

    fn push_newest(
        &mut self,
        worker: &Worker,
        format: Format,
        channel: ChannelId,
        Newest { frame, at, skipped }: Newest,
    ) {
        worker.shared.metrics.skipped(skipped);
        let hub = worker.hub.borrow();
        let notice = Notice::Skipped { channel: hub.name(channel), count: skipped };
        if skipped > 0
            && let Output::Message(body) = format.protocol().notice(notice)
        {
            self.push(worker, worker.backlog.frame(body.frame()));
        }
        let frame = match format.has_own_ids() {
            false => frame,
            true => {
                let mut own = Vec::with_capacity(frame.len() + 64);
                self.write_own_shared(&mut own, format, (hub.name(channel), at), &frame);
                worker.backlog.frame(own.into())
            }
        };
        self.push(worker, frame);
    }

    /// The approximate memory of everything that waits to be written.
    fn weight(&self) -> usize {
        self.outbox.weight() + self.latest.as_ref().map_or(0, |latest| latest.weight())
    }

    /// Drops everything that is queued.
    pub(super) fn drop_output(&mut self, worker: &Worker) {
        self.latest = None;
        worker.backlog.left(self.outbox.clear());
        if let Some(progress) = self.blocked.take() {
            worker.blocked.borrow_mut().leave(progress.place);
        }
    }

    fn is_over_share(&self, worker: &Worker) -> bool {
        // The first check is cheaper, and almost always decides.
        worker.backlog.is_over_share(self.outbox.weight()) && worker.backlog.is_over_share(self.outbox.behind())
    }

    /// Also returns how many bytes the socket accepted.
    fn write(&mut self, stream: &mut Stream, worker: &Worker) -> (Written, usize) {
        let mut bytes = 0;
        while !self.outbox.is_empty() {
            let result = match self.outbox.single() {
                Some(frame) => stream.try_write(frame),
                None => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let count = self.outbox.slices(&mut slices);
                    stream.try_write_vectored(&slices[..count])
                }
            };
            match result {
                Ok(0) => return (Written::Broken, bytes),
                Ok(written) => {
                    bytes += written;
                    worker.backlog.left(self.outbox.advance(written));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return (Written::Blocked, bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return (Written::Broken, bytes),
            }
        }
        let written = match stream.try_flush() {
            Ok(()) => Written::All,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Written::Blocked,
            Err(_) => Written::Broken,
        };
        (written, bytes)
    }

    /// Notes how many bytes a full socket accepted. Bytes that a socket with room accepts prove nothing: they may only
    /// be in the kernel's buffer.
    fn note(&mut self, connection: &Connection, worker: &Worker, written: Written, bytes: usize) {
        let now = clock::now();
        let mut blocked = worker.blocked.borrow_mut();
        let Some(progress) = &mut self.blocked else {
            self.blocked = Some(Box::new(Progress::new(blocked.enter(connection.member), now)));
            return;
        };
        if bytes > 0 {
            progress.took(bytes, now);
            blocked.renew(&mut progress.place);
            self.pulse.wait_from(now);
        }
        if written == Written::All {
            self.pulse.wait_from(now + progress.lag());
            let progress = self.blocked.take();
            progress.into_iter().for_each(|progress| blocked.leave(progress.place));
        }
    }
}
