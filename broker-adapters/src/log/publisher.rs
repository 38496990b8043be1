//! Takes publishes to the broker: bounded, batched, retried under the same id until their deadline.
//!
//! One task per log. Each publish ends as stored, surely not stored, or unknown, by its deadline. Records go
//! out in the order they came in; while a retry is due nothing overtakes it. When the budget is full a
//! publish is refused at once. Loses nothing silently: each publisher gets an answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::broker::{Append, AppendError, Stored};
use crate::log::backoff::Backoff;
use crate::log::shared::Shared;
use crate::log::tail::link_backoff;
use crate::stored::envelope;
use crate::stored::position::Check;

/// Records on their way at a time, in as many batches as suit the broker.
const RECORDS: usize = 1024;
/// Publishes taken from the queue at a time.
const TAKEN: usize = 256;
/// The most bytes of one batch, except for a single larger record.
const BATCH_BYTES: usize = 1 << 20;
/// How often the deadlines of waiting publishes are checked, so how far a publish may end from its deadline.
pub(crate) const EXPIRY: Duration = Duration::from_millis(20);

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It will never be taken: do not retry.
    #[error("refused: {0}")]
    Rejected(String),
    /// Too much is on its way already: not stored; retry later.
    #[error("too many publishes are waiting for the broker; retry after {0:?}")]
    Overloaded(Duration),
    /// The broker could not be reached by the deadline: surely not stored.
    #[error("the broker is not available: the message was not published")]
    Unavailable,
    /// It may be stored; publishing it again under the same id delivers it at most once.
    #[error("the broker did not confirm in time: the message may or may not be published")]
    Unknown,
}

/// The most that may wait for the broker at a time.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Messages.
    pub messages: usize,
    /// Bytes of envelopes.
    pub bytes: usize,
}

#[derive(Debug)]
struct InFlight {
    budget: Budget,
    messages: AtomicUsize,
    bytes: AtomicUsize,
    empty: Notify,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
struct Permit {
    of: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let permit = Permit { of: Arc::clone(self), bytes };
        let messages = self.messages.fetch_add(1, Ordering::AcqRel);
        let held = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        (messages < self.budget.messages && held + bytes <= self.budget.bytes).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        if self.of.messages.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.of.empty.notify_waiters();
        }
    }
}

struct Item {
    append: Append,
    /// Its place in the order of publishes. Retries are sorted by it, since batches end in any order.
    place: u64,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
    /// An earlier try may have stored it.
    perhaps: bool,
    _permit: Permit,
}

impl Item {
    fn end(self, result: Outcome) {
        // The publisher may not wait any more.
        let _ = self.reply.send(result);
    }

    fn fail(self) {
        let error = if self.perhaps { PublishError::Unknown } else { PublishError::Unavailable };
        self.end(Err(error));
    }
}

/// Where the outcome of a publish arrives.
pub(crate) type Answer = oneshot::Receiver<Outcome>;

/// What was stored, with the fingerprint of its record.
type Outcome = Result<(Stored, Check), PublishError>;

/// Hands publishes to the task.
#[derive(Debug)]
pub(crate) struct Publisher {
    queue: mpsc::Sender<Item>,
    in_flight: Arc<InFlight>,
}

impl Publisher {
    pub(crate) fn start(shared: Arc<Shared>, budget: Budget) -> Self {
        let in_flight = Arc::new(InFlight {
            budget,
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            empty: Notify::new(),
        });
        // As long as the budget: every permit has its place in the queue.
        let (queue, incoming) = mpsc::channel(budget.messages.max(1));
        let pipeline = shared.broker.capabilities().pipeline.clamp(1, RECORDS);
        let task = Task {
            unread: shared.unread.subscribe(),
            shared,
            pipeline,
            incoming,
            waiting: VecDeque::new(),
            retry: Vec::new(),
            resume: None,
            look: Instant::now(),
            failing: false,
            failures: Arc::default(),
            backoff: link_backoff(),
            under_way: FuturesUnordered::new(),
            taken: 0,
        };
        tokio::spawn(task.run());
        Self { queue, in_flight }
    }

