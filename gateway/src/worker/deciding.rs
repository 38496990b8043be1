//! Asks the gate, and waits where it needs time.
//!
//! A connection that waits is not read, so what it sends later is done later. Decisions that are pending are bounded in
//! number here, and in time by the gate.

use std::cell::Cell;
use std::rc::Rc;

use super::Worker;
use super::connection::Connection;
use crate::gate::{self, Decision, Identity, Pending, Question, Verdict};
use crate::protocol::{Command, Failure, Request};

/// Decisions of one worker that may be pending at a time; further ones are refused.
const MOST: usize = 4096;

/// The number of pending decisions.
#[derive(Debug, Default)]
pub(super) struct Deciding(Rc<Cell<usize>>);

/// A pending decision's place in their number.
struct Place(Rc<Cell<usize>>);

impl Deciding {
    fn place(&self) -> Result<Place, Failure> {
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
    /// Whether a client that is not a connection yet may do something.
    pub(crate) async fn permit(&self, identity: Identity, question: Question<'_>) -> Verdict {
        match self.shared.gate.judge(identity, question) {
            Decision::Now(verdict) => verdict,
            Decision::Later(pending) => {
                let _place = self.deciding.place()?;
                gate::verdict(pending).await
            }
        }
    }

    /// Takes a request; gives what it costs.
    pub(super) fn ask(self: &Rc<Self>, connection: &Rc<Connection>, request: Request<'_>) -> u32 {
        let cost = cost(&request.command);
        let question = match &request.command {
            Command::Subscribe { channel, .. } => Some(Question::Subscribe { channel }),
            Command::Publish { channel, .. } => Some(Question::Publish { channel }),
            Command::Connect | Command::Unsubscribe { .. } | Command::Ping | Command::Pong => None,
        };
        match question.map(|question| self.shared.gate.judge(connection.identity, question)) {
            None => self.decided(connection, request, Ok(())),
            Some(Decision::Now(verdict)) => self.decided(connection, request, verdict),
            Some(Decision::Later(pending)) => self.decide(connection, request.into_owned(), pending),
        }
        cost
    }

    fn decide(self: &Rc<Self>, connection: &Rc<Connection>, request: Request<'static>, pending: Pending) {
        let place = match self.deciding.place() {
            Ok(place) => place,
            Err(failure) => return self.fail(connection, request.id, &failure),
        };
        connection.state.borrow_mut().deciding = true;
        let (worker, asking) = (Rc::clone(self), Rc::clone(connection));
        self.attend(connection, async move {
            let verdict = gate::verdict(pending).await;
            drop(place);
            asking.state.borrow_mut().deciding = false;
            let answers = asking.state.borrow().takes_output();
            if answers {
                worker.decided(&asking, request, verdict);
                worker.flush_soon();
            }
            asking.decided(&worker);
        });
    }

    fn decided(self: &Rc<Self>, connection: &Rc<Connection>, request: Request<'_>, verdict: Verdict) {
        let id = request.id;
        if let Err(failure) = verdict.and_then(|()| self.carry_out(connection, request)) {
            self.fail(connection, id, &failure);
        }
    }
}

/// What a command costs, in units of the cheapest. Subscriptions change tables and may be answered from the window, and
/// since they undo each other a client can send them without end.
fn cost(command: &Command<'_>) -> u32 {
    match command {
        Command::Subscribe { .. } | Command::Unsubscribe { .. } => 4,
        Command::Connect | Command::Ping | Command::Pong | Command::Publish { .. } => 1,
    }
}
