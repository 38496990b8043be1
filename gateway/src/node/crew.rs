//! Starts the workers' threads.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::sync::{mpsc, watch};

use super::StartError;
use super::core::Core;
use super::drain::Phase;
use super::vitals::PATIENCE;
use crate::door::listener::Accepted;
use crate::http::server;
use crate::http::site::Site;
use crate::relay::Relayed;
use crate::worker::{self, ACCEPTED, Inlets, RELAYED, Serve};

/// The workers' threads and the queues that lead to them.
pub(super) struct Crew {
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) accepted: Vec<mpsc::Sender<Accepted>>,
    pub(super) relayed: Vec<mpsc::Sender<Arc<[Relayed]>>>,
}

impl Crew {
    /// Starts a thread for each worker. Accepted sockets are served with `site`.
    pub(super) fn start(
        core: &Core,
        site: Site,
        phase: &watch::Receiver<Phase>,
        clients: &mpsc::Sender<()>,
    ) -> Result<Self, StartError> {
        let (shared, vitals, site) = (&core.shared, &core.health.vitals, Arc::new(site));
        let serve: Serve = Arc::new(move |worker, stream, peer, admission| {
            Box::pin(server::serve(Arc::clone(&site), worker, stream, peer, admission))
        });
        let workers = match shared.config.node.workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let mut crew = Self { threads: Vec::new(), accepted: Vec::new(), relayed: Vec::new() };
        for number in 0..workers {
            let (to_accepted, accepted) = mpsc::channel(ACCEPTED);
            let (to_relayed, relayed) = mpsc::channel(RELAYED);
            let (name, serve) = (format!("worker-{number}"), Arc::clone(&serve));
            let vital = vitals.part(&name, Some(PATIENCE));
            let inlets = Inlets { accepted, serve, relayed, phase: phase.clone(), clients: clients.clone(), vital };
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