    /// Puts one record behind all earlier ones; the answer comes by the deadline.
    pub(crate) fn publish(&self, append: Append, deadline: Instant) -> Result<Answer, PublishError> {
        let overloaded = PublishError::Overloaded(Duration::from_millis(100));
        if append.bytes.len() > self.in_flight.budget.bytes {
            return Err(PublishError::Rejected("the message is larger than all that may be in flight".into()));
        }
        let Some(permit) = self.in_flight.take(append.bytes.len()) else { return Err(overloaded) };
        let (reply, answer) = oneshot::channel();
        let item = Item { append, place: 0, deadline, reply, perhaps: false, _permit: permit };
        match self.queue.try_send(item) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => Err(overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(PublishError::Unavailable),
        }
    }

    /// Waits until the task has ended. The task lives as long as this value, so an end is a fault.
    pub(crate) async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Waits until nothing is on its way any more.
    pub(crate) async fn flush(&self, deadline: Instant) {
        loop {
            let emptied = self.in_flight.empty.notified();
            if self.in_flight.messages.load(Ordering::Acquire) == 0 || timeout_at(deadline, emptied).await.is_err() {
                return;
            }
        }
    }
}

/// The records of a batch that were not acknowledged, in order.
type Failed = Vec<(Item, AppendError)>;

struct Task {
    shared: Arc<Shared>,
    /// Batches on their way at a time.
    pipeline: usize,
    incoming: mpsc::Receiver<Item>,
    /// Not yet sent, oldest first.
    waiting: VecDeque<Item>,
    /// To be sent again once nothing is under way, in their order, before all that waits.
    retry: Vec<Item>,
    /// When the pause after a failure ends.
    resume: Option<Instant>,
    /// When deadlines are to be looked at again.
    look: Instant,
    /// Whether the log already says that publishing fails.
    failing: bool,
    /// Batches that have failed so far.
    failures: Arc<AtomicUsize>,
    backoff: Backoff,
    /// Not in order: when a batch is answered, the next takes its place, even if earlier batches still wait.
    under_way: FuturesUnordered<std::pin::Pin<Box<dyn Future<Output = Failed> + Send>>>,
    /// Records taken from the queue so far.
    taken: u64,
    /// Tails that cannot read.
    unread: watch::Receiver<usize>,
}

impl Task {
    async fn run(mut self) {
        let mut incoming = Vec::with_capacity(TAKEN);
        loop {
            self.dispatch();
            let idle = self.waiting.is_empty() && self.retry.is_empty();
            if !idle && self.look <= Instant::now() {
                self.expire();
            }
            // A retry waits for the batches under way. Their end wakes the task.
            let resume = self.resume.filter(|_| self.under_way.is_empty() && !self.is_held());
            let wake = resume.map_or(self.look, |resume| resume.min(self.look));
            tokio::select! {
                biased;
                Some(failed) = self.under_way.next(), if !self.under_way.is_empty() => self.settle(failed),
                taken = self.incoming.recv_many(&mut incoming, TAKEN) => {
                    if taken == 0 {
                        return;
                    }
                    for mut item in incoming.drain(..) {
                        item.place = self.taken;
                        self.taken += 1;
                        self.waiting.push_back(item);
                    }
                }
                () = sleep_until(wake), if !idle => {}
                Ok(()) = self.unread.changed() => {}
            }
        }
    }

    /// Whether publishes must wait: a node that cannot read does not acknowledge.
    fn is_held(&self) -> bool {
        *self.unread.borrow() > 0
    }

