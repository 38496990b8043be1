//! Compares what the broker acknowledged with what the tail then reads.
//!
//! One per partition, while a tail follows it; pure. The tail must read every acknowledged record. If it passes the place of
//! such a record without seeing it, appends go to another log than the one that is read, or the log was set back.
//! Bounded: it keeps at most [`MOST`] records that were acknowledged and not read, and forgets the oldest first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::{Standing, Stored};
use crate::log::event::{BreakReason, Seen, TailEvent};
use crate::stored::position::{Check, Epoch, Offset, Partition, Position};

/// Acknowledged records that wait to be read, at most.
const MOST: usize = 8_192;
/// How many of the records read last are kept, to compare with what other nodes have read.
const RECENT: usize = 64;

/// The acknowledged records of one partition that its tail must read.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// The log that is read, once a reader was opened.
    epoch: Option<Epoch>,
    /// How far it was read without a hole, once it was read.
    read: Option<Span>,
    expected: HashMap<Check, Expected>,
    /// Acknowledged and not read, by the offset at which each must have been read.
    due: BTreeSet<(Offset, u64)>,
    /// Acknowledged, by age. A record that was read meanwhile stays until it is the oldest.
    unread: VecDeque<(Instant, Check)>,
    /// The records read last.
    recent: VecDeque<(Offset, Check)>,
}

/// The records that were read without a hole.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// Nothing is known of records up to this one.
    after: Offset,
    last: Offset,
}

/// A record that was sent to the broker.
#[derive(Debug, Default)]
struct Expected {
    /// How many appends of it wait for an answer.
    under_way: u32,
    /// The tail has read it.
    read: bool,
    acknowledged: Option<Acknowledged>,
}

#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    since: Instant,
    /// Where it must have been read, if that is known.
    due: Option<Offset>,
}

impl Witness {
    /// A record is about to be appended.
    pub(crate) fn sent(&mut self, check: Check) {
        self.expected.entry(check).or_default().under_way += 1;
    }

    /// An append ended; `stored` if it was acknowledged. True if the answer contradicts what the tail reads.
    pub(crate) fn answered(&mut self, check: Check, stored: Option<Stored>, now: Instant) -> bool {
        let Some(expected) = self.expected.get_mut(&check) else { return false };
        expected.under_way = expected.under_way.saturating_sub(1);
        if let (Some(stored), Some(span), false) = (stored, self.read, expected.read) {
            // Of another epoch: its place is unknown until the reader was opened again.
            let due = stored.at.filter(|(epoch, _)| Some(*epoch) == self.epoch).map(|(_, offset)| offset);
            if expected.acknowledged.is_none() && due.is_none_or(|due| due > span.after) {
                expected.acknowledged = Some(Acknowledged { since: now, due });
                self.due.extend(due.map(|due| (due, check.0)));
                self.unread.push_back((now, check));
            }
        }
        if expected.under_way == 0 && expected.acknowledged.is_none() {
            self.expected.remove(&check);
        }
        self.forget_oldest();
        let another = |stored: Stored| stored.at.is_some_and(|(epoch, _)| self.epoch.is_some_and(|ours| ours != epoch));
        stored.is_some_and(another) || self.is_broken()
    }

    /// A reader was opened; opening began at `asked`. Records acknowledged before that must stand before the end it reports.
    pub(crate) fn opened(&mut self, asked: Instant, standing: Standing, now: Instant) {
        self.epoch = Some(standing.epoch);
        let end = Offset(standing.next.0.saturating_sub(1));
        for &(since, check) in &self.unread {
            let expected = self.expected.get_mut(&check).and_then(|expected| expected.acknowledged.as_mut());
            let Some(acknowledged) = expected.filter(|_| since < asked) else { continue };
            let before = acknowledged.due.replace(acknowledged.due.map_or(end, |due| due.min(end)));
            self.due.extend(acknowledged.due.map(|due| (due, check.0)));
            if let Some(before) = before.filter(|before| Some(*before) != acknowledged.due) {
                self.due.remove(&(before, check.0));
            }
        }
        self.excuse(now);
    }

    /// The tail has read on.
    pub(crate) fn saw(&mut self, event: &TailEvent) {
        match event {
            TailEvent::Records { seen, .. } => seen.iter().for_each(|seen| self.read(seen)),
            TailEvent::Up { at } => {
                self.read.get_or_insert(Span { after: at.offset, last: at.offset });
            }
            TailEvent::Lost(lost) => self.skip(lost.at.offset, lost.reason == BreakReason::Reset),
            TailEvent::Down { .. } => {}
        }
    }

