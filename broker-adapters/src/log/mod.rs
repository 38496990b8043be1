//! The log as a gateway sees it: the contract's rules over any broker.
//!
//! Owned by the node, shared by all that publish. Publishing is never spooled and never local only: a
//! message is delivered because it is in the log.

pub(crate) mod backoff;
pub(crate) mod cursor;
pub(crate) mod dedup;
pub(crate) mod event;
pub(crate) mod publisher;
pub(crate) mod shared;
pub(crate) mod tail;
pub(crate) mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout};

use self::event::{Resume, Seen};
use self::publisher::{Answer, Budget, PublishError, Publisher};
use self::shared::Shared;
use self::tail::Tail;
use crate::broker::{Append, Broker, Capabilities, Entry, LinkError, OPEN_TIMEOUT, Start};
use crate::stored::envelope;
use crate::stored::position::{Offset, Partition, Position, partition_of};
use crate::stored::record::NewRecord;

/// How many records before the first one are asked for, to prove that there are none.
const CONFIRMED: usize = 16;

/// Older records that were read back.
#[derive(Debug)]
pub struct Earlier {
    /// The records, oldest first and without a hole.
    pub seen: Vec<Seen>,
    /// The log has no record before the first of them.
    pub begins: bool,
}

/// The times that the rules depend on.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// After how much silence a partition gets a heartbeat; three of them without a record end the link.
    pub heartbeat: Duration,
    /// The clock on the wall, in milliseconds since 1970.
    pub clock: fn() -> u64,
}

impl Timing {
    /// By this machine's clock.
    #[must_use]
    pub fn new(heartbeat: Duration) -> Self {
        Self { heartbeat, clock: wall_clock }
    }
}

/// What happened to the log since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages dropped because the same id came before.
    pub duplicates: Count,
    /// Records skipped without a loss: only newer releases know what they are.
    pub skipped: Count,
    /// Places where records were lost in the broker.
    pub breaks: Count,
    /// How often older records were asked for, however many pages that took. The caller counts.
    pub read_backs: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

/// A log of replayable partitions over a broker.
pub struct Log {
    shared: Arc<Shared>,
    publisher: Publisher,
    partitions: u16,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("broker", &self.capabilities().name).finish_non_exhaustive()
    }
}

impl Log {
    /// Starts the log's tasks on the current runtime. Needs no broker to be up.
    #[must_use]
    pub fn start(broker: Arc<dyn Broker>, partitions: u16, timing: Timing, budget: Budget) -> Self {
        let shared = Arc::new(Shared::new(broker, partitions, timing));
        Self { publisher: Publisher::start(Arc::clone(&shared), budget), shared, partitions }
    }

    /// What the broker can promise.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.shared.broker.capabilities()
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The number of partitions.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The partition of a channel.
    #[must_use]
    pub fn partition_of(&self, channel: &str) -> Partition {
        partition_of(channel, self.partitions)
    }

