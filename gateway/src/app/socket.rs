//! A client's socket as the handler of an app sees it.
//!
//! Lives on its worker's thread. What comes in waits in a bounded inbox; while that is full the client waits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use broker_adapters::{MessageId, NewRecord, Payload, PublishError};
use tokio::time::Instant;

use super::message::Message;
use crate::close::CloseReason;
use crate::codec::{self, Opcode};
use crate::worker::Worker;
use crate::worker::connection::{Connection, Offered};

/// Why something could not be done with a socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The client is gone, or going.
    #[error("the socket is closed")]
    Closed,
    /// The client has yet to read what was sent before; nothing of this message was sent. [`Socket::ready`] waits for it.
    #[error("the client has yet to read what was sent before: wait for `ready`")]
    Full,
    /// The broker did not take the message.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A connected client.
pub struct Socket {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
    pub(crate) route: Route,
}

/// What the request said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    /// The channel that all sockets of the route share.
    pub(crate) channel: String,
    pub(crate) parameters: HashMap<String, String>,
    pub(crate) query: String,
    /// The subprotocol that was agreed on.
    pub(crate) protocol: Option<&'static str>,
}

impl Socket {
    /// The client's next message; `None` once it is gone. Cancel safe.
    pub async fn recv(&mut self) -> Option<Message> {
        let connection = &self.connection;
        let message = std::future::poll_fn(|cx| match &mut connection.state.borrow_mut().inbox {
            Some(inbox) => inbox.poll_next(cx.waker()),
            None => Poll::Ready(None),
        })
        .await;
        // There is room again: reading goes on if it had paused.
        connection.wake();
        message
    }

    /// Sends to this client only. Waits in the client's outbox (`limits.outbox`); the order is kept.
    ///
    /// # Errors
    /// [`SocketError::Full`] while the outbox has no room for it, which ends nobody: await [`Socket::ready`], then send again.
    pub fn send(&self, message: impl Into<Message>) -> Result<(), SocketError> {
        let frame = match message.into() {
            Message::Text(text) => codec::frame(Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => codec::frame(Opcode::Binary, &bytes),
        };
        let (worker, connection) = (&self.worker, &self.connection);
        let offer = || connection.offer(worker, &frame, worker.shared.config.limits.outbox.bytes());
        let mut offered = offer();
        if offered == Offered::Full {
            // Much at once is not yet too much: what counts is what the socket does not take.
            connection.flush(worker);
            offered = offer();
        }
        worker.flush();
        match offered {
            Offered::Full => Err(SocketError::Full),
            Offered::Yes if self.is_open() => Ok(()),
            Offered::Yes | Offered::Ending => Err(SocketError::Closed),
        }
    }

    /// Waits until the client has read so much that [`Socket::send`] takes another message, or is gone. Cancel safe.
    pub async fn ready(&self) {
        self.connection.room(&self.worker).await;
    }

    /// Sends to every client of this route, on every node, this one included, in one order for all.
    ///
    /// Done when the broker has stored the message; fails by the publish deadline.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), SocketError> {
        let payload = match message.into() {
            Message::Text(text) => Payload::Text(text.into()),
            Message::Binary(bytes) => Payload::Binary(bytes),
        };
        let shared = &self.worker.shared;
        let record = NewRecord::new(MessageId::random(), self.route.channel.clone(), payload);
        let deadline = Instant::now() + shared.config.broker.publish_timeout;
        let result = shared.log.publish(record, deadline).await;
        shared.metrics.published(&result);
        Ok(result.map(|_at| ())?)
    }

    /// Ends the connection once all that was sent is written.
    pub fn close(&self) {
        self.worker.end(&self.connection, CloseReason::Normal);
    }

    /// Whether something sent now may still arrive.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.connection.is_ending()
    }

    /// The subprotocol that was agreed on: the first of the client's that the route names.
    #[must_use]
    pub fn protocol(&self) -> Option<&'static str> {
        self.route.protocol
    }

    /// The name of the node that the client is connected to.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.worker.shared.name
    }

    /// The client's address, also behind trusted proxies; the port is 0 if these do not tell it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer.0
    }

    /// A part of the path: of `/rooms/blue` for the route `/rooms/{room}`, `room` is `blue`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.route.parameters.get(name).map(String::as_str)
    }

    /// What follows the `?` of the request, as it was sent.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.route.query
    }
}
