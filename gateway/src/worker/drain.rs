//! A worker's part in draining its node: closes every client, in random order and at a steady pace. A shed closes some in the same
//! way.
//!
//! Loses no acknowledged message. A client whose publishes are unanswered gets the answers before its close frame.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::Worker;
use super::connection::{Connection, GRACE};
use super::hub::Member;
use crate::clock;
use crate::close::CloseReason;
use crate::node::drain::{Pace, Phase};

/// The interval at which clients that are due are closed.
const TICK: Duration = Duration::from_millis(10);

/// The member and the serial of a client.
type Numbers = (Member, u32);

/// How long clients have to close after their close frame, if the operator has cut the drain short.
const AT_ONCE: Duration = Duration::from_millis(100);

impl Worker {
    /// Ends when the node's drain is over. Drops `clients` when this worker has no connections left, which may be
    /// before other workers.
    pub(super) async fn drain(self: Rc<Self>, mut phase: watch::Receiver<Phase>, clients: mpsc::Sender<()>) {
        // An error means that the node was dropped, so there is nothing to drain for.
        let Ok(now) = phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase) else { return };
        let deadline = self.shared.config.timing.drain + GRACE;
        self.leaving.set(Some(clock::now() + deadline));
        if now == Phase::Closing {
            let closing = async {
                self.close_all().await;
                drop(clients);
                // Keeps answering new sockets, such as a balancer's checks, until the whole node has drained.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = closing => {}
                () = sleep(deadline) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
            }
        }
        let open = self.open();
        if open.is_empty() {
            return;
        }
        tracing::warn!(clients = open.len(), "clients that had not closed in time are cut off");
        for connection in &open {
            self.end(connection, CloseReason::GoingAway);
            // Written here, because the connection's task may not run again.
            connection.flush(&self);
        }
        let grace = if *phase.borrow() == Phase::Over { AT_ONCE } else { GRACE };
        // Dropping the worker's tasks resets the connections that are left.
        let _ = timeout(grace, self.empty()).await;
    }

    /// Closes all clients at the pace of the drain, and waits until they are gone.
    async fn close_all(&self) {
        let open = self.numbers(|_| true);
        let pace = Pace::new(open.len(), self.shared.config.timing.drain);
        self.close_some(open, pace, CloseReason::Drain, || true).await;
        self.empty().await;
    }

    /// Closes as many of these clients as the pace says. Before each one it asks whether it may: while it may not, the pace
    /// stands still.
    pub(super) async fn close_some(
        &self,
        mut open: Vec<Numbers>,
        pace: Pace,
        reason: CloseReason,
        may: impl Fn() -> bool,
    ) {
        // Clients that connected at the same time are often in the same region. In random order, no region reconnects
        // all at once.
        fastrand::shuffle(&mut open);
        let (mut begin, mut last, mut closed) = (clock::now(), clock::now(), 0);
        let mut tick = interval(TICK);
        while closed < pace.clients() {
            tick.tick().await;
            let now = clock::now();
            while closed < pace.due(now - begin) {
                let Some(numbers) = open.pop() else { return };
                let Some(connection) = self.find(numbers) else { continue };
                if !may() {
                    open.push(numbers);
                    begin += now - last;
                    break;
                }
                self.end(&connection, reason);
                closed += 1;
            }
            last = now;
        }
    }

    /// The clients that are wanted: numbers instead of references, so that a connection that closes by itself is freed.
    pub(super) fn numbers(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<Numbers> {
        let connections = self.connections.borrow();
        let wanted = connections.iter().filter(|(_, connection)| wanted(connection));
        wanted.map(|(_, connection)| (connection.member, connection.serial)).collect()
    }

    fn find(&self, (member, serial): Numbers) -> Option<Rc<Connection>> {
        let connection = self.connections.borrow().get(member as usize).cloned();
        connection.filter(|connection| connection.serial == serial && !connection.is_ending())
    }

    /// Whether the node is draining and accepts no more clients.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get().is_some()
    }

    /// How long a client may take to close. A client that is closed by the drain has until the drain's deadline, but at
    /// least [`GRACE`].
    pub(super) fn grace(&self, reason: CloseReason) -> Duration {
        let left = self.leaving.get().filter(|_| reason == CloseReason::Drain);
        left.map_or(GRACE, |deadline| deadline.saturating_duration_since(clock::now()).max(GRACE))
    }

    fn open(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().iter().map(|(_, connection)| Rc::clone(connection)).collect()
    }

    async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.connections.borrow().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}
