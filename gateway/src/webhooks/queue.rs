//! The events of one partition that are not delivered yet.
//!
//! Pure. Every node has this queue, so each can deliver in the place of one that died. Bounded by bytes; when it is full, the oldest
//! events are given up. A cursor from the log removes what another node has delivered.

use std::collections::VecDeque;

use super::batch::Batch;
use super::cursor::{ALL, Cursor};
use super::event::{Event, Mark};
use crate::cluster::Life;

/// The events.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: VecDeque<Waiting>,
    bytes: usize,
    /// Counts how often the log was lost: offsets of different logs cannot be compared.
    log: u32,
    /// The offset of the last record that was read.
    head: u64,
    /// Through which event of this log all are settled, as far as a cursor or this node's own deliveries say.
    through: Option<(u64, u32)>,
    /// The last event that this node settled, if its log is lost.
    old: Option<Mark>,
    /// Whether a cursor was read since the start.
    pub(super) guided: bool,
    /// Whether there is something that the last cursor of this node does not say.
    pub(super) unsaved: bool,
    missed: u64,
    /// From which record on this node has noted each event. `None` if it did not know all members then.
    whole: Option<u64>,
}

#[derive(Debug)]
struct Waiting {
    event: Event,
    log: u32,
}

impl Queue {
    /// Adds the newest event. Returns how many of the oldest are given up, so that the queue has at most `most` bytes.
    pub(super) fn push(&mut self, event: Event, most: usize) -> u64 {
        self.bytes += event.weight();
        self.events.push_back(Waiting { event, log: self.log });
        let mut given_up = 0;
        while self.bytes > most && self.events.len() > 1 {
            self.settle_first();
            given_up += 1;
        }
        self.missed += given_up;
        given_up
    }

    /// Notes how far the partition was read, after the events of its records were added.
    pub(super) fn advance(&mut self, offset: u64) {
        self.head = offset;
    }

    /// Notes that records are missing here. `other` if the next ones are of another log.
    pub(super) fn lost(&mut self, offset: u64, other: bool) {
        self.head = offset;
        if other {
            // What this node has, the new log cannot give to nodes that start later.
            self.whole = self.has_all().then_some(0);
            self.log += 1;
            (self.through, self.unsaved) = (None, true);
        } else {
            self.whole = None;
        }
    }

    /// Folds a cursor, which stands at this offset. Removes what it covers.
    pub(super) fn fold(&mut self, cursor: &Cursor, offset: u64, me: Life) {
        self.guided = true;
        if cursor.life == me {
            return;
        }
        self.missed = cursor.missed;
        let through = cursor.through.filter(|(at, _)| *at < offset);
        let named = cursor.id.as_ref().and_then(|id| {
            self.events.iter().position(|waiting| waiting.log < self.log && waiting.event.mark.to_string() == *id)
        });
        for _ in 0..named.map_or(0, |last| last + 1) {
            self.settle_first();
        }
        if let Some(through) = through {
            while self.events.front().is_some_and(|first| first.log < self.log || place(&first.event) <= through) {
                self.settle_first();
            }
            self.through = self.through.max(Some(through));
        }
    }

    /// What this node's cursor says now.
    pub(super) fn cursor(&mut self, me: Life) -> Cursor {
        if self.events.is_empty() {
            (self.through, self.old) = (self.through.max(Some((self.head, ALL))), None);
        }
        let id = self.old.filter(|_| self.through.is_none()).map(|mark| mark.to_string());
        Cursor { life: me, through: self.through, id, missed: self.missed }
    }

    /// The next events to be sent.
    pub(super) fn batch(&self) -> Option<Batch> {
        Batch::of(self.events.iter().map(|waiting| &waiting.event), self.missed)
    }

    /// Whether a batch still begins the queue.
    pub(super) fn begins_with(&self, batch: &Batch) -> bool {
        self.events.front().is_some_and(|first| first.event.mark == batch.first)
    }

    /// Removes a batch that was delivered. Returns how many of its events were still here.
    pub(super) fn delivered(&mut self, batch: &Batch) -> u64 {
        self.missed = 0;
        self.unsaved = true;
        let Some(last) = self.events.iter().position(|waiting| waiting.event.mark == batch.last) else { return 0 };
        for _ in 0..=last {
            self.settle_first();
        }
        last as u64 + 1
    }

    /// Gives up the events at the front that happened before a time. Returns them. Without any cursor in the log they are those of a time
    /// before the webhooks, which do not count.
    pub(super) fn expire(&mut self, before: u64) -> Vec<Event> {
        let counts = self.guided || self.through.is_some();
        let mut expired = Vec::new();
        while self.events.front().is_some_and(|first| first.event.time < before) {
            expired.extend(self.settle_first());
        }
        if !counts {
            return Vec::new();
        }
        self.missed += expired.len() as u64;
        self.unsaved |= !expired.is_empty();
        expired
    }

    /// When the oldest event happened.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.events.front().map(|first| first.event.time)
    }

    /// Notes that all members are known now, so each later event is here.
    pub(super) fn knows_members(&mut self) {
        self.whole.get_or_insert(self.head);
    }

    /// Whether all events that the log holds and no node has delivered are here.
    pub(super) fn has_all(&self) -> bool {
        let covered = |whole| !self.guided || whole == 0 || self.through.is_some_and(|(offset, _)| offset >= whole);
        self.whole.is_some_and(covered)
    }

    /// The offset of the last record that was read.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    pub(super) fn len(&self) -> u64 {
        self.events.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn settle_first(&mut self) -> Option<Event> {
        let Waiting { event, log } = self.events.pop_front()?;
        self.bytes -= event.weight();
        if log == self.log {
            (self.through, self.old) = (self.through.max(Some(place(&event))), None);
        } else {
            self.old = Some(event.mark);
        }
        Some(event)
    }
}

fn place(event: &Event) -> (u64, u32) {
    (event.mark.at.offset.0, event.mark.index)
}

#[cfg(test)]
mod tests;
