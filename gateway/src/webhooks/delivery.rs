//! The task that delivers: one request at a time for each partition whose keeper this node is.
//!
//! Runs on the node's main runtime. The tail, the relay and the workers never wait for it: they only fill the queues, which are bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use broker_adapters::{Log, Partition};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::batch::Batch;
use super::cursor::CHANNEL;
use super::endpoint::{Endpoint, TOGETHER};
use super::keeper::keeper;
use super::{Section, Webhooks};
use crate::client::Backoff;
use crate::clock;
use crate::cluster::{self, Live};
use crate::field::Shown;
use crate::presence::Presence;
use crate::sparingly::Sparingly;

/// How often the task looks at what nothing announces.
const EVERY: Duration = Duration::from_secs(1);

/// The time after which a node delivers in the place of another one, whose last request may be under way.
const PAUSE: Duration = Duration::from_secs(2);

/// The shortest time between two cursors of a partition, and between two that say only how far it was read.
const SAVE: Duration = Duration::from_secs(1);
const FURTHER: Duration = Duration::from_secs(5);

/// The oldest cursor, by time: the broker may keep records by time or size.
const RENEW: Duration = Duration::from_secs(600);

/// The shortest time between two lines of a kind in the log.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the task needs.
pub(crate) struct Delivery {
    pub(crate) webhooks: Arc<Webhooks>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) log: Arc<Log>,
    pub(crate) endpoint: Endpoint,
    /// How long an event is tried.
    pub(crate) retry: Duration,
    /// The number of records of a partition that a fresh node reads, or that the broker keeps.
    pub(crate) kept: u64,
    /// Milliseconds since 1970.
    pub(crate) clock: fn() -> u64,
}

/// What this node knows of one partition as its keeper.
#[derive(Default)]
struct Keeping {
    /// When it may deliver.
    begins: Option<Instant>,
    /// The request that is repeated until it is answered well.
    batch: Option<Batch>,
    backoff: Backoff,
    /// Nothing is sent before this.
    pause: Option<Instant>,
    /// When the last cursor was written, and how far the partition was read then.
    saved: Option<(Instant, u64)>,
}

/// What all partitions share.
struct Common {
    /// Whether this node has known all lives since its start.
    knew_lives: AtomicBool,
    turns: Semaphore,
    failures: Sparingly,
}

