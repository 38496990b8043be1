//! Redeems a ticket: once in the whole cluster, on any node, without asking another one.
//!
//! The node writes a use of the ticket, and reads the log until it meets the first use of it. If that is its own, the ticket
//! is redeemed. So of several nodes that redeem one ticket at once, exactly one does.

use std::pin::pin;
use std::time::Duration;

use broker_adapters::{Log, PublishError};
use tokio::time::timeout;

use super::control::{Control, Made, Used};
use super::{Cluster, State, publish, ticket_hash};
use crate::auth::Refused;

/// How long a node may take to read the record of a ticket that a backend has just been given.
const BEHIND: Duration = Duration::from_secs(1);

/// How long a node may take to read its own record.
const READ: Duration = Duration::from_secs(3);

/// The record of a new ticket, which proves these claims.
pub(crate) fn made(ticket: &str, claims: String) -> Control {
    let made = Made { ticket: format!("{:032x}", ticket_hash(ticket)), claims };
    Control { made: vec![made], ..Control::default() }
}

impl Cluster {
    /// Whether further tickets may be made. `now` is in milliseconds since 1970.
    pub(crate) fn has_room_for_tickets(&self, now: u64) -> bool {
        self.lock().tickets.has_room(now)
    }

    /// Redeems a ticket. Returns the claims that it proves. A ticket that is refused for now may still be valid.
    pub(crate) async fn redeem(&self, log: &Log, ticket: &str, clock: fn() -> u64) -> Result<Box<str>, Refused> {
        if !self.lock().read {
            return Err(Refused::Unavailable);
        }
        let (hash, by) = (ticket_hash(ticket), fastrand::u64(..));
        let known = self.until(|state| match state.tickets.claim(hash, by, clock()) {
            Err(Refused::TicketUnknown) => None,
            claimed => Some(claimed),
        });
        let claims = timeout(BEHIND, known).await.unwrap_or(Err(Refused::TicketUnknown))?;
        let used = Used { ticket: format!("{hash:032x}"), by: format!("{by:x}") };
        match publish(log, &Control { used: vec![used], ..Control::default() }).await {
            Ok(_) | Err(PublishError::Unknown) => {}
            Err(_) => {
                self.lock().tickets.give_back(hash, by);
                return Err(Refused::Unavailable);
            }
        }
        match timeout(READ, self.until(|state| state.tickets.is_first(hash, by))).await {
            Ok(true) => Ok(claims),
            Ok(false) => Err(Refused::TicketUsed),
            Err(_) => Err(Refused::Unavailable),
        }
    }

    /// Waits until `check` returns something; asks it again whenever the tickets have changed.
    async fn until<T>(&self, mut check: impl FnMut(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = check(&mut self.lock()) {
                return found;
            }
            changed.await;
        }
    }
}
