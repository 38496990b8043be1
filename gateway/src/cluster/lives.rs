//! The lives of the cluster's nodes as this node sees them: which there are, which it has not heard, and which is its own.
//!
//! Pure. The log decides who lives. Silence decides only what this node writes.

use std::collections::BTreeSet;

use super::control::Node;
use super::life::Life;
use super::members::{Heard, Live, Members};
use super::silence::Silence;

/// What this node knows of lives.
#[derive(Debug)]
pub(super) struct Lives {
    me: Life,
    members: Members,
    silence: Silence,
    /// Lives that have ended and reported since: their nodes may not have read their end, because the log has lost it.
    unaware: BTreeSet<Life>,
    /// Whether this node is about to leave, and whether its end is already written.
    pub(super) draining: bool,
    pub(super) ended: bool,
    /// What its report says of webhooks.
    pub(super) webhooks: Option<bool>,
}

/// What a record changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The name of a node whose life has begun.
    pub(super) begun: Option<String>,
    /// What is known of the lives that have ended.
    pub(super) ended: Vec<Live>,
    /// Whether this node's own life has ended, so that the next one has begun.
    pub(super) own: bool,
}

impl Lives {
    /// Of a node with this number, in its first life.
    pub(super) fn new(node: u64) -> Self {
        let me = Life { node, incarnation: 1 };
        let (members, silence, unaware) = (Members::default(), Silence::default(), BTreeSet::new());
        Self { me, members, silence, unaware, draining: false, ended: false, webhooks: None }
    }

    /// This node's own life.
    pub(super) fn me(&self) -> Life {
        self.me
    }

    /// Folds the reports and the ends of one record, which was written and read at these times.
    pub(super) fn fold(&mut self, report: Option<&Node>, gone: &[Life], written: u64, now: u64) -> Change {
        let mut change = Change::default();
        if let Some(report) = report {
            self.silence.hear(report.life);
            let heard = if self.silence.is_up() { now } else { written };
            match self.members.hear(report, heard) {
                Heard::Begun => {
                    change.begun = Some(report.name.clone());
                    self.unaware.retain(|life| life.node != report.life.node);
                }
                Heard::Ended => drop(self.unaware.insert(report.life)),
                Heard::Known | Heard::Nothing => {}
            }
        }
        for life in gone {
            self.unaware.remove(life);
            change.ended.extend(self.members.end(*life));
            if life.node == self.me.node && life.incarnation >= self.me.incarnation && !self.ended {
                self.me.incarnation = life.incarnation.saturating_add(1);
                change.own = true;
            }
        }
        change
    }

    /// Notes a record of the partition, of any kind.
    pub(super) fn read(&mut self) {
        self.silence.read();
    }

    /// Notes whether the partition is being read.
    pub(super) fn set_up(&mut self, up: bool) {
        self.silence.set_up(up);
    }

    /// Notes that records of the partition are lost.
    pub(super) fn start_again(&mut self) {
        self.silence.start_again();
    }

    /// Counts a tick of this node's own task. Returns the other lives whose end this node must write: those that have been silent
    /// for a lease, and those whose nodes do not know that they have ended.
    pub(super) fn tick(&mut self) -> Vec<Life> {
        let me = self.me.node;
        let others = self.members.live().map(Live::life).filter(|life| life.node != me);
        let mut ends = self.silence.tick(others);
        if self.is_up() {
            ends.extend(std::mem::take(&mut self.unaware).into_iter().filter(|life| life.node != me));
        }
        ends
    }

    /// Whether the partition is being read.
    pub(super) fn is_up(&self) -> bool {
        self.silence.is_up()
    }

    /// Whether every node that lives was heard.
    pub(super) fn is_whole(&self) -> bool {
        self.silence.is_whole()
    }

    /// The nodes that live.
    pub(super) fn live(&self) -> impl ExactSizeIterator<Item = &Live> {
        self.members.live()
    }

