//! A client's socket, as an app's handler uses it.
//!
//! Lives on its worker's thread. Incoming messages wait in a bounded inbox; while it is full, the client must wait.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use broker_adapters::PublishError;

use super::guard::Attached;
use super::handler::Outcome;
use super::message::Message;
use super::rooms;
use super::since::Since;
use crate::close::CloseReason;
use crate::codec::{self, Opcode};
use crate::protocol::{Format, placed};
use crate::worker::Worker;
use crate::worker::connection::{Connection, Offered};

/// Why an operation on a socket failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The connection is closed or closing.
    #[error("the socket is closed")]
    Closed,
    /// The outbox is full, and nothing of this message was sent. [`Socket::ready`] waits until the client has read
    /// enough.
    #[error("the client has not read earlier messages yet: wait for `ready`")]
    Full,
    /// The name of a room is empty or longer than 255 bytes.
    #[error("a room's name has 1 to 255 bytes")]
    Room,
    /// The socket is in as many rooms as `limits.channels_per_connection` allows, or the broker has not been reached yet.
    #[error("cannot join the room: {0}")]
    Join(String),
    /// The app does not run: not yet, or no longer.
    #[error("the app does not run")]
    NotRunning,
    /// The broker did not accept the message.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A connected client.
pub struct Socket {
    pub(crate) worker: Rc<Worker>,
    pub(crate) connection: Rc<Connection>,
    /// The channel that all sockets of the route share.
    pub(crate) channel: String,
    pub(crate) route: Route,
    /// Where the client left off in rooms that the socket has not joined yet.
    pub(crate) since: RefCell<Since>,
}

/// The parts of the upgrade request that the handler can ask for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    pub(crate) parameters: HashMap<String, String>,
    pub(crate) query: String,
    /// The selected subprotocol.
    pub(crate) protocol: Option<&'static str>,
    /// From the guard.
    pub(crate) attached: Option<Attached>,
}

