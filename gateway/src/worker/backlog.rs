//! Counts the bytes queued for all clients of a worker, and limits them.
//!
//! A frame counts once, however many clients it is queued for, from its creation until the last of them has been sent
//! it.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;

/// The approximate overhead of a frame in bytes: its allocation and its entry in a queue. Without it, a megabyte of the
/// smallest frames would really take four megabytes.
pub(crate) const FRAME: usize = 64;

/// The bytes of an entry in one client's queue, including the queue's spare capacity.
const PLACE: usize = 16;

/// The bytes queued for a worker's clients.
#[derive(Debug)]
pub(crate) struct Backlog {
    queued: Cell<usize>,
    /// The limit for one client, in bytes.
    each: usize,
    /// The limit for all clients together, in bytes, in addition to the largest frame.
    all: usize,
    /// The weight of the largest frame so far. There is always room for one more such frame, so that a large message
    /// alone closes no client.
    largest: Cell<usize>,
}

impl Backlog {
    pub(crate) fn new(each: usize, all: usize) -> Rc<Self> {
        Rc::new(Self { queued: Cell::new(0), each, all, largest: Cell::new(0) })
    }

    /// Makes a frame, which counts until it is dropped.
    pub(crate) fn frame(self: &Rc<Self>, bytes: Bytes) -> Frame {
        let weight = bytes.len() + FRAME;
        self.add(weight);
        self.largest.set(self.largest.get().max(weight));
        Frame(Rc::new(Counted { bytes, backlog: Rc::clone(self) }))
    }

    /// Notes that frames were added to a client's queue.
    pub(crate) fn queued(&self, frames: usize) {
        self.add(frames * PLACE);
    }

    /// Notes that frames have left a client's queue.
    pub(crate) fn left(&self, frames: usize) {
        self.sub(frames * PLACE);
    }

    /// Whether `queued` bytes are over the limit for one client.
    pub(crate) fn is_over_share(&self, queued: usize) -> bool {
        queued > self.each
    }

    /// Whether all clients together are over their limit.
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

/// A frame, shared by all clients of the worker that it is queued for.
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
    fn one_client_has_a_limit_and_so_have_all_together() {
        let backlog = Backlog::new(100 << 10, 200 << 10);
        assert!(!backlog.is_over_share(100 << 10));
        assert!(backlog.is_over_share((100 << 10) + 1));
        let frame = || backlog.frame(Bytes::from(vec![0; (100 << 10) - FRAME]));
        let at_limit = [frame(), frame(), frame()];
        assert!(!backlog.is_over(), "the largest frame fits in addition to the limit");
        backlog.queued(1);
        assert!(backlog.is_over());
        backlog.left(1);
        assert!(!backlog.is_over());
        drop(at_limit);
        assert_eq!(backlog.queued.get(), 0);
    }

    #[test]
    fn the_largest_frame_alone_is_never_over_the_limit() {
        let backlog = Backlog::new(1 << 10, 1 << 10);
        let largest = backlog.frame(Bytes::from(vec![0; 1 << 20]));
        assert!(!backlog.is_over());
        let other = backlog.frame(Bytes::from(vec![0; 1 << 20]));
        assert!(backlog.is_over());
        drop((largest, other));
    }

    #[test]
    fn a_frame_counts_once_until_the_last_client_drops_it() {
        let backlog = Backlog::new(1 << 10, 1 << 10);
        let frame = backlog.frame(Bytes::from_static(b"to many"));
        let clients: Vec<_> = (0..100).map(|_| frame.clone()).collect();
        drop(frame);
        assert_eq!(backlog.queued.get(), 7 + FRAME);
        drop(clients);
        assert_eq!(backlog.queued.get(), 0);
    }
}
