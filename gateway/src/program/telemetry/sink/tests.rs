//! A sink's file that is slow, full, or gone.

use std::sync::mpsc::{self, Receiver, SyncSender};

use super::*;

/// Longer than any test takes that does not fail.
const PATIENCE: Duration = Duration::from_secs(20);

/// A file that asks the test what becomes of each write.
struct Asked {
    writes: SyncSender<Vec<u8>>,
    answers: Receiver<io::Result<usize>>,
}

impl Write for Asked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(ErrorKind::BrokenPipe);
        self.writes.send(bytes.to_vec()).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        self.answers.recv().map_err(gone)?
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The test's end of it.
struct File {
    writes: Receiver<Vec<u8>>,
    answers: SyncSender<io::Result<usize>>,
}

impl File {
    fn open() -> (Sink, Self) {
        let (writes, written) = mpsc::sync_channel(0);
        let (answer, answers) = mpsc::sync_channel(0);
        let sink = Sink::start("log", Asked { writes, answers }).expect("a thread");
        (sink, Self { writes: written, answers: answer })
    }

    /// What the sink wants to write now, and has to wait for.
    fn asked(&self) -> String {
        let bytes = self.writes.recv_timeout(PATIENCE).expect("a write");
        String::from_utf8(bytes).expect("text")
    }

    fn answer(&self, result: io::Result<usize>) {
        self.answers.send(result).expect("the sink waits");
    }

    /// Takes what the sink writes.
    fn takes(&self) -> String {
        let text = self.asked();
        self.answer(Ok(text.len()));
        text
    }
}

fn dropped(sink: &Sink) -> u64 {
    sink.dropped().load(Ordering::Relaxed)
}

#[test]
fn lines_come_in_their_order_and_those_that_wait_together_in_one_write() {
    let (sink, file) = File::open();
    sink.put(b"one\n");
    assert_eq!(file.asked(), "one\n");
    sink.put(b"two\n");
    sink.put(b"three\n");
    file.answer(Ok(4));
    assert_eq!(file.takes(), "two\nthree\n");
    assert_eq!(dropped(&sink), 0);
}

#[test]
fn a_file_that_takes_nothing_costs_the_lines_that_find_no_room_and_nobody_waits() {
    let (sink, file) = File::open();
    sink.put(b"first\n");
    file.asked();
    let line = [b'x'; 1024];
    for _ in 0..MOST / line.len() + 10 {
        sink.put(&line);
    }
    assert_eq!(dropped(&sink), 10);
    sink.finish(Duration::from_millis(10));
    sink.put(b"late\n");
    assert_eq!(dropped(&sink), 11);
    file.answer(Ok(6));
    assert_eq!(file.takes().len(), MOST, "what was taken is written when there is room again");
    sink.finish(PATIENCE);
    assert!(file.writes.recv().is_err(), "and that is the end");
}

#[test]
fn a_line_that_cannot_be_written_is_counted_and_the_next_one_is_tried() {
    let (sink, file) = File::open();
    for error in [ErrorKind::BrokenPipe, ErrorKind::StorageFull, ErrorKind::Other] {
        let before = dropped(&sink);
        sink.put(b"lost\n");
        assert_eq!(file.asked(), "lost\n");
        file.answer(Err(error.into()));
        sink.put(b"written\n");
        assert_eq!(file.takes(), "written\n");
        assert_eq!(dropped(&sink), before + 1, "{error}");
    }
}

#[test]
fn a_line_is_never_glued_to_half_of_another() {
    let (sink, file) = File::open();
    sink.put(b"half\n");
    assert_eq!(file.asked(), "half\n");
    file.answer(Ok(2));
    assert_eq!(file.asked(), "lf\n");
    file.answer(Err(ErrorKind::StorageFull.into()));
    sink.put(b"next\n");
    assert_eq!(file.takes(), "\nnext\n");
    sink.put(b"whole\n");
    assert_eq!(file.takes(), "whole\n");
    assert_eq!(dropped(&sink), 1);
}

#[test]
fn a_file_that_is_full_for_now_loses_nothing() {
    let (sink, file) = File::open();
    sink.put(b"again\n");
    for busy in [ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::WouldBlock] {
        assert_eq!(file.asked(), "again\n");
        file.answer(Err(busy.into()));
    }
    assert_eq!(file.takes(), "again\n");
    assert_eq!(dropped(&sink), 0);
}

#[test]
fn the_end_waits_for_the_last_lines() {
    let (sink, file) = File::open();
    sink.put(b"last\n");
    let reader = thread::spawn(move || file.takes());
    sink.finish(PATIENCE);
    assert!(sink.lock().ended);
    assert_eq!(reader.join().expect("it was written"), "last\n");
}
