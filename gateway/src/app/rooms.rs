//! Rooms: groups of sockets by name, on all nodes, and sending to them from anywhere in the program.
//!
//! A room is a channel of the log. No client of a gateway on the same broker can name it.

use std::sync::{Arc, PoisonError, RwLock};

use broker_adapters::{MessageId, NewRecord};
use tokio::time::Instant;

use super::message::Message;
use super::socket::SocketError;
use crate::node::shared::Shared;
use crate::protocol::placed::ROOM;

/// The longest name of a room, in bytes.
const LONGEST: usize = 255;

/// The channel of a room.
pub(crate) fn channel(room: &str) -> Result<String, SocketError> {
    match room.len() {
        1..=LONGEST => Ok(format!("{ROOM}{room}")),
        _ => Err(SocketError::Room),
    }
}

/// The node that runs the app, while one does.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<RwLock<Option<Arc<Shared>>>>);

impl Running {
    pub(crate) fn set(&self, shared: Option<Arc<Shared>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shared;
    }
}

/// Sends to rooms and routes from anywhere: HTTP handlers, background tasks, other threads. Cheap to clone.
#[derive(Clone)]
pub struct Publisher(pub(super) Running);

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// Sends to every socket in a room, on every node. All receive messages in the same order.
    ///
    /// Returns when the broker has stored the message.
    ///
    /// # Errors
    /// [`SocketError::Publish`] if the broker did not confirm the message, at the latest after
    /// `broker.publish_timeout`. [`SocketError::NotRunning`] before the app runs, and after it has stopped.
    /// [`SocketError::Room`] if the name is empty or longer than 255 bytes.
    pub async fn send_to(&self, room: &str, message: impl Into<Message>) -> Result<(), SocketError> {
        self.publish(channel(room)?, message.into()).await
    }

    /// Sends to every socket of a route, as [`Socket::broadcast`](super::socket::Socket::broadcast) does. `path` is the path given
    /// to [`App::ws`](super::App::ws).
    ///
    /// # Errors
    /// As [`send_to`](Self::send_to).
    pub async fn broadcast(&self, path: &str, message: impl Into<Message>) -> Result<(), SocketError> {
        self.publish(super::route_channel(path), message.into()).await
    }

    async fn publish(&self, channel: String, message: Message) -> Result<(), SocketError> {
        let shared = self.0.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        publish(&*shared.ok_or(SocketError::NotRunning)?, channel, message).await
    }
}

/// Publishes an app's message, and returns when the broker has stored it.
pub(super) async fn publish(shared: &Shared, channel: String, message: Message) -> Result<(), SocketError> {
    let record = NewRecord::new(MessageId::random(), channel, message.into());
    let deadline = Instant::now() + shared.config.broker.publish_timeout;
    let result = shared.log.publish(record, deadline).await;
    shared.metrics.published(&result);
    Ok(result.map(|_at| ())?)
}
