//! The core of a node, without sockets and threads: its log, its window, and the state that its workers share.
//!
//! Wired here once, for nodes and for simulated nodes.

use std::sync::Arc;

use broker_adapters::{Broker, Budget, Log, Resume, Timing};
use tokio::sync::mpsc;

use super::health::Health;
use super::metrics::Metrics;
use super::shared::Shared;
use crate::auth::Auth;
use crate::cluster::{self, Cluster, Keeper};
use crate::config::Config;
use crate::gate::{Judge, Limiter};
use crate::relay::{Relay, Relayed};
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
        let (log, window, metrics) = (Arc::new(log), Arc::new(window), Arc::new(metrics));
        let limiter = Limiter::new(&config.limits, crate::clock::now());
        let shared = Shared { name, gate, limiter, auth, log, window, cluster, metrics, clock, config };
        Self { shared: Arc::new(shared), health }
    }

    /// Writes what the cluster must not forget again, for as long as the node runs.
    pub(crate) fn keeper(&self) -> impl Future<Output = ()> + use<> {
        let Shared { log, cluster, clock, config, .. } = &*self.shared;
        let kept = config.broker.retention.min(HISTORY);
        Keeper { cluster: Arc::clone(cluster), log: Arc::clone(log), kept, clock: *clock }.run()
    }

    /// Relays the log to these workers, until the log is closed or all workers have ended.
    pub(crate) fn relay(&self, workers: Vec<mpsc::Sender<Arc<[Relayed]>>>) -> impl Future<Output = ()> + use<> {
        let Shared { log, window, cluster, clock, .. } = &*self.shared;
        let (health, window, cluster) = (Arc::clone(&self.health), Arc::clone(window), Arc::clone(cluster));
        let relay = Relay { partitions: log.partitions(), health, window, cluster, clock: *clock, workers };
        relay.run(log.tail_all(Resume::Recent(HISTORY)))
    }
}
