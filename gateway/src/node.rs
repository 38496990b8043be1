//! A node: the log, the relay, the listener and the workers, from start to stop.
//!
//! Stop order: not ready → wait for balancers → close clients, paced, and take no more → stop listening → publishes under
//! way → broker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::http::StatusCode;
use broker_adapters::{Broker, Budget, Log, Resume, Settings, Timing, connect, wall_clock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::agent::Agent;
use crate::app::App;
use crate::config::Config;
use crate::descriptors::Descriptors;
use crate::drain::Phase;
use crate::handshake::{Hosts, Origins};
use crate::health::Health;
use crate::ingress::{Ingress, Tls, TlsError};
use crate::listener::{Counts, Listener};
use crate::metrics::Metrics;
use crate::refusals::Refusals;
use crate::relay::{self, Relay};
use crate::vitals::{PATIENCE, Vitals};
use crate::window::Window;
use crate::worker::{self, ACCEPTED, Inlets, RELAYED};

/// Records of each partition that a node reads before it is ready: as many as repeated ids are recognised in, so that a
/// fresh node decides like all others.
pub(crate) const HISTORY: u64 = 65_536;

/// What all parts of a node share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) origins: Origins,
    pub(crate) hosts: Hosts,
    pub(crate) ingress: Ingress,
    pub(crate) app: App,
    pub(crate) log: Arc<Log>,
    pub(crate) window: Arc<Window>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) refusals: Refusals,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The broker's URL.
    #[error(transparent)]
    Broker(#[from] broker_adapters::ConnectError),
    /// The list of origins.
    #[error("`http.origins`")]
    Origins(#[from] crate::handshake::OriginError),
    /// The list of the node's own names.
    #[error("`http.hosts`")]
    Hosts(#[from] crate::handshake::HostError),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address to listen on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A thread could not be made.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
}

/// How long a node that must stop at once waits for what it has to say to leave.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A running node.
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its agent does, if it has one.
    pub agent: Option<SocketAddr>,
    shared: Arc<Shared>,
    log: Arc<Log>,
    health: Arc<Health>,
    phase: watch::Sender<Phase>,
    /// Ends when no worker has clients any more.
    clients: mpsc::Receiver<()>,
    tasks: JoinSet<()>,
    workers: Vec<JoinHandle<()>>,
}

impl Node {
    /// Starts a node on the current runtime and on threads of its own. The broker need not be up.
    pub fn start(app: App, config: Config, name: String) -> Result<Self, StartError> {
        Self::start_with_log(app, config, name, Arc::default())
    }

    /// The same, where the log counts the lines that it drops: `/metrics` shows their number.
    pub fn start_with_log(
        app: App,
        config: Config,
        name: String,
        lines_dropped: Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        Self::on(prepare(&config)?, app, config, name, Metrics::new(lines_dropped))
    }

    fn on(
        Prepared { origins, hosts, tls, broker }: Prepared,
        app: App,
        config: Config,
        name: String,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let log = Arc::new(start_log(broker, &config, wall_clock));
        let listen = config.http.listen;
        let listener = Listener::bind(listen).map_err(|error| StartError::Listen(listen, error))?;
        let address = listener.address;
        let agent = config.agent.listen.map(|at| Agent::bind(at).map_err(|error| StartError::Listen(at, error)));
        let agent = agent.transpose()?;
        let (health, metrics) = (Arc::new(Health::new(config.broker.heartbeat)), Arc::new(metrics));
        let app = with_probes(app, &health, &metrics, &log);
        let kept = &config.window;
        let window = Arc::new(Window::new(log.partitions(), kept.age, kept.bytes.bytes(), wall_clock));
        let shared = Shared {
            name,
            origins,
            hosts,
            ingress: Ingress::new(&config, tls),
            app,
            log: Arc::clone(&log),
            window: Arc::clone(&window),
            metrics: Arc::clone(&metrics),
            refusals: Refusals::default(),
            config: config.clone(),
        };
        let (phase, phases) = watch::channel(Phase::default());
        let shared = Arc::new(shared);
        let (occupied, clients) = mpsc::channel(1);
        let vitals = &health.vitals;
        let crew = Crew::start(&shared, &phases, &occupied, vitals)?;
        let most = config.http.max_connections;
        let files = Descriptors::of(&config, crew.threads.len());
        if let Some(shortfall) = files.shortfall(most) {
            tracing::warn!("{shortfall}");
        }
        let counts = Arc::new(Counts::new(crew.threads.len(), files.connections(most)));
        let relay = Relay { partitions: log.partitions(), health: Arc::clone(&health), window, workers: crew.relayed };
        let mut tasks = JoinSet::new();
        tasks.spawn(relay.run(log.tail_all(Resume::Recent(HISTORY))));
        let accepting = listener.run(crew.accepted, Arc::clone(&counts), files, Arc::clone(&shared));
        tasks.spawn(vitals.keep("the listener", accepting));
        let at = agent.as_ref().map(|agent| agent.address);
        if let Some(agent) = agent {
            tasks.spawn(vitals.keep("the agent", agent.run(Arc::clone(&health), counts)));
        }
        let (publisher, watched) = (Arc::clone(&log), Arc::clone(vitals));
        tasks.spawn(vitals.keep("the publisher", async move { publisher.publishing_ended().await }));
        tasks.spawn(vitals.keep("the watch over all parts", async move { watched.watch().await }));
        Ok(Self { address, agent: at, shared, log, health, phase, clients, tasks, workers: crew.threads })
    }

    /// Waits until a part that the node cannot serve without has ended, which none does before [`stop`](Self::stop)
    /// but by a fault; says which. What is left to do is to stop.
    pub async fn failed(&self) -> String {
        self.health.vitals.ended().await
    }

    /// Reads the certificate again, for handshakes to come; says whether there is one.
    ///
    /// # Errors
    /// Fails for files that are no good; the certificate stays what it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.shared.ingress.reload()
    }

    /// Stops the node; done when nothing of it is left, or soon after `now`, which is for the impatient. It goes on for
    /// `wait`, so that balancers notice. Says whether there was time to do everything in order.
    pub async fn stop(mut self, wait: Duration, now: impl Future<Output = ()>) -> bool {
        self.health.drain();
        let in_order = tokio::select! {
            () = self.wind_up(wait) => true,
            () = now => false,
        };
        if !in_order {
            self.phase.send_replace(Phase::Over);
            // Closed is what nobody looks at any more.
            let _ = timeout(AT_ONCE, self.phase.closed()).await;
        }
        self.tasks.shutdown().await;
        in_order
    }

    async fn wind_up(&mut self, wait: Duration) {
        sleep(wait).await;
        self.phase.send_replace(Phase::Closing);
        // Nobody sends anything: this waits until there is nobody.
        self.clients.recv().await;
        self.phase.send_replace(Phase::Over);
        self.phase.closed().await;
        if !self.workers.drain(..).map(JoinHandle::join).all(|end| end.is_ok()) {
            tracing::error!("a worker ended with a panic");
        }
        self.log.close(Instant::now() + self.shared.config.broker.publish_timeout).await;
    }
}

