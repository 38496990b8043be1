//! A worker's part in the end of its node: every client is told to go elsewhere, in random order and at a pace.
//!
//! Loses: nothing that was acknowledged. A client that waits for the answer to a publish has it before it is told.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};

use super::Worker;
use super::connection::{Connection, GRACE};
use crate::clock;
use crate::close::CloseReason;
use crate::node::drain::{Pace, Phase};

/// How often the pace is looked at.
const TICK: Duration = Duration::from_millis(10);

/// How long clients may take to read that they are cut off, when there is no time.
const AT_ONCE: Duration = Duration::from_millis(100);

impl Worker {
    /// Done when the node is over; `clients` is dropped when there are no more, while others may still have some.
    pub(super) async fn drain(self: Rc<Self>, mut phase: watch::Receiver<Phase>, clients: mpsc::Sender<()>) {
        // An error means that the node is gone: there is nobody to wait for.
        let Ok(now) = phase.wait_for(|phase| *phase != Phase::Serving).await.map(|phase| *phase) else { return };
        let deadline = self.shared.config.timing.drain + GRACE;
        self.leaving.set(Some(clock::now() + deadline));
        if now == Phase::Closing {
            let send_away = async {
                self.send_away().await;
                drop(clients);
                // Whoever connects, a balancer's checks among them, has an answer until the whole node is done.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = send_away => {}
                () = sleep(deadline) => {}
                _ = phase.wait_for(|phase| *phase == Phase::Over) => {}
            }
        }
        let open = self.open();
        if open.is_empty() {
            return;
        }
        tracing::warn!(clients = open.len(), "clients that had not left are cut off");
        for connection in &open {
            self.end(connection, CloseReason::GoingAway);
            // At once: its task may not have another turn.
            connection.flush(&self);
        }
        let grace = if *phase.borrow() == Phase::Over { AT_ONCE } else { GRACE };
        // Whoever is left after that is reset with the worker's tasks.
        let _ = timeout(grace, self.empty()).await;
    }

    /// Tells all clients, and waits until they went.
    async fn send_away(&self) {
        // By number, so that whoever leaves on its own is really gone.
        let mut open: Vec<_> = self.open().iter().map(|connection| (connection.member, connection.serial)).collect();
        // Neighbours in time are often neighbours in place: no part of the world should come back at once.
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

    /// Whether the node is going away, and takes no more clients.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get().is_some()
    }

    /// How long a client may take to go. One that is told to go elsewhere has the time that the operator gives all.
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
