//! A broker in memory that does, by the seed, whatever the contract of [`Broker`] allows, and what real ones do.
//!
//! Each node has a link of its own. A request is a task: whoever stops waiting for it takes nothing back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use broker_adapters::{
    Append, AppendError, Broker, Capabilities, Entry, LinkError, Offset, Opened, Partition, Reader, Standing, Start,
    Stored,
};
use fastrand::Rng;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::ledger::{Ledger, Side};

/// How a node reaches the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reach {
    #[default]
    Whole,
    /// Every request fails.
    Cut,
    /// Nothing is answered; what was asked meanwhile may still be carried out.
    Stalled,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) reach: Reach,
    /// Rises when the connections of the node end.
    pub(super) session: u64,
    /// How many readers were opened.
    pub(super) opened: u64,
    /// So many of the first of them show nothing any more.
    pub(super) deaf: u64,
    /// The next read passes over one record.
    pub(super) skip: bool,
    /// So many of the first readers are connected to the side of a fork that was left.
    pub(super) left_readers: u64,
    /// Appends and read-backs go there.
    pub(super) appends_left: bool,
}

impl Link {
    fn appends(&self) -> Side {
        if self.appends_left { Side::Left } else { Side::New }
    }

    fn reader(&self, number: u64) -> Side {
        if number <= self.left_readers { Side::Left } else { Side::New }
    }
}

/// How often things go wrong that need no fault of their own; of 100.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    pub(super) append: u32,
    pub(super) read_back: u32,
    /// Milliseconds that a message may be on its way, at most.
    pub(super) delay: u64,
}

/// What differs between real brokers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manners {
    /// Entries hold the epoch; otherwise a wipe ends all readers.
    pub(super) entries_have_epochs: bool,
    /// Entries hold the fingerprint of the one before.
    pub(super) entries_have_previous: bool,
    /// Acknowledgements hold the position.
    pub(super) acks_have_positions: bool,
    /// Readers begin at a chunk, not at the record asked for.
    pub(super) chunks: bool,
    /// Appends that it takes at a time.
    pub(super) pipeline: usize,
}

pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) links: Vec<Link>,
    pub(super) weather: Weather,
    rng: Rng,
}

pub(super) struct Model {
    state: Mutex<State>,
    changed: Notify,
    manners: Manners,
}

impl Model {
    pub(super) fn new(partitions: u16, nodes: usize, manners: Manners, rng: Rng) -> Arc<Self> {
        let links = (0..nodes).map(|_| Link::default()).collect();
        let weather = Weather { delay: 3, ..Weather::default() };
        let state = State { ledger: Ledger::new(partitions), links, weather, rng };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), manners })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that others may wait for.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Ends the connections of some nodes.
    pub(super) fn end_sessions(&self, of: impl Fn(usize) -> bool) {
        let end = |(_, link): (usize, &mut Link)| link.session += 1;
        self.change(|state| state.links.iter_mut().enumerate().filter(|(node, _)| of(*node)).for_each(end));
    }

    pub(super) fn wipe(&self, partition: usize) {
        self.change(|state| {
            let epoch = state.rng.u64(100..);
            state.ledger.wipe(partition, epoch);
        });
        if !self.manners.entries_have_epochs {
            self.end_sessions(|_| true);
        }
    }

    /// Two servers take themselves for the primary; each connection leads to one of them. False if there is a fork already.
    pub(super) fn fork(&self, records: usize, rng: &mut Rng) -> bool {
        if self.lock().ledger.is_split() {
            return false;
        }
        self.change(|state| {
            state.ledger.fork(records);
            for link in &mut state.links {
                link.appends_left = rng.bool();
                if rng.bool() {
                    link.left_readers = link.opened;
                } else {
                    link.session += 1;
                }
            }
        });
        true
    }

    /// The server that was left is gone, and all connections to it.
    pub(super) fn join(&self) {
        self.change(|state| {
            state.ledger.join();
            for link in &mut state.links {
                if link.appends_left || link.left_readers > 0 {
                    link.session += 1;
                }
                (link.appends_left, link.left_readers) = (false, 0);
            }
        });
    }

    /// The log of a partition goes back while it is read. Where entries do not name the one before, connections end, as
    /// they do at the brokers of that kind.
    pub(super) fn set_back(&self, partition: usize, records: usize) {
        self.change(|state| state.ledger.set_back(partition, records));
        if !self.manners.entries_have_previous {
            self.end_sessions(|_| true);
        }
    }

    /// The link of a node.
    pub(super) fn link(self: &Arc<Self>, node: usize) -> Arc<dyn Broker> {
        Arc::new(Wire { model: Arc::clone(self), node, line: Arc::default() })
    }
}

