//! A connection in memory: two directions, each with a buffer of limited size, like a kernel's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Lane {
    bytes: VecDeque<u8>,
    room: usize,
    /// The writer has closed this direction.
    shut: bool,
    /// The reader is gone.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// One end of the connection. Dropping it closes both directions.
pub(crate) struct End {
    reads: Rc<RefCell<Lane>>,
    writes: Rc<RefCell<Lane>>,
}

/// Creates both ends: the client's and the node's. At most `room` bytes wait on the way to the client.
pub(super) fn pipe(room: usize) -> (End, End) {
    let lane = |room| Rc::new(RefCell::new(Lane { room, ..Lane::default() }));
    let (down, up) = (lane(room), lane(usize::MAX));
    let client = End { reads: Rc::clone(&down), writes: Rc::clone(&up) };
    (client, End { reads: up, writes: down })
}

impl End {
    /// Reads into `buffer` and returns the number of bytes; 0 at the end of the stream.
    pub(crate) fn poll_read(&self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<usize> {
        let mut lane = self.reads.borrow_mut();
        if lane.bytes.is_empty() {
            if lane.shut {
                return Poll::Ready(0);
            }
            lane.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.len().min(lane.bytes.len());
        for (into, byte) in buffer.iter_mut().zip(lane.bytes.drain(..count)) {
            *into = byte;
        }
        lane.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(count)
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut lane = self.writes.borrow_mut();
        if lane.broken || lane.bytes.len() < lane.room {
            return Poll::Ready(());
        }
        lane.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut lane = self.writes.borrow_mut();
        if lane.broken || lane.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(lane.room - lane.bytes.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        lane.bytes.extend(&bytes[..count]);
        lane.reader.take().into_iter().for_each(Waker::wake);
        Ok(count)
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        let mut lane = self.writes.borrow_mut();
        lane.shut = true;
        lane.wake();
        if lane.broken { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) }
    }

    /// Discards the bytes on the way to the other end.
    pub(crate) fn reset(&self) {
        self.writes.borrow_mut().bytes.clear();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut reads = self.reads.borrow_mut();
        reads.broken = true;
        reads.wake();
        drop(reads);
        let mut writes = self.writes.borrow_mut();
        writes.shut = true;
        writes.wake();
    }
}
