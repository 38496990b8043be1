//! Takes commands from the client's buckets before the gate is asked.

use std::borrow::Cow;
use std::rc::Rc;

use broker_adapters::Position;

use super::Worker;
use super::attending::Seating;
use super::connection::Connection;
use crate::clock;
use crate::close::CloseReason;
use crate::gate::{Identity, Policy, Refusal, Verb};
use crate::protocol::{Command, Failure, Request, Sight};

impl Worker {
    /// Whether the client may send a request now. If not, the request has failed, or the connection ends.
    pub(super) fn is_within_rate(&self, connection: &Connection, request: &Request<'_>) -> bool {
        let verb = match &request.command {
            Command::Subscribe { .. } | Command::Connect { token: Some(_) } | Command::Refresh { .. } => {
                Verb::Subscribe
            }
            Command::Publish { .. } => Verb::Publish,
            Command::History { .. } => Verb::History,
            Command::Presence { .. } => Verb::Presence,
            Command::Connect { token: None } | Command::Unsubscribe { .. } | Command::Ping | Command::Pong => {
                return true;
            }
        };
        let taken = connection.state.borrow_mut().allowance.take(&self.shared.limiter, verb, clock::now());
        self.is_allowed(connection, request.id, taken)
    }

    /// Whether a publish is within the rate of its channel's rule, if the rule has one. If not, as above.
    pub(super) fn is_within_rule(&self, connection: &Connection, id: Option<u64>, policy: Policy) -> bool {
        let Some(rule) = policy.rate else { return true };
        let taken = connection.state.borrow_mut().allowance.take_by_rule(&self.shared.limiter, rule, clock::now());
        self.is_allowed(connection, id, taken)
    }

    fn is_allowed(&self, connection: &Connection, id: Option<u64>, taken: Result<(), Refusal>) -> bool {
        match taken {
            Ok(()) => return true,
            Err(Refusal::Retry(failure)) => {
                self.shared.metrics.limited();
                self.fail(connection, id, &failure);
            }
            Err(Refusal::Close) => self.end(connection, CloseReason::RateLimited),
        }
        false
    }

    /// Counts a subscription for the client's user.
    pub(super) fn take_channel(&self, connection: &Connection) -> Result<(), Failure> {
        connection.state.borrow_mut().allowance.take_channel(&self.shared.limiter)
    }

    /// Subscribes a connection that is not yet subscribed, and counts that for its user.
    pub(super) fn subscribe_counted(
        &self,
        connection: &Connection,
        channel: &str,
        seating: Seating,
    ) -> Result<Position, Failure> {
        self.take_channel(connection)?;
        self.subscribe(connection, channel, seating).inspect_err(|_| connection.give_channel_back())
    }

    /// Subscribes an app's socket to a channel, if it is not subscribed yet, from its client's position if it has one.
    pub(crate) fn join(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: &str,
        since: Option<Position>,
    ) -> Result<(), Failure> {
        if self.subscribed_since(connection, channel).is_some() || connection.is_catching_up(channel) {
            return Ok(());
        }
        let command =
            Command::Subscribe { channel: Cow::Borrowed(channel), since, last: None, presence: Sight::Nothing };
        self.carry_out(connection, Request { id: None, command }, Policy::default())
    }

    /// Has a connection share the limits of its user from now on.
    pub(super) fn share_limits(&self, connection: &Connection, identity: &Identity) {
        let mut allowance = self.shared.limiter.join(identity.user(), connection.peer().0.ip());
        // It keeps what it has, also above the limit.
        for _ in self.channels(connection) {
            let _ = allowance.take_channel(&self.shared.limiter);
        }
        connection.state.borrow_mut().allowance = allowance;
    }
}

impl Connection {
    /// Gives a subscription back that was counted for the client's user.
    pub(super) fn give_channel_back(&self) {
        self.state.borrow_mut().allowance.leave_channel();
    }
}
