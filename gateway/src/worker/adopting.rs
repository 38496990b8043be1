//! A socket becomes a connection: its place, what its client has at once, and its task.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Worker;
use super::arrival::{Arrival, Listening};
use super::attending::Seating;
use super::connection::Connection;
use super::hub::Member;
use crate::auth::Refused;
use crate::clock;
use crate::close::CloseReason;
use crate::protocol::Notice;

impl Worker {
    /// Makes a socket a connection after its handshake. `read` holds the bytes already read from it after the request.
    pub(crate) fn adopt(self: &Rc<Self>, mut arrival: Arrival, read: &[u8]) -> Rc<Connection> {
        let listening = arrival.listening.take();
        let (connection, channel) = self.place(arrival);
        if self.degraded.get() {
            self.notify(&connection, Notice::Degraded(true));
        }
        self.judge_again(&connection);
        self.begin(&connection, listening.map(|listening| *listening), channel.as_deref());
        if self.is_leaving() {
            self.end(&connection, CloseReason::Drain);
        }
        let task = Task { worker: Rc::clone(self), connection: Rc::clone(&connection), reason: None, panicked: false };
        if !read.is_empty() {
            self.receive(&connection, &mut read.to_vec());
        }
        tokio::task::spawn_local(task);
        connection
    }

    /// Gives a new connection its place, its share of the limits, and its timers. Also returns the channel to subscribe it to.
    fn place(&self, arrival: Arrival) -> (Rc<Connection>, Option<String>) {
        let now = clock::now();
        let mut connections = self.connections.borrow_mut();
        let entry = connections.vacant_entry();
        let member = Member::try_from(entry.key()).unwrap_or(Member::MAX);
        let user = arrival.identity.as_ref().and_then(|identity| identity.user());
        let allowance = self.shared.limiter.join(user, arrival.client.0.ip());
        let (connection, channel) = Connection::new((member, self.next_serial()), arrival, allowance, self.started);
        let connection = Rc::new(connection);
        entry.insert(Rc::clone(&connection));
        drop(connections);
        self.shared.metrics.opened(connection.format.resumes());
        self.watch(&connection, now);
        (connection, channel)
    }

    /// Ends a connection whose token was revoked after the handshake's check: that record has passed this worker already.
    fn judge_again(&self, connection: &Connection) {
        match connection.identity().map(|identity| self.check_revoked(&identity)) {
            Some(Err(Refused::Revoked)) => self.end(connection, CloseReason::Unauthorised),
            Some(Err(_)) => self.end(connection, CloseReason::Overload),
            None | Some(Ok(())) => {}
        }
    }

    /// Subscribes a connection to its first channels: those of its request, of its token, or of its app's route.
    fn begin(self: &Rc<Self>, connection: &Rc<Connection>, listening: Option<Listening>, channel: Option<&str>) {
        match (listening, connection.identity(), channel) {
            (Some(listening), ..) => self.listen(connection, listening),
            (None, Some(identity), None) => self.join_first(connection, &identity),
            _ => {}
        }
        if let Some(channel) = channel
            && let Err(failure) = self.subscribe_counted(connection, channel, Seating::default())
        {
            tracing::warn!(channel, why = failure.message, "a socket's channel cannot be read");
            self.end(connection, CloseReason::Overload);
        }
    }
}

/// The task of a connection. Dropping it removes the connection from its worker, also after a panic.
///
/// Written by hand, because the future of an `async` function would take twice the memory of the runtime's task.
pub(super) struct Task {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    reason: Option<CloseReason>,
    panicked: bool,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.connection.poll(&self.worker, cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(reason)) => {
                    self.reason = Some(reason);
                    return Poll::Ready(());
                }
                // Closing the connection panicked as well.
                Err(_) if self.panicked => return Poll::Ready(()),
                Err(_) => {
                    self.panicked = true;
                    self.worker.end(&self.connection, CloseReason::Internal);
                }
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.reason.is_none() {
            // The task was dropped at the drain's deadline, or panicked, so nothing is left to wait for.
            self.connection.reset();
        }
        let cut_off = if self.panicked { CloseReason::Internal } else { CloseReason::GoingAway };
        self.worker.remove(&self.connection, self.reason.unwrap_or(cut_off));
    }
}
