//! The embedded log: everything in this process, nothing to install, nothing kept after it ends.
//!
//! Several [`Memory`] values can share one log, each over a link of its own that tests may break. A single
//! node needs no other broker; several nodes do.

mod link;
mod store;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

pub use link::Link;
use link::Wire;
use store::Store;

use crate::broker::{Append, AppendError, Broker, Capabilities, Entry, LinkError, Opened, Reader, Start, Stored};
use crate::connect::Settings;
use crate::stored::position::{Offset, Partition};

/// Entries that one read gives at most.
const READ: usize = 512;
/// The largest envelope, as large as the largest of other brokers.
const MAX_BYTES: usize = 16 << 20;

/// A link to a log in memory.
#[derive(Debug, Clone)]
pub struct Memory {
    store: Arc<Store>,
    link: Arc<Link>,
}

impl Memory {
    /// A new, empty log.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { store: Arc::new(Store::new(settings)), link: Arc::default() }
    }

    /// Another link to the same log.
    #[must_use]
    pub fn connect(&self) -> Self {
        Self { store: Arc::clone(&self.store), link: Arc::default() }
    }

    /// This value's link, to be broken and mended.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Starts a new, empty log in place of this one, as a broker does after it lost its disk.
    pub fn wipe(&self) {
        self.store.wipe();
    }

    /// Forgets all but the last `keep` records of each partition.
    pub fn trim(&self, keep: usize) {
        self.store.trim(keep);
    }
}

#[async_trait]
impl Broker for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "memory", durable: false, max_bytes: MAX_BYTES, pipeline: 4 }
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        let error = match timeout_at(deadline, self.link.pass()).await {
            Ok(Wire::Whole) => match timeout_at(deadline, self.store.append(batch)).await {
                Ok(stored) => return stored.into_iter().map(Ok).collect(),
                Err(_) => AppendError::NotStored("the log is full of records that this node has not read yet".into()),
            },
            Ok(Wire::Cut) => AppendError::NotStored("the link is cut".into()),
            Err(_) => AppendError::Unknown("no answer in time".into()),
        };
        batch.iter().map(|_| Err(error.clone())).collect()
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        self.link.whole().await?;
        let standings = self.store.standings(from);
        let next = from
            .iter()
            .zip(&standings)
            .map(|(&(partition, start), standing)| (partition, start.first(standing.next)))
            .collect();
        let reader = self.store.add_reader(next);
        let reader = MemoryReader { memory: self.clone(), session: self.link.session(), reader };
        Ok(Opened { standings, reader: Box::new(reader) })
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        self.link.whole().await?;
        Ok(self.store.read(partition, Offset(before.0.saturating_sub(most as u64)), most, Some(before)))
    }

    async fn redial(&self) {
        // There is only one log, in this process.
    }

    async fn close(&self) {
        self.link.cut();
    }
}

struct MemoryReader {
    memory: Memory,
    /// The link's session: it ends when the link is cut, even if it is mended before anyone looks.
    session: u64,
    /// Its number in the store.
    reader: usize,
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.memory.store.remove_reader(self.reader);
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        let Self { memory: Memory { store, link }, session, reader } = self;
        loop {
            let changed = store.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            link.whole().await?;
            let entries = store.read_on(*reader, READ);
            if !entries.is_empty() {
                return Ok(entries);
            }
            tokio::select! {
                () = &mut changed => {}
                error = link.ended(*session) => return Err(error),
            }
        }
    }
}
