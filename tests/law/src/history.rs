//! What was published and what each reader met, in the order in which it happened.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::report::Report;
use crate::rules::View;

/// How a publish ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored.
    Acknowledged,
    /// Surely not stored.
    Failed,
    /// Perhaps stored.
    Unknown,
}

/// What a reader met in a lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Met {
    /// A message.
    Message(String),
    /// A message, and when it came since the run began. Readers whose right is withdrawn need the time.
    Timed(String, Duration),
    /// The reader was notified, or knows, that messages may be missing here.
    Mark,
    /// The reader was away, came back, and was promised all that it had missed.
    Recovered,
    /// A message from before the place at which the reader was to begin, in words. It breaks the law.
    Early(String),
    /// The reader's right to the lane was withdrawn: no message may come after this time since the run began.
    Withdrawn {
        /// When the withdrawal was acknowledged, and the time that it may take to act.
        by: Duration,
    },
    /// The right was given again.
    Given,
}

#[derive(Debug)]
pub(crate) struct Publish {
    lane: String,
    pub(crate) payload: String,
    /// When it began and ended, in events of this history.
    pub(crate) began: u64,
    pub(crate) ended: Option<(u64, Outcome)>,
}

impl Publish {
    /// When it was acknowledged.
    pub(crate) fn acked(&self) -> Option<u64> {
        self.ended.filter(|(_, outcome)| *outcome == Outcome::Acknowledged).map(|(at, _)| at)
    }
}

/// One publish under way.
#[derive(Debug, Clone, Copy)]
pub struct PublishId(usize);

/// One reader.
#[derive(Debug, Clone, Copy)]
pub struct ReaderId(usize);

/// A reader, or several that met the same.
#[derive(Debug)]
struct Reader {
    name: String,
    count: usize,
    lanes: HashMap<String, Vec<Met>>,
}

#[derive(Debug, Default)]
struct Events {
    clock: u64,
    publishes: Vec<Publish>,
    readers: Vec<Reader>,
}

/// A record of one run. Cloning gives another handle to it.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Events>>);

impl History {
    /// A publish begins. Payloads must be unique.
    pub fn publish(&self, lane: &str, payload: &str) -> PublishId {
        let mut events = self.lock();
        events.clock += 1;
        let publish = Publish { lane: lane.into(), payload: payload.into(), began: events.clock, ended: None };
        events.publishes.push(publish);
        PublishId(events.publishes.len() - 1)
    }

    /// A publish ends. One that never does counts as unknown.
    pub fn ended(&self, PublishId(id): PublishId, outcome: Outcome) {
        let mut events = self.lock();
        events.clock += 1;
        events.publishes[id].ended = Some((events.clock, outcome));
    }

    /// A reader of all lanes, which must be there before the first publish.
    pub fn reader(&self, name: &str) -> ReaderId {
        let mut events = self.lock();
        events.readers.push(Reader { name: name.into(), count: 1, lanes: HashMap::new() });
        ReaderId(events.readers.len() - 1)
    }

    /// The reader got a message.
    pub fn saw(&self, reader: ReaderId, lane: &str, payload: &str) {
        self.met(reader, lane, Met::Message(payload.into()));
    }

    /// The reader was notified that messages may be missing at this place of the lane.
    pub fn marked(&self, reader: ReaderId, lane: &str) {
        self.met(reader, lane, Met::Mark);
    }

    /// The reader was away, came back, and was promised all that it had missed of the lane.
    pub fn recovered(&self, reader: ReaderId, lane: &str) {
        self.met(reader, lane, Met::Recovered);
    }

    /// The reader got a message at this time since the run began.
    pub fn saw_at(&self, reader: ReaderId, lane: &str, payload: &str, at: Duration) {
        self.met(reader, lane, Met::Timed(payload.into(), at));
    }

    /// The reader's right to the lane was withdrawn: no message may come after this time since the run began.
    pub fn withdrawn(&self, reader: ReaderId, lane: &str, by: Duration) {
        self.met(reader, lane, Met::Withdrawn { by });
    }

    /// The right was given again.
    pub fn given(&self, reader: ReaderId, lane: &str) {
        self.met(reader, lane, Met::Given);
    }

    fn met(&self, ReaderId(reader): ReaderId, lane: &str, met: Met) {
        self.lock().readers[reader].lanes.entry(lane.into()).or_default().push(met);
    }

    /// Judges the run, once every reader has met all that it will.
    pub fn report(&self) -> Report {
        let events = self.lock();
        judge(&events.publishes, &events.readers)
    }

    /// Judges what these readers met in one lane, instead of the recorded readers. Equal views are judged as one, so
    /// that hundreds of readers cost little; each is still counted.
    pub fn report_of(&self, lane: &str, views: impl IntoIterator<Item = Vec<Met>>) -> Report {
        let mut distinct: HashMap<Vec<Met>, usize> = HashMap::new();
        for view in views {
            *distinct.entry(view).or_default() += 1;
        }
        let reader = |(number, (view, count)): (usize, (Vec<Met>, usize))| {
            let name = format!("view {number}, of {count} readers,");
            Reader { name, count, lanes: HashMap::from([(lane.to_owned(), view)]) }
        };
        let readers: Vec<_> = distinct.into_iter().enumerate().map(reader).collect();
        judge(&self.lock().publishes, &readers)
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn judge(publishes: &[Publish], readers: &[Reader]) -> Report {
    let mut report = Report::default();
    let mut lanes: HashMap<&str, HashMap<&str, &Publish>> = HashMap::new();
    for publish in publishes {
        report.acked += usize::from(publish.acked().is_some());
        lanes.entry(&publish.lane).or_default().insert(&publish.payload, publish);
    }
    let nothing = HashMap::new();
    for (number, reader) in readers.iter().enumerate() {
        let all: HashSet<&str> = reader.lanes.keys().map(String::as_str).chain(lanes.keys().copied()).collect();
        for lane in all {
            let others = readers.iter().enumerate().filter(|(other, _)| *other != number);
            let view = View {
                reader: &reader.name,
                count: reader.count,
                lane,
                met: reader.lanes.get(lane).map(Vec::as_slice).unwrap_or_default(),
                others: others.filter_map(|(_, other)| other.lanes.get(lane).map(Vec::as_slice)).collect(),
                published: lanes.get(lane).unwrap_or(&nothing),
            };
            view.check(&mut report);
        }
    }
    report
}
