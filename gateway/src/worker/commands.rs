//! Carries out clients' commands that the gate has allowed.

use std::rc::Rc;

use broker_adapters::{MessageId, NewRecord, Offset, Partition, Position};
use tokio::time::Instant;

use super::Worker;
use super::attending::Seating;
use super::connection::Connection;
use super::identify::Purpose;
use crate::gate::{Policy, Slow};
use crate::protocol::{Command, Failure, Notice, Output, Reply, Request, message_id};

impl Worker {
    /// Carries out an allowed request. Its reply comes now or later; a failure is returned, and the caller sends it.
    pub(super) fn carry_out(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        request: Request<'_>,
        policy: Policy,
    ) -> Result<(), Failure> {
        let Request { id, command } = request;
        match command {
            Command::Connect { token } => self.connect(connection, id, token),
            Command::Refresh { token } => self.take_token(connection, id, &token, Purpose::Refresh),
            Command::Ping => self.reply(connection, id, &Reply::Done),
            Command::Pong => {}
            Command::Subscribe { channel, since, last, presence } => {
                let seating = Seating { slow: policy.slow, attendance: policy.attendance, sight: presence };
                self.queue_what_waits(connection, &channel);
                if self.repeat_subscribe(connection, id, &channel, (since, seating))? {
                    return Ok(());
                }
                let last = last.map(|last| last.min(policy.last.unwrap_or(last)));
                if since.is_some() || last.is_some() {
                    return self.resume(connection, id, &channel, (since, last), seating);
                }
                self.check_room(connection)?;
                let at = self.subscribe_counted(connection, &channel, seating)?;
                self.reply_subscribed(connection, id, &channel, (at, None, None), seating);
            }
            Command::History { channel, start, limit } => {
                self.history(connection, id, &channel, (start, limit))?;
            }
            Command::Presence { channel, after, limit } => {
                self.reply_members(connection, id, &channel, (after.as_ref(), limit));
            }
            Command::Unsubscribe { channel } => match self.leave(connection, &channel) {
                true => self.reply(connection, id, &Reply::Done),
                false => {
                    return Err(Failure::new("not_subscribed", "this connection is not subscribed to the channel"));
                }
            },
            Command::Publish { channel, payload, key } => {
                if !self.is_within_rule(connection, id, policy) {
                    return Ok(());
                }
                let message = key.map_or_else(MessageId::random, |key| message_id(&channel, &key));
                let mut record = NewRecord::new(message, channel.into_owned(), payload);
                if policy.tell_publisher {
                    record.extensions = self.publisher(connection.identity().as_deref(), connection.serial);
                }
                self.publish(connection, id, record);
            }
        }
        Ok(())
    }

    /// Queues the message of a channel that waits for a socket with room. The reply to a repeated `subscribe` names the
    /// worker's position: a client that resumes from there must not miss that message.
    fn queue_what_waits(&self, connection: &Connection, channel: &str) {
        if let Some(channel) = self.hub.borrow().find(channel) {
            connection.queue_newest(self, channel);
        }
    }

    /// Subscribes a connection that is not yet subscribed. It receives the messages after the returned position.
    /// Accepts any name: the gate has checked names that clients choose, and channels of apps have names that clients
    /// cannot choose.
    pub(super) fn subscribe(
        &self,
        connection: &Connection,
        channel: &str,
        seating: Seating,
    ) -> Result<Position, Failure> {
        let at = self.position(self.shared.log.partition_of(channel))?;
        self.take_seat(connection, channel, at.offset, seating);
        Ok(at)
    }

    /// Adds a connection to a channel's subscribers. It has already been sent all of the channel's messages after
    /// `since`.
    pub(super) fn take_seat(&self, connection: &Connection, channel: &str, since: Offset, seating: Seating) {
        if !connection.is_ending() {
            let seat = self.hub.borrow_mut().subscribe(channel, connection.member, seating.slow == Slow::Latest);
            connection.state.borrow_mut().seats.take(seat, since.0);
            self.attend(connection, seat, channel, seating.attendance);
        }
    }

    /// Fails if a connection is subscribed to as many channels as it may be.
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

    /// The last position seen of a partition. Fails before the broker has been reached for the first time.
    pub(super) fn position(&self, partition: Partition) -> Result<Position, Failure> {
        let at = self.positions.borrow()[usize::from(partition.0)];
        at.ok_or_else(|| Failure::for_now("unavailable", "the broker has not been reached yet"))
    }

