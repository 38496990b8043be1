//! Who is subscribed to which channel, over all nodes: a fold of records in the log.
//!
//! Each node writes which members its own connections are, and reads what all nodes have written. So every node can say who is
//! there, and no node asks another. The relay folds a record before any worker has it.

mod fold;
mod local;
mod name;
mod record;
#[cfg(test)]
pub(crate) mod samples;
mod snapshot;
mod step;
mod writer;
mod writing;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use broker_adapters::{Offset, Partition, Position, Record};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

#[cfg(test)]
pub(crate) use self::fold::Audience;
pub(crate) use self::fold::{Change, TOO_MANY};
use self::fold::{Fold, Page};
pub(crate) use self::name::{InvalidName, Name};
use self::record::Written;
pub(crate) use self::record::{CHANNEL, Info};
pub(crate) use self::snapshot::Snapshot;
pub(crate) use self::step::{Step, What};
pub(crate) use self::writer::Writer;
use self::writing::Writing;
use crate::cluster::{Cluster, Life, Live};
use crate::config::Config;
use crate::gate::Attendance;

/// The longest random time before a node writes its list after a break, so that not all nodes write at once.
const AFTER_BREAK: Duration = Duration::from_millis(300);

/// How often a node that stops looks whether its members are written as gone.
const SETTLING: Duration = Duration::from_millis(20);

/// What this node knows of all members, and what it writes of its own.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Whether a rule of this node says that a channel has members. Without one the node writes nothing.
    used: bool,
    cluster: Arc<Cluster>,
    /// By partition.
    sections: Box<[Section]>,
    /// Notified when there may be something to write.
    due: Notify,
    /// How tests have this node read records.
    #[cfg(test)]
    reading: std::sync::OnceLock<samples::Fault>,
}

/// One partition. A worker takes one of the locks at a time, and holds none across a wait.
#[derive(Debug)]
struct Section {
    reading: Mutex<Reading>,
    writing: Mutex<Writing>,
}

#[derive(Debug, Default)]
struct Reading {
    fold: Fold,
    /// The last record that was folded.
    at: Option<Position>,
    /// The offset of the partition's last record.
    head: u64,
    /// Whether all records up to the end of the partition were read once.
    up: bool,
}

/// What a connection is to others in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attendee {
    /// One more of a number.
    Counted,
    /// A member.
    Named(Name, Option<Info>),
}

impl Presence {
    pub(crate) fn new(config: &Config, partitions: u16, cluster: Arc<Cluster>) -> Self {
        let used = config.channels.iter().any(|rule| rule.presence != Attendance::Off);
        let linger = config.presence.linger;
        let fold = || if config.webhooks.endpoint.is_some() { Fold::noting() } else { Fold::default() };
        let reading = || Mutex::new(Reading { fold: fold(), ..Reading::default() });
        let section = || Section { reading: reading(), writing: Mutex::new(Writing::new(linger)) };
        Self {
            used,
            cluster,
            sections: (0..partitions).map(|_| section()).collect(),
            due: Notify::new(),
            #[cfg(test)]
            reading: std::sync::OnceLock::new(),
        }
    }

    /// Has this node read records in another way.
    #[cfg(test)]
    pub(crate) fn read_as(&self, fault: samples::Fault) {
        self.reading.get_or_init(|| fault);
    }

    /// Adds a connection of this node to a channel.
    pub(crate) fn join(&self, partition: Partition, channel: &str, attendee: &Attendee, now: Instant) {
        let mut writing = self.writing(partition);
        let before = writing.next();
        match attendee {
            Attendee::Counted => writing.local.count_in(channel, now),
            Attendee::Named(name, info) => writing.local.join(channel, name.clone(), info.clone(), now),
        }
        self.wake(before, &writing);
    }

    /// Removes a connection of this node from a channel.
    pub(crate) fn leave(&self, partition: Partition, channel: &str, attendee: &Attendee, now: Instant) {
        let mut writing = self.writing(partition);
        let before = writing.next();
        match attendee {
            Attendee::Counted => writing.local.count_out(channel, now),
            Attendee::Named(name, _) => writing.local.leave(channel, name.clone(), now),
        }
        self.wake(before, &writing);
    }

    /// Wakes the writer if it must act earlier than before.
    fn wake(&self, before: Option<Instant>, writing: &Writing) {
        if writing.next().is_some_and(|next| before.is_none_or(|before| next < before)) {
            self.due.notify_one();
        }
    }

