//! What was published and what each reader saw, and whether the law holds: nothing lost without a mark.
//!
//! Knows of no broker and no socket: a *lane* is whatever has one order (a partition, a channel), a *reader* is
//! whoever should see everything in it, a message is its payload. Self-contained, so that other crates' tests
//! can include this file.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(String),
    /// The reader was told that something may be missing here.
    Mark,
    /// The reader was away, and was told that nothing is missing here.
    Recovered,
}

#[derive(Debug)]
struct Publish {
    lane: String,
    payload: String,
    /// When it began and ended, in events of this history.
    began: u64,
    ended: Option<(u64, Outcome)>,
}

/// One publish under way.
#[derive(Debug, Clone, Copy)]
pub struct PublishId(usize);

/// One reader.
#[derive(Debug, Clone, Copy)]
pub struct ReaderId(usize);

#[derive(Debug, Default)]
struct Events {
    clock: u64,
    publishes: Vec<Publish>,
    readers: Vec<(String, HashMap<String, Vec<Seen>>)>,
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

    /// A reader of all lanes, to be there before the first publish.
    pub fn reader(&self, name: &str) -> ReaderId {
        let mut events = self.lock();
        events.readers.push((name.into(), HashMap::new()));
        ReaderId(events.readers.len() - 1)
    }

    /// The reader got a message.
    pub fn saw(&self, reader: ReaderId, lane: &str, payload: &str) {
        self.met(reader, lane, Seen::Message(payload.into()));
    }

    /// The reader was told that messages may be missing at this place of the lane.
    pub fn marked(&self, reader: ReaderId, lane: &str) {
        self.met(reader, lane, Seen::Mark);
    }

    /// The reader was away, came back, and was told that it gets all that it has missed of the lane.
    pub fn recovered(&self, reader: ReaderId, lane: &str) {
        self.met(reader, lane, Seen::Recovered);
    }

    fn met(&self, ReaderId(reader): ReaderId, lane: &str, seen: Seen) {
        self.lock().readers[reader].1.entry(lane.into()).or_default().push(seen);
    }

    /// Judges the run, once every reader has seen all that it will.
    pub fn report(&self) -> Report {
        let events = self.lock();
        let mut report = Report::default();
        let mut lanes: HashMap<&str, HashMap<&str, &Publish>> = HashMap::new();
        for publish in &events.publishes {
            report.acked += usize::from(publish.acked().is_some());
            lanes.entry(&publish.lane).or_default().insert(&publish.payload, publish);
        }
        let nothing = HashMap::new();
        for (name, read) in &events.readers {
            let all: HashSet<&str> = read.keys().map(String::as_str).chain(lanes.keys().copied()).collect();
            for lane in all {
                let view = View {
                    reader: name,
                    lane,
                    seen: read.get(lane).map(Vec::as_slice).unwrap_or_default(),
                    published: lanes.get(lane).unwrap_or(&nothing),
                };
                view.check_each(&mut report);
                view.check_real_time(&mut report);
                let others = events.readers.iter().filter(|(other, _)| other != name);
                let others: Vec<_> = others.filter_map(|(_, read)| read.get(lane).map(Vec::as_slice)).collect();
                view.check_order(&others, &mut report);
                view.check_missing(&others, &mut report);
            }
        }
        report
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publish {
    /// When it was acknowledged.
    fn acked(&self) -> Option<u64> {
        self.ended.filter(|(_, outcome)| *outcome == Outcome::Acknowledged).map(|(at, _)| at)
    }
}

/// The verdict, and its numbers over all readers.
#[derive(Debug, Default)]
pub struct Report {
    /// Acknowledged publishes.
    pub acked: usize,
    /// Messages seen.
    pub delivered: usize,
    /// Messages seen again.
    pub duplicate: usize,
    /// Marks seen.
    pub lost_marked: usize,
    /// Acknowledged messages that a reader missed without a mark.
    pub silent_loss: usize,
    /// Every breach of a rule, in words.
    pub breaches: Vec<String>,
}

impl Report {
    /// Panics unless all rules were kept.
    #[track_caller]
    pub fn assert_lawful(&self) {
        assert!(self.breaches.is_empty(), "{self}");
    }

    /// Panics unless all rules were kept and no reader was told of a loss.
    #[track_caller]
    pub fn assert_whole(&self) {
        self.assert_lawful();
        assert_eq!(self.lost_marked, 0, "{self}: marks where nothing may be lost");
    }

    fn breach(&mut self, view: &View<'_>, what: fmt::Arguments<'_>) {
        self.breaches.push(format!("{} in lane {}: {what}", view.reader, view.lane));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, delivered, duplicate, lost_marked, silent_loss, breaches } = self;
        write!(f, "acked {acked}, delivered {delivered}, duplicate {duplicate}, ")?;
        write!(f, "lost-marked {lost_marked}, silent-loss {silent_loss}")?;
        breaches.iter().take(10).try_for_each(|breach| write!(f, "\n  {breach}"))?;
        if breaches.len() > 10 { write!(f, "\n  and {} more", breaches.len() - 10) } else { Ok(()) }
    }
}

/// One reader's view of one lane.
struct View<'a> {
    reader: &'a str,
    lane: &'a str,
    seen: &'a [Seen],
    published: &'a HashMap<&'a str, &'a Publish>,
}

