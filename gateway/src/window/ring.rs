//! The recent records of one partition, dense from the oldest kept to the newest.
//!
//! Pure. Each record knows the previous one of its channel, and each channel its last, so that what a client
//! missed is found without looking at what it did not. Bounded by age and bytes. What is not known for certain
//! is no answer: a question reaching beyond the ring says how far it would have to reach.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use broker_adapters::{Check, Offset, Partition, Position, Seen};

use crate::message::Message;

/// Bytes that a record is counted for beside its content.
pub(crate) const OVERHEAD: usize = 256;

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
        // The content and its frames.
        self.message.as_ref().map_or(0, |message| 2 * message.record.size()) + OVERHEAD
    }
}

/// How much a ring may keep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Milliseconds from a record's time to now.
    pub(crate) age: u64,
    /// Bytes of records and of what surrounds them.
    pub(crate) bytes: usize,
}

/// What is known of a client's absence.
#[derive(Debug)]
pub(crate) enum Missed {
    /// Exactly these, oldest first.
    These(Vec<Arc<Message>>),
    /// The ring begins after the client's position: older records must be read first.
    Older,
    /// The position is not of this log, or too far back: nothing can be proven.
    Unknown,
    /// The ring is past a break that the asker has yet to see: what it holds may be of another log than the asker's.
    Ahead,
}

/// One partition's records.
#[derive(Debug)]
pub(crate) struct Ring {
    bounds: Bounds,
    slots: VecDeque<Slot>,
    /// The offset of the front of `slots`.
    first: u64,
    bytes: usize,
    /// The offset of the last message of each channel in the ring.
    last: HashMap<Box<str>, u64>,
    /// Until when age does not matter, because somebody asked for older records; milliseconds since 1970.
    held: u64,
    /// The offset from which on repeated messages are known: older records are no answer.
    begun: u64,
    /// Repeated messages between there and the front of `slots`: read back, they look like any other.
    repeated: BTreeSet<u64>,
    /// How often the log has broken off.
    breaks: u64,
}

#[derive(Debug)]
struct Slot {
    recent: Recent,
    /// The offset of the previous message of the same channel, 0 if the ring holds none.
    previous: u64,
}

