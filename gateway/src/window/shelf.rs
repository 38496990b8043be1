//! The pages of one partition that were read back, and the places that waiting clients want.
//!
//! Pure. Plans the next reading: like a lift, it sweeps upwards from the lowest wanted offset. One sweep serves all waiting
//! clients, wherever they start. Pages stay for a while, because clients that want the same page reconnect over some time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker_adapters::{LinkError, Offset, Position};

use super::page::Page;

/// How long a page stays after its last use, in milliseconds.
const HOLD: u64 = 30_000;

/// How many records before the wanted offset a sweep starts. Other clients often resume from a slightly earlier position.
const EARLIER: u64 = 256;

/// The offset after which messages are wanted, and their channel.
type Place = (u64, Box<str>);

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pages: VecDeque<(Arc<Page>, u64)>,
    wanted: BTreeMap<Place, Wanted>,
    /// The offset that the sweep has reached.
    swept: u64,
    /// Whether a reading is under way.
    pub(super) reading: bool,
}

#[derive(Debug, Default)]
struct Wanted {
    clients: usize,
    end: Option<NoPage>,
}

/// Why there is no page for a wanted place.
#[derive(Debug, Clone)]
pub(super) enum NoPage {
    /// The log does not hold that record, or no readable record after it.
    Gone,
    Failed(LinkError),
}

/// The next reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) from: Offset,
    /// The wanted offset that it serves.
    pub(super) target: Offset,
    /// It starts a new sweep: no page covers `target`.
    pub(super) begins: bool,
}

impl Shelf {
    /// Adds a waiting client, until [`Shelf::unwant`].
    pub(super) fn want(&mut self, channel: &str, after: Offset) {
        self.wanted.entry((after.0, channel.into())).or_default().clients += 1;
    }

    pub(super) fn unwant(&mut self, channel: &str, after: Offset) {
        let place = (after.0, channel.into());
        if let Some(wanted) = self.wanted.get_mut(&place) {
            wanted.clients -= 1;
            if wanted.clients == 0 {
                self.wanted.remove(&place);
            }
        }
    }

    /// A page that serves this place. Its use at `now` keeps it for longer.
    pub(super) fn find(&mut self, channel: &str, after: Offset, now: u64) -> Option<Arc<Page>> {
        let (page, used) = self.pages.iter_mut().find(|(page, _)| page.serves(channel, after))?;
        *used = now;
        Some(Arc::clone(page))
    }

    /// Why there will be no page for a wanted place; `None` while there may be one.
    pub(super) fn no_page(&self, channel: &str, after: Offset) -> Option<NoPage> {
        self.wanted.get(&(after.0, channel.into()))?.end.clone()
    }

    /// Whether the log has this very record; `None` if no page covers its offset.
    pub(super) fn holds(&self, position: Position) -> Option<bool> {
        self.pages.iter().find_map(|(page, _)| page.holds(position))
    }

    /// The next reading; `None` if the pages serve all wanted places.
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

    /// Adds the page that was read for a plan. If it does not serve a client that waits at the plan's target, that client
    /// gets [`NoPage::Gone`].
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
                wanted.end = Some(NoPage::Gone);
            }
        }
    }

    /// Fails all waiting clients.
    pub(super) fn fail(&mut self, error: &LinkError) {
        self.wanted.values_mut().for_each(|wanted| wanted.end = Some(NoPage::Failed(error.clone())));
    }

    /// Drops pages that were not used for [`HOLD`].
    pub(super) fn expire(&mut self, now: u64) {
        self.pages.retain(|(_, used)| now.saturating_sub(*used) <= HOLD);
    }

    /// Drops the least recently used page; false if only one page is left, which stays.
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

    /// Handles a break in the log: drops all pages.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::{PARTITION, at, seen};
    use super::*;

    /// Reads as planned: at most `records` records, from a log with the offsets 1 to `last`.
    fn read(shelf: &mut Shelf, records: u64, last: u64) -> Option<Plan> {
        let plan = shelf.plan()?;
        let seen = (plan.from.0..(plan.from.0 + records).min(last + 1)).map(|offset| seen(offset, Some(0))).collect();
        let page = Page::new(PARTITION, seen, shelf.channels());
        shelf.put(plan, page, 0);
        Some(plan)
    }

    #[test]
    fn one_sweep_serves_all_waiting_clients_wherever_they_start() {
        let mut shelf = Shelf::default();
        let mut waiting: Vec<_> = (0..1000).map(|n| ("a", Offset(2000 + n % 300))).collect();
        waiting.push(("b", Offset(2900)));
        waiting.iter().for_each(|(channel, after)| shelf.want(channel, *after));
        let mut sweeps = 0;
        while !waiting.is_empty() {
            let plan = read(&mut shelf, 500, 5000).expect("clients wait");
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
            assert!(shelf.find("a", after, 0).is_some(), "a later client finds the page at {after:?}");
        }
    }

    #[test]
    fn a_place_that_the_log_does_not_hold_fails_only_the_clients_that_want_it() {
        let mut shelf = Shelf::default();
        [("a", 90), ("b", 90), ("a", 10)].into_iter().for_each(|(channel, after)| shelf.want(channel, Offset(after)));
        read(&mut shelf, 100, 50);
        assert!(shelf.find("a", Offset(10), 0).is_some());
        read(&mut shelf, 100, 50);
        assert!(["a", "b"].iter().all(|channel| matches!(shelf.no_page(channel, Offset(90)), Some(NoPage::Gone))));
        assert!(shelf.no_page("a", Offset(10)).is_none());
        shelf.unwant("a", Offset(90));
        assert_eq!(shelf.plan(), None, "it is not read again");
    }

    #[test]
    fn pages_are_dropped_after_a_time_without_use() {
        let mut shelf = Shelf::default();
        shelf.want("a", Offset(10));
        read(&mut shelf, 20, 100);
        shelf.unwant("a", Offset(10));
        shelf.expire(HOLD);
        assert_eq!(shelf.holds(at(5)), Some(true));
        assert!(shelf.find("a", Offset(5), HOLD).is_some());
        shelf.expire(2 * HOLD);
        assert!(shelf.find("a", Offset(5), 2 * HOLD).is_some(), "it was used since");
        shelf.expire(4 * HOLD);
        assert_eq!((shelf.holds(at(5)), shelf.bytes()), (None, 0));
    }
}
