//! What the tails and the publisher of a log have in common.
//!
//! Every append of this node goes through [`Shared::append`], so that acknowledgements can be compared with what the tail
//! reads. A tail that cannot read notes it here, and publishes wait until it can.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::broker::{Append, AppendError, Broker, LinkError, Stored};
use crate::log::publisher::EXPIRY;
use crate::log::tail::SLOWEST;
use crate::log::witness::Witness;
use crate::log::{Counters, Timing};
use crate::stored::envelope;
use crate::stored::position::Partition;

pub(crate) struct Shared {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) timing: Timing,
    pub(crate) counters: Counters,
    /// By partition; `None` where no tail follows it.
    witnesses: Box<[Mutex<Option<Witness>>]>,
    /// An acknowledgement contradicts what was read: the tails must check again.
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

/// A batch under way. If it is dropped without an answer, its records are not expected any more.
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
    /// `None` if another tail holds it: then that tail watches the partition.
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

/// The pause before an outage is logged again for the same reason: where a retry may help, and where an
/// operator must change something.
const SAY_AGAIN: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(3600)];
/// The pause before it is logged for another reason.
const SAY_NEWS: Duration = Duration::from_secs(5);

/// The time in which a tail cannot read. Publishes wait, since a node that cannot read does not acknowledge.
pub(crate) struct Outage {
    shared: Arc<Shared>,
    error: LinkError,
    /// The reason that was logged last, and when.
    logged: (LinkError, Instant),
}

impl Outage {
    pub(crate) fn begin(shared: &Arc<Shared>, error: &LinkError) -> Self {
        shared.unread.send_modify(|tails| *tails += 1);
        let logged = (error.clone(), Instant::now());
        let outage = Self { shared: Arc::clone(shared), error: error.clone(), logged };
        outage.log();
        outage
    }

    /// It goes on. True if the reason is another one than before.
    pub(crate) fn goes_on(&mut self, error: &LinkError) -> bool {
        let news = self.error != *error;
        if news {
            self.error = error.clone();
        }
        let [soon, late] = SAY_AGAIN;
        let pause = match self.logged.0 == self.error {
            true if error.kind.needs_change() => late,
            true => soon,
            false => SAY_NEWS,
        };
        let now = Instant::now();
        if now - self.logged.1 >= pause {
            self.logged = (self.error.clone(), now);
            self.log();
        }
        news
    }

    fn log(&self) {
        let broker = self.shared.broker.capabilities().name;
        let error = &self.error;
        match error.kind.needs_change() {
            true => {
                tracing::warn!(broker, %error, "broker link down until this is changed; publishes wait; retrying \
                every {SLOWEST:?}")
            }
            false => tracing::warn!(broker, %error, "broker link down; publishes wait; retrying"),
        }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.shared.unread.send_modify(|tails| *tails = tails.saturating_sub(1));
    }
}
