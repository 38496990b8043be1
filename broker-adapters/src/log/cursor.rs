//! Decides, record by record, whether the log goes on from what was read before.
//!
//! One per partition and tail; pure. After any reconnect the last record is read again and must be the same
//! one. This single check finds trimmed, flushed, re-created and rolled-back logs, of which the brokers report none.

use crate::broker::{Entry, Standing, Start};
use crate::log::dedup::Dedup;
use crate::log::event::{Break, BreakReason, Resume, TailEvent};
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
    /// The last record that counts as history. History comes before `Up`.
    history: Offset,
    /// Whether this session begins behind another log than the one that was read before.
    after_reset: bool,
    dedup: Dedup,
    /// Records dropped because their id was there before.
    pub(crate) duplicates: u64,
    /// Records skipped that only newer releases know.
    pub(crate) skipped: u64,
    /// The positions that other nodes' heartbeats name as read, each with the offset of the heartbeat.
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
        let (live, up, history, after_reset) = (false, false, Offset(0), false);
        let (dedup, duplicates, skipped, named) = (Dedup::default(), 0, 0, Vec::new());
        Self { partition, place, live, up, history, after_reset, dedup, duplicates, skipped, named }
    }

    /// Appends go to another log than the one that is read. True if a record was read, which is then announced as lost.
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
            // A session without records does not count: history is read again.
            Place::End { back, .. } | Place::First { back, .. } if back > 0 && last.0 > 0 => {
                self.place = Place::First { epoch: standing.epoch, back };
                self.history = last;
                Ok(())
            }
            Place::End { .. } | Place::First { .. } => {
                let lost = if let Place::End { lost, .. } = self.place { lost } else { None };
                self.place = Place::After { epoch: Some(standing.epoch), offset: last, check: Check::UNKNOWN };
                self.history = Offset(0);
                self.after_reset = lost.is_some();
                if let Some(after) = lost {
                    // Clients that joined since never received those messages, so retries of them must be delivered.
                    self.dedup.clear();
                    let at = self.position(last, Check::UNKNOWN);
                    out.push(TailEvent::Lost(Break { after, at, reason: BreakReason::Reset }));
                }
                Ok(())
            }
        }
    }

    /// Takes the next entry of the reader and adds the events that follow from it.
    pub(crate) fn accept(&mut self, entry: &Entry, out: &mut Vec<TailEvent>) -> Result<(), Reopen> {
        let (epoch, last, known) = match self.place {
            Place::After { epoch: Some(epoch), offset, check } => (epoch, offset, check),
            // History begins with the first record that the broker still keeps.
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
                    // After a reset this record was not delivered, so a retry of it must be.
                    && !self.after_reset
                {
                    self.dedup.insert(envelope.id);
                }
                // An old record shows where the log goes on, and not that new records come.
                return Ok(());
            }
            self.say_up((last, known), entry.offset, out);
            // The anchor is gone. If it was never read, the next offset proves as much as the anchor would.
            if known != Check::UNKNOWN || entry.offset != last.next() {
                // Nothing proves that the known ids are of this log.
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

    /// Announces once in a session that the log goes on after this record: history has come, and so has a new record.
    fn say_up(&mut self, (last, check): (Offset, Check), new: Offset, out: &mut Vec<TailEvent>) {
        if new > self.history && !std::mem::replace(&mut self.up, true) {
            out.push(TailEvent::Up { at: self.position(last, check) });
        }
    }

    /// The log is another one. It is read from its end.
    fn leave(&mut self, offset: Offset, check: Check) -> Reopen {
        self.place = Place::End { back: 0, lost: Some(self.position(offset, check)) };
        self.history = Offset(0);
        Reopen
    }

    fn take(&mut self, envelope: envelope::Envelope, offset: Offset, out: &mut Vec<TailEvent>) {
        // Skipped records count too: nodes of all releases note the same ids, and so they decide alike.
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
        if !fresh {
            next.control = None;
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
mod tests;
