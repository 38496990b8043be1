//! What was said lately, so that clients who come back hear what they missed.
//!
//! Shared by the relay, which fills it, and the workers, which ask it; one lock per partition, never held across a wait.
//! All partitions share one budget of bytes: the oldest record of all goes first, so each partition has what it needs. A
//! reconnect storm is answered from here; only records older than the window are asked of the broker, once for all.

mod archive;
mod page;
mod ring;
mod shelf;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_adapters::{LinkError, Log, Offset, Partition, Position};

use self::archive::{Archive, Extent};
pub(crate) use self::page::Page;
use self::ring::Ring;
pub(crate) use self::ring::{OVERHEAD, Owed, Recent};

/// Records that go at a time when there are too many.
const EVICTED: usize = 16;

/// The part of the budget that records read back may take: a quarter.
const ARCHIVE: usize = 4;

/// What stands for the age of a partition that has nothing to give up.
const NEVER: u64 = u64::MAX;

/// The recent records of all partitions.
#[derive(Debug)]
pub(crate) struct Window {
    partitions: Box<[Kept]>,
    archive: Arc<Archive>,
    /// The most bytes of all partitions, and what they take.
    most: usize,
    taken: AtomicUsize,
    /// Milliseconds since 1970.
    clock: fn() -> u64,
}

#[derive(Debug)]
struct Kept {
    ring: Mutex<Ring>,
    /// The time of the oldest record that may go.
    oldest: AtomicU64,
}

impl Window {
    /// Keeps records for `age` by `clock`, in at most `bytes` for all partitions together.
    pub(crate) fn new(partitions: u16, age: Duration, bytes: usize, clock: fn() -> u64) -> Self {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let kept = || Kept { ring: Mutex::new(Ring::new(age)), oldest: AtomicU64::new(NEVER) };
        let archive = Arc::new(Archive::new(partitions, bytes / ARCHIVE, clock));
        let taken = AtomicUsize::new(0);
        Self { partitions: (0..partitions).map(|_| kept()).collect(), archive, most: bytes, taken, clock }
    }

    /// Takes the next records of a partition.
    pub(crate) fn append(&self, partition: Partition, recent: &[Recent]) {
        let now = (self.clock)();
        self.change(partition, |ring| recent.iter().for_each(|recent| ring.append(recent.clone(), now)));
        self.archive.expire(partition);
        // One page may be larger than its part of a small budget: the recent records keep theirs.
        let most = self.most - self.archive.bytes().min(self.most / ARCHIVE);
        while self.taken.load(Ordering::Relaxed) > most {
            let oldest = self.partitions.iter().map(|kept| kept.oldest.load(Ordering::Relaxed));
            let Some((index, _)) = (0..).zip(oldest).filter(|(_, time)| *time != NEVER).min_by_key(|(_, time)| *time)
            else {
                return;
            };
            self.change(Partition(index), |ring| {
                for _ in 0..EVICTED {
                    if ring.oldest().is_some() {
                        ring.evict();
                    }
                }
            });
        }
    }

    /// What follows in this partition is not known to follow what is kept.
    pub(crate) fn clear(&self, partition: Partition) {
        self.change(partition, Ring::clear);
        self.archive.clear(partition);
    }

    /// How often the log of a partition has broken off.
    pub(crate) fn breaks(&self, partition: Partition) -> u64 {
        self.ring(partition).breaks()
    }

    /// The messages of a channel after `since` and up to `until`, about `room` bytes of them but at least one, for a worker
    /// that has seen so many breaks. Older ones come from `page`, or from what was read back lately.
    pub(crate) fn owed(
        &self,
        channel: &str,
        (since, until): (Position, Position),
        breaks: u64,
        room: usize,
        page: Option<&Page>,
    ) -> Owed {
        let ring = self.ring(since.partition);
        match ring.owed(channel, since, until, breaks, room) {
            Owed::Older => {}
            owed => return owed,
        }
        let repeated = |at| ring.is_repeated(at);
        if let Some(page) = page.filter(|page| page.serves(channel, since.offset)) {
            return page.owed(channel, since, until, room, repeated);
        }
        match self.archive.find(channel, since) {
            Some(page) => page.owed(channel, since, until, room, repeated),
            None if self.archive.holds(since) == Some(false) => Owed::Unknown,
            None => Owed::Older,
        }
    }

