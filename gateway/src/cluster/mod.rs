//! What nodes tell each other: records of the channel `{cluster}`, which every node reads and no client receives.
//!
//! The relay folds each record before any worker has it. So a client that a worker admits is judged by all records that the
//! worker has carried out, and later records reach the worker after the client.

pub(crate) mod control;
mod ended;
mod keeper;
mod life;
mod lives;
mod member;
mod members;
mod orders;
mod redeem;
mod revoked;
mod shed;
mod shedding;
mod silence;
mod tickets;

use std::sync::{Mutex, MutexGuard, PoisonError};

use broker_adapters::{Break, Partition, Position, Record};
use tokio::sync::{Notify, watch};

pub(crate) use self::control::{CHANNEL, Control, Disconnect, Progress, Revocation, Shed, Stage, Unsubscribe};
pub(crate) use self::ended::Ended;
pub(crate) use self::keeper::{Keeper, publish, publish_to};
pub(crate) use self::life::Life;
use self::lives::Lives;
pub(crate) use self::member::Member;
pub(crate) use self::members::Live;
pub(crate) use self::orders::Orders;
pub(crate) use self::redeem::made;
use self::revoked::{Revoked, Written};
pub(crate) use self::shed::{Part, Plan};
use self::shedding::Shedding;
pub(crate) use self::shedding::{Clients, Round, Shedder};
use self::tickets::Tickets;
pub(crate) use self::tickets::{LIFE, ticket_hash};
use crate::gate::Identity;

/// What this node knows from the records of the cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The partition of [`CHANNEL`].
    partition: Partition,
    state: Mutex<State>,
    /// Notified when known revocations may be gone from the log.
    endangered: Notify,
    /// Notified when the tickets have changed.
    changed: Notify,
    /// Notified when this node must write its own report at once.
    report: Notify,
    /// Counts the changes of the lives that this node knows, and of whether it knows all of them.
    lives_changed: watch::Sender<u64>,
    shedding: Shedding,
}

#[derive(Debug)]
struct State {
    revoked: Revoked,
    tickets: Tickets,
    lives: Lives,
    /// The last record of the partition that was read and carried out.
    head: Option<Position>,
    /// Whether the partition has been read up to its end once.
    read: bool,
    /// Whether records were lost that may have held revocations.
    missed: bool,
}

impl Cluster {
    pub(crate) fn new(partition: Partition) -> Self {
        let state = State {
            revoked: Revoked::default(),
            tickets: Tickets::default(),
            lives: Lives::new(fastrand::u64(..)),
            head: None,
            read: false,
            missed: false,
        };
        Self {
            partition,
            state: Mutex::new(state),
            endangered: Notify::new(),
            changed: Notify::new(),
            report: Notify::new(),
            lives_changed: watch::Sender::default(),
            shedding: Shedding::default(),
        }
    }

    /// Folds a record. Returns what it orders the workers to do. `now` is in milliseconds since 1970.
    pub(crate) fn apply(&self, record: &Record, now: u64) -> Option<Orders> {
        if record.channel() != CHANNEL {
            return None;
        }
        let control: Control = match serde_json::from_slice(record.payload.bytes()) {
            Ok(control) => control,
            Err(_) => {
                tracing::warn!(offset = record.offset.0, "a record of the cluster is from a newer release, or damaged");
                return None;
            }
        };
        // A publisher's clock that is ahead must not make the record young.
        let written = Written { offset: record.offset.0, time: record.time.min(now) / 1000 };
        let mut state = self.lock();
        for revocation in &control.revoke {
            state.revoked.add(revocation, written);
        }
        for made in &control.made {
            state.tickets.add(made, record.time, now);
        }
        for used in &control.used {
            state.tickets.use_up(used);
        }
        if control.ask {
            state.revoked.endanger();
            self.endangered.notify_one();
        }
        self.fold_lives(&mut state.lives, &control, record.time.min(now), now);
        let is_new = state.read;
        drop(state);
        if let Some(shed) = control.shed.clone().filter(|_| is_new) {
            self.shedding.begin(shed, now);
        }
        if control.report {
            self.report.notify_one();
        }
        if !control.made.is_empty() || !control.used.is_empty() {
            self.changed.notify_waiters();
        }
        Orders::of(control, is_new)
    }

    /// Notes how far a partition was read, after its records were applied.
    pub(crate) fn advance(&self, at: Position) {
        if at.partition == self.partition {
            let mut state = self.lock();
            state.head = Some(at);
            state.lives.read();
        }
    }

    /// Notes that all records of a partition up to its end were read.
    pub(crate) fn up(&self, partition: Partition) {
        if partition == self.partition {
            let mut state = self.lock();
            state.read = true;
            self.change_lives(&mut state.lives, |lives| lives.set_up(true));
            self.report.notify_one();
        }
    }

    /// Notes that no partition is being read.
    pub(crate) fn down(&self) {
        self.change_lives(&mut self.lock().lives, |lives| lives.set_up(false));
    }

    /// Notes that records of a partition are lost. The revocations that this node knows must be written again, and those that
    /// other nodes know.
    pub(crate) fn lost(&self, lost: Break) {
        if lost.at.partition == self.partition {
            let mut state = self.lock();
            state.head = Some(lost.at);
            state.missed = true;
            self.change_lives(&mut state.lives, Lives::start_again);
            self.report.notify_one();
            // One of the lost records may be the use of a ticket.
            state.tickets.clear();
            drop(state);
            self.endangered.notify_one();
            self.changed.notify_waiters();
        }
    }

    /// Whether this node knows all revocations: the log has been read once.
    pub(crate) fn knows_revocations(&self) -> bool {
        self.lock().read
    }

    /// Whether an identity's token has been revoked. `longest` is the longest life of a token, in seconds.
    pub(crate) fn is_revoked(&self, identity: &Identity, longest: u64) -> bool {
        self.lock().revoked.ends(identity, longest)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
