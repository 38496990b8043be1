//! The recent records of one partition, dense from the oldest kept to the newest.
//!
//! Pure. Each record knows the previous and the next one of its channel, and each channel its last, so that what a client
//! missed is found without looking at what it did not, and is given piece by piece. Bounded by age here, and by bytes by
//! its owner, who evicts. Gives nothing that it cannot prove to follow: a question that reaches further back is `Older`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use broker_adapters::{Check, Offset, Position, Seen};

use crate::message::Message;

/// Bytes that a message takes beside twice its content, which is there once as it was read and once as a frame: see
/// "What connections cost" in docs/benchmarks.md.
pub(crate) const OVERHEAD: usize = 580;

/// Bytes that a record without a message takes.
const EMPTY: usize = size_of::<Slot>();

/// Repeated messages that are remembered beyond the ring.
const REPEATED: usize = 65_536;

/// One record as the ring takes it.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    pub(crate) offset: Offset,
    pub(crate) check: Check,
    /// Milliseconds since 1970.
    time: u64,
    pub(crate) message: Option<Arc<Message>>,
    /// It is a message that came before.
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

/// What a client is owed, as far as it can be said.
#[derive(Debug)]
pub(crate) enum Owed {
    /// These come next, oldest first; up to `to` there are no others.
    These {
        /// Not more than was asked for.
        messages: Vec<Arc<Message>>,
        /// The last of them, or what was asked for if that is all.
        to: Position,
    },
    /// What is kept begins after the client's position: older records must be read.
    Older,
    /// The position is not of this log, or too far back: nothing can be proven.
    Unknown,
    /// The ring is past a break that the asker has yet to see: what it holds may be of another log than the asker's.
    Ahead,
}

/// One partition's records.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The age up to which records are kept, in milliseconds.
    age: u64,
    slots: VecDeque<Slot>,
    /// The offset of the front of `slots`.
    first: u64,
    bytes: usize,
    /// The offset of the last message of each channel in the ring.
    last: HashMap<Box<str>, u64>,
    /// The offset from which on repeated messages are known: older records are no answer.
    begun: u64,
    /// Repeated messages between there and the front of `slots`: read back, they look like any other. With fingerprints, as
    /// what is read back may come from another server's log, in which another message stands there.
    repeated: BTreeMap<u64, Check>,
    /// How often the log has broken off.
    breaks: u64,
}

#[derive(Debug)]
struct Slot {
    recent: Recent,
    /// How far back the previous message of the same channel stands, 0 if the ring held none.
    previous: u32,
    /// How far on the next one stands, 0 if there is none yet.
    next: u32,
}

impl Ring {
    pub(crate) fn new(age: u64) -> Self {
        let (slots, last, repeated) = (VecDeque::new(), HashMap::new(), BTreeMap::new());
        Self { age, slots, first: 0, bytes: 0, last, begun: 0, repeated, breaks: 0 }
    }

    /// Takes the next record of the log; one that does not follow the last begins the ring anew.
    pub(crate) fn append(&mut self, mut recent: Recent, now: u64) {
        // A publisher's clock that is ahead must not keep its partition's records for longer than others.
        recent.time = recent.time.min(now);
        if self.slots.is_empty() || recent.offset.0 != self.next() {
            self.forget();
            self.first = recent.offset.0;
            self.begun = self.first;
        }
        self.push(recent);
        while self.slots.len() > 1 && self.oldest().is_some_and(|time| now.saturating_sub(time) > self.age) {
            self.evict();
        }
    }

    /// The log has broken off: what comes next may belong to another one.
    pub(crate) fn clear(&mut self) {
        self.forget();
        self.breaks += 1;
    }

    /// How often the log has broken off here.
    pub(crate) fn breaks(&self) -> u64 {
        self.breaks
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that a record takes, on average.
    pub(crate) fn average(&self) -> usize {
        self.bytes / self.slots.len().max(1)
    }

    /// The newest record kept.
    pub(crate) fn newest(&self) -> Option<Offset> {
        Some(self.slots.back()?.recent.offset)
    }

    /// The time of the oldest record that may go: the newest one stays in any case, as it is what clients that are up to date
    /// come back with.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let front = self.slots.front().filter(|_| self.slots.len() > 1)?;
        Some(front.recent.time)
    }

    /// Lets go of the oldest record.
    pub(crate) fn evict(&mut self) {
        let Some(Slot { recent, .. }) = self.slots.pop_front() else { return };
        self.bytes -= recent.bytes();
        if recent.repeated {
            self.repeated.insert(self.first, recent.check);
        }
        if let Some(message) = &recent.message
            && self.last.get(message.record.channel()) == Some(&self.first)
        {
            self.last.remove(message.record.channel());
        }
        self.first += 1;
        if self.repeated.len() > REPEATED
            && let Some((oldest, _)) = self.repeated.pop_first()
        {
            self.begun = oldest + 1;
        }
    }

