//! The messages of a channel before a position, from the ring.

use std::sync::Arc;

use broker_adapters::{Offset, Position};

use super::{Ring, Slot, same};
use crate::message::Message;

/// Where older messages are wanted: up to a record that the client or this node knows, with or without its own message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) at: Position,
    pub(crate) inclusive: bool,
}

impl Edge {
    /// Everything before a record.
    pub(crate) fn before(at: Position) -> Self {
        Self { at, inclusive: false }
    }

    /// Everything up to and with a record.
    pub(crate) fn with(at: Position) -> Self {
        Self { at, inclusive: true }
    }

    /// The first offset that is not wanted any more.
    pub(crate) fn end(self) -> u64 {
        self.at.offset.0 + u64::from(self.inclusive)
    }
}

/// The last messages before an edge, or why they are not known.
#[derive(Debug)]
pub(crate) enum Preceding {
    /// The last messages before the edge. There are no others between `from` and the edge.
    These {
        /// Oldest first: at most the requested number and bytes, but at least one message if there is one.
        messages: Vec<Arc<Message>>,
        /// A record: older messages are before it.
        from: Position,
        rest: Rest,
    },
    /// The record of the edge is older than the ring, or is its first one: older records must be read back.
    Older,
    /// The record of the edge is of another log, or too old to prove what stands before it.
    Unknown,
    /// The ring is past a break that the worker has not seen yet, so its records may be of another log.
    Ahead,
}

/// What is known of the messages before `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// There may be more: ask again.
    More,
    /// The log holds no record before it.
    None,
    /// The log holds older records, but this node cannot prove which of them were delivered.
    Unproven,
}

/// Collects messages from the newest to the oldest, up to a number and about `room` bytes.
pub(crate) struct Gathered {
    messages: Vec<Arc<Message>>,
    bytes: usize,
    most: usize,
    room: usize,
}

impl Gathered {
    pub(crate) fn new(most: usize, room: usize) -> Self {
        Self { messages: Vec::new(), bytes: 0, most, room }
    }

    /// Takes the next older message; false if there is no room for it.
    pub(crate) fn take(&mut self, message: &Arc<Message>) -> bool {
        let size = message.record.size().max(1);
        if self.messages.len() >= self.most || (self.bytes > 0 && self.bytes + size > self.room) {
            return false;
        }
        self.bytes += size;
        self.messages.push(Arc::clone(message));
        true
    }

    /// The answer when there was no room for a message: older ones are before the oldest one taken.
    pub(crate) fn full(self, edge: Position) -> Preceding {
        // There is always room for one message.
        let from = self.messages.last().map_or(edge, |oldest| oldest.record.position());
        self.all(from, Rest::More)
    }

    /// The answer when there are no others up to `from`.
    pub(crate) fn all(mut self, from: Position, rest: Rest) -> Preceding {
        self.messages.reverse();
        Preceding::These { messages: self.messages, from, rest }
    }
}

impl Ring {
    /// The last messages of a channel before an edge: at most `most`, and about `room` bytes. `breaks` is the number of breaks
    /// that the worker has seen.
    pub(crate) fn preceding(&self, channel: &str, edge: Edge, breaks: u64, (most, room): (usize, usize)) -> Preceding {
        if breaks != self.breaks {
            return Preceding::Ahead;
        }
        let Some(slot) = self.at(edge.at.offset.0) else {
            let older = self.reaches(edge.at.offset) && edge.at.offset.0 < self.first;
            return if older { Preceding::Older } else { Preceding::Unknown };
        };
        if !same(slot.recent.check, edge.at.check) {
            return Preceding::Unknown;
        }
        let begins = if self.first == 1 { Rest::None } else { Rest::More };
        if edge.end() == self.first && begins == Rest::More {
            return Preceding::Older;
        }
        let mut gathered = Gathered::new(most, room);
        let mut next = self.last_before(channel, edge, slot);
        while let Some((offset, slot)) = next.and_then(|offset| Some((offset, self.at(offset)?))) {
            let Some(message) = &slot.recent.message else { break };
            if !gathered.take(message) {
                return gathered.full(edge.at);
            }
            next = back(offset, slot);
        }
        let first = self.at(self.first).map_or(edge.at.check, |slot| slot.recent.check);
        gathered.all(Position { offset: Offset(self.first), check: first, ..edge.at }, begins)
    }

    /// The first offset from which records can be served: earlier repeated messages are not known.
    pub(crate) fn floor(&self) -> u64 {
        self.repeats_known_from
    }

    /// The offset of the last message of a channel before an edge, whose record is in `slot`.
    fn last_before(&self, channel: &str, edge: Edge, slot: &Slot) -> Option<u64> {
        let offset = edge.at.offset.0;
        if slot.recent.message.as_ref().is_some_and(|message| message.record.channel() == channel) {
            return if edge.inclusive { Some(offset) } else { back(offset, slot) };
        }
        let mut next = self.last(channel);
        while let Some(at) = next.filter(|&at| at >= offset) {
            next = self.at(at).and_then(|slot| back(at, slot));
        }
        next
    }
}

fn back(offset: u64, slot: &Slot) -> Option<u64> {
    (slot.previous > 0).then(|| offset - u64::from(slot.previous))
}
