//! Asks the gate whether a command is allowed, and waits if the decision takes time.
//!
//! While a decision is pending the connection is not read, so its commands act in order. The number of pending
//! decisions is limited here; the gate limits their time.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use broker_adapters::Payload;

use super::Worker;
use super::connection::Connection;
use super::identify::unproven;
use crate::gate::{self, Decision, Identity, Pending, Permission, Question, Verdict, Visitor};
use crate::protocol::{Command, Failure, Request, Sight};

/// The most decisions of one worker that may be pending; further commands are refused.
const MOST: usize = 4096;

/// The number of pending decisions.
#[derive(Debug, Default)]
pub(super) struct Deciding(Rc<Cell<usize>>);

/// Counts one pending decision until it is dropped.
pub(super) struct Place(Rc<Cell<usize>>);

impl Deciding {
    pub(super) fn place(&self) -> Result<Place, Failure> {
        if self.0.get() >= MOST {
            return Err(gate::too_many());
        }
        self.0.set(self.0.get() + 1);
        Ok(Place(Rc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Worker {
    /// Asks the gate about a client that has no connection yet. Fails if it is not allowed or not decided in time.
    pub(crate) async fn permit(&self, identity: &Arc<Identity>, question: Question<'_>) -> Verdict {
        Ok(self.permission(identity, question).await?.policy)
    }

    /// As [`permit`](Self::permit), with the message that a backend puts in place of the client's.
    pub(super) async fn permission(
        &self,
        identity: &Arc<Identity>,
        question: Question<'_>,
    ) -> Result<Permission, Failure> {
        match self.shared.gate.judge(identity, question) {
            Decision::Now(verdict) => verdict.map(Permission::from),
            Decision::Later(pending) => {
                let _place = self.deciding.place()?;
                gate::verdict(pending).await
            }
        }
    }

    /// Who a client without a token is, if a backend is asked about such clients.
    pub(crate) async fn introduce(&self, visitor: &Visitor<'_>) -> Option<Result<Arc<Identity>, Failure>> {
        let pending = self.shared.gate.introduce(visitor)?;
        let introduced = async {
            let _place = self.deciding.place()?;
            let identity = pending.await?;
            self.check_revoked(&identity)?;
            Ok(identity)
        };
        Some(introduced.await)
    }

    /// Judges a request and carries it out now or later. Returns its cost.
    pub(super) fn ask(self: &Rc<Self>, connection: &Rc<Connection>, request: Request<'_>) -> u32 {
        let cost = cost(&request.command);
        if !self.is_within_rate(connection, &request) {
            return cost;
        }
        let Some(identity) = self.known(connection, &request) else { return cost };
        let question = match &request.command {
            Command::Subscribe { channel, .. } => Some(Question::Subscribe { channel }),
            Command::Publish { channel, payload, .. } => Some(Question::Publish { channel, payload }),
            Command::History { channel, .. } => Some(Question::History { channel }),
            Command::Presence { channel, .. } => Some(Question::Presence { channel }),
            Command::Connect { .. }
            | Command::Refresh { .. }
            | Command::Unsubscribe { .. }
            | Command::Ping
            | Command::Pong => None,
        };
        let decision = question.map(|question| self.shared.gate.judge(&identity, question));
        match self.with_presence(&identity, &request.command, decision) {
            None => self.decided(connection, request, Ok(Permission::default())),
            Some(Decision::Now(verdict)) => self.decided(connection, request, verdict.map(Permission::from)),
            Some(Decision::Later(pending)) => self.decide(connection, request.into_owned(), pending),
        }
        cost
    }

    /// Judges also whether a client that subscribes may see who is there, if it wants to.
    fn with_presence(
        &self,
        identity: &Arc<Identity>,
        command: &Command<'_>,
        decision: Option<Decision>,
    ) -> Option<Decision> {
        let Command::Subscribe { channel, presence: Sight::Usual | Sight::All, .. } = command else { return decision };
        let sees = self.shared.gate.judge(identity, Question::Presence { channel });
        Some(match (decision?, sees) {
            (Decision::Now(Err(failure)), _) | (_, Decision::Now(Err(failure))) => Decision::Now(Err(failure)),
            (subscribes, Decision::Now(Ok(_))) => subscribes,
            (Decision::Now(policy), Decision::Later(sees)) => {
                Decision::Later(Box::pin(async move { gate::verdict(sees).await.and(policy.map(Permission::from)) }))
            }
            (Decision::Later(subscribes), Decision::Later(sees)) => Decision::Later(Box::pin(async move {
                let policy = gate::verdict(subscribes).await?;
                gate::verdict(sees).await.map(|_| policy)
            })),
        })
    }

    /// The identity to judge a request by. `None`, and the request has failed, if the client must prove who it is first.
    fn known(&self, connection: &Connection, request: &Request<'_>) -> Option<Arc<Identity>> {
        match (connection.identity(), &request.command) {
            (Some(identity), _) => Some(identity),
            (None, Command::Connect { .. } | Command::Ping | Command::Pong) => Some(Identity::anonymous()),
            (None, _) => {
                self.fail(connection, request.id, &unproven());
                None
            }
        }
    }

    /// Publishes on the channel that the connection's path names: its only one. Returns the cost.
    pub(super) fn publish_here(self: &Rc<Self>, connection: &Rc<Connection>, payload: Payload) -> u32 {
        let Some(channel) = self.channels(connection).into_iter().next() else { return 1 };
        let channel = String::from(channel);
        let command = Command::Publish { channel: channel.into(), payload, key: None };
        self.ask(connection, Request { id: None, command })
    }

    fn decide(self: &Rc<Self>, connection: &Rc<Connection>, request: Request<'static>, pending: Pending) {
        let place = match self.deciding.place() {
            Ok(place) => place,
            Err(failure) => return self.fail(connection, request.id, &failure),
        };
        connection.state.borrow_mut().deciding += 1;
        let (worker, asking) = (Rc::clone(self), Rc::clone(connection));
        self.spawn_for(connection, async move {
            let verdict = gate::verdict(pending).await;
            drop(place);
            asking.state.borrow_mut().deciding -= 1;
            let answers = asking.state.borrow().takes_output();
            if answers {
                worker.decided(&asking, request, verdict);
                worker.flush_soon();
            }
            asking.decided(&worker);
        });
    }

    fn decided(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        mut request: Request<'_>,
        permission: Result<Permission, Failure>,
    ) {
        let id = request.id;
        let done = permission.and_then(|Permission { policy, payload: other }| {
            if let (Command::Publish { payload, .. }, Some(other)) = (&mut request.command, other) {
                *payload = other;
            }
            self.carry_out(connection, request, policy)
        });
        if let Err(failure) = done {
            self.fail(connection, id, &failure);
        }
    }
}

/// The cost of a command, in units of the cheapest. Subscriptions cost more: they change tables and may read the
/// window, as `history` and `presence` read many entries, and a client can subscribe and unsubscribe without end.
fn cost(command: &Command<'_>) -> u32 {
    match command {
        Command::Subscribe { .. }
        | Command::Unsubscribe { .. }
        | Command::History { .. }
        | Command::Presence { .. } => 4,
        // A signature is checked.
        Command::Connect { token: Some(_) } | Command::Refresh { .. } => 16,
        Command::Connect { token: None } | Command::Ping | Command::Pong | Command::Publish { .. } => 1,
    }
}