    /// Whether this very record is known to stand in the log.
    pub(crate) fn holds(&self, position: Position) -> bool {
        let ring = self.ring(position.partition);
        let older = || ring.reaches(position.offset).then(|| self.archive.holds(position)).flatten();
        ring.holds(position).or_else(older) == Some(true)
    }

    /// Reads back from the broker what follows on a channel after a position; `None` if the log does not hold it any more.
    pub(crate) async fn page(
        &self,
        log: &Arc<Log>,
        channel: &str,
        since: Position,
    ) -> Result<Option<Arc<Page>>, LinkError> {
        let extent = || {
            let ring = self.ring(since.partition);
            Some(Extent { newest: ring.newest()?, average: ring.average() })
        };
        self.archive.page(log, channel, since, extent).await
    }

    /// The offset of the broker's last record.
    pub(crate) async fn head(&self, log: &Log, partition: Partition) -> Result<Offset, LinkError> {
        self.archive.head(log, partition).await
    }

    fn change(&self, partition: Partition, change: impl FnOnce(&mut Ring)) {
        let kept = &self.partitions[usize::from(partition.0)];
        let mut ring = kept.lock();
        let before = ring.bytes();
        change(&mut ring);
        kept.oldest.store(ring.oldest().unwrap_or(NEVER), Ordering::Relaxed);
        // Wraps where it shrinks.
        self.taken.fetch_add(ring.bytes().wrapping_sub(before), Ordering::Relaxed);
    }

    fn ring(&self, partition: Partition) -> MutexGuard<'_, Ring> {
        // Partitions come from the log, which has as many.
        self.partitions[usize::from(partition.0)].lock()
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    pub(crate) use super::ring::tests::{PARTITION, at};
    use super::ring::tests::{recent, seen};
    use super::*;

    /// A log, the window that has lost its beginning, and what was read back of that.
    pub(crate) struct Past {
        log: Vec<Option<u8>>,
        ring: Ring,
        page: Option<Page>,
    }

    impl Past {
        pub(crate) fn of(log: &[Option<u8>]) -> Self {
            let mut ring = Ring::new(u64::MAX);
            (1..).zip(log).for_each(|(offset, channel)| ring.append(recent(offset, *channel), u64::MAX));
            Self { log: log.to_vec(), ring, page: None }
        }

        pub(crate) fn evict(&mut self, count: usize) {
            for _ in 0..count {
                if self.ring.oldest().is_some() {
                    self.ring.evict();
                }
            }
        }

        pub(crate) fn read(&mut self, channel: &str, since: Position, count: usize) {
            let log = (1u64..).zip(&self.log).skip_while(|(offset, _)| *offset < since.offset.0).take(count + 1);
            let seen = log.map(|(offset, channel)| seen(offset, *channel)).collect();
            self.page = Page::new(PARTITION, seen, std::iter::once(channel));
        }

        pub(crate) fn owed(&self, channel: &str, since: Position, until: Position, room: usize) -> Owed {
            match (self.ring.owed(channel, since, until, 0, room), &self.page) {
                (Owed::Older, Some(page)) => page.owed(channel, since, until, room, |_| false),
                (owed, _) => owed,
            }
        }
    }

    #[test]
    fn the_budget_is_shared_by_need_and_the_oldest_record_of_all_goes_first() {
        let window = Window::new(4, Duration::MAX, 100 * (OVERHEAD + 4), || 1_000_000);
        let say = |partition, times: std::ops::Range<u64>| {
            let records: Vec<_> = times.map(|time| recent(time, Some(0))).collect();
            window.append(Partition(partition), &records);
        };
        let kept = |partition| {
            let ring = window.ring(Partition(partition));
            (ring.oldest(), ring.bytes() / (OVERHEAD + 4))
        };
        say(0, 1..11);
        say(1, 11..95);
        assert_eq!(
            (kept(0), kept(1)),
            ((Some(1), 10), (Some(11), 84)),
            "one busy partition takes what the others leave"
        );
        say(2, 95..110);
        assert_eq!(kept(0).1, 1, "the oldest went, but not the newest of its partition");
        assert_eq!(kept(2), (Some(95), 15));
        assert!(window.taken.load(Ordering::Relaxed) <= window.most);
        window.clear(Partition(1));
        assert_eq!(kept(1), (None, 0));
        assert_eq!(window.taken.load(Ordering::Relaxed), 16 * (OVERHEAD + 4));
    }
}
