//! How many clients each node gives up in a shed.
//!
//! Pure. All nodes compute the same plan from the same reports. A node's share of all clients is that of its capacity. Draining nodes
//! are left out, with their clients.

use std::time::Duration;

use super::control::{Node, Shed};
use super::life::Life;

/// What a shed does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The nodes, in the order in which they were given.
    pub(crate) nodes: Vec<Part>,
    /// How many clients move.
    pub(crate) moves: u64,
    /// How long that takes.
    pub(crate) span: Duration,
}

/// What it does on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) life: Life,
    /// How many clients the node should have; `None` while it drains.
    pub(crate) share: Option<u64>,
    /// How many it has above that, if it has more than is tolerated.
    pub(crate) above: u64,
    /// How many of these move.
    pub(crate) gives: u64,
}

impl Plan {
    /// The plan of an order that does not stop a shed.
    pub(crate) fn new<'a>(shed: &Shed, nodes: impl Iterator<Item = &'a Node> + Clone) -> Self {
        let part = |node: &Node| {
            let share = share(node, nodes.clone());
            let has = node.connections;
            let tolerated = |share: u64| share.saturating_add(percent(share, shed.tolerance));
            let above = share.filter(|share| has > tolerated(*share)).map_or(0, |share| has - share);
            let gives = if shed.everyone { above } else { above.min(node.resumable) };
            Part { life: node.life, share, above, gives }
        };
        let nodes: Vec<_> = nodes.clone().map(part).collect();
        let moves = nodes.iter().map(|part| part.gives).fold(0, u64::saturating_add);
        let span = Duration::from_secs(moves.min(u64::from(u32::MAX))) / shed.pace.max(1);
        Self { nodes, moves, span }
    }

    /// The part of one node.
    pub(crate) fn of(&self, life: Life) -> Option<&Part> {
        self.nodes.iter().find(|part| part.life == life)
    }
}

/// How many of the clients of all nodes that do not drain a node should have; `None` if it drains itself.
pub(super) fn share<'a>(node: &Node, nodes: impl Iterator<Item = &'a Node>) -> Option<u64> {
    if node.draining {
        return None;
    }
    // No node has more sockets than that, and so no figure of a damaged record is too large to multiply.
    let weight = |node: &Node| u128::from(node.capacity.clamp(1, u64::from(u32::MAX)));
    let staying = nodes.filter(|node| !node.draining);
    let (clients, weights) = staying
        .fold((0, 0), |(clients, weights), node| (clients + u128::from(node.connections), weights + weight(node)));
    // Rounded up, so that no node goes below its share.
    let share = (clients * weight(node)).div_ceil(weights.max(1));
    Some(u64::try_from(share).unwrap_or(u64::MAX))
}

fn percent(of: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u64, connections: u64, capacity: u64) -> Node {
        let life = Life { node: number, incarnation: 1 };
        Node { life, connections, capacity, resumable: connections, ..Node::default() }
    }

    fn shed(tolerance: u32) -> Shed {
        Shed { pace: 100, tolerance, ..Shed::default() }
    }

    fn plan(shed: &Shed, nodes: &[Node]) -> Plan {
        Plan::new(shed, nodes.iter())
    }

    fn gives(plan: &Plan) -> Vec<u64> {
        plan.nodes.iter().map(|part| part.gives).collect()
    }

    #[test]
    fn the_fullest_nodes_give_up_what_they_have_above_their_share() {
        for (clients, expected) in [
            (&[(3_000, 1), (3_000, 1), (0, 1)][..], &[1_000, 1_000, 0][..]),
            (&[(6_000, 1), (0, 1), (0, 1)], &[4_000, 0, 0]),
            // By capacity: 1,500, 1,500 and 3,000.
            (&[(3_000, 10), (3_000, 10), (0, 20)], &[1_500, 1_500, 0]),
            // Rounded down.
            (&[(10, 1), (0, 1), (0, 1)], &[6, 0, 0]),
            // Within the tolerance.
            (&[(1_020, 1), (980, 1)], &[0, 0]),
            (&[(1_021, 1), (979, 1)], &[21, 0]),
            (&[(1, 1), (0, 1)], &[0, 0]),
            (&[(500, 1)], &[0]),
            (&[(100, 0), (0, 0)], &[50, 0]),
            (&[(u64::MAX, u64::MAX), (u64::MAX, u64::MAX)], &[0, 0]),
            (&[], &[]),
        ] {
            let nodes = clients.iter().enumerate();
            let nodes: Vec<_> = nodes.map(|(number, (has, capacity))| node(number as u64, *has, *capacity)).collect();
            assert_eq!(gives(&plan(&shed(2), &nodes)), expected, "{clients:?}");
        }
    }

    #[test]
    fn a_draining_node_gives_up_nothing_and_is_no_place_to_go() {
        let mut nodes = [node(1, 300, 1), node(2, 0, 1), node(3, 0, 1)];
        nodes[2].draining = true;
        let plan = plan(&shed(2), &nodes);
        assert_eq!((gives(&plan), plan.nodes[0].share, plan.nodes[2].share), (vec![150, 0, 0], Some(150), None));
    }

    #[test]
    fn clients_that_cannot_resume_stay_unless_everyone_moves() {
        let mut nodes = [node(1, 100, 1), node(2, 0, 1)];
        nodes[0].resumable = 20;
        let plan_of = |everyone| plan(&Shed { everyone, ..shed(2) }, &nodes);
        assert_eq!((plan_of(false).nodes[0].above, gives(&plan_of(false))), (50, vec![20, 0]));
        assert_eq!(gives(&plan_of(true)), [50, 0]);
    }

    #[test]
    fn the_pace_is_that_of_all_nodes_together() {
        let plan = plan(&shed(2), &[node(1, 3_000, 1), node(2, 3_000, 1), node(3, 0, 1)]);
        assert_eq!((plan.moves, plan.span), (2_000, Duration::from_secs(20)));
    }

    proptest! {
        #[test]
        fn no_node_goes_below_its_share_and_none_above_it_has_more_than_is_tolerated(
            nodes in proptest::collection::vec((0..50_000_u64, 1..50_000_u64), 1..8),
            tolerance in 0..30_u32,
        ) {
            let nodes: Vec<_> = (0..).zip(nodes).map(|(number, (has, capacity))| node(number, has, capacity)).collect();
            let plan = plan(&shed(tolerance), &nodes);
            for (node, part) in nodes.iter().zip(&plan.nodes) {
                let share = part.share.expect("none drains");
                prop_assert!(part.gives == 0 || node.connections - part.gives == share);
                prop_assert!(node.connections - part.gives <= share + share * u64::from(tolerance) / 100);
            }
            let shares: u64 = plan.nodes.iter().filter_map(|part| part.share).sum();
            let clients: u64 = nodes.iter().map(|node| node.connections).sum();
            prop_assert!((clients..clients + nodes.len() as u64).contains(&shares));
        }
    }
}
