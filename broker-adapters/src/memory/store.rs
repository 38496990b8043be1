//! The records of the embedded log, per partition, bounded by number and by bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::broker::{Append, Entry, Standing, Start, Stored};
use crate::connect::Settings;
use crate::stored::position::{Epoch, Offset, Partition};

/// Bytes kept in all, shared evenly by the partitions.
const BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Store {
    partitions: Mutex<Vec<Kept>>,
    changed: Notify,
    settings: Settings,
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

    fn trim(&mut self, records: usize, bytes: usize) {
        while self.records.len() > records || (self.bytes > bytes && self.records.len() > 1) {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.len());
            self.first += 1;
        }
    }
}

impl Store {
    pub(super) fn new(settings: Settings) -> Self {
        let partitions = (0..settings.partitions).map(|_| Kept::new()).collect();
        Self { partitions: Mutex::new(partitions), changed: Notify::new(), settings }
    }

    pub(super) fn append(&self, batch: &[Append]) -> Vec<Stored> {
        let share = BYTES / usize::from(self.settings.partitions.max(1));
        let mut partitions = self.lock();
        let stored = batch.iter().map(|append| {
            let kept = partitions.get_mut(usize::from(append.partition.0))?;
            let at = (kept.epoch, Offset(kept.next()));
            kept.bytes += append.bytes.len();
            kept.records.push_back(append.bytes.clone());
            kept.trim(self.settings.retention, share);
            Some(at)
        });
        let stored = stored.map(|at| Stored { at }).collect();
        drop(partitions);
        self.changed.notify_waiters();
        stored
    }

    pub(super) fn standings(&self, of: &[(Partition, Start)]) -> Vec<Standing> {
        let partitions = self.lock();
        let standing = |&(partition, _): &(Partition, Start)| {
            let kept = partitions.get(usize::from(partition.0))?;
            Some(Standing { partition, epoch: kept.epoch, next: Offset(kept.next()) })
        };
        of.iter().filter_map(standing).collect()
    }

    /// At most `most` records from `from` on, and before `before`.
    pub(super) fn read(&self, partition: Partition, from: Offset, most: usize, before: Option<Offset>) -> Vec<Entry> {
        let partitions = self.lock();
        let Some(kept) = partitions.get(usize::from(partition.0)) else { return Vec::new() };
        let begin = from.0.max(kept.first);
        let end = before.map_or(kept.next(), |before| before.0.min(kept.next())).min(begin.saturating_add(most as u64));
        let entry = |offset: u64| {
            let bytes = kept.records.get(usize::try_from(offset - kept.first).ok()?)?.clone();
            Some(Entry { partition, epoch: Some(kept.epoch), offset: Offset(offset), previous: None, bytes })
        };
        (begin..end).filter_map(entry).collect()
    }

    /// Done when something was appended after the future was enabled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn wipe(&self) {
        self.lock().iter_mut().for_each(|kept| *kept = Kept::new());
    }

    pub(super) fn trim(&self, keep: usize) {
        self.lock().iter_mut().for_each(|kept| kept.trim(keep, usize::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