    /// Sends the records that may go now.
    fn dispatch(&mut self) {
        if self.is_held() {
            return;
        }
        if !self.retry.is_empty() || self.resume.is_some() {
            let due = self.resume.is_none_or(|resume| resume <= Instant::now());
            if !self.under_way.is_empty() || !due {
                return;
            }
            self.resume = None;
            self.retry.sort_unstable_by_key(|item| item.place);
            // Too late for an answer: sending it would only make its fate unknown.
            let latest = Instant::now() + EXPIRY;
            let now = (self.shared.timing.clock)();
            for mut item in self.retry.drain(..).rev() {
                if item.deadline <= latest {
                    item.fail();
                    continue;
                }
                // If an earlier try was stored too, the two records have different positions.
                item.append.bytes = envelope::sent_again(&item.append.bytes, now);
                self.waiting.push_front(item);
            }
        }
        while self.under_way.len() < self.pipeline && !self.waiting.is_empty() {
            // An equal share for each batch that may still go: a record waits for no more others than it must.
            let share = self.waiting.len().div_ceil(self.pipeline - self.under_way.len());
            let most = share.min(RECORDS / self.pipeline);
            let mut bytes = 0;
            let mut items = Vec::new();
            while let Some(item) = self.waiting.front() {
                bytes += item.append.bytes.len();
                if !items.is_empty() && (items.len() == most || bytes > BATCH_BYTES) {
                    break;
                }
                items.extend(self.waiting.pop_front());
            }
            let (failures, before) = (Arc::clone(&self.failures), self.failures.load(Ordering::Acquire));
            let is_next = move || failures.load(Ordering::Acquire) == before;
            self.under_way.push(Box::pin(append(Arc::clone(&self.shared), items, is_next)));
        }
    }

    fn settle(&mut self, failed: Failed) {
        let now = Instant::now();
        let mut last = None;
        for (mut item, error) in failed {
            item.perhaps |= matches!(error, AppendError::Unknown(_));
            last = Some(error);
            if item.deadline <= now { item.fail() } else { self.retry.push(item) }
        }
        match last {
            None => {
                self.backoff.reset();
                if std::mem::take(&mut self.failing) {
                    tracing::info!("publishing works again");
                }
            }
            Some(error) => {
                self.failures.fetch_add(1, Ordering::AcqRel);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "publishing fails; each message is retried until its deadline");
                }
                self.resume = Some(now + self.backoff.delay());
            }
        }
    }

    /// Ends the publishes that have reached their deadline without being sent.
    fn expire(&mut self) {
        let now = Instant::now();
        self.look = now + EXPIRY;
        for item in std::mem::take(&mut self.retry) {
            if item.deadline <= now { item.fail() } else { self.retry.push(item) }
        }
        if self.waiting.iter().any(|item| item.deadline <= now) {
            let (late, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|item| item.deadline <= now);
            self.waiting = waiting;
            let late: VecDeque<Item> = late;
            late.into_iter().for_each(Item::fail);
        }
    }
}

/// Appends one batch; ends by the earliest deadline in it, whatever the adapter does.
///
/// Answers at once what needs no retry, without waiting for an earlier batch. Sends nothing if an earlier batch failed
/// before this one was first polled (`is_next`): its records have to be sent again first.
async fn append(shared: Arc<Shared>, items: Vec<Item>, is_next: impl Fn() -> bool) -> Failed {
    if !is_next() {
        let error = AppendError::NotStored("earlier records have to be sent again first".into());
        return items.into_iter().map(|item| (item, error.clone())).collect();
    }
    let appends: Vec<_> = items.iter().map(|item| item.append.clone()).collect();
    let deadline = items.iter().map(|item| item.deadline).min().unwrap_or_else(Instant::now);
    let mut results = shared.append(&appends, deadline).await.into_iter();
    let mut failed = Vec::new();
    for item in items {
        match results.next().unwrap_or_else(|| Err(AppendError::Unknown("no confirmation in time".into()))) {
            Ok(stored) => {
                let check = envelope::check(&item.append.bytes);
                item.end(Ok((stored, check)));
            }
            Err(AppendError::Rejected(why)) => item.end(Err(PublishError::Rejected(why))),
            Err(error) => failed.push((item, error)),
        }
    }
    failed
}
