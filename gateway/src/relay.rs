//! Passes records from the log to every worker of the node.
//!
//! One task, owned by the node. Knows which partitions are being read, and so whether the node is ready. Waits while a
//! worker's queue is full. This loses nothing: the log keeps the records that are not read yet.

use std::sync::Arc;

use broker_adapters::{Break, Partition, Position, Seen, Tail, TailEvent};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::cluster::{Cluster, Orders};
use crate::message::{Event, Message};
use crate::node::health::Health;
use crate::node::vitals::ROUND;
use crate::presence::{self, Change, Presence};
use crate::webhooks::{self, Webhooks};
use crate::window::{Recent, Window};

/// An event for the workers, in the order of the log.
#[derive(Debug)]
pub(crate) enum Relayed {
    /// A record.
    Message(Arc<Message>),
    /// Records up to this position were read and are not messages.
    At(Position),
    /// Who is in a channel has changed.
    Presence(Box<Event>),
    /// A record of the cluster, at this position, orders something.
    Ordered(Position, Box<Orders>),
    /// A partition is being read. The records that follow come after this position.
    Up(Position),
    /// Records of a partition are lost here.
    Lost(Break),
    /// The broker is unreachable, or reachable again.
    Degraded(bool),
}

/// The state of the relay's task.
pub(crate) struct Relay {
    pub(crate) partitions: u16,
    pub(crate) health: Arc<Health>,
    pub(crate) window: Arc<Window>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) webhooks: Arc<Webhooks>,
    /// Milliseconds since 1970.
    pub(crate) clock: fn() -> u64,
    pub(crate) workers: Vec<mpsc::Sender<Arc<[Relayed]>>>,
}

impl Relay {
    /// Runs until the log is closed or all workers are gone.
    pub(crate) async fn run(self, mut tail: Tail) {
        let mut up = vec![false; usize::from(self.partitions)];
        let mut degraded = false;
        // `relay` is dropped first, so that a fault of the relay is not reported as one of the tail.
        let (reading, relay) = self.health.relay();
        let mut tick = interval(ROUND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            relay.beat();
            let events = tokio::select! {
                // In this order, so that a busy log does not hold up what is due.
                biased;
                _ = tick.tick() => {
                    // Without a link there is nothing to read, and the node is already not ready for that reason.
                    if !up.iter().all(|up| *up) {
                        reading.beat();
                    }
                    let later = self.presence.later(clock::now());
                    if self.pass(later.into_iter().map(shown).collect()).await.is_err() {
                        return;
                    }
                    continue;
                }
                events = tail.next() => events,
            };
            let Some(events) = events else { return drop(reading) };
            reading.beat();
            let mut relayed = Vec::new();
            for event in events {
                match event {
                    TailEvent::Records { partition, seen } => self.records(partition, seen, &mut relayed),
                    TailEvent::Up { at } => {
                        up[usize::from(at.partition.0)] = true;
                        self.cluster.up(at.partition);
                        self.presence.up(at.partition);
                        self.webhooks.up(at.partition);
                        relayed.push(Relayed::Up(at));
                    }
                    TailEvent::Lost(lost) => {
                        self.window.clear(lost.at.partition);
                        self.cluster.lost(lost);
                        self.presence.lost(lost.at, clock::now());
                        self.webhooks.lost(lost);
                        relayed.push(Relayed::Lost(lost));
                    }
                    TailEvent::Down { why } => {
                        up.fill(false);
                        self.cluster.down();
                        self.webhooks.down();
                        self.health.set_down(&why);
                        if !std::mem::replace(&mut degraded, true) {
                            relayed.push(Relayed::Degraded(true));
                        }
                    }
                }
            }
            let whole = up.iter().all(|up| *up);
            if whole && std::mem::take(&mut degraded) {
                relayed.push(Relayed::Degraded(false));
            }
            if self.pass(relayed).await.is_err() {
                return;
            }
            self.health.set_link(whole);
        }
    }

    /// Passes events to all workers. Fails if one has ended.
    async fn pass(&self, relayed: Vec<Relayed>) -> Result<(), mpsc::error::SendError<Arc<[Relayed]>>> {
        if relayed.is_empty() {
            return Ok(());
        }
        let relayed: Arc<[Relayed]> = relayed.into();
        for worker in &self.workers {
            worker.send(Arc::clone(&relayed)).await?;
        }
        Ok(())
    }

    /// Appends records to the window before any worker receives them, so that a worker never asks the window for a
    /// record that it does not have yet.
    fn records(&self, partition: Partition, mut seen: Vec<Seen>, relayed: &mut Vec<Relayed>) {
        let controls: Vec<_> = seen.iter_mut().filter_map(|seen| seen.control.take()).collect();
        let mut controls = controls.into_iter().peekable();
        let last = seen.last().map(|last| Position { partition, offset: last.offset, check: last.check });
        let mut changes = false;
        let recent: Vec<_> = seen.into_iter().map(Recent::from).collect();
        self.window.append(partition, &recent);
        for recent in recent {
            match recent.message {
                Some(message) => relayed.push(Relayed::Message(message)),
                None => {
                    let at = Position { partition, offset: recent.offset, check: recent.check };
                    let control = controls.next_if(|record| record.offset == at.offset);
                    relayed.push(match control {
                        Some(record) if record.channel() == presence::CHANNEL => {
                            let steps = self.presence.apply(&record, clock::now());
                            self.webhooks.note(&record, &steps, (self.clock)());
                            changes = true;
                            Relayed::At(at)
                        }
                        Some(record) if record.channel() == webhooks::CHANNEL => {
                            self.webhooks.apply(&record);
                            Relayed::At(at)
                        }
                        Some(record) => match self.cluster.apply(&record, (self.clock)()) {
                            Some(orders) => Relayed::Ordered(at, Box::new(orders)),
                            None => Relayed::At(at),
                        },
                        None => Relayed::At(at),
                    });
                }
            }
        }
        if let Some(last) = last {
            self.cluster.advance(last);
            self.presence.advance(partition, last.offset);
            self.webhooks.advance(partition, last.offset);
        }
        if changes {
            let changes = self.presence.changes(partition, clock::now());
            relayed.extend(changes.into_iter().map(shown));
        }
    }
}

fn shown((change, at): (Change, Position)) -> Relayed {
    Relayed::Presence(Box::new(Event::new(change, at)))
}