/// What a configuration must give before anything is started.
struct Prepared {
    origins: Origins,
    hosts: Hosts,
    tls: Option<Tls>,
    broker: Arc<dyn Broker>,
}

fn prepare(config: &Config) -> Result<Prepared, StartError> {
    let origins = Origins::parse(&config.http.origins)?;
    let hosts = Hosts::parse(&config.http.hosts, &origins, config.http.listen.ip())?;
    let tls = Tls::load(&config.tls)?;
    let retention = usize::try_from(config.broker.retention).unwrap_or(usize::MAX);
    let settings = Settings { partitions: config.broker.partitions, retention };
    Ok(Prepared { origins, hosts, tls, broker: connect(config.broker.url.expose(), settings)? })
}

/// Says whether a node could be started with this configuration; reads the certificate, and touches neither the network
/// nor the broker.
pub fn check(config: &Config) -> Result<(), StartError> {
    prepare(config).map(drop)
}

pub(crate) fn start_log(broker: Arc<dyn Broker>, config: &Config, clock: fn() -> u64) -> Log {
    let set = &config.broker;
    let budget = Budget { messages: set.in_flight, bytes: set.in_flight_bytes.bytes() };
    Log::start(broker, set.partitions, Timing { heartbeat: set.heartbeat, clock }, budget)
}

/// What balancers ask for.
pub(crate) const PROBES: [&str; 2] = ["/live", "/ready"];

/// Adds the pages that balancers and monitoring ask for.
fn with_probes(mut app: App, health: &Arc<Health>, metrics: &Arc<Metrics>, log: &Arc<Log>) -> App {
    let [live, ready_to_serve] = PROBES;
    app.get(live, async || "live\n");
    let ready = Arc::clone(health);
    app.get(ready_to_serve, async move || match ready.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    });
    let (health, metrics, log) = (Arc::clone(health), Arc::clone(metrics), Arc::clone(log));
    app.get("/metrics", async move || metrics.text(&log, health.ready().is_ok()));
    app
}

/// The workers' threads and the queues that lead to them.
struct Crew {
    threads: Vec<JoinHandle<()>>,
    accepted: Vec<mpsc::Sender<crate::listener::Accepted>>,
    relayed: Vec<mpsc::Sender<Arc<[relay::Relayed]>>>,
}

impl Crew {
    fn start(
        shared: &Arc<Shared>,
        phase: &watch::Receiver<Phase>,
        clients: &mpsc::Sender<()>,
        vitals: &Arc<Vitals>,
    ) -> Result<Self, StartError> {
        let workers = match shared.config.node.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let mut crew = Self { threads: Vec::new(), accepted: Vec::new(), relayed: Vec::new() };
        for number in 0..workers {
            let (to_accepted, accepted) = mpsc::channel(ACCEPTED);
            let (to_relayed, relayed) = mpsc::channel(RELAYED);
            let name = format!("worker-{number}");
            let vital = vitals.part(&name, Some(PATIENCE));
            let inlets = Inlets { accepted, relayed, phase: phase.clone(), clients: clients.clone(), vital };
            let shared = Arc::clone(shared);
            let thread = thread::Builder::new().name(name);
            let thread = thread.spawn(move || {
                if let Err(error) = worker::run(shared, workers, inlets) {
                    tracing::error!(%error, "a worker cannot run");
                }
            });
            crew.threads.push(thread.map_err(StartError::Worker)?);
            crew.accepted.push(to_accepted);
            crew.relayed.push(to_relayed);
        }
        Ok(crew)
    }
}

#[cfg(test)]
mod tests;
