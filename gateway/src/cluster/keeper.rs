//! Writes the revocations in force again before the log forgets them.
//!
//! Every node has a keeper. The one that wakes first writes; the others then read the new records and have nothing to write.

use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Log, MessageId, NewRecord, Partition, Position, PublishError};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::Cluster;
use super::control::{CHANNEL, Control, Revocation};
use super::revoked::Written;

/// How often each keeper looks, and the longest random time before it writes.
const EVERY: Duration = Duration::from_secs(5);

/// The longest random time before it writes after records were lost.
const AT_ONCE: Duration = Duration::from_millis(300);

/// How long the records of a revocation stay the newest ones. The broker may keep records by time or size.
const RENEW: Duration = Duration::from_secs(600);

/// The most revocations of one record: far below the size of the smallest message that a broker takes.
const TOGETHER: usize = 200;

/// How long a record may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the task of a keeper needs.
pub(crate) struct Keeper {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) log: Arc<Log>,
    /// The number of records of a partition that a fresh node reads, or that the broker keeps.
    pub(crate) kept: u64,
    /// Milliseconds since 1970.
    pub(crate) clock: fn() -> u64,
}

impl Keeper {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        loop {
            let endangered = timeout(EVERY, self.cluster.endangered.notified()).await.is_ok();
            if std::mem::take(&mut self.cluster.lock().missed)
                && self.write(&Control { ask: true, ..Control::default() }).await.is_err()
            {
                self.cluster.lock().missed = true;
                continue;
            }
            if self.old().is_empty() {
                continue;
            }
            let longest = if endangered { AT_ONCE } else { EVERY };
            sleep(longest.mul_f64(fastrand::f64())).await;
            for some in self.old().chunks(TOGETHER) {
                // What cannot be written stays old, so the next round tries again.
                if self.write(&Control { revoke: some.to_vec(), ..Control::default() }).await.is_err() {
                    break;
                }
            }
        }
    }

    async fn write(&self, control: &Control) -> Result<(), PublishError> {
        publish(&self.log, control).await.map(drop).inspect_err(|error| {
            tracing::debug!(%error, "a record of the cluster was not written");
        })
    }

    /// The revocations in force whose records the log may forget soon.
    fn old(&self) -> Vec<Revocation> {
        let now = (self.clock)() / 1000;
        let mut state = self.cluster.lock();
        state.revoked.forget(now);
        let head = state.head.map_or(0, |head| head.offset.0);
        let (offset, time) = (head.saturating_sub(self.kept / 2), now.saturating_sub(RENEW.as_secs()));
        state.revoked.older_than(Written { offset, time })
    }
}

/// Writes a record of the cluster.
///
/// # Errors
/// As [`Log::publish`].
pub(crate) async fn publish(log: &Log, control: &Control) -> Result<Option<Position>, PublishError> {
    publish_to(log, log.partition_of(CHANNEL), CHANNEL, control).await
}

/// Writes a record of the nodes, of one of their channels, into a partition. It has its place when the call returns.
pub(crate) fn publish_to<R: Serialize>(
    log: &Log,
    partition: Partition,
    channel: &str,
    record: &R,
) -> impl Future<Output = Result<Option<Position>, PublishError>> + Send + use<R> {
    let json = serde_json::to_vec(record).unwrap_or_default();
    let record = NewRecord::control(MessageId::random(), channel, json.into());
    log.publish_to(partition, record, Instant::now() + PATIENCE)
}
