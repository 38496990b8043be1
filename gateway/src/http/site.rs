//! The state of a node's HTTP side, shared by all sockets.

use std::sync::Arc;

use super::handshake::{Hosts, Origins};
use super::refusals::Refusals;
use crate::app::App;
use crate::door::ingress::Ingress;

/// One value per node, used by all threads.
pub(crate) struct Site {
    /// The routes of pages and WebSockets.
    pub(crate) app: App,
    /// The origins, besides the node's own, whose pages may connect.
    pub(crate) origins: Origins,
    /// The node's own host names.
    pub(crate) hosts: Hosts,
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) refusals: Refusals,
}

/// The paths of health checks. They are answered for any host name and however many connections the caller's address
/// has.
pub(crate) const PROBES: [&str; 2] = ["/live", "/ready"];
