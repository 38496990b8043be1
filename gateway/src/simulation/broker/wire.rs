//! The model broker as one node sees it: appends, read-backs and new readers.
//!
//! Each append runs as a task: it may be carried out after its caller has stopped waiting.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker_adapters::{
    Append, AppendError, Broker, Capabilities, Entry, LinkError, Offset, Opened, Partition, Standing, Start, Stored,
};
use fastrand::Rng;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::reader::ModelReader;
use super::{Flakiness, Link, Model, Reach};
use crate::simulation::ledger::{Ledger, Side};

#[derive(Clone)]
pub(super) struct Wire {
    pub(super) model: Arc<Model>,
    pub(super) node: usize,
    /// Keeps requests in the order in which they were made.
    pub(super) order: Arc<tokio::sync::Mutex<()>>,
}

/// What the broker does with a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handling {
    Stored,
    Refused,
    /// The request is lost.
    Vanished,
    /// The batch is stored, but the answer is lost.
    Unanswered,
    /// The batch is stored long after the answer `unknown`.
    Late,
    /// The batch is stored twice.
    Twice,
    /// Only the first part of the batch is stored.
    Torn,
}

fn unknown(batch: &[Append]) -> Vec<Result<Stored, AppendError>> {
    batch.iter().map(|_| Err(AppendError::Unknown("no answer".into()))).collect()
}

impl Wire {
    fn draw<T>(&self, draw: impl FnOnce(&mut Rng, Flakiness) -> T) -> T {
        let mut state = self.model.lock();
        let flakiness = state.flakiness;
        draw(&mut state.rng, flakiness)
    }

    fn link<T>(&self, look: impl FnOnce(&Link) -> T) -> T {
        look(&self.model.lock().links[self.node])
    }

    /// Waits as long as a request or an answer travels.
    pub(super) async fn travel(&self) {
        sleep(Duration::from_millis(self.draw(|rng, flakiness| rng.u64(0..=flakiness.delay)))).await;
    }

    /// Waits while the link is stalled.
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
                let at = at.map(|at| Some(at).filter(|_| self.model.traits.acks_have_positions));
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
        let turn = self.order.lock().await;
        self.travel().await;
        self.answered().await;
        let handling = self.draw(|rng, flakiness| match (rng.u32(0..100) < flakiness.append, rng.u8(0..6)) {
            (false, _) => Handling::Stored,
            (true, 0) => Handling::Refused,
            (true, 1) => Handling::Vanished,
            (true, 2) => Handling::Unanswered,
            (true, 3) => Handling::Late,
            (true, 4) => Handling::Twice,
            (true, _) => Handling::Torn,
        });
        let ended = || self.link(|link| link.session) != session;
        if ended() && self.draw(|rng, _| rng.bool()) {
            return unknown(&batch);
        }
        let result = match handling {
            Handling::Stored => self.store(&batch),
            Handling::Refused => batch.iter().map(|_| Err(AppendError::NotStored("not now".into()))).collect(),
            Handling::Vanished => unknown(&batch),
            Handling::Unanswered => {
                self.store(&batch);
                unknown(&batch)
            }
            Handling::Late => {
                let wire = self.clone();
                let (result, after) = (unknown(&batch), self.draw(|rng, _| rng.u64(1..4_000)));
                tokio::spawn(async move {
                    sleep(Duration::from_millis(after)).await;
                    wire.store(&batch);
                });
                return result;
            }
            Handling::Twice => {
                let result = self.store(&batch);
                self.store(&batch);
                result
            }
            Handling::Torn => {
                let (first, rest) = batch.split_at(self.draw(|rng, _| rng.usize(0..=batch.len())));
                let mut result = self.store(first);
                result.extend(unknown(rest));
                result
            }
        };
        drop(turn);
        self.travel().await;
        self.answered().await;
        // The batch may be stored, but the answer does not arrive.
        if ended() { unknown(&batch) } else { result }
    }
}

#[async_trait]
impl Broker for Wire {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "model", durable: true, max_bytes: 1 << 20, pipeline: self.model.traits.pipeline }
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
            let back = if self.model.traits.chunks { state.rng.u64(0..4) } else { 0 };
            next.push((partition, start.first(end).0.saturating_sub(back)));
        }
        let link = &mut state.links[self.node];
        link.opened += 1;
        let (session, number) = (link.session, link.opened);
        Ok(Opened { standings, reader: Box::new(ModelReader::new(self.clone(), session, number, next)) })
    }

    async fn read_back(&self, partition: Partition, before: Offset, most: usize) -> Result<Vec<Entry>, LinkError> {
        self.travel().await;
        self.answered().await;
        self.whole()?;
        let delay = self.draw(|rng, flakiness| (rng.u32(0..100) < flakiness.read_back).then(|| rng.u64(0..7_000)));
        match delay {
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
        self.model.change(|state| state.links[self.node].appends_old = false);
    }

    async fn close(&self) {}
}

impl Wire {
    pub(super) fn entry(&self, ledger: &Ledger, side: Side, partition: Partition, offset: u64) -> Option<Entry> {
        let epoch = ledger.side(side, partition)?.epoch;
        let epoch = Some(epoch).filter(|_| self.model.traits.entries_have_epochs);
        let written = ledger.at(side, partition, offset)?;
        let previous = ledger.previous(written).filter(|_| self.model.traits.entries_have_previous);
        Some(Entry { partition, epoch, offset: Offset(offset), previous, bytes: written.bytes.clone() })
    }
}
