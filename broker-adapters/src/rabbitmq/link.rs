//! Connections to RabbitMQ: made here, never repaired; a broken one is replaced by its next user.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use lapin::message::BasicReturnMessage;
use lapin::{Channel, Connection, Consumer};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::agree::watch;
use super::append::Press;
use super::wire::Hangup;
use super::words::failed;
use crate::broker::LinkError;
use crate::stored::position::Epoch;

/// How long RabbitMQ has to answer a farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// One connection. Dropping it closes it.
pub(super) struct Link {
    connection: Option<Connection>,
    hangup: Option<Hangup>,
    /// The log that it leads to.
    pub(super) epoch: Epoch,
    /// Done when the log is another one or the connection failed. A reader takes it.
    watch: Mutex<Option<BoxFuture<'static, LinkError>>>,
    given_up: AtomicBool,
    /// What an appender needs, once one came.
    pub(super) press: tokio::sync::Mutex<Option<Press>>,
    /// What RabbitMQ sent back. The connection is given up soon after.
    pub(super) returned: Mutex<Vec<BasicReturnMessage>>,
}

impl Link {
    /// A connection to the log of this epoch, whose settings it watches.
    pub(super) fn new(connection: Connection, hangup: Hangup, epoch: Epoch, settings: Consumer) -> Self {
        Self {
            connection: Some(connection),
            hangup: Some(hangup),
            epoch,
            watch: Mutex::new(Some(watch(settings).boxed())),
            given_up: AtomicBool::new(false),
            press: tokio::sync::Mutex::default(),
            returned: Mutex::default(),
        }
    }

    pub(super) async fn channel(&self) -> Result<Channel, LinkError> {
        let connection = self.connection.as_ref().ok_or_else(|| LinkError::new("closed"))?;
        connection.create_channel().await.map_err(|error| failed(&error))
    }

    /// Whether it may be used for a new request.
    pub(super) fn usable(&self) -> bool {
        let connected = self.connection.as_ref().is_some_and(|connection| connection.status().connected());
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.as_mut().is_some_and(|watch| watch.now_or_never().is_some()) {
            *watch = None;
            self.give_up();
        }
        connected && !self.given_up.load(Ordering::Relaxed)
    }

    /// What says when the log is another one. The taker watches it from now on.
    pub(super) fn take_watch(&self) -> Option<BoxFuture<'static, LinkError>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether RabbitMQ takes no publishes for now: it is short of memory or disk.
    pub(super) fn blocked(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.status().blocked())
    }

    /// No new request will use it; those under way may still be answered.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Says farewell and hangs up.
    pub(super) async fn close(&self) {
        self.give_up();
        if let Some(connection) = &self.connection {
            let _ = timeout(FAREWELL, connection.close(200, "closed".into())).await;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let (connection, hangup) = (self.connection.take(), self.hangup.take());
        // The client library says farewell as it is dropped, and would wait for the answer for ever.
        if connection.is_some_and(|connection| connection.status().connected())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                sleep(FAREWELL).await;
                drop(hangup);
            });
        }
    }
}
