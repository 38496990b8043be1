//! A reader of the model broker: follows the partitions of one side of a fork.

use std::sync::Arc;

use async_trait::async_trait;
use broker_adapters::{Entry, LinkError, Partition, Reader};

use super::wire::Wire;
use super::{Reach, State};

pub(super) struct ModelReader {
    wire: Wire,
    session: u64,
    number: u64,
    /// The offset to read next, per partition.
    next: Vec<(Partition, u64)>,
}

impl ModelReader {
    pub(super) fn new(wire: Wire, session: u64, number: u64, next: Vec<(Partition, u64)>) -> Self {
        Self { wire, session, number, next }
    }

    /// The entries that can be read now.
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