impl Ring {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let (slots, last, repeated) = (VecDeque::new(), HashMap::new(), BTreeSet::new());
        Self { bounds, slots, first: 0, bytes: 0, last, held: 0, begun: 0, repeated, breaks: 0 }
    }

    /// Takes the next record of the log; one that does not follow the last begins the ring anew.
    pub(crate) fn append(&mut self, recent: Recent, now: u64) {
        if self.slots.is_empty() || recent.offset.0 != self.next() {
            self.forget();
            self.first = recent.offset.0;
            self.begun = self.first;
        }
        self.push(recent);
        self.trim(now);
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

    fn forget(&mut self) {
        self.slots.clear();
        self.last.clear();
        self.bytes = 0;
        self.repeated.clear();
    }

    /// The oldest record kept, if there is one.
    pub(crate) fn first(&self, partition: Partition) -> Option<Position> {
        let Recent { offset, check, .. } = self.slots.front()?.recent;
        Some(Position { partition, offset, check })
    }

    /// Whatever its age, what is kept is kept until then.
    pub(crate) fn hold(&mut self, until: u64) {
        self.held = until;
    }

    /// Puts the records right before `before` in front; false if that is not the oldest kept any more,
    /// if they do not end there, or do not fit, or if nothing proves which of them are repeated.
    pub(crate) fn extend_back(&mut self, mut older: Vec<Recent>, before: Position) -> bool {
        older.retain(|recent| recent.offset.0 >= self.begun);
        for recent in older.iter_mut().filter(|recent| self.repeated.contains(&recent.offset.0)) {
            (recent.message, recent.repeated) = (None, true);
        }
        let follows = self.first(before.partition) == Some(before)
            && older.last().is_some_and(|last| last.offset.next() == before.offset);
        let added: usize = older.iter().map(Recent::bytes).sum();
        if !follows || self.bytes + added > self.bounds.bytes {
            return false;
        }
        let newer = std::mem::take(&mut self.slots);
        self.last.clear();
        self.bytes = 0;
        self.first = older.first().map_or(self.first, |oldest| oldest.offset.0);
        for recent in older.into_iter().chain(newer.into_iter().map(|slot| slot.recent)) {
            self.push(recent);
        }
        true
    }

    /// The messages of a channel after `since` and up to `until`, for somebody who has seen so many breaks.
    pub(crate) fn missed(&self, channel: &str, since: Position, until: Offset, breaks: u64) -> Missed {
        if breaks != self.breaks {
            return Missed::Ahead;
        }
        if since.offset.0 < self.first || self.slots.is_empty() {
            return Missed::Older;
        }
        match self.at(since.offset.0) {
            Some(slot) if slot.recent.check == since.check && since.check != Check::UNKNOWN => {}
            _ => return Missed::Unknown,
        }
        let mut messages = Vec::new();
        let mut next = self.last.get(channel).copied().unwrap_or(0);
        while next > since.offset.0 {
            let Some(slot) = self.at(next) else { break };
            if next <= until.0 {
                messages.extend(slot.recent.message.clone());
            }
            next = slot.previous;
        }
        messages.reverse();
        Missed::These(messages)
    }

    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn at(&self, offset: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(offset.checked_sub(self.first)?).ok()?)
    }

    fn push(&mut self, recent: Recent) {
        let offset = recent.offset.0;
        let previous = recent.message.as_ref().and_then(|message| {
            let channel = message.record.channel();
            match self.last.get_mut(channel) {
                Some(last) => Some(std::mem::replace(last, offset)),
                None => self.last.insert(channel.into(), offset),
            }
        });
        self.bytes += recent.bytes();
        self.slots.push_back(Slot { recent, previous: previous.unwrap_or(0) });
    }

    fn trim(&mut self, now: u64) {
        while let Some(Slot { recent, .. }) = self.slots.front() {
            let old = now.saturating_sub(recent.time) > self.bounds.age && now >= self.held;
            // The newest stays in any case: it is what clients that are up to date come back with.
            if self.slots.len() == 1 || !(old || self.bytes > self.bounds.bytes) {
                return;
            }
            self.bytes -= recent.bytes();
            if recent.repeated {
                self.repeated.insert(self.first);
            }
            if let Some(message) = &recent.message
                && self.last.get(message.record.channel()) == Some(&self.first)
            {
                self.last.remove(message.record.channel());
            }
            self.slots.pop_front();
            self.first += 1;
            if self.repeated.len() > REPEATED
                && let Some(oldest) = self.repeated.pop_first()
            {
                self.begun = oldest + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_adapters::{MessageId, Payload, Record};
    use proptest::prelude::*;

    use super::*;

    const PARTITION: Partition = Partition(0);
    const WIDE: Bounds = Bounds { age: u64::MAX, bytes: usize::MAX };

    /// A message on a channel, or a heartbeat.
    fn recent(offset: u64, channel: Option<u8>) -> Recent {
        let message = channel.map(|channel| Record {
            partition: PARTITION,
            offset: Offset(offset),
            id: MessageId(offset.into()),
            time: offset,
            channel: vec![b'a' + channel].into(),
            payload: Payload::Text("x".into()),
        });
        Recent::from(Seen { offset: Offset(offset), check: Check(offset), time: offset, message, repeated: false })
    }

    fn since(offset: u64) -> Position {
        Position { partition: PARTITION, offset: Offset(offset), check: Check(offset) }
    }

    fn offsets(missed: Missed) -> Result<Vec<u64>, &'static str> {
        match missed {
            Missed::These(messages) => Ok(messages.iter().map(|message| message.record.offset.0).collect()),
            Missed::Older => Err("older"),
            Missed::Unknown => Err("unknown"),
            Missed::Ahead => Err("ahead"),
        }
    }

    #[test]
    fn what_is_not_known_for_certain_is_no_answer() {
        let mut ring = Ring::new(WIDE);
        assert_eq!(offsets(ring.missed("a", since(3), Offset(9), 0)), Err("older"));
        (10..20).for_each(|offset| ring.append(recent(offset, Some(0)), 0));
        assert_eq!(offsets(ring.missed("a", since(9), Offset(19), 0)), Err("older"));
        assert_eq!(offsets(ring.missed("a", since(20), Offset(19), 0)), Err("unknown"));
        let other = Position { check: Check(1), ..since(12) };
        assert_eq!(offsets(ring.missed("a", other, Offset(19), 0)), Err("unknown"));
        assert_eq!(offsets(ring.missed("a", since(16), Offset(18), 0)), Ok(vec![17, 18]), "what is live is not missed");
        ring.append(recent(30, Some(0)), 0);
        assert_eq!(offsets(ring.missed("a", since(19), Offset(30), 0)), Err("older"), "a hole begins the ring anew");
    }

    #[test]
    fn age_and_bytes_bound_the_ring_but_the_newest_record_stays() {
        let mut ring = Ring::new(Bounds { age: 5, bytes: usize::MAX });
        (1..=10).for_each(|offset| ring.append(recent(offset, Some(0)), offset));
        assert_eq!(ring.first(PARTITION), Some(since(5)));
        ring.append(recent(11, None), 1000);
        assert_eq!((ring.first(PARTITION), ring.last.len()), (Some(since(11)), 0));
        let each = recent(1, Some(0)).bytes();
        let mut ring = Ring::new(Bounds { age: u64::MAX, bytes: 3 * each });
        (1..=10).for_each(|offset| ring.append(recent(offset, Some(0)), offset));
        assert_eq!((ring.first(PARTITION), ring.bytes), (Some(since(8)), 3 * each));
    }

    #[test]
    fn older_records_go_in_front_and_stay_for_a_while() {
        let mut ring = Ring::new(Bounds { age: 5, bytes: usize::MAX });
        (20..30).for_each(|offset| ring.append(recent(offset, Some(0)), offset));
        let first = ring.first(PARTITION).map_or(0, |first| first.offset.0);
        let older = |from: u64, to: u64| (from..to).map(|offset| recent(offset, Some(0))).collect::<Vec<_>>();
        assert!(!ring.extend_back(older(20, first - 1), since(first)), "a hole");
        assert!(!ring.extend_back(older(20, first), since(first + 1)), "not the oldest any more");
        assert!(!ring.extend_back(Vec::new(), since(first)));
        ring.hold(1000);
        assert!(ring.extend_back(older(5, first), since(first)));
        assert_eq!(ring.first(PARTITION), Some(since(20)), "nobody knows what was repeated before the ring began");
        ring.append(recent(30, Some(0)), 999);
        assert_eq!(offsets(ring.missed("a", since(20), Offset(30), 0)), Ok((21..=30).collect()));
        ring.append(recent(31, Some(0)), 1000);
        assert_eq!(offsets(ring.missed("a", since(20), Offset(31), 0)), Err("older"));
    }

    #[test]
    fn a_repeated_message_that_is_read_back_is_not_told_again() {
        let mut ring = Ring::new(Bounds { age: 5, bytes: usize::MAX });
        ring.append(recent(1, Some(0)), 1);
        ring.append(Recent { message: None, repeated: true, ..recent(2, None) }, 2);
        (3..20).for_each(|offset| ring.append(recent(offset, Some(0)), offset));
        let first = ring.first(PARTITION).map_or(0, |first| first.offset.0);
        assert!(ring.extend_back((1..first).map(|offset| recent(offset, Some(0))).collect(), since(first)));
        let expected: Vec<u64> = (3..20).collect();
        assert_eq!(offsets(ring.missed("a", since(1), Offset(19), 0)), Ok(expected));
    }

    #[test]
    fn what_was_read_back_before_a_break_is_not_put_before_what_came_after() {
        let mut ring = Ring::new(WIDE);
        (10..20).for_each(|offset| ring.append(recent(offset, Some(0)), 0));
        let before = since(10);
        ring.clear();
        assert!(!ring.extend_back((5..10).map(|offset| recent(offset, Some(0))).collect(), before));
        assert_eq!(ring.first(PARTITION), None);
    }

    #[test]
    fn who_has_yet_to_see_a_break_gets_nothing_of_what_came_after_it() {
        let mut ring = Ring::new(WIDE);
        (1..9).for_each(|offset| ring.append(recent(offset, Some(0)), 0));
        ring.clear();
        (1..5).for_each(|offset| ring.append(recent(offset, Some(0)), 0));
        assert_eq!(offsets(ring.missed("a", since(2), Offset(8), 0)), Err("ahead"));
        assert_eq!(offsets(ring.missed("a", since(2), Offset(4), ring.breaks())), Ok(vec![3, 4]));
    }

    proptest! {
        #[test]
        fn exactly_what_was_missed_is_found(
            log in proptest::collection::vec(proptest::option::of(0u8..3), 1..120),
            kept in 1usize..60,
            split in 0usize..120,
            from in 0u64..130,
            until in 0u64..130,
        ) {
            let all: Vec<Recent> = (1..).zip(&log).map(|(offset, channel)| recent(offset, *channel)).collect();
            let split = split.min(all.len() - 1);
            let mut ring = Ring::new(Bounds { age: u64::MAX, bytes: kept * 300 });
            all[split..].iter().for_each(|recent| ring.append(recent.clone(), 0));
            let begun = u64::try_from(split).unwrap_or(0) + 1;
            let first = ring.first(PARTITION).map_or(0, |first| first.offset.0);
            let older = all[..usize::try_from(first - 1).unwrap_or(0)].to_vec();
            if ring.extend_back(older, since(first)) {
                prop_assert_eq!(ring.first(PARTITION).map(|first| first.offset), Some(Offset(begun)));
            }
            prop_assert!(ring.bytes <= kept * 300 || ring.slots.len() == 1);
            let first = ring.first(PARTITION).map_or(0, |first| first.offset.0);
            for (channel, name) in ["a", "b", "c"].iter().enumerate() {
                let expected: Vec<u64> = (1u64..).zip(&log)
                    .filter(|(offset, said)| **said == u8::try_from(channel).ok() && *offset > from && *offset <= until)
                    .map(|(offset, _)| offset).collect();
                match ring.missed(name, since(from), Offset(until), 0) {
                    Missed::These(messages) => {
                        let found: Vec<_> = messages.iter().map(|message| message.record.offset.0).collect();
                        prop_assert_eq!(found, expected);
                    }
                    Missed::Older => prop_assert!(from < first),
                    Missed::Unknown => prop_assert!(from > log.len() as u64),
                    Missed::Ahead => prop_assert!(false, "no break was told"),
                }
            }
        }
    }
}
