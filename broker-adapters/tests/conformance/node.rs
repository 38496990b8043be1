//! A node of the cluster as the cases use it: a log, and a follower that remembers its tail's events.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_adapters::{
    Break, Broker, Budget, LinkError, Log, MessageId, NewRecord, Offset, Partition, Payload, Position, PublishError,
    Record, Resume, Settings, Tail, TailEvent, Timing,
};
use law::{History, ReaderId};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::fixture::{Fixture, PATIENCE};

pub(crate) const SETTINGS: Settings = Settings { partitions: 4, retention: 100_000 };
/// Short, so that a dead link is found soon.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(400);
pub(crate) const BUDGET: Budget = Budget { messages: 10_000, bytes: 64 << 20 };
/// How long a publish may take, if a case does not say otherwise.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3);

/// A log over any broker, with the suite's timing.
pub(crate) fn log_on(broker: Arc<dyn Broker>, partitions: u16, budget: Budget) -> Arc<Log> {
    Arc::new(Log::start(broker, partitions, Timing::new(HEARTBEAT), budget))
}

/// A log that stays silent for longer than a case lasts.
pub(crate) fn log_without_heartbeats(broker: &dyn Fixture) -> Arc<Log> {
    let timing = Timing::new(10 * PATIENCE);
    Arc::new(Log::start(broker.connect(0, SETTINGS), SETTINGS.partitions, timing, BUDGET))
}

/// A log over one of the fixture's wires.
pub(crate) fn log(broker: &dyn Fixture, wire: usize) -> Arc<Log> {
    log_on(broker.connect(wire, SETTINGS), SETTINGS.partitions, BUDGET)
}

/// A log and a follower of all its partitions, which is up.
pub(crate) async fn node(broker: &dyn Fixture, wire: usize, history: &History) -> (Arc<Log>, Follower) {
    let log = log(broker, wire);
    let follower = Follower::of(log.tail_all(Resume::Head), &format!("node {wire}"), history);
    follower.until("every partition is up", Seen::all_up).await;
    (log, follower)
}

/// Both nodes of a cluster.
pub(crate) async fn cluster(broker: &dyn Fixture, history: &History) -> ([Arc<Log>; 2], [Follower; 2]) {
    let (first, second) = (node(broker, 0, history).await, node(broker, 1, history).await);
    ([first.0, second.0], [first.1, second.1])
}

pub(crate) fn text(channel: &str, text: &str) -> NewRecord {
    let payload = Payload::Text(text.to_owned().into());
    NewRecord::new(MessageId::random(), channel.into(), payload)
}

/// Publishes a text and gives its position, if the broker tells it.
pub(crate) async fn publish(log: &Log, channel: &str, payload: &str) -> Result<Option<Position>, PublishError> {
    log.publish(text(channel, payload), Instant::now() + DEADLINE).await
}

/// Publishes a text, which must work.
pub(crate) async fn say(log: &Log, channel: &str, payload: &str) -> Option<Position> {
    publish(log, channel, payload).await.unwrap_or_else(|error| panic!("`{payload}` on {channel}: {error}"))
}

/// Up to `most` records right before a position, oldest first; none if the log does not hold its record any more.
pub(crate) async fn read_back(log: &Log, before: Position, most: u64) -> Result<Vec<broker_adapters::Seen>, LinkError> {
    let Position { partition, offset, check } = before;
    let from = Offset(offset.0.saturating_sub(most).max(1));
    let count = usize::try_from(offset.0 - from.0).expect("few records") + 1;
    let mut seen = log.read_from(partition, from, count).await?;
    let anchor = seen.pop().filter(|last| last.offset == offset && last.check == check);
    Ok(if anchor.is_some() { seen } else { Vec::new() })
}

/// A channel of this partition.
pub(crate) fn channel_in(log: &Log, partition: u16) -> String {
    let mut names = (0..).map(|n| format!("channel-{n}"));
    names.find(|name| log.partition_of(name) == Partition(partition)).expect("names do not end")
}

pub(crate) fn text_of(record: &Record) -> String {
    String::from_utf8_lossy(record.payload.bytes()).into_owned()
}