/// Where each message stands among what was seen.
fn places<'a>(seen: &'a [Seen]) -> HashMap<&'a str, usize> {
    let place = |(place, seen): (usize, &'a Seen)| match seen {
        Seen::Message(payload) => Some((payload.as_str(), place)),
        Seen::Mark | Seen::Recovered => None,
    };
    seen.iter().enumerate().filter_map(place).collect()
}

impl View<'_> {
    fn messages(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().filter_map(|seen| match seen {
            Seen::Message(payload) => Some(payload.as_str()),
            Seen::Mark | Seen::Recovered => None,
        })
    }

    /// No duplicate, no invention, nothing that failed.
    fn check_each(&self, report: &mut Report) {
        let mut before = HashSet::new();
        for payload in self.messages() {
            report.delivered += 1;
            if !before.insert(payload) {
                report.duplicate += 1;
                report.breach(self, format_args!("`{payload}` came twice"));
            }
            match self.published.get(payload).map(|publish| publish.ended) {
                None => report.breach(self, format_args!("`{payload}` was never published there")),
                Some(Some((_, Outcome::Failed))) => report.breach(self, format_args!("`{payload}` had failed")),
                Some(_) => {}
            }
        }
        report.lost_marked += self.seen.iter().filter(|seen| **seen == Seen::Mark).count();
    }

    /// What began after another was acknowledged comes after it.
    fn check_real_time(&self, report: &mut Report) {
        let mut latest: Option<&Publish> = None;
        for publish in self.messages().filter_map(|payload| self.published.get(payload)) {
            if let (Some(before), Some(acked)) = (latest, publish.acked())
                && acked < before.began
            {
                let (late, early) = (&publish.payload, &before.payload);
                report.breach(self, format_args!("`{late}` came after `{early}`, which began after its end"));
            }
            if latest.is_none_or(|latest| latest.began < publish.began) {
                latest = Some(publish);
            }
        }
    }

    /// All readers agree on the order.
    fn check_order(&self, others: &[&[Seen]], report: &mut Report) {
        for other in others {
            let theirs = places(other);
            let mut last: Option<(&str, usize)> = None;
            for (payload, place) in self.messages().filter_map(|payload| Some((payload, *theirs.get(payload)?))) {
                if let Some((before, _)) = last.filter(|(_, last)| *last > place) {
                    report.breach(self, format_args!("`{before}` before `{payload}`, another reader has it reversed"));
                }
                last = Some((payload, place));
            }
        }
    }

    /// Whatever was acknowledged was seen, or a mark stands where it should have been.
    fn check_missing(&self, others: &[&[Seen]], report: &mut Report) {
        let mine = places(self.seen);
        let others: Vec<_> = others.iter().map(|theirs| (*theirs, places(theirs))).collect();
        for (payload, publish) in self.published {
            let Some(acked) = publish.acked().filter(|_| !mine.contains_key(payload)) else { continue };
            // It belongs behind what surely came before it, and before what surely came after it.
            let (mut from, mut to) = (0, self.seen.len());
            for (&other, &place) in &mine {
                let Some(other) = self.published.get(other) else { continue };
                if other.acked().is_some_and(|ended| ended < publish.began) {
                    from = from.max(place + 1);
                }
                if other.began > acked {
                    to = to.min(place);
                }
            }
            for (theirs, places) in &others {
                let Some(&here) = places.get(payload) else { continue };
                let known = |seen: &Seen| match seen {
                    Seen::Message(payload) => mine.get(payload.as_str()).copied(),
                    Seen::Mark | Seen::Recovered => None,
                };
                from = theirs[..here].iter().rev().find_map(known).map_or(from, |place| from.max(place + 1));
                to = theirs[here..].iter().find_map(known).map_or(to, |place| to.min(place));
            }
            let around = self.seen.get(from..to).unwrap_or_default();
            if around.contains(&Seen::Mark) {
                continue;
            }
            report.silent_loss += 1;
            let how = if around.contains(&Seen::Recovered) {
                "from a recovery that was said to be whole"
            } else {
                "and nobody was told"
            };
            report.breach(self, format_args!("`{payload}` was acknowledged, is missing, {how}"));
        }
    }
}
