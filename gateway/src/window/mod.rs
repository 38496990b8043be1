//! What was said lately, so that clients who come back hear what they missed.
//!
//! Shared by the relay, which fills it, and the workers, which ask it; one lock per partition, never held
//! across a wait. A reconnect storm is answered from here: the broker is asked only for records older than the
//! window, once for all who want them.

mod ring;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_adapters::{Log, Offset, Partition, Position};

use self::ring::{Bounds, Ring};
pub(crate) use self::ring::{Missed, OVERHEAD, Recent};

/// Records read back from the broker at a time.
const PAGE: usize = 1000;

/// How long records are kept whatever their age once older ones are read back: those who want them come together.
const HOLD: Duration = Duration::from_secs(60);

/// The recent records of all partitions.
#[derive(Debug)]
pub(crate) struct Window {
    partitions: Box<[Kept]>,
    /// Milliseconds since 1970.
    clock: fn() -> u64,
}

#[derive(Debug)]
struct Kept {
    ring: Mutex<Ring>,
    /// Held by whoever reads back.
    extending: tokio::sync::Mutex<()>,
}

impl Window {
    /// Keeps records for `age` by `clock`, in at most `bytes` for all partitions together.
    pub(crate) fn new(partitions: u16, age: Duration, bytes: usize, clock: fn() -> u64) -> Self {
        let bounds = Bounds { age: millis(age), bytes: bytes / usize::from(partitions.max(1)) };
        let kept = || Kept { ring: Mutex::new(Ring::new(bounds)), extending: tokio::sync::Mutex::default() };
        Self { partitions: (0..partitions).map(|_| kept()).collect(), clock }
    }

    /// Takes the next records of a partition.
    pub(crate) fn append(&self, partition: Partition, recent: &[Recent]) {
        let now = (self.clock)();
        let mut ring = self.ring(partition);
        for recent in recent {
            ring.append(recent.clone(), now);
        }
    }

    /// What follows in this partition is not known to follow what is kept.
    pub(crate) fn clear(&self, partition: Partition) {
        self.ring(partition).clear();
    }

    /// How often the log of a partition has broken off.
    pub(crate) fn breaks(&self, partition: Partition) -> u64 {
        self.ring(partition).breaks()
    }

    /// The messages of a channel after `since` and up to `until`, for a worker that has seen so many breaks.
    pub(crate) fn missed(&self, channel: &str, since: Position, until: Offset, breaks: u64) -> Missed {
        self.ring(since.partition).missed(channel, since, until, breaks)
    }

    /// Reads back from the broker until `position` is in the window; false if it cannot be.
    pub(crate) async fn reach(&self, log: &Log, position: Position) -> bool {
        let Some(kept) = self.partitions.get(usize::from(position.partition.0)) else { return false };
        let _turn = kept.extending.lock().await;
        loop {
            let Some(first) = self.hold(position.partition) else { return false };
            if first.offset <= position.offset {
                return true;
            }
            let older = match log.read_back(first, PAGE).await {
                Ok(older) => older,
                Err(error) => {
                    tracing::debug!(%error, "cannot read older records");
                    return false;
                }
            };
            let older = older.into_iter().map(Recent::from).collect();
            if !self.ring(position.partition).extend_back(older, first) {
                return false;
            }
        }
    }

    /// The oldest record kept, which age does not take away for a while.
    fn hold(&self, partition: Partition) -> Option<Position> {
        let mut ring = self.ring(partition);
        ring.hold((self.clock)() + millis(HOLD));
        ring.first(partition)
    }

    fn ring(&self, partition: Partition) -> MutexGuard<'_, Ring> {
        // Partitions come from the log, which has as many.
        self.partitions[usize::from(partition.0)].ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
