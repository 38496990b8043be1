//! This node as a member of the cluster: writes that it lives, and that others are gone which it has not heard for a lease.
//!
//! Every node does this. The first that finds a node silent writes its end; the others read that and have nothing to write.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use broker_adapters::{Log, Position, PublishError};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::control::{Control, Node};
use super::lives::{Change, Lives};
use super::silence::{LEASE, REPORT};
use super::{Clients, Cluster, Life, Live, publish};

/// The longest random time before a node writes after a change: after a break all nodes do.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The time after which a report that could not be written is written again.
const AGAIN: Duration = Duration::from_millis(100);

/// A lease has at least so many heartbeats, so that a quiet log is not taken for silent nodes.
const HEARTBEATS: u32 = 6;

/// The most lives whose end is in one record.
const TOGETHER: usize = 200;

/// What the task of a member needs.
pub(crate) struct Member<C> {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) log: Arc<Log>,
    pub(crate) name: String,
    /// The address of the node's API.
    pub(crate) api: Option<String>,
    /// Which clients the node has.
    pub(crate) clients: C,
    /// How many it may have.
    pub(crate) capacity: u64,
    /// `cluster.lease` and `broker.heartbeat`.
    pub(crate) lease: Duration,
    pub(crate) heartbeat: Duration,
}

impl<C: Fn() -> Clients> Member<C> {
    /// Runs for ever.
    pub(crate) async fn run(self) {
        let tick = self.lease.max(HEARTBEATS * self.heartbeat) / LEASE;
        // Nodes that started together do not find a third one silent together.
        let mut ticks = interval_at(Instant::now() + tick.mul_f64(fastrand::f64()), tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                biased;
                () = self.cluster.report.notified() => {
                    due.as_mut().reset(Instant::now() + AT_ONCE.mul_f64(fastrand::f64()));
                }
                () = &mut due, if self.cluster.is_up() => {
                    let next = if self.write(&self.report()).await.is_ok() { REPORT * tick } else { AGAIN };
                    due.as_mut().reset(Instant::now() + next);
                }
                _ = ticks.tick() => self.watch(LEASE * tick).await,
            }
        }
    }

    /// Counts a tick, and writes the ends of the lives that were silent for a lease.
    async fn watch(&self, lease: Duration) {
        for some in self.cluster.tick().chunks(TOGETHER) {
            for name in
                self.cluster.lives().iter().filter(|live| some.contains(&live.life())).map(|live| &live.node.name)
            {
                tracing::warn!(node = name, "this node has not heard that node for {lease:?}, so it counts as gone");
            }
            // What cannot be written is found again at the next tick.
            let _ = self.write(&Control { gone: some.to_vec(), ..Control::default() }).await;
        }
    }

    fn report(&self) -> Control {
        let (clients, shed) = ((self.clients)(), self.cluster.shedding.progress());
        let state = self.cluster.lock();
        let node = Node {
            life: state.lives.me(),
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api: self.api.clone(),
            connections: clients.open,
            capacity: self.capacity,
            resumable: clients.resumable,
            draining: state.lives.draining,
            webhooks: state.lives.webhooks,
            read: state.head.map(|at| at.to_string()),
            shed,
        };
        Control { node: Some(node), ..Control::default() }
    }

    async fn write(&self, control: &Control) -> Result<(), PublishError> {
        publish(&self.log, control).await.map(drop).inspect_err(|error| {
            tracing::debug!(%error, "a record of the cluster was not written");
        })
    }
}

impl Cluster {
    /// This node's own life.
    pub(crate) fn me(&self) -> Life {
        self.lock().lives.me()
    }

    /// The nodes that live, with this one, in the order of their numbers.
    pub(crate) fn lives(&self) -> Vec<Live> {
        self.lock().lives.live().cloned().collect()
    }

    /// The last record of `{cluster}` that this node has read.
    pub(crate) fn head(&self) -> Option<Position> {
        self.lock().head
    }

    /// How many nodes live.
    pub(crate) fn size(&self) -> usize {
        self.lock().lives.live().len()
    }

    /// Whether a life has begun and not ended.
    pub(crate) fn is_live(&self, life: Life) -> bool {
        self.lock().lives.is_live(life)
    }

    /// Whether this node has read the log for a whole lease without a break, so that it has heard every node that lives.
    pub(crate) fn knows_lives(&self) -> bool {
        self.lock().lives.is_whole()
    }

    /// Changes when a life begins or ends, and with [`knows_lives`](Self::knows_lives).
    pub(crate) fn lives_changed(&self) -> watch::Receiver<u64> {
        self.lives_changed.subscribe()
    }

    /// Notes that this node is about to leave, which the others read at once.
    pub(crate) fn drain(&self) {
        self.lock().lives.draining = true;
        self.report.notify_one();
    }

    /// Notes whether this node has all events in hand that no webhook has delivered yet.
    pub(crate) fn has_events(&self, all: bool) {
        if self.lock().lives.webhooks.replace(all) != Some(all) {
            self.report.notify_one();
        }
    }

    /// Writes that this node's life has ended, unless the broker is away. Nothing that it writes later counts.
    pub(crate) async fn leave(&self, log: &Log) {
        let (me, is_up) = {
            let mut state = self.lock();
            state.lives.ended = true;
            (state.lives.me(), state.lives.is_up())
        };
        if !is_up {
            return;
        }
        if let Err(error) = publish(log, &Control { gone: vec![me], ..Control::default() }).await {
            tracing::warn!(%error, "the other nodes are not notified of this node's end, and find it after `cluster.lease`");
        }
    }

    fn is_up(&self) -> bool {
        self.lock().lives.is_up()
    }

    fn tick(&self) -> Vec<Life> {
        self.change_lives(&mut self.lock().lives, Lives::tick)
    }

    /// Changes what is known of lives, and notifies of a change of whether all are known.
    pub(super) fn change_lives<T>(&self, lives: &mut Lives, change: impl FnOnce(&mut Lives) -> T) -> T {
        let before = lives.is_whole();
        let result = change(lives);
        if lives.is_whole() != before {
            self.lives_changed.send_modify(|count| *count += 1);
        }
        result
    }

    /// Folds what a record says of lives. It was written and read at these times.
    pub(super) fn fold_lives(&self, lives: &mut Lives, control: &Control, written: u64, now: u64) {
        let Change { begun, ended, own } = lives.fold(control.node.as_ref(), &control.gone, written, now);
        // A node that starts reads of many lives that are long over.
        if lives.is_up() {
            if let Some(name) = &begun {
                tracing::info!(node = name, "a node has joined the cluster");
            }
            for Live { node, .. } in &ended {
                tracing::info!(node = node.name, "a node has left the cluster");
            }
        }
        if own {
            tracing::warn!("the other nodes had not heard this node for `cluster.lease`: it joins them again");
            self.report.notify_one();
        }
        if begun.is_some() || !ended.is_empty() || own {
            self.lives_changed.send_modify(|count| *count += 1);
        }
    }
}
