//! A queue of lines for a file that may be slow, full, or without a reader.
//!
//! A separate thread writes the lines, so a caller neither waits nor fails. The queue holds at most [`MOST`] bytes, besides
//! those being written. Loses: lines when the queue is full, and lines that cannot be written. It counts them and logs their
//! number when the file accepts lines again.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// The size of the queue in bytes. When it is full, new lines are dropped.
const MOST: usize = 1 << 20;

/// The capacity of the write buffer that is kept between writes, in bytes.
const KEPT: usize = 64 << 10;

/// The pause before the next attempt, if a write fails or the file is full.
const PAUSE: Duration = Duration::from_millis(50);

/// A handle to the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// The thread has work.
    filled: Condvar,
    /// The thread has ended.
    ended: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Dropped lines that the log has not reported yet.
    unreported: u64,
    /// New lines are dropped.
    finished: bool,
    ended: bool,
}

impl Sink {
    /// Starts the thread, with this name.
    ///
    /// # Errors
    /// Fails if the system has no thread left.
    pub(crate) fn start(name: &str, file: impl Write + Send + 'static) -> io::Result<Self> {
        let sink = Self::default();
        let own = sink.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || own.run(file))?;
        Ok(sink)
    }

    /// Queues a line, which must end with a line feed, or drops it.
    pub(crate) fn put(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.finished || waiting.bytes.len() + line.len() > MOST {
            return self.count(&mut waiting, 1);
        }
        let first = waiting.bytes.is_empty();
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        if first {
            self.0.filled.notify_one();
        }
    }

    /// Drops new lines from now on, and waits until the queue is written, but not longer than `within`.
    pub(crate) fn finish(&self, within: Duration) {
        let mut waiting = self.lock();
        waiting.finished = true;
        self.0.filled.notify_one();
        // The caller does the same after a time-out.
        drop(self.0.ended.wait_timeout_while(waiting, within, |waiting| !waiting.ended));
    }

    /// The number of lines dropped so far.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.dropped)
    }

    fn run(self, mut file: impl Write) {
        let mut bytes = Vec::new();
        // Whether the last write succeeded, and whether it ended within a line.
        let (mut ok, mut torn) = (true, false);
        loop {
            let mut waiting = self.lock();
            while waiting.bytes.is_empty() && !waiting.finished && !(ok && waiting.unreported > 0) {
                waiting = self.0.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut bytes, &mut waiting.bytes);
            let unreported = if ok { std::mem::take(&mut waiting.unreported) } else { 0 };
            if bytes.is_empty() && waiting.finished {
                waiting.ended = true;
                return self.0.ended.notify_all();
            }
            drop(waiting);
            if unreported > 0 {
                // The queue is empty now, so it has room for this line.
                tracing::warn!(lines = unreported, "lines of this log were dropped: its reader was slow or missing");
            }
            if torn && !bytes.is_empty() {
                bytes.insert(0, b'\n');
            }
            let written = write(&mut file, &bytes);
            let (done, rest) = bytes.split_at(written);
            ok = rest.is_empty();
            torn = done.last().map_or(torn, |last| *last != b'\n');
            if !ok {
                let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.count(&mut self.lock(), lines);
                thread::sleep(PAUSE);
            }
            bytes.clear();
            bytes.shrink_to(KEPT);
        }
    }

    fn count(&self, waiting: &mut Waiting, lines: u64) {
        waiting.unreported += lines;
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all bytes, unless a write fails, and returns the number of bytes written. Waits while the file would block.
fn write(file: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another program has made our shared pipe or terminal non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    written
}

/// Writes one event, which arrives as a whole line.
pub(crate) struct Line<'a>(&'a Sink);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests;
