//! The queue of messages from a client to an app's handler.
//!
//! Owned by the connection. Bounded: while it is full, the socket is not read, so the client must wait. Loses the
//! messages that are left when the handler returns.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use super::message::Message;

/// The number of messages at which reading pauses.
const FULL: usize = 64;
/// The number of bytes at which reading pauses.
const FULL_BYTES: usize = 256 << 10;

/// Received messages, in order.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: VecDeque<Message>,
    bytes: usize,
    /// Whether the last message is in the queue.
    ended: bool,
    /// Whether the handler has returned.
    done: bool,
    /// Whether the handler has taken a message since the last call of `has_moved`.
    moved: bool,
    waiting: Option<Waker>,
    /// The code and the text of the close frame that the handler has chosen.
    parting: Option<Box<(u16, String)>>,
}

/// The longest text of a close frame, in bytes (RFC 6455 §5.5).
const TEXT: usize = 123;

impl Inbox {
    pub(crate) fn push(&mut self, message: Message) {
        self.bytes += message.len();
        self.queue.push_back(message);
        self.wake();
    }

    /// The next message, or `None` after the last one. While pending, `waker` is woken when this changes.
    pub(crate) fn poll_next(&mut self, waker: &Waker) -> Poll<Option<Message>> {
        if let Some(message) = self.queue.pop_front() {
            self.bytes -= message.len();
            self.moved = true;
            return Poll::Ready(Some(message));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.waiting = Some(waker.clone());
        Poll::Pending
    }

    /// Sets what the close frame says if the handler closes the connection. The first call counts.
    pub(crate) fn part_with(&mut self, code: u16, text: &str) {
        let text = &text[..text.floor_char_boundary(TEXT)];
        self.parting.get_or_insert_with(|| Box::new((code, text.to_owned())));
    }

    /// What the close frame says, if the handler has chosen it.
    pub(crate) fn parting(&self) -> Option<(u16, &str)> {
        self.parting.as_deref().map(|(code, text)| (*code, text.as_str()))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= FULL || self.bytes >= FULL_BYTES
    }

    /// Notes that no more messages will come.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    /// Notes that the handler has returned.
    pub(crate) fn finish(&mut self) {
        self.done = true;
    }

    /// Whether the handler has taken a message since the last call.
    pub(crate) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}