#[derive(Clone)]
struct Wire {
    model: Arc<Model>,
    node: usize,
    /// Requests arrive in the order in which they were made.
    line: Arc<tokio::sync::Mutex<()>>,
}

/// What becomes of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stored,
    Refused,
    /// The request is lost on its way.
    Vanished,
    /// The answer is.
    Unanswered,
    /// Applied long after the answer was given up.
    Late,
    /// The broker stores it twice.
    Twice,
    /// Only a part of it arrives.
    Torn,
}

fn unknown(batch: &[Append]) -> Vec<Result<Stored, AppendError>> {
    batch.iter().map(|_| Err(AppendError::Unknown("no answer".into()))).collect()
}

impl Wire {
    fn draw<T>(&self, draw: impl FnOnce(&mut Rng, Weather) -> T) -> T {
        let mut state = self.model.lock();
        let weather = state.weather;
        draw(&mut state.rng, weather)
    }

    fn link<T>(&self, look: impl FnOnce(&Link) -> T) -> T {
        look(&self.model.lock().links[self.node])
    }

    async fn travel(&self) {
        sleep(Duration::from_millis(self.draw(|rng, weather| rng.u64(0..=weather.delay)))).await;
    }

    /// Waits while nothing is answered.
    async fn answered(&self) {
        loop {
            let changed = self.model.changed.notified();
            if self.link(|link| link.reach) != Reach::Stalled {
                return;
            }
            changed.await;
        }
    }

    fn whole(&self) -> Result<(), LinkError> {
        if self.link(|link| link.reach) == Reach::Cut { Err(LinkError::new("the link is cut")) } else { Ok(()) }
    }

    fn store(&self, batch: &[Append]) -> Vec<Result<Stored, AppendError>> {
        let mut stored = Vec::new();
        self.model.change(|state| {
            let side = state.links[self.node].appends();
            for append in batch {
                let at = state.ledger.append_on(side, append.partition, append.bytes.clone());
                let gone = AppendError::Unknown("that server is gone".into());
                let at = at.map(|at| Some(at).filter(|_| self.model.manners.acks_have_positions));
                stored.push(at.map(|at| Stored { at }).ok_or(gone));
            }
        });
        stored
    }

    async fn request(self, batch: Vec<Append>) -> Vec<Result<Stored, AppendError>> {
        let session = self.link(|link| link.session);
        if self.whole().is_err() {
            return batch.iter().map(|_| Err(AppendError::NotStored("the link is cut".into()))).collect();
        }
        let turn = self.line.lock().await;
        self.travel().await;
        self.answered().await;
        let fate = self.draw(|rng, weather| match (rng.u32(0..100) < weather.append, rng.u8(0..6)) {
            (false, _) => Fate::Stored,
            (true, 0) => Fate::Refused,
            (true, 1) => Fate::Vanished,
            (true, 2) => Fate::Unanswered,
            (true, 3) => Fate::Late,
            (true, 4) => Fate::Twice,
            (true, _) => Fate::Torn,
        });
        let ended = || self.link(|link| link.session) != session;
        if ended() && self.draw(|rng, _| rng.bool()) {
            return unknown(&batch);
        }
        let result = match fate {
            Fate::Stored => self.store(&batch),
            Fate::Refused => batch.iter().map(|_| Err(AppendError::NotStored("not now".into()))).collect(),
            Fate::Vanished => unknown(&batch),
            Fate::Unanswered => {
                self.store(&batch);
                unknown(&batch)
            }
            Fate::Late => {
                let wire = self.clone();
                let (result, after) = (unknown(&batch), self.draw(|rng, _| rng.u64(1..4_000)));
                tokio::spawn(async move {
                    sleep(Duration::from_millis(after)).await;
                    wire.store(&batch);
                });
                return result;
            }
            Fate::Twice => {
                let result = self.store(&batch);
                self.store(&batch);
                result
            }
            Fate::Torn => {
                let (first, rest) = batch.split_at(self.draw(|rng, _| rng.usize(0..=batch.len())));
                let mut result = self.store(first);
                result.extend(unknown(rest));
                result
            }
        };
        drop(turn);
        self.travel().await;
        self.answered().await;
        // What was stored was stored, but nobody hears of it.
        if ended() { unknown(&batch) } else { result }
    }
}

