//! A node without threads and sockets: log, relay, window and workers as they are, ended by dropping them.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use broker_adapters::Resume;
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, LocalSet};

use super::broker::Model;
use super::pipe::End;
use super::wall;
use crate::app::App;
use crate::config::Config;
use crate::handshake::{Hosts, Origins};
use crate::health::Health;
use crate::ingress::{Client, Ingress};
use crate::listener::Admission;
use crate::metrics::Metrics;
use crate::node::{HISTORY, Shared, start_log};
use crate::protocol::Protocol;
use crate::refusals::Refusals;
use crate::relay::{Relay, Relayed};
use crate::stream::Stream;
use crate::window::Window;
use crate::worker::{RELAYED, Worker};

/// Sockets that wait for a worker.
const ACCEPTED: usize = 16;

/// A running node; dropping it is its crash.
pub(super) struct Node {
    task: AbortHandle,
    pub(super) health: Arc<Health>,
    accepted: Vec<mpsc::Sender<End>>,
    turn: RefCell<usize>,
}

impl Node {
    /// Starts a node on the current [`LocalSet`]; `rng` decides how busy its workers are.
    pub(super) fn start(model: &Arc<Model>, number: usize, config: &Config, rng: &mut Rng) -> Self {
        let health = Arc::<Health>::default();
        let (mut accepted, mut inlets) = (Vec::new(), Vec::new());
        for _ in 0..config.node.workers {
            let (sender, receiver) = mpsc::channel(ACCEPTED);
            accepted.push(sender);
            inlets.push((receiver, rng.fork()));
        }
        let (broker, config, known) = (model.link(number), config.clone(), Arc::clone(&health));
        let life = async move {
            let log = Arc::new(start_log(broker, &config, wall));
            let kept = &config.window;
            let window = Arc::new(Window::new(log.partitions(), kept.age, kept.bytes.bytes(), wall));
            let shared = Arc::new(Shared {
                name: format!("node {number}"),
                origins: Origins::default(),
                hosts: Hosts::default(),
                ingress: Ingress::new(&config, None),
                app: App::new(),
                log: Arc::clone(&log),
                window: Arc::clone(&window),
                metrics: Arc::new(Metrics::default()),
                refusals: Refusals::default(),
                config,
            });
            let workers = inlets.into_iter().map(|(accepted, rng)| run_worker(&shared, accepted, rng)).collect();
            let relay = Relay { partitions: log.partitions(), health: known, window, workers };
            relay.run(log.tail_all(Resume::Recent(HISTORY))).await;
        };
        let task = tokio::task::spawn_local(async move { LocalSet::new().run_until(life).await });
        Self { task: task.abort_handle(), health, accepted, turn: RefCell::new(0) }
    }

    /// Connects a client; false if the node does not take it.
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
        // A worker with other things to do.
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
        let peer = Client((Ipv4Addr::LOCALHOST, 1).into());
        while let Some(end) = accepted.recv().await {
            drop::<Rc<_>>(worker.adopt(
                (Stream::Pipe(end), peer),
                Admission::unlisted(),
                (Protocol::Native, None),
                &[],
            ));
        }
    });
    sender
}