impl Delivery {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        self.webhooks.counters.set_used();
        let (turns, failures) = (Semaphore::new(TOGETHER), Sparingly::per(INTERVAL));
        let common = Common { knew_lives: AtomicBool::new(false), turns, failures };
        let partitions = (0..).map(Partition).zip(&self.webhooks.sections);
        let keeping = partitions.map(|(partition, section)| self.keep(partition, section, &common));
        tokio::join!(join_all(keeping), self.watch(&common));
    }

    /// Notes what has changed without a record of a cursor: which members are known, and what waits.
    async fn watch(&self, common: &Common) {
        let cluster = &self.webhooks.cluster;
        loop {
            let lives: Vec<_> = cluster.lives().iter().map(Live::life).collect();
            let (mut all, mut waiting, mut oldest) = (true, 0, None);
            if cluster.knows_lives() {
                common.knew_lives.store(true, Ordering::Relaxed);
            }
            for (partition, section) in (0..).map(Partition).zip(&self.webhooks.sections) {
                let knows = cluster.knows_lives() && self.presence.knows(partition, &lives);
                let mut queue = section.queue();
                if knows {
                    queue.knows_members();
                }
                all &= queue.has_all();
                if section.keeps.load(Ordering::Relaxed) {
                    waiting += queue.len();
                    oldest = [oldest, queue.oldest()].into_iter().flatten().min();
                }
            }
            let age = oldest.map_or(0, |oldest| (self.clock)().saturating_sub(oldest) / 1000);
            self.webhooks.counters.wait(waiting, age);
            cluster.has_events(all);
            sleep(EVERY).await;
        }
    }

    /// Delivers the events of one partition while this node is its keeper, for ever.
    async fn keep(&self, partition: Partition, section: &Section, common: &Common) {
        let mut changed = self.webhooks.cluster.lives_changed();
        let mut keeping = Keeping::default();
        let mut planned = clock::now();
        loop {
            let (lives, now) = (self.webhooks.cluster.lives(), clock::now());
            if now.saturating_duration_since(planned) > PAUSE {
                // The process stood still, so another node may be the keeper.
                keeping.begins = None;
            }
            let keeps = section.up.load(Ordering::Relaxed)
                && common.knew_lives.load(Ordering::Relaxed)
                && keeper(partition, &lives) == Some(self.webhooks.cluster.me());
            section.keeps.store(keeps, Ordering::Relaxed);
            let rest = if keeps {
                let lacks = lives.iter().any(|live| live.node.webhooks == Some(false));
                self.deliver(partition, section, &mut keeping, lacks, common, now).await
            } else {
                if keeping.begins.take().is_some() && section.queue().unsaved {
                    // The next keeper need not repeat what this one has delivered.
                    self.save(partition, section, &mut keeping, now).await;
                }
                keeping.saved = None;
                EVERY
            };
            planned = clock::now() + rest;
            tokio::select! {
                () = sleep(rest) => {}
                () = section.filled.notified(), if keeps && keeping.pause.is_none() => {}
                _ = changed.changed() => {}
            }
        }
    }

    /// Does what is due. Returns how long to rest.
    async fn deliver(
        &self,
        partition: Partition,
        section: &Section,
        keeping: &mut Keeping,
        lacks: bool,
        common: &Common,
        now: Instant,
    ) -> Duration {
        let begins = *keeping.begins.get_or_insert(now + PAUSE);
        if let Some(rest) = begins.checked_duration_since(now).filter(|rest| !rest.is_zero()) {
            return rest;
        }
        if self.is_due(section, keeping, lacks, now) {
            self.save(partition, section, keeping, now).await;
        }
        self.expire(section);
        if let Some(rest) =
            keeping.pause.and_then(|pause| pause.checked_duration_since(now)).filter(|rest| !rest.is_zero())
        {
            return rest.min(EVERY);
        }
        keeping.pause = None;
        let batch = {
            let queue = section.queue();
            keeping.batch.take().filter(|batch| queue.begins_with(batch)).or_else(|| queue.batch())
        };
        let Some(batch) = batch else { return EVERY };
        let Ok(_turn) = common.turns.acquire().await else { return EVERY };
        match self.endpoint.send(&batch.id(), batch.body.clone(), (self.clock)() / 1000).await {
            Ok(()) => {
                let delivered = section.queue().delivered(&batch);
                self.webhooks.counters.delivered(delivered);
                keeping.backoff.reset();
                Duration::ZERO
            }
            Err(error) => {
                self.webhooks.counters.retried();
                if let Some(times) = common.failures.due(clock::now()) {
                    let host = Shown::of(self.endpoint.url.host().as_bytes());
                    tracing::warn!(%host, times, "webhook events are not delivered and will be sent again: {error}");
                }
                keeping.batch = Some(batch);
                let wait = keeping.backoff.next();
                keeping.pause = Some(clock::now() + wait);
                wait.min(EVERY)
            }
        }
    }

    /// Gives up the events that were tried for long enough.
    fn expire(&self, section: &Section) {
        let before = (self.clock)().saturating_sub(u64::try_from(self.retry.as_millis()).unwrap_or(u64::MAX));
        let expired = section.queue().expire(before);
        self.webhooks.counters.failed(expired.len() as u64);
        for event in expired {
            // Between the parts of its JSON there may be ends of lines, in `info`.
            let event = String::from_utf8_lossy(&event.json).replace(char::is_control, " ");
            tracing::warn!(%event, "a webhook event is given up: it was not delivered within `webhooks.retry`");
        }
    }

    /// Whether a cursor must be written.
    fn is_due(&self, section: &Section, keeping: &Keeping, lacks: bool, now: Instant) -> bool {
        let queue = section.queue();
        let Some((when, at)) = keeping.saved else { return true };
        (queue.unsaved && now >= when + SAVE)
            || queue.head().saturating_sub(at) > self.kept / 2
            || now >= when + RENEW
            || (lacks && queue.is_empty() && now >= when + FURTHER)
    }

    async fn save(&self, partition: Partition, section: &Section, keeping: &mut Keeping, now: Instant) {
        let (cursor, head) = {
            let mut queue = section.queue();
            queue.unsaved = false;
            (queue.cursor(self.webhooks.cluster.me()), queue.head())
        };
        keeping.saved = Some((now, head));
        if let Err(error) = cluster::publish_to(&self.log, partition, CHANNEL, &cursor).await {
            tracing::debug!(%error, "a cursor of webhooks was not written");
            section.queue().unsaved = true;
        }
    }
}
