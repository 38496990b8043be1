//! Runs the handlers of an app's sockets.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;

use super::socket::{Socket, SocketError};
use crate::close::CloseReason;

/// The result of a handler. An error closes the socket with a code for reconnecting.
pub type Outcome = Result<(), Box<dyn Error>>;

/// A handler of sockets.
pub(crate) type SocketHandler = Arc<dyn Fn(Socket) -> Pin<Box<dyn Future<Output = Outcome>>> + Send + Sync>;

/// Runs a handler until it returns or panics, and closes its socket with a matching reason.
pub(crate) async fn run(handler: SocketHandler, socket: Socket) {
    let (worker, connection) = (Rc::clone(&socket.worker), Rc::clone(&socket.connection));
    let reason = match AssertUnwindSafe(async { handler(socket).await }).catch_unwind().await {
        Ok(Ok(())) => CloseReason::Normal,
        Ok(Err(error)) => {
            tracing::debug!(peer = %connection.peer(), %error, "a socket's handler failed");
            match error.downcast_ref::<SocketError>() {
                Some(SocketError::Closed) => CloseReason::Normal,
                Some(SocketError::Full | SocketError::Publish(_) | SocketError::NotRunning) => CloseReason::Overload,
                Some(SocketError::Room | SocketError::Join(_)) | None => CloseReason::Internal,
            }
        }
        Err(_panic) => {
            tracing::error!(peer = %connection.peer(), "a socket's handler panicked");
            CloseReason::Internal
        }
    };
    connection.handler_done(&worker, reason);
}
