//! The state that all workers of a node share.

use std::sync::Arc;

use broker_adapters::Log;

use super::metrics::Metrics;
use crate::auth::Auth;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::gate::{Judge, Limiter};
use crate::presence::Presence;
use crate::webhooks::Webhooks;
use crate::window::Window;

/// One value per node, used by all threads.
pub(crate) struct Shared {
    /// The node's name.
    pub(crate) name: String,
    pub(crate) config: Config,
    /// Proves who clients are.
    pub(crate) auth: Auth,
    /// Decides what clients may do.
    pub(crate) gate: Box<dyn Judge>,
    /// Limits how often clients may do it.
    pub(crate) limiter: Limiter,
    pub(crate) log: Arc<Log>,
    pub(crate) window: Arc<Window>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) webhooks: Arc<Webhooks>,
    /// Milliseconds since 1970.
    pub(crate) clock: fn() -> u64,
    pub(crate) metrics: Arc<Metrics>,
}
