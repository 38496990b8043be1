//! The recent records of one partition, without gaps from the oldest kept to the newest.
//!
//! Pure. Each record is linked to the previous and the next one of its channel, and each channel to its last record. So the
//! messages that a client missed are found without visiting other channels, and are returned piece by piece. The ring
//! limits the age of records; its owner limits the bytes and evicts. It returns only messages that provably follow the
//! client's position. For a position before the oldest record the answer is `Older`.

mod newest;
mod preceding;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker_adapters::{Check, Offset, Position, Seen};

use self::newest::Newest;
pub(crate) use self::preceding::{Edge, Gathered, Preceding, Rest};
use crate::message::Message;

/// The overhead of a message in bytes, besides twice its size: the content is in memory once as read and once as a frame.
/// See "What connections cost" in docs/benchmarks.md.
pub(crate) const OVERHEAD: usize = 620;

/// The size of a record without a message, in bytes.
const EMPTY: usize = size_of::<Slot>();

/// The number of repeated messages to remember after their eviction.
const REPEATED: usize = 65_536;

/// One record for the ring.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    pub(crate) offset: Offset,
    pub(crate) check: Check,
    /// Milliseconds since 1970.
    time: u64,
    pub(crate) message: Option<Arc<Message>>,
    /// An earlier record holds the same message.
    repeated: bool,
}

impl From<Seen> for Recent {
    fn from(seen: Seen) -> Self {
        let message = seen.message.map(|record| Arc::new(Message::new(record)));
        Self { offset: seen.offset, check: seen.check, time: seen.time, message, repeated: seen.repeated }
    }
}

impl Recent {
    fn bytes(&self) -> usize {
        self.message.as_ref().map_or(EMPTY, |message| 2 * message.record.size() + OVERHEAD)
    }
}

/// The messages that a client has missed, or why they are not known.
#[derive(Debug)]
pub(crate) enum Owed {
    /// The next messages, oldest first. The client needs no others up to `to`.
    These {
        /// At most the requested number of bytes, but at least one message if there is one.
        messages: Vec<Arc<Message>>,
        /// The requested end if these are all messages, otherwise the position of the last one.
        to: Position,
    },
    /// The oldest record kept is after the client's position: older records must be read back.
    Older,
    /// The position is from another log, or too far back to prove what follows it.
    Unknown,
    /// The ring is past a break that the worker has not seen yet, so its records may be from another log.
    Ahead,
}

/// One partition's records.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The maximum age of records, in milliseconds.
    age: u64,
    slots: VecDeque<Slot>,
    /// The offset of the front of `slots`.
    first: u64,
    bytes: usize,
    /// The last message of each channel in the ring.
    last: Newest,
    /// From this offset on the repeated messages are known. Records before it cannot be served.
    repeats_known_from: u64,
    /// Repeated messages from there to the front of `slots`, by offset: a record that is read back does not show that it is
    /// repeated. With fingerprints, because the log of another server may have another message at the same offset.
    repeated: BTreeMap<u64, Check>,
    /// The number of breaks in the log so far.
    breaks: u64,
}

#[derive(Debug)]
struct Slot {
    recent: Recent,
    /// Distance to the previous message of the same channel; 0 if the ring held none.
    previous: u32,
    /// Distance to the next message of the same channel; 0 if there is none yet.
    next: u32,
}

impl Ring {
    pub(crate) fn new(age: u64) -> Self {
        let (slots, last, repeated) = (VecDeque::new(), Newest::default(), BTreeMap::new());
        Self { age, slots, first: 0, bytes: 0, last, repeats_known_from: 0, repeated, breaks: 0 }
    }

    /// Adds the next record of the log. A record that does not follow the last one restarts the ring.
    pub(crate) fn append(&mut self, mut recent: Recent, now: u64) {
        // A publisher's clock that is ahead must not keep records for longer.
        recent.time = recent.time.min(now);
        if self.slots.is_empty() || recent.offset.0 != self.next() {
            self.forget();
            self.first = recent.offset.0;
            self.repeats_known_from = self.first;
        }
        self.push(recent);
        while self.slots.len() > 1 && self.oldest().is_some_and(|time| now.saturating_sub(time) > self.age) {
            self.evict();
        }
    }

    /// Handles a break in the log: forgets all records, since the next one may be from another log.
    pub(crate) fn clear(&mut self) {
        self.forget();
        self.breaks += 1;
    }

    /// The number of breaks in the log so far.
    pub(crate) fn breaks(&self) -> u64 {
        self.breaks
    }

    /// The size of all records, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The average size of a record, in bytes.
    pub(crate) fn average(&self) -> usize {
        self.bytes / self.slots.len().max(1)
    }

    /// The offset and the fingerprint of the newest record.
    pub(crate) fn end(&self) -> Option<(Offset, Check)> {
        let newest = &self.slots.back()?.recent;
        Some((newest.offset, newest.check))
    }

    /// The offset of the newest record.
    pub(crate) fn newest(&self) -> Option<Offset> {
        Some(self.slots.back()?.recent.offset)
    }