    fn read(&mut self, seen: &Seen) {
        let before = Offset(seen.offset.0.saturating_sub(1));
        self.read.get_or_insert(Span { after: before, last: before }).last = seen.offset;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((seen.offset, seen.check));
        // Most records are of other nodes.
        let Some(expected) = self.expected.get_mut(&seen.check) else { return };
        expected.read = true;
        if let Some(Acknowledged { due: Some(due), .. }) = expected.acknowledged.take() {
            self.due.remove(&(due, seen.check.0));
        }
        if expected.under_way == 0 {
            self.expected.remove(&seen.check);
        }
    }

    /// Reading goes on after this record. All records before it were announced as lost.
    fn skip(&mut self, last: Offset, another_log: bool) {
        self.read = Some(Span { after: last, last });
        self.recent.clear();
        for (_, check) in std::mem::take(&mut self.unread) {
            let Some(expected) = self.expected.get_mut(&check) else { continue };
            let due = expected.acknowledged.and_then(|acknowledged| acknowledged.due);
            if let Some(acknowledged) = expected.acknowledged
                && !another_log
                && due.is_some_and(|due| due > last)
            {
                self.unread.push_back((acknowledged.since, check));
            } else {
                self.withdraw(check);
            }
        }
    }

    /// Whether the tail has passed the place of a record that it has not seen.
    pub(crate) fn is_broken(&self) -> bool {
        self.read.zip(self.due.first()).is_some_and(|(span, (due, _))| *due <= span.last)
    }

    /// Whether something that was acknowledged more than `bound` ago is not read yet.
    pub(crate) fn is_overdue(&mut self, now: Instant, bound: Duration) -> bool {
        while let Some((since, check)) = self.unread.front() {
            if self.expected.get(check).is_some_and(|expected| expected.acknowledged.is_some()) {
                return now - *since > bound;
            }
            self.unread.pop_front();
        }
        false
    }

    /// Whether another node, whose heartbeat stands at `of`, has read another record at the position that it names.
    pub(crate) fn contradicts(&self, of: Offset, named: Position) -> bool {
        let differs = |(offset, check): &(Offset, Check)| *offset == named.offset && *check != named.check;
        named.check != Check::UNKNOWN && (named.offset >= of || self.recent.iter().any(differs))
    }

    /// The last record read, for other nodes to compare.
    pub(crate) fn last(&self, partition: Partition) -> Option<Position> {
        self.recent.back().map(|&(offset, check)| Position { partition, offset, check })
    }

    /// The wait was not the reader's fault: ages count from now on.
    pub(crate) fn excuse(&mut self, now: Instant) {
        for (since, check) in &mut self.unread {
            *since = now;
            let expected = self.expected.get_mut(check).and_then(|expected| expected.acknowledged.as_mut());
            if let Some(acknowledged) = expected {
                acknowledged.since = now;
            }
        }
    }

    fn forget_oldest(&mut self) {
        while self.unread.len() > MOST {
            if let Some((_, check)) = self.unread.pop_front() {
                self.withdraw(check);
            }
        }
    }