    /// Whether a life has begun and not ended.
    pub(super) fn is_live(&self, life: Life) -> bool {
        self.members.is_live(life)
    }
}

#[cfg(test)]
mod tests {
    use super::super::silence::LEASE;
    use super::*;

    const OTHER: Life = Life { node: 2, incarnation: 1 };

    fn report(life: Life) -> Node {
        Node { life, ..Node::default() }
    }

    fn gone(lives: &mut Lives, life: Life) -> Change {
        lives.fold(None, &[life], 0, 0)
    }

    #[test]
    fn a_node_that_reads_its_own_end_begins_its_next_life_unless_it_has_written_it() {
        let mut lives = Lives::new(1);
        let first = lives.me();
        lives.fold(Some(&report(first)), &[], 0, 0);
        assert!(!gone(&mut lives, OTHER).own);
        assert!(gone(&mut lives, first).own);
        assert_eq!(lives.me(), Life { node: 1, incarnation: 2 });
        assert!(!gone(&mut lives, first).own, "that life is over");
        assert!(gone(&mut lives, Life { node: 1, incarnation: 5 }).own);
        assert_eq!(lives.me().incarnation, 6);
        lives.ended = true;
        assert!(!gone(&mut lives, Life { node: 1, incarnation: 6 }).own);
        assert_eq!(lives.me().incarnation, 6);
    }

    #[test]
    fn a_node_never_declares_itself_gone_and_others_only_while_they_live() {
        let mut lives = Lives::new(1);
        lives.set_up(true);
        lives.fold(Some(&report(lives.me())), &[], 0, 0);
        lives.fold(Some(&report(OTHER)), &[], 0, 0);
        let silent = (0..=LEASE).map(|_| {
            lives.read();
            lives.tick()
        });
        assert_eq!(silent.last(), Some(vec![OTHER]));
        gone(&mut lives, OTHER);
        lives.read();
        assert_eq!(lives.tick(), []);
    }

    #[test]
    fn a_node_whose_end_the_log_has_lost_is_notified_again_unless_another_node_does_it_or_it_lives_anew() {
        let ended = |steps: &[&dyn Fn(&mut Lives)]| {
            let mut lives = Lives::new(1);
            lives.set_up(true);
            lives.read();
            lives.fold(Some(&report(OTHER)), &[], 0, 0);
            gone(&mut lives, OTHER);
            steps.iter().for_each(|step| step(&mut lives));
            lives.tick()
        };
        let stale = |lives: &mut Lives| drop(lives.fold(Some(&report(OTHER)), &[], 0, 0));
        let other = |lives: &mut Lives| drop(gone(lives, OTHER));
        let anew = |lives: &mut Lives| drop(lives.fold(Some(&report(Life { incarnation: 2, ..OTHER })), &[], 0, 0));
        assert_eq!(ended(&[]), []);
        assert_eq!(ended(&[&stale]), [OTHER]);
        assert_eq!(ended(&[&stale, &stale]), [OTHER]);
        assert_eq!(ended(&[&stale, &other]), []);
        assert_eq!(ended(&[&stale, &anew]), []);
        assert_eq!(ended(&[&anew, &stale]), []);
        assert_eq!(ended(&[&stale, &|lives| drop(lives.tick())]), [], "once for each report");
    }

    #[test]
    fn a_report_that_is_read_late_is_as_old_as_it_is_and_one_that_is_read_at_once_is_new_by_this_nodes_clock() {
        let mut lives = Lives::new(1);
        lives.fold(Some(&report(OTHER)), &[], 50, 100);
        let heard = |lives: &Lives| lives.live().map(|live| live.heard).collect::<Vec<_>>();
        assert_eq!(heard(&lives), [50]);
        lives.set_up(true);
        lives.fold(Some(&report(OTHER)), &[], 60, 110);
        assert_eq!(heard(&lives), [110]);
    }
}
