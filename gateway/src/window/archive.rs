//! Reads records that are older than the window back from the broker, for all clients that wait for them.
//!
//! Each partition has at most one reading at a time, and the node at most [`AT_ONCE`]. One reading serves all waiting
//! clients. It starts only while a client waits. It is never cancelled, not even when the last client leaves, because its
//! page saves the next client a request. Pages stay for a while, in a part of the window's memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_adapters::{Earlier, LinkError, Log, Offset, Partition, Position};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::page::Page;
use super::shelf::{NoPage, Plan, Shelf, Toward};

/// Readings at a time on the whole node.
const AT_ONCE: usize = 2;
/// The approximate size of one reading, in bytes.
const BYTES: usize = 1 << 20;
/// The least and the most records that one reading requests.
const RECORDS: std::ops::RangeInclusive<usize> = 16..=2048;

#[derive(Debug)]
pub(super) struct Archive {
    sections: Box<[Section]>,
    readings: Semaphore,
    /// Bytes of all shelves, and their limit.
    taken: AtomicUsize,
    most: usize,
    clock: fn() -> u64,
}

#[derive(Debug, Default)]
struct Section {
    shelf: Mutex<Shelf>,
    /// The shelf's bytes in `taken`.
    counted: AtomicUsize,
    /// A reading has ended: there may be a new page, and another reading may start.
    progress: Notify,
    /// The end of the broker's log as last read, and the time of that request.
    head: tokio::sync::Mutex<Option<(Instant, Offset)>>,
}

/// What a reading needs from the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// The newest record of the window. Readings stop there.
    pub(super) newest: Offset,
    /// The average size of a record, in bytes.
    pub(super) average: usize,
}

impl Archive {
    pub(super) fn new(partitions: u16, most: usize, clock: fn() -> u64) -> Self {
        let sections = (0..partitions).map(|_| Section::default()).collect();
        Self { sections, readings: Semaphore::new(AT_ONCE), taken: AtomicUsize::new(0), most, clock }
    }