    /// Expects an acknowledged record no more.
    fn withdraw(&mut self, check: Check) {
        let Some(expected) = self.expected.get_mut(&check) else { return };
        if let Some(Acknowledged { due: Some(due), .. }) = expected.acknowledged.take() {
            self.due.remove(&(due, check.0));
        }
        if expected.under_way == 0 {
            self.expected.remove(&check);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::event::Break;

    const PARTITION: Partition = Partition(0);
    const BOUND: Duration = Duration::from_secs(4);

    fn position(offset: u64) -> Position {
        Position { partition: PARTITION, offset: Offset(offset), check: Check(1_000 + offset) }
    }

    fn records(seen: &[(u64, u64)]) -> TailEvent {
        let seen = seen.iter().map(|&(offset, check)| Seen {
            offset: Offset(offset),
            check: Check(check),
            time: 0,
            message: None,
            control: None,
            repeated: false,
        });
        TailEvent::Records { partition: PARTITION, seen: seen.collect() }
    }

    fn standing(next: u64) -> Standing {
        Standing { partition: PARTITION, epoch: Epoch(7), next: Offset(next) }
    }

    fn stored(offset: u64) -> Option<Stored> {
        Some(Stored { at: Some((Epoch(7), Offset(offset))) })
    }

    /// A witness whose tail has read up to record 10, and sent the record with this fingerprint.
    fn witness(sent: &[u64], now: Instant) -> Witness {
        let mut witness = Witness::default();
        witness.opened(now, standing(11), now);
        witness.saw(&TailEvent::Up { at: position(10) });
        sent.iter().for_each(|check| witness.sent(Check(*check)));
        witness
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_before_or_after_its_answer_is_right() {
        let now = Instant::now();
        for at in [stored(11), Some(Stored { at: None })] {
            let mut witness = witness(&[5, 6], now);
            assert!(!witness.answered(Check(5), at, now));
            witness.saw(&records(&[(11, 5), (12, 6)]));
            assert!(!witness.answered(
                Check(6),
                at.map(|_| Stored { at: stored(12).and_then(|stored| stored.at) }),
                now
            ));
            assert!(!witness.is_broken() && !witness.is_overdue(now + 2 * BOUND, BOUND));
            assert!(witness.expected.is_empty() && witness.due.is_empty(), "{witness:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_was_passed_without_the_record_is_another_log() {
        let now = Instant::now();
        let mut late = witness(&[5], now);
        assert!(!late.answered(Check(5), stored(12), now));
        late.saw(&records(&[(11, 91)]));
        assert!(!late.is_broken());
        late.saw(&records(&[(12, 92)]));
        assert!(late.is_broken(), "another record stands there");
        let mut early = witness(&[5], now);
        early.saw(&records(&[(11, 91), (12, 92)]));
        assert!(early.answered(Check(5), stored(12), now), "a log that was set back, or another one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_show_must_stand_in_the_log_of_the_next_reader() {
        let now = Instant::now();
        for at in [stored(12), Some(Stored { at: None })] {
            for (next, broken) in [(11, true), (13, false)] {
                let mut witness = witness(&[5], now);
                assert!(!witness.answered(Check(5), at, now));
                assert!(!witness.is_overdue(now + BOUND, BOUND));
                let later = now + 2 * BOUND;
                assert!(witness.is_overdue(later, BOUND));
                witness.opened(later, standing(next), later);
                assert!(!witness.is_overdue(later, BOUND), "its age counts from the new reader on");
                assert_eq!(witness.is_broken(), broken, "a log that ends before {next}");
                witness.saw(&records(&[(11, 91), (12, 92)]));
                assert!(witness.is_broken(), "it was not there");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_came_while_a_reader_was_opened_is_judged_by_the_next_one() {
        let (asked, now) = (Instant::now(), Instant::now() + BOUND);
        let mut witness = witness(&[5], asked);
        assert!(!witness.answered(Check(5), Some(Stored { at: None }), now));
        witness.opened(asked, standing(11), now);
        assert!(!witness.is_broken(), "it may have been stored after that reader asked for the end");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_announced_as_lost_is_not_expected() {
        let now = Instant::now();
        let lost = |at: u64, reason| TailEvent::Lost(Break { after: position(10), at: position(at), reason });
        let mut trimmed = witness(&[5, 6], now);
        trimmed.answered(Check(5), stored(11), now);
        trimmed.answered(Check(6), stored(15), now);
        trimmed.saw(&lost(12, BreakReason::Trimmed));
        assert!(!trimmed.is_broken());
        trimmed.saw(&records(&[(13, 93), (14, 94), (15, 95)]));
        assert!(trimmed.is_broken(), "what stands behind the gap is expected as before");
        let mut reset = witness(&[5], now);
        reset.answered(Check(5), stored(11), now);
        reset.saw(&lost(20, BreakReason::Reset));
        assert!(!reset.is_broken() && reset.expected.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_appends_are_not_expected_and_memory_is_bounded() {
        let now = Instant::now();
        let mut witness = witness(&[5], now);
        witness.answered(Check(5), None, now);
        assert!(witness.expected.is_empty());
        for check in 100..100 + 2 * MOST as u64 {
            witness.sent(Check(check));
            witness.answered(Check(check), stored(check), now);
        }
        assert_eq!((witness.expected.len(), witness.due.len(), witness.unread.len()), (MOST, MOST, MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn another_node_that_read_something_else_contradicts() {
        let mut witness = witness(&[], Instant::now());
        witness.saw(&records(&[(11, 91), (12, 92)]));
        let named = |offset, check| Position { partition: PARTITION, offset: Offset(offset), check: Check(check) };
        assert!(!witness.contradicts(Offset(12), named(11, 91)));
        assert!(witness.contradicts(Offset(12), named(11, 90)));
        assert!(witness.contradicts(Offset(12), named(12, 92)), "it has seen more than there was");
        assert!(!witness.contradicts(Offset(12), named(3, 9)), "that is too long ago to tell");
        assert_eq!(witness.last(PARTITION), Some(named(12, 92)));
    }
}
