//! A run of older records as it was read back from the broker, reduced to what somebody wants of it.
//!
//! Pure. Keeps the fingerprint of every record, which proves positions, the messages of the channels that were wanted when
//! it was read, and a hash of each other channel, which proves where a channel has none. So a long way through a busy
//! partition takes 8 bytes a record and the few messages that are owed.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use broker_adapters::{Check, Offset, Partition, Position, Seen};

use super::ring::{OVERHEAD, Owed, same};
use crate::message::Message;

/// Bytes that the hash of a channel takes, about.
const OTHER: usize = 16;

#[derive(Debug)]
pub(crate) struct Page {
    partition: Partition,
    first: u64,
    /// Of each record, dense.
    checks: Box<[Check]>,
    /// The messages of each channel that was wanted, oldest first.
    channels: HashMap<Box<str>, Vec<Arc<Message>>>,
    /// Hashes of all other channels that have messages here.
    others: HashSet<u64>,
    hasher: RandomState,
    bytes: usize,
}

impl Page {
    /// Takes records as [`Log::read_from`](broker_adapters::Log::read_from) gives them; `None` if there are none.
    pub(crate) fn new<'a>(
        partition: Partition,
        seen: Vec<Seen>,
        wanted: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let first = seen.first()?.offset.0;
        let mut channels: HashMap<Box<str>, Vec<Arc<Message>>> = HashMap::new();
        for channel in wanted {
            if !channels.contains_key(channel) {
                channels.insert(channel.into(), Vec::new());
            }
        }
        let checks: Box<[Check]> = seen.iter().map(|seen| seen.check).collect();
        let mut bytes = checks.len() * size_of::<Check>();
        let (mut others, hasher) = (HashSet::new(), RandomState::new());
        for record in seen.into_iter().filter_map(|seen| seen.message) {
            match channels.get_mut(record.channel()) {
                Some(messages) => {
                    bytes += 2 * record.size() + OVERHEAD;
                    messages.push(Arc::new(Message::new(record)));
                }
                None => drop(others.insert(hasher.hash_one(record.channel()))),
            }
        }
        bytes += others.len() * OTHER;
        Some(Self { partition, first, checks, channels, others, hasher, bytes })
    }

    /// Bytes that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last record's offset.
    pub(crate) fn last(&self) -> Offset {
        Offset(self.first + self.checks.len() as u64 - 1)
    }

    /// Whether it holds a record of this offset.
    pub(crate) fn covers(&self, offset: Offset) -> bool {
        self.check(offset).is_some()
    }

    /// Whether the record at a position is this one; `None` if it holds none of this offset.
    pub(crate) fn holds(&self, position: Position) -> Option<bool> {
        Some(same(self.check(position.offset)?, position.check))
    }

    /// Whether it says what follows on a channel after an offset.
    pub(crate) fn serves(&self, channel: &str, offset: Offset) -> bool {
        let known = || self.channels.contains_key(channel) || !self.others.contains(&self.hasher.hash_one(channel));
        self.covers(offset) && offset < self.last() && known()
    }

    /// The messages of a channel after `since` and up to `until`, about `room` bytes of them but at least one; without the
    /// `repeated`.
    pub(crate) fn owed(
        &self,
        channel: &str,
        since: Position,
        until: Position,
        room: usize,
        repeated: impl Fn(Position) -> bool,
    ) -> Owed {
        if !self.serves(channel, since.offset) {
            return Owed::Older;
        }
        let all = self.channels.get(channel).map(Vec::as_slice).unwrap_or_default();
        if self.holds(since) != Some(true) || self.holds(until) == Some(false) {
            return Owed::Unknown;
        }
        let end = if until.offset <= self.last() { until } else { self.position(self.last()) };
        let (mut messages, mut bytes, mut to) = (Vec::new(), 0, end);
        let begin = all.partition_point(|message| message.record.offset <= since.offset);
        let fresh = all[begin..].iter().filter(|message| !repeated(message.record.position()));
        for message in fresh.take_while(|message| message.record.offset <= end.offset) {
            if bytes > 0 && bytes + message.record.size() > room {
                to = messages.last().map_or(since, |last: &Arc<Message>| last.record.position());
                break;
            }
            bytes += message.record.size().max(1);
            messages.push(Arc::clone(message));
        }
        Owed::These { messages, to }
    }

    fn check(&self, offset: Offset) -> Option<Check> {
        self.checks.get(usize::try_from(offset.0.checked_sub(self.first)?).ok()?).copied()
    }

    fn position(&self, offset: Offset) -> Position {
        Position { partition: self.partition, offset, check: self.check(offset).unwrap_or(Check::UNKNOWN) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::{PARTITION, at, offsets, seen};
    use super::*;

    /// Records 10 to 19, of which every third is on `a`, every third on `b`.
    fn page(wanted: &[&str]) -> Page {
        let channel = |offset: u64| u8::try_from(offset % 3).ok().filter(|channel| *channel < 2);
        let seen = (10..20).map(|offset| seen(offset, channel(offset))).collect();
        Page::new(PARTITION, seen, wanted.iter().copied()).expect("it has records")
    }

    #[test]
    fn a_page_answers_for_what_was_wanted_of_it_and_for_what_it_proves() {
        let page = page(&["a"]);
        let owed = |channel, since, until, room| offsets(page.owed(channel, since, at(until), room, |_| false));
        assert_eq!(owed("a", at(10), 30, 100), Ok((vec![12, 15, 18], 19)), "up to its last record");
        assert_eq!(owed("a", at(12), 16, 100), Ok((vec![15], 16)), "up to where the worker is");
        assert_eq!(owed("a", at(10), 30, 4), Ok((vec![12, 15], 15)), "as much as there is room for");
        assert_eq!(owed("a", at(10), 30, 0), Ok((vec![12], 12)), "but at least one");
        assert_eq!(owed("a", at(9), 30, 100), Err("older"));
        assert_eq!(owed("a", at(19), 30, 100), Err("older"), "what follows is on another page");
        assert_eq!(owed("b", at(10), 30, 100), Err("older"), "it was not wanted");
        let other = Position { check: Check(1), ..at(12) };
        assert_eq!(owed("a", other, 30, 100), Err("unknown"));
        let set_back = page.owed("a", at(12), Position { check: Check(1), ..at(15) }, 100, |_| false);
        assert_eq!(offsets(set_back), Err("unknown"), "the worker has seen another log there");
        assert_eq!((page.holds(at(11)), page.holds(other), page.holds(at(9))), (Some(true), Some(false), None));
    }

    #[test]
    fn a_repeated_message_is_not_given_again() {
        let owed = page(&["a"]).owed("a", at(10), at(30), 100, |repeated| repeated == at(15));
        assert_eq!(offsets(owed), Ok((vec![12, 18], 19)));
    }

    #[test]
    fn a_busy_neighbour_costs_a_fingerprint_a_record() {
        assert_eq!(page(&["nobody speaks here"]).bytes(), 10 * size_of::<Check>() + 2 * OTHER);
    }

    #[test]
    fn a_channel_without_messages_need_not_have_been_wanted() {
        let page = page(&["a"]);
        assert_eq!(offsets(page.owed("nobody speaks here", at(10), at(30), 100, |_| false)), Ok((vec![], 19)));
    }
}
