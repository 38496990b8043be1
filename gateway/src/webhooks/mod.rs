//! Webhooks: the application's backend is notified of who comes and goes.
//!
//! Every node notes the events of all partitions, as the fold of presence gives them. The partition's keeper, one of the nodes that
//! live, delivers them in order, and writes a cursor into the partition; the others then forget what it covers. So each can go on where
//! another has died. At least once: what was delivered after the last cursor is delivered again.

mod batch;
mod counters;
mod cursor;
mod delivery;
mod endpoint;
mod event;
mod keeper;
mod queue;
mod signature;
mod warnings;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use broker_adapters::{Break, BreakReason, Offset, Partition, Record};
use tokio::sync::Notify;

pub(crate) use self::counters::Counters;
pub(crate) use self::cursor::CHANNEL;
use self::cursor::Cursor;
pub(crate) use self::delivery::Delivery;
pub use self::endpoint::WebhooksError;
pub(crate) use self::endpoint::{Endpoint, headers};
use self::event::Event;
use self::queue::Queue;
pub(crate) use self::signature::{ID, SIGNATURE, TIMESTAMP, verify};
pub(crate) use self::warnings::warnings;
use crate::cluster::Cluster;
use crate::config::{Config, Pattern, WebhookEvent};
use crate::gate::{Attendance, Name};
use crate::presence::Step;

/// The events that are not delivered yet.
pub(crate) struct Webhooks {
    cluster: Arc<Cluster>,
    /// By partition; none if nothing is delivered.
    sections: Box<[Section]>,
    /// The most bytes of one queue.
    share: usize,
    events: Vec<WebhookEvent>,
    channels: Vec<Pattern>,
    counters: Arc<Counters>,
}

/// One partition.
#[derive(Default)]
struct Section {
    queue: Mutex<Queue>,
    /// Whether its records are being read.
    up: AtomicBool,
    /// Whether this node delivers its events.
    keeps: AtomicBool,
    /// Notified when there are more.
    filled: Notify,
}

impl Webhooks {
    pub(crate) fn new(config: &Config, partitions: u16, cluster: Arc<Cluster>) -> Self {
        let (set, fires) = (&config.webhooks, config.channels.iter().any(|rule| rule.presence != Attendance::Off));
        let count = if set.endpoint.is_some() && fires { partitions } else { 0 };
        Self {
            cluster,
            sections: (0..count).map(|_| Section::default()).collect(),
            share: set.backlog.bytes() / usize::from(partitions.max(1)),
            events: set.events.clone(),
            channels: set.channels.clone(),
            counters: Arc::default(),
        }
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Notes what a record of presence changed. `now` is in milliseconds since 1970.
    pub(crate) fn note(&self, record: &Record, steps: &[Step], now: u64) {
        let Some(section) = self.section(record.partition).filter(|_| !steps.is_empty()) else { return };
        let mut queue = section.queue();
        let mut given_up = 0;
        for (index, step) in (0..).zip(steps).filter(|(_, step)| self.wants(step)) {
            given_up += queue.push(Event::of(record, index, step, now), self.share);
        }
        drop(queue);
        if given_up > 0 && section.keeps.load(Ordering::Relaxed) {
            self.counters.failed(given_up);
            tracing::warn!(events = given_up, "webhook events are given up: `webhooks.backlog` is used up");
        }
        section.filled.notify_one();
    }

    fn wants(&self, step: &Step) -> bool {
        let name = Name::new(&step.channel);
        self.events.contains(&event::kind(&step.what))
            && self.channels.iter().any(|pattern| pattern.matches(&name, None))
    }

    /// Folds a record of [`CHANNEL`].
    pub(crate) fn apply(&self, record: &Record) {
        let Some(section) = self.section(record.partition) else { return };
        match serde_json::from_slice::<Cursor>(record.payload.bytes()) {
            Ok(cursor) => section.queue().fold(&cursor, record.offset.0, self.cluster.me()),
            Err(_) => {
                tracing::warn!(offset = record.offset.0, "a record of webhooks is from a newer release, or damaged");
            }
        }
    }

    /// Notes how far a partition was read.
    pub(crate) fn advance(&self, partition: Partition, offset: Offset) {
        if let Some(section) = self.section(partition) {
            section.queue().advance(offset.0);
        }
    }

    /// Notes that all records of a partition up to its end were read.
    pub(crate) fn up(&self, partition: Partition) {
        if let Some(section) = self.section(partition) {
            section.up.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that no partition is being read.
    pub(crate) fn down(&self) {
        self.sections.iter().for_each(|section| section.up.store(false, Ordering::Relaxed));
    }

    /// Notes that records of a partition are lost.
    pub(crate) fn lost(&self, lost: Break) {
        if let Some(section) = self.section(lost.at.partition) {
            section.queue().lost(lost.at.offset.0, lost.reason == BreakReason::Reset);
        }
    }

    fn section(&self, partition: Partition) -> Option<&Section> {
        self.sections.get(usize::from(partition.0))
    }
}

impl Section {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
