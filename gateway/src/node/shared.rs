//! The state that all workers of a node share.

use std::sync::Arc;

use broker_adapters::Log;

use super::metrics::Metrics;
use crate::config::Config;
use crate::gate::Judge;
use crate::window::Window;

/// One value per node, used by all threads.
pub(crate) struct Shared {
    /// The node's name.
    pub(crate) name: String,
    pub(crate) config: Config,
    /// Decides what clients may do.
    pub(crate) gate: Box<dyn Judge>,
    pub(crate) log: Arc<Log>,
    pub(crate) window: Arc<Window>,
    pub(crate) metrics: Arc<Metrics>,
}