    fn forget(&mut self) {
        self.slots.clear();
        self.last.clear();
        self.bytes = 0;
        self.repeated.clear();
    }

    /// Whether this record is kept; `None` if no record of its offset is.
    pub(crate) fn holds(&self, position: Position) -> Option<bool> {
        Some(same(self.at(position.offset.0)?.recent.check, position.check))
    }

    /// Whether older records than those kept can be an answer from here on: which of them are repeated is known.
    pub(crate) fn reaches(&self, offset: Offset) -> bool {
        !self.slots.is_empty() && offset.0 >= self.begun
    }

    /// Whether the record at a position is known as a message that came before.
    pub(crate) fn is_repeated(&self, at: Position) -> bool {
        let kept = || self.at(at.offset.0).filter(|slot| slot.recent.repeated).map(|slot| slot.recent.check);
        let repeated = self.repeated.get(&at.offset.0).copied().or_else(kept);
        repeated.is_some_and(|check| same(check, at.check))
    }

    /// The messages of a channel after `since` and up to `until`, about `room` bytes of them but at least one, for somebody
    /// who has seen so many breaks.
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

    /// Where the first message of a channel after an offset stands.
    fn first_after(&self, channel: &str, offset: u64, slot: &Slot) -> Option<u64> {
        if slot.recent.message.as_ref().is_some_and(|message| message.record.channel() == channel) {
            return (slot.next > 0).then(|| offset + u64::from(slot.next));
        }
        let mut found = None;
        let mut next = self.last.get(channel).copied();
        while let Some(at) = next.filter(|&at| at > offset) {
            found = Some(at);
            let previous = self.at(at).map_or(0, |slot| slot.previous);
            next = (previous > 0).then(|| at - u64::from(previous));
        }
        found
    }

    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn at(&self, offset: u64) -> Option<&Slot> {
        self.slots.get(index(offset, self.first)?)
    }

    fn push(&mut self, recent: Recent) {
        let offset = recent.offset.0;
        let mut previous = None;
        if let Some(message) = &recent.message {
            let channel = message.record.channel();
            match self.last.get_mut(channel) {
                Some(last) => previous = Some(std::mem::replace(last, offset)),
                None => drop(self.last.insert(channel.into(), offset)),
            }
        }
        // A ring of more than 2^32 records has no memory to be in.
        let distance = previous.map_or(0, |previous| u32::try_from(offset - previous).unwrap_or(0));
        let before = previous.and_then(|previous| index(previous, self.first)).and_then(|at| self.slots.get_mut(at));
        if let Some(slot) = before {
            slot.next = distance;
        }
        self.bytes += recent.bytes();
        self.slots.push_back(Slot { recent, previous: distance, next: 0 });
    }
}

fn index(offset: u64, first: u64) -> Option<usize> {
    usize::try_from(offset.checked_sub(first)?).ok()
}

/// Whether two fingerprints are of the same record for certain.
pub(crate) fn same(one: Check, other: Check) -> bool {
    one == other && one != Check::UNKNOWN
}

#[cfg(test)]
pub(super) mod tests {
    use broker_adapters::{MessageId, Partition, Payload, Record};
    use proptest::prelude::*;

    use super::*;

    pub(crate) const PARTITION: Partition = Partition(0);

    /// A message on a channel, or a heartbeat, as it is read.
    pub(crate) fn seen(offset: u64, channel: Option<u8>) -> Seen {
        let (offset, time, id) = (Offset(offset), offset, MessageId(offset.into()));
        let message = channel.map(|channel| {
            let (channel, payload) = (vec![b'a' + channel].into(), Payload::Text("x".into()));
            Record { partition: PARTITION, offset, id, time, channel, payload, extensions: Default::default() }
        });
        Seen { offset, check: id.check(time), time, message, repeated: false }
    }

    pub(crate) fn recent(offset: u64, channel: Option<u8>) -> Recent {
        Recent::from(seen(offset, channel))
    }

    pub(crate) fn at(offset: u64) -> Position {
        Position { partition: PARTITION, offset: Offset(offset), check: MessageId(offset.into()).check(offset) }
    }

