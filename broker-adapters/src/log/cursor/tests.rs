//! Cursors over logs that go on, break off, and are exchanged for others.

use bytes::Bytes;

use super::*;
use crate::stored::record::MessageId;
use crate::stored::record::{NewRecord, Payload};

const PARTITION: Partition = Partition(3);

fn entry(epoch: u64, offset: u64, id: u128) -> Entry {
    let payload = Payload::Text(Bytes::from_static(b"x"));
    let bytes = envelope::message(&NewRecord::new(MessageId(id), "c".into(), payload), 0);
    Entry { partition: PARTITION, epoch: Some(Epoch(epoch)), offset: Offset(offset), previous: None, bytes }
}

fn standing(epoch: u64, next: u64) -> Standing {
    Standing { partition: PARTITION, epoch: Epoch(epoch), next: Offset(next) }
}

/// Short words for events: `up 3`, `3 4` (offsets), `trimmed 3..5`, `.` for a batch without messages.
fn words(events: &[TailEvent]) -> String {
    let word = |event: &TailEvent| match event {
        TailEvent::Up { at } => format!("up {}", at.offset.0),
        TailEvent::Down { .. } => "down".into(),
        TailEvent::Records { seen, .. } => {
            let messages = seen.iter().filter_map(|seen| seen.message.as_ref());
            messages.map(|record| record.offset.0.to_string()).collect::<Vec<_>>().join(" ")
        }
        TailEvent::Lost(lost) => {
            format!("{} {}..{}", lost.reason, lost.after.offset.0, lost.at.offset.0)
        }
    };
    events.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// A cursor that has read records 1 to 3 (ids 1 to 3) of epoch 7, at the start of a new session.
fn after_three(standing: Standing) -> (Cursor, Vec<TailEvent>, Result<(), Reopen>) {
    let mut cursor = Cursor::new(PARTITION, Resume::Head);
    let mut out = Vec::new();
    assert_eq!(cursor.opened(self::standing(7, 1), &mut out), Ok(()));
    for n in 1..=3 {
        assert_eq!(cursor.accept(&entry(7, n, n.into()), &mut out), Ok(()));
    }
    assert_eq!(words(&out), "up 0, 1 2 3");
    out.clear();
    let opened = cursor.opened(standing, &mut out);
    (cursor, out, opened)
}

fn resumed(standing: Standing, entries: &[Entry]) -> (String, Result<(), Reopen>) {
    let (mut cursor, mut out, mut result) = after_three(standing);
    for entry in entries {
        if result.is_ok() {
            result = cursor.accept(entry, &mut out);
        }
    }
    if result.is_err() && matches!(cursor.place, Place::End { .. }) {
        assert_eq!(cursor.opened(self::standing(8, 11), &mut out), Ok(()));
    }
    (words(&out), result)
}

#[test]
fn the_same_record_at_the_anchor_goes_on_without_a_mark() {
    let entries = [entry(7, 3, 3), entry(7, 4, 4), entry(7, 5, 5)];
    assert_eq!(resumed(standing(7, 6), &entries), ("up 3, 4 5".into(), Ok(())));
}

#[test]
fn earlier_records_of_the_same_chunk_are_passed_over() {
    let entries = [entry(7, 2, 2), entry(7, 3, 3), entry(7, 4, 4)];
    assert_eq!(resumed(standing(7, 5), &entries), ("up 3, 4".into(), Ok(())));
}

#[test]
fn a_later_first_record_is_a_trimmed_log() {
    assert_eq!(resumed(standing(7, 7), &[entry(7, 6, 6)]), ("up 3, trimmed 3..5, 6".into(), Ok(())));
    assert_eq!(resumed(standing(7, 5), &[entry(7, 4, 4)]), ("up 3, trimmed 3..3, 4".into(), Ok(())));
}

#[test]
fn another_log_is_announced_and_read_from_its_end() {
    let reset = "reset 3..10".to_owned();
    assert_eq!(resumed(standing(8, 9), &[]), (reset.clone(), Err(Reopen)), "another epoch");
    assert_eq!(resumed(standing(7, 3), &[]), (reset.clone(), Err(Reopen)), "rolled back");
    assert_eq!(resumed(standing(7, 9), &[entry(7, 3, 99)]), (reset, Err(Reopen)), "another record");
    let regrown = resumed(standing(7, 4), &[entry(7, 3, 3), entry(8, 4, 4)]);
    assert_eq!(regrown, ("reset 3..10".into(), Err(Reopen)), "wiped and grown past us while live");
}

#[test]
fn a_hole_in_the_live_log_is_a_gap() {
    let entries = [entry(7, 3, 3), entry(7, 4, 4), entry(7, 8, 8)];
    assert_eq!(resumed(standing(7, 4), &entries), ("up 3, 4, skipped 4..7, 8".into(), Ok(())));
}

#[test]
fn a_reader_that_goes_back_is_opened_anew_at_the_anchor() {
    let (mut cursor, mut out, _) = after_three(standing(7, 4));
    assert_eq!(cursor.accept(&entry(7, 3, 3), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(7, 4, 4), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(7, 2, 2), &mut out), Err(Reopen));
    assert_eq!(cursor.start(), Start::At(Offset(4)));
}

#[test]
fn an_unreadable_record_is_a_gap_of_one() {
    let garbage = Entry { bytes: Bytes::from_static(b"garbage"), ..entry(7, 4, 4) };
    let entries = [entry(7, 3, 3), garbage, entry(7, 5, 5)];
    assert_eq!(resumed(standing(7, 6), &entries), ("up 3, unreadable 3..4, 5".into(), Ok(())));
}

#[test]
fn a_record_to_skip_is_no_gap_and_its_id_counts() {
    let newer = |offset, id| {
        let mut bytes = entry(7, offset, id).bytes[..28].to_vec();
        bytes[1..4].copy_from_slice(&[9, 99, 1]);
        Entry { bytes: bytes.into(), ..entry(7, offset, id) }
    };
    let (mut cursor, mut out, _) = after_three(standing(7, 4));
    for entry in [entry(7, 3, 3), newer(4, 4), entry(7, 5, 5), newer(6, 6)] {
        assert_eq!(cursor.accept(&entry, &mut out), Ok(()));
    }
    assert_eq!((words(&out), cursor.skipped), ("up 3, 5".into(), 2));
    out.clear();
    assert_eq!(cursor.opened(standing(7, 7), &mut out), Ok(()));
    for entry in [newer(6, 6), entry(7, 7, 4), entry(7, 8, 8)] {
        assert_eq!(cursor.accept(&entry, &mut out), Ok(()), "it anchors a new session as any record does");
    }
    assert_eq!((words(&out), cursor.duplicates), ("up 6, 8".into(), 1), "its id is taken");
    assert_eq!(cursor.opened(standing(7, 9), &mut out), Ok(()));
    assert_eq!(cursor.accept(&newer(8, 9), &mut out), Err(Reopen), "another record stands there");
}

#[test]
fn a_repeated_id_is_dropped_and_counted() {
    let (mut cursor, mut out, _) = after_three(standing(7, 4));
    for (offset, id) in [(3, 3), (4, 4), (5, 4), (6, 1), (7, 7)] {
        assert_eq!(cursor.accept(&entry(7, offset, id), &mut out), Ok(()));
    }
    assert_eq!((words(&out), cursor.duplicates), ("up 3, 4 7".into(), 2));
}

#[test]
fn history_comes_before_the_partition_is_up() {
    let mut cursor = Cursor::new(PARTITION, Resume::Recent(100));
    let mut out = Vec::new();
    assert_eq!(cursor.start(), Start::Back(100));
    assert_eq!(cursor.opened(standing(7, 8), &mut out), Ok(()));
    for n in [5, 6] {
        assert_eq!(cursor.accept(&entry(7, n, n.into()), &mut out), Ok(()), "what is kept begins at 5");
    }
    assert_eq!(words(&out), "5 6");
    assert_eq!((cursor.opened(standing(7, 10), &mut out), cursor.start()), (Ok(()), Start::At(Offset(6))));
    for n in [6, 7, 8] {
        assert_eq!(cursor.accept(&entry(7, n, n.into()), &mut out), Ok(()));
    }
    assert_eq!(words(&out), "5 6 7, up 7, 8", "the end of the log as it was when the reader was opened");
}

#[test]
fn a_session_that_shows_nothing_leaves_all_history_to_the_next() {
    let mut cursor = Cursor::new(PARTITION, Resume::Recent(100));
    let mut out = Vec::new();
    assert_eq!(cursor.opened(standing(7, 3), &mut out), Ok(()));
    assert_eq!((cursor.opened(standing(7, 4), &mut out), cursor.start()), (Ok(()), Start::Back(100)));
    for n in 1..=4 {
        assert_eq!(cursor.accept(&entry(7, n, n.into()), &mut out), Ok(()));
    }
    assert_eq!(words(&out), "1 2 3, up 3, 4");
    out.clear();
    assert_eq!(cursor.opened(standing(7, 5), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(7, 4, 4), &mut out), Ok(()));
    assert_eq!(words(&out), "", "the last record once more does not show that the log goes on");
    let mut cursor = Cursor::new(PARTITION, Resume::Recent(100));
    assert_eq!(cursor.opened(standing(7, 3), &mut out), Ok(()));
    out.clear();
    assert_eq!(cursor.accept(&entry(8, 1, 1), &mut out), Err(Reopen), "nothing of another log was lost");
    assert_eq!(cursor.opened(standing(8, 1), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(8, 1, 1), &mut out), Ok(()));
    assert_eq!(words(&out), "up 0, 1");
}

#[test]
fn an_empty_log_has_no_history() {
    let mut cursor = Cursor::new(PARTITION, Resume::Recent(100));
    let mut out = Vec::new();
    assert_eq!(cursor.opened(standing(7, 1), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(7, 1, 1), &mut out), Ok(()));
    assert_eq!(words(&out), "up 0, 1");
}

#[test]
fn a_position_of_another_log_is_found_by_its_fingerprint() {
    let at = Position { partition: PARTITION, offset: Offset(3), check: MessageId(3).check(0) };
    for (id, result) in [(3, Ok(())), (99, Err(Reopen))] {
        let mut cursor = Cursor::new(PARTITION, Resume::After(at));
        let mut out = Vec::new();
        assert_eq!(cursor.opened(standing(7, 9), &mut out), Ok(()));
        assert_eq!(cursor.accept(&entry(7, 3, id), &mut out), result);
    }
}

#[test]
fn a_tail_from_the_end_learns_the_last_record_without_delivering_it() {
    let mut cursor = Cursor::new(PARTITION, Resume::Head);
    let mut out = Vec::new();
    assert_eq!(cursor.opened(standing(7, 6), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(7, 5, 5), &mut out), Ok(()));
    assert_eq!(cursor.opened(standing(7, 6), &mut out), Ok(()));
    assert_eq!(cursor.accept(&entry(7, 5, 55), &mut out), Err(Reopen));
    assert_eq!(words(&out), "", "nothing is delivered");
}

#[test]
fn a_record_that_follows_another_one_than_was_read_is_of_another_log() {
    for (previous, result) in [(3, Ok(())), (99, Err(Reopen))] {
        let (mut cursor, mut out, _) = after_three(standing(7, 4));
        assert_eq!(cursor.accept(&entry(7, 3, 3), &mut out), Ok(()));
        let next = Entry { previous: Some(MessageId(previous).check(0)), ..entry(7, 4, 4) };
        assert_eq!(cursor.accept(&next, &mut out), result);
    }
}

#[test]
fn ids_from_before_an_unproven_gap_count_no_more() {
    let (mut cursor, mut out, _) = after_three(standing(7, 7));
    assert_eq!(cursor.accept(&entry(7, 6, 3), &mut out), Ok(()));
    assert_eq!((words(&out).as_str(), cursor.duplicates), ("up 3, trimmed 3..5, 6", 0));
}

#[test]
fn a_retry_of_the_record_that_a_reset_begins_behind_is_delivered() {
    let (mut cursor, mut out, opened) = after_three(standing(8, 9));
    assert_eq!(opened, Err(Reopen));
    assert_eq!(cursor.opened(standing(8, 9), &mut out), Ok(()));
    for (offset, id) in [(8, 80), (9, 80), (10, 81), (11, 81)] {
        assert_eq!(cursor.accept(&entry(8, offset, id), &mut out), Ok(()));
    }
    assert_eq!(
        words(&out),
        "reset 3..8, up 8, 9 10",
        "the first copy of 80 came before this session, and 81 came twice"
    );
}
