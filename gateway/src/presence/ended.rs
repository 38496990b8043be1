//! The lives whose records no longer count.
//!
//! Pure. Bounded: of many ended nodes the oldest is forgotten, long after its last record can come.

use std::collections::{HashMap, VecDeque};

use crate::cluster::Life;

/// The most nodes that are remembered.
const MOST: usize = 4_096;

/// The last ended incarnation of each node.
#[derive(Debug, Default)]
pub(super) struct Ended {
    last: HashMap<u64, u32>,
    order: VecDeque<u64>,
}

impl Ended {
    /// Ends a life and the earlier ones of its node.
    pub(super) fn add(&mut self, life: Life) {
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

    pub(super) fn covers(&self, life: Life) -> bool {
        self.last.get(&life.node).is_some_and(|last| life.incarnation <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_life_ends_the_earlier_ones_of_its_node_and_no_later_one() {
        let mut ended = Ended::default();
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
