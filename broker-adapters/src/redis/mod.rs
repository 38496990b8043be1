//! Redis: one stream per partition, with dense ids `n-0` that a script gives out.
//!
//! Appends share one connection, each reader has its own. The epoch stands in each entry as the name of its
//! only field, so every entry proves which log it is from. Durable as far as Redis is: `appendonly yes` with
//! `appendfsync always` keeps every acknowledged record. Loses what a failover to a lagging replica loses; the
//! tails announce it.

mod append;
mod diagnosis;
mod dial;
mod link;
mod primary;
mod read;
mod reply;
mod url;
mod value;
mod wire;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::broker::{Append, AppendError, Broker, Capabilities, Entry, LinkError, Opened, Start, Stored};
use crate::connect::{ConnectError, Settings};
use crate::line::Line;
use crate::stored::position::{Offset, Partition};
use dial::Dialer;
use url::Address;

/// The largest envelope. Redis itself takes 512 MB.
const MAX_BYTES: usize = 16 << 20;
/// One connection each for appends, reading and reading back, twice while they are replaced.
pub(crate) const DESCRIPTORS: usize = 8;

/// A log in Redis.
pub struct Redis {
    dialer: Arc<Dialer>,
    retention: usize,
    appends: Line<Dialer>,
    reads: Line<Dialer>,
}

impl Redis {
    /// Takes `redis[s]://[[user]:password@]host[:port][/database]` with `?prefix=` for the names of its keys
    /// (`fanfare`), `adopt=true` to delete what stands in its keys and is not Fanfare's, and `ca=` for a file of CAs to
    /// trust instead of the system's. Connects when first used.
    pub fn new(url: &str, settings: Settings) -> Result<Self, ConnectError> {
        let dialer = Arc::new(Dialer::new(Address::parse(url)?, settings.partitions));
        let [appends, reads] = [0, 1].map(|_| Line::new(Arc::clone(&dialer)));
        Ok(Self { dialer, retention: settings.retention, appends, reads })
    }
}

#[async_trait]
impl Broker for Redis {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "redis", durable: true, max_bytes: MAX_BYTES, pipeline: 4 }
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        append::append(&self.appends, &self.dialer.address, self.retention, batch, deadline).await
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        read::open(&self.dialer, from).await
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        let [_, key] = self.dialer.address.partition_keys(partition.0);
        read::read_back(&self.reads, &key, partition, before, most).await
    }

    async fn redial(&self) {
        self.appends.renew().await;
        self.reads.renew().await;
    }

    async fn close(&self) {
        self.appends.close().await;
        self.reads.close().await;
    }
}
