//! The nodes of the cluster, folded from the log.
//!
//! Pure. No clock decides here, so all nodes that have read the same records agree. Remembers the last lives that have ended, so
//! that a record which such a life still writes does not bring it back.

use std::collections::BTreeMap;

use super::control::Node;
use super::ended::Ended;
use super::life::Life;

/// The most nodes of a cluster. Further ones are not known here.
const MOST: usize = 4_096;

/// How many ended nodes are remembered.
const REMEMBERED: usize = 1_024;

/// A node that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    /// What its last record says.
    pub(crate) node: Node,
    /// When that was read here, or written if this node was not following the log then, in milliseconds since 1970.
    pub(crate) heard: u64,
}

impl Live {
    pub(crate) fn life(&self) -> Life {
        self.node.life
    }
}

/// What a report meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// A life has begun with it, and so perhaps an earlier one of the same node ended.
    Begun,
    /// The life was known.
    Known,
    /// The life has ended, and its node does not seem to know that: it has no later life.
    Ended,
    /// It does not count.
    Nothing,
}

/// All nodes that live.
#[derive(Debug, Default)]
pub(super) struct Members {
    live: BTreeMap<u64, Live>,
    ended: Ended<REMEMBERED>,
}

impl Members {
    /// Folds a report of a node.
    pub(super) fn hear(&mut self, node: &Node, heard: u64) -> Heard {
        let Life { node: id, incarnation } = node.life;
        let is_ended = self.ended.covers(node.life);
        let known = self.live.get(&id).map(|live| live.life().incarnation);
        match known {
            None if is_ended => return Heard::Ended,
            None if self.live.len() >= MOST => return Heard::Nothing,
            Some(known) if is_ended || incarnation < known => return Heard::Nothing,
            _ => {}
        }
        self.live.insert(id, Live { node: node.clone(), heard });
        if known == Some(incarnation) { Heard::Known } else { Heard::Begun }
    }

    /// Folds the end of a life. Returns what was known of it, if it lived.
    pub(super) fn end(&mut self, life: Life) -> Option<Live> {
        self.ended.add(life);
        let lives = self.live.get(&life.node).is_some_and(|live| live.life().incarnation <= life.incarnation);
        if lives { self.live.remove(&life.node) } else { None }
    }

    /// The nodes that live, in the order of their numbers.
    pub(super) fn live(&self) -> impl ExactSizeIterator<Item = &Live> {
        self.live.values()
    }

    /// Whether a life has begun and not ended.
    pub(super) fn is_live(&self, life: Life) -> bool {
        self.live.get(&life.node).is_some_and(|live| live.life() == life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node: u64, incarnation: u32) -> Node {
        Node { life: Life { node, incarnation }, name: format!("node-{node}"), ..Node::default() }
    }

    fn lives(members: &Members) -> Vec<(u64, u32)> {
        members.live().map(|live| (live.life().node, live.life().incarnation)).collect()
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Hear(u64, u32),
        End(u64, u32),
    }
    use Step::{End, Hear};

    #[test]
    fn the_first_end_of_a_life_counts_and_the_newest_life_of_a_node() {
        for (steps, expected) in [
            (&[][..], &[][..]),
            (&[Hear(1, 1), Hear(2, 1), Hear(1, 1)], &[(1, 1), (2, 1)]),
            (&[Hear(1, 1), End(1, 1)], &[]),
            (&[Hear(1, 1), End(1, 1), Hear(1, 1)], &[]),
            (&[Hear(1, 1), End(1, 1), Hear(1, 2)], &[(1, 2)]),
            (&[Hear(1, 1), End(1, 1), Hear(1, 2), End(1, 1), Hear(1, 1)], &[(1, 2)]),
            (&[Hear(1, 1), Hear(1, 2), Hear(1, 1)], &[(1, 2)]),
            (&[Hear(1, 2), End(1, 1)], &[(1, 2)]),
            (&[Hear(1, 1), End(1, 2), Hear(1, 2), Hear(1, 3)], &[(1, 3)]),
            (&[End(1, 1), Hear(1, 1), Hear(2, 1)], &[(2, 1)]),
        ] {
            let mut members = Members::default();
            for step in steps {
                match *step {
                    Hear(node, incarnation) => drop(members.hear(&report(node, incarnation), 0)),
                    End(node, incarnation) => drop(members.end(Life { node, incarnation })),
                }
            }
            assert_eq!(lives(&members), expected, "{steps:?}");
        }
    }

    #[test]
    fn only_a_new_life_is_news_but_every_report_counts() {
        let mut members = Members::default();
        assert_eq!(members.hear(&report(1, 1), 5), Heard::Begun);
        let later = Node { connections: 7, ..report(1, 1) };
        assert_eq!(members.hear(&later, 6), Heard::Known);
        assert_eq!(members.live().next(), Some(&Live { node: later, heard: 6 }));
        assert_eq!(members.hear(&report(1, 2), 7), Heard::Begun, "the same node lives again");
        assert_eq!(members.hear(&report(1, 1), 8), Heard::Nothing);
        assert!(
            members.is_live(Life { node: 1, incarnation: 2 }) && !members.is_live(Life { node: 1, incarnation: 1 })
        );
        assert!(members.end(Life { node: 1, incarnation: 1 }).is_none());
        assert!(members.end(Life { node: 1, incarnation: 2 }).is_some());
        assert!(members.end(Life { node: 1, incarnation: 2 }).is_none());
        assert_eq!(members.hear(&report(1, 2), 9), Heard::Ended);
    }

    #[test]
    fn memory_for_nodes_is_bounded() {
        let mut members = Members::default();
        for node in 0..10_000 {
            members.hear(&report(node, 1), 0);
        }
        assert_eq!(members.live().len(), MOST);
        for node in 0..10_000 {
            members.end(Life { node, incarnation: 1 });
        }
        assert_eq!((members.live().len(), members.ended.sizes()), (0, (REMEMBERED, REMEMBERED)));
        assert_eq!(members.hear(&report(9_999, 1), 0), Heard::Ended);
        assert_eq!(members.hear(&report(1, 1), 0), Heard::Begun);
    }
}
