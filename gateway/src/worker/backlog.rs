//! How much waits for all of a worker's clients, and for how much of it there is room.
//!
//! A frame counts once, however many clients wait for it: from when it is made until none of them needs it.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;

/// What a frame takes besides its bytes, about: its allocation, and its place in a queue. Without it, a megabyte of the
/// smallest frames would take four.
pub(crate) const FRAME: usize = 64;

/// What a place in one client's queue takes, with the room that the queue keeps spare.
const PLACE: usize = 16;

/// The bytes that wait for a worker's clients.
#[derive(Debug)]
pub(crate) struct Backlog {
    queued: Cell<usize>,
    /// The most for one client.
    each: usize,
    /// The most for all of them, besides the largest frame.
    all: usize,
    /// The size of the largest frame so far: there is always room for one, so that no client is closed for its size.
    largest: Cell<usize>,
}

impl Backlog {
    pub(crate) fn new(each: usize, all: usize) -> Rc<Self> {
        Rc::new(Self { queued: Cell::new(0), each, all, largest: Cell::new(0) })
    }

    /// A frame that counts as long as it exists.
    pub(crate) fn frame(self: &Rc<Self>, bytes: Bytes) -> Frame {
        let weight = bytes.len() + FRAME;
        self.add(weight);
        self.largest.set(self.largest.get().max(weight));
        Frame(Rc::new(Counted { bytes, backlog: Rc::clone(self) }))
    }

    /// So many frames were put into a client's queue.
    pub(crate) fn queued(&self, frames: usize) {
        self.add(frames * PLACE);
    }

    /// So many frames have left a client's queue.
    pub(crate) fn left(&self, frames: usize) {
        self.sub(frames * PLACE);
    }

    /// Whether one client has more queued than it may.
    pub(crate) fn is_over_share(&self, queued: usize) -> bool {
        queued > self.each
    }

    /// Whether all clients together have more queued than they may.
    pub(crate) fn is_over(&self) -> bool {
        self.queued.get() > self.all + self.largest.get()
    }

    fn add(&self, bytes: usize) {
        self.queued.set(self.queued.get() + bytes);
    }

    fn sub(&self, bytes: usize) {
        self.queued.set(self.queued.get().saturating_sub(bytes));
    }
}

/// A frame, shared by all clients of the worker that wait for it.
#[derive(Debug, Clone)]
pub(crate) struct Frame(Rc<Counted>);

#[derive(Debug)]
struct Counted {
    bytes: Bytes,
    backlog: Rc<Backlog>,
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.backlog.sub(self.bytes.len() + FRAME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_is_bounded_and_all_together_are() {
        let backlog = Backlog::new(100 << 10, 200 << 10);
        assert!(!backlog.is_over_share(100 << 10));
        assert!(backlog.is_over_share((100 << 10) + 1));
        let frame = || backlog.frame(Bytes::from(vec![0; (100 << 10) - FRAME]));
        let most = [frame(), frame(), frame()];
        assert!(!backlog.is_over(), "there is room for one more than all may have");
        backlog.queued(1);
        assert!(backlog.is_over());
        backlog.left(1);
        assert!(!backlog.is_over());
        drop(most);
        assert_eq!(backlog.queued.get(), 0);
    }

    #[test]
    fn the_largest_frame_alone_is_never_too_much() {
        let backlog = Backlog::new(1 << 10, 1 << 10);
        let largest = backlog.frame(Bytes::from(vec![0; 1 << 20]));
        assert!(!backlog.is_over());
        let other = backlog.frame(Bytes::from(vec![0; 1 << 20]));
        assert!(backlog.is_over());
        drop((largest, other));
    }

    #[test]
    fn a_frame_counts_once_until_the_last_client_has_it() {
        let backlog = Backlog::new(1 << 10, 1 << 10);
        let frame = backlog.frame(Bytes::from_static(b"to many"));
        let clients: Vec<_> = (0..100).map(|_| frame.clone()).collect();
        drop(frame);
        assert_eq!(backlog.queued.get(), 7 + FRAME);
        drop(clients);
        assert_eq!(backlog.queued.get(), 0);
    }
}
