//! What the tails and the publisher of a log have in common.
//!
//! Every append of this node goes through [`Shared::append`], so that what the broker acknowledges is held against what
//! the tail reads. Tails say here when they cannot read; publishes wait meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::broker::{Append, AppendError, Broker, Stored};
use crate::log::publisher::EXPIRY;
use crate::log::witness::Witness;
use crate::log::{Counters, Timing};
use crate::stored::envelope;
use crate::stored::position::Partition;

pub(crate) struct Shared {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) timing: Timing,
    pub(crate) counters: Counters,
    /// By partition; none where no tail follows it.
    witnesses: Box<[Mutex<Option<Witness>>]>,
    /// An acknowledgement does not fit what is read: the tails must look again.
    pub(crate) doubt: Notify,
    /// How many tails cannot read at present.
    pub(crate) unread: watch::Sender<usize>,
    /// Whether the log was closed, which ends the tails.
    pub(crate) closed: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new(broker: Arc<dyn Broker>, partitions: u16, timing: Timing) -> Self {
        Self {
            broker,
            timing,
            counters: Counters::default(),
            witnesses: (0..partitions).map(|_| Mutex::default()).collect(),
            doubt: Notify::new(),
            unread: watch::Sender::new(0),
            closed: watch::Sender::new(false),
        }
    }

    /// Appends a batch; ends soon after the deadline, whatever the adapter does. No result for a record means that its
    /// fate is unknown.
    pub(crate) async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        let mut sent = Sent::new(self, batch);
        let results = timeout_at(deadline + EXPIRY, self.broker.append(batch, deadline)).await.unwrap_or_default();
        sent.answered(&results);
        results
    }

    /// Counts records that only newer releases know, and says once that there are some.
    pub(crate) fn skip(&self, records: u64) {
        if records > 0 {
            if self.counters.skipped.value() == 0 {
                tracing::info!("newer nodes write records of a kind that this release does not know, and may skip");
            }
            self.counters.skipped.add(records);
        }
    }

    fn witness<T>(&self, partition: Partition, with: impl FnOnce(&mut Option<Witness>) -> T) -> Option<T> {
        let witness = self.witnesses.get(usize::from(partition.0))?;
        Some(with(&mut witness.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A batch under way. Dropped without an answer, nothing is expected of it any more.
struct Sent<'a> {
    shared: &'a Shared,
    batch: &'a [Append],
}

impl<'a> Sent<'a> {
    fn new(shared: &'a Shared, batch: &'a [Append]) -> Self {
        for append in batch {
            let sent = |witness: &mut Witness| witness.sent(envelope::check(&append.bytes));
            shared.witness(append.partition, |witness| witness.as_mut().map(sent));
        }
        Self { shared, batch }
    }

    fn answered(&mut self, results: &[Result<Stored, AppendError>]) {
        let now = Instant::now();
        let mut doubt = false;
        for (nth, append) in std::mem::take(&mut self.batch).iter().enumerate() {
            let stored = results.get(nth).and_then(|result| result.as_ref().ok()).copied();
            let check = envelope::check(&append.bytes);
            let answered = |witness: &mut Option<Witness>| Some(witness.as_mut()?.answered(check, stored, now));
            doubt |= self.shared.witness(append.partition, answered).flatten().unwrap_or(false);
        }
        if doubt {
            self.shared.doubt.notify_waiters();
        }
    }
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.answered(&[]);
    }
}

/// The witness of a partition, held by the one tail that follows it.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    partition: Partition,
}

impl Watched {
    /// None if another tail holds it: then that one answers for the partition.
    pub(crate) fn new(shared: &Arc<Shared>, partition: Partition) -> Option<Self> {
        let take = |witness: &mut Option<Witness>| {
            let free = witness.is_none();
            witness.get_or_insert_default();
            free
        };
        shared.witness(partition, take).filter(|free| *free)?;
        Some(Self { shared: Arc::clone(shared), partition })
    }

    pub(crate) fn with<T: Default>(&self, with: impl FnOnce(&mut Witness) -> T) -> T {
        self.shared.witness(self.partition, |witness| witness.as_mut().map(with)).flatten().unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shared.witness(self.partition, |witness| *witness = None);
    }
}

/// The pause between two log lines of one outage: for the same reason, and for another one.
const SAY_AGAIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(5)];

/// The time in which a tail cannot read. Publishes wait: what this node cannot read, it does not acknowledge.
pub(crate) struct Outage {
    shared: Arc<Shared>,
    why: String,
    /// The reason that was logged last, and when.
    logged: (String, Instant),
}

impl Outage {
    pub(crate) fn begin(shared: &Arc<Shared>, why: &str) -> Self {
        shared.unread.send_modify(|tails| *tails += 1);
        let outage = Self { shared: Arc::clone(shared), why: why.into(), logged: (why.into(), Instant::now()) };
        outage.log();
        outage
    }

    /// It goes on. True if the reason is another one than before.
    pub(crate) fn goes_on(&mut self, why: &str) -> bool {
        let [same, other] = SAY_AGAIN;
        let now = Instant::now();
        let news = self.why != why;
        if news {
            self.why = why.into();
        }
        if now - self.logged.1 >= if self.logged.0 == self.why { same } else { other } {
            self.logged = (self.why.clone(), now);
            self.log();
        }
        news
    }

    fn log(&self) {
        let broker = self.shared.broker.capabilities().name;
        tracing::warn!(broker, error = %self.why, "broker link down; publishes wait; retrying");
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.shared.unread.send_modify(|tails| *tails = tails.saturating_sub(1));
    }
}