    /// Publishes one message. Gives its position, if the broker names it.
    ///
    /// It has its place in the order of this log's publishes when the call returns; the future only waits. Ends
    /// by `deadline` (give or take 20 ms) in one of three ways: stored, not stored, or
    /// [`PublishError::Unknown`]. Of two publishes on a channel the one that began after the other was
    /// acknowledged comes later for all readers. Dropping the future takes nothing back.
    pub fn publish(
        &self,
        record: NewRecord,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Position>, PublishError>> + Send + use<> {
        self.publish_to(self.partition_of(&record.channel), record, deadline)
    }

    /// As [`Log::publish`], in a partition that the channel's name does not decide: for records of the nodes themselves.
    pub fn publish_to(
        &self,
        partition: Partition,
        record: NewRecord,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Position>, PublishError>> + Send + use<> {
        let submitted = self.submit(partition, &record, deadline);
        async move {
            let answer = submitted?;
            let (stored, check) = answer.await.unwrap_or(Err(PublishError::Unknown))?;
            Ok(stored.at.map(|(_, offset)| Position { partition, offset, check }))
        }
    }

    fn submit(&self, partition: Partition, record: &NewRecord, deadline: Instant) -> Result<Answer, PublishError> {
        if record.channel.len() > usize::from(u16::MAX) {
            return Err(PublishError::Rejected("the channel's name is longer than 65,535 bytes".into()));
        }
        let most = self.capabilities().max_bytes;
        let bytes = envelope::message(record, (self.shared.timing.clock)());
        if bytes.len() > most {
            return Err(PublishError::Rejected(format!("the broker takes at most {most} bytes")));
        }
        self.publisher.publish(Append { partition, bytes }, deadline)
    }

    /// Follows some partitions until the tail is dropped.
    #[must_use]
    pub fn tail(&self, from: &[(Partition, Resume)]) -> Tail {
        tail::start(Arc::clone(&self.shared), from)
    }

    /// Follows all partitions.
    #[must_use]
    pub fn tail_all(&self, from: Resume) -> Tail {
        let from: Vec<_> = (0..self.partitions).map(|n| (Partition(n), from)).collect();
        self.tail(&from)
    }

    /// Up to `most` records from an offset on, or from the first after it that is kept, oldest first and without a hole;
    /// fewer where the log ends or before a record that cannot be read. Ends within 5 s.
    ///
    /// Says nothing about which log they are of: the caller compares the fingerprint of a record that it knows.
    pub async fn read_from(&self, partition: Partition, from: Offset, most: usize) -> Result<Vec<Seen>, LinkError> {
        let before = Offset(from.0.saturating_add(most as u64));
        let entries = self.read_back(partition, before, most).await?;
        let mut next = None;
        let dense = entries.iter().skip_while(|entry| entry.offset < from).map_while(|entry| {
            let follows = next.replace(entry.offset.next()).is_none_or(|next| next == entry.offset);
            let envelope = envelope::read(&entry.bytes).ok().filter(|_| follows)?;
            Some(envelope.seen(partition, entry.offset))
        });
        Ok(dense.collect())
    }

    /// Up to `most` records up to and with `last`, oldest first and without a hole; fewer where the log begins or after a record
    /// that cannot be read, none if the log does not have `last`. Ends within 10 s.
    ///
    /// Says nothing about which log they are of: the caller compares the fingerprint of a record that it knows.
    pub async fn read_up_to(&self, partition: Partition, last: Offset, most: usize) -> Result<Earlier, LinkError> {
        let entries = self.read_back(partition, last.next(), most).await?;
        let (count, mut next, mut seen) = (entries.len(), Some(last), Vec::new());
        for entry in entries.into_iter().rev() {
            let Some(envelope) = envelope::read(&entry.bytes).ok().filter(|_| next == Some(entry.offset)) else {
                break;
            };
            seen.push(envelope.seen(partition, entry.offset));
            next = entry.offset.0.checked_sub(1).map(Offset);
        }
        seen.reverse();
        let begins = match seen.first() {
            Some(first) if first.offset == Offset(1) => true,
            // An adapter may have left out an entry that is not ours: only an empty answer proves the beginning.
            Some(first) if seen.len() == count && count < most => {
                self.read_back(partition, first.offset, CONFIRMED).await?.is_empty()
            }
            _ => false,
        };
        Ok(Earlier { seen, begins })
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        let read = timeout(OPEN_TIMEOUT, self.shared.broker.read_back(partition, before, most)).await;
        read.map_err(|_| LinkError::new(format!("no answer from the broker within {OPEN_TIMEOUT:?}")))?
    }

    /// Waits until nothing can be published any more because of a fault in this library. A tail shows the same by its end.
    pub async fn publishing_ended(&self) {
        self.publisher.ended().await;
    }

    /// The offset of the last record that a partition has at the broker, 0 if it has none. Ends within 5 s.
    pub async fn head(&self, partition: Partition) -> Result<Offset, LinkError> {
        let opened = timeout(OPEN_TIMEOUT, self.shared.broker.open(&[(partition, Start::Head)])).await;
        let opened =
            opened.map_err(|_| LinkError::new(format!("no answer from the broker within {OPEN_TIMEOUT:?}")))??;
        let standing = opened.standings.first().ok_or_else(|| LinkError::new("it does not say how the log stands"))?;
        Ok(Offset(standing.next.0.saturating_sub(1)))
    }

    /// Waits for the publishes under way, then ends the tails and lets go of the broker.
    pub async fn close(&self, deadline: Instant) {
        self.publisher.flush(deadline).await;
        self.shared.closed.send_replace(true);
        self.shared.broker.close().await;
    }
}

/// Now by this machine's clock, in milliseconds since 1970.
#[must_use]
pub fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
