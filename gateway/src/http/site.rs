//! What the HTTP side of a node knows, for all sockets.

use std::sync::Arc;

use super::handshake::{Hosts, Origins};
use super::refusals::Refusals;
use crate::app::App;
use crate::door::ingress::Ingress;

/// One value for each node; used by all threads.
pub(crate) struct Site {
    /// The pages and the routes of sockets.
    pub(crate) app: App,
    /// The pages that may connect from elsewhere.
    pub(crate) origins: Origins,
    /// The names of the node.
    pub(crate) hosts: Hosts,
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) refusals: Refusals,
}

/// What balancers ask for; answered whatever host they name, and however many connections their address has.
pub(crate) const PROBES: [&str; 2] = ["/live", "/ready"];