impl Socket {
    /// The client's next message; `None` after the connection has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Message> {
        let connection = &self.connection;
        let message = std::future::poll_fn(|cx| match &mut connection.state.borrow_mut().inbox {
            Some(inbox) => inbox.poll_next(cx.waker()),
            None => Poll::Ready(None),
        })
        .await;
        // The inbox has room again, so reading resumes if it had paused.
        connection.wake();
        message
    }

    /// Calls `f` for each message of the client, one after the other, until the client is gone or `f` fails.
    ///
    /// # Errors
    /// The error of `f`.
    pub async fn each<F, E>(mut self, f: F) -> Outcome
    where
        F: AsyncFn(&Self, Message) -> Result<(), E>,
        E: Into<Box<dyn Error>>,
    {
        while let Some(message) = self.recv().await {
            f(&self, message).await.map_err(Into::into)?;
        }
        Ok(())
    }

    /// Sends to this client only, in order. Returns at once; the message waits in the client's outbox
    /// (`limits.outbox`).
    ///
    /// # Errors
    /// [`SocketError::Full`] while the outbox has no room for it. The connection stays open: await [`Socket::ready`],
    /// then send again. [`SocketError::Closed`] if the connection has ended.
    pub fn send(&self, message: impl Into<Message>) -> Result<(), SocketError> {
        let frame = match message.into() {
            message if self.connection.format == Format::PLACED => placed::direct(&message.into()).frame(),
            Message::Text(text) => codec::frame(Opcode::Text, text.as_bytes()),
            Message::Binary(bytes) => codec::frame(Opcode::Binary, &bytes),
        };
        let (worker, connection) = (&self.worker, &self.connection);
        let offer = || connection.offer(worker, &frame, worker.shared.config.limits.outbox.bytes());
        let mut offered = offer();
        if offered == Offered::Full {
            // A burst alone does not fill an outbox: only bytes that the socket does not accept count.
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

    /// Waits until [`Socket::send`] accepts another message, or the connection has ended. Cancel safe.
    pub async fn ready(&self) {
        self.connection.room(&self.worker).await;
    }

    /// Sends to every client of this route, on every node, including this client. All receive messages in the same
    /// order.
    ///
    /// Returns when the broker has stored the message.
    ///
    /// # Errors
    /// [`SocketError::Publish`] if the broker did not confirm the message, at the latest after
    /// `broker.publish_timeout`.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), SocketError> {
        rooms::publish(&self.worker.shared, self.channel.clone(), message.into()).await
    }

    /// Sends to every socket in a room, on every node, whether this socket is in it or not. Otherwise as
    /// [`broadcast`](Self::broadcast).
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast). [`SocketError::Room`] if the name is empty or longer than 255 bytes.
    pub async fn send_to(&self, room: &str, message: impl Into<Message>) -> Result<(), SocketError> {
        rooms::publish(&self.worker.shared, rooms::channel(room)?, message.into()).await
    }

    /// Joins a room: from now on this socket receives what is sent to it; a client that resumes
    /// ([`SocketRoute::resumable`](super::SocketRoute::resumable)) also what it has missed. Does nothing if it has joined already.
    ///
    /// # Errors
    /// [`SocketError::Room`] if the name is empty or longer than 255 bytes, [`SocketError::Join`] if the socket is in as many
    /// rooms as `limits.channels_per_connection` allows.
    pub fn join(&self, room: &str) -> Result<(), SocketError> {
        let (channel, since) = (rooms::channel(room)?, self.since.borrow_mut().take_room(room));
        let joined = self.worker.join(&self.connection, &channel, since);
        joined.map_err(|failure| SocketError::Join(failure.message))
    }

    /// Leaves a room. Returns whether the socket was in it.
    pub fn leave(&self, room: &str) -> bool {
        rooms::channel(room).is_ok_and(|channel| self.worker.leave(&self.connection, &channel))
    }

    /// Closes the connection after all sent messages are written.
    pub fn close(&self) {
        self.worker.end(&self.connection, CloseReason::Normal);
    }

    /// As [`close`](Self::close), with a code and a reason of the app. The reason is cut to 123 bytes.
    ///
    /// # Panics
    /// If the code is not one for applications, 3000 to 4999 (RFC 6455 §7.4.2), which is a mistake in the program.
    pub fn close_with(&self, code: u16, reason: &str) {
        assert!((3000..5000).contains(&code), "{code} is not a close code for applications: 3000 to 4999");
        self.connection.part_with(code, reason);
        self.close();
    }

    /// After [`recv`](Self::recv) has returned `None`: the code with which the client closed. `None` if it sent none, vanished, or
    /// did not close first.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        self.connection.peers_code()
    }

    /// What the route's guard attached ([`SocketRoute::guard`](super::SocketRoute::guard)), if it is a `T`.
    #[must_use]
    pub fn attached<T: 'static>(&self) -> Option<&T> {
        self.route.attached.as_deref()?.downcast_ref()
    }

    /// Whether the connection is open, so that a message sent now may arrive.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.connection.is_ending()
    }

    /// The selected subprotocol: the first one that the client offered and that the route supports.
    #[must_use]
    pub fn protocol(&self) -> Option<&'static str> {
        self.route.protocol
    }

    /// The client's user: the `sub` of its token. `None` if the client is anonymous.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        self.connection.identity()?.user().map(str::to_owned)
    }

    /// The name of the node that the client is connected to.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.worker.shared.name
    }

    /// The client's address, also behind trusted proxies. The port is 0 if the proxies do not report it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.connection.peer().0
    }

    /// A parameter of the path: for the route `/rooms/{room}` and the path `/rooms/blue`, `room` is `blue`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.route.parameters.get(name).map(String::as_str)
    }

    /// The query after the `?` of the request, not decoded.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.route.query
    }
}
