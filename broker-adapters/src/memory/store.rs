//! The records of the embedded log, per partition, bounded by number and by bytes. While the records of a full partition are
//! unread, it takes no more: what this process has not read yet is never trimmed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use slab::Slab;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::broker::{Append, Entry, Standing, Start, Stored};
use crate::connect::Settings;
use crate::stored::position::{Epoch, Offset, Partition};

/// Bytes kept in all, shared evenly by the partitions.
const BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    changed: Notify,
    /// Held by the append that comes next, so that those that wait keep their order.
    turn: tokio::sync::Mutex<()>,
    /// Notified when a reader has read or is gone.
    read: Notify,
    settings: Settings,
}

#[derive(Debug)]
struct State {
    partitions: Vec<Kept>,
    /// For each reader the offset to read next, per partition.
    readers: Slab<Vec<(Partition, Offset)>>,
}

impl State {
    /// The first offset of a partition that a reader has not read yet.
    fn unread(&self, partition: Partition) -> u64 {
        let all = self.readers.iter().flat_map(|(_, next)| next);
        all.filter(|next| next.0 == partition).map(|next| next.1.0).min().unwrap_or(u64::MAX)
    }
}

/// One partition.
#[derive(Debug)]
struct Kept {
    epoch: Epoch,
    /// The offset of the front of `records`.
    first: u64,
    records: VecDeque<Bytes>,
    bytes: usize,
}

impl Kept {
    fn new() -> Self {
        Self { epoch: Epoch(fastrand::u64(1..)), first: 1, records: VecDeque::new(), bytes: 0 }
    }

    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// At most `most` records from `from` on, and before `before`.
    fn read(&self, partition: Partition, from: Offset, most: usize, before: Option<Offset>) -> Vec<Entry> {
        let begin = from.0.max(self.first);
        let end = before.map_or(self.next(), |before| before.0.min(self.next())).min(begin.saturating_add(most as u64));
        let entry = |offset: u64| {
            let bytes = self.records.get(usize::try_from(offset - self.first).ok()?)?.clone();
            Some(Entry { partition, epoch: Some(self.epoch), offset: Offset(offset), previous: None, bytes })
        };
        (begin..end).filter_map(entry).collect()
    }

    /// Forgets records above these bounds, the oldest first, up to `unread`. Returns whether it is within the bounds then.
    fn trim(&mut self, records: usize, bytes: usize, unread: u64) -> bool {
        while self.records.len() > records || (self.bytes > bytes && self.records.len() > 1) {
            if self.first >= unread {
                return false;
            }
            self.bytes -= self.records.pop_front().map_or(0, |record| record.len());
            self.first += 1;
        }
        true
    }
}

impl Store {
    pub(super) fn new(settings: Settings) -> Self {
        let partitions = (0..settings.partitions).map(|_| Kept::new()).collect();
        let state = State { partitions, readers: Slab::new() };
        Self {
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            read: Notify::new(),
            settings,
        }
    }

    /// Appends a batch, as soon as each of its partitions has room. Cancel safe.
    pub(super) async fn append(&self, batch: &[Append]) -> Vec<Stored> {
        let _turn = self.turn.lock().await;
        loop {
            let read = self.read.notified();
            tokio::pin!(read);
            read.as_mut().enable();
            if let Some(stored) = self.append_now(batch) {
                return stored;
            }
            read.await;
        }
    }

    /// Appends a batch; `None` if a partition is full of records that are not read yet. A batch may exceed the bounds.
    fn append_now(&self, batch: &[Append]) -> Option<Vec<Stored>> {
        let mut state = self.lock();
        if !batch.iter().all(|append| self.trim_read(&mut state, append.partition)) {
            return None;
        }
        let stored = batch.iter().map(|append| {
            let kept = state.partitions.get_mut(usize::from(append.partition.0))?;
            let at = (kept.epoch, Offset(kept.next()));
            kept.bytes += append.bytes.len();
            kept.records.push_back(append.bytes.clone());
            self.trim_read(&mut state, append.partition);
            Some(at)
        });
        let stored = stored.map(|at| Stored { at }).collect();
        drop(state);
        self.changed.notify_waiters();
        Some(stored)
    }

    /// Brings a partition within its bounds, as far as its records are read. Returns whether it is.
    fn trim_read(&self, state: &mut State, partition: Partition) -> bool {
        let share = BYTES / usize::from(self.settings.partitions.max(1));
        let unread = state.unread(partition);
        let kept = state.partitions.get_mut(usize::from(partition.0));
        kept.is_none_or(|kept| kept.trim(self.settings.retention, share, unread))
    }

