//! The core of a node, without sockets and threads: its log, its window, and the state that its workers share.
//!
//! Wired here once, for nodes and for simulated nodes.

use std::net::SocketAddr;
use std::sync::Arc;

use broker_adapters::{Broker, Budget, Log, Resume, Timing};
use tokio::sync::mpsc;

use super::health::Health;
use super::metrics::Metrics;
use super::shared::Shared;
use crate::auth::Auth;
use crate::cluster::{self, Cluster, Keeper, Member, Shedder};
use crate::config::Config;
use crate::gate::{Judge, Limiter};
use crate::presence::{Presence, Writer};
use crate::relay::{Relay, Relayed};
use crate::webhooks::{Delivery, Endpoint, Webhooks};
use crate::window::Window;

/// The number of records of each partition that a node reads before it is ready. It equals the number of ids that
/// deduplication remembers, so that a fresh node decides like all others.
pub(crate) const HISTORY: u64 = 65_536;

/// A node's log, window and health.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) health: Arc<Health>,
}

impl Core {
    /// Connects to the broker in the background, on the current runtime. `clock` returns milliseconds since 1970.
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        config: Config,
        name: String,
        (auth, gate): (Auth, Box<dyn Judge>),
        metrics: Metrics,
        clock: fn() -> u64,
    ) -> Self {
        let set = &config.broker;
        let budget = Budget { messages: set.in_flight, bytes: set.in_flight_bytes.bytes() };
        let log = Log::start(broker, set.partitions, Timing { heartbeat: set.heartbeat, clock }, budget);
        let window = Window::new(log.partitions(), config.window.age, config.window.bytes.bytes(), clock);
        let health = Arc::new(Health::new(set.heartbeat));
        let cluster = Arc::new(Cluster::new(log.partition_of(cluster::CHANNEL)));
        let presence = Presence::new(&config, log.partitions(), Arc::clone(&cluster));
        let webhooks = Webhooks::new(&config, log.partitions(), Arc::clone(&cluster));
        let metrics = metrics.with_webhooks(webhooks.counters());
        let (log, window, metrics) = (Arc::new(log), Arc::new(window), Arc::new(metrics));
        let limiter = Limiter::new(&config.limits, crate::clock::now());
        let shared = Shared {
            name,
            gate,
            limiter,
            auth,
            log,
            window,
            cluster,
            presence: Arc::new(presence),
            webhooks: Arc::new(webhooks),
            metrics,
            clock,
            config,
        };
        Self { shared: Arc::new(shared), health }
    }

    /// Writes what the cluster must not forget again, for as long as the node runs.
    pub(crate) fn keeper(&self) -> impl Future<Output = ()> + use<> {
        let Shared { log, cluster, clock, config, .. } = &*self.shared;
        let kept = config.broker.retention.min(HISTORY);
        Keeper { cluster: Arc::clone(cluster), log: Arc::clone(log), kept, clock: *clock }.run()
    }

    /// Keeps this node a member of the cluster, for as long as it runs. `api` is the address of its API, and `capacity` the number of
    /// clients that it may have.
    pub(crate) fn member(&self, api: Option<SocketAddr>, capacity: usize) -> impl Future<Output = ()> + use<> {
        let Shared { name, log, cluster, metrics, config, .. } = &*self.shared;
        let metrics = Arc::clone(metrics);
        let member = Member {
            cluster: Arc::clone(cluster),
            log: Arc::clone(log),
            name: name.clone(),
            api: api.map(|api| api.to_string()),
            clients: move || metrics.clients(),
            capacity: capacity as u64,
            lease: config.cluster.lease,
            heartbeat: config.broker.heartbeat,
        };
        member.run()
    }

    /// Carries out this node's part of each shed, for as long as the node runs.
    pub(crate) fn shedder(&self) -> impl Future<Output = ()> + use<> {
        let Shared { cluster, metrics, .. } = &*self.shared;
        let metrics = Arc::clone(metrics);
        Shedder { cluster: Arc::clone(cluster), clients: move || metrics.clients() }.run()
    }

    /// Writes who is in which channel here, for as long as the node runs.
    pub(crate) fn attendance(&self) -> impl Future<Output = ()> + use<> {
        let Shared { log, presence, config, .. } = &*self.shared;
        let kept = config.broker.retention.min(HISTORY);
        Writer { presence: Arc::clone(presence), log: Arc::clone(log), kept }.run()
    }

    /// Notifies the application's backend, for as long as the node runs.
    pub(crate) fn delivery(&self, endpoint: Endpoint) -> impl Future<Output = ()> + use<> {
        let Shared { log, presence, webhooks, clock, config, .. } = &*self.shared;
        let delivery = Delivery {
            webhooks: Arc::clone(webhooks),
            presence: Arc::clone(presence),
            log: Arc::clone(log),
            endpoint,
            retry: config.webhooks.retry,
            kept: config.broker.retention.min(HISTORY),
            clock: *clock,
        };
        delivery.run()
    }

    /// Relays the log to these workers, until the log is closed or all workers have ended.
    pub(crate) fn relay(&self, workers: Vec<mpsc::Sender<Arc<[Relayed]>>>) -> impl Future<Output = ()> + use<> {
        let Shared { log, window, cluster, presence, webhooks, clock, .. } = &*self.shared;
        let (presence, webhooks) = (Arc::clone(presence), Arc::clone(webhooks));
        let (health, window, cluster) = (Arc::clone(&self.health), Arc::clone(window), Arc::clone(cluster));
        let (partitions, clock) = (log.partitions(), *clock);
        let relay = Relay { partitions, health, window, cluster, presence, webhooks, clock, workers };
        relay.run(log.tail_all(Resume::Recent(HISTORY)))
    }
}
