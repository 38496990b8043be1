//! The frames that wait to be written to one client.
//!
//! Pure. Owned by that client's connection, which limits its weight and decides what happens when it is full. Frames
//! are shared with all other subscribers, so a broadcast is held once however many queues it is in. Loses whatever is
//! queued when the client is closed.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::backlog::{FRAME, Frame};

/// The most slices of one vectored write. More would only help clients that are far behind.
pub(crate) const SLICES: usize = 64;

/// The frames queued for one socket. Without a second frame it owns no memory.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    first: Option<Frame>,
    /// The frames after the first. Absent when there are none.
    rest: Option<Box<Rest>>,
    /// Bytes that are still to be written.
    bytes: usize,
    /// Bytes of the first frame that are already written. Such a frame must be finished.
    begun: usize,
}

/// Boxed, so that the many clients that have read everything do not pay for it.
#[derive(Debug, Default)]
struct Rest(VecDeque<Frame>);

impl Outbox {
    pub(crate) fn push(&mut self, frame: Frame) {
        self.bytes += frame.len();
        match self.first {
            None => self.first = Some(frame),
            Some(_) => self.rest.get_or_insert_default().0.push_back(frame),
        }
    }

    /// The number of frames.
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.0.len())
    }

    fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| &rest.0))
    }

    /// The approximate memory of the queued frames, in bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.len() * FRAME
    }

    /// The weight of the frames between the one being written and the newest. Those two do not count against a client:
    /// the size of one message does not tell how fast the client reads.
    pub(crate) fn behind(&self) -> usize {
        match (&self.first, self.rest.as_ref().and_then(|rest| rest.0.back())) {
            (Some(first), Some(newest)) if self.len() > 2 => {
                self.weight() - (first.len() - self.begun) - newest.len() - 2 * FRAME
            }
            _ => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The rest of the only frame, if there is just one: it needs no vectored write.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        self.first.as_ref().filter(|_| self.rest.is_none()).map(|frame| &frame[self.begun..])
    }

    /// Fills `slices` with the next bytes to write. Returns the number of slices used.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        let mut begun = self.begun;
        for (slot, frame) in slices.iter_mut().zip(self.frames()) {
            *slot = IoSlice::new(&frame[std::mem::take(&mut begun)..]);
            count += 1;
        }
        count
    }

    /// Notes that `written` bytes were written. Returns the number of frames that were finished.
    pub(crate) fn advance(&mut self, written: usize) -> usize {
        self.bytes -= written;
        self.begun += written;
        let mut finished = 0;
        while let Some(front) = &self.first {
            if self.begun < front.len() {
                break;
            }
            self.begun -= front.len();
            self.first = self.rest.as_mut().and_then(|rest| rest.0.pop_front());
            finished += 1;
        }
        if self.rest.as_ref().is_some_and(|rest| rest.0.is_empty()) {
            self.rest = None;
        }
        finished
    }

    /// Drops all frames that were not begun, to make room for a last frame. Returns the number of frames dropped.
    pub(crate) fn abandon(&mut self) -> usize {
        let before = self.len();
        self.rest = None;
        self.first.take_if(|_| self.begun == 0);
        self.bytes = self.frames().map(|frame| frame.len()).sum::<usize>() - self.begun;
        before - self.len()
    }

    /// Drops all frames. Returns their number.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(self).len()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::backlog::Backlog;
    use super::*;

    fn contents(outbox: &Outbox) -> Vec<u8> {
        outbox.frames().flat_map(|frame| frame.to_vec()).skip(outbox.begun).collect()
    }

    fn of(frames: &[&'static [u8]]) -> Outbox {
        let (backlog, mut outbox) = (Backlog::new(0, 0), Outbox::default());
        frames.iter().for_each(|frame| outbox.push(backlog.frame(Bytes::from_static(frame))));
        outbox
    }

    #[test]
    fn a_frame_that_was_begun_is_finished_before_the_close_frame() {
        let mut outbox = of(&[b"first", b"second"]);
        assert_eq!(outbox.advance(2), 0);
        assert_eq!(outbox.abandon(), 1);
        outbox.push(Backlog::new(0, 0).frame(Bytes::from_static(b"close")));
        assert_eq!(contents(&outbox), b"rstclose");
        assert_eq!(outbox.weight(), 8 + 2 * FRAME);
    }

    #[test]
    fn frames_that_were_not_begun_are_dropped() {
        let mut outbox = of(&[b"first", b"second"]);
        assert_eq!(outbox.advance(5), 1);
        assert_eq!(outbox.single(), Some(&b"second"[..]));
        assert_eq!(outbox.abandon(), 1);
        assert!(outbox.is_empty());
        assert_eq!(outbox.weight(), 0);
    }

    #[test]
    fn neither_the_frame_being_written_nor_the_newest_counts_against_a_client() {
        static LARGE: [u8; 100_000] = [0; 100_000];
        assert_eq!(of(&[&LARGE]).behind(), 0);
        assert_eq!(of(&[b"ping", &LARGE]).behind(), 0);
        assert_eq!(of(&[&LARGE, b"ping"]).behind(), 0);
        let mut outbox = of(&[&LARGE, b"one", b"three", &LARGE]);
        assert_eq!(outbox.behind(), 3 + 5 + 2 * FRAME);
        outbox.advance(99_999);
        assert_eq!(outbox.behind(), 3 + 5 + 2 * FRAME);
        outbox.advance(2);
        assert_eq!(outbox.behind(), 5 + FRAME);
    }

    proptest! {
        #[test]
        fn every_byte_leaves_once_and_in_order(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..150),
            writes in proptest::collection::vec(1usize..500, 1..400),
        ) {
            let (backlog, mut outbox) = (Backlog::new(0, 0), Outbox::default());
            let expected: Vec<u8> = frames.iter().flatten().copied().collect();
            frames.into_iter().for_each(|frame| outbox.push(backlog.frame(frame.into())));
            let mut sent = Vec::new();
            for write in writes {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = outbox.slices(&mut slices);
                let next: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let write = write.min(next.len());
                sent.extend_from_slice(&next[..write]);
                let before = outbox.len();
                prop_assert_eq!(outbox.advance(write), before - outbox.len());
                prop_assert_eq!(outbox.weight(), expected.len() - sent.len() + outbox.len() * FRAME);
            }
            sent.extend(contents(&outbox));
            prop_assert_eq!(sent, expected);
        }
    }
}