    /// Bytes that all pages occupy.
    pub(super) fn bytes(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A page with the messages of a channel beside a position; `None` if there is none.
    pub(super) fn find(&self, channel: &str, at: Position, toward: Toward) -> Option<Arc<Page>> {
        self.section(at.partition).lock().find(channel, at.offset, toward, (self.clock)())
    }

    /// Whether the log has this very record; `None` if no page covers its offset.
    pub(super) fn holds(&self, position: Position) -> Option<bool> {
        self.section(position.partition).lock().holds(position)
    }

    /// Waits for a page with the messages of a channel beside a position; `None` if the log no longer holds that record.
    /// `extent` describes the newer records, which the window holds.
    pub(super) async fn page(
        self: &Arc<Self>,
        log: &Arc<Log>,
        channel: &str,
        (at, toward): (Position, Toward),
        extent: impl Fn() -> Option<Extent>,
    ) -> Result<Option<Arc<Page>>, LinkError> {
        let section = self.section(at.partition);
        let _waiting = Waiting::new(section, channel, at.offset, toward);
        loop {
            let progress = section.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if let Some(page) = self.find(channel, at, toward) {
                return Ok(Some(page));
            }
            let no_page = section.lock().no_page(channel, at.offset, toward);
            match no_page {
                Some(NoPage::Gone) => return Ok(None),
                Some(NoPage::Failed(error)) => return Err(error),
                None => {}
            }
            if let Some(reading) = Reading::take(self, at.partition) {
                let Some(extent) = extent() else { return Ok(None) };
                let log = Arc::clone(log);
                tokio::task::spawn_local(async move { reading.read(&log, extent).await });
            }
            progress.await;
            // Let served clients ask for their next page before the next reading is planned.
            tokio::task::yield_now().await;
        }
    }

    /// The offset of the broker's last record, not older than this call. Concurrent calls share one request.
    pub(super) async fn head(&self, log: &Log, partition: Partition) -> Result<Offset, LinkError> {
        let now = Instant::now();
        let mut known = self.section(partition).head.lock().await;
        if let Some((asked, head)) = *known
            && asked >= now
        {
            return Ok(head);
        }
        let _permit = self.readings.acquire().await;
        let asked = Instant::now();
        let head = log.head(partition).await?;
        *known = Some((asked, head));
        Ok(head)
    }

    /// Drops pages that were not used for a while.
    pub(super) fn expire(&self, partition: Partition) {
        let section = self.section(partition);
        if section.counted.load(Ordering::Relaxed) > 0 {
            let mut shelf = section.lock();
            shelf.expire((self.clock)());
            self.settle(section, &mut shelf);
        }
    }

    pub(super) fn clear(&self, partition: Partition) {
        let section = self.section(partition);
        let mut shelf = section.lock();
        shelf.clear();
        self.settle(section, &mut shelf);
    }

    /// Updates `taken`, and evicts pages of this shelf while all shelves exceed the limit.
    fn settle(&self, section: &Section, shelf: &mut Shelf) {
        loop {
            let bytes = shelf.bytes();
            let before = section.counted.swap(bytes, Ordering::Relaxed);
            let all = self.taken.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
            if all.wrapping_add(bytes.wrapping_sub(before)) <= self.most || !shelf.evict() {
                return;
            }
        }
    }

    fn section(&self, partition: Partition) -> &Section {
        // Cannot be out of range: partitions come from the log, which has the same number.
        &self.sections[usize::from(partition.0)]
    }
}

impl Section {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that waits for a page; withdraws its request when dropped.
struct Waiting<'a> {
    section: &'a Section,
    channel: Box<str>,
    at: Offset,
    toward: Toward,
}

impl<'a> Waiting<'a> {
    fn new(section: &'a Section, channel: &str, at: Offset, toward: Toward) -> Self {
        section.lock().want(channel, at, toward);
        Self { section, channel: channel.into(), at, toward }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.section.lock().unwant(&self.channel, self.at, self.toward);
    }
}

/// The right to read a partition. Dropping it lets another reading start, also after an error.
struct Reading {
    archive: Arc<Archive>,
    partition: Partition,
}

impl Reading {
    fn take(archive: &Arc<Archive>, partition: Partition) -> Option<Self> {
        let others = std::mem::replace(&mut archive.section(partition).lock().reading, true);
        (!others).then(|| Self { archive: Arc::clone(archive), partition })
    }

    async fn read(self, log: &Log, extent: Extent) {
        let Self { archive, partition } = &self;
        let section = archive.section(*partition);
        let Ok(_permit) = archive.readings.acquire().await else { return };
        // No plan if all waiting clients have left.
        let plan = section.lock().plan();
        let Some(plan) = plan else { return };
        let read = read(log, *partition, plan, extent).await;
        if plan.begins {
            log.counters().read_backs.add(1);
        }
        let mut shelf = section.lock();
        match read {
            Ok(Earlier { seen, begins }) => {
                let page = Page::new(*partition, seen, shelf.channels()).map(|page| page.beginning(begins));
                shelf.put(plan, page, (archive.clock)());
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read older records");
                shelf.fail(&error);
            }
        }
        archive.settle(section, &mut shelf);
    }
}

/// Reads about [`BYTES`] from the target on, and the records beside it.
async fn read(log: &Log, partition: Partition, plan: Plan, extent: Extent) -> Result<Earlier, LinkError> {
    let Plan { toward, from, target, .. } = plan;
    let most = (BYTES / extent.average.max(1)).clamp(*RECORDS.start(), *RECORDS.end()) as u64;
    let count = |most: u64| usize::try_from(most).unwrap_or(usize::MAX);
    match toward {
        Toward::Later => {
            let ahead = extent.newest.next().0.saturating_sub(target.0);
            let seen = log.read_from(partition, from, count(most.min(ahead) + (target.0 - from.0))).await?;
            Ok(Earlier { seen, begins: false })
        }
        Toward::Earlier => {
            let last = from.min(extent.newest).max(target);
            log.read_up_to(partition, last, count(most + (last.0 - target.0))).await
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let section = self.archive.section(self.partition);
        section.lock().reading = false;
        section.progress.notify_waiters();
    }
}
