//! Who the client of a connection is: takes its token, renews it, and closes the connection when the token ends.
//!
//! While a token is checked the connection is not read, so its commands act in order. A client that has to prove who it is
//! can do nothing else before that.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker_adapters::{Extension, Extensions};
use tokio::time::timeout;

use super::Worker;
use super::connection::Connection;
use super::timers::Wake;
use crate::auth::{LEEWAY, Refused, Verification};
use crate::close::CloseReason;
use crate::gate::{Identity, Question};
use crate::node::metrics::Refused as Refusal;
use crate::protocol::{Command, Failure, Notice, Reply, Request, Sight, Token};

/// How long a client has to prove who it is, and how long a check of its token may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Connect,
    Refresh,
}

impl Worker {
    /// Checks a token for a client that has no connection yet.
    pub(crate) async fn identify(&self, token: &str) -> Result<Arc<Identity>, Refused> {
        let identity = match self.shared.auth.verify(token, self.now()) {
            Verification::Now(identity) => identity,
            Verification::Later(pending) => match self.deciding.place() {
                Ok(_place) => timeout(PATIENCE, pending).await.unwrap_or(Err(Refused::Unavailable)),
                Err(_) => Err(Refused::Unavailable),
            },
        }?;
        self.check_revoked(&identity)?;
        Ok(identity)
    }

    /// Fails if the identity's token has been revoked, or if this node cannot know that yet.
    pub(super) fn check_revoked(&self, identity: &Identity) -> Result<(), Refused> {
        let (cluster, longest) = (&self.shared.cluster, self.shared.auth.longest());
        match identity.token {
            None => Ok(()),
            Some(_) if !cluster.knows_revocations() => Err(Refused::Unavailable),
            Some(_) if cluster.is_revoked(identity, longest) => Err(Refused::Revoked),
            Some(_) => Ok(()),
        }
    }

    /// Handles `connect`.
    pub(super) fn connect(self: &Rc<Self>, connection: &Rc<Connection>, id: Option<u64>, token: Option<Token<'_>>) {
        match (token, connection.identity()) {
            (Some(token), _) => self.take_token(connection, id, &token, Purpose::Connect),
            (None, Some(identity)) => self.greet(connection, id, &identity),
            (None, None) => self.fail(connection, id, &unproven()),
        }
    }

    /// Checks a token and gives the connection its identity. The reply comes later.
    pub(super) fn take_token(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        Token(token): &Token<'_>,
        purpose: Purpose,
    ) {
        let verification = self.shared.auth.verify(token, self.now());
        let place = match self.deciding.place() {
            Ok(place) => place,
            Err(failure) => return self.fail(connection, id, &failure),
        };
        connection.state.borrow_mut().deciding += 1;
        let (worker, asking) = (Rc::clone(self), Rc::clone(connection));
        self.spawn_for(connection, async move {
            let verified = match verification {
                Verification::Now(verified) => verified,
                Verification::Later(pending) => timeout(PATIENCE, pending).await.unwrap_or(Err(Refused::Unavailable)),
            };
            drop(place);
            let accepted = worker.accept_identity(&asking, verified);
            if let Ok(identity) = &accepted {
                worker.withdraw(&asking, identity).await;
            }
            asking.state.borrow_mut().deciding -= 1;
            let answers = asking.state.borrow().takes_output();
            if answers {
                worker.answer_token(&asking, id, accepted, purpose);
                worker.flush_soon();
            }
            asking.decided(&worker);
        });
    }

    /// Gives a connection the identity of a checked token, unless it may not have it.
    fn accept_identity(
        &self,
        connection: &Connection,
        verified: Result<Arc<Identity>, Refused>,
    ) -> Result<Arc<Identity>, Failure> {
        let known = connection.identity();
        let checked = verified.and_then(|identity| self.check_revoked(&identity).map(|()| identity));
        let identity = checked.map_err(|refused| {
            self.shared.metrics.refused(Refusal::Token);
            Failure::from(refused)
        })?;
        if known.as_ref().is_some_and(|known| known.user.is_some() && known.user != identity.user) {
            return Err(Failure::new("forbidden", "the token is of another user: open another connection for it"));
        }
        if known.is_none_or(|known| known.user != identity.user) {
            self.share_limits(connection, &identity);
        }
        self.rename(connection, Arc::clone(&identity));
        self.watch_expiry(connection);
        Ok(identity)
    }

    fn answer_token(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        accepted: Result<Arc<Identity>, Failure>,
        purpose: Purpose,
    ) {
        match (accepted, purpose) {
            (Ok(identity), Purpose::Connect) => {
                self.greet(connection, id, &identity);
                self.join_first(connection, &identity);
            }
            (Ok(identity), Purpose::Refresh) => {
                self.reply(connection, id, &Reply::Refreshed { expires_in: self.expires_in(&identity) });
            }
            (Err(failure), _) => {
                self.fail(connection, id, &failure);
                if connection.identity().is_none() && !failure.retry {
                    self.end(connection, CloseReason::Unauthorised);
                }
            }
        }
    }

