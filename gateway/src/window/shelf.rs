//! The pages of one partition that were read back lately, and who wants which.
//!
//! Pure. Says what to read next: like a lift, from the lowest place that is wanted upwards, so that one sweep serves all
//! who wait, wherever they begin. Pages stay for a while: those who want the same come together, but not all at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker_adapters::{LinkError, Offset, Position};

use super::page::Page;

/// Milliseconds for which a page stays after it was last of use.
const HOLD: u64 = 30_000;

/// Records before the place wanted that a sweep begins with: others who come back were there a little earlier.
const EARLIER: u64 = 256;

/// A channel and the offset after which its messages are wanted.
type Place = (u64, Box<str>);

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pages: VecDeque<(Arc<Page>, u64)>,
    wanted: BTreeMap<Place, Wanted>,
    /// Where the sweep has got to.
    swept: u64,
    /// Somebody reads.
    pub(super) reading: bool,
}

#[derive(Debug, Default)]
struct Wanted {
    by: usize,
    end: Option<Nothing>,
}

/// Why there is no page for somebody.
#[derive(Debug, Clone)]
pub(super) enum Nothing {
    /// The log holds no such record, or none that can be read after it.
    Gone,
    Failed(LinkError),
}

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) from: Offset,
    /// The place that it is read for.
    pub(super) target: Offset,
    /// It does not go on from what was read before.
    pub(super) begins: bool,
}

impl Shelf {
    /// Notes that somebody waits, until [`Shelf::unwant`].
    pub(super) fn want(&mut self, channel: &str, after: Offset) {
        self.wanted.entry((after.0, channel.into())).or_default().by += 1;
    }

    pub(super) fn unwant(&mut self, channel: &str, after: Offset) {
        let place = (after.0, channel.into());
        if let Some(wanted) = self.wanted.get_mut(&place) {
            wanted.by -= 1;
            if wanted.by == 0 {
                self.wanted.remove(&place);
            }
        }
    }

    /// The page that serves somebody, which is then kept for longer.
    pub(super) fn find(&mut self, channel: &str, after: Offset, now: u64) -> Option<Arc<Page>> {
        let (page, used) = self.pages.iter_mut().find(|(page, _)| page.serves(channel, after))?;
        *used = now;
        Some(Arc::clone(page))
    }

    /// Why somebody who waits will get no page.
    pub(super) fn nothing(&self, channel: &str, after: Offset) -> Option<Nothing> {
        self.wanted.get(&(after.0, channel.into()))?.end.clone()
    }

    /// Whether the record at a position is this one, as far as the pages know.
    pub(super) fn holds(&self, position: Position) -> Option<bool> {
        self.pages.iter().find_map(|(page, _)| page.holds(position))
    }

    /// What to read next, if anything is wanted that is not here.
    pub(super) fn plan(&self) -> Option<Plan> {
        let open = |(place, wanted): (&Place, &Wanted)| {
            let served = || self.pages.iter().any(|(page, _)| page.serves(&place.1, Offset(place.0)));
            (wanted.end.is_none() && !served()).then_some(place.0)
        };
        let onwards = self.wanted.range((self.swept, Box::default())..).find_map(open);
        let target = Offset(onwards.or_else(|| self.wanted.iter().find_map(open))?);
        let begins = !self.pages.iter().any(|(page, _)| page.covers(target));
        let from = Offset(if begins { target.0.saturating_sub(EARLIER).max(1) } else { target.0 });
        Some(Plan { from, target, begins })
    }

    /// The channels whose messages are wanted.
    pub(super) fn channels(&self) -> impl Iterator<Item = &str> {
        self.wanted.keys().map(|(_, channel)| &**channel)
    }

    /// Takes what was read for a plan: a page of all channels that are wanted now. Those at the place that it was read for
    /// and whom it does not serve get nothing.
    pub(super) fn put(&mut self, plan: Plan, page: Option<Page>, now: u64) {
        self.swept = plan.target.0;
        if let Some(page) = page {
            self.swept = page.last().0.max(self.swept);
            self.pages.push_back((Arc::new(page), now));
        }
        let pages = &self.pages;
        let there = self.wanted.range_mut((plan.target.0, Box::default())..);
        for (place, wanted) in there.take_while(|(place, _)| place.0 == plan.target.0) {
            if !pages.iter().any(|(page, _)| page.serves(&place.1, plan.target)) {
                wanted.end = Some(Nothing::Gone);
            }
        }
    }

