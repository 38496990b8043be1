//! One thread with its own runtime, its own sockets and its own hub: no locks on the hot path.
//!
//! Takes sockets from the listener and records from the relay. All that a worker owns lives and dies on its
//! thread; others reach it through two bounded queues. Ends when it is told to drain and the last client is gone.

pub(crate) mod arrival;
mod backlog;
mod blocked;
mod catch_up;
mod commands;
pub(crate) mod connection;
mod deciding;
mod drain;
mod fanout;
mod hub;
mod outbox;
mod progress;
mod pulse;
mod receive;
mod resume;
mod seats;
mod timers;
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
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, LocalSet};

use self::arrival::Arrival;
use self::backlog::Backlog;
use self::blocked::Blocked;
use self::connection::Connection;
use self::deciding::Deciding;
use self::hub::{Hub, Member};
use self::timers::Timer;
use self::wheel::Wheel;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::Limits;
use crate::door::listener::{Accepted, Admission};
use crate::node::drain::Phase;
use crate::node::shared::Shared;
use crate::node::vitals::{ROUND, Vital};
use crate::protocol::Notice;
use crate::relay::Relayed;

/// Bytes read from a socket at a time: the only input buffer of the thread.
const BUFFER: usize = 64 << 10;

/// Accepted sockets that wait for the worker; when full, the listener waits.
pub(crate) const ACCEPTED: usize = 256;

/// Batches that wait for the worker; when full, the relay waits, and the log keeps the rest.
pub(crate) const RELAYED: usize = 16;

/// What a worker does with each accepted socket; the sockets that become connections come back by
/// [`Worker::adopt`].
pub(crate) type Serve = Arc<dyn Fn(Rc<Worker>, TcpStream, SocketAddr, Admission) -> Served + Send + Sync>;

/// A socket being served.
pub(crate) type Served = Pin<Box<dyn Future<Output = ()>>>;

/// The queues that lead to a worker.
pub(crate) struct Inlets {
    pub(crate) accepted: mpsc::Receiver<Accepted>,
    pub(crate) serve: Serve,
    pub(crate) relayed: mpsc::Receiver<Arc<[Relayed]>>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Dropped when the node goes away and this worker has no more clients.
    pub(crate) clients: mpsc::Sender<()>,
    pub(crate) vital: Vital,
}

/// What the tasks of one thread share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    limits: Limits,
    started: Instant,
    serial: Cell<u32>,
    connections: RefCell<Slab<Rc<Connection>>>,
    hub: RefCell<Hub>,
    wheel: RefCell<Wheel<Timer>>,
    buffer: RefCell<Box<[u8]>>,
    /// The last position seen of each partition: what a new subscription comes after.
    positions: RefCell<Box<[Option<Position>]>>,
    /// The breaks seen in each partition: a window that has seen more is ahead.
    breaks: RefCell<Box<[u64]>>,
    /// Connections that have channels to catch up with, and how many channels these are.
    returning: RefCell<BTreeSet<Member>>,
    waiting: Cell<usize>,
    /// Commands about which the gate has yet to decide.
    deciding: Deciding,
    /// Positions have moved.
    moved: tokio::sync::Notify,
    /// The broker is away: whoever connects is told.
    degraded: Cell<bool>,
    backlog: Rc<Backlog>,
    /// Connections whose sockets take nothing now.
    blocked: RefCell<Blocked>,
    /// Connections with something new to write.
    marked: RefCell<Vec<Member>>,
    /// A flush is about to come.
    flushing: Cell<bool>,
    emptied: tokio::sync::Notify,
    /// One of the worker's own tasks has ended.
    crippled: tokio::sync::Notify,
    /// The node is going away: by then all clients are to be gone.
    leaving: Cell<Option<Instant>>,
}

