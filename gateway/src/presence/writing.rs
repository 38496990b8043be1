//! What this node writes into one partition: changes of its members, and from time to time the list of all.
//!
//! Pure: the time is passed in. A list is written when readers may lack something: in a new life of the node, after a break, after
//! a write that failed, when another node asks, and before the log forgets the last one.

use std::time::{Duration, Instant};

use super::local::Local;
use super::record::{OnChannel, Part, Written, divide};
use crate::cluster::Life;

/// The most bytes of one record, about.
const RECORD: usize = 60 << 10;

/// The oldest list, by time: the broker may keep records by time or size.
const RENEW: Duration = Duration::from_secs(600);

/// The shortest time between two lists that others ask for.
const ASKED: Duration = Duration::from_secs(10);

/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What this node has written into a partition, and has yet to write.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) local: Local,
    life: Life,
    /// The number of the last record.
    number: u64,
    /// When a list is to be written, if one is.
    owed: Option<Instant>,
    /// Where the last list stands at the earliest, and when it was written.
    listed: Option<(u64, Instant)>,
    /// Nothing is written before this.
    pause: Option<Instant>,
}

impl Writing {
    pub(crate) fn new(linger: Duration) -> Self {
        let local = Local::new(linger);
        Self { local, life: Life::default(), number: 0, owed: None, listed: None, pause: None }
    }

    /// Notes that readers lack something. The list is written after `delay`.
    pub(crate) fn owe_list(&mut self, now: Instant, delay: Duration) {
        let at = now + delay;
        self.owed = Some(self.owed.map_or(at, |owed| owed.min(at)));
    }

    /// Notes that another node lacks the list.
    pub(crate) fn ask(&mut self, now: Instant) {
        let earliest = self.listed.map_or(now, |(_, when)| when + ASKED);
        self.owe_list(now, earliest.saturating_duration_since(now));
    }

