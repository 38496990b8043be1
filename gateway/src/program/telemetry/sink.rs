//! Lines on their way to a file that may be slow, full, or without a reader.
//!
//! Written by a thread of its own, so that a caller neither waits nor fails. Holds at most [`MOST`] bytes beside those
//! being written. Loses: lines that find no room and lines that cannot be written. Counts them, and logs their number
//! once the file takes lines again.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait; when full, further lines are dropped.
const MOST: usize = 1 << 20;

/// Memory that is kept for the next lines.
const KEPT: usize = 64 << 10;

/// Time between two tries at a file that takes nothing.
const PAUSE: Duration = Duration::from_millis(50);

/// The way to the file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to do for the thread.
    filled: Condvar,
    /// The thread has ended.
    ended: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines dropped since the log last said so.
    unsaid: u64,
    /// Nothing more is taken.
    finished: bool,
    ended: bool,
}

impl Sink {
    /// Starts the thread, which has this name.
    pub(crate) fn start(name: &str, file: impl Write + Send + 'static) -> io::Result<Self> {
        let sink = Self::default();
        let own = sink.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || own.run(file))?;
        Ok(sink)
    }

    /// Takes a line with its end, or drops it.
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

    /// Takes nothing more, and waits until all is written, for so long at most.
    pub(crate) fn finish(&self, within: Duration) {
        let mut waiting = self.lock();
        waiting.finished = true;
        self.0.filled.notify_one();
        // Whether there was time for all makes no difference to the caller.
        drop(self.0.ended.wait_timeout_while(waiting, within, |waiting| !waiting.ended));
    }

    /// The lines dropped so far.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.dropped)
    }

    fn run(self, mut file: impl Write) {
        let mut bytes = Vec::new();
        // Whether the last write went well, and whether it ended within a line.
        let (mut well, mut torn) = (true, false);
        loop {
            let mut waiting = self.lock();
            while waiting.bytes.is_empty() && !waiting.finished && !(well && waiting.unsaid > 0) {
                waiting = self.0.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut bytes, &mut waiting.bytes);
            let unsaid = if well { std::mem::take(&mut waiting.unsaid) } else { 0 };
            if bytes.is_empty() && waiting.finished {
                waiting.ended = true;
                return self.0.ended.notify_all();
            }
            drop(waiting);
            if unsaid > 0 {
                // Now, while there is room for it.
                tracing::warn!(lines = unsaid, "lines of this log were dropped: its reader was slow or away");
            }
            if torn && !bytes.is_empty() {
                bytes.insert(0, b'\n');
            }
            let written = write(&mut file, &bytes);
            let (done, rest) = bytes.split_at(written);
            well = rest.is_empty();
            torn = done.last().map_or(torn, |last| *last != b'\n');
            if !well {
                let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.count(&mut self.lock(), lines);
                thread::sleep(PAUSE);
            }
            bytes.clear();
            bytes.shrink_to(KEPT);
        }
    }

    fn count(&self, waiting: &mut Waiting, lines: u64) {
        waiting.unsaid += lines;
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all, unless that fails; gives the number of bytes written. Waits for a file that is full for now.
fn write(file: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another program has made the pipe or terminal that we share with it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    written
}

/// One event, which comes as a whole line.
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
