//! A node without threads and sockets. Log, relay, window and workers are the real ones.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use broker_adapters::Log;
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::Instant;

use super::broker::Model;
use super::pipe::End;
use super::wall;
use crate::auth::Auth;
use crate::cluster::Cluster;
use crate::codec::Extensions;
use crate::config::Config;
use crate::door::ingress::Client;
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::gate::{Identity, Judge};
use crate::node::core::Core;
use crate::node::health::Health;
use crate::node::metrics::Metrics;
use crate::node::shared::Shared;
use crate::presence::Presence;
use crate::presence::samples::Fault;
use crate::protocol::{Format, Protocol, native};
use crate::relay::Relayed;
use crate::worker::arrival::Arrival;
use crate::worker::{RELAYED, Worker};

/// Sockets that wait for a worker.
const ACCEPTED: usize = 16;

/// The clients that a node says it may have.
const CAPACITY: usize = 1_000;

/// Makes the part of a node that decides what clients may do.
pub(super) type Gate = fn(&Config) -> Box<dyn Judge>;

/// The parts of nodes that tests replace by faulty ones.
#[derive(Clone, Copy)]
pub(super) struct Build {
    pub(super) gate: Gate,
    /// How the node reads records of presence.
    pub(super) reading: Fault,
}

/// What the world sees of a node.
struct Parts {
    health: Arc<Health>,
    log: Arc<Log>,
    cluster: Arc<Cluster>,
    presence: Arc<Presence>,
}

/// Whether a node stands still.
#[derive(Default)]
struct Still {
    stands: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A running node. Dropping it simulates a crash.
pub(super) struct Node {
    task: AbortHandle,
    parts: Rc<OnceCell<Parts>>,
    still: Rc<Still>,
    /// When it was started, or went on after it stood still.
    runs_since: Cell<Instant>,
    accepted: Vec<mpsc::Sender<(End, Arc<Identity>)>>,
    turn: RefCell<usize>,
}

impl Node {
    /// Starts a node on the current [`LocalSet`]; `rng` decides how often its workers are busy.
    pub(super) fn start(model: &Arc<Model>, number: usize, config: &Config, build: Build, rng: &mut Rng) -> Self {
        let (mut accepted, mut inlets) = (Vec::new(), Vec::new());
        for _ in 0..config.node.workers {
            let (sender, receiver) = mpsc::channel(ACCEPTED);
            accepted.push(sender);
            inlets.push((receiver, rng.fork()));
        }
        let parts = Rc::new(OnceCell::new());
        let (broker, config, known) = (model.link(number), config.clone(), Rc::clone(&parts));
        let life = async move {
            let gates = (Auth::new(&config).expect("the only key is a secret"), (build.gate)(&config));
            let core = Core::new(broker, config, format!("node {number}"), gates, Metrics::default(), wall);
            // Cannot fail: this task runs once.
            let Shared { log, cluster, presence, .. } = &*core.shared;
            let (health, log, cluster) = (Arc::clone(&core.health), Arc::clone(log), Arc::clone(cluster));
            presence.read_as(build.reading);
            let _ = known.set(Parts { health, log, cluster, presence: Arc::clone(presence) });
            tokio::task::spawn_local(core.keeper());
            tokio::task::spawn_local(core.attendance());
            tokio::task::spawn_local(core.member(None, CAPACITY));
            let workers = inlets.into_iter().map(|(accepted, rng)| run_worker(&core.shared, accepted, rng)).collect();
            core.relay(workers).await;
        };
        let still = Rc::new(Still::default());
        let task = tokio::task::spawn_local(while_running(Rc::clone(&still), async move {
            LocalSet::new().run_until(life).await;
        }));
        let (task, runs_since) = (task.abort_handle(), Cell::new(Instant::now()));
        Self { task, parts, still, runs_since, accepted, turn: RefCell::new(0) }
    }

    /// Whether the node is ready; false before its task has started.
    pub(super) fn is_ready(&self) -> bool {
        self.parts.get().is_some_and(|parts| parts.health.ready().is_ok())
    }

    /// The node's log, once its task has started.
    pub(super) fn log(&self) -> Option<Arc<Log>> {
        self.parts.get().map(|parts| Arc::clone(&parts.log))
    }

    /// What the node knows of the cluster, once its task has started.
    pub(super) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.parts.get().map(|parts| Arc::clone(&parts.cluster))
    }

    /// What the node knows of members, once its task has started.
    pub(super) fn presence(&self) -> Option<Arc<Presence>> {
        self.parts.get().map(|parts| Arc::clone(&parts.presence))
    }

    /// Stands still as a stopped process does, or goes on. The reader and the publisher of its log are tasks of the runtime and go on,
    /// the reader until its queue is full, as the kernel goes on to receive for a stopped process.
    pub(super) fn stand_still(&self, stands: bool) {
        if self.still.stands.replace(stands) != stands {
            self.runs_since.set(Instant::now());
            self.still.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Since when it has been running; now, if it stands still.
    pub(super) fn runs_since(&self) -> Instant {
        if self.still.stands.get() { Instant::now() } else { self.runs_since.get() }
    }

    /// Connects a client; false if the node does not accept it.
    pub(super) fn connect(&self, end: End, identity: Arc<Identity>) -> bool {
        let turn = self.turn.replace_with(|turn| (*turn + 1) % self.accepted.len());
        self.accepted[turn].try_send((end, identity)).is_ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives a future no turn while its node stands still.
async fn while_running(still: Rc<Still>, life: impl Future<Output = ()>) {
    let mut life = pin!(life);
    poll_fn(|cx| {
        still.waker.replace(Some(cx.waker().clone()));
        if still.stands.get() { Poll::Pending } else { life.as_mut().poll(cx) }
    })
    .await;
}

fn run_worker(
    shared: &Arc<Shared>,
    mut accepted: mpsc::Receiver<(End, Arc<Identity>)>,
    mut rng: Rng,
) -> mpsc::Sender<Arc<[Relayed]>> {
    let (sender, mut relayed) = mpsc::channel::<Arc<[Relayed]>>(RELAYED);
    let (late, received) = mpsc::channel(RELAYED);
    let worker = Worker::start(Arc::clone(shared), shared.config.node.workers, received);
    tokio::task::spawn_local(async move {
        // Delays some batches, as if the worker were busy.
        while let Some(batch) = relayed.recv().await {
            if rng.u8(0..10) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.u64(0..200))).await;
            }
            if late.send(batch).await.is_err() {
                return;
            }
        }
    });
    tokio::task::spawn_local(async move {
        while let Some((end, identity)) = accepted.recv().await {
            drop::<Rc<_>>(worker.adopt(arrival(end, identity), &[]));
        }
    });
    sender
}

/// A client that speaks the native protocol.
fn arrival(end: End, identity: Arc<Identity>) -> Arrival {
    Arrival {
        stream: Stream::Pipe(end),
        client: Client((Ipv4Addr::LOCALHOST, 1).into()),
        admission: Admission::unlisted(),
        identity: Some(identity),
        extensions: Extensions::none(),
        format: Format::NATIVE,
        session: native::Native.open(),
        channel: None,
        inbox: None,
        listening: None,
    }
}
