//! The task that writes what this node says of its members, ends the lives of nodes that are gone, and asks for lists that it lacks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_adapters::{Log, Partition, PublishError};
use tokio::time::sleep;

use super::record::{CHANNEL, Written};
use super::{Life, Presence};
use crate::clock;
use crate::cluster::{self, Control, Live};

/// How often it looks at what no change announces.
const EVERY: Duration = Duration::from_secs(1);

/// How long a life must be unknown to the cluster before its members count as gone. The record of a life that has just begun may
/// stand in a partition that is read later.
const UNKNOWN: Duration = Duration::from_millis(1_500);

/// The longest random time before it ends a life or asks for lists, so that not all nodes do.
const SPREAD: Duration = Duration::from_millis(500);

/// The shortest time between two questions for the lists of a partition.
const ASK: Duration = Duration::from_secs(10);

/// What the task needs.
pub(crate) struct Writer {
    pub(crate) presence: Arc<Presence>,
    pub(crate) log: Arc<Log>,
    /// The number of records of a partition that a fresh node reads, or that the broker keeps.
    pub(crate) kept: u64,
}

/// Since when something is missing, or not as it should be, by partition.
#[derive(Debug, Default)]
struct Noted {
    ghosts: BTreeMap<(u16, Life), Instant>,
    lacks: BTreeMap<u16, Instant>,
    looked: Option<Instant>,
}

impl Writer {
    /// Runs for ever. Does nothing on a node whose rules say that no channel has members.
    pub(crate) async fn run(self) {
        if !self.presence.used {
            return std::future::pending().await;
        }
        let mut noted = Noted::default();
        let mut lives = self.presence.cluster.lives_changed();
        loop {
            let now = clock::now();
            self.write_due(now).await;
            if noted.looked.is_none_or(|looked| now >= looked + EVERY / 2) {
                noted.looked = Some(now);
                self.look(&mut noted, now).await;
            }
            let next = self.presence.partitions().filter_map(|partition| self.presence.writing(partition).next()).min();
            let rest = next.map_or(EVERY, |next| next.saturating_duration_since(clock::now()).min(EVERY));
            // A write that is due for a partition that cannot be read yet must not make this task spin.
            let rest = sleep(rest.max(Duration::from_millis(10)));
            tokio::select! {
                biased;
                _ = lives.changed() => noted.looked = None,
                () = self.presence.due.notified() => {}
                () = rest => {}
            }
        }
    }

    /// Writes what is due in all partitions that are read.
    async fn write_due(&self, now: Instant) {
        let me = self.presence.cluster.me();
        let mut under_way = Vec::new();
        for partition in self.presence.partitions() {
            let reading = self.presence.reading(partition);
            let (head, up) = (reading.head, reading.up);
            drop(reading);
            if !up {
                continue;
            }
            let records = self.presence.writing(partition).take(now, me, (head, self.kept));
            under_way.extend(records.iter().map(|record| (partition, self.publish(partition, record))));
        }
        for (partition, published) in under_way {
            if published.await.is_err() {
                self.presence.writing(partition).failed(clock::now());
            }
        }
    }

    /// Ends lives that hold members and are not live, and asks for lists that are missing.
    async fn look(&self, noted: &mut Noted, now: Instant) {
        if !self.presence.cluster.knows_lives() {
            *noted = Noted { looked: noted.looked, ..Noted::default() };
            return;
        }
        let me = self.presence.cluster.me();
        if self.note(noted, me, now) {
            return self.live_again(me).await;
        }
        let mut ended: BTreeMap<u16, Vec<Life>> = BTreeMap::new();
        for ((partition, life), _) in noted.ghosts.iter().filter(|(_, at)| **at <= now) {
            ended.entry(*partition).or_default().push(*life);
        }
        for (partition, ended) in ended {
            // What could not be written is tried again at the next look.
            let _ = self.publish(Partition(partition), &Written { ended, ..Written::default() }).await;
        }
        for (partition, at) in noted.lacks.iter_mut().filter(|(_, at)| **at <= now) {
            *at = now + ASK + spread();
            let _ = self.publish(Partition(*partition), &Written { ask: true, ..Written::default() }).await;
        }
    }

    /// Notes which lives are to be ended, and which lists are missing. Returns whether this node's own life was ended in a partition
    /// though the cluster knows it.
    fn note(&self, noted: &mut Noted, me: Life, now: Instant) -> bool {
        let cluster = &self.presence.cluster;
        let lives: Vec<_> = cluster.lives().iter().map(Live::life).collect();
        let (mut ghosts, mut lacks) = (BTreeMap::new(), BTreeMap::new());
        let mut ended = false;
        for partition in self.presence.partitions() {
            let reading = self.presence.reading(partition);
            ended |= lives.contains(&me) && reading.fold.has_ended(me);
            for life in reading.fold.ghosts(|life| cluster.is_live(life)) {
                let key = (partition.0, life);
                ghosts.insert(key, noted.ghosts.get(&key).copied().unwrap_or_else(|| now + UNKNOWN + spread()));
            }
            if !reading.fold.unknown(&lives).is_empty() {
                let since = noted.lacks.get(&partition.0).copied();
                lacks.insert(partition.0, since.unwrap_or_else(|| now + 2 * EVERY + spread()));
            }
        }
        (noted.ghosts, noted.lacks) = (ghosts, lacks);
        ended
    }

    /// Ends this node's life everywhere, after another node has ended it in one partition, so that it begins a new one.
    async fn live_again(&self, me: Life) {
        let control = Control { gone: vec![me], ..Control::default() };
        if let Err(error) = cluster::publish(&self.log, &control).await {
            tracing::debug!(%error, "this node's end was not written");
        }
    }

    fn publish(
        &self,
        partition: Partition,
        written: &Written,
    ) -> impl Future<Output = Result<(), PublishError>> + Send + use<> {
        let published = cluster::publish_to(&self.log, partition, CHANNEL, written);
        async move {
            published
                .await
                .map(drop)
                .inspect_err(|error| tracing::debug!(%error, "a record of presence was not written"))
        }
    }
}

fn spread() -> Duration {
    SPREAD.mul_f64(fastrand::f64())
}
