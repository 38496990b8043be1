//! The ring answers with exactly the messages that it can prove, piece by piece.

use broker_adapters::{MessageId, Partition, Payload, Record};
use proptest::prelude::*;

use super::*;

pub(crate) const PARTITION: Partition = Partition(0);

/// A record as the tail reads it: a message on a channel, or a heartbeat.
pub(crate) fn seen(offset: u64, channel: Option<u8>) -> Seen {
    let (offset, time, id) = (Offset(offset), offset, MessageId(offset.into()));
    let message = channel.map(|channel| {
        let (channel, payload) = (vec![b'a' + channel].into(), Payload::Text("x".into()));
        Record { partition: PARTITION, offset, id, time, channel, payload, extensions: Default::default() }
    });
    Seen { offset, check: id.check(time), time, message, control: None, repeated: false }
}

pub(crate) fn recent(offset: u64, channel: Option<u8>) -> Recent {
    Recent::from(seen(offset, channel))
}

pub(crate) fn at(offset: u64) -> Position {
    Position { partition: PARTITION, offset: Offset(offset), check: MessageId(offset.into()).check(offset) }
}

/// The offsets of the messages, and the offset of `to`.
pub(crate) fn offsets(owed: Owed) -> Result<(Vec<u64>, u64), &'static str> {
    match owed {
        Owed::These { messages, to } => {
            assert_eq!(to, at(to.offset.0), "`to` is the position of a record");
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
fn messages_that_cannot_be_proven_are_not_returned() {
    let mut ring = Ring::new(u64::MAX);
    assert_eq!(all(&ring, 3, 9), Err("unknown"));
    (10..20).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
    assert_eq!(all(&ring, 9, 19), Err("unknown"), "it is not known which records before the first are repeated");
    ring.evict();
    assert_eq!(all(&ring, 10, 19), Err("older"));
    assert_eq!(all(&ring, 20, 19), Err("unknown"));
    let other = Position { check: Check(1), ..at(12) };
    assert_eq!(offsets(ring.owed("a", other, at(19), 0, usize::MAX)), Err("unknown"));
    assert_eq!(all(&ring, 16, 18), Ok(vec![17, 18]), "messages after the worker's position are not returned");
    ring.append(recent(30, Some(0)), u64::MAX);
    assert_eq!(all(&ring, 19, 30), Err("unknown"), "a gap restarts the ring");
}

#[test]
fn old_records_are_evicted_but_the_newest_record_stays() {
    let mut ring = Ring::new(5);
    (1..=10).for_each(|offset| ring.append(recent(offset, Some(0)), offset));
    assert_eq!((ring.first, ring.oldest()), (5, Some(5)));
    ring.append(recent(11, None), 1000);
    assert_eq!((ring.first, ring.oldest(), ring.last.len(), ring.bytes()), (11, None, 0, EMPTY));
}

#[test]
fn a_publishers_clock_that_is_ahead_does_not_keep_records_longer() {
    let mut ring = Ring::new(5);
    ring.append(Recent { time: 1_000_000, ..recent(1, Some(0)) }, 10);
    ring.append(recent(2, Some(0)), 16);
    assert_eq!(ring.first, 2);
}

#[test]
fn a_worker_that_has_not_seen_a_break_gets_no_messages_from_after_it() {
    let mut ring = Ring::new(u64::MAX);
    (1..9).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
    ring.clear();
    (3..5).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
    assert_eq!(offsets(ring.owed("a", at(3), at(8), 0, usize::MAX)), Err("ahead"));
    assert_eq!(all(&ring, 3, 4), Ok(vec![4]));
    assert!(!ring.reaches(Offset(2)), "records before the break do not belong to the new log");
}

#[test]
fn an_evicted_record_is_still_known_to_be_repeated() {
    let mut ring = Ring::new(u64::MAX);
    ring.append(recent(1, Some(0)), u64::MAX);
    ring.append(Recent { message: None, repeated: true, ..recent(2, None) }, u64::MAX);
    (3..20).for_each(|offset| ring.append(recent(offset, Some(0)), u64::MAX));
    (0..5).for_each(|_| ring.evict());
    assert!(ring.is_repeated(at(2)) && !ring.is_repeated(at(1)) && ring.reaches(Offset(1)));
    let of_another_log = Position { check: Check(99), ..at(2) };
    assert!(!ring.is_repeated(of_another_log), "another server's log may hold another message at this offset");
}

proptest! {
    #[test]
    fn exactly_the_missed_messages_are_returned_piece_by_piece(
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
                .filter(|(offset, on)| **on == Some(channel) && *offset > from && *offset <= until)
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
                    Owed::Ahead => prop_assert!(false, "there was no break"),
                }
            }
        }
    }
}