    /// The channels that a connection is subscribed to or catching up with.
    pub(super) fn channels(&self, connection: &Connection) -> Vec<Box<str>> {
        let (state, hub) = (connection.state.borrow(), self.hub.borrow());
        let subscribed = state.seats.iter().map(|seat| hub.name(seat.channel).into());
        subscribed.chain(state.returning.iter().flat_map(|returning| returning.names().map(Into::into))).collect()
    }

    /// Ends a subscription or a catch-up. Returns false if there is none.
    pub(crate) fn leave(&self, connection: &Connection, channel: &str) -> bool {
        self.unwatch(connection, channel);
        let id = self.hub.borrow().find(channel);
        let seat = id.and_then(|id| connection.state.borrow_mut().seats.leave(id));
        match seat {
            Some(seat) => {
                connection.forget_latest(seat.channel);
                connection.give_channel_back();
                self.unattend(connection, seat);
                self.give_up_seat(seat);
            }
            None => return self.stop_catch_up(connection, channel),
        }
        true
    }

    /// The offset after which a connection receives all messages of a channel, if it is subscribed.
    pub(super) fn subscribed_since(&self, connection: &Connection, channel: &str) -> Option<u64> {
        let channel = self.hub.borrow().find(channel)?;
        connection.state.borrow().seats.since(channel)
    }

    /// Publishes a message for a connection. While too many of its publishes are unanswered, the connection is not
    /// read.
    fn publish(self: &Rc<Self>, connection: &Rc<Connection>, id: Option<u64>, record: NewRecord) {
        let deadline = Instant::now() + self.shared.config.broker.publish_timeout;
        connection.state.borrow_mut().publishing += 1;
        let published = self.shared.log.publish(record, deadline);
        let (worker, publisher) = (Rc::clone(self), Rc::clone(connection));
        self.spawn_for(connection, async move {
            let result = published.await;
            worker.shared.metrics.published(&result);
            match result {
                Ok(at) => worker.reply(&publisher, id, &Reply::Published { at }),
                Err(error) => {
                    tracing::debug!(peer = %publisher.peer(), %error, "a message was not published");
                    worker.fail(&publisher, id, &error.into());
                }
            }
            publisher.answered(&worker);
            worker.flush_soon();
        });
    }

    /// Replies to `subscribe`: the position, what is said of the client's own one, and the number of last messages; and who is
    /// there, if the client wants to know.
    pub(super) fn reply_subscribed(
        &self,
        connection: &Connection,
        id: Option<u64>,
        channel: &str,
        (at, recovered, last): (Position, Option<bool>, Option<u32>),
        seating: Seating,
    ) {
        let presence = self.watch_members(connection, channel, seating);
        let presence = presence.as_ref();
        self.reply(connection, id, &Reply::Subscribed { channel, at, recovered, last, presence });
    }

    pub(super) fn fail(&self, connection: &Connection, id: Option<u64>, failure: &Failure) {
        self.reply(connection, id, &Reply::Failed(failure));
    }

    pub(super) fn reply(&self, connection: &Connection, id: Option<u64>, reply: &Reply<'_>) {
        let output = connection.format.protocol().reply(id, reply);
        match reply {
            Reply::Subscribed { channel, at, .. } => self.say_at(connection, channel, *at, output),
            _ => self.say(connection, output),
        }
    }

    pub(super) fn notify(&self, connection: &Connection, notice: Notice<'_>) {
        let output = connection.format.protocol().notice(notice);
        match notice {
            Notice::Lost { channel, lost } => self.say_at(connection, channel, lost.at, output),
            _ => self.say(connection, output),
        }
    }

    /// Says something that moves the client in one channel.
    fn say_at(&self, connection: &Connection, channel: &str, at: Position, output: Output) {
        let Output::Message(body) = output else { return self.say(connection, output) };
        let mut event = body.frame();
        if connection.format.has_own_ids() {
            event = connection.own_event(channel, at, &event);
        }
        self.send(connection, connection.seen(event));
    }

    fn say(&self, connection: &Connection, output: Output) {
        match output {
            Output::Message(body) => self.send(connection, body.frame()),
            Output::Nothing => {}
            Output::Close(reason) => self.end(connection, reason),
        }
    }
}