    pub(super) fn standings(&self, of: &[(Partition, Start)]) -> Vec<Standing> {
        let partitions = &self.lock().partitions;
        let standing = |&(partition, _): &(Partition, Start)| {
            let kept = partitions.get(usize::from(partition.0))?;
            Some(Standing { partition, epoch: kept.epoch, next: Offset(kept.next()) })
        };
        of.iter().filter_map(standing).collect()
    }

    /// At most `most` records from `from` on, and before `before`.
    pub(super) fn read(&self, partition: Partition, from: Offset, most: usize, before: Option<Offset>) -> Vec<Entry> {
        let state = self.lock();
        let kept = state.partitions.get(usize::from(partition.0));
        kept.map_or_else(Vec::new, |kept| kept.read(partition, from, most, before))
    }

    /// Adds a reader that begins at these offsets.
    pub(super) fn add_reader(&self, next: Vec<(Partition, Offset)>) -> usize {
        self.lock().readers.insert(next)
    }

    pub(super) fn remove_reader(&self, reader: usize) {
        self.lock().readers.try_remove(reader);
        self.read.notify_waiters();
    }

    /// What a reader has not read yet, of each partition at most `most` records.
    pub(super) fn read_on(&self, reader: usize, most: usize) -> Vec<Entry> {
        let mut state = self.lock();
        let State { partitions, readers } = &mut *state;
        let mut entries = Vec::new();
        for (partition, offset) in readers.get_mut(reader).into_iter().flatten() {
            let Some(kept) = partitions.get(usize::from(partition.0)) else { continue };
            entries.extend(kept.read(*partition, *offset, most, None));
            *offset =
                entries.last().filter(|last| last.partition == *partition).map_or(*offset, |last| last.offset.next());
        }
        drop(state);
        if !entries.is_empty() {
            self.read.notify_waiters();
        }
        entries
    }

    /// Done when something was appended after the future was enabled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn wipe(&self) {
        self.lock().partitions.iter_mut().for_each(|kept| *kept = Kept::new());
        self.read.notify_waiters();
    }

    pub(super) fn trim(&self, keep: usize) {
        for kept in &mut self.lock().partitions {
            kept.trim(keep, usize::MAX, u64::MAX);
        }
        self.read.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const PARTITION: Partition = Partition(0);

    fn batch(text: &'static str) -> [Append; 1] {
        [Append { partition: PARTITION, bytes: Bytes::from_static(text.as_bytes()) }]
    }

    fn texts(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| std::str::from_utf8(&entry.bytes).expect("a text")).collect()
    }

    #[tokio::test]
    async fn what_is_not_read_is_never_trimmed_and_later_records_wait_in_their_order() {
        let store = Store::new(Settings { partitions: 1, retention: 2 });
        let [quick, slow] = [(); 2].map(|()| store.add_reader(vec![(PARTITION, Offset(1))]));
        for text in ["a", "b", "c"] {
            assert!(store.append(&batch(text)).now_or_never().is_some(), "{text}: one more than the bound");
        }
        let (four, five) = (batch("d"), batch("e"));
        let (mut four, mut five) = (Box::pin(store.append(&four)), Box::pin(store.append(&five)));
        assert!(four.as_mut().now_or_never().is_none(), "all are unread");
        assert_eq!(texts(&store.read_on(quick, 10)), ["a", "b", "c"]);
        assert!(four.as_mut().now_or_never().is_none() && five.as_mut().now_or_never().is_none(), "one reader is left");
        assert_eq!(texts(&store.read_on(slow, 1)), ["a"]);
        assert!(five.as_mut().now_or_never().is_none(), "it is not its turn");
        assert!(four.as_mut().now_or_never().is_some(), "there is room for one");
        assert!(five.as_mut().now_or_never().is_none(), "it waits for room");
        store.remove_reader(slow);
        assert!(five.as_mut().now_or_never().is_some(), "no other reader is left");
        assert_eq!(texts(&store.read_on(quick, 10)), ["d", "e"]);
    }

    #[tokio::test]
    async fn without_readers_the_oldest_records_go() {
        let store = Store::new(Settings { partitions: 1, retention: 2 });
        for text in ["a", "b", "c", "d"] {
            store.append(&batch(text)).await;
        }
        assert_eq!(texts(&store.read(PARTITION, Offset(1), 10, None)), ["c", "d"]);
    }
}
