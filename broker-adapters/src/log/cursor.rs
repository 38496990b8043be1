//! Decides, record by record, whether what was read goes on from what was read before.
//!
//! One per partition and tail; pure. After any reconnect the last record is read again and must be the same
//! one: this single check finds trimmed, flushed, re-created and rolled-back logs, all of which the brokers
//! themselves pass over in silence.

use crate::broker::{Entry, Standing, Start};
use crate::log::dedup::Dedup;
use crate::log::tail::{Break, BreakReason, Resume, TailEvent};
use crate::stored::envelope;
use crate::stored::position::{Check, Epoch, Offset, Partition, Position};

/// The reader must be opened anew, from [`Cursor::start`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reopen;

/// Where a tail stands in one partition.
#[derive(Debug)]
pub(crate) struct Cursor {
    partition: Partition,
    place: Place,
    /// Whether this session has shown a record yet.
    live: bool,
    /// Whether this session was said to be up.
    up: bool,
    /// The last record that counts as history: who wants to hear of it hears of it before `Up`.
    history: Offset,
    dedup: Dedup,
    /// Records dropped because their id was there before.
    pub(crate) duplicates: u64,
    /// Records passed over that only newer releases know.
    pub(crate) skipped: u64,
    /// What other nodes' heartbeats say that they have read, each with the place of the heartbeat.
    pub(crate) named: Vec<(Offset, Position)>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// So many records before the end of the log; `lost` holds the position of another log that was left for it.
    End { back: u64, lost: Option<Position> },
    /// After this record. The epoch is known once a reader was opened, the fingerprint once the record has been read.
    After { epoch: Option<Epoch>, offset: Offset, check: Check },
    /// Before the first record that the reader shows, so many before the end of the log.
    First { epoch: Epoch, back: u64 },
}

impl Cursor {
    pub(crate) fn new(partition: Partition, resume: Resume) -> Self {
        let place = match resume {
            Resume::Head => Place::End { back: 0, lost: None },
            Resume::Recent(records) => Place::End { back: records, lost: None },
            Resume::After(at) => Place::After { epoch: None, offset: at.offset, check: at.check },
        };
        let (live, up, history) = (false, false, Offset(0));
        let (dedup, duplicates, skipped, named) = (Dedup::default(), 0, 0, Vec::new());
        Self { partition, place, live, up, history, dedup, duplicates, skipped, named }
    }

    /// What is read is not the log that appends go to. True if something was read, which is announced as lost.
    pub(crate) fn distrust(&mut self) -> bool {
        let Place::After { epoch: Some(_), offset, check } = self.place else { return false };
        let Reopen = self.leave(offset, check);
        true
    }

    /// Where to open the reader.
    pub(crate) fn start(&self) -> Start {
        match self.place {
            Place::End { back: 0, .. } => Start::Head,
            Place::End { back, .. } | Place::First { back, .. } => Start::Back(back),
            Place::After { offset, .. } => Start::At(offset),
        }
    }

    /// A reader was opened: is this still the log that was read before?
    pub(crate) fn opened(&mut self, standing: Standing, out: &mut Vec<TailEvent>) -> Result<(), Reopen> {
        (self.live, self.up) = (false, false);
        let last = Offset(standing.next.0.saturating_sub(1));
        match self.place {
            Place::After { epoch, offset, check }
                if epoch.is_some_and(|epoch| epoch != standing.epoch) || standing.next <= offset =>
            {
                Err(self.leave(offset, check))
            }
            Place::After { offset, check, .. } => {
                self.place = Place::After { epoch: Some(standing.epoch), offset, check };
                Ok(())
            }
            // A session that showed nothing was none.
            Place::End { back, .. } | Place::First { back, .. } if back > 0 && last.0 > 0 => {
                self.place = Place::First { epoch: standing.epoch, back };
                self.history = last;
                Ok(())
            }
            Place::End { .. } | Place::First { .. } => {
                let lost = if let Place::End { lost, .. } = self.place { lost } else { None };
                self.place = Place::After { epoch: Some(standing.epoch), offset: last, check: Check::UNKNOWN };
                self.history = Offset(0);
                if let Some(after) = lost {
                    // Who came since then has not had what an old id stands for, and gets it when it is published again.
                    self.dedup.clear();
                    let at = self.position(last, Check::UNKNOWN);
                    out.push(TailEvent::Lost(Break { after, at, reason: BreakReason::Reset }));
                }
                Ok(())
            }
        }
    }