    /// Everybody who waits waits in vain.
    pub(super) fn fail(&mut self, error: &LinkError) {
        self.wanted.values_mut().for_each(|wanted| wanted.end = Some(Nothing::Failed(error.clone())));
    }

    /// Lets go of pages that were of no use for a while.
    pub(super) fn expire(&mut self, now: u64) {
        self.pages.retain(|(_, used)| now.saturating_sub(*used) <= HOLD);
    }

    /// Lets go of the page that was of use longest ago, but not of the last one.
    pub(super) fn evict(&mut self) -> bool {
        let oldest = self.pages.iter().enumerate().min_by_key(|(_, (_, used))| *used).map(|(index, _)| index);
        match oldest {
            Some(index) if self.pages.len() > 1 => self.pages.remove(index).is_some(),
            _ => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.iter().map(|(page, _)| page.bytes()).sum()
    }

    /// The log has broken off: what was read before is of no more use.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::{PARTITION, at, seen};
    use super::*;

    /// Reads as planned, at most so many records of a log that holds 1 to `last`.
    fn read(shelf: &mut Shelf, records: u64, last: u64) -> Option<Plan> {
        let plan = shelf.plan()?;
        let seen = (plan.from.0..(plan.from.0 + records).min(last + 1)).map(|offset| seen(offset, Some(0))).collect();
        let page = Page::new(PARTITION, seen, shelf.channels());
        shelf.put(plan, page, 0);
        Some(plan)
    }

    #[test]
    fn one_sweep_serves_all_who_wait_wherever_they_begin() {
        let mut shelf = Shelf::default();
        let mut waiting: Vec<_> = (0..1000).map(|n| ("a", Offset(2000 + n % 300))).collect();
        waiting.push(("b", Offset(2900)));
        waiting.iter().for_each(|(channel, after)| shelf.want(channel, *after));
        let mut sweeps = 0;
        while !waiting.is_empty() {
            let plan = read(&mut shelf, 500, 5000).expect("somebody waits");
            sweeps += usize::from(plan.begins);
            for (channel, after) in &mut waiting {
                if let Some(page) = shelf.find(channel, *after, 0) {
                    shelf.unwant(channel, *after);
                    *after = page.last();
                    if after.0 < 5000 {
                        shelf.want(channel, *after);
                    }
                }
            }
            waiting.retain(|(_, after)| after.0 < 5000);
        }
        assert_eq!((sweeps, shelf.wanted.len(), shelf.plan()), (1, 0, None));
        for after in (1750..5000).map(Offset) {
            assert!(shelf.find("a", after, 0).is_some(), "who comes later finds it at {after:?}");
        }
    }

    #[test]
    fn a_place_that_the_log_does_not_hold_is_said_to_those_who_want_it_only() {
        let mut shelf = Shelf::default();
        [("a", 90), ("b", 90), ("a", 10)].into_iter().for_each(|(channel, after)| shelf.want(channel, Offset(after)));
        read(&mut shelf, 100, 50);
        assert!(shelf.find("a", Offset(10), 0).is_some());
        read(&mut shelf, 100, 50);
        assert!(["a", "b"].iter().all(|channel| matches!(shelf.nothing(channel, Offset(90)), Some(Nothing::Gone))));
        assert!(shelf.nothing("a", Offset(10)).is_none());
        shelf.unwant("a", Offset(90));
        assert_eq!(shelf.plan(), None, "it is not tried again and again");
    }

    #[test]
    fn pages_go_when_they_are_of_no_more_use() {
        let mut shelf = Shelf::default();
        shelf.want("a", Offset(10));
        read(&mut shelf, 20, 100);
        shelf.unwant("a", Offset(10));
        shelf.expire(HOLD);
        assert_eq!(shelf.holds(at(5)), Some(true));
        assert!(shelf.find("a", Offset(5), HOLD).is_some());
        shelf.expire(2 * HOLD);
        assert!(shelf.find("a", Offset(5), 2 * HOLD).is_some(), "it was of use since");
        shelf.expire(4 * HOLD);
        assert_eq!((shelf.holds(at(5)), shelf.bytes()), (None, 0));
    }
}
