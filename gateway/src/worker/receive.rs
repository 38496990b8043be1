//! What a client's frames do.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::Worker;
use super::connection::Connection;
use super::pulse::Answer;
use crate::app::message::Message;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::Event;
use crate::protocol::{Asked, Incoming};

/// What a connection may cost before others have their turn, in units of a small command.
const TURN: u32 = 64;

/// How long a turn that changed subscriptions keeps the connection from the next. Nothing else bounds such commands, which
/// undo each other: without it, a few sockets would keep whole cores busy.
const REST: Duration = Duration::from_millis(1);

/// How far the bytes of a client were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    /// As far as they, or the client's leave to go on, reach.
    Through,
    /// The connection has had its turn: the rest waits for the next.
    Turn,
}

impl Worker {
    /// Takes bytes from a connection's socket.
    pub(super) fn receive(self: &Rc<Self>, connection: &Rc<Connection>, bytes: &mut [u8]) -> Looked {
        let now = clock::now();
        let (mut input, mut cost, mut looked) = (bytes, 0, Looked::Through);
        let mut rests = false;
        connection.state.borrow_mut().pulse.heard();
        while !connection.is_ending() {
            if connection.paused() {
                connection.state.borrow_mut().waiting = Some(input.to_vec());
                break;
            }
            if cost >= TURN && !input.is_empty() {
                let mut state = connection.state.borrow_mut();
                (state.waiting, state.turned, state.resting) = (Some(input.to_vec()), true, rests);
                looked = Looked::Turn;
                break;
            }
            let event = connection.state.borrow_mut().decoder.next(&mut input, &self.limits, now);
            match event {
                Ok(Some(event)) => {
                    let more = self.handle(connection, event);
                    (cost, rests) = (cost + more, rests || more > 1);
                }
                Ok(None) => break,
                Err(violation) => self.end(connection, violation.into()),
            }
        }
        self.watch_message(connection, now);
        let owed = connection.state.borrow_mut().pulse.owed();
        if let Some(pong) = owed {
            self.send(connection, pong);
        }
        self.flush();
        if looked == Looked::Turn && rests {
            let resting = Rc::clone(connection);
            self.attend(connection, async move {
                sleep(REST).await;
                resting.state.borrow_mut().resting = false;
                resting.wake();
            });
        }
        looked
    }

    /// Queues a frame for one connection.
    pub(crate) fn send(&self, connection: &Connection, frame: Bytes) {
        if connection.queue(self, self.backlog.frame(frame)) == super::connection::Queued::Overflow {
            self.end(connection, CloseReason::TooSlow);
        }
    }

    /// Does what a frame asks for; gives what it has cost.
    fn handle(self: &Rc<Self>, connection: &Rc<Connection>, event: Event<'_>) -> u32 {
        match event {
            Event::Text(text) => return self.read(connection, Incoming::Text(text)),
            Event::Binary(bytes) => return self.read(connection, Incoming::Binary(bytes)),
            Event::Ping(payload) => {
                let second = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
                let most = self.shared.config.limits.pings_per_second;
                let answer = connection.state.borrow_mut().pulse.pinged(&payload, second, most);
                match answer {
                    Answer::Now(pong) => self.send(connection, pong),
                    Answer::Later => {}
                    Answer::Flood => self.end(connection, CloseReason::PingFlood),
                }
            }
            Event::Pong(_) => {}
            Event::Close(frame) => self.end(connection, CloseReason::PeerClosed(frame.map(|frame| frame.code))),
        }
        1
    }

    /// Does what a message asks for, as its protocol reads it; gives what it has cost.
    fn read(self: &Rc<Self>, connection: &Rc<Connection>, message: Incoming<'_>) -> u32 {
        self.shared.metrics.received();
        let asked = {
            let mut state = connection.state.borrow_mut();
            state.pulse.used = true;
            state.session.read(message)
        };
        match asked {
            Asked::For(request) => return self.ask(connection, request),
            Asked::Handler(Incoming::Text(text)) => hand_over(connection, Message::Text(text.into_owned())),
            Asked::Handler(Incoming::Binary(bytes)) => {
                hand_over(connection, Message::Binary(Bytes::from(bytes.into_owned())));
            }
            Asked::Unclear { id, why } => self.fail(connection, id, &why),
            Asked::End(reason) => self.end(connection, reason),
        }
        1
    }
}

fn hand_over(connection: &Connection, message: Message) {
    if let Some(inbox) = &mut connection.state.borrow_mut().inbox {
        inbox.push(message);
    }
}
