//! RabbitMQ: one stream queue per partition, written with publisher confirms, read by offset.
//!
//! Appends share one connection, each reader has its own. One more stream, `<prefix>.settings`, holds in
//! its first record what all nodes must agree on, such as the epoch; every connection watches that stream.
//! Durable on as many disks as the streams have replicas. Loses what RabbitMQ loses when a majority of them
//! is gone for good; the tails announce it.

mod agree;
mod append;
mod dial;
mod lane;
mod link;
mod ours;
mod read;
mod url;
mod wire;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::broker::{Append, AppendError, Broker, Capabilities, Entry, LinkError, Opened, Start, Stored};
use crate::connect::{ConnectError, Settings};
use crate::line::Line;
use crate::stored::position::{Offset, Partition};
use crate::writes::Writes;
use dial::Dialer;
use url::Address;

/// The largest envelope: the largest message of RabbitMQ 4 (before, it was 128 MiB), with some room.
const MAX_BYTES: usize = (16 << 20) - 4096;
/// One connection each for appends, reading and reading back, and old ones until RabbitMQ has taken leave of them.
pub(crate) const DESCRIPTORS: usize = 16;

/// A log in RabbitMQ.
pub struct RabbitMq {
    dialer: Arc<Dialer>,
    appends: Line<Dialer>,
    reads: Line<Dialer>,
}

impl RabbitMq {
    /// Takes `amqp[s]://[user[:password]@]host[:port][/vhost]`, where `rabbitmq://` says the same as `amqp://`,
    /// with `?prefix=` for the names of its streams (`fanfare`), `max-bytes=` for what each of them keeps, if it
    /// is not there yet (`256MiB`), `adopt=true` for streams that hold other programs' records, and `ca=` for a file of
    /// CAs to trust instead of the system's. Connects when first used. Streams are not trimmed by records:
    /// [`Settings::retention`] has no effect.
    pub fn new(url: &str, settings: Settings) -> Result<Self, ConnectError> {
        let (address, partitions) = (Address::parse(url)?, settings.partitions);
        let dialer = Arc::new(Dialer { address, partitions, writes: Writes::default() });
        let [appends, reads] = [0, 1].map(|_| Line::new(Arc::clone(&dialer)));
        Ok(Self { dialer, appends, reads })
    }
}

#[async_trait]
impl Broker for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "rabbitmq", durable: true, max_bytes: MAX_BYTES, pipeline: 64 }
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        append::append(&self.appends, batch, deadline).await
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        read::open(&self.dialer, &self.appends, from).await
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        read::read_back(&self.reads, partition, before, most).await
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
