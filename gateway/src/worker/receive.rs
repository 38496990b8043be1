//! Decodes and handles the bytes that a client sends.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::Worker;
use super::connection::{Connection, Waiting};
use super::pulse::Answer;
use crate::app::message::Message;
use crate::clock;
use crate::close::CloseReason;
use crate::codec::Event;
use crate::protocol::{Incoming, Input};

/// The cost of input after which other connections have their turn, in units of the cheapest command.
const TURN: u32 = 64;

/// The pause after a turn that changed subscriptions. Nothing else limits such commands: a client can subscribe and
/// unsubscribe without end, and without the pause a few sockets could keep whole cores busy.
const REST: Duration = Duration::from_millis(1);

/// How far the input was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handled {
    /// To its end, or until reading paused or the connection began to end.
    All,
    /// To the end of the connection's turn. The rest waits for the next turn.
    Turn,
}

impl Worker {
    /// Handles bytes from a connection's socket.
    pub(super) fn receive(self: &Rc<Self>, connection: &Rc<Connection>, bytes: &mut [u8]) -> Handled {
        if connection.format.is_stream() {
            self.ignore(connection, bytes);
            return Handled::All;
        }
        let now = clock::now();
        let (mut input, mut cost, mut handled) = (bytes, 0, Handled::All);
        let mut rests = false;
        connection.state.borrow_mut().pulse.heard();
        while !connection.is_ending() {
            if connection.paused() {
                let waiting = Waiting { bytes: input.to_vec(), for_turn: false };
                connection.state.borrow_mut().waiting = Some(Box::new(waiting));
                break;
            }
            if cost >= TURN && !input.is_empty() {
                let mut state = connection.state.borrow_mut();
                let waiting = Waiting { bytes: input.to_vec(), for_turn: true };
                (state.waiting, state.resting) = (Some(Box::new(waiting)), rests);
                handled = Handled::Turn;
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
        if handled == Handled::Turn && rests {
            let resting = Rc::clone(connection);
            self.spawn_for(connection, async move {
                sleep(REST).await;
                resting.state.borrow_mut().resting = false;
                resting.wake();
            });
        }
        handled
    }

    /// Queues a frame for one connection, and closes the connection if its outbox is over the limit.
    pub(crate) fn send(&self, connection: &Connection, frame: Bytes) {
        if connection.queue(self, self.backlog.frame(frame)) == super::connection::Queued::Overflow {
            self.end(connection, CloseReason::TooSlow);
        }
    }

    /// Handles one event from the decoder. Returns its cost.
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

    /// Has the connection's protocol read a message, and acts on it. Returns its cost.
    fn read(self: &Rc<Self>, connection: &Rc<Connection>, message: Incoming<'_>) -> u32 {
        self.shared.metrics.received();
        let input = {
            let mut state = connection.state.borrow_mut();
            state.pulse.used = true;
            state.session.read(message)
        };
        match input {
            Input::Command(request) => return self.ask(connection, request),
            Input::Publish(payload) => return self.publish_here(connection, payload),
            Input::Handler(Incoming::Text(text)) => hand_over(connection, Message::Text(text.into_owned())),
            Input::Handler(Incoming::Binary(bytes)) => {
                hand_over(connection, Message::Binary(Bytes::from(bytes.into_owned())));
            }
            Input::Invalid { id, failure } => self.fail(connection, id, &failure),
            Input::Close(reason) => self.end(connection, reason),
            Input::Nothing => {}
        }
        1
    }
}

fn hand_over(connection: &Connection, message: Message) {
    if let Some(inbox) = &mut connection.state.borrow_mut().inbox {
        inbox.push(message);
    }
}
