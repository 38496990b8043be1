//! For how long the other nodes have been silent, by this node's own clock.
//!
//! Pure. Counts ticks of this node's own task and not time, so the time in which the process was stopped is one tick. Only ticks in
//! which this node was reading count. After an outage of its link or of the broker every node has a whole lease again.

use std::collections::BTreeMap;

use super::life::Life;

/// The ticks of a lease.
pub(super) const LEASE: u32 = 15;

/// The ticks of a lease after which a node writes again.
pub(super) const REPORT: u32 = LEASE / 3;

/// After so many ticks without any record of the partition this node is not reading. A quiet partition gets a heartbeat at least
/// every one and a half heartbeats, and these ticks are at least two heartbeats. With [`REPORT`] they are less than a lease, so a node
/// that is not reading ends no life.
const DEAF: u32 = LEASE / 3;

/// The silence of each life.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Whether the partition is being read.
    up: bool,
    /// Ticks since the last record of the partition.
    deaf: u32,
    /// Ticks in a row in which the partition was read.
    reading: u32,
    /// Of these, the ticks without a report of each life.
    silent: BTreeMap<Life, u32>,
}

impl Silence {
    /// Notes whether the partition is being read.
    pub(super) fn set_up(&mut self, up: bool) {
        (self.up, self.deaf) = (up, 0);
        self.start_again();
    }

    /// Notes that records of the partition are lost: reports of nodes may be among them.
    pub(super) fn start_again(&mut self) {
        self.reading = 0;
        self.silent.clear();
    }

    /// Notes a record of the partition.
    pub(super) fn read(&mut self) {
        self.deaf = 0;
    }

    /// Notes a report of a life.
    pub(super) fn hear(&mut self, life: Life) {
        self.silent.remove(&life);
    }

    /// Counts a tick. Returns the lives that have been silent for a lease.
    pub(super) fn tick(&mut self, lives: impl Iterator<Item = Life>) -> Vec<Life> {
        self.deaf = self.deaf.saturating_add(1);
        if !self.is_up() {
            self.start_again();
            return Vec::new();
        }
        self.reading = self.reading.saturating_add(1);
        let before = std::mem::take(&mut self.silent);
        self.silent = lives.map(|life| (life, before.get(&life).map_or(1, |ticks| ticks.saturating_add(1)))).collect();
        // The last report came during a tick, which counts as none.
        self.silent.iter().filter(|(_, ticks)| **ticks > LEASE).map(|(life, _)| *life).collect()
    }

    /// Whether the partition is being read.
    pub(super) fn is_up(&self) -> bool {
        self.up && self.deaf <= DEAF
    }

    /// Whether this node has been reading for a whole lease, so that it has heard every node that lives.
    pub(super) fn is_whole(&self) -> bool {
        self.reading > LEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Life = Life { node: 1, incarnation: 1 };
    const TWO: Life = Life { node: 2, incarnation: 1 };

    /// Counts so many ticks, in each of which a record was read. Returns the lives that were silent for a lease in the last one.
    fn ticks(silence: &mut Silence, count: u32) -> Vec<Life> {
        let mut gone = Vec::new();
        for _ in 0..count {
            silence.read();
            gone = silence.tick([ONE, TWO].into_iter());
        }
        gone
    }

    fn reading() -> Silence {
        let mut silence = Silence::default();
        silence.set_up(true);
        silence
    }

    #[test]
    fn a_life_is_gone_after_a_lease_of_silence_and_each_report_begins_a_new_one() {
        let mut silence = reading();
        assert_eq!(ticks(&mut silence, LEASE), []);
        silence.hear(TWO);
        assert_eq!(ticks(&mut silence, 1), [ONE]);
        assert_eq!(ticks(&mut silence, LEASE - 1), [ONE]);
        assert_eq!(ticks(&mut silence, 1), [ONE, TWO]);
    }

    #[test]
    fn an_outage_of_any_length_does_not_count_and_gives_everyone_a_new_lease() {
        let mut silence = Silence::default();
        assert_eq!(ticks(&mut silence, 10 * LEASE), [], "it never was up");
        silence.set_up(true);
        ticks(&mut silence, LEASE);
        silence.set_up(false);
        assert_eq!(ticks(&mut silence, 10 * LEASE), []);
        silence.set_up(true);
        assert_eq!(ticks(&mut silence, LEASE), []);
        assert_eq!(ticks(&mut silence, 1), [ONE, TWO]);
        silence.start_again();
        assert_eq!(ticks(&mut silence, LEASE), [], "records were lost");
    }

    #[test]
    fn a_node_that_is_not_reading_ends_no_life_also_while_its_link_is_up() {
        let mut silence = reading();
        // The longest time between two reports, and then nothing at all is read.
        ticks(&mut silence, REPORT);
        for _ in 0..10 * LEASE {
            assert_eq!(silence.tick([ONE, TWO].into_iter()), []);
        }
        assert!(!silence.is_up());
        silence.read();
        assert_eq!(ticks(&mut silence, LEASE), []);
    }

    #[test]
    fn all_lives_are_known_after_a_whole_lease_of_reading() {
        let mut silence = reading();
        ticks(&mut silence, LEASE);
        assert!(!silence.is_whole());
        ticks(&mut silence, 1);
        assert!(silence.is_whole());
        silence.set_up(false);
        silence.set_up(true);
        assert!(!silence.is_whole());
    }
}