    /// The offsets of the messages, and how far they reach.
    pub(crate) fn offsets(owed: Owed) -> Result<(Vec<u64>, u64), &'static str> {
        match owed {
            Owed::These { messages, to } => {
                assert_eq!(to, at(to.offset.0), "a position is a record's");
                Ok((messages.iter().map(|message| message.record.offset.0).collect(), to.offset.0))
            }
            Owed::Older => Err("older"),
            Owed::Unknown => Err("unknown"),
            Owed::Ahead => Err("ahead"),
        }
    }

    fn all(ring: &Ring, since: u64, until: u64) -> Result<Vec<u64>, &'static str> {
        offsets(ring.owed("a", at(since), at(until), ring.breaks(), usize::MAX)).map(|(messages, to)| {
            assert_eq!(to, until);
            messages
        })
    }

    #[test]
    fn what_is_not_known_for_certain_is_no_answer() {
        let mut ring = Ring::new(u64::MAX);
        assert_eq!(all(&ring, 3, 9), Err("unknown"));
        (10..20).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
        assert_eq!(all(&ring, 9, 19), Err("unknown"), "nothing says which records before the first were repeated");
        ring.evict();
        assert_eq!(all(&ring, 10, 19), Err("older"));
        assert_eq!(all(&ring, 20, 19), Err("unknown"));
        let other = Position { check: Check(1), ..at(12) };
        assert_eq!(offsets(ring.owed("a", other, at(19), 0, usize::MAX)), Err("unknown"));
        assert_eq!(all(&ring, 16, 18), Ok(vec![17, 18]), "what is live is not owed");
        ring.append(recent(30, Some(0)), u64::MAX);
        assert_eq!(all(&ring, 19, 30), Err("unknown"), "a hole begins the ring anew");
    }

    #[test]
    fn age_bounds_the_ring_but_the_newest_record_stays() {
        let mut ring = Ring::new(5);
        (1..=10).for_each(|offset| ring.append(recent(offset, Some(0)), offset));
        assert_eq!((ring.first, ring.oldest()), (5, Some(5)));
        ring.append(recent(11, None), 1000);
        assert_eq!((ring.first, ring.oldest(), ring.last.len(), ring.bytes()), (11, None, 0, EMPTY));
    }

    #[test]
    fn a_clock_that_is_ahead_keeps_nothing_for_longer() {
        let mut ring = Ring::new(5);
        ring.append(Recent { time: 1_000_000, ..recent(1, Some(0)) }, 10);
        ring.append(recent(2, Some(0)), 16);
        assert_eq!(ring.first, 2);
    }

    #[test]
    fn who_has_yet_to_see_a_break_gets_nothing_of_what_came_after_it() {
        let mut ring = Ring::new(u64::MAX);
        (1..9).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
        ring.clear();
        (3..5).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
        assert_eq!(offsets(ring.owed("a", at(3), at(8), 0, usize::MAX)), Err("ahead"));
        assert_eq!(all(&ring, 3, 4), Ok(vec![4]));
        assert!(!ring.reaches(Offset(2)), "what was before the break is no part of what comes after it");
    }

    #[test]
    fn what_was_repeated_stays_known_when_it_is_gone() {
        let mut ring = Ring::new(u64::MAX);
        ring.append(recent(1, Some(0)), u64::MAX);
        ring.append(Recent { message: None, repeated: true, ..recent(2, None) }, u64::MAX);
        (3..20).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
        (0..5).for_each(|_| ring.evict());
        assert!(ring.is_repeated(at(2)) && !ring.is_repeated(at(1)) && ring.reaches(Offset(1)));
        let of_another_log = Position { check: Check(99), ..at(2) };
        assert!(!ring.is_repeated(of_another_log), "another server's log may hold another message there");
    }

    proptest! {
        #[test]
        fn exactly_what_is_owed_is_given_piece_by_piece(
            log in proptest::collection::vec(proptest::option::of(0u8..3), 1..120),
            kept in 1usize..60,
            from in 0u64..130,
            until in 1u64..130,
            room in 1usize..10,
        ) {
            let mut ring = Ring::new(u64::MAX);
            for (offset, channel) in (1..).zip(&log) {
                ring.append(recent(offset, *channel), u64::MAX);
                while ring.slots.len() > kept {
                    ring.evict();
                }
                let bytes: usize = ring.slots.iter().map(|slot| slot.recent.bytes()).sum();
                prop_assert_eq!(ring.bytes(), bytes);
            }
            let until = until.min(log.len() as u64);
            for (channel, name) in (0u8..).zip(["a", "b", "c"]) {
                let expected: Vec<u64> = (1u64..).zip(&log)
                    .filter(|(offset, said)| **said == Some(channel) && *offset > from && *offset <= until)
                    .map(|(offset, _)| offset).collect();
                let (mut found, mut since) = (Vec::new(), at(from));
                loop {
                    match ring.owed(name, since, at(until), 0, room) {
                        Owed::These { messages, to } => {
                            prop_assert!(messages.len() <= room);
                            found.extend(messages.iter().map(|message| message.record.offset.0));
                            if to.offset.0 >= until {
                                prop_assert_eq!(&found, &expected);
                                break;
                            }
                            prop_assert!(to.offset > since.offset);
                            since = to;
                        }
                        Owed::Older => { prop_assert!(from >= 1 && from < ring.first); break }
                        Owed::Unknown => { prop_assert!(from > log.len() as u64 || from == 0); break }
                        Owed::Ahead => prop_assert!(false, "no break was told"),
                    }
                }
            }
        }
    }
}