    /// Up to `limit` members of a channel after a name, in the order of names.
    pub(crate) fn snapshot(&self, partition: Partition, channel: &str, after: Option<&Name>, limit: usize) -> Snapshot {
        let lives = self.cluster.lives();
        let reading = self.reading(partition);
        let Page { members, more, count } = reading.fold.page(channel, after, limit);
        let unknown = reading.fold.unknown(&lives.iter().map(Live::life).collect::<Vec<_>>());
        let at = reading.at;
        drop(reading);
        let missing = lives.iter().filter(|live| unknown.contains(&live.life())).map(|live| live.node.name.clone());
        let missing: Vec<_> = missing.collect();
        let next = members.last().filter(|_| more).map(|(name, _)| name.clone());
        let partial = self.used && (!missing.is_empty() || !self.cluster.knows_lives());
        let missing = if partial { missing } else { Vec::new() };
        Snapshot { members, next, count, partial, missing, at }
    }

    /// The channels with members whose names begin with `prefix`, in the order of names.
    /// Also says whether there may be others.
    pub(crate) fn channels(&self, prefix: &str) -> (Vec<(String, u64)>, bool) {
        let lives: Vec<_> = self.cluster.lives().iter().map(Live::life).collect();
        let (mut all, mut partial) = (Vec::new(), !self.cluster.knows_lives());
        for section in &self.sections {
            let reading = section.reading.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(reading.fold.channels(prefix).map(|(name, count)| (name.to_owned(), count)));
            partial |= !reading.fold.unknown(&lives).is_empty();
        }
        all.sort_unstable();
        (all, partial && self.used)
    }

    /// Folds a record of [`CHANNEL`]. Returns what it changed, if there are webhooks.
    pub(crate) fn apply(&self, record: &Record, now: Instant) -> Vec<Step> {
        let written: Written = match serde_json::from_slice(record.payload.bytes()) {
            Ok(written) => written,
            Err(_) => {
                tracing::warn!(offset = record.offset.0, "a record of presence is from a newer release, or damaged");
                return Vec::new();
            }
        };
        #[cfg(test)]
        let written = {
            let mut written = written;
            self.reading.get().inspect(|fault| fault(&mut written));
            written
        };
        let mut reading = self.reading(record.partition);
        reading.fold.apply(&written, record.offset.0);
        let steps = reading.fold.steps();
        reading.at = Some(record.position());
        drop(reading);
        if written.ask && self.used {
            self.writing(record.partition).ask(now);
            self.due.notify_one();
        }
        steps
    }

    /// Whether the members of all these lives are known in a partition.
    pub(crate) fn knows(&self, partition: Partition, lives: &[Life]) -> bool {
        self.reading(partition).fold.unknown(lives).is_empty()
    }

    /// The changes of a partition that subscribers are to be shown now, and the record up to which each is true.
    pub(crate) fn changes(&self, partition: Partition, now: Instant) -> Vec<(Change, Position)> {
        let mut reading = self.reading(partition);
        let Some(at) = reading.at else { return Vec::new() };
        reading.fold.take(now).into_iter().map(|change| (change, at)).collect()
    }

    /// The changes of all partitions that had to wait.
    pub(crate) fn later(&self, now: Instant) -> Vec<(Change, Position)> {
        self.partitions().flat_map(|partition| self.changes(partition, now)).collect()
    }

    /// Notes how far a partition was read.
    pub(crate) fn advance(&self, partition: Partition, offset: Offset) {
        self.reading(partition).head = offset.0;
    }

    /// Notes that all records of a partition up to its end were read.
    pub(crate) fn up(&self, partition: Partition) {
        self.reading(partition).up = true;
        self.due.notify_one();
    }

    /// Notes that records of a partition are lost.
    pub(crate) fn lost(&self, at: Position, now: Instant) {
        let mut reading = self.reading(at.partition);
        reading.fold.broke();
        // What is read from now on may stand at smaller offsets than before: a watcher must not take it for known.
        (reading.head, reading.at) = (at.offset.0, Some(at));
        drop(reading);
        if self.used {
            self.writing(at.partition).owe_list(now, AFTER_BREAK.mul_f64(fastrand::f64()));
            self.due.notify_one();
        }
    }

    /// Waits until the members of this node, which has no clients left, are written as gone, but not much longer than `linger`.
    pub(crate) async fn settle(&self, linger: Duration) {
        let settled = async {
            while !self.is_settled() {
                sleep(SETTLING).await;
            }
        };
        // Without a broker nothing can be written. The other nodes then end this node's life.
        let _ = timeout(linger + 4 * AFTER_BREAK, settled).await;
    }

    /// Whether all members of this node are written as they are, and none lingers.
    fn is_settled(&self) -> bool {
        let settled =
            |section: &Section| section.writing.lock().unwrap_or_else(PoisonError::into_inner).local.is_settled();
        self.sections.iter().all(settled)
    }

    fn reading(&self, partition: Partition) -> MutexGuard<'_, Reading> {
        self.sections[usize::from(partition.0)].reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self, partition: Partition) -> MutexGuard<'_, Writing> {
        self.sections[usize::from(partition.0)].writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..u16::try_from(self.sections.len()).unwrap_or(u16::MAX)).map(Partition)
    }
}