#[async_trait]
impl Broker for Wire {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "model", durable: true, max_bytes: 1 << 20, pipeline: self.model.manners.pipeline }
    }

    async fn append(&self, batch: &[Append], deadline: Instant) -> Vec<Result<Stored, AppendError>> {
        let (answer, answered) = oneshot::channel();
        let request = self.clone().request(batch.to_vec());
        tokio::spawn(async move { answer.send(request.await) });
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => result,
            _ => unknown(batch),
        }
    }

    async fn open(&self, from: &[(Partition, Start)]) -> Result<Opened, LinkError> {
        self.travel().await;
        self.answered().await;
        self.whole()?;
        let mut state = self.model.lock();
        let (mut standings, mut next) = (Vec::new(), Vec::new());
        for &(partition, start) in from {
            let kept = &state.ledger.partitions[usize::from(partition.0)];
            let (epoch, end) = (kept.epoch, Offset(kept.next()));
            standings.push(Standing { partition, epoch, next: end });
            let back = if self.model.manners.chunks { state.rng.u64(0..4) } else { 0 };
            next.push((partition, start.first(end).0.saturating_sub(back)));
        }
        let link = &mut state.links[self.node];
        link.opened += 1;
        let (session, number) = (link.session, link.opened);
        Ok(Opened { standings, reader: Box::new(ModelReader { wire: self.clone(), session, number, next }) })
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        self.travel().await;
        self.answered().await;
        self.whole()?;
        let trouble = self.draw(|rng, weather| (rng.u32(0..100) < weather.read_back).then(|| rng.u64(0..7_000)));
        match trouble {
            Some(0..2_000) => return Err(LinkError::new("cannot read back")),
            Some(slow) => sleep(Duration::from_millis(slow)).await,
            None => {}
        }
        let state = self.model.lock();
        let side = state.links[self.node].appends();
        let Some(kept) = state.ledger.side(side, partition) else { return Err(LinkError::new("that server is gone")) };
        let end = before.0.min(kept.next());
        let from = before.0.saturating_sub(most as u64).max(1);
        Ok((from..end).filter_map(|offset| self.entry(&state.ledger, side, partition, offset)).collect())
    }

    async fn redial(&self) {
        self.model.change(|state| state.links[self.node].appends_left = false);
    }

    async fn close(&self) {}
}

impl Wire {
    fn entry(&self, ledger: &Ledger, side: Side, partition: Partition, offset: u64) -> Option<Entry> {
        let epoch = ledger.side(side, partition)?.epoch;
        let epoch = Some(epoch).filter(|_| self.model.manners.entries_have_epochs);
        let stand = ledger.at(side, partition, offset)?;
        let previous = ledger.previous(stand).filter(|_| self.model.manners.entries_have_previous);
        Some(Entry { partition, epoch, offset: Offset(offset), previous, bytes: stand.bytes.clone() })
    }
}

struct ModelReader {
    wire: Wire,
    session: u64,
    number: u64,
    /// The offset to read next, per partition.
    next: Vec<(Partition, u64)>,
}

impl ModelReader {
    /// What can be read now.
    fn take(&mut self) -> Result<Vec<Entry>, LinkError> {
        let model = Arc::clone(&self.wire.model);
        let mut state = model.lock();
        let State { ledger, links, rng, .. } = &mut *state;
        let link = &mut links[self.wire.node];
        if link.session != self.session || link.reach == Reach::Cut {
            return Err(LinkError::new("the connection ended"));
        }
        let mut entries = Vec::new();
        if link.reach == Reach::Stalled || link.deaf >= self.number {
            return Ok(entries);
        }
        let side = link.reader(self.number);
        for (partition, next) in &mut self.next {
            let Some(kept) = ledger.side(side, *partition) else {
                return Err(LinkError::new("that server is gone"));
            };
            let (mut from, end) = ((*next).max(kept.first), kept.next());
            if from < end && link.skip {
                link.skip = false;
                from += 1;
            }
            let until = end.min(from + rng.u64(1..=8));
            entries.extend((from..until).filter_map(|offset| self.wire.entry(ledger, side, *partition, offset)));
            *next = until.max(*next);
        }
        Ok(entries)
    }

    fn has_news(&self) -> bool {
        let state = self.wire.model.lock();
        let link = &state.links[self.wire.node];
        let news = |&(partition, next): &(Partition, u64)| {
            let kept = state.ledger.side(link.reader(self.number), partition);
            kept.is_none_or(|kept| next.max(kept.first) < kept.next())
        };
        let silent = link.reach == Reach::Stalled || link.deaf >= self.number;
        link.session != self.session || link.reach == Reach::Cut || (!silent && self.next.iter().any(news))
    }
}

#[async_trait]
impl Reader for ModelReader {
    async fn next(&mut self) -> Result<Vec<Entry>, LinkError> {
        loop {
            let model = Arc::clone(&self.wire.model);
            let changed = model.changed.notified();
            if self.has_news() {
                self.wire.travel().await;
                let entries = self.take()?;
                if !entries.is_empty() {
                    return Ok(entries);
                }
                continue;
            }
            changed.await;
        }
    }
}
