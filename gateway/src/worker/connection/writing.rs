//! Writes a connection's outbox to its socket.
//!
//! A connection whose socket is full counts as *blocked*, and its progress is measured until the outbox is empty again.
//! Connections that are never blocked pay nothing for this.

use std::io::{ErrorKind, IoSlice};

use broker_adapters::Position;

use super::{Connection, Full, Stage, State};
use crate::clock;
use crate::close::CloseReason;
use crate::door::stream::Stream;
use crate::protocol::{Format, Notice, Output};
use crate::worker::Worker;
use crate::worker::backlog::Frame;
use crate::worker::hub::ChannelId;
use crate::worker::latest::{Latest, Newest};
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
            let full = if written == Written::Blocked || state.blocked.is_some() {
                state.note(self, worker, written, bytes)
            } else {
                None
            };
            if bytes > 0 {
                state.notify_room_if_low(worker);
            }
            if !full.is_some_and(|full| state.queue_waiting(worker, self.format, full.latest)) {
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
        if !state.takes_output() {
            return Queued::Ending;
        }
        let Some(full) = &mut state.blocked else {
            drop(state);
            return self.queue(worker, run);
        };
        full.latest.put(channel, newest, count);
        match worker.backlog.is_over_share(state.weight()) {
            true => Queued::Overflow,
            false => Queued::Yes,
        }
    }

    /// Queues the message of a channel that waits, whether the socket is full or not.
    pub(in crate::worker) fn queue_newest(&self, worker: &Worker, channel: ChannelId) {
        let mut state = self.state.borrow_mut();
        if let Some(newest) = state.blocked.as_mut().and_then(|full| full.latest.take(channel)) {
            state.push_newest(worker, self.format, channel, newest);
        }
    }

    /// Drops the message of a channel that waits.
    pub(in crate::worker) fn forget_latest(&self, channel: ChannelId) {
        if let Some(full) = &mut self.state.borrow_mut().blocked {
            full.latest.take(channel);
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

    /// Queues all messages that have waited for a socket with room. Returns whether there were any.
    fn queue_waiting(&mut self, worker: &Worker, format: Format, mut latest: Latest) -> bool {
        if latest.is_empty() || !self.takes_output() {
            return false;
        }
        latest.take_all().into_iter().for_each(|(channel, newest)| self.push_newest(worker, format, channel, newest));
        true
    }

    /// Whether the newest message of a channel waits for a socket with room.
    pub(in crate::worker) fn has_waiting(&self, channel: ChannelId) -> bool {
        self.blocked.as_ref().is_some_and(|full| full.latest.holds(channel))
    }

    /// Whether the newest message of any channel does.
    pub(super) fn has_any_waiting(&self) -> bool {
        self.blocked.as_ref().is_some_and(|full| !full.latest.is_empty())
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
        self.outbox.weight() + self.blocked.as_ref().map_or(0, |full| full.latest.weight())
    }

    /// Drops everything that is queued.
    pub(super) fn drop_output(&mut self, worker: &Worker) {
        worker.backlog.left(self.outbox.clear());
        if let Some(full) = self.blocked.take() {
            worker.blocked.borrow_mut().leave(full.progress.place);
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
    /// be in the kernel's buffer. Returns what belonged to the full socket if it now has room for everything.
    fn note(&mut self, connection: &Connection, worker: &Worker, written: Written, bytes: usize) -> Option<Box<Full>> {
        let now = clock::now();
        let mut blocked = worker.blocked.borrow_mut();
        let Some(Full { progress, .. }) = self.blocked.as_deref_mut() else {
            let progress = Progress::new(blocked.enter(connection.member), now);
            self.blocked = Some(Box::new(Full { progress, latest: Latest::default() }));
            return None;
        };
        if bytes > 0 {
            progress.took(bytes, now);
            blocked.renew(&mut progress.place);
            self.pulse.wait_from(now);
        }
        if written != Written::All {
            return None;
        }
        self.pulse.wait_from(now + progress.lag());
        self.blocked.take().inspect(|full| blocked.leave(full.progress.place))
    }
}
