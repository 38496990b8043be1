//! Which node delivers the events of a partition.
//!
//! Pure: all nodes that have read the same records agree.

use broker_adapters::Partition;

use crate::cluster::{Life, Live};

/// The node that delivers: the live one of highest rendezvous hash. Nodes that have all events in hand go first, and then those that
/// stay. `None` if no node delivers webhooks.
pub(super) fn keeper(partition: Partition, lives: &[Live]) -> Option<Life> {
    let able = lives.iter().filter_map(|live| Some((live.node.webhooks?, !live.node.draining, live.life())));
    able.max_by_key(|(whole, stays, life)| (*whole, *stays, hash(life.node, partition), *life)).map(|(.., life)| life)
}

/// As `SplitMix64` mixes.
fn hash(node: u64, partition: Partition) -> u64 {
    let mut mixed = node ^ u64::from(partition.0).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::cluster::control::Node;

    fn live(node: u64, webhooks: Option<bool>, draining: bool) -> Live {
        Live { node: Node { life: Life { node, incarnation: 1 }, webhooks, draining, ..Node::default() }, heard: 0 }
    }

    #[test]
    fn a_node_without_webhooks_never_delivers_and_one_with_all_events_goes_first() {
        let keeps = |lives: &[Live]| keeper(Partition(0), lives).map(|life| life.node);
        assert_eq!(keeps(&[]), None);
        assert_eq!(keeps(&[live(1, None, false)]), None);
        assert_eq!(keeps(&[live(1, None, false), live(2, Some(false), true)]), Some(2));
        for node in 0..100 {
            assert_eq!(keeps(&[live(node, Some(true), true), live(node + 1, Some(false), false)]), Some(node));
            assert_eq!(keeps(&[live(node, Some(true), true), live(node + 1, Some(true), false)]), Some(node + 1));
        }
    }

    proptest! {
        #[test]
        fn a_node_that_ends_moves_its_own_partitions_only_and_each_has_its_share(seeds in proptest::collection::btree_set(any::<u64>(), 4)) {
            let lives: Vec<_> = seeds.iter().map(|node| live(*node, Some(true), false)).collect();
            let mut shares = BTreeMap::<u64, u32>::new();
            for partition in (0..256).map(Partition) {
                let before = keeper(partition, &lives).map(|life| life.node);
                *shares.entry(before.unwrap_or_default()).or_default() += 1;
                let after = keeper(partition, &lives[1..]).map(|life| life.node);
                prop_assert!(before == Some(lives[0].life().node) || before == after);
            }
            prop_assert!(shares.len() == 4 && shares.values().all(|share| *share > 16), "{shares:?}");
        }
    }
}
