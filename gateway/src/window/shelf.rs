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

/// How many records beside the wanted offset a sweep starts. Other clients often wait at a position near to it.
const BESIDE: u64 = 256;

/// The offset after or before which messages are wanted, and their channel.
type Place = (u64, Box<str>);

/// In which direction from a place messages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Later,
    Earlier,
}

#[derive(Debug, Default)]
pub(super) struct Shelf {
    pages: VecDeque<(Arc<Page>, u64)>,
    later: Sweep,
    earlier: Sweep,
    /// Whether the last plan was for the clients that want earlier messages. The two directions take turns.
    went_back: bool,
    /// Whether a reading is under way.
    pub(super) reading: bool,
}

/// The waiting clients of one direction.
#[derive(Debug, Default)]
struct Sweep {
    wanted: BTreeMap<Place, Wanted>,
    /// The offset that the sweep has reached.
    swept: u64,
}

#[derive(Debug, Default)]
struct Wanted {
    clients: usize,
    end: Option<NoPage>,
}

/// Why there is no page for a wanted place.
#[derive(Debug, Clone)]
pub(super) enum NoPage {
    /// The log does not hold that record, or no readable record beside it.
    Gone,
    Failed(LinkError),
}

/// The next reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) toward: Toward,
    /// Where to begin: the first record to read, or the last one.
    pub(super) from: Offset,
    /// The wanted offset that it serves.
    pub(super) target: Offset,
    /// It starts a new sweep: no page covers `target`.
    pub(super) begins: bool,
}

impl Shelf {
    /// Adds a waiting client, until [`Shelf::unwant`].
    pub(super) fn want(&mut self, channel: &str, at: Offset, toward: Toward) {
        self.sweep(toward).wanted.entry((at.0, channel.into())).or_default().clients += 1;
    }

    pub(super) fn unwant(&mut self, channel: &str, at: Offset, toward: Toward) {
        let place = (at.0, channel.into());
        let wanted = &mut self.sweep(toward).wanted;
        if let Some(clients) = wanted.get_mut(&place) {
            clients.clients -= 1;
            if clients.clients == 0 {
                wanted.remove(&place);
            }
        }
    }

    /// A page that serves this place. Its use at `now` keeps it for longer.
    pub(super) fn find(&mut self, channel: &str, at: Offset, toward: Toward, now: u64) -> Option<Arc<Page>> {
        let (page, used) = self.pages.iter_mut().find(|(page, _)| serves(page, channel, at, toward))?;
        *used = now;
        Some(Arc::clone(page))
    }

    /// Why there will be no page for a wanted place; `None` while there may be one.
    pub(super) fn no_page(&mut self, channel: &str, at: Offset, toward: Toward) -> Option<NoPage> {
        self.sweep(toward).wanted.get(&(at.0, channel.into()))?.end.clone()
    }

    /// Whether the log has this very record; `None` if no page covers its offset.
    pub(super) fn holds(&self, position: Position) -> Option<bool> {
        self.pages.iter().find_map(|(page, _)| page.holds(position))
    }

    /// The next reading; `None` if the pages serve all wanted places.
    pub(super) fn plan(&mut self) -> Option<Plan> {
        let toward = if self.went_back { [Toward::Later, Toward::Earlier] } else { [Toward::Earlier, Toward::Later] };
        let plan = toward.into_iter().find_map(|toward| self.plan_toward(toward))?;
        self.went_back = plan.toward == Toward::Earlier;
        Some(plan)
    }

    /// The next reading in one direction: from where the last one ended, or from the beginning of a new sweep.
    fn plan_toward(&mut self, toward: Toward) -> Option<Plan> {
        let pages = &self.pages;
        let open = |(place, wanted): (&Place, &Wanted)| {
            let served = || pages.iter().any(|(page, _)| serves(page, &place.1, Offset(place.0), toward));
            (wanted.end.is_none() && !served()).then_some(place.0)
        };
        let (wanted, swept) = match toward {
            Toward::Later => (&self.later.wanted, self.later.swept),
            Toward::Earlier => (&self.earlier.wanted, self.earlier.swept),
        };
        let onwards = match toward {
            Toward::Later => wanted.range((swept, Box::default())..).find_map(open),
            Toward::Earlier => wanted.range(..(swept.saturating_add(1), Box::default())).rev().find_map(open),
        };
        let again = || match toward {
            Toward::Later => wanted.iter().find_map(open),
            Toward::Earlier => wanted.iter().rev().find_map(open),
        };
        let target = Offset(onwards.or_else(again)?);
        let begins = !pages.iter().any(|(page, _)| page.covers(target));
        let from = Offset(match toward {
            _ if !begins => target.0,
            Toward::Later => target.0.saturating_sub(BESIDE).max(1),
            Toward::Earlier => target.0.saturating_add(BESIDE),
        });
        Some(Plan { toward, from, target, begins })
    }

