//! Decides, record by record, whether what was read goes on from what was read before.
//!
//! One per partition and tail; pure. After any reconnect the last record is read again and must be the same
//! one: this single check finds trimmed, flushed, re-created and rolled-back logs, all of which the brokers
//! themselves pass over in silence.

use crate::broker::{Entry, Standing, Start};
use crate::dedup::Dedup;
use crate::envelope::{self, Content};
use crate::position::{Epoch, Offset, Partition, Position};
use crate::record::{MessageId, Record};
use crate::tail::{Break, BreakReason, Resume, TailEvent};

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
    dedup: Dedup,
    /// Records dropped because their id was there before.
    pub(crate) duplicates: u64,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// At the end of the log; `lost` holds the position of another log that was left for it.
    Head { lost: Option<Position> },
    /// After this record. Its id is known once it has been read.
    After { epoch: Epoch, offset: Offset, id: Option<MessageId> },
}

impl Cursor {
    pub(crate) fn new(partition: Partition, resume: Resume) -> Self {
        let place = match resume {
            Resume::Head => Place::Head { lost: None },
            Resume::After(at) => Place::After { epoch: at.epoch, offset: at.offset, id: None },
        };
        Self { partition, place, live: false, dedup: Dedup::default(), duplicates: 0 }
    }

    /// Where to open the reader.
    pub(crate) fn start(&self) -> Start {
        match self.place {
            Place::Head { .. } => Start::Head,
            Place::After { offset, .. } => Start::At(offset),
        }
    }

    /// A reader was opened: is this still the log that was read before?
    pub(crate) fn opened(&mut self, standing: Standing, out: &mut Vec<TailEvent>) -> Result<(), Reopen> {
        self.live = false;
        match self.place {
            Place::After { epoch, offset, .. } if epoch != standing.epoch || standing.next <= offset => {
                Err(self.leave(epoch, offset))
            }
            Place::After { .. } => Ok(()),
            Place::Head { lost } => {
                let offset = Offset(standing.next.0.saturating_sub(1));
                self.place = Place::After { epoch: standing.epoch, offset, id: None };
                if let Some(after) = lost {
                    self.dedup.clear();
                    let at = Position { epoch: standing.epoch, partition: self.partition, offset };
                    out.push(TailEvent::Lost(Break { after, at, reason: BreakReason::Reset }));
                }
                Ok(())
            }
        }
    }

    /// Takes the next entry of the reader and says what it means.
    pub(crate) fn accept(&mut self, entry: &Entry, out: &mut Vec<TailEvent>) -> Result<(), Reopen> {
        let Place::After { epoch, offset: last, id: known } = self.place else {
            return Err(Reopen);
        };
        if entry.epoch.is_some_and(|seen| seen != epoch) {
            return Err(self.leave(epoch, last));
        }
        let envelope = envelope::read(&entry.bytes);
        let id = envelope.as_ref().ok().map(|envelope| envelope.id);
        let position = |offset| Position { epoch, partition: self.partition, offset };
        if !self.live {
            if entry.offset < last {
                return Ok(());
            }
            if entry.offset == last && known.is_some() && known != id {
                return Err(self.leave(epoch, last));
            }
            self.live = true;
            out.push(TailEvent::Up { at: position(last) });
            if entry.offset == last {
                self.place = Place::After { epoch, offset: last, id };
                if known.is_none()
                    && let Some(id) = id
                {
                    self.dedup.insert(id);
                }
                return Ok(());
            }
            // The anchor is gone. Had its id never been seen, the next offset proves as much as it would.
            if known.is_some() || entry.offset != last.next() {
                out.push(gap(position(last), entry.offset, BreakReason::Trimmed));
            }
        } else if entry.offset <= last {
            return Err(Reopen);
        } else if entry.offset != last.next() {
            out.push(gap(position(last), entry.offset, BreakReason::Skipped));
        }
        self.place = Place::After { epoch, offset: entry.offset, id };
        match envelope {
            Ok(envelope) => self.take(envelope, epoch, entry.offset, out),
            Err(why) => {
                tracing::warn!(partition = self.partition.0, offset = entry.offset.0, %why, "unreadable record skipped");
                let (after, at) = (Offset(entry.offset.0.saturating_sub(1)), position(entry.offset));
                out.push(TailEvent::Lost(Break { after: position(after), at, reason: BreakReason::Unreadable }));
            }
        }
        Ok(())
    }

