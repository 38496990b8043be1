//! A worker: one thread with its own runtime, its own sockets and its own hub, so that messages need no locks.
//!
//! Takes sockets from the listener and records from the relay, through two bounded queues. Owns everything that belongs
//! to its connections: that state is created, used and dropped on this thread. Ends when the node drains and the last
//! connection is closed.

mod adopting;
pub(crate) mod arrival;
mod attending;
mod backlog;
mod blocked;
pub(crate) mod catch_up;
mod commands;
pub(crate) mod connection;
mod deciding;
mod drain;
pub(crate) mod excerpt;
mod excluding;
mod fanout;
mod history;
mod hub;
mod identify;
pub(crate) mod latest;
mod limiting;
mod listening;
mod ordered;
mod outbox;
pub(crate) mod posted;
mod progress;
mod pulse;
mod receive;
mod redeeming;
mod resume;
mod search;
mod seats;
mod shed;
mod timers;
mod visitors;
pub(crate) mod waiting;
mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use broker_adapters::Position;
use futures_util::FutureExt;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, LocalSet};

use self::attending::Attending;
use self::backlog::Backlog;
use self::blocked::Blocked;
use self::connection::Connection;
use self::deciding::Deciding;
use self::hub::{Hub, Member};
use self::timers::Timer;
use self::visitors::Visitors;
use self::wheel::Wheel;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::Limits;
use crate::door::listener::{Accepted, Admission};
use crate::node::drain::Phase;
use crate::node::shared::Shared;
use crate::node::vitals::{ROUND, Vital};
use crate::relay::Relayed;

/// The size of the thread's only input buffer, and so the most bytes that one read takes from a socket.
const BUFFER: usize = 64 << 10;

/// The capacity of the queue of accepted sockets. While it is full, the listener waits.
pub(crate) const ACCEPTED: usize = 256;

/// The capacity of the queue of batches from the relay. While it is full, the relay waits, and the log keeps later
/// records.
pub(crate) const RELAYED: usize = 16;

/// Serves an accepted socket. If the socket becomes a connection, this calls [`Worker::adopt`].
pub(crate) type Serve = Arc<dyn Fn(Rc<Worker>, TcpStream, SocketAddr, Admission) -> Served + Send + Sync>;

/// The task that serves an accepted socket.
pub(crate) type Served = Pin<Box<dyn Future<Output = ()>>>;

/// The queues that lead to a worker.
pub(crate) struct Inlets {
    pub(crate) accepted: mpsc::Receiver<Accepted>,
    pub(crate) serve: Serve,
    pub(crate) relayed: mpsc::Receiver<Arc<[Relayed]>>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Dropped once the node drains and this worker has no connections left.
    pub(crate) clients: mpsc::Sender<()>,
    pub(crate) vital: Vital,
}

/// The state that all tasks of one worker share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    limits: Limits,
    started: Instant,
    /// A random number, by which the clients of all workers in the cluster differ.
    number: u64,
    serial: Cell<u32>,
    connections: RefCell<Slab<Rc<Connection>>>,
    hub: RefCell<Hub>,
    attending: RefCell<Attending>,
    wheel: RefCell<Wheel<Timer>>,
    buffer: RefCell<Box<[u8]>>,
    /// The last position seen of each partition. A new subscription receives the records after it.
    positions: RefCell<Box<[Option<Position>]>>,
    /// The number of breaks seen in each partition. A window that counts more breaks is ahead of this worker.
    breaks: RefCell<Box<[u64]>>,
    /// Connections with at least one channel that is still catching up.
    returning: RefCell<BTreeSet<Member>>,
    /// The number of channels that are catching up, over all connections.
    waiting: Cell<usize>,
    /// The bytes that catch-ups have queued since everything else had its turn, and the lane of those that wait for theirs.
    caught_up: Cell<usize>,
    turns: Semaphore,
    /// Decisions of the gate that are pending.
    deciding: Deciding,
    visitors: Visitors,
    /// Notified when positions have advanced.
    moved: tokio::sync::Notify,
    /// Whether the broker is unreachable. New connections then receive a notice.
    degraded: Cell<bool>,
    backlog: Rc<Backlog>,
    /// Connections whose sockets accept no bytes at present.
    blocked: RefCell<Blocked>,
    /// Connections to write to at the next flush.
    marked: RefCell<Vec<Member>>,
    /// Whether a flush is scheduled.
    flushing: Cell<bool>,
    /// Notified when the last connection is removed.
    emptied: tokio::sync::Notify,
    /// Notified when one of the worker's essential tasks has ended.
    crippled: tokio::sync::Notify,
    /// The deadline by which all connections must be closed, once the node drains.
    leaving: Cell<Option<Instant>>,
}