/// A tail's events so far.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    pub(crate) records: Vec<Record>,
    pub(crate) breaks: Vec<Break>,
    /// The partitions that are up.
    pub(crate) up: BTreeSet<u16>,
    /// How often a partition came up.
    pub(crate) ups: usize,
    /// Each time the link went down, and why.
    pub(crate) downs: Vec<(Instant, String)>,
    /// The last position of each partition.
    pub(crate) at: [Option<Position>; 16],
    pub(crate) ended: bool,
}

impl Seen {
    pub(crate) fn all_up(&self) -> bool {
        self.up.len() == usize::from(SETTINGS.partitions)
    }

    /// An outage is said when it begins, and when its reason changes.
    pub(crate) fn says_each_reason_once(&self) -> bool {
        self.downs.windows(2).all(|pair| pair[0].1 != pair[1].1)
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.records.iter().map(text_of).collect()
    }

    pub(crate) fn has(&self, payload: &str) -> bool {
        self.records.iter().rev().any(|record| record.payload.bytes() == payload.as_bytes())
    }

    fn take(&mut self, event: TailEvent, history: &History, reader: ReaderId) {
        let lane = |position: Position| position.partition.0.to_string();
        match event {
            TailEvent::Up { at } => {
                self.up.insert(at.partition.0);
                self.ups += 1;
                self.at[usize::from(at.partition.0)] = Some(at);
            }
            TailEvent::Down { why } => {
                self.up.clear();
                self.downs.push((Instant::now(), why));
            }
            TailEvent::Records { partition, seen } => {
                if let Some(last) = seen.last() {
                    let at = Position { partition, offset: last.offset, check: last.check };
                    self.at[usize::from(partition.0)] = Some(at);
                }
                for record in seen.into_iter().filter_map(|seen| seen.message) {
                    history.saw(reader, &lane(record.position()), &text_of(&record));
                    self.records.push(record);
                }
            }
            TailEvent::Lost(lost) => {
                history.marked(reader, &lane(lost.at));
                self.breaks.push(lost);
            }
        }
    }
}

/// Follows a tail and remembers. Ends when dropped.
pub(crate) struct Follower {
    name: String,
    state: Arc<(Mutex<Seen>, Notify)>,
    task: AbortHandle,
}

impl Follower {
    pub(crate) fn of(mut tail: Tail, name: &str, history: &History) -> Self {
        let (history, reader) = (history.clone(), history.reader(name));
        let state = Arc::<(Mutex<Seen>, Notify)>::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let (seen, changed) = &*shared;
            let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(events) = tail.next().await {
                events.into_iter().for_each(|event| lock().take(event, &history, reader));
                changed.notify_waiters();
            }
            lock().ended = true;
            changed.notify_waiters();
        });
        Self { name: name.into(), state, task: task.abort_handle() }
    }

    /// Follows some partitions of a log, outside of any history.
    pub(crate) fn from(log: &Log, from: &[(Partition, Resume)]) -> Self {
        Self::of(log.tail(from), "a tail", &History::default())
    }

    /// The events so far.
    pub(crate) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let wait = async {
            loop {
                let changed = self.state.1.notified();
                if condition(&self.lock()) {
                    return;
                }
                changed.await;
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            let (seen, mut what) =
                (self.seen(), format!("{}: in {PATIENCE:?} it did not happen that {what}", self.name));
            let _ = write!(what, "; up {:?}, {} records, breaks {:?}", seen.up, seen.records.len(), seen.breaks);
            let _ = write!(what, ", downs {:?}", seen.downs.iter().map(|(_, why)| why).collect::<Vec<_>>());
            panic!("{what}");
        }
    }

    /// Waits until a text was seen.
    pub(crate) async fn until_has(&self, payload: &str) {
        self.until(&format!("`{payload}` was seen"), |seen| seen.has(payload)).await;
    }

    /// Waits for the next time that the link is down, if it was down `before` times, and says when that was.
    pub(crate) async fn until_down(&self, before: usize) -> Instant {
        self.until("the link is down", |seen| seen.downs.len() > before).await;
        self.seen().downs[before].0
    }

    /// Waits until every partition is up again, and checks that it did not take long.
    pub(crate) async fn until_up_within(&self, most: Duration) {
        let begin = Instant::now();
        self.until("every partition is up again", Seen::all_up).await;
        assert!(begin.elapsed() <= most, "{}: up only after {:?}", self.name, begin.elapsed());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}
