//! The recent messages, so that clients that reconnect receive what they missed.
//!
//! The relay fills it and the workers read it. It has one lock per partition, never held across a wait. All partitions share
//! one budget of bytes, and the oldest record of all is evicted first, so a busy partition can use what others leave. A
//! reconnect storm is answered from memory. Only older records are read back from the broker, once for all clients.

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
pub(crate) use self::ring::{Edge, OVERHEAD, Owed, Preceding, Recent, Rest};
pub(crate) use self::shelf::Toward;

/// Records to evict at a time when the budget is exceeded.
const EVICTED: usize = 16;

/// The archive of older records may use one part in this many of the budget: a quarter.
const ARCHIVE: usize = 4;

/// The oldest time of a partition without a record to evict.
const NEVER: u64 = u64::MAX;

/// The recent records of all partitions.
#[derive(Debug)]
pub(crate) struct Window {
    partitions: Box<[Kept]>,
    archive: Arc<Archive>,
    /// The budget for all partitions, and the bytes in use.
    most: usize,
    taken: AtomicUsize,
    /// Milliseconds since 1970.
    clock: fn() -> u64,
}

#[derive(Debug)]
struct Kept {
    ring: Mutex<Ring>,
    /// The time of the oldest record that may be evicted.
    oldest: AtomicU64,
}

impl Window {
    /// Creates an empty window. It keeps records up to `age`, in at most `bytes` for all partitions together. `clock` gives
    /// milliseconds since 1970.
    pub(crate) fn new(partitions: u16, age: Duration, bytes: usize, clock: fn() -> u64) -> Self {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let kept = || Kept { ring: Mutex::new(Ring::new(age)), oldest: AtomicU64::new(NEVER) };
        let archive = Arc::new(Archive::new(partitions, bytes / ARCHIVE, clock));
        let taken = AtomicUsize::new(0);
        Self { partitions: (0..partitions).map(|_| kept()).collect(), archive, most: bytes, taken, clock }
    }

    /// Adds the next records of a partition.
    pub(crate) fn append(&self, partition: Partition, recent: &[Recent]) {
        let now = (self.clock)();
        self.change(partition, |ring| recent.iter().for_each(|recent| ring.append(recent.clone(), now)));
        self.archive.expire(partition);
        // With a small budget, one page may exceed the archive's quarter. Recent records keep three quarters in any case.
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

    /// Forgets a partition's records: the next record may not follow them.
    pub(crate) fn clear(&self, partition: Partition) {
        self.change(partition, Ring::clear);
        self.archive.clear(partition);
    }

    /// The number of breaks in the log of a partition so far.
    pub(crate) fn breaks(&self, partition: Partition) -> u64 {
        self.ring(partition).breaks()
    }

    /// The messages of a channel after `since` and up to `until`: about `room` bytes, but at least one message. `breaks` is
    /// the number of breaks that the worker has seen. Older messages come from `page` or from the archive.
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
        match self.archive.find(channel, since, Toward::Later) {
            Some(page) => page.owed(channel, since, until, room, repeated),
            None if self.archive.holds(since) == Some(false) => Owed::Unknown,
            None => Owed::Older,
        }
    }

    /// The last messages of a channel before an edge: at most `most`, and about `room` bytes, but at least one. `breaks` is the
    /// number of breaks that the worker has seen. Older messages come from `page` or from the archive.
    pub(crate) fn preceding(
        &self,
        channel: &str,
        edge: Edge,
        breaks: u64,
        (most, room): (usize, usize),
        page: Option<&Page>,
    ) -> Preceding {
        let ring = self.ring(edge.at.partition);
        match ring.preceding(channel, edge, breaks, (most, room)) {
            Preceding::Older => {}
            preceding => return preceding,
        }
        let (floor, repeated) = (ring.floor(), |at| ring.is_repeated(at));
        if let Some(page) = page.filter(|page| page.serves_before(channel, edge.at.offset)) {
            return page.preceding(channel, edge, (most, room), floor, repeated);
        }
        match self.archive.find(channel, edge.at, Toward::Earlier) {
            Some(page) => page.preceding(channel, edge, (most, room), floor, repeated),
            None if self.archive.holds(edge.at) == Some(false) => Preceding::Unknown,
            None => Preceding::Older,
        }
    }

