//! A sink whose file is slow, full or gone.

use std::sync::mpsc::{self, Receiver, SyncSender};

use super::*;

/// Longer than a passing test takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file that asks the test for the result of each write.
struct Controlled {
    writes: SyncSender<Vec<u8>>,
    answers: Receiver<io::Result<usize>>,
}

impl Write for Controlled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
        self.writes.send(bytes.to_vec()).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        self.answers.recv().map_err(gone)?
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The test's end of the file.
struct File {
    writes: Receiver<Vec<u8>>,
    answers: SyncSender<io::Result<usize>>,
}

impl File {
    fn open() -> (Sink, Self) {
        let (writes, written) = mpsc::sync_channel(0);
        let (answer, answers) = mpsc::sync_channel(0);
        let sink = Sink::start("log", Controlled { writes, answers }).expect("a thread");
        (sink, Self { writes: written, answers: answer })
    }

    /// Waits for the sink's next write, which blocks until [`File::answer`].
    fn pending_write(&self) -> String {
        let bytes = self.writes.recv_timeout(PATIENCE).expect("a write");
        String::from_utf8(bytes).expect("text")
    }

    fn answer(&self, result: io::Result<usize>) {
        self.answers.send(result).expect("the sink waits");
    }

    /// Waits for the sink's next write and accepts it.
    fn accept_write(&self) -> String {
        let text = self.pending_write();
        self.answer(Ok(text.len()));
        text
    }
}

fn dropped(sink: &Sink) -> u64 {
    sink.dropped().load(Ordering::Relaxed)
}

#[test]
fn lines_keep_their_order_and_waiting_lines_share_a_write() {
    let (sink, file) = File::open();
    sink.put(b"one\n");
    assert_eq!(file.pending_write(), "one\n");
    sink.put(b"two\n");
    sink.put(b"three\n");
    file.answer(Ok(4));
    assert_eq!(file.accept_write(), "two\nthree\n");
    assert_eq!(dropped(&sink), 0);
}

#[test]
fn a_blocked_file_loses_only_the_lines_beyond_the_queue_and_blocks_no_caller() {
    let (sink, file) = File::open();
    sink.put(b"first\n");
    file.pending_write();
    let line = [b'x'; 1024];
    for _ in 0..MOST / line.len() + 10 {
        sink.put(&line);
    }
    assert_eq!(dropped(&sink), 10);
    sink.finish(Duration::from_millis(10));
    sink.put(b"late\n");
    assert_eq!(dropped(&sink), 11);
    file.answer(Ok(6));
    assert_eq!(file.accept_write().len(), MOST, "queued lines are written when the file accepts bytes again");
    sink.finish(PATIENCE);
    assert!(file.writes.recv().is_err(), "the thread has ended");
}

#[test]
fn a_line_that_cannot_be_written_is_counted_and_the_next_one_is_written() {
    let (sink, file) = File::open();
    for error in [ErrorKind::BrokenPipe, ErrorKind::StorageFull, ErrorKind::Other] {
        let before = dropped(&sink);
        sink.put(b"lost\n");
        assert_eq!(file.pending_write(), "lost\n");
        file.answer(Err(error.into()));
        sink.put(b"written\n");
        assert_eq!(file.accept_write(), "written\n");
        assert_eq!(dropped(&sink), before + 1, "{error}");
    }
}

#[test]
fn a_line_is_never_appended_to_half_of_another_line() {
    let (sink, file) = File::open();
    sink.put(b"half\n");
    assert_eq!(file.pending_write(), "half\n");
    file.answer(Ok(2));
    assert_eq!(file.pending_write(), "lf\n");
    file.answer(Err(ErrorKind::StorageFull.into()));
    sink.put(b"next\n");
    assert_eq!(file.accept_write(), "\nnext\n");
    sink.put(b"whole\n");
    assert_eq!(file.accept_write(), "whole\n");
    assert_eq!(dropped(&sink), 1);
}

#[test]
fn a_file_that_would_block_loses_no_line() {
    let (sink, file) = File::open();
    sink.put(b"again\n");
    for busy in [ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::WouldBlock] {
        assert_eq!(file.pending_write(), "again\n");
        file.answer(Err(busy.into()));
    }
    assert_eq!(file.accept_write(), "again\n");
    assert_eq!(dropped(&sink), 0);
}

#[test]
fn finish_waits_for_the_last_lines() {
    let (sink, file) = File::open();
    sink.put(b"last\n");
    let reader = thread::spawn(move || file.accept_write());
    sink.finish(PATIENCE);
    assert!(sink.lock().ended);
    assert_eq!(reader.join().expect("it was written"), "last\n");
}
