//! A node without threads and sockets. Log, relay, window and workers are the real ones.

use std::cell::{OnceCell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use super::broker::Model;
use super::pipe::End;
use super::wall;
use crate::codec::Extensions;
use crate::config::Config;
use crate::door::ingress::Client;
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::gate::{Identity, Open};
use crate::node::core::Core;
use crate::node::health::Health;
use crate::node::metrics::Metrics;
use crate::node::shared::Shared;
use crate::protocol::{Format, Protocol, native};
use crate::relay::Relayed;
use crate::worker::arrival::Arrival;
use crate::worker::{RELAYED, Worker};

/// Sockets that wait for a worker.
const ACCEPTED: usize = 16;

/// A running node. Dropping it simulates a crash.
pub(super) struct Node {
    task: AbortHandle,
    health: Rc<OnceCell<Arc<Health>>>,
    accepted: Vec<mpsc::Sender<End>>,
    turn: RefCell<usize>,
}

impl Node {
    /// Starts a node on the current [`LocalSet`]; `rng` decides how often its workers are busy.
    pub(super) fn start(model: &Arc<Model>, number: usize, config: &Config, rng: &mut Rng) -> Self {
        let (mut accepted, mut inlets) = (Vec::new(), Vec::new());
        for _ in 0..config.node.workers {
            let (sender, receiver) = mpsc::channel(ACCEPTED);
            accepted.push(sender);
            inlets.push((receiver, rng.fork()));
        }
        let health = Rc::new(OnceCell::new());
        let (broker, config, known) = (model.link(number), config.clone(), Rc::clone(&health));
        let life = async move {
            let gate = Box::new(Open::new(&config));
            let core = Core::new(broker, config, format!("node {number}"), gate, Metrics::default(), wall);
            // Cannot fail: this task runs once.
            let _ = known.set(Arc::clone(&core.health));
            let workers = inlets.into_iter().map(|(accepted, rng)| run_worker(&core.shared, accepted, rng)).collect();
            core.relay(workers).await;
        };
        let task = tokio::task::spawn_local(async move { LocalSet::new().run_until(life).await });
        Self { task: task.abort_handle(), health, accepted, turn: RefCell::new(0) }
    }

    /// Whether the node is ready; false before its task has started.
    pub(super) fn is_ready(&self) -> bool {
        self.health.get().is_some_and(|health| health.ready().is_ok())
    }

    /// Connects a client; false if the node does not accept it.
    pub(super) fn connect(&self, end: End) -> bool {
        let turn = self.turn.replace_with(|turn| (*turn + 1) % self.accepted.len());
        self.accepted[turn].try_send(end).is_ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn run_worker(shared: &Arc<Shared>, mut accepted: mpsc::Receiver<End>, mut rng: Rng) -> mpsc::Sender<Arc<[Relayed]>> {
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
        while let Some(end) = accepted.recv().await {
            drop::<Rc<_>>(worker.adopt(arrival(end), &[]));
        }
    });
    sender
}

/// A client that speaks the native protocol.
fn arrival(end: End) -> Arrival {
    Arrival {
        stream: Stream::Pipe(end),
        client: Client((Ipv4Addr::LOCALHOST, 1).into()),
        admission: Admission::unlisted(),
        identity: Identity::anonymous(),
        extensions: Extensions::none(),
        format: Format::NATIVE,
        session: native::Native.open(),
        channel: None,
        inbox: None,
    }
}