    /// Whether the log is known to hold this very record.
    pub(crate) fn holds(&self, position: Position) -> bool {
        let ring = self.ring(position.partition);
        let older = || ring.reaches(position.offset).then(|| self.archive.holds(position)).flatten();
        ring.holds(position).or_else(older) == Some(true)
    }

    /// The last record of a partition that this node has read, and the number of breaks before it; `None` if there is none.
    pub(crate) fn end(&self, partition: Partition) -> Option<(Position, u64)> {
        let ring = self.ring(partition);
        let (offset, check) = ring.end()?;
        Some((Position { partition, offset, check }, ring.breaks()))
    }

    /// Reads the messages of a channel beside a position back from the broker; `None` if the log no longer holds that record.
    ///
    /// # Errors
    /// Fails if the broker cannot be read.
    pub(crate) async fn page(
        &self,
        log: &Arc<Log>,
        channel: &str,
        at: Position,
        toward: Toward,
    ) -> Result<Option<Arc<Page>>, LinkError> {
        let extent = || {
            let ring = self.ring(at.partition);
            Some(Extent { newest: ring.newest()?, average: ring.average() })
        };
        self.archive.page(log, channel, (at, toward), extent).await
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
        // Wrapping arithmetic: the difference is negative if the ring shrank.
        self.taken.fetch_add(ring.bytes().wrapping_sub(before), Ordering::Relaxed);
    }

    fn ring(&self, partition: Partition) -> MutexGuard<'_, Ring> {
        // Cannot be out of range: partitions come from the log, which has the same number.
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
    use std::collections::BTreeSet;

    use broker_adapters::Seen;

    pub(crate) use super::ring::tests::{PARTITION, at};
    use super::ring::tests::{recent, seen};
    use super::*;

    /// A log, a ring that has evicted its beginning, and a page that was read back from there.
    pub(crate) struct Past {
        log: Vec<Option<u8>>,
        ring: Ring,
        page: Option<Page>,
        /// The log no longer has the records up to this offset.
        trimmed: u64,
        /// Offsets of records that repeat an earlier message.
        repeated: BTreeSet<u64>,
    }

    impl Past {
        pub(crate) fn of(log: &[Option<u8>]) -> Self {
            let mut ring = Ring::new(u64::MAX);
            (1..).zip(log).for_each(|(offset, channel)| ring.append(recent(offset, *channel), u64::MAX));
            Self { log: log.to_vec(), ring, page: None, trimmed: 0, repeated: BTreeSet::new() }
        }

        /// As [`Past::of`], with repeated messages, and with a break before an offset.
        pub(crate) fn with(log: &[Option<u8>], repeated: BTreeSet<u64>, broken: Option<u64>) -> Self {
            let mut past = Self { log: log.to_vec(), repeated, ..Self::of(&[]) };
            for (offset, channel) in (1..).zip(log) {
                if broken == Some(offset) {
                    past.ring.clear();
                }
                let again = channel.is_some() && past.repeated.contains(&offset);
                let record = Seen { repeated: again, ..seen(offset, channel.filter(|_| !again)) };
                past.ring.append(Recent::from(record), u64::MAX);
            }
            past
        }

        pub(crate) fn trim(&mut self, to: u64) {
            self.trimmed = self.trimmed.max(to.min(self.log.len() as u64));
        }

        pub(crate) fn is_trimmed(&self) -> bool {
            self.trimmed > 0
        }