impl Worker {
    /// Starts a worker, one of `workers`, on the current [`LocalSet`].
    pub(crate) fn start(shared: Arc<Shared>, workers: usize, relayed: mpsc::Receiver<Arc<[Relayed]>>) -> Rc<Self> {
        let worker = Rc::new(Self::new(shared, workers));
        worker.keep(Rc::clone(&worker).relay(relayed));
        worker.keep(Rc::clone(&worker).keep_time());
        worker
    }

    /// Runs one of the tasks that the worker cannot do without: if it ends, or panics, the worker has failed.
    fn keep(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _ = AssertUnwindSafe(task).catch_unwind().await;
            worker.crippled.notify_one();
        });
    }

    /// Runs a task of one connection: a panic in it ends that connection and no other.
    fn attend(self: &Rc<Self>, connection: &Rc<Connection>, task: impl Future<Output = ()> + 'static) -> AbortHandle {
        let (worker, connection) = (Rc::clone(self), Rc::clone(connection));
        tokio::task::spawn_local(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                worker.end(&connection, CloseReason::Internal);
            }
        })
        .abort_handle()
    }

    /// Beats while all tasks of the worker run; after that the node is told that this worker has ended.
    async fn show_life(&self, vital: Vital) {
        while tokio::time::timeout(ROUND, self.crippled.notified()).await.is_err() {
            vital.beat();
        }
        drop(vital);
        // The clients are told to go elsewhere with those of the whole node.
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
            serial: Cell::new(0),
            connections: RefCell::default(),
            hub: RefCell::default(),
            wheel: RefCell::new(Wheel::new(timers::tick(config), started)),
            buffer: RefCell::new(vec![0; BUFFER].into()),
            positions: RefCell::new(vec![None; usize::from(config.broker.partitions)].into()),
            breaks: RefCell::new(vec![0; usize::from(config.broker.partitions)].into()),
            returning: RefCell::default(),
            waiting: Cell::new(0),
            deciding: Deciding::default(),
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

    /// Whether a subscription to this channel would know what it comes after.
    pub(crate) fn knows_position(&self, channel: &str) -> bool {
        self.positions.borrow()[usize::from(self.shared.log.partition_of(channel).0)].is_some()
    }

    /// Makes an upgraded socket a connection; `read` was already taken from it.
    pub(crate) fn adopt(self: &Rc<Self>, arrival: Arrival, read: &[u8]) -> Rc<Connection> {
        let now = clock::now();
        self.serial.set(self.serial.get().wrapping_add(1));
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let member = Member::try_from(entry.key()).unwrap_or(Member::MAX);
        let (connection, channel) = Connection::new((member, self.serial.get()), arrival, now);
        let connection = Rc::new(connection);
        entry.insert(Rc::clone(&connection));
        drop(connections);
        self.shared.metrics.opened();
        self.watch(&connection, now);
        if self.degraded.get() {
            self.notify(&connection, Notice::Degraded(true));
        }
        if let Some(channel) = channel
            && let Err(failure) = self.subscribe(&connection, &channel)
        {
            tracing::warn!(channel, why = failure.message, "a socket's channel cannot be read");
            self.end(&connection, CloseReason::Overload);
        }
        if self.is_leaving() {
            self.end(&connection, CloseReason::Drain);
        }
        let task = Task { worker: Rc::clone(self), connection: Rc::clone(&connection), reason: None, panicked: false };
        if !read.is_empty() {
            self.receive(&connection, &mut read.to_vec());
        }
        tokio::task::spawn_local(task.run());
        connection
    }

    /// Has the connection written to at the next flush.
    fn mark(&self, member: Member) {
        self.marked.borrow_mut().push(member);
    }

    /// Writes to all marked connections.
    pub(crate) fn flush(&self) {
        let (mut marked, mut panicked) = (self.marked.take(), Vec::new());
        let connections = self.connections.borrow();
        for member in marked.drain(..) {
            let Some(connection) = connections.get(member as usize) else { continue };
            // The others must be written to whatever is wrong with this one.
            if std::panic::catch_unwind(AssertUnwindSafe(|| connection.flush(self))).is_err() {
                panicked.push(Rc::clone(connection));
            }
        }
        drop(connections);
        panicked.iter().for_each(|connection| self.end(connection, CloseReason::Internal));
        // Keep the room for the next batch.
        let mut refill = self.marked.borrow_mut();
        if refill.is_empty() {
            *refill = marked;
        }
        drop(refill);
        self.make_room();
    }

    /// Cuts clients off until what waits for all has room: those first that have taken nothing for longest.
    fn make_room(&self) {
        while self.backlog.is_over() {
            let slowest = self.blocked.borrow().slowest();
            let slowest = slowest.and_then(|member| self.connections.borrow().get(member as usize).cloned());
            // What is left then is on its way to sockets that take it.
            let Some(slowest) = slowest else { return };
            if slowest.make_room(self) {
                self.shared.metrics.made_room();
            }
        }
    }

    /// Flushes once all tasks that are ready now have run, so that what they send leaves together.
    fn flush_soon(self: &Rc<Self>) {
        if !self.flushing.replace(true) {
            let worker = Rc::clone(self);
            tokio::task::spawn_local(async move {
                worker.flushing.set(false);
                worker.flush();
            });
        }
    }

    /// Begins the end of a connection, and takes it out of its channels at once.
    pub(crate) fn end(&self, connection: &Connection, reason: CloseReason) {
        self.leave_all(connection);
        connection.end(self, reason);
    }

    fn leave_all(&self, connection: &Connection) {
        self.leave_all_returning(connection);
        let seats = std::mem::take(&mut connection.state.borrow_mut().seats);
        for seat in seats.iter() {
            self.give_up_seat(seat);
        }
    }

    /// Frees a seat, and tells whoever moved into it.
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
        self.shared.metrics.closed(reason);
        tracing::info!(peer = %connection.peer, reason = reason.label(), code = reason.code(),
            seconds = connection.opened.elapsed().as_secs(), "connection closed");
    }

    async fn accept(self: Rc<Self>, mut accepted: mpsc::Receiver<Accepted>, serve: Serve) {
        while let Some((stream, peer, admission)) = accepted.recv().await {
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    // A panic in it closes this socket, which is not a WebSocket yet.
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
            // Sockets that became readable meanwhile have their turn before the next batch.
            tokio::task::yield_now().await;
        }
    }
}