    /// Takes the next entry of the reader and says what it means.
    pub(crate) fn accept(&mut self, entry: &Entry, out: &mut Vec<TailEvent>) -> Result<(), Reopen> {
        let (epoch, last, known) = match self.place {
            Place::After { epoch: Some(epoch), offset, check } => (epoch, offset, check),
            // History begins wherever what is kept begins.
            Place::First { epoch, .. } => {
                if entry.epoch.is_some_and(|seen| seen != epoch) {
                    return Err(Reopen);
                }
                self.live = true;
                (epoch, Offset(entry.offset.0.saturating_sub(1)), Check::UNKNOWN)
            }
            _ => return Err(Reopen),
        };
        if entry.epoch.is_some_and(|seen| seen != epoch) {
            return Err(self.leave(last, known));
        }
        let envelope = envelope::read(&entry.bytes);
        let check = envelope.as_ref().map_or(Check::UNKNOWN, |envelope| envelope.check());
        let here = Place::After { epoch: Some(epoch), offset: entry.offset, check };
        if !self.live {
            if entry.offset < last {
                return Ok(());
            }
            if entry.offset == last && known != Check::UNKNOWN && known != check {
                return Err(self.leave(last, known));
            }
            self.live = true;
            if entry.offset == last {
                self.place = here;
                if let Ok(envelope) = envelope
                    && known == Check::UNKNOWN
                {
                    self.dedup.insert(envelope.id);
                }
                // It stood there before: it shows where the log goes on, not that it does.
                return Ok(());
            }
            self.say_up((last, known), entry.offset, out);
            // The anchor is gone. Had it never been seen, the next offset proves as much as it would.
            if known != Check::UNKNOWN || entry.offset != last.next() {
                // Nothing proves that this is the log in which those ids stood.
                self.dedup.clear();
                out.push(self.gap((last, known), entry.offset, BreakReason::Trimmed));
            }
        } else if entry.offset <= last {
            return Err(Reopen);
        } else {
            self.say_up((last, known), entry.offset, out);
            if entry.offset != last.next() {
                out.push(self.gap((last, known), entry.offset, BreakReason::Skipped));
            }
        }
        if entry.offset == last.next() && known != Check::UNKNOWN && entry.previous.is_some_and(|check| check != known)
        {
            // The log was set back, and has grown past what was read.
            return Err(self.leave(last, known));
        }
        self.place = here;
        match envelope {
            Ok(envelope) => self.take(envelope, entry.offset, out),
            Err(why) => {
                tracing::warn!(partition = self.partition.0, offset = entry.offset.0, %why, "unreadable record skipped");
                out.push(self.gap((last, known), entry.offset.next(), BreakReason::Unreadable));
            }
        }
        Ok(())
    }

    /// Says once in a session that the log goes on after this record: all history was told, and a new record has come.
    fn say_up(&mut self, (last, check): (Offset, Check), new: Offset, out: &mut Vec<TailEvent>) {
        if new > self.history && !std::mem::replace(&mut self.up, true) {
            out.push(TailEvent::Up { at: self.position(last, check) });
        }
    }

    /// The log is another one: what it holds is read from its end.
    fn leave(&mut self, offset: Offset, check: Check) -> Reopen {
        self.place = Place::End { back: 0, lost: Some(self.position(offset, check)) };
        self.history = Offset(0);
        Reopen
    }

    fn take(&mut self, envelope: envelope::Envelope, offset: Offset, out: &mut Vec<TailEvent>) {
        // Also of what is skipped: nodes of all releases count the same ids, and so decide alike.
        let fresh = self.dedup.insert(envelope.id);
        match envelope.content {
            envelope::Content::Heartbeat { seen: Some(seen) } => self.named.push((offset, seen)),
            envelope::Content::Skipped => self.skipped += 1,
            _ => {}
        }
        let mut next = envelope.seen(self.partition, offset);
        if !fresh && next.message.take().is_some() {
            self.duplicates += 1;
            next.repeated = true;
        }
        match out.last_mut() {
            Some(TailEvent::Records { partition, seen }) if *partition == self.partition => seen.push(next),
            _ => out.push(TailEvent::Records { partition: self.partition, seen: vec![next] }),
        }
    }

    fn gap(&self, (after, check): (Offset, Check), next: Offset, reason: BreakReason) -> TailEvent {
        let after = self.position(after, check);
        let at = self.position(Offset(next.0.saturating_sub(1)), Check::UNKNOWN);
        TailEvent::Lost(Break { after, at, reason })
    }

    fn position(&self, offset: Offset, check: Check) -> Position {
        Position { partition: self.partition, offset, check }
    }
}

#[cfg(test)]
mod tests {
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
    fn another_log_is_told_and_read_from_its_end() {
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
    fn history_is_told_before_the_partition_is_up() {
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
}
