//! A broker in memory. The seed decides its behaviour, within the contract of [`Broker`] and the behaviour of real brokers.
//!
//! Each node has its own link, which faults can cut or stall.

mod reader;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_adapters::Broker;
use fastrand::Rng;
use tokio::sync::Notify;

use self::wire::Wire;
use super::ledger::{Ledger, Side};

/// How a node reaches the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Reach {
    #[default]
    Whole,
    /// Every request fails.
    Cut,
    /// Requests get no answer, but may be carried out later.
    Stalled,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) reach: Reach,
    /// Rises when the node's connections end.
    pub(super) session: u64,
    /// Number of readers opened so far.
    pub(super) opened: u64,
    /// Readers up to this number return no more records.
    pub(super) deaf: u64,
    /// The next read skips one record.
    pub(super) skip: bool,
    /// Readers up to this number are connected to the old side of a fork.
    pub(super) old_readers: u64,
    /// Appends and read-backs go to the old side.
    pub(super) appends_old: bool,
}

impl Link {
    fn appends(&self) -> Side {
        if self.appends_old { Side::Old } else { Side::New }
    }

    fn reader(&self, number: u64) -> Side {
        if number <= self.old_readers { Side::Old } else { Side::New }
    }
}

/// How often single requests fail, in percent, and how slow they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flakiness {
    pub(super) append: u32,
    pub(super) read_back: u32,
    /// The longest time that a request or an answer travels, in milliseconds.
    pub(super) delay: u64,
}

/// The differences between real brokers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    /// Entries hold the epoch; otherwise a wipe ends all readers.
    pub(super) entries_have_epochs: bool,
    /// Entries hold the fingerprint of the entry before.
    pub(super) entries_have_previous: bool,
    /// Acknowledgements hold the position.
    pub(super) acks_have_positions: bool,
    /// Readers start at the beginning of a chunk, not at the requested record.
    pub(super) chunks: bool,
    /// The most appends under way at a time.
    pub(super) pipeline: usize,
}

pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) links: Vec<Link>,
    pub(super) flakiness: Flakiness,
    rng: Rng,
}

pub(super) struct Model {
    state: Mutex<State>,
    changed: Notify,
    traits: Traits,
}

impl Model {
    pub(super) fn new(partitions: u16, nodes: usize, traits: Traits, rng: Rng) -> Arc<Self> {
        let links = (0..nodes).map(|_| Link::default()).collect();
        let flakiness = Flakiness { delay: 3, ..Flakiness::default() };
        let state = State { ledger: Ledger::new(partitions), links, flakiness, rng };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), traits })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes all tasks that wait for a change.
    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Ends the connections of the nodes that `of` selects.
    pub(super) fn end_sessions(&self, of: impl Fn(usize) -> bool) {
        let end = |(_, link): (usize, &mut Link)| link.session += 1;
        self.change(|state| state.links.iter_mut().enumerate().filter(|(node, _)| of(*node)).for_each(end));
    }

    pub(super) fn wipe(&self, partition: usize) {
        self.change(|state| {
            let epoch = state.rng.u64(100..);
            state.ledger.wipe(partition, epoch);
        });
        if !self.traits.entries_have_epochs {
            self.end_sessions(|_| true);
        }
    }

    /// Starts a fork: two servers act as the primary, and each connection leads to one of them. False if there is a fork
    /// already.
    pub(super) fn fork(&self, records: usize, rng: &mut Rng) -> bool {
        if self.lock().ledger.is_split() {
            return false;
        }
        self.change(|state| {
            state.ledger.fork(records);
            for link in &mut state.links {
                link.appends_old = rng.bool();
                if rng.bool() {
                    link.old_readers = link.opened;
                } else {
                    link.session += 1;
                }
            }
        });
        true
    }

    /// Ends the fork: the old server and all connections to it are gone.
    pub(super) fn join(&self) {
        self.change(|state| {
            state.ledger.join();
            for link in &mut state.links {
                if link.appends_old || link.old_readers > 0 {
                    link.session += 1;
                }
                (link.appends_old, link.old_readers) = (false, 0);
            }
        });
    }

    /// Removes the last records of a partition. Readers stay connected if entries name the entry before. Otherwise
    /// connections end, as they do on brokers of that kind.
    pub(super) fn set_back(&self, partition: usize, records: usize) {
        self.change(|state| state.ledger.set_back(partition, records));
        if !self.traits.entries_have_previous {
            self.end_sessions(|_| true);
        }
    }

    /// The link of a node.
    pub(super) fn link(self: &Arc<Self>, node: usize) -> Arc<dyn Broker> {
        Arc::new(Wire { model: Arc::clone(self), node, order: Arc::default() })
    }
}
