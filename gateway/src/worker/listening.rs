//! Clients whose requests name their channels, and what is special about those that only listen: their heartbeats.
//!
//! A client that only listens answers no ping, so its socket says whether it is alive: the kernel ends a connection whose client accepts
//! nothing, and the node one whose socket stays full.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Worker;
use super::arrival::{Listening, Wanted};
use super::connection::Connection;
use super::timers::Wake;
use crate::close::CloseReason;
use crate::protocol::{Command, Incoming, Input, Notice, Output, Request, Sight};

/// The longest time between two heartbeats, which proxies must see.
const BEAT: Duration = Duration::from_secs(15);

impl Worker {
    /// Subscribes a new connection to the channels that the gate has allowed.
    pub(super) fn listen(self: &Rc<Self>, connection: &Rc<Connection>, listening: Listening) {
        let Listening { opening, channels, last } = listening;
        if !opening.is_empty() {
            self.send(connection, opening);
        }
        for Wanted { channel, since, policy, presence: sees } in channels {
            let command = Command::Subscribe {
                channel: Cow::Borrowed(&channel),
                since,
                last,
                presence: Sight::from(sees == Some(Ok(()))),
            };
            match self.carry_out(connection, Request { id: None, command }, policy) {
                Ok(()) => {
                    if let Some(Err(reason)) = sees {
                        self.notify(connection, Notice::Unseen { channel: &channel, reason });
                    }
                }
                // A WebSocket's protocol closes the connection, with a code that says why.
                Err(failure) if failure.retry || !connection.format.is_stream() => {
                    self.fail(connection, None, &failure)
                }
                Err(failure) => {
                    self.notify(connection, Notice::Unsubscribed { channel: &channel, reason: failure.code });
                }
            }
        }
        if self.channels(connection).is_empty() && !connection.is_ending() {
            self.end(connection, CloseReason::Forbidden);
        }
    }

    /// Takes bytes that came after the request. They have no meaning.
    pub(super) fn ignore(&self, connection: &Connection, bytes: &[u8]) {
        let input = connection.state.borrow_mut().session.read(Incoming::Binary(Cow::Borrowed(bytes)));
        if let Input::Close(reason) = input {
            self.end(connection, reason);
        }
    }

    /// Sends a heartbeat, and sets the next.
    pub(super) fn beat(&self, connection: &Connection, now: Instant) {
        self.watch_expiry(connection);
        connection.state.borrow_mut().pulse.asked(now);
        if let Output::Message(body) = self.ping(connection) {
            let frame = connection.own_ping(self, body.frame());
            connection.queue(self, self.backlog.frame(connection.seen(frame)));
        }
        self.schedule(connection, Wake::Pong, now + self.shared.config.timing.pong.min(self.pace()));
    }

    /// Ends a connection whose socket has been full since the heartbeat, or waits for the next.
    pub(super) fn check_beat(&self, connection: &Connection, now: Instant) {
        let timing = &self.shared.config.timing;
        let waits = connection.is_blocked();
        let due = connection.state.borrow().pulse.due(timing.pong);
        if waits && due <= now {
            self.end(connection, CloseReason::PingTimeout);
        } else if waits {
            self.schedule(connection, Wake::Pong, due);
        } else {
            let rest = self.pace().saturating_sub(timing.pong);
            let jitter = self.pace().mul_f64(fastrand::f64() / 10.0);
            self.schedule(connection, Wake::Ping, now + rest.saturating_sub(jitter));
        }
    }

    /// How long such a client may accept nothing: as long as a WebSocket's client may leave a ping unanswered.
    pub(crate) fn patience(&self) -> Duration {
        self.pace() + self.shared.config.timing.pong
    }

    /// The time between two heartbeats.
    pub(super) fn pace(&self) -> Duration {
        BEAT.min(self.shared.config.timing.ping)
    }
}
