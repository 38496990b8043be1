//! A node: the log, the relay, the listener and the workers, from start to stop.
//!
//! Stop order: report not ready → wait for balancers → accept no more clients and close the connected ones at a steady
//! pace → stop listening → finish pending publishes → close the broker.

mod agent;
pub(crate) mod core;
mod crew;
pub(crate) mod descriptors;
pub(crate) mod drain;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod shared;
pub(crate) mod vitals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::http::StatusCode;
use broker_adapters::{Broker, Settings, connect, wall_clock};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::agent::Agent;
use self::core::Core;
use self::crew::Crew;
use self::descriptors::Descriptors;
use self::drain::Phase;
use self::metrics::Metrics;
use self::shared::Shared;
use crate::api::{self, Api, ApiError, Keys};
use crate::app::rooms::Running;
use crate::app::{App, Shutdown};
use crate::auth::{Auth, AuthError};
use crate::config::{ApiListen, Config};
use crate::door::ingress::{Ingress, Tls, TlsError};
use crate::door::listener::{Counts, Listener, Refusing};
use crate::gate::{Judge, Rules};
use crate::hooks::{AllCounters, Asking, Gate, Hooks, HooksError};
use crate::http::handshake::{HostError, Hosts, OriginError, Origins};
use crate::http::refusals::Refusals;
use crate::http::site::{PROBES, Site};
use crate::webhooks::{Endpoint, WebhooksError};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The broker's URL or its settings are invalid.
    #[error(transparent)]
    Broker(#[from] broker_adapters::ConnectError),
    /// The list of origins is invalid.
    #[error("`http.origins`")]
    Origins(#[from] OriginError),
    /// The list of the node's own host names is invalid.
    #[error("`http.hosts`")]
    Hosts(#[from] HostError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The keys of the API cannot be used.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The backend cannot be asked.
    #[error(transparent)]
    Hooks(#[from] HooksError),
    /// The backend cannot be notified.
    #[error(transparent)]
    Webhooks(#[from] WebhooksError),
    /// The node cannot listen on an address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A worker's thread cannot be started.
    #[error("cannot start a worker: {0}")]
    Worker(std::io::Error),
}

/// How long a node that must stop at once waits for its workers to send their close frames.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A running node.
pub struct Node {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The address that its HAProxy agent listens on, if it has one.
    pub agent: Option<SocketAddr>,
    /// The address that its HTTP API listens on, if it has one.
    pub api: Option<SocketAddr>,
    /// The key of the API that was made for this run, if none is configured.
    pub api_key: Option<String>,
    core: Core,
    ingress: Arc<Ingress>,
    phase: watch::Sender<Phase>,
    /// Closed once every worker has dropped its sender, which it does when it has no connections left.
    clients: mpsc::Receiver<()>,
    tasks: JoinSet<()>,
    workers: Vec<JoinHandle<()>>,
    running: Running,
    shutdown: Vec<Shutdown>,
}

impl Node {
    /// Starts a node on the current runtime and on threads of its own. The broker need not be reachable.
    ///
    /// # Errors
    /// Fails if the configuration is invalid, or an address or a thread is not available.
    pub fn start(app: App, config: Config, name: String) -> Result<Self, StartError> {
        Self::start_with_log(app, config, name, Arc::default())
    }

    /// Like [`start`](Self::start). `/metrics` also shows `lines_dropped`, which the program's log counts.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_log(
        app: App,
        config: Config,
        name: String,
        lines_dropped: Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        Self::on(prepare(&config)?, app, config, name, Metrics::new(lines_dropped))
    }

    fn on(
        Prepared { origins, hosts, tls, auth, gate, hooks, hook_counters, webhooks, broker, api }: Prepared,
        app: App,
        config: Config,
        name: String,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let metrics = metrics.with_hooks(hook_counters);
        let core = Core::new(broker, config.clone(), name, (auth, gate), metrics, wall_clock);
        let listen = config.http.listen;
        let listener = Listener::bind(listen).map_err(|error| StartError::Listen(listen, error))?;
        let address = listener.address;
        let agent = config.agent.listen.map(|at| Agent::bind(at).map_err(|error| StartError::Listen(at, error)));
        let agent = agent.transpose()?;
        let api = api.map(ApiPlan::bind).transpose()?;
        let ingress = Arc::new(Ingress::new(&config, tls));
        app.running.set(Some(Arc::clone(&core.shared)));
        let (running, shutdown) = (app.running.clone(), app.shutdown.clone());
        let site = Site {
            app: with_probes(app, &core),
            origins,
            hosts,
            ingress: Arc::clone(&ingress),
            refusals: Refusals::default(),
        };
        let (phase, phases) = watch::channel(Phase::default());
        let (occupied, clients) = mpsc::channel(1);
        let crew = Crew::start(&core, site, &phases, &occupied)?;
        let most = config.http.max_connections;
        let callers = api.as_ref().map_or(0, |_| api::CONNECTIONS + 1);
        let files = Descriptors::of(&config, crew.threads.len(), callers);
        if let Some(shortfall) = files.shortfall(most) {
            tracing::warn!("{shortfall}");
        }
        let capacity = files.connections(most);
        let counts = Arc::new(Counts::new(crew.threads.len(), capacity));
        let vitals = &core.health.vitals;
        let mut tasks = JoinSet::new();
        tasks.spawn(core.relay(crew.relayed));
        let refusing = Refusing { ingress: Arc::clone(&ingress), metrics: Arc::clone(&core.shared.metrics), most };
        let accepting = listener.run(crew.accepted, Arc::clone(&counts), files, refusing);
        tasks.spawn(vitals.keep("the listener", accepting));
        let at = agent.as_ref().map(|agent| agent.address);
        if let Some(agent) = agent {
            tasks.spawn(vitals.keep("the agent", agent.run(Arc::clone(&core.health), counts)));
        }
        let (mut api_at, mut api_key) = (None, None);
        if let Some((listener, ApiPlan { hosts, keys, made, .. })) = api {
            (api_at, api_key) = (Some(listener.address), made);
            let api = Api::new(Arc::clone(&core.shared), Arc::clone(&core.health), keys, hosts);
            tasks.spawn(vitals.keep("the API", listener.run(Arc::new(api), phases.clone())));
        }
        let (publisher, watched) = (Arc::clone(&core.shared.log), Arc::clone(vitals));
        tasks.spawn(vitals.keep("the keeper", core.keeper()));
        tasks.spawn(vitals.keep("the member of the cluster", core.member(api_at, capacity)));
        tasks.spawn(vitals.keep("the shedder", core.shedder()));
        if let Some(hooks) = hooks {
            tasks.spawn(vitals.keep("the hooks", hooks.run()));
        }
        tasks.spawn(vitals.keep("the writer of presence", core.attendance()));
        if let Some(endpoint) = webhooks {
            tasks.spawn(vitals.keep("the webhooks", core.delivery(endpoint)));
        }
        tasks.spawn(vitals.keep("the reader of keys", core.shared.auth.clone().run()));
        tasks.spawn(vitals.keep("the publisher", async move { publisher.publishing_ended().await }));
        tasks.spawn(vitals.keep("the health watch", async move { watched.watch().await }));
        Ok(Self {
            address,
            agent: at,
            api: api_at,
            api_key,
            core,
            ingress,
            phase,
            clients,
            tasks,
            workers: crew.threads,
            running,
            shutdown,
        })
    }

    /// Waits until an essential part of the node has ended, which before [`stop`](Self::stop) happens only by a fault.
    /// Returns a sentence that names the part. The caller should then stop the node.
    pub async fn failed(&self) -> String {
        self.core.health.vitals.ended().await
    }

    /// Reads the certificate again, for new TLS handshakes. Returns whether one is configured.
    ///
    /// # Errors
    /// Fails if the files cannot be used. The node then keeps its old certificate.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.ingress.reload()
    }

    /// Stops the node. It serves for `wait` while it reports not ready, so that balancers notice, and then closes its
    /// clients. When `now` is ready, it stops at once instead. Returns true if everything was done in order, false if
    /// it was cut short.
    pub async fn stop(mut self, wait: Duration, now: impl Future<Output = ()>) -> bool {
        self.core.health.drain();
        self.core.shared.cluster.drain();
        let in_order = tokio::select! {
            () = self.drain(wait) => true,
            () = now => false,
        };
        if !in_order {
            self.phase.send_replace(Phase::Over);
            // Returns when all workers have dropped their receivers, so have ended.
            let _ = timeout(AT_ONCE, self.phase.closed()).await;
        }
        self.running.set(None);
        self.tasks.shutdown().await;
        in_order
    }

    async fn drain(&mut self, wait: Duration) {
        sleep(wait).await;
        self.phase.send_replace(Phase::Closing);
        // Nothing is sent here; `recv` returns when every worker has dropped its sender.
        self.clients.recv().await;
        self.phase.send_replace(Phase::Over);
        self.phase.closed().await;
        if !self.workers.drain(..).map(JoinHandle::join).all(|end| end.is_ok()) {
            tracing::error!("a worker ended with a panic");
        }
        let Shared { log, cluster, presence, config, .. } = &*self.core.shared;
        let hooks = async {
            for hook in &self.shutdown {
                hook().await;
            }
        };
        if timeout(config.broker.publish_timeout, hooks).await.is_err() {
            tracing::warn!("a hook of `on_shutdown` takes longer than `broker.publish_timeout` and is cut short");
        }
        presence.settle(config.presence.linger).await;
        cluster.leave(log).await;
        log.close(Instant::now() + config.broker.publish_timeout).await;
    }
}

/// The parts that are made from the configuration before anything is started.
struct Prepared {
    origins: Origins,
    hosts: Hosts,
    tls: Option<Tls>,
    auth: Auth,
    gate: Box<dyn Judge>,
    hooks: Option<Asking>,
    hook_counters: Arc<AllCounters>,
    webhooks: Option<Endpoint>,
    broker: Arc<dyn Broker>,
    api: Option<ApiPlan>,
}

/// An API that is to be started.
struct ApiPlan {
    at: SocketAddr,
    /// Whether it may listen on any free port if its own is in use.
    anywhere: bool,
    hosts: Hosts,
    keys: Keys,
    /// The key that was made because none is configured.
    made: Option<String>,
}

impl ApiPlan {
    fn new(config: &Config) -> Result<Option<Self>, StartError> {
        let keys = Keys::new(&config.api.keys)?;
        let Some(at) = config.api.address(&config.http) else { return Ok(None) };
        // Pages of allowed origins are clients, and not backends.
        let hosts = Hosts::parse(&config.http.hosts, &Origins::default(), at.ip())?;
        let (keys, made) = if keys.is_empty() {
            let (keys, made) = Keys::make()?;
            (keys, Some(made))
        } else {
            (keys, None)
        };
        Ok(Some(Self { at, anywhere: config.api.listen == ApiListen::Auto, hosts, keys, made }))
    }

    fn bind(self) -> Result<(api::Listener, Self), StartError> {
        let bound = api::Listener::bind(self.at, self.anywhere);
        Ok((bound.map_err(|error| StartError::Listen(self.at, error))?, self))
    }
}

fn prepare(config: &Config) -> Result<Prepared, StartError> {
    let origins = Origins::parse(&config.http.origins)?;
    let hosts = Hosts::parse(&config.http.hosts, &origins, config.http.listen.ip())?;
    let tls = Tls::load(&config.tls)?;
    let retention = usize::try_from(config.broker.retention).unwrap_or(usize::MAX);
    let settings = Settings { partitions: config.broker.partitions, retention };
    let broker = connect(config.broker.url.expose(), settings)?;
    let (auth, rules, api) = (Auth::new(config)?, Rules::new(config), ApiPlan::new(config)?);
    let hook_counters = Arc::default();
    let (gate, hooks): (Box<dyn Judge>, _) = match Hooks::new(config, &auth, wall_clock, &hook_counters)? {
        Some((hooks, asking)) => (Box::new(Gate::new(rules, hooks, config.limits.message.bytes())), Some(asking)),
        None => (Box::new(rules), None),
    };
    let webhooks = Endpoint::new(&config.webhooks)?;
    Ok(Prepared { origins, hosts, tls, auth, gate, hooks, hook_counters, webhooks, broker, api })
}

/// Checks whether a node could be started with this configuration. Reads the certificate; uses neither the network nor
/// the broker.
///
/// # Errors
/// Fails as [`Node::start`] would.
pub fn check(config: &Config) -> Result<(), StartError> {
    prepare(config).map(drop)
}

/// Adds the pages for balancers and monitoring: `/live`, `/ready` and `/metrics`.
fn with_probes(mut app: App, core: &Core) -> App {
    let [live, ready_to_serve] = PROBES;
    app.get(live, async || "live\n");
    let ready = Arc::clone(&core.health);
    app.get(ready_to_serve, async move || match ready.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    });
    let (health, shared) = (Arc::clone(&core.health), Arc::clone(&core.shared));
    app.get("/metrics", async move || shared.metrics.text(&shared.log, health.ready().is_ok(), &shared.cluster));
    app
}

#[cfg(test)]
mod tests;