impl Worker {
    /// Starts one of `workers` workers on the current [`LocalSet`].
    pub(crate) fn start(shared: Arc<Shared>, workers: usize, relayed: mpsc::Receiver<Arc<[Relayed]>>) -> Rc<Self> {
        let worker = Rc::new(Self::new(shared, workers));
        worker.run_essential(Rc::clone(&worker).relay(relayed));
        worker.run_essential(Rc::clone(&worker).keep_time());
        worker.run_essential(Rc::clone(&worker).shed());
        worker
    }

    /// Runs an essential task. If it returns or panics, the worker has failed.
    fn run_essential(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _ = AssertUnwindSafe(task).catch_unwind().await;
            worker.crippled.notify_one();
        });
    }

    /// Runs a task for one connection. A panic in it closes that connection only.
    fn spawn_for(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        task: impl Future<Output = ()> + 'static,
    ) -> AbortHandle {
        let (worker, connection) = (Rc::clone(self), Rc::clone(connection));
        tokio::task::spawn_local(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                worker.end(&connection, CloseReason::Internal);
            }
        })
        .abort_handle()
    }

    /// Beats while all essential tasks run. When one has ended, drops `vital`, which reports the failure to the node.
    async fn beat_while_whole(&self, vital: Vital) {
        while tokio::time::timeout(ROUND, self.crippled.notified()).await.is_err() {
            vital.beat();
        }
        drop(vital);
        // The failed node drains, and closes this worker's connections with all others.
        std::future::pending().await
    }

    fn new(shared: Arc<Shared>, workers: usize) -> Self {
        let config = &shared.config;
        let started = clock::now();
        Self {
            limits: Limits {
                message: config.limits.message.bytes(),
                fragments: u32::try_from(config.limits.fragments).unwrap_or(u32::MAX),
                message_time: config.limits.message_time,
            },
            started,
            number: fastrand::u64(..),
            serial: Cell::new(0),
            connections: RefCell::default(),
            hub: RefCell::default(),
            attending: RefCell::default(),
            wheel: RefCell::new(Wheel::new(timers::tick(config), started)),
            buffer: RefCell::new(vec![0; BUFFER].into()),
            positions: RefCell::new(vec![None; usize::from(config.broker.partitions)].into()),
            breaks: RefCell::new(vec![0; usize::from(config.broker.partitions)].into()),
            returning: RefCell::default(),
            waiting: Cell::new(0),
            caught_up: Cell::new(0),
            turns: Semaphore::new(1),
            deciding: Deciding::default(),
            visitors: Visitors::default(),
            moved: tokio::sync::Notify::new(),
            degraded: Cell::new(false),
            backlog: Backlog::new(config.limits.outbox.bytes(), config.limits.outbox_total.bytes() / workers.max(1)),
            blocked: RefCell::default(),
            marked: RefCell::default(),
            flushing: Cell::new(false),
            emptied: tokio::sync::Notify::new(),
            crippled: tokio::sync::Notify::new(),
            leaving: Cell::new(None),
            shared,
        }
    }

    /// Whether the channel's partition has a known position, which a subscription needs.
    pub(crate) fn knows_position(&self, channel: &str) -> bool {
        self.positions.borrow()[usize::from(self.shared.log.partition_of(channel).0)].is_some()
    }

    /// The serial of the next client.
    fn next_serial(&self) -> u32 {
        self.serial.set(self.serial.get().wrapping_add(1));
        self.serial.get()
    }

    /// Marks a connection to be written to at the next flush.
    fn mark(&self, member: Member) {
        self.marked.borrow_mut().push(member);
    }

    /// Writes to all marked connections.
    pub(crate) fn flush(&self) {
        let (mut marked, mut panicked) = (self.marked.take(), Vec::new());
        let connections = self.connections.borrow();
        for member in marked.drain(..) {
            let Some(connection) = connections.get(member as usize) else { continue };
            // A panic here must not keep the other connections from being written to.
            if std::panic::catch_unwind(AssertUnwindSafe(|| connection.flush(self))).is_err() {
                panicked.push(Rc::clone(connection));
            }
        }
        drop(connections);
        panicked.iter().for_each(|connection| self.end(connection, CloseReason::Internal));
        // Keep the allocation for the next batch.
        let mut refill = self.marked.borrow_mut();
        if refill.is_empty() {
            *refill = marked;
        }
        drop(refill);
        self.make_room();
    }

    /// Closes clients until the backlog is within its limit, beginning with the one that has made no progress for
    /// longest.
    fn make_room(&self) {
        while self.backlog.is_over() {
            let slowest = self.blocked.borrow().slowest();
            let slowest = slowest.and_then(|member| self.connections.borrow().get(member as usize).cloned());
            // No socket is blocked, so the rest is about to be written.
            let Some(slowest) = slowest else { return };
            if slowest.make_room(self) {
                self.shared.metrics.made_room();
            }
        }
    }

    /// Flushes after all tasks that are ready now have run, so that their frames are written together.
    fn flush_soon(self: &Rc<Self>) {
        if !self.flushing.replace(true) {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move {
                worker.flushing.set(false);
                worker.flush();
            });
        }
    }

    /// Begins to close a connection, and unsubscribes it from all channels at once.
    pub(crate) fn end(&self, connection: &Connection, reason: CloseReason) {
        self.leave_all(connection);
        connection.end(self, reason);
    }

    fn leave_all(&self, connection: &Connection) {
        self.unwatch_all(connection);
        self.stop_all_catch_ups(connection);
        let seats = std::mem::take(&mut connection.state.borrow_mut().seats);
        for seat in seats.iter() {
            self.unattend(connection, seat);
            self.give_up_seat(seat);
        }
    }

    /// Frees a seat, and updates the connection that the hub moved into it.
    fn give_up_seat(&self, seat: hub::Seat) {
        let moved = self.hub.borrow_mut().unsubscribe(seat);
        let Some(moved) = moved else { return };
        if let Some(connection) = self.connections.borrow().get(moved.member as usize) {
            connection.state.borrow_mut().seats.moved(moved.to);
        }
    }

    fn remove(&self, connection: &Connection, reason: CloseReason) {
        self.leave_all(connection);
        connection.leave(self);
        let mut connections = self.connections.borrow_mut();
        connections.try_remove(connection.member as usize);
        if connections.is_empty() {
            connections.shrink_to_fit();
            self.emptied.notify_waiters();
        }
        drop(connections);
        self.shared.metrics.closed(reason, connection.format.resumes());
        tracing::info!(peer = %connection.peer(), reason = reason.label(), code = reason.code(),
            seconds = connection.age(self.started).as_secs(), "connection closed");
    }

    async fn accept(self: Rc<Self>, mut accepted: mpsc::Receiver<Accepted>, serve: Serve) {
        while let Some((stream, peer, admission)) = accepted.recv().await {
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    // A panic in this task closes its socket, which is not a WebSocket yet.
                    tokio::task::spawn_local(serve(Rc::clone(&self), stream, peer, admission));
                }
                Err(error) => tracing::warn!(%peer, %error, "an accepted socket cannot be used"),
            }
        }
    }

    async fn relay(self: Rc<Self>, mut relayed: mpsc::Receiver<Arc<[Relayed]>>) {
        let mut batches = Vec::with_capacity(RELAYED);
        while relayed.recv_many(&mut batches, RELAYED).await > 0 {
            self.fan_out(&batches).await;
            batches.clear();
            // Lets sockets that became readable meanwhile be served before the next batch.
            tokio::task::yield_now().await;
        }
    }
}

/// Runs a worker on this thread until it has drained. Fails if the thread's runtime cannot be built.
pub(crate) fn run(shared: Arc<Shared>, workers: usize, inlets: Inlets) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let worker = Worker::start(shared, workers, inlets.relayed);
        worker.run_essential(Rc::clone(&worker).accept(inlets.accepted, inlets.serve));
        tokio::select! {
            () = Rc::clone(&worker).drain(inlets.phase, inlets.clients) => {}
            () = worker.beat_while_whole(inlets.vital) => {}
        }
    });
    Ok(())
}