    /// The channels whose messages are wanted.
    pub(super) fn channels(&self) -> impl Iterator<Item = &str> {
        self.later.wanted.keys().chain(self.earlier.wanted.keys()).map(|(_, channel)| &**channel)
    }

    /// Adds the page that was read for a plan. If it does not serve a client that waits at the plan's target, that client
    /// gets [`NoPage::Gone`].
    pub(super) fn put(&mut self, plan: Plan, page: Option<Page>, now: u64) {
        let Plan { toward, target, .. } = plan;
        let ends = page.as_ref().map_or((target.0, target.0), |page| (page.first(), page.last().0));
        let sweep = self.sweep(toward);
        sweep.swept = match toward {
            Toward::Later => ends.1.max(target.0),
            Toward::Earlier => ends.0.min(target.0),
        };
        self.pages.extend(page.map(|page| (Arc::new(page), now)));
        let pages = &self.pages;
        let sweep = match toward {
            Toward::Later => &mut self.later,
            Toward::Earlier => &mut self.earlier,
        };
        let there = sweep.wanted.range_mut((target.0, Box::default())..);
        for (place, wanted) in there.take_while(|(place, _)| place.0 == target.0) {
            if !pages.iter().any(|(page, _)| serves(page, &place.1, target, toward)) {
                wanted.end = Some(NoPage::Gone);
            }
        }
    }

    fn sweep(&mut self, toward: Toward) -> &mut Sweep {
        match toward {
            Toward::Later => &mut self.later,
            Toward::Earlier => &mut self.earlier,
        }
    }

    /// Fails all waiting clients.
    pub(super) fn fail(&mut self, error: &LinkError) {
        let all = self.later.wanted.values_mut().chain(self.earlier.wanted.values_mut());
        all.for_each(|wanted| wanted.end = Some(NoPage::Failed(error.clone())));
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

fn serves(page: &Page, channel: &str, at: Offset, toward: Toward) -> bool {
    match toward {
        Toward::Later => page.serves(channel, at),
        Toward::Earlier => page.serves_before(channel, at),
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
        waiting.iter().for_each(|(channel, after)| shelf.want(channel, *after, Toward::Later));
        let mut sweeps = 0;
        while !waiting.is_empty() {
            let plan = read(&mut shelf, 500, 5000).expect("clients wait");
            sweeps += usize::from(plan.begins);
            for (channel, after) in &mut waiting {
                if let Some(page) = shelf.find(channel, *after, Toward::Later, 0) {
                    shelf.unwant(channel, *after, Toward::Later);
                    *after = page.last();
                    if after.0 < 5000 {
                        shelf.want(channel, *after, Toward::Later);
                    }
                }
            }
            waiting.retain(|(_, after)| after.0 < 5000);
        }
        assert_eq!((sweeps, shelf.later.wanted.len(), shelf.plan()), (1, 0, None));
        for after in (1750..5000).map(Offset) {
            assert!(shelf.find("a", after, Toward::Later, 0).is_some(), "a later client finds the page at {after:?}");
        }
    }

    #[test]
    fn a_place_that_the_log_does_not_hold_fails_only_the_clients_that_want_it() {
        let mut shelf = Shelf::default();
        [("a", 90), ("b", 90), ("a", 10)]
            .into_iter()
            .for_each(|(channel, after)| shelf.want(channel, Offset(after), Toward::Later));
        read(&mut shelf, 100, 50);
        assert!(shelf.find("a", Offset(10), Toward::Later, 0).is_some());
        read(&mut shelf, 100, 50);
        assert!(
            ["a", "b"]
                .iter()
                .all(|channel| matches!(shelf.no_page(channel, Offset(90), Toward::Later), Some(NoPage::Gone)))
        );
        assert!(shelf.no_page("a", Offset(10), Toward::Later).is_none());
        shelf.unwant("a", Offset(90), Toward::Later);
        assert_eq!(shelf.plan(), None, "it is not read again");
    }

    #[test]
    fn pages_are_dropped_after_a_time_without_use() {
        let mut shelf = Shelf::default();
        shelf.want("a", Offset(10), Toward::Later);
        read(&mut shelf, 20, 100);
        shelf.unwant("a", Offset(10), Toward::Later);
        shelf.expire(HOLD);
        assert_eq!(shelf.holds(at(5)), Some(true));
        assert!(shelf.find("a", Offset(5), Toward::Later, HOLD).is_some());
        shelf.expire(2 * HOLD);
        assert!(shelf.find("a", Offset(5), Toward::Later, 2 * HOLD).is_some(), "it was used since");
        shelf.expire(4 * HOLD);
        assert_eq!((shelf.holds(at(5)), shelf.bytes()), (None, 0));
    }
}
