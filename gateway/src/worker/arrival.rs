//! What a handshake hands to a worker: a socket and everything that was agreed for it.

use std::sync::Arc;

use broker_adapters::Position;
use bytes::Bytes;

use crate::app::inbox::Inbox;
use crate::codec::Extensions;
use crate::door::ingress::Client;
use crate::door::listener::Admission;
use crate::door::stream::Stream;
use crate::gate::{Identity, Policy};
use crate::protocol::{Format, Session};

/// A socket that is about to become a connection.
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    /// The client's address.
    pub(crate) client: Client,
    /// Its share of the node's connection counts.
    pub(crate) admission: Admission,
    /// `None` if the client must prove who it is by its first message.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The agreed WebSocket extensions (RFC 6455 §9).
    pub(crate) extensions: Extensions,
    pub(crate) format: Format,
    pub(crate) session: Box<dyn Session>,
    /// The channel of its app's route, to subscribe it to at once.
    pub(crate) channel: Option<String>,
    /// The queue of messages for the app's handler, if there is one.
    pub(crate) inbox: Option<Box<Inbox>>,
    /// What its request has asked for, if that names channels.
    pub(crate) listening: Option<Box<Listening>>,
}

/// What a client has asked for in its request, and may have.
pub(crate) struct Listening {
    /// What it is sent first.
    pub(crate) opening: Bytes,
    pub(crate) channels: Vec<Wanted>,
    /// The number of last messages of each channel that it gets without a position.
    pub(crate) last: Option<u32>,
}

/// A channel that a client wants to subscribe to.
pub(crate) struct Wanted {
    pub(crate) channel: String,
    pub(crate) since: Option<Position>,
    pub(crate) policy: Policy,
    /// Whether the client wants to know who is there; and if it may not, the code that says why.
    pub(crate) presence: Option<Result<(), &'static str>>,
}
