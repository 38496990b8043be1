//! Appends and reads do not see the same log. What was acknowledged and is not read is announced as lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use broker_adapters::{
    Append, AppendError, BreakReason, Broker, Capabilities, Entry, Epoch, LinkError, Offset, Opened, Partition, Resume,
    Start, Stored,
};
use law::History;
use tokio::time::Instant;

use super::outage::BACK;
use crate::fixture::Fixture;
use crate::load::{Load, flowing, verdict};
use crate::node::{BUDGET, Follower, SETTINGS, Seen, channel_in, cluster, log, log_on, say};

/// The partition that is read.
const READ: Partition = Partition(0);
/// Where appends to it go instead: a log of its own, of the same broker.
const OTHER: Partition = Partition(1);

/// A broker whose appends reach another server than its readers, until it dials again. One epoch serves both, as with
/// a replica that was promoted.
struct Astray {
    broker: Arc<dyn Broker>,
    astray: AtomicBool,
    epoch: OnceLock<Epoch>,
    redials: AtomicU64,
}

#[async_trait]
impl Broker for Astray {
    fn capabilities(&self) -> Capabilities {
        self.broker.capabilities()
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        let (mut batch, mut moved) = (batch.to_vec(), vec![false; batch.len()]);
        if self.astray.load(Ordering::Acquire) {
            for (append, moved) in batch.iter_mut().zip(&mut moved).filter(|(append, _)| append.partition == READ) {
                (append.partition, *moved) = (OTHER, true);
            }
        }
        let mut results = self.broker.append(&batch, deadline).await;
        for stored in results.iter_mut().zip(moved).filter_map(|(result, moved)| result.as_mut().ok().filter(|_| moved))
        {
            let place = |(_, offset): (Epoch, Offset)| self.epoch.get().map(|epoch| (*epoch, offset));
            stored.at = stored.at.and_then(place);
        }
        results
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        let opened = self.broker.open(from).await?;
        if let Some(standing) = opened.standings.iter().find(|standing| standing.partition == READ) {
            self.epoch.get_or_init(|| standing.epoch);
        }
        Ok(opened)
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        self.broker.read_back(partition, before, most).await
    }

    async fn redial(&self) {
        self.redials.fetch_add(1, Ordering::AcqRel);
        self.astray.store(false, Ordering::Release);
        self.broker.redial().await;
    }

    async fn close(&self) {
        self.broker.close().await;
    }
}

pub(crate) async fn what_is_acknowledged_and_not_read_is_announced(broker: Arc<dyn Fixture>) {
    let astray = Arc::new(Astray {
        broker: broker.connect(0, SETTINGS),
        astray: AtomicBool::new(false),
        epoch: OnceLock::new(),
        redials: AtomicU64::new(0),
    });
    let first = log_on(Arc::clone(&astray) as Arc<dyn Broker>, SETTINGS.partitions, BUDGET);
    let follower = Follower::from(&first, &[(READ, Resume::Head)]);
    follower.until("the partition is up", |seen| seen.up.contains(&READ.0)).await;
    // Another node, whose records keep the reader alive.
    let (history, second) = (History::default(), log(&*broker, 1));
    let load = Load::start(&history, &[second]);
    let channel = channel_in(&first, READ.0);
    say(&first, &channel, "before").await;
    follower.until_has("before").await;
    assert!(follower.seen().breaks.is_empty(), "{:?}", follower.seen().breaks);

    astray.astray.store(true, Ordering::Release);
    say(&first, &channel, "astray").await;
    let begin = Instant::now();
    let reset = |seen: &Seen| seen.breaks.iter().any(|lost| lost.reason == BreakReason::Reset);
    follower.until("the loss was announced", reset).await;
    assert!(begin.elapsed() < BACK, "announced only after {:?}", begin.elapsed());
    assert!(!follower.seen().has("astray"), "it went to another log");

    say(&first, &channel, "behind").await;
    follower.until_has("behind").await;
    assert!(astray.redials.load(Ordering::Acquire) > 0);
    load.stop().await;
}

pub(crate) async fn a_log_set_back_while_it_is_read_is_announced(broker: Arc<dyn Fixture>) {
    let history = History::default();
    let (logs, followers) = cluster(&*broker, &history).await;
    // Node 0 only reads: it cannot compare acknowledgements.
    let load = Load::start(&history, &logs[1..]);
    flowing(&followers).await;
    broker.snapshot_live().await;
    flowing(&followers).await;
    broker.set_back_live().await;
    for follower in &followers {
        let reset = |seen: &Seen| seen.breaks.iter().any(|lost| lost.reason == BreakReason::Reset);
        follower.until("the loss was announced", reset).await;
    }
    flowing(&followers).await;
    load.stop().await;
    verdict("set back while it is read", &history, &logs[0], &followers).await.assert_lawful();
}
