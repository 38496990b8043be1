//! A worker's part in a shed: its share of the clients that its node gives up, in random order and at a steady pace.
//!
//! A client is moved at most once in a shed: only those that were here when it began are.

use std::future::pending;
use std::rc::Rc;

use super::Worker;
use crate::close::CloseReason;
use crate::cluster::Round;
use crate::node::drain::Pace;

impl Worker {
    /// Carries out each round of a shed until the next one begins, for as long as the worker runs.
    pub(super) async fn shed(self: Rc<Self>) {
        let mut rounds = self.shared.cluster.rounds();
        loop {
            let round = rounds.borrow_and_update().clone();
            let giving = async {
                if let Some(round) = round {
                    self.give_up(&round).await;
                }
                pending::<()>().await;
            };
            tokio::select! {
                changed = rounds.changed() => {
                    if changed.is_err() {
                        // The node has ended. This task is essential, so it must not end before the worker.
                        return pending().await;
                    }
                }
                () = giving => {}
            }
        }
    }

    async fn give_up(&self, round: &Round) {
        let clients = self.numbers(|connection| round.everyone || connection.format.resumes());
        let share = round.share(clients.len());
        self.close_some(clients, Pace::over(share, round.span), CloseReason::Moved, || round.take()).await;
    }
}
