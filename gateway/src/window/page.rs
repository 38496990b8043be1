//! A run of older records that was read back from the broker, reduced to what waiting clients need.
//!
//! Pure. It keeps the fingerprint of each record, to check positions. It keeps the messages of the channels that were wanted
//! when it was read, and a hash of every other channel, to prove that a channel has no messages here. So a long run of a
//! busy partition costs 8 bytes per record plus the wanted messages.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use broker_adapters::{Check, Offset, Partition, Position, Seen};

use super::ring::{Edge, Gathered, OVERHEAD, Owed, Preceding, Rest, same};
use crate::message::Message;

/// The approximate size of a channel's hash, in bytes.
const OTHER: usize = 16;

#[derive(Debug)]
pub(crate) struct Page {
    partition: Partition,
    first: u64,
    /// The log has no record before the first one.
    begins: bool,
    /// The fingerprint of each record, without gaps.
    checks: Box<[Check]>,
    /// The messages of each channel that was wanted, oldest first.
    channels: HashMap<Box<str>, Vec<Arc<Message>>>,
    /// Hashes of the other channels that have messages here.
    others: HashSet<u64>,
    hasher: RandomState,
    bytes: usize,
}

impl Page {
    /// Creates a page from records as [`Log::read_from`](broker_adapters::Log::read_from) returns them; `None` if there are
    /// no records.
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
        Some(Self { partition, first, begins: first == 1, checks, channels, others, hasher, bytes })
    }

    /// Notes whether the log has no record before the first one.
    pub(crate) fn beginning(mut self, begins: bool) -> Self {
        self.begins |= begins;
        self
    }

    /// The approximate size of the page, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first record's offset.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The last record's offset.
    pub(crate) fn last(&self) -> Offset {
        Offset(self.first + self.checks.len() as u64 - 1)
    }

    /// Whether the page has a record at this offset.
    pub(crate) fn covers(&self, offset: Offset) -> bool {
        self.check(offset).is_some()
    }

    /// Whether the record at this position is the same; `None` if the page has no record at this offset.
    pub(crate) fn holds(&self, position: Position) -> Option<bool> {
        Some(same(self.check(position.offset)?, position.check))
    }

    /// Whether the page knows the messages of a channel after an offset.
    pub(crate) fn serves(&self, channel: &str, offset: Offset) -> bool {
        self.covers(offset) && offset < self.last() && self.knows(channel)
    }

    /// Whether the page knows the messages of a channel before an offset, or that there are none.
    pub(crate) fn serves_before(&self, channel: &str, offset: Offset) -> bool {
        self.covers(offset) && (offset.0 > self.first || self.begins) && self.knows(channel)
    }

    fn knows(&self, channel: &str) -> bool {
        self.channels.contains_key(channel) || !self.others.contains(&self.hasher.hash_one(channel))
    }

    /// The messages of a channel after `since` and up to `until`: about `room` bytes, but at least one message. Skips
    /// messages that are `repeated`.
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

    /// The last messages of a channel before an edge: at most `most`, and about `room` bytes. Skips messages that are
    /// `repeated`, which is only known from the offset `floor` on.
    pub(crate) fn preceding(
        &self,
        channel: &str,
        edge: Edge,
        (most, room): (usize, usize),
        floor: u64,
        repeated: impl Fn(Position) -> bool,
    ) -> Preceding {
        if !self.serves_before(channel, edge.at.offset) {
            return Preceding::Older;
        }
        if self.holds(edge.at) != Some(true) || edge.at.offset.0 < floor {
            return Preceding::Unknown;
        }
        let all = self.channels.get(channel).map(Vec::as_slice).unwrap_or_default();
        let begin = self.first.max(floor);
        let mut gathered = Gathered::new(most, room);
        let known = |offset: Offset| (begin..edge.end()).contains(&offset.0);
        let fresh = all.iter().rev().filter(|message| known(message.record.offset));
        for message in fresh.filter(|message| !repeated(message.record.position())) {
            if !gathered.take(message) {
                return gathered.full(edge.at);
            }
        }
        let rest = match begin {
            _ if begin > self.first => Rest::Unproven,
            _ if self.begins => Rest::None,
            _ => Rest::More,
        };
        gathered.all(self.position(Offset(begin)), rest)
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
    fn a_page_serves_the_channels_that_were_wanted_at_positions_that_it_can_prove() {
        let page = page(&["a"]);
        let owed = |channel, since, until, room| offsets(page.owed(channel, since, at(until), room, |_| false));
        assert_eq!(owed("a", at(10), 30, 100), Ok((vec![12, 15, 18], 19)), "up to its last record");
        assert_eq!(owed("a", at(12), 16, 100), Ok((vec![15], 16)), "up to the worker's position");
        assert_eq!(owed("a", at(10), 30, 4), Ok((vec![12, 15], 15)), "as much as fits into `room`");
        assert_eq!(owed("a", at(10), 30, 0), Ok((vec![12], 12)), "but at least one");
        assert_eq!(owed("a", at(9), 30, 100), Err("older"));
        assert_eq!(owed("a", at(19), 30, 100), Err("older"), "the next messages are on another page");
        assert_eq!(owed("b", at(10), 30, 100), Err("older"), "the channel was not wanted");
        let other = Position { check: Check(1), ..at(12) };
        assert_eq!(owed("a", other, 30, 100), Err("unknown"));
        let set_back = page.owed("a", at(12), Position { check: Check(1), ..at(15) }, 100, |_| false);
        assert_eq!(offsets(set_back), Err("unknown"), "the worker saw another record there");
        assert_eq!((page.holds(at(11)), page.holds(other), page.holds(at(9))), (Some(true), Some(false), None));
    }

    #[test]
    fn a_repeated_message_is_not_given_again() {
        let owed = page(&["a"]).owed("a", at(10), at(30), 100, |repeated| repeated == at(15));
        assert_eq!(offsets(owed), Ok((vec![12, 18], 19)));
    }

    #[test]
    fn records_of_other_channels_cost_one_fingerprint_each() {
        assert_eq!(page(&["no messages here"]).bytes(), 10 * size_of::<Check>() + 2 * OTHER);
    }

    #[test]
    fn a_page_also_serves_a_channel_without_messages_that_was_not_wanted() {
        let page = page(&["a"]);
        assert_eq!(offsets(page.owed("no messages here", at(10), at(30), 100, |_| false)), Ok((vec![], 19)));
    }
}
