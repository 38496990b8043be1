//! Kafka: a topic whose partitions every node reads from offsets of its own, without a group and without commits.
//!
//! Appends share one idempotent producer (`acks=all`), each reader has a client and a thread of its own. The
//! epoch is the topic's id. Records are kept by time: `retention` of the URL or of the topic, never by number.
//! Durable as far as the topic is: with `?replication=3` every acknowledged record stands on two brokers. Loses
//! what an unclean election loses; the tails announce it.

mod append;
mod dial;
mod known;
mod line;
mod link;
mod ours;
mod read;
mod topic;
mod url;
mod watch;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::broker::{Append, AppendError, Broker, Capabilities, Entry, LinkError, Opened, Start, Stored};
use crate::connect::{ConnectError, Settings};
use crate::stored::position::{Offset, Partition};
use dial::Dialer;
use line::Line;
use url::Address;

/// The largest envelope: with its batch it fits into the 1,048,588 bytes that a topic takes by default.
const MAX_BYTES: usize = 900 << 10;
/// Reads back at a time, each with a client of its own; more wait.
const READS: usize = 4;
/// A client for appends, one for reading and [`READS`] for reading back, with a connection and two pipes to each of a few
/// brokers.
pub(crate) const DESCRIPTORS: usize = 96;

/// A log in Kafka.
pub struct Kafka {
    dialer: Arc<Dialer>,
    appends: Line,
    reads: Arc<Semaphore>,
}

impl Kafka {
    /// Takes `kafka://` and `kafka+ssl://` URLs; connects when first used.
    pub fn new(url: &str, settings: Settings) -> Result<Self, ConnectError> {
        let dialer = Arc::new(Dialer::new(Address::parse(url)?, settings.partitions));
        let reads = Arc::new(Semaphore::new(READS));
        Ok(Self { appends: Line::new(Arc::clone(&dialer)), dialer, reads })
    }
}

#[async_trait]
impl Broker for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "kafka", durable: true, max_bytes: MAX_BYTES, pipeline: 64 }
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        append::append(&self.appends, batch, deadline).await
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        read::open(&self.dialer, &self.appends, from).await
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        read::read_back(&self.dialer, &self.reads, partition, before, most).await
    }

    async fn redial(&self) {
        self.appends.renew().await;
    }

    async fn close(&self) {
        self.reads.close();
        self.appends.close().await;
    }
}
