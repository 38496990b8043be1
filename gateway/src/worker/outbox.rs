//! The bytes one client has yet to be sent.
//!
//! Pure. Owned by that client's connection; bounded in weight by its owner, who decides what happens when it
//! is full. Frames are shared with all other subscribers, so a broadcast is held once however many wait for
//! it. Loses: whatever was queued when the client is closed.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Slices handed to one vectored write. More would only help clients that are far behind.
pub(crate) const SLICES: usize = 64;

/// An emptied queue keeps room for so many frames.
const KEPT: usize = 8;

/// What a frame takes besides its bytes, about: its place in the queue and its allocation. Without it, a megabyte of
/// the smallest frames would take four.
const FRAME: usize = 64;

/// What is queued for one socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes of the first frame are on the wire already: it must be finished.
    begun: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }

    /// Bytes of memory that what is queued takes, about.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.queue.len() * FRAME
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The only frame, if there is just one: it needs no vectored write.
    pub(crate) fn single(&self) -> Option<&Bytes> {
        self.queue.front().filter(|_| self.queue.len() == 1)
    }

    /// Fills `slices` with what is next; gives how many.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        for (slot, frame) in slices.iter_mut().zip(&self.queue) {
            *slot = IoSlice::new(frame);
            count += 1;
        }
        count
    }

    /// Notes that the first `written` bytes are on the wire.
    pub(crate) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                self.begun |= written > 0;
                front.advance(written);
                return;
            }
            written -= front.len();
            self.begun = false;
            self.queue.pop_front();
        }
        if self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
    }

    /// Drops all that was not begun, to make room for a last frame. Gives the weight dropped.
    pub(crate) fn abandon(&mut self) -> usize {
        let keep = usize::from(self.begun);
        let before = self.weight();
        self.queue.truncate(keep);
        self.bytes = self.queue.iter().map(Bytes::len).sum();
        before - self.weight()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(outbox: &Outbox) -> Vec<u8> {
        outbox.queue.iter().flatten().copied().collect()
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_before_the_last_word() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"));
        outbox.push(Bytes::from_static(b"second"));
        outbox.advance(2);
        assert_eq!(outbox.abandon(), 6 + FRAME);
        outbox.push(Bytes::from_static(b"close"));
        assert_eq!(contents(&outbox), b"rstclose");
        assert_eq!(outbox.weight(), 8 + 2 * FRAME);
    }

    #[test]
    fn frames_not_begun_are_dropped() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"));
        outbox.push(Bytes::from_static(b"second"));
        outbox.advance(5);
        assert_eq!(outbox.single(), Some(&Bytes::from_static(b"second")));
        assert_eq!(outbox.abandon(), 6 + FRAME);
        assert!(outbox.is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..150),
            writes in proptest::collection::vec(1usize..500, 1..400),
        ) {
            let mut outbox = Outbox::default();
            let expected: Vec<u8> = frames.iter().flatten().copied().collect();
            frames.into_iter().for_each(|frame| outbox.push(frame.into()));
            let mut sent = Vec::new();
            for write in writes {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = outbox.slices(&mut slices);
                let next: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let write = write.min(next.len());
                sent.extend_from_slice(&next[..write]);
                outbox.advance(write);
                prop_assert_eq!(outbox.weight(), expected.len() - sent.len() + outbox.queue.len() * FRAME);
            }
            sent.extend(contents(&outbox));
            prop_assert_eq!(sent, expected);
        }
    }
}