    /// The log is another one: what it holds is read from its end.
    fn leave(&mut self, epoch: Epoch, offset: Offset) -> Reopen {
        self.place = Place::Head { lost: Some(Position { epoch, partition: self.partition, offset }) };
        Reopen
    }

    fn take(&mut self, envelope: envelope::Envelope, epoch: Epoch, offset: Offset, out: &mut Vec<TailEvent>) {
        let fresh = self.dedup.insert(envelope.id);
        let record = match envelope.content {
            Content::Message { channel, payload } if fresh => Some(Record {
                epoch,
                partition: self.partition,
                offset,
                id: envelope.id,
                time: envelope.time,
                channel,
                payload,
            }),
            Content::Message { .. } => {
                self.duplicates += 1;
                None
            }
            Content::Heartbeat => None,
        };
        let at = Position { epoch, partition: self.partition, offset };
        match out.last_mut() {
            Some(TailEvent::Records { records, at: last }) if last.partition == self.partition => {
                *last = at;
                records.extend(record);
            }
            _ => out.push(TailEvent::Records { records: record.into_iter().collect(), at }),
        }
    }
}

fn gap(after: Position, next: Offset, reason: BreakReason) -> TailEvent {
    let at = Position { offset: Offset(next.0.saturating_sub(1)), ..after };
    TailEvent::Lost(Break { after, at, reason })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{NewRecord, Payload};

    const PARTITION: Partition = Partition(3);

    fn entry(epoch: u64, offset: u64, id: u128) -> Entry {
        let payload = Payload::Text(Bytes::from_static(b"x"));
        let bytes = envelope::message(&NewRecord { id: MessageId(id), channel: "c".into(), payload }, 0);
        Entry { partition: PARTITION, epoch: Some(Epoch(epoch)), offset: Offset(offset), bytes }
    }

    fn standing(epoch: u64, next: u64) -> Standing {
        Standing { partition: PARTITION, epoch: Epoch(epoch), next: Offset(next) }
    }

    /// Short words for events: `up 3`, `3 4` (offsets), `trimmed 3..5`, `.` for a batch without messages.
    fn words(events: &[TailEvent]) -> String {
        let word = |event: &TailEvent| match event {
            TailEvent::Up { at } => format!("up {}", at.offset.0),
            TailEvent::Down { .. } => "down".into(),
            TailEvent::Records { records, .. } if records.is_empty() => ".".into(),
            TailEvent::Records { records, .. } => {
                records.iter().map(|record| record.offset.0.to_string()).collect::<Vec<_>>().join(" ")
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
        if result.is_err() && matches!(cursor.place, Place::Head { .. }) {
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
        assert_eq!(regrown, ("up 3, reset 3..10".into(), Err(Reopen)), "wiped and grown past us while live");
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
    fn a_repeated_id_is_dropped_and_counted() {
        let (mut cursor, mut out, _) = after_three(standing(7, 4));
        for (offset, id) in [(3, 3), (4, 4), (5, 4), (6, 1), (7, 7)] {
            assert_eq!(cursor.accept(&entry(7, offset, id), &mut out), Ok(()));
        }
        assert_eq!((words(&out), cursor.duplicates), ("up 3, 4 7".into(), 2));
    }

    #[test]
    fn a_tail_from_the_end_learns_the_last_record_without_delivering_it() {
        let mut cursor = Cursor::new(PARTITION, Resume::Head);
        let mut out = Vec::new();
        assert_eq!(cursor.opened(standing(7, 6), &mut out), Ok(()));
        assert_eq!(cursor.accept(&entry(7, 5, 5), &mut out), Ok(()));
        assert_eq!(cursor.opened(standing(7, 6), &mut out), Ok(()));
        assert_eq!(cursor.accept(&entry(7, 5, 55), &mut out), Err(Reopen));
        assert_eq!(words(&out), "up 5");
    }
}
