//! A worker's part in draining its node: closes every client, in random order and at a steady pace.
//!
//! Loses no acknowledged message. A client whose publishes are unanswered gets the answers before its close frame.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::Worker;
use super::connection::{Connection, GRACE};
use crate::clock;
use crate::close::CloseReason;
use crate::node::drain::{Pace, Phase};

/// The interval at which clients that are due are closed.
const TICK: Duration = Duration::from_millis(10);

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
        // Numbers instead of references, so that a connection that closes by itself is freed.
        let mut open: Vec<_> = self.open().iter().map(|connection| (connection.member, connection.serial)).collect();
        // Clients that connected at the same time are often in the same region. In random order, no region reconnects
        // all at once.
        fastrand::shuffle(&mut open);
        let pace = Pace::new(open.len(), self.shared.config.timing.drain);
        let (begin, all) = (clock::now(), open.len());
        let mut tick = interval(TICK);
        while !open.is_empty() {
            tick.tick().await;
            let left = all - pace.due(clock::now() - begin);
            for (member, serial) in open.drain(left.min(open.len())..) {
                let connection = self.connections.borrow().get(member as usize).cloned();
                if let Some(connection) = connection.filter(|connection| connection.serial == serial) {
                    self.end(&connection, CloseReason::Drain);
                }
            }
        }
        self.empty().await;
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
