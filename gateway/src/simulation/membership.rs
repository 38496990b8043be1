//! What the nodes of a world know of each other, compared with the truth.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::world::World;
use crate::cluster::{Cluster, Life, Live};

/// How long after the last fault every node must know exactly the nodes that run, beside two leases.
const SLACK: Duration = Duration::from_secs(10);

impl World {
    /// The numbers of the nodes that do not know exactly the nodes that run.
    pub(super) fn misled(&self) -> Vec<usize> {
        let known: Vec<_> = self.nodes.borrow().iter().map(|node| node.as_ref().and_then(Node::cluster)).collect();
        let truth: BTreeSet<Life> = known.iter().flatten().map(|cluster| cluster.me()).collect();
        let is_right =
            |cluster: &Arc<Cluster>| cluster.lives().iter().map(Live::life).collect::<BTreeSet<_>>() == truth;
        let wrong = known.iter().enumerate().filter(|(_, cluster)| !cluster.as_ref().is_some_and(is_right));
        wrong.map(|(number, _)| number).collect()
    }

    /// How long after the last fault a node may be misled.
    pub(super) fn longest_misled(&self) -> Duration {
        2 * self.config.cluster.lease.max(6 * self.config.broker.heartbeat) + SLACK
    }

    /// Checks that no running node has counted as gone, in a world whose faults hide no node from the others.
    pub(super) fn check_lives(&self) {
        for (number, node) in self.nodes.borrow().iter().enumerate() {
            let life = node.as_ref().and_then(Node::cluster).map(|cluster| cluster.me());
            if self.expected.nobody_gone && life.is_some_and(|life| life.incarnation > 1) {
                self.chronicle
                    .breach(format!("node {number} counted as gone, although all faults hid all nodes alike"));
            }
        }
    }
}
