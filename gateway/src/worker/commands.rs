//! Carries out what clients of the native and the raw protocol ask for.

use std::rc::Rc;

use broker_adapters::{MessageId, NewRecord, Offset, Partition, Payload, Position, PublishError};
use tokio::time::Instant;

use super::Worker;
use super::connection::Connection;
use crate::close::CloseReason;
use crate::codec::{self, Opcode};
use crate::protocol::native::{self, Command, Failure};

impl Worker {
    /// One text frame of the native protocol; gives what it has cost.
    pub(super) fn command(self: &Rc<Self>, connection: &Rc<Connection>, text: &str) -> u32 {
        let (id, cost, result) = match native::parse(text) {
            Ok(request) => {
                let cost = cost(&request.command);
                (request.id, cost, self.carry_out(connection, request.id, request.command))
            }
            Err((id, failure)) => (id, 1, Err(failure)),
        };
        match result {
            Ok(Some(reply)) => self.reply(connection, &reply),
            Ok(None) => {}
            Err(failure) => self.reply(connection, &native::failed(id, &failure)),
        }
        cost
    }

    /// The reply, unless there is none or it comes later.
    fn carry_out(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        id: Option<u64>,
        command: Command<'_>,
    ) -> Result<Option<String>, Failure> {
        match command {
            Command::Connect => Ok(Some(native::connected(id, &self.shared.name))),
            Command::Ping => Ok(Some(native::done(id))),
            Command::Pong => Ok(None),
            Command::Subscribe { channel, since } => {
                self.check_channel(&channel)?;
                if self.subscribe_again(connection, id, &channel, since)? {
                    return Ok(None);
                }
                match since {
                    Some(since) => self.resume(connection, id, &channel, since).map(|()| None),
                    None => {
                        self.check_room(connection)?;
                        let at = self.subscribe(connection, &channel)?;
                        Ok(Some(native::subscribed(id, &channel, at, None)))
                    }
                }
            }
            Command::Unsubscribe { channel } => match self.unsubscribe(connection, &channel) {
                true => Ok(Some(native::done(id))),
                false => Err(Failure::new("not_subscribed", "this connection is not subscribed to the channel")),
            },
            Command::Publish { channel, payload, key } => {
                self.check_channel(&channel)?;
                let message = key.map_or_else(MessageId::random, |key| native::message_id(&channel, &key));
                let worker = Rc::clone(self);
                let publisher = Rc::clone(connection);
                self.publish(connection, NewRecord::new(message, channel.into_owned(), payload), move |result| {
                    let reply = match result {
                        Ok(at) => native::published(id, at),
                        Err(error) => native::failed(id, &Failure::from(error)),
                    };
                    worker.reply(&publisher, &reply);
                });
                Ok(None)
            }
        }
    }

    /// Subscribes a connection that is not; what it gets comes after the position. Takes any name: only what clients choose
    /// must be checked, and an app's channel has one that they cannot.
    pub(super) fn subscribe(&self, connection: &Connection, channel: &str) -> Result<Position, Failure> {
        let at = self.position(self.shared.log.partition_of(channel))?;
        self.take_seat(connection, channel, at.offset);
        Ok(at)
    }

    /// From now on a connection gets what comes on a channel; it has, or has been given, all since an offset.
    pub(super) fn take_seat(&self, connection: &Connection, channel: &str, since: Offset) {
        if !connection.is_ending() {
            let seat = self.hub.borrow_mut().subscribe(channel, connection.member);
            connection.state.borrow_mut().seats.take(seat, since.0);
        }
    }

    /// Whether a connection may be subscribed to one channel more.
    pub(super) fn check_room(&self, connection: &Connection) -> Result<(), Failure> {
        let most = self.shared.config.limits.channels_per_connection;
        let state = connection.state.borrow();
        let returning = state.returning.as_ref().map_or(0, |returning| returning.len());
        if state.seats.len() + returning >= most {
            let why = format!("a connection may be subscribed to at most {most} channels");
            return Err(Failure::new("too_many_channels", why));
        }
        Ok(())
    }

    /// The last position seen of a partition.
    pub(super) fn position(&self, partition: Partition) -> Result<Position, Failure> {
        self.positions.borrow()[usize::from(partition.0)].ok_or_else(|| Failure {
            code: "unavailable",
            message: "the broker has not been reached yet".to_owned(),
            retry: true,
        })
    }

    fn unsubscribe(&self, connection: &Connection, channel: &str) -> bool {
        let id = self.hub.borrow().find(channel);
        let seat = id.and_then(|id| connection.state.borrow_mut().seats.leave(id));
        match seat {
            Some(seat) => self.give_up_seat(seat),
            None => return self.leave_returning(connection, channel),
        }
        true
    }

    /// The offset since which a connection is subscribed to a channel, if it is.
    pub(super) fn subscribed_since(&self, connection: &Connection, channel: &str) -> Option<u64> {
        let channel = self.hub.borrow().find(channel)?;
        connection.state.borrow().seats.since(channel)
    }

    fn check_channel(&self, name: &str) -> Result<(), Failure> {
        native::check_channel(name, self.shared.config.limits.channel_name.bytes())
    }

    /// One frame of the raw protocol: a message on the connection's only channel.
    pub(super) fn publish_raw(self: &Rc<Self>, connection: &Rc<Connection>, payload: Payload) {
        let Some(seat) = connection.state.borrow().seats.iter().next() else { return };
        let channel = self.hub.borrow().name(seat.channel).to_owned();
        let worker = Rc::clone(self);
        let publisher = Rc::clone(connection);
        self.publish(connection, NewRecord::new(MessageId::random(), channel, payload), move |result| {
            // The protocol has no word for a failure but the end.
            if let Err(error) = result {
                tracing::debug!(peer = %publisher.peer, %error, "a message was not published");
                worker.end(&publisher, CloseReason::Overload);
            }
        });
    }

    /// Publishes for a connection, which is not read while too many of its messages wait.
    fn publish(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        record: NewRecord,
        answered: impl FnOnce(Result<Option<Position>, PublishError>) + 'static,
    ) {
        let deadline = Instant::now() + self.shared.config.broker.publish_timeout;
        connection.state.borrow_mut().publishing += 1;
        let published = self.shared.log.publish(record, deadline);
        let (worker, publisher) = (Rc::clone(self), Rc::clone(connection));
        self.attend(connection, async move {
            let result = published.await;
            worker.shared.metrics.published(&result);
            answered(result);
            publisher.answered(&worker);
            worker.flush_soon();
        });
    }

    pub(super) fn reply(&self, connection: &Connection, text: &str) {
        self.send(connection, codec::frame(Opcode::Text, text.as_bytes()));
    }
}

/// What a command costs, in units of the smallest. Subscriptions change tables, may be answered from the window, and
/// undo each other: they can be sent without an end.
fn cost(command: &Command<'_>) -> u32 {
    match command {
        Command::Subscribe { .. } | Command::Unsubscribe { .. } => 4,
        Command::Connect | Command::Ping | Command::Pong | Command::Publish { .. } => 1,
    }
}