    /// Subscribes a client to the channels that its token names, as if it had asked for them.
    pub(super) fn join_first(self: &Rc<Self>, connection: &Rc<Connection>, identity: &Identity) {
        for channel in identity.subscribe() {
            let channel = channel.to_string().into();
            let command = Command::Subscribe { channel, since: None, last: None, presence: Sight::Nothing };
            self.ask(connection, Request { id: None, command });
        }
    }

    /// Ends the subscriptions, and the waiting `history` commands, that a new identity may not have.
    async fn withdraw(self: &Rc<Self>, connection: &Rc<Connection>, identity: &Arc<Identity>) {
        for channel in self.channels(connection) {
            let Err(failure) = self.permit(identity, Question::Subscribe { channel: &channel }).await else { continue };
            // A decision that could not be made takes nothing away: the right is judged again at the next refresh.
            if !failure.retry && self.leave(connection, &channel) {
                self.notify(connection, Notice::Unsubscribed { channel: &channel, reason: "forbidden" });
            }
        }
        self.withdraw_watches(connection, identity).await;
        self.withdraw_histories(connection, identity).await;
    }

    fn greet(&self, connection: &Connection, id: Option<u64>, identity: &Identity) {
        let client = self.client_id(connection.serial);
        let (user, expires_in) = (identity.user(), self.expires_in(identity));
        self.reply(connection, id, &Reply::Connected { node: &self.shared.name, client: &client, user, expires_in });
    }

    /// The names of a message's publisher, which its subscribers receive.
    pub(super) fn publisher(&self, identity: Option<&Identity>, client: u32) -> Extensions {
        let user = identity.and_then(Identity::user);
        let named = Extensions::default().with(Extension::Client, &self.client_id(client));
        // Names of users are short, so both fit.
        let named = named.and_then(|named| user.map_or(Ok(named.clone()), |user| named.with(Extension::User, user)));
        named.unwrap_or_default()
    }

    /// The id of the client with a serial: unlike that of any other client in the cluster.
    pub(super) fn client_id(&self, serial: u32) -> String {
        let (worker, serial) = (self.number.to_be_bytes(), serial.to_be_bytes());
        URL_SAFE_NO_PAD.encode([&worker[..], &serial[..]].concat())
    }

    /// The seconds until an identity's token expires.
    fn expires_in(&self, identity: &Identity) -> Option<u64> {
        let token = identity.token.filter(|token| token.ends())?;
        Some(token.expires().saturating_sub(self.now()))
    }

    /// Seconds since 1970.
    fn now(&self) -> u64 {
        (self.shared.clock)() / 1000
    }

    /// Sets the timers for the identity of a new connection.
    pub(super) fn watch_identity(&self, connection: &Connection, now: Instant) {
        match connection.identity() {
            None => self.schedule(connection, Wake::Identity, now + PATIENCE),
            Some(_) => self.watch_expiry(connection),
        }
    }

    /// Sets a timer for the end of a token that ends before the next ping. Each ping calls this again.
    pub(super) fn watch_expiry(&self, connection: &Connection) {
        let Some(left) = self.time_left(connection) else { return };
        if left <= 2 * self.shared.config.timing.ping {
            self.schedule(connection, Wake::Identity, crate::clock::now() + left);
        }
    }

    /// Closes a connection whose client has not proven who it is, or whose token has ended.
    pub(super) fn check_identity(&self, connection: &Connection) {
        let deciding = connection.state.borrow().deciding > 0;
        if connection.identity().is_none() {
            self.end(connection, if deciding { CloseReason::AuthTimeout } else { CloseReason::Unauthorised });
        } else if self.time_left(connection).is_some_and(|left| left.is_zero()) {
            self.end(connection, CloseReason::Unauthorised);
        }
    }

    /// The time until a connection's token and the leeway have ended.
    fn time_left(&self, connection: &Connection) -> Option<Duration> {
        let token = connection.identity()?.token.filter(|token| token.ends())?;
        let end = token.expires().saturating_add(LEEWAY);
        Some(Duration::from_millis((end.saturating_mul(1000)).saturating_sub((self.shared.clock)())))
    }

    /// Closes the connections whose tokens are revoked.
    pub(super) fn end_revoked(&self) {
        let (cluster, longest) = (&self.shared.cluster, self.shared.auth.longest());
        let revoked = |connection: &Connection| {
            connection.identity().is_some_and(|identity| cluster.is_revoked(&identity, longest))
        };
        let all: Vec<_> = self.connections.borrow().iter().map(|(_, one)| Rc::clone(one)).collect();
        for connection in all.iter().filter(|connection| revoked(connection)) {
            self.end(connection, CloseReason::Unauthorised);
        }
        self.flush();
    }
}

/// The failure of a command whose client has not proven who it is.
pub(super) fn unproven() -> Failure {
    Failure::new("unauthorised", "prove who you are first: {\"connect\":{\"token\":\"…\"}}")
}