        /// Messages of a channel that were delivered and that the log still has, after an offset.
        pub(crate) fn held(&self, channel: u8, after: u64) -> Vec<u64> {
            let held = (1..).zip(&self.log).filter(|(offset, on)| {
                **on == Some(channel) && *offset > after.max(self.trimmed) && !self.repeated.contains(offset)
            });
            held.map(|(offset, _)| offset).collect()
        }

        /// Reads records up to and with a position back; false if the log does not have it, or nothing before it.
        pub(crate) fn read_up_to(&mut self, channel: &str, at: Position, count: usize) -> bool {
            let first = (at.offset.0 + 1).saturating_sub(count as u64 + 1).max(self.trimmed + 1);
            let seen = (first..=at.offset.0).map(|offset| self.seen(offset)).collect();
            let page = Page::new(PARTITION, seen, std::iter::once(channel));
            self.page = page.map(|page| page.beginning(first == self.trimmed + 1));
            self.page.as_ref().is_some_and(|page| page.serves_before(channel, at.offset))
        }

        fn seen(&self, offset: u64) -> Seen {
            seen(offset, self.log[usize::try_from(offset - 1).expect("a short log")])
        }

        pub(crate) fn preceding(&self, channel: &str, edge: Edge, most: (usize, usize)) -> Preceding {
            match (self.ring.preceding(channel, edge, self.ring.breaks(), most), &self.page) {
                (Preceding::Older, Some(page)) => {
                    page.preceding(channel, edge, most, self.ring.floor(), |at| self.ring.is_repeated(at))
                }
                (preceding, _) => preceding,
            }
        }

        pub(crate) fn evict(&mut self, count: usize) {
            for _ in 0..count {
                if self.ring.oldest().is_some() {
                    self.ring.evict();
                }
            }
        }

        /// Reads records from a position on back; false if the log does not have it.
        pub(crate) fn read(&mut self, channel: &str, since: Position, count: usize) -> bool {
            let first = since.offset.0.max(self.trimmed + 1);
            let last = (first + count as u64).min(self.log.len() as u64);
            let seen = (first..=last).map(|offset| self.seen(offset)).collect();
            self.page = Page::new(PARTITION, seen, std::iter::once(channel));
            self.page.as_ref().is_some_and(|page| page.serves(channel, since.offset))
        }

        pub(crate) fn owed(&self, channel: &str, since: Position, until: Position, room: usize) -> Owed {
            match (self.ring.owed(channel, since, until, self.ring.breaks(), room), &self.page) {
                (Owed::Older, Some(page)) => page.owed(channel, since, until, room, |at| self.ring.is_repeated(at)),
                (owed, _) => owed,
            }
        }
    }

    #[test]
    fn partitions_share_the_budget_by_need_and_the_oldest_record_of_all_is_evicted_first() {
        let window = Window::new(4, Duration::MAX, 100 * (OVERHEAD + 4), || 1_000_000);
        let append = |partition, times: std::ops::Range<u64>| {
            let records: Vec<_> = times.map(|time| recent(time, Some(0))).collect();
            window.append(Partition(partition), &records);
        };
        let kept = |partition| {
            let ring = window.ring(Partition(partition));
            (ring.oldest(), ring.bytes() / (OVERHEAD + 4))
        };
        append(0, 1..11);
        append(1, 11..95);
        assert_eq!(
            (kept(0), kept(1)),
            ((Some(1), 10), (Some(11), 84)),
            "one busy partition takes what the others leave"
        );
        append(2, 95..110);
        assert_eq!(kept(0).1, 1, "the oldest records were evicted, but not the newest one of a partition");
        assert_eq!(kept(2), (Some(95), 15));
        assert!(window.taken.load(Ordering::Relaxed) <= window.most);
        window.clear(Partition(1));
        assert_eq!(kept(1), (None, 0));
        assert_eq!(window.taken.load(Ordering::Relaxed), 16 * (OVERHEAD + 4));
    }
}