    /// The time of the oldest record that may be evicted. The newest record always stays: clients that are up to date
    /// resume from it.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let front = self.slots.front().filter(|_| self.slots.len() > 1)?;
        Some(front.recent.time)
    }

    /// Evicts the oldest record.
    pub(crate) fn evict(&mut self) {
        let Some(Slot { recent, .. }) = self.slots.pop_front() else { return };
        self.bytes -= recent.bytes();
        if recent.repeated {
            self.repeated.insert(self.first, recent.check);
        }
        if let Some(message) = &recent.message {
            self.last.remove(&message.record.channel, self.first);
        }
        self.first += 1;
        if self.repeated.len() > REPEATED
            && let Some((oldest, _)) = self.repeated.pop_first()
        {
            self.repeats_known_from = oldest + 1;
        }
    }

    fn forget(&mut self) {
        self.slots.clear();
        self.last.clear();
        self.bytes = 0;
        self.repeated.clear();
    }

    /// Whether the ring has this very record; `None` if it has no record at this offset.
    pub(crate) fn holds(&self, position: Position) -> Option<bool> {
        Some(same(self.at(position.offset.0)?.recent.check, position.check))
    }

    /// Whether records from this offset on can be served, from the ring or read back: their repeated messages are known.
    pub(crate) fn reaches(&self, offset: Offset) -> bool {
        !self.slots.is_empty() && offset.0 >= self.repeats_known_from
    }

    /// Whether this very record is known to repeat an earlier message.
    pub(crate) fn is_repeated(&self, at: Position) -> bool {
        let kept = || self.at(at.offset.0).filter(|slot| slot.recent.repeated).map(|slot| slot.recent.check);
        let repeated = self.repeated.get(&at.offset.0).copied().or_else(kept);
        repeated.is_some_and(|check| same(check, at.check))
    }

    /// The messages of a channel after `since` and up to `until`: about `room` bytes, but at least one message. `breaks` is
    /// the number of breaks that the worker has seen.
    pub(crate) fn owed(&self, channel: &str, since: Position, until: Position, breaks: u64, room: usize) -> Owed {
        if breaks != self.breaks {
            return Owed::Ahead;
        }
        let Some(slot) = self.at(since.offset.0) else {
            return if self.reaches(since.offset) && since.offset.0 < self.first { Owed::Older } else { Owed::Unknown };
        };
        if !same(slot.recent.check, since.check) {
            return Owed::Unknown;
        }
        let (mut messages, mut bytes, mut to) = (Vec::new(), 0, until);
        let mut next = self.first_after(channel, since.offset.0, slot);
        while let Some(slot) = next.filter(|&offset| offset <= until.offset.0).and_then(|offset| self.at(offset)) {
            let Some(message) = &slot.recent.message else { break };
            if bytes > 0 && bytes + message.record.size() > room {
                to = messages.last().map_or(since, |last: &Arc<Message>| last.record.position());
                break;
            }
            bytes += message.record.size().max(1);
            messages.push(Arc::clone(message));
            next = (slot.next > 0).then(|| slot.recent.offset.0 + u64::from(slot.next));
        }
        Owed::These { messages, to }
    }

    /// The offset of the first message of a channel after `offset`.
    fn first_after(&self, channel: &str, offset: u64, slot: &Slot) -> Option<u64> {
        if slot.recent.message.as_ref().is_some_and(|message| message.record.channel() == channel) {
            return (slot.next > 0).then(|| offset + u64::from(slot.next));
        }
        let mut found = None;
        let mut next = self.last(channel);
        while let Some(at) = next.filter(|&at| at > offset) {
            found = Some(at);
            let previous = self.at(at).map_or(0, |slot| slot.previous);
            next = (previous > 0).then(|| at - u64::from(previous));
        }
        found
    }

    /// The offset of the last message of a channel.
    fn last(&self, channel: &str) -> Option<u64> {
        self.last.get(channel.as_bytes(), |at| channel_of(&self.slots, self.first, at))
    }

    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn at(&self, offset: u64) -> Option<&Slot> {
        self.slots.get(index(offset, self.first)?)
    }

    fn push(&mut self, recent: Recent) {
        let offset = recent.offset.0;
        let (slots, first) = (&self.slots, self.first);
        let previous = recent
            .message
            .as_ref()
            .and_then(|message| self.last.replace(&message.record.channel, offset, |at| channel_of(slots, first, at)));
        // Cannot overflow: more than 2^32 records do not fit into memory.
        let distance = previous.map_or(0, |previous| u32::try_from(offset - previous).unwrap_or(0));
        let before = previous.and_then(|previous| index(previous, self.first)).and_then(|at| self.slots.get_mut(at));
        if let Some(slot) = before {
            slot.next = distance;
        }
        self.bytes += recent.bytes();
        self.slots.push_back(Slot { recent, previous: distance, next: 0 });
    }
}

/// The channel of the message at an offset; empty if there is none.
fn channel_of(slots: &VecDeque<Slot>, first: u64, offset: u64) -> &[u8] {
    let slot = index(offset, first).and_then(|at| slots.get(at));
    slot.and_then(|slot| slot.recent.message.as_ref()).map_or(&[], |message| &message.record.channel)
}

fn index(offset: u64, first: u64) -> Option<usize> {
    usize::try_from(offset.checked_sub(first)?).ok()
}

/// Whether two fingerprints certainly belong to the same record.
pub(crate) fn same(one: Check, other: Check) -> bool {
    one == other && one != Check::UNKNOWN
}

#[cfg(test)]
pub(super) mod tests;