/// Runs a worker on this thread until it has drained.
pub(crate) fn run(shared: Arc<Shared>, workers: usize, inlets: Inlets) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let worker = Worker::start(shared, workers, inlets.relayed);
        worker.keep(Rc::clone(&worker).accept(inlets.accepted, inlets.serve));
        tokio::select! {
            () = Rc::clone(&worker).drain(inlets.phase, inlets.clients) => {}
            () = worker.show_life(inlets.vital) => {}
        }
    });
    Ok(())
}

/// The task of a connection, which leaves no trace of it behind however it ends.
struct Task {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    reason: Option<CloseReason>,
    panicked: bool,
}

impl Task {
    async fn run(mut self) {
        while self.reason.is_none() {
            let ended = std::future::poll_fn(|cx| self.connection.poll(&self.worker, cx));
            match AssertUnwindSafe(ended).catch_unwind().await {
                Ok(reason) => self.reason = Some(reason),
                // It cannot even say farewell.
                Err(_) if self.panicked => return,
                Err(_) => {
                    self.panicked = true;
                    self.worker.end(&self.connection, CloseReason::Internal);
                }
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.reason.is_none() {
            // Cut off at the drain's deadline, or by a panic: nothing is left to wait for.
            self.connection.reset();
        }
        let cut_off = if self.panicked { CloseReason::Internal } else { CloseReason::GoingAway };
        self.worker.remove(&self.connection, self.reason.unwrap_or(cut_off));
    }
}
