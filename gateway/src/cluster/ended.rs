//! The lives whose records no longer count.
//!
//! Pure. Bounded: of many ended nodes the oldest is forgotten, long after its last record can come.

use std::collections::{HashMap, VecDeque};

use super::life::Life;

/// The last ended incarnation of each of at most `MOST` nodes.
#[derive(Debug, Default)]
pub(crate) struct Ended<const MOST: usize> {
    last: HashMap<u64, u32>,
    /// The same nodes, in the order of the log.
    order: VecDeque<u64>,
}

impl<const MOST: usize> Ended<MOST> {
    /// Ends a life and the earlier ones of its node.
    pub(crate) fn add(&mut self, life: Life) {
        if !self.last.contains_key(&life.node) {
            self.order.push_back(life.node);
            if self.order.len() > MOST
                && let Some(oldest) = self.order.pop_front()
            {
                self.last.remove(&oldest);
            }
        }
        let last = self.last.entry(life.node).or_insert(life.incarnation);
        *last = (*last).max(life.incarnation);
    }

    pub(crate) fn covers(&self, life: Life) -> bool {
        self.last.get(&life.node).is_some_and(|last| life.incarnation <= *last)
    }

    /// The lengths of its two tables.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.last.len(), self.order.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 4_096;

    #[test]
    fn an_ended_life_ends_the_earlier_ones_of_its_node_and_no_later_one() {
        let mut ended = Ended::<MOST>::default();
        let life = |node, incarnation| Life { node, incarnation };
        ended.add(life(1, 3));
        ended.add(life(1, 2));
        for (life, covered) in [(life(1, 1), true), (life(1, 3), true), (life(1, 4), false), (life(2, 1), false)] {
            assert_eq!(ended.covers(life), covered, "{life:?}");
        }
        for node in 2..10_000 {
            ended.add(life(node, 1));
        }
        assert!(ended.last.len() <= MOST && !ended.covers(life(1, 1)) && ended.covers(life(9_999, 1)));
    }
}