    /// Notes that records were not written, or perhaps not.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.owe_list(now, PAUSE);
        self.pause = Some(now + PAUSE);
    }

    /// When there may be something to write.
    pub(crate) fn next(&self) -> Option<Instant> {
        let first = [self.local.next(), self.owed].into_iter().flatten().min();
        first.map(|at| self.pause.map_or(at, |pause| at.max(pause)))
    }

    /// The records to write now, in this order, for a node in this life. The partition's last record stands at `head`; a fresh node
    /// reads `kept` records.
    pub(crate) fn take(&mut self, now: Instant, me: Life, (head, kept): (u64, u64)) -> Vec<Written> {
        if self.pause.is_some_and(|pause| now < pause) {
            return Vec::new();
        }
        let new_life = self.life != me;
        if new_life {
            (self.life, self.number, self.listed) = (me, 0, None);
        }
        let old = |(at, when): (u64, Instant)| head.saturating_sub(at) > kept / 2 || now >= when + RENEW;
        if new_life || self.owed.is_some_and(|owed| owed <= now) || self.listed.is_none_or(old) {
            (self.owed, self.listed) = (None, Some((head, now)));
            // What was due is part of the list, except for members that are gone; the list leaves them out.
            let _in_the_list = self.local.take(now);
            let parts = divide(self.local.list(now), RECORD);
            let count = parts.len();
            return (0..).zip(parts).map(|(index, part)| self.record(Some(Part::of(index, count)), part)).collect();
        }
        let changes = self.local.take(now);
        if changes.is_empty() {
            return Vec::new();
        }
        divide(changes, RECORD).into_iter().map(|part| self.record(None, part)).collect()
    }

    fn record(&mut self, list: Option<Part>, channels: Vec<OnChannel>) -> Written {
        self.number += 1;
        Written { life: Some(self.life), number: self.number, list, channels, ..Written::default() }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::super::fold::Fold;
    use super::super::name::Name;
    use super::*;

    const ME: Life = Life { node: 1, incarnation: 1 };
    const KEPT: u64 = 1_000;

    fn lists(records: &[Written]) -> Vec<bool> {
        records.iter().map(|record| record.list.is_some()).collect()
    }

    #[test]
    fn a_list_is_written_whenever_readers_may_lack_it() {
        let (mut writing, start) = (Writing::new(Duration::from_secs(5)), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        writing.local.join("room", Name::user("ann"), None, start);
        assert_eq!(lists(&writing.take(start, ME, (0, KEPT))), [true], "the life is new");
        assert_eq!(lists(&writing.take(after(100), ME, (500, KEPT))), [] as [bool; 0]);
        writing.local.join("room", Name::user("bob"), None, after(100));
        assert_eq!(lists(&writing.take(after(200), ME, (500, KEPT))), [false]);
        assert_eq!(
            lists(&writing.take(after(300), ME, (501, KEPT))),
            [true],
            "a fresh node might not read the last list"
        );
        writing.owe_list(after(400), Duration::from_millis(100));
        assert_eq!((lists(&writing.take(after(400), ME, (501, KEPT))), writing.next()), (vec![], Some(after(500))));
        assert_eq!(lists(&writing.take(after(500), ME, (501, KEPT))), [true], "after a break");
        writing.ask(after(600));
        assert_eq!(
            (lists(&writing.take(after(10_499), ME, (501, KEPT))), writing.next()),
            (vec![], Some(after(10_500)))
        );
        assert_eq!(lists(&writing.take(after(10_500), ME, (501, KEPT))), [true], "another node asked");
        writing.failed(after(20_000));
        writing.local.join("room", Name::user("eve"), None, after(20_100));
        assert_eq!(
            (lists(&writing.take(after(20_999), ME, (501, KEPT))), writing.next()),
            (vec![], Some(after(21_000)))
        );
        assert_eq!(lists(&writing.take(after(21_000), ME, (501, KEPT))), [true]);
        assert_eq!(lists(&writing.take(after(621_000), ME, (501, KEPT))), [true], "it is old");
        let next = writing.take(after(621_001), Life { incarnation: 2, ..ME }, (501, KEPT));
        assert_eq!((lists(&next), next[0].number), (vec![true], 1), "the node lives again");
    }

    #[test]
    fn what_is_written_and_lost_at_random_is_right_again_with_the_next_list() {
        for seed in 0..500 {
            let (mut rng, mut now) = (Rng::with_seed(seed), Instant::now());
            let (mut writing, mut fold, mut offset) = (Writing::new(Duration::from_secs(5)), Fold::default(), 0);
            let mut there = std::collections::BTreeMap::<&str, u32>::new();
            let mut late = Vec::new();
            for step in 0..200 {
                now += Duration::from_millis(rng.u64(..1_500));
                let name = ["ann", "bob", "eve"][rng.usize(..3)];
                let count = there.entry(name).or_default();
                if rng.bool() {
                    *count += 1;
                    writing.local.join("room", Name::user(name), None, now);
                } else if *count > 0 {
                    *count -= 1;
                    writing.local.leave("room", Name::user(name), now);
                }
                for record in writing.take(now, ME, (offset, KEPT)) {
                    if step < 150 && rng.u8(..4) == 0 {
                        writing.failed(now);
                        late.push(record);
                        break;
                    }
                    offset += 1;
                    fold.apply(&record, offset);
                }
                // A write whose outcome is unknown may still come.
                if !late.is_empty() && rng.u8(..3) == 0 {
                    offset += 1;
                    fold.apply(&late.swap_remove(rng.usize(..late.len())), offset);
                }
            }
            now += Duration::from_secs(20);
            for record in writing.take(now, ME, (offset, KEPT)) {
                offset += 1;
                fold.apply(&record, offset);
            }
            let members = fold.page("room", None, 9).members;
            let members: Vec<_> = members.iter().map(|(name, _)| name.text().to_owned()).collect();
            let expected: Vec<_> = there.iter().filter(|(_, count)| **count > 0).map(|(name, _)| *name).collect();
            assert_eq!(members, expected, "seed {seed}");
            assert!(fold.unknown(&[ME]).is_empty(), "seed {seed}");
        }
    }
}
