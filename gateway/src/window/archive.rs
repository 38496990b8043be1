//! Records older than the window, read back from the broker for all who wait for them.
//!
//! One reading at a time per partition, and few on the node, each for all who wait. It is begun only while somebody waits,
//! and then it ends, whoever leaves meanwhile: what was asked for comes in any case, and tells the next what it would ask
//! for again. What was read is kept for a while, in a part of the window's memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_adapters::{LinkError, Log, Offset, Partition, Position};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::page::Page;
use super::shelf::{Nothing, Plan, Shelf};

/// Readings at a time on the whole node.
const AT_ONCE: usize = 2;
/// Bytes of records that one reading should bring, about.
const BYTES: usize = 1 << 20;
/// Records that one reading asks for.
const RECORDS: std::ops::RangeInclusive<usize> = 16..=2048;

#[derive(Debug)]
pub(super) struct Archive {
    desks: Box<[Desk]>,
    turns: Semaphore,
    /// Bytes of all shelves, and the most of them.
    taken: AtomicUsize,
    most: usize,
    clock: fn() -> u64,
}

#[derive(Debug, Default)]
struct Desk {
    shelf: Mutex<Shelf>,
    /// Bytes that this shelf has in `taken`.
    counted: AtomicUsize,
    /// Something was read, or somebody else may read.
    turned: Notify,
    /// The last answer of the broker to where its log ends, and when it was asked for.
    head: tokio::sync::Mutex<Option<(Instant, Offset)>>,
}

/// What a reading must know of the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// The newest record there is, beyond which nothing is read.
    pub(super) newest: Offset,
    /// Bytes of a record, on average.
    pub(super) average: usize,
}

impl Archive {
    pub(super) fn new(partitions: u16, most: usize, clock: fn() -> u64) -> Self {
        let desks = (0..partitions).map(|_| Desk::default()).collect();
        Self { desks, turns: Semaphore::new(AT_ONCE), taken: AtomicUsize::new(0), most, clock }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The page that says what follows on a channel after a position, if it was read lately.
    pub(super) fn find(&self, channel: &str, since: Position) -> Option<Arc<Page>> {
        self.desk(since.partition).lock().find(channel, since.offset, (self.clock)())
    }

    /// Whether the record at a position is this one, as far as is known.
    pub(super) fn holds(&self, position: Position) -> Option<bool> {
        self.desk(position.partition).lock().holds(position)
    }

    /// Waits until the page that says what follows on a channel was read; `None` if the log holds no such record any more.
    /// `extent` says what is known of the partition's newer records.
    pub(super) async fn page(
        self: &Arc<Self>,
        log: &Arc<Log>,
        channel: &str,
        since: Position,
        extent: impl Fn() -> Option<Extent>,
    ) -> Result<Option<Arc<Page>>, LinkError> {
        let desk = self.desk(since.partition);
        let _want = Want::new(desk, channel, since.offset);
        loop {
            let turned = desk.turned.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            if let Some(page) = self.find(channel, since) {
                return Ok(Some(page));
            }
            let nothing = desk.lock().nothing(channel, since.offset);
            match nothing {
                Some(Nothing::Gone) => return Ok(None),
                Some(Nothing::Failed(error)) => return Err(error),
                None => {}
            }
            if let Some(turn) = Turn::take(self, since.partition) {
                let Some(extent) = extent() else { return Ok(None) };
                let log = Arc::clone(log);
                tokio::task::spawn_local(async move { turn.read(&log, extent).await });
            }
            turned.await;
            // Those who were served want what comes next before it is decided what that is.
            tokio::task::yield_now().await;
        }
    }

    /// The offset of the broker's last record, as it is now or later.
    pub(super) async fn head(&self, log: &Log, partition: Partition) -> Result<Offset, LinkError> {
        let now = Instant::now();
        let mut known = self.desk(partition).head.lock().await;
        if let Some((asked, head)) = *known
            && asked >= now
        {
            return Ok(head);
        }
        let _turn = self.turns.acquire().await;
        let asked = Instant::now();
        let head = log.head(partition).await?;
        *known = Some((asked, head));
        Ok(head)
    }

    /// Lets go of what nobody has wanted for a while.
    pub(super) fn expire(&self, partition: Partition) {
        let desk = self.desk(partition);
        if desk.counted.load(Ordering::Relaxed) > 0 {
            let mut shelf = desk.lock();
            shelf.expire((self.clock)());
            self.settle(desk, &mut shelf);
        }
    }

    pub(super) fn clear(&self, partition: Partition) {
        let desk = self.desk(partition);
        let mut shelf = desk.lock();
        shelf.clear();
        self.settle(desk, &mut shelf);
    }

    /// Counts what a shelf holds, after it gave up what is too much.
    fn settle(&self, desk: &Desk, shelf: &mut Shelf) {
        loop {
            let bytes = shelf.bytes();
            let before = desk.counted.swap(bytes, Ordering::Relaxed);
            let all = self.taken.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
            if all.wrapping_add(bytes.wrapping_sub(before)) <= self.most || !shelf.evict() {
                return;
            }
        }
    }

    fn desk(&self, partition: Partition) -> &Desk {
        // Partitions come from the log, which has as many.
        &self.desks[usize::from(partition.0)]
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits.
struct Want<'a> {
    desk: &'a Desk,
    channel: Box<str>,
    after: Offset,
}

impl<'a> Want<'a> {
    fn new(desk: &'a Desk, channel: &str, after: Offset) -> Self {
        desk.lock().want(channel, after);
        Self { desk, channel: channel.into(), after }
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        self.desk.lock().unwant(&self.channel, self.after);
    }
}

/// The right to read, given on however the reading ends.
struct Turn {
    archive: Arc<Archive>,
    partition: Partition,
}

impl Turn {
    fn take(archive: &Arc<Archive>, partition: Partition) -> Option<Self> {
        let others = std::mem::replace(&mut archive.desk(partition).lock().reading, true);
        (!others).then(|| Self { archive: Arc::clone(archive), partition })
    }

    async fn read(self, log: &Log, extent: Extent) {
        let Self { archive, partition } = &self;
        let desk = archive.desk(*partition);
        let Ok(_turn) = archive.turns.acquire().await else { return };
        // Whoever it was for may have left meanwhile.
        let plan = desk.lock().plan();
        let Some(plan @ Plan { from, target, begins }) = plan else { return };
        let most = (BYTES / extent.average.max(1)).clamp(*RECORDS.start(), *RECORDS.end()) as u64;
        let ahead = extent.newest.next().0.saturating_sub(target.0);
        let most = most.min(ahead) + (target.0 - from.0);
        let read = log.read_from(*partition, from, usize::try_from(most).unwrap_or(usize::MAX)).await;
        if begins {
            log.counters().read_backs.add(1);
        }
        let mut shelf = desk.lock();
        match read {
            Ok(seen) => {
                let page = Page::new(*partition, seen, shelf.channels());
                shelf.put(plan, page, (archive.clock)());
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read older records");
                shelf.fail(&error);
            }
        }
        archive.settle(desk, &mut shelf);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let desk = self.archive.desk(self.partition);
        desk.lock().reading = false;
        desk.turned.notify_waiters();
    }
}
