//! What a handshake hands to a worker: a socket, and everything that was settled about it.

use crate::app::inbox::Inbox;
use crate::codec::Extensions;
use crate::door::ingress::Client;
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::gate::Identity;
use crate::protocol::{Format, Session};

/// A connection to be.
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    /// Its address.
    pub(crate) client: Client,
    /// Its place in the node's counts.
    pub(crate) admission: Admission,
    pub(crate) identity: Identity,
    /// Those of RFC 6455 that were agreed on.
    pub(crate) extensions: Extensions,
    pub(crate) format: Format,
    pub(crate) session: Box<dyn Session>,
    /// The channel that it is subscribed to from the start.
    pub(crate) channel: Option<String>,
    /// What waits for the app's handler, if there is one.
    pub(crate) inbox: Option<Box<Inbox>>,
}
